"""The probe module of the recordings of 0.11 (`c_modules/probe.c`): its definition, variants of it, its program.

The definition is the recorded one; a variant changes what its name says, as `recorded/legacy/publish_variants` has it.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from stdb.sats.profiles import OLD_IDENTITY
from stdb.sats.types import (
    BOOL,
    F32,
    I8,
    STRING,
    U8,
    U32,
    AlgebraicType,
    Array,
    Element,
    Map,
    Product,
    Typespace,
    option,
)
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
from tests.interop.module_clang import build_c_program

__all__ = ["VARIANTS", "build_probe", "probe_definition"]

_RECORDED = Path(__file__).parent.parent / "vectors" / "legacy" / "probe_module.json"
_COMPILE = ("--target=wasm32", "-mcpu=mvp", "-Os", "-ffreestanding", "-DVER=11", "-c")
_X = Product((Element("x", U32),))


def probe_definition(variant: str = "") -> RawModuleDefV8:
    """Return the definition of the module, or of a variant of it."""
    hexadecimal = json.loads(_RECORDED.read_text())["definition_hex"]["0.11 (RawModuleDef, tag 0 = V8)"]
    raw = raw_module.decode(bytes.fromhex(hexadecimal), is_0_11=True)
    assert isinstance(raw, RawModuleDefV8)
    return VARIANTS[variant](raw) if variant else raw


def build_probe(variant: str = "", *options: str) -> bytes:
    """Return the program. Options as `probe.c` has them: `-DFAIL_IN=R_INIT`, `-DFAIL_TRAP`, `-DUPD_MSG`, `-DABI=…`.

    Of `garbage` nobody can read the definition.
    """
    is_garbage = variant == "garbage"
    definition = probe_definition("" if is_garbage else variant)
    data = b"\xff" * 100 if is_garbage else raw_module.encode(definition)
    return build_c_program("probe", "def_11.h", _header(definition, data), *_COMPILE, *options)


def _header(definition: RawModuleDefV8, data: bytes) -> str:
    lines = [f"static const unsigned char DEF[] = {{{','.join(map(str, data))}}};", f"#define DEF_LEN {len(data)}"]
    names = dict.fromkeys(reducer.name for reducer in definition.reducers)
    places = [reducer.name for reducer in definition.reducers]
    lines += [f"#define R_{name.strip('_').upper()} {places.index(name)}" for name in names]
    return "\n".join(lines) + "\n"


def _with_table(raw: RawModuleDefV8, name: str, change: Callable[[RawTableV8], RawTableV8]) -> RawModuleDefV8:
    """Return the definition with one table changed, and its row type with it."""
    tables, types = [], list(raw.typespace.types)
    for table in raw.tables:
        changed = change(table) if table.name == name else table
        tables.append(changed)
        if changed.columns != table.columns:
            row = types[table.product_type_ref]
            assert isinstance(row, Product)
            more = tuple(Element(column.name, column.type) for column in changed.columns[len(row.elements) :])
            types[table.product_type_ref] = Product((*row.elements, *more))
    return replace(raw, typespace=Typespace(tuple(types)), tables=tuple(tables))


def _add_table(raw: RawModuleDefV8) -> RawModuleDefV8:
    columns = (RawColumnV8("a", U32), RawColumnV8("b", STRING))
    row = Product(tuple(Element(column.name, column.type) for column in columns))
    unset = tuple(RawConstraintV8(f"ct_Fresh_{column.name}_unset", 0, (i,)) for i, column in enumerate(columns))
    table = RawTableV8("Fresh", columns, (), unset, (), "user", "public", None, len(raw.typespace.types))
    return replace(raw, typespace=Typespace((*raw.typespace.types, row)), tables=(*raw.tables, table))


def _add_column(raw: RawModuleDefV8) -> RawModuleDefV8:
    return _with_table(raw, "Owner", lambda t: replace(t, columns=(*t.columns, RawColumnV8("extra", U32))))


def _add_unique(raw: RawModuleDefV8) -> RawModuleDefV8:
    label = RawConstraintV8("ct_Owner_label_unique", 5, (1,))
    return _with_table(raw, "Owner", lambda t: replace(t, constraints=(*t.constraints[:1], label)))


def _add_index(raw: RawModuleDefV8) -> RawModuleDefV8:
    index = RawIndexV8("item_qty", False, IndexAlgorithm.BTREE, (3,))
    return _with_table(raw, "Item", lambda t: replace(t, indexes=(*t.indexes, index)))


def _with_reducer(name: str, params: Product) -> Callable[[RawModuleDefV8], RawModuleDefV8]:
    def change(raw: RawModuleDefV8) -> RawModuleDefV8:
        return replace(
            raw, reducers=tuple(RawReducerV8(name, params) if each.name == name else each for each in raw.reducers)
        )

    return change


def _more_reducers(name: str) -> Callable[[RawModuleDefV8], RawModuleDefV8]:
    return lambda raw: replace(raw, reducers=(*raw.reducers, RawReducerV8(name)))


_MAPS: dict[str, AlgebraicType] = {
    "id": U32,
    "m1": Map(STRING, U32),
    "m2": Map(U32, STRING),
    "m3": Map(BOOL, U8),
    "m4": Map(OLD_IDENTITY, U8),
    "m5": Map(F32, U8),
    "m6": Map(option(U32), U8),
    "u": Product(()),
    "nest": option(option(U32)),
    "a2": Array(Array(U8)),
    "ao": Array(option(I8)),
}


def _maps(raw: RawModuleDefV8) -> RawModuleDefV8:
    """Give Kinds, and put_kinds, other columns."""
    row, types = Product(tuple(Element(name, type_) for name, type_ in _MAPS.items())), list(raw.typespace.types)
    columns = tuple(RawColumnV8(name, type_) for name, type_ in _MAPS.items())
    unset = tuple(RawConstraintV8(f"ct_Kinds_{name}_unset", 0, (i,)) for i, name in enumerate(_MAPS))
    tables = []
    for table in raw.tables:
        if table.name == "Kinds":
            types[table.product_type_ref] = row
        tables.append(replace(table, columns=columns, constraints=unset) if table.name == "Kinds" else table)
    changed = replace(raw, typespace=Typespace(tuple(types)), tables=tuple(tables))
    return _with_reducer("put_kinds", row)(changed)


VARIANTS: dict[str, Callable[[RawModuleDefV8], RawModuleDefV8]] = {
    "addtable": _add_table,
    "addcol": _add_column,
    "rmtable": lambda raw: replace(raw, tables=tuple(table for table in raw.tables if table.name != "Owner")),
    "access": lambda raw: _with_table(raw, "Owner", lambda table: replace(table, access="private")),
    "addindex": _add_index,
    "rmindex": lambda raw: _with_table(raw, "Item", lambda table: replace(table, indexes=())),
    "adduniq": _add_unique,
    "reserved": _more_reducers("__foo__"),
    "connargs": _with_reducer("__identity_connected__", _X),
    "dupreducer": _more_reducers("nop"),
    "noupdate": lambda raw: replace(raw, reducers=tuple(r for r in raw.reducers if r.name != "__update__")),
    "addarg": _with_reducer("nop", _X),
    "maps": _maps,
}
