"""Tables as guests see them: by id, with everything bound that host functions need of them.

Responsible for: which names and ids a guest may use, keys and bounds from a guest's bytes, checks of rows, write-back.
Not responsible for: memory and handles (`host`), rules of tables (`stdb.datastore`).

Source: spec 04 sections 3.2, 3.4 and 3.5.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stdb.datastore.index import Bound, Key, UniqueIndex
from stdb.datastore.schedules import RowSchedule
from stdb.errors import DecodeError
from stdb.sats import bsatn, keys
from stdb.sats.types import AlgebraicType, Element, Product, Scalar, ScalarKind
from stdb.schema.system_tables import ENVIRONMENT_TABLE_ID

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore
    from stdb.datastore.table import AnyIndex, Table
    from stdb.schema.model import TableDef

__all__ = ["BoundIndex", "BoundTable", "Tables"]

_INCLUDED, _EXCLUDED, _UNBOUNDED = 0, 1, 2


class BoundTable:
    """One table."""

    __slots__ = ("generated", "id", "insert", "is_system", "plain_size", "schedule", "table", "whole")

    def __init__(self, table: "Table") -> None:
        schema = table.schema
        self.table = table
        self.id = schema.id
        self.is_system = schema.is_system
        """Guests read these, and nothing else."""
        self.insert = table.insert
        self.whole: Callable[[bytes], bytes] = _first_of(schema.codec)
        """Returns the row that bytes begin with; what follows one of variable size is nothing, as in the reference.

        Raises DecodeError for what is not one row.
        """
        self.generated = _generated_of(table)
        """Given a row as sent and as stored, returns the values that were generated; None: nothing ever is."""
        self.schedule = None if schema.definition.schedule is None else RowSchedule(schema)
        is_plain = self.generated is None and self.schedule is None and _is_any_bytes(schema.row_type)
        self.plain_size = schema.codec.fixed_size if is_plain else None
        """All bytes of this size are a row, stored as it was sent; None: rows are more than that."""

    def rows_of(self, relation: bytes) -> list[bytes]:
        """Return the rows of an array of rows. Raises DecodeError."""
        count = int.from_bytes(relation[:4], "little")
        if len(relation) < 4 or count > len(relation):
            raise DecodeError(f"{len(relation)} bytes are no {count} rows of table `{self.table.schema.name}`", 0)
        skip, offset, rows = self.table.schema.codec.skip, 4, []
        for _ in range(count):
            end = skip(relation, offset)
            rows.append(relation[offset:end])
            offset = end
        if offset != len(relation):
            raise DecodeError(f"{len(relation) - offset} bytes after the rows", offset)
        return rows


class BoundIndex:
    """One index."""

    __slots__ = (
        *("_columns", "_prefixes", "_row_type"),
        *("find", "find_all", "id", "index", "key_of", "point", "point_size", "table", "update"),
    )

    def __init__(self, table: BoundTable, index: "AnyIndex") -> None:
        row_type = table.table.schema.row_type
        self.table = table
        self.index = index
        self.id = index.id
        self.find = index.find if isinstance(index, UniqueIndex) else None
        """Returns the row that has a key; None where several may."""
        self.find_all = index.find_all
        self._columns = tuple(Element(None, row_type.elements[column].type) for column in index.columns)
        self._prefixes: dict[int, tuple[Any, Callable[[bytes], Key]]] = {}
        codec = bsatn.codec(Product(self._columns))
        self.point_size = codec.fixed_size if _is_any_bytes(codec.type) else None
        """All bytes of this size are a point; None: some are not."""
        self.key_of = keys.row_key(Product(self._columns), tuple(range(len(self._columns))))
        """Returns the key of a point's bytes, which are right."""
        self.point = self._point(_exactly(codec))
        """Returns the key of a point's bytes. Raises DecodeError."""
        self.update = self._updater() if index.unique else None
        """Replaces the row that has a row's key; None where keys are not unique."""

    def _point(self, check: Callable[[bytes], None]) -> Callable[[bytes], Key]:
        key_of = self.key_of

        def point(data: bytes) -> Key:
            check(data)
            return key_of(data)

        return point

    def _updater(self) -> Callable[[bytes], bytes]:
        table, index = self.table.table, self.index
        if index is table.primary and not table.sequences:
            update_key, key_of = table.update_key, table.key_of
            return lambda row: update_key(key_of(row), row)
        return lambda row: table.update(index, row)

    def range(self, prefix: bytes, count: int, lower: bytes, upper: bytes) -> tuple[tuple[Key, ...], Bound, Bound]:
        """Return a range as `Index.scan` takes it. Raises DecodeError."""
        if count >= len(self._columns):
            raise DecodeError(f"a prefix of {count} columns leaves none of index `{self.index.name}` for a range", 0)
        return self._prefix(prefix, count), self._bound(lower, count), self._bound(upper, count)

    def _prefix(self, prefix: bytes, count: int) -> tuple[Key, ...]:
        if not count:
            return ()
        found = self._prefixes.get(count)
        if found is None:
            row = Product(self._columns[:count])
            found = self._prefixes[count] = _exactly(bsatn.codec(row)), keys.row_key(row, tuple(range(count)))
        check, key_of = found
        check(prefix)
        key = key_of(prefix)
        return (key,) if count == 1 else key

    def _bound(self, data: bytes, position: int) -> Bound:
        tag = data[0] if data else -1
        if tag == _UNBOUNDED and len(data) == 1:
            return None
        if tag not in (_INCLUDED, _EXCLUDED):
            raise DecodeError(f"bytes {data[:9].hex()} are no bound of a range", 0)
        column = Product(self._columns[position : position + 1])
        value = data[1:]
        _exactly(bsatn.codec(column))(value)
        return keys.row_key(column, (0,))(value), tag == _INCLUDED

    def is_point(self, prefix: tuple[Key, ...], lower: Bound, upper: Bound) -> Key | None:
        """Return the 1-tuple of the key that a range means which is none; else None."""
        if lower is None or lower != upper or not lower[1] or len(prefix) + 1 != len(self._columns):
            return None
        return (lower[0] if len(self._columns) == 1 else (*prefix, lower[0]),)


