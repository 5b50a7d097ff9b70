"""v1.json: the text dialect of v1, which the command line of 1.x speaks.

Responsible for: writing v1's ServerMessage as JSON (spec 02 section 7).
Not responsible for: who is told what (`v1`), requests (`v1_requests`), values as JSON (`stdb.sats.json`).

Rows and arguments are JSON texts inside the JSON. Rows are objects by column name whose inner sums are
`[tag, payload]`. Encodings are cached under "v1.json.rows" (fragments) and "v1.json" (rows of an update), frames as
`dialect` and `v1` say. `messages_v1` describes the same documents as types.
"""

import json as standard_json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from stdb.actors.requests import (
    CallProcedure,
    OneOffQuery,
    Subscribe,
    SubscribeBatch,
    SubscriptionKind,
    Unsubscribe,
)
from stdb.actors.sink import ProcedureResult
from stdb.errors import DecodeError
from stdb.net.frames import joined_frame, text_frame
from stdb.net.protocols.rows import group_by_table, pieces_of
from stdb.net.protocols.v1 import V1
from stdb.sats import bsatn, json
from stdb.schema.model import ModuleDef
from stdb.subscriptions.fragment import ClientUpdate, Fragment, TransactionEvent

__all__ = ["V1Json"]

_quote = standard_json.JSONEncoder(ensure_ascii=False).encode
_NONE = '{"none":[]}'


