"""v2.bsatn: the dialect of 2.x clients, one message a WebSocket message.

Responsible for: decoding ClientMessage, encoding ServerMessage (spec 02 section 8, spec 09 section 2.1).
Not responsible for: several messages a payload (`v3_bsatn`), row lists (`rows`).

`messages_v2` describes the same bytes as types; a property test keeps the two equal. Encodings are cached under
"v2.update" (fragments) and "v2" (query sets of an update), frames as `dialect` says; v3 shares them.
"""

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from struct import error as struct_error

from stdb.actors.requests import (
    CallProcedure,
    CallReducer,
    OneOffQuery,
    Request,
    Subscribe,
    SubscribeBatch,
    SubscriptionKind,
    Unsubscribe,
)
from stdb.actors.sink import OUT_OF_TIME, OutcomeKind, ProcedureResult, ReducerOutcome
from stdb.errors import DecodeError
from stdb.net.protocols.dialect import Dialect
from stdb.net.protocols.rows import group_by_table, row_list, row_list_pieces
from stdb.net.protocols.wire import (
    large_tagged_frame,
    procedure_answer,
    read_bytes,
    read_string,
    read_strings,
    read_u8,
    read_u32,
    tagged_frame,
    unknown_tag,
    write_bytes,
    write_string,
)
from stdb.subscriptions.fragment import ClientUpdate, Fragment, SetUpdate, TransactionEvent

__all__ = ["V2Bsatn", "decode_message", "encode_query_sets"]

_SUBSCRIBE, _UNSUBSCRIBE, _ONE_OFF, _CALL_REDUCER, _CALL_PROCEDURE, _SUBSCRIBE_BATCH = range(6)
(
    _INITIAL_CONNECTION,
    _SUBSCRIBE_APPLIED,
    _UNSUBSCRIBE_APPLIED,
    _SUBSCRIPTION_ERROR,
    _TRANSACTION_UPDATE,
    _ONE_OFF_RESULT,
    _REDUCER_RESULT,
    _PROCEDURE_RESULT,
    _SUBSCRIBE_BATCH_APPLIED,
) = range(9)
_OK, _ERR, _INTERNAL_ERROR = 0, 2, 3

_call_head = Struct("<xIBI").unpack_from  # request id, flags, length of the name
_u32_at = Struct("<I").unpack_from
_u32 = Struct("<I").pack
_ONE = _u32(1)
_tag_and_id = Struct("<BI").pack
_tag_and_two = Struct("<BII").pack
_ok_empty_frame = Struct("<BBBBIqBII").pack  # frame header, compression tag, message with two empty arrays
_ok_head = Struct("<BIqBI").pack
_result_head = Struct("<BIqB").pack
_new_call = tuple.__new__


def decode_message(payload: bytes, offset: int) -> tuple[Request, int]:
    """Return the request at `offset` and the offset after it.

    Raises:
        DecodeError: The bytes are no ClientMessage; the text is the reference's.
    """
    if offset < len(payload) and payload[offset] == _CALL_REDUCER:
        return _decode_call_reducer(payload, offset)
    tag, start = read_u8(payload, offset)
    if tag > _SUBSCRIBE_BATCH:
        raise unknown_tag(tag, "ClientMessage", offset)
    return _DECODERS[tag](payload, start)


def _decode_call_reducer(payload: bytes, offset: int) -> tuple[Request, int]:
    """Decode the message nearly all of the traffic consists of; any doubt is settled by `_decode_call`."""
    try:
        request_id, flags, size = _call_head(payload, offset)
        name_end = offset + 10 + size
        args = name_end + 4
        end = args + _u32_at(payload, name_end)[0]
        if not flags and end <= len(payload):
            name = payload[offset + 10 : name_end].decode()
            return _new_call(CallReducer, (request_id, name, payload[args:end], True)), end
    except (struct_error, UnicodeDecodeError):
        pass
    fields, end = _decode_call(payload, offset + 1, "reducer")
    return CallReducer(*fields), end


def _decode_call(payload: bytes, offset: int, kind: str) -> tuple[tuple[int, str, bytes], int]:
    request_id, offset = read_u32(payload, offset)
    flags, offset = read_u8(payload, offset)
    if flags:
        raise DecodeError(f"invalid call {kind} flag {flags}", offset - 1)
    name, offset = read_string(payload, offset)
    args, offset = read_bytes(payload, offset)
    return (request_id, name, args), offset


def _decode_call_procedure(payload: bytes, offset: int) -> tuple[Request, int]:
    fields, end = _decode_call(payload, offset, "procedure")
    return CallProcedure(*fields), end


