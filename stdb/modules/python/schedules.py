"""Schedules: which function the rows of a scheduled table call, or what is wrong with that.

Responsible for: checks of scheduled tables and functions together, the Schedules of a raw definition.
Not responsible for: the columns of scheduled tables (`tables`), other checks of functions (`signatures`), timers.

Source: spec 08, "Functions"; spec 04 sections 4.5 and 8; no scheduled event tables: spec 09 section 3.2.
"""

import inspect
from collections.abc import Iterator
from typing import Any, TypeAlias

from stdb.modules.python.declarations import (
    Declarations,
    Finding,
    FunctionDeclaration,
    ProcedureDeclaration,
    TableDeclaration,
)
from stdb.modules.python.tables import is_due_time
from stdb.schema import raw

__all__ = ["raw_schedules", "schedule_findings"]

Scheduled: TypeAlias = FunctionDeclaration | ProcedureDeclaration


def raw_schedules(declarations: Declarations) -> Iterator[raw.RawScheduleV10]:
    """Yield the schedules, in the order of their tables."""
    functions = {id(each.scheduled): each for each in _functions(declarations)}
    for table in declarations.tables:
        if table.scheduled:
            at_column = next(i for i, column in enumerate(table.shape.columns) if is_due_time(column))
            yield raw.RawScheduleV10(None, table.name, at_column, functions[id(table.key)].name)


def schedule_findings(declarations: Declarations) -> Iterator[Finding]:
    """Yield what is wrong with scheduled tables and their functions."""
    functions = _functions(declarations)
    tables = {id(table.key): table for table in declarations.tables if table.scheduled}
    for table in tables.values():
        yield from _table_findings(table, [each for each in functions if each.scheduled is table.key])
    for function in functions:
        yield from _function_findings(function, tables.get(id(function.scheduled)))


def _functions(declarations: Declarations) -> list[Scheduled]:
    called: list[Scheduled] = [*declarations.functions, *declarations.procedures]
    return [each for each in called if each.scheduled is not None]


def _table_findings(table: TableDeclaration, functions: list[Scheduled]) -> Iterator[Finding]:
    name = table.shape.name
    if not functions:
        written = f"@reducer(scheduled={name}) def {table.name}_due(ctx: ReducerContext, timer: {name}) -> None"
        yield Finding(table.place, f"{name} is scheduled and its rows call nothing: write {written}")
    for other in functions[1:]:
        first = functions[0]
        text = f"{other.name} is a second function for the rows of {name}; the first is {first.name} at {first.place}"
        yield Finding(other.place, f"{text}: merge them")
    if table.event:
        text = f"scheduled table {table.name} must not be an event table: its rows would be gone before they are due"
        yield Finding(table.place, text)
    due = [column.name for column in table.shape.columns if is_due_time(column)]
    if len(due) > 1:
        text = f"{name} has several columns of ScheduleAt ({', '.join(due)}): rows are due once, keep one"
        yield Finding(table.shape.place_of(due[1]), text)
    if not any(column.marker.primary_key for column in table.shape.columns):
        text = f"{name}.scheduled_id: the key of a scheduled table is a u64: write = primary_key(auto_inc=True)"
        yield Finding(table.shape.place_of("scheduled_id"), text)


def _function_findings(function: Scheduled, table: TableDeclaration | None) -> Iterator[Finding]:
    name, key = function.function.__name__, function.scheduled
    called = getattr(key, "__name__", repr(key))
    if table is None:
        advice = "write @table(scheduled=True) on its class"
        yield Finding(function.place, f"{name}: scheduled={called} is no scheduled table of this module: {advice}")
        return
    parameters = list(inspect.signature(function.function).parameters.values())[1:]
    if len(parameters) != 1 or not _is_row(parameters[0].annotation, key):
        wanted = f"def {name}(ctx, timer: {called})"
        text = f"{name} is called with a row of {called} and nothing else: write {wanted}"
        yield Finding(function.place, text)


def _is_row(annotation: Any, row_class: Any) -> bool:
    if isinstance(annotation, str):
        return bool(annotation.strip("\"' ").rpartition(".")[2] == row_class.__name__)
    return annotation is row_class
