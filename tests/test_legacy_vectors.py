"""Every vector of the messages of 0.7 to 0.11, both ways and byte for byte."""

from collections.abc import Callable
from typing import Any

import brotli  # type: ignore[import-untyped]  # its wheel has no stubs
import pytest

from stdb.actors.requests import OneOffStatements
from stdb.actors.sink import OutcomeKind, ReducerOutcome
from stdb.net.protocols.legacy import brotli as streams
from stdb.net.protocols.legacy.protobuf import row_key
from stdb.net.protocols.legacy.translation import row_forms
from tests.legacy_exchanges import recording
from tests.legacy_messages import (
    CLIENT_MESSAGE,
    SERVER_MESSAGE,
    bsatn_document,
    protobuf_bytes,
    protobuf_document,
    unpacked,
)
from tests.legacy_spoken import (
    ADDRESS,
    IDENTITY_BYTES,
    MESSAGE,
    MESSAGE_HI,
    MESSAGE_ID,
    USER,
    USER_BOB,
    USER_NONE,
    LegacySpoken,
    call,
    event,
    fragment,
    statements,
    subscribe,
    update,
)

VECTORS: dict[str, Any] = recording("legacy_bin")
FAILED = ReducerOutcome(OutcomeKind.FAILED, "Messages must not be empty")
COMMITTED = ReducerOutcome(OutcomeKind.COMMITTED)
OUT_OF_TIME = ReducerOutcome(OutcomeKind.OUT_OF_TIME, "reducer ran out of energy")
NO_REDUCER = ReducerOutcome(OutcomeKind.NOT_RUN, "no such reducer", "no such reducer")
Tell = Callable[[Any], None]

SAY_HI = event("send_message", ("hi",))
HI = call("send_message", b"\x02\0\0\0hi", request_id=7)


def committed(sink: Any) -> None:
    sink.reducer_result(HI, COMMITTED, SAY_HI, update(fragment("Message", [MESSAGE_HI])))


def renamed(sink: Any) -> None:
    told = event("set_name", ("Bob",), request_id=9)
    sink.reducer_result(HI, COMMITTED, told, update(fragment("User", [USER_BOB], [USER_NONE])))


def initial(sink: Any) -> None:
    rows = [fragment("User", [USER_NONE]), fragment("Message", [MESSAGE_HI])]
    sink.subscribe_applied(subscribe("SELECT * FROM User", "SELECT * FROM Message", request_id=1), rows, 0, 250)


def unknown(sink: Any) -> None:
    said_nothing = event("send_message", ("",), energy=0, duration_us=0)
    sink.reducer_result(call("nope", b"", request_id=3), NO_REDUCER, said_nothing, None)


def scheduled(sink: Any) -> None:
    told = event("expire_old", (), caller_connection_id=None, request_id=0)
    sink.update(told, update(fragment("Message", [], [MESSAGE_HI])))


TOLD: dict[str, Tell] = {
    "IdentityToken": lambda sink: sink.initial_connection(IDENTITY_BYTES, ADDRESS, "tok"),
    "SubscriptionUpdate": initial,
    "InitialSubscription": initial,
    "SubscriptionUpdate empty": lambda sink: sink.subscribe_applied(subscribe(), [], 0, 0),
    "InitialSubscription empty": lambda sink: sink.subscribe_applied(subscribe(request_id=1), [], 0, 250),
    "TransactionUpdate committed insert": committed,
    "TransactionUpdate Committed insert": committed,
    "TransactionUpdate committed update (delete then insert)": renamed,
    "TransactionUpdate Committed update": renamed,
    "TransactionUpdate Committed empty (caller without matching subscription)": lambda sink: sink.reducer_result(
        HI, COMMITTED, SAY_HI, None
    ),
    "TransactionUpdate failed": lambda sink: sink.reducer_result(HI, FAILED, SAY_HI, None),
    "TransactionUpdate Failed": lambda sink: sink.reducer_result(HI, FAILED, SAY_HI, None),
    "TransactionUpdate out_of_energy": lambda sink: sink.reducer_result(HI, OUT_OF_TIME, SAY_HI, None),
    "TransactionUpdate OutOfEnergy": lambda sink: sink.reducer_result(HI, OUT_OF_TIME, SAY_HI, None),
    "TransactionUpdate for an unknown reducer": unknown,
    "TransactionUpdate from a scheduled reducer": scheduled,
    "OneOffQueryResponse rows": lambda sink: sink.one_off_results(
        statements("SELECT * FROM User"), [fragment("User", [USER_BOB])], 0, 80
    ),
    "OneOffQueryResponse error": lambda sink: sink.one_off_results(statements("x"), "Unknown table: `Nope`", 0, 20),
}
"""What a database tells a client, by the name of the vector."""

ASKED: dict[str, Any] = {
    'FunctionCall send_message("hi")': HI,
    'CallReducer send_message("hi")': HI,
    "CallReducer with text args on the binary protocol": call("send_message", text='["hi"]', request_id=7),
    "FunctionCall without arguments": call("tick", request_id=8),
    "Subscribe two queries": subscribe("SELECT * FROM User", "SELECT * FROM Message", request_id=1),
    "Subscribe to nothing": subscribe(),
    "OneOffQuery": statements("SELECT * FROM User"),
    "CallReducer": call("send_message", text='["hi"]', request_id=7),
    "Subscribe": subscribe("SELECT * FROM User", request_id=1),
}
"""What a message asks, by the name of the vector."""


def _entries(*sections: str) -> list[Any]:
    entries = ((section, entry) for section in sections for entry in VECTORS[section])
    return [pytest.param(section, entry, id=f"{section} {entry['name']}") for section, entry in entries]


