"""A database around a Python module, in memory: what the actors do, without them."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from textwrap import dedent
from typing import Any, TypeVar

import trio
import trio.testing

from stdb.datastore.datastore import Datastore
from stdb.datastore.transaction import Delta, Transaction
from stdb.errors import HttpError
from stdb.modules.protocol import (
    HttpRequest,
    HttpResponse,
    ProcedureCall,
    ReadSet,
    ReducerCall,
    RouteCall,
    Stranger,
    ViewCall,
    ViewSql,
)
from stdb.modules.python import loader
from stdb.modules.python.module import PythonModule
from stdb.sats import bsatn
from stdb.sats.types import Array, Product, Ref, Sum

T = TypeVar("T")
ALICE = bytes(range(32))
BOB = bytes(range(100, 132))
DATABASE = bytes([7]) * 32
STRANGER = Stranger(bytes([9]) * 32, "{}")


class Lines(list[dict[str, Any]]):
    """A log that keeps its lines."""

    def write(self, level: str, message: str, **members: Any) -> None:
        """Append a line, members that say nothing left out."""
        known = {name: value for name, value in members.items() if value is not None}
        self.append({"level": level, "message": message, **known})

    @property
    def messages(self) -> list[str]:
        """The messages alone."""
        return [line["message"] for line in self]


def load(source: str | dict[str, str], name: str | None = None) -> PythonModule:
    """Load a module of source text: one file, `chat.py`, or several by path."""
    files = {"chat.py": source} if isinstance(source, str) else source
    return loader.load({path: dedent(text).encode() for path, text in files.items()}, name)


class Limit:
    """What a time limit sets."""

    expired = False


class Host:
    """What procedures ask of their database: a `ProcedureHost` that keeps what it was asked."""

    cancelled: type[BaseException] = trio.Cancelled

    def __init__(self, running: "Running", responses: dict[str, HttpResponse] | None = None) -> None:
        self.slept: list[float] = []
        self.requests: list[HttpRequest] = []
        self.steps = 0
        self.expiring_step: int | None = None
        """The step that runs longer than it may, counted from 1."""
        self._running = running
        self._responses = responses or {}

    def now_us(self) -> int:
        """Return the time."""
        return self._running.clock_us

    @contextmanager
    def running(self) -> Iterator[Limit]:
        """Count a step."""
        self.steps += 1
        limit = Limit()
        limit.expired = self.steps == self.expiring_step
        yield limit

    async def transact(self, run: Callable[[ReducerCall], T]) -> T:
        """Run a transaction."""
        await trio.lowlevel.checkpoint()
        running = self._running
        running.clock_us += 1
        transaction = running.store.begin(running.clock_us)
        try:
            result = run(ReducerCall(ALICE, None, running.clock_us, transaction, '{"sub":"alice"}'))
            transaction.commit()
        finally:
            if transaction.is_open:
                transaction.rollback()
            running.store.verify()
        return result

    async def sleep(self, seconds: float) -> None:
        """Wait, in the time of the event loop."""
        self.slept.append(seconds)
        await trio.sleep(max(seconds, 0))

    async def http(self, request: HttpRequest) -> HttpResponse:
        """Answer what was prepared."""
        await trio.lowlevel.checkpoint()
        self.requests.append(request)
        if request.url not in self._responses:
            raise HttpError(f"cannot reach {request.url}")
        return self._responses[request.url]


def run_trio(awaitable: Awaitable[T]) -> T:
    """Run something that waits, hours of sleep in no time."""

    async def run() -> T:
        return await awaitable

    return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


class Running:
    """A module attached to a database of its own."""

    def __init__(self, source: str | dict[str, str] | PythonModule) -> None:
        self.module = source if isinstance(source, PythonModule) else load(source)
        self.store = Datastore()
        self.log = Lines()
        self.clock_us = 1_700_000_000_000_000
        transaction = self.store.begin(0)
        self.store.create_tables(self.module.definition)
        self.module.attach(self.store, DATABASE, self.log)
        transaction.commit()

    def call(
        self, name: str, *args: Any, sender: bytes = ALICE, connection_id: bytes | None = bytes(16)
    ) -> Delta | None:
        """Call a reducer as one transaction with plain values; roll back and raise what it raises."""
        transaction = self.store.begin(self.clock_us)
        try:
            self.run(transaction, name, self.encode(name, args), sender, connection_id)
            return transaction.commit()
        finally:
            if transaction.is_open:
                transaction.rollback()
            self.store.verify()

    def run(
        self,
        transaction: Transaction,
        name: str,
        args: bytes,
        sender: bytes = ALICE,
        connection_id: bytes | None = None,
        credentials: str | None = None,
    ) -> None:
        """Call a reducer within a transaction."""
        self.clock_us += 1
        names = [reducer.name for reducer in self.module.definition.reducers]
        entry = self.module.reducer(names.index(name))
        entry(ReducerCall(sender, connection_id, self.clock_us, transaction, credentials), args)

    def encode(self, name: str, args: tuple[Any, ...]) -> bytes:
        """Return arguments as a client sends them."""
        (reducer,) = (each for each in self.module.definition.reducers if each.name == name)
        return bsatn.codec(reducer.params, self.module.definition.typespace).encode(args)

    def view(
        self, name: str, *args: Any, sender: bytes | None = ALICE, reads: ReadSet | None = None
    ) -> list[tuple[Any, ...]]:
        """Run a view; return its rows as plain values."""
        position, view = self._found(self.module.definition.views, name)
        typespace = self.module.definition.typespace
        call = ViewCall(sender, bsatn.codec(view.params, typespace).encode(args), reads or ReadSet())
        rows = self.module.view(position)(call)
        assert not isinstance(rows, ViewSql)
        (element,) = (each for each in _refs(view.return_type))
        return [bsatn.codec(element, typespace).decode_exact(row) for row in rows]

    def procedure(self, name: str, *args: Any, host: Host | None = None, credentials: str | None = None) -> Any:
        """Call a procedure with plain values; return its result."""
        position, procedure = self._found(self.module.definition.procedures, name)
        typespace = self.module.definition.typespace
        call = ProcedureCall(ALICE, bytes(16), self.clock_us, credentials, host or Host(self))
        encoded = bsatn.codec(procedure.params, typespace).encode(args)
        result = run_trio(self.module.procedure(position)(call, encoded))
        return bsatn.codec(procedure.return_type, typespace).decode_exact(result)

    def route(self, request: HttpRequest, path: str, *, host: Host | None = None) -> HttpResponse:
        """Send a request to the route of its method and path."""
        routes = self.module.definition.http_routes
        (position,) = (
            i
            for i, each in enumerate(routes)
            if each.path == path and each.method in (None, request.method, request.method.title())
        )
        call = RouteCall(self.clock_us, host or Host(self), lambda: STRANGER)
        return run_trio(self.module.route(position)(call, request))

    def _found(self, definitions: Any, name: str) -> tuple[int, Any]:
        (found,) = ((i, each) for i, each in enumerate(definitions) if each.name == name)
        return found

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        """Return the rows of a table as plain values, sorted by their bytes."""
        stored = self.store.table(table)
        assert stored is not None, table
        return [stored.schema.codec.decode_exact(row) for row in sorted(stored.rows())]

    def said(self, source: str) -> Any:
        """Run lines of code as a reducer `probe` would and return what they put into `out`; see PROBE."""
        transaction = self.store.begin(self.clock_us)
        try:
            self.run(transaction, "probe", self.encode("probe", (dedent(source),)))
            transaction.commit()
        finally:
            if transaction.is_open:
                transaction.rollback()
            self.store.verify()
        namespace = self.module._version.namespaces()
        (own,) = (each for name, each in namespace.items() if "probe" in each)
        return own["answers"][-1]


def _refs(type_: Any) -> Iterator[Ref]:
    """Yield the type of the rows in the type of a view's result."""
    if isinstance(type_, Ref):
        yield type_
    elif isinstance(type_, Array):
        yield from _refs(type_.element)
    elif isinstance(type_, Product | Sum):
        for element in type_.elements if isinstance(type_, Product) else type_.variants:
            yield from _refs(element.type)


PROBE = """
answers = []

@reducer(private=True)
def probe(ctx: ReducerContext, source: str) -> None:
    out = []
    exec(source, {**globals(), "ctx": ctx, "out": out})
    answers.append(out[0] if len(out) == 1 else out)
"""
"""Put behind a module's source: a reducer that runs any code, for `Running.said`."""
