"""Launching: from a program or a log to a database that can run.

Responsible for: the first transaction of a database (`init`), recovery by replay.
Not responsible for: who may publish (`host`), updates (`updates`), serving (`database`), the stored form
(`stdb.datastore`, `stdb.storage`).

Rules: spec 04 section 7, spec 07 sections 5, 6 and 8.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from time import perf_counter
from typing import NamedTuple, Protocol, TypeVar

import trio

from stdb.actors.calls import RUN_ERRORS, ReducerEntry, Reducers
from stdb.actors.database import DatabaseActor
from stdb.actors.deadline import Deadline
from stdb.actors.outgoing import HttpSender
from stdb.actors.pausing import run_slice, take_turn
from stdb.actors.programs import StoredProgram, TablesOnly, store_program, store_rules, stored_program
from stdb.actors.refusals import PublishFailed
from stdb.actors.updates import Policy, Update, environment_after, plan_update, store_environment
from stdb.datastore import records
from stdb.datastore.datastore import Datastore
from stdb.datastore.log import Log
from stdb.datastore.recovery import recover_in_slices
from stdb.errors import ModuleFault, ReducerTimeout, SchemaError, StorageError
from stdb.modules.protocol import LogSink, Module, ReducerCall
from stdb.sats.special import Identity
from stdb.schema.environment import UNCHANGED, EnvironmentChange
from stdb.schema.model import Lifecycle, ModuleDef
from stdb.schema.validation import format_errors
from stdb.sql.work import Steps
from stdb.storage.module_log import ModuleLog
from stdb.subscriptions.registry import Registry

__all__ = [
    "CloseLog",
    "FirstRecord",
    "Launcher",
    "LoadAside",
    "LoadProgram",
    "OpenLog",
    "in_slices",
    "in_turns",
    "load_or_refuse",
    "new_identity",
]

T = TypeVar("T")
REPLAY_SECONDS = 0.005
"""Replay lets others run this often."""


class LoadProgram(Protocol):
    """Makes a module of a program's bytes."""

    def __call__(self, program: bytes) -> Module:
        """Return the module, not attached yet.

        Raises:
            SchemaError, ModuleFault: It does not load, or declares what cannot be.
        """


OpenLog = Callable[[bytes, Callable[[int], None]], Log]
"""Opens or makes the log of a database; the callback is told in the event loop's thread when `durable` moved."""
CloseLog = Callable[[Log], Awaitable[None]]
"""Closes a log, which waits for the disk, while others run; even when it is cancelled. Raises StorageError."""
LoadAside = Callable[[bytes], Awaitable[Module | None]]
"""Does as `LoadProgram` while others run; returns None of a program that has to be loaded in the event loop."""


class FirstRecord(NamedTuple):
    """The first transaction of a database: its record, and where it left the sequences."""

    record: bytes
    positions: Mapping[int, tuple[int, int]]


