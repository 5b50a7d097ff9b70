"""Datastore: all tables of one database, in memory, and the one transaction that may be open.

Responsible for: bootstrapping the system tables, tables by id and name, begin, offsets, replay.
Not responsible for: how a table changes (`table`), how a transaction ends (`transaction`), files (`stdb.storage`), what
programs and clients are written into system tables (`stdb.actors`).

The rows that the system tables have of themselves are made at every start and are in no record, so a newer stdb with
more system tables opens an older log.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache

from stdb.datastore.catalog import CATALOG_TABLES, RULES_TABLE, Catalog, read_backing_ids, read_rules, read_schemas
from stdb.datastore.delta import TableDelta, UndoEntry
from stdb.datastore.index import Key
from stdb.datastore.records import Change, Record, decode_changes, decode_few
from stdb.datastore.sequence import Reservations, Sequence
from stdb.datastore.steps import Steps
from stdb.datastore.table import Table, TableSchema
from stdb.datastore.transaction import Transaction
from stdb.datastore.views import Views, view_shape
from stdb.datastore.window import Window
from stdb.errors import StorageError
from stdb.schema.model import ModuleDef
from stdb.schema.system_tables import (
    ENVIRONMENT_TABLE,
    ENVIRONMENT_TABLE_ID,
    SYSTEM_CONSTRAINT_IDS,
    SYSTEM_INDEX_IDS,
    SYSTEM_SEQUENCE_IDS,
    SYSTEM_TABLE_IDS,
    SYSTEM_TABLES,
    USER_ID_FIRST,
)

__all__ = ["Datastore"]

_CATALOG_IDS = {SYSTEM_TABLE_IDS[name] for name in CATALOG_TABLES}
_CATALOG_ID_LAST = max(_CATALOG_IDS)
_ROWS_A_PART = 500
_SEQUENCE_TABLE = SYSTEM_TABLE_IDS["st_sequence"]
_RULES_ID = SYSTEM_TABLE_IDS[RULES_TABLE]
_OWN_ROWS: dict[int, dict[Key, bytes]] = {}
"""The rows that the system tables have of themselves, by table id and place; the first datastore writes them."""
_TAIL_LOOKED_AT = 1024
"""Replayed records after which parts of the tail that are full are ended."""


class Datastore:
    """The state of one database. Used by one thread."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Be as new, whatever was loaded."""
        self.undo: list[UndoEntry] = []
        """What the open transaction changed; one list for good, so that writers may bind it."""
        self.reservations = Reservations()
        self.tables: dict[int, Table] = {}
        """Every table by id. A change of schema puts another object in a table's place."""
        self.transaction: Transaction | None = None
        """The open transaction."""
        self.next_offset = 0
        """The offset that the next changing transaction gets: how many there were."""
        self.catalog = Catalog(self)
        self.rules: Mapping[int, tuple[str, ...]] = {}
        """The rules of row-level security: SQL by the id of the table they protect. Empty for most databases; what
        `st_row_level_security` says, read once after each change."""
        self.views: Views | None = None
        """Who has the rows of views, once a module runs that has some."""
        self.refresh_views: Callable[[list[TableDelta]], Steps[list[TableDelta]]] | None = None
        """Brings the instances of views in line with the net change of a transaction right before it is committed, in
        steps that return how they changed; never fails. None while there are none."""
        self._tail = Window()
        self._by_name: dict[str, Table] = {}
        self._bootstrap()

    # Tables

    def table(self, name: str) -> Table:
        """Return the table of that canonical name.

        Raises:
            KeyError: There is none. For a name that may be wrong there is `find_table`.
        """
        return self._by_name[name]

    def find_table(self, name: str) -> Table | None:
        """Return the table of that canonical name, or None."""
        return self._by_name.get(name)

    def create_tables(self, definition: ModuleDef) -> None:
        """Create every table of a module, then every view, in the order of their names, within the open transaction.

        The rules of row-level security are SQL over these tables: `stdb.sql.rules.replace_rules` writes them behind.
        Source: 04 sections 7 and 12.

        Raises:
            SchemaError: A view's result is not rows.
        """
        assert self.transaction is not None, "tables are created within a transaction"
        shapes = [view_shape(view, definition) for view in definition.views]
        for table in sorted(definition.tables, key=lambda each: each.name):
            self.catalog.create_table(table)
        for shape in sorted(shapes, key=lambda each: each.name):
            self.catalog.create_view(shape)

    def install(self, schema: TableSchema, sequences: tuple[Sequence, ...]) -> Table:
        """Put a table in the place of that id, with the rows of the one there; the undo log gets the way back."""
        old = self.tables.get(schema.id)
        table = Table(schema, self.undo, sequences)
        if old is not None:
            for row in old.rows():
                table.put(row)
        self._swap(schema.id, table)
        self.undo.append((None, lambda: self._swap(schema.id, old), None, None))
        return table

    def uninstall(self, table_id: int) -> None:
        """Remove a table; the undo log gets the way back."""
        old = self.tables[table_id]
        self._swap(table_id, None)
        self.undo.append((None, lambda: self._swap(table_id, old), None, None))

    def refresh_rules(self) -> None:
        """Read `rules` again after a change of their rows; the undo log gets the way back."""
        before = self.rules
        self.rules = read_rules(self)
        self.undo.append((None, lambda: setattr(self, "rules", before), None, None))

    def _swap(self, table_id: int, table: Table | None) -> None:
        before = self.tables.pop(table_id, None)
        if before is not None:
            del self._by_name[before.schema.name]
        if table is not None:
            self.tables[table_id] = self._by_name[table.schema.name] = table

    def _bootstrap(self) -> None:
        for schema in _system_schemas():
            sequences = tuple(
                Sequence(sequence_id, sequence, USER_ID_FIRST, self.reservations)
                for sequence_id, sequence in zip(schema.sequence_ids, schema.definition.sequences, strict=True)
            )
            self._swap(schema.id, Table(schema, self.undo, sequences))
        if not _OWN_ROWS:
            for table_id, _ in SYSTEM_TABLES:
                self.catalog.write(self.tables[table_id].schema, "system")
            self.undo.clear()
            written = {table_id: dict(table.stored) for table_id, table in self.tables.items() if table.stored}
            _OWN_ROWS.update(written)  # all at once: datastores are made in several threads
            return
        for table_id, rows in _OWN_ROWS.items():
            table = self.tables[table_id]
            table.stored.update(rows)
            for _ in table.index_rows():
                pass

    def verify(self) -> None:
        """Check every table; see `Table.verify`."""
        for table in self.tables.values():
            table.verify()

    # Transactions

    def begin(self, timestamp_us: int) -> Transaction:
        """Open a transaction; the one before has ended."""
        assert self.transaction is None, "a transaction is open already"
        assert not self.undo, "a table was written outside a transaction"
        self.transaction = transaction = Transaction(self, timestamp_us)
        return transaction

    def write_reservations(self) -> None:
        """Write what sequences have reserved into `st_sequence`, as part of the open transaction."""
        table = self.table("st_sequence")
        codec = table.schema.codec
        for sequence in self.reservations.pending.values():
            row = table.stored.get(sequence.id)
            if row is not None:  # else it was dropped, or the transaction that made it rolled back
                table.update_key(sequence.id, codec.encode((*codec.decode_exact(row)[:-1], sequence.allocated)))
        self.reservations.pending.clear()

    def positions(self) -> dict[int, tuple[int, int]]:
        """Return where each sequence stands, by its id."""
        return {sequence.id: sequence.position for table in self.tables.values() for sequence in table.sequences}

    def go_on_at(self, positions: Mapping[int, tuple[int, int]]) -> None:
        """Let sequences go on within their reserved blocks: they stood there after the transaction stored last."""
        for table in self.tables.values():
            for sequence in table.sequences:
                if sequence.id in positions:
                    sequence.go_on_at(positions[sequence.id])

    # From stored rows

    def catalog_tables(self) -> list[Table]:
        """Return the system tables whose rows say what tables there are."""
        return [self.tables[table_id] for table_id in sorted(_CATALOG_IDS)]

    def overwrite_catalog(self, changes: Iterable[Change]) -> None:
        """Do what stored transactions did to catalogue tables, whatever of it is done already; indexes are left out."""
        self._overwrite(change for change in changes if change.table_id in _CATALOG_IDS)

    def overwrite(self, changes: Iterable[Change]) -> None:
        """Do what stored transactions did to all other tables, whatever of it is done already; so for indexes."""
        self._overwrite(change for change in changes if change.table_id not in _CATALOG_IDS)

    def _overwrite(self, changes: Iterable[Change]) -> None:
        for table_id, deletes, inserts in changes:
            table = self.tables.get(table_id)
            if table is None:  # dropped before the end of what is being done again
                self._tail.drop(table_id)
            elif not table.is_event:
                part, key_of = self._tail.part(table), table.key_of
                for row in deletes:
                    part[place := key_of(row)] = None
                    table.stored.pop(place, None)
                for row in inserts:
                    part[place := key_of(row)] = table.stored[place] = row

    def follow_stored_catalog(self) -> None:
        """Make the tables that the catalogue describes, empty, once its rows stand."""
        stored = {
            row[0] for row in map(self.table("st_table").schema.codec.decode_exact, self.table("st_table").rows())
        }
        for table_id, (schema, allocated) in read_schemas(self, stored - read_backing_ids(self)).items():
            if schema.is_system:
                for sequence in self.tables[table_id].sequences:
                    if allocated[sequence.id] > sequence.allocated:  # else no transaction has written its row
                        sequence.resume(allocated[sequence.id])
            else:
                self._swap(table_id, Table(schema, self.undo, self._resumed(schema, allocated)))

    def go_on_behind(self, next_offset: int) -> None:
        """Be the state after so many transactions, once all rows stand."""
        self.rules = read_rules(self)
        self.next_offset = next_offset

    def take_tail(self) -> Window:
        """Return what `replay` and `overwrite` have changed since the rows this was loaded from; for `Log.follow`."""
        tail, self._tail = self._tail, Window()
        return tail

    # Replay

    def replay(self, record: Record) -> None:
        """Apply a stored transaction.

        Raises:
            StorageError: It does not follow the one before, or does not fit the tables. Give up on this object.
        """
        if record.offset != self.next_offset:
            raise StorageError(f"offset {self.next_offset} expected, the next record has {record.offset}")
        few = decode_few(record)
        table = None if few is None or few[0] < USER_ID_FIRST else self.tables.get(few[0])
        if few is None or table is None or table.is_event:
            self._apply(record.offset, decode_changes(record))
        else:
            try:
                table.apply(few[1], few[2], self._tail.open_parts.get(table) or self._tail.part(table))
            except StorageError as error:
                raise StorageError(f"offset {record.offset}: {error}") from error
        self.next_offset += 1
        if not self.next_offset % _TAIL_LOOKED_AT:
            self._tail.end_full_parts()

    def unreplay(self, record: Record) -> None:
        """Take back the last transaction: the record of a delete holds the whole row. Sequences may repeat values.

        Raises:
            StorageError: It is not the last one, or does not fit the tables. Give up on this object.
        """
        if record.offset != self.next_offset - 1:
            raise StorageError(f"offset {self.next_offset - 1} expected, the record before has {record.offset}")
        backwards = [Change(table_id, inserts, deletes) for table_id, deletes, inserts in decode_changes(record)]
        self._apply(record.offset, backwards)
        self.next_offset -= 1

    def go_in_slices(self, record: Record, *, backwards: bool) -> Iterator[None]:
        """Do as `replay`, or as `unreplay`, some rows at a time; until the end the state is neither."""
        assert record.offset == self.next_offset - backwards, "records come one after another"
        changes = decode_changes(record)
        if backwards:
            changes = [Change(table_id, inserts, deletes) for table_id, deletes, inserts in changes]
        yield
        described = {change.table_id for change in changes} & _CATALOG_IDS
        if described <= {_SEQUENCE_TABLE}:  # else rows may be of another shape behind the change of the catalogue
            for change in changes:
                if change.table_id not in _CATALOG_IDS:
                    for part in _parts(change):
                        self._apply(record.offset, [part])
                        yield
            changes = [change for change in changes if change.table_id in _CATALOG_IDS]
        self._apply(record.offset, changes)
        self.next_offset += -1 if backwards else 1

    def _apply(self, offset: int, changes: list[Change]) -> None:
        open_parts = self._tail.open_parts
        try:
            if changes and changes[0].table_id <= _CATALOG_ID_LAST:
                changes = self._replay_catalog(changes)
            for table_id, deletes, inserts in changes:
                table = self.tables.get(table_id)
                if table is None:
                    raise StorageError(f"there is no table {table_id}")
                if not table.is_event:
                    table.apply(deletes, inserts, open_parts.get(table) or self._tail.part(table))
        except StorageError as error:
            raise StorageError(f"offset {offset}: {error}") from error

    def _replay_catalog(self, changes: list[Change]) -> list[Change]:
        """Apply the changes of catalogue tables (whose ids are not all before others'); return those left to apply."""
        catalog = [change for change in changes if change.table_id in _CATALOG_IDS]
        for table_id, deletes, inserts in catalog:
            table = self.tables[table_id]
            table.apply(deletes, inserts, self._tail.part(table))
        dropped = self._follow_catalog(catalog) if catalog else set()
        for table_id in dropped:
            self._tail.drop(table_id)
        for change in changes:
            if change.table_id == _RULES_ID:
                table = self.tables[_RULES_ID]
                table.apply(change.deletes, change.inserts, self._tail.part(table))
                self.rules = read_rules(self)
        return [change for change in changes if change.table_id not in _CATALOG_IDS | dropped | {_RULES_ID}]

    def _follow_catalog(self, changes: list[Change]) -> set[int]:
        """Bring the tables in line with changed catalogue rows; return the ids of tables that are no more."""
        if [change.table_id for change in changes] == [_SEQUENCE_TABLE] and self._resume_sequences(changes[0]):
            return set()
        affected = {table_id for change in changes for table_id in self._described(change)}
        affected -= read_backing_ids(self)
        found = read_schemas(self, affected)
        dropped = {table_id for table_id in affected - found.keys() if table_id >= USER_ID_FIRST}
        for table_id in dropped:  # first: one of the others may have its name
            self._swap(table_id, None)
        for table_id, (schema, allocated) in found.items():
            if schema.is_system:
                for sequence in self.tables[table_id].sequences:
                    sequence.resume(allocated[sequence.id])
                continue
            self.install(schema, self._resumed(schema, allocated))
        self.undo.clear()
        return dropped

    def _resumed(self, schema: TableSchema, allocated: Mapping[int, int]) -> tuple[Sequence, ...]:
        """Return the sequences of a table as they go on after a restart."""
        return tuple(
            Sequence(sequence_id, sequence, allocated[sequence_id], self.reservations)
            for sequence_id, sequence in zip(schema.sequence_ids, schema.definition.sequences, strict=True)
        )

    def _resume_sequences(self, change: Change) -> bool:
        """Let sequences go on where changed rows say, when no row is of a new or lost one; tell whether so."""
        table = self.table("st_sequence")
        rows = [table.schema.codec.decode_exact(row) for row in change.inserts]
        known = {sequence.id: sequence for each in self.tables.values() for sequence in each.sequences}
        if len(change.inserts) != len(change.deletes) or any(row[0] not in known for row in rows):
            return False
        for row in rows:
            known[row[0]].resume(row[-1])
        return True

    def _described(self, change: Change) -> set[int]:
        """Return the ids of the tables that changed catalogue rows belong to."""
        table = self.tables[change.table_id]
        names = [column.name for column in table.schema.definition.columns]
        rows = [table.schema.codec.decode_exact(row) for row in (*change.inserts, *change.deletes)]
        if "table_id" in names:
            position = names.index("table_id")
            return {row[position] for row in rows}
        if "table_name" in names:
            position = names.index("table_name")
            return {named.schema.id for row in rows if (named := self._by_name.get(row[position])) is not None}
        index_names = {row[0] for row in rows}
        return {each.schema.id for each in self.tables.values() for index in each.indexes if index.name in index_names}


def _parts(change: Change) -> Iterator[Change]:
    """Yield a change of a table in parts; all deletes come first, an insert may have the key of a deleted row."""
    table_id, deletes, inserts = change
    for start in range(0, len(deletes), _ROWS_A_PART):
        yield Change(table_id, deletes[start : start + _ROWS_A_PART], [])
    for start in range(0, len(inserts), _ROWS_A_PART):
        yield Change(table_id, [], inserts[start : start + _ROWS_A_PART])


@cache
def _system_schemas() -> tuple[TableSchema, ...]:
    """Return what the system tables are, in every database."""
    return tuple(
        TableSchema(
            table_id,
            definition,
            tuple(SYSTEM_INDEX_IDS[index.name] for index in definition.indexes),
            tuple(SYSTEM_CONSTRAINT_IDS[unique.name] for unique in definition.uniques),
            tuple(SYSTEM_SEQUENCE_IDS[sequence.name] for sequence in definition.sequences),
        )
        for table_id, definition in (*SYSTEM_TABLES, (ENVIRONMENT_TABLE_ID, ENVIRONMENT_TABLE))
    )
