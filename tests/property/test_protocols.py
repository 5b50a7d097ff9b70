"""Dialects against the declared types: any message, both ways, and any bytes at all."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.errors import DecodeError
from stdb.net.protocols import messages_v1, messages_v2
from stdb.net.protocols.v1_requests import decode_request
from stdb.net.protocols.v2_bsatn import decode_message
from stdb.sats import bsatn, json
from stdb.sats.types import STRING, U32, Element, Product
from tests.test_net_protocols_json import with_bsatn_rows
from tests.websocket_messages import Spoken, drive_v1, drive_v2, v1_value, v2_value

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**63 - 1)
moments = st.integers(-(2**63), 2**63 - 1)
names = st.text(max_size=12)
queries = st.lists(names, max_size=3)
ids = st.tuples(u32)
blobs = st.binary(max_size=40)
identities = st.binary(min_size=32, max_size=32)
connections = st.binary(min_size=16, max_size=16)


@st.composite
def row_lists(draw: st.DrawFn) -> Any:
    """Draw a row list as the server writes it: FixedSize where all rows are equally long and not empty."""
    size = draw(st.none() | st.integers(0, 5))
    rows = st.binary(max_size=5) if size is None else st.binary(min_size=size, max_size=size)
    listed = draw(st.lists(rows, max_size=4))
    data = b"".join(listed)
    sizes = {len(row) for row in listed}
    if len(sizes) == 1 and sizes != {0}:
        return (0, sizes.pop()), data
    return (1, [sum(map(len, listed[:place])) for place in range(len(listed))]), data


def count(row_list: Any) -> int:
    (tag, hint), data = row_list
    return len(data) // hint if tag == 0 else len(hint)


# ------------------------------------------------------------------------------------------------ v2
tables_v2 = st.tuples(st.lists(st.tuples(names, row_lists()), max_size=3))
table_rows = st.tuples(st.just(0), st.tuples(row_lists(), row_lists())) | st.tuples(st.just(1), st.tuples(row_lists()))
table_updates = st.dictionaries(names, st.lists(table_rows, min_size=1, max_size=2), max_size=3).map(
    lambda tables: sorted(tables.items())
)
query_sets = st.tuples(st.lists(st.tuples(ids, table_updates), max_size=2))
outcomes = (
    st.tuples(st.just(0), st.tuples(st.just(b""), query_sets))
    | names.map(lambda text: (2, bsatn.codec(STRING).encode(text)))
    | st.tuples(st.just(3), names)
)
SERVER_V2 = st.one_of(
    st.tuples(st.just(0), st.tuples(identities, connections, names)),
    st.tuples(st.just(1), st.tuples(u32, ids, tables_v2)),
    st.tuples(st.just(2), st.tuples(u32, ids, st.none() | tables_v2)),
    st.tuples(st.just(3), st.tuples(u32, ids, names)),
    st.tuples(st.just(4), query_sets),
    st.tuples(st.just(5), st.tuples(u32, st.tuples(st.just(1), names))),
    st.tuples(
        st.just(5), st.tuples(u32, st.tuples(st.just(0), st.tuples(st.tuples(st.tuples(names, row_lists())).map(list))))
    ),
    st.tuples(st.just(6), st.tuples(u32, moments, outcomes)),
    st.tuples(st.just(7), st.tuples(st.tuples(st.just(1), names), st.just(0), st.just(0), u32)),
    st.tuples(st.just(7), st.tuples(st.tuples(st.just(0), blobs), moments, moments, u32)),
    st.tuples(
        st.just(8),
        st.tuples(
            u32,
            st.lists(st.tuples(ids, st.tuples(st.just(0), tables_v2) | st.tuples(st.just(1), names)), max_size=3),
        ),
    ),
)
CLIENT_V2 = st.one_of(
    st.tuples(st.just(0), st.tuples(u32, ids, queries)),
    st.tuples(st.just(1), st.tuples(u32, ids, st.tuples(st.integers(0, 1), st.just(())))),
    st.tuples(st.just(2), st.tuples(u32, names)),
    st.tuples(st.sampled_from((3, 4)), st.tuples(u32, st.just(0), names, blobs)),
    st.tuples(st.just(5), st.tuples(u32, st.lists(st.tuples(ids, queries), max_size=3))),
)


@settings(max_examples=200, deadline=None)
@given(SERVER_V2, st.sampled_from(("v2.bsatn", "v3.bsatn")))
def test_what_the_v2_sink_writes_is_the_declared_encoding(message: Any, protocol: str) -> None:
    spoken = Spoken(protocol)
    drive_v2(spoken, message)
    (payload,) = spoken.payloads()
    assert payload == b"\0" + bsatn.codec(messages_v2.SERVER_MESSAGE).encode(message)


@settings(max_examples=200, deadline=None)
@given(st.lists(CLIENT_V2, min_size=1, max_size=4))
def test_a_v3_payload_is_any_number_of_v2_messages_and_v2_takes_the_first(messages: list[Any]) -> None:
    encode = bsatn.codec(messages_v2.CLIENT_MESSAGE).encode
    payload = b"".join(map(encode, messages))
    several: list[Any] = []
    Spoken("v3.bsatn").sink.receive(payload, several)
    assert [v2_value(request) for request in several] == messages
    first: list[Any] = []
    Spoken("v2.bsatn").sink.receive(payload, first)
    assert [v2_value(request) for request in first] == messages[:1]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda rest: b"\3" + rest), st.data())
def test_v2_refuses_what_the_declared_type_refuses(garbage: bytes, data: st.DataObject) -> None:
    payload = mutated(garbage, CLIENT_V2, messages_v2.CLIENT_MESSAGE, data)
    try:
        declared, end = bsatn.codec(messages_v2.CLIENT_MESSAGE).decode(payload)
    except DecodeError:
        declared, end = None, 0
    if declared is not None and declared[0] in (3, 4) and declared[1][1] != 0:
        declared = None  # flags are a bare u8 to the type
    if declared is None:
        with pytest.raises(DecodeError):
            decode_message(payload, 0)
    else:
        request, at = decode_message(payload, 0)
        assert (v2_value(request), at) == (declared, end)


def mutated(garbage: bytes, messages: Any, declared: Any, data: st.DataObject) -> bytes:
    """Return `garbage`, or a good message with some of its bytes replaced, cut or followed by it."""
    how = data.draw(st.sampled_from(("garbage", "replace", "cut", "follow")))
    if how == "garbage":
        return garbage
    good = bytearray(bsatn.codec(declared).encode(data.draw(messages)))
    if how == "cut":
        return bytes(good[: data.draw(st.integers(0, len(good)))])
    if how == "follow":
        return bytes(good) + garbage
    good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    return bytes(good)


# ------------------------------------------------------------------------------------------------ v1
@st.composite
def table_update_v1(draw: st.DrawFn, queries_max: int = 1) -> Any:
    updates = draw(
        st.lists(st.tuples(row_lists(), row_lists()), min_size=1, max_size=queries_max).map(
            lambda pairs: [(0, pair) for pair in pairs]
        )
    )
    rows = sum(count(one) for _, pair in updates for one in pair)
    return draw(u32), draw(names), rows, updates


plans_v1 = st.tuples(st.lists(table_update_v1(), max_size=3))
merged_v1 = st.tuples(st.lists(table_update_v1(queries_max=2), max_size=3, unique_by=lambda table: table[1]))
statuses = st.one_of(st.tuples(st.just(0), merged_v1), st.tuples(st.just(1), names), st.tuples(st.just(2), st.just(())))
calls_v1 = st.tuples(names, u32, blobs, u32)
procedure_failures = st.tuples(st.just(2), names) | st.just((1, ()))
SERVER_V1 = st.one_of(
    st.tuples(st.just(0), st.tuples(plans_v1, u32, moments)),
    st.tuples(
        st.just(1),
        st.tuples(statuses, moments, identities, connections, calls_v1, st.tuples(st.integers(0, 2**128 - 1)), moments),
    ),
    st.tuples(st.just(2), st.tuples(u32, merged_v1)),
    st.tuples(st.just(3), st.tuples(identities, names, connections)),
    st.tuples(st.just(4), st.tuples(blobs, st.none(), st.tuples(st.tuples(names, row_lists())).map(list), moments)),
    st.tuples(st.just(4), st.tuples(blobs, names, st.just([]), moments)),
    st.tuples(st.just(7), st.tuples(u64, u32, st.none() | u32, st.none(), names)),
    st.tuples(st.sampled_from((8, 9)), st.tuples(u32, u64, ids, plans_v1)),
    st.tuples(st.just(10), st.tuples(procedure_failures, st.just(0), st.just(0), u32)),
    st.tuples(st.just(10), st.tuples(st.tuples(st.just(0), blobs), moments, moments, u32)),
    st.tuples(
        st.sampled_from((5, 6)),
        st.tuples(u32, u64, ids, table_update_v1().map(lambda table: (table[0], table[1], table))),
    ),
)
CLIENT_V1 = st.one_of(
    st.tuples(st.just(0), st.tuples(names, blobs, u32, st.integers(0, 1))),
    st.tuples(st.just(1), st.tuples(queries, u32)),
    st.tuples(st.just(2), st.tuples(blobs, names)),
    st.tuples(st.just(3), st.tuples(names, u32, ids)),
    st.tuples(st.just(4), st.tuples(queries, u32, ids)),
    st.tuples(st.sampled_from((5, 6)), st.tuples(u32, ids)),
    st.tuples(st.just(7), st.tuples(names, blobs, u32, st.just(0))),
)


@settings(max_examples=200, deadline=None)
@given(SERVER_V1)
def test_what_the_v1_sink_writes_is_the_declared_encoding(message: Any) -> None:
    spoken = Spoken("v1.bsatn")
    drive_v1(spoken, message)
    (payload,) = spoken.payloads()
    assert payload == b"\0" + bsatn.codec(messages_v1.SERVER_MESSAGE).encode(message)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda rest: b"\0" + rest), st.data())
def test_v1_refuses_what_the_declared_type_refuses(garbage: bytes, data: st.DataObject) -> None:
    payload = mutated(garbage, CLIENT_V1, messages_v1.CLIENT_MESSAGE, data)
    try:
        declared, _ = bsatn.codec(messages_v1.CLIENT_MESSAGE).decode(payload)
    except DecodeError:
        declared = None
    if declared is not None and declared[0] in (0, 7) and declared[1][3] > (1 if declared[0] == 0 else 0):
        declared = None  # flags are a bare u8 to the type
    if declared is None:
        with pytest.raises(DecodeError):
            decode_request(payload)
    else:
        assert v1_value(decode_request(payload)) == declared


# ------------------------------------------------------------------------------------------------ v1.json
PERSON = Product((Element("id", U32), Element("name", STRING)))
json_rows = st.lists(
    st.tuples(u32, names).map(lambda row: json.encode(PERSON, row, "row")), max_size=3
)  # as texts, the way the wire has them
json_args = st.lists(u32, max_size=2).map(str)


@st.composite
def table_update_json(draw: st.DrawFn, queries_max: int = 1) -> Any:
    updates = draw(st.lists(st.tuples(json_rows, json_rows), min_size=1, max_size=queries_max))
    return draw(u32), draw(names), sum(len(one) for pair in updates for one in pair), updates


plans_json = st.tuples(st.lists(table_update_json(), max_size=2))
merged_json = st.tuples(st.lists(table_update_json(queries_max=2), max_size=2, unique_by=lambda table: table[1]))
SERVER_JSON = st.one_of(
    st.tuples(st.just(0), st.tuples(plans_json, u32, moments)),
    st.tuples(
        st.just(1),
        st.tuples(
            st.tuples(st.just(0), merged_json) | st.tuples(st.just(1), names) | st.tuples(st.just(2), st.just(())),
            moments,
            identities,
            connections,
            st.tuples(names, u32, json_args, u32),
            st.tuples(st.integers(0, 2**128 - 1)),
            moments,
        ),
    ),
    st.tuples(st.just(2), st.tuples(u32, merged_json)),
    st.tuples(st.just(3), st.tuples(identities, names, connections)),
    st.tuples(st.just(4), st.tuples(blobs, st.none(), st.tuples(st.tuples(names, json_rows)).map(list), moments)),
    st.tuples(st.just(4), st.tuples(blobs, names, st.just([]), moments)),
    st.tuples(st.just(7), st.tuples(u64, u32, st.none() | u32, st.none(), names)),
    st.tuples(st.sampled_from((8, 9)), st.tuples(u32, u64, ids, plans_json)),
    st.tuples(st.just(10), st.tuples(procedure_failures, st.just(0), st.just(0), u32)),
    st.tuples(st.just(10), st.tuples(st.tuples(st.just(0), json_args), moments, moments, u32)),
    st.tuples(
        st.sampled_from((5, 6)),
        st.tuples(u32, u64, ids, table_update_json().map(lambda table: (table[0], table[1], table))),
    ),
)
CLIENT_JSON = st.one_of(
    st.tuples(st.just(0), st.tuples(names, names, u32, st.integers(0, 1))),
    CLIENT_V1.filter(lambda message: message[0] not in (0, 7)),
    st.tuples(st.just(7), st.tuples(names, names, u32, st.just(0))),
)


@settings(max_examples=150, deadline=None)
@given(SERVER_JSON)
def test_what_the_v1_json_sink_writes_is_the_declared_document(message: Any) -> None:
    columns = SimpleNamespace(row_type=PERSON, codec=bsatn.codec(PERSON))
    spoken = Spoken("v1.json", columns=lambda name: columns)
    drive_v1(spoken, with_bsatn_rows(message, lambda name: PERSON))
    (payload,) = spoken.payloads()
    assert payload.decode() == json.encode(messages_v1.JSON_SERVER_MESSAGE, message, "compiled")


@settings(max_examples=150, deadline=None)
@given(CLIENT_JSON, st.sampled_from(("compiled", "positional", "row")), st.sampled_from(("v1.json", "v1.bsatn")))
def test_a_json_request_in_any_form_is_the_declared_message(message: Any, form: str, protocol: str) -> None:
    requests: list[Any] = []
    Spoken(protocol).sink.receive(json.encode(messages_v1.JSON_CLIENT_MESSAGE, message, form), requests)
    assert [v1_value(request) for request in requests] == [message]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), CLIENT_JSON, st.data())
def test_any_text_is_a_request_or_a_clean_refusal(garbage: str, message: Any, data: st.DataObject) -> None:
    good = json.encode(messages_v1.JSON_CLIENT_MESSAGE, message, "compiled")
    start, end = sorted((data.draw(st.integers(0, len(good))), data.draw(st.integers(0, len(good)))))
    for text in (garbage, good[:start] + garbage + good[end:], good[:start] + '"[{' * 500 + good[end:]):
        try:
            request = decode_request(text)
        except DecodeError:
            continue
        assert v1_value(request)[0] in range(8)
