"""What spec 08 promises and this version of the server cannot run: migrations.

Responsible for: the names, typed, so that a module that uses them is read and checked; each is refused at publish with
its place.
Not responsible for: the refusal's text (`definition`).
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from stdb.modules.python.declarations import UnsupportedDeclaration, caller_module, caller_place, register
from stdb.sats.special import Timestamp

__all__ = ["MigrationContext", "OldRow", "migrate"]

F = TypeVar("F", bound=Callable[..., Any])


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


def migrate(table: type[Any] | str) -> Callable[[F], F]:
    """Declare how old rows become new ones when a table's columns change."""
    register(UnsupportedDeclaration("@migrate", caller_module(), caller_place()))
    return lambda function: function
