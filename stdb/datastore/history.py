"""History: any state that a log still leads to, and what each of its transactions did.

Responsible for: which state a moment means, going there from stored rows forwards or backwards, tables by offset.
Not responsible for: reading files (`stdb.storage.history`), queries of the past (`stdb.actors.archive`).

The record of a delete holds the whole row, so the state before a transaction is the one after it with the record read
backwards. A moment is an offset, the state once that transaction had committed, or a time: the state after the newest
transaction that is not later.
"""

from collections.abc import Generator, Iterator
from typing import NamedTuple, Protocol

from stdb.datastore.datastore import Datastore
from stdb.datastore.index import Key
from stdb.datastore.loading import StoredRows, load
from stdb.datastore.records import Change, Context, Record, decode_changes, decode_context, only
from stdb.datastore.steps import Steps
from stdb.datastore.table import Table, TableSchema
from stdb.errors import RequestError
from stdb.sats.special import format_timestamp

__all__ = ["ChangedTable", "Entry", "History", "Moment", "UnreachableError", "entries", "time_text", "travel"]

_RECORDS_AT_ONCE = 64
_GREAT_BYTES = 65_536
"""A record greater than this is applied some rows at a time."""


class UnreachableError(RequestError):
    """A moment that the log does not reach, or that has not come; the text names what can be reached."""


class Moment(NamedTuple):
    """An offset or a time in microseconds since 1970; one of them is None."""

    offset: int | None = None
    timestamp_us: int | None = None


class History(Protocol):
    """What one database has stored, as it was when this was opened."""

    @property
    def first(self) -> int:
        """Return the first offset whose record is kept."""

    @property
    def end(self) -> int:
        """Return the offset behind the last record: how many transactions there were."""

    @property
    def rows(self) -> StoredRows:
        """Return the stored rows; all records behind their offset are kept."""

    def records(self, from_offset: int) -> Iterator[Record]:
        """Yield the records from an offset on, which is kept."""

    def backwards(self, below: int, to_offset: int) -> Iterator[Record]:
        """Yield the records from the one before `below` down to `to_offset`."""


def travel(datastore: Datastore, history: History, moment: Moment, now_us: int) -> Iterator[None]:
    """Bring a fresh datastore to the state at a moment, in slices of a millisecond or so.

    Raises:
        UnreachableError: The log does not reach that far, or the moment is yet to come.
        StorageError: Rows or records are damaged. Give up on the datastore.
    """
    end = yield from _end_of(history, moment, now_us)
    yield from load(datastore, history.rows, history.records)
    yield from _follow(datastore, history, end)


def _follow(datastore: Datastore, history: History, end: int) -> Iterator[None]:
    if datastore.next_offset < end:
        for record in history.records(datastore.next_offset):
            if len(record.payload) > _GREAT_BYTES:
                yield from datastore.go_in_slices(record, backwards=False)
            else:
                datastore.replay(record)
            yield from _now_and_then(record.offset)
            if datastore.next_offset == end:
                break
    else:
        for record in history.backwards(datastore.next_offset, end):
            if len(record.payload) > _GREAT_BYTES:
                yield from datastore.go_in_slices(record, backwards=True)
            else:
                datastore.unreplay(record)
            yield from _now_and_then(record.offset)
    datastore.take_tail()
    assert datastore.next_offset == end, "the history reaches that far"


def _now_and_then(offset: int) -> Iterator[None]:
    if not offset % _RECORDS_AT_ONCE:
        yield


def _end_of(history: History, moment: Moment, now_us: int) -> Steps[int]:
    """Return how many transactions the state at a moment reflects."""
    if moment.offset is not None:
        if moment.offset >= history.end:
            raise UnreachableError(
                f"offset {moment.offset} is yet to come: the newest transaction has offset {history.end - 1}"
            )
        if moment.offset < _offset_min(history):
            raise UnreachableError(f"the log does not reach back to offset {moment.offset}: {_reach(history)}")
        return moment.offset + 1
    time_us = moment.timestamp_us
    assert time_us is not None, "a moment is an offset or a time"
    if time_us > now_us:
        raise UnreachableError(f"{time_text(time_us)} is yet to come: it is {time_text(now_us)}")
    for record in history.backwards(history.end, history.first):
        if decode_context(record).timestamp_us <= time_us:
            return record.offset + 1
        yield from _now_and_then(record.offset)
    raise UnreachableError(f"the log does not reach back to {time_text(time_us)}: {_reach(history)}")


