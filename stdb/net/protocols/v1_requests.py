"""Requests of v1 clients: binary or JSON messages to what they ask.

Responsible for: decoding v1's ClientMessage from BSATN and from JSON (spec 02 sections 6.1 and 7).
Not responsible for: the answers (`v1_bsatn`, `v1_json`).

A v1 connection takes both forms, whichever it negotiated: the kind of the WebSocket message decides.
"""

from struct import Struct
from struct import error as struct_error
from typing import Any

from stdb.actors.requests import (
    CallProcedure,
    CallReducer,
    OneOffQuery,
    Request,
    Subscribe,
    SubscriptionKind,
    Unsubscribe,
)
from stdb.errors import DecodeError
from stdb.net.protocols.messages_v1 import JSON_CLIENT_MESSAGE
from stdb.net.protocols.wire import read_bytes, read_string, read_strings, read_u8, read_u32, unknown_tag
from stdb.sats import json

__all__ = ["decode_request"]

_LEGACY, _SINGLE, _MULTI = SubscriptionKind.LEGACY, SubscriptionKind.SINGLE, SubscriptionKind.MULTI
_u32_at = Struct("<I").unpack_from
_call_tail = Struct("<IB").unpack_from
_new_call = tuple.__new__
_message_of = json.decoder(JSON_CLIENT_MESSAGE)


def decode_request(message: bytes | str) -> Request:
    """Return what `message` asks; bytes after a binary message are ignored, as the reference does.

    Raises:
        DecodeError: It is no ClientMessage; texts of binary messages are the reference's.
    """
    if type(message) is not bytes:
        return _decode_json(str(message))
    tag, offset = read_u8(message, 0)
    if tag == 0:
        return _decode_call_reducer(message)
    if tag >= len(_DECODERS):
        raise unknown_tag(tag, "ClientMessage", 0)
    return _DECODERS[tag](message, offset)


def _decode_call_reducer(message: bytes) -> Request:
    """Decode the message nearly all of the traffic consists of; any doubt is settled by `_decode_call`."""
    try:
        name_end = 5 + _u32_at(message, 1)[0]
        args_end = name_end + 4 + _u32_at(message, name_end)[0]
        request_id, flags = _call_tail(message, args_end)
        if flags <= 1:
            name = message[5:name_end].decode()
            return _new_call(CallReducer, (request_id, name, message[name_end + 4 : args_end], flags == 0))
    except (struct_error, UnicodeDecodeError):
        pass
    return _call_reducer(*_decode_call(message, 1))


def _decode_call(message: bytes, offset: int) -> tuple[str, bytes, int, int]:
    name, offset = read_string(message, offset)
    args, offset = read_bytes(message, offset)
    request_id, offset = read_u32(message, offset)
    flags, offset = read_u8(message, offset)
    return name, args, request_id, flags


def _decode_subscribe(message: bytes, offset: int) -> Request:
    queries, offset = read_strings(message, offset)
    request_id, offset = read_u32(message, offset)
    return Subscribe(_LEGACY, request_id, 0, queries)


def _decode_one_off(message: bytes, offset: int) -> Request:
    message_id, offset = read_bytes(message, offset)
    query, offset = read_string(message, offset)
    return OneOffQuery(message_id, query)


def _decode_subscribe_single(message: bytes, offset: int) -> Request:
    query, offset = read_string(message, offset)
    request_id, offset = read_u32(message, offset)
    query_id, offset = read_u32(message, offset)
    return Subscribe(_SINGLE, request_id, query_id, (query,))


def _decode_subscribe_multi(message: bytes, offset: int) -> Request:
    queries, offset = read_strings(message, offset)
    request_id, offset = read_u32(message, offset)
    query_id, offset = read_u32(message, offset)
    return Subscribe(_MULTI, request_id, query_id, queries)


def _decode_unsubscribe(message: bytes, offset: int) -> Request:
    request_id, offset = read_u32(message, offset)
    query_id, offset = read_u32(message, offset)
    return Unsubscribe(_SINGLE, request_id, query_id)


def _decode_unsubscribe_multi(message: bytes, offset: int) -> Request:
    request_id, offset = read_u32(message, offset)
    query_id, offset = read_u32(message, offset)
    return Unsubscribe(_MULTI, request_id, query_id)


def _decode_call_procedure(message: bytes, offset: int) -> Request:
    return _call_procedure(*_decode_call(message, offset))


_DECODERS = (
    lambda message, offset: _decode_call_reducer(message),
    _decode_subscribe,
    _decode_one_off,
    _decode_subscribe_single,
    _decode_subscribe_multi,
    _decode_unsubscribe,
    _decode_unsubscribe_multi,
    _decode_call_procedure,
)


def _call_reducer(name: str, args: bytes | str, request_id: int, flags: int) -> Request:
    if flags > 1:
        raise DecodeError(f"invalid call reducer flag {flags}")
    return CallReducer(request_id, name, args, flags == 0)


def _call_procedure(name: str, args: bytes | str, request_id: int, flags: int) -> Request:
    if flags:
        raise DecodeError(f"invalid call procedure flag {flags}")
    return CallProcedure(request_id, name, args)


def _decode_json(text: str) -> Request:
    tag, fields = _message_of(json.parse(text))
    request: Request = _FROM_JSON[tag](*fields)
    return request


def _from_json_ids(kind: SubscriptionKind) -> Any:
    return lambda request_id, query_id: Unsubscribe(kind, request_id, query_id[0])


_FROM_JSON: tuple[Any, ...] = (
    _call_reducer,
    lambda queries, request_id: Subscribe(_LEGACY, request_id, 0, tuple(queries)),
    OneOffQuery,
    lambda query, request_id, query_id: Subscribe(_SINGLE, request_id, query_id[0], (query,)),
    lambda queries, request_id, query_id: Subscribe(_MULTI, request_id, query_id[0], tuple(queries)),
    _from_json_ids(_SINGLE),
    _from_json_ids(_MULTI),
    _call_procedure,
)
