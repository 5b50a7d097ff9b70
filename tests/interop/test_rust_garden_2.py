"""What modules in Rust may have from crates 1.12 and 2.x on, over HTTP: views, procedures, routes, more rules."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio

from stdb.errors import HttpError
from stdb.modules.protocol import HttpResponse
from stdb.testing.http import FakeHttp
from tests.interop.gardens import versions
from tests.interop.module_house import House, play
from tests.wasm_guests import RUNTIMES

pytestmark = pytest.mark.slow

Play = Callable[..., None]
PLANTS = (("rose", 1, 5), ("lily", 1, 3), ("oak", 2, 9))


OF_2 = ("2.8.3", "2.10.1", "2.14.0")
with_1_12 = pytest.mark.parametrize("program", versions("1.12.0", *OF_2), indirect=True)
"""For what the last crate of 1.x had."""


@pytest.fixture(params=versions(*OF_2))
def program(request: pytest.FixtureRequest) -> bytes:
    """Return the module, against one of the crates."""
    built: bytes = request.param.build()
    return built


@pytest.fixture(params=RUNTIMES)
def run(program: bytes, request: pytest.FixtureRequest) -> Play:
    """Return what runs a check against a fresh database, by each runtime."""
    return partial(play, program, request.param)


@pytest.fixture
def run_waiting(program: bytes) -> Play:
    """Return what runs it by the runtime that can wait, for transactions of procedures, sleep and other servers."""
    return partial(play, program, "raw")


async def do(garden: House, name: str, *arguments: Any, **options: Any) -> Any:
    """Call a function that succeeds; return what it returns."""
    answer = await garden.call(name, json.dumps(arguments), **options)
    assert answer.status == 200, answer.text
    return answer.document if answer.text else None


async def sow(garden: House) -> None:
    for plant in PLANTS:
        await do(garden, "sow", *plant)


async def names(garden: House, table: str) -> list[str]:
    """Return the names of plants."""
    return sorted(row[1] for row in await garden.sql(f"SELECT * FROM {table}"))


def test_types_that_1_x_did_not_have(run: Play) -> None:
    async def check(garden: House) -> None:
        await do(garden, "put_label", [0x0102030405060708090A0B0C0D0E0F10])
        given, made = sorted(await garden.sql("SELECT * FROM label"))
        assert given == [[0x0102030405060708090A0B0C0D0E0F10], [0, 7], [1, "no"], [0, [1, []]]]
        assert made[1:] == [[0, 0], [1, ""], [1, []]]
        assert made[0][0] >> 76 & 0xF == 7

    run(check)


def test_indexes_that_are_no_trees(run: Play) -> None:
    async def check(garden: House) -> None:
        for number, plant in enumerate(("rose", "lily", "lily")):
            await do(garden, "pot_up", number, plant)
        assert "unique" in (await garden.call("pot_up", '[1, "oak"]')).text
        assert (await garden.call("repot", '[9, "oak", "lily"]')).text == "no such pot"
        await do(garden, "repot", 1, "oak", "lily")
        assert "1 gone, 0 left" in garden.log("Info")
        assert sorted(await garden.sql("SELECT * FROM pot")) == [[0, "rose"], [1, "oak"]]

    run(check)


@with_1_12
def test_views_of_everybody_and_of_each_caller(run: Play) -> None:
    async def check(garden: House) -> None:
        await sow(garden)
        assert await garden.sql("SELECT * FROM heights") == [[3, 17]]
        await do(garden, "fell_one", "oak")
        assert await garden.sql("SELECT * FROM heights") == [[2, 8]]
        ann, ben = garden.door.tokens.mint(), garden.door.tokens.mint()
        for who, text in ((ann, "to Ann"), (ben, "to Ben")):
            await do(garden, "write", text, who=who)
        for who, text in ((ann, "to Ann"), (ben, "to Ben")):
            assert [row[1] for row in await garden.sql("SELECT * FROM my_letters", who)] == [text]
        assert await garden.sql("SELECT * FROM my_letters") == []

    run(check)


@with_1_12
def test_views_that_are_queries(run: Play) -> None:
    async def check(garden: House) -> None:
        await sow(garden)
        assert await names(garden, "tall") == ["oak", "rose"]
        await do(garden, "grow", "lily", 4)
        assert await names(garden, "tall") == ["lily", "oak", "rose"]
        ann = garden.door.tokens.mint()
        await do(garden, "write", "hello", who=ann)
        (me,) = await garden.sql("SELECT * FROM me", ann)
        assert me[0] == [f"0x{ann.identity[::-1].hex()}"]
        assert len(await garden.sql("SELECT * FROM visitor")) == 2

    run(check)


def test_a_view_that_is_a_join_of_tables(run: Play) -> None:
    async def check(garden: House) -> None:
        await sow(garden)
        assert await names(garden, "potted") == []
        for number, plant in enumerate(("oak", "lily", "thorn")):
            await do(garden, "pot_up", number, plant)
        assert await names(garden, "potted") == ["lily", "oak"]

    run(check)


def test_a_view_that_panics_refuses_its_reader_alone(run: Play) -> None:
    async def check(garden: House) -> None:
        assert await garden.sql("SELECT * FROM fragile") == []
        await do(garden, "pot_up", 13, "rose")
        refused = await garden.door.send("POST", "/v1/database/house/sql", {}, "SELECT * FROM fragile")
        assert refused.status == 400
        assert "fatal error" in refused.text
        assert any("a pot of bad luck" in line for line in garden.log("Panic"))
        assert await garden.sql("SELECT * FROM pot") == [[13, "rose"]]

    run(check)


def test_two_rules_show_what_either_shows_and_twice_what_both_do(run: Play) -> None:
    async def check(garden: House) -> None:
        ann, ben = garden.door.tokens.mint(), garden.door.tokens.mint()
        for who, free in ((ann, False), (ann, True), (ben, False)):
            await do(garden, "sit", free, who=who)
        for who, seen in ((ann, [1, 2, 2]), (ben, [2, 3])):
            assert sorted(row[0] for row in await garden.sql("SELECT * FROM seat", who)) == seen

    run(check)


@with_1_12
def test_procedures_have_transactions(run_waiting: Play) -> None:
    async def check(garden: House) -> None:
        await sow(garden)
        assert sorted(await do(garden, "harvest", 1)) == ["lily", "rose"]
        assert await names(garden, "plant") == ["oak"]
        assert await do(garden, "try_sow", "elm", 40) == "planted 4"
        assert await do(garden, "try_sow", "pine", 400) == "pine is too high"
        assert await names(garden, "plant") == ["elm", "oak"]
        fault = await garden.call("fall")
        assert fault.status >= 500
        assert "The module instance encountered a fatal error" in fault.text
        assert [row[1] for row in await garden.sql("SELECT * FROM diary")] == ["init", "kept"]
        assert "it falls" in garden.log("Panic")

    run_waiting(check)


@with_1_12
def test_a_procedure_sleeps_and_others_work_meanwhile(run_waiting: Play) -> None:
    async def check(garden: House) -> None:
        start, slept = trio.current_time(), []

        async def nap() -> None:
            slept.append(await do(garden, "nap", 5_000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(nap)
            await trio.sleep(1)
            await sow(garden)
            assert trio.current_time() - start < 5
        assert trio.current_time() - start == pytest.approx(5, abs=0.1)
        assert slept[0] == pytest.approx(5_000_000, abs=1_000)
        assert [row[1] for row in await garden.sql("SELECT * FROM diary")] == ["init", "asleep", "awake among 3"]

    run_waiting(check)


@with_1_12
def test_procedures_ask_other_servers(run_waiting: Play) -> None:
    http = FakeHttp(
        {
            "https://weather.example/today": HttpResponse(203, (("x-kind", b"sun"),), b"warm"),
            "https://weather.example/far": HttpError("nobody answers"),
        }
    )

    async def check(garden: House) -> None:
        today, far = "https://weather.example/today", "https://weather.example/far"
        assert await do(garden, "fetch", today) == '203 Non Authoritative Information Some("sun") warm'
        assert await do(garden, "fetch", far) == "failed: nobody answers"
        assert await do(garden, "tell", today, "it rains") == 203
        asked = http.requests[-1]
        assert (asked.method, asked.body) == ("POST", b"it rains")
        assert ("x-from", b"garden") in asked.headers

    run_waiting(check, http=http)


def test_an_answer_without_a_body(run_waiting: Play) -> None:
    """The crate 1.12 panics on one, with any host."""
    http = FakeHttp({"https://weather.example/none": HttpResponse(204, (), b"")})

    async def check(garden: House) -> None:
        assert await do(garden, "fetch", "https://weather.example/none") == "204 No Content None "

    run_waiting(check, http=http)


def test_routes_read_and_write(run_waiting: Play) -> None:
    async def check(garden: House) -> None:
        await sow(garden)
        planted = await garden.visit("POST", "/plants", "elm")
        assert (planted.status, planted.headers["x-garden"], planted.text) == (201, "2", "4")
        again = await garden.visit("POST", "/plants", "elm")
        assert again.status == 409
        assert "unique" in again.text
        assert (await garden.visit("GET", "/plants")).text == "elm\nlily\noak\nrose"
        for method in ("GET", "DELETE"):
            bell = await garden.visit(method, "/gate/bell?twice")
            assert bell.text == f"{method} at /v1/database/house/route/gate/bell"
        assert (await garden.visit("PUT", "/plants")).status == 404

    run_waiting(check)
