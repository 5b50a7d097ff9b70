"""Tables as a test looks into them: the rows of the running database as objects of the test's own classes.

Responsible for: `TableView`, which reads like `ctx.db[User]` in a view.
Not responsible for: which table a class means (`twin`), what clients hold (`caches`).
"""

from collections.abc import Callable
from typing import TypeVar

from stdb.datastore.datastore import Datastore
from stdb.modules.python.output import Output
from stdb.modules.python.query import Access
from stdb.modules.python.table import Binding, Rows
from stdb.testing.twin import RowCodec

__all__ = ["TableView", "bind"]

R = TypeVar("R")
_NOWHERE = Output("stdb.testing")


def bind(datastore: Datastore, table: str, rows: RowCodec) -> Binding:
    """Return what reads a table's rows as objects of a class.

    Raises:
        TypeError: The class has other columns than the table.
    """
    stored = datastore.table(table)
    names = [element.name for element in stored.schema.row_type.elements]
    if names != list(rows.shape.attributes):
        raise TypeError(
            f"{rows.row_class.__name__} has the columns {', '.join(rows.shape.attributes)}, the table {table} has "
            f"{', '.join(str(name) for name in names)}: it is the class of another version of the program"
        )
    access = Access(stored, rows.shape, rows.row_shape)
    return Binding(datastore, stored, access, rows.codec, rows.row_class, _NOWHERE)


class TableView(Rows[R]):
    """The rows of one table, read only: `get`, `find`, `filter`, `len`, iteration, `in`. Valid over restarts."""

    def __init__(self, find: Callable[[], Binding]) -> None:
        self._find = find
        self._binding = find()

    def get(self, key: object) -> R | None:
        """Return the row with this primary key, or None."""
        binding = self._open()
        row = binding.stored.stored.get(binding.key(key, "get"))
        return None if row is None else self._row(row)

    def all(self) -> list[R]:
        """Return all rows, in the order of their bytes: the same whatever order they were written in."""
        return [self._row(row) for row in sorted(self._open().stored.rows())]

    def one(self) -> R:
        """Return the only row. Raises AssertionError when there are more, or none."""
        rows = self.all()
        assert len(rows) == 1, f"{self._binding.name} has {len(rows)} rows: {rows}"
        return rows[0]

    def _open(self) -> Binding:
        self._binding = self._find()
        return self._binding
