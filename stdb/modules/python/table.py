"""Table: one table inside a reducer, typed by its row class.

Responsible for: spec 08's operations on a table, every one of which first asks whether the call's time has passed.
Not responsible for: the generated twins of hot operations (`accessors`), choosing indexes (`query`), storing.

Every operation takes and gives rows as copies. Between two calls into the datastore nothing here is half done: an
exception in between, the time limit's too, leaves to the rollback what the datastore has noted.

Source: spec 08, "Access inside a reducer".
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from stdb.datastore.schedules import RowSchedule
from stdb.errors import DelayTooLong, NoSuchIndex, ReducerTimeout, StdbError, UniqueViolation
from stdb.modules.python.conditions import Column, Condition, as_condition
from stdb.modules.python.declarations import SOURCE_ROOT, Place
from stdb.modules.python.query import Access, Plan, ordering, plan, unique_plan

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore
    from stdb.datastore.table import Table as StoredTable
    from stdb.datastore.transaction import Transaction
    from stdb.modules.python.output import Output

__all__ = ["ALL", "SCAN_ROWS_QUIET", "Binding", "Rows", "Table", "check_open", "refuse_attribute"]

R = TypeVar("R")
SCAN_ROWS_QUIET = 10_000
"""Scans of more rows than this are warned about, once per call site."""
ALL = cast(bool, None)
"""The condition that every row meets."""


class Binding:
    """What binds a Table to its rows: the stored table, codecs and keys. One for each table and attachment."""

    __slots__ = ("access", "decode", "encode", "encode_new", "output", "primary_key", "row_class", "store", "stored")

    def __init__(
        self,
        store: "Datastore",
        stored: "StoredTable",
        access: Access,
        codec: Any,
        row_class: Any,
        output: "Output",
    ) -> None:
        self.store = store
        self.stored = stored
        self.access = access
        self.decode: Callable[[bytes], tuple[Any, int]] = codec.decode
        self.encode: Callable[[Any], bytes] = codec.encode
        self.encode_new = self.encode if stored.schema.definition.schedule is None else self._scheduled_encode()
        """Does as `encode` for a row that is about to be written."""
        self.row_class = row_class
        self.output = output
        self.primary_key: int | None = stored.schema.definition.primary_key

    @property
    def name(self) -> str:
        """The table's name."""
        return self.stored.schema.name

    def bytes_of(self, row: object, operation: str) -> bytes:
        """Return a row's bytes.

        Raises:
            TypeError: It is no row of this table.
            EncodeError: A column's value does not fit; names column and value.
            DelayTooLong: It would be due too far ahead.
        """
        if row.__class__ is not self.row_class:
            raise TypeError(f"{operation}() on table {self.name} takes a {self.row_class.__name__}, got {row!r}")
        return self.encode_new(row)

    def _scheduled_encode(self) -> "Callable[[Any], bytes]":
        encode, check_delay, store = self.encode, RowSchedule(self.stored.schema).check_delay, self.store

        def encode_new(row: Any) -> bytes:
            data = encode(row)
            assert store.transaction is not None, "rows are written within a call"
            try:
                check_delay(data, store.transaction.timestamp_us)
            except DelayTooLong as error:
                raise DelayTooLong(f"{error}; it is {row!r}") from None
            return data

        return encode_new

    def primary(self, operation: str) -> int:
        """Return the position of the primary key.

        Raises:
            NoSuchIndex: There is none.
        """
        if self.primary_key is None:
            raise NoSuchIndex(
                f"{operation}() on table {self.name} needs a primary key: mark a column with primary_key(), "
                "or use filter() and delete(condition)"
            )
        return self.primary_key

    def key(self, value: object, operation: str) -> Any:
        """Return the stored key of an author's primary key value."""
        return self.access.columns[self.primary(operation)].key(value)

    def condition(self, condition: object, operation: str) -> Condition:
        """Return what an author gave as a condition.

        Raises:
            TypeError: It is none.
        """
        try:
            return as_condition(condition)
        except TypeError as error:
            raise TypeError(f"{operation}() on table {self.name}: {error}") from None

    def warn_of_scan(self, found: Plan) -> None:
        """Warn of a scan of many rows, once per line of the module."""
        if len(self.stored) > SCAN_ROWS_QUIET and (place := _call_site()) is not None:
            text = f"{found.explain()}; {len(self.stored)} rows were looked at: add an index"
            self.output.warn_once(place, text, key="scan")