class Launcher(NamedTuple):
    """What all databases of one host are made with."""

    load: LoadProgram
    open_log: OpenLog
    close_log: CloseLog
    deadline: Deadline
    now_us: Callable[[], int]
    initial_bytes_max: int
    query_rows_max: int
    queued_requests_max: int
    http: HttpSender
    turns: trio.Lock
    load_aside: LoadAside | None

    async def load_in_time(self, program: bytes) -> Module:
        """Return the module of a program; an import without end is stopped (`LOAD_SECONDS_MAX`). Raises as `load`."""
        module = None if self.load_aside is None else await self.load_aside(program)
        if module is not None:
            return module
        with self.deadline.loading():
            return self.load(program)

    def create(
        self,
        module: Module,
        program: bytes,
        identity: bytes,
        owner: bytes,
        log: LogSink,
        environment: EnvironmentChange = UNCHANGED,
        publisher: bytes | None = None,
    ) -> Steps[FirstRecord]:
        """Make the tables of a new database and run `init`, in one transaction; return its record. Keeps nothing.

        `publisher` is the connection id that `init` is called from, if any.

        Raises:
            EnvironmentRefused: The environment variables are none that the module can have.
            PublishFailed: A view does not return rows, a rule of row-level security is none, or `init` failed; carries
                the text for the publisher.
        """
        datastore = Datastore()
        values = environment_after(datastore, module.definition, environment)
        now_us = self.now_us()
        transaction = datastore.begin(now_us)
        for table in sorted(table.name for table in module.definition.tables):
            _tell(log, f"Creating table `{table}`")
        for view in sorted(view.name for view in module.definition.views):
            _tell(log, f"Creating table for view `{view}`")
        try:
            datastore.create_tables(module.definition)
        except SchemaError as error:
            raise PublishFailed("\n".join(error.errors)) from error
        rules = module.definition.row_level_security
        for rule in sorted({each.sql for each in rules}):
            _tell(log, f"Creating row level security `{rule}`")
        store_rules(datastore, rules)
        store_program(datastore, module, program, identity, owner)
        store_environment(datastore, module.definition, values)
        module.attach(datastore, identity, log)
        yield from self._run_init(module, ReducerCall(owner, publisher, now_us, transaction), log)
        delta = transaction.commit()
        assert delta is not None, "the row of st_module is a change"
        _tell(log, "Database initialized")
        record = records.encode(delta, records.Context("init", owner, publisher, now_us))
        return FirstRecord(record, datastore.positions())

    def _run_init(self, module: Module, call: ReducerCall, log: LogSink) -> Steps[None]:
        reducers = Reducers(module, call.sender, log)
        entry = reducers.lifecycle(Lifecycle.INIT)
        if entry is None:
            return
        _tell(log, "Invoking `init` reducer")
        try:
            if entry.start is None:
                self._run_in_time(entry, call)
            else:
                yield from entry.start(call, b"") or ()
        except RUN_ERRORS as error:
            raise PublishFailed(reducers.failed(entry, error).text) from error

    def _run_in_time(self, entry: ReducerEntry, call: ReducerCall) -> None:
        with self.deadline.limiting(call.transaction, "the reducer"):
            entry.run(call, b"")
        if call.transaction.expired:
            raise ReducerTimeout("the time limit of `init` has passed")

    @asynccontextmanager
    async def recover(
        self,
        identity: bytes,
        owner: bytes,
        module_log: ModuleLog,
        update: tuple[Module, bytes, Policy, EnvironmentChange, bytes | None] | None = None,
        positions: Mapping[int, tuple[int, int]] | None = None,
    ) -> AsyncIterator[DatabaseActor]:
        """Hold a database recovered from its log; it disconnects the clients of the last life, then starts its timers.

        With `update`, the arguments of `Replacing.update`, the stored program is not loaded but replaced.
        `positions` are those of the sequences after the first transaction; while it is the only one, they go on there.

        Raises:
            StorageError: The log is damaged, of another database, or holds no program.
            SchemaError, ModuleFault: The program does not load.
            UpdateRejected, PublishFailed: The stored tables cannot become those of `update`, or its rules are none.
        """
        actors: list[DatabaseActor] = []

        def wake(_durable: int) -> None:
            for actor in actors:
                actor.wake_nowait()

        log = self.open_log(identity, wake)
        try:
            datastore = Datastore()
            await in_slices(recover_in_slices(datastore, log))
            if positions is not None and datastore.next_offset == 1:
                datastore.go_on_at(positions)
            stored = _program_of(datastore, log)
            if stored.identity != identity:
                shown = stored.identity[::-1].hex()
                raise log.refusal(0, f"this is the log of database {shown}, not of {identity[::-1].hex()}")
            module = await self.load_in_time(stored.program) if update is None else TablesOnly(datastore)
            module.attach(datastore, identity, module_log)
            actor = DatabaseActor(
                identity=identity,
                owner=owner,
                datastore=datastore,
                module=module,
                log=log,
                module_log=module_log,
                registry=Registry(datastore, owner, initial_bytes_max=self.initial_bytes_max),
                deadline=self.deadline,
                now_us=self.now_us,
                query_rows_max=self.query_rows_max,
                queued_requests_max=self.queued_requests_max,
                http=self.http,
                turns=self.turns,
            )
            if update is not None:
                await in_turns(actor.replacing.update(*update), self.turns)
            actors.append(actor)
            actor.connections.post_dangling()
            actor.post_nowait((None, actor.scheduler.start))
            yield actor
        finally:
            await self.close_log(log)

    async def plan(self, identity: bytes, module: Module) -> Update:
        """Return what an update of a database to `module` would do whose own program does not load, and is not running.

        Raises:
            StorageError: Its log is damaged.
            UpdateRejected, PublishFailed: As in `recover`.
        """
        log = self.open_log(identity, lambda _durable: None)
        try:
            datastore = Datastore()
            await in_slices(recover_in_slices(datastore, log))
            return plan_update(datastore, identity, TablesOnly(datastore).definition, module)
        finally:
            await self.close_log(log)


def _program_of(datastore: Datastore, log: Log) -> StoredProgram:
    try:
        return stored_program(datastore)
    except StorageError as error:
        raise log.refusal(0, str(error)) from error


async def load_or_refuse(launcher: Launcher, program: bytes) -> Module:
    """Return the module of a program. Raises PublishFailed with the text for the publisher."""
    try:
        module = await launcher.load_in_time(program)
    except SchemaError as error:
        raise PublishFailed(format_errors(error)) from error
    except ModuleFault as error:
        raise PublishFailed(str(error)) from error
    _refuse_outboxes(module.definition)
    return module


def _refuse_outboxes(definition: ModuleDef) -> None:
    """Raise PublishFailed for a module whose tables would send calls to other databases: those would get lost."""
    for outbox in definition.outboxes:
        raise PublishFailed(
            f"table `{outbox.table}` is an outbox of calls to reducer `{outbox.remote_reducer}` of other databases, "
            "and this server sends no calls between databases: publish the module without outboxes"
        )
    for submodule in definition.submodules:
        _refuse_outboxes(submodule.definition)


def new_identity() -> bytes:
    """Return an identity for a database that no other one has."""
    return Identity.derive("localhost", os.urandom(16).hex()).wire


async def in_turns(steps: Steps[T], turns: trio.Lock) -> T:
    """Run an evaluation to its end, slice by slice, between which others run; return its result."""
    try:
        while (done := run_slice(steps)) is None:
            await take_turn(turns)
        return done.result
    finally:
        steps.close()


async def in_slices(steps: Iterator[None]) -> None:
    """Run steps to their end, and let others run every REPLAY_SECONDS."""
    stop_at = perf_counter() + REPLAY_SECONDS
    for _ in steps:
        if perf_counter() >= stop_at:
            await trio.lowlevel.checkpoint()
            stop_at = perf_counter() + REPLAY_SECONDS
    await trio.lowlevel.checkpoint()


def _tell(log: LogSink, message: str) -> None:
    log.write("Info", message, target="__spacetimedb__", filename="__spacetimedb__", function="__spacetimedb__")