def _offset_min(history: History) -> int:
    """Return the first offset whose state can be reached: the one before the first record, if there was one."""
    return max(history.first - 1, 0)


def _reach(history: History) -> str:
    first = next(history.records(history.first), None) if history.first < history.end else None
    when = f", the first time {time_text(decode_context(first).timestamp_us)}" if first is not None else ""
    return f"the first offset that can be reached is {_offset_min(history)}{when}"


def time_text(time_us: int) -> str:
    """Return a time as people read it, in UTC."""
    return format_timestamp(time_us).replace("+00:00", "Z")


# --------------------------------------------------------------------------------------------------- transactions
class ChangedTable(NamedTuple):
    """What one transaction changed in one table, with the table as it was before and after."""

    name: str
    before: TableSchema | None
    after: TableSchema | None
    change: Change

    def rows(self) -> Iterator[tuple[bool, TableSchema, bytes]]:
        """Yield every row with what reads it; True: it went in."""
        for is_insert, rows, schema in (
            (False, self.change.deletes, self.before or self.after),
            (True, self.change.inserts, self.after or self.before),
        ):
            assert schema is not None, "a table is described before or after it is changed"
            yield from ((is_insert, schema, row) for row in rows)


class Entry(NamedTuple):
    """One transaction of the log."""

    offset: int
    context: Context
    tables: list[ChangedTable]


def entries(history: History, start: int, end: int) -> Generator["Entry | None", None, None]:
    """Yield the transactions from offset `start` to before `end`; None between slices.

    Raises:
        UnreachableError: `start` is no longer kept.
        StorageError: A record is damaged.
    """
    if start < history.first:
        raise UnreachableError(f"the log does not reach back to offset {start}: it begins at offset {history.first}")
    if start >= min(end, history.end):
        return
    catalogue = Datastore()
    ids = frozenset(table.schema.id for table in catalogue.catalog_tables())
    frame = _Frame(history, ids)
    for _ in load(catalogue, frame.rows, frame.records):
        yield None
    for _ in _follow(catalogue, frame, start):
        yield None
    for record in history.records(start):
        before = dict(catalogue.tables)
        catalogue.replay(only(record, ids))
        after = catalogue.tables
        yield Entry(
            record.offset,
            decode_context(record),
            [_changed(each, before.get(each.table_id), after.get(each.table_id)) for each in decode_changes(record)],
        )
        if not record.offset % _RECORDS_AT_ONCE:
            catalogue.take_tail()
            yield None
        if record.offset + 1 >= end:
            return


def _changed(change: Change, before: Table | None, after: Table | None) -> ChangedTable:
    table = after or before
    name = f"#{change.table_id}" if table is None else table.schema.name
    return ChangedTable(
        name, None if before is None else before.schema, None if after is None else after.schema, change
    )


class _Frame:
    """A history of which only the catalogue is seen: tables without rows."""

    def __init__(self, history: History, ids: frozenset[int]) -> None:
        self._history = history
        self._ids = ids
        self.first, self.end = history.first, history.end
        self.rows = _CatalogueRows(history.rows, self._ids)

    def records(self, from_offset: int) -> Iterator[Record]:
        """Yield records that change nothing but the catalogue."""
        return (only(record, self._ids) for record in self._history.records(from_offset))

    def backwards(self, below: int, to_offset: int) -> Iterator[Record]:
        """Yield the same backwards."""
        return (only(record, self._ids) for record in self._history.backwards(below, to_offset))


class _CatalogueRows:
    """The stored rows of the catalogue alone."""

    def __init__(self, rows: StoredRows, ids: frozenset[int]) -> None:
        self._rows = rows
        self._ids = ids
        self.offset, self.merging_to = rows.offset, rows.merging_to

    def read(self, table: Table) -> Iterator[dict[Key, bytes]]:
        """Yield the rows of a table of the catalogue; of others none."""
        return self._rows.read(table) if table.schema.id in self._ids else iter(())