def check_open(transaction: "Transaction | None") -> None:
    """Let a call go on.

    Raises:
        ReducerTimeout: Its time has passed.
        StdbError: No call is running.
    """
    if transaction is None:
        raise StdbError("ctx.db is open during a reducer's call only: do not keep it for later")
    if transaction.expired:
        raise ReducerTimeout("the time limit of this call has passed")


class Rows(Generic[R]):
    """The reading operations that tables have in reducers and in views alike."""

    _binding: Binding

    def _open(self) -> Binding:
        """Let an operation go on; return what it works on."""
        raise AssertionError(f"{type(self).__name__} defines when it is open")

    def _whole(self) -> Binding:
        """Let an operation that looks at every row go on."""
        return self._open()

    def _rows_of(self, found: Plan) -> list[bytes]:
        """Return the rows that a plan finds."""
        return found.rows()

    def get(self, key: object) -> R | None:
        """Return the row with this primary key, or None."""
        raise AssertionError(f"{type(self).__name__} defines how it looks up a row")

    def __getitem__(self, key: object) -> R:
        """Return the row with this primary key.

        Raises:
            KeyError: There is none.
        """
        row = self.get(key)
        if row is None:
            raise KeyError(key)
        return row

    def find(self, condition: bool) -> R | None:
        """Return the one row that meets a condition on the columns of a unique index, or None.

        Raises:
            NoSuchIndex: No unique index makes sure that there is at most one; says which is missing.
        """
        binding = self._open()
        rows = self._rows_of(unique_plan(binding.access, binding.condition(condition, "find")))
        return self._row(rows[0]) if rows else None

    def filter(self, condition: bool = ALL, *, order_by: Any = None, limit: int | None = None) -> Iterator[R]:
        """Return the rows that meet a condition, as they are now; in no particular order without `order_by`."""
        binding = self._open()
        rows = self._matching(condition, "filter")
        if order_by is not None:
            for key, is_descending in reversed(ordering(binding.access, order_by)):
                rows.sort(key=key, reverse=is_descending)
        return map(self._row, rows if limit is None else islice(rows, limit))

    def explain(self, condition: bool = ALL) -> str:
        """Return how `filter(condition)` would find its rows: by which index, or by a scan."""
        binding = self._open()
        if condition is ALL:
            return f"scan of all rows of {binding.name}"
        return plan(binding.access, binding.condition(condition, "explain")).explain()

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self._whole().stored)

    def __bool__(self) -> bool:
        """Return True, rows or not: a table is not a list."""
        return True

    def __iter__(self) -> Iterator[R]:
        """Return all rows, as they are now."""
        return map(self._row, list(self._whole().stored.rows()))

    def __contains__(self, row: object) -> bool:
        """Tell whether exactly this row is there."""
        binding = self._whole()
        return row.__class__ is binding.row_class and binding.encode(row) in binding.stored

    def iter(self) -> Iterator[R]:
        """Return all rows, in the spelling of other SDKs."""
        return iter(self)

    def count(self) -> int:
        """Return how many rows there are, in the spelling of other SDKs."""
        return len(self)

    def __repr__(self) -> str:
        """Return the table's name."""
        return f"<Table {self._binding.name}>"

    def _row(self, data: bytes) -> R:
        row: R = self._binding.decode(data)[0]
        return row

    def _matching(self, condition: object, operation: str) -> list[bytes]:
        if condition is ALL:
            return list(self._whole().stored.rows())
        binding = self._binding
        found = plan(binding.access, binding.condition(condition, operation))
        if found.is_scan:
            binding.warn_of_scan(found)
        return self._rows_of(found)