class V1Json(V1):
    """One client that speaks v1.json."""

    __slots__ = ()
    NAME = "v1.json.spacetimedb"
    FORM = "v1.json"

    def initial_connection(self, identity: bytes, connection_id: bytes, token: str) -> None:
        """Queue the first message."""
        self._queue(
            0,
            f'{{"IdentityToken":{{"identity":{_identity(identity)},"token":{_quote(token)},'
            f'"connection_id":{_connection_id(connection_id)}}}}}',
        )

    def procedure_error(self, call: CallProcedure, text: str) -> None:
        """Answer a procedure call that cannot run or failed."""
        self._procedure_ended(0, call, f'{{"InternalError":{_quote(text)}}}')

    def procedure_out_of_time(self, call: CallProcedure) -> None:
        """Answer a procedure call that was stopped by the time limit."""
        self._procedure_ended(0, call, '{"OutOfEnergy":[]}')

    def procedure_result(self, call: CallProcedure, result: ProcedureResult, needs: int) -> None:
        """Answer a procedure call with what it returned."""
        status = f'{{"Returned":{_quote(result.as_json())}}}'
        self._procedure_ended(self._needs(needs), call, status, result.timestamp_us, result.duration_us)

    def _procedure_ended(
        self, needs: int, call: CallProcedure, status: str, timestamp_us: int = 0, duration_us: int = 0
    ) -> None:
        self._queue(
            needs,
            f'{{"ProcedureResult":{{"status":{status},"timestamp":{_timestamp(timestamp_us)},'
            f'"total_host_execution_duration":{_duration(duration_us)},"request_id":{call.request_id}}}}}',
        )

    def subscribe_applied(self, request: Subscribe, rows: Sequence[Fragment], needs: int, duration_us: int) -> None:
        """Answer a subscription with its initial rows, one table entry per query plan."""
        if request.kind is SubscriptionKind.LEGACY:

            def encode() -> Iterator[bytes]:
                yield b'{"InitialSubscription":{"database_update":'
                yield from _plans(rows)
                duration = _duration(duration_us)
                yield f',"request_id":{request.request_id},"total_host_execution_duration":{duration}}}}}'.encode()

        else:
            single = request.kind is SubscriptionKind.SINGLE
            name = "SubscribeApplied" if single else "SubscribeMultiApplied"

            def encode() -> Iterator[bytes]:
                return _applied(name, request, duration_us, rows, single)

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
        name = "UnsubscribeApplied" if single else "UnsubscribeMultiApplied"
        self._queue_rows(needs, dropped, lambda: _applied(name, request, duration_us, dropped, single))

    def subscription_error(self, request: Subscribe | Unsubscribe, text: str, duration_us: int) -> None:
        """Answer a subscription or unsubscription that failed."""
        legacy = request.kind is SubscriptionKind.LEGACY
        query_id = _NONE if legacy else f'{{"some":{request.query_set_id}}}'
        self._queue(
            0,
            f'{{"SubscriptionError":{{"total_host_execution_duration_micros":{duration_us},'
            f'"request_id":{{"some":{request.request_id}}},"query_id":{query_id},"table_id":{_NONE},'
            f'"error":{_quote(text)}}}}}',
        )

    def one_off_result(self, request: OneOffQuery, result: Fragment | str, needs: int, duration_us: int) -> None:
        """Answer a one-off query with exactly one table, or an error text."""
        assert isinstance(request.request_id, bytes)
        head = f'{{"OneOffQueryResponse":{{"message_id":"{request.request_id.hex()}","error":'
        tail = f',"total_host_execution_duration":{_duration(duration_us)}}}}}'
        if isinstance(result, str):
            self._queue(0, f'{head}{{"some":{_quote(result)}}},"tables":[]{tail}')
            return
        table = f'{head}{_NONE},"tables":[{{"table_name":{_quote(result.table_name)},"rows":'.encode()
        end = f"}}]{tail}".encode()
        fragment = result
        self._queue_rows(needs, (result,), lambda: chain((table,), _row_pieces(fragment, fragment.inserts), (end,)))

    def _committed(self, event: TransactionEvent, update: ClientUpdate) -> bytes:
        return self._transaction_update(event, f'{{"Committed":{_database_update(update)}}}')

    def _failed(self, event: TransactionEvent, text: str) -> bytes:
        return self._transaction_update(event, f'{{"Failed":{_quote(text)}}}')

    def _out_of_energy(self, event: TransactionEvent) -> bytes:
        return self._transaction_update(event, '{"OutOfEnergy":[]}')

    def _transaction_update(self, event: TransactionEvent, status: str) -> bytes:
        args = event.args_json
        if args is None:
            args = _args_text(event, self._definition())
        return text_frame(
            f'{{"TransactionUpdate":{{"status":{status},"timestamp":{_timestamp(event.timestamp_us)},'
            f'"caller_identity":{_identity(event.caller)},'
            f'"caller_connection_id":{_connection_id(event.caller_connection_id or b"")},'
            f'"reducer_call":{{"reducer_name":{_quote(event.reducer_name)},"reducer_id":{event.reducer_id},'
            f'"args":{_quote(args)},"request_id":{event.request_id}}},'
            f'"energy_quanta_used":{{"quanta":{event.energy}}},'
            f'"total_host_execution_duration":{_duration(event.duration_us)}}}}}'
        )

    def _light_update(self, event: TransactionEvent, update: ClientUpdate) -> bytes:
        return text_frame(
            f'{{"TransactionUpdateLight":{{"request_id":{event.request_id},"update":{_database_update(update)}}}}}'
        )

    def _frame(self, body: bytes) -> bytes:
        return joined_frame((body,), is_text=True)

    def _large_frame(self, body: Iterable[bytes]) -> bytes:
        return joined_frame(body, is_text=True)

    def _queue(self, needs: int, text: str) -> None:
        self._append((needs, text_frame(text)))


def _identity(identity: bytes) -> str:
    return f'{{"__identity__":"{int.from_bytes(identity, "little"):#x}"}}'


def _connection_id(connection_id: bytes) -> str:
    return f'{{"__connection_id__":{int.from_bytes(connection_id, "little")}}}'


def _timestamp(timestamp_us: int) -> str:
    return f'{{"__timestamp_micros_since_unix_epoch__":{timestamp_us}}}'


def _duration(duration_us: int) -> str:
    return f'{{"__time_duration_micros__":{duration_us}}}'


def _args_text(event: TransactionEvent, definition: ModuleDef) -> str:
    """Return the arguments of a caller that spoke BSATN as a JSON array; `[]` for what is no reducer's call."""
    reducer = next((one for one in definition.reducers if one.name == event.reducer_name), None)
    if reducer is None:
        return "[]"
    try:
        values, _ = bsatn.codec(reducer.params, definition.typespace).decode(event.args)
    except DecodeError:
        return "[]"
    return json.encode(reducer.params, values, "positional", typespace=definition.typespace)


