"""What a database tells a client: the Protocol that every dialect implements.

Responsible for: `ClientSink`, the outcomes it is told, `Client` (who is connected).
Not responsible for: wire formats and sockets (`stdb.net`), deciding what a client sees (`stdb.subscriptions`).

Every method is synchronous, never blocks and only queues: entries leave in order at `flush`, each once
`needs` transactions are durable (DESIGN decision 6). `needs` is 0 for unconfirmed clients and stateless messages.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple, Protocol

from stdb.actors.requests import (
    CallProcedure,
    CallReducer,
    OneOffQuery,
    OneOffStatements,
    Subscribe,
    SubscribeBatch,
    Unsubscribe,
)
from stdb.sql import PLAIN, Language
from stdb.subscriptions.fragment import ClientUpdate, Fragment, TransactionEvent

__all__ = ["OUT_OF_TIME", "Client", "ClientSink", "OutcomeKind", "ProcedureResult", "ReducerOutcome"]

OUT_OF_TIME = "Procedure terminated due to insufficient budget"
"""What the caller of a procedure is told that was stopped, where its dialect has no status for it."""


class Client(NamedTuple):
    """Who is connected: an identity (32 bytes LE), a connection id (16 bytes LE), its token's payload."""

    identity: bytes
    connection_id: bytes
    credentials: str
    """JSON payload of the token exactly as presented."""


class OutcomeKind:
    """How a reducer call ended."""

    COMMITTED, FAILED, FAULT, NOT_RUN, OUT_OF_TIME = range(5)


class ReducerOutcome(NamedTuple):
    """How a reducer call ended; `text` is what the caller is told when it did not commit.

    FAILED: the module refused. FAULT: it broke. OUT_OF_TIME: it was stopped. NOT_RUN: unknown, private, lifecycle
    or undecodable arguments; then `text_chain` is v1's longer form of the text.
    """

    kind: int
    text: str = ""
    text_chain: str = ""


class ProcedureResult(NamedTuple):
    """What a procedure returned, when it began and how long it took."""

    returned: bytes
    """BSATN."""
    as_json: Callable[[], str]
    """Writes it as JSON."""
    timestamp_us: int
    duration_us: int


class ClientSink(Protocol):
    """One client's way out. The database actor owns the calls; the sink owns its queue."""

    __slots__ = ()
    confirmed: bool
    language: ClassVar[Language] = PLAIN
    """The SQL that the client asks in."""

    def initial_connection(self, identity: bytes, connection_id: bytes, token: str) -> None:
        """Queue the first message."""

    def reducer_result(
        self, call: CallReducer, outcome: ReducerOutcome, event: TransactionEvent, update: ClientUpdate | None
    ) -> None:
        """Answer the caller. `update`: the rows its own subscriptions saw; None when none did."""

    def procedure_error(self, call: CallProcedure, text: str) -> None:
        """Answer a procedure call that cannot run or failed."""

    def procedure_out_of_time(self, call: CallProcedure) -> None:
        """Answer a procedure call that was stopped by the time limit."""

    def procedure_result(self, call: CallProcedure, result: ProcedureResult, needs: int) -> None:
        """Answer a procedure call with what it returned."""

    def subscribe_applied(self, request: Subscribe, rows: Sequence[Fragment], needs: int, duration_us: int) -> None:
        """Answer a subscription with its initial rows (as inserts), one fragment per query plan."""

    def subscribe_batch_applied(
        self, request: SubscribeBatch, results: Sequence[tuple[int, Sequence[Fragment] | str]], needs: int
    ) -> None:
        """Answer a batch: per set its id and rows, or the text of its error."""

    def unsubscribe_applied(
        self, request: Unsubscribe, rows: Sequence[Fragment] | None, needs: int, duration_us: int
    ) -> None:
        """Answer an unsubscription with the dropped rows (as deletes); None when not asked for."""

    def subscription_error(self, request: Subscribe | Unsubscribe, text: str, duration_us: int) -> None:
        """Answer a subscription or unsubscription that failed."""

    def one_off_result(self, request: OneOffQuery, result: Fragment | str, needs: int, duration_us: int) -> None:
        """Answer a one-off query with its rows (as inserts) or an error text."""

    def one_off_results(
        self, request: OneOffStatements, results: Sequence[Fragment] | str, needs: int, duration_us: int
    ) -> None:
        """Answer statements with the rows of each (as inserts) or an error text."""

    def update(self, event: TransactionEvent, update: ClientUpdate) -> None:
        """Tell of a transaction that this client did not call (or called with NoSuccessNotify)."""

    def update_at_once(self, event: TransactionEvent, update: ClientUpdate, durable: int) -> bool:
        """Do what `update` and then `flush` do."""

    def flush(self, durable: int) -> bool:
        """Send what may leave: entries from the head whose `needs` is at most `durable`; return `waits()`."""

    def waits(self) -> bool:
        """Tell whether entries are left that wait for durability."""

    def close(self, code: int | None, reason: str) -> None:
        """Close after what may leave has left; `code` None drops the socket without a Close frame."""
