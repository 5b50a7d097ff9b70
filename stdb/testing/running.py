"""Running: one database in memory, its host started, stopped and crashed at will.

Responsible for: the life of a host under test, its storage, its log lines, the program it runs.
Not responsible for: clients (`clients`), what test functions call (`test_host`), time (`clock`).

The database has the same identity and owner in every test; only time and who calls enter `ctx.rng`.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

import trio
import trio.testing

from stdb.actors.calls import ReducerEntry
from stdb.actors.handle import DatabaseHandle
from stdb.actors.host import Host, HostSettings
from stdb.actors.long_calls import NO_REDUCER
from stdb.actors.outgoing import HttpSender
from stdb.actors.sink import Client
from stdb.actors.updates import Policy
from stdb.datastore.datastore import Datastore
from stdb.datastore.records import join
from stdb.errors import ReducerError, StdbError
from stdb.modules.protocol import ReducerCall
from stdb.modules.python.accessors import make_table
from stdb.modules.python.context import ReducerContext
from stdb.modules.python.database import make_database
from stdb.modules.python.table import Binding
from stdb.sats.special import Identity
from stdb.sats.types import Product
from stdb.schema.environment import EnvironmentChange
from stdb.schema.model import Lifecycle, ModuleDef, ReducerDef
from stdb.storage.control import Database
from stdb.testing.clock import Time, time_of_this_run
from stdb.testing.programs import Subject, WatchedModule, borrow_module, give_back_module, read_source
from stdb.testing.storage import MemoryStorage
from stdb.testing.tables import bind
from stdb.testing.twin import Twin, twin_of

__all__ = ["DATABASE", "ISSUER", "NAME", "OWNER", "LogLine", "Running", "identity_of"]

T = TypeVar("T")
ISSUER = "localhost"
NAME = "test"
"""What the database is called."""


def identity_of(subject: str, issuer: str = ISSUER) -> Identity:
    """Return the identity of somebody whose token says so."""
    return Identity.derive(issuer, subject)


OWNER = identity_of("owner")
DATABASE = identity_of("database under test")
_ADDRESS = bytes(15) + b"\1"


class LogLine(NamedTuple):
    """One line of the module's log."""

    level: str
    """`Info`, `Warn`, `Error`, `Debug`, `Trace` or `Panic`."""
    message: str
    function: str | None = None
    """Which function wrote it."""
    filename: str | None = None
    line: int | None = None


class _First(NamedTuple):
    """How a database of a program without `init` begins."""

    record: bytes
    lines: tuple[bytes, ...]


_FIRST: dict[tuple[bytes, int], _First] = {}
"""By program and start of time: such a database begins the same every time."""


