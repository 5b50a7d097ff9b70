"""The durable log of one database, and the rows beside it: the owner's side of an SQLite file.

Responsible for: appending groups of records, the durable offset, reading them back checked.
Not responsible for: writing (`log_writer`, a thread of its own), the file (`log_file`), what a record means
(`stdb.datastore`), where the file lies (`data_directory`).

SQLite settles torn writes, the checksum of each record settles damage. Nothing is cut off silently: whatever does not
read back as an unbroken run of records refuses to open (DESIGN decision 5).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from stdb.datastore.delta import Delta
from stdb.datastore.records import Record
from stdb.datastore.window import Window, join_changes
from stdb.errors import StorageError
from stdb.storage.log_file import FORMAT_VERSION, damage, open_file
from stdb.storage.log_group import Group
from stdb.storage.log_reading import read_backwards, read_records
from stdb.storage.log_writer import LogWriter
from stdb.storage.retention import DEFAULT_RETENTION, Retention
from stdb.storage.rows import SqliteRows, whole_window

__all__ = ["FORMAT_VERSION", "HELD_RECORDS_MIN", "HELD_TURNS", "SqliteLog"]

HELD_TURNS = 4
"""As many turns of an owner that is behind with its work go to the disk together: a sync, and waking the writer, cost
the same for one of them. An owner that waits for work holds nothing."""
HELD_RECORDS_MIN = 64
"""A turn of fewer records is not held: what it did took long, and so may the next one."""


def _tell_nobody(durable: int) -> None:
    """Stand in for an owner who does not want to be told."""


def _keep_default() -> Retention:
    return DEFAULT_RETENTION


class SqliteLog:
    """A `stdb.datastore.log.Log` in a file. Made and called by one thread; the writer is a daemon thread."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        on_durable: Callable[[int], None] = _tell_nobody,
        *,
        retention: Callable[[], Retention] = _keep_default,
        file_bytes_max: int | None = None,
    ) -> None:
        """Open the log, or make an empty one.

        Args:
            path: The file; SQLite keeps `-wal` and `-shm` beside it while it is open.
            on_durable: Called *in the writer's thread* with `durable` whenever it moved, and once when the log failed
                (then `durable` raises). It hands over to the owner's thread and may raise RuntimeError when that is
                over.
            retention: Returns which records to keep behind the stored rows; called in the writer's thread.
            file_bytes_max: The file must not grow beyond; reaching it is a full disk.

        Raises:
            StorageError: The file is no log, damaged, of a newer format, or cannot be opened.
        """
        self.path = Path(path)
        connection = open_file(self.path, file_bytes_max)
        self._writer = LogWriter(self.path, connection, on_durable, retention)
        self._appended = self._writer.durable
        self._held = Group()
        self._is_failure_told = False
        self._rows = SqliteRows(self.path, lambda: self.first, self.records)

    def __repr__(self) -> str:
        return f"<SqliteLog {self.path} durable={self._writer.durable}>"

    @property
    def durable(self) -> int:
        """How many transactions are on the disk.

        Raises:
            StorageError: The writer failed. Nothing becomes durable any more: stop the database.
        """
        self._raise_failure()
        return self._writer.durable

    @property
    def backlog(self) -> int:
        """How many appended transactions are not durable yet."""
        return self._appended - self._writer.durable

    @property
    def first(self) -> int:
        """The first offset whose record is kept."""
        return self._writer.first

    @property
    def rows_offset(self) -> int:
        """How many transactions the stored rows reflect."""
        return self._writer.rows_offset

    def append_nowait(self, records: Sequence[bytes], deltas: Sequence[Delta] = (), *, more: bool = False) -> None:
        """Append records; both sequences are the log's from now on. Never blocks. With `more`, the owner appends again
        in some milliseconds, be it nothing: until then they may be held.

        Raises:
            StorageError: The writer failed; nothing was appended.
        """
        self._raise_failure()
        if records:
            offset = int.from_bytes(records[0][8:16], "little")
            assert offset == self._appended, f"record {offset} appended, {self._appended} is next"
            self._appended += len(records)
            self._held.add(records, join_changes(deltas) if len(deltas) == len(records) else None)
        if not more or len(records) < HELD_RECORDS_MIN or len(self._held) >= HELD_TURNS:
            self._hand_over()

    def records(self, from_offset: int | None = None) -> Iterator[Record]:
        """Yield every record on the disk from an offset on (by default `first`), checked.

        May run while records are appended.

        Raises:
            StorageError: The file is damaged, a record missing or no longer kept; names file and offset, and what to
                do. What was yielded before is good, and no record after is.
        """
        return read_records(self.path, from_offset, self._writer.durable)

    def history(self, to_offset: int | None = None) -> Iterator[Record]:
        """Yield the records backwards from the newest durable one down to an offset, by default `first`.

        Raises:
            StorageError: As `records`.
        """
        return read_backwards(self.path, self._writer.durable, self.first if to_offset is None else to_offset)

    def snapshots(self) -> SqliteRows:
        """Return the stored rows."""
        return self._rows

    def follow(self, tail: Window) -> None:
        """Keep the stored rows up to date from now on; see `stdb.datastore.log.Log`."""
        rebuilt, self._rows.rebuilt = self._rows.rebuilt, None
        self._writer.follow(tail if rebuilt is None else whole_window(rebuilt), wipe=rebuilt is not None)

    def refusal(self, offset: int, what: str) -> StorageError:
        """Return the refusal of records that are whole but do not fit; see `stdb.datastore.log.Log`."""
        return damage(self.path, offset, what)

    def close(self) -> None:
        """Wait until everything appended is on the disk, then close the file. Blocks; may be called again.

        Raises:
            StorageError: The writer failed and nobody has been told yet.
        """
        self._hand_over()
        self._writer.stop()
        if not self._is_failure_told:
            self._raise_failure()

    def _hand_over(self) -> None:
        """Let the writer have what is held."""
        if self._held:
            self._writer.append(self._held)
            self._held = Group()

    def _raise_failure(self) -> None:
        if self._writer.failure is not None:
            self._is_failure_told = True
            raise self._writer.failure
