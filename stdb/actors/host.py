"""Host: the directory of databases of one server, their launch, publishing, deletion and shutdown.

Responsible for: who runs and who may change what; the life of every database of one server.
Not responsible for: serving a database (`database`), keeping one alive (`supervision`), HTTP (`stdb.net`).

Rules: spec 05 sections 1.1 and 1.3.12 to 1.3.28, spec 07 sections 5 and 6, DESIGN decisions 10 and 13.
"""

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from math import inf
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar, TypeVarTuple, Unpack

import trio

from stdb.actors.archive import Archive
from stdb.actors.attachment import QUEUED_REQUESTS_MAX
from stdb.actors.deadline import Deadline, NoDeadline
from stdb.actors.handle import DatabaseHandle
from stdb.actors.launching import FirstRecord, Launcher, LoadAside, LoadProgram, in_turns, load_or_refuse, new_identity
from stdb.actors.outgoing import HttpSender, NoHttp
from stdb.actors.refusals import (
    DatabaseUnavailable,
    NoSuchDatabase,
    NotAuthorized,
    PublishFailed,
    Unconfirmed,
    UpdateRejected,
)
from stdb.actors.supervision import Supervisor
from stdb.actors.updates import COMPATIBLE, Policy, Update, is_major_upgrade
from stdb.datastore.history import History
from stdb.datastore.log import Log
from stdb.modules.protocol import LogSink, Module
from stdb.schema.environment import UNCHANGED, EnvironmentChange
from stdb.sql.work import Steps
from stdb.storage.control import PUBLISH_PYTHON, Control, Database
from stdb.storage.module_log import ModuleLog
from stdb.storage.retention import Retention

__all__ = ["CONFIRMATION_SECONDS", "Host", "HostSettings", "Prospect", "PublishResult", "Storage", "now_us"]


Result = TypeVar("Result")
Args = TypeVarTuple("Args")


def now_us() -> int:
    """Return the time in microseconds since 1970."""
    return time.time_ns() // 1000


CONFIRMATION_SECONDS = 5.0
"""How long a publisher waits for an update to be durable, unless it says otherwise."""
LOCKED = "Database is locked and cannot be {}. Run `spacetime unlock` first."


class Storage(Protocol):
    """Where a host keeps things: a data directory, or memory."""

    control: Control

    def open_log(self, identity: bytes, on_durable: Callable[[int], None]) -> Log:
        """Open or make the durable log of a database; the callback runs in the event loop's thread."""

    def open_history(self, identity: bytes) -> AbstractContextManager[History]:
        """Open what a database has stored at this moment."""

    def database_path(self, identity: bytes) -> Path | None:
        """Return where the file of a database is, or would be; None where nothing is in files."""

    async def run(self, function: Callable[[Unpack[Args]], Result], *args: *Args) -> Result:
        """Call a function that waits for the disk, and let others run meanwhile."""

    def module_log(self, identity: bytes) -> ModuleLog:
        """Return the module log of a database."""

    def delete_database(self, identity: bytes) -> None:
        """Remove what belongs to a database, if anything, but for its module log; its log is closed."""


class HostSettings(NamedTuple):
    """What a server may choose about its databases."""

    operator: bytes | None = None
    """Identity that may publish Python code and grant it; None: every caller may (tests)."""
    sql: str = "public"
    """Who may run SQL over HTTP: `public` or `owner` (DESIGN decision 14)."""
    initial_bytes_max: int = 256 * 1024 * 1024
    """Rows of one initial answer; above it the subscription is an error."""
    query_rows_max: int = 10_000_000
    """Rows one query of the owner may visit or produce; a tenth for others."""
    queued_requests_max: int = QUEUED_REQUESTS_MAX
    """Requests of one client that may wait; above it the client is closed."""


_DEFAULTS = HostSettings()


class PublishResult(NamedTuple):
    """What a publish did. `operation` is `created` or `updated`; `name` as the publisher gave it."""

    identity: bytes
    name: str | None
    operation: str


class Prospect(NamedTuple):
    """What an update would do, or why it cannot be done."""

    update: Update | None
    refusal: str
    """Where there is no update: every table that the automatic rules cannot change."""
    is_major_upgrade: bool


class _Living(NamedTuple):
    supervisor: Supervisor
    handle: DatabaseHandle


