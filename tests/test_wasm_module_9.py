"""Programs of 0.11, written as text: what is handed to them, how they end, and which are refused; by both runtimes."""

from struct import pack

import pytest

from stdb.datastore.datastore import Datastore
from stdb.errors import DecodeError, ModuleFault, ReducerError, SchemaError
from stdb.modules.protocol import FATAL, ReducerCall
from stdb.modules.wasm.engine import engine
from stdb.modules.wasm.imports_9 import MODULE
from stdb.modules.wasm.loader import load_wasm
from stdb.modules.wasm.runtime import Runtime
from stdb.schema import raw as raw_module
from stdb.schema.raw import RawModuleDefV8, RawReducerV8
from tests.wasm_guests import IDENTITY, NOW_US, RUNTIMES, Lines, wat
from tests.wasm_guests_9 import DEFINITION, module_text


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Return one of the runtimes."""
    made: Runtime = RUNTIMES[request.param](engine())
    return made


class World:
    """A program attached to its tables."""

    def __init__(self, program: bytes, runtime: Runtime) -> None:
        self.module = load_wasm(program, lambda: NOW_US, runtime=runtime)
        self.datastore = Datastore()
        self.datastore.begin(NOW_US)
        self.datastore.create_tables(self.module.definition)
        assert self.datastore.transaction is not None
        self.datastore.transaction.commit()
        self.module.attach(self.datastore, IDENTITY, Lines())

    def call(self, connection: bytes | None = None, args: bytes = b"", reducer: int = 1) -> None:
        """Call a reducer."""
        transaction = self.datastore.begin(NOW_US)
        try:
            self.module.reducer(reducer)(ReducerCall(IDENTITY, connection, NOW_US, transaction), args)
            transaction.commit()
        except BaseException:
            transaction.rollback()
            raise


TAKE = """(import "spacetime_9.0" "_buffer_len" (func $len (param i32) (result i32)))
  (import "spacetime_9.0" "_buffer_consume" (func $take (param i32 i32 i32)))"""
ECHO = """(call $take (local.get 1) (i32.const 1024) (i32.const 32))
  (call $take (local.get 2) (i32.const 1056) (i32.const 16))
  (i64.store (i32.const 1072) (local.get 3))
  (i32.store (i32.const 1080) (call $len (local.get 4)))
  (call $alloc (i32.const 1024) (i32.const 60))"""


def test_who_calls_comes_in_buffers(runtime: Runtime) -> None:
    world = World(wat(module_text(ECHO, imports=TAKE)), runtime)
    for connection, shown in ((None, bytes(16)), (bytes(range(16)), bytes(range(16))[::-1])):
        with pytest.raises(ReducerError) as caught:
            world.call(connection)
        said = IDENTITY[::-1] + shown + pack("<QI", NOW_US, 0)
        assert str(caught.value) == said.decode("utf-8", "replace")


def test_a_buffer_that_is_none_is_a_fault(runtime: Runtime) -> None:
    world = World(wat(module_text("i32.const 77")), runtime)
    with pytest.raises(ModuleFault, match=FATAL) as caught:
        world.call()
    assert caught.value.report == "go returned buffer 77, which is none"


def test_buffers_live_for_one_call(runtime: Runtime) -> None:
    body = """(drop (call $alloc (i32.const 65536) (i32.const 3)))
      (if (i32.ne (call $alloc (i32.const 65536) (i32.const 3)) (i32.const 4)) (then unreachable))
      i32.const -1"""
    world = World(wat(module_text(body)), runtime)
    for _ in range(3):
        world.call()


def test_arguments_are_checked_before_anything_runs(runtime: Runtime) -> None:
    world = World(wat(module_text("unreachable")), runtime)
    with pytest.raises(DecodeError):
        world.call(args=b"\1", reducer=0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            module_text(imports=f'(import "{MODULE}" "_iter_next" (func (param i32 i32) (result i32)))'),
            "unknown import: `spacetime_9.0::_iter_next` has not been defined",
        ),
        (
            module_text(imports=f'(import "{MODULE}" "table_id_from_name" (func (param i32 i32 i32) (result i32)))'),
            "unknown import: `spacetime_9.0::table_id_from_name` has not been defined",
        ),
        (
            module_text(imports=f'(import "{MODULE}" "_insert" (func (param i32 i32) (result i32)))'),
            "incompatible import type for `spacetime_9.0::_insert`",
        ),
        (
            module_text(imports='(import "spacetime_10.0" "identity" (func (param i32)))'),
            "module cannot depend on both major version",
        ),
        (
            module_text().replace(MODULE, "spacetime_9.1"),
            "abi version 9.1 is not supported (host implements 9.0)",
        ),
        (module_text(more='(func (export "__setup__"))'), 'bad setup signature for "__setup__"'),
        (
            module_text().replace(
                '"__describe_module__") (result i32)', '"__describe_module__") (param i32) (result i32)'
            ),
            'bad describe_module signature for "__describe_module__"',
        ),
        (
            module_text(
                more="""(data (i32.const 512) "no")
                  (func (export "__setup__") (result i32) (call $alloc (i32.const 512) (i32.const 2)))"""
            ),
            "setup function returned an error: no",
        ),
        (module_text(more='(func (export "__setup__") (result i32) i32.const 9)'), "which is none"),
        (module_text(definition=b""), "data too short"),
        (module_text(definition=b"\1" + bytes(30)), "unknown tag 0x1 for sum type RawModuleDef"),
        (module_text(definition=DEFINITION[:-1]), "error decoding module description"),
        (
            module_text(definition=raw_module.encode(RawModuleDefV8(reducers=(RawReducerV8("__no__"),)))),
            "reducers with double-underscores at the start and end of their names are not allowed",
        ),
    ],
)
def test_programs_that_do_not_fit_are_refused(runtime: Runtime, text: str, reason: str) -> None:
    with pytest.raises((ModuleFault, SchemaError)) as caught:
        load_wasm(wat(text), lambda: 0, runtime=runtime)
    assert reason in str(caught.value)


def test_a_description_that_is_no_buffer_is_refused(runtime: Runtime) -> None:
    program = module_text().replace(f"(call $alloc (i32.const 65536) (i32.const {len(DEFINITION)}))", "(i32.const 5)")
    with pytest.raises(ModuleFault, match="returned buffer 5, which is none"):
        load_wasm(wat(program), lambda: 0, runtime=runtime)
