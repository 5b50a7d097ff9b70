"""Loading: a fresh datastore from stored rows, which may be a mix of two offsets.

Responsible for: the order of it (catalogue, tables, rows, indexes), undoing the mix.
Not responsible for: reading rows (`stdb.storage.rows`, `memory_log`), the records behind (`recovery`).

While a window of transactions from S to M is applied to the rows, some rows are as they were at S and some as at M.
Each change of the records in between, done once more by key with the last one winning, makes all of them those at M:
what was applied already is done again to no effect. So nothing has to be repaired, and one may be cut off here, too.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from stdb.datastore.index import Key
from stdb.datastore.records import Change, Record, decode_changes
from stdb.errors import StorageError

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore
    from stdb.datastore.table import Table

__all__ = ["StoredRows", "load"]

_RECORDS_AT_ONCE = 64


class StoredRows(Protocol):
    """Rows of all tables, stored by table id and key."""

    @property
    def offset(self) -> int:
        """Return S: how many transactions all of them reflect."""

    @property
    def merging_to(self) -> int | None:
        """Return M when some reflect so many already."""

    def read(self, table: "Table") -> Iterator[dict[Key, bytes]]:
        """Yield the rows of a table by their places, in slices.

        Raises:
            StorageError: They are damaged.
        """


def load(datastore: "Datastore", rows: StoredRows, records: Callable[[int], Iterator[Record]]) -> Iterator[None]:
    """Bring a fresh datastore to the offset of the rows, or to the end of the window that is half applied.

    Yields between slices. `records` reads the log from an offset on. The datastore's tail begins with what the
    window changed.

    Raises:
        StorageError: Rows or records are damaged, or do not fit. Give up on the datastore.
    """
    end = rows.offset if rows.merging_to is None else rows.merging_to
    if end == 0:
        return
    catalog = datastore.catalog_tables()
    for table in catalog:
        yield from _fill(table, rows)
    for changes in _window(records, rows.offset, end):
        datastore.overwrite_catalog(changes)
        yield
    datastore.follow_stored_catalog()
    others = [table for table in datastore.tables.values() if table not in catalog]
    for table in others:
        yield from _fill(table, rows)
    for changes in _window(records, rows.offset, end):
        datastore.overwrite(changes)
        yield
    for table in (*catalog, *others):  # not earlier: two rows of a mix may have one unique key
        yield from table.index_rows()
    datastore.go_on_behind(end)


def _window(records: Callable[[int], Iterator[Record]], start: int, end: int) -> Iterator[list[Change]]:
    """Yield what the records of a window changed, many records at once."""
    if start == end:
        return
    changes: list[Change] = []
    position = start
    for record in records(start):
        changes += decode_changes(record)
        position += 1
        if position == end or len(changes) >= _RECORDS_AT_ONCE:
            yield changes
            changes = []
        if position == end:
            return
    raise StorageError(f"offset {position}: the log ends here, the rows reflect transactions up to {end}")


def _fill(table: "Table", rows: StoredRows) -> Iterator[None]:
    """Put stored rows into a table, over those that a system table has of itself."""
    update = table.stored.update
    for each in rows.read(table):
        update(each)
        yield
