"""Every official vector and every recorded message: the declared types and the dialects agree with their bytes."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import brotli  # type: ignore[import-untyped]  # its wheel has no stubs
import pytest

from stdb.actors.requests import Request
from stdb.net.protocols import messages_v1, messages_v2
from stdb.sats import bsatn
from tests.websocket_messages import NeverSentError, Spoken, drive_v1, drive_v2, v1_value, v2_value

VECTORS = Path(__file__).parent / "vectors"
BY_VERSION = {
    "v1": (messages_v1, drive_v1, v1_value),
    "v2": (messages_v2, drive_v2, v2_value),
    "v3": (messages_v2, drive_v2, v2_value),
}
NEVER_SENT = {
    "v1 SubscriptionError during a transaction (no ids: client drops everything)",
    "v1 TransactionUpdateLight with a Gzip query update inside",
    "v1 TransactionUpdateLight with a Brotli query update inside",
    "v2 SubscriptionError after application (request_id none)",
    "v2 ReducerResult OkEmpty",
}
"""Messages that this server never sends; clients decode them."""


def load() -> Iterator[dict[str, Any]]:
    for name in ("websocket.json", "websocket_2_14.json"):
        yield from json.loads((VECTORS / name).read_text())["vectors"]


def split(payload: bytes, message_type: Any) -> list[tuple[Any, bytes]]:
    """Return the values concatenated in `payload`, each with its bytes."""
    codec = bsatn.codec(message_type)
    found = []
    offset = 0
    while offset < len(payload):
        value, end = codec.decode(payload, offset)
        found.append((value, payload[offset:end]))
        offset = end
    return found


def unpack(payload: bytes) -> bytes:
    """Return the body of a server payload."""
    tag, body = payload[0], payload[1:]
    return body if tag == 0 else brotli.decompress(body) if tag == 1 else gzip.decompress(body)


ALL = list(load())


@pytest.mark.parametrize("vector", ALL, ids=[vector["name"] for vector in ALL])
def test_a_vector_decodes_and_encodes_to_the_same_bytes(vector: dict[str, Any]) -> None:
    version = vector["name"][:2]
    messages, drive, value_of = BY_VERSION[version]
    payload = bytes.fromhex(vector["websocket_payload_hex"])
    name = vector["protocol"].removesuffix(".spacetimedb")
    if vector["direction"] == "client->server":
        declared = split(payload, messages.CLIENT_MESSAGE)
        requests: list[Request] = []
        Spoken(name).sink.receive(payload, requests)
        assert [value_of(request) for request in requests] == [value for value, _ in declared]
        codec = bsatn.codec(messages.CLIENT_MESSAGE)
        assert b"".join(codec.encode(value_of(request)) for request in requests) == payload
    else:
        body = unpack(payload)
        declared = split(body, messages.SERVER_MESSAGE)
        codec = bsatn.codec(messages.SERVER_MESSAGE)
        assert b"".join(codec.encode(value) for value, _ in declared) == body
        if vector["name"] in NEVER_SENT:
            with pytest.raises(NeverSentError):
                drive(Spoken(name), declared[0][0])
            return
        for value, message in declared:
            spoken = Spoken(name)
            drive(spoken, value)
            assert spoken.payloads() == [b"\0" + message]
    if "tag" in vector:
        assert [value[0] for value, _ in declared] == [vector["tag"]]


SESSIONS = sorted((VECTORS / "recorded_ws").glob("*.json"))
BROKEN_ON_PURPOSE = "30_malformed"
RECORDED = [path for path in SESSIONS if path.stem != BROKEN_ON_PURPOSE]


def binary_steps(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield (direction, protocol, payload) of every binary message, steps that show a defect left out."""
    session = json.loads(path.read_text())
    protocols: dict[str, str] = {}
    for step in session["steps"]:
        if "open" in step and step.get("protocol"):
            protocols[step["open"]] = step["protocol"].removesuffix(".spacetimedb")
        elif "hex" in step and "bug" not in step:
            direction = "to" if "to" in step else "from"
            yield direction, protocols[step[direction]], bytes.fromhex(step["hex"])


@pytest.mark.parametrize("path", RECORDED, ids=[path.stem for path in RECORDED])
def test_every_recorded_message_decodes_and_encodes_to_the_same_bytes(path: Path) -> None:
    """Both by the declared types and by the hand-written dialects (for what they can be asked to say)."""
    told = untold = 0
    for direction, protocol, payload in binary_steps(path):
        messages, drive, value_of = BY_VERSION[protocol[:2]]
        if direction == "to":
            declared = split(payload, messages.CLIENT_MESSAGE)
            requests: list[Request] = []
            Spoken(protocol).sink.receive(payload, requests)
            assert [value_of(request) for request in requests] == [value for value, _ in declared]
            codec = bsatn.codec(messages.CLIENT_MESSAGE)
            assert b"".join(codec.encode(value_of(request)) for request in requests) == payload
            continue
        for value, message in split(unpack(payload), messages.SERVER_MESSAGE):
            assert bsatn.codec(messages.SERVER_MESSAGE).encode(value) == message
            spoken = Spoken(protocol)
            try:
                drive(spoken, value)
            except NeverSentError:
                untold += 1
            else:
                told += 1
                assert spoken.payloads() == [b"\0" + message]
    assert told >= untold


def test_all_recorded_messages_are_ours_to_say() -> None:
    told = untold = 0
    for path in RECORDED:
        for direction, protocol, payload in binary_steps(path):
            messages, drive, _ = BY_VERSION[protocol[:2]]
            if direction == "from":
                for value, _ in split(unpack(payload), messages.SERVER_MESSAGE):
                    try:
                        drive(Spoken(protocol), value)
                        told += 1
                    except NeverSentError:
                        untold += 1
    assert told > 700
    assert untold == 0
