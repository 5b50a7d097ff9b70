"""Tables: rows as their BSATN bytes, kept in step with every index, every change noted in the undo log.

Responsible for: set semantics, unique constraints, auto-increment columns (07 section 2), look-ups, `verify`.
Not responsible for: commit and rollback (`transaction`), the catalogue (`catalog`), decoding rows for modules.

A row's *place* is its key in `Table.stored`: the primary key where there is one, else the row itself. Writers take rows
that are valid BSATN at the row type; who gets rows from outside checks them with `Table.check_row` first. No writer
calls code of a module, and each computes all keys before it changes anything: a failed write leaves no trace.
"""

from collections.abc import Callable, Iterator, ValuesView
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeAlias

from sortedcontainers import SortedList

from stdb.datastore.delta import UndoEntry
from stdb.datastore.index import Key, ManyIndex, UniqueIndex
from stdb.datastore.sequence import Sequence
from stdb.errors import DecodeError, NoSuchRow, StorageError, UniqueViolation
from stdb.sats import bsatn, keys, satn
from stdb.sats.types import Element, Product
from stdb.schema.model import IndexDef, TableDef, UniqueDef
from stdb.schema.system_tables import USER_ID_FIRST

__all__ = ["VIEW_ID_FIRST", "AnyIndex", "Table", "TableSchema"]

AnyIndex: TypeAlias = UniqueIndex | ManyIndex

VIEW_ID_FIRST = 1 << 32
"""The first id of a table that is an instance of a view (`stdb.datastore.views`): no other table's id is as large."""
INDEXED_AT_ONCE = 1000
"""Rows that `Table.index_rows` enters before others may run."""


