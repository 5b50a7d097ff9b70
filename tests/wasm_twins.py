"""Twins: a FunctionModule once more as WebAssembly, so that what holds for the one is asked of the other.

The guest is real: it has an instance, handles, a memory, and is entered and answered by the ABI. Its code is not: each
of its functions asks the host for the Python function of that place, which works through the guest's imports alone.
"""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from struct import pack
from typing import Any

from stdb.errors import ReducerError
from stdb.modules.protocol import ReducerCall, ViewSql
from stdb.modules.wasm.abi import CALL_REDUCER
from stdb.modules.wasm.definition import read_definition
from stdb.modules.wasm.engine import engine
from stdb.modules.wasm.host import Host
from stdb.modules.wasm.imports import host_functions
from stdb.modules.wasm.instance import Instance
from stdb.modules.wasm.module import WasmModule
from stdb.modules.wasm.raw import RawRuntime
from stdb.modules.wasm.runtime import EXHAUSTED, FunctionType, HostFunction, Imports, Limits
from stdb.sats import bsatn
from stdb.sats.types import STRING, AlgebraicType, Array, Element, Product, Ref, Typespace, option_inner
from stdb.sats.typespace import inline
from stdb.schema import raw
from stdb.schema.documents import to_raw_v10
from stdb.schema.model import ModuleDef, TypeDef
from stdb.sql.work import Steps
from stdb.testing.modules import FunctionModule
from tests.wasm_guests import EMPTY_DEFINITION, NOW_US, module_text, wat

_VIEW = FunctionType(("i32", *("i64",) * 4, "i32", "i32"), ("i32",))
_ANONYMOUS = FunctionType(("i32",) * 3, ("i32",))
_ROOM, _KEY, _OUT = 131_072, 1024, 64
_ROOM_BYTES = 65_536


def definition_of(module: FunctionModule) -> ModuleDef:
    """Return a module's definition as a compiler of modules writes it: every table has a type of its own."""
    tables = tuple(replace(each, type_ref=place) for place, each in enumerate(module.definition.tables))
    rows = [each.row_type for each in tables]

    scheduled = {each.schedule.function: place for place, each in enumerate(tables) if each.schedule is not None}

    def by_reference(function: Any) -> Any:
        place = scheduled.get(function.name)
        elements = function.params.elements
        if place is not None:
            return replace(function, params=Product((Element(elements[0].name, Ref(place)),)))
        named = tuple(Element(each.name, _reference(each.type, rows)) for each in elements)
        return replace(function, params=Product(named))

    return replace(
        module.definition,
        typespace=Typespace(tuple(rows)),
        types=tuple(TypeDef(each.name.title(), (), place, True) for place, each in enumerate(tables)),
        tables=tables,
        reducers=tuple(map(by_reference, module.definition.reducers)),
        procedures=tuple(map(by_reference, module.definition.procedures)),
    )


def encoded(module: FunctionModule) -> bytes:
    """Return the definition as a guest writes it."""
    return raw.encode(to_raw_v10(definition_of(module)))


def _reference(type_: AlgebraicType, rows: list[Product]) -> AlgebraicType:
    return Ref(rows.index(type_)) if isinstance(type_, Product) and type_ in rows else type_


def twin(module: FunctionModule, *, is_checked: bool = True) -> WasmModule:
    """Return the twin of a module without procedures and routes; its definition is held to the rules, if need be."""
    text = f"""
      (import "twin" "reducer" (func $reducer {_wat(CALL_REDUCER)}))
      (import "twin" "view" (func $view {_wat(_VIEW)}))
      (import "twin" "view_anon" (func $anon {_wat(_ANONYMOUS)}))"""
    exports = f"""
      (func (export "__call_view__") {_wat(_VIEW)} (call $view {_gets(_VIEW)}))
      (func (export "__call_view_anon__") {_wat(_ANONYMOUS)} (call $anon {_gets(_ANONYMOUS)}))"""
    written = encoded(module) if is_checked else EMPTY_DEFINITION
    program = wat(module_text(f"(call $reducer {_gets(CALL_REDUCER)})", exports, text, written))
    compiled = engine().compile(program, sha256(program).digest())
    host = Host(lambda: NOW_US)
    functions = _functions(host, module)
    first = Instance(RawRuntime(engine()), compiled, functions, host, Limits())
    definition = read_definition(first.description) if is_checked else definition_of(module)
    made = _Twin(
        *(RawRuntime(engine()), compiled, module.program_hash, definition, first),
        *(lambda: NOW_US, Limits()),
    )
    made.plain = module
    return made


