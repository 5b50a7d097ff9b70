"""Guests for tests: WebAssembly programs written as text, and one whose exports are the host's functions."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import pack
from typing import Any

import wasmtime

from stdb.datastore.datastore import Datastore
from stdb.modules.protocol import ReadSet
from stdb.modules.wasm.engine import engine
from stdb.modules.wasm.host import Host
from stdb.modules.wasm.imports import host_functions
from stdb.modules.wasm.instance import Instance
from stdb.modules.wasm.loader import load_wasm
from stdb.modules.wasm.module import WasmModule
from stdb.modules.wasm.public import PublicRuntime
from stdb.modules.wasm.raw import RawRuntime
from stdb.modules.wasm.runtime import EXHAUSTED, Guest, Limits, Runtime
from stdb.modules.wasm.tables import Tables
from stdb.schema.model import ModuleDef

VECTORS = Path(__file__).parent / "vectors"
DEFINITION = bytes.fromhex(json.loads((VECTORS / "abi10_definition.json").read_text())["definition_hex"])
RUNTIMES: dict[str, type[Any]] = {"raw": RawRuntime, "public": PublicRuntime}
NOW_US = 1_700_000_000_000_000
IDENTITY = bytes(range(32))
ROOM, KEY, OUT = 4096, 1024, 64
"""Places in the memory of a guest: for rows, for keys, for results."""

EMPTY_DEFINITION = b"\x02\0\0\0\0"
REDUCER = "(param i32 i64 i64 i64 i64 i64 i64 i64 i32 i32) (result i32)"


class Lines:
    """A log that is kept."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def write(self, level: str, message: str, **_: object) -> None:
        self.lines.append((level, message))


def wat(text: str) -> bytes:
    """Return the program of a text."""
    return bytes(wasmtime.wat2wasm(text))


def module_text(reducer: str = "i32.const 0", more: str = "", imports: str = "", definition: bytes = b"") -> str:
    """Return a whole program whose only code is the body of its reducers; its definition lies at 65536."""
    data = "".join(f"\\{byte:02x}" for byte in definition or EMPTY_DEFINITION)
    size = len(definition or EMPTY_DEFINITION)
    return f"""(module
      (import "spacetime_10.0" "bytes_sink_write" (func $write (param i32 i32 i32) (result i32)))
      {imports}
      (memory (export "memory") 4 64)
      (data (i32.const 65536) "{data}")
      {more}
      (func (export "__describe_module__") (param i32)
        (i32.store (i32.const 32) (i32.const {size}))
        (drop (call $write (local.get 0) (i32.const 65536) (i32.const 32))))
      (func (export "__call_reducer__") {REDUCER} {reducer}))"""


def probe_text() -> str:
    """Return a program that exports every host function under its name behind `x_`."""
    imports, exports = [], []
    for (module, name), function in host_functions(Host(lambda: 0)).items():
        type_ = function.type
        params = f"(param {' '.join(type_.params)})" if type_.params else ""
        result = f"(result {type_.results[0]})" if type_.results else ""
        if (module, name) != ("spacetime_10.0", "bytes_sink_write"):
            imports.append(f'(import "{module}" "{name}" (func ${name} {params} {result}))')
        called = "write" if name == "bytes_sink_write" else name
        gets = " ".join(f"(local.get {position})" for position in range(len(type_.params)))
        exports.append(f'(func (export "x_{name}") {params} {result} (call ${called} {gets}))')
    grow = '(func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))'
    return module_text(imports="\n".join(imports), more="\n".join([*exports, grow]), definition=DEFINITION)


