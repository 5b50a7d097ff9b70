"""Validation of what hangs on a module besides tables and functions: routes, environment, outboxes.

Responsible for: the rules for HTTP handlers and routes, environment variables, outboxes, and their definitions.
Not responsible for: submodules (`validation`), which are modules themselves.

Source: spec 04 section 4.5; spec 09 sections 3.2, 5.1 and 6.1.
"""

import re
from collections.abc import Iterable, Mapping

from stdb.sats.types import IDENTITY, STRING, U64, U256, UNIT, Ref, result
from stdb.schema.environment import CHOICES_MAX, VALUE_BYTES_MAX, is_variable_name
from stdb.schema.findings import Group, shown
from stdb.schema.model import EnvironmentVariableDef, HttpRouteDef, OutboxDef, ScheduleDef, TableDef
from stdb.schema.naming import Namer
from stdb.schema.raw import NameKind, RawEnvironmentVariable, RawHttpRoute, RawOutbox
from stdb.schema.scope import Scope

__all__ = ["environment", "http_handlers", "http_routes", "outboxes"]

_PATH = re.compile(r"(/[a-z0-9\-_~/]*)?\Z")
_VARIABLES_MAX = 256
_DECLARATION_BYTES_MAX = 2 * 1024 * 1024


def http_handlers(scope: Scope) -> tuple[str, ...]:
    """Return the names of the HTTP handlers."""
    seen: set[str] = set()
    for handler in scope.raw.http_handlers:
        scope.findings.add_identifier(handler.source_name)
        if handler.source_name in seen:
            scope.findings.add(Group.NAME, f"Name {handler.source_name} is used for multiple HTTP handlers")
        seen.add(handler.source_name)
    return tuple(handler.source_name for handler in scope.raw.http_handlers)


def http_routes(scope: Scope) -> tuple[HttpRouteDef, ...]:
    """Return the HTTP routes."""
    handlers = {handler.source_name for handler in scope.raw.http_handlers}
    taken: dict[str, set[str | None]] = {}
    for route in scope.raw.http_routes:
        if not _PATH.match(route.path):
            allowed = "allowed characters are ASCII lowercase letters, digits and `-_~/`"
            scope.findings.add(Group.FUNCTION, f"HTTP route path `{route.path}` is invalid; {allowed}")
        if route.handler_function not in handlers:
            text = f"HTTP route refers to unknown HTTP handler `{route.handler_function}`"
            scope.findings.add(Group.FUNCTION, text)
        methods = taken.setdefault(route.path, set())
        if route.method in methods or None in methods or (methods and route.method is None):
            text = f"HTTP route duplicates method {_method_text(route)} for path {route.path}"
            scope.findings.add(Group.FUNCTION, text)
        methods.add(route.method)
    return tuple(HttpRouteDef(route.handler_function, route.method, route.path) for route in scope.raw.http_routes)


def _method_text(route: RawHttpRoute) -> str:
    return "Any" if route.method is None else f"Method({route.method})"


def environment(scope: Scope) -> tuple[EnvironmentVariableDef, ...] | None:
    """Return the environment variables; None when the module declares nothing."""
    declared = scope.raw.environment
    if declared is None:
        return None
    for text in _environment_texts(declared):
        scope.findings.add(Group.FUNCTION, f"invalid environment declaration: {text}")
    return tuple(EnvironmentVariableDef(raw.name, _choices(raw), raw.optional) for raw in declared)


def _choices(raw: RawEnvironmentVariable) -> tuple[str, ...] | None:
    if isinstance(raw.type, str):
        return (raw.type,)
    return None if raw.type is None else tuple(sorted(set(raw.type)))


def _environment_texts(declared: tuple[RawEnvironmentVariable, ...]) -> Iterable[str]:
    if len(declared) > _VARIABLES_MAX:
        yield "too many declarations"
    names: set[str] = set()
    size = 0
    for raw in declared:
        if not is_variable_name(raw.name):
            yield "invalid name"
            continue
        choices = (raw.type,) if isinstance(raw.type, str) else raw.type or ()
        size += len(raw.name.encode()) + sum(len(choice.encode()) for choice in choices)
        owner = f'environment key "{raw.name}"'
        if raw.name in names:
            yield f"{owner}: duplicate declaration"
        names.add(raw.name)
        if raw.type == ():
            yield f"{owner}: string union must not be empty"
        if len(choices) > CHOICES_MAX:
            yield f"{owner}: string union has too many entries"
        if any(len(choice.encode()) > VALUE_BYTES_MAX for choice in choices):
            yield f"{owner}: declared literal exceeds value size limit"
        if size > _DECLARATION_BYTES_MAX:
            yield f"{owner}: declaration schema exceeds size limit"
            return


def outboxes(
    scope: Scope, tables: Mapping[str, TableDef], schedules: Mapping[str, ScheduleDef]
) -> tuple[OutboxDef, ...]:
    """Return the outboxes; `tables` and `schedules` are by the source names of the tables."""
    found: dict[str, OutboxDef] = {}
    for raw in scope.raw.outboxes:
        table = tables.get(raw.table_name)
        if table is None:
            scope.findings.add(Group.TABLE, f"outbox table {raw.table_name} not found")
            continue
        if table.name in found:
            scope.findings.add(Group.TABLE, f"table {table.name} is assigned in multiple outboxes")
        for text in _outbox_texts(raw, table, raw.table_name in schedules):
            scope.findings.add(Group.TABLE, f"outbox table {table.name} {text}")
        _check_result_reducer(scope, raw, table)
        found[table.name] = _outbox(raw, table, scope.namer)
    return tuple(found.values())


def _outbox(raw: RawOutbox, table: TableDef, namer: Namer) -> OutboxDef:
    on_result = raw.on_result_reducer
    reducer = None if on_result is None else namer.named(NameKind.FUNCTION, on_result)
    return OutboxDef(table.name, raw.remote_reducer, raw.target_column, raw.arg_columns, reducer, raw.signature_hash)


def _outbox_texts(raw: RawOutbox, table: TableDef, is_scheduled: bool) -> Iterable[str]:
    if table.is_event:
        yield "must not be an event table"
    if is_scheduled:
        yield "must not be a scheduled table"
    if table.primary_key is None:
        yield "must have a primary key"
    elif table.columns[table.primary_key].type != U64:
        yield f"primary key must be u64, found {shown(table.columns[table.primary_key].type)}"
    target = table.columns[raw.target_column].type if raw.target_column < len(table.columns) else None
    if target not in (IDENTITY, U256) or raw.target_column == table.primary_key:
        yield "must have exactly one non-primary-key identity target column"
    for column in raw.arg_columns:
        if column >= len(table.columns):
            yield f"argument column {column} does not exist"


def _check_result_reducer(scope: Scope, raw: RawOutbox, table: TableDef) -> None:
    name = raw.on_result_reducer
    if name is None:
        return
    reducer = next((reducer for reducer in scope.raw.reducers if reducer.source_name == name), None)
    if reducer is None:
        text = f"on_result reducer {name} for outbox {table.name} does not exist"
        scope.findings.add(Group.FUNCTION, text)
        return
    outcome = result(UNIT, STRING)
    if [element.type for element in reducer.params.elements] != [Ref(table.type_ref), outcome]:
        text = f"on_result reducer {name} for outbox {table.name} must have the parameters"
        wanted = f"(&{table.type_ref}, {shown(outcome)}), but has type {shown(reducer.params)}"
        scope.findings.add(Group.FUNCTION, f"{text} {wanted}")
