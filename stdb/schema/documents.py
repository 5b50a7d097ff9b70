"""Schema documents: a module's definition written back, as bytes' values and as the JSON that `schema?version=` serves.

Responsible for: `ModuleDef` to RawModuleDef V9 and V10, and to and from their documents.
Not responsible for: layouts (`raw_v9`, `raw_v10`), HTTP.

A module of 0.11 is shown as later clients may know it (`later`).

Source: spec 05 section 1.3.22, and the documents of 2.8.3. V9 is sorted by name and cannot tell event tables, routes,
visibility or names as written; V10 has types, columns and constraints under canonical names, the rest as written.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from stdb.errors import DecodeError
from stdb.schema import raw_v8, raw_v9, raw_v10
from stdb.schema.later import as_later
from stdb.schema.model import (
    CasePolicy,
    IndexDef,
    ModuleDef,
    OutboxDef,
    ProcedureDef,
    ReducerDef,
    ScheduleDef,
    SequenceDef,
    TableDef,
    TypeDef,
    UniqueDef,
    ViewDef,
)
from stdb.schema.raw import (
    NameKind,
    RawColumnDefault,
    RawColumnDefaultV9,
    RawConstraint,
    RawEnvironmentVariable,
    RawExplicitName,
    RawHttpHandler,
    RawHttpRoute,
    RawIndex,
    RawLifecycleReducer,
    RawMiscV9,
    RawModuleDef,
    RawModuleDefV8,
    RawModuleDefV9,
    RawModuleDefV10,
    RawOutbox,
    RawProcedureV9,
    RawProcedureV10,
    RawReducerV9,
    RawReducerV10,
    RawRowLevelSecurity,
    RawScheduleV9,
    RawScheduleV10,
    RawSequence,
    RawSubmodule,
    RawTableV9,
    RawTableV10,
    RawTypeDef,
    RawTypeName,
    RawViewPrimaryKey,
    RawViewV9,
    RawViewV10,
)

__all__ = ["from_json", "raw_to_json", "to_json", "to_raw_v9", "to_raw_v10"]

T = TypeVar("T")


def to_json(definition: ModuleDef, version: int) -> dict[str, Any]:
    """Return the document that `schema?version=` answers; `version` is 9 or 10.

    The V10 document says nothing of the case policy, as the reference's does not.
    """
    if version == 9:
        return raw_v9.to_json(to_raw_v9(definition))
    assert version == 10
    return raw_v10.to_json(_without_policy(to_raw_v10(definition)))


def _without_policy(raw: RawModuleDefV10) -> RawModuleDefV10:
    submodules = tuple(replace(submodule, module=_without_policy(submodule.module)) for submodule in raw.submodules)
    return replace(raw, case_policy=None, submodules=submodules)


def raw_to_json(raw: RawModuleDef) -> dict[str, Any]:
    """Return the document of a raw definition, unchecked."""
    if isinstance(raw, RawModuleDefV8):
        return raw_v8.to_json(raw)
    return raw_v9.to_json(raw) if isinstance(raw, RawModuleDefV9) else raw_v10.to_json(raw)


def from_json(document: Any) -> RawModuleDef:
    """Return the raw definition of a document of either version; DecodeError names the path of what does not fit."""
    if type(document) is not dict:
        raise DecodeError(f"$: expected the document of a module definition, found {type(document).__name__}")
    return raw_v10.from_json(document) if "sections" in document else raw_v9.from_json(document)


def to_raw_v9(definition: ModuleDef) -> RawModuleDefV9:
    """Return the definition as V9: canonical names, everything sorted by name but reducers' parameters and columns."""
    definition = as_later(definition.root or definition)
    return RawModuleDefV9(
        typespace=definition.typespace,
        tables=tuple(_table_v9(table) for table in _by_name(definition.tables, lambda table: table.name)),
        reducers=tuple(
            RawReducerV9(reducer.name, reducer.params, reducer.lifecycle)
            for reducer in _by_name(definition.reducers, lambda reducer: reducer.name)
        ),
        types=tuple(_type(type_) for type_ in sorted(definition.types, key=lambda type_: (type_.scope, type_.name))),
        misc_exports=tuple(_misc_v9(definition)),
        row_level_security=tuple(RawRowLevelSecurity(rule.sql) for rule in definition.row_level_security),
    )


def _by_name(items: Iterable[T], name: Callable[[T], str]) -> list[T]:
    return sorted(items, key=lambda item: name(item).encode())


def _type(type_: TypeDef) -> RawTypeDef:
    return RawTypeDef(RawTypeName(type_.name, type_.scope), type_.type_ref, type_.custom_ordering)


def _misc_v9(definition: ModuleDef) -> Iterable[RawMiscV9]:
    for table in _by_name(definition.tables, lambda table: table.name):
        for position, column in enumerate(table.columns):
            if column.default is not None:
                yield RawColumnDefaultV9(table.name, position, column.default)
    for procedure in _by_name(definition.procedures, lambda procedure: procedure.name):
        yield RawProcedureV9(procedure.name, procedure.params, procedure.return_type)
    for view in _by_name(definition.views, lambda view: view.name):
        yield RawViewV9(view.name, view.index, view.is_public, view.is_anonymous, view.params, view.return_type)


