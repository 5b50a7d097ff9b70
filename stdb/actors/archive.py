"""Archive: databases copied, restored and forked, and their past, beside the databases that run.

Responsible for: states of the past and queries of them, the log as people read it, backups, restoring, forks.
Not responsible for: who may (`stdb.net`), which state a moment means (`stdb.datastore.history`), files
(`stdb.storage`).

A state of the past is a datastore of its own, made from the file in slices between which everybody else runs; it costs
the time and the memory of a start of the database. So only a few are made at a time.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import trio

from stdb.actors.answers import SqlResult
from stdb.actors.launching import Launcher, in_slices, load_or_refuse, new_identity
from stdb.actors.pausing import run_slice
from stdb.actors.programs import StoredProgram, host_type_of, move_program, stored_program
from stdb.actors.refusals import BackupRefused, NoFiles
from stdb.datastore.catalog import read_views
from stdb.datastore.datastore import Datastore
from stdb.datastore.history import Entry, History, Moment, entries, travel
from stdb.datastore.records import Context, Record, encode, split
from stdb.datastore.recovery import recover_in_slices
from stdb.errors import QueryError, RequestError, StorageError
from stdb.sats.names import database_name_error
from stdb.sql import Caller, ChangeStatement, SelectStatement, check_row_limit, compile_sql, work_of
from stdb.storage.backup import check_backup, copy_database, remove_file
from stdb.storage.control import Database
from stdb.storage.log import SqliteLog
from stdb.storage.log_file import RECOVER_COMMAND, sync_directory
from stdb.storage.recovering import write_database
from stdb.storage.server_storage import PART_SUFFIX

if TYPE_CHECKING:
    from stdb.actors.host import Host, Storage

__all__ = ["Adopted", "Archive", "Copy"]

STATES_MAX = 2
"""States of the past that are held at a time; who asks for more waits."""
_ROWS_LET_GO = 2000


class Copy(NamedTuple):
    """A backup in a file of its own."""

    path: Path
    offset: int
    """Of the newest transaction in it."""


class Adopted(NamedTuple):
    """A database that a backup or a fork has become."""

    identity: bytes
    owner: bytes
    name: str | None
    offset: int
    """Of the newest transaction that came with it."""


class Archive:
    """What one host's databases were, and copies of them."""

    def __init__(self, host: "Host", storage: "Storage", launcher: Launcher) -> None:
        self._host = host
        self._storage = storage
        self._launcher = launcher
        self._states = trio.Semaphore(STATES_MAX)

    # ------------------------------------------------------------------ the past
    async def sql(self, identity: bytes, text: str, moment: Moment) -> SqlResult:
        """Run a SELECT as the owner on the tables as they were.

        Raises:
            UnreachableError: The log does not lead to that moment.
            QueryError: The statement is wrong, costs too much, or would change something.
        """
        started = perf_counter()
        owner = self._host.database(identity).owner
        async with self._state(identity, moment) as datastore:
            asking = Caller(owner, True)
            statement = _compiled(text, datastore, asking)
            if isinstance(statement, ChangeStatement):
                raise QueryError("the past cannot be changed: with `at` goes SELECT only")
            check_row_limit([statement], datastore, asking)
            steps = statement.steps(work_of(asking, self._host.settings.query_rows_max))
            while (done := run_slice(steps)) is None:
                await trio.lowlevel.checkpoint()
            row_type, rows, _ = done.result
            return SqlResult(row_type, rows, int((perf_counter() - started) * 1e6))

    @asynccontextmanager
    async def log(self, identity: bytes, start: int | None, last: int | None) -> AsyncIterator[Iterator[Entry | None]]:
        """Hold the transactions from offset `start` (None: the first that is kept) to `last`; None between slices."""
        await self._host.database(identity).wait_durable()
        with self._history(identity) as history:
            end = history.end if last is None else last + 1
            yield entries(history, history.first if start is None else start, end)

    @asynccontextmanager
    async def _state(self, identity: bytes, moment: Moment | None) -> AsyncIterator[Datastore]:
        """Hold the state at a moment; None is now."""
        await self._host.database(identity).wait_durable()
        async with self._states:
            datastore = Datastore()
            try:
                with self._history(identity) as history:
                    there = Moment(offset=history.end - 1) if moment is None else moment
                    await in_slices(travel(datastore, history, there, self._launcher.now_us()))
                yield datastore
            finally:
                with trio.CancelScope(shield=True):
                    await in_slices(_let_go(datastore))

    def _history(self, identity: bytes) -> AbstractContextManager[History]:
        return self._storage.open_history(identity)

    # ------------------------------------------------------------------ copies
    @asynccontextmanager
    async def backup(self, identity: bytes) -> AsyncIterator[Copy]:
        """Hold a copy of a database's file with every transaction so far, which is removed afterwards.

        Raises:
            StorageError: There is no room for it.
            NoFiles: This host keeps nothing in files.
        """
        path = self._path(identity)
        await self._host.database(identity).wait_durable()
        copy = self.new_part(identity)
        try:
            end = await self._storage.run(copy_database, path, copy)
            yield Copy(copy, end - 1)
        finally:
            remove_file(copy)

    def new_part(self, identity: bytes) -> Path:
        """Return the name of a file beside those of the databases that does not exist. Raises NoFiles."""
        return self._path(identity).with_name(f"{os.urandom(8).hex()}{PART_SUFFIX}")

    async def restore(self, path: Path, name: str | None = None, owner: bytes | None = None) -> Adopted:
        """Make the backup in a file a database that runs; the file is used up.

        It gets the identity that it had where nobody has that here, else a new one. Without `owner` it stays with
        whom it belonged to.

        Raises:
            BackupRefused: The file is no backup that can be restored here; the text says why.
            PublishFailed: Its program does not load.
            NameInUseError, NameNotYoursError: The name leads elsewhere, or is another's.
        """
        _check_name(name)
        with _refusals(path):
            await self._storage.run(check_backup, path)
            log = SqliteLog(path)
        try:
            datastore = Datastore()
            with _refusals(path):
                await in_slices(recover_in_slices(datastore, log))
                stored = stored_program(datastore)
            identity, owner = stored.identity, owner or stored.owner
            if not self._is_free(identity, owner):
                identity = new_identity()
            adopted = Adopted(identity, owner, name, datastore.next_offset - 1)
            self._host.control.check_create(owner, identity, name)
            await load_or_refuse(self._launcher, stored.program)
            if (identity, owner) != (stored.identity, stored.owner):
                log.append_nowait([self._move(datastore, identity, owner, "restore")])
        finally:
            await self._launcher.close_log(log)
        await self._adopt(path, adopted, stored)
        return adopted

    async def fork(
        self, caller: bytes, identity: bytes, name: str | None = None, moment: Moment | None = None
    ) -> Adopted:
        """Make a database of its own that begins as another one is now, or was; it belongs to the caller.

        Raises:
            UnreachableError: The log does not lead to that moment.
            NotAuthorized: The caller may not publish code of this kind.
            PublishFailed: The program of that time does not load.
            NameInUseError, NameNotYoursError: The name leads elsewhere, or is another's.
        """
        _check_name(name)
        new = new_identity()
        self._host.control.check_create(caller, new, name)
        part = self.new_part(new)
        try:
            async with self._state(identity, moment) as datastore:
                stored = stored_program(datastore)
                self._host.check_grant(caller, host_type_of(stored.program))
                await load_or_refuse(self._launcher, stored.program)
                adopted = Adopted(new, caller, name, datastore.next_offset - 1)
                record = self._move(datastore, new, caller, "fork")
                kept = list(split(record, datastore.next_offset - 1))
                await self._storage.run(partial(_write, part, datastore, kept))
            await self._adopt(part, adopted, stored)
        finally:
            remove_file(part)
        return adopted

    def _move(self, datastore: Datastore, identity: bytes, owner: bytes, why: str) -> bytes:
        """Let the program's row say another identity and owner; return the record of that transaction."""
        now_us = self._launcher.now_us()
        transaction = datastore.begin(now_us)
        move_program(datastore, identity, owner)
        delta = transaction.commit()
        assert delta is not None, "the row of st_module is changed"
        return encode(delta, Context(why, owner, None, now_us))

    async def _adopt(self, path: Path, adopted: Adopted, stored: StoredProgram) -> None:
        deleted = self._host.control.deleted(adopted.identity)
        database = Database(
            adopted.identity,
            deleted.address if deleted else os.urandom(16),
            adopted.owner,
            host_type_of(stored.program),
            stored.program_hash,
            self._launcher.now_us(),
        )
        await self._host.adopt(
            database, stored.program, adopted.name, partial(_put, path, self._path(adopted.identity))
        )

    def _is_free(self, identity: bytes, owner: bytes) -> bool:
        """Tell whether a database with that identity may be made for that owner."""
        deleted = self._host.control.deleted(identity)
        return self._host.control.database(identity) is None and (deleted is None or deleted.owner == owner)

    def _path(self, identity: bytes) -> Path:
        path = self._storage.database_path(identity)
        if path is None:
            raise NoFiles("this server keeps its databases in memory: there are no files to copy or to restore")
        return path