def _wat(type_: FunctionType) -> str:
    return f"(param {' '.join(type_.params)}) (result i32)"


def _gets(type_: FunctionType) -> str:
    return " ".join(f"(local.get {place})" for place in range(len(type_.params)))


class _Twin(WasmModule):
    plain: FunctionModule

    def _made(self, host: Host) -> Steps[Instance]:
        self._bind(host)
        return Instance.in_steps(self._runtime, self._program, _functions(host, self.plain), host, self._limits)


def _functions(host: Host, module: FunctionModule) -> Imports:
    functions = _Functions(host, module)
    return {
        **functions.imports,
        ("twin", "reducer"): HostFunction(CALL_REDUCER, functions.reducer),
        ("twin", "view"): HostFunction(_VIEW, functions.view),
        ("twin", "view_anon"): HostFunction(_ANONYMOUS, functions.view_anon),
    }


class Tables:
    """What the functions of a twin get in the place of a Context and a Reader; all of it by the guest's imports."""

    def __init__(self, functions: "_Functions", sender: bytes | None, call: ReducerCall | None = None) -> None:
        self.sender = sender
        self.call: Any = call
        self._functions = functions

    def insert(self, name: str, *values: Any) -> tuple[Any, ...]:
        """Insert a row; return it as stored, generated values in their places."""
        table = self._functions.tables[name]
        codec = bsatn.codec(table.row_type)
        row = codec.encode(values)
        table_id = self._functions.id_of(name)
        self._functions.put(_ROOM, row)
        self._functions.put(_OUT, pack("<I", len(row)))
        code = self._functions.ask("datastore_insert_bsatn", table_id, _ROOM, _OUT)
        assert code == 0, f"inserting into {name}: {code}"
        stored = list(values)
        generated, offset = self._functions.get(_ROOM, self._functions.number(_OUT)), 0
        for sequence in table.sequences:
            if not stored[sequence.column]:
                stored[sequence.column], offset = bsatn.codec(table.columns[sequence.column].type).decode(
                    generated, offset
                )
        return tuple(stored)

    def delete(self, name: str, *values: Any) -> bool:
        """Delete a row by its value; tell whether it was there."""
        relation = pack("<I", 1) + bsatn.codec(self._functions.tables[name].row_type).encode(values)
        place = self._functions.put(_ROOM, relation)
        code = self._functions.ask("datastore_delete_all_by_eq_bsatn", self._functions.id_of(name), *place, _OUT)
        assert code == 0, f"deleting from {name}: {code}"
        return self._functions.number(_OUT) == 1

    def rows(self, name: str) -> list[tuple[Any, ...]]:
        """Return all rows."""
        assert self._functions.ask("datastore_table_scan_bsatn", self._functions.id_of(name), _OUT) == 0
        return self._read(name)

    def find(self, name: str, key: Any) -> tuple[Any, ...] | None:
        """Return the row with a primary key."""
        table = self._functions.tables[name]
        assert table.primary_key is not None
        type_ = table.columns[table.primary_key].type
        value = key[::-1] if isinstance(key, bytes) else key  # keys of identities are turned round
        place = self._functions.put(_KEY, bsatn.codec(type_).encode(value))
        index = self._functions.index_of(table.indexes[0].name)
        assert self._functions.ask("datastore_index_scan_point_bsatn", index, *place, _OUT) == 0
        return next(iter(self._read(name)), None)

    def _read(self, name: str) -> list[tuple[Any, ...]]:
        iterator, data = self._functions.number(_OUT), b""
        while True:
            self._functions.put(_OUT, pack("<I", _ROOM_BYTES))
            code = self._functions.ask("row_iter_bsatn_advance", iterator, _ROOM, _OUT)
            data += self._functions.get(_ROOM, self._functions.number(_OUT))
            if code == EXHAUSTED:
                break
            assert code == 0
        codec, rows, offset = bsatn.codec(self._functions.tables[name].row_type), [], 0
        while offset < len(data):
            row, offset = codec.decode(data, offset)
            rows.append(row)
        return rows