def _table_v9(table: TableDef) -> RawTableV9:
    indexes = _by_name(table.indexes, lambda index: index.name)
    uniques = _by_name(table.uniques, lambda unique: unique.name)
    sequences = _by_name(table.sequences, lambda sequence: sequence.name)
    schedule = table.schedule
    return RawTableV9(
        name=table.name,
        product_type_ref=table.type_ref,
        primary_key=_key(table),
        indexes=tuple(_index(index, index.name) for index in indexes),
        constraints=tuple(map(_constraint, uniques)),
        sequences=tuple(map(_sequence, sequences)),
        schedule=None if schedule is None else RawScheduleV9(schedule.name, schedule.function, schedule.at_column),
        access=table.access,
    )


def _key(table: TableDef) -> tuple[int, ...]:
    return () if table.primary_key is None else (table.primary_key,)


def _index(index: IndexDef, name: str) -> RawIndex:
    return RawIndex(name, index.accessor, index.algorithm, index.columns)


def _constraint(unique: UniqueDef) -> RawConstraint:
    return RawConstraint(unique.name, unique.columns)


def _sequence(sequence: SequenceDef) -> RawSequence:
    numbers = (sequence.start, sequence.min_value, sequence.max_value, sequence.increment)
    return RawSequence(sequence.name, sequence.column, *numbers)


def to_raw_v10(definition: ModuleDef) -> RawModuleDefV10:
    """Return the definition as V10: names as written, their canonical names beside them, none left to convert."""
    definition = as_later(definition.root or definition)
    accessors = _accessors(definition)
    return RawModuleDefV10(
        typespace=definition.typespace,
        types=tuple(map(_type, definition.types)),
        tables=tuple(map(_table_v10, definition.tables)),
        reducers=tuple(RawReducerV10(r.accessor, r.params, r.visibility) for r in definition.reducers),
        procedures=tuple(
            RawProcedureV10(p.accessor, p.params, p.return_type, p.visibility) for p in definition.procedures
        ),
        views=tuple(map(_view_v10, definition.views)),
        schedules=tuple(
            _schedule_v10(table, table.schedule, accessors) for table in definition.tables if table.schedule is not None
        ),
        lifecycle_reducers=tuple(_lifecycles(definition)),
        row_level_security=tuple(RawRowLevelSecurity(rule.sql) for rule in definition.row_level_security),
        case_policy=CasePolicy.NONE,
        explicit_names=tuple(_explicit_names(definition)),
        http_handlers=tuple(map(RawHttpHandler, definition.http_handlers)),
        http_routes=tuple(RawHttpRoute(route.handler, route.method, route.path) for route in definition.http_routes),
        view_primary_keys=tuple(
            RawViewPrimaryKey(view.accessor, (view.primary_key,))
            for view in definition.views
            if view.primary_key is not None
        ),
        submodules=tuple(RawSubmodule(s.accessor, to_raw_v10(s.definition)) for s in definition.submodules),
        environment=_environment(definition),
        outboxes=tuple(_outbox(definition, outbox, accessors) for outbox in definition.outboxes),
    )


def _accessors(definition: ModuleDef) -> dict[str, str]:
    """Return the source names of reducers and procedures by their canonical names."""
    reducers = {reducer.name: reducer.accessor for reducer in definition.reducers}
    return reducers | {procedure.name: procedure.accessor for procedure in definition.procedures}


def _table_v10(table: TableDef) -> RawTableV10:
    defaults = ((position, column.default) for position, column in enumerate(table.columns))
    return RawTableV10(
        source_name=table.accessor,
        product_type_ref=table.type_ref,
        primary_key=_key(table),
        indexes=tuple(_index(index, index.source_name or index.name) for index in table.indexes),
        constraints=tuple(map(_constraint, table.uniques)),
        sequences=tuple(map(_sequence, table.sequences)),
        access=table.access,
        default_values=tuple(RawColumnDefault(at, value) for at, value in defaults if value is not None),
        is_event=table.is_event,
    )


def _view_v10(view: ViewDef) -> RawViewV10:
    return RawViewV10(view.accessor, view.index, view.is_public, view.is_anonymous, view.params, view.return_type)


def _schedule_v10(table: TableDef, schedule: ScheduleDef, accessors: dict[str, str]) -> RawScheduleV10:
    return RawScheduleV10(schedule.name, table.accessor, schedule.at_column, accessors[schedule.function])


def _lifecycles(definition: ModuleDef) -> Iterable[RawLifecycleReducer]:
    for reducer in definition.reducers:
        if reducer.lifecycle is not None:
            yield RawLifecycleReducer(reducer.lifecycle, reducer.accessor)


def _explicit_names(definition: ModuleDef) -> Iterable[RawExplicitName]:
    for table in definition.tables:
        yield RawExplicitName(NameKind.TABLE, table.accessor, table.name)
    functions: tuple[ReducerDef | ProcedureDef | ViewDef, ...]
    functions = (*definition.reducers, *definition.procedures, *definition.views)
    for function in functions:
        yield RawExplicitName(NameKind.FUNCTION, function.accessor, function.name)
    for submodule in definition.submodules:
        yield RawExplicitName(NameKind.NAMESPACE, submodule.accessor, submodule.namespace)


def _environment(definition: ModuleDef) -> tuple[RawEnvironmentVariable, ...] | None:
    if definition.environment is None:
        return None
    return tuple(RawEnvironmentVariable(v.name, v.choices, v.is_optional) for v in definition.environment)


def _outbox(definition: ModuleDef, outbox: OutboxDef, accessors: dict[str, str]) -> RawOutbox:
    table = definition.table(outbox.table)
    assert table is not None
    on_result = outbox.on_result_reducer
    return RawOutbox(
        table.accessor,
        outbox.remote_reducer,
        outbox.target_column,
        outbox.arg_columns,
        None if on_result is None else accessors[on_result],
        outbox.signature_hash,
    )
