"""Migrating: the steps of a plan of migration, done to the stored tables within the open transaction.

Responsible for: doing each step by the catalogue, what only the stored rows can refuse.
Not responsible for: which steps there are (`stdb.schema.migration`), views and rules, functions that change rows
(`stdb.actors.programs`).

A step that fails leaves the transaction half done: whoever opened it rolls back.

Source: spec 04 section 13; texts as recorded from the real server.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from stdb.datastore.catalog import SequenceAt
from stdb.errors import SchemaError
from stdb.sats import debug, keys
from stdb.sats.types import Element, Product
from stdb.schema import migration as plan
from stdb.schema.model import SequenceDef, TableDef, UniqueDef

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore
    from stdb.datastore.table import Table, TableSchema

__all__ = ["TakenRows", "apply_steps", "take_rows"]

DUPLICATES_SHOWN = 10
"""So many keys that several rows have are named."""


def apply_steps(datastore: "Datastore", steps: Iterable[plan.Step]) -> None:
    """Do the steps of a plan, in their order, within the open transaction.

    Raises:
        SchemaError: The stored rows do not allow one; says why. Roll back.
    """
    rebuilt: set[str] = set()
    for step in steps:
        name = plan.table_of(step)
        if name in rebuilt:
            continue  # made anew as it shall be
        _DO[type(step)](datastore, step)
        if isinstance(step, plan.ChangeEventTable):
            rebuilt.add(name)


class TakenRows(NamedTuple):
    """What a table was and held before another took its place, or none."""

    schema: "TableSchema"
    rows: list[bytes]


def take_rows(datastore: "Datastore", name: str, definition: TableDef | None) -> TakenRows:
    """Put an empty table of this definition in the place of the one of that name, or none; return what was there.

    Sequences that stay the same go on where they are; others begin behind the values that a column of the same name
    had.
    """
    table = datastore.table(name)
    taken = TakenRows(table.schema, list(table.rows()))
    if definition is None:
        datastore.catalog.drop_table(table)
    else:
        sequences = {each.name: _next_of(table, definition, each) for each in definition.sequences}
        datastore.catalog.recreate_table(table, definition, sequences)
    return taken


def _next_of(table: "Table", definition: TableDef, sequence: SequenceDef) -> SequenceAt:
    """Return where a sequence of the table that comes goes on."""
    start, low, high = sequence.parameters()
    for running in table.sequences:
        was = running.definition
        if was.name == sequence.name and (was.parameters(), was.increment) == ((start, low, high), sequence.increment):
            return SequenceAt.of(running)
    columns = [column.name for column in table.schema.definition.columns]
    name = definition.columns[sequence.column].name
    if name in columns:
        value_of = keys.row_column(table.schema.row_type, columns.index(name))
        values = [value for row in table.rows() if isinstance(value := value_of(row), int) and low <= value <= high]
        values += [start - sequence.increment]
        last = max(values) if sequence.increment > 0 else min(values)
        start = low + (last + sequence.increment - low) % (high - low + 1)
    return SequenceAt(start)


def _range(sequence: SequenceDef) -> range:
    _, low, high = sequence.parameters()
    return range(low, high + 1)


def _create_table(datastore: "Datastore", step: plan.CreateTable) -> None:
    datastore.catalog.create_table(step.table)


def _drop_table(datastore: "Datastore", step: plan.DropTable) -> None:
    table = datastore.table(step.table.name)
    if len(table):
        raise SchemaError(
            [
                f"Cannot remove table `{step.table.name}`: table contains data. "
                "Clear the table's rows (e.g. via a reducer) before removing it from your schema."
            ]
        )
    datastore.catalog.drop_table(table)


def _set_access(datastore: "Datastore", step: plan.SetAccess) -> None:
    datastore.catalog.set_access(datastore.table(step.table), step.access)


def _create_index(datastore: "Datastore", step: plan.CreateIndex) -> None:
    datastore.catalog.create_index(datastore.table(step.table.name), step.definition)


def _drop_index(datastore: "Datastore", step: plan.DropIndex) -> None:
    datastore.catalog.drop_index(datastore.table(step.table.name), step.definition.name, is_replaced=True)


def _alter_index(datastore: "Datastore", step: plan.AlterIndex) -> None:
    datastore.catalog.alter_index(datastore.table(step.table.name), step.definition)


def _create_unique(datastore: "Datastore", step: plan.CreateUnique) -> None:
    table = datastore.table(step.table.name)
    _check_distinct(table, step.unique)
    datastore.catalog.create_unique(table, step.unique)


def _drop_unique(datastore: "Datastore", step: plan.DropUnique) -> None:
    datastore.catalog.drop_unique(datastore.table(step.table.name), step.unique.name)


def _set_primary_key(datastore: "Datastore", step: plan.SetPrimaryKey) -> None:
    datastore.catalog.set_primary_key(datastore.table(step.table.name), step.after)


def _create_sequence(datastore: "Datastore", step: plan.CreateSequence) -> None:
    table = datastore.table(step.table.name)
    values, column = _range(step.sequence), keys.row_column(table.schema.row_type, step.sequence.column)
    if any(column(row) in values for row in table.rows()):
        raise SchemaError([f"Precheck failed: added sequence {step.sequence.name} already has values in range"])
    datastore.catalog.create_sequence(table, step.sequence)


def _drop_sequence(datastore: "Datastore", step: plan.DropSequence) -> None:
    datastore.catalog.drop_sequence(datastore.table(step.table.name), step.sequence.name)


def _create_schedule(_datastore: "Datastore", _step: plan.CreateSchedule) -> None:
    raise SchemaError(["Adding schedules is not yet implemented"])


def _drop_schedule(_datastore: "Datastore", _step: plan.DropSchedule) -> None:
    raise SchemaError(["Removing schedules is not yet implemented"])


def _add_columns(datastore: "Datastore", step: plan.AddColumns) -> None:
    datastore.catalog.add_columns(datastore.table(step.table.name), step.columns)
    _rename_accessors(datastore, plan.RenameAccessors(step.table))


def _change_columns(datastore: "Datastore", step: plan.ChangeColumns) -> None:
    datastore.catalog.change_columns(datastore.table(step.table.name), step.table.columns)


def _change_event_table(datastore: "Datastore", step: plan.ChangeEventTable) -> None:
    table = datastore.table(step.table.name)
    datastore.catalog.recreate_table(table, replace(step.table, schedule=table.schema.definition.schedule))


def _rename_accessors(datastore: "Datastore", step: plan.RenameAccessors) -> None:
    table, definition = datastore.table(step.table.name), step.table
    accessors = tuple(column.accessor for column in definition.columns)
    if (definition.accessor, accessors) != _accessors(table):
        datastore.catalog.rename_accessors(table, definition.accessor, accessors)


def _accessors(table: "Table") -> tuple[str, tuple[str, ...]]:
    definition = table.schema.definition
    return definition.accessor, tuple(column.accessor for column in definition.columns)


_DO: dict[type, Callable[["Datastore", Any], None]] = {
    plan.CreateTable: _create_table,
    plan.DropTable: _drop_table,
    plan.SetAccess: _set_access,
    plan.CreateIndex: _create_index,
    plan.DropIndex: _drop_index,
    plan.AlterIndex: _alter_index,
    plan.CreateUnique: _create_unique,
    plan.DropUnique: _drop_unique,
    plan.SetPrimaryKey: _set_primary_key,
    plan.CreateSequence: _create_sequence,
    plan.DropSequence: _drop_sequence,
    plan.CreateSchedule: _create_schedule,
    plan.DropSchedule: _drop_schedule,
    plan.AddColumns: _add_columns,
    plan.ChangeColumns: _change_columns,
    plan.ChangeEventTable: _change_event_table,
    plan.RenameAccessors: _rename_accessors,
}


def _check_distinct(table: "Table", unique: UniqueDef) -> None:
    """Raise SchemaError when rows have duplicates of what shall be unique, in the reference's words."""
    row_type = table.schema.row_type
    key_of = keys.row_key(row_type, tuple(unique.columns))
    counts = Counter(map(key_of, table.rows()))
    if len(counts) == len(table):
        return
    duplicates = {key: count for key, count in counts.items() if count > 1}
    shown: dict[Any, str] = {}
    for row in table.rows():
        if (key := key_of(row)) in duplicates and key not in shown:
            if len(shown) == DUPLICATES_SHOWN:
                break
            shown[key] = f"  - {_values(table, unique, row)} appears {duplicates[key]} times"
    columns = ", ".join(f"ColId({position})" for position in unique.columns)
    more = [f"  … and {len(duplicates) - len(shown)} more"] if len(duplicates) > len(shown) else []
    raise SchemaError(
        [
            "\n".join(
                (
                    f"DatastoreError: Cannot add unique constraint on table {table.schema.id} column(s) [{columns}] "
                    "(committed state):",
                    f"{len(duplicates)} duplicate group(s) found.",
                    *shown.values(),
                    *more,
                )
            )
        ]
    )


def _values(table: "Table", unique: UniqueDef, row: bytes) -> str:
    """Return the values of the columns that shall be unique."""
    columns = table.schema.row_type.elements
    values = [keys.row_column(table.schema.row_type, position)(row) for position in unique.columns]
    if len(values) == 1:
        return debug.debug_value(columns[unique.columns[0]].type, values[0])
    types = tuple(Element(None, columns[position].type) for position in unique.columns)
    return debug.debug_value(Product(types), tuple(values))
