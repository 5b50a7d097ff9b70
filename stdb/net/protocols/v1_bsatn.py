"""v1.bsatn: the binary dialect of 1.x clients.

Responsible for: encoding v1's ServerMessage (spec 02 sections 5 and 6.2).
Not responsible for: who is told what (`v1`), requests (`v1_requests`), row lists (`rows`).

`messages_v1` describes the same bytes as types; a property test keeps the two equal. Encodings are cached under
"v1.rows" (fragments) and "v1" (rows of an update); frames as `dialect` and `v1` say.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from struct import Struct

from stdb.actors.requests import (
    CallProcedure,
    OneOffQuery,
    Subscribe,
    SubscribeBatch,
    SubscriptionKind,
    Unsubscribe,
)
from stdb.actors.sink import ProcedureResult
from stdb.net.protocols.rows import group_by_table, row_list, row_list_pieces
from stdb.net.protocols.v1 import V1
from stdb.net.protocols.wire import large_tagged_frame, procedure_answer, tagged_frame, write_bytes, write_string
from stdb.subscriptions.fragment import ClientUpdate, Fragment, TransactionEvent

__all__ = ["V1Bsatn"]

(
    _INITIAL_SUBSCRIPTION,
    _TRANSACTION_UPDATE,
    _TRANSACTION_UPDATE_LIGHT,
    _IDENTITY_TOKEN,
    _ONE_OFF_RESPONSE,
    _SUBSCRIBE_APPLIED,
    _UNSUBSCRIBE_APPLIED,
    _SUBSCRIPTION_ERROR,
    _SUBSCRIBE_MULTI_APPLIED,
    _UNSUBSCRIBE_MULTI_APPLIED,
    _PROCEDURE_RESULT,
) = range(11)
_COMMITTED, _FAILED, _OUT_OF_ENERGY = b"\0", b"\1", b"\2"
_NONE = b"\1"
_NO_CONNECTION = bytes(16)

_u32 = Struct("<I").pack
_i64 = Struct("<q").pack
_tag_and_id = Struct("<BI").pack
_applied_head = Struct("<BIQI").pack  # tag, request id, microseconds, query id
_table_tail = Struct("<QI").pack  # rows, updates
_id_and_duration = Struct("<Iq").pack
_cost_tail = Struct("<IQQq").pack  # request id, energy (low, high), duration


class V1Bsatn(V1):
    """One client that speaks v1.bsatn."""

    __slots__ = ()
    NAME = "v1.bsatn.spacetimedb"
    FORM = "v1"

    def initial_connection(self, identity: bytes, connection_id: bytes, token: str) -> None:
        """Queue the first message."""
        self._queue(0, bytes((_IDENTITY_TOKEN,)) + identity + write_string(token) + connection_id)

    def procedure_error(self, call: CallProcedure, text: str) -> None:
        """Answer a procedure call that cannot run or failed."""
        self._queue(0, procedure_answer(_PROCEDURE_RESULT, 2, text.encode(), call.request_id))

    def procedure_out_of_time(self, call: CallProcedure) -> None:
        """Answer a procedure call that was stopped by the time limit."""
        self._queue(0, procedure_answer(_PROCEDURE_RESULT, 1, None, call.request_id))

    def procedure_result(self, call: CallProcedure, result: ProcedureResult, needs: int) -> None:
        """Answer a procedure call with what it returned."""
        times_us = result.timestamp_us, result.duration_us
        body = procedure_answer(_PROCEDURE_RESULT, 0, result.returned, call.request_id, times_us)
        self._queue(self._needs(needs), body)

    def subscribe_applied(self, request: Subscribe, rows: Sequence[Fragment], needs: int, duration_us: int) -> None:
        """Answer a subscription with its initial rows, one table entry per query plan."""
        if request.kind is SubscriptionKind.LEGACY:

            def encode() -> Iterator[bytes]:
                yield from _plans(bytes((_INITIAL_SUBSCRIPTION,)), rows)
                yield _id_and_duration(request.request_id, duration_us)

        else:
            single = request.kind is SubscriptionKind.SINGLE
            tag = _SUBSCRIBE_APPLIED if single else _SUBSCRIBE_MULTI_APPLIED
            head = _applied_head(tag, request.request_id, duration_us, request.query_set_id)

            def encode() -> Iterator[bytes]:
                return _single_table(head, rows) if single else _plans(head, rows)

        self._queue_rows(needs, rows, encode)

    def subscribe_batch_applied(
        self, request: SubscribeBatch, results: Sequence[tuple[int, Sequence[Fragment] | str]], needs: int
    ) -> None:
        """Refuse: v1 has no such message, so no v1 client can have asked."""
        raise AssertionError(f"v1 has no SubscribeBatch (request {request.request_id})")

    def unsubscribe_applied(
        self, request: Unsubscribe, rows: Sequence[Fragment] | None, needs: int, duration_us: int
    ) -> None:
        """Answer an unsubscription with the dropped rows."""
        dropped = rows or ()
        single = request.kind is SubscriptionKind.SINGLE
        tag = _UNSUBSCRIBE_APPLIED if single else _UNSUBSCRIBE_MULTI_APPLIED
        head = _applied_head(tag, request.request_id, duration_us, request.query_set_id)
        self._queue_rows(needs, dropped, lambda: _single_table(head, dropped) if single else _plans(head, dropped))

    def subscription_error(self, request: Subscribe | Unsubscribe, text: str, duration_us: int) -> None:
        """Answer a subscription or unsubscription that failed."""
        head = bytes((_SUBSCRIPTION_ERROR,)) + _i64(duration_us) + b"\0" + _u32(request.request_id)
        legacy = request.kind is SubscriptionKind.LEGACY
        query_id = _NONE if legacy else b"\0" + _u32(request.query_set_id)
        self._queue(0, head + query_id + _NONE + write_string(text))

    def one_off_result(self, request: OneOffQuery, result: Fragment | str, needs: int, duration_us: int) -> None:
        """Answer a one-off query with exactly one table, or an error text."""
        assert isinstance(request.request_id, bytes)
        head = bytes((_ONE_OFF_RESPONSE,)) + write_bytes(request.request_id)
        tail = _i64(duration_us)
        if isinstance(result, str):
            self._queue(0, head + b"\0" + write_string(result) + _u32(0) + tail)
        else:
            table = head + _NONE + _u32(1) + write_string(result.table_name)
            inserts = result.inserts
            self._queue_rows(needs, (result,), lambda: chain((table,), row_list_pieces(inserts), (tail,)))

    def _committed(self, event: TransactionEvent, update: ClientUpdate) -> bytes:
        return self._transaction_update(event, _COMMITTED + _database_update(update))

    def _failed(self, event: TransactionEvent, text: str) -> bytes:
        return self._transaction_update(event, _FAILED + write_string(text))

    def _out_of_energy(self, event: TransactionEvent) -> bytes:
        return self._transaction_update(event, _OUT_OF_ENERGY)

    def _transaction_update(self, event: TransactionEvent, status: bytes) -> bytes:
        energy = event.energy
        parts = (
            b"\1",
            status,
            _i64(event.timestamp_us),
            event.caller,
            event.caller_connection_id or _NO_CONNECTION,
            write_string(event.reducer_name),
            _u32(event.reducer_id),
            write_bytes(event.args),
            _cost_tail(event.request_id, energy & 0xFFFFFFFFFFFFFFFF, energy >> 64, event.duration_us),
        )
        return self._frame(b"".join(parts))

    def _light_update(self, event: TransactionEvent, update: ClientUpdate) -> bytes:
        return self._frame(_tag_and_id(_TRANSACTION_UPDATE_LIGHT, event.request_id) + _database_update(update))

    def _frame(self, body: bytes) -> bytes:
        return tagged_frame(body, self._compression)

    def _large_frame(self, body: Iterable[bytes]) -> bytes:
        return large_tagged_frame(body, self._compression)

    def _queue(self, needs: int, body: bytes) -> None:
        self._append((needs, tagged_frame(body, self._compression)))


def _database_update(update: ClientUpdate) -> bytes:
    """Return the rows of a transaction: one entry per table, in it one update per query that saw a change."""
    encoded = update.cache.get("v1")
    if encoded is None:
        tables = group_by_table(fragment for one in update.sets for fragment in one.fragments)
        encoded = _u32(len(tables)) + b"".join(map(_table_update, tables.values()))
        update.cache["v1"] = encoded
    return encoded


def _plans(head: bytes, rows: Sequence[Fragment]) -> Iterator[bytes]:
    """Yield `head` and the rows of an answer: one entry per query plan, not merged per table."""
    yield head + _u32(len(rows))
    for fragment in rows:
        yield from _table_rows(b"", fragment)


def _single_table(head: bytes, rows: Sequence[Fragment]) -> Iterator[bytes]:
    """Yield `head` and SubscribeRows: the table's id and name, then the same again with its rows."""
    if not rows:
        yield head + _u32(0) + write_string("") + _u32(0) + write_string("") + _table_tail(0, 0)
        return
    (fragment,) = rows
    yield from _table_rows(head + _u32(fragment.table_id) + write_string(fragment.table_name), fragment)


def _table_rows(head: bytes, fragment: Fragment) -> Iterator[bytes]:
    """Yield `head` and TableUpdate of one query, its rows never compressed by themselves: deletes first."""
    inserts, deletes = fragment.inserts, fragment.deletes
    name = _u32(fragment.table_id) + write_string(fragment.table_name)
    yield head + name + _table_tail(len(inserts) + len(deletes), 1) + b"\0"
    yield from row_list_pieces(deletes)
    yield from row_list_pieces(inserts)


def _table_update(fragments: Sequence[Fragment]) -> bytes:
    """Return TableUpdate of fragments of one table."""
    first = fragments[0]
    count = sum(len(fragment.inserts) + len(fragment.deletes) for fragment in fragments)
    head = _u32(first.table_id) + write_string(first.table_name) + _table_tail(count, len(fragments))
    return head + b"".join(map(_query_update, fragments))


def _query_update(fragment: Fragment) -> bytes:
    """Return CompressableQueryUpdate, never compressed by itself: deletes first."""
    encoded = fragment.cache.get("v1.rows")
    if encoded is None:
        encoded = b"\0" + row_list(fragment.deletes) + row_list(fragment.inserts)
        fragment.cache["v1.rows"] = encoded
    return encoded
