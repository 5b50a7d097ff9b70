"""Hostile guests, each in a process of its own, so that a crash is seen: what they claim, how they lie, what they burn.

Behind the front door a bad upload is refused with a reason and the database goes on as it was.
"""

import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.datastore.datastore import Datastore
from stdb.errors import ModuleFault, ReducerError, ReducerTimeout, SchemaError
from stdb.modules.wasm.definition import read_definition
from stdb.modules.wasm.engine import engine
from stdb.modules.wasm.loader import load_wasm
from stdb.modules.wasm.runtime import Limits
from stdb.sats.types import UNIT, Array, Element, Product, Ref, Sum, Typespace, option
from stdb.schema import raw
from stdb.server import load_aside, load_program
from stdb.storage.settings import Own, Settings
from tests.http_harness import Door, bearer, open_door
from tests.wasm_guests import DEFINITION, RUNTIMES, module_text, wat

pytestmark = pytest.mark.slow  # processes of their own

ROOT = Path(__file__).parent.parent
REFUSED = (ModuleFault, SchemaError, ReducerError, ReducerTimeout)

SAY = "(drop (call $write (local.get 0) (i32.const {at}) (i32.const 32)))"
DESCRIBE = '(func (export "__describe_module__") (param i32)'


def describing(body: str, more: str = "") -> str:
    """Return a program that describes itself by this code."""
    text = module_text(more=more)
    head, _, rest = text.partition(DESCRIBE)
    tail = rest[rest.index('(func (export "__call_reducer__")') :]
    return f"{head}{DESCRIBE} {body}) {tail}"


def length(number: int) -> str:
    """Return code that sets the length that is written."""
    return f"(i32.store (i32.const 32) (i32.const {number}))"


GUESTS: dict[str, str] = {
    "describes from outside": describing(length(100) + SAY.format(at=-50)),
    "describes from NULL": describing(length(1) + SAY.format(at=0)),
    "describes 4 GB": describing(length(-1) + SAY.format(at=64)),
    "describes for ever": describing(f"(loop {length(65_000) + SAY.format(at=64)} (br 0))"),
    "describes in an endless loop": describing("(loop (br 0))"),
    "describes with a length outside": describing("(drop (call $write (local.get 0) (i32.const 64) (i32.const -2)))"),
    "describes to another sink": describing(length(1) + SAY.format(at=64).replace("(local.get 0)", "(i32.const 99)")),
    "describes nothing": describing(""),
    "describes and grows": describing(f"(drop (memory.grow (i32.const 8))) {length(5)} {SAY.format(at=65536)}"),
    "describes and traps": describing(f"{length(5)} {SAY.format(at=65536)} unreachable"),
    "starts in an endless loop": module_text(more="(func $s (loop (br 0))) (start $s)"),
    "starts in an endless recursion": module_text(more="(func $s (call $s)) (start $s)"),
    "starts with a trap": module_text(more="(func $s unreachable) (start $s)"),
    "prepares in an endless recursion": module_text(more='(func $s (export "__preinit__1") (call $s))'),
    "sets up with an unknown code": module_text(
        more='(func (export "__setup__") (param i32) (result i32) (i32.const 7))'
    ),
    "claims all of memory": module_text().replace("4 64", "65536 65536"),
    "claims 64-bit memory": module_text(more="(memory $big i64 1000000)"),
    "claims many memories": module_text(more=" ".join(f"(memory $m{n} 1)" for n in range(30))),
    "claims huge tables": module_text(more="(table 100000000 funcref)"),
    "claims many tables": module_text(more=" ".join(f"(table $t{n} 1 funcref)" for n in range(100))),
    "data outside the memory": module_text(more='(data (i32.const 999999999) "x")'),
    "elements outside the table": module_text(more="(table 1 funcref) (func $f) (elem (i32.const 9) $f)"),
    "shared memory": module_text(more="(memory $s 1 1 shared)"),
}
TAKEN = {"describes and grows"}
"""What is no danger: it says of itself what it should."""

