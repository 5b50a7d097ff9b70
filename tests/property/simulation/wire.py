"""The wire as a client speaks it: messages of every dialect to frames and back, in one form for all of them.

Responsible for: `Speech`, the requests and answers of one dialect; frames out of what a server sent.
Not responsible for: what an answer means for a cache (`client`).
"""

import json as standard_json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from stdb.net.protocols import messages_v1, messages_v2
from stdb.sats import bsatn, json
from tests.property.simulation.model import Query, Shape
from tests.websocket_bytes import client_frame
from tests.websocket_messages import rows_of

__all__ = ["Answer", "Change", "Speech", "frames_of"]


class Change(NamedTuple):
    """Rows of one table; `set_id` is None on v1."""

    set_id: int | None
    table: str
    inserts: list[bytes]
    deletes: list[bytes]


class Answer(NamedTuple):
    """A message from the server; `kind` is connected, subscribed, unsubscribed, refused, one-off, update or result."""

    kind: str
    request_id: int | None = None
    changes: tuple[Change, ...] = ()
    is_committed: bool = False
    text: str = ""


def frames_of(data: bytearray) -> Iterator[tuple[int, int, bytes]]:
    """Yield the whole frames at the start of `data`: where each begins, its first byte, its payload."""
    at = 0
    while len(data) - at >= 2:
        size, head = data[at + 1], 2
        if size >= 126:
            width = 2 if size == 126 else 8
            head += width
            size = int.from_bytes(data[at + 2 : at + 2 + width], "big")
        if len(data) - at < head + size:
            return
        yield at, data[at], bytes(data[at + head : at + head + size])
        at += head + size


