"""Queries: a client's subscriptions and one-off queries, asked of its SubscriptionActor and answered to its sink.

Responsible for: which method answers which request, error answers, what an answer waits for.
Not responsible for: the rows (`stdb.subscriptions`), the turn this happens in (`database`).

Source: spec 02 sections 6.3 and 8.3, spec 09 section 2.1.
"""

from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from stdb.actors.answers import SqlResult
from stdb.actors.attachment import Attachment
from stdb.actors.requests import OneOffQuery, Subscribe, SubscribeBatch, SubscriptionKind, Unsubscribe
from stdb.errors import QueryError
from stdb.sql import Caller, run_sql
from stdb.subscriptions.fragment import Fragment

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore

__all__ = ["Queries"]


class Queries:
    """Answers what the clients of one database ask about rows. Answers reflect every transaction so far."""

    def __init__(self, datastore: "Datastore", owner: bytes, query_rows_max: int) -> None:
        self._datastore = datastore
        self._owner = owner
        self._query_rows_max = query_rows_max

    def subscribe(self, attachment: Attachment, request: Subscribe) -> None:
        """Open a set of queries and answer with its rows, or with why not."""
        started = perf_counter()
        subscriber = attachment.subscriber
        assert subscriber is not None
        try:
            match request.kind:
                case SubscriptionKind.SET:
                    rows = subscriber.subscribe_set(request.query_set_id, request.queries)
                case SubscriptionKind.MULTI:
                    rows = subscriber.subscribe_multi(request.query_set_id, request.queries)
                case SubscriptionKind.SINGLE:
                    rows = [subscriber.subscribe_single(request.query_set_id, request.queries[0])]
                case SubscriptionKind.LEGACY:
                    rows = subscriber.replace_legacy(request.queries)
        except QueryError as error:
            attachment.sink.subscription_error(request, str(error), _micros_since(started))
        else:
            attachment.sink.subscribe_applied(request, rows, self._datastore.next_offset, _micros_since(started))

    def subscribe_batch(self, attachment: Attachment, request: SubscribeBatch) -> None:
        """Open several sets; each succeeds or fails alone."""
        assert attachment.subscriber is not None
        results = attachment.subscriber.subscribe_batch(request.sets)
        some_set_opened = any(not isinstance(outcome, str) for _, outcome in results)
        needs = self._datastore.next_offset if some_set_opened else 0
        attachment.sink.subscribe_batch_applied(request, results, needs)

    def unsubscribe(self, attachment: Attachment, request: Unsubscribe) -> None:
        """Close a set of queries."""
        started = perf_counter()
        subscriber = attachment.subscriber
        assert subscriber is not None
        rows: Sequence[Fragment] | None
        try:
            match request.kind:
                case SubscriptionKind.SET:
                    wanted = request.send_dropped_rows
                    rows = subscriber.unsubscribe_set(request.query_set_id, send_dropped_rows=wanted)
                case SubscriptionKind.SINGLE:
                    rows = [subscriber.unsubscribe_single(request.query_set_id)]
                case _:
                    rows = subscriber.unsubscribe_multi(request.query_set_id)
        except QueryError as error:
            attachment.sink.subscription_error(request, str(error), _micros_since(started))
        else:
            attachment.sink.unsubscribe_applied(request, rows, self._datastore.next_offset, _micros_since(started))

    def one_off(self, attachment: Attachment, request: OneOffQuery) -> None:
        """Evaluate one query now."""
        started = perf_counter()
        assert attachment.subscriber is not None
        result: Fragment | str
        try:
            result = attachment.subscriber.one_off(request.query, rows_max=self._rows_max(attachment.client.identity))
        except QueryError as error:
            result = str(error)
        needs = 0 if isinstance(result, str) else self._datastore.next_offset
        attachment.sink.one_off_result(request, result, needs, _micros_since(started))

    def sql(self, caller: bytes, text: str) -> SqlResult:
        """Run one statement of full SQL. Raises QueryError."""
        started = perf_counter()
        asked_by = Caller(caller, caller == self._owner)
        row_type, rows, stats = run_sql(text, self._datastore, asked_by, rows_max=self._query_rows_max)
        return SqlResult(row_type, rows, _micros_since(started), *stats)

    def _rows_max(self, caller: bytes) -> int:
        """Return how many rows a query of this caller may visit (DESIGN decision 14)."""
        return self._query_rows_max if caller == self._owner else self._query_rows_max // 10


def _micros_since(started: float) -> int:
    return int((perf_counter() - started) * 1e6)
