"""The kitchen of the crate 2.8.3 over HTTP, by both runtimes: handlers, events, rules, the log, timers, indexes."""

from collections.abc import Callable

import pytest
import trio

from tests.interop.module_cargo import build_module
from tests.interop.module_house import NAME, Check, House, play
from tests.wasm_guests import RUNTIMES

pytestmark = pytest.mark.slow

URL = f"/v1/database/{NAME}"
FATAL = "The instance encountered a fatal error."
FATAL_OF_PROCEDURES = "The module instance encountered a fatal error"


@pytest.fixture(params=RUNTIMES)
def run(request: pytest.FixtureRequest) -> Callable[[Check], None]:
    """Return what runs a check against a fresh database."""
    return lambda check: play(build_module("kitchen", "2.8.3").read_bytes(), request.param, check)


Play = Callable[[Check], None]


def test_handlers_answer_and_panic(run: Play) -> None:
    async def check(kitchen: House) -> None:
        send = kitchen.door.send
        got = await send("GET", f"{URL}/route/get")
        assert (got.status, got.text) == (200, "got")
        echo = await send("PUT", f"{URL}/route/echo?a=1", {"X-A": "b"}, "the body")
        assert (echo.status, echo.headers["x-made"]) == (418, "yes")
        assert echo.text.startswith(f"PUT http://test{URL}/route/echo?a=1\n")
        assert "x-a: b\n" in echo.text
        assert echo.text.endswith("\n\nthe body")
        for _ in range(2):
            panic = await send("GET", f"{URL}/route/panic")
            assert (panic.status, panic.text) == (500, FATAL)
        assert "handler panics" in kitchen.log("Panic")
        for method, path in (("POST", "get"), ("GET", "dir"), ("HEAD", "get")):
            assert (await send(method, f"{URL}/route/{path}")).status == 404
        assert (await send("GET", f"{URL}/route/dir/")).text == "got"

    run(check)


def test_the_log_has_every_level(run: Play) -> None:
    async def check(kitchen: House) -> None:
        assert (await kitchen.call("log_all", '["x"]')).status == 200
        for level in ("Debug", "Info", "Warn", "Error"):
            assert f"{level.lower()} x" in kitchen.log(level)
        assert (await kitchen.call("r_err", '["no"]')).text == "no"
        panic = await kitchen.call("r_panic", '["boom"]')
        assert (panic.status, panic.text) == (530, FATAL)
        assert "boom" in kitchen.log("Panic")
        assert (await kitchen.call("r_panic_unique")).text == FATAL
        unique = await kitchen.call("r_try_unique")
        assert unique.status == 530
        assert "unique" in unique.text

    run(check)


def test_callers_come_and_go_and_see_what_is_theirs(run: Play) -> None:
    async def check(kitchen: House) -> None:
        ann = kitchen.door.tokens.mint()
        assert (await kitchen.call("add_owned", '[7, "ann\'s"]', ann)).status == 200
        assert [row[2] for row in await kitchen.sql("SELECT * FROM owned", ann)] == ["ann's"]
        assert [row[2] for row in await kitchen.sql("SELECT * FROM v_mine", ann)] == ["ann's"]
        assert sorted(row[1] for row in await kitchen.sql("SELECT * FROM v_first")) == ["Ann"]
        assert sorted(row[0] for row in await kitchen.sql("SELECT * FROM v_names")) == ["Ann", "Bob", "Cid"]
        whats = [row[1] for row in await kitchen.sql("SELECT * FROM conn_log")]
        assert {"connect", "disconnect"} == {*whats}
        assert (await kitchen.call("who", "[]", ann)).status == 200
        assert any("jwt payload={" in line for line in kitchen.log("Info"))

    run(check)


def test_counters_go_round_and_indexes_of_each_kind_find(run: Play) -> None:
    async def check(kitchen: House) -> None:
        for n in range(3):
            assert (await kitchen.call("add_person", f'["P{n}", {n}]')).status == 200
        said = [line for line in kitchen.log("Info") if line.startswith("person ")]
        assert said == [f"person {n}" for n in (4, 5, 6)]
        assert await kitchen.sql("SELECT v FROM hashed WHERE k = 1") == [["h"]]
        assert await kitchen.sql("SELECT v FROM direct WHERE k = 1") == [["d"]]
        assert len(await kitchen.sql("SELECT * FROM every")) == 3

    run(check)


def test_timers_run_and_are_gone(run: Play) -> None:
    async def check(kitchen: House) -> None:
        assert (await kitchen.call("schedule", '["note"]')).status == 200
        await trio.sleep(1.05)
        ticks = [line for line in kitchen.log("Info") if line.startswith("tick 1 note")]
        assert len(ticks) == 10
        assert "proc_tick 1" in kitchen.log("Info")
        assert (await kitchen.call("unschedule")).status == 200
        await trio.sleep(1)
        assert len([line for line in kitchen.log("Info") if line.startswith("tick ")]) in (10, 11)
        assert await kitchen.sql("SELECT * FROM timer") == []
        assert await kitchen.sql("SELECT * FROM proc_timer") == []

    run(check)


def test_procedures_return_values_of_many_types(run: Play) -> None:
    async def check(kitchen: House) -> None:
        for name, wanted in (("ret_u_32", "7"), ("ret_bool", "true"), ("ret_string", '"s"'), ("ret_f_64", "0.5")):
            assert (await kitchen.call(name)).text == wanted
        assert (await kitchen.call("p_add", "[3, 4]")).text == "7"
        panic = await kitchen.call("p_panic")
        assert panic.status >= 500
        assert FATAL_OF_PROCEDURES in panic.text
        assert "procedure panics" in kitchen.log("Panic")

    run(check)
