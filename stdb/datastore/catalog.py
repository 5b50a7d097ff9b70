"""The catalogue: tables, indexes, constraints and sequences as rows of the `st_*` tables.

Responsible for: creating, altering and dropping tables within a transaction; reading definitions back from rows.
Not responsible for: whether a definition is valid (`stdb.schema`), which steps a migration takes.

A change of schema writes catalogue rows and puts a table of the new layout in the place of the old one; the undo log
gets the way back. Rows of tables dropped on the way are deleted first, so that deltas and replay see them go.

Source: 04 section 12; ids and rows as the real server shows them (recorded).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from stdb.datastore.sequence import Sequence
from stdb.datastore.table import Table, TableSchema
from stdb.datastore.views import HIDDEN_COLUMN, ViewShape, backing_table
from stdb.errors import SchemaError, UniqueViolation
from stdb.sats import keys, meta
from stdb.sats.profiles import STORED
from stdb.sats.types import Element, Product
from stdb.schema.model import (
    Access,
    ColumnDef,
    IndexAlgorithm,
    IndexDef,
    ScheduleDef,
    SequenceDef,
    TableDef,
    UniqueDef,
)

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore

__all__ = [
    "CATALOG_TABLES",
    "RULES_TABLE",
    "Catalog",
    "SequenceAt",
    "StoredView",
    "read_backing_ids",
    "read_rules",
    "read_schemas",
    "read_views",
]

CATALOG_TABLES = (
    "st_table",
    "st_column",
    "st_sequence",
    "st_index",
    "st_constraint",
    "st_scheduled",
    "st_view",
    "st_view_param",
    "st_view_column",
    "st_event_table",
    "st_table_accessor",
    "st_index_accessor",
    "st_column_accessor",
)
"""The system tables whose rows say what tables and views there are."""
RULES_TABLE = "st_row_level_security"
"""The system table whose rows are the rules of row-level security."""

_BTREE, _DIRECT, _HASH = 1, 2, 3
_UNIQUE = 1
_TAGS = {IndexAlgorithm.BTREE: _BTREE, IndexAlgorithm.DIRECT: _DIRECT, IndexAlgorithm.HASH: _HASH}
_ALGORITHMS = {tag: algorithm for algorithm, tag in _TAGS.items()}
_ACCESS_WORDS = {Access.PUBLIC: "public", Access.PRIVATE: "private"}
_ACCESS = {word: access for access, word in _ACCESS_WORDS.items()}


class SequenceAt(NamedTuple):
    """Where a sequence goes on: after a restart, and in this life if that is elsewhere."""

    allocated: int
    position: tuple[int, int] | None = None

    @classmethod
    def of(cls, sequence: Sequence) -> "SequenceAt":
        """Return where a sequence stands."""
        return cls(sequence.allocated, sequence.position)


_FROM_THE_START: Mapping[str, SequenceAt] = {}


class Catalog:
    """Changes the schema of one database, within its open transaction. Ids are never given twice."""

    def __init__(self, datastore: "Datastore") -> None:
        self._datastore = datastore

    def create_table(self, definition: TableDef, sequences: Mapping[str, SequenceAt] = _FROM_THE_START) -> Table:
        """Create an empty table and return it. Sequences named in `sequences` go on there, others begin.

        Raises:
            UniqueViolation: There is a table of that name.
        """
        for unique in definition.uniques:
            _require_index(definition, unique)
        schema = TableSchema(
            self._next_id("st_table"),
            definition,
            tuple(self._next_id("st_index") for _ in definition.indexes),
            tuple(self._next_id("st_constraint") for _ in definition.uniques),
            tuple(self._next_id("st_sequence") for _ in definition.sequences),
            self._next_id("st_scheduled") if definition.schedule else None,
        )
        made = self._new_sequences(schema, sequences)
        self.write(schema, "user", {sequence.id: sequence.allocated for sequence in made})
        return self._datastore.install(schema, made)

    def recreate_table(
        self, table: Table, definition: TableDef, sequences: Mapping[str, SequenceAt] | None = None
    ) -> Table:
        """Put an empty table of this definition in a table's place and return it; all its ids are new.

        Sequences go on as `sequences` says, by default every one that the table had.
        """
        if sequences is None:
            sequences = {each.definition.name: SequenceAt.of(each) for each in table.sequences}
        self.drop_table(table)
        return self.create_table(definition, sequences)

    def _moved(self, table: Table, definition: TableDef) -> Table:
        """Put a table of this definition in a table's place, with all its rows, under new ids; return it."""
        rows = list(table.rows())
        moved = self.recreate_table(table, definition)
        for row in rows:
            moved.restore(row)
        return moved

    def drop_table(self, table: Table) -> None:
        """Delete a table's rows, then the table."""
        schema = table.schema
        table.clear()
        self._erase(schema.id, schema.definition)
        self._datastore.uninstall(schema.id)
        if schema.id in self._datastore.rules:
            self._delete(RULES_TABLE, table_id=schema.id)
            self._datastore.refresh_rules()

    def create_view(self, shape: ViewShape) -> None:
        """Write a view and its backing table, which is none: rows of views are in their instances.

        Raises:
            UniqueViolation: There is a table or view of that name.
        """
        view_id, definition = self._next_id("st_view"), backing_table(shape)
        schema = TableSchema(
            self._next_id("st_table"),
            definition,
            tuple(self._next_id("st_index") for _ in definition.indexes),
            tuple(self._next_id("st_constraint") for _ in definition.uniques),
        )
        self.write(schema, "user")
        self._insert("st_view", view_id, shape.name, schema.id, shape.is_public, shape.is_anonymous)
        for position, param in enumerate(shape.params.elements):
            self._insert("st_view_param", view_id, position, param.name or "", meta.encode_type(param.type, STORED))
        for position, column in enumerate(shape.columns):
            self._insert("st_view_column", view_id, position, column.name, meta.encode_type(column.type, STORED))

    def drop_view(self, view: "StoredView") -> None:
        """Delete what the catalogue says of a view."""
        for name in ("st_view_column", "st_view_param", "st_view"):
            self._delete(name, view_id=view.id)
        self._erase(view.table_id, backing_table(view.shape))

    def alter_view(self, view: "StoredView", shape: ViewShape) -> None:
        """Write a view anew that differs from its equal in access and accessors alone: it keeps its ids."""
        if shape.is_public != view.shape.is_public:
            self._delete("st_view", view_id=view.id)
            self._insert("st_view", view.id, shape.name, view.table_id, shape.is_public, shape.is_anonymous)
            self._delete("st_table", table_id=view.table_id)
            self._write_table(TableSchema(view.table_id, backing_table(shape)), "user")
        self._delete("st_table_accessor", table_name=shape.name)
        self._delete("st_column_accessor", table_name=shape.name)
        self._write_accessors(backing_table(shape))

    def _erase(self, table_id: int, definition: TableDef) -> None:
        """Delete every catalogue row of a table."""
        for index in definition.indexes:
            self._delete("st_index_accessor", index_name=index.name)
        self._delete("st_table_accessor", table_name=definition.name)
        self._delete("st_column_accessor", table_name=definition.name)
        for name in ("st_event_table", "st_scheduled", "st_sequence", "st_constraint", "st_index", "st_column"):
            self._delete(name, table_id=table_id)
        self._delete("st_table", table_id=table_id)

    def replace_rules(self, rules: Iterable[tuple[int, str]]) -> None:
        """Make these the rules: ids of protected tables and SQL, which `stdb.sql.rules.replace_rules` has checked."""
        self._datastore.table(RULES_TABLE).clear()
        for table_id, sql in rules:
            self._insert(RULES_TABLE, table_id, sql)
        self._datastore.refresh_rules()

    def create_index(self, table: Table, index: IndexDef) -> Table:
        """Build an index over the rows that are there; return the table in its new layout."""
        schema = table.schema
        index_id = self._next_id("st_index")
        self._write_index(schema.id, index_id, index)
        return self._alter(
            table,
            index_ids=(*schema.index_ids, index_id),
            definition=replace(schema.definition, indexes=(*schema.definition.indexes, index)),
        )

    def drop_index(self, table: Table, name: str, *, is_replaced: bool = False) -> Table:
        """Drop an index; return the table in its new layout.

        Raises:
            SchemaError: A unique constraint stands on it; drop that first, unless another index comes in its place.
        """
        definition, ids = _without(table.schema.definition, "indexes", table.schema.index_ids, name)
        if not is_replaced:
            for unique in definition.uniques:
                _require_index(definition, unique)
        self._delete("st_index", table_id=table.schema.id, index_name=name)
        self._delete("st_index_accessor", index_name=name)
        return self._alter(table, definition=definition, index_ids=ids)

    def create_unique(self, table: Table, unique: UniqueDef) -> Table:
        """Forbid two rows with the same key from now on; return the table in its new layout.

        Raises:
            UniqueViolation: Two rows have the same key already; nothing changed.
            SchemaError: No index is on these columns; nothing changed.
        """
        schema = table.schema
        _require_index(schema.definition, unique)
        _require_distinct(table, unique)
        constraint_id = self._next_id("st_constraint")
        self._write_unique(schema.id, constraint_id, unique)
        return self._alter(
            table,
            constraint_ids=(*schema.constraint_ids, constraint_id),
            definition=replace(schema.definition, uniques=(*schema.definition.uniques, unique)),
        )

    def drop_unique(self, table: Table, name: str) -> Table:
        """Allow duplicates from now on; return the table in its new layout. Its index stays."""
        definition, ids = _without(table.schema.definition, "uniques", table.schema.constraint_ids, name)
        self._delete("st_constraint", table_id=table.schema.id, constraint_name=name)
        return self._alter(table, definition=definition, constraint_ids=ids)

    def create_sequence(self, table: Table, sequence: SequenceDef) -> Table:
        """Fill zeros of a column from now on; return the table in its new layout."""
        schema = table.schema
        sequence_id = self._next_id("st_sequence")
        start, _, _ = sequence.parameters()
        self._write_sequence(schema.id, sequence_id, sequence, start)
        return self._alter(
            table,
            (*table.sequences, Sequence(sequence_id, sequence, start, self._datastore.reservations)),
            sequence_ids=(*schema.sequence_ids, sequence_id),
            definition=replace(schema.definition, sequences=(*schema.definition.sequences, sequence)),
        )

    def drop_sequence(self, table: Table, name: str) -> Table:
        """Store zeros as they are from now on; return the table in its new layout."""
        definition, ids = _without(table.schema.definition, "sequences", table.schema.sequence_ids, name)
        self._delete("st_sequence", table_id=table.schema.id, sequence_name=name)
        left = tuple(sequence for sequence in table.sequences if sequence.id in ids)
        return self._alter(table, left, definition=definition, sequence_ids=ids)

    def set_access(self, table: Table, access: Access) -> Table:
        """Make a table public or private; return it."""
        return self._set(table, access=access)

    def alter_index(self, table: Table, index: IndexDef) -> Table:
        """Give an index another source name; return the table."""
        indexes = tuple(index if each.name == index.name else each for each in table.schema.definition.indexes)
        self._delete("st_index_accessor", index_name=index.name)
        self._insert("st_index_accessor", index.name, index.source_name or index.name)
        return self._alter(table, definition=replace(table.schema.definition, indexes=indexes))

    def change_columns(self, table: Table, columns: tuple[ColumnDef, ...]) -> Table:
        """Give columns other types at which every stored row means the same; return the table in its new layout."""
        table_id = table.schema.id
        self._delete("st_column", table_id=table_id)
        for position, column in enumerate(columns):
            self._insert("st_column", table_id, position, column.name, meta.encode_type(column.type, STORED))
        return self._alter(table, definition=replace(table.schema.definition, columns=columns))

    def rename_accessors(self, table: Table, accessor: str, columns: tuple[str, ...]) -> Table:
        """Change what a table and its columns, in their order, are called in source code; return the table."""
        definition = table.schema.definition
        renamed = zip(definition.columns, columns, strict=True)
        definition = replace(
            definition, accessor=accessor, columns=tuple(replace(each, accessor=name) for each, name in renamed)
        )
        self._delete("st_table_accessor", table_name=definition.name)
        self._delete("st_column_accessor", table_name=definition.name)
        self._write_accessors(definition)
        return self._alter(table, definition=definition)

    def add_columns(self, table: Table, columns: tuple[ColumnDef, ...]) -> Table:
        """Append columns, each with its default, to a table and its rows; return it. All its ids are new."""
        definition = table.schema.definition
        values = b"".join(column.default or b"" for column in columns)
        rows = [row + values for row in table.rows()]
        wider = self.recreate_table(table, replace(definition, columns=(*definition.columns, *columns)))
        for row in rows:
            wider.restore(row)
        return wider

    def set_primary_key(self, table: Table, column: int | None) -> Table:
        """Change which column is the primary key, or none; return the table. All its ids are new.

        What tells rows of one table id apart never changes: whoever stores rows by id and key may rely on it.
        """
        return self._moved(table, replace(table.schema.definition, primary_key=column))

    def _set(self, table: Table, **changes: Any) -> Table:
        schema = replace(table.schema, definition=replace(table.schema.definition, **changes))
        self._delete("st_table", table_id=schema.id)
        self._write_table(schema, "user")
        return self._datastore.install(schema, table.sequences)

    def _alter(self, table: Table, sequences: tuple[Sequence, ...] | None = None, **changes: Any) -> Table:
        kept = table.sequences if sequences is None else sequences
        return self._datastore.install(replace(table.schema, **changes), kept)

    def _new_sequences(self, schema: TableSchema, going_on: Mapping[str, SequenceAt]) -> tuple[Sequence, ...]:
        made = []
        for sequence_id, definition in zip(schema.sequence_ids, schema.definition.sequences, strict=True):
            at = going_on.get(definition.name) or SequenceAt(definition.parameters()[0])
            sequence = Sequence(sequence_id, definition, at.allocated, self._datastore.reservations)
            if at.position is not None:
                sequence.go_on_at(at.position)
            made.append(sequence)
        return tuple(made)

    def _next_id(self, table_name: str) -> int:
        (sequence,) = self._datastore.table(table_name).sequences
        return sequence.next()

    # Rows

    def write(self, schema: TableSchema, kind: str, allocated: Mapping[int, int] | None = None) -> None:
        """Write every catalogue row of a table; `kind` is `user` or `system`, whose objects have no accessors.

        Nor have the indexes of backing tables of views. `allocated` says by id where sequences begin.
        """
        definition, table_id = schema.definition, schema.id
        self._write_table(schema, kind)
        for position, column in enumerate(definition.columns):
            self._insert("st_column", table_id, position, column.name, meta.encode_type(column.type, STORED))
        has_accessors = kind == "user" and not any(column is HIDDEN_COLUMN for column in definition.columns)
        for index_id, index in zip(schema.index_ids, definition.indexes, strict=True):
            self._write_index(table_id, index_id, index, with_accessor=has_accessors)
        for constraint_id, unique in zip(schema.constraint_ids, definition.uniques, strict=True):
            self._write_unique(table_id, constraint_id, unique)
        for sequence_id, sequence in zip(schema.sequence_ids, definition.sequences, strict=True):
            first = sequence.parameters()[0] - 1 if allocated is None else allocated[sequence_id]
            self._write_sequence(table_id, sequence_id, sequence, first)
        if definition.schedule is not None:
            schedule = definition.schedule
            row = (schema.schedule_id, table_id, schedule.function, schedule.name, schedule.at_column)
            self._insert("st_scheduled", *row)
        if definition.is_event:
            self._insert("st_event_table", table_id)
        if kind == "user":
            self._write_accessors(definition)

    def _write_accessors(self, definition: TableDef) -> None:
        self._insert("st_table_accessor", definition.name, definition.accessor)
        for column in definition.columns:
            if column is not HIDDEN_COLUMN:  # a column of the same name and type elsewhere is not hidden
                self._insert("st_column_accessor", definition.name, column.name, column.accessor)

    def _write_table(self, schema: TableSchema, kind: str) -> None:
        definition = schema.definition
        primary_key = None if definition.primary_key is None else [definition.primary_key]
        self._insert("st_table", schema.id, definition.name, kind, _ACCESS_WORDS[definition.access], primary_key)

    def _write_index(self, table_id: int, index_id: int, index: IndexDef, *, with_accessor: bool = True) -> None:
        columns = index.columns[0] if index.algorithm is IndexAlgorithm.DIRECT else list(index.columns)
        self._insert("st_index", index_id, table_id, index.name, (_TAGS[index.algorithm], columns))
        if with_accessor:
            self._insert("st_index_accessor", index.name, index.source_name or index.name)

    def _write_unique(self, table_id: int, constraint_id: int, unique: UniqueDef) -> None:
        self._insert("st_constraint", constraint_id, unique.name, table_id, (_UNIQUE, sorted(unique.columns)))

    def _write_sequence(self, table_id: int, sequence_id: int, sequence: SequenceDef, allocated: int) -> None:
        row = (sequence_id, sequence.name, table_id, sequence.column, sequence.increment, *sequence.parameters())
        self._insert("st_sequence", *row, allocated)

    def _insert(self, table_name: str, *values: object) -> None:
        table = self._datastore.table(table_name)
        table.insert(table.schema.codec.encode(values))

    def _delete(self, kind: str, /, **equal: object) -> None:
        """Delete the rows of a catalogue table whose columns equal these values."""
        table = self._datastore.table(kind)
        names = [column.name for column in table.schema.definition.columns]
        wanted = [(names.index(name), value) for name, value in equal.items()]
        for row in list(table.rows()):
            values = table.schema.codec.decode_exact(row)
            if all(values[position] == value for position, value in wanted):
                table.delete(row)


