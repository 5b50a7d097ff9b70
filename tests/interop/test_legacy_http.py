"""Databases of 0.11 over HTTP, as recorded from the real 0.11.1 with its own module, at the root."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
import trio

from stdb.modules.wasm.loader import load_wasm
from stdb.testing.hosts import virtual_now_us
from tests.http_harness import Door, open_door
from tests.interop.probe_module import VARIANTS, build_probe
from tests.legacy_exchanges import ALIASES, Replay, steps_of

pytestmark = pytest.mark.slow

OF_TWO_PEOPLE = ("http_database_0.11.1",)
"""Recordings that call the database of each of two people by other names than the answers that told of them."""
CLI = "cli_0.11.1"
HAVE_A_DATABASE = ("http_sql_0.11.1",)
PUBLISHER = "00112233445566778899aabbccddeeff"
ONE_MORE_SECTION = b"\x00\x02\x01y"
BROKEN = {
    "fail_update": ("-DFAIL_IN=R_UPDATE",),
    "trap_update": ("-DFAIL_IN=R_UPDATE", "-DFAIL_TRAP"),
    "fail_init": ("-DFAIL_IN=R_INIT",),
    "trap_init": ("-DFAIL_IN=R_INIT", "-DFAIL_TRAP"),
    "fail_conn": ("-DFAIL_IN=R_IDENTITY_CONNECTED",),
    "trap_conn": ("-DFAIL_IN=R_IDENTITY_CONNECTED", "-DFAIL_TRAP"),
    "fail_disc": ("-DFAIL_IN=R_IDENTITY_DISCONNECTED",),
    "fail_setup": ("-DFAIL_SETUP",),
    "abi10": ('-DABI="spacetime_10.0"',),
    "abi8": ('-DABI="spacetime_8.0"',),
    "abi91": ('-DABI="spacetime_9.1"',),
}
"""Options that a recorded program was built with."""
BY_SIZE: dict[str, dict[int, tuple[str, ...]]] = {
    "misc_0.11.1": {
        10084: ("", "-DFAIL_IN=R_INIT"),
        10237: ("addarg", "-DFAIL_IN=R_UPDATE"),
        10262: ("", "-DUPD_MSG"),
        10380: ("addtable",),
    },
    "cli_0.11.1": {10295: ("addcol",)},
    "extra_0.11.1": {9456: ("maps",)},
}
"""Programs that a recording tells apart by their size: variant and options."""
ANOTHER_SECTION = b"\x00\x02\x01x"


async def people(door: Door) -> dict[str, str]:
    """Return the identities and tokens of the people of the recordings."""
    known: dict[str, str] = {}
    for name in ("owner", "other", "x"):
        minted = (await door.send("POST", "/identity")).document
        known |= {f"identity:{name}": minted["identity"], f"token:{name}": minted["token"]}
    return known


async def play(
    door: Door, name: str, programs: Mapping[str, bytes], prefix: str, before: str = ""
) -> dict[int, list[str]]:
    """Send a recording to the routes below a prefix; return what differs, by step.

    With `before`, the recording of an older server, only what that answered in another way is compared, with that.
    """
    steps = steps_of_cli(name) if name.startswith("cli") else steps_of(name)
    known = await people(door)
    if name in OF_TWO_PEOPLE:
        known["address:2"] = PUBLISHER
    replay = Replay(steps, known, aliases=ALIASES if name in OF_TWO_PEOPLE else {})
    older = {step["i"]: step for step in steps_of(before) if "i" in step} if before else {}
    if name in HAVE_A_DATABASE:
        await publish_before(door, replay, programs["<10239 bytes>"])
    found = {}
    for place, step in enumerate(steps):
        if "http" not in step:
            continue
        exchange = step["http"]
        body = exchange.get("body", "")
        data = _program(step, programs) if body.startswith("<") else _as_sent(replay.filled(body))
        path = prefix + replay.filled(exchange["path"])
        answer = await door.send(exchange["method"], path, replay.headers(exchange), data)
        differences = replay.differences(step, answer)
        if before:
            differences = replay.differences(older[place], answer) if place in older else []
        if differences:
            found[place] = differences
    return found


async def publish_before(door: Door, replay: Replay, program: bytes) -> None:
    """Publish the module that was there before a recording began."""
    headers = replay.headers({"auth": "Basic token:${token:owner}"})
    answer = await door.send("POST", f"/database/publish?name_or_address=p{replay.suffix}", headers, program)
    replay.known["address:db"] = answer.document["Success"]["address"]


def _program(step: dict[str, Any], programs: Mapping[str, bytes]) -> bytes:
    """Return the program that a step publishes: that of a variant, if its note names one."""
    named = re.match(r"variant (\w+)", step.get("note", ""))
    if named is not None:
        return programs[named[1]]
    body = step["http"]["body"]
    again = f"{body} again"
    return programs[again if again in programs and "client_address" in step["http"]["path"] else body]


def steps_of_cli(name: str) -> list[dict[str, Any]]:
    """Return the requests that the command line of 0.11 sent, without those for WebSockets."""
    requests = [request for step in steps_of(name) for request in step.get("requests", ())]
    return [_step(request) for request in requests if "Upgrade:" not in request["request"]]


def _step(request: Mapping[str, str]) -> dict[str, Any]:
    (first, headers), body = _parts(request["request"])
    (status, told), answer = _parts(request["response"])
    method, path, _ = first.split(" ")
    exchange: dict[str, Any] = {"method": method, "path": path, "body": body}
    if "authorization" in headers:
        exchange["auth"] = "Basic token:${token:1}"
    return {"http": exchange, "reply": {"status": int(status.split(" ")[1]), "headers": told, "body": answer}}


def _parts(text: str) -> tuple[tuple[str, dict[str, str]], str]:
    """Return the first line, the headers and the body of a request or an answer."""
    head, _, body = text.partition("\n\n")
    first, *lines = head.split("\n")
    return (first, dict(line.split(": ", 1) for line in lines if ": " in line)), body


def _as_sent(text: str) -> bytes:
    """Return a body; what the recording could not show as text was no UTF-8."""
    return text.encode().replace("\ufffd".encode(), b"\xff")


def run(name: str, prefix: str = "", before: str = "") -> dict[int, list[str]]:
    program = build_probe()
    programs = {"<10239 bytes>": program, "base": program}
    programs |= {"<10243 bytes>": program + ANOTHER_SECTION, "<10243 bytes> again": program + ONE_MORE_SECTION}
    if name == "publish_variants_0.11.1":
        programs |= {variant: build_probe(variant) for variant in VARIANTS}
        programs |= {variant: build_probe("", *options) for variant, options in BROKEN.items()}
        programs["garbage"] = build_probe("garbage")
    programs |= {f"<{size} bytes>": build_probe(*options) for size, options in BY_SIZE.get(name, {}).items()}

    def loader(each: bytes) -> Any:
        return lambda: load_wasm(each, virtual_now_us)

    async def main() -> dict[int, list[str]]:
        with trio.fail_after(60):
            async with open_door({each: loader(each) for each in programs.values()}) as door:
                return await play(door, name, programs, prefix, before)

    return trio.run(main)


WORDS = "refused as well; the reason is in words of our own"
UPDATE_LINES = "the lines of an update stand together; which program it is now is told as well"
PLACE = "the place of the mistake is told without the name that stands there (spec 03 section 3.5: up to the reason)"
OUR_ANSWERS = {
    "http_database_0.11.1": {
        4: UPDATE_LINES,
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
    "http_sql_0.11.1": {
        **dict.fromkeys((8, 127), "the recording holds the beginning alone"),
        15: "a quoted table name is found (spec 03 section 10)",
        **dict.fromkeys(
            (27, 29, 36, 39, 40, 41, 42, 43, 56, 62, 65, 66, 68, 70, 76, 82, 89, 93, 94, 95, 97, 98, 99, 101), WORDS
        ),
        **dict.fromkeys((102, 103, 105, 106, 107, 108, 109, 110, 113, 121, 124, 125, 126, 131, 142, 161, 175), WORDS),
        **dict.fromkeys((30, 31), "literals are no columns: 0.11 gave them the names of others (spec 03 section 10)"),
        32: "a column in parentheses is no column",
        **dict.fromkeys((33, 34, 35, 37, 38, 57, 63, 67, 77, 78, 111, 122, 123), "more of SQL is understood (spec 06)"),
        45: "* beside other columns is refused (spec 03 section 10)",
        **dict.fromkeys((51, 59), "a literal on the left is compared (spec 03 section 10)"),
        **dict.fromkeys((83, 84, 85), "bytes are understood as hex digits (spec 03 section 10)"),
        88: "the digits of an identity are that identity, in quotes too",
        104: "two columns are compared",
        **dict.fromkeys((115, 116, 118), "a join loses no rows (spec 06 section 4.1)"),
        **dict.fromkeys(
            (178, 179, 180, 181, 182, 183, 185, 186, 187, 188, 189), "the system tables are those of this generation"
        ),
        **dict.fromkeys((190, 191), "system tables but st_var are written by nobody (spec 03 section 10)"),
        208: "no trace is told with a panic",
        235: "refused; the process lives (spec 03 section 10)",
        236: "values go to the columns that are named; the process lives (spec 03 section 10)",
    },
    "publish_variants_0.11.1": {
        **dict.fromkeys((2, 14, 18, 22, 42, 46), UPDATE_LINES),
        6: "what is different is told in words",
        25: "a column may become unique when its values are (spec 05)",
        26: "as 25",
        **dict.fromkeys((37, 82), "two reducers of one name are refused (spec 03 section 8.1)"),
        **dict.fromkeys((38, 83, 84), "as 37"),
        **dict.fromkeys((49, 85), WORDS),
        **dict.fromkeys((54, 58), "a failing __update__ is rolled back, and the log says why (spec 03 section 8.1)"),
        **dict.fromkeys((65, 69, 97, 100), "the ABIs of this server are others"),
        **dict.fromkeys(
            (77, 78, 80, 81, 86, 87, 89, 90, 92, 93, 95, 96, 98, 99, 101, 102, 104, 105),
            "a failed first publish leaves nothing (spec 03 section 8.1)",
        ),
        **dict.fromkeys(
            (116, 124, 132, 117, 125, 133), "the connections of the recording are not made; st_client is of today"
        ),
    },
    "misc_0.11.1": {
        1: "a failed first publish leaves nothing (spec 03 section 8.1)",
        2: "as 1",
        6: "as 1",
        11: "a failing __update__ leaves the old program in force (spec 03 section 8.1)",
        12: "as 11",
        48: "what it reads came by a WebSocket, which is another test",
    },
    "extra_0.11.1": {
        15: "a list of pairs is a map as well (spec 03 section 1)",
        41: "a map with a sum for a key has a form in JSON (spec 03 section 1)",
        **dict.fromkeys((68, 69), "what it reads came by a WebSocket, which is another test"),
        **dict.fromkeys((70, 79), "which mistake is found first is not said (spec 03 section 3.5: up to the reason)"),
    },
    "cli_0.11.1": {
        **dict.fromkeys((0, 1), "the key of this server"),
        **dict.fromkeys((7, 39, 44, 46, 48), "the recording tells how long the body is, not what"),
        37: "a reducer that fails is told in the log",
        40: "energy of calls is not taken from a balance",
    },
}
"""Steps that are answered in another way here, and why."""


@pytest.mark.parametrize("prefix", ["/legacy/0.8", "/legacy/0.10", "/legacy/0.11"])
@pytest.mark.parametrize("name", ["http_database_0.11.1", "http_sql_0.11.1"])
def test_every_prefix_answers_as_the_root_does(name: str, prefix: str) -> None:
    assert run(name, prefix).keys() == OUR_ANSWERS[name].keys()


@pytest.mark.parametrize(
    ("before", "prefix"), [("http_database_0.8.2", "/legacy/0.8"), ("http_database_0.10.1", "/legacy/0.10")]
)
def test_what_older_servers_answered_in_another_way_is_answered_as_0_11_does(before: str, prefix: str) -> None:
    """As spec 03 section 8 has it: the 0.11 way under every prefix."""
    found = run("http_database_0.11.1", prefix, before)
    elsewhere = {step["i"] for step in steps_of(before) if "i" in step}
    assert elsewhere - found.keys() == {140}, "an identity as numbers, which all answer alike"


@pytest.mark.parametrize("name", OUR_ANSWERS)
def test_databases_are_answered_as_recorded(name: str) -> None:
    found, ours = run(name), OUR_ANSWERS[name]
    assert not {place: differences for place, differences in found.items() if place not in ours}
    assert found.keys() >= ours.keys(), "these are answered as recorded now"
    if name == "http_database_0.11.1":
        assert PUBLISHER in found[4][0].partition(", recorded")[0], "__update__ is told where its publisher is"
    worded = [place for place, reason in ours.items() if reason in (WORDS, PLACE)]
    assert not [place for place in worded if found[place][0].startswith("status")], "these are not refused alike"