class Running:
    """A host with one database, and what of it outlives restarts. Made by `open`."""

    def __init__(self, nursery: trio.Nursery, time: Time, http: HttpSender | None) -> None:
        self.time = time
        self.storage = MemoryStorage(now_us=time.now_us)
        self.twin: Twin
        self._nursery = nursery
        self._http = http
        self._modules: dict[bytes, WatchedModule] = {}
        self._twins: dict[bytes, Twin] = {}
        self._program = b""
        self._made: tuple[Datastore, Twin, Any] | None = None
        self._host: Host | None = None
        self._stop = trio.Event()
        self._ended = trio.Event()
        self._scope = trio.CancelScope()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, subject: Subject, start_us: int, http: HttpSender | None, env: Mapping[str, str] | None = None
    ) -> AsyncIterator["Running"]:
        """Hold a running database of a program, with these environment variables.

        Raises:
            SchemaError, PublishFailed: The program does not load, or its `init` failed.
        """
        failure: BaseException | None = None
        async with trio.open_nursery() as nursery:
            running = cls(nursery, time_of_this_run(start_us), http)
            try:
                await running._create(subject, start_us, env or {})
                yield running
            except trio.Cancelled:
                raise
            except BaseException as error:  # noqa: BLE001 - raised below, as it is and not in a group
                failure = error
            nursery.cancel_scope.cancel()  # no clean shutdown: nobody would look at what it leaves
        running._give_back()
        if failure is not None:
            raise failure

    # ------------------------------------------------------------------ looking
    @property
    def host(self) -> Host:
        """The host. Raises StdbError while it is stopped."""
        if self._host is None:
            raise StdbError("the host is stopped: start() it again")
        return self._host

    @property
    def handle(self) -> DatabaseHandle:
        """The database."""
        return self.host.database(DATABASE.wire)

    @property
    def module(self) -> WatchedModule:
        """The module that runs."""
        return self._modules[self._program]

    @property
    def definition(self) -> ModuleDef:
        """The definition of the program."""
        return self.module.definition

    def binding(self, table: Any) -> Binding:
        """Return what reads the rows of a table now."""
        name, datastore = self.twin.relation(table), self.module.datastore
        assert datastore is not None, "a running module is attached"
        if datastore.find_table(name) is None:
            raise KeyError(f"{name} is a view: its rows depend on who looks; ask as a client, client.query({name})")
        return bind(datastore, name, self.twin.rows(table))

    def log(self) -> list[LogLine]:
        """Return the lines of the module's log, oldest first, without what the host says of its own work."""
        lines = [json.loads(line) for line in self.lines()]
        return [
            LogLine(each["level"], each["message"], each.get("function"), each.get("filename"), each.get("line_number"))
            for each in lines
            if not (each.get("target") == each.get("function") == "__spacetimedb__")
        ]

    def _database(self) -> Any:
        """Return `ctx.db` for the test's own classes."""
        datastore = self.module.datastore
        assert datastore is not None, "a running module is attached"
        if self._made is None or self._made[0] is not datastore or self._made[1] is not self.twin:
            bindings = {name: bind(datastore, name, self.twin.rows(name)) for name in self.twin.tables()}
            tables = {name: make_table(binding) for name, binding in bindings.items()}
            keys = {self.twin.key(name): table for name, table in tables.items()}
            self._made = datastore, self.twin, make_database(keys, tables)
        return self._made[2]

    def lines(self) -> list[bytes]:
        """Return the lines of the module's log as stored."""
        log = self.storage.module_log(DATABASE.wire)
        return [line + b"\n" for chunk in log.tail(None) for line in chunk.splitlines()]

    @property
    def transaction_count(self) -> int:
        """How many transactions the database has; the first made it."""
        return self.storage.logs[DATABASE.wire].durable

    # ------------------------------------------------------------------ changing
    async def transact(
        self, function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], by: Client
    ) -> T:
        """Run a function of the test as one transaction of `by`, with a ReducerContext of the test's own classes.

        Whatever it raises rolls the transaction back and comes out here.
        """
        results: list[T] = []
        failures: list[Exception] = []
        around = self.module.python.around
        database, name = self._database(), getattr(function, "__name__", "a transaction of the test")

        def run(call: ReducerCall, _args: bytes) -> None:
            try:
                results.append(function(ReducerContext(database, call, around), *args, **kwargs))
            except Exception as error:
                failures.append(error)
                raise ReducerError(str(error)) from error

        actor = self.handle._actor  # what only a test may do: it runs in the turn of the database, as all else
        entry = ReducerEntry(name, NO_REDUCER, ReducerDef(name, name, Product(())), run)
        self.time.tick()
        await actor.answers.wait(lambda: (actor.transact(entry, by, None), 0))
        if failures:
            raise failures[0]
        return results[0]

    async def publish(self, subject: Subject, env: Mapping[str, str] | None = None) -> None:
        """Update the database in place to another program, whatever becomes of its clients; `env` sets variables.

        Raises as `stdb.actors.host.Host.publish`.
        """
        source = read_source(subject)
        policy = Policy(breaks_clients=True)
        environment = EnvironmentChange(env or {})
        await self.host.publish(
            OWNER.wire, source.program, identity=DATABASE.wire, policy=policy, environment=environment
        )
        self._take(source.program, subject)

    async def stop(self) -> None:
        """Shut the host down cleanly: every client is disconnected first."""
        self.host  # noqa: B018 - it has to run
        self._stop.set()
        await self._ended.wait()

    async def crash(self, losing: int = 0) -> None:
        """End the host as a killed process ends, without the last `losing` transactions, which were not durable yet.

        Raises:
            ValueError: There are not so many transactions behind the first.
        """
        self.host  # noqa: B018 - it has to run
        log = self.storage.logs[DATABASE.wire]
        if not 0 <= losing < log.durable:
            raise ValueError(f"losing={losing}: the database has {log.durable - 1} transactions that can be lost")
        self._scope.cancel()
        with trio.CancelScope(shield=True):
            await self._ended.wait()
        if losing:
            kept = [join(record) for record in log.records()][: log.durable - losing]
            self.storage.delete_database(DATABASE.wire)
            self._write_log(kept)

    async def start(self) -> None:
        """Start the host again, from what it stored."""
        if self._host is not None:
            raise StdbError("the host is running: stop() it first")
        await self._nursery.start(self._live)
        await self.handle.ready()
        await trio.testing.wait_all_tasks_blocked()  # those whom the last life left behind are disconnected

    # ------------------------------------------------------------------ inside
    async def _create(self, subject: Subject, start_us: int, env: Mapping[str, str]) -> None:
        source = read_source(subject)
        first = None if env else _FIRST.get((source.program, start_us))
        if first is not None:
            module = self._load(source.program)
            self._write_log([first.record])
            now_us = self.time.now_us()
            row = Database(DATABASE.wire, _ADDRESS, OWNER.wire, "Python", module.program_hash, now_us)
            self.storage.control.create(row, source.program, NAME)
            for line in first.lines:
                self.storage.module_log(DATABASE.wire)._append(now_us, line)
            await self.start()
        else:
            await self._nursery.start(self._live)
            environment = EnvironmentChange(env)
            await self.host.publish(
                OWNER.wire, source.program, name=NAME, identity=DATABASE.wire, environment=environment
            )
        self._take(source.program, subject)
        if first is None and not env and self.definition.lifecycle(Lifecycle.INIT) is None:
            [record] = self.storage.logs[DATABASE.wire].records()
            _FIRST[source.program, start_us] = _First(join(record), tuple(self.lines()))

    def _write_log(self, records: list[bytes]) -> None:
        log = self.storage.open_log(DATABASE.wire, lambda _durable: None)
        log.append_nowait(records)
        log.close()

    def _take(self, program: bytes, subject: Subject) -> None:
        """See the database as one of this program from now on."""
        self._program = program
        if program not in self._twins:
            self._twins[program] = twin_of(self.module.python, program, read_source(subject).python)
        self.twin = self._twins[program]

    async def _live(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._stop, self._ended, self._scope = trio.Event(), trio.Event(), trio.CancelScope()
        settings = HostSettings(operator=OWNER.wire)
        try:
            with self._scope:
                async with Host.open(
                    self.storage, self._load, settings, now_us=self.time.now_us, http=self._http
                ) as self._host:
                    task_status.started()
                    await self._stop.wait()
        finally:
            self._host = None
            self._ended.set()

    def _load(self, program: bytes) -> WatchedModule:
        """Return the one version of a program that this host uses, whatever it is restarted."""
        if program not in self._modules:
            self._modules[program] = borrow_module(program)
        return self._modules[program]

    def _give_back(self) -> None:
        for program, module in self._modules.items():
            give_back_module(program, module)
        self.storage.close()
