"""Plans of migration as text: what `pre_publish` shows of an update before it is done.

Responsible for: the text, plain and with the escape sequences of a terminal.
Not responsible for: what is done (`updates`).

Source: spec 05 section 1.3.25, `vectors/migration.json`, recorded exchanges 197 to 213; entries that no recording has
are made alike.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from stdb.datastore.views import ViewShape
from stdb.sats import debug, satn
from stdb.sats.bsatn import codec
from stdb.sats.types import Element
from stdb.schema import migration as plan
from stdb.schema.model import Access, ColumnDef, IndexDef, TableDef

if TYPE_CHECKING:
    from stdb.actors.updates import Update

__all__ = ["plan_text"]

RULE = "━" * 60
TITLE = "Database Migration Plan"
WARNING = "!!! Warning: All clients will be disconnected due to breaking schema changes"

_PLAIN = "\x1b[0m"
_BOLD = "\x1b[1m"
_RED, _GREEN, _YELLOW, _BLUE, _MAGENTA, _CYAN, _ON_RED = (f"\x1b[{code}m" for code in (31, 32, 33, 34, 35, 36, 41))
_ACTIONS = {"Created": _GREEN, "Removed": _RED, "Changed": _YELLOW, "Migrated": _YELLOW}
_ACCESS = {Access.PUBLIC: "public", Access.PRIVATE: "private"}


def plan_text(update: "Update", *, colored: bool) -> str:
    """Return what an update does, for its publisher to read."""
    return "".join(_Text(_paint if colored else _leave).lines(update))


def _paint(text: str, color: str, bold: bool) -> str:
    return f"{_PLAIN}{_BOLD if bold else ''}{color}{text}{_PLAIN}"


def _leave(text: str, _color: str, _bold: bool) -> str:
    return text


class _Text:
    """Writes entries; `paint` is given a text, its colour and whether it is bold."""

    def __init__(self, paint: Callable[[str, str, bool], str]) -> None:
        self._paint = paint

    def lines(self, update: "Update") -> Iterator[str]:
        yield f"{RULE}\n{self._paint(TITLE, _BLUE, True)}\n{RULE}\n\n"
        yield from (self._rule("Removed", sql) for sql in sorted(update.rules_before - update.rules))
        drops = [step for step in update.steps if isinstance(step, plan.DropTable)]
        creations = [step for step in update.steps if isinstance(step, plan.CreateTable)]
        others = [step for step in update.steps if not isinstance(step, plan.DropTable | plan.CreateTable)]
        yield from (self._dropped_table(step.table.name) for step in drops)
        yield from (self._view("Removed", view.shape) for view in update.views.dropped)
        yield from (_SHOW[type(step)](self, step) for step in others)
        yield from (self._created_table(step.table) for step in creations)
        yield from (self._view("Created", shape) for shape in update.views.created)
        yield from (
            self._access("view", shape.name, shape.is_public)
            for view, shape in update.views.altered
            if view.shape.is_public != shape.is_public
        )
        for each in update.migrations:
            verb, left = ("Removed", ", its rows given to") if each.definition is None else ("Migrated", " by")
            yield f"{self._begin(verb)} table {self._name(each.name)}{left} {each.shown}\n"
        yield from (self._rule("Created", sql) for sql in sorted(update.rules - update.rules_before))
        if update.breaks_clients:
            yield f"{self._paint(WARNING, _ON_RED, True)}\n"

    # Pieces

    def _begin(self, action: str) -> str:
        return f"▸ {self._paint(action, _ACTIONS[action], True)}"

    def _name(self, name: str) -> str:
        return self._paint(name, _CYAN, True)

    def _type(self, column: ColumnDef | Element) -> str:
        return self._paint(satn.format_type(column.type), _MAGENTA, False)

    def _section(self, title: str, items: list[str]) -> str:
        if not items:
            return ""
        return f"    {self._paint(title, _BLUE, True)}\n" + "".join(f"        • {item}\n" for item in items)

    def _columns(self, columns: tuple[ColumnDef, ...]) -> str:
        return self._section("Columns:", [f"{column.name}: {self._type(column)}" for column in columns])

    # Tables

    def _created_table(self, table: TableDef) -> str:
        access = self._paint(_ACCESS[table.access], _GREEN, False)
        schedule = [] if table.schedule is None else [f"Calls reducer: {table.schedule.function}"]
        return "".join(
            (
                f"{self._begin('Created')} user table: {self._name(table.name)} ({access})\n",
                self._columns(table.columns),
                self._section("Unique constraints:", [f"{_on(table, each)}" for each in table.uniques]),
                self._section("Indexes:", [f"{_on(table, each)}" for each in table.indexes]),
                self._section(
                    "Auto-increment constraints:",
                    [f"{each.name} on {table.columns[each.column].name}" for each in table.sequences],
                ),
                self._section("Schedule:", schedule),
                "\n",
            )
        )

    def _dropped_table(self, name: str) -> str:
        return f"{self._begin('Removed')} table: {self._name(name)}\n\n"

    def _part(self, action: str, what: str, table: str) -> str:
        return f"{self._begin(action)} {what} of table {self._name(table)}\n"

    def create_index(self, step: plan.CreateIndex) -> str:
        return self._index("Created", step.table, step.definition)

    def drop_index(self, step: plan.DropIndex) -> str:
        return self._index("Removed", step.table, step.definition)

    def alter_index(self, step: plan.AlterIndex) -> str:
        return self._index("Changed", step.table, step.definition)

    def _index(self, action: str, table: TableDef, index: IndexDef) -> str:
        return self._part(action, f"index {_on(table, index)}", table.name)

    def create_unique(self, step: plan.CreateUnique) -> str:
        return self._part("Created", f"unique constraint {_on(step.table, step.unique)}", step.table.name)

    def drop_unique(self, step: plan.DropUnique) -> str:
        return self._part("Removed", f"unique constraint {_on(step.table, step.unique)}", step.table.name)

    def create_sequence(self, step: plan.CreateSequence) -> str:
        return self._sequence("Created", step)

    def drop_sequence(self, step: plan.DropSequence) -> str:
        return self._sequence("Removed", step)

    def _sequence(self, action: str, step: plan.CreateSequence | plan.DropSequence) -> str:
        column = step.table.columns[step.sequence.column].name
        return self._part(action, f"auto-increment constraint {step.sequence.name} on column {column}", step.table.name)

    def set_primary_key(self, step: plan.SetPrimaryKey) -> str:
        if step.after is None:
            what = "removed"
        elif step.before is None:
            what = f"added on column {step.after}"
        else:
            what = f"changed from column {step.before} to column {step.after}"
        return f"{self._begin('Changed')} primary key on table {self._name(step.table.name)} ({what})\n"

    def set_access(self, step: plan.SetAccess) -> str:
        return self._access("table", step.table, step.access is Access.PUBLIC)

    def _access(self, kind: str, name: str, is_public: bool) -> str:
        change = self._paint("private → public" if is_public else "public → private", _GREEN, False)
        return f"{self._begin('Changed')} access for {kind} {self._name(name)} ({change})\n"

    def create_schedule(self, step: plan.CreateSchedule) -> str:
        return self._schedule("Created", step)

    def drop_schedule(self, step: plan.DropSchedule) -> str:
        return self._schedule("Removed", step)

    def _schedule(self, action: str, step: plan.CreateSchedule | plan.DropSchedule) -> str:
        function = step.schedule.function
        return f"{self._begin(action)} schedule for table {self._name(step.table.name)} calling reducer {function}\n"

    def add_columns(self, step: plan.AddColumns) -> str:
        entry = f"{self._begin('Created')} column in table {self._name(step.table.name)}\n"
        return entry + "".join(
            f"    + {column.name}: {self._type(column)} (default: {_default(column)})\n" for column in step.columns
        )

    def change_columns(self, step: plan.ChangeColumns) -> str:
        return f"{self._begin('Changed')} columns for table {self._name(step.table.name)}\n"

    def change_event_table(self, step: plan.ChangeEventTable) -> str:
        return f"{self._begin('Changed')} schema of event table {self._name(step.table.name)}\n"

    def rename_accessors(self, step: plan.RenameAccessors) -> str:
        return f"{self._begin('Changed')} accessors of table {self._name(step.table.name)}\n"

    # Views and rules

    def _view(self, action: str, shape: ViewShape) -> str:
        kind = "anonymous view" if shape.is_anonymous else "view"
        params = [
            f"{each.name}: {self._paint(satn.format_type(each.type), _MAGENTA, False)}"
            for each in shape.params.elements
        ]
        begin = f"▸ {self._begin(action)} {kind}: {self._name(shape.name)}\n"
        return f"{begin}{self._section('Parameters:', params)}{self._columns(shape.columns)}\n"

    def _rule(self, action: str, sql: str) -> str:
        return f"{self._begin(action)} row level security policy:\n    `{self._paint(sql, _BLUE, False)}`\n"


def _on(table: TableDef, part: Any) -> str:
    """Return an index or a unique constraint with its columns."""
    return f"{part.name} on [{', '.join(table.columns[position].name for position in part.columns)}]"


def _default(column: ColumnDef) -> str:
    assert column.default is not None, "a column without a default is refused"
    return debug.debug_value(column.type, codec(column.type).decode_exact(column.default), spread=True)


_SHOW: dict[type, Callable[[_Text, Any], str]] = {
    plan.SetAccess: _Text.set_access,
    plan.CreateIndex: _Text.create_index,
    plan.DropIndex: _Text.drop_index,
    plan.AlterIndex: _Text.alter_index,
    plan.CreateUnique: _Text.create_unique,
    plan.DropUnique: _Text.drop_unique,
    plan.SetPrimaryKey: _Text.set_primary_key,
    plan.CreateSequence: _Text.create_sequence,
    plan.DropSequence: _Text.drop_sequence,
    plan.CreateSchedule: _Text.create_schedule,
    plan.DropSchedule: _Text.drop_schedule,
    plan.AddColumns: _Text.add_columns,
    plan.ChangeColumns: _Text.change_columns,
    plan.ChangeEventTable: _Text.change_event_table,
    plan.RenameAccessors: _Text.rename_accessors,
}
