"""The durable log as the core sees it: what a database needs of it.

Responsible for: the Protocols `Log` and `SnapshotStore`.
Not responsible for: files (`stdb.storage.log`), a log in memory (`memory_log`), the layout of records (`records`),
recovery (`recovery`).

A log also keeps a snapshot up to date: the rows of all tables as they were at some offset. Its writer brings them
forward behind what is durable, from the deltas that come with the records; records below the rows' offset may go.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from stdb.datastore.delta import Delta
from stdb.datastore.memory_log import MemoryLog
from stdb.datastore.records import Record
from stdb.datastore.window import Window
from stdb.errors import StorageError

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore

__all__ = ["Log", "MemoryLog", "NoSnapshots", "SnapshotStore"]


class SnapshotStore(Protocol):
    """The stored rows of one database."""

    def load_newest(self, datastore: "Datastore", next_offset_max: int) -> Iterator[None]:
        """Bring a fresh datastore to the newest good snapshot of at most so many transactions; do nothing without one.

        Work is done between the values it yields, in slices that an event loop can bear. Afterwards
        `datastore.next_offset` is how many transactions the snapshot reflects: replay goes on there.

        Raises:
            StorageError: The rows are damaged, and the records do not reach back to the beginning.
        """


class NoSnapshots:
    """The store of a log that keeps every record from the first."""

    def load_newest(self, datastore: "Datastore", next_offset_max: int) -> Iterator[None]:
        """Leave the datastore as it is: replay begins at offset 0."""
        return iter(())


class Log(Protocol):
    """The records of one database in offset order. Its owner is one thread, which makes every call."""

    @property
    def durable(self) -> int:
        """Return how many transactions are durable: every offset below it is. Never falls."""

    @property
    def backlog(self) -> int:
        """Return how many appended transactions are not durable yet."""

    @property
    def first(self) -> int:
        """Return the first offset whose record is kept: records below the snapshot may be gone."""

    def append_nowait(self, records: Sequence[bytes], deltas: Sequence[Delta] = (), *, more: bool = False) -> None:
        """Append one group of records as `records.encode` makes them, their offsets the next ones. Never blocks.

        With them come the deltas they were made of, which the stored rows follow; without, those stay where they are
        until the next start. Both sequences are the log's from now on.

        `more` promises another call within milliseconds, be it with nothing: until then the log may hold what it has,
        to write it together with what comes.
        """

    def records(self, from_offset: int | None = None) -> Iterator[Record]:
        """Yield every durable record from an offset on (by default `first`), each checked.

        Raises:
            StorageError: A record is damaged, missing or no longer kept; says where. What was yielded before is good.
        """

    def snapshots(self) -> SnapshotStore:
        """Return the snapshots that replay may start from."""

    def follow(self, tail: Window) -> None:
        """Keep the stored rows up to date from now on; before the next append.

        `tail` is what the records between the snapshot and `durable` changed, as replay has noted it
        (`Datastore.take_tail`).
        """

    def refusal(self, offset: int, what: str) -> StorageError:
        """Return the refusal of a log that is well read but does not fit: where, what, and what to do."""

    def close(self) -> None:
        """Wait until everything appended is durable, then let go of the file."""
