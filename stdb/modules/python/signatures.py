"""Signatures: what the functions of a module take and return, or what is wrong with how they are written.

Responsible for: contexts, parameters and results of reducers, views, procedures and routes, as types and shapes.
Not responsible for: which functions there are together (`definition`), calling them (`module`, `entries`).

Source: spec 08, "Functions"; parameters of views: spec 09 section 9.
"""

import inspect
from collections.abc import Callable
from types import UnionType
from typing import Annotated, Any, NamedTuple, Protocol, TypeAlias, TypeVar, Union, get_args, get_origin

from stdb.modules.python.annotations import AnnotationError, Annotations, ColumnType, resolved
from stdb.modules.python.context import ReducerContext
from stdb.modules.python.declarations import (
    FunctionDeclaration,
    Place,
    ProcedureDeclaration,
    RouteDeclaration,
    ViewDeclaration,
)
from stdb.modules.python.http import Request, Response
from stdb.modules.python.procedures import ProcedureContext
from stdb.modules.python.reader import Query
from stdb.modules.python.routes import HttpContext
from stdb.modules.python.rows import RowShape, shape_of
from stdb.modules.python.views import AnonymousViewContext, ViewContext
from stdb.sats import types
from stdb.sats.objects import ObjectShape
from stdb.sats.types import AlgebraicType, Element, Product, Scalar
from stdb.schema.model import Lifecycle

__all__ = ["EVENTS", "BuiltProcedure", "BuiltReducer", "BuiltView", "Signatures"]

EVENTS = {
    Lifecycle.INIT: "@init",
    Lifecycle.ON_CONNECT: "@client_connected",
    Lifecycle.ON_DISCONNECT: "@client_disconnected",
}
AnyFunction: TypeAlias = FunctionDeclaration | ViewDeclaration | ProcedureDeclaration | RouteDeclaration
_FROM_SQL = {types.STRING, types.BYTES, types.TIMESTAMP, types.IDENTITY, types.CONNECTION_ID, types.UUID}
_CONTEXTS = (ReducerContext, AnonymousViewContext, ViewContext, ProcedureContext, HttpContext)
_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_FORMS = "list[Row], Row | None or Query[Row], where Row is a @table or @product class"


class BuiltReducer(NamedTuple):
    """A declared reducer and what its arguments are."""

    declaration: FunctionDeclaration
    params: Product
    shape: ObjectShape


class BuiltView(NamedTuple):
    """A declared view, what its parameters and its rows are. `form` is list, Query or None (for an option)."""

    declaration: ViewDeclaration
    params: Product
    shape: ObjectShape
    is_anonymous: bool
    form: Any
    row: ColumnType
    row_class: Any

    @property
    def return_type(self) -> AlgebraicType:
        """The result's type in the module's definition."""
        if self.form is list:
            return types.Array(self.row.type)
        return types.option(self.row.type) if self.form is None else Product((Element("__query__", self.row.type),))


class BuiltProcedure(NamedTuple):
    """A declared procedure and what its arguments and its result are."""

    declaration: ProcedureDeclaration
    params: Product
    shape: ObjectShape
    result: ColumnType


class Report(Protocol):
    """Takes a finding."""

    def __call__(self, place: Place | None, text: str, *, unresolved: bool = False) -> None:
        """Add it."""


