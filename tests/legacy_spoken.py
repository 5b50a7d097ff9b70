"""Dialects of 0.11 and older whose frames are caught, and a small chat for them to tell of."""

from typing import Any

from stdb.actors.requests import CallReducer, OneOffStatements, Request, Subscribe, SubscriptionKind
from stdb.net.outbox import Outbox
from stdb.net.protocols.dialect import ConnectionOptions
from stdb.net.protocols.legacy.requests import Arguments
from stdb.net.protocols.registry import open_dialect
from stdb.net.stream import memory_stream_pair
from stdb.sats import bsatn
from stdb.sats.types import BOOL, IDENTITY, STRING, U64, Element, Product, Typespace, option
from stdb.schema.model import ColumnDef, Lifecycle, ModuleDef, ReducerDef, TableDef
from stdb.sql import RowShape
from stdb.subscriptions.fragment import ClientUpdate, Fragment, SetUpdate, TransactionEvent
from tests.websocket_bytes import server_frames

IDENTITY_BYTES = bytes.fromhex("93dda09db9a56d8fa6c024d843e805d8262191db3b4ba84c5efcd1ad451fed4e")[::-1]
ADDRESS = bytes.fromhex("8bcbac150fd3f03dcc9c78e61d0e99b4")[::-1]
MESSAGE_ID = bytes.fromhex("cb04b7585aae0c409943451d2d937520")
NOW_US = 1_700_000_000_000_000


def _columns(**columns: Any) -> tuple[ColumnDef, ...]:
    return tuple(ColumnDef(name, name, type_) for name, type_ in columns.items())


def _product(**elements: Any) -> Product:
    return Product(tuple(Element(name, type_) for name, type_ in elements.items()))


USER = TableDef("User", "User", 0, _columns(identity=IDENTITY, name=option(STRING), online=BOOL), primary_key=0)
MESSAGE = TableDef("Message", "Message", 1, _columns(sender=IDENTITY, sent=U64, text=STRING))
CHAT = ModuleDef(
    Typespace.EMPTY,
    tables=(USER, MESSAGE),
    reducers=(
        ReducerDef("init", "init", Product(()), Lifecycle.INIT),
        ReducerDef("came", "came", Product(()), Lifecycle.ON_CONNECT),
        ReducerDef("send_message", "send_message", _product(text=STRING)),
        ReducerDef("set_name", "set_name", _product(name=STRING)),
        ReducerDef("expire_old", "expire_old", Product(())),
    ),
)
_TABLES = {"User": (4097, USER), "Message": (4096, MESSAGE)}


def row(table: str, *values: Any) -> bytes:
    """Return a row as this server stores it."""
    return bsatn.codec(_TABLES[table][1].row_type).encode(values)


USER_NONE = row("User", IDENTITY_BYTES, None, True)
USER_BOB = row("User", IDENTITY_BYTES, "Bob", True)
MESSAGE_HI = row("Message", IDENTITY_BYTES, NOW_US, "hi")


def fragment(table: str, inserts: list[bytes], deletes: list[bytes] | None = None) -> Fragment:
    """Return changes of a table."""
    table_id, definition = _TABLES[table]
    shape = RowShape(definition.row_type, bsatn.codec(definition.row_type))
    return Fragment(table_id, table, _Columns(shape), inserts, deletes or [])


class _Columns:
    """What a dialect needs of a table's schema."""

    def __init__(self, shape: RowShape) -> None:
        self.row_type, self.codec = shape


def update(*fragments: Fragment) -> ClientUpdate:
    """Return what a client sees of a transaction."""
    return ClientUpdate((SetUpdate(None, fragments),))


def event(reducer: str, args: Any, **fields: Any) -> TransactionEvent:
    """Return where a transaction came from: a call of a reducer of the chat."""
    reducer_id = CHAT.reducer_id(reducer)
    assert reducer_id is not None
    data = bsatn.codec(CHAT.reducers[reducer_id].params).encode(args)
    known: dict[str, Any] = {
        "energy": 1234,
        "duration_us": 55,
        "request_id": 7,
        "caller_connection_id": ADDRESS,
        **fields,
    }
    known |= {"timestamp_us": NOW_US, "reducer_name": reducer, "reducer_id": reducer_id, "args": data}
    return TransactionEvent(IDENTITY_BYTES, **known)


class LegacySpoken:
    """One client's dialect."""

    def __init__(self, name: str, definition: ModuleDef = CHAT) -> None:
        stream, self._client = memory_stream_pair(1 << 40)
        self.outbox = Outbox(stream)
        self.sink: Any = open_dialect(name, self.outbox, ConnectionOptions(), lambda: definition)

    def payloads(self) -> list[bytes]:
        """Return the payloads of what left by now."""
        self.sink.flush(1 << 62)
        data = bytes(self._client._incoming)
        self._client._incoming.clear()
        return [payload for _, payload in server_frames(data)]

    def payload(self) -> bytes:
        """Return the payload of the one message that left."""
        (payload,) = self.payloads()
        return payload

    def decoded(self, message: bytes | str) -> Request:
        """Return the one request of a message."""
        requests: list[Request] = []
        self.sink.receive(message, requests)
        (request,) = requests
        return request


def subscribe(*queries: str, request_id: int = 0) -> Subscribe:
    """Return a subscription."""
    return Subscribe(SubscriptionKind.LEGACY, request_id, 0, queries)


def call(reducer: str, data: bytes = b"", text: str | None = None, request_id: int = 0) -> CallReducer:
    """Return a call."""
    return CallReducer(request_id, reducer, Arguments(reducer, data, text))


def statements(text: str, message_id: bytes = MESSAGE_ID) -> OneOffStatements:
    """Return a one-off query."""
    return OneOffStatements(message_id, text)
