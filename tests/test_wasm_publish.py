"""What programs are taken, and what is said of the others: 57 programs that the real server answered about."""

import json
import re
from typing import Any

import pytest

from stdb.errors import ModuleFault, SchemaError
from stdb.modules.wasm.engine import engine
from stdb.modules.wasm.loader import load_wasm
from stdb.modules.wasm.runtime import Limits, Runtime
from tests.wasm_guests import RUNTIMES, VECTORS, module_text, wat

CASES: list[dict[str, Any]] = json.loads((VECTORS / "abi_publish.json").read_text())["cases"]
OURS = {
    "only 9.0": 'bad call_reducer signature for "__call_reducer__"; expected (func (param i32 i32 i32 i64 i32)',
    "import module spacetime_10.6": "unknown import: `spacetime_10.6::zzz` has not been defined",
    "start traps": "wasm trap: wasm `unreachable` instruction executed",
    "start section: empty function": "ok",
    "_start traps (never called)": "ok",
}
"""Where this server says something else."""
BACKTRACE = re.compile(r"(error while executing at wasm backtrace:\n( +\d+: +0x[0-9a-f]+ - [^\n]*>)+: )+")


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Return one of the runtimes."""
    made: Runtime = RUNTIMES[request.param](engine())
    return made


def answer(program: bytes, runtime: Runtime) -> str:
    """Return what the publisher is told."""
    try:
        load_wasm(program, lambda: 0, runtime=runtime)
    except ModuleFault as error:
        return BACKTRACE.sub("", str(error))
    except SchemaError as error:
        return "\n".join(error.errors)
    return "ok"


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["case"]))
def test_the_real_servers_answers(case: dict[str, Any], runtime: Runtime) -> None:
    got = answer(bytes.fromhex(case["wasm_hex"]), runtime)
    if case["case"] in OURS:
        assert OURS[case["case"]] in got
    else:
        assert got == BACKTRACE.sub("", case["body"])


def test_more_memory_than_allowed_is_refused(runtime: Runtime) -> None:
    program = wat(module_text().replace("4 64", "64"))
    with pytest.raises(ModuleFault, match="memory"):
        load_wasm(program, lambda: 0, runtime=runtime, limits=Limits(memory_bytes_max=1 << 20))


def test_a_huge_table_is_refused(runtime: Runtime) -> None:
    program = wat(module_text(more="(table 50000000 funcref)"))
    with pytest.raises(ModuleFault, match="table"):
        load_wasm(program, lambda: 0, runtime=runtime)


def test_the_order_of_preparation(runtime: Runtime) -> None:
    def add(letter: str) -> str:
        return (
            f"(i32.store8 (i32.add (i32.const 70000) (i32.load (i32.const 40))) (i32.const {ord(letter)}))"
            "(i32.store (i32.const 40) (i32.add (i32.load (i32.const 40)) (i32.const 1)))"
        )

    more = "".join(
        f'(func (export "{name}") {add(letter)})'
        for name, letter in {
            "__preinit__20": "b",
            "__preinit__10": "a",
            "__preinit__Z": "z",
            "_initialize": "i",
        }.items()
    )
    fail = """(func (export "__setup__") (param i32) (result i32)
      (drop (call $write (local.get 0) (i32.const 70000) (i32.const 40))) (i32.const 1))"""
    assert answer(wat(module_text(more=more + fail)), runtime) == "setup function returned an error: iabz"


@pytest.mark.parametrize("text", ["loop br 0 end", "call $recurse"])
def test_preparation_that_does_not_end_is_stopped(text: str, ticking: None) -> None:
    more = f'(func $recurse (call $recurse)) (func (export "__preinit__10") {text})'
    got = answer(wat(module_text(more=more)), RUNTIMES["raw"](engine()))
    assert got.startswith('wasm trap while calling "__preinit__10": ')


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let epochs pass, and fewer of them be enough."""
    from stdb.actors.epochs import keep_ticking

    keep_ticking()
    monkeypatch.setattr("stdb.modules.wasm.instance.LOAD_TICKS_MAX", 20)