class Signatures:
    """Reads the signatures of one module's functions; what is wrong goes to `report`."""

    def __init__(self, annotations: Annotations, report: Report) -> None:
        self._annotations = annotations
        self._sink = report
        self._count = 0

    def reducer(self, declaration: FunctionDeclaration) -> BuiltReducer | None:
        """Return a reducer; None when something is wrong with it."""
        found = self._count
        function, name = declaration.function, declaration.function.__name__
        if inspect.iscoroutinefunction(function) or _is_generator(function):
            text = f"{name} is async or a generator: a reducer runs to its end without waiting"
            self._report(declaration, text if _is_generator(function) else f"{text}; what waits is a @procedure")
        parameters = self._parameters(declaration, ReducerContext)
        if inspect.signature(function).return_annotation not in (inspect.Signature.empty, None, "None"):
            self._report(declaration, f"{name} returns nothing to its caller: annotate it -> None")
        if declaration.lifecycle is not None and parameters:
            self._report(declaration, f"{name}: {EVENTS[declaration.lifecycle]} functions take the context alone")
        read = self._read(declaration, parameters)
        return None if self._count > found else BuiltReducer(declaration, *read)

    def view(self, declaration: ViewDeclaration) -> BuiltView | None:
        """Return a view; None when something is wrong with it."""
        found = self._count
        function, name = declaration.function, declaration.function.__name__
        if inspect.iscoroutinefunction(function) or _is_generator(function):
            self._report(declaration, f"{name} is async or a generator: a view is a plain function that returns rows")
        parameters = self._parameters(declaration, ViewContext)
        is_anonymous = self._is_anonymous(declaration)
        read = self._read(declaration, parameters)
        for element in read[0].elements:
            self._check_view_parameter(declaration, element)
        form, row, row_class = self._rows(declaration)
        if declaration.primary_key is not None:
            self._check_view_key(declaration, parameters, shape_of(row_class))
        if self._count > found or row is None:
            return None
        return BuiltView(declaration, *read, is_anonymous, form, row, row_class)

    def procedure(self, declaration: ProcedureDeclaration) -> BuiltProcedure | None:
        """Return a procedure; None when something is wrong with it."""
        found = self._count
        function, name = declaration.function, declaration.function.__name__
        if not inspect.iscoroutinefunction(function):
            self._report(declaration, f"{name} is no `async def`: a procedure is, as it waits; or make it a @reducer")
        parameters = self._parameters(declaration, ProcedureContext)
        read = self._read(declaration, parameters)
        result = self._result(declaration)
        if self._count > found or result is None:
            return None
        return BuiltProcedure(declaration, *read, result)

    def route(self, declaration: RouteDeclaration) -> None:
        """Check the handler of a route."""
        function, name = declaration.function, declaration.function.__name__
        if _is_generator(function):
            self._report(declaration, f"{name} is a generator: the handler of a route returns a Response")
        is_async = "async " * inspect.iscoroutinefunction(function)
        wanted = f"{is_async}def {name}(ctx: HttpContext, request: Request) -> Response"
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        if len(parameters) != 2:
            self._report(declaration, f"{name} takes {len(parameters)} parameters: write {wanted}")
            return
        for parameter, what, expected in zip(parameters, ("context", "request"), (HttpContext, Request), strict=True):
            if parameter.kind not in _BY_PLACE:
                self._report(declaration, f"{name}({parameter.name}) is given by its place: write {wanted}")
            self._check_place(declaration, parameter, what, expected, wanted)
        if not self._may_be(declaration, signature.return_annotation, Response):
            shown = _shown(signature.return_annotation)
            self._report(declaration, f"{name} returns a Response, not a {shown}: write {wanted}")

    def _report(self, declaration: AnyFunction, text: str, *, unresolved: bool = False) -> None:
        self._count += 1
        self._sink(declaration.place, text, unresolved=unresolved)

    # Parameters

    def _parameters(self, declaration: AnyFunction, context: type) -> list[inspect.Parameter]:
        """Return the parameters behind the context."""
        function = declaration.function
        parameters = list(inspect.signature(function).parameters.values())
        is_async = "async " * isinstance(declaration, ProcedureDeclaration)
        wanted = f"{is_async}def {function.__name__}(ctx: {context.__name__}, …)"
        if not parameters or parameters[0].kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
            self._report(declaration, f"{function.__name__} takes no context: write {wanted}")
        elif not isinstance(declaration, ViewDeclaration):  # which context a view has makes a difference
            self._check_place(declaration, parameters[0], "context", context, wanted)
        return parameters[1:]

    def _check_place(
        self, declaration: AnyFunction, parameter: inspect.Parameter, what: str, expected: type, wanted: str
    ) -> None:
        """Report a parameter whose annotation says that it is something else than what it is given."""
        annotation = parameter.annotation
        if not self._may_be(declaration, annotation, expected):
            path = f"{declaration.function.__name__}({parameter.name})"
            self._report(declaration, f"{path} is where the {what} goes, not a {_shown(annotation)}: write {wanted}")

    def _may_be(self, declaration: AnyFunction, annotation: Any, expected: type) -> bool:
        """Tell whether an annotation allows an instance of `expected`; what cannot be read does."""
        if annotation in (inspect.Parameter.empty, Any):
            return True
        try:
            found = resolved(annotation, _namespace(declaration), "")
        except AnnotationError:  # imported for type checkers alone
            return True
        if type(found).__name__ == "TypeAliasType":
            return self._may_be(declaration, found.__value__, expected)
        if get_origin(found) is Annotated:
            return self._may_be(declaration, get_args(found)[0], expected)
        if get_origin(found) in (Union, UnionType):
            return any(self._may_be(declaration, each, expected) for each in get_args(found))
        if isinstance(found, type) and found is not Any and get_origin(found) is None:
            return getattr(found, "_is_protocol", False) or issubclass(expected, found)
        return found is Any or isinstance(found, TypeVar)

    def _read(self, declaration: AnyFunction, parameters: list[inspect.Parameter]) -> tuple[Product, ObjectShape]:
        """Return the type and shape of those parameters that can be read."""
        read = [(each.name, self._parameter(declaration, each)) for each in parameters]
        known = [(name, column) for name, column in read if column is not None]
        product = Product(tuple(Element(name, column.type) for name, column in known))
        return product, ObjectShape(
            _arguments, tuple(name for name, _ in known), tuple(each.shape for _, each in known)
        )

    def _parameter(self, declaration: AnyFunction, parameter: inspect.Parameter) -> ColumnType | None:
        path = f"{declaration.function.__name__}({parameter.name})"
        if parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
            text = f"{path}: arguments of {_plural(declaration)} have fixed places: no *, ** or keyword-only ones"
            self._report(declaration, text)
        elif parameter.annotation is inspect.Parameter.empty:
            self._report(declaration, f"{path}: has no type: annotate it as a column, e.g. {parameter.name}: str")
        elif (context := self._context(declaration, parameter.annotation)) is not None:
            text = f"{path}: a {context.__name__} comes first and once, in a function outside of a class"
            self._report(declaration, f"{text}; arguments follow")
        else:
            return self._column(declaration, parameter.annotation, path)
        return None

    def _context(self, declaration: AnyFunction, annotation: Any) -> type | None:
        """Return the kind of context that an annotation is, if it is one."""
        try:
            found = resolved(annotation, _namespace(declaration), "")
        except AnnotationError:  # reported by who reads it as a column
            return None
        return found if isinstance(found, type) and found in _CONTEXTS else None

    def _column(self, declaration: AnyFunction, annotation: Any, path: str) -> ColumnType | None:
        try:
            return self._annotations.read(annotation, _namespace(declaration), path)
        except AnnotationError as error:
            self._report(declaration, str(error), unresolved=error.unresolved)
            return None

    def _resolved(self, declaration: AnyFunction, annotation: Any, path: str) -> Any:
        """Return the object that an annotation is, None when it cannot be found."""
        try:
            return resolved(annotation, _namespace(declaration), path)
        except AnnotationError as error:
            self._report(declaration, str(error), unresolved=error.unresolved)
            return None

    def _result(self, declaration: ProcedureDeclaration) -> ColumnType | None:
        name = declaration.function.__name__
        annotation = inspect.signature(declaration.function).return_annotation
        if annotation is inspect.Signature.empty:
            self._report(declaration, f"{name}: say what it returns to its caller, as a column's type, or -> None")
            return None
        if annotation in (None, "None"):
            return ColumnType(types.UNIT, None)
        return self._column(declaration, annotation, f"{name}() ->")

    # Views

    def _is_anonymous(self, declaration: ViewDeclaration) -> bool:
        """Tell by its context whether a view's result is the same for everybody."""
        name = declaration.function.__name__
        parameters = list(inspect.signature(declaration.function).parameters.values())[:1]
        if not parameters:
            return False  # reported already
        advice = "annotate the context as ViewContext, or as AnonymousViewContext where all get the same rows"
        if parameters[0].annotation is inspect.Parameter.empty:
            self._report(declaration, f"{name}({parameters[0].name}): {advice}")
            return False
        count = self._count
        context = self._resolved(declaration, parameters[0].annotation, f"{name}({parameters[0].name})")
        if context not in (ViewContext, AnonymousViewContext) and self._count == count:
            self._report(declaration, f"{name}({parameters[0].name}): {advice}")
        return context is AnonymousViewContext

    def _check_view_parameter(self, declaration: ViewDeclaration, element: Element) -> None:
        path = f"{declaration.function.__name__}({element.name})"
        if element.type in (types.F32, types.F64):
            self._report(declaration, f"{path}: a view takes no float: no two clients would share its result")
        elif element.type not in _FROM_SQL and not isinstance(element.type, Scalar):
            wanted = "bool, integers, str, bytes, Timestamp, Identity, Address or UUID"
            self._report(declaration, f"{path}: the parameters of a view are given in SQL: use {wanted}")

    def _rows(self, declaration: ViewDeclaration) -> tuple[Any, ColumnType | None, Any]:
        """Return the form of a view's result, the type of its rows and their class."""
        name = declaration.function.__name__
        annotation = inspect.signature(declaration.function).return_annotation
        if annotation is inspect.Signature.empty:
            self._report(declaration, f"{name}: say what it returns: {_FORMS}")
            return None, None, None
        count, path = self._count, f"{name}() ->"
        result = self._resolved(declaration, annotation, path)
        form: Any = get_origin(result)
        if form in (list, Query):
            (inner,) = get_args(result)
        else:
            inner = _option_of(result)
            form = None
        row_class = self._resolved(declaration, inner, path)
        if self._count > count:
            return None, None, None
        if shape_of(row_class) is None:
            self._report(declaration, f"{path} {_shown(annotation)} is no result of a view: write {_FORMS}")
            return None, None, None
        return form, self._column(declaration, row_class, path), row_class

    def _check_view_key(self, declaration: ViewDeclaration, parameters: list[Any], row: RowShape | None) -> None:
        name, key = declaration.function.__name__, declaration.primary_key
        if parameters:
            self._report(declaration, f"{name}: a view with parameters has no primary key: remove primary_key=…")
        if row is not None and not any(column.name == key for column in row.columns):
            known = ", ".join(column.name for column in row.columns)
            self._report(declaration, f"{name}: primary_key={key!r} is no column of {row.name}; there are {known}")


def _option_of(annotation: Any) -> Any:
    """Return T of `T | None`; None for anything else."""
    arguments = get_args(annotation)
    inner = [each for each in arguments if each is not type(None)]
    return inner[0] if len(arguments) == 2 and len(inner) == 1 else None


def _shown(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    for each in getattr(annotation, "__metadata__", ()):
        if isinstance(each, Scalar):
            return each.kind.value.lower()
    return annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)


def _namespace(declaration: AnyFunction) -> dict[str, Any]:
    namespace: dict[str, Any] = inspect.unwrap(declaration.function).__globals__
    return namespace


def _plural(declaration: AnyFunction) -> str:
    match declaration:
        case ViewDeclaration():
            return "views"
        case ProcedureDeclaration():
            return "procedures"
    return "reducers"


def _is_generator(function: Callable[..., Any]) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _arguments(*values: Any) -> tuple[Any, ...]:
    return values
