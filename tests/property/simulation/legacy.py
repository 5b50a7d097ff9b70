"""The wire as clients of 0.7 to 0.11 speak it: three of their dialects, in the form that `client` understands.

Responsible for: `LegacySpeech`: requests, answers, rows out of the types of that time.
Not responsible for: what an answer means for a cache (`client`).

Those clients have one subscription, which the next one replaces, and keep rows as sets. An answer to a failed call or
subscription has no request id: a call is known by its arguments, subscriptions are answered in order. Messages are read
by their types, which the server does not use for writing them.
"""

import base64
import json as standard_json
from collections import deque
from collections.abc import Mapping
from typing import Any

from stdb.sats import bsatn, json
from stdb.sats.profiles import V0_11
from stdb.sats.types import BYTES, U256, Element, Product
from tests.legacy_messages import CLIENT_MESSAGE, SERVER_MESSAGE, unpacked
from tests.property.simulation.model import Query, Shape
from tests.property.simulation.wire import Answer, Change, Speech
from tests.websocket_bytes import client_frame

__all__ = ["LEGACY_PROTOCOLS", "LegacySpeech"]

LEGACY_PROTOCOLS = ("0.11 v1.bin", "0.11 v1.text", "0.8 v1.text")
_HIDDEN = ("flash", "mine")
"""Event tables and views: there were none."""


