"""Validation of functions: reducers, procedures, views, lifecycle events, schedules.

Responsible for: the rules for what can be called, and the definitions that come of it.
Not responsible for: tables (`tables`), HTTP handlers (`attachments`).

Source: spec 04 section 4.5, its "we:" sentences included; views with parameters: spec 09 section 3.2.
"""

from collections.abc import Mapping
from dataclasses import replace

from stdb.sats.profiles import OLD_SCHEDULE_AT
from stdb.sats.types import (
    F32,
    F64,
    SCHEDULE_AT,
    STRING,
    U64,
    UNIT,
    AlgebraicType,
    Array,
    Element,
    Product,
    Ref,
    option_inner,
)
from stdb.schema.findings import Group, debug_type, shown
from stdb.schema.model import Lifecycle, ProcedureDef, ReducerDef, ScheduleDef, TableDef, ViewDef, Visibility
from stdb.schema.naming import schedule_name
from stdb.schema.raw import NameKind, RawProcedureV10, RawReducerV10, RawScheduleV10, RawViewV10
from stdb.schema.scope import SYSTEM_PREFIX, Scope

__all__ = ["FunctionValidator", "event_name"]


def event_name(event: Lifecycle) -> str:
    """Return an event as texts call it: `OnConnect`."""
    return "".join(word.capitalize() for word in event.name.split("_"))


