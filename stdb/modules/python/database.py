"""Database: the tables of a module inside a reducer, `ctx.db`.

Responsible for: `ctx.db[User]`, typed, and `ctx.db.user`, untyped.
Not responsible for: tables (`table`, `accessors`).

Source: spec 08, "Access inside a reducer".
"""

from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from stdb.modules.python.rows import shape_of
from stdb.modules.python.table import Table
from stdb.modules.python.tables import TableHandle

__all__ = ["Database", "make_database"]

R = TypeVar("R")


class Database:
    """The tables of a module."""

    def __getitem__(self, table: type[R] | TableHandle[R]) -> Table[R]:
        """Return the table of a row class, or of what `table(RowClass, name=…)` returned.

        Raises:
            KeyError: The module has no such table.
        """
        raise AssertionError("make_database puts the look-up here")

    def __getattr__(self, name: str) -> Any:
        """Return the table of that name.

        Raises:
            AttributeError: The module has no such table.
        """
        raise AttributeError(f"the module has no table {name!r}; it has {', '.join(sorted(vars(self))) or 'none'}")

    def __repr__(self) -> str:
        """Return the names of the tables."""
        return f"<Database: {', '.join(sorted(vars(self)))}>"


class _Tables(dict[Any, Table[Any]]):
    """Tables by row class or handle."""

    def __missing__(self, key: object) -> NoReturn:
        shape = shape_of(key)
        if shape is not None and not shape.is_table:
            raise KeyError(f"{shape.name} is a @product, not a @table")
        raise KeyError(f"{getattr(key, '__name__', key)!r} is no table of this module")


def make_database(tables: Mapping[Any, Table[Any]], names: Mapping[str, Table[Any]]) -> Database:
    """Return a Database of tables by row class or handle, and by name."""
    # A C function, found on the class and called without self: the look-up takes no Python frame.
    database: Database = type("Database", (Database,), {"__getitem__": _Tables(tables).__getitem__})()
    vars(database).update(names)
    return database
