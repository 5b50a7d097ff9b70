"""v1.json: the documents of the vectors and of the real server, both ways (spec 02 section 7)."""

import json as standard_json
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stdb.actors.requests import CallReducer, OneOffQuery, Request, Subscribe, SubscriptionKind, Unsubscribe
from stdb.actors.sink import OutcomeKind, ReducerOutcome
from stdb.errors import DecodeError
from stdb.net.protocols.messages_v1 import JSON_CLIENT_MESSAGE, JSON_SERVER_MESSAGE
from stdb.sats import bsatn, json
from stdb.sats.types import F32, F64, STRING, U32, Element, Product, Typespace
from stdb.schema import raw
from stdb.schema.model import ModuleDef, ReducerDef
from stdb.schema.validation import validate
from stdb.subscriptions.fragment import Fragment
from tests.websocket_messages import PLAIN, NeverSentError, Spoken, drive_v1, event, v1_value

VECTORS = Path(__file__).parent / "vectors"
WSPROBE = standard_json.loads((VECTORS / "schema/modules.json").read_text())["wsprobe"]["definition_hex"]
TEXTS = standard_json.loads((VECTORS / "websocket.json").read_text())["json_text"]
PERSON = Product((Element("id", U32), Element("name", STRING)))


def columns_of(row_type: Product) -> Any:
    return SimpleNamespace(row_type=row_type, codec=bsatn.codec(row_type))


@pytest.fixture(scope="module")
def wsprobe() -> ModuleDef:
    return validate(raw.decode(bytes.fromhex(WSPROBE)))


def row_bytes(row_type: Product, text: str) -> bytes:
    """Return the BSATN of a row; a float that is null was not finite, which JSON cannot say (NaN here)."""
    document = json.parse(text)
    lost = set()
    for place, element in enumerate(row_type.elements):
        key = element.name if isinstance(document, dict) else place
        if element.type in (F32, F64) and document[key] is None:
            document[key] = 0
            lost.add(place)
    values = json.decode(row_type, document)
    return bsatn.codec(row_type).encode(tuple(math.nan if i in lost else one for i, one in enumerate(values)))


def with_bsatn_rows(message: Any, row_type_of: Any) -> Any:
    """Return a decoded server message with each row's JSON text replaced by its BSATN."""

    def rows(name: str, texts: list[str]) -> list[bytes]:
        return [row_bytes(row_type_of(name), text) for text in texts]

    def tables(update: Any) -> Any:
        return ([table(one) for one in update[0]],)

    def table(one: Any) -> Any:
        table_id, name, count, updates = one
        return table_id, name, count, [(rows(name, deletes), rows(name, inserts)) for deletes, inserts in updates]

    tag, fields = message
    if tag == 0:
        return tag, (tables(fields[0]), *fields[1:])
    if tag == 1 and fields[0][0] == 0:
        return tag, ((0, tables(fields[0][1])), *fields[1:])
    if tag == 2:
        return tag, (fields[0], tables(fields[1]))
    if tag == 4:
        return tag, (*fields[:2], [(name, rows(name, texts)) for name, texts in fields[2]], fields[3])
    if tag in (5, 6):
        return tag, (*fields[:3], (*fields[3][:2], table(fields[3][2])))
    if tag in (8, 9):
        return tag, (*fields[:3], tables(fields[3]))
    return message


def spoken_again(text: str, row_type_of: Any, columns: Any) -> str:
    """Return what our sink says when it is told what `text` says."""
    message = json.decode(JSON_SERVER_MESSAGE, json.parse(text))
    spoken = Spoken("v1.json", PLAIN, columns=columns)
    drive_v1(spoken, with_bsatn_rows(message, row_type_of))
    ((first, payload),) = spoken.frames()
    assert first == 0x81
    return payload.decode()


def assert_same_but_for_the_form_of_rows(ours: str, theirs: str, row_type_of: Any) -> None:
    """Rows are objects of ours, arrays or objects of theirs; all else is equal, down to the spelling but for rows."""
    mine = json.decode(JSON_SERVER_MESSAGE, json.parse(ours))
    other = json.decode(JSON_SERVER_MESSAGE, json.parse(theirs))
    assert with_bsatn_rows(mine, row_type_of) == with_bsatn_rows(other, row_type_of)
    assert skeleton(standard_json.loads(ours)) == skeleton(standard_json.loads(theirs))


def skeleton(document: Any) -> Any:
    """Return a document with its fields in order and its rows left out."""
    if isinstance(document, dict):
        return [
            (key, len(value) if key in ("inserts", "deletes", "rows") and isinstance(value, list) else skeleton(value))
            for key, value in document.items()
        ]
    return [skeleton(one) for one in document] if isinstance(document, list) else document


@pytest.mark.parametrize("vector", TEXTS, ids=[vector["name"] for vector in TEXTS])
def test_a_vector_reads_and_writes_as_an_equal_document(vector: dict[str, Any]) -> None:
    text = vector["text"]
    type_ = JSON_CLIENT_MESSAGE if vector["direction"] == "client->server" else JSON_SERVER_MESSAGE
    message = json.decode(type_, json.parse(text))
    assert json.encode(type_, message, "compiled") == text
    if type_ is JSON_CLIENT_MESSAGE:
        requests: list[Request] = []
        Spoken("v1.json").sink.receive(text, requests)
        assert [v1_value(request) for request in requests] == [message]
    else:
        ours = spoken_again(text, lambda name: PERSON, lambda name: columns_of(PERSON))
        assert_same_but_for_the_form_of_rows(ours, text, lambda name: PERSON)


