"""MemoryLog: a log in memory that keeps what a file would, so that tests can crash it.

Responsible for: records, which become durable when told, the stored rows beside them, truncation.
Not responsible for: when rows follow and records go: whoever tests says so, step by step.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from stdb.datastore.delta import Delta
from stdb.datastore.index import Key
from stdb.datastore.loading import load
from stdb.datastore.records import Record, split
from stdb.datastore.window import Window, join_changes
from stdb.errors import StorageError

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore
    from stdb.datastore.table import Table

__all__ = ["MemoryLog", "MemoryRows"]

Chunk: TypeAlias = "tuple[int, list[tuple[Key, bytes | None]] | None]"
"""A table's id, and some of its changes; None: all its rows go."""


class MemoryRows:
    """The rows of all tables at an offset; while a window is half applied, a mix of that and the window's end."""

    def __init__(self, records: Callable[[int], Iterator[Record]]) -> None:
        self.tables: dict[int, dict[Key, bytes]] = {}
        self.offset = 0
        """How many transactions they reflect."""
        self.merging_to: int | None = None
        """Where the window ends of which some is applied."""
        self._records = records

    def load_newest(self, datastore: "Datastore", next_offset_max: int) -> Iterator[None]:
        """Load them; see `stdb.datastore.log.SnapshotStore`."""
        assert (self.merging_to or self.offset) <= next_offset_max, "the rows never pass what is durable"
        return load(datastore, self, self._records)

    def read(self, table: "Table") -> Iterator[dict[Key, bytes]]:
        """Yield the rows of a table by key, in slices."""
        rows = iter(self.tables.get(table.schema.id, {}).items())
        while part := dict(islice(rows, 1000)):
            yield part

    def apply(self, table_id: int, changes: Sequence[tuple[Key, bytes | None]] | None) -> None:
        """Change some rows of one table; None takes them all."""
        rows = self.tables.setdefault(table_id, {})
        if changes is None:
            rows.clear()
        for key, row in changes or ():
            if row is None:
                rows.pop(key, None)
            else:
                rows[key] = row


class MemoryLog:
    """A log in memory. It keeps what a file would: after `crash` only that is left.

    With `delayed`, records become durable when `sync` is called; else at once. With `merging`, rows follow when `merge`
    is called; else they stay empty and every record is kept.
    """

    def __init__(
        self, *, delayed: bool = False, merging: bool = False, on_durable: Callable[[int], None] | None = None
    ) -> None:
        self.first = 0
        """The first offset that is kept."""
        self.rows = MemoryRows(self.records)
        self._records: list[bytes] = []
        self._durable = 0
        self._delayed = delayed
        self._merging = merging
        self._on_durable = on_durable
        self._deltas: list[Delta] = []
        """Of the appended transactions that are in no window yet."""
        self._window: Window | None = Window() if merging else None
        """What the durable ones of this life changed that the rows do not reflect; None: unknown."""
        self._chunks: Iterator[Chunk] | None = None
        """What is left of the window that is being applied."""

    @property
    def durable(self) -> int:
        """How many transactions are durable."""
        return self._durable

    @property
    def backlog(self) -> int:
        """How many appended transactions are not durable yet."""
        return self.first + len(self._records) - self._durable

    def append_nowait(self, records: Sequence[bytes], deltas: Sequence[Delta] = (), *, more: bool = False) -> None:
        """Append records; durable at once unless `delayed`, or unless there is `more` to come."""
        self._records += records
        if len(deltas) != len(records):
            self._window = None
        elif self._window is not None:
            self._deltas += deltas
        if not self._delayed and not more:
            self.sync()

    def sync(self, count: int | None = None) -> None:
        """Make the next `count` records durable, or all, and tell the owner."""
        appended = self.first + len(self._records)
        end = appended if count is None else min(self._durable + count, appended)
        if end > self._durable:
            self._durable = end
            if self._on_durable is not None:
                self._on_durable(end)

    def crash(self, surviving: int = 0) -> None:
        """Lose what is not durable but its first `surviving` records: a disk may have written more than it said."""
        del self._records[self._durable - self.first + surviving :]
        self._durable = self.first + len(self._records)
        self._deltas.clear()
        self._window, self._chunks = None, None

    def records(self, from_offset: int | None = None) -> Iterator[Record]:
        """Yield the durable records from an offset on."""
        start = self.first if from_offset is None else from_offset
        if start < self.first:
            raise StorageError(f"the log begins at offset {self.first}: the record of offset {start} is not kept")
        for offset in range(start, self._durable):
            yield from split(self._records[offset - self.first], offset)

    def snapshots(self) -> MemoryRows:
        """Return the stored rows."""
        return self.rows

    def follow(self, tail: Window) -> None:
        """Let the rows follow from now on."""
        if self._merging:
            self._window, self._chunks = tail, None
            self._deltas.clear()

    def merge(self, changes_max: int) -> bool:
        """Bring the rows forward by one step, which a crash cannot cut; tell whether anything is left to do.

        A step is so many changes at most of one table. With none left of the last window, the next begins, up to what
        is durable.
        """
        if self._chunks is None:
            window = self._close_window()
            if window is None:
                return False
            self.rows.merging_to = self._durable
            self._chunks = _chunks(window, changes_max)
        chunk = next(self._chunks, None)
        if chunk is not None:
            self.rows.apply(*chunk)
            return True
        assert self.rows.merging_to is not None
        self.rows.offset, self.rows.merging_to, self._chunks = self.rows.merging_to, None, None
        return self.rows.offset < self._durable

    def truncate(self, offset: int) -> None:
        """Forget the records below an offset, as far as the rows reflect them."""
        first = max(self.first, min(offset, self.rows.offset))
        del self._records[: first - self.first]
        self.first = first

    def refusal(self, offset: int, what: str) -> StorageError:
        """Return the refusal of a log that does not fit."""
        return StorageError(f"offset {offset}: {what}")

    def close(self) -> None:
        """Make everything durable."""
        self.sync()

    def _close_window(self) -> Window | None:
        window = self._window
        if window is None or self.rows.offset == self._durable:
            return None
        durable = [delta for delta in self._deltas if delta.offset < self._durable]
        window.add(join_changes(durable))
        del self._deltas[: len(durable)]
        self._window = Window()
        return window


def _chunks(window: Window, changes_max: int) -> Iterator[Chunk]:
    for table_id, part in window.in_order():
        changes = iter(part.items())
        while chunk := list(islice(changes, changes_max)):
            yield table_id, chunk
    for table_id in window.dropped:
        yield table_id, None
