"""The durable log as the core sees it: what a database needs of it, and one kept in memory.

Responsible for: the Protocols `Log` and `SnapshotStore`, `MemoryLog`, which tests crash.
Not responsible for: files (`stdb.storage.log`), the layout of records (`records`), recovery (`recovery`).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from stdb.datastore.records import Record, split

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore

__all__ = ["Log", "MemoryLog", "NoSnapshots", "SnapshotStore"]


class SnapshotStore(Protocol):
    """Where the snapshots of one database lie."""

    def load_newest(self, datastore: "Datastore", next_offset_max: int) -> None:
        """Bring a fresh datastore to the newest good snapshot of at most so many transactions; do nothing without one.

        Afterwards `datastore.next_offset` is how many transactions the snapshot reflects: replay goes on there.
        """


class NoSnapshots:
    """The store of a log that keeps every record from the first."""

    def load_newest(self, datastore: "Datastore", next_offset_max: int) -> None:
        """Leave the datastore as it is: replay begins at offset 0."""


class Log(Protocol):
    """The records of one database in offset order. Its owner is one thread, which makes every call."""

    @property
    def durable(self) -> int:
        """Return how many transactions are durable: every offset below it is. Never falls."""

    @property
    def backlog(self) -> int:
        """Return how many appended transactions are not durable yet."""

    def append_nowait(self, records: Sequence[bytes]) -> None:
        """Append one group of records as `records.encode` makes them, their offsets the next ones. Never blocks."""

    def records(self, from_offset: int = 0) -> Iterator[Record]:
        """Yield every durable record from an offset on, each checked; to be exhausted before anything is appended.

        Raises:
            StorageError: A record is damaged or missing; says where. What was yielded before is good.
        """

    def snapshots(self) -> SnapshotStore:
        """Return the snapshots that replay may start from."""

    def close(self) -> None:
        """Wait until everything appended is durable, then let go of the file."""


class MemoryLog:
    """A log in memory. It keeps what a file would: after `crash` only that is left.

    With `delayed`, records become durable when `sync` is called; else at once.
    """

    def __init__(self, *, delayed: bool = False, on_durable: Callable[[int], None] | None = None) -> None:
        self._records: list[bytes] = []
        self._durable = 0
        self._delayed = delayed
        self._on_durable = on_durable

    @property
    def durable(self) -> int:
        """How many transactions are durable."""
        return self._durable

    @property
    def backlog(self) -> int:
        """How many appended transactions are not durable yet."""
        return len(self._records) - self._durable

    def append_nowait(self, records: Sequence[bytes]) -> None:
        """Append records; durable at once unless `delayed`."""
        self._records += records
        if not self._delayed:
            self.sync()

    def sync(self, count: int | None = None) -> None:
        """Make the next `count` records durable, or all, and tell the owner."""
        end = len(self._records) if count is None else min(self._durable + count, len(self._records))
        if end > self._durable:
            self._durable = end
            if self._on_durable is not None:
                self._on_durable(end)

    def crash(self, surviving: int = 0) -> None:
        """Lose what is not durable but its first `surviving` records: a disk may have written more than it said."""
        del self._records[self._durable + surviving :]
        self._durable = len(self._records)

    def records(self, from_offset: int = 0) -> Iterator[Record]:
        """Yield the durable records from an offset on."""
        for offset in range(from_offset, self._durable):
            yield from split(self._records[offset], offset)

    def snapshots(self) -> SnapshotStore:
        """Return a store without snapshots."""
        return NoSnapshots()

    def close(self) -> None:
        """Make everything durable."""
        self.sync()
