"""Programs: the row of `st_module` that says what a database runs, and what an update may change.

Responsible for: writing and reading that row, the rules of an update in place.
Not responsible for: who may publish (`host`), loading code (`stdb.modules`), running `init` (`launching`).

Only updates that change no stored table are done here: the same tables with other functions, or additional tables
(spec 04 section 13); anything else is refused by table and column.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from stdb.actors.refusals import UpdateRejected
from stdb.datastore.datastore import Datastore
from stdb.errors import StorageError
from stdb.modules.protocol import LogSink, Module, ReducerCall
from stdb.sats import satn
from stdb.sats.types import Typespace
from stdb.schema.model import ModuleDef, TableDef

__all__ = ["TablesOnly", "added_tables", "replace_program", "store_program", "stored_program"]

PYTHON = 2
"""`st_module.program_kind` of a Python module (spec 08)."""


def added_tables(old: ModuleDef, new: ModuleDef) -> tuple[TableDef, ...]:
    """Return the tables that an update from `old` to `new` has to make.

    Raises:
        UpdateRejected: A stored table would change; names every table and column.
    """
    errors = [error for table in old.tables for error in _differences(table, new.table(table.name))]
    if old.row_level_security != new.row_level_security:
        errors.append("Changing the row-level security rules requires a manual migration")
    if errors:
        raise UpdateRejected("Database update rejected: Errors occurred:\n" + "".join(f"{e}\n\n" for e in errors))
    return tuple(table for table in new.tables if old.table(table.name) is None)


def replace_program(datastore: Datastore, module: Module, program: bytes, added: tuple[TableDef, ...]) -> None:
    """Write an update that `added_tables` allowed, within the open transaction: the new tables and the new program."""
    if added:
        datastore.create_tables(replace(module.definition, tables=added))
    table = datastore.table("st_module")
    (row,) = table.rows()
    table.clear()
    store_program(datastore, module, program, row[:32], row[32:64])


def _differences(old: TableDef, new: TableDef | None) -> list[str]:
    if new is None:
        return [f"Removing the table {old.name} requires a manual migration"]
    errors = []
    for column in old.columns:
        now = next((other for other in new.columns if other.name == column.name), None)
        if now is None:
            errors.append(f"Removing a column {column.name} from table {old.name} requires a manual migration")
        elif now.type != column.type:
            types = f"from {satn.format_type(column.type)} to {satn.format_type(now.type)}"
            errors.append(
                f"Changing the type of column {column.name} in table {old.name} {types} requires a manual migration"
            )
    known = {column.name for column in old.columns}
    errors += [
        f"Adding a column {column.name} to table {old.name} requires a manual migration"
        for column in new.columns
        if column.name not in known
    ]
    if not errors and [column.name for column in old.columns] != [column.name for column in new.columns]:
        errors.append(f"Reordering table {old.name} requires a manual migration")
    return errors + [
        f"Changing the {what} of table {old.name} requires a manual migration"
        for what, of in _TABLE_PARTS
        if of(old) != of(new)
    ]


_TABLE_PARTS: tuple[tuple[str, Callable[[TableDef], Any]], ...] = (
    ("access", lambda table: table.access),
    ("event flag", lambda table: table.is_event),
    ("primary key", lambda table: table.primary_key),
    ("indexes", lambda table: {(index.name, index.algorithm, index.columns) for index in table.indexes}),
    ("unique constraints", lambda table: {(unique.name, unique.columns) for unique in table.uniques}),
    ("sequences", lambda table: {(sequence.name, sequence.column) for sequence in table.sequences}),
    ("schedule", lambda table: table.schedule and (table.schedule.function, table.schedule.at_column)),
)


def store_program(datastore: Datastore, module: Module, program: bytes, identity: bytes, owner: bytes) -> None:
    """Write the row that says what a database runs, within the open transaction."""
    table = datastore.table("st_module")
    values = (_u256(identity), _u256(owner), PYTHON, _u256(module.program_hash), program, "")
    table.insert(table.schema.codec.encode(values))


def stored_program(datastore: Datastore, identity: bytes) -> bytes:
    """Return the program that the database runs. Raises StorageError."""
    table = datastore.table("st_module")
    rows = list(table.rows())
    if len(rows) != 1:
        raise StorageError("the log holds no program: it does not begin with the publishing of a database")
    stored_for, _, kind, _, program, _ = table.schema.codec.decode_exact(rows[0])
    if stored_for != _u256(identity):
        raise StorageError(f"the log is that of database {stored_for:064x}, not of {identity[::-1].hex()}")
    if kind != PYTHON:
        raise StorageError(f"the program is of kind {kind}, this server runs kind {PYTHON} (Python)")
    return bytes(program)


class TablesOnly:
    """Stands for a program that cannot be loaded: its tables as they are stored, and no functions."""

    program_hash = b""

    def __init__(self, datastore: Datastore) -> None:
        stored = (table.schema for table in datastore.tables.values())
        self.definition = ModuleDef(
            Typespace.EMPTY, tuple(schema.definition for schema in stored if not schema.is_system)
        )

    def attach(self, datastore: Datastore, database_identity: bytes, log: LogSink) -> None:
        """Do nothing."""

    def reducer(self, reducer_id: int) -> Callable[[ReducerCall, bytes], None]:
        """Raise LookupError: there are no reducers."""
        raise LookupError(f"no reducer {reducer_id}: this program has no functions")


def _u256(number: bytes) -> int:
    return int.from_bytes(number, "little")