class _Functions:
    """The host's functions for one guest, and the Python code in the guest's place."""

    def __init__(self, host: Host, module: FunctionModule) -> None:
        self.imports = dict(host_functions(host))
        self.tables = {each.name: each for each in module.definition.tables}
        self._host = host
        self._module = module
        self._by_name = {name: function.run for (_, name), function in self.imports.items()}

    def ask(self, name: str, *args: int) -> Any:
        """Call an import."""
        return self._by_name[name](*args)

    def put(self, place: int, data: bytes) -> tuple[int, int]:
        """Write into the guest's memory; return pointer and length."""
        self._host.memory.write(place, data)
        return place, len(data)

    def get(self, place: int, size: int) -> bytes:
        """Read from it."""
        return self._host.memory.read(place, size)

    def number(self, place: int) -> int:
        """Read a u32."""
        return self._host.memory.read_u32(place)

    def id_of(self, table: str) -> int:
        """Return the id of a table."""
        assert self.ask("table_id_from_name", *self.put(_KEY, table.encode()), _OUT) == 0
        return self.number(_OUT)

    def index_of(self, index: str) -> int:
        """Return the id of an index."""
        place = self.put(_KEY + 512, index.encode())
        assert self.ask("index_id_from_name", *place, _OUT) == 0
        return self.number(_OUT)

    def reducer(self, position: int, *words: int) -> int:
        """Run a reducer."""
        sender = pack("<4Q", *words[:4])
        connection = pack("<2Q", *words[4:6])
        timestamp, args, sink = words[6:9]
        nothing: Any = None
        call = ReducerCall(sender, connection if any(connection) else None, timestamp, nothing)
        params = self._module.definition.reducers[position].params
        values = bsatn.codec(params).decode_exact(self._read(args) if args else b"")
        return self._answered(sink, lambda: self._module._reducers[position].run(Tables(self, sender, call), *values))

    def view(self, position: int, *words: int) -> int:
        """Run a view for somebody."""
        return self._view(False, position, pack("<4Q", *words[:4]), *words[4:])

    def view_anon(self, position: int, args: int, sink: int) -> int:
        """Run a view for everybody."""
        return self._view(True, position, None, args, sink)

    def _view(self, is_anonymous: bool, position: int, sender: bytes | None, args: int, sink: int) -> int:
        definition, place = next(
            (each, place)
            for place, each in enumerate(self._module.definition.views)
            if (each.is_anonymous, each.index) == (is_anonymous, position)
        )
        values = bsatn.codec(definition.params).decode_exact(self._read(args) if args else b"")
        row = inline(definition.return_type, self._module.definition.typespace)
        rows = row if isinstance(row, Array) else Array(option_inner(row) or row)

        def run() -> None:
            result = self._module._views[place].run(Tables(self, sender), *values)
            if isinstance(result, ViewSql):
                self._write(sink, b"\1" + bsatn.codec(STRING).encode(result.text))
            else:
                self._write(sink, b"\0" + bsatn.codec(rows).encode(list(result)))

        return 2 if (code := self._answered(sink, run)) == 0 else code

    def _answered(self, sink: int, run: Callable[[], object]) -> int:
        try:
            run()
        except ReducerError as error:
            self._write(sink, str(error).encode())
            return 1
        return 0

    def _read(self, source: int) -> bytes:
        data = b""
        while True:
            self.put(_OUT, pack("<I", _ROOM_BYTES))
            code = self.ask("bytes_source_read", source, _ROOM, _OUT)
            data += self.get(_ROOM, self.number(_OUT))
            if code:
                return data

    def _write(self, sink: int, data: bytes) -> None:
        for start in range(0, len(data), _ROOM_BYTES):
            part = data[start : start + _ROOM_BYTES]
            self.put(_ROOM, part)
            self.put(_OUT, pack("<I", len(part)))
            assert self.ask("bytes_sink_write", sink, _ROOM, _OUT) == 0