class Table(Rows[R]):
    """The rows of one table, as `ctx.db[RowClass]` gives it."""

    # Reading

    def get(self, key: object) -> R | None:
        """Return the row with this primary key, or None."""
        binding = self._open()
        row = binding.stored.stored.get(binding.key(key, "get"))
        return None if row is None else self._row(row)

    def query(self, condition: bool = ALL) -> NoReturn:
        """Refuse: a query is a view's result."""
        raise StdbError(f"query() on table {self._binding.name} makes the result of a view: use filter() in a reducer")

    # Writing

    def insert(self, row: R) -> R:
        """Insert a row; return it as stored, generated columns included. An identical row there already is no change.

        Raises:
            UniqueViolation: Another row has the same unique key; the call may go on.
        """
        binding = self._open()
        return self._row(binding.stored.insert(binding.bytes_of(row, "insert")))

    def try_insert(self, row: R) -> R | None:
        """Insert a row and return it as stored; None when another row has the same unique key."""
        try:
            return self.insert(row)
        except UniqueViolation:
            return None

    def insert_many(self, rows: Iterable[R]) -> int:
        """Insert rows; return how many were given."""
        count = 0
        for row in rows:
            self.insert(row)
            count += 1
        return count

    def insert_or_update(self, row: R) -> R:
        """Insert a row, or replace the one with its primary key; return it as stored."""
        binding = self._open()
        data = binding.bytes_of(row, "insert_or_update")
        binding.primary("insert_or_update")
        place = binding.stored.key_of(data)
        if place in binding.stored.stored:
            return self._row(binding.stored.update_key(place, data))
        return self._row(binding.stored.insert(data))

    def update(self, row: R) -> R:
        """Replace the row with this row's primary key; return it as stored.

        Raises:
            NoSuchRow: There is none.
            UniqueViolation: A third row has the same unique key.
        """
        binding = self._open()
        data = binding.bytes_of(row, "update")
        binding.primary("update")
        return self._row(binding.stored.update_key(binding.stored.key_of(data), data))

    def delete(self, what: R | bool) -> int:
        """Remove exactly this row, or all rows that meet a condition; return how many were removed."""
        binding = self._open()
        if what.__class__ is binding.row_class:
            return int(binding.stored.delete(binding.encode(what)))
        if not isinstance(what, Condition | Column):
            raise TypeError(
                f"delete() on table {binding.name} takes a {binding.row_class.__name__} or a condition, got {what!r}; "
                "delete_key() takes a primary key, clear() removes every row"
            )
        rows = self._matching(cast(bool, what), "delete")
        for row in rows:
            binding.stored.delete(row)
        return len(rows)

    def delete_key(self, key: object) -> int:
        """Remove the row with this primary key; return how many were removed, 0 or 1."""
        binding = self._open()
        return int(binding.stored.delete_key(binding.key(key, "delete_key")) is not None)

    def clear(self) -> int:
        """Remove every row; return how many there were."""
        return self._open().stored.clear()

    # Inside

    def __getattr__(self, name: str) -> Any:
        """Refuse what is neither an operation nor an indexed column."""
        if name.startswith("__"):
            raise AttributeError(name)
        refuse_attribute(self._binding, name)

    def _open(self) -> Binding:
        binding = self._binding
        check_open(binding.store.transaction)
        return binding


def refuse_attribute(binding: Binding, name: str) -> NoReturn:
    """Refuse an attribute of a table that is neither an operation nor an indexed column."""
    if binding.access.shape.position(name) is not None:
        raise NoSuchIndex(
            f"{binding.name}.{name} has no index: mark the column with index() or unique(), "
            f"or use filter({binding.row_class.__name__}.{name} == …)"
        )
    raise AttributeError(f"table {binding.name} has neither an operation nor a column {name!r}")


def _call_site() -> Place | None:
    """Return the line of module code that called."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(SOURCE_ROOT):
            return Place(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None
