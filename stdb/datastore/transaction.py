"""Transactions: changes that all happen or none, and what they amount to.

Responsible for: the writing operations, commit into a `Delta`, rollback along the undo log (07 sections 1 and 2).
Not responsible for: the rules of one table (`table`), schema changes (`catalog`), storing the delta (`records`, `log`).

There is one transaction at a time and it changes tables in place, so it sees its own writes at once. What is not rolled
back are sequences (07 section 3). Code that wants the fastest path binds `Table.insert`, `update_key` and `delete_key`
and `UniqueIndex.find` once; these note their changes in the same undo log.
"""

from typing import TYPE_CHECKING

from stdb.datastore.delta import Delta, TableDelta, net
from stdb.datastore.index import Bound, Key
from stdb.datastore.steps import Steps, finish
from stdb.datastore.table import AnyIndex, Table
from stdb.errors import NoSuchIndex, ReducerError, ReducerTimeout

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore

__all__ = ["ROW_BYTES_MAX", "Delta", "TableDelta", "Transaction"]

ROW_BYTES_MAX = 384 * 1024 * 1024
"""Greatest sum of the sizes of all rows that one transaction changes; the log stores them as one value."""

_JOINED_ROWS_MAX = 16


class Transaction:
    """One open transaction; `Datastore.begin` makes it. Ends with `commit` or `rollback`, once."""

    __slots__ = ("_datastore", "expired", "timestamp_us")

    def __init__(self, datastore: "Datastore", timestamp_us: int) -> None:
        self._datastore = datastore
        self.timestamp_us = timestamp_us
        """Microseconds since 1970."""
        self.expired = False
        """Set from outside when the time limit passed: the author's API checks it at every call, `commit` too."""

    @property
    def is_open(self) -> bool:
        """Tell whether it has neither been committed nor rolled back."""
        return self._datastore.transaction is self

    def insert(self, table: Table, row: bytes) -> bytes:
        """Insert a row (valid BSATN) and return it as stored, generated values included.

        An identical row there already is success without a change.

        Raises:
            UniqueViolation: Another row has the same unique key. The transaction goes on as it was.
        """
        return table.insert(row)

    def delete(self, table: Table, row: bytes) -> bool:
        """Delete a row by its full value; tell whether it was there."""
        return table.delete(row)

    def update(self, table: Table, index: AnyIndex, row: bytes) -> bytes:
        """Replace the row that has the new row's key in a unique index; return the new row as stored.

        Raises:
            NoSuchIndex: The index is not of this table, or not unique.
            NoSuchRow: No row has that key.
            UniqueViolation: A row other than the replaced one has the same unique key; nothing changed.
        """
        if index not in table.indexes:
            raise NoSuchIndex(f"Index not found: `{index.name}` is no index of table `{table.schema.name}`")
        if not index.unique:
            raise NoSuchIndex(f"Index was not unique: `{index.name}` of table `{table.schema.name}`")
        return table.update(index, row)

    def delete_by_key(self, table: Table, index: AnyIndex, key: Key) -> int:
        """Delete every row with a key; return how many there were."""
        return self._delete_all(table, index.find_all(key))

    def delete_by_scan(
        self, table: Table, index: AnyIndex, prefix: tuple[Key, ...] = (), lower: Bound = None, upper: Bound = None
    ) -> int:
        """Delete every row in a range (as `Index.scan` takes it); return how many there were."""
        return self._delete_all(table, index.scan(prefix, lower, upper))

    def clear(self, table: Table) -> int:
        """Delete every row of a table; return how many there were."""
        return table.clear()

    def commit(self) -> Delta | None:
        """Make all changes last and return them; None when nothing changed, which takes no offset either.

        Raises:
            ReducerTimeout: `expired` is set. The transaction is still open: roll it back.
            ReducerError: The changed rows are more than ROW_BYTES_MAX. Still open, too.
        """
        tables = self._changed()
        refresh = self._datastore.refresh_views
        views = None if refresh is None or not tables else finish(refresh(tables))
        return self._ended(tables, views)

    def commit_in_steps(self) -> Steps[Delta | None]:
        """Do as `commit`, but come back while views are run again that can. Closed half-way, it is still open."""
        tables = self._changed()
        refresh = self._datastore.refresh_views
        views = None if refresh is None or not tables else (yield from refresh(tables))
        return self._ended(tables, views)

    def _changed(self) -> list[TableDelta]:
        """Return the net change, which may be committed; raises what `commit` does."""
        datastore = self._datastore
        assert datastore.transaction is self, "the transaction has ended"
        if self.expired:
            raise ReducerTimeout("the time limit of this transaction has passed")
        undo = datastore.undo
        tables = net(undo, datastore.tables) if undo else []
        _check_size(tables)
        if datastore.reservations.pending and (tables or datastore.reservations.is_fresh):
            datastore.write_reservations()
            tables = net(undo, datastore.tables)
        for each in tables:
            if each.table.is_event:
                _empty(each)
        return tables

    def _ended(self, tables: list[TableDelta], views: list[TableDelta] | None) -> Delta | None:
        """End the transaction with this net change."""
        datastore = self._datastore
        datastore.undo.clear()
        datastore.reservations.is_fresh = False
        datastore.transaction = None
        if not tables:
            return None
        offset = datastore.next_offset
        datastore.next_offset = offset + 1
        return Delta(offset, tables, views)

    def check_size(self) -> None:
        """Raise the ReducerError that `commit` would; for those who must not get it there."""
        _check_size(net(self._datastore.undo, self._datastore.tables))

    def rollback(self) -> None:
        """Undo every change, schema changes included; sequences keep their positions."""
        datastore = self._datastore
        assert datastore.transaction is self, "the transaction has ended"
        undo = datastore.undo
        while undo:
            table, place, old, new = undo.pop()
            if table is None:
                place()
            else:
                table.revert(place, old, new)
        datastore.reservations.is_fresh = False
        datastore.transaction = None

    def _delete_all(self, table: Table, rows: list[bytes]) -> int:
        for row in rows:
            table.delete_key(table.key_of(row))
        return len(rows)


def _check_size(tables: list[TableDelta]) -> None:
    size = 0
    for each in tables:
        inserts, deletes = each.inserts, each.deletes
        if len(inserts) + len(deletes) <= _JOINED_ROWS_MAX:
            size += len(b"".join(inserts)) + len(b"".join(deletes))  # four times faster than adding up so few sizes
        else:
            size += sum(map(len, inserts)) + sum(map(len, deletes))
    if size > ROW_BYTES_MAX:
        raise ReducerError(f"the transaction changes {size} bytes of rows, at most {ROW_BYTES_MAX}: do it in several")


def _empty(delta: TableDelta) -> None:
    """Take the rows of an event table out of it; they stay in the delta."""
    table = delta.table
    for row in delta.inserts:
        table.take(table.key_of(row), row)