def _require_index(definition: TableDef, unique: UniqueDef) -> None:
    if not any(set(index.columns) == set(unique.columns) for index in definition.indexes):
        columns = ", ".join(definition.columns[position].name for position in unique.columns)
        raise SchemaError(
            [f"table `{definition.name}`: the unique constraint `{unique.name}` needs an index on exactly ({columns})"]
        )


def _require_distinct(table: Table, unique: UniqueDef) -> None:
    key_of = keys.row_key(table.schema.row_type, tuple(unique.columns))
    if len({key_of(row) for row in table.rows()}) != len(table):
        name, columns = table.schema.name, tuple(table.schema.definition.columns[i].name for i in unique.columns)
        raise UniqueViolation(
            f"the unique constraint `{unique.name}` cannot be added to table `{name}`: its rows have duplicates in"
            f" ({', '.join(columns)})",
            table=name,
            constraint=unique.name,
            columns=columns,
            value="",
        )


def _without(definition: TableDef, part: str, ids: tuple[int, ...], name: str) -> tuple[TableDef, tuple[int, ...]]:
    """Return a definition and the ids of one of its parts without the object of that name."""
    kept = [(each, i) for each, i in zip(getattr(definition, part), ids, strict=True) if each.name != name]
    if len(kept) == len(ids):
        raise SchemaError([f"table `{definition.name}` has no `{name}` among its {part}"])
    changes: dict[str, Any] = {part: tuple(each for each, _ in kept)}
    return replace(definition, **changes), tuple(i for _, i in kept)


