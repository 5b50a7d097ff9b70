"""Documents of 0.11: a module's definition as `/database/schema` shows it to clients of that generation.

Responsible for: the list of entities, one entity, the definition as V8.
Not responsible for: types of that generation (`legacy`), the layout of V8 (`raw_v8`), HTTP.

Source: spec 03 section 8.1, spec 04 section 4.4; names of constraints as recorded.
"""

from collections.abc import Iterator
from typing import Any

from stdb.sats import meta
from stdb.sats.profiles import V0_11
from stdb.sats.types import Product
from stdb.sats.typespace import inline
from stdb.schema.legacy import LegacyFace, LegacyReducer, LegacyTable
from stdb.schema.model import Access, IndexAlgorithm
from stdb.schema.raw import (
    RawColumnV8,
    RawConstraintV8,
    RawIndexV8,
    RawModuleDefV8,
    RawReducerV8,
    RawTableV8,
    RawTypeAliasV8,
)
from stdb.schema.raw_v8 import AUTO_INC, INDEXED, PRIMARY_KEY, UNIQUE, to_json

__all__ = ["definition", "entities", "entity"]

_KINDS = {
    0: "unset",
    INDEXED: "indexed",
    AUTO_INC: "auto_inc",
    UNIQUE | INDEXED: "unique",
    UNIQUE | INDEXED | AUTO_INC: "identity",
    PRIMARY_KEY | UNIQUE | INDEXED: "primary_key",
    PRIMARY_KEY | UNIQUE | INDEXED | AUTO_INC: "primary_key_auto",
}


def entities(face: LegacyFace, *, expand: bool) -> dict[str, Any]:
    """Return all tables and reducers with the typespace."""
    listed: dict[str, Any] = {table.name: _table(table, expand) for table in face.tables}
    listed |= {reducer.name: _reducer(reducer, expand) for reducer in face.reducers}
    types = [meta.type_to_json(type_, V0_11) for type_ in face.typespace.types]
    return {"entities": dict(sorted(listed.items())), "typespace": types}


def entity(face: LegacyFace, kind: str, name: str, *, expand: bool) -> dict[str, Any] | None:
    """Return one `table` or `reducer` by its name, or None."""
    if kind == "table":
        table = face.table(name)
        return None if table is None else {name: _table(table, expand)}
    reducer = face.reducer(name)
    return None if reducer is None else {name: _reducer(reducer, expand)}


def definition(face: LegacyFace) -> dict[str, Any]:
    """Return the definition as V8, lifecycle reducers included."""
    named = {reducer.id: RawReducerV8(reducer.name, reducer.params) for reducer in face.reducers}
    named |= {position: RawReducerV8(name) for position, name in face.lifecycles.items()}
    raw = RawModuleDefV8(
        typespace=face.typespace,
        tables=tuple(_raw_table(table, face) for table in face.tables),
        reducers=tuple(named[position] for position in sorted(named)),
        types=tuple(RawTypeAliasV8("::".join((*type_.scope, type_.name)), type_.type_ref) for type_ in face.types),
    )
    return to_json(raw)


def _table(table: LegacyTable, expand: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {"arity": len(table.row_type.elements)}
    if expand:
        shown["schema"] = _elements(table.row_type)
    return shown | {"type": "table"}


def _reducer(reducer: LegacyReducer, expand: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {"arity": len(reducer.params.elements)}
    if expand:
        shown["schema"] = _elements(reducer.params) | {"name": reducer.name}
    return shown | {"type": "reducer"}


def _elements(product: Product) -> dict[str, Any]:
    document = meta.type_to_json(product, V0_11)["Product"]
    assert isinstance(document, dict)
    return document


def _raw_table(table: LegacyTable, face: LegacyFace) -> RawTableV8:
    known, row = table.definition, inline(table.row_type, face.typespace)
    assert isinstance(row, Product)
    names = [column.name for column in known.columns]
    columns = tuple(RawColumnV8(name, element.type) for name, element in zip(names, row.elements, strict=True))
    return RawTableV8(
        name=table.name,
        columns=columns,
        indexes=tuple(_indexes(table)),
        constraints=tuple(_constraints(table, names)),
        sequences=(),
        table_type="user",
        access="public" if known.access is Access.PUBLIC else "private",
        scheduled=None if known.schedule is None else known.schedule.function,
        product_type_ref=known.type_ref,
    )


def _indexes(table: LegacyTable) -> Iterator[RawIndexV8]:
    """Yield the indexes that do not follow from a constraint."""
    unique = {each.columns for each in table.definition.uniques}
    for index in table.definition.indexes:
        if index.columns not in unique:
            algorithm = IndexAlgorithm.HASH if index.algorithm is IndexAlgorithm.HASH else IndexAlgorithm.BTREE
            yield RawIndexV8(index.source_name or index.name, False, algorithm, index.columns)


def _constraints(table: LegacyTable, names: list[str]) -> Iterator[RawConstraintV8]:
    known = table.definition
    unique = {each.columns[0] for each in known.uniques if len(each.columns) == 1}
    counted = {each.column for each in known.sequences}
    for column, name in enumerate(names):
        bits = AUTO_INC if column in counted else 0
        if column in unique or column == known.primary_key:
            bits |= UNIQUE | INDEXED
        if column == known.primary_key:
            bits |= PRIMARY_KEY
        yield RawConstraintV8(f"ct_{table.name}_{name}_{_KINDS[bits]}", bits, (column,))
    for each in known.uniques:
        if len(each.columns) > 1:
            joined = "_".join(names[column] for column in each.columns)
            yield RawConstraintV8(f"ct_{table.name}_{joined}_unique", UNIQUE | INDEXED, each.columns)
