"""Commands do what the recorded runs of the official command line did, except where we mean to differ."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.cli_harness import RECORDED, Ran, own_place, run, serve_kitchen, started

NAME = "cli-kitchen"
UNSTABLE = "WARNING: This command is UNSTABLE and subject to breaking changes.\n\n"
"""We mark no command as unstable."""
SAME = {
    "call": [
        *(96, 97, 98, 99, 101, 102, 103, 104, 105, 106, 108, 109, 110, 111, 112, 113, 114, 115, 116, 117, 118, 119),
        *(120, 121, 122, 123, 124, 125, 126, 127, 128, 129, 130, 132, 137, 138, 139, 140, 142, 143, 144),
        *(147, 148, 149),
    ],
    "sql": [
        *(153, 154, 155, 156, 157, 158, 159, 160, 161, 162, 163, 164, 165, 166, 170, 171, 172, 173, 174, 177, 179),
        *(180, 181, 183, 184, 185, 186, 187, 188, 189),
    ],
    "logs": [207],
    "describe": [211, 212, 213, 214, 215, 216],
    "subscribe": [221, 222, 223],
    "delete": [235, 242],
}
"""Entries of the recording whose output is ours too. Not among them: kitchen's views, its functions
and table of every type, back traces (145), usage errors (argparse words them), errors of connections (httpx does), and
100 (too many arguments are an error here), 107 (-5 needs no --), 150 (exit code 2, not 1), 245 (we say why)."""
CASES = [index for indexes in SAME.values() for index in indexes]
CHANGING = (158, 159, 160, 161, 172, 174, 183)
"""Entries that change rows, which later ones show."""


class World(NamedTuple):
    url: str
    database: str
    owner: str
    changed: set[int]
    """Entries of CHANGING that have run; when tests are shared out, another process may have had their own tests."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with own_place(tmp_path_factory.mktemp("home")), serve_kitchen(NAME) as server:
        identity = re.search(
            r"identity: (\w+)", "\n".join([*server.lines.seen, server.lines.until("published").string])
        )
        listed = run("list", "-s", server.http)
        owner = re.search(r"for user (\w{64})", listed.out)
        assert identity is not None
        assert owner is not None
        yield World(server.http, identity[1], owner[1], set())


def recorded(entry: dict[str, Any], world: World) -> tuple[list[str], Ran]:
    """Return the arguments of a recorded run, and what it did, both in our world."""

    def ours(text: str) -> str:
        text = text.replace("<db:cli-kitchen>", world.database).replace("<identity:owner>", world.owner)
        return text.replace("http://127.0.0.1:3105", world.url).removeprefix(UNSTABLE)

    arguments = [ours(each) for each in entry["args"]]
    arguments = [world.url if each == "probe" else each for each in arguments]
    out, err = ours(entry.get("stdout", "")), ours(entry.get("stderr", ""))
    return arguments, Ran(entry["exit"], out, err)


def comparable(text: str) -> str:
    """Blank what a server measures, what its parser words, and numbers of types."""
    text = re.sub(r"(Response text: invalid arguments for (?:reducer|procedure) \w+: ).*", r"\1…", text)
    text = re.sub(r"Caller \w{64} ", "Caller … ", text)
    text = re.sub(r'"total_duration_micros":\d+', '"total_duration_micros":0', text)
    return re.sub(r'"product_type_ref": \d+', '"product_type_ref": 0', text)


def without_advice(ours: str, recorded: str) -> str:
    """Return what we print on stderr without the paragraph that we add behind a recorded text."""
    return recorded if recorded and ours.startswith(f"{recorded}\n") else ours


@pytest.mark.parametrize("index", CASES, ids=lambda index: f"{index}-{' '.join(RECORDED[index]['args'][:1])}")
def test_a_command_does_what_the_official_one_did(world: World, index: int) -> None:
    for earlier in CHANGING:
        if earlier < index and earlier not in world.changed:
            assert run(*recorded(RECORDED[earlier], world)[0]).code == 0
            world.changed.add(earlier)
    world.changed.add(index)
    arguments, expected = recorded(RECORDED[index], world)
    code, out, err = run(*arguments, stdin=RECORDED[index].get("stdin", ""))
    told = comparable(expected.err)
    assert (code, comparable(out), without_advice(comparable(err), told)) == (
        expected.code,
        comparable(expected.out),
        told,
    )


def test_a_procedure_may_take_longer_than_other_requests(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stdb.cli.api.TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr("stdb.cli.call.TIMEOUT_SECONDS", 0.3)
    assert run("call", "-s", world.url, NAME, "nap", "0.6") == (0, "[]\n", "")


def test_a_procedure_that_breaks_is_told_without_a_back_trace(world: World) -> None:
    url = f"{world.url}/v1/database/{world.database}/call/p_panic"
    assert run("call", "-s", world.url, NAME, "p_panic") == (
        1,
        "",
        "Error: Response text: The module instance encountered a fatal error: procedure panics\n\n"
        f"Caused by:\n    HTTP status server error (500 Internal Server Error) for url ({url})\n",
    )


def test_the_initial_rows_and_the_end_of_time_are_printed_as_recorded(world: World) -> None:
    arguments, expected = recorded(RECORDED[220], world)
    arguments[arguments.index("-t") + 1] = "0.5"
    inserted = run("sql", "-s", world.url, NAME, "insert into plain (a, b) values (51, 50), (60, 1)")
    assert inserted.code == 0
    assert run(*arguments) == (0, expected.out, "timed out after 0.5s\n")


def test_changes_are_printed_as_recorded(world: World) -> None:
    def change(reducer: str, *values: str) -> None:
        assert run("call", "-s", world.url, NAME, reducer, *values).code == 0

    change("add_plain", "3", "2")
    arguments, expected = recorded(RECORDED[225], world)
    with started(*arguments, "--print-initial-update") as (process, lines):
        lines.next(20)
        change("add_plain", "70", "71")
        change("drop_plain", "70")
        change("swap_plain", "3", "5")
        printed = [lines.next(20) for _ in range(3)]
        assert process.wait(20) == 0
    change("drop_plain", "3")
    assert "\n".join(printed) + "\n" == expected.out.replace('"a":2,', '"a":3,')