def read_rules(datastore: "Datastore") -> dict[int, tuple[str, ...]]:
    """Return the rules of row-level security as SQL by the id of the table that they protect."""
    return {
        table_id: tuple(sql for _, sql in rows) for table_id, rows in _rows_by_table(datastore, RULES_TABLE).items()
    }


class StoredView(NamedTuple):
    """What the catalogue says of a view; that it has one row at most is not there."""

    id: int
    table_id: int
    """Of its backing table."""
    shape: ViewShape


def read_views(datastore: "Datastore") -> list[StoredView]:
    """Return the views that the catalogue has, by id."""
    stored = sorted(_decoded(datastore, "st_view"))
    if not stored:
        return []
    backing = read_schemas(datastore, {table_id for _, _, table_id, _, _ in stored})
    params: defaultdict[int, list[tuple[int, Element]]] = defaultdict(list)
    for view_id, position, name, type_ in _decoded(datastore, "st_view_param"):
        params[view_id].append((position, Element(name, meta.decode_type(type_, 0, STORED)[0])))
    found = []
    for view_id, name, table_id, is_public, is_anonymous in stored:
        table = backing[table_id][0].definition
        (unique,) = table.uniques or (UniqueDef("", ()),)
        shape = ViewShape(
            name,
            table.accessor,
            is_public,
            is_anonymous,
            Product(tuple(element for _, element in sorted(params[view_id], key=lambda each: each[0]))),
            table.columns[1:],
            next((column - 1 for column in unique.columns if column), None),
        )
        found.append(StoredView(view_id, table_id, shape))
    return found


