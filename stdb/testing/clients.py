"""Clients of a host under test: identities and tokens, calls, subscriptions, what arrives.

Responsible for: `Connection`, one client of a running database; outcomes as return values and exceptions.
Not responsible for: what test functions call (`test_host`, `async_host`), rows (`caches`), the host (`running`).

A client sees what one over a socket sees, at the moment at which it may leave the server.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stdb.actors.refusals import BadArguments, ConnectRefused, DatabaseUnavailable, LifecycleCall, NoSuchFunction
from stdb.actors.requests import (
    CallProcedure,
    CallReducer,
    OneOffQuery,
    Request,
    Subscribe,
    SubscriptionKind,
    Unsubscribe,
)
from stdb.actors.sink import Client, OutcomeKind
from stdb.errors import ModuleFault, QueryError, ReducerError, StdbError
from stdb.sats.special import Identity, Timestamp
from stdb.subscriptions.fragment import ClientUpdate, Fragment, TransactionEvent
from stdb.testing.caches import Cache, Change, Update
from stdb.testing.running import ISSUER, Running, identity_of
from stdb.testing.sinks import (
    Applied,
    Closed,
    Connected,
    Message,
    OneOff,
    ProcedureFailed,
    ProcedureReturned,
    RecordingSink,
    Result,
    SubscriptionFailed,
    Unsubscribed,
    Updated,
)

__all__ = ["Connection", "Outcome", "Token"]


class Token(NamedTuple):
    """Who somebody is, and the claims that prove it."""

    identity: Identity
    payload: str

    @classmethod
    def of(cls, name: str, claims: Mapping[str, Any] | None) -> "Token":
        """Return the token of `name`, as a server makes it, with other claims beside or in place of its own."""
        document = {"sub": name, "iss": ISSUER, "aud": ["spacetimedb"], **(claims or {})}
        identity = identity_of(document["sub"], document["iss"])
        return cls(identity, json.dumps({"hex_identity": identity.hex(), **document}))


class Outcome:
    """How a request of a client ended; None of it is known before it is answered."""

    def __init__(self, key: int, function: Any = None) -> None:
        self.key = key
        self.function = function
        self.message: Message | None = None
        self.error: Exception | None = None
        self.value: Any = None

    @property
    def is_done(self) -> bool:
        """Tell whether it was answered."""
        return self.message is not None

    def result(self) -> Any:
        """Return what was answered, or raise what it says."""
        if self.error is not None:
            raise self.error
        return self.value


class Connection:
    """One client, from its connection until either side ends it."""

    def __init__(self, running: Running, name: str, token: Token, number: int, *, confirmed: bool) -> None:
        self.name = name
        self.token = token
        self.connection_id = number.to_bytes(16, "little")
        self.cache = Cache(running.twin)
        self.updates: list[Update] = []
        self.closed: Closed | None = None
        """How the connection ended; None while it lives."""
        self._running = running
        self._sink = RecordingSink(confirmed=confirmed)
        self._read = 0
        self._is_connected = False
        self._requests: dict[int, Outcome] = {}
        self._next_key = 1
        self._due: list[dict[str, Change]] = []
        running.time.tick()
        client = Client(token.identity.wire, self.connection_id, token.payload)
        self._attachment = running.handle.attach(client, self._sink, "token")

    # ------------------------------------------------------------------ coming and going
    async def wait_connected(self) -> None:
        """Return once the module has taken this client in. Raises ConnectRefused with the module's text."""
        await self._wait(lambda: self._is_connected or self.closed is not None)
        if not self._is_connected:
            assert self.closed is not None
            refusal = ConnectRefused(self.closed.reason)
            raise refusal from self._raised(self.closed.reason)

    async def leave(self) -> None:
        """Disconnect, and return once the module knows."""
        if self.closed is None:
            self._running.time.tick()
            self._attachment.detach_nowait()
            await self._attachment.wait_detached()
            self.closed = Closed(1000, "the test disconnected it")
            self.cache.clear()

    # ------------------------------------------------------------------ asking
    def start(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Outcome:
        """Call a reducer or procedure without waiting for how it ends."""
        found = self._running.twin.function(function)
        encoded = found.encode(args, kwargs)
        outcome = self._outcome(found)
        request: Request
        if found.result is None:
            request = CallReducer(outcome.key, found.name, encoded)
        else:
            request = CallProcedure(outcome.key, found.name, encoded)
        return self._ask(outcome, request)

    async def call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call a reducer or procedure; return what it returns, or raise how it ended. Time passes while it waits."""
        return await self._end(self.start(function, args, kwargs))

    async def subscribe(self, queries: Sequence[Any]) -> int:
        """Open a set of queries, its rows in the cache; return its id. Raises QueryError."""
        outcome = self._outcome()
        texts = tuple(self.query_text(query) for query in queries)
        await self._end(self._ask(outcome, Subscribe(SubscriptionKind.SET, outcome.key, outcome.key, texts)))
        return outcome.key

    async def unsubscribe(self, query_set_id: int) -> None:
        """Close a set of queries; what no other holds leaves the cache."""
        outcome = self._outcome()
        await self._end(self._ask(outcome, Unsubscribe(SubscriptionKind.SET, outcome.key, query_set_id)))

    async def query(self, query: Any) -> list[Any]:
        """Return the rows of a table, a view or a text, as this client may see them. Raises QueryError."""
        outcome = self._outcome()
        fragment: Fragment = await self._end(self._ask(outcome, OneOffQuery(outcome.key, self.query_text(query))))
        key = fragment.table_name if isinstance(query, str) else query
        decode = self._running.twin.rows(key).codec.decode_exact
        return [decode(row) for row in sorted(fragment.inserts)]

    async def sql(self, text: str) -> list[dict[str, Any]]:
        """Run a statement the way HTTP does, over a connection of its own; return plain values by column name."""
        self._running.time.tick()
        number = (1 << 100) + self._next_key
        client = Client(self.token.identity.wire, number.to_bytes(16, "little"), self.token.payload)
        result = await self._running.handle.sql(client, text)
        names = [str(element.name) for element in result.row_type.elements]
        return [dict(zip(names, row, strict=True)) for row in result.rows]

    async def transact(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function of the test as one transaction of this client."""
        by = Client(self.token.identity.wire, self.connection_id, self.token.payload)
        return await self._running.transact(function, args, kwargs, by)

    def query_text(self, query: Any) -> str:
        """Return the query that a class, a view's function or a text means."""
        is_text = isinstance(query, str) and not query.isidentifier()
        return query if is_text else f"SELECT * FROM {self._running.twin.relation(query)}"

    # ------------------------------------------------------------------ what arrives
    def digest(self) -> None:
        """Take in what has arrived: answers and rows."""
        while self._read < len(self._sink.received):
            message = self._sink.received[self._read]
            self._read += 1
            self._take(message)

    def call_back(self) -> None:
        """Call whoever asked to be told of the rows that were taken in; what they raise comes out here."""
        while self._due:
            self.cache.call_back(self._due.pop(0))

    def _take(self, message: Message) -> None:
        match message:
            case Connected():
                self._is_connected = True
            case Closed():
                self.closed = self.closed or message
                self.cache.clear()
                for outcome in self._requests.values():
                    outcome.message, outcome.error = (
                        message,
                        DatabaseUnavailable(f"the connection ended: {message.reason}"),
                    )
                self._requests.clear()
            case Result():
                self._take_result(message)
            case Updated():
                self._see(message.event, message.update)
            case Applied():
                self._answer(message.request.request_id, message)
                self._due.append(self.cache.apply(message.rows))
            case Unsubscribed():
                self._answer(message.request.request_id, message)
                self._due.append(self.cache.apply(message.rows or ()))
            case SubscriptionFailed():
                self._answer(message.request.request_id, message, QueryError(message.text))
            case OneOff():
                assert isinstance(message.request.request_id, int), "it is this client's own"
                failed = QueryError(message.result) if isinstance(message.result, str) else None
                self._answer(message.request.request_id, message, failed, message.result)
            case ProcedureFailed():
                self._answer(message.request.request_id, message, self._failure(message.text))
            case ProcedureReturned():
                function = self._requests[message.request.request_id].function
                value = function.result.decode_exact(message.returned)
                self._answer(message.request.request_id, message, None, None if value == () else value)

    def _take_result(self, message: Result) -> None:
        if message.update is not None:
            self._see(message.event, message.update)
        outcome = message.outcome
        error: Exception | None = None
        if outcome.kind == OutcomeKind.NOT_RUN:
            error = _refusal(outcome.text)
        elif outcome.kind != OutcomeKind.COMMITTED:
            error = self._failure(outcome.text)
        self._answer(message.request_id, message, error)

    def _see(self, event: TransactionEvent, update: ClientUpdate) -> None:
        changes = self.cache.apply([fragment for each in update.sets for fragment in each.fragments])
        is_mine = event.caller_connection_id == self.connection_id
        caller, timestamp = Identity(event.caller), Timestamp(event.timestamp_us)
        self.updates.append(Update(self._running.twin, changes, event.reducer_name, caller, timestamp, is_mine))
        self._due.append(changes)

    # ------------------------------------------------------------------ inside
    def _outcome(self, function: Any = None) -> Outcome:
        key = self._next_key
        self._next_key += 1
        return Outcome(key, function)

    def _ask(self, outcome: Outcome, request: Request) -> Outcome:
        self.digest()
        if self.closed is not None:
            raise StdbError(f"{self.name} is not connected any more: {self.closed.reason}")
        self._requests[outcome.key] = outcome
        self._running.time.tick()
        self._attachment.submit_nowait([request])
        return outcome

    def _answer(self, key: int, message: Message, error: Exception | None = None, value: Any = None) -> None:
        outcome = self._requests.pop(key)
        outcome.message, outcome.error, outcome.value = message, error, value

    async def _end(self, outcome: Outcome) -> Any:
        await self._wait(lambda: outcome.is_done)
        return outcome.result()

    async def _wait(self, is_done: Any) -> None:
        def arrived() -> bool:
            self.digest()
            return bool(is_done())

        async def change() -> None:
            await self._sink.wait_count(len(self._sink.received) + 1)

        await self._running.time.until(arrived, change)

    def _failure(self, text: str) -> Exception:
        """Return what the module raised, where that is why the client was told `text`."""
        raised = self._raised(text)
        if raised is not None:
            return raised
        return ModuleFault(text)

    def _raised(self, text: str) -> ReducerError | ModuleFault | None:
        raised = self._running.module.raised
        for error in reversed(raised):
            if text.endswith(str(error)) or text.endswith(str(error.__cause__)):
                raised.remove(error)
                return error
        return None


def _refusal(text: str) -> Exception:
    if text == "no such reducer":
        return NoSuchFunction("no such reducer, or a private one")
    return LifecycleCall(text) if text.startswith("can't directly call") else BadArguments(text)