class GuestMemory:
    """A host over the tables of a module, and the memory of a guest that calls its functions."""

    guest: Guest

    def __init__(self, definition: ModuleDef) -> None:
        self.log = Lines()
        self.datastore = Datastore()
        self.datastore.begin(NOW_US)
        self.datastore.create_tables(definition)
        assert self.datastore.transaction is not None
        self.datastore.transaction.commit()
        self.host = Host(lambda: NOW_US)
        self.host.tables, self.host.identity, self.host.log = Tables(self.datastore), IDENTITY, self.log

    @contextmanager
    def transaction(self, *, commit: bool = True) -> Iterator[None]:
        """Hold a transaction."""
        transaction = self.datastore.begin(NOW_US)
        self.host.open(transaction)
        try:
            yield
        finally:
            self.host.close()
            if commit:
                transaction.commit()
            else:
                transaction.rollback()

    def put(self, place: int, data: bytes) -> tuple[int, int]:
        """Write into the guest's memory; return pointer and length."""
        self.guest.memory.write(place, data)
        return place, len(data)

    def number(self, place: int = OUT) -> int:
        """Return the u32 there."""
        return self.guest.memory.read_u32(place)


class Probe(GuestMemory):
    """The host's functions as a guest meets them, over the tables of `abi10_definition.json`."""

    def __init__(self, runtime: Runtime) -> None:
        self.program = wat(probe_text())
        self.module: WasmModule = load_wasm(self.program, lambda: NOW_US, runtime=runtime)
        super().__init__(self.module.definition)
        compiled = engine().compile(self.program, self.module.program_hash)
        self.guest = Instance(runtime, compiled, host_functions(self.host), self.host, Limits()).guest

    @contextmanager
    def view(self) -> Iterator[ReadSet]:
        """Hold a view's run."""
        reads = ReadSet()
        self.host.open(reads, reads)
        try:
            yield reads
        finally:
            self.host.close()

    def call(self, name: str, *args: int) -> int:
        """Call a host function through the guest."""
        return self.guest.call(f"x_{name}", *args)

    def table(self, name: str) -> int:
        """Return the id of a table."""
        assert self.call("table_id_from_name", *self.put(KEY, name.encode()), OUT) == 0
        return self.number()

    def index(self, name: str) -> int:
        """Return the id of an index."""
        assert self.call("index_id_from_name", *self.put(KEY, name.encode()), OUT) == 0
        return self.number()

    def insert(self, table: int, row: bytes) -> tuple[int, bytes]:
        """Return error number and write-back."""
        self.put(ROOM, row)
        self.put(OUT, pack("<I", len(row)))
        code = self.call("datastore_insert_bsatn", table, ROOM, OUT)
        return code, b"" if code else self.guest.memory.read(ROOM, self.number())

    def update(self, table: int, index: int, row: bytes) -> tuple[int, bytes]:
        """Return error number and write-back."""
        self.put(ROOM, row)
        self.put(OUT, pack("<I", len(row)))
        code = self.call("datastore_update_bsatn", table, index, ROOM, OUT)
        return code, b"" if code else self.guest.memory.read(ROOM, self.number())

    def count(self, table: int) -> int:
        """Return how many rows there are."""
        assert self.call("datastore_table_row_count", table, OUT) == 0
        return int.from_bytes(self.guest.memory.read(OUT, 8), "little")

    def scan(self, table: int) -> bytes:
        """Return all rows."""
        assert self.call("datastore_table_scan_bsatn", table, OUT) == 0
        return self.rows(self.number())

    def point(self, index: int, key: bytes) -> int | bytes:
        """Return an error number or rows."""
        code = self.call("datastore_index_scan_point_bsatn", index, *self.put(KEY, key), OUT)
        return code or self.rows(self.number())

    def range(self, index: int, prefix: bytes, count: int, lower: bytes, upper: bytes) -> int | bytes:
        """Return an error number or rows."""
        places = (*self.put(KEY, prefix), count, *self.put(KEY + 512, lower), *self.put(KEY + 1024, upper), OUT)
        code = self.call("datastore_index_scan_range_bsatn", index, *places)
        return code or self.rows(self.number())

    def rows(self, iterator: int) -> bytes:
        """Return everything that an iterator yields."""
        found = b""
        while True:
            self.put(OUT, pack("<I", 60_000))
            code = self.call("row_iter_bsatn_advance", iterator, ROOM, OUT)
            assert code in (0, EXHAUSTED)
            found += self.guest.memory.read(ROOM, self.number())
            if code == EXHAUSTED:
                return found
