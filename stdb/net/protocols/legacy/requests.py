"""Requests of clients of 0.11 and older: messages of either generation to what they ask.

Responsible for: ClientMessage of 0.11 in BSATN and JSON, Message of 0.7 to 0.10 in protobuf and JSON, arguments in the
forms of those clients, telling messages of the other generation.
Not responsible for: the answers (`events` and the dialects), the choice of a generation (`choice`).

Source: spec 03 sections 0.3, 3.1, 4 and 6. A connection takes text and binary messages, whichever it negotiated.
"""

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from stdb.actors.requests import CallReducer, OneOffStatements, Request, Subscribe, SubscriptionKind
from stdb.errors import DecodeError
from stdb.net.protocols.legacy.reading import Cursor, Read, product, variant
from stdb.net.protocols.legacy.translation import argument_forms
from stdb.net.protocols.legacy.wire import FAILED, LENGTH, VARINT, fields
from stdb.net.protocols.wire import read_bytes, read_string, read_strings, read_u8, read_u32
from stdb.sats.types import Product, Typespace
from stdb.schema.legacy import is_reserved

__all__ = ["OLD_KEYS", "Arguments", "decode_0_11", "decode_old"]

OLD_KEYS = ("call", "subscribe", "one_off_query")
"""What a text of 0.7 to 0.10 begins with."""
_NEW_KEYS = ("CallReducer", "Subscribe", "OneOffQuery")
_USE_OLD_TEXT = "wrong dialect, use <host>/legacy/0.8"
_USE_OLD_BINARY = "wrong dialect, use <host>/legacy/0.8 or /legacy/0.10"
_USE_NEW = "wrong dialect, use <host>/legacy/0.11"
_BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")


class Arguments(NamedTuple):
    """The arguments of a call in the forms of those clients; either `data` or `text` is there."""

    reducer: str
    """As the client named it."""
    data: bytes
    text: str | None

    def bsatn(self, params: Product, typespace: Typespace) -> bytes:
        """Return them as the module takes them. Raises DecodeError."""
        forms = argument_forms(params, typespace)
        return forms.from_old(self.data) if self.text is None else forms.from_json(self.text)


def decode_0_11(message: bytes | str) -> Request:
    """Return what a ClientMessage asks; bytes after a binary message are ignored, as the reference does.

    Raises:
        DecodeError: It is none; the text is the reason of the Close.
    """
    if isinstance(message, str):
        cursor = Cursor(message)
        _, request = variant(cursor, _READERS_0_11, _FOREIGN_TO_0_11)
        cursor.end()
        return request  # type: ignore[no-any-return]  # what the readers return
    if message[:1] in _PROTOBUF_STARTS:
        raise DecodeError(_USE_OLD_BINARY)
    tag, offset = read_u8(message, 0) if message else _too_short()
    if tag >= len(_DECODERS_0_11):
        raise DecodeError("invalid tag for sum", 0)
    try:
        return _DECODERS_0_11[tag](message, offset)
    except DecodeError as error:
        raise DecodeError(_SHORT.sub("data too short for [u8]:", str(error)), error.offset) from None


def decode_old(message: bytes | str) -> Request:
    """Return what a Message of 0.7 to 0.10 asks.

    Raises:
        DecodeError: It is none; the text is the reason of the Close.
    """
    if isinstance(message, str):
        cursor = Cursor(message)
        _, request = variant(cursor, _READERS_OLD, _FOREIGN_TO_OLD, is_sats=False)
        cursor.end()
        return request  # type: ignore[no-any-return]  # what the readers return
    if message[:1] in _BSATN_STARTS:
        raise DecodeError(_USE_NEW)
    return _decode_protobuf(message)


def _call(reducer: str, data: bytes, text: str | None, request_id: int) -> Request:
    """Return a call; one of a reserved name calls nothing, whatever the module calls its reducers."""
    return CallReducer(request_id, "" if is_reserved(reducer) else reducer, Arguments(reducer, data, text))


def _subscribe(queries: tuple[str, ...], request_id: int) -> Request:
    return Subscribe(SubscriptionKind.LEGACY, request_id, 0, queries)


# 0.11, BSATN.

_PROTOBUF_STARTS = (b"\x0a", b"\x32", b"\x3a")
_SHORT = re.compile(r"data too short for [^:]*:")


def _too_short() -> tuple[int, int]:
    raise DecodeError("data too short for [u8]: Expected 1, given 0", 0)


def _call_0_11(message: bytes, offset: int) -> Request:
    reducer, offset = read_string(message, offset)
    tag, offset = read_u8(message, offset)
    if tag == 0:
        data, offset = read_bytes(message, offset)
        text = None
    elif tag == 1:
        text, offset = read_string(message, offset)
        data = b""
    else:
        raise DecodeError("invalid tag for sum", offset - 1)
    request_id, _ = read_u32(message, offset)
    return _call(reducer, data, text, request_id)


def _subscribe_0_11(message: bytes, offset: int) -> Request:
    queries, offset = read_strings(message, offset)
    request_id, _ = read_u32(message, offset)
    return _subscribe(queries, request_id)


def _one_off_0_11(message: bytes, offset: int) -> Request:
    message_id, offset = read_bytes(message, offset)
    query, _ = read_string(message, offset)
    return OneOffStatements(message_id, query)


_DECODERS_0_11 = (_call_0_11, _subscribe_0_11, _one_off_0_11)


# 0.11, JSON.


def _args_json(cursor: Cursor) -> tuple[bytes, str | None]:
    name, content = variant(cursor, {"Binary": Cursor.hex_bytes, "Text": Cursor.string})
    return (content, None) if name == "Binary" else (b"", content)