class _refusals:  # noqa: N801 - reads like a function
    """Turns what is wrong with a file that somebody handed in into a refusal that does not name the server's files."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, StorageError):
            text = str(error).partition(f". `{RECOVER_COMMAND} ")[0].replace(f"{self._path}: ", "")
            text = text.replace(str(self._path), "the file")
            raise BackupRefused(f"the backup cannot be restored: {text}") from error


def _compiled(text: str, datastore: Datastore, asking: Caller) -> SelectStatement | ChangeStatement:
    try:
        return compile_sql(text, datastore, asking)
    except QueryError as error:
        view = next((view for each in read_views(datastore) if f"`{(view := each.shape.name)}`" in str(error)), None)
        if view is None:
            raise
        raise QueryError(f"`{view}` is a view, and views have no past: query the tables it reads") from error


def _check_name(name: str | None) -> None:
    if name is not None and (reason := database_name_error(name)):
        raise RequestError(f"Error parsing `{name}`: {reason}")


def _write(path: Path, datastore: Datastore, records: list[Record]) -> None:
    write_database(path, datastore, records, end=datastore.next_offset)


def _put(path: Path, target: Path) -> None:
    """Move a closed file to its place, durably."""
    try:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        os.replace(path, target)
        sync_directory(target.parent)
    except OSError as error:
        raise StorageError(f"cannot make {target}: {error}") from error


def _let_go(datastore: Datastore) -> Iterator[None]:
    """Empty a datastore in slices: to let go of very many rows at once takes long."""
    for table in datastore.tables.values():
        stored = table.stored
        while stored:
            for _ in range(min(_ROWS_LET_GO, len(stored))):
                stored.popitem()
            yield
