"""Between the declared message types and the dialects: drive a sink with a decoded message, name a request's value.

A message decoded at its declared type says what the server wanted to tell. `drive_v1` and `drive_v2` tell a sink the
same, so that its bytes can be compared; `v1_value` and `v2_value` turn a decoded request back into the value of its
declared type. `NeverSentError` marks what no sink method can say.
"""

from collections.abc import Callable
from typing import Any

import trio

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
from stdb.actors.sink import OutcomeKind, ProcedureResult, ReducerOutcome
from stdb.net.outbox import Outbox
from stdb.net.protocols.dialect import ConnectionOptions, Dialect
from stdb.net.protocols.registry import open_dialect
from stdb.net.protocols.wire import Compression
from stdb.net.stream import memory_stream_pair
from stdb.sats.types import Typespace
from stdb.schema.model import ModuleDef
from stdb.subscriptions.fragment import ClientUpdate, Fragment, SetUpdate, TransactionEvent
from tests.websocket_bytes import server_frames

V10 = ModuleDef(Typespace.EMPTY)
V9 = ModuleDef(Typespace.EMPTY, abi_is_v10=False)
PLAIN = ConnectionOptions(compression=Compression.NONE)
SET, SINGLE, MULTI, LEGACY = (SubscriptionKind[name] for name in ("SET", "SINGLE", "MULTI", "LEGACY"))


class NeverSentError(Exception):
    """This message is decoded by clients but never sent by this server."""


class Spoken:
    """A dialect whose frames are caught."""

    def __init__(
        self, name: str, options: ConnectionOptions = PLAIN, definition: ModuleDef = V10, columns: Any = None
    ) -> None:
        self._stream, self._client = memory_stream_pair(1 << 40)
        self.outbox = Outbox(self._stream)
        self.sink: Dialect = open_dialect(f"{name}.spacetimedb", self.outbox, options, lambda: definition)
        self.columns = columns or (lambda name: None)
        """Name of a table to the `columns` of its fragments."""

    def frames(self, durable: int = 1 << 62) -> list[tuple[int, bytes]]:
        """Return (first byte, payload) of what left by now; answers that are large enough to be deferred come too."""
        self.sink.flush(durable)
        if self.sink.waits() and self.outbox._deferred:
            trio.run(self._encode)
        data = bytes(self._client._incoming)
        self._client._incoming.clear()
        return server_frames(data)

    async def _encode(self) -> None:
        while self.outbox._unencoded:
            await self.outbox._encode_next()

    def payloads(self) -> list[bytes]:
        """Return the payloads of what left by now."""
        return [payload for _, payload in self.frames()]

    def fragment(self, name: str, inserts: Any, deletes: Any, table_id: int = 0, is_event: bool = False) -> Fragment:
        """Return a fragment of two decoded row lists."""
        return Fragment(table_id, name, self.columns(name), rows_of(inserts), rows_of(deletes), is_event)


def rows_of(row_list: Any) -> list[bytes]:
    """Return the rows of a decoded BsatnRowList; a plain list of rows is one already."""
    if isinstance(row_list, list):
        return row_list
    (tag, hint), data = row_list
    if tag == 0:
        assert hint > 0
        assert len(data) % hint == 0
        return [data[start : start + hint] for start in range(0, len(data), hint)]
    if not hint:
        assert data == b""
        return []
    return [data[start:end] for start, end in zip(hint, [*hint[1:], len(data)], strict=True)]


def event(**changes: Any) -> TransactionEvent:
    """Return an event with as little as possible in it."""
    fields: dict[str, Any] = {"caller": bytes(32), "caller_connection_id": None, "timestamp_us": 0}
    return TransactionEvent(**{**fields, **changes})


# ---------------------------------------------------------------------------------------------- v2 and v3
def drive_v2(spoken: Spoken, message: Any) -> None:
    """Tell the sink what `message` (a value of messages_v2.SERVER_MESSAGE) says."""
    tag, fields = message
    sink = spoken.sink
    if tag == 0:
        sink.initial_connection(*fields)
    elif tag == 1:
        request_id, (set_id,), rows = fields
        sink.subscribe_applied(Subscribe(SET, request_id, set_id, ()), query_rows(spoken, rows), 0, 0)
    elif tag == 2:
        request_id, (set_id,), dropped = fields
        rows = None if dropped is None else query_rows(spoken, dropped, as_deletes=True)
        sink.unsubscribe_applied(Unsubscribe(SET, request_id, set_id, rows is not None), rows, 0, 0)
    elif tag == 3:
        request_id, (set_id,), text = fields
        if request_id is None:
            raise NeverSentError
        sink.subscription_error(Subscribe(SET, request_id, set_id, ()), text, 0)
    elif tag == 4:
        sink.update(event(), client_update_v2(spoken, fields))
    elif tag == 5:
        request_id, (failed, result) = fields
        answer = result if failed else query_rows(spoken, result)[0]
        sink.one_off_result(OneOffQuery(request_id, ""), answer, 0, 0)
    elif tag == 6:
        drive_reducer_result(spoken, *fields)
    elif tag == 7:
        (returned, text), timestamp, duration, request_id = fields
        procedure_ended(spoken, (None, text) if returned else (text, None), timestamp, duration, request_id)
    else:
        request_id, results = fields
        outcomes = [(one, what if failed else query_rows(spoken, what)) for (one,), (failed, what) in results]
        sink.subscribe_batch_applied(SubscribeBatch(request_id, ()), outcomes, 0)