class LegacySpeech(Speech):
    """One dialect of one connection."""

    is_v1 = True
    is_legacy = True

    def __init__(self, protocol: str, shapes: Mapping[str, Shape]) -> None:
        self._version, _, self._form = protocol.partition(" ")
        self._shapes = shapes
        self._calls: dict[int, int] = {}
        """Request ids of calls by their tag."""
        self._pending: deque[int] = deque()
        """Request ids of subscriptions that were not answered yet."""

    def request_line(self, connection: int) -> str:
        """Return the first line of an upgrade."""
        path = f"/legacy/{self._version}/database/subscribe/simulated"
        return f"GET {path}?client_address={connection:032x} HTTP/1.1"

    @property
    def subprotocol(self) -> str:
        """Return the name that is offered."""
        return f"{self._form}.spacetimedb"

    def is_hidden(self, query: Query) -> bool:
        """Tell whether those clients see no such table."""
        return query.table in _HIDDEN

    # ------------------------------------------------------------------ requests
    def call(self, request_id: int, reducer: str, plan: int, tag: int) -> bytes:
        """Return a call of a reducer."""
        self._calls[tag] = request_id
        text = standard_json.dumps([plan, tag])
        if self._version == "0.8":
            return _text({"call": {"fn": reducer, "args": [plan, tag], "request_id": request_id}})
        if self._form == "v1.text":
            return _text({"CallReducer": {"reducer": reducer, "args": {"Text": text}, "request_id": request_id}})
        args = plan.to_bytes(8, "little") + tag.to_bytes(8, "little")
        return _binary((0, (reducer, (0, args), request_id)))

    def subscribe(self, request_id: int, set_id: int, queries: list[Query], other_form: bool) -> bytes:
        """Return a subscription in the place of the one before."""
        self._pending.append(request_id)
        texts = [query.text for query in queries]
        if self._version == "0.8":
            return _text({"subscribe": {"query_strings": texts, "request_id": request_id}})
        if self._form == "v1.text":
            return _text({"Subscribe": {"query_strings": texts, "request_id": request_id}})
        return _binary((1, (texts, request_id)))

    def unsubscribe(self, request_id: int, set_id: int, other_form: bool) -> bytes:
        """Return a subscription to nothing."""
        return self.subscribe(request_id, set_id, [], other_form)

    def one_off(self, request_id: int, query: Query) -> bytes:
        """Return a query that is asked once."""
        which = request_id.to_bytes(4, "little")
        if self._version == "0.8":
            text = base64.b64encode(which).decode()
            return _text({"one_off_query": {"message_id": text, "query_string": query.text}})
        if self._form == "v1.text":
            return _text({"OneOffQuery": {"message_id": which.hex(), "query_string": query.text}})
        return _binary((2, (which, query.text)))

    # ------------------------------------------------------------------ answers
    def hear(self, payload: bytes, identity: bytes, connection: int) -> Answer:
        """Return what a message says."""
        mine = identity, connection.to_bytes(16, "little")
        if self._version == "0.8":
            ((kind, fields),) = standard_json.loads(payload).items()
            return self._hear_old(kind, fields, mine)
        if self._form == "v1.text":
            tag, fields = json.decode(SERVER_MESSAGE, json.parse(payload.decode()), profile=V0_11)
        else:
            tag, fields = bsatn.codec(SERVER_MESSAGE, profile=V0_11).decode_exact(unpacked(payload))
        return self._hear_new(tag, fields, mine)

    def _hear_new(self, tag: int, fields: Any, mine: tuple[bytes, bytes]) -> Answer:
        match tag:
            case 0:
                return self._subscribed(fields[1], self._changes(fields[0][0]))
            case 1:
                (outcome, what), _, caller, address, call = fields[:5]
                is_mine = (caller, address) == mine
                tag_of = _tag_of(*call[2])
                changes = self._changes(what[0]) if outcome == 0 else ()
                return self._transaction(outcome == 0, is_mine, call[0], tag_of, changes, what if outcome == 1 else "")
            case 2:
                return Answer("connected")
            case 3:
                changes = tuple(Change(None, name, self._all(name, rows), []) for name, rows in fields[2])
                return Answer("one-off", int.from_bytes(fields[0], "little"), changes, text=fields[1] or "")
        raise AssertionError(tag)

    def _hear_old(self, kind: str, fields: Any, mine: tuple[bytes, bytes]) -> Answer:
        match kind:
            case "SubscriptionUpdate":
                return self._subscribed(fields["request_id"], self._operations(fields["table_updates"]))
            case "TransactionUpdate":
                event = fields["event"]
                caller = tuple(bytes.fromhex(event[name])[::-1] for name in ("caller_identity", "caller_address"))
                call, is_committed = event["function_call"], event["status"] == "committed"
                changes = self._operations(fields["subscription_update"]["table_updates"])
                assert is_committed or not changes, "a failed transaction has no rows"
                tag = _tag_of(1, call["args"])
                return self._transaction(is_committed, caller == mine, call["reducer"], tag, changes, event["message"])
            case "IdentityToken":
                return Answer("connected")
            case "OneOffQueryResponse":
                which = base64.b64decode(fields["message_id_base64"])
                changes = tuple(
                    Change(None, each["table_name"], [self._row(each["table_name"], row) for row in each["rows"]], [])
                    for each in fields["result"]
                )
                return Answer("one-off", int.from_bytes(which, "little"), changes, text=fields["error"] or "")
        raise AssertionError(kind)

    def _subscribed(self, request_id: int, changes: tuple[Change, ...]) -> Answer:
        assert self._pending.popleft() == request_id, "subscriptions are answered in order"
        assert not any(each.deletes for each in changes), "a subscription begins with what there is"
        return Answer("subscribed", request_id, changes)

    def _transaction(
        self, is_committed: bool, is_mine: bool, reducer: str, tag: int, changes: tuple[Change, ...], text: str
    ) -> Answer:
        if reducer == "<none>":
            return Answer("refused", self._pending.popleft(), text=text)
        is_result = is_mine and tag in self._calls and reducer in ("work", "note", "idle")
        request_id = self._calls.pop(tag) if is_result else None
        return Answer("result" if is_result else "update", request_id, changes, is_committed, text)

    # ------------------------------------------------------------------ rows
    def _changes(self, tables: list[Any]) -> tuple[Change, ...]:
        return tuple(Change(None, name, self._all(name, came), self._all(name, went)) for _, name, went, came in tables)

    def _operations(self, tables: list[Any]) -> tuple[Change, ...]:
        changes = []
        for table in tables:
            rows: dict[str, list[bytes]] = {"insert": [], "delete": []}
            for each in table["table_row_operations"]:
                rows[each["op"]].append(self._row(table["table_name"], each["row"]))
            changes.append(Change(None, table["table_name"], rows["insert"], rows["delete"]))
        return tuple(changes)

    def _all(self, name: str, rows: list[Any]) -> list[bytes]:
        return [self._row(name, json.parse(row) if is_text else row) for is_text, row in rows]

    def _row(self, name: str, row: Any) -> bytes:
        """Return a row of theirs, BSATN or a document, as the server keeps it; U256 was not known then."""
        shape = self._shapes[name]
        columns = shape.definition.columns
        row_type = Product(tuple(Element(each.name, BYTES if each.type == U256 else each.type) for each in columns))
        if isinstance(row, bytes):
            values = bsatn.codec(row_type, profile=V0_11).decode_exact(row)
        else:
            values = json.decode(row_type, row, profile=V0_11)
        return shape.encode(
            [
                int.from_bytes(value, "little") if column.type == U256 else value
                for column, value in zip(columns, values, strict=True)
            ]
        )


def _tag_of(is_text: int, args: Any) -> int:
    """Return the last argument of a call."""
    if not is_text:
        return int.from_bytes(args[8:16], "little")
    values = standard_json.loads(args)
    return values[1] if len(values) == 2 and isinstance(values[1], int) else -1


def _text(message: Any) -> bytes:
    return client_frame(0x81, standard_json.dumps(message).encode())


def _binary(message: Any) -> bytes:
    return client_frame(0x82, bsatn.codec(CLIENT_MESSAGE, profile=V0_11).encode(message))
