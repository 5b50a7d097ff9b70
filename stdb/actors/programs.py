"""Programs: the row of `st_module` that says what a database runs, and what an update may change.

Responsible for: writing and reading that row, the rules of an update in place.
Not responsible for: who may publish (`host`), loading code (`stdb.modules`), running `init` (`launching`).

Only updates that change no stored table are done here: the same tables with other functions, views or rules of
row-level security, or additional tables (spec 04 section 13); anything else is refused by table and column.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from stdb.actors.refusals import PublishFailed, UpdateRejected
from stdb.datastore.catalog import StoredView, read_views
from stdb.datastore.datastore import Datastore
from stdb.datastore.views import ViewShape, view_shape
from stdb.errors import SchemaError, StorageError
from stdb.modules.protocol import (
    HttpRequest,
    HttpResponse,
    LogSink,
    Module,
    ProcedureCall,
    ReducerCall,
    RouteCall,
    ViewCall,
    ViewSql,
)
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
    views: "_ViewChanges"

    @property
    def breaks_clients(self) -> bool:
        """Tell whether the rows that clients hold may be none that they are to see: they have to come again."""
        return self.rules != self.rules_before or bool(self.views.dropped)

    def write(self, datastore: Datastore) -> None:
        """Make the new tables and views, the rules anew and the new program, within the open transaction."""
        definition, views = self.module.definition, self.views
        for view in views.dropped:
            datastore.catalog.drop_view(view)
        if self.added:
            datastore.create_tables(replace(definition, tables=self.added, views=()))
        for shape in views.created:
            datastore.catalog.create_view(shape)
        for view, shape in views.altered:
            datastore.catalog.alter_view(view, shape)
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
            *(f"Dropping table for view `{view.shape.name}`" for view in self.views.dropped),
            *(f"Creating table `{name}`" for name in sorted(table.name for table in self.added)),
            *(f"Creating table for view `{shape.name}`" for shape in self.views.created),
            *(f"Adding row-level security `{rule}`" for rule in sorted(self.rules)),
            *(["Disconnecting all users"] if self.breaks_clients else []),
            "Database updated",
        ]


class _ViewChanges(NamedTuple):
    """What becomes of the views in the catalogue; each by name. A view of another shape goes and comes anew."""

    dropped: tuple[StoredView, ...]
    created: tuple[ViewShape, ...]
    altered: tuple[tuple[StoredView, ViewShape], ...]
    """Views of the same shape with another face: access and accessors (spec 04 section 13)."""


def _view_changes(datastore: Datastore, new: ModuleDef) -> _ViewChanges:
    """Raises SchemaError: the result of a view is not rows."""
    shapes = sorted((view_shape(view, new) for view in new.views), key=lambda shape: shape.name)
    wanted = {shape.name: shape for shape in shapes}
    stored = {view.shape.name: view for view in read_views(datastore)}
    kept = {name for name, view in stored.items() if wanted.get(name) == view.shape}
    return _ViewChanges(
        tuple(view for name, view in sorted(stored.items()) if name not in kept),
        tuple(shape for shape in shapes if shape.name not in kept),
        tuple(
            (stored[shape.name], shape)
            for shape in shapes
            if shape.name in kept and _face(shape) != _face(stored[shape.name].shape)
        ),
    )


def _face(shape: ViewShape) -> tuple[object, ...]:
    return shape.is_public, shape.accessor, shape.columns


def plan_update(datastore: Datastore, old: ModuleDef, module: Module, program: bytes) -> Update:
    """Return what an update from the tables of `old` to `module` has to do.

    Raises:
        UpdateRejected: A stored table would change; names every table and column.
        PublishFailed: A rule of row-level security is none, or a view does not return rows.
    """
    new = module.definition
    errors = [error for table in old.tables for error in _differences(table, new.table(table.name))]
    if errors:
        raise UpdateRejected("Database update rejected: Errors occurred:\n" + "".join(f"{e}\n\n" for e in errors))
    try:
        views = _view_changes(datastore, new)
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
        views,
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
        raise _no("reducer", reducer_id)

    def view(self, position: int) -> Callable[[ViewCall], list[bytes] | ViewSql]:
        """Raise LookupError: there are no views."""
        raise _no("view", position)

    def procedure(self, procedure_id: int) -> Callable[[ProcedureCall, bytes], Awaitable[bytes]]:
        """Raise LookupError: there are no procedures."""
        raise _no("procedure", procedure_id)

    def route(self, position: int) -> Callable[[RouteCall, HttpRequest], Awaitable[HttpResponse]]:
        """Raise LookupError: there are no routes."""
        raise _no("route", position)


def _no(kind: str, place: int) -> LookupError:
    return LookupError(f"no {kind} {place}: this program has no functions")


def _u256(number: bytes) -> int:
    return int.from_bytes(number, "little")