def drive_reducer_result(spoken: Spoken, request_id: int, timestamp: int, result: Any) -> None:
    tag, what = result
    call = CallReducer(request_id, "", b"")
    told = event(timestamp_us=timestamp)
    if tag == 0:
        returned, update = what
        assert returned == b""
        seen = client_update_v2(spoken, update) if update[0] else None
        spoken.sink.reducer_result(call, ReducerOutcome(OutcomeKind.COMMITTED), told, seen)
    elif tag == 1:
        raise NeverSentError
    elif tag == 2:
        text = what[4:].decode()
        spoken.sink.reducer_result(call, ReducerOutcome(OutcomeKind.FAILED, text), told, None)
    else:
        spoken.sink.reducer_result(call, ReducerOutcome(OutcomeKind.NOT_RUN, what, "the chain"), told, None)


def query_rows(spoken: Spoken, rows: Any, as_deletes: bool = False) -> list[Fragment]:
    (tables,) = rows
    return [
        spoken.fragment(name, [], listed) if as_deletes else spoken.fragment(name, listed, [])
        for name, listed in tables
    ]


def client_update_v2(spoken: Spoken, update: Any) -> ClientUpdate:
    (sets,) = update
    return ClientUpdate(
        tuple(
            SetUpdate(
                set_id,
                tuple(
                    spoken.fragment(name, rows[0], [] if kind else rows[1], is_event=bool(kind))
                    for name, entries in tables
                    for kind, rows in entries
                ),
            )
            for (set_id,), tables in sets
        )
    )


def v2_value(request: Request) -> Any:
    """Return `request` as a value of messages_v2.CLIENT_MESSAGE."""
    match request:
        case Subscribe(kind, request_id, set_id, queries):
            assert kind is SET
            return 0, (request_id, (set_id,), list(queries))
        case Unsubscribe(kind, request_id, set_id, drop):
            assert kind is SET
            return 1, (request_id, (set_id,), (int(drop), ()))
        case OneOffQuery(request_id, query):
            return 2, (request_id, query)
        case CallReducer(request_id, name, args, notify):
            assert notify
            return 3, (request_id, 0, name, args)
        case CallProcedure(request_id, name, args):
            return 4, (request_id, 0, name, args)
        case SubscribeBatch(request_id, sets):
            return 5, (request_id, [((set_id,), list(queries)) for set_id, queries in sets])
    raise AssertionError(request)


def procedure_ended(
    spoken: Spoken, ended: tuple[bytes | str | None, str | None], timestamp: int, duration: int, request_id: int
) -> None:
    """Tell that a procedure returned BSATN (or its JSON), or the text of its error."""
    returned, text = ended
    call = CallProcedure(request_id, "", b"")
    if text is not None:
        assert (timestamp, duration) == (0, 0), "errors have no times"
        spoken.sink.procedure_error(call, text)
    else:
        data = b"" if isinstance(returned, str) else returned or b""
        result = ProcedureResult(data, lambda: str(returned), timestamp, duration)
        spoken.sink.procedure_result(call, result, 0)


# ---------------------------------------------------------------------------------------------- v1
def drive_v1(spoken: Spoken, message: Any) -> None:
    """Tell the sink what `message` (a value of messages_v1.SERVER_MESSAGE or its JSON twin) says."""
    tag, fields = message
    _DRIVE_V1[tag](spoken, *fields)


def _initial_subscription(spoken: Spoken, update: Any, request_id: int, duration: int) -> None:
    spoken.sink.subscribe_applied(Subscribe(LEGACY, request_id, 0, ()), plans(spoken, update), 0, duration)


def _transaction_update(
    spoken: Spoken, status: Any, timestamp: int, caller: bytes, connection: bytes, call: Any, energy: Any, duration: int
) -> None:
    name, reducer_id, args, request_id = call
    told = event(
        caller=caller,
        caller_connection_id=connection if any(connection) else None,
        timestamp_us=timestamp,
        reducer_name=name,
        reducer_id=reducer_id,
        args=b"" if isinstance(args, str) else args,
        args_json=args if isinstance(args, str) else None,
        request_id=request_id,
        energy=energy[0],
        duration_us=duration,
    )
    kind = (OutcomeKind.COMMITTED, OutcomeKind.FAILED, OutcomeKind.OUT_OF_TIME)[status[0]]
    update = client_update_v1(spoken, status[1]) if kind == OutcomeKind.COMMITTED and status[1][0] else None
    text = status[1] if kind == OutcomeKind.FAILED else ""
    spoken.sink.reducer_result(CallReducer(request_id, name, args), ReducerOutcome(kind, text), told, update)