DIALECTS = {"protobuf_0_7_to_0_8": "0.8 v1.bin", "protobuf_0_9_to_0_10": "0.10 v1.bin", "sats_0_11": "0.11 v1.bin"}


@pytest.mark.parametrize(("section", "entry"), _entries(*DIALECTS))
def test_binary_messages(section: str, entry: dict[str, Any]) -> None:
    spoken = LegacySpoken(DIALECTS[section])
    data = bytes.fromhex(entry["bsatn_hex" if section == "sats_0_11" else "protobuf_hex"])
    if entry["direction"] == "client->server":
        asked = ASKED[entry["name"]]
        if section == "protobuf_0_7_to_0_8" and not isinstance(asked, OneOffStatements):
            asked = asked._replace(request_id=0)
        assert spoken.decoded(data) == asked
    else:
        TOLD[entry["name"]](spoken.sink)
        payload = spoken.payload()
        if "brotli_stored_hex" in entry:
            assert unpacked(bytes.fromhex(entry["brotli_q1_lgwin22_hex"])) == data
            if (told := _with_our_duration(entry)) is None:
                assert payload.hex() == entry["brotli_stored_hex"]
            else:
                data = told
            payload = unpacked(payload)
        assert payload == data


def _with_our_duration(entry: dict[str, Any]) -> bytes | None:
    """Return a message with two durations that are not the same; we measure one, and tell it twice."""
    update = entry["value"].get("transactionUpdate", {}) if isinstance(entry["value"], dict) else {}
    told = update.get("subscriptionUpdate", {})
    if "total_host_execution_duration_micros" not in told:
        return None
    duration = {"total_host_execution_duration_micros": update["event"]["host_execution_duration_micros"]}
    return protobuf_bytes({"transactionUpdate": update | {"subscriptionUpdate": told | duration}})


@pytest.mark.parametrize(("section", "entry"), _entries("sats_0_11"))
def test_declared_types_of_0_11_are_those_of_the_vectors(section: str, entry: dict[str, Any]) -> None:
    is_request = entry["direction"] == "client->server"
    bsatn_document(CLIENT_MESSAGE if is_request else SERVER_MESSAGE, bytes.fromhex(entry["bsatn_hex"]))


@pytest.mark.parametrize(("section", "entry"), _entries("protobuf_0_7_to_0_8", "protobuf_0_9_to_0_10"))
def test_declared_fields_of_protobuf_are_those_of_the_vectors(section: str, entry: dict[str, Any]) -> None:
    value = entry["value"]
    if "functionCall" in value:
        value["functionCall"] = {name: content for name, content in value["functionCall"].items() if content != ""}
    assert protobuf_document(bytes.fromhex(entry["protobuf_hex"])) == value


@pytest.mark.parametrize(("section", "entry"), _entries("text_0_11"))
def test_texts_of_0_11(section: str, entry: dict[str, Any]) -> None:
    spoken = LegacySpoken("0.11 v1.text")
    name, text = entry["name"], entry["text"]
    if entry["direction"] == "client->server":
        assert spoken.decoded(text) == ASKED[name]
        return
    if name == "InitialSubscription":
        rows = [fragment("User", [USER_NONE])]
        spoken.sink.subscribe_applied(subscribe("SELECT * FROM User", request_id=1), rows, 0, 250)
    elif name == "TransactionUpdate Failed":
        spoken.sink.reducer_result(HI, FAILED, event("send_message", ("",)), None)
    elif name.startswith("TransactionUpdate OutOfEnergy"):
        spoken.sink.reducer_result(HI, OUT_OF_TIME, SAY_HI, None)
        assert f'"status":{text},' in spoken.payload().decode()
        return
    else:
        TOLD[name.replace("Committed", "Committed insert")](spoken.sink)
    assert spoken.payload().decode() == text


def test_rows_have_the_layout_of_that_time() -> None:
    rows = VECTORS["rows"]
    user, message = row_forms(USER.row_type).to_old, row_forms(MESSAGE.row_type).to_old
    assert user is not None
    assert message is not None
    assert user(USER_NONE).hex() == rows["user_none_true"]
    assert user(USER_BOB).hex() == rows["user_bob_true"]
    assert message(MESSAGE_HI).hex() == rows["message_hi"]
    assert MESSAGE_ID.hex() in VECTORS["header"][2]


def test_keys_of_rows_of_a_real_server() -> None:
    document = recording("row_pk_0.8.2")
    assert len(document["pairs"]) > 3
    for pair in document["pairs"]:
        assert row_key(bytes.fromhex(pair["row_bsatn_hex"])).hex() == pair["row_pk_hex"]


@pytest.mark.parametrize("entry", VECTORS["row_pk"], ids=lambda entry: entry["row"])
def test_keys_of_rows(entry: dict[str, str]) -> None:
    assert row_key(bytes.fromhex(entry["bsatn_hex"])).hex() == entry["row_pk_hex"]


@pytest.mark.parametrize("entry", VECTORS["brotli_stored"], ids=lambda entry: entry["data_hex"])
def test_stored_streams(entry: dict[str, str]) -> None:
    assert streams.stored(bytes.fromhex(entry["data_hex"])).hex() == entry["stored_hex"]


@pytest.mark.parametrize("size", [0, 1, 5, 300, 1024, 1025, 65_535, 65_536, 65_537, 200_000])
def test_streams_of_every_size_unpack(size: int) -> None:
    data = bytes(i * i % 251 for i in range(size))
    assert brotli.decompress(streams.stored(data)) == data
    assert brotli.decompress(streams.pack(data)) == data
    pieces = [data[start : start + 1000] for start in range(0, size, 1000)]
    assert brotli.decompress(b"".join(streams.pack_pieces(pieces))) == data
