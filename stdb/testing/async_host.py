"""Hosts for tests that are async functions: `async with AsyncTestHost.open(module) as host`.

Responsible for: `AsyncTestHost` and `AsyncClient`, in the trio run of the test.
Not responsible for: tests that are plain functions (`test_host`), what both do (`running`, `clients`).

Under `trio.run(test, clock=VirtualClock())` time moves as in `TestHost`; under any other clock `advance` sleeps.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast, overload

import trio

from stdb.actors.outgoing import HttpSender
from stdb.actors.sink import Client
from stdb.errors import StdbError
from stdb.modules.protocol import HttpRequest, HttpResponse
from stdb.modules.python.context import ReducerContext
from stdb.modules.python.procedures import ProcedureContext
from stdb.modules.python.reader import Query
from stdb.modules.python.tables import TableHandle
from stdb.sats.special import TimeDuration, Timestamp
from stdb.testing.clients import Connection, Outcome, Token
from stdb.testing.clock import START_US
from stdb.testing.http import Answer, FakeHttp
from stdb.testing.looking import LookedAtClient, LookedAtHost
from stdb.testing.open_hosts import failed
from stdb.testing.programs import Subject
from stdb.testing.running import OWNER, Running

__all__ = ["AsyncClient", "AsyncTestHost", "Duration", "Http", "Start", "micros_of", "sender_of", "start_us_of"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Duration = float | timedelta | TimeDuration
Start = datetime | Timestamp | None
Http = HttpSender | Mapping[str, Answer] | None


def micros_of(duration: Duration) -> int:
    """Return a span of time in microseconds."""
    if isinstance(duration, TimeDuration):
        return duration.micros
    return round((duration.total_seconds() if isinstance(duration, timedelta) else duration) * 1e6)


def start_us_of(start: Start, seed: int) -> int:
    """Return when time begins, moved by `seed` microseconds."""
    if isinstance(start, datetime):
        start = Timestamp.from_datetime(start)
    return (START_US if start is None else start.micros) + seed


def sender_of(http: Http) -> HttpSender:
    """Return what answers requests of procedures."""
    return FakeHttp(http or {}) if http is None or isinstance(http, Mapping) else http


class AsyncClient(LookedAtClient):
    """One client of a host under test; what it awaits is answered, or raises as in `stdb.testing.Client`."""

    def __init__(self, host: "AsyncTestHost", connection: Connection) -> None:
        super().__init__(connection, host._digest)
        self._host = host

    @overload
    async def call(
        self,
        function: Callable[Concatenate[ProcedureContext, P], Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T: ...
    @overload
    async def call(
        self, function: Callable[Concatenate[ReducerContext, P], None], /, *args: P.args, **kwargs: P.kwargs
    ) -> None: ...
    @overload
    async def call(self, function: str, /, *args: Any, **kwargs: Any) -> Any: ...
    async def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a reducer or procedure; return what it returns, or raise how it ended (see `stdb.testing.Client`)."""
        with self._host._told():
            return await self._connection.call(function, args, kwargs)

    async def transact(
        self, function: Callable[Concatenate[ReducerContext, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run any function of a ReducerContext as one transaction of this client, and return its result.

        A helper of the module, or one of the test; what it raises rolls back and comes out here.
        """
        with self._host._told():
            return cast(T, await self._connection.transact(function, args, kwargs))

    def start(self, function: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> Outcome:
        """Call without waiting; `outcome.is_done` and `outcome.result()` tell later how it ended."""
        return self._connection.start(function, args, kwargs)

    async def subscribe(self, *queries: type[Any] | TableHandle[Any] | Callable[..., Any] | str) -> int:
        """Subscribe to tables, views or queries, and return the id of the subscription. Raises QueryError."""
        with self._host._told():
            return await self._connection.subscribe(queries)

    async def unsubscribe(self, subscription: int) -> None:
        """End a subscription; its rows leave the cache."""
        with self._host._told():
            await self._connection.unsubscribe(subscription)

    @overload
    async def query(self, query: Callable[..., list[R]]) -> list[R]: ...
    @overload
    async def query(self, query: Callable[..., Query[R]]) -> list[R]: ...
    @overload
    async def query(self, query: Callable[..., R | None] | TableHandle[R]) -> list[R]: ...
    @overload
    async def query(self, query: str) -> list[Any]: ...
    async def query(self, query: Any) -> list[Any]:
        """Return the rows of a table, a view or a query, as this client may see them. Raises QueryError."""
        with self._host._told():
            return await self._connection.query(query)

    async def sql(self, text: str) -> list[dict[str, Any]]:
        """Run any statement as over HTTP: plain values by column name. Raises QueryError."""
        with self._host._told():
            return await self._connection.sql(text)

    async def disconnect(self) -> None:
        """Disconnect; return once the module knows."""
        with self._host._told():
            await self._connection.leave()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.disconnect()


def _insert(ctx: ReducerContext, row: R) -> R:
    return ctx.db[type(row)].insert(row)


class AsyncTestHost(LookedAtHost):
    """One database in memory, for one async test."""

    def __init__(self, running: Running, http: HttpSender) -> None:
        self._running = running
        self._connections: list[Connection] = []
        self._numbers = count(1)
        self.calls_back = True
        """Callbacks are called as soon as rows are taken in; otherwise by whoever asks for it."""
        self.http = http
        """What answers the requests of procedures; a FakeHttp unless the test gave another."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        module: Subject,
        *,
        start: Start = None,
        seed: int = 0,
        http: Http = None,
        env: Mapping[str, str] | None = None,
    ) -> AsyncIterator["AsyncTestHost"]:
        """Hold a running database of a module; arguments as of `stdb.testing.TestHost`."""
        sender = sender_of(http)
        async with Running.open(module, start_us_of(start, seed), sender, env) as running:
            host = cls(running, sender)
            try:
                yield host
            except trio.Cancelled:
                raise
            except BaseException:
                failed(host)
                raise

    # ------------------------------------------------------------------ clients
    async def connect(
        self, name: str = "alice", *, claims: Mapping[str, Any] | None = None, confirmed: bool = False
    ) -> AsyncClient:
        """Connect a client and return it. Raises ConnectRefused with the module's text."""
        connection = Connection(self._running, name, Token.of(name, claims), next(self._numbers), confirmed=confirmed)
        self._connections.append(connection)
        with self._told():
            await connection.wait_connected()
        return AsyncClient(self, connection)

    async def transact(
        self, function: Callable[Concatenate[ReducerContext, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run any function of a ReducerContext as one transaction of the owner, and return its result."""
        with self._told():
            by = Client(OWNER.wire, bytes(16), Token.of("owner", None).payload)
            return await self._running.transact(function, args, kwargs, by)

    async def insert(self, row: R) -> R:
        """Put a row into its table, private ones too, and return it as stored: to begin a test with."""
        return await self.transact(_insert, row)

    async def request(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        """Send an HTTP request to a route of the module. Raises NoSuchRoute, and what the handler failed with."""
        self._running.time.tick()
        sent = tuple((name.lower(), value.encode()) for name, value in (headers or {}).items())
        request = HttpRequest(method, f"http://localhost:3000/v1/database/test/route{path}", sent, body)
        before = len(self._running.module.raised)
        ended: list[Any] = []
        with self._told():
            ended.append(await self._running.handle.route(request, path.partition("?")[0]))
        answer = ended[0].answer
        if isinstance(answer, HttpResponse):
            return answer
        raised = self._running.module.raised[before:]
        raise raised[-1] if raised else StdbError(answer.text)

    # ------------------------------------------------------------------ time, restarts, programs
    async def advance(self, duration: Duration) -> None:
        """Let time pass, and run what is due on the way, each at its time."""
        with self._told():
            await self._running.time.advance(micros_of(duration))

    async def restart(self) -> None:
        """Shut down cleanly (every client is disconnected first) and start again from what is stored."""
        with self._told():
            await self._running.stop()
            await self._running.start()

    async def crash(self, *, losing: int = 0) -> None:
        """End as a killed process does and start again; `losing` transactions had not reached the disk."""
        with self._told():
            await self._running.crash(losing)
            await self._running.start()

    async def publish(self, module: Subject, *, env: Mapping[str, str] | None = None) -> None:
        """Update the database in place to another version of its program, or, with `env`, its variables.

        Raises:
            UpdateRejected, PublishFailed: As said there; nothing changed.
        """
        with self._told():
            await self._running.publish(module, env)

    # ------------------------------------------------------------------ inside
    def _look(self) -> Running:
        return self._running

    def call_back(self) -> None:
        """Call whoever asked to be told of the rows that clients have taken in."""
        for connection in list(self._connections):
            connection.call_back()
        self._connections = [each for each in self._connections if each.closed is None]

    def _digest(self) -> None:
        for connection in self._connections:
            connection.digest()
        if self.calls_back:
            self.call_back()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Have every client take in what has arrived when the block has ended, however it did."""
        try:
            yield
        finally:
            self._digest()
