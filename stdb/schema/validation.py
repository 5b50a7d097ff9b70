"""Validation: from a raw definition to a `ModuleDef`, or to everything that is wrong with it.

Responsible for: the order of the rules, the upgrade of V8 and V9 to the common form, submodules, the whole definition.
Not responsible for: the rules for tables (`tables`), functions (`functions`), types (`client_types`), other parts
(`attachments`); row-level security, whose SQL is checked against the tables by the one who publishes.

Source: spec 04 sections 4.5 and 4.6, spec 09 section 3.2.
"""

from dataclasses import replace

from stdb.errors import SchemaError
from stdb.sats.types import Product, Typespace
from stdb.schema import attachments
from stdb.schema.client_types import TypeChecker
from stdb.schema.findings import Findings, Group
from stdb.schema.functions import FunctionValidator, event_name
from stdb.schema.model import CasePolicy, ModuleDef, ReducerDef, RowLevelSecurityDef, SubmoduleDef, TypeDef, Visibility
from stdb.schema.mounting import mounted
from stdb.schema.naming import Namer
from stdb.schema.raw import (
    NameKind,
    RawColumnDefault,
    RawColumnDefaultV9,
    RawLifecycleReducer,
    RawModuleDef,
    RawModuleDefV8,
    RawModuleDefV9,
    RawModuleDefV10,
    RawProcedureV9,
    RawProcedureV10,
    RawReducerV10,
    RawScheduleV10,
    RawSubmodule,
    RawTableV9,
    RawTableV10,
    RawViewV9,
    RawViewV10,
)
from stdb.schema.raw_v8 import upgraded
from stdb.schema.scope import Scope
from stdb.schema.tables import TableValidator

__all__ = ["COLUMNS_TOTAL_MAX", "NAMESPACE_BYTES_MAX", "TYPES_MAX", "format_errors", "validate"]

NAMESPACE_BYTES_MAX = 63
"""The longest name of a submodule."""
TYPES_MAX = 1 << 16
"""Entries of a module's typespace."""
COLUMNS_TOTAL_MAX = 1 << 18
"""Columns of all tables of a module."""


def validate(raw: RawModuleDef) -> ModuleDef:
    """Return what a raw definition declares, names canonical, columns' Refs filled in, submodules mounted.

    Raises:
        SchemaError: Holds every finding, sorted; each names table and column, function or type.
    """
    if isinstance(raw, RawModuleDefV8):
        return _validate_module(_upgraded(upgraded(raw)), names_are_final=True, is_0_11=True)
    if isinstance(raw, RawModuleDefV9):
        return _validate_module(_upgraded(raw), names_are_final=True)
    return mounted(_validate_module(raw, names_are_final=False))


def format_errors(error: SchemaError) -> str:
    """Return the findings as the reference answers them to a publish."""
    return "Errors occurred:\n" + "".join(f"{text}\n\n" for text in error.errors)


def _validate_module(raw: RawModuleDefV10, *, names_are_final: bool, is_0_11: bool = False) -> ModuleDef:
    findings = Findings(names_are_free=is_0_11)
    policy = CasePolicy.SNAKE_CASE if raw.case_policy is None else raw.case_policy
    _check_size(raw)
    namer = Namer(policy, raw.explicit_names)
    typespace = namer.typespace(raw.typespace)
    types = TypeChecker(raw.typespace, typespace, findings, uses_are_free=is_0_11)
    scope = Scope(raw, names_are_final, namer, types, findings, is_0_11)
    definition = _define(scope, typespace, policy)
    findings.raise_any()
    return definition


def _check_size(raw: RawModuleDefV10) -> None:
    """Refuse what would cost far more than its bytes: many tables may share one row type."""
    types = raw.typespace.types
    if len(types) > TYPES_MAX:
        raise SchemaError([f"the module has {len(types)} types, at most {TYPES_MAX} are possible"])
    columns = 0
    for table in raw.tables:
        row = types[table.product_type_ref] if table.product_type_ref < len(types) else None
        columns += len(row.elements) if isinstance(row, Product) else 0
    if columns > COLUMNS_TOTAL_MAX:
        text = f"the tables have {columns} columns altogether, at most {COLUMNS_TOTAL_MAX} are possible"
        raise SchemaError([text])


