"""Entries: the functions of a module as the database calls them, bytes in and bytes out.

Responsible for: entries of reducers, views, procedures and routes; checking what they return; sorting what they raise.
Not responsible for: binding to tables (`module`), transactions and deadlines (`stdb.actors`), waiting (`steps`).

Source: spec 08, "Functions"; spec 04 sections 5 and 7.
"""

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from stdb.errors import DecodeError, ModuleFault, ReducerError, ReducerTimeout
from stdb.modules.protocol import (
    FATAL,
    HttpRequest,
    HttpResponse,
    ProcedureCall,
    ReducerCall,
    RouteCall,
    ViewCall,
)
from stdb.modules.python.context import ReducerContext, Surroundings
from stdb.modules.python.declarations import Place, RouteDeclaration, shown_path
from stdb.modules.python.environment import Variables
from stdb.modules.python.http import Request, Response
from stdb.modules.python.output import Output, describe_failure, failure_place, failure_text, shown_value
from stdb.modules.python.procedures import ProcedureContext
from stdb.modules.python.reader import Query, ReadDatabase, Reading
from stdb.modules.python.routes import HttpContext, PlainHttpContext
from stdb.modules.python.steps import Steps, Waits
from stdb.modules.python.views import AnonymousViewContext, ViewContext
from stdb.sats import bsatn
from stdb.sats.objects import ObjectShape
from stdb.sats.special import Identity
from stdb.sats.types import Product, Typespace

if TYPE_CHECKING:
    from stdb.modules.python.database import Database
    from stdb.modules.python.signatures import BuiltProcedure, BuiltReducer, BuiltView
    from stdb.modules.python.table import Binding

__all__ = ["Bound", "procedure_entry", "reducer_entry", "route_entry", "view_entry"]


class Bound:
    """What entries need of the database that the module is attached to."""

    __slots__ = ("around", "bindings", "database", "names", "output")
    database: "Database"
    around: Surroundings
    bindings: "Mapping[Any, Binding]"
    """By row class or handle."""
    names: "Mapping[str, Binding]"

    def __init__(self, output: Output) -> None:
        self.output = output


def reducer_entry(bound: Bound, reducer: "BuiltReducer", typespace: Typespace) -> Callable[[ReducerCall, bytes], None]:
    """Return the entry of a reducer."""
    decode = _argument_decoder(reducer.params, reducer.shape, typespace)
    function, name = reducer.declaration.function, reducer.declaration.name
    output = bound.output

    def run(call: ReducerCall, args: bytes) -> None:
        values = decode(args)[0]
        output.function = name
        try:
            function(ReducerContext(bound.database, call, bound.around), *values)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it must not bring the server down
            _raise_sorted(error, call.transaction.expired)
        if call.transaction.expired:
            raise ReducerTimeout("the time limit of this call has passed")

    return run


# Views


def view_entry(bound: Bound, view: "BuiltView", typespace: Typespace) -> Callable[[ViewCall], list[bytes]]:
    """Return the entry of a view."""
    decode = _argument_decoder(view.params, view.shape, typespace)
    encode = bsatn.object_codec(view.row.type, view.row.shape, typespace).encode
    function, name = view.declaration.function, view.declaration.name

    def run(call: ViewCall) -> list[bytes]:
        values = decode(call.args)[0]
        bound.output.function = name
        reading = Reading(call.reads)
        try:
            rows = _rows(view, function(_view_context(bound, view, call, reading), *values), encode)
        except BaseException as error:  # noqa: BLE001 - as in a reducer
            _raise_sorted(error, call.reads.expired, view.declaration.place)
        finally:
            reading.is_open = False
        if call.reads.expired:
            raise ReducerTimeout("the time limit of this view has passed")
        return rows

    return run


def _view_context(bound: Bound, view: "BuiltView", call: ViewCall, reading: Reading) -> AnonymousViewContext:
    db, env = ReadDatabase(bound.bindings, bound.names, reading), Variables(bound.around.environment, reading)
    if view.is_anonymous:
        return AnonymousViewContext(db, env)
    assert call.sender is not None, f"view {view.declaration.name} has rows for each caller"
    return ViewContext(db, env, Identity(call.sender))


def _rows(view: "BuiltView", result: Any, encode: Callable[[Any], bytes]) -> list[bytes]:
    """Return the bytes of the rows that a view returned.

    Raises:
        TypeError: It returned something else than its annotation says.
    """
    row_class = view.row_class
    if view.form is Query:
        if not isinstance(result, Query) or result.row_class is not row_class:
            raise _wrong(view, f"Query[{row_class.__name__}]", result)
        return result.rows()
    if view.form is list:
        if not isinstance(result, list):
            advice = ": write list(…) around it" if hasattr(type(result), "__iter__") else ""
            raise _wrong(view, f"list[{row_class.__name__}]", result, advice)
        return [_row(view, row, encode) for row in result]
    if isinstance(result, list | Query):
        raise _wrong(view, f"{row_class.__name__} | None", result)
    return [] if result is None else [_row(view, result, encode)]