def _call_json(cursor: Cursor) -> Request:
    reducer, (data, text), request_id = product(
        cursor, {"reducer": Cursor.string, "args": _args_json, "request_id": Cursor.u32}
    )
    return _call(reducer, data, text, request_id)


def _strings(cursor: Cursor) -> tuple[str, ...]:
    return cursor.list(Cursor.string)


def _subscribe_json(cursor: Cursor) -> Request:
    return _subscribe(*product(cursor, {"query_strings": _strings, "request_id": Cursor.u32}))


def _one_off_json(cursor: Cursor) -> Request:
    return OneOffStatements(*product(cursor, {"message_id": Cursor.hex_bytes, "query_string": Cursor.string}))


_READERS_0_11: Mapping[str, Read] = dict(zip(_NEW_KEYS, (_call_json, _subscribe_json, _one_off_json), strict=True))
_FOREIGN_TO_0_11 = dict.fromkeys(OLD_KEYS, _USE_OLD_TEXT)


# 0.7 to 0.10, JSON.

_NO_ID: Mapping[str, Any] = {"request_id": 0}


def _old_call(cursor: Cursor) -> Request:
    readers: dict[str, Read] = {"fn": Cursor.string, "args": Cursor.raw, "request_id": Cursor.u32}
    reducer, text, request_id = product(cursor, readers, _NO_ID, is_strict=False)
    return _call(reducer, b"", text, request_id)


def _old_subscribe(cursor: Cursor) -> Request:
    readers: dict[str, Read] = {"query_strings": _strings, "request_id": Cursor.u32}
    return _subscribe(*product(cursor, readers, _NO_ID, is_strict=False))


def _old_one_off(cursor: Cursor) -> Request:
    readers: dict[str, Read] = {"message_id": Cursor.string, "query_string": Cursor.string}
    message_id, query = product(cursor, readers, is_strict=False)
    return OneOffStatements(_base64_bytes(message_id), query)


def _base64_bytes(text: str) -> bytes:
    """Read standard base64, with the reference's words for what is wrong."""
    digits = text.rstrip("=").encode("utf-8", "replace")
    for offset, byte in enumerate(digits):
        if byte not in _BASE64:
            raise DecodeError(f"Invalid byte {byte}, offset {offset}.")
    if len(digits) % 4 == 1:
        raise DecodeError("Encoded text cannot have a 6-bit remainder.")
    if len(text) != len(digits) + -len(digits) % 4:
        raise DecodeError("Invalid padding")
    return base64.b64decode(text)


_READERS_OLD: Mapping[str, Read] = dict(zip(OLD_KEYS, (_old_call, _old_subscribe, _old_one_off), strict=True))
_FOREIGN_TO_OLD = dict.fromkeys(_NEW_KEYS, _USE_NEW)


# 0.7 to 0.10, protobuf.

_BSATN_STARTS = (b"\x00", b"\x01", b"\x02")


def _decode_protobuf(message: bytes) -> Request:
    content: tuple[int, bytes] | None = None
    for tag, kind, value in fields(message):
        if 1 <= tag <= 8:
            if kind != LENGTH:
                raise DecodeError(f"{FAILED}Message.type: invalid wire type: Varint (expected LengthDelimited)")
            assert isinstance(value, bytes)
            content = tag, value
    decode = _PROTOBUF_DECODERS.get(content[0]) if content is not None else None
    if content is None or decode is None:
        raise DecodeError("unexpected protobuf message type")
    return decode(content[1])


def _protobuf_call(data: bytes) -> Request:
    reducer, args, request_id = _read_fields(data, "FunctionCall", ("reducer", "argBytes", "requestId"), "sbu")
    return _call(reducer, args, None, request_id)


def _protobuf_subscribe(data: bytes) -> Request:
    queries, request_id = _read_fields(data, "Subscribe", ("query_strings", "requestId"), "ru")
    return _subscribe(tuple(queries), request_id)


def _protobuf_one_off(data: bytes) -> Request:
    return OneOffStatements(*_read_fields(data, "OneOffQuery", ("messageId", "queryString"), "bs"))


_PROTOBUF_DECODERS: Mapping[int, Callable[[bytes], Request]] = {
    1: _protobuf_call,
    6: _protobuf_subscribe,
    7: _protobuf_one_off,
}


def _read_fields(data: bytes, message: str, names: tuple[str, ...], kinds: str) -> list[Any]:
    """Return the fields 1, 2 and so on of a message: `s` text, `b` bytes, `u` a u32, `r` texts."""
    texts: list[str] = []
    values: list[Any] = [{"s": "", "b": b"", "u": 0, "r": texts}[kind] for kind in kinds]
    for tag, wire_type, value in fields(data):
        if tag > len(kinds):
            continue
        kind, where = kinds[tag - 1], f"{message}.{names[tag - 1]}"
        if wire_type != (VARINT if kind == "u" else LENGTH):
            seen, wanted = ("LengthDelimited", "Varint") if kind == "u" else ("Varint", "LengthDelimited")
            raise DecodeError(f"{FAILED}{where}: invalid wire type: {seen} (expected {wanted})")
        if isinstance(value, int):
            values[tag - 1] = value & 0xFFFFFFFF
        elif kind == "b":
            values[tag - 1] = value
        elif kind == "r":
            texts.append(_text(value, where))
        else:
            values[tag - 1] = _text(value, where)
    return values


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise DecodeError(f"{FAILED}{where}: invalid string value: data is not UTF-8 encoded") from None
