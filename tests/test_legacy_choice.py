"""The choice among the dialects of 0.7 to 0.11, for every handshake that was recorded of a real client."""

from typing import Any

import pytest

from stdb.net.protocols.legacy.choice import BIN, PREFIXES, TEXT, choose, choose_by_message, choose_subprotocol
from tests.legacy_exchanges import RECORDED, recording

RUST: dict[str, Any] = {"subprotocol": BIN, "has_address": True, "has_origin": False}
PYTHON: dict[str, Any] = {"subprotocol": TEXT, "has_address": True, "has_origin": True}
COMMAND_LINE: dict[str, Any] = {"subprotocol": TEXT, "has_address": False, "has_origin": False}


def asked(request: list[str]) -> dict[str, Any]:
    """Return what a handshake says to those who choose."""
    lines = [line.lower() for line in request[1:]]
    offered = [line.partition(": ")[2] for line in lines if line.startswith("sec-websocket-protocol:")]
    return {
        "subprotocol": choose_subprotocol(offered),
        "has_address": "client_address=" in request[0],
        "has_origin": any(line.startswith("origin:") for line in lines),
    }


def recorded() -> list[tuple[str, list[str], str]]:
    """Return name, request and dialect of each recorded handshake of a real client."""
    found = []
    for path in sorted(RECORDED.glob("*.json.gz")):
        document = recording(path.name.removesuffix(".json.gz"))
        requests = [step["lines"] for step in document.get("steps", []) if step.get("do") == "request"]
        dialect = {"python": "legacy.0.8.text", "rust": "legacy.0.11.bin", "cli": "legacy.0.11.text"}
        found += [(path.name, lines, dialect[path.name.partition("_")[0]]) for lines in requests]
    return found


def test_real_clients_get_their_dialect() -> None:
    handshakes = recorded()
    assert len(handshakes) >= 7
    for name, request, dialect in handshakes:
        said = asked(request)
        chosen = choose("", **said)
        assert (chosen is None) == (said == COMMAND_LINE), name
        assert (chosen or choose_by_message('{"Subscribe":{}}')) == DIALECTS[dialect], name


DIALECTS = {
    "legacy.0.8.text": choose("/legacy/0.8", TEXT, has_address=False, has_origin=False),
    "legacy.0.8.bin": choose("/legacy/0.8", BIN, has_address=False, has_origin=False),
    "legacy.0.10.bin": choose("/legacy/0.10", BIN, has_address=False, has_origin=False),
    "legacy.0.11.bin": choose("/legacy/0.11", BIN, has_address=False, has_origin=False),
    "legacy.0.11.text": choose("/legacy/0.11", TEXT, has_address=False, has_origin=False),
}


def test_there_are_five_dialects_below_three_prefixes() -> None:
    assert PREFIXES == ("/legacy/0.8", "/legacy/0.10", "/legacy/0.11")
    assert None not in DIALECTS.values()
    assert len(set(DIALECTS.values())) == 5
    assert choose("/legacy/0.10", TEXT, has_address=False, has_origin=False) == DIALECTS["legacy.0.8.text"]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("subprotocol", [BIN, TEXT])
def test_a_prefix_decides_alone(prefix: str, subprotocol: str) -> None:
    chosen = {
        choose(prefix, subprotocol, has_address=address, has_origin=origin)
        for address in (False, True)
        for origin in (False, True)
    }
    assert len(chosen) == 1
    assert None not in chosen


@pytest.mark.parametrize(
    ("first", "dialect"),
    [
        (None, "legacy.0.11.text"),
        (b'{"call":{}}', "legacy.0.11.text"),
        ("", "legacy.0.11.text"),
        ("{", "legacy.0.11.text"),
        ("[]", "legacy.0.11.text"),
        ("null", "legacy.0.11.text"),
        ('{"Subscribe":{"query_strings":[]}}', "legacy.0.11.text"),
        ('{"CallReducer":{}}', "legacy.0.11.text"),
        ('{"OneOffQuery":{}}', "legacy.0.11.text"),
        ('{"Call":{}}', "legacy.0.11.text"),
        ('{"subscribe":{"query_strings":[]}}', "legacy.0.8.text"),
        (' \n{ "subscribe": { } }', "legacy.0.8.text"),
        ('{"call":{"fn":"x","args":[]}}', "legacy.0.8.text"),
        ('{"one_off_query":{}}', "legacy.0.8.text"),
        ('{"call":', "legacy.0.8.text"),
    ],
)
@pytest.mark.parametrize(("has_address", "has_origin"), [(False, False), (True, False), (False, True)])
def test_otherwise_the_first_message_in_text_decides(
    first: bytes | str | None, dialect: str, has_address: bool, has_origin: bool
) -> None:
    assert choose("", TEXT, has_address=has_address, has_origin=has_origin) is None
    assert choose_by_message(first) == DIALECTS[dialect]


def test_nothing_is_waited_for_when_it_is_plain() -> None:
    assert choose("", BIN, has_address=False, has_origin=False) == DIALECTS["legacy.0.11.bin"]
    assert choose("", BIN, has_address=True, has_origin=True) == DIALECTS["legacy.0.11.bin"]
    assert choose("", **PYTHON) == DIALECTS["legacy.0.8.text"]
    assert choose("", **RUST) == DIALECTS["legacy.0.11.bin"]


@pytest.mark.parametrize(
    ("offered", "echoed"),
    [
        ([], None),
        ([""], None),
        (["v1.text.spacetimedb"], TEXT),
        (["v1.bin.spacetimedb"], BIN),
        (["v1.text.spacetimedb, v1.bin.spacetimedb"], BIN),
        (["v1.text.spacetimedb", "v1.bin.spacetimedb"], BIN),
        (["v1.bsatn.spacetimedb , v1.text.spacetimedb"], TEXT),
        (["V1.TEXT.SPACETIMEDB"], None),
        (["v1.json.spacetimedb"], None),
        (["v1.text.spacetimedb2"], None),
    ],
)
def test_the_binary_protocol_is_echoed_wherever_it_stands(offered: list[str], echoed: str | None) -> None:
    assert choose_subprotocol(offered) == echoed