def _define(scope: Scope, typespace: Typespace, policy: CasePolicy) -> ModuleDef:
    """Apply every rule; the result counts only when there are no findings."""
    raw = scope.raw
    scope.types.declare(raw.types, frozenset(table.product_type_ref for table in raw.tables))
    types = _type_defs(scope)
    defined = [(table.source_name, TableValidator(scope, table).validate()) for table in raw.tables]
    tables = {source: table for source, table in defined if table is not None}
    functions = FunctionValidator(scope, tables)
    schedules, events = functions.schedules(), functions.lifecycles()
    boxes = attachments.outboxes(scope, tables, schedules)
    answering = {box.on_result_reducer for box in boxes}
    return ModuleDef(
        typespace=typespace,
        tables=tuple(replace(table, schedule=schedules.get(source)) for source, table in tables.items()),
        reducers=tuple(_hidden(reducer, answering) for reducer in functions.reducers(events)),
        types=types,
        procedures=functions.procedures(),
        views=functions.views(),
        row_level_security=tuple(RowLevelSecurityDef(rule.sql) for rule in raw.row_level_security),
        case_policy=policy,
        abi_is_v10=not scope.names_are_final,
        is_0_11=scope.is_0_11,
        http_handlers=attachments.http_handlers(scope),
        http_routes=attachments.http_routes(scope),
        submodules=tuple(filter(None, [_submodule(scope, submodule) for submodule in _unique_namespaces(scope)])),
        environment=attachments.environment(scope),
        outboxes=boxes,
    )


def _hidden(reducer: ReducerDef, answering: set[str | None]) -> ReducerDef:
    """Return a reducer, private if it takes the results of an outbox."""
    return replace(reducer, visibility=Visibility.PRIVATE) if reducer.name in answering else reducer


def _type_defs(scope: Scope) -> tuple[TypeDef, ...]:
    found: dict[tuple[tuple[str, ...], str], TypeDef] = {}
    for raw in scope.raw.types:
        namer, findings = scope.namer, scope.findings
        path = tuple(map(namer.type_name, raw.name.scope))
        name = namer.type_name(raw.name.name)
        for source, canonical in zip((*raw.name.scope, raw.name.name), (*path, name), strict=True):
            scope.identify(source, canonical)
        if (path, name) in found:
            findings.add(Group.NAME, f"name `{'::'.join((*path, name))}` is used for multiple types")
        found[path, name] = TypeDef(name, path, raw.type_ref, raw.custom_ordering, raw.name.name)
    return tuple(found.values())


def _unique_namespaces(scope: Scope) -> tuple[RawSubmodule, ...]:
    """Note namespaces that are illegal, taken twice or taken by something else; return all submodules."""
    accessors: set[str] = set()
    names: set[str] = set()
    owners = _accessors(scope.raw)
    for submodule in scope.raw.submodules:
        accessor = submodule.namespace
        name = scope.namer.named(NameKind.NAMESPACE, accessor)
        scope.identify(accessor, name)
        for text in sorted({accessor, name}):
            if len(text.encode()) > NAMESPACE_BYTES_MAX:
                size = f"is {len(text.encode())} bytes, which exceeds the {NAMESPACE_BYTES_MAX}-byte limit"
                scope.findings.add(Group.NAME, f"submodule namespace `{text}` {size}")
        if accessor in accessors or name in names:
            scope.findings.add(Group.NAME, f"name `{accessor}` is used for multiple entities")
        accessors.add(accessor)
        names.add(name)
        if accessor in owners:
            kind = owners[accessor]
            conflict = f"naming conflict between {kind} `{accessor}` and submodule namespace `{accessor}`"
            rule = f"a {kind} cannot share its accessor name with a namespace mounted in the same module"
            scope.findings.add(Group.NAME, f"{conflict}; {rule}")
    return scope.raw.submodules


