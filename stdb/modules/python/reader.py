"""Reader: the tables of a module inside a view, read only, and what was read of them.

Responsible for: `ctx.db` of views, its tables and the indexes in the spelling of other SDKs, `Query`, noting reads.
Not responsible for: the tables of reducers (`table`, `accessors`), which pay nothing for this; plans (`query`).

What is noted is a key where an index is asked for values of exactly all its columns, and the whole table otherwise.

Source: spec 08, "Access inside a reducer" and "Functions"; spec 04 section 12, the refresh rule.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from stdb.datastore.index import UniqueIndex
from stdb.datastore.table import AnyIndex
from stdb.errors import ReducerTimeout, StdbError
from stdb.modules.python.accessors import IndexRows, index_key_prefix, index_names
from stdb.modules.python.query import Plan, plan
from stdb.modules.python.rows import shape_of
from stdb.modules.python.table import ALL, Binding, Rows, refuse_attribute
from stdb.modules.python.tables import TableHandle

if TYPE_CHECKING:
    from stdb.modules.protocol import ReadSet

__all__ = ["Query", "ReadDatabase", "ReadTable", "Reading"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
_WRITES = {
    *("insert", "try_insert", "insert_many", "insert_or_update", "update", "delete", "delete_key", "clear"),
}


class Reading:
    """One run of a view: what it has read so far, and whether it still runs."""

    __slots__ = ("is_open", "reads")

    def __init__(self, reads: "ReadSet") -> None:
        self.reads = reads
        self.is_open = True

    def check(self) -> None:
        """Let a read go on.

        Raises:
            ReducerTimeout: The time limit of the run has passed.
            StdbError: The run has ended.
        """
        if not self.is_open:
            raise StdbError("ctx.db is open during a view's run only: do not keep it for later")
        if self.reads.expired:
            raise ReducerTimeout("the time limit of this view has passed")


class Query(Generic[R_co]):
    """A view's result that is a condition on one table: `ctx.db[Item].query(Item.owner == ctx.sender)`."""

    __slots__ = ("_condition", "_table")

    def __init__(self, table: "ReadTable[Any]", condition: bool) -> None:
        self._table = table
        self._condition = condition

    @property
    def row_class(self) -> Any:
        """The class of its rows."""
        return self._table._binding.row_class

    def rows(self) -> list[bytes]:
        """Return the bytes of the rows that meet the condition now."""
        self._table._open()
        return self._table._matching(self._condition, "query")

    def __repr__(self) -> str:
        """Return the call that makes it."""
        shown = "" if self._condition is ALL else repr(self._condition)
        return f"{self._table!r}.query({shown})"


class ReadTable(Rows[R]):
    """The rows of one table, as `ctx.db[RowClass]` gives it inside a view."""

    def __init__(self, binding: Binding, reading: Reading) -> None:
        self._binding = binding
        self._reading = reading

    def get(self, key: object) -> R | None:
        """Return the row with this primary key, or None."""
        binding = self._open()
        place = binding.key(key, "get")
        index = binding.stored.primary
        assert index is not None, "binding.key() refuses tables without a primary key"
        self._note(index, place)
        row = index.find(place)
        return None if row is None else self._row(row)

    def query(self, condition: bool = ALL) -> Query[R]:
        """Return the rows that meet a condition as the result of a view."""
        binding = self._open()
        if condition is not ALL:
            plan(binding.access, binding.condition(condition, "query"))  # which says what is wrong with it
        return Query(self, condition)

    # Inside

    if not TYPE_CHECKING:  # a type checker would believe that every attribute exists

        def __getattr__(self, name: str) -> Any:
            """Return the index of that name; refuse what writes, and what is no indexed column."""
            if name.startswith("__"):
                raise AttributeError(name)
            binding = self._binding
            if name in _WRITES:
                _refuse_write(f"{name}() on table {binding.name}")
            for index in binding.stored.indexes:
                if name in index_names(binding, index):
                    kind = ReadUniqueIndex if isinstance(index, UniqueIndex) else ReadIndex
                    self.__dict__[name] = accessor = kind(self, index)
                    return accessor
            return refuse_attribute(binding, name)

    def _open(self) -> Binding:
        self._reading.check()
        return self._binding

    def _whole(self) -> Binding:
        binding = self._open()
        self._reading.reads.tables.add(binding.stored.schema.id)
        return binding

    def _note(self, index: AnyIndex, key: Any) -> None:
        self._reading.reads.add_key(self._binding.stored.schema.id, index.id, key)

    def _rows_of(self, found: Plan) -> list[bytes]:
        if not found.points:
            self._whole()
        for index, keys in found.points:
            for key in keys:
                self._note(index, key)
        return found.rows()


class ReadIndex(IndexRows):
    """The rows by the columns of one index, for reading."""

    _table: ReadTable[Any]

    def __init__(self, table: ReadTable[Any], index: AnyIndex) -> None:
        self._table = table
        self._index = index

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse what writes."""
        if name in ("update", "delete"):
            _refuse_write(f"{name}() by index {self._index.name}")
        raise AttributeError(f"index {self._index.name} has no operation {name!r}")

    def _rows(self, values: tuple[object, ...]) -> list[bytes]:
        binding, index = self._table._open(), self._index
        prefix = index_key_prefix(binding, index, values)
        if len(prefix) < len(index.columns):
            self._table._whole()
        else:
            self._table._note(index, prefix[0] if len(prefix) == 1 else prefix)
        return list(index.scan(prefix))


class ReadUniqueIndex(ReadIndex):
    """The one row by the columns of a unique index, for reading."""

    def find(self, *values: object) -> Any:
        """Return the row that has these values, or None."""
        return self._one(values)


class ReadDatabase:
    """The tables of a module inside a view."""

    def __init__(self, bindings: Mapping[Any, Binding], names: Mapping[str, Binding], reading: Reading) -> None:
        self._bindings = bindings
        self._names = names
        self._reading = reading

    def __getitem__(self, table: type[R] | TableHandle[R]) -> ReadTable[R]:
        """Return the table of a row class, or of what `table(RowClass, name=…)` returned.

        Raises:
            KeyError: The module has no such table.
        """
        binding = self._bindings.get(table)
        if binding is None:
            shape = shape_of(table)
            if shape is not None and not shape.is_table:
                raise KeyError(f"{shape.name} is a @product, not a @table")
            raise KeyError(f"{getattr(table, '__name__', table)!r} is no table of this module")
        return ReadTable(binding, self._reading)

    def __getattr__(self, name: str) -> Any:
        """Return the table of that name.

        Raises:
            AttributeError: The module has no such table.
        """
        binding = self._names.get(name)
        if binding is None:
            raise AttributeError(f"the module has no table {name!r}; it has {', '.join(sorted(self._names)) or 'none'}")
        return ReadTable[Any](binding, self._reading)

    def __repr__(self) -> str:
        """Return the names of the tables."""
        return f"<Database: {', '.join(sorted(self._names))}>"


def _refuse_write(what: str) -> NoReturn:
    raise StdbError(f"{what}: a view only reads; write in a reducer")