def _decode_subscribe(payload: bytes, offset: int) -> tuple[Request, int]:
    request_id, offset = read_u32(payload, offset)
    query_set_id, offset = read_u32(payload, offset)
    queries, offset = read_strings(payload, offset)
    return Subscribe(SubscriptionKind.SET, request_id, query_set_id, queries), offset


def _decode_unsubscribe(payload: bytes, offset: int) -> tuple[Request, int]:
    request_id, offset = read_u32(payload, offset)
    query_set_id, offset = read_u32(payload, offset)
    flag, offset = read_u8(payload, offset)
    if flag > 1:
        raise unknown_tag(flag, "UnsubscribeFlags", offset - 1)
    return Unsubscribe(SubscriptionKind.SET, request_id, query_set_id, flag == 1), offset


def _decode_one_off(payload: bytes, offset: int) -> tuple[Request, int]:
    request_id, offset = read_u32(payload, offset)
    query, offset = read_string(payload, offset)
    return OneOffQuery(request_id, query), offset


def _decode_subscribe_batch(payload: bytes, offset: int) -> tuple[Request, int]:
    request_id, offset = read_u32(payload, offset)
    count, offset = read_u32(payload, offset)
    sets = []
    for _ in range(count):
        query_set_id, offset = read_u32(payload, offset)
        queries, offset = read_strings(payload, offset)
        sets.append((query_set_id, queries))
    return SubscribeBatch(request_id, tuple(sets)), offset


_DECODERS = (
    _decode_subscribe,
    _decode_unsubscribe,
    _decode_one_off,
    _decode_call_reducer,
    _decode_call_procedure,
    _decode_subscribe_batch,
)


class V2Bsatn(Dialect):
    """One client that speaks v2.bsatn."""

    __slots__ = ()
    NAME = "v2.bsatn.spacetimedb"
    FORM = "v2"
    CONFIRMED_BY_DEFAULT = True
    _TEXT_REFUSED = "v2 websocket does not support text messages"

    def receive(self, message: bytes | str, requests: list[Request]) -> None:
        """Append the one request of `message`; bytes after it are ignored, as the reference does."""
        if type(message) is not bytes:
            raise DecodeError(self._TEXT_REFUSED)
        requests.append(decode_message(message, 0)[0])

    def initial_connection(self, identity: bytes, connection_id: bytes, token: str) -> None:
        """Queue the first message."""
        self._queue(0, bytes((_INITIAL_CONNECTION,)) + identity + connection_id + write_string(token))

    def reducer_result(
        self, call: CallReducer, outcome: ReducerOutcome, event: TransactionEvent, update: ClientUpdate | None
    ) -> None:
        """Answer the caller; the rows its own query sets saw are inside."""
        if outcome.kind == OutcomeKind.COMMITTED:
            needs = event.needs if self.confirmed else 0
            if update is None:
                frame = _ok_empty_frame(0x82, 23, 0, _REDUCER_RESULT, call.request_id, event.timestamp_us, _OK, 0, 0)
                self._append((needs, frame))
            else:
                head = _ok_head(_REDUCER_RESULT, call.request_id, event.timestamp_us, _OK, 0)
                self._queue(needs, head + encode_query_sets(update))
            return
        text = write_string(outcome.text)
        failed = outcome.kind == OutcomeKind.FAILED
        head = _result_head(_REDUCER_RESULT, call.request_id, event.timestamp_us, _ERR if failed else _INTERNAL_ERROR)
        self._queue(0, head + (write_bytes(text) if failed else text))

    def procedure_error(self, call: CallProcedure, text: str) -> None:
        """Answer a procedure call that cannot run or failed."""
        self._queue(0, procedure_answer(_PROCEDURE_RESULT, 1, text.encode(), call.request_id))

    def procedure_out_of_time(self, call: CallProcedure) -> None:
        """Answer a procedure call that was stopped by the time limit: from v2 on there is no status for it."""
        self.procedure_error(call, OUT_OF_TIME)

    def procedure_result(self, call: CallProcedure, result: ProcedureResult, needs: int) -> None:
        """Answer a procedure call with what it returned."""
        times_us = result.timestamp_us, result.duration_us
        body = procedure_answer(_PROCEDURE_RESULT, 0, result.returned, call.request_id, times_us)
        self._queue(self._needs(needs), body)

    def subscribe_applied(self, request: Subscribe, rows: Sequence[Fragment], needs: int, duration_us: int) -> None:
        """Answer a subscription with its initial rows, one table entry per query plan."""
        head = _tag_and_two(_SUBSCRIBE_APPLIED, request.request_id, request.query_set_id)
        self._queue_rows(needs, rows, lambda: _query_rows(head, rows))

    def subscribe_batch_applied(
        self, request: SubscribeBatch, results: Sequence[tuple[int, Sequence[Fragment] | str]], needs: int
    ) -> None:
        """Answer a batch: per set its rows, or the text of its error."""

        def encode() -> Iterator[bytes]:
            yield _tag_and_two(_SUBSCRIBE_BATCH_APPLIED, request.request_id, len(results))
            for query_set_id, outcome in results:
                if isinstance(outcome, str):
                    yield _u32(query_set_id) + b"\1" + write_string(outcome)
                else:
                    yield from _query_rows(_u32(query_set_id) + b"\0", outcome)

        fragments = [fragment for _, outcome in results if not isinstance(outcome, str) for fragment in outcome]
        self._queue_rows(needs, fragments, encode)

    def unsubscribe_applied(
        self, request: Unsubscribe, rows: Sequence[Fragment] | None, needs: int, duration_us: int
    ) -> None:
        """Answer an unsubscription, with the dropped rows if they were asked for."""
        head = _tag_and_two(_UNSUBSCRIBE_APPLIED, request.request_id, request.query_set_id)
        if rows is None:
            self._queue(self._needs(needs), head + b"\1")
        else:
            dropped = rows
            self._queue_rows(needs, rows, lambda: _query_rows(head + b"\0", dropped))

    def subscription_error(self, request: Subscribe | Unsubscribe, text: str, duration_us: int) -> None:
        """Answer a subscription or unsubscription that failed."""
        head = bytes((_SUBSCRIPTION_ERROR, 0)) + _u32(request.request_id) + _u32(request.query_set_id)
        self._queue(0, head + write_string(text))

    def one_off_result(self, request: OneOffQuery, result: Fragment | str, needs: int, duration_us: int) -> None:
        """Answer a one-off query with exactly one table, or an error text."""
        assert isinstance(request.request_id, int)
        head = _tag_and_id(_ONE_OFF_RESULT, request.request_id)
        if isinstance(result, str):
            self._queue(0, head + b"\1" + write_string(result))
        else:
            rows = (result,)
            self._queue_rows(needs, rows, lambda: _query_rows(head + b"\0", rows))

    def _update_frame(self, event: TransactionEvent, update: ClientUpdate) -> bytes:
        frame: bytes | None = update.cache.get(self._frame_key)
        if frame is None:
            frame = self._frame(bytes((_TRANSACTION_UPDATE,)) + encode_query_sets(update))
            update.cache[self._frame_key] = frame
        return frame

    def _frame(self, body: bytes) -> bytes:
        return tagged_frame(body, self._compression)

    def _large_frame(self, body: Iterable[bytes]) -> bytes:
        return large_tagged_frame(body, self._compression)

    def _queue(self, needs: int, body: bytes) -> None:
        self._append((needs, tagged_frame(body, self._compression)))