ALL = """
import sys
from stdb.actors.epochs import keep_ticking
from stdb.modules.wasm import instance
from tests.test_wasm_hostile_guests import GUESTS, load
keep_ticking()
instance.LOAD_TICKS_MAX = 6
for name in GUESTS:
    print(name, flush=True)
    print(load(name, sys.argv[1]), flush=True)
"""


def load(name: str, runtime: str) -> str:
    """Load a guest; return in a line why it was refused, or that it was not."""
    try:
        load_wasm(wat(GUESTS[name]), lambda: 0, runtime=RUNTIMES[runtime](engine()), limits=Limits(64 << 20))
    except REFUSED as error:
        return f"refused: {error}".replace("\n", " ")
    return "taken"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_hostile_guests_are_refused_and_the_process_lives(runtime: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", ALL, runtime],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-200:]}\n{done.stderr[-3000:]}"
    lines = done.stdout.splitlines()
    answers = dict(zip(lines[::2], lines[1::2], strict=True))
    assert answers.keys() == GUESTS.keys()
    assert {name for name, answer in answers.items() if answer == "taken"} == TAKEN
    assert all(len(answer) > len("refused: ") + 10 for name, answer in answers.items() if name not in TAKEN)


def named(name: str, row: Product, *others: Any) -> bytes:
    """Return a program with one table `hut` over the first of these types."""
    types = tuple(raw.RawTypeDef(raw.RawTypeName(f"T{position}"), position) for position in range(1 + len(others)))
    tables = (raw.RawTableV10(name, 0),)
    definition = raw.RawModuleDefV10(typespace=Typespace((row, *others)), types=types, tables=tables)
    return wat(module_text(definition=raw.encode(definition)))


def column(name: str, type_: Any) -> Product:
    """Return a type with one element."""
    return Product((Element(name, type_),))


UNITS = Sum(tuple(Element(f"v{number}", UNIT) for number in range(256)))
BAD_ROWS: dict[str, tuple[Any, ...]] = {
    "itself": (column("wall", Ref(0)),),
    "an option of itself": (column("wall", option(Ref(0))),),
    "an array of itself": (column("wall", Array(Ref(0))),),
    "two in turn": (column("wall", Ref(1)), column("a", Ref(2)), column("b", Array(Ref(1)))),
    "a variant of itself": (column("wall", Ref(1)), Sum((Element("leaf", UNIT), Element("node", Ref(1))))),
    "deep below": (column("wall", Array(option(Ref(1)))), column("x", Array(Array(option(Ref(1)))))),
    "too many variants": (column("wall", UNITS),),
    "too many variants below": (column("wall", Array(Ref(1))), UNITS),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_rows_that_never_end_and_too_many_variants_name_table_and_column(name: str) -> None:
    with pytest.raises(SchemaError) as caught:
        load_wasm(named("hut", *BAD_ROWS[name]), lambda: 0)
    text = "\n".join(caught.value.errors)
    assert "hut" in text
    assert "wall" in text


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_refused_with_a_reason(data: bytes, is_wasm: bool) -> None:
    program = b"\0asm\1\0\0\0" + data if is_wasm else data
    with pytest.raises(ModuleFault) as caught:
        load_wasm(program, lambda: 0)
    assert str(caught.value)


@st.composite
def mutated_definitions(draw: st.DrawFn) -> bytes:
    """Return the bytes of a real definition, changed in a few places."""
    data = bytearray(DEFINITION)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(data) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                data[place] = draw(st.integers(0, 255))
            case 1:
                del data[place : place + draw(st.integers(1, 40))]
            case 2:
                data[place:place] = draw(st.binary(min_size=1, max_size=8))
            case _:
                data[place : place + 4] = draw(st.sampled_from([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4)]))
        if not data:
            break
    return bytes(data)


@settings(max_examples=200, deadline=None)
@given(mutated_definitions())
def test_definitions_that_were_changed_are_read_or_refused(definition: bytes) -> None:
    datastore = Datastore()
    transaction = datastore.begin(0)
    with suppress(ModuleFault, SchemaError):
        datastore.create_tables(read_definition(definition))
    transaction.rollback()
    datastore.verify()


# What is uploaded


JSON = {"Content-Type": "application/json"}


def as_a_server(program: bytes) -> Any:
    """Return the module of a program, loaded as a server does."""
    return load_aside(program) or load_program(program)


def behind_a_door(check: Callable[[Door, dict[str, str], bytes], Awaitable[None]], own: Settings | None = None) -> None:
    """Run a check of uploads over a database `hut` that runs a good program."""
    good = wat(module_text(definition=DEFINITION))

    uploads = [good, *(program for program, _ in UPLOADS.values())]
    programs = {program: partial(as_a_server, program) for program in uploads}

    async def main() -> None:
        with trio.fail_after(60):
            async with open_door(programs, settings=own) as door:
                who = bearer(door.tokens.mint())
                answer = await door.send("PUT", "/v1/database/hut", who, good)
                assert answer.status == 200, answer.text
                await check(door, who, good)

    trio.run(main)


UNKNOWN_IMPORT = module_text(imports='(import "spacetime_10.0" "nope" (func $nope))')
UPLOADS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", ""),
    "text": (b"fn main() {}", ""),
    "the head alone": (b"\0asm\1\0\0\0", ""),
    "another version": (b"\0asm\2\0\0\0" + bytes(20), ""),
    "half of a program": (wat(module_text(definition=DEFINITION))[:700], ""),
    "all but a byte": (wat(module_text(definition=DEFINITION))[:-1], ""),
    "an unknown import": (wat(UNKNOWN_IMPORT), "unknown import: `spacetime_10.0::nope` has not been defined"),
    "wasi": (
        wat(module_text(imports='(import "wasi_snapshot_preview1" "fd_write" (func $w (param i32)))')),
        "unknown import: `wasi_snapshot_preview1::fd_write` has not been defined",
    ),
    "no definition": (wat(module_text(definition=b"\x02\xff\xff\xff\xff")), "error getting module description"),
}


