"""What clients may not send: the texts of the real server, and nothing valid before the damage is lost."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stdb.actors.requests import CallReducer, Request
from stdb.errors import DecodeError
from tests.websocket_messages import Spoken

SESSION = json.loads((Path(__file__).parent / "vectors/recorded_ws/30_malformed.json").read_text())


def exchanges() -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """Yield (protocol, name, last step sent, step that closed) of every connection that was closed with 1011."""
    protocols: dict[str, str] = {}
    sent: dict[str, dict[str, Any]] = {}
    for step in SESSION["steps"]:
        if "open" in step and step.get("protocol"):
            protocols[step["open"]] = step["protocol"].removesuffix(".spacetimedb")
        elif "to" in step:
            sent[step["to"]] = step
        elif "from" in step and step.get("close", [0])[0] == 1011:
            name = step["from"]
            yield protocols[name], name, sent[name], step


EXCHANGES = list(exchanges())


@pytest.mark.parametrize("place", range(len(EXCHANGES)), ids=[f"{one[0]} {one[1]}" for one in EXCHANGES])
def test_a_malformed_message_is_refused_with_the_reason_of_the_real_server(place: int) -> None:
    protocol, name, sent, closed = EXCHANGES[place]
    message = bytes.fromhex(sent["hex"]) if "hex" in sent else sent["text"]
    requests: list[Request] = []
    with pytest.raises(DecodeError) as caught:
        Spoken(protocol).sink.receive(message, requests)
    if protocol.startswith("v1") and isinstance(message, str):
        assert str(caught.value)  # the detail of a JSON error is our own
    elif name == "tag 5":  # unknown to the recorded server; a SubscribeBatch cut short to us
        assert str(caught.value).startswith("data too short")
    else:
        assert str(caught.value) == closed["close"][1]
    assert len(requests) == (1 if name in ("valid then bad", "trailing bytes") else 0)


@pytest.mark.parametrize("protocol", ["v1.bsatn", "v1.json"])
def test_both_forms_of_v1_take_both_kinds_of_messages(protocol: str) -> None:
    requests: list[Request] = []
    sink = Spoken(protocol).sink
    sink.receive(bytes.fromhex("00040000006e6f6f70000000000500000000"), requests)
    sink.receive('{"CallReducer":{"reducer":"noop","args":"[1]","request_id":6,"flags":1}}', requests)
    assert requests == [CallReducer(5, "noop", b"", True), CallReducer(6, "noop", "[1]", False)]


def test_an_array_said_to_be_huge_costs_no_memory() -> None:
    for protocol, payload in (
        ("v2.bsatn", b"\0" + bytes(8) + b"\xff" * 4),
        ("v2.bsatn", b"\5" + bytes(4) + b"\xff" * 4),
    ):
        with pytest.raises(DecodeError, match="data too short"):
            Spoken(protocol).sink.receive(payload, [])
    with pytest.raises(DecodeError, match="data too short"):
        Spoken("v1.bsatn").sink.receive(b"\1" + b"\xff" * 4, [])
