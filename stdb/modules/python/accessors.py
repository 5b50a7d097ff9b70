"""Accessors: one class per table whose hot operations are generated, and the indexes in the spelling of other SDKs.

Responsible for: `get`, `insert`, `update` with everything bound beforehand; `ctx.db.user.name.find(…)`.
Not responsible for: the plain operations (`table`), which a test holds these to.

The generated source knows columns by identifiers that the row class has checked; nothing else of the author's enters.

Source: spec 08, "Access inside a reducer".
"""

from collections.abc import Iterator
from functools import lru_cache
from struct import Struct
from types import CodeType
from typing import Any

from stdb.datastore.index import UniqueIndex
from stdb.datastore.table import AnyIndex
from stdb.errors import NoSuchIndex
from stdb.modules.python.table import Binding, Rows, Table, check_open
from stdb.sats.types import Scalar, ScalarKind
from stdb.schema.model import IndexAlgorithm

__all__ = ["IndexAccessor", "IndexRows", "UniqueAccessor", "index_key_prefix", "index_names", "make_table"]

_FORMATS = {
    **{ScalarKind.BOOL: "?", ScalarKind.I8: "b", ScalarKind.U8: "B", ScalarKind.I16: "h", ScalarKind.U16: "H"},
    **{ScalarKind.I32: "i", ScalarKind.U32: "I", ScalarKind.I64: "q", ScalarKind.U64: "Q"},
    **{ScalarKind.F32: "f", ScalarKind.F64: "d"},
}
_OWN_KEYS = set(_FORMATS) - {ScalarKind.F32, ScalarKind.F64} | {ScalarKind.STRING}
_OPENED = (
    "    transaction = store.transaction",
    "    if transaction is None or transaction.expired:",
    "        check_open(transaction)",
)


class IndexRows:
    """What indexes have in reducers and in views alike."""

    _table: Rows[Any]
    _index: AnyIndex

    def filter(self, *values: object) -> Iterator[Any]:
        """Return the rows whose first columns in the index have these values."""
        return map(self._table._row, self._rows(values))

    def _rows(self, values: tuple[object, ...]) -> list[bytes]:
        return list(self._index.scan(index_key_prefix(self._table._open(), self._index, values)))

    def _one(self, values: tuple[object, ...]) -> Any:
        """Return the row that has these values, or None."""
        if len(values) != len(self._index.columns):
            raise TypeError(
                f"find() on index {self._index.name} takes {len(self._index.columns)} values, got {len(values)}"
            )
        rows = self._rows(values)
        return self._table._row(rows[0]) if rows else None


class IndexAccessor(IndexRows):
    """The rows by the columns of one index."""

    _table: Table[Any]

    def __init__(self, table: Table[Any], index: AnyIndex) -> None:
        self._table = table
        self._index = index

    def delete(self, *values: object) -> int:
        """Remove the rows whose first columns in the index have these values; return how many there were."""
        rows = self._rows(values)
        stored = self._table._binding.stored
        for row in rows:
            stored.delete(row)
        return len(rows)


class UniqueAccessor(IndexAccessor):
    """The one row by the columns of a unique index."""

    def find(self, *values: object) -> Any:
        """Return the row that has these values, or None."""
        return self._one(values)

    def update(self, row: Any) -> Any:
        """Replace the row that has this row's values in the index; return it as stored."""
        binding = self._table._open()
        stored = binding.stored.update(self._index, binding.bytes_of(row, "update"))
        return self._table._row(stored)


def index_key_prefix(binding: Binding, index: AnyIndex, values: tuple[object, ...]) -> tuple[Any, ...]:
    """Return the keys of an author's values for the first columns of an index.

    Raises:
        TypeError: There are too many, none, or one of another type.
        NoSuchIndex: A hash index is not given all.
    """
    columns = index.columns
    if not 0 < len(values) <= len(columns):
        names = ", ".join(binding.access.shape.columns[i].name for i in columns)
        raise TypeError(f"index {index.name} is over {names}: give one value for each, or for the first ones")
    prefix = tuple(binding.access.columns[i].key(value) for i, value in zip(columns, values, strict=False))
    if len(prefix) < len(columns) and index.definition.algorithm is IndexAlgorithm.HASH:
        raise NoSuchIndex(f"index {index.name} is a hash index: give a value for each of its columns")
    return prefix


def make_table(binding: Binding) -> Table[Any]:
    """Return the Table of a binding: of a class of its own, with accessors for its indexes."""
    primary = binding.stored.primary
    methods = _hot_methods(binding)
    table: Table[Any] = type("Table", (Table,), methods)()
    table._binding = binding
    operations = set(dir(Table))
    for index in binding.stored.indexes:
        accessor = _accessor(table, index, methods, is_primary=index is primary)
        for name in index_names(binding, index):
            if name not in operations:
                table.__dict__.setdefault(name, accessor)
    return table


