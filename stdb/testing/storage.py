"""Storage in memory that outlives the host using it: restarts, crashes, slow and broken disks.

Responsible for: `MemoryStorage`, a `stdb.actors.host.Storage`; `DiskLog`, a log that can be opened again.
Not responsible for: real files (`stdb.storage`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar, TypeVarTuple, Unpack

import trio

from stdb.datastore.delta import Delta
from stdb.datastore.log import MemoryLog
from stdb.datastore.records import Record
from stdb.errors import StorageError
from stdb.storage.control import Control
from stdb.storage.module_log import ModuleLog

Result = TypeVar("Result")
Args = TypeVarTuple("Args")

__all__ = ["DiskLog", "MemoryHistory", "MemoryStorage"]


class DiskLog(MemoryLog):
    """One database's log. `is_broken` lets the next append fail as a full disk does."""

    def __init__(self, *, delayed: bool, merging: bool = False) -> None:
        super().__init__(delayed=delayed, merging=merging, on_durable=self._tell)
        self.is_broken = False
        self.is_open = False
        self._listener: Callable[[int], None] | None = None

    def open(self, on_durable: Callable[[int], None]) -> "DiskLog":
        """Open it, for the first time or again."""
        assert not self.is_open, "the log is open already"
        self.is_open = True
        self._listener = on_durable
        return self

    def append_nowait(self, records: Sequence[bytes], deltas: Sequence[Delta] = (), *, more: bool = False) -> None:
        """Append records. Raises StorageError when broken."""
        assert self.is_open, "the log is closed"
        if self.is_broken:
            raise StorageError("database or disk is full")
        super().append_nowait(records, deltas, more=more)

    def close(self) -> None:
        """Make everything durable and let go of it."""
        if not self.is_broken:
            super().close()
        self.is_open = False
        self._listener = None

    def crash(self, surviving: int = 0) -> None:
        """Lose what is not durable, as a process that is killed does; see `MemoryLog.crash`."""
        self.is_open = False
        self._listener = None
        super().crash(surviving)

    def _tell(self, durable: int) -> None:
        if self._listener is not None:
            self._listener(durable)


class MemoryHistory:
    """A `stdb.datastore.history.History` of a log in memory, which grows behind it."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.first, self.end, self.rows = log.first, log.durable, log.rows

    def records(self, from_offset: int) -> Iterator[Record]:
        """Yield the records from an offset on."""
        return islice(self._log.records(from_offset), self.end - from_offset)

    def backwards(self, below: int, to_offset: int) -> Iterator[Record]:
        """Yield the records from the one before `below` down to `to_offset`."""
        for offset in range(below - 1, to_offset - 1, -1):
            yield next(self._log.records(offset))


class MemoryStorage:
    """A data directory in memory. With `delayed`, nothing is durable before `sync` or the log's own `sync`.

    With `merging`, the logs have stored rows, which follow when their `merge` is called.
    """

    def __init__(self, *, delayed: bool = False, merging: bool = False, now_us: Callable[[], int] = lambda: 0) -> None:
        self.control = Control()
        self.logs: dict[bytes, DiskLog] = {}
        self._delayed = delayed
        self._merging = merging
        self._now_us = now_us
        self._module_logs: dict[bytes, ModuleLog] = {}

    @contextmanager
    def open_history(self, identity: bytes) -> Iterator["MemoryHistory"]:
        """Hold what the log of a database has stored."""
        yield MemoryHistory(self.logs[identity])

    def database_path(self, identity: bytes) -> None:
        """Return None: nothing is in a file."""

    def open_log(self, identity: bytes, on_durable: Callable[[int], None]) -> DiskLog:
        """Open or make the log of a database."""
        log = self.logs.get(identity)
        if log is None:
            log = self.logs[identity] = DiskLog(delayed=self._delayed, merging=self._merging)
        return log.open(on_durable)

    async def run(self, function: Callable[[Unpack[Args]], Result], *args: *Args) -> Result:
        """Call a function at once: virtual time would not wait for a thread."""
        await trio.lowlevel.checkpoint()
        return function(*args)

    def module_log(self, identity: bytes) -> ModuleLog:
        """Return the module log of a database."""
        return self._module_logs.setdefault(identity, ModuleLog(None, self._now_us))

    def delete_database(self, identity: bytes) -> None:
        """Remove the log of a database."""
        log = self.logs.pop(identity, None)
        assert log is None or not log.is_open, "a log is deleted after it was closed"

    def sync(self) -> None:
        """Make everything durable."""
        for log in self.logs.values():
            log.sync()

    def close(self) -> None:
        """Close the control store."""
        self.control.close()