class Host:
    """All databases of one server; `async with Host.open(storage, load) as host`."""

    def __init__(self, storage: Storage, settings: HostSettings, launcher: Launcher, nursery: trio.Nursery) -> None:
        self.control = storage.control
        self.settings = settings
        self._storage = storage
        self._launcher = launcher
        self._nursery = nursery
        self.archive = Archive(self, storage, launcher)
        """The past of the databases, and copies of them."""
        self._living: dict[bytes, _Living] = {}
        self._publishing: dict[bytes | str, trio.Lock] = {}
        for database in self.control.databases():
            self._start(database.identity, database.owner)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        storage: Storage,
        load: LoadProgram,
        settings: HostSettings = _DEFAULTS,
        *,
        load_aside: Callable[[bytes], Module | None] | None = None,
        deadline: Deadline | None = None,
        now_us: Callable[[], int] = now_us,
        http: HttpSender | None = None,
    ) -> AsyncIterator["Host"]:
        """Hold a running host; its databases launch one after another in the background.

        Leaving the block normally is a clean shutdown: `client_disconnected` for every client, all of it durable,
        clients closed with 1001. Cancelling it is as safe as a crash. `http` sends what procedures ask of other
        servers; without it nothing is sent. `load_aside` is called first, in a thread: it returns None of a program
        that `load` has to make a module of, in the event loop.
        """
        launcher = Launcher(
            load=load,
            open_log=storage.open_log,
            close_log=partial(_close_log, storage),
            deadline=deadline or NoDeadline(),
            now_us=now_us,
            initial_bytes_max=settings.initial_bytes_max,
            query_rows_max=settings.query_rows_max,
            queued_requests_max=settings.queued_requests_max,
            http=http or NoHttp(),
            turns=trio.Lock(),
            load_aside=None if load_aside is None else _aside(storage, load_aside),
        )
        async with trio.open_nursery() as nursery:
            host = cls(storage, settings, launcher, nursery)
            nursery.start_soon(host._launch_all)
            yield host
            await host.shutdown()
            nursery.cancel_scope.cancel()

    async def shutdown(self) -> None:
        """End every database cleanly, all at once (DESIGN decision 13)."""
        async with trio.open_nursery() as nursery:
            for living in self._living.values():
                nursery.start_soon(living.supervisor.shutdown)

    # ------------------------------------------------------------------ finding
    def database(self, identity: bytes) -> DatabaseHandle:
        """Return the database with this identity. Raises NoSuchDatabase."""
        living = self._living.get(identity)
        if living is None:
            raise NoSuchDatabase("No such database.")
        return living.handle

    def databases(self) -> list[DatabaseHandle]:
        """Return all databases, oldest first."""
        return [self._living[database.identity].handle for database in self.control.databases()]

    # ------------------------------------------------------------------ changing
    async def publish(
        self,
        caller: bytes,
        program: bytes,
        *,
        name: str | None = None,
        identity: bytes | None = None,
        address: bytes | None = None,
        host_type: str = "Python",
        clear: bool = False,
        policy: Policy = COMPATIBLE,
        environment: EnvironmentChange = UNCHANGED,
        publisher: bytes | None = None,
        confirmation_seconds_max: float = CONFIRMATION_SECONDS,
    ) -> PublishResult:
        """Create a database with this program, or update the one that `name` or `identity` leads to.

        A database that is created gets `address`, which no other may have, else one of its own. `publisher` is the
        connection id that its lifecycle reducers are called from.
        Answers once it is durable; of an update, after `confirmation_seconds_max` that it is not yet.

        Raises:
            NotAuthorized: Not the owner, no grant for Python code, or locked (`clear`).
            NotYourDatabaseError, NameNotYoursError (`stdb.storage.control`): The name or identity is another's.
            NoSuchDatabase: `identity` was never allocated here.
            PublishFailed: The program does not load or its `init` failed; nothing changed.
            UpdateRejected: The stored tables cannot become the new ones, or `policy` forbids it; nothing changed.
            EnvironmentRefused: The module cannot have the environment variables it would have; nothing changed.
            Unconfirmed: The database was updated, but that is not durable yet.
            DatabaseUnavailable: The database that is to be updated is down and stays so.
        """
        if identity is None and name is not None:
            identity = self.control.resolve(name)
        async with self._alone(identity or name or b""):
            if identity is None and name is not None and (made := self.control.resolve(name)) is not None:
                return await self.publish(  # it was made while we waited
                    caller,
                    program,
                    name=name,
                    identity=made,
                    address=address,
                    host_type=host_type,
                    clear=clear,
                    policy=policy,
                    environment=environment,
                    publisher=publisher,
                    confirmation_seconds_max=confirmation_seconds_max,
                )
            if identity is not None and self.control.database(identity) is not None:
                action = "reset database" if clear else "update database"
                self._check_publisher(caller, identity, action, host_type)
                if clear:
                    await self._reset(identity, program, host_type, environment, publisher)
                else:
                    await self._update(identity, program, policy, environment, publisher, confirmation_seconds_max)
                return PublishResult(identity, name, "updated")
            identity = self._identity_to_create(caller, identity)
            self.control.check_create(caller, identity, name)
            self.check_grant(caller, host_type)
            await self._create(caller, identity, program, name, host_type, environment, address, publisher)
            return PublishResult(identity, name, "created")

    async def plan(self, caller: bytes, identity: bytes, program: bytes, *, host_type: str = "Python") -> Prospect:
        """Return what publishing this program to a database would do; nothing changes.

        Raises:
            NotAuthorized, NoSuchDatabase, PublishFailed, DatabaseUnavailable: As `publish`.
        """
        async with self._alone(identity):
            self._check_publisher(caller, identity, "update database", host_type)
            module = await load_or_refuse(self._launcher, program)
            supervisor, handle = self._living[identity]
            if not await supervisor.revive_unless_broken():
                return Prospect(*await _planned(partial(self._launcher.plan, identity, module)), False)
            actor = supervisor.running_actor()
            is_major = is_major_upgrade(handle.definition, module.definition)

            async def plan() -> Update:
                return await actor.answers.wait(lambda: (actor.replacing.plan(module), 0))

            return Prospect(*await _planned(plan), is_major)

    async def reset(
        self,
        caller: bytes,
        identity: bytes,
        program: bytes | None = None,
        *,
        host_type: str = "Python",
        environment: EnvironmentChange = UNCHANGED,
    ) -> PublishResult:
        """Drop all data and start again from `program`, or from the initial one. Raises as `publish`."""
        async with self._alone(identity):
            database = self._known(identity)
            self._check_publisher(caller, identity, "reset database", host_type)
            if program is None:
                program = await self._storage.run(self.control.program, database.program_hash)
                assert program is not None, "the control store keeps the initial program of every database"
            await self._reset(identity, program, host_type, environment, None)
            return PublishResult(identity, None, "updated")

    async def delete(self, caller: bytes, identity: bytes) -> None:
        """Delete a database; its clients are closed with 1001. Nothing happens when there is none.

        Raises:
            NotAuthorized: Not the owner, or locked.
        """
        async with self._alone(identity):
            if self.control.database(identity) is None:
                return
            self.check_owner(caller, identity, "delete database")
            self._check_unlocked(identity, "deleted")
            await self._storage.run(self.control.delete, identity)
            await self._end(identity)
            self._storage.delete_database(identity)
            self._storage.module_log(identity).clear()

    async def adopt(self, database: Database, program: bytes, name: str | None, put: Callable[[], None]) -> None:
        """Take in a database that has a file already, which `put`, run in a thread, moves to its place; launch it.

        Raises:
            NotYourDatabaseError, NameNotYoursError, NameInUseError (`stdb.storage.control`): See `Control.create`.
            DatabaseUnavailable: It was taken in, but does not run; the text says why.
        """
        identity = database.identity
        async with self._alone(identity):
            if self.control.database(identity) is not None:
                raise NotAuthorized(f"database {_hex(identity)} was made meanwhile")
            self.control.check_create(database.owner, identity, name)
            with trio.CancelScope(shield=True):
                self._storage.delete_database(identity)
                self._storage.module_log(identity).clear()
                await self._storage.run(put)
                try:
                    await self._storage.run(self.control.create, database, program, name)
                except BaseException:
                    self._storage.delete_database(identity)
                    raise
                supervisor = self._start(identity, database.owner).supervisor
            await supervisor.ready()

    async def set_retention(self, caller: bytes, identity: bytes, retention: Retention) -> None:
        """Set which records of a database are kept. Raises NotAuthorized, NoSuchDatabase."""
        self.check_owner(caller, identity, "change retention")
        await self._storage.run(self.control.set_retention, identity, retention)

    async def restart(self, caller: bytes, identity: bytes) -> None:
        """Launch a database again that stays down, and wait for it. Raises NotAuthorized, DatabaseUnavailable."""
        self._known(identity)
        if caller != self.settings.operator:
            self.check_owner(caller, identity, "update database")
        await self._living[identity].supervisor.revive()

    async def set_locked(self, caller: bytes, identity: bytes, locked: bool) -> None:
        """Lock a database against deletion and reset, or unlock it. Raises NotAuthorized, NoSuchDatabase."""
        self.check_owner(caller, identity, "delete database")
        await self._storage.run(self.control.set_locked, identity, locked)

    # ------------------------------------------------------------------ rights
    def check_owner(self, caller: bytes, identity: bytes, action: str) -> None:
        """Raise NotAuthorized unless `caller` owns the database; `action` as in spec 05 section 1.1."""
        if self._known(identity).owner != caller:
            raise NotAuthorized(
                f"{_hex(caller)} is not authorized to perform action on database {_hex(identity)}: {action}"
            )

    def check_sql(self, caller: bytes, identity: bytes) -> None:
        """Raise NotAuthorized when only owners may run SQL and `caller` is not this database's."""
        if self.settings.sql == "owner" and self._known(identity).owner != caller:
            raise NotAuthorized(
                f"{_hex(caller)} is not authorized to run SQL on database {_hex(identity)}: only its owner may"
            )

    def may_publish(self, caller: bytes, host_type: str) -> bool:
        """Tell whether this identity may publish code of this kind."""
        operator = self.settings.operator
        return host_type != "Python" or operator in (None, caller) or PUBLISH_PYTHON in self.control.grants(caller)

    def _check_publisher(self, caller: bytes, identity: bytes, action: str, host_type: str) -> None:
        self.check_owner(caller, identity, action)
        if action == "reset database":
            self._check_unlocked(identity, "reset with --delete-data")
        self.check_grant(caller, host_type)

    def check_grant(self, caller: bytes, host_type: str) -> None:
        """Raise NotAuthorized unless this identity may publish code of this kind."""
        if not self.may_publish(caller, host_type):
            raise NotAuthorized(
                f"{_hex(caller)} may not publish Python modules, which run inside the server: "
                f"its operator can allow it with `python -m stdb grant {_hex(caller)} {PUBLISH_PYTHON}`"
            )

    def _check_unlocked(self, identity: bytes, what: str) -> None:
        if self._known(identity).locked:
            raise NotAuthorized(LOCKED.format(what))

    # ------------------------------------------------------------------ doing
    def _known(self, identity: bytes) -> Database:
        database = self.control.database(identity)
        if database is None:
            raise NoSuchDatabase("No such database.")
        return database

    def _identity_to_create(self, caller: bytes, identity: bytes | None) -> bytes:
        """Return the identity of a database to be made: fresh, or of a deleted one, or what the operator says."""
        if identity is None:
            return new_identity()
        if self.control.deleted(identity) is None and caller != self.settings.operator:
            raise NoSuchDatabase("No such database.")
        return identity

    async def _first_record(
        self, program: bytes, identity: bytes, owner: bytes, environment: EnvironmentChange, publisher: bytes | None
    ) -> "_First":
        module = await load_or_refuse(self._launcher, program)
        lines = _Lines()
        try:
            created = self._launcher.create(module, program, identity, owner, lines, environment, publisher)
            record = await in_turns(created, self._launcher.turns)
        except PublishFailed as error:
            error.lines = lines.texts()
            raise
        return _First(module, record, lines)

    async def _create(
        self,
        caller: bytes,
        identity: bytes,
        program: bytes,
        name: str | None,
        host_type: str,
        environment: EnvironmentChange,
        address: bytes | None,
        publisher: bytes | None,
    ) -> None:
        first = await self._first_record(program, identity, caller, environment, publisher)
        deleted = self.control.deleted(identity)
        address = deleted.address if deleted else address or os.urandom(16)
        now_us = self._launcher.now_us()
        database = Database(identity, address, caller, host_type, first.module.program_hash, now_us)
        with trio.CancelScope(shield=True):  # a few disk syncs; half of it must not stay
            await self._store_first(identity, first)
            try:
                await self._storage.run(self.control.create, database, program, name)
            except BaseException:
                self._storage.delete_database(identity)
                raise
            supervisor = self._start(identity, caller, first.record.positions).supervisor
        await supervisor.ready()

    async def _reset(
        self,
        identity: bytes,
        program: bytes,
        host_type: str,
        environment: EnvironmentChange,
        publisher: bytes | None,
    ) -> None:
        owner = self._known(identity).owner
        first = await self._first_record(program, identity, owner, environment, publisher)
        with trio.CancelScope(shield=True):
            await self._end(identity)
            await self._store_first(identity, first)
            await self._storage.run(
                self.control.replace_program, identity, host_type, first.module.program_hash, program
            )
            supervisor = self._start(identity, owner, first.record.positions).supervisor
        await supervisor.ready()

    async def _store_first(self, identity: bytes, first: "_First") -> None:
        """Put the first record of a database into a new log; return once it is durable."""
        self._storage.delete_database(identity)
        module_log = self._storage.module_log(identity)
        module_log.clear()
        first.lines.write_to(module_log)
        durable = trio.Event()
        log = await self._storage.run(self._storage.open_log, identity, lambda _durable: durable.set())
        try:
            log.append_nowait([first.record.record])
            await durable.wait()
            assert log.durable == 1
        finally:
            await self._launcher.close_log(log)

    async def _update(
        self,
        identity: bytes,
        program: bytes,
        policy: Policy,
        environment: EnvironmentChange,
        publisher: bytes | None,
        confirmation_seconds_max: float,
    ) -> None:
        module = await load_or_refuse(self._launcher, program)
        update = (module, program, policy, environment, publisher)
        supervisor, handle = self._living[identity]
        if not await supervisor.revive_unless_broken():
            await supervisor.revive(partial(self._launcher.recover, identity, handle.owner, handle.log, update))
        actor = supervisor.running_actor()
        with trio.CancelScope() as waiting:

            def update_now() -> Steps[tuple[None, int]]:
                needs = yield from actor.replacing.update(*update)
                waiting.deadline = trio.current_time() + confirmation_seconds_max
                return None, needs

            try:
                await actor.answers.wait_steps(update_now)
            except DatabaseUnavailable as error:
                if waiting.deadline == inf:
                    raise
                raise Unconfirmed("database crashed while waiting for transaction confirmation") from error
        if waiting.cancelled_caught:
            raise Unconfirmed("timeout waiting for transaction confirmation", is_late=True)

    def _start(self, identity: bytes, owner: bytes, positions: Mapping[int, tuple[int, int]] | None = None) -> _Living:
        module_log = self._storage.module_log(identity)
        launch = partial(self._launcher.recover, identity, owner, module_log, positions=positions)
        supervisor = Supervisor(_hex(identity), launch)
        living = self._living[identity] = _Living(supervisor, DatabaseHandle(supervisor, identity, owner, module_log))
        self._nursery.start_soon(supervisor.run)
        return living

    async def _end(self, identity: bytes) -> None:
        living = self._living.pop(identity)
        living.supervisor.end_nowait()
        await living.supervisor.wait_ended()

    async def _launch_all(self) -> None:
        """Launch what nobody asked for yet, one database after another."""
        for living in list(self._living.values()):
            await living.supervisor.settle()

    @asynccontextmanager
    async def _alone(self, what: bytes | str) -> AsyncIterator[None]:
        """Hold the right to change one database (or make one of a name); others wait."""
        lock = self._publishing.setdefault(what, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():
                self._publishing.pop(what, None)


class _First(NamedTuple):
    """The beginning of a database, not stored yet."""

    module: Module
    record: FirstRecord
    lines: "_Lines"


class _Lines:
    """Log lines of an `init` that may yet fail: kept until it is known that they count."""

    def __init__(self) -> None:
        self._lines: list[Callable[[LogSink], None]] = []
        self._texts: list[str] = []

    def texts(self) -> tuple[str, ...]:
        """Return what the lines say, each with its level and where it was written."""
        return tuple(self._texts)

    def write(
        self,
        level: str,
        message: str,
        *,
        target: str | None = None,
        filename: str | None = None,
        line: int | None = None,
        function: str | None = None,
        trace: Sequence[str] | None = None,
    ) -> None:
        """Keep one line."""
        where = "" if filename in (None, target) else f" {filename}:{line}:" if line else f" {filename}:"
        self._texts.append(f"{level.upper()}:{where} {message}")
        self._lines.append(
            lambda log: log.write(
                level, message, target=target, filename=filename, line=line, function=function, trace=trace
            )
        )

    def write_to(self, log: LogSink) -> None:
        """Write all lines."""
        for write in self._lines:
            write(log)


async def _close_log(storage: Storage, log: Log) -> None:
    """See `CloseLog`. What it still writes, up to half a second of merging, would hold up all other databases."""
    with trio.CancelScope(shield=True):
        await storage.run(log.close)


def _aside(storage: Storage, load: Callable[[bytes], Module | None]) -> LoadAside:
    async def load_aside(program: bytes) -> Module | None:
        return await storage.run(load, program)

    return load_aside


async def _planned(plan: Callable[[], Awaitable[Update]]) -> tuple[Update | None, str]:
    try:
        return await plan(), ""
    except UpdateRejected as refusal:
        return None, str(refusal)


def _hex(identity: bytes) -> str:
    return identity[::-1].hex()
