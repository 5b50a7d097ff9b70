"""A client without a wire: keeps what a database tells it, in the order and at the time it may leave.

Responsible for: `RecordingSink`, a `stdb.actors.sink.ClientSink`, and the messages it records.
Not responsible for: encoding (`stdb.net.protocols`).
"""

from collections import Counter, deque
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, TypeAlias

import trio

from stdb.actors.requests import (
    CallProcedure,
    CallReducer,
    OneOffQuery,
    OneOffStatements,
    Subscribe,
    SubscribeBatch,
    Unsubscribe,
)
from stdb.actors.sink import OUT_OF_TIME, ProcedureResult, ReducerOutcome
from stdb.sql import PLAIN, Language
from stdb.subscriptions.fragment import ClientUpdate, Fragment, TransactionEvent

__all__ = [
    "Applied",
    "BatchApplied",
    "Closed",
    "Connected",
    "Message",
    "OneOff",
    "OneOffs",
    "ProcedureFailed",
    "ProcedureReturned",
    "RecordingSink",
    "Result",
    "SubscriptionFailed",
    "Unsubscribed",
    "Updated",
]


class Connected(NamedTuple):
    """The first message."""

    identity: bytes
    connection_id: bytes
    token: str


class Result(NamedTuple):
    """How a call of this client ended."""

    request_id: int
    outcome: ReducerOutcome
    event: TransactionEvent
    update: ClientUpdate | None


class Updated(NamedTuple):
    """Somebody's transaction."""

    event: TransactionEvent
    update: ClientUpdate


class Applied(NamedTuple):
    """The initial rows of a subscription."""

    request: Subscribe
    rows: Sequence[Fragment]


class BatchApplied(NamedTuple):
    """The answer to a batch of subscriptions."""

    request: SubscribeBatch
    results: Sequence[tuple[int, Sequence[Fragment] | str]]


class Unsubscribed(NamedTuple):
    """The end of a subscription."""

    request: Unsubscribe
    rows: Sequence[Fragment] | None


class SubscriptionFailed(NamedTuple):
    """A subscription or unsubscription that failed."""

    request: Subscribe | Unsubscribe
    text: str


class OneOff(NamedTuple):
    """The answer to a one-off query."""

    request: OneOffQuery
    result: Fragment | str


class OneOffs(NamedTuple):
    """The answer to statements."""

    request: OneOffStatements
    results: Sequence[Fragment] | str


class ProcedureFailed(NamedTuple):
    """A procedure that cannot run."""

    request: CallProcedure
    text: str


class ProcedureReturned(NamedTuple):
    """What a procedure returned."""

    request: CallProcedure
    returned: bytes
    timestamp_us: int
    duration_us: int


class Closed(NamedTuple):
    """The end of the connection."""

    code: int | None
    reason: str


Message: TypeAlias = (
    Connected
    | Result
    | Updated
    | Applied
    | BatchApplied
    | Unsubscribed
    | SubscriptionFailed
    | OneOff
    | OneOffs
    | ProcedureFailed
    | ProcedureReturned
    | Closed
)


