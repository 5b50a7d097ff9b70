"""Updates: what another program changes in a database, planned and then written in one transaction.

Responsible for: the plan of tables, views, rules and migrations by functions of the module; the policy towards
clients and its token; writing all of it; the lines of the module's log.
Not responsible for: which changes of tables are automatic (`stdb.schema.migration`), doing those (`stdb.datastore`),
how a plan is shown (`plan_text`), swapping the module under its clients (`replacing`).

Source: spec 04 section 13; spec 05 sections 1.3.13, 1.3.25 and 5.5; `@migrate`: spec 08.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple

from stdb.actors.programs import store_program, stored_program
from stdb.actors.refusals import EnvironmentRefused, PublishFailed, UpdateRejected
from stdb.datastore.catalog import StoredView, read_views
from stdb.datastore.datastore import Datastore
from stdb.datastore.environment import list_environment, read_environment, write_environment
from stdb.datastore.migrating import TakenRows, apply_steps, take_rows
from stdb.datastore.transaction import Transaction
from stdb.datastore.views import ViewShape, view_shape
from stdb.errors import ModuleFault, ReducerError, ReducerTimeout, SchemaError
from stdb.modules.protocol import Expiry, Migrating, MigrationCall, Module
from stdb.sats.hashes import keccak256
from stdb.schema import migration as plan
from stdb.schema.environment import EnvironmentChange, VariableError, updated
from stdb.schema.model import ModuleDef, TableDef
from stdb.schema.validation import format_errors
from stdb.sql.rules import check_rules, replace_rules

__all__ = [
    "COMPATIBLE",
    "Policy",
    "TableMigration",
    "Update",
    "ViewChanges",
    "environment_after",
    "is_major_upgrade",
    "migration_token",
    "plan_update",
    "store_environment",
]

_REFUSED = "Failed to create or update the database: "
_FAILURES = (SchemaError, ModuleFault, ReducerError, ReducerTimeout)


class Policy(NamedTuple):
    """What a publisher allows an update to do to connected clients."""

    breaks_clients: bool = False
    """They may have to come again."""
    token: bytes | None = None
    """What `pre_publish` said, if it has to be that: then it is this very update that is allowed."""


COMPATIBLE = Policy()


class TableMigration(NamedTuple):
    """A table whose rows go through a function of the new module. `definition` is None where the table goes."""

    name: str
    definition: TableDef | None
    position: int
    shown: str


class ViewChanges(NamedTuple):
    """What becomes of the views in the catalogue; each by name. A view of another shape goes and comes anew."""

    dropped: tuple[StoredView, ...]
    created: tuple[ViewShape, ...]
    altered: tuple[tuple[StoredView, ViewShape], ...]
    """Views of the same shape with another face: access and accessors (spec 04 section 13)."""


class Update(NamedTuple):
    """What an update in place changes in the datastore."""

    identity: bytes
    running: bytes
    """Hash of the program that runs."""
    module: Module
    steps: tuple[plan.Step, ...]
    """What the automatic rules do, in order."""
    migrations: tuple[TableMigration, ...]
    """In the order in which the module declares their functions."""
    rules_before: frozenset[str]
    rules: frozenset[str]
    views: ViewChanges

    @property
    def breaks_clients(self) -> bool:
        """Tell whether the rows that clients hold may be none that they are to see: they have to come again."""
        tables = plan.TablePlan(self.steps, ()).breaks_clients or bool(self.migrations)
        return tables or self.rules != self.rules_before or bool(self.views.dropped)

    @property
    def changes_rows(self) -> bool:
        """Tell whether there are rows that the program that runs could not read any more."""
        changing = plan.DropTable | plan.AddColumns | plan.ChangeColumns | plan.ChangeEventTable
        return bool(self.migrations) or any(isinstance(step, changing) for step in self.steps)

    @property
    def token(self) -> bytes:
        """Return what a publisher shows to allow this update, 32 bytes."""
        return migration_token(self.identity, self.running, self.module.program_hash)

    def check(self, policy: Policy) -> None:
        """Raise UpdateRejected where a publisher does not allow this update."""
        if policy.breaks_clients:
            if policy.token not in (None, self.token):
                raise UpdateRejected(f"{_REFUSED}Token provided is invalid or does not match expected hash")
        elif self.breaks_clients:
            rejected = UpdateRejected(
                f"{_REFUSED}Migration plan contains a client-breaking change which is disallowed under current policy"
            )
            rejected.tables = tuple(self._breaking())
            raise rejected

    def _breaking(self) -> Iterator[tuple[str, str]]:
        """Yield the tables whose change breaks clients, each with what changes."""
        for step in self.steps:
            if plan.TablePlan((step,), ()).breaks_clients:
                yield plan.table_of(step), "" if isinstance(step, plan.DropTable) else "its columns change"

    def write(
        self,
        transaction: Transaction,
        datastore: Datastore,
        program: bytes,
        environment: Mapping[str, str],
        attach: Callable[[Module], None],
        limit: Callable[[Expiry], AbstractContextManager[None]],
    ) -> None:
        """Do everything within the open transaction; `attach` is called once the tables are there.

        `environment` holds the values of all environment variables, `limit` the time limit of the module's own code.

        Raises:
            UpdateRejected: The stored rows do not allow it, or a function of the module failed. Roll back.
        """
        try:
            taken = self._write_tables(datastore)
            self._write_program(datastore, program)
            store_environment(datastore, self.module.definition, environment)
            attach(self.module)
            self._migrate(transaction, taken, limit)
            transaction.check_size()
        except _FAILURES as error:
            raise UpdateRejected(f"{_REFUSED}{error}") from error

    def _write_tables(self, datastore: Datastore) -> list[TakenRows]:
        for view in self.views.dropped:
            datastore.catalog.drop_view(view)
        taken = [take_rows(datastore, each.name, None) for each in self.migrations if each.definition is None]
        apply_steps(datastore, self.steps)
        taken += [take_rows(datastore, each.name, each.definition) for each in self.migrations if each.definition]
        for shape in self.views.created:
            datastore.catalog.create_view(shape)
        for view, shape in self.views.altered:
            datastore.catalog.alter_view(view, shape)
        replace_rules(datastore, self.module.definition.row_level_security)
        return taken

    def _write_program(self, datastore: Datastore, program: bytes) -> None:
        stored = stored_program(datastore)
        datastore.table("st_module").clear()
        store_program(datastore, self.module, program, stored.identity, stored.owner)

    def _migrate(
        self,
        transaction: Transaction,
        taken: list[TakenRows],
        limit: Callable[[Expiry], AbstractContextManager[None]],
    ) -> None:
        """Give every row of the migrated tables to its function, in the order of the functions."""
        rows = {each.schema.name: each for each in taken}
        for each in self.migrations:
            assert isinstance(self.module, Migrating), "only such a module has migrations"
            old = rows[each.name]
            self.module.migrate(each.position, old.schema, old.rows, MigrationCall(transaction, limit))

    def lines(self) -> list[str]:
        """Return what the module's log says of it (spec 05 section 5.5)."""
        return [
            f"Updated program to {self.module.program_hash.hex()}",
            *(f"Removing row-level security `{rule}`" for rule in sorted(self.rules_before)),
            *(f"Dropping table for view `{view.shape.name}`" for view in self.views.dropped),
            *(line for step in self.steps for line in _lines_of(step)),
            *(f"Migrating table `{each.name}` by {each.shown}" for each in self.migrations),
            *(f"Creating table for view `{shape.name}`" for shape in self.views.created),
            *(f"Adding row-level security `{rule}`" for rule in sorted(self.rules)),
            *(["Disconnecting all users"] if self.breaks_clients else []),
            "Database updated",
        ]


