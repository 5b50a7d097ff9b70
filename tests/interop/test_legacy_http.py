"""Databases of 0.11 over HTTP, as recorded from the real 0.11.1 with its own module, at the root."""

from collections.abc import Mapping
from typing import Any

import pytest
import trio

from stdb.modules.wasm.loader import load_wasm
from stdb.testing.hosts import virtual_now_us
from tests.http_harness import Door, open_door
from tests.interop.probe_module import build_probe
from tests.legacy_exchanges import Replay, steps_of

pytestmark = pytest.mark.slow

ANOTHER_SECTION = b"\x00\x02\x01x"


async def people(door: Door) -> dict[str, str]:
    """Return the identities and tokens of the two people of the recordings."""
    known = {"address:2": "00112233445566778899aabbccddeeff"}
    for name in ("owner", "other"):
        minted = (await door.send("POST", "/identity")).document
        known |= {f"identity:{name}": minted["identity"], f"token:{name}": minted["token"]}
    return known


async def play(door: Door, name: str, programs: Mapping[str, bytes]) -> dict[int, list[str]]:
    """Send a recording; return what differs, by step."""
    steps = steps_of(name)
    replay = Replay(steps, await people(door))
    found = {}
    for place, step in enumerate(steps):
        if "http" not in step:
            continue
        exchange = step["http"]
        body = exchange.get("body", "")
        data = programs[body] if body.startswith("<") else _as_sent(replay.filled(body))
        answer = await door.send(exchange["method"], replay.filled(exchange["path"]), replay.headers(exchange), data)
        differences = replay.differences(step, answer)
        if differences:
            found[place] = differences
    return found


def _as_sent(text: str) -> bytes:
    """Return a body; what the recording could not show as text was no UTF-8."""
    return text.encode().replace("\ufffd".encode(), b"\xff")


def run(name: str) -> dict[int, list[str]]:
    program = build_probe()
    programs = {"<10239 bytes>": program, "<10243 bytes>": program + ANOTHER_SECTION}

    def loader(each: bytes) -> Any:
        return lambda: load_wasm(each, virtual_now_us)

    async def main() -> dict[int, list[str]]:
        with trio.fail_after(60):
            async with open_door({each: loader(each) for each in programs.values()}) as door:
                return await play(door, name, programs)

    return trio.run(main)


PLACE = "the place of the mistake is told without the name that stands there (spec 03 section 3.5: up to the reason)"
OUR_ANSWERS = {
    "http_database_0.11.1": {
        4: "__update__ is not told the publisher's address",
        17: "a failed first publish leaves nothing (spec 03 section 8.1)",
        18: "as 17",
        19: "as 17",
        81: "the recording holds the beginning alone; it is the document of step 62",
        96: PLACE,
        103: PLACE,
        136: "a bare identity is understood (spec 03 section 3.5)",
        137: "a bare address as well",
        139: "an identity has 32 bytes (spec 03 section 1)",
        147: "{} is none (spec 03 section 3.5)",
        150: PLACE,
        151: PLACE,
        154: PLACE,
        156: PLACE,
        169: PLACE,
    },
}
"""Steps that are answered in another way here, and why."""


@pytest.mark.parametrize("name", OUR_ANSWERS)
def test_databases_are_answered_as_recorded(name: str) -> None:
    found, ours = run(name), OUR_ANSWERS[name]
    assert not {place: differences for place, differences in found.items() if place not in ours}
    assert found.keys() >= ours.keys(), "these are answered as recorded now"