def _transaction_update_light(spoken: Spoken, request_id: int, update: Any) -> None:
    spoken.sink.update(event(request_id=request_id), client_update_v1(spoken, update))


def _identity_token(spoken: Spoken, identity: bytes, token: str, connection_id: bytes) -> None:
    spoken.sink.initial_connection(identity, connection_id, token)


def _one_off(spoken: Spoken, message_id: bytes, error: str | None, tables: Any, duration: int) -> None:
    result = spoken.fragment(tables[0][0], tables[0][1], []) if error is None else error
    spoken.sink.one_off_result(OneOffQuery(message_id, ""), result, 0, duration)


def _subscription_error(spoken: Spoken, micros: int, request_id: Any, query_id: Any, table_id: Any, text: str) -> None:
    if request_id is None or table_id is not None:
        raise NeverSentError
    kind = LEGACY if query_id is None else MULTI
    spoken.sink.subscription_error(Subscribe(kind, request_id, query_id or 0, ()), text, micros)


def _procedure_result(spoken: Spoken, status: Any, timestamp: int, duration: int, request_id: int) -> None:
    if status[0] == 1:
        assert (timestamp, duration) == (0, 0)
        spoken.sink.procedure_out_of_time(CallProcedure(request_id, "", b""))
    else:
        ended = (None, status[1]) if status[0] else (status[1], None)
        procedure_ended(spoken, ended, timestamp, duration, request_id)


def _applied(kind: SubscriptionKind, subscribes: bool) -> Callable[..., None]:
    def drive(spoken: Spoken, request_id: int, micros: int, query_id: Any, rows: Any) -> None:
        fragments = [table(spoken, rows[2])] if kind is SINGLE else plans(spoken, rows)
        if subscribes:
            spoken.sink.subscribe_applied(Subscribe(kind, request_id, query_id[0], ()), fragments, 0, micros)
        else:
            spoken.sink.unsubscribe_applied(Unsubscribe(kind, request_id, query_id[0]), fragments, 0, micros)

    return drive


_DRIVE_V1: tuple[Callable[..., None], ...] = (
    _initial_subscription,
    _transaction_update,
    _transaction_update_light,
    _identity_token,
    _one_off,
    _applied(SINGLE, True),
    _applied(SINGLE, False),
    _subscription_error,
    _applied(MULTI, True),
    _applied(MULTI, False),
    _procedure_result,
)


def query_update(update: Any) -> Any:
    """Return (deletes, inserts) of a CompressableQueryUpdate, or of JSON's bare QueryUpdate."""
    tag, rows = update
    if tag in (1, 2):
        raise NeverSentError
    return rows if tag == 0 else update


def table(spoken: Spoken, update: Any) -> Fragment:
    table_id, name, count, updates = update
    (rows,) = map(query_update, updates)
    fragment = spoken.fragment(name, rows[1], rows[0], table_id)
    assert count == len(fragment.inserts) + len(fragment.deletes)
    return fragment


def plans(spoken: Spoken, update: Any) -> list[Fragment]:
    return [table(spoken, one) for one in update[0]]


def client_update_v1(spoken: Spoken, update: Any) -> ClientUpdate:
    fragments = []
    for table_id, name, _, updates in update[0]:
        for deletes, inserts in map(query_update, updates):
            fragments.append(spoken.fragment(name, inserts, deletes, table_id))
    return ClientUpdate((SetUpdate(None, tuple(fragments)),))


def v1_value(request: Request) -> Any:
    """Return `request` as a value of messages_v1.CLIENT_MESSAGE (or its JSON twin)."""
    match request:
        case CallReducer(request_id, name, args, notify):
            return 0, (name, args, request_id, 0 if notify else 1)
        case Subscribe(SubscriptionKind.LEGACY, request_id, _, queries):
            return 1, (list(queries), request_id)
        case OneOffQuery(message_id, query):
            return 2, (message_id, query)
        case Subscribe(SubscriptionKind.SINGLE, request_id, query_id, queries):
            return 3, (queries[0], request_id, (query_id,))
        case Subscribe(SubscriptionKind.MULTI, request_id, query_id, queries):
            return 4, (list(queries), request_id, (query_id,))
        case Unsubscribe(kind, request_id, query_id):
            return (5 if kind is SINGLE else 6), (request_id, (query_id,))
        case CallProcedure(request_id, name, args):
            return 7, (name, args, request_id, 0)
    raise AssertionError(request)
