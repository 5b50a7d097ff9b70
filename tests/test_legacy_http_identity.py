"""Identities, tokens and energy of 0.11 over HTTP, as recorded from the real 0.11.1, at each of their places."""

import base64
import hmac
import json
import re
import time
from typing import Any

import pytest
import trio

from stdb.net.legacy_paths import PREFIXES
from stdb.net.routes_publish import PYTHON_MAGIC
from stdb.net.tokens import ServerKey, Tokens
from stdb.testing.modules import FunctionModule
from tests.http_harness import KEY, Door, open_door
from tests.legacy_exchanges import Replay, steps_of

STEPS = steps_of("http_identity_0.11.1")
FOREIGN = ServerKey.generate()
NOT_HERE = {
    41: "energy is not metered, so nothing is taken off",
    45: "as 41",
    46: "as 41",
    47: "as 41",
    54: "other metrics",
    58: "`/v1/ping` is a route of today",
    63: "Bearer is understood (spec 03 section 2, we)",
}


def tokens_by_note(identity: str) -> dict[str, str]:
    """Return the tokens of the recording that were made by hand, by what its notes say of them."""
    now = int(time.time())
    good: dict[str, Any] = {"hex_identity": identity, "iat": now}
    own = {
        "own key, exp null": good | {"exp": None},
        "own key, no exp": good,
        "own key, no iat": {"hex_identity": identity, "exp": None},
        "own key, no hex_identity": {"iat": now, "exp": None},
        "own key, short identity": good | {"hex_identity": identity[:-2]},
        "own key, upper-case identity": good | {"hex_identity": identity.upper()},
        "own key, 0x identity": good | {"hex_identity": f"0x{identity}"},
        "own key, expired 10 s ago": good | {"exp": now - 10},
        "own key, expired 59 s ago": good | {"exp": now - 58},
        "own key, expired 70 s ago": good | {"exp": now - 70},
        "own key, issued in the future": good | {"iat": now + 1000},
        "own key, extra claims": good | {"extra": [1]},
        "own key, identity never registered": good | {"hex_identity": "ab" * 32},
        "own key, iat float": good | {"iat": now + 0.5},
    }
    made = {note: KEY.sign(json.dumps(claims)) for note, claims in own.items()}
    made["signed by another key"] = FOREIGN.sign(json.dumps(good))
    head = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"typ": "JWT", "alg": "HS256"}, good)
    )
    signature = hmac.digest(b"secret", head.encode(), "sha256")
    made["own key, HS256"] = f"{head}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    return made


def by_hand(step: dict[str, Any], place: int, replay: Replay) -> None:
    """Fill in what the recording does not hold: tokens that were made, and which one a header had."""
    if match := re.fullmatch(r"Basic token:\$\{(token:\d+)\}", step["http"].get("auth", "")):
        made = tokens_by_note(replay.known["identity:1"]).get(step.get("note", ""))
        if made is not None:
            replay.known[match[1]] = made
    which = {
        66: b"token:nonsense",
        68: f"token:{replay.known.get('token:1')}".encode(),
        71: b"token:" + tokens_by_note("ab" * 32)["signed by another key"].encode(),
        72: b"token:",
        73: b"token:x.y.z",
        74: f"token:{replay.known.get('token:1')}".encode(),
        75: f"token:{replay.known.get('token:1')}".encode(),
    }
    if place in which:
        text = json.dumps(step["http"]).replace("${base64 of token:JWT}", base64.b64encode(which[place]).decode())
        step["http"] = json.loads(text)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_identities_are_answered_as_recorded(prefix: str) -> None:
    failures: list[str] = []

    async def replay_all(door: Door) -> None:
        replay = Replay(STEPS, {})
        for place, recorded in enumerate(STEPS):
            step = json.loads(json.dumps(recorded))
            by_hand(step, place, replay)
            exchange = step["http"]
            body = PYTHON_MAGIC if exchange.get("body", "").startswith("<") else exchange.get("body", "")
            path = replay.filled(exchange["path"])
            if path.upper().startswith("/IDENTITY/5EBD"):
                path = f"/identity/{replay.known['identity:1'].upper()}/verify"
            answer = await door.send(exchange["method"], prefix + path, replay.headers(exchange), body)
            found = replay.differences(step, answer)
            if place in NOT_HERE and not (prefix and place == 58):
                assert found, f"step {place} is no exception any more"
            elif place == 10:
                assert "-----BEGIN PUBLIC KEY-----" in answer.text
            else:
                failures.extend(f"{place} {exchange['method']} {path}: {each}" for each in found)

    async def main() -> None:
        with trio.fail_after(20):
            async with open_door({PYTHON_MAGIC: lambda: FunctionModule([], {})}, tokens=Tokens(KEY)) as door:
                await replay_all(door)

    trio.run(main)
    assert not failures, "\n".join(failures)