def _row(view: "BuiltView", row: Any, encode: Callable[[Any], bytes]) -> bytes:
    if row.__class__ is not view.row_class:
        raise _wrong(view, f"rows of {view.row_class.__name__}", row)
    try:
        return encode(row)
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise ValueError(f"view {view.declaration.name} returned a row that does not fit its type: {error}") from None


def _wrong(view: "BuiltView", wanted: str, got: object, advice: str = "") -> TypeError:
    return TypeError(f"view {view.declaration.name} returns {wanted}, got {shown_value(got)}{advice}")


# Procedures and routes


def procedure_entry(
    bound: Bound, procedure: "BuiltProcedure", typespace: Typespace
) -> Callable[[ProcedureCall, bytes], Awaitable[bytes]]:
    """Return the entry of a procedure."""
    decode = _argument_decoder(procedure.params, procedure.shape, typespace)
    encode = bsatn.object_codec(procedure.result.type, procedure.result.shape, typespace).encode
    function, name = procedure.declaration.function, procedure.declaration.name
    is_unit = procedure.result.type == Product(())

    async def result(call: ProcedureCall, values: tuple[Any, ...], waits: Waits) -> bytes:
        returned = await function(ProcedureContext(bound, call, waits), *values)
        try:
            encoded: bytes = encode(() if is_unit and returned is None else returned)
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            unfit = "but it is annotated -> None" if is_unit else f"which does not fit its type: {error}"
            raise ValueError(f"procedure {name} returned {returned!r}, {unfit}") from None
        return encoded

    async def run(call: ProcedureCall, args: bytes) -> bytes:
        values = decode(args)[0]
        waits = Waits(call.host)
        encoded: bytes = await _run(bound, waits, result(call, values, waits), name, procedure.declaration.place)
        return encoded

    return run


def route_entry(bound: Bound, route: RouteDeclaration) -> Callable[[RouteCall, HttpRequest], Awaitable[HttpResponse]]:
    """Return the handler of a route."""
    answer = _waiting_route if inspect.iscoroutinefunction(route.function) else _plain_route

    async def run(call: RouteCall, request: HttpRequest) -> HttpResponse:
        waits = Waits(call.host)
        response: HttpResponse
        response = await _run(
            bound, waits, answer(bound, route, call._replace(host=waits), request), route.name, route.place
        )
        return response

    return run


async def _waiting_route(bound: Bound, route: RouteDeclaration, call: RouteCall, request: HttpRequest) -> HttpResponse:
    context = HttpContext(bound, call, call.host)
    return _response(route, await route.function(context, Request(request, route.path)))


async def _plain_route(bound: Bound, route: RouteDeclaration, call: RouteCall, request: HttpRequest) -> HttpResponse:
    def answer(transaction: ReducerCall) -> HttpResponse:
        bound.output.function = route.name
        context = PlainHttpContext(bound, transaction, call.host)
        response = _response(route, route.function(context, Request(request, route.path)))
        if transaction.transaction.expired:
            raise ReducerTimeout("the time limit of this call has passed")
        return response

    return await call.host.transact(answer)


def _response(route: RouteDeclaration, response: object) -> HttpResponse:
    if not isinstance(response, Response):
        raise TypeError(f"the route {route.name} returns a Response, got {response!r}")
    return response.to_wire()


async def _run(bound: Bound, waits: Waits, coroutine: Coroutine[Any, Any, Any], name: str, place: Place) -> Any:
    """Run what may wait."""
    steps: Steps[Any] = Steps(coroutine, waits, bound.output, name)
    try:
        return await steps
    except (waits.cancelled, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - as in a reducer
        with waits.running():  # the text of an exception is made by the module's code
            _raise_sorted(error, False, place)


# Arguments and failures


def _argument_decoder(
    params: Product, shape: ObjectShape, typespace: Typespace
) -> Callable[[bytes], tuple[tuple[Any, ...], int]]:
    """Return the function from a call's BSATN to (arguments, end); leftovers are ignored (spec 01 section 5.4)."""
    if not any(shape.shapes):
        return bsatn.codec(params, typespace).decode
    decode = bsatn.object_codec(params, shape, typespace).decode

    def arguments(args: bytes) -> tuple[tuple[Any, ...], int]:
        try:
            return decode(args)
        except DecodeError:
            raise
        except (OverflowError, ValueError) as error:  # a moment outside what datetime can say
            raise DecodeError(f"an argument has no such value in Python: {error}") from error

    return arguments


def _raise_sorted(error: BaseException, is_expired: bool, default: Place | None = None) -> NoReturn:
    """Raise what the database knows for what left a function of the module; `default` is where it was if none tells."""
    kind = type(error)  # `isinstance` would ask the exception, which is module code
    place = failure_place(error)
    if is_expired or issubclass(kind, ReducerTimeout):
        where = "" if place is None else f"; it was at {place}"
        text = failure_text(error) if issubclass(kind, ReducerTimeout) else "the time limit of this call has passed"
        raise ReducerTimeout(text + where) from error
    if issubclass(kind, ReducerError):
        raise ReducerError(failure_text(error)) from error
    if place is None and default is not None:
        place = Place(shown_path(default.filename), default.line)
    raise ModuleFault(
        FATAL,
        report=describe_failure(error),
        filename=None if place is None else place.filename,
        line=None if place is None else place.line,
    ) from error