def index_names(binding: Binding, index: AnyIndex) -> tuple[str, ...]:
    """Return by which attributes of a table an index is reached."""
    only = binding.access.shape.columns[index.columns[0]].name if len(index.columns) == 1 else None
    return tuple(name for name in (index.definition.accessor, only) if name is not None and name.isidentifier())


def _accessor(table: Table[Any], index: AnyIndex, methods: dict[str, Any], *, is_primary: bool) -> IndexAccessor:
    if not isinstance(index, UniqueIndex):
        return IndexAccessor(table, index)
    if not (is_primary and "get" in methods):
        return UniqueAccessor(table, index)
    hot = {"find": methods["get"], "update": methods["update"]}
    accessor: UniqueAccessor = type("UniqueAccessor", (UniqueAccessor,), hot)(table, index)
    return accessor


def _hot_methods(binding: Binding) -> dict[str, Any]:
    """Return generated `get`, `update` and `insert` for a table with a primary key; nothing for others."""
    index = binding.stored.primary
    if index is None or binding.primary_key is None:
        return {}
    source, names = _source(binding, index)
    exec(_compiled(source), names)
    return {name: names[name] for name in ("get", "update", "insert")}


@lru_cache(maxsize=1024)
def _compiled(source: str) -> CodeType:
    """Return the code; tables of one shape have the same, and so has a table that is attached again."""
    return compile(source, "<table operations>", "exec")


def _source(binding: Binding, index: UniqueIndex) -> tuple[str, dict[str, Any]]:
    """Return the source of the hot operations and the globals that it needs."""
    layout, of = _fixed_layout(binding), binding.access.columns[index.columns[0]]
    own_key = isinstance(of.type, Scalar) and of.type.kind in _OWN_KEYS
    names: dict[str, Any] = {
        **{"store": binding.store, "check_open": check_open, "row_class": binding.row_class, "key": of.key},
        **{"find": index.find, "key_of_row": binding.stored.key_of, "new": object.__new__},
        **{"update_key": binding.stored.update_key, "insert_row": binding.stored.insert},
        **{"decode": binding.decode, "encode": binding.encode_new, "bytes_of": binding.bytes_of},
        **({} if layout is None else {"unpack": layout.unpack, "pack": layout.pack}),
    }
    read, write = _reading(binding, layout), _writing(binding, layout)
    place = "key_of_row(data)"
    if own_key and not binding.stored.sequences:
        place = f"row.{binding.access.shape.columns[index.columns[0]].name}"
    lines = [
        "def get(self, value):",
        *_OPENED,
        "    data = find(value)" if own_key else "    data = find(key(value))",
        "    if data is None:",
        *(["        key(value)  # which says what is wrong with a value of another type"] if own_key else []),
        "        return None",
        *read,
        "def update(self, row):",
        *_OPENED,
        "    if row.__class__ is not row_class:",
        "        bytes_of(row, 'update')",
        *write,
        f"    data = update_key({place}, data)",
        *(["    return row"] if _is_exact(binding) else read),
        "def insert(self, row):",
        *_OPENED,
        "    if row.__class__ is not row_class:",
        "        bytes_of(row, 'insert')",
        *write,
        "    data = insert_row(data)",
        *read,
    ]
    return "\n".join(lines), names


def _reading(binding: Binding, layout: Struct | None) -> list[str]:
    """Return the lines that return the row of the bytes `data`."""
    if layout is None:
        return ["    return decode(data)[0]"]
    targets = "".join(f"row.{column.name}, " for column in binding.access.shape.columns)
    return ["    row = new(row_class)", f"    {targets}= unpack(data)", "    return row"]


def _writing(binding: Binding, layout: Struct | None) -> list[str]:
    """Return the lines that set `data` to the bytes of `row`; `encode` says what is wrong where packing fails."""
    if layout is None or "?" in layout.format:  # which packs anything
        return ["    data = encode(row)"]
    values = ", ".join(f"row.{column.name}" for column in binding.access.shape.columns)
    return ["    try:", f"        data = pack({values})", "    except Exception:", "        data = encode(row)"]


def _fixed_layout(binding: Binding) -> Struct | None:
    """Return the layout of rows that are scalars of a fixed size and nothing else."""
    kinds = [column.type.kind if isinstance(column.type, Scalar) else None for column in binding.access.columns]
    if not kinds or any(kind not in _FORMATS for kind in kinds):
        return None
    return Struct("<" + "".join(_FORMATS[kind] for kind in kinds if kind is not None))


def _is_exact(binding: Binding) -> bool:
    """Tell whether an updated row always comes back as it was given, so that nothing needs decoding."""
    types = [column.type for column in binding.access.columns]
    rounded = any(not isinstance(type_, Scalar) or type_.kind is ScalarKind.F32 for type_ in types)
    return not rounded and not binding.stored.sequences
