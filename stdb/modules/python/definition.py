"""Definition: from what the decorators collected to a validated ModuleDef, or to everything that is wrong with it.

Responsible for: RawModuleDefV10 of a Python module, the checks that know a file and line, the texts of refusals.
Not responsible for: annotations (`annotations`), the general rules of definitions (`stdb.schema.validation`).

Source: spec 08, "On the wire"; spec 04 sections 4.3 to 4.6.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple, TypeAlias, TypeVar

from stdb.errors import SchemaError
from stdb.modules.python.annotations import AnnotationError, Annotations, ColumnType
from stdb.modules.python.columns import NO_DEFAULT, Marker
from stdb.modules.python.declarations import (
    Declarations,
    Finding,
    FunctionDeclaration,
    Place,
    ProcedureDeclaration,
    RouteDeclaration,
    RuleDeclaration,
    TableDeclaration,
    VariableDeclaration,
    ViewDeclaration,
)
from stdb.modules.python.migrations import BuiltMigration, build_migrations
from stdb.modules.python.rows import RowShape
from stdb.modules.python.schedules import raw_schedules, schedule_findings
from stdb.modules.python.signatures import EVENTS, BuiltProcedure, BuiltReducer, BuiltView, Signatures
from stdb.modules.python.tables import is_due_time
from stdb.sats import bsatn, types
from stdb.sats.names import is_identifier
from stdb.sats.objects import ObjectShape
from stdb.sats.types import Product, Ref, Scalar, ScalarKind
from stdb.schema import raw
from stdb.schema.model import STANDARD_HTTP_METHODS, Access, CasePolicy, IndexAlgorithm, ModuleDef, Visibility
from stdb.schema.validation import validate
from stdb.sql.rules import check_rules

__all__ = ["BuiltTable", "Program", "build"]

_INTEGERS = {Scalar(kind) for kind in ScalarKind if kind.value[0] in "IU"}
_STANDARD_METHODS = {name.upper(): name for name in STANDARD_HTTP_METHODS}
_LETTERS = "use letters, digits and underscores, a digit not first"
_Named: TypeAlias = TableDeclaration | FunctionDeclaration | ViewDeclaration | ProcedureDeclaration | RouteDeclaration
T = TypeVar("T")


class BuiltTable(NamedTuple):
    """A declared table and what its rows are."""

    declaration: TableDeclaration
    row: ColumnType
    columns: tuple[ColumnType, ...]


class Program(NamedTuple):
    """A whole module: its definition, and the tables and functions (in the definition's order) behind it."""

    definition: ModuleDef
    tables: tuple[BuiltTable, ...]
    reducers: tuple[BuiltReducer, ...]
    views: tuple[BuiltView, ...]
    procedures: tuple[BuiltProcedure, ...]
    routes: tuple[RouteDeclaration, ...]
    migrations: tuple[BuiltMigration, ...]


def build(
    declarations: Declarations, namespaces: Mapping[str, Mapping[str, Any]], earlier: Iterable[Finding] = ()
) -> Program:
    """Return the program that was declared.

    Args:
        declarations: What the decorators said.
        namespaces: Every Python module of the program, by dotted name.
        earlier: Mistakes found before; with any of them, names that are not there are not reported again.

    Raises:
        SchemaError: Something is wrong; holds every finding.
    """
    builder = _Builder(declarations, namespaces)
    tables = builder.tables()
    functions = builder.functions()
    migrations = builder.migrations()
    earlier = [*earlier, *declarations.findings]
    findings = [finding for finding in builder.findings if not (earlier and finding.unresolved)]
    _raise_any([*earlier, *findings])
    definition = _raw(builder.annotations, tables, functions, declarations)
    try:
        validated = validate(definition)
    except SchemaError as error:
        _raise_any(_with_place(text, declarations) for text in error.errors)
        raise
    _raise_any(_rule_findings(declarations.rules, validated))
    return Program(validated, tables, *functions, tuple(declarations.routes), migrations)


def _raise_any(findings: Iterable[Finding]) -> None:
    texts = list(dict.fromkeys(str(finding) for finding in findings))
    if texts:
        raise SchemaError(texts)


def _with_place(text: str, declarations: Declarations) -> Finding:
    """Give a finding of the general rules the place of the first thing that it names."""
    words = re.findall(r"\w+", text)
    named: list[_Named] = [*declarations.tables, *declarations.functions, *declarations.views]
    named += [*declarations.procedures, *declarations.routes]
    for each in sorted(named, key=lambda each: -len(each.name)):
        if any(word == each.name or word.startswith(each.name + "_") for word in words):
            return Finding(each.place, text)
    return Finding(None, text)


_RULE_HINT = "write a filter as SELECT t.* FROM t [JOIN …] [WHERE …], returning a public table of this module"


def _rule_findings(rules: list[RuleDeclaration], definition: ModuleDef) -> Iterator[Finding]:
    """Yield what is wrong with the filters, each at its place."""
    wrong = check_rules(definition) if rules else {}
    for rule in rules:
        if rule.sql in wrong:
            yield Finding(rule.place, f"{wrong[rule.sql]}; {_RULE_HINT}")


class _Builder:
    """One pass over the declarations that collects findings instead of stopping at the first."""

    def __init__(self, declarations: Declarations, namespaces: Mapping[str, Mapping[str, Any]]) -> None:
        self.annotations = Annotations(namespaces)
        self.findings: list[Finding] = []
        self._declarations = declarations
        self._signatures = Signatures(self.annotations, self._report)

    def _report(self, place: Place | None, text: str, *, unresolved: bool = False) -> None:
        self.findings.append(Finding(place, text, unresolved))

    # Tables

    def tables(self) -> tuple[BuiltTable, ...]:
        """Return every table whose rows could be read."""
        self._check_duplicates("tables", self._declarations.tables)
        self._check_names("a table", self._declarations.tables)
        built = []
        for declaration in self._declarations.tables:
            row = self._read_row(declaration.shape)
            if row is None:
                continue
            assert isinstance(row.shape, ObjectShape)
            product = self.annotations.types[row.type.index][1] if isinstance(row.type, Ref) else row.type
            assert isinstance(product, Product)
            elements = zip(product.elements, row.shape.shapes, strict=True)
            columns = tuple(ColumnType(element.type, shape) for element, shape in elements)
            built.append(BuiltTable(declaration, row, columns))
            self._check_table(declaration, columns)
        return tuple(built)

    def _read_row(self, shape: RowShape) -> ColumnType | None:
        """Return the type of a row class; each column is tried alone first, so that all mistakes are found."""
        for column in shape.columns:
            try:
                self.annotations.column(shape, column)
            except AnnotationError as error:
                self._report(shape.place_of(column.name), str(error), unresolved=error.unresolved)
        try:
            return self.annotations.row(shape)
        except AnnotationError:
            return None  # reported above

    def _check_table(self, declaration: TableDeclaration, columns: tuple[ColumnType, ...]) -> None:
        shape = declaration.shape
        keys = [column.name for column in shape.columns if column.marker.primary_key]
        if len(keys) > 1:
            self._report(
                shape.place_of(keys[1]),
                f"{shape.name} has {len(keys)} primary keys ({', '.join(keys)}): keep one, make the others unique()",
            )
        for column, column_type in zip(shape.columns, columns, strict=True):
            if column.marker.auto_inc and column_type.type not in _INTEGERS:
                text = f"{shape.name}.{column.name}: auto_inc is for integer columns"
                self._report(shape.place_of(column.name), text)
            self._check_default(shape, column.name, column.marker.default, column_type)
        if declaration.scheduled:
            self._check_schedule_columns(shape, columns)
        for index in declaration.indexes:
            self._check_columns(declaration, repr(index), index.columns)
            if not index.name.isidentifier():
                self._report(declaration.place, f"{index!r}: the name is no identifier")
        for unique in declaration.uniques:
            self._check_columns(declaration, repr(unique), unique.columns)

    def _check_schedule_columns(self, shape: RowShape, columns: tuple[ColumnType, ...]) -> None:
        for column, column_type in zip(shape.columns, columns, strict=True):
            name, path = column.name, f"{shape.name}.{column.name}"
            if column.marker.primary_key and column_type.type != types.U64:
                text = f"{path}: the key of a scheduled table is a u64: write {name}: u64 = primary_key(auto_inc=True)"
                self._report(shape.place_of(name), text)
            elif is_due_time(column) and column_type.type != types.SCHEDULE_AT:
                text = f"{path}: says when its row is due: write {name}: ScheduleAt"
                self._report(shape.place_of(name), text)

    def _check_columns(self, declaration: TableDeclaration, what: str, names: tuple[str, ...]) -> None:
        if not names:
            self._report(declaration.place, f"{declaration.shape.name}: {what} names no columns")
        for name in names:
            if declaration.shape.position(name) is None:
                known = ", ".join(column.name for column in declaration.shape.columns)
                self._report(
                    declaration.place, f"{declaration.shape.name}: {what} names the column {name!r}; there are {known}"
                )

    def _check_default(self, shape: RowShape, name: str, default: Any, column_type: ColumnType) -> None:
        if default is NO_DEFAULT:
            return
        try:
            _encode(self.annotations, column_type, default)
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            self._report(shape.place_of(name), f"{shape.name}.{name}: the default {default!r} does not fit: {error}")

    def _check_type_names(self) -> None:
        seen: set[str] = set()
        for i, (name, _) in enumerate(self.annotations.types):
            if name in seen:
                row = self.annotations.rows.get(i)
                text = f"two types are called {name}: SDKs know types by their name; rename one class"
                self._report(None if row is None else row.place, text)
            seen.add(name)

    def _check_products(self) -> None:
        """Report markers on the columns of products."""
        for row in self.annotations.rows.values():
            for column in row.columns if not row.is_table else ():
                if replace(column.marker, default=NO_DEFAULT) != Marker():
                    text = (
                        f"{row.name}.{column.name}: markers are for the columns of tables; a product has defaults only"
                    )
                    self._report(row.place_of(column.name), text)

    def _check_names(self, what: str, declarations: "Iterable[_Named]") -> None:
        for each in declarations:
            if (mistake := _name_mistake(what, each)) is not None:
                self._report(each.place, mistake)

    def _check_duplicates(self, kind: str, declarations: "Iterable[_Named]") -> None:
        seen: dict[str, Place] = {}
        for each in declarations:
            if each.name in seen:
                first = seen[each.name]
                self._report(each.place, f"two {kind} are called {each.name}; the other is at {first}: rename one")
            seen.setdefault(each.name, each.place)

    # Functions

    def functions(self) -> "_Functions":
        """Return every function whose signature could be read."""
        declared, read = self._declarations, self._signatures
        called: list[_Named] = [*declared.functions, *declared.procedures, *declared.views]
        self._check_duplicates("functions" if declared.procedures or declared.views else "reducers", called)
        for what, named in (
            ("a reducer", declared.functions),
            ("a procedure", declared.procedures),
            ("a view", declared.views),
            ("the handler of a route", self._handlers().values()),
        ):
            self._check_names(what, named)
        self._check_views()
        for event, name in EVENTS.items():
            of_event = [each for each in declared.functions if each.lifecycle is event]
            for each in of_event[1:]:
                self._report(each.place, f"a second {name} function; the first is at {of_event[0].place}: merge them")
        self.findings += schedule_findings(declared)
        self._check_routes()
        self._check_variables()
        functions = _Functions(
            _known(map(read.reducer, declared.functions)),
            _known(map(read.view, declared.views)),
            _known(map(read.procedure, declared.procedures)),
        )
        for route in self._handlers().values():
            read.route(route)
        self._check_type_names()
        self._check_products()
        return functions

    def migrations(self) -> tuple[BuiltMigration, ...]:
        """Return every migration with its table."""
        declared = self._declarations
        found = list(build_migrations(declared.migrations, declared.tables))
        self.findings += [each for each in found if isinstance(each, Finding)]
        return tuple(each for each in found if isinstance(each, BuiltMigration))

    def _check_views(self) -> None:
        tables = {each.name: each for each in self._declarations.tables}
        for view in self._declarations.views:
            if (table := tables.get(view.name)) is not None:
                text = f"the view {view.name} has the name of the table at {table.place}: rename one"
                self._report(view.place, text)

    def _handlers(self) -> dict[int, RouteDeclaration]:
        """Return one route for each function that handles any."""
        return {id(route.function): route for route in reversed(self._declarations.routes)}

    def _check_variables(self) -> None:
        seen: dict[str, Place] = {}
        for each in self._declarations.variables:
            if each.name in seen:
                text = f"the environment variable {each.name} is declared at {seen[each.name]} already: once is enough"
                self._report(each.place, text)
            seen.setdefault(each.name, each.place)

    def _check_routes(self) -> None:
        taken: dict[str, list[RouteDeclaration]] = {}
        for route in self._declarations.routes:
            for other in taken.setdefault(route.path, []):
                if route.method == other.method or None in (route.method, other.method):
                    shown = f"{route.method or 'of any method'} {route.path!r}"
                    self._report(
                        route.place, f"the route {shown} is taken by {other.name} at {other.place}: change one"
                    )
                    break
            taken[route.path].append(route)
        self._check_duplicates("handlers of routes", list(self._handlers().values())[::-1])


class _Functions(NamedTuple):
    """What a module calls and lets be called."""

    reducers: tuple[BuiltReducer, ...]
    views: tuple[BuiltView, ...]
    procedures: tuple[BuiltProcedure, ...]


def _name_mistake(what: str, declaration: "_Named") -> str | None:
    """Return why something cannot be called what it is called."""
    name: object = declaration.name
    if not isinstance(name, str):
        return f"{what} cannot be called {name!r}: a name is a text"
    if name == "<lambda>":
        return f"{what} has a name: write it with def, not as a lambda"
    if not is_identifier(name):
        suggested = re.sub(r"\W+", "_", name) or "name"
        suggested = f"_{suggested}" if suggested[0].isdigit() else suggested
        return f"{what} cannot be called {name!r}: {_LETTERS}, e.g. {suggested}"
    return None


def _known(built: Iterable[T | None]) -> tuple[T, ...]:
    return tuple(each for each in built if each is not None)


def _encode(annotations: Annotations, column_type: ColumnType, value: Any) -> bytes:
    codec = bsatn.object_codec(column_type.type, column_type.shape, annotations.typespace)
    encoded: bytes = codec.encode(value)
    return encoded


# The raw definition


def _raw(
    annotations: Annotations, tables: tuple[BuiltTable, ...], functions: _Functions, declarations: Declarations
) -> raw.RawModuleDefV10:
    declared, handlers = declarations.functions, dict.fromkeys(route.name for route in declarations.routes)
    return raw.RawModuleDefV10(
        typespace=annotations.typespace,
        types=tuple(raw.RawTypeDef(raw.RawTypeName(name), i) for i, (name, _) in enumerate(annotations.types)),
        tables=tuple(_raw_table(annotations, table) for table in tables),
        reducers=tuple(
            raw.RawReducerV10(each.declaration.name, each.params, _visibility(each.declaration.private))
            for each in functions.reducers
        ),
        procedures=tuple(
            raw.RawProcedureV10(
                each.declaration.name, each.params, each.result.type, _visibility(each.declaration.private)
            )
            for each in functions.procedures
        ),
        views=tuple(_raw_views(functions.views)),
        schedules=tuple(raw_schedules(declarations)),
        lifecycle_reducers=tuple(
            raw.RawLifecycleReducer(each.lifecycle, each.name) for each in declared if each.lifecycle is not None
        ),
        row_level_security=tuple(raw.RawRowLevelSecurity(rule.sql) for rule in declarations.rules),
        environment=tuple(map(_raw_variable, declarations.variables)) or None,
        case_policy=CasePolicy.NONE,
        http_handlers=tuple(map(raw.RawHttpHandler, handlers)),
        http_routes=tuple(_raw_route(route) for route in declarations.routes),
        view_primary_keys=tuple(
            raw.RawViewPrimaryKey(view.name, (view.primary_key,))
            for view in declarations.views
            if view.primary_key is not None
        ),
    )


def _visibility(private: bool) -> Visibility:
    return Visibility.PRIVATE if private else Visibility.CLIENT_CALLABLE


def _raw_variable(variable: VariableDeclaration) -> raw.RawEnvironmentVariable:
    return raw.RawEnvironmentVariable(variable.name, variable.choices, variable.optional)


def _raw_views(views: tuple[BuiltView, ...]) -> Iterator[raw.RawViewV10]:
    """Yield the views, anonymous ones and others each numbered by themselves."""
    numbers = {True: count(), False: count()}
    for view in views:
        declaration, number = view.declaration, next(numbers[view.is_anonymous])
        yield raw.RawViewV10(
            *(declaration.name, number, declaration.public, view.is_anonymous, view.params, view.return_type)
        )


def _raw_route(route: RouteDeclaration) -> raw.RawHttpRoute:
    """Return a route; a definition calls the standard methods `Get` and the like."""
    method = None if route.method is None else _STANDARD_METHODS.get(route.method, route.method)
    return raw.RawHttpRoute(route.name, method, route.path)


def _raw_table(annotations: Annotations, table: BuiltTable) -> raw.RawTableV10:
    declaration, columns = table.declaration, table.declaration.shape.columns
    assert isinstance(table.row.type, Ref)
    uniques = list(_uniques(declaration))
    defaults = (
        raw.RawColumnDefault(i, _encode(annotations, table.columns[i], column.marker.default))
        for i, column in enumerate(columns)
        if column.marker.default is not NO_DEFAULT
    )
    return raw.RawTableV10(
        source_name=declaration.name,
        product_type_ref=table.row.type.index,
        primary_key=tuple(i for i, column in enumerate(columns) if column.marker.primary_key),
        indexes=tuple(_indexes(declaration, uniques)),
        constraints=tuple(raw.RawConstraint(None, each) for each in uniques),
        sequences=tuple(raw.RawSequence(None, i) for i, column in enumerate(columns) if column.marker.auto_inc),
        access=Access.PUBLIC if declaration.public else Access.PRIVATE,
        default_values=tuple(defaults),
        is_event=declaration.event,
    )


def _uniques(declaration: TableDeclaration) -> Iterator[tuple[int, ...]]:
    for i, column in enumerate(declaration.shape.columns):
        if column.marker.unique:
            yield (i,)
    for unique in declaration.uniques:
        yield tuple(_positions(declaration, unique.columns))


def _indexes(declaration: TableDeclaration, uniques: list[tuple[int, ...]]) -> Iterator[raw.RawIndex]:
    """Yield every index: those asked for, and one for each unique constraint whose columns none of these has."""
    names = [column.name for column in declaration.shape.columns]
    found: dict[tuple[int, ...], tuple[str, IndexAlgorithm]] = {}
    for i, column in enumerate(declaration.shape.columns):
        if column.marker.index is not None or column.marker.unique:
            found[i,] = (column.name, column.marker.index or IndexAlgorithm.BTREE)
    asked = [(each, tuple(_positions(declaration, each.columns))) for each in declaration.indexes]
    found |= {columns: (index.name, index.algorithm) for index, columns in asked}
    for columns in uniques:
        if not any(set(columns) == set(known) for known in found):
            found[columns] = ("_".join(names[i] for i in columns), IndexAlgorithm.BTREE)
    for columns, (accessor, algorithm) in found.items():
        source = "_".join((declaration.name, *(names[i] for i in columns), "idx", algorithm.suffix))
        yield raw.RawIndex(source, accessor, algorithm, columns)


def _positions(declaration: TableDeclaration, names: tuple[str, ...]) -> Iterator[int]:
    position: Callable[[str], int | None] = declaration.shape.position
    return (found for found in map(position, names) if found is not None)