class RecordingSink:
    """One client's way out, into a list."""

    language: ClassVar[Language] = PLAIN

    def __init__(self, *, confirmed: bool = False) -> None:
        self.confirmed = confirmed
        self.received: list[Message] = []
        """What left, in order."""
        self.durable_at: list[int] = []
        """Beside each of `received`: how many transactions were durable when it left."""
        self.needs: list[int] = []
        """Beside each of `received`: how many transactions it waited for."""
        self._queue: deque[tuple[int, Message]] = deque()
        self._arrived = trio.Event()

    def initial_connection(self, identity: bytes, connection_id: bytes, token: str) -> None:
        """Queue the first message."""
        self._put(0, Connected(identity, connection_id, token))

    def reducer_result(
        self, call: CallReducer, outcome: ReducerOutcome, event: TransactionEvent, update: ClientUpdate | None
    ) -> None:
        """Queue the answer to a call."""
        self._put(event.needs, Result(call.request_id, outcome, event, update))

    def procedure_error(self, call: CallProcedure, text: str) -> None:
        """Queue the answer to a procedure call."""
        self._put(0, ProcedureFailed(call, text))

    def procedure_out_of_time(self, call: CallProcedure) -> None:
        """Queue the answer to a procedure call that was stopped."""
        self.procedure_error(call, OUT_OF_TIME)

    def procedure_result(self, call: CallProcedure, result: ProcedureResult, needs: int) -> None:
        """Queue what a procedure returned."""
        self._put(needs, ProcedureReturned(call, result.returned, result.timestamp_us, result.duration_us))

    def subscribe_applied(self, request: Subscribe, rows: Sequence[Fragment], needs: int, duration_us: int) -> None:
        """Queue initial rows."""
        self._put(needs, Applied(request, rows))

    def subscribe_batch_applied(
        self, request: SubscribeBatch, results: Sequence[tuple[int, Sequence[Fragment] | str]], needs: int
    ) -> None:
        """Queue the answer to a batch."""
        self._put(needs, BatchApplied(request, results))

    def unsubscribe_applied(
        self, request: Unsubscribe, rows: Sequence[Fragment] | None, needs: int, duration_us: int
    ) -> None:
        """Queue dropped rows."""
        self._put(needs, Unsubscribed(request, rows))

    def subscription_error(self, request: Subscribe | Unsubscribe, text: str, duration_us: int) -> None:
        """Queue an error."""
        self._put(0, SubscriptionFailed(request, text))

    def one_off_result(self, request: OneOffQuery, result: Fragment | str, needs: int, duration_us: int) -> None:
        """Queue the answer to a query."""
        self._put(needs, OneOff(request, result))

    def one_off_results(
        self, request: OneOffStatements, results: Sequence[Fragment] | str, needs: int, duration_us: int
    ) -> None:
        """Queue the answer to statements."""
        self._put(needs, OneOffs(request, results))

    def update(self, event: TransactionEvent, update: ClientUpdate) -> None:
        """Queue somebody's transaction."""
        self._put(event.needs, Updated(event, update))

    def update_at_once(self, event: TransactionEvent, update: ClientUpdate, durable: int) -> bool:
        """Queue somebody's transaction and let leave what may."""
        self.update(event, update)
        return self.flush(durable)

    def flush(self, durable: int) -> bool:
        """Let leave what may; tell whether something waits."""
        while self._queue and self._queue[0][0] <= durable:
            needs, message = self._queue.popleft()
            self.received.append(message)
            self.durable_at.append(durable)
            self.needs.append(needs)
            self._arrived.set()
        return bool(self._queue)

    def waits(self) -> bool:
        """Tell whether something waits for durability."""
        return bool(self._queue)

    def close(self, code: int | None, reason: str) -> None:
        """Record the end; what still waited is lost."""
        if not self.closed:
            self._queue.clear()
            self.received.append(Closed(code, reason))
            self.durable_at.append(0)
            self.needs.append(0)
            self._arrived.set()

    @property
    def closed(self) -> Closed | None:
        """How the connection ended; None while it lives."""
        last = self.received[-1] if self.received else None
        return last if isinstance(last, Closed) else None

    async def wait_count(self, count: int) -> list[Message]:
        """Return what was received once it is `count` messages or more."""
        while len(self.received) < count:
            self._arrived = trio.Event()
            await self._arrived.wait()
        return self.received

    async def next(self) -> Message:
        """Return the next message that leaves after this call."""
        count = len(self.received)
        return (await self.wait_count(count + 1))[count]

    def rows(self) -> Counter[tuple[object, str, bytes]]:
        """Return this client's cache: how often it holds each (query set, table, row), from all it received.

        v1's rows are kept under None. Raises AssertionError when a row is deleted that it does not hold.
        """
        cache: Counter[tuple[object, str, bytes]] = Counter()
        for message in self.received:
            for key, fragment in _fragments(message):
                for row in () if fragment.is_event else fragment.inserts:
                    cache[key, fragment.table_name, row] += 1
                for row in fragment.deletes:
                    assert cache[key, fragment.table_name, row] > 0, f"deleted, not held: {key} {row!r}"
                    cache[key, fragment.table_name, row] -= 1
        return +cache

    def _put(self, needs: int, message: Message) -> None:
        if not self.closed:
            self._queue.append((needs if self.confirmed else 0, message))


def _fragments(message: Message) -> list[tuple[object, Fragment]]:
    match message:
        case Applied(request, rows):
            return [(_key(request), fragment) for fragment in rows]
        case Unsubscribed(request, rows):
            return [(_key(request), fragment) for fragment in rows or ()]
        case BatchApplied(_, results):
            return [(i, fragment) for i, rows in results if not isinstance(rows, str) for fragment in rows]
        case Updated(_, update) | Result(_, _, _, ClientUpdate() as update):
            return [(each.query_set_id, fragment) for each in update.sets for fragment in each.fragments]
    return []


def _key(request: Subscribe | Unsubscribe) -> int | None:
    return request.query_set_id if request.kind.value == "set" else None