def _query_rows(head: bytes, fragments: Sequence[Fragment]) -> Iterator[bytes]:
    """Yield `head` and QueryRows: per plan its table's name and rows (a fragment of an answer has one kind of them)."""
    yield head + _u32(len(fragments))
    for fragment in fragments:
        yield write_string(fragment.table_name)
        yield from row_list_pieces(fragment.inserts or fragment.deletes)


def encode_query_sets(update: ClientUpdate) -> bytes:
    """Return the body of a TransactionUpdate without its tag: the query sets, shared by all who see the same."""
    encoded = update.cache.get("v2")
    if encoded is None:
        encoded = _u32(len(update.sets)) + b"".join(map(_query_set, update.sets))
        update.cache["v2"] = encoded
    return encoded


def _query_set(query_set: SetUpdate) -> bytes:
    """Return one QuerySetUpdate: its tables sorted by name, in each the queries that saw a change."""
    assert query_set.query_set_id is not None
    if len(query_set.fragments) == 1:  # most of them
        (fragment,) = query_set.fragments
        head = _u32(query_set.query_set_id) + _ONE + write_string(fragment.table_name) + _ONE
        return head + _table_update_rows(fragment)
    tables = group_by_table(query_set.fragments)
    parts = [_u32(query_set.query_set_id), _u32(len(tables))]
    for name in sorted(tables):
        fragments = tables[name]
        parts.append(write_string(name))
        parts.append(_u32(len(fragments)))
        parts.extend(map(_table_update_rows, fragments))
    return b"".join(parts)


def _table_update_rows(fragment: Fragment) -> bytes:
    """Return TableUpdateRows: inserts first, or the events of an event table."""
    encoded = fragment.cache.get("v2.update")
    if encoded is None:
        if fragment.is_event:
            encoded = b"\1" + row_list(fragment.inserts)
        else:
            encoded = b"\0" + row_list(fragment.inserts) + row_list(fragment.deletes)
        fragment.cache["v2.update"] = encoded
    return encoded
