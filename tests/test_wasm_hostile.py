"""Hostile programs: mutated binaries and lying definitions are refused or trapped; the process lives."""

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from stdb.errors import ModuleFault, SchemaError
from stdb.modules.wasm.loader import load_wasm
from stdb.sats.types import U8, UNIT, Array, Element, Product, Ref, Sum, Typespace
from stdb.schema import raw
from tests import wasm_guests_9
from tests.wasm_guests import DEFINITION, module_text, probe_text, wat

ROOT = Path(__file__).parent.parent
BATCH = """
import sys
from random import Random
from stdb.actors.epochs import keep_ticking
from stdb.datastore.datastore import Datastore
from stdb.errors import DecodeError, ModuleFault, ReducerError, ReducerTimeout, SchemaError
from stdb.modules.protocol import ReadSet, ReducerCall, ViewCall
from stdb.modules.wasm import instance
from stdb.modules.wasm.loader import load_wasm
from stdb.modules.wasm.runtime import Limits
from tests.test_wasm_hostile import mutated
from tests.wasm_guests import Lines
keep_ticking()
instance.LOAD_TICKS_MAX = 4
refused = ran = 0
random = Random(int(sys.argv[1]))
for round in range(int(sys.argv[2])):
    program = mutated(random)
    try:
        module = load_wasm(program, lambda: 0, limits=Limits(call_ticks_max=4))
    except (ModuleFault, SchemaError, DecodeError, ReducerTimeout):
        refused += 1
        continue
    datastore = Datastore()
    transaction = datastore.begin(0)
    try:
        datastore.create_tables(module.definition)
    except SchemaError:
        refused += 1
        continue
    transaction.commit()
    module.attach(datastore, bytes(32), Lines())
    for position, reducer in enumerate(module.definition.reducers[:4]):
        transaction = datastore.begin(0)
        try:
            module.reducer(position)(ReducerCall(bytes(32), None, 0, transaction), bytes(64))
            transaction.commit()
        except (ModuleFault, ReducerError, DecodeError, ReducerTimeout):
            transaction.rollback()
    for position, view in enumerate(module.definition.views):
        try:
            module.view(position)(ViewCall(None if view.is_anonymous else bytes(32), b"", ReadSet()))
        except (ModuleFault, ReducerError, DecodeError, ReducerTimeout):
            pass
    datastore.verify()
    ran += 1
print(refused, ran)
"""

ALL_CALLS = """
  (func (export "__call_view_anon__") (param i32 i32 i32) (result i32) (call $wild (local.get 0)) i32.const 2)
  (func (export "__call_view__") (param i32 i64 i64 i64 i64 i32 i32) (result i32)
    (call $wild (local.get 5)) i32.const 2)
"""


def wild_calls(random: Random, text: str) -> str:
    """Return calls with wild numbers of what a probe exports behind `x_`: all functions of the host."""
    calls = []
    for line in random.choices([line for line in text.split("\n") if '(func (export "x_' in line], k=40):
        params = line.split("(param ")[1].split(")")[0].split() if "(param " in line else []
        values = " ".join(f"({kind}.const {random.choice(NUMBERS)})" for kind in params)
        called = line.rpartition("(call ")[2].split()[0]
        call = f"(call {called} {values})"
        calls.append(f"(drop {call})" if "(result" in line else call)
    return "\n".join(calls)


def wild_text(random: Random) -> str:
    """Return a program that calls every host function with wild numbers."""
    text = probe_text()
    body = wild_calls(random, text)
    text = text.replace("(memory (export", f"{ALL_CALLS} (func $wild (param i32) {body}) (memory (export", 1)
    start = text.rindex("i32.const 0")
    return text[:start] + "(call $wild (local.get 8)) i32.const 0" + text[start + len("i32.const 0") :]


def wild_text_9(random: Random) -> str:
    """Return a program of 0.11 that calls every host function with wild numbers."""
    text = wasm_guests_9.probe_text()
    body = wild_calls(random, text)
    text = text.replace("(memory (export", f"(func $wild {body}) (memory (export", 1)
    start = text.rindex("i32.const -1")
    return text[:start] + "(call $wild) i32.const -1" + text[start + len("i32.const -1") :]


NUMBERS = (0, 1, 2, 3, 64, 1024, 4096, 65535, 65536, 262143, 262144, 2**31 - 1, -1, -2, -8, 4096, 4097, 4100)


def mutated(random: Random) -> bytes:
    """Return a program that is wild, broken, or both."""
    texts = (lambda: wild_text(random), probe_text, lambda: wild_text_9(random), wasm_guests_9.probe_text)
    text = random.choice(texts)()
    program = bytearray(wat(text))
    if random.random() < 0.7:
        for _ in range(random.choice((1, 1, 2, 5, 30))):
            place = random.randrange(8, len(program))
            kind = random.randrange(4)
            if kind == 0:
                program[place] = random.randrange(256)
            elif kind == 1:
                program[place] ^= 1 << random.randrange(8)
            elif kind == 2:
                del program[place : place + random.randrange(1, 9)]
            else:
                program[place:place] = random.randbytes(random.randrange(1, 9))
            if len(program) < 16:
                break
    return bytes(program)


@pytest.mark.parametrize("seed", range(2))
def test_mutated_programs_never_end_the_process(seed: int) -> None:
    count, first = int(os.environ.get("STDB_FUZZ", "60")), int(os.environ.get("STDB_SEED", "0"))
    ended = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", BATCH, str(seed + first), str(count)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    refused, ran = map(int, ended.stdout.split())
    assert refused + ran == count
    assert refused
    assert ran


@pytest.mark.parametrize(
    "definition",
    [
        b"\x02\xff\xff\xff\xff",
        b"\x02\x01\0\0\0\x00\xff\xff\xff\x7f",
        DEFINITION[:-9],
        b"\x01" + b"\xff" * 64,
        b"\x00" + b"\xff" * 64,
        b"\x02\x01\0\0\0\x00\x01\0\0\0" + b"\x03" * 60_000 + b"\x04",
    ],
)
def test_definitions_that_lie_are_refused(definition: bytes) -> None:
    with pytest.raises((ModuleFault, SchemaError)):
        load_wasm(wat(module_text(definition=definition)), lambda: 0)


@pytest.mark.parametrize("version", range(3))
def test_a_definition_of_zeros_is_a_module_without_anything(version: int) -> None:
    """What is behind a definition is ignored, as spec 04 section 4 says the reference does."""
    module = load_wasm(wat(module_text(definition=bytes([version]) + bytes(64))), lambda: 0)
    assert not module.definition.tables
    assert not module.definition.reducers


def test_a_recursive_row_type_and_too_many_variants_are_refused() -> None:
    for row, named in (
        (Product((Element("again", Array(Ref(0))),)), "again"),
        (Product((Element("many", Sum(tuple(Element(f"v{i}", UNIT) for i in range(256)))), Element("x", U8))), "many"),
    ):
        table = raw.RawTableV10("t", 0)
        definition = raw.encode(raw.RawModuleDefV10(typespace=Typespace((row,)), tables=(table,)))
        with pytest.raises(SchemaError) as caught:
            load_wasm(wat(module_text(definition=definition)), lambda: 0)
        assert "t" in str(caught.value)
        assert named in str(caught.value)
