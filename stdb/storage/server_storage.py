"""Where a server keeps its databases: the data directory as a host needs it.

Responsible for: opening logs and module logs by identity, telling the event loop what became durable, deleting.
Not responsible for: the layout (`data_directory`), what the files hold (`control`, `log`, `module_log`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, TypeVarTuple, Unpack

import trio

from stdb.errors import StorageError
from stdb.storage.backup import remove_file
from stdb.storage.control import Control
from stdb.storage.data_directory import DataDirectory
from stdb.storage.history import FileHistory
from stdb.storage.log import SqliteLog
from stdb.storage.module_log import ModuleLog
from stdb.storage.retention import DEFAULT_RETENTION, Retention

__all__ = ["PART_SUFFIX", "ServerStorage"]

PART_SUFFIX = ".part"
"""What ends the names of files beside the databases that are made or sent right now, and are nothing after a crash."""

Args = TypeVarTuple("Args")
Result = TypeVar("Result")

_SUFFIXES = ("", "-wal", "-shm")


class ServerStorage:
    """A `stdb.actors.host.Storage` on disk; made inside the event loop that it tells about durability."""

    def __init__(self, directory: DataDirectory, now_us: Callable[[], int]) -> None:
        """Open the control store of `directory`, which stays the caller's.

        Raises:
            StorageError: The control store cannot be read, or is missing where there are databases.
        """
        _check_control_store(directory)
        for leftover in directory.control_path.with_name("databases").glob(f"*{PART_SUFFIX}*"):
            remove_file(leftover)
        self.control = Control(str(directory.control_path))
        self._directory = directory
        self._now_us = now_us
        self._loop = trio.lowlevel.current_trio_token()
        self._module_logs: dict[bytes, ModuleLog] = {}

    def open_log(self, identity: bytes, on_durable: Callable[[int], None]) -> SqliteLog:
        """Open or make the log of a database; `on_durable` runs in the event loop."""

        def tell(durable: int) -> None:
            self._loop.run_sync_soon(on_durable, durable)

        def retention() -> Retention:
            database = self.control.database(identity)
            return DEFAULT_RETENTION if database is None else database.retention

        return SqliteLog(self._directory.database_path(identity), tell, retention=retention)

    def open_history(self, identity: bytes) -> FileHistory:
        """Open what the file of a database has stored, at this moment; to be closed in the same thread."""
        return FileHistory(self._directory.database_path(identity))

    def database_path(self, identity: bytes) -> Path:
        """Return where the file of a database is, or would be."""
        return self._directory.database_path(identity)

    async def run(self, function: Callable[[Unpack[Args]], Result], *args: *Args) -> Result:
        """Call a function that waits for the disk in a thread."""
        return await trio.to_thread.run_sync(function, *args)

    def module_log(self, identity: bytes) -> ModuleLog:
        """Return the module log of a database; the same object every time."""
        log = self._module_logs.get(identity)
        if log is None:
            log = self._module_logs[identity] = ModuleLog(self._directory.module_log_path(identity), self._now_us)
        return log

    def delete_database(self, identity: bytes) -> None:
        """Remove the log of a database, which is closed.

        Raises:
            StorageError: A file is there and cannot be removed.
        """
        path = self._directory.database_path(identity)
        try:
            for suffix in _SUFFIXES:
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot remove {path}: {error}") from error

    def close(self) -> None:
        """Close the control store and the module logs."""
        for log in self._module_logs.values():
            log.close()
        self.control.close()


def _check_control_store(directory: DataDirectory) -> None:
    """Refuse to begin anew beside databases that nobody would know of any more."""
    path = directory.control_path
    is_there = path.exists() and path.stat().st_size > 0
    orphan = None if is_there else next((path.parent / "databases").glob("*.sqlite"), None)
    if orphan is not None:
        raise StorageError(
            f"control store {path}: it is missing or empty, but there are databases, like {orphan.name}; "
            "put it back from a backup, or choose another --data-dir"
        )