def _applied(
    name: str, request: Subscribe | Unsubscribe, duration_us: int, rows: Sequence[Fragment], single: bool
) -> Iterator[bytes]:
    """Yield one of the four Applied messages."""
    yield (
        f'{{"{name}":{{"request_id":{request.request_id},"total_host_execution_duration_micros":{duration_us},'
        f'"query_id":{{"id":{request.query_set_id}}},"{"rows" if single else "update"}":'
    ).encode()
    yield from _single_table(rows) if single else _plans(rows)
    yield b"}}"


def _database_update(update: ClientUpdate) -> str:
    """Return the rows of a transaction: one entry per table, in it one update per query that saw a change."""
    encoded = update.cache.get("v1.json")
    if encoded is None:
        tables = group_by_table(fragment for one in update.sets for fragment in one.fragments)
        encoded = _tables(tables.values()).encode()
        update.cache["v1.json"] = encoded
    return encoded.decode()


def _plans(rows: Iterable[Fragment]) -> Iterator[bytes]:
    """Yield the rows of an answer: one entry per query plan, not merged per table."""
    yield b'{"tables":['
    for i, fragment in enumerate(rows):
        if i:
            yield b","
        yield from _table_rows(fragment)
    yield b"]}"


def _tables(tables: Iterable[Sequence[Fragment]]) -> str:
    return f'{{"tables":[{",".join(map(_table_update, tables))}]}}'


def _single_table(rows: Sequence[Fragment]) -> Iterator[bytes]:
    """Yield SubscribeRows: the table's id and name, then the same again with its rows."""
    if not rows:
        empty = '"table_id":0,"table_name":""'
        yield f'{{{empty},"table_rows":{{{empty},"num_rows":0,"updates":[]}}}}'.encode()
        return
    (fragment,) = rows
    yield f'{{"table_id":{fragment.table_id},"table_name":{_quote(fragment.table_name)},"table_rows":'.encode()
    yield from _table_rows(fragment)
    yield b"}"


def _table_rows(fragment: Fragment) -> Iterator[bytes]:
    """Yield the one table update of an answer."""
    count = len(fragment.inserts) + len(fragment.deletes)
    yield (
        f'{{"table_id":{fragment.table_id},"table_name":{_quote(fragment.table_name)},"num_rows":{count},'
        '"updates":[{"deletes":'
    ).encode()
    yield from _row_pieces(fragment, fragment.deletes)
    yield b',"inserts":'
    yield from _row_pieces(fragment, fragment.inserts)
    yield b"}]}"


def _table_update(fragments: Sequence[Fragment]) -> str:
    """Return TableUpdate of fragments of one table."""
    first = fragments[0]
    count = sum(len(fragment.inserts) + len(fragment.deletes) for fragment in fragments)
    return (
        f'{{"table_id":{first.table_id},"table_name":{_quote(first.table_name)},"num_rows":{count},'
        f'"updates":[{",".join(map(_query_update, fragments))}]}}'
    )


def _query_update(fragment: Fragment) -> str:
    encoded = fragment.cache.get("v1.json.rows")
    if encoded is None:
        deletes, inserts = _row_texts(fragment, fragment.deletes), _row_texts(fragment, fragment.inserts)
        encoded = f'{{"deletes":{deletes},"inserts":{inserts}}}'.encode()
        fragment.cache["v1.json.rows"] = encoded
    return encoded.decode()


def _row_texts(fragment: Fragment, rows: Sequence[bytes]) -> str:
    """Return a JSON array of strings, each the JSON of one row."""
    return b"".join(_row_pieces(fragment, rows)).decode()


def _row_pieces(fragment: Fragment, rows: Sequence[bytes]) -> Iterator[bytes]:
    """Yield a JSON array of strings, each the JSON of one row."""
    decode = fragment.columns.codec.decode_exact
    write = json.encoder(fragment.columns.row_type, "row")
    separator = "["
    for piece in pieces_of(rows):
        yield (separator + ",".join([_quote(write(decode(row))) for row in piece])).encode()
        separator = ","
    yield b"]" if rows else b"[]"