@pytest.mark.parametrize("name", UPLOADS)
def test_a_bad_upload_is_refused_and_the_database_goes_on(name: str) -> None:
    async def check(door: Door, who: dict[str, str], good: bytes) -> None:
        program, reason = UPLOADS[name]
        before = (await door.send("GET", "/v1/database/hut", who)).document
        for path in ("/v1/database/hut", "/v1/database/other", "/v1/database/hut?clear=true"):
            answer = await door.send("PUT", path, who, program)
            assert 400 <= answer.status < 600, answer
            assert len(answer.text) > 10
            assert reason in answer.text
        assert (await door.send("GET", "/v1/database/hut", who)).document == before
        assert (await door.send("GET", "/v1/database/other", who)).status == 404
        assert (await door.send("POST", "/v1/database/hut/call/run", who | JSON, "[[]]")).status == 200

    behind_a_door(check)


def test_an_upload_that_breaks_off_leaves_everything_as_it_was() -> None:
    async def check(door: Door, who: dict[str, str], good: bytes) -> None:
        before = (await door.send("GET", "/v1/database/hut", who)).document
        client = door.connect()
        head = f"PUT /v1/database/hut HTTP/1.1\r\nHost: test\r\nAuthorization: {who['Authorization']}\r\n"
        await client.send_all(head.encode() + f"Content-Length: {len(good)}\r\n\r\n".encode() + good[:500])
        client.stream.close_nowait()
        await trio.testing.wait_all_tasks_blocked()
        assert (await door.send("GET", "/v1/database/hut", who)).document == before
        assert (await door.send("POST", "/v1/database/hut/call/run", who | JSON, "[[]]")).status == 200

    behind_a_door(check)


def test_an_upload_that_is_too_large_is_refused() -> None:
    async def check(door: Door, who: dict[str, str], good: bytes) -> None:
        before = (await door.send("GET", "/v1/database/hut", who)).document
        answer = await door.send("PUT", "/v1/database/hut", who, good + bytes(200_000))
        assert (answer.status, answer.text) == (413, "Failed to buffer the request body: length limit exceeded")
        assert (await door.send("GET", "/v1/database/hut", who)).document == before

    behind_a_door(check, Settings(stdb=Own(publish_bytes_max=100_000)))
