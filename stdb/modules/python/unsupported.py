"""What spec 08 promises and this version of the server cannot run: views, procedures, routes, migrations.

Responsible for: the names, typed, so that a module that uses them is read and checked; each is refused at publish with
its place.
Not responsible for: the refusal's text (`definition`).
"""

from collections.abc import Callable
from typing import Any, NoReturn, Protocol, TypeVar, overload

from stdb.errors import StdbError
from stdb.modules.python.declarations import UnsupportedDeclaration, caller_module, caller_place, register
from stdb.sats.special import Identity, Timestamp

__all__ = [
    "AnonymousViewContext",
    "HttpContext",
    "MigrationContext",
    "OldRow",
    "ProcedureContext",
    "Request",
    "Response",
    "ViewContext",
    "http_route",
    "migrate",
    "procedure",
    "refuse",
    "view",
]

F = TypeVar("F", bound=Callable[..., Any])


def refuse(what: str) -> NoReturn:
    """Raise the error for something that is used at run time.

    Raises:
        StdbError: Always.
    """
    raise StdbError(f"{what} is not supported by this version of stdb")


class AnonymousViewContext(Protocol):
    """What a view knows whose result is the same for everybody."""

    @property
    def db(self) -> Any:
        """The tables, for reading."""


class ViewContext(AnonymousViewContext, Protocol):
    """What a view knows that has a result for each caller."""

    @property
    def sender(self) -> Identity:
        """Who looks."""


class ProcedureContext(Protocol):
    """What a procedure knows."""

    @property
    def sender(self) -> Identity:
        """Who called."""

    @property
    def timestamp(self) -> Timestamp:
        """When it was called."""

    async def transact(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a plain function as one transaction; return its result."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class HttpContext(Protocol):
    """What an HTTP route knows."""

    @property
    def timestamp(self) -> Timestamp:
        """When the request came."""


class Request(Protocol):
    """An HTTP request."""

    method: str
    path: str
    body: bytes


class Response:
    """An HTTP response."""

    def __init__(self, body: bytes | str = b"", *, status: int = 200) -> None:
        self.body = body
        self.status = status


class OldRow(Protocol):
    """A row as it was stored, attributes by the old column names."""

    columns: tuple[str, ...]

    def __getattr__(self, name: str) -> Any:
        """Return an old column's value."""


class MigrationContext(Protocol):
    """What a migration knows."""

    @property
    def timestamp(self) -> Timestamp:
        """When the module was published."""


@overload
def view(function: F, /) -> F: ...
@overload
def view(*, public: bool = False, name: str | None = None) -> Callable[[F], F]: ...
def view(function: Any = None, /, *, public: bool = False, name: str | None = None) -> Any:
    """Declare a query that clients subscribe to like a table."""
    return _decorate("@view", function)


@overload
def procedure(function: F, /) -> F: ...
@overload
def procedure(*, name: str | None = None, private: bool = False) -> Callable[[F], F]: ...
def procedure(function: Any = None, /, *, name: str | None = None, private: bool = False) -> Any:
    """Declare a function that may wait, and makes transactions of its own."""
    return _decorate("@procedure", function)


def http_route(method: str, path: str) -> Callable[[F], F]:
    """Declare a function that answers HTTP requests."""
    return _decorate("@http_route", None)  # type: ignore[no-any-return]  # a decorator


def migrate(table: type[Any] | str) -> Callable[[F], F]:
    """Declare how old rows become new ones when a table's columns change."""
    return _decorate("@migrate", None)  # type: ignore[no-any-return]  # a decorator


def _decorate(what: str, function: Any) -> Any:
    declaration = UnsupportedDeclaration(what, caller_module(2), caller_place(2))
    register(declaration)
    return function if function is not None else lambda function: function
