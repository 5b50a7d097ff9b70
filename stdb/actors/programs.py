"""Programs: the row of `st_module` that says what a database runs, and what an update may change.

Responsible for: writing and reading that row, the rules of an update in place.
Not responsible for: who may publish (`host`), loading code (`stdb.modules`), running `init` (`launching`).

Only updates that change no stored table are done here: the same tables with other functions or rules of row-level
security, or additional tables (spec 04 section 13); anything else is refused by table and column.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from stdb.actors.refusals import PublishFailed, UpdateRejected
from stdb.datastore.datastore import Datastore
from stdb.errors import SchemaError, StorageError
from stdb.modules.protocol import LogSink, Module, ReducerCall
from stdb.sats import satn
from stdb.sats.types import Typespace
from stdb.schema.model import ModuleDef, RowLevelSecurityDef, TableDef
from stdb.sql.rules import check_rules, replace_rules

__all__ = ["TablesOnly", "Update", "plan_update", "store_program", "store_rules", "stored_program"]

PYTHON = 2
"""`st_module.program_kind` of a Python module (spec 08)."""


class Update(NamedTuple):
    """What an update in place changes in the datastore."""

    module: Module
    program: bytes
    added: tuple[TableDef, ...]
    rules_before: frozenset[str]
    rules: frozenset[str]

    @property
    def breaks_clients(self) -> bool:
        """Tell whether the rows that clients hold may be none that they are to see: they have to come again."""
        return self.rules != self.rules_before

    def write(self, datastore: Datastore) -> None:
        """Make the new tables, the rules anew and the new program, within the open transaction."""
        definition = self.module.definition
        if self.added:
            datastore.create_tables(replace(definition, tables=self.added))
        replace_rules(datastore, definition.row_level_security)
        table = datastore.table("st_module")
        (row,) = table.rows()
        table.clear()
        store_program(datastore, self.module, self.program, row[:32], row[32:64])

    def lines(self) -> list[str]:
        """Return what the module's log says of it (spec 05 section 5.5)."""
        return [
            f"Updated program to {self.module.program_hash.hex()}",
            *(f"Removing row-level security `{rule}`" for rule in sorted(self.rules_before)),
            *(f"Creating table `{name}`" for name in sorted(table.name for table in self.added)),
            *(f"Adding row-level security `{rule}`" for rule in sorted(self.rules)),
            *(["Disconnecting all users"] if self.breaks_clients else []),
            "Database updated",
        ]


def plan_update(datastore: Datastore, old: ModuleDef, module: Module, program: bytes) -> Update:
    """Return what an update from the tables of `old` to `module` has to do.

    Raises:
        UpdateRejected: A stored table would change; names every table and column.
        PublishFailed: A rule of row-level security is none.
    """
    new = module.definition
    errors = [error for table in old.tables for error in _differences(table, new.table(table.name))]
    if errors:
        raise UpdateRejected("Database update rejected: Errors occurred:\n" + "".join(f"{e}\n\n" for e in errors))
    try:
        findings = list(check_rules(new).values()) if new.row_level_security else []
    except SchemaError as error:
        findings = error.errors
    if findings:
        raise PublishFailed("\n".join(findings))
    return Update(
        module,
        program,
        tuple(table for table in new.tables if old.table(table.name) is None),
        frozenset(rule for rules in datastore.rules.values() for rule in rules),
        frozenset(rule.sql for rule in new.row_level_security),
    )


def store_rules(datastore: Datastore, rules: Iterable[RowLevelSecurityDef]) -> None:
    """Write the rules of row-level security of a new database, within the open transaction.

    Raises:
        PublishFailed: A rule is none.
    """
    try:
        replace_rules(datastore, rules)
    except SchemaError as error:
        raise PublishFailed("\n".join(error.errors)) from error


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
