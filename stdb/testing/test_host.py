"""Hosts for tests that are plain functions: `with TestHost(module) as host`.

Responsible for: `TestHost` and `Client`, which do in a run of their own what `AsyncTestHost` does in the test's.
Not responsible for: how that run is driven (`portal`), fixtures (`plugin`).

Between two calls nothing happens in the database: what is looked at stays as it is, and time stands still.
"""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, overload

import trio

from stdb.errors import StdbError
from stdb.modules.protocol import HttpResponse
from stdb.modules.python.context import ReducerContext
from stdb.modules.python.procedures import ProcedureContext
from stdb.modules.python.reader import Query
from stdb.modules.python.tables import TableHandle
from stdb.testing.async_host import AsyncClient, AsyncTestHost, Duration, Http, Start
from stdb.testing.clients import Outcome
from stdb.testing.looking import LookedAtClient, LookedAtHost
from stdb.testing.open_hosts import closed, failed, opened
from stdb.testing.portal import borrow
from stdb.testing.programs import Subject
from stdb.testing.running import Running

__all__ = ["Client", "TestHost"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Client(LookedAtClient):
    """One client: an identity, a connection, and the rows that its subscriptions hold."""

    def __init__(self, host: "TestHost", client: AsyncClient) -> None:
        super().__init__(client._connection, client._digest)
        self._host = host
        self._client = client

    @overload
    def call(
        self,
        function: Callable[Concatenate[ProcedureContext, P], Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T: ...
    @overload
    def call(
        self, function: Callable[Concatenate[ReducerContext, P], None], /, *args: P.args, **kwargs: P.kwargs
    ) -> None: ...
    @overload
    def call(self, function: str, /, *args: Any, **kwargs: Any) -> Any: ...
    def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a reducer or procedure and return what it returns.

        A procedure that sleeps makes time pass, and with it everything else that is due until it has returned.

        Raises:
            SenderError: The module refused; with its text.
            ModuleFault: The module broke; its `__cause__` is the exception, with the module's own lines.
            NoSuchFunction, LifecycleCall, BadArguments (`stdb.actors.refusals`): It was not run.
        """
        return self._host._run(lambda: self._client.call(function, *args, **kwargs))

    def transact(
        self, function: Callable[Concatenate[ReducerContext, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run any function of a ReducerContext as one transaction of this client, and return its result.

        A helper of the module, or one of the test, `ctx.db[User]` with its own classes; what it raises rolls back and
        comes out here.
        """
        return self._host._run(lambda: self._client.transact(function, *args, **kwargs))

    def start(self, function: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> Outcome:
        """Call without making time pass: `outcome.is_done` and `outcome.result()` tell later how it ended."""

        async def start() -> Outcome:
            return self._client.start(function, *args, **kwargs)

        return self._host._run(start)

    def subscribe(self, *queries: type[Any] | TableHandle[Any] | Callable[..., Any] | str) -> int:
        """Subscribe to tables, views or queries, and return the id of the subscription. Raises QueryError."""
        return self._host._run(lambda: self._client.subscribe(*queries))

    def unsubscribe(self, subscription: int) -> None:
        """End a subscription; its rows leave the cache."""
        self._host._run(lambda: self._client.unsubscribe(subscription))

    @overload
    def query(self, query: Callable[..., list[R]]) -> list[R]: ...
    @overload
    def query(self, query: Callable[..., Query[R]]) -> list[R]: ...
    @overload
    def query(self, query: Callable[..., R | None] | TableHandle[R]) -> list[R]: ...
    @overload
    def query(self, query: str) -> list[Any]: ...
    def query(self, query: Any) -> list[Any]:
        """Return the rows of a table, a view or a query, as this client may see them. Raises QueryError."""
        return self._host._run(lambda: self._client.query(query))

    def sql(self, text: str) -> list[dict[str, Any]]:
        """Run a statement as HTTP does, over a connection of its own; plain values by column. Raises QueryError."""
        return self._host._run(lambda: self._client.sql(text))

    def disconnect(self) -> None:
        """Disconnect; the module has been told when this returns."""
        self._host._run(self._client.disconnect)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.disconnect()


class TestHost(LookedAtHost):
    """One database in memory that a test has for itself: no sockets, no files, no real time.

    Args:
        module: The imported module, the path of its file or package directory, or a packed program.
        start: When its time begins; 2025-01-01 00:00 UTC unless given.
        seed: Chooses other random numbers of `ctx.rng`: its time begins by so many microseconds later.
        http: What other servers answer to `ctx.http`: responses by URL (see `stdb.testing.http.FakeHttp`), or what
            sends requests.
        env: The values of environment variables.

    Raises:
        SchemaError, PublishFailed: The program does not load, or its `init` failed.
    """

    def __init__(
        self,
        module: Subject,
        *,
        start: Start = None,
        seed: int = 0,
        http: Http = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._portal = borrow()
        self._failure: BaseException | None = None
        self._host: AsyncTestHost | None = None
        self._is_open = True

        async def live(ready: trio.Event) -> None:
            try:
                async with AsyncTestHost.open(module, start=start, seed=seed, http=http, env=env) as self._host:
                    self._host.calls_back = False
                    ready.set()
                    await self._stop.wait()
            except Exception as error:  # noqa: BLE001 - raised where the test is
                self._failure = error
            self._ended.set()
            ready.set()

        async def begin() -> None:
            self._stop, self._ended, ready = trio.Event(), trio.Event(), trio.Event()
            trio.lowlevel.spawn_system_task(live, ready)
            await ready.wait()

        self._portal.call(begin)
        if self._host is None:
            self.close()
        opened(self)

    # ------------------------------------------------------------------ clients
    def connect(
        self, name: str = "alice", *, claims: Mapping[str, Any] | None = None, confirmed: bool = False
    ) -> Client:
        """Connect a client and return it; the same name is the same identity.

        Args:
            name: Who it is: the subject of its token.
            claims: Other claims of its token, as `ctx.sender_auth` has them; `iss` and `sub` make another identity.
            confirmed: It is told of a transaction once that is durable, as 2.x clients are; here that is at once.

        Raises:
            ConnectRefused (`stdb.actors.refusals`): The module's `client_connected` refused; with its text.
        """
        return Client(self, self._run(lambda: self._open.connect(name, claims=claims, confirmed=confirmed)))

    @property
    def http(self) -> Any:
        """What answers the requests of procedures: a `FakeHttp` unless the test gave another."""
        return self._open.http

    def transact(
        self, function: Callable[Concatenate[ReducerContext, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run any function of a ReducerContext as one transaction of the owner, and return its result."""
        return self._run(lambda: self._open.transact(function, *args, **kwargs))

    def insert(self, row: R) -> R:
        """Put a row into its table, private ones too, and return it as stored: to begin a test with."""
        return self._run(lambda: self._open.insert(row))

    def request(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        """Send an HTTP request to a route of the module. Raises NoSuchRoute, and what the handler failed with."""
        return self._run(lambda: self._open.request(method, path, body=body, headers=headers))

    # ------------------------------------------------------------------ time, restarts, programs
    def advance(self, duration: Duration) -> None:
        """Let time pass, seconds or a span, and run what is due on the way, each at its time."""
        self._run(lambda: self._open.advance(duration))

    def restart(self) -> None:
        """Shut down cleanly (every client is disconnected first) and start again from what is stored."""
        self._run(lambda: self._open.restart())

    def crash(self, *, losing: int = 0) -> None:
        """End as a killed process does and start again; `losing` transactions had not reached the disk.

        Clients that were connected are disconnected, as the module is told, before anything else happens.
        """
        self._run(lambda: self._open.crash(losing=losing))

    def publish(self, module: Subject, *, env: Mapping[str, str] | None = None) -> None:
        """Update the database in place to another version of its program, or, with `env`, its variables.

        Raises:
            UpdateRejected, PublishFailed: As said there; nothing changed.
        """
        self._run(lambda: self._open.publish(module, env=env))

    # ------------------------------------------------------------------ ending
    def close(self) -> None:
        """End the host; nothing of the database is kept. Does nothing the second time."""
        if not self._is_open:
            return
        self._is_open = False

        async def end() -> None:
            self._stop.set()
            await self._ended.wait()

        closed(self)
        self._portal.call(end)
        self._portal.give_back()
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and self._is_open:
            failed(self)
        self.close()

    # ------------------------------------------------------------------ inside
    def _look(self) -> Running:
        return self._open._running

    @property
    def _open(self) -> AsyncTestHost:
        if not self._is_open or self._host is None:
            raise StdbError("this host was closed")
        return self._host

    def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something in the host's run; then call back, in this thread, for the rows that came and went."""
        host = self._open
        try:
            return self._portal.call(work)
        finally:
            host.call_back()