def environment_after(datastore: Datastore, definition: ModuleDef, change: EnvironmentChange) -> dict[str, str]:
    """Return the environment variables after a change, as the module of this definition will read them.

    Raises:
        EnvironmentRefused: They are none that it, or any database, can have.
    """
    try:
        return updated(read_environment(datastore), change, definition.environment)
    except VariableError as error:
        raise EnvironmentRefused(str(error), error.missing) from error


def store_environment(datastore: Datastore, definition: ModuleDef, values: Mapping[str, str]) -> None:
    """Make these the environment variables, within the open transaction."""
    write_environment(datastore, values)
    if definition.environment is not None:
        list_environment(datastore)


def _lines_of(step: plan.Step) -> Iterator[str]:
    """Yield what the log says of a step; what recordings show are tables created and dropped."""
    match step:
        case plan.CreateTable(table):
            yield f"Creating table `{table.name}`"
        case plan.DropTable(table):
            yield f"Dropping table `{table.name}`"
        case plan.CreateIndex(table, index):
            yield f"Creating index `{index.name}` on table `{table.name}`"
        case plan.DropIndex(table, index):
            yield f"Dropping index `{index.name}` on table `{table.name}`"
        case plan.CreateUnique(table, unique):
            yield f"Adding constraint `{unique.name}` on table `{table.name}`"
        case plan.DropUnique(table, unique):
            yield f"Dropping constraint `{unique.name}` on table `{table.name}`"
        case plan.CreateSequence(table, sequence):
            yield f"Adding sequence `{sequence.name}` to table `{table.name}`"
        case plan.DropSequence(table, sequence):
            yield f"Dropping sequence `{sequence.name}` from table `{table.name}`"
        case plan.AddColumns(table, columns):
            yield f"Adding columns {', '.join(f'`{column.name}`' for column in columns)} to table `{table.name}`"
        case plan.ChangeColumns(table) | plan.ChangeEventTable(table):
            yield f"Changing columns of table `{table.name}`"
        case plan.SetPrimaryKey(table):
            yield f"Changing primary key of table `{table.name}`"
        case plan.SetAccess(name):
            yield f"Changing access of table `{name}`"


