"""Guests of 0.11 for tests: programs written as text, and one whose exports are the host's functions of ABI 9."""

from struct import pack
from typing import Any

from stdb.modules.wasm.engine import engine
from stdb.modules.wasm.host import Host
from stdb.modules.wasm.imports_9 import MODULE, functions
from stdb.modules.wasm.loader import load_wasm
from stdb.modules.wasm.module_9 import Instance9
from stdb.modules.wasm.runtime import Limits, Runtime
from stdb.sats.profiles import OLD_IDENTITY, OLD_SCHEDULE_AT
from stdb.sats.types import BOOL, F64, STRING, U8, U32, U64, Element, Product, Ref, Typespace
from stdb.schema import raw as raw_module
from stdb.schema.model import IndexAlgorithm
from stdb.schema.raw import (
    RawColumnV8,
    RawConstraintV8,
    RawIndexV8,
    RawModuleDefV8,
    RawReducerV8,
    RawTableV8,
)
from tests.wasm_guests import KEY, NOW_US, OUT, ROOM, GuestMemory, wat

__all__ = ["DEFINITION", "Probe", "module_text", "probe_text", "text", "thing"]

REDUCER = "(param i32 i32 i32 i64 i32) (result i32)"


def table(name: str, ref: int, columns: Any, **more: Any) -> RawTableV8:
    """Return a public table."""
    shown = tuple(RawColumnV8(*column) for column in columns)
    parts: dict[str, Any] = {"indexes": (), "constraints": (), "sequences": (), "scheduled": None} | more
    return RawTableV8(name, shown, table_type="user", access="public", product_type_ref=ref, **parts)


THING = (("id", U32), ("name", STRING), ("size", F64), ("twin", U32), ("red", BOOL), ("who", OLD_IDENTITY))
TICK = (("scheduled_id", U64), ("scheduled_at", OLD_SCHEDULE_AT))
BAG = (("a", U8), ("b", STRING))
RAW = RawModuleDefV8(
    Typespace(tuple(Product(tuple(Element(*column) for column in each)) for each in (THING, TICK, BAG))),
    (
        table(
            "Thing",
            0,
            THING,
            constraints=(RawConstraintV8("ct_Thing_id_primary_key_auto", 15, (0,)),),
            indexes=(RawIndexV8("by_size", False, IndexAlgorithm.BTREE, (2,)),),
        ),
        table(
            "Tick", 1, TICK, constraints=(RawConstraintV8("ct_Tick_id_primary_key_auto", 15, (0,)),), scheduled="run"
        ),
        table("Bag", 2, BAG, indexes=(RawIndexV8("hashed", False, IndexAlgorithm.HASH, (0,)),)),
    ),
    (RawReducerV8("run", Product((Element("tick", Ref(1)),))), RawReducerV8("go")),
)
DEFINITION = raw_module.encode(RAW)


def module_text(
    reducer: str = "i32.const -1", more: str = "", imports: str = "", definition: bytes = DEFINITION
) -> str:
    """Return a program of 0.11 whose only code is the body of its reducers; its definition lies at 65536."""
    data = "".join(f"\\{byte:02x}" for byte in definition)
    return f"""(module
      (import "{MODULE}" "_buffer_alloc" (func $alloc (param i32 i32) (result i32)))
      {imports}
      (memory (export "memory") 4 64)
      (data (i32.const 65536) "{data}")
      {more}
      (func (export "__describe_module__") (result i32)
        (call $alloc (i32.const 65536) (i32.const {len(definition)})))
      (func (export "__call_reducer__") {REDUCER} {reducer}))"""


def probe_text() -> str:
    """Return a program that exports every host function under its name behind `x`."""
    imports, exports = [], []
    for (module, name), function in functions(Host(lambda: 0)).items():
        type_ = function.type
        params = f"(param {' '.join(type_.params)})" if type_.params else ""
        result = f"(result {type_.results[0]})" if type_.results else ""
        called = "$alloc" if name == "_buffer_alloc" else f"${name}"
        if called != "$alloc":
            imports.append(f'(import "{module}" "{name}" (func {called} {params} {result}))')
        gets = " ".join(f"(local.get {position})" for position in range(len(type_.params)))
        exports.append(f'(func (export "x{name}") {params} {result} (call {called} {gets}))')
    return module_text(imports="\n".join(imports), more="\n".join(exports))


class Probe(GuestMemory):
    """The functions of ABI 9 over the tables above."""

    def __init__(self, runtime: Runtime) -> None:
        program = wat(probe_text())
        module = load_wasm(program, lambda: NOW_US, runtime=runtime)
        super().__init__(module.definition)
        compiled = engine().compile(program, module.program_hash)
        self.guest = Instance9(runtime, compiled, functions(self.host), self.host, Limits()).guest

    def call(self, name: str, *args: int) -> int:
        """Call a host function through the guest."""
        return self.guest.call(f"x{name}", *args)

    def table(self, name: str) -> int:
        """Return the id of a table."""
        assert self.call("_get_table_id", *self.put(KEY, name.encode()), OUT) == 0
        return self.number()

    def insert(self, name: str, row: bytes) -> tuple[int, bytes]:
        """Return error number and the row as it is afterwards."""
        code = self.call("_insert", self.table(name), *self.put(ROOM, row))
        return code, self.guest.memory.read(ROOM, len(row))

    def rows(self, iterator: int, room: int = 60_000) -> bytes:
        """Return everything that an iterator yields; drop it."""
        found = b""
        while True:
            self.put(OUT, pack("<I", room))
            assert self.call("_iter_advance", iterator, ROOM, OUT) == 0
            if not self.number():
                self.call("_iter_drop", iterator)
                return found
            found += self.guest.memory.read(ROOM, self.number())

    def scan(self, name: str) -> bytes:
        """Return all rows of a table."""
        assert self.call("_iter_start", self.table(name), OUT) == 0
        return self.rows(self.number())

    def equal(self, name: str, column: int, value: bytes) -> bytes:
        """Return the rows with a value."""
        assert self.call("_iter_by_col_eq", self.table(name), column, *self.put(KEY, value), OUT) == 0
        return self.rows(self.number())

    def filtered(self, name: str, condition: bytes) -> bytes:
        """Return the rows that a filter lets through."""
        assert self.call("_iter_start_filtered", self.table(name), *self.put(KEY, condition), OUT) == 0
        return self.rows(self.number())

    def delete(self, name: str, column: int, value: bytes) -> int:
        """Delete the rows with a value; return how many."""
        assert self.call("_delete_by_col_eq", self.table(name), column, *self.put(KEY, value), OUT) == 0
        return self.number()


def text(value: str) -> bytes:
    """Return a String's bytes."""
    return pack("<I", len(value)) + value.encode()


def thing(number: int, name: str, size: float = 1.0, twin: int = 0, red: int = 0, who: bytes = bytes(32)) -> bytes:
    """Return a row of `Thing`."""
    return pack("<I", number) + text(name) + pack("<dIB", size, twin, red) + pack("<I", len(who)) + who
