"""Queries: a client's subscriptions and one-off queries, asked of its SubscriptionActor and answered to its sink.

Responsible for: which method answers which request, error answers, what an answer waits for, what a query may cost.
Not responsible for: the rows (`stdb.subscriptions`), the turns this happens in (`database`), SQL (`statements`).

Each request is an evaluation in steps whose last step answers; it is given up when the client has left meanwhile.
Source: spec 02 sections 6.3 and 8.3, spec 09 section 2.1; DESIGN decision 14.
"""

from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from stdb.actors.attachment import Attachment
from stdb.actors.pausing import while_wanted
from stdb.actors.requests import (
    OneOffQuery,
    OneOffStatements,
    Subscribe,
    SubscribeBatch,
    SubscriptionKind,
    Unsubscribe,
)
from stdb.actors.sink import Client, ClientSink
from stdb.errors import QueryError
from stdb.sql.work import Steps
from stdb.subscriptions.actor import SubscriptionActor
from stdb.subscriptions.fragment import Fragment

if TYPE_CHECKING:
    from stdb.subscriptions.registry import Registry

__all__ = ["Queries"]

Result = TypeVar("Result")


class Queries:
    """Answers what the clients of one database ask about rows. Answers reflect every transaction so far."""

    def __init__(self, registry: "Registry", query_rows_max: int) -> None:
        self._registry = registry
        self._datastore = registry.datastore
        self._query_rows_max = query_rows_max

    def subscriber(self, client: Client, sink: ClientSink) -> SubscriptionActor:
        """Return what holds the subscriptions of a client that connects."""
        return SubscriptionActor(
            self._registry,
            client.identity,
            client.connection_id,
            sink,
            rows_max=self._query_rows_max,
            language=sink.language,
        )

    def subscribe(self, attachment: Attachment, request: Subscribe) -> Steps[None]:
        """Open a set of queries and answer with its rows, or with why not."""
        started = perf_counter()
        try:
            rows = yield from self._asked(attachment, _opened(_subscriber(attachment), request))
        except QueryError as error:
            attachment.sink.subscription_error(request, str(error), _micros_since(started))
        else:
            attachment.sink.subscribe_applied(request, rows, self._datastore.next_offset, _micros_since(started))

    def subscribe_batch(self, attachment: Attachment, request: SubscribeBatch) -> Steps[None]:
        """Open several sets; each succeeds or fails alone."""
        results = yield from self._asked(attachment, _subscriber(attachment).subscribe_batch(request.sets))
        some_set_opened = any(not isinstance(outcome, str) for _, outcome in results)
        needs = self._datastore.next_offset if some_set_opened else 0
        attachment.sink.subscribe_batch_applied(request, results, needs)

    def unsubscribe(self, attachment: Attachment, request: Unsubscribe) -> Steps[None]:
        """Close a set of queries."""
        started = perf_counter()
        try:
            rows = yield from self._asked(attachment, _closed(_subscriber(attachment), request))
        except QueryError as error:
            attachment.sink.subscription_error(request, str(error), _micros_since(started))
        else:
            attachment.sink.unsubscribe_applied(request, rows, self._datastore.next_offset, _micros_since(started))

    def one_off(self, attachment: Attachment, request: OneOffQuery) -> Steps[None]:
        """Evaluate one query now."""
        started = perf_counter()
        result, needs = yield from self._answered(attachment, _subscriber(attachment).one_off(request.query))
        attachment.sink.one_off_result(request, result, needs, _micros_since(started))

    def one_off_statements(self, attachment: Attachment, request: OneOffStatements) -> Steps[None]:
        """Evaluate statements of full SQL now, as long as all of them read."""
        started = perf_counter()
        steps = _subscriber(attachment).one_off_statements(request.queries)
        results, needs = yield from self._answered(attachment, steps)
        attachment.sink.one_off_results(request, results, needs, _micros_since(started))

    def _answered(self, attachment: Attachment, steps: Steps[Result]) -> Steps[tuple[Result | str, int]]:
        """Evaluate for a client; return the result and what it needs, or the text of an error, which needs nothing."""
        try:
            result = yield from self._asked(attachment, steps)
        except QueryError as error:
            return str(error), 0
        return result, self._datastore.next_offset

    def _asked(self, attachment: Attachment, steps: Steps[Result]) -> Steps[Result]:
        """Evaluate for a client while it is there; what it alone read of views is forgotten behind."""
        try:
            return (yield from while_wanted(steps, lambda: attachment.is_attached))
        finally:
            self._registry.sweep()


def _opened(subscriber: SubscriptionActor, request: Subscribe) -> Steps[Sequence[Fragment]]:
    match request.kind:
        case SubscriptionKind.SET:
            return (yield from subscriber.subscribe_set(request.query_set_id, request.queries))
        case SubscriptionKind.MULTI:
            return (yield from subscriber.subscribe_multi(request.query_set_id, request.queries))
        case SubscriptionKind.SINGLE:
            return [(yield from subscriber.subscribe_single(request.query_set_id, request.queries[0]))]
        case SubscriptionKind.LEGACY:
            return (yield from subscriber.replace_legacy(request.queries))


def _closed(subscriber: SubscriptionActor, request: Unsubscribe) -> Steps[Sequence[Fragment] | None]:
    query_set_id = request.query_set_id
    match request.kind:
        case SubscriptionKind.SET:
            wanted = request.send_dropped_rows
            return (yield from subscriber.unsubscribe_set(query_set_id, send_dropped_rows=wanted))
        case SubscriptionKind.SINGLE:
            return [(yield from subscriber.unsubscribe_single(query_set_id))]
        case _:
            return (yield from subscriber.unsubscribe_multi(query_set_id))


def _subscriber(attachment: Attachment) -> SubscriptionActor:
    assert attachment.subscriber is not None, "requests of clients that are not connected are not served"
    return attachment.subscriber


def _micros_since(started: float) -> int:
    return int((perf_counter() - started) * 1e6)
