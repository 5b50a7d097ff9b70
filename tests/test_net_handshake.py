"""The upgrade: accept key, choice of protocol, query parameters as the real server takes and refuses them."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from stdb.errors import RequestError
from stdb.net.handshake import (
    NO_PROTOCOL,
    ConnectionOptions,
    accept_key,
    check_connection_id,
    choose_subprotocol,
    parse_options,
)
from stdb.net.protocols.wire import Compression

STEPS = json.loads((Path(__file__).parent / "vectors/recorded_ws/01_upgrade.json").read_text())["steps"]
OPENS = [step for step in STEPS if "open" in step and "session_id" not in step["path"]]
"""The recorded server knew no session_id yet."""
NOT_OURS = ("Authorization is invalid", "Invalid URL", "`Sec-WebSocket")


def parameters(path: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(path).query, keep_blank_values=True)


def refusal(step: dict[str, Any]) -> str | None:
    """Return the text with which this step's parameters or protocols are refused, checks in the recorded order."""
    try:
        options = parse_options(parameters(step["path"]))
        check_connection_id(options)
    except RequestError as error:
        return str(error)
    return None if choose_subprotocol(offered(step)) else NO_PROTOCOL


def offered(step: dict[str, Any]) -> list[str]:
    """Return the values of the Sec-WebSocket-Protocol headers."""
    headers = [value for name, value in step.get("headers") or [] if name == "Sec-WebSocket-Protocol"]
    return headers or step["protocols"] or []


@pytest.mark.parametrize("place", range(len(OPENS)))
def test_every_recorded_upgrade_is_chosen_or_refused_as_by_the_real_server(place: int) -> None:
    step = OPENS[place]
    if step["status"] == 101:
        assert refusal(step) is None
        assert choose_subprotocol(offered(step)) == step["protocol"]
    elif step["status"] == 400 and not step["answer"].startswith(NOT_OURS):
        assert refusal(step) == step["answer"]
    else:
        assert step["status"] in (400, 401, 404, 405, 426, 500)  # the front door's


def test_the_accept_key_is_that_of_the_rfc() -> None:
    assert accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_the_server_prefers_whatever_the_clients_order() -> None:
    v1_json, v1, v2, v3 = (f"{name}.spacetimedb" for name in ("v1.json", "v1.bsatn", "v2.bsatn", "v3.bsatn"))
    assert choose_subprotocol([f"{v1_json}, {v1}", f"{v2},{v3}"]) == v3
    assert choose_subprotocol([v1_json, v1, v2]) == v2
    assert choose_subprotocol([v1_json, v1]) == v1
    assert choose_subprotocol([v1_json]) == v1_json
    assert choose_subprotocol(["V3.bsatn.spacetimedb", "graphql-ws"]) is None
    assert choose_subprotocol([]) is None


def test_defaults_when_nothing_is_said() -> None:
    assert parse_options([]) == ConnectionOptions(None, Compression.BROTLI, False, None, None)


def test_every_parameter_is_taken_and_unknown_ones_are_ignored() -> None:
    options = parse_options(
        [
            ("connection_id", "000000000000000000000000000000aB"),
            ("compression", "Gzip"),
            ("light", "true"),
            ("confirmed", "false"),
            ("session_id", "01" + "0" * 30),
            ("token", "x"),
            ("token", "y"),
            ("Light", "nonsense"),
        ]
    )
    assert options.connection_id == b"\xab" + bytes(15)
    assert options.compression is Compression.GZIP
    assert options.light is True
    assert options.confirmed is False
    assert options.session_id == bytes(15) + b"\x01"


@pytest.mark.parametrize(
    "text", ["zz", "1" * 31, "1" * 33, "0x" + "1" * 30, "é" * 32, "\uff11" * 32, "-" + "1" * 31, ""]
)
def test_ids_are_32_hex_digits_and_nothing_else(text: str) -> None:
    with pytest.raises(RequestError, match=r"^Failed to deserialize query string: "):
        parse_options([("connection_id", text)])
    assert parse_options([("session_id", text)]).session_id is None  # ignored, as by a server that knows of none