def recorded() -> Iterator[tuple[str, str]]:
    """Yield (direction, text) of every JSON message of the real server's session, defects left out."""
    for path in sorted((VECTORS / "recorded_ws").glob("*.json")):
        if path.stem != "30_malformed":
            for step in standard_json.loads(path.read_text())["steps"]:
                if "text" in step and "bug" not in step and ("from" in step or "to" in step):
                    yield ("to" if "to" in step else "from"), step["text"]


def test_every_recorded_message_of_the_server_is_what_we_would_say(wsprobe: ModuleDef) -> None:
    told = never = 0

    def row_type_of(name: str) -> Product:
        table = wsprobe.table(name)
        assert table is not None
        return table.row_type

    for direction, text in recorded():
        if direction == "from":
            document = json.decode(JSON_SERVER_MESSAGE, json.parse(text))
            encoded = json.encode(JSON_SERVER_MESSAGE, document, "compiled")
            assert standard_json.loads(encoded) == standard_json.loads(text)
            try:
                ours = spoken_again(text, row_type_of, lambda name: columns_of(row_type_of(name)))
            except NeverSentError:
                never += 1
                continue
            assert_same_but_for_the_form_of_rows(ours, text, row_type_of)
            told += 1
    assert told > 30
    assert never == 0


def test_every_recorded_message_of_the_client_is_understood() -> None:
    sink = Spoken("v1.json").sink
    refused = 0
    understood = 0
    for direction, text in recorded():
        if direction == "to":
            requests: list[Request] = []
            try:
                sink.receive(text, requests)
            except DecodeError:
                refused += 1
                assert '"args":[]' in text  # refused by the real server too
                continue
            understood += 1
            assert [v1_value(request) for request in requests] == [json.decode(JSON_CLIENT_MESSAGE, json.parse(text))]
    assert understood > 40
    assert refused == 1


@pytest.mark.parametrize(
    "text",
    [
        '{"CallReducer":{"reducer":"noop","args":"[]","request_id":30,"flags":0}}',
        '{"CallReducer":["noop","[]",30,0]}',
        '["CallReducer",{"reducer":"noop","args":"[]","request_id":30,"flags":0}]',
        '[0,{"reducer":"noop","args":"[]","request_id":30,"flags":0}]',
        ' {"0":{"flags":0,"reducer":"noop","args":"[]","request_id":30}} \n',
    ],
)
def test_envelopes_may_be_objects_or_arrays(text: str) -> None:
    requests: list[Request] = []
    Spoken("v1.json").sink.receive(text, requests)
    assert requests == [CallReducer(30, "noop", "[]")]


def test_ids_come_in_every_accepted_form() -> None:
    requests: list[Request] = []
    sink = Spoken("v1.json").sink
    sink.receive('{"SubscribeMulti":{"query_strings":["q"],"request_id":1,"query_id":[4]}}', requests)
    sink.receive('{"Unsubscribe":{"request_id":2,"query_id":{"id":4}}}', requests)
    sink.receive('{"OneOffQuery":{"message_id":[1,255],"query_string":"q"}}', requests)
    sink.receive('{"OneOffQuery":{"message_id":"01ff","query_string":"q"}}', requests)
    assert requests == [
        Subscribe(SubscriptionKind.MULTI, 1, 4, ("q",)),
        Unsubscribe(SubscriptionKind.SINGLE, 2, 4),
        OneOffQuery(b"\x01\xff", "q"),
        OneOffQuery(b"\x01\xff", "q"),
    ]


def test_rows_are_objects_by_column_name_with_sums_by_tag(wsprobe: ModuleDef) -> None:
    table = wsprobe.table("journal")
    assert table is not None
    columns = columns_of(table.row_type)
    row = columns.codec.encode((1, "w", bytes(31) + b"\xc2", None, 5))
    spoken = Spoken("v1.json")
    spoken.sink.one_off_result(OneOffQuery(b"", "q"), Fragment(1, "journal", columns, [row], []), 0, 0)
    (payload,) = spoken.payloads()
    (text,) = standard_json.loads(payload)["OneOffQueryResponse"]["tables"][0]["rows"]
    document = standard_json.loads(text)
    assert list(document) == [column.name for column in table.columns]
    assert document["conn"] in ([1, []], [1, {}])


ADD = ModuleDef(Typespace.EMPTY, reducers=(ReducerDef("add", "add", PERSON),))


def args_told(name: str, args: bytes, args_json: str | None) -> str:
    spoken = Spoken("v1.json", definition=ADD)
    told = event(reducer_name=name, args=args, args_json=args_json)
    spoken.sink.reducer_result(CallReducer(1, name, args), ReducerOutcome(OutcomeKind.COMMITTED), told, None)
    (payload,) = spoken.payloads()
    text = standard_json.loads(payload)["TransactionUpdate"]["reducer_call"]["args"]
    assert isinstance(text, str)
    return text


def test_arguments_are_the_callers_own_text_or_an_array_made_of_its_bytes() -> None:
    args = bsatn.codec(PERSON).encode((7, 'a"ß'))
    assert args_told("add", args, '{ "name": "x" }') == '{ "name": "x" }'
    assert args_told("add", args, None) == '[7,"a\\"ß"]'
    assert args_told("", args, None) == "[]"
    assert args_told("add", b"\1", None) == "[]"
