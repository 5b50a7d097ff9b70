"""RawModuleDef V8: what a module of 0.11 says of itself, its layouts, and its upgrade to V9.

Responsible for: which fields V8 has; the indexes, constraints, sequences and names that it leaves unsaid; the reducers
that are known by their names.
Not responsible for: checking (`validation`), which of the two layouts a program uses (`stdb.modules.wasm`).

Source: spec 04 section 4.4, spec 01 section 11.1; names as the real 0.11.1 gives them. Modules built for 0.11 write
columns as u32 and types nested under Builtin; what the reference's host of today reads has columns as u16 and types as
in V9.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from stdb.errors import SchemaError
from stdb.sats.profiles import MODERN, V0_11
from stdb.sats.types import AlgebraicType, Element, Product, Typespace
from stdb.sats.typespace import inline
from stdb.schema.layout import (
    BOOL,
    I128,
    STRING,
    U8,
    U16,
    U32,
    Case,
    ListOf,
    Optional,
    Reader,
    Record,
    Shape,
    TagOnly,
    Union,
    product_shape,
    record,
    type_shape,
)
from stdb.schema.legacy import LIFECYCLE_NAMES, UPDATE_NAME, is_reserved
from stdb.schema.model import Access, IndexAlgorithm
from stdb.schema.raw import (
    RawColumnV8,
    RawConstraint,
    RawConstraintV8,
    RawIndex,
    RawIndexV8,
    RawModuleDefV8,
    RawModuleDefV9,
    RawReducerV8,
    RawReducerV9,
    RawScheduleV9,
    RawSequence,
    RawSequenceV8,
    RawTableV8,
    RawTableV9,
    RawTypeAliasV8,
    RawTypeDef,
    RawTypeName,
)

__all__ = ["AUTO_INC", "INDEXED", "PRIMARY_KEY", "UNIQUE", "decode", "encode", "name_refusal", "to_json", "upgraded"]

_ALGORITHM = TagOnly("IndexType", [("BTree", IndexAlgorithm.BTREE), ("Hash", IndexAlgorithm.HASH)])
INDEXED, AUTO_INC, UNIQUE, PRIMARY_KEY = 1, 2, 4, 8
"""Bits of a `RawConstraintV8`."""
_SCHEDULED_AT = "scheduled_at"
_LIFECYCLES = {name: event for event, name in LIFECYCLE_NAMES.items()}
_RESERVED = {*_LIFECYCLES, UPDATE_NAME, "__migrate__"}
"""`__migrate__` is declared by some modules and never run."""


def _schema(type_: Shape[AlgebraicType], column_id: Shape[int]) -> Record[tuple[Any, ...]]:
    columns = ListOf(column_id, "columns")
    column = record(RawColumnV8, name=("col_name", STRING), type=("col_type", type_))
    index = record(
        RawIndexV8,
        name=("index_name", STRING),
        is_unique=("is_unique", BOOL),
        algorithm=("index_type", _ALGORITHM),
        columns=("columns", columns),
    )
    constraint = record(
        RawConstraintV8, name=("constraint_name", STRING), bits=("constraints", U8), columns=("columns", columns)
    )
    sequence = record(
        RawSequenceV8,
        name=("sequence_name", STRING),
        column=("col_pos", column_id),
        increment=("increment", I128),
        start=("start", Optional(I128)),
        min_value=("min_value", Optional(I128)),
        max_value=("max_value", Optional(I128)),
        allocated=("allocated", I128),
    )
    fields: list[tuple[str, Shape[Any]]] = [
        ("table_name", STRING),
        ("columns", ListOf(column, "columns")),
        ("indexes", ListOf(index, "indexes")),
        ("constraints", ListOf(constraint, "constraints")),
        ("sequences", ListOf(sequence, "sequences")),
        ("table_type", STRING),
        ("table_access", STRING),
        ("scheduled", Optional(STRING)),
    ]
    return Record(fields, lambda *parts: parts, lambda parts: parts)


@cache
def _module(*, is_0_11: bool) -> Shape[RawModuleDefV8]:
    """Return the shape of a definition in one of the two spellings."""
    type_ = type_shape(V0_11 if is_0_11 else MODERN)
    table = Record(
        [("schema", _schema(type_, U32 if is_0_11 else U16)), ("data", U32)],
        lambda schema, data: RawTableV8(**dict(zip(_SCHEMA_FIELDS, schema, strict=True)), product_type_ref=data),
        lambda table: ([getattr(table, name) for name in _SCHEMA_FIELDS], table.product_type_ref),
    )
    reducer = record(RawReducerV8, name=("name", STRING), params=("args", product_shape(type_)))
    typespace: Shape[Typespace] = record(Typespace, types=("types", ListOf(type_, "types")))
    return record(
        RawModuleDefV8,
        typespace=("typespace", typespace),
        tables=("tables", ListOf(table, "tables")),
        reducers=("reducers", ListOf(reducer, "reducers")),
        types=("misc_exports", ListOf(_EXPORT, "exports")),
    )


_SCHEMA_FIELDS = ("name", "columns", "indexes", "constraints", "sequences", "table_type", "access", "scheduled")
_ALIAS = record(RawTypeAliasV8, name=("name", STRING), type_ref=("ty", U32))
_EXPORT: Shape[RawTypeAliasV8] = Union("MiscModuleExport", [Case("TypeAlias", RawTypeAliasV8, _ALIAS)])


def encode(raw: RawModuleDefV8) -> bytes:
    """Return the BSATN of a V8 definition as modules of 0.11 write it, without version tag."""
    out = bytearray()
    _module(is_0_11=True).write(raw, out)
    return bytes(out)


def decode(buffer: bytes, offset: int, *, is_0_11: bool) -> RawModuleDefV8 | RawModuleDefV9:
    """Return the V8 definition that begins at `offset`, behind the version tag; one of a later program as V9.

    Raises:
        DecodeError: There is none.
        SchemaError: It is of a later program, and the columns of a table are not those of its row type.
    """
    raw = _module(is_0_11=is_0_11).read(Reader(buffer, offset))
    return raw if is_0_11 else upgraded(raw)


def to_json(raw: RawModuleDefV8) -> dict[str, Any]:
    """Return the document of a V8 definition, as the routes of 0.11 show it."""
    document: dict[str, Any] = _module(is_0_11=True).to_json(raw)
    for reducer in document["reducers"]:  # a list here, although its bytes are those of a product
        reducer["args"] = reducer["args"]["elements"]
    return document


def name_refusal(raw: RawModuleDefV8) -> str | None:
    """Return why a module is refused for the names of its reducers, in the words of 0.11; None for most modules."""
    for reducer in raw.reducers:
        if not is_reserved(reducer.name):
            continue
        if reducer.name not in _RESERVED:
            return "reducers with double-underscores at the start and end of their names are not allowed"
        if reducer.params.elements and reducer.name != "__init__":
            return f'lifecycle reducer "{reducer.name}" has invalid signature'
    return None


def upgraded(raw: RawModuleDefV8) -> RawModuleDefV9:
    """Return a V8 definition as V9, everything said that V8 takes for granted.

    Raises:
        SchemaError: The columns of a table are not those of its row type; names all such tables.
    """
    _check_rows(raw)
    names = _Names(table.name for table in raw.tables)
    return RawModuleDefV9(
        typespace=raw.typespace,
        tables=tuple(_table(table, names) for table in raw.tables),
        reducers=tuple(RawReducerV9(each.name, each.params, _LIFECYCLES.get(each.name)) for each in raw.reducers),
        types=tuple(RawTypeDef(_scoped(alias.name), alias.type_ref) for alias in raw.types),
    )


def _check_rows(raw: RawModuleDefV8) -> None:
    errors = []
    for table in raw.tables:
        types = raw.typespace.types
        row = types[table.product_type_ref] if table.product_type_ref < len(types) else None
        if not isinstance(row, Product):
            continue  # for validation to tell
        declared = Product(tuple(Element(column.name, column.type) for column in table.columns))
        if inline(row, raw.typespace) != inline(declared, raw.typespace):
            errors.append(f"table `{table.name}`: its columns are not those of its row type &{table.product_type_ref}")
    if errors:
        raise SchemaError(errors)


class _Names:
    """Names of what belongs to tables: unique in a module now, in 0.11 they were not."""

    def __init__(self, tables: Iterator[str]) -> None:
        self._taken = set(tables)

    def take(self, name: str, table: str) -> str:
        """Return a name that nothing else has: the given one if that can be."""
        number, found = 1, name
        while found in self._taken:
            found = f"{table}_{name}" if number == 1 else f"{table}_{name}_{number}"
            number += 1
        self._taken.add(found)
        return found


def _table(raw: RawTableV8, names: _Names) -> RawTableV9:
    constraints = [each for each in raw.constraints if each.bits]
    uniques = [each for each in constraints if each.bits & UNIQUE]
    said = {each.columns for each in uniques}
    for index in raw.indexes:
        if index.is_unique and index.columns not in said:
            said.add(index.columns)
            uniques.append(RawConstraintV8(_constraint_name(raw, index.columns), INDEXED | UNIQUE, index.columns))
    return RawTableV9(
        name=raw.name,
        product_type_ref=raw.product_type_ref,
        primary_key=next((each.columns for each in constraints if each.bits & PRIMARY_KEY), ()),
        indexes=tuple(
            RawIndex(names.take(each.name, raw.name), None, each.algorithm, each.columns)
            for each in (*raw.indexes, *_missing_indexes(raw, constraints))
        ),
        constraints=tuple(RawConstraint(names.take(each.name, raw.name), each.columns) for each in uniques),
        sequences=tuple(
            RawSequence(names.take(s.name, raw.name), s.column, s.start, s.min_value, s.max_value, s.increment)
            for s in (*raw.sequences, *_missing_sequences(raw, constraints))
        ),
        schedule=None if raw.scheduled is None else RawScheduleV9(None, raw.scheduled, _due_column(raw)),
        is_system=raw.table_type == "system",
        access=Access.PUBLIC if raw.access == "public" else Access.PRIVATE,
    )


def _missing_indexes(raw: RawTableV8, constraints: list[RawConstraintV8]) -> Iterator[RawIndexV8]:
    """Yield an index for each constraint that needs one and has none."""
    there = {index.columns for index in raw.indexes}
    for constraint in constraints:
        if constraint.bits & INDEXED and constraint.columns not in there:
            there.add(constraint.columns)
            is_unique = bool(constraint.bits & UNIQUE)
            name = f"idx_{raw.name}_{_bare_name(raw, constraint)}"
            if not name.endswith("unique"):
                name += "_unique" if is_unique else "_non_unique"
            yield RawIndexV8(name, is_unique, IndexAlgorithm.BTREE, constraint.columns)


def _missing_sequences(raw: RawTableV8, constraints: list[RawConstraintV8]) -> Iterator[RawSequenceV8]:
    """Yield a sequence for each column that is filled in and has none."""
    there = {sequence.column for sequence in raw.sequences}
    for constraint in constraints:
        if constraint.bits & AUTO_INC and len(constraint.columns) == 1 and constraint.columns[0] not in there:
            there.add(constraint.columns[0])
            yield RawSequenceV8(f"seq_{raw.name}_{_bare_name(raw, constraint)}", constraint.columns[0])


def _bare_name(raw: RawTableV8, constraint: RawConstraintV8) -> str:
    return constraint.name.removeprefix(f"ct_{raw.name}_")


def _constraint_name(raw: RawTableV8, columns: tuple[int, ...]) -> str:
    known = len(raw.columns)
    names = [raw.columns[column].name if column < known else f"col_{column}" for column in columns]
    return f"ct_{raw.name}_{'_'.join(names)}_unique"


def _due_column(raw: RawTableV8) -> int:
    """Return the position of the column that says when a row is due; past the last one where there is none."""
    names = [column.name for column in raw.columns]
    return names.index(_SCHEDULED_AT) if _SCHEDULED_AT in names else min(len(names), 0xFFFF)


def _scoped(name: str) -> RawTypeName:
    *scope, last = name.replace("::", ".").split(".")
    return RawTypeName(last, tuple(scope))
