"""Routes: functions that answer HTTP requests to the database.

Responsible for: the decorator `http_route`, the context `HttpContext`.
Not responsible for: requests and responses (`http`), running (`entries`), finding the route of a request (`stdb.net`).

Source: spec 08, "Functions"; spec 05 route 30; the rules for paths: spec 04 section 4.5.
"""

import re
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from stdb.modules.python.context import OF_EVERY_CALL, WAITS
from stdb.modules.python.declarations import RouteDeclaration, caller_place, function_place, register, report
from stdb.modules.python.procedures import Waiting, made_attribute

if TYPE_CHECKING:
    from stdb.modules.protocol import ProcedureHost
    from stdb.modules.python.context import Circumstances
    from stdb.modules.python.database import Database
    from stdb.modules.python.entries import Bound
    from stdb.modules.python.http import Request, Response

__all__ = ["HttpContext", "PlainHttpContext", "http_route"]

F = TypeVar("F", bound="Callable[[HttpContext, Request], Response | Coroutine[Any, Any, Response]]")
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_PATH = re.compile(r"(/[a-z0-9\-_~/]*)?\Z")


class HttpContext(Waiting):
    """What a route knows: in a plain function the tables, in an `async def` one transactions and waiting.

    Nobody is authenticated, so there is no sender; the headers of the request are all there is.
    """

    db: "Database"
    """The module's tables, in a plain function: it is one transaction."""

    if not TYPE_CHECKING:  # a type checker would believe that every attribute exists

        def __getattr__(self, name: str) -> Any:
            """Make an attribute that was not read before."""
            if name in ("sender", "address", "connection_id", "sender_auth"):
                raise AttributeError(f"a route has no {name}: nobody is authenticated; look at request.headers")
            return made_attribute(self, name, "the context of an async route", OF_EVERY_CALL)


class PlainHttpContext(HttpContext):
    """The context of a plain function: one transaction, without waiting."""

    def __init__(self, bound: "Bound", call: "Circumstances", host: "ProcedureHost") -> None:
        super().__init__(bound, call, host)
        self.db = bound.database

    if not TYPE_CHECKING:

        def __getattribute__(self, name: str) -> Any:
            """Hide what waits, so that `__getattr__` is asked."""
            if name in WAITS:
                raise AttributeError(name)
            return super().__getattribute__(name)

        def __getattr__(self, name: str) -> Any:
            """Refuse what waits; make an attribute that was not read before."""
            if name in WAITS:
                raise AttributeError(f"a plain route is one transaction and has no {name}: make it async def to wait")
            return super().__getattr__(name)


def http_route(method: str | None, path: str) -> Callable[[F], F]:
    """Let a function answer requests to `/v1/database/NAME/route` followed by `path`: "", "/" or "/hello".

    `def hello(ctx: HttpContext, request: Request) -> Response` is one transaction, which raising rolls back; an
    `async def` function may wait and makes its own transactions, as a procedure does. `method` is "GET" and so on; None
    or "ANY" for all. A function may have several routes.
    """
    place = caller_place()

    def declare(function: F) -> F:
        if not hasattr(function, "__code__"):
            report(place, f"the handler of a route is a function, got {function!r}")
            return function
        mistake = _mistake(method, path)
        if mistake is not None:
            report(place, mistake)
            return function
        called = None if method is None or method.upper() == "ANY" else method.upper()
        name, found = function.__name__, function_place(function)
        register(RouteDeclaration(function, name, called, path, function.__module__, found))
        return function

    return declare


def _mistake(method: object, path: object) -> str | None:
    if method is not None and not (isinstance(method, str) and _METHOD.match(method)):
        return f'http_route({method!r}, {path!r}): the method is a text such as "GET", or None for any'
    if not isinstance(path, str) or not _PATH.match(path):
        wanted = 'the path is "" or begins with /, and has lower-case letters, digits and -_~/ only'
        return f"http_route({method!r}, {path!r}): {wanted}"
    return None