def migration_token(identity: bytes, old_hash: bytes, new_hash: bytes) -> bytes:
    """Return what allows an update of a database from one program to another to break its clients."""
    return keccak256((identity[::-1].hex() + old_hash.hex() + new_hash.hex()).encode())


def is_major_upgrade(old: ModuleDef, new: ModuleDef) -> bool:
    """Tell whether a program of the generation before 2.0 is replaced by one of it, whose names may differ."""
    return new.abi_is_v10 and not old.abi_is_v10


def plan_update(datastore: Datastore, identity: bytes, old: ModuleDef, module: Module) -> Update:
    """Return what an update from the tables of `old`, which are stored, to `module` has to do.

    Raises:
        UpdateRejected: A stored table would change in a way that neither rule nor function knows; names every one.
        PublishFailed: A rule of row-level security is none, or a view does not return rows.
    """
    new = module.definition
    tables = plan.plan_tables(old, new)
    migrations = tuple(_migrations(tables, module, old))
    migrated = {each.name for each in migrations}
    if refused := [refusal for refusal in tables.refusals if refusal.table not in migrated]:
        told = format_errors(SchemaError([refusal.text for refusal in refused]))
        rejected = UpdateRejected(f"Database update rejected: {told}")
        rejected.tables = tuple((refusal.table, refusal.text) for refusal in refused)
        raise rejected
    try:
        views = _view_changes(datastore, new)
        findings = list(check_rules(new).values()) if new.row_level_security else []
    except SchemaError as error:
        findings = error.errors
    if findings:
        raise PublishFailed("\n".join(findings))
    return Update(
        identity,
        stored_program(datastore).program_hash,
        module,
        tuple(step for step in tables.steps if plan.table_of(step) not in migrated),
        migrations,
        frozenset(rule for rules in datastore.rules.values() for rule in rules),
        frozenset(rule.sql for rule in new.row_level_security),
        views,
    )


def _migrations(tables: plan.TablePlan, module: Module, old: ModuleDef) -> Iterator[TableMigration]:
    """Yield the tables that need a function of the module and have one."""
    if not isinstance(module, Migrating):
        return
    needed = {refusal.table for refusal in tables.refusals}
    needed |= {plan.table_of(step) for step in tables.steps if isinstance(step, _BY_FUNCTION)}
    for position, each in enumerate(module.migrations):
        if each.table in needed:
            assert old.table(each.table) is not None, "a table that is new needs no migration"
            definition = module.definition.table(each.table)
            yield TableMigration(each.table, definition, position, f"@migrate function {each.function} ({each.place})")


_BY_FUNCTION = (plan.DropTable, plan.CreateSchedule, plan.DropSchedule)
"""Steps that a function of the module does instead, where there is one: by themselves they fail, or lose rows."""


def _view_changes(datastore: Datastore, new: ModuleDef) -> ViewChanges:
    """Raises SchemaError: the result of a view is not rows."""
    shapes = sorted((view_shape(view, new) for view in new.views), key=lambda shape: shape.name)
    wanted = {shape.name: shape for shape in shapes}
    stored = {view.shape.name: view for view in read_views(datastore)}
    kept = {name for name, view in stored.items() if wanted.get(name) == view.shape}
    return ViewChanges(
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
