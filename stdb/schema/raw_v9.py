"""The layout of RawModuleDef V9, and the pieces that V10 shares with it.

Responsible for: which fields V9 has, in which order, under which names in JSON.
Not responsible for: the meaning of the fields (`validation`).

Source: spec 04 section 4.2; JSON as `schema?version=9` of 2.8.3 writes it.
"""

from typing import Any

from stdb.errors import DecodeError
from stdb.sats.types import Typespace
from stdb.schema.layout import (
    BOOL,
    BYTES,
    I128,
    PRODUCT,
    STRING,
    TYPE,
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
    member,
    record,
)
from stdb.schema.model import Access, IndexAlgorithm, Lifecycle
from stdb.schema.raw import (
    RawColumnDefaultV9,
    RawConstraint,
    RawIndex,
    RawModuleDefV9,
    RawProcedureV9,
    RawReducerV9,
    RawRowLevelSecurity,
    RawScheduleV9,
    RawSequence,
    RawTableV9,
    RawTypeDef,
    RawTypeName,
    RawViewV9,
)

__all__ = [
    "ACCESS",
    "COLUMNS",
    "LIFECYCLE",
    "ROW_LEVEL_SECURITY",
    "TABLE_KIND",
    "TYPESPACE",
    "constraint_shape",
    "decode",
    "encode",
    "from_json",
    "index_shape",
    "sequence_shape",
    "to_json",
    "type_def_shape",
]

COLUMNS = ListOf(U16, "columns")
ACCESS = TagOnly("TableAccess", [("Public", Access.PUBLIC), ("Private", Access.PRIVATE)])
TABLE_KIND = TagOnly("TableType", [("System", True), ("User", False)])
LIFECYCLE = TagOnly(
    "Lifecycle",
    [("Init", Lifecycle.INIT), ("OnConnect", Lifecycle.ON_CONNECT), ("OnDisconnect", Lifecycle.ON_DISCONNECT)],
)
TYPESPACE: Shape[Typespace] = record(Typespace, types=("types", ListOf(TYPE, "types")))
ROW_LEVEL_SECURITY = record(RawRowLevelSecurity, sql=("sql", STRING))


class _Algorithm(Shape[tuple[IndexAlgorithm, tuple[int, ...]]]):
    """Algorithm and columns; a direct index has one column without a list around it."""

    _NAMES = ("BTree", "Hash", "Direct")

    def write(self, value: tuple[IndexAlgorithm, tuple[int, ...]], out: bytearray) -> None:
        algorithm, columns = value
        out.append(algorithm.value)
        if algorithm is IndexAlgorithm.DIRECT:
            (column,) = columns
            U16.write(column, out)
        else:
            COLUMNS.write(columns, out)

    def read(self, reader: Reader) -> tuple[IndexAlgorithm, tuple[int, ...]]:
        algorithm = IndexAlgorithm(reader.tag(3, "RawIndexAlgorithm"))
        if algorithm is IndexAlgorithm.DIRECT:
            return algorithm, (U16.read(reader),)
        return algorithm, COLUMNS.read(reader)

    def to_json(self, value: tuple[IndexAlgorithm, tuple[int, ...]]) -> Any:
        algorithm, columns = value
        document = columns[0] if algorithm is IndexAlgorithm.DIRECT else list(columns)
        return {self._NAMES[algorithm.value]: document}

    def from_json(self, document: Any, path: str) -> tuple[IndexAlgorithm, tuple[int, ...]]:
        name, payload = member(document, path, self._NAMES)
        algorithm = IndexAlgorithm(self._NAMES.index(name))
        if algorithm is IndexAlgorithm.DIRECT:
            return algorithm, (U16.from_json(payload, f"{path}.Direct"),)
        return algorithm, COLUMNS.from_json(payload, f"{path}.{name}")


def index_shape(name: str) -> Shape[RawIndex]:
    """Return the shape of an index whose name is called `name` in JSON."""
    return Record(
        [(name, Optional(STRING)), ("accessor_name", Optional(STRING)), ("algorithm", _Algorithm())],
        lambda source_name, accessor, algorithm: RawIndex(source_name, accessor, *algorithm),
        lambda index: (index.source_name, index.accessor_name, (index.algorithm, index.columns)),
    )


class _Unique(Shape[tuple[int, ...]]):
    """The data of a constraint: a sum with one variant, a product with one element."""

    def write(self, value: tuple[int, ...], out: bytearray) -> None:
        out.append(0)
        COLUMNS.write(value, out)

    def read(self, reader: Reader) -> tuple[int, ...]:
        reader.tag(1, "RawConstraintData")
        return COLUMNS.read(reader)

    def to_json(self, value: tuple[int, ...]) -> Any:
        return {"Unique": {"columns": list(value)}}

    def from_json(self, document: Any, path: str) -> tuple[int, ...]:
        _, payload = member(document, path, ("Unique",))
        _, columns = member(payload, f"{path}.Unique", ("columns",))
        return COLUMNS.from_json(columns, f"{path}.Unique.columns")


