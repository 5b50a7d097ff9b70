"""Messages of 0.7 to 0.11 as types and as fields, for the tests of the dialects that write them by hand."""

from typing import Any

import brotli  # type: ignore[import-untyped]  # its wheel has no stubs

from stdb.net.protocols.legacy.wire import fields, nested, number
from stdb.sats import bsatn, json
from stdb.sats.profiles import OLD_ADDRESS, OLD_IDENTITY, V0_11
from stdb.sats.types import BYTES, STRING, U32, U64, U128, UNIT, AlgebraicType, Array, Element, Product, Sum, option

__all__ = [
    "CLIENT_MESSAGE",
    "SERVER_MESSAGE",
    "array_form",
    "bsatn_document",
    "positional",
    "protobuf_bytes",
    "protobuf_document",
    "unpacked",
]


def product(**elements: AlgebraicType) -> Product:
    return Product(tuple(Element(name, type_) for name, type_ in elements.items()))


def sum_of(**variants: AlgebraicType) -> Sum:
    return Sum(tuple(Element(name, type_) for name, type_ in variants.items()))


# 0.11 (spec 03 section 6).

ENCODED_VALUE = sum_of(Binary=BYTES, Text=STRING)
CLIENT_MESSAGE = sum_of(
    CallReducer=product(reducer=STRING, args=ENCODED_VALUE, request_id=U32),
    Subscribe=product(query_strings=Array(STRING), request_id=U32),
    OneOffQuery=product(message_id=BYTES, query_string=STRING),
)
ROWS = Array(ENCODED_VALUE)
DATABASE_UPDATE = product(tables=Array(product(table_id=U32, table_name=STRING, deletes=ROWS, inserts=ROWS)))
SERVER_MESSAGE = sum_of(
    InitialSubscription=product(
        database_update=DATABASE_UPDATE, request_id=U32, total_host_execution_duration_micros=U64
    ),
    TransactionUpdate=product(
        status=sum_of(Committed=DATABASE_UPDATE, Failed=STRING, OutOfEnergy=UNIT),
        timestamp=product(microseconds=U64),
        caller_identity=OLD_IDENTITY,
        caller_address=OLD_ADDRESS,
        reducer_call=product(reducer_name=STRING, reducer_id=U32, args=ENCODED_VALUE, request_id=U32),
        energy_quanta_used=product(quanta=U128),
        host_execution_duration_micros=U64,
    ),
    IdentityToken=product(identity=OLD_IDENTITY, token=STRING, address=OLD_ADDRESS),
    OneOffQueryResponse=product(
        message_id=BYTES,
        error=option(STRING),
        tables=Array(product(table_name=STRING, rows=ROWS)),
        total_host_execution_duration_micros=U64,
    ),
)


def bsatn_document(type_: AlgebraicType, data: bytes) -> Any:
    """Return a binary message as the document its JSON is; it must be written again byte for byte."""
    codec = bsatn.codec(type_, profile=V0_11)
    value = codec.decode_exact(data)
    assert codec.encode(value) == data
    return json.parse(json.encode(type_, value, "compiled", profile=V0_11))


def positional(type_: AlgebraicType, data: bytes) -> Any:
    """Return a row or arguments as JSON has them: products as arrays."""
    value = bsatn.codec(type_, profile=V0_11).decode_exact(data)
    return json.parse(json.encode(type_, value, "positional", profile=V0_11))


def array_form(value: Any) -> Any:
    """Return a row that is an object as the array that it is everywhere else."""
    if isinstance(value, dict):
        if len(value) == 1 and (key := next(iter(value))).isdigit():
            return {key: array_form(value[key]) or []}
        return [array_form(item) for item in value.values()]
    return [array_form(item) for item in value] if isinstance(value, list) else value


def unpacked(payload: bytes) -> bytes:
    """Return what is in a brotli stream."""
    data: bytes = brotli.decompress(payload)
    return data


# 0.7 to 0.10 (spec 03 section 4): names of fields, what they hold, whether they repeat.

_CALL = {1: ("reducer", str), 2: ("argBytes", bytes), 3: ("requestId", int)}
_OPERATION = {1: ("op", int), 2: ("row_pk", bytes), 3: ("row", bytes)}
_TABLE = {1: ("tableId", int), 2: ("tableName", str), 3: ("tableRowOperations", [_OPERATION])}
_UPDATE = {1: ("tableUpdates", [_TABLE]), 2: ("requestId", int), 3: ("total_host_execution_duration_micros", int)}
_EVENT = {
    1: ("timestamp", int), 2: ("callerIdentity", bytes), 3: ("functionCall", _CALL), 4: ("status", int),
    5: ("message", str), 6: ("energy_quanta_used", int), 7: ("host_execution_duration_micros", int),
    8: ("callerAddress", bytes),
}  # fmt: skip
_RESPONSE = {
    1: ("messageId", bytes), 2: ("error", str), 3: ("tables", [{2: ("tableName", str), 4: ("row", [bytes])}]),
    4: ("total_host_execution_duration_micros", int),
}  # fmt: skip
_MESSAGE = {
    1: ("functionCall", _CALL),
    2: ("subscriptionUpdate", _UPDATE),
    4: ("transactionUpdate", {1: ("event", _EVENT), 2: ("subscriptionUpdate", _UPDATE)}),
    5: ("identityToken", {1: ("identity", bytes), 2: ("token", str), 3: ("address", bytes)}),
    6: ("subscribe", {1: ("query_strings", [str]), 2: ("requestId", int)}),
    7: ("oneOffQuery", {1: ("messageId", bytes), 2: ("queryString", str)}),
    8: ("oneOffQueryResponse", _RESPONSE),
}


def protobuf_document(data: bytes, layout: Any = None) -> dict[str, Any]:
    """Return a protobuf message as a document, bytes in hexadecimal digits; it must be written again byte for byte."""
    known = _MESSAGE if layout is None else layout
    document: dict[str, Any] = {}
    for tag, _, value in fields(data):
        name, kind = known[tag]
        if isinstance(kind, list):
            document.setdefault(name, []).append(_content(value, kind[0]))
        else:
            assert name not in document
            document[name] = _content(value, kind)
    assert protobuf_bytes(document, known) == data
    return document


def _content(value: int | bytes, kind: Any) -> Any:
    if kind is int:
        return value
    assert isinstance(value, bytes)
    if kind is bytes:
        return value.hex()
    return value.decode() if kind is str else protobuf_document(value, kind)


def protobuf_bytes(document: dict[str, Any], layout: Any = None) -> bytes:
    """Return the bytes of such a document."""
    known = _MESSAGE if layout is None else layout
    out = b""
    for tag, (name, kind) in known.items():
        if name not in document:
            continue
        repeats = isinstance(kind, list)
        each: Any = kind[0] if isinstance(kind, list) else kind
        for value in document[name] if repeats else (document[name],):
            out += _field(tag, each, value)
    return out


def _field(tag: int, kind: Any, value: Any) -> bytes:
    if kind is int:
        return number(tag, value)
    if kind is bytes:
        return nested(tag, bytes.fromhex(value))
    return nested(tag, value.encode() if kind is str else protobuf_bytes(value, kind))