def _accessors(raw: RawModuleDefV10) -> dict[str, str]:
    """Return what each accessor name of a module names."""
    owners = {procedure.source_name: "procedure" for procedure in raw.procedures}
    owners |= {reducer.source_name: "reducer" for reducer in raw.reducers}
    owners |= {view.source_name: "view" for view in raw.views}
    return owners | {table.source_name: "table" for table in raw.tables}


def _submodule(scope: Scope, submodule: RawSubmodule) -> SubmoduleDef | None:
    accessor, inner = submodule.namespace, submodule.module
    for entry in inner.lifecycle_reducers:
        text = (
            f"lifecycle event {event_name(entry.lifecycle)} is not permitted in submodule under namespace `{accessor}`"
        )
        rule = "lifecycle reducers may only be declared in the root module"
        scope.findings.add(Group.FUNCTION, f"{text}; {rule}")
    if inner.environment:
        scope.findings.add(Group.FUNCTION, f'submodule "{accessor}" cannot declare environment variables')
    if inner.http_routes:
        text = f"submodule `{accessor}` has HTTP routes, only those of the root module are served: declare them there"
        scope.findings.add(Group.FUNCTION, text)
    if inner.row_level_security:
        text = f"submodule `{accessor}` has row-level security; declare it in the root module for `{accessor}.table`"
        scope.findings.add(Group.TABLE, text)
    try:
        definition = _validate_module(inner, names_are_final=False)
    except SchemaError as error:
        for text in error.errors:
            scope.findings.add(Group.TYPE, f"submodule `{accessor}`: {text}")
        return None
    return SubmoduleDef(scope.namer.named(NameKind.NAMESPACE, accessor), accessor, definition)


def _upgraded(raw: RawModuleDefV9) -> RawModuleDefV10:
    """Return a V9 definition in the common form."""
    defaults: dict[str, list[RawColumnDefault]] = {table.name: [] for table in raw.tables}
    for export in raw.misc_exports:
        if isinstance(export, RawColumnDefaultV9):
            if export.table not in defaults:
                raise SchemaError([f"Table {export.table} not found"])
            defaults[export.table].append(RawColumnDefault(export.column, export.value))
    return RawModuleDefV10(
        typespace=raw.typespace,
        types=raw.types,
        tables=tuple(_upgraded_table(table, defaults[table.name]) for table in raw.tables),
        reducers=tuple(RawReducerV10(reducer.name, reducer.params) for reducer in raw.reducers),
        procedures=tuple(_upgraded_procedure(e) for e in raw.misc_exports if isinstance(e, RawProcedureV9)),
        views=tuple(_upgraded_view(e) for e in raw.misc_exports if isinstance(e, RawViewV9)),
        schedules=tuple(
            RawScheduleV10(table.schedule.name, table.name, table.schedule.at_column, table.schedule.reducer_name)
            for table in raw.tables
            if table.schedule is not None
        ),
        lifecycle_reducers=tuple(
            RawLifecycleReducer(reducer.lifecycle, reducer.name)
            for reducer in raw.reducers
            if reducer.lifecycle is not None
        ),
        row_level_security=raw.row_level_security,
        case_policy=CasePolicy.NONE,
    )


def _upgraded_table(raw: RawTableV9, defaults: list[RawColumnDefault]) -> RawTableV10:
    return RawTableV10(
        source_name=raw.name,
        product_type_ref=raw.product_type_ref,
        primary_key=raw.primary_key,
        indexes=raw.indexes,
        constraints=raw.constraints,
        sequences=raw.sequences,
        is_system=raw.is_system,
        access=raw.access,
        default_values=tuple(defaults),
    )


def _upgraded_procedure(raw: RawProcedureV9) -> RawProcedureV10:
    return RawProcedureV10(raw.name, raw.params, raw.return_type)


def _upgraded_view(raw: RawViewV9) -> RawViewV10:
    return RawViewV10(raw.name, raw.index, raw.is_public, raw.is_anonymous, raw.params, raw.return_type)
