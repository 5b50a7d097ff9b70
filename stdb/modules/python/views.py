"""Views: functions whose rows clients query and subscribe to like a table.

Responsible for: the decorator `view`, the contexts `ViewContext` and `AnonymousViewContext`.
Not responsible for: reading tables (`reader`), checking signatures (`signatures`), running (`entries`).

Source: spec 08, "Functions".
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, TypeVar, overload

from stdb.modules.python.declarations import ViewDeclaration, caller_place, function_place, register, report
from stdb.modules.python.environment import Variables
from stdb.sats.special import Identity

if TYPE_CHECKING:
    from stdb.modules.python.reader import ReadDatabase

__all__ = ["AnonymousViewContext", "ViewContext", "view"]

F = TypeVar("F", bound=Callable[Concatenate["ViewContext", ...], Any])


class AnonymousViewContext:
    """What a view knows whose rows are the same for everybody. Valid during its run."""

    db: "ReadDatabase"
    """The module's tables, for reading."""

    env: Variables
    """The module's environment variables: the view is run again when one that it reads has changed."""

    def __init__(self, db: "ReadDatabase", env: Variables) -> None:
        self.db = db
        self.env = env

    if not TYPE_CHECKING:  # a type checker would believe that every attribute exists

        def __getattr__(self, name: str) -> Any:
            """Refuse what a view is not told: its rows depend on nothing but the tables and its parameters."""
            if name == "sender":
                raise AttributeError("an anonymous view has no sender: annotate its context as ViewContext")
            raise AttributeError(
                f"the context of a view has no attribute {name!r}: its rows depend on the tables and its parameters, "
                "and with ViewContext on the sender"
            )


class ViewContext(AnonymousViewContext):
    """What a view knows that has rows for each caller. Valid during its run."""

    sender: Identity
    """Who looks."""

    def __init__(self, db: "ReadDatabase", env: Variables, sender: Identity) -> None:
        super().__init__(db, env)
        self.sender = sender


@overload
def view(function: F, /) -> F: ...
@overload
def view(*, public: bool = False, name: str | None = None, primary_key: str | None = None) -> Callable[[F], F]: ...
def view(
    function: Any = None, /, *, public: bool = False, name: str | None = None, primary_key: str | None = None
) -> Any:
    """Make the rows that a function returns something that clients query and subscribe to like a table.

    The function only reads: `def mine(ctx: ViewContext) -> list[Item]`, or `-> Item | None`, or `-> Query[Item]` with
    `return ctx.db[Item].query(Item.owner == ctx.sender)`. It is run again when what it read has changed. With an
    `AnonymousViewContext` everybody shares one result. Parameters behind the context are given in SQL, `mine(42)`.

    Args:
        function: The function.
        public: Everybody may read it; otherwise the database's owner alone.
        name: Its name to clients; the function's own unless given.
        primary_key: The column by which clients tell that a row was updated; a query has that of its table.
    """
    place = caller_place()

    def declare(function: F) -> F:
        if not hasattr(function, "__code__"):
            report(place, f"a view is a plain function written with def, got {function!r}")
            return function
        called = function.__name__ if name is None else name
        found = function_place(function)
        register(ViewDeclaration(function, called, public, primary_key, function.__module__, found))
        return function

    return declare if function is None else declare(function)