class Speech:
    """One dialect."""

    is_legacy = False
    """Of 0.11 or older: one subscription at a time, whose rows are a set."""

    def __init__(self, protocol: str, shapes: Mapping[str, Shape]) -> None:
        self._protocol = protocol
        self.is_v1 = protocol.startswith("v1")
        self._is_json = protocol == "v1.json"
        messages = messages_v1 if self.is_v1 else messages_v2
        self._client_type = messages_v1.JSON_CLIENT_MESSAGE if self._is_json else messages.CLIENT_MESSAGE
        self._server_type = messages_v1.JSON_SERVER_MESSAGE if self._is_json else messages.SERVER_MESSAGE
        self._shapes = shapes

    @property
    def subprotocol(self) -> str:
        """Return the name that is offered."""
        return f"{self._protocol}.spacetimedb"

    def is_hidden(self, query: Query) -> bool:
        """Tell whether such clients are refused a query that others may ask."""
        return self.is_v1 and query.table == "flash"

    # ------------------------------------------------------------------ requests
    def call(self, request_id: int, reducer: str, plan: int, tag: int) -> bytes:
        """Return a call of a reducer."""
        args = plan.to_bytes(8, "little") + tag.to_bytes(8, "little")
        if self._is_json:
            return self._frame((0, (reducer, standard_json.dumps([plan, tag]), request_id, 0)))
        return self._frame((0, (reducer, args, request_id, 0)) if self.is_v1 else (3, (request_id, 0, reducer, args)))

    def subscribe(self, request_id: int, set_id: int, queries: list[Query], other_form: bool) -> bytes:
        """Return a subscription; in the other form, as a Single on v1, in a batch on v2 and v3."""
        texts = [query.text for query in queries]
        if not self.is_v1:
            return self._frame(
                (5, (request_id, [((set_id,), texts)])) if other_form else (0, (request_id, (set_id,), texts))
            )
        return self._frame(
            (3, (texts[0], request_id, (set_id,))) if other_form else (4, (texts, request_id, (set_id,)))
        )

    def unsubscribe(self, request_id: int, set_id: int, other_form: bool) -> bytes:
        """Return the end of a subscription."""
        if not self.is_v1:
            return self._frame((1, (request_id, (set_id,), (1, ()))))
        return self._frame((5 if other_form else 6, (request_id, (set_id,))))

    def one_off(self, request_id: int, query: Query) -> bytes:
        """Return a query that is asked once."""
        which = request_id.to_bytes(4, "little") if self.is_v1 else request_id
        return self._frame((2, (which, query.text)))

    def _frame(self, message: Any) -> bytes:
        if self._is_json:
            return client_frame(0x81, json.encode(self._client_type, message, "compiled").encode())
        return client_frame(0x82, bsatn.codec(self._client_type).encode(message))

    # ------------------------------------------------------------------ answers
    def consumed(self, data: bytearray) -> int:
        """Drop the whole frames from the start of `data`; return how many bytes they were."""
        size = 0
        for start, _, payload in frames_of(data):
            size = start + _head_size(len(payload)) + len(payload)
        del data[:size]
        return size

    def hear(self, payload: bytes, identity: bytes, connection: int) -> Answer:
        """Return what a message says."""
        if self._is_json:
            tag, fields = json.decode(self._server_type, json.parse(payload.decode()))
        else:
            assert payload[0] == 0, "no compression was asked for"
            tag, fields = bsatn.codec(self._server_type).decode_exact(payload[1:])
        if not self.is_v1:
            return self._hear_v2(tag, fields)
        return self._hear_v1(tag, fields, identity, connection.to_bytes(16, "little"))

    def _hear_v1(self, tag: int, fields: Any, identity: bytes, connection: bytes) -> Answer:
        match tag:
            case 3:
                return Answer("connected")
            case 5 | 8:
                return Answer("subscribed", fields[0], self._v1([fields[3][2]] if tag == 5 else fields[3][0]))
            case 6 | 9:
                return Answer("unsubscribed", fields[0], self._v1([fields[3][2]] if tag == 6 else fields[3][0]))
            case 7:
                return Answer("refused", fields[1], text=fields[4])
            case 4:
                changes = tuple(Change(None, name, self._rows(name, rows), []) for name, rows in fields[2])
                return Answer("one-off", int.from_bytes(fields[0], "little"), changes, text=fields[1] or "")
            case 2:
                return Answer("update", None, self._v1(fields[1][0]))
            case 1:
                is_mine = fields[2] == identity and fields[3] == connection
                is_committed = fields[0][0] == 0
                changes = self._v1(fields[0][1][0]) if is_committed else ()
                return Answer(
                    "result" if is_mine else "update", fields[4][3] if is_mine else None, changes, is_committed
                )
        raise AssertionError(tag)

    def _v1(self, tables: list[Any]) -> tuple[Change, ...]:
        changes = []
        for _, name, _, updates in tables:
            for update in updates:
                deletes, inserts = update if self._is_json else update[1]
                changes.append(Change(None, name, self._rows(name, inserts), self._rows(name, deletes)))
        return tuple(changes)

    def _hear_v2(self, tag: int, fields: Any) -> Answer:
        match tag:
            case 0:
                return Answer("connected")
            case 1:
                return Answer("subscribed", fields[0], self._v2_rows(fields[1][0], fields[2][0]))
            case 2:
                rows = self._v2_rows(fields[1][0], fields[2][0] if fields[2] else [])
                return Answer(
                    "unsubscribed", fields[0], tuple(each._replace(inserts=[], deletes=each.inserts) for each in rows)
                )
            case 3:
                return Answer("refused", fields[0], text=fields[2])
            case 4:
                return Answer("update", None, self._v2_update(fields[0]))
            case 5:
                is_failed, what = fields[1]
                return Answer(
                    "one-off", fields[0], () if is_failed else self._v2_rows(0, what[0]), text=what if is_failed else ""
                )
            case 6:
                outcome, what = fields[2]
                return Answer("result", fields[0], self._v2_update(what[1][0]) if outcome == 0 else (), outcome < 2)
            case 8:
                (((set_id,), (is_failed, what)),) = fields[1]
                if is_failed:
                    return Answer("refused", fields[0], text=what)
                return Answer("subscribed", fields[0], self._v2_rows(set_id, what[0]))
        raise AssertionError(tag)

    def _v2_rows(self, set_id: int, tables: list[Any]) -> tuple[Change, ...]:
        return tuple(Change(set_id, name, self._rows(name, rows), []) for name, rows in tables)

    def _v2_update(self, query_sets: list[Any]) -> tuple[Change, ...]:
        changes = []
        for (set_id,), tables in query_sets:
            for name, kinds in tables:
                for is_event, lists in kinds:
                    deletes = [] if is_event else self._rows(name, lists[1])
                    changes.append(Change(set_id, name, self._rows(name, lists[0]), deletes))
        return tuple(changes)

    def _rows(self, name: str, rows: Any) -> list[bytes]:
        listed = rows_of(rows)
        if not self._is_json:
            return listed
        row_type = self._shapes[name].definition.row_type
        codec = bsatn.codec(row_type)
        return [codec.encode(json.decode(row_type, json.parse(text))) for text in listed]


def _head_size(size: int) -> int:
    return 2 if size < 126 else 4 if size < 65536 else 10