class Tables:
    """The tables and indexes of one database, by id and by every name that a guest may use."""

    __slots__ = ("by_id", "datastore", "ids", "index_ids", "indexes")

    def __init__(self, datastore: "Datastore") -> None:
        self.datastore = datastore
        self.by_id: dict[int, BoundTable] = {}
        self.indexes: dict[int, BoundIndex] = {}
        self.ids: dict[str, int] = {}
        self.index_ids: dict[str, int] = {}
        aliases: dict[str, int] = {}
        index_aliases: dict[str, int] = {}
        for table in datastore.tables.values():
            if table.schema.id == ENVIRONMENT_TABLE_ID:
                continue  # guests read it by `env_get` alone
            bound = self.by_id[table.schema.id] = BoundTable(table)
            definition: TableDef = table.schema.definition
            self.ids[definition.name] = aliases[definition.accessor] = bound.id
            if bound.is_system:
                continue
            for index in table.indexes:
                self.indexes[index.id] = BoundIndex(bound, index)
                self.index_ids[index.name] = index.id
                for alias in (index.definition.source_name, index.definition.accessor):
                    if alias is not None:
                        index_aliases.setdefault(alias, index.id)
        self.ids = aliases | self.ids
        self.index_ids = index_aliases | self.index_ids


def _exactly(codec: bsatn.Codec) -> Callable[[bytes], None]:
    """Return what checks that bytes are one value and nothing else."""
    skip, size = codec.skip, codec.fixed_size
    if size is not None and _is_any_bytes(codec.type):

        def check_size(data: bytes) -> None:
            if len(data) != size:
                raise DecodeError(f"{len(data)} bytes are no value of {size}", len(data))

        return check_size

    def check(data: bytes) -> None:
        if skip(data, 0) != len(data):
            raise DecodeError(f"{len(data)} bytes are more than one value", len(data))

    return check


def _first_of(codec: bsatn.Codec) -> Callable[[bytes], bytes]:
    """Return what gives the value that bytes begin with; where values have one size there must be nothing else."""
    skip, size = codec.skip, codec.fixed_size
    if size is not None:
        check, is_any = _exactly(codec), _is_any_bytes(codec.type)

        def exact(data: bytes) -> bytes:
            if not is_any or len(data) != size:
                check(data)
            return data

        return exact

    def first(data: bytes) -> bytes:
        end = skip(data, 0)
        return data if end == len(data) else data[:end]

    return first


def _is_any_bytes(type_: AlgebraicType) -> bool:
    """Tell whether all bytes of the right length are a value: such as integers, and products of them."""
    if isinstance(type_, Product):
        return all(_is_any_bytes(element.type) for element in type_.elements)
    return isinstance(type_, Scalar) and type_.kind not in (ScalarKind.BOOL, ScalarKind.STRING)


def _generated_of(table: "Table") -> Callable[[bytes, bytes], bytes] | None:
    """Return what gives the values that were generated for a row, in column order."""
    if not table.sequences:
        return None
    columns = table.schema.definition.columns
    places: list[tuple[Callable[..., int], int]] = []
    for position in sorted(sequence.column for sequence in table.sequences):
        before = Product(tuple(Element(None, column.type) for column in columns[:position]))
        size = bsatn.codec(columns[position].type).fixed_size
        assert size is not None, "validation lets sequences stand on integers only"
        places.append((bsatn.codec(before).skip, size))

    def generated(sent: bytes, stored: bytes) -> bytes:
        parts = []
        for skip, size in places:
            start = skip(sent, 0)
            if not any(sent[start : start + size]):
                parts.append(stored[start : start + size])
        return b"".join(parts)

    return generated