def read_backing_ids(datastore: "Datastore") -> set[int]:
    """Return the ids of the tables that the catalogue has for views only."""
    return {row[2] for row in _decoded(datastore, "st_view")}


def read_schemas(datastore: "Datastore", table_ids: Iterable[int]) -> dict[int, tuple[TableSchema, dict[int, int]]]:
    """Return what the catalogue says of these tables now; those it no longer has are missing.

    With each stands the `allocated` of its sequences by sequence id.
    """
    wanted = set(table_ids)
    by_table = {name: _rows_by_table(datastore, name) for name in ("st_column", "st_sequence", "st_index")}
    by_table |= {name: _rows_by_table(datastore, name) for name in ("st_constraint", "st_scheduled", "st_event_table")}
    accessors: dict[tuple[str, ...], str] = {
        (kind, *names): accessor
        for kind in ("st_table_accessor", "st_index_accessor", "st_column_accessor")
        for *names, accessor in _decoded(datastore, kind)
    }
    found = {}
    for table_id, name, _, access, primary_key in _decoded(datastore, "st_table"):
        if table_id in wanted:
            parts = {part: rows[table_id] for part, rows in by_table.items()}
            found[table_id] = _read_schema(table_id, name, access, primary_key, parts, accessors)
    return found


def _read_schema(
    table_id: int,
    name: str,
    access: str,
    primary_key: list[int] | None,
    parts: dict[str, list[tuple[Any, ...]]],
    accessors: dict[tuple[str, ...], str],
) -> tuple[TableSchema, dict[int, int]]:
    def accessor(kind: str, *names: str) -> str:
        return accessors.get((kind, *names), names[-1])

    columns = sorted(parts["st_column"], key=lambda row: row[1])
    indexes, uniques, sequences = (sorted(parts[part]) for part in ("st_index", "st_constraint", "st_sequence"))
    schedules = parts["st_scheduled"]
    definition = TableDef(
        name,
        accessor("st_table_accessor", name),
        0,
        tuple(
            ColumnDef(column, accessor("st_column_accessor", name, column), meta.decode_type(type_, 0, STORED)[0])
            for _, _, column, type_ in columns
        ),
        None if primary_key is None else primary_key[0],
        tuple(
            IndexDef(
                index,
                None,
                _ALGORITHMS[tag],
                (columns_,) if tag == _DIRECT else tuple(columns_),
                accessor("st_index_accessor", index),
            )
            for _, _, index, (tag, columns_) in indexes
        ),
        tuple(UniqueDef(unique, tuple(columns_)) for _, unique, _, (_, columns_) in uniques),
        tuple(
            SequenceDef(name, column, start, low, high, increment)
            for _, name, _, column, increment, start, low, high, _ in sequences
        ),
        next((ScheduleDef(row[3], name, row[4], row[2]) for row in schedules), None),
        _ACCESS[access],
        bool(parts["st_event_table"]),
    )
    schema = TableSchema(
        table_id,
        definition,
        tuple(row[0] for row in indexes),
        tuple(row[0] for row in uniques),
        tuple(row[0] for row in sequences),
        next((row[0] for row in schedules), None),
    )
    return schema, {row[0]: row[8] for row in sequences}


def _decoded(datastore: "Datastore", table_name: str) -> list[tuple[Any, ...]]:
    table = datastore.table(table_name)
    return [table.schema.codec.decode_exact(row) for row in table.rows()]


def _rows_by_table(datastore: "Datastore", table_name: str) -> defaultdict[int, list[tuple[Any, ...]]]:
    names = [column.name for column in datastore.table(table_name).schema.definition.columns]
    position = names.index("table_id")
    found: defaultdict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for row in _decoded(datastore, table_name):
        found[row[position]].append(row)
    return found
