"""Functions that the database calls: reducers and the reducers of its events.

Responsible for: the decorators `reducer`, `init`, `client_connected`, `client_disconnected`.
Not responsible for: checking parameters (`definition`), calling (`module`).

A decorated function stays the plain function it is: called from Python it runs in the same transaction.

Source: spec 08, "Functions".
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, TypeVar, overload

from stdb.modules.python.declarations import (
    FunctionDeclaration,
    Place,
    caller_place,
    function_place,
    register,
    report,
)
from stdb.schema.model import Lifecycle

if TYPE_CHECKING:
    from stdb.modules.python.context import ReducerContext

__all__ = ["client_connected", "client_disconnected", "init", "reducer"]

F = TypeVar("F", bound=Callable[Concatenate["ReducerContext", ...], None])
E = TypeVar("E", bound="Callable[[ReducerContext], None]")


@overload
def reducer(function: F, /) -> F: ...
@overload
def reducer(
    *, name: str | None = None, private: bool = False, scheduled: type[Any] | None = None
) -> Callable[[F], F]: ...
def reducer(
    function: Callable[..., None] | None = None,
    /,
    *,
    name: str | None = None,
    private: bool = False,
    scheduled: type[Any] | None = None,
) -> Any:
    """Let clients call a function, as one transaction, under its own name or `name`; a `private` one only the owner.

    With `scheduled` rows of that table call it, each when it is due: `def tick(ctx: ReducerContext, timer: Tick)`.
    """
    place = caller_place()

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        return _declare(function, name, private, None, place, scheduled)

    return declare if function is None else declare(function)


def init(function: E) -> E:
    """Call a function once, when its database is made, in the transaction that makes it."""
    return _declare(function, None, True, Lifecycle.INIT, caller_place())


def client_connected(function: E) -> E:
    """Call a function when a client connects; raising refuses the client."""
    return _declare(function, None, True, Lifecycle.ON_CONNECT, caller_place())


def client_disconnected(function: E) -> E:
    """Call a function when a client has gone."""
    return _declare(function, None, True, Lifecycle.ON_DISCONNECT, caller_place())


def _declare(
    function: F, name: str | None, private: bool, lifecycle: Lifecycle | None, place: Place, scheduled: Any = None
) -> F:
    if not hasattr(function, "__code__"):
        report(place, f"a reducer is a plain function written with def, got {function!r}")
        return function
    found, owner = function_place(function), function.__module__
    called, is_private = function.__name__ if name is None else name, private or scheduled is not None
    register(FunctionDeclaration(function, called, is_private, lifecycle, owner, found, scheduled))
    return function