@dataclass(frozen=True, slots=True, eq=False)
class TableSchema:
    """What a table is: its definition and the ids its database gave. Ids are in the order of the definition's parts.

    After a restart the definition is read from the catalogue, which holds neither `type_ref` nor column defaults.
    """

    id: int
    definition: TableDef
    index_ids: tuple[int, ...] = ()
    constraint_ids: tuple[int, ...] = ()
    sequence_ids: tuple[int, ...] = ()
    schedule_id: int | None = None
    shown_id: int = 0
    """The id that clients are told: its own, unless another is given, as for an instance of a view."""
    name: str = field(init=False)
    row_type: Product = field(init=False)
    codec: Any = field(init=False)
    """The `stdb.sats.bsatn.Codec` of its rows."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shown_id", self.shown_id or self.id)
        object.__setattr__(self, "name", self.definition.name)
        object.__setattr__(self, "row_type", self.definition.row_type)
        object.__setattr__(self, "codec", bsatn.codec(self.row_type))

    @property
    def is_system(self) -> bool:
        """Tell whether it is one of the `st_*` tables."""
        return self.id < USER_ID_FIRST

    @property
    def is_view(self) -> bool:
        """Tell whether it is an instance of a view."""
        return self.id >= VIEW_ID_FIRST


class Table:
    """The rows of one table. Written only while a transaction of its database is open.

    `insert`, `delete_key` and `update_key` are attributes so that a module binds them once and calls them directly.
    """

    __slots__ = (
        "_fill",
        "_others",
        "_sharing",
        "_undo",
        "delete_key",
        "indexes",
        "insert",
        "is_event",
        "key_of",
        "schema",
        "sequences",
        "stored",
        "update_key",
    )

    def __init__(self, schema: TableSchema, undo: list[UndoEntry], sequences: SequenceOf[Sequence] = ()) -> None:
        definition = schema.definition
        self.schema = schema
        self.is_event = definition.is_event
        self.sequences = tuple(sequences)
        self.stored: dict[Key, bytes] = {}
        """Every row by its place."""
        self._undo = undo
        self._fill = _filler(schema, self.sequences) if self.sequences else None
        place = _place_columns(definition)
        self.key_of: Callable[[bytes], Key] = keys.row_key(schema.row_type, place) if place else bytes
        """Returns the place of a row (of bytes, `bytes` is the identity)."""
        self.indexes: tuple[AnyIndex, ...] = tuple(
            self._index(index_id, index, place)
            for index_id, index in zip(schema.index_ids, definition.indexes, strict=True)
        )
        """In the order of the definition, which is that of their ids."""
        self._sharing = tuple(index for index in self.indexes if isinstance(index, UniqueIndex) and index.is_storage)
        self._others = tuple(index for index in self.indexes if index not in self._sharing)
        self.insert: Callable[[bytes], bytes] = self._insert
        """Puts in a row; returns it as stored, generated values included. An identical row there is no change.

        Raises:
            UniqueViolation: Another row has the same unique key; nothing changed but the sequence.
        """
        self.delete_key: Callable[[Key], bytes | None] = self._delete_key
        """Takes out the row at a place; returns it, or None when there is none."""
        self.update_key: Callable[[Key, bytes], bytes] = (
            self._update_key if self._others or self._fill else _updater(self)
        )
        """Replaces the row at a place by one with the same place; returns it as stored.

        The place is the primary key (a table without one has no use for it). A zero in an auto-increment column is
        filled first, so that a zero primary key means a new one and finds nothing.

        Raises:
            NoSuchRow: No row is at that place.
            UniqueViolation: Another row has the same unique key.
        """

    def _index(self, index_id: int, definition: IndexDef, place: tuple[int, ...] | None) -> AnyIndex:
        key_of = keys.row_key(self.schema.row_type, definition.columns)
        unique = _unique_over(self.schema.definition, definition.columns)
        if unique is None:
            return ManyIndex(index_id, definition, key_of, self.stored)
        is_storage = definition.columns == place
        return UniqueIndex(index_id, definition, key_of, unique.name, self.stored if is_storage else None)

    def __len__(self) -> int:
        return len(self.stored)

    def __bool__(self) -> bool:
        return True  # an empty table is still a table

    def __repr__(self) -> str:
        return f"<Table {self.schema.id} {self.schema.name}: {len(self.stored)} rows>"

    # Reading

    def rows(self) -> ValuesView[bytes]:
        """Return a live view of all rows, in no particular order; copy it before writing while you iterate."""
        return self.stored.values()

    def __contains__(self, row: bytes) -> bool:
        return self.stored.get(self.key_of(row)) == row

    def index(self, name: str) -> AnyIndex | None:
        """Return the index of that canonical name."""
        return next((index for index in self.indexes if index.name == name), None)

    def index_on(self, columns: tuple[int, ...]) -> AnyIndex | None:
        """Return the first index on exactly these columns in this order."""
        return next((index for index in self.indexes if index.columns == columns), None)

    @property
    def primary(self) -> UniqueIndex | None:
        """Return the index of the primary key."""
        return self._sharing[0] if self._sharing else None

    def check_row(self, row: bytes) -> None:
        """Check a row that came from outside.

        Raises:
            DecodeError: It is not exactly one value of the row type.
        """
        end = self.schema.codec.skip(row, 0)
        if end != len(row):
            raise DecodeError(f"{len(row) - end} bytes after a row of table `{self.schema.name}`", end)

    # Writing

    def delete(self, row: bytes) -> bool:
        """Take out a row by its full value; tell whether it was there."""
        place = self.key_of(row)
        if self.stored.get(place) != row:
            return False
        self.delete_key(place)
        return True

    def update(self, index: AnyIndex, row: bytes) -> bytes:
        """Replace the row that has the new row's key in a unique index; return the new row as stored.

        Raises:
            NoSuchRow: No row has that key.
            UniqueViolation: A row other than the replaced one has the same unique key.
        """
        if self._fill:
            row = self._fill(row)
        assert isinstance(index, UniqueIndex), f"index {index.name} is not unique: the transaction refuses that"
        key = index.key_of(row)
        old = index.find(key)
        if old is None:
            raise NoSuchRow(f"Key {_text_of(self, index, row)} was not found in index `{index.name}`")
        self.replace(old, row)
        return row

    def replace(self, old: bytes, new: bytes) -> None:
        """Replace a row that is there by another.

        Raises:
            UniqueViolation: A row other than `old` has the same unique key.
        """
        if old == new:
            return
        stored, old_place, new_place = self.stored, self.key_of(old), self.key_of(new)
        if new_place != old_place and new_place in stored:
            raise self._violation(new, old)
        moves = [(index, index.key_of(old), index.key_of(new)) for index in self._others]
        for index, _, key in moves:
            if index.unique and index.entries.get(key, old) != old:
                raise self._violation(new, old)
        if new_place == old_place:
            self._undo.append((self, old_place, old, new))
        else:
            self._undo.append((self, old_place, old, None))
            self._undo.append((self, new_place, None, new))
            del stored[old_place]
        stored[new_place] = new
        for index, old_key, new_key in moves:
            index.move(old_key, new_key, old_place, new_place, new)
        for shared in self._sharing:
            if shared.order is not None and new_place != old_place:
                shared.order.remove(old_place)
                shared.order.add(new_place)

    def restore(self, row: bytes) -> None:
        """Put in a row as another table had it: nothing is filled, and no row has one of its unique keys."""
        place = self.key_of(row)
        assert place not in self.stored, f"table {self.schema.name} has a row at {place!r}"
        self._undo.append((self, place, None, row))
        self.put(row)

    def clear(self) -> int:
        """Take out every row; return how many there were."""
        count = len(self.stored)
        for place in list(self.stored):
            self.delete_key(place)
        return count

    def _insert(self, row: bytes) -> bytes:
        if self._fill:
            row = self._fill(row)
        place = self.key_of(row)
        present = self.stored.get(place)
        if present is not None:
            if present == row:
                return present
            raise self._violation(row)
        entered = [(index, index.key_of(row)) for index in self._others]
        for index, key in entered:
            if index.unique and key in index.entries:
                raise self._violation(row)
        self._undo.append((self, place, None, row))
        self.stored[place] = row
        for index, key in entered:
            index.add(key, place, row)
        for shared in self._sharing:
            if shared.order is not None:
                shared.order.add(place)
        return row

    def _delete_key(self, place: Key) -> bytes | None:
        row = self.stored.get(place)
        if row is None:
            return None
        self._undo.append((self, place, row, None))
        self.take(place, row)
        return row

    def _update_key(self, place: Key, row: bytes) -> bytes:
        if self._fill:
            filled = self._fill(row)
            if filled is not row:
                row, place = filled, self.key_of(filled)
        old = self.stored.get(place)
        if old is None:
            raise _no_such_key(self, row)
        self.replace(old, row)
        return row

    # Without undo: rollback, replay, event tables

    def put(self, row: bytes) -> None:
        """Put in a row that is not there, without checks or undo."""
        place = self.key_of(row)
        self.stored[place] = row
        for index in self._others:
            index.add(index.key_of(row), place, row)
        for shared in self._sharing:
            if shared.order is not None:
                shared.order.add(place)

    def index_rows(self) -> Iterator[None]:
        """Make the indexes those of the rows, after rows were put into `stored` directly; in slices."""
        for index in self.indexes:
            index.order = None
        for index in self._others:
            index.entries.clear()
            add, key_of = index.add, index.key_of
            rows = iter(self.stored.items())
            while part := list(islice(rows, INDEXED_AT_ONCE)):
                for place, row in part:
                    add(key_of(row), place, row)
                yield

    def apply(self, deletes: SequenceOf[bytes], inserts: SequenceOf[bytes], changes: dict[Key, bytes | None]) -> None:
        """Change rows as a stored transaction did; deletes first, an insert may have the key of a deleted row.

        What it did is entered in `changes`: the new row by place, or None.

        Raises:
            StorageError: A deleted row is not there, or an inserted one's place is taken.
        """
        stored, key_of = self.stored, self.key_of
        is_plain = not self._others
        for shared in self._sharing:
            if shared.order is not None:
                is_plain = False
        if is_plain and len(deletes) == len(inserts):
            done = 0
            for old, row in zip(deletes, inserts, strict=True):  # updates keep the order in which they were made
                place = key_of(row)
                if stored.get(place) != old:  # not the row of this place
                    break
                stored[place] = changes[place] = row
                done += 1
            else:
                return
            deletes, inserts = deletes[done:], inserts[done:]
        for row in deletes:
            place = key_of(row)
            if stored.get(place) != row:
                raise StorageError(f"table `{self.schema.name}`: the row to delete is not there: {row.hex()}")
            changes[place] = None
            if is_plain:
                del stored[place]
            else:
                self.take(place, row)
        for row in inserts:
            place = key_of(row)
            if place in stored:
                raise StorageError(f"table `{self.schema.name}`: a row with the key of {row.hex()} is there already")
            changes[place] = row
            if is_plain:
                stored[place] = row
            else:
                self.put(row)

    def take(self, place: Key, row: bytes) -> None:
        """Take out the row at a place, without undo."""
        del self.stored[place]
        for index in self._others:
            index.remove(index.key_of(row), place)
        for shared in self._sharing:
            if shared.order is not None:
                shared.order.remove(place)

    def revert(self, place: Key, old: bytes | None, new: bytes | None) -> None:
        """Undo one entry of the undo log."""
        if new is not None:
            self.take(place, new)
        if old is not None:
            self.put(old)

    # Errors and checks

    def _violation(self, row: bytes, replaced: bytes | None = None) -> UniqueViolation:
        """Return the error for a row that collides; the first index in order that has its key is named."""
        for index in self.indexes:
            if isinstance(index, UniqueIndex):
                holder = index.find(index.key_of(row))
                if holder is not None and holder != replaced:
                    return _violation_of(self, index, row)
        raise AssertionError(f"no unique index of table {self.schema.name} holds the key of {row!r}")

    def verify(self) -> None:
        """Check every row against its type and every index against the rows.

        Raises:
            StorageError: Something differs; says what.
        """
        name = self.schema.name
        for place, row in self.stored.items():
            try:
                self.check_row(row)
            except DecodeError as error:
                raise StorageError(f"table `{name}`: row {row.hex()} does not decode: {error}") from error
            if self.key_of(row) != place:
                raise StorageError(f"table `{name}`: row {row.hex()} is kept at {place!r}, its place is elsewhere")
        for index in self.indexes:
            self._verify_index(index)

    def _verify_index(self, index: AnyIndex) -> None:
        where = f"table `{self.schema.name}`, index `{index.name}`"
        expected: dict[Key, dict[Key, bytes]] = {}
        for place, row in self.stored.items():
            expected.setdefault(index.key_of(row), {})[place] = row
        for key in expected.keys() | index.entries.keys():
            wanted, found = sorted(expected.get(key, {}).values()), sorted(index.find_all(key))
            if wanted != found:
                raise StorageError(f"{where}: key {key!r} finds {found}, the rows that have it are {wanted}")
            if index.unique and len(wanted) > 1:
                raise StorageError(f"{where}: unique key {key!r} is that of {wanted}")
        if index.order is not None and index.order != SortedList(expected):
            raise StorageError(f"{where}: the order holds {list(index.order)}, the keys are {sorted(expected)}")


def _place_columns(definition: TableDef) -> tuple[int, ...] | None:
    """Return the column that tells rows apart: the primary key, if a unique constraint and an index say so too."""
    columns = (definition.primary_key,)
    if definition.primary_key is None or _unique_over(definition, columns) is None:  # type: ignore[arg-type]  # not None
        return None
    return (definition.primary_key,) if any(index.columns == columns for index in definition.indexes) else None


def _unique_over(definition: TableDef, columns: tuple[int, ...]) -> UniqueDef | None:
    """Return the unique constraint on these columns, in whatever order."""
    return next((unique for unique in definition.uniques if set(unique.columns) == set(columns)), None)


def _updater(table: Table) -> Callable[[Key, bytes], bytes]:
    """Return `Table._update_key` for a table with a primary key, no other index and no sequence: the hot path."""
    stored, get, append = table.stored, table.stored.get, table._undo.append

    def update_key(place: Key, row: bytes) -> bytes:
        old = get(place)
        if old is None:
            raise _no_such_key(table, row)
        if old != row:
            append((table, place, old, row))
            stored[place] = row
        return row

    return update_key


def _filler(schema: TableSchema, sequences: tuple[Sequence, ...]) -> Callable[[bytes], bytes]:
    """Return the function that replaces zeros in the auto-increment columns of a row by generated values."""
    fillers = [_column_filler(schema, sequence) for sequence in sorted(sequences, key=lambda each: each.column)]

    def fill(row: bytes) -> bytes:
        for filler in fillers:
            row = filler(row)
        return row

    return fillers[0] if len(fillers) == 1 else fill


def _column_filler(schema: TableSchema, sequence: Sequence) -> Callable[[bytes], bytes]:
    columns = schema.definition.columns
    size = bsatn.codec(columns[sequence.column].type).fixed_size
    assert size is not None, "validation lets sequences stand on integers only"
    before = bsatn.codec(Product(tuple(Element(None, column.type) for column in columns[: sequence.column])))
    zero, mask, fixed, skip, generate = bytes(size), (1 << 8 * size) - 1, before.fixed_size, before.skip, sequence.next

    def fill(row: bytes) -> bytes:
        start = skip(row, 0) if fixed is None else fixed
        if row[start : start + size] != zero:
            return row
        return row[:start] + (generate() & mask).to_bytes(size, "little") + row[start + size :]

    return fill


def _text_of(table: Table, index: AnyIndex, row: bytes) -> str:
    """Return a row's key in an index as SATS text: a value, or a product of several."""
    columns = [table.schema.definition.columns[position] for position in index.columns]
    row_type = table.schema.row_type
    values = tuple(keys.row_column(row_type, position)(row) for position in index.columns)
    if len(columns) == 1:
        return satn.format_value(columns[0].type, values[0])
    return satn.format_value(Product(tuple(Element(column.name, column.type) for column in columns)), values)


def _no_such_key(table: Table, row: bytes) -> NoSuchRow:
    index = table.primary
    assert index is not None, "update_key needs a primary key"
    return NoSuchRow(f"Key {_text_of(table, index, row)} was not found in index `{index.name}`")


def _violation_of(table: Table, index: UniqueIndex, row: bytes) -> UniqueViolation:
    """Return the error in the reference's words; what it calls the constraint is the index (06 section 4, ran)."""
    columns = tuple(table.schema.definition.columns[position].name for position in index.columns)
    listed, value = ", ".join(f'"{column}"' for column in columns), _text_of(table, index, row)
    return UniqueViolation(
        f"Unique constraint violation '{index.name}' in table '{table.schema.name}':"
        f" column(s): '[{listed}]' value: {value}",
        table=table.schema.name,
        constraint=index.constraint,
        columns=columns,
        value=value,
    )