class FunctionValidator:
    """Checks the functions of one module, after its tables."""

    def __init__(self, scope: Scope, tables: Mapping[str, TableDef]) -> None:
        """`tables` holds the valid tables by the name that the author wrote."""
        self._scope = scope
        self._raw = scope.raw
        self._tables = tables
        self._private: set[str] = set()
        """Source names of functions that nobody but the database calls."""
        self._table_names = {raw.source_name for raw in scope.raw.tables}
        procedures = {raw.source_name: ("procedure", raw.params) for raw in scope.raw.procedures}
        self._callable = procedures | {raw.source_name: ("reducer", raw.params) for raw in scope.raw.reducers}
        """What a schedule may call, by source name: reducers before procedures."""

    def _add(self, text: str) -> None:
        self._scope.findings.add(Group.FUNCTION, text)

    def schedules(self) -> dict[str, ScheduleDef]:
        """Return the schedules by the source name of their table."""
        found: dict[str, ScheduleDef] = {}
        for raw in self._raw.schedules:
            schedule = self._schedule(raw)
            if schedule is not None:
                found[raw.table_name] = schedule
        return found

    def _schedule(self, raw: RawScheduleV10) -> ScheduleDef | None:
        table = self._tables.get(raw.table_name)
        if table is None:
            if raw.table_name not in self._table_names:
                self._add(f"Table {raw.table_name} not found")
            return None
        given = raw.source_name if self._scope.names_are_final else None
        name = schedule_name(table.name) if given is None else given
        self._scope.findings.add_identifier(name)
        if not self._scope.take_entity(name):
            return None
        if not _is_schedulable(table, raw.at_column):
            wanted = "`scheduled_id: u64` and `scheduled_at: ScheduledAt`"
            columns = debug_type(table.row_type)[len("Product(") : -1]
            self._add(f"A scheduled table must have columns {wanted}, but table `{table.name}` has columns {columns}")
        self._check_scheduled_function(name, raw.function_name, table)
        function = self._scope.namer.named(NameKind.FUNCTION, raw.function_name)
        return ScheduleDef(name, table.name, raw.at_column, function, raw.source_name)

    def _check_scheduled_function(self, schedule: str, source: str, table: TableDef) -> None:
        self._private.add(source)
        if source not in self._callable:
            self._add(f"Schedule {schedule} refers to a scheduled reducer or procedure {source} that does not exist")
            return
        kind, params = self._callable[source]
        if [element.type for element in params.elements] != [Ref(table.type_ref)]:
            expected = shown(Product((Element(None, Ref(table.type_ref)),)))
            text = f"expected to have type {expected}, but has type {shown(params)}"
            self._add(f"Scheduled {kind} {source} {text}")

    def lifecycles(self) -> dict[str, Lifecycle]:
        """Return the events by the source name of their reducer."""
        reducers = {raw.source_name: raw for raw in self._raw.reducers}
        found: dict[str, Lifecycle] = {}
        for entry in self._raw.lifecycle_reducers:
            event, reducer = event_name(entry.lifecycle), reducers.get(entry.function_name)
            if reducer is None:
                self._add(f"lifecycle event {event} without reducer")
            elif entry.lifecycle in found.values() or entry.function_name in found:
                self._add(f"Multiple reducers defined for lifecycle event {event}")
            else:
                found[entry.function_name] = entry.lifecycle
                if reducer.params.elements and not self._scope.is_0_11:
                    self._add(f"lifecycle reducer `{reducer.source_name}` for event {event} must not have parameters")
        self._private.update(found)
        return found

    def reducers(self, events: Mapping[str, Lifecycle]) -> tuple[ReducerDef, ...]:
        """Return the reducers in the order of their ids; call `schedules` and `lifecycles` before."""
        return tuple(self._reducer(raw, events.get(raw.source_name)) for raw in self._raw.reducers)

    def _reducer(self, raw: RawReducerV10, event: Lifecycle | None) -> ReducerDef:
        name = self._function_name(raw.source_name)
        self._check_params("reducer", name, raw.params)
        if raw.ok_return_type != UNIT or raw.err_return_type != STRING:
            returned = f"Result<{shown(raw.ok_return_type)}, {shown(raw.err_return_type)}>"
            self._add(f"reducer {name} has invalid return type: found {returned}")
        return ReducerDef(name, raw.source_name, raw.params, event, self._visibility(raw))

    def procedures(self) -> tuple[ProcedureDef, ...]:
        """Return the procedures in the order of their ids; call `schedules` before."""
        return tuple(map(self._procedure, self._raw.procedures))

    def _procedure(self, raw: RawProcedureV10) -> ProcedureDef:
        name = self._function_name(raw.source_name)
        self._check_params("procedure", name, raw.params)
        self._check_use(f"procedure `{name}` return type", raw.return_type)
        return ProcedureDef(name, raw.source_name, raw.params, raw.return_type, self._visibility(raw))

    def _visibility(self, raw: RawReducerV10 | RawProcedureV10) -> Visibility:
        """Return who may call: V10 hides what the database itself calls, V9 hides nothing."""
        if raw.source_name in self._private and not self._scope.names_are_final:
            return Visibility.PRIVATE
        return raw.visibility

    def _function_name(self, source: str) -> str:
        name = self._scope.namer.named(NameKind.FUNCTION, source)
        self._scope.identify(source, name)
        self._scope.take_function(name)
        return name

    def _check_params(self, kind: str, name: str, params: Product) -> None:
        seen: set[str] = set()
        for position, element in enumerate(params.elements):
            where = f"{kind} `{name}` argument {position}"
            if element.name is None and self._scope.is_0_11:
                continue
            if element.name is None:
                text = f"error at {where}: internal codegen error: all {kind} parameters require names"
                self._scope.findings.add(Group.TYPE, text)
                continue
            self._scope.findings.add_identifier(element.name)
            if element.name in seen:
                self._add(f"{kind} `{name}` has more than one parameter `{element.name}`")
            seen.add(element.name)
            self._check_use(f"{where} (`{element.name}`)", element.type)

    def _check_use(self, where: str, type_: AlgebraicType) -> None:
        text = self._scope.types.use_text(type_)
        if text is not None:
            self._scope.findings.add(Group.TYPE, f"error at {where}: {text}")

    def views(self) -> tuple[ViewDef, ...]:
        """Return the views, with the primary keys that are given or inherited."""
        keys, inherited = self._view_keys(), self._inherited_keys()
        return tuple(self._view(raw, keys.get(raw.source_name), inherited) for raw in self._raw.views)

    def _view_keys(self) -> dict[str, tuple[str, ...]]:
        known = {raw.source_name for raw in self._raw.views}
        keys: dict[str, tuple[str, ...]] = {}
        for entry in self._raw.view_primary_keys:
            if entry.view_source_name not in known:
                self._add(f"View {entry.view_source_name} not found for its primary key")
            elif entry.view_source_name in keys:
                self._add(f"View {entry.view_source_name} has more than one primary key entry")
            keys.setdefault(entry.view_source_name, entry.columns)
        return keys

    def _view(self, raw: RawViewV10, key: tuple[str, ...] | None, inherited: Mapping[int, str | None]) -> ViewDef:
        name = self._function_name(raw.source_name)
        self._scope.take_entity(name, raw.source_name)
        if name.startswith(SYSTEM_PREFIX):
            self._add(f"View name is reserved for system use: {name}")
        self._check_params("view", name, raw.params)
        for element in raw.params.elements:
            if element.type in (F32, F64):
                self._add(f"View {name} has a float parameter `{element.name}`, which views can't take yet")
        row_ref, is_query = _view_row(raw.return_type)
        row = None if row_ref is None else self._scope.types.product(row_ref)
        view = ViewDef(name, raw.source_name, raw.index, raw.is_public, raw.is_anonymous, raw.return_type, raw.params)
        if row_ref is None or row is None:
            self._add(f"View {name} has invalid return type {shown(raw.return_type)}")
            return view
        self._scope.types.check_definition(row_ref)
        self._scope.types.row(row_ref, f"view `{name}`")
        if key is not None:
            return replace(view, primary_key=self._view_key(raw, name, row_ref, key))
        return replace(view, primary_key=inherited.get(row_ref)) if is_query and not raw.params.elements else view

    def _view_key(self, raw: RawViewV10, name: str, row_ref: int, key: tuple[str, ...]) -> str | None:
        if raw.params.elements:
            self._add(f"View {name} has parameters and cannot have a primary key")
        if len(key) != 1:
            listed = ", ".join(f'"{column}"' for column in key)
            problem = f"multiple primary key columns: [{listed}]" if key else "a primary key without columns"
            self._add(f"View {name} has {problem}")
            return None
        written = self._scope.types.source_product(row_ref).elements
        canonical = self._scope.types.product(row_ref)
        assert canonical is not None
        for source, element in zip(written, canonical.elements, strict=True):
            if key[0] == source.name:
                return element.name
        self._add(f"Primary key column {key[0]} for view {name} not found")
        return None

    def _inherited_keys(self) -> dict[int, str | None]:
        """Return the keys of tables by the place of their row type; None where two tables differ."""
        keys: dict[int, str | None] = {}
        for table in self._tables.values():
            key = None if table.primary_key is None else table.columns[table.primary_key].name
            keys[table.type_ref] = key if keys.get(table.type_ref, key) == key else None
        return keys


def _view_row(return_type: AlgebraicType) -> tuple[int | None, bool]:
    """Return where a view's row type is, None when it has none of the three forms; and whether it is a query."""
    match return_type:
        case Array(Ref(index)):
            return index, False
        case Product((Element("__query__", Ref(index)),)):
            return index, True
    match option_inner(return_type):
        case Ref(index):
            return index, False
    return None, False


def _is_schedulable(table: TableDef, at_column: int) -> bool:
    if table.primary_key is None or at_column >= len(table.columns):
        return False
    is_due_time = table.columns[at_column].type in (SCHEDULE_AT, OLD_SCHEDULE_AT)
    return is_due_time and table.columns[table.primary_key].type == U64