def constraint_shape(name: str) -> Shape[RawConstraint]:
    """Return the shape of a constraint whose name is called `name` in JSON."""
    return record(RawConstraint, source_name=(name, Optional(STRING)), columns=("data", _Unique()))


def sequence_shape(name: str) -> Shape[RawSequence]:
    """Return the shape of a sequence whose name is called `name` in JSON."""
    return record(
        RawSequence,
        source_name=(name, Optional(STRING)),
        column=("column", U16),
        start=("start", Optional(I128)),
        min_value=("min_value", Optional(I128)),
        max_value=("max_value", Optional(I128)),
        increment=("increment", I128),
    )


def type_def_shape(name: str) -> Shape[RawTypeDef]:
    """Return the shape of a type definition whose name is called `name` in JSON."""
    scoped = record(RawTypeName, scope=("scope", ListOf(STRING, "scopes")), name=(name, STRING))
    return record(RawTypeDef, name=(name, scoped), type_ref=("ty", U32), custom_ordering=("custom_ordering", BOOL))


_SCHEDULE = record(
    RawScheduleV9,
    name=("name", Optional(STRING)),
    reducer_name=("reducer_name", STRING),
    at_column=("scheduled_at_column", U16),
)
_TABLE = record(
    RawTableV9,
    name=("name", STRING),
    product_type_ref=("product_type_ref", U32),
    primary_key=("primary_key", COLUMNS),
    indexes=("indexes", ListOf(index_shape("name"), "indexes")),
    constraints=("constraints", ListOf(constraint_shape("name"), "constraints")),
    sequences=("sequences", ListOf(sequence_shape("name"), "sequences")),
    schedule=("schedule", Optional(_SCHEDULE)),
    is_system=("table_type", TABLE_KIND),
    access=("table_access", ACCESS),
)
_REDUCER = record(
    RawReducerV9, name=("name", STRING), params=("params", PRODUCT), lifecycle=("lifecycle", Optional(LIFECYCLE))
)
_COLUMN_DEFAULT = record(RawColumnDefaultV9, table=("table", STRING), column=("col_id", U16), value=("value", BYTES))
_PROCEDURE = record(
    RawProcedureV9, name=("name", STRING), params=("params", PRODUCT), return_type=("return_type", TYPE)
)
_VIEW = record(
    RawViewV9,
    name=("name", STRING),
    index=("index", U32),
    is_public=("is_public", BOOL),
    is_anonymous=("is_anonymous", BOOL),
    params=("params", PRODUCT),
    return_type=("return_type", TYPE),
)
_MISC: Shape[Any] = Union(
    "RawMiscModuleExportV9",
    [
        Case("ColumnDefaultValue", RawColumnDefaultV9, _COLUMN_DEFAULT),
        Case("Procedure", RawProcedureV9, _PROCEDURE),
        Case("View", RawViewV9, _VIEW),
    ],
)
_MODULE = record(
    RawModuleDefV9,
    typespace=("typespace", TYPESPACE),
    tables=("tables", ListOf(_TABLE, "tables")),
    reducers=("reducers", ListOf(_REDUCER, "reducers")),
    types=("types", ListOf(type_def_shape("name"), "type definitions")),
    misc_exports=("misc_exports", ListOf(_MISC, "exports")),
    row_level_security=("row_level_security", ListOf(ROW_LEVEL_SECURITY, "rules")),
)


def encode(raw: RawModuleDefV9) -> bytes:
    """Return the BSATN of a V9 definition, without version tag."""
    out = bytearray()
    _MODULE.write(raw, out)
    return bytes(out)


def decode(buffer: bytes, offset: int) -> RawModuleDefV9:
    """Return the V9 definition that begins at `offset`, behind the version tag."""
    return _MODULE.read(Reader(buffer, offset))


def to_json(raw: RawModuleDefV9) -> dict[str, Any]:
    """Return the document of a V9 definition."""
    document = _MODULE.to_json(raw)
    assert isinstance(document, dict)
    return document


def from_json(document: Any) -> RawModuleDefV9:
    """Return the V9 definition of a document; DecodeError names the path of what does not fit."""
    if type(document) is not dict:
        raise DecodeError("$: expected the document of a V9 definition, an object")
    return _MODULE.from_json(document, "$")
