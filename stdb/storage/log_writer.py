"""The writer of one database's file: a thread that appends groups, merges windows and takes old records away.

Responsible for: when each is done, transactions of SQLite, telling what is durable, failing.
Not responsible for: what the owner sees (`log`), how rows are merged (`merging`), which records go (`truncation`).

One group is one INSERT with synchronous=FULL: when it is committed, the group is on the disk. A group never waits for
more than one step of merging; the step is committed together with it. While no group waits, every step is committed by
itself, also with FULL: whatever stands behind a damaged frame of SQLite's log was once synced (`wal`).
"""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic, time_ns
from typing import NamedTuple

from stdb.datastore.window import Window
from stdb.errors import StorageError
from stdb.storage.log_file import DAMAGE_ERRORS, damage
from stdb.storage.log_group import BODY_BYTES_MAX, Group
from stdb.storage.merging import Merger
from stdb.storage.retention import Retention
from stdb.storage.truncation import Truncation

__all__ = ["CHECKPOINT_BYTES", "IDLE_SECONDS", "LogWriter"]

CHECKPOINT_BYTES = 16 * 1024 * 1024
"""Bytes of SQLite's log after which the writer moves it into the file although it is busy."""
IDLE_SECONDS = 0.5
"""Nothing comes in for so long: it is time for all that can wait."""
RETENTION_SECONDS = 10.0
"""Between two looks at what need not be kept."""
CLOSE_SECONDS = 0.5
"""Merging goes on for so long at a clean stop; what is left is merged after the next start."""
WINDOW_TRANSACTIONS = 1_000_000
"""A window ends with so many transactions, or"""
WINDOW_BYTES = 256 * 1024 * 1024
"""so many bytes of records, or"""
WINDOW_CHANGES = 262_144
"""so many distinct changed rows, or when nothing comes in."""
_FRAME_BYTES = 4120
_MEASURED_CHANGES = 256
"""Merged rows from which on it is worth measuring what one of them adds to SQLite's log."""


class _Follow(NamedTuple):
    """Merge from now on."""

    tail: Window
    wipe: bool


class LogWriter:
    """Owns the connection from its start on. `durable`, `first` and `failure` are read by the owner's thread."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        tell: Callable[[int], None],
        retention: Callable[[], Retention],
    ) -> None:
        self.failure: StorageError | None = None
        self._path = path
        self._connection = connection
        self._tell_owner = tell
        self._retention = retention
        try:
            self._merger = Merger(connection)
            self._truncation = Truncation(connection)
            self.durable = max(self._read_end(), self._merger.offset, self._truncation.first)
            """How many transactions are on the disk."""
        except DAMAGE_ERRORS as error:
            connection.close()
            raise damage(path, None, str(error)) from error
        self.first = self._truncation.first
        """The first offset whose record is kept."""
        is_level = self._merger.offset == self.durable and not self._merger.is_mixed
        self._window: Window | None = Window() if is_level else None
        """What the durable transactions behind the rows and behind the window that is merged changed; None: unknown."""
        self._window_start = self.durable
        self._window_bytes = 0
        self._unmoved_bytes = 0
        """About how much SQLite's log holds: records, and what steps of merging wrote, which is estimated."""
        self._unmoved_changes = 0
        self._bytes_per_change = float(_FRAME_BYTES)
        """What a merged row added to SQLite's log, measured whenever that is moved: a page for one row, or for many."""
        self._looked_at = monotonic()
        self._queue: SimpleQueue[Group | _Follow | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"log writer {path.stem}", daemon=True)
        self._thread.start()

    # The owner's thread

    @property
    def rows_offset(self) -> int:
        """How many transactions the stored rows reflect."""
        return self._merger.offset

    def append(self, group: Group) -> None:
        """Take in a group."""
        self._queue.put(group)

    def follow(self, tail: Window, *, wipe: bool) -> None:
        """Merge from now on, beginning with what the records from the rows' offset to `durable` changed."""
        self._queue.put(_Follow(tail, wipe))

    def stop(self) -> None:
        """Wait until everything is written; may be called again."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    # The writer's thread

    def _run(self) -> None:
        try:
            while self._turn():
                pass
            self._finish()
        except Exception as error:  # noqa: BLE001 - of a writer that ended without a word everybody would wait for ever
            self._fail(error)
        finally:
            with suppress(sqlite3.Error):
                self._connection.close()

    def _turn(self) -> bool:
        """Do what comes next; tell whether to go on."""
        try:
            taken = self._wait()
        except Empty:
            if not self._merger.is_busy:
                self._idle()
        else:
            if taken is None:
                return False
            if isinstance(taken, _Follow):
                self._follow(taken)
            else:
                self._write(taken)
        if self._merger.is_busy:
            self._merge()
        elif self._is_window_full():
            self._end_window()
        if monotonic() - self._looked_at >= RETENTION_SECONDS:
            self._truncate()
        return True

    def _wait(self) -> "Group | _Follow | None":
        if self._merger.is_busy:
            return self._queue.get_nowait()
        if self._unmoved_bytes or self._window:
            return self._queue.get(timeout=IDLE_SECONDS)
        has_old = self.first < self._merger.offset
        return self._queue.get(timeout=RETENTION_SECONDS if has_old else None)

    def _write(self, group: Group) -> None:
        self._gather(group)
        for body, count in group.bodies():
            self._append(body, count)
        for changes in group.changes:
            if self._window is None or changes is None:
                self._window = None
            else:
                self._window.add(changes)

    def _gather(self, group: Group) -> None:
        """Add to a group all that wait, up to a size."""
        while group.size < BODY_BYTES_MAX:
            try:
                following = self._queue.get_nowait()
            except Empty:
                break
            if not isinstance(following, Group):
                assert following is None, "rows are followed before anything is appended"
                self._queue.put(None)  # seen again once this group is written
                break
            group.absorb(following)

    def _append(self, body: bytes, count: int) -> None:
        self._connection.execute("INSERT INTO log VALUES (?, ?, ?)", (self.durable, count, body))
        self._commit()
        self.durable += count
        self._tell()
        self._truncation.added(len(body))
        self._window_bytes += len(body)
        self._wrote(len(body))

    def _commit(self) -> None:
        """Commit the step of merging that is open, if any."""
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")

    def _wrote(self, size: int) -> None:
        self._unmoved_bytes += size
        if self._unmoved_bytes >= CHECKPOINT_BYTES and not self._connection.in_transaction:
            self._move_wal()

    def _move_wal(self) -> None:
        (_, frames, _), *_ = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        if self._unmoved_changes >= _MEASURED_CHANGES:
            records = self._unmoved_bytes - self._unmoved_changes * self._bytes_per_change
            per_change = (frames * _FRAME_BYTES - records) / self._unmoved_changes
            self._bytes_per_change = min(max(per_change, _FRAME_BYTES / 64), float(_FRAME_BYTES))
        self._unmoved_bytes = self._unmoved_changes = 0

    # Windows

    def _follow(self, follow: _Follow) -> None:
        if follow.wipe:
            self._connection.execute("BEGIN IMMEDIATE")
            self._merger.wipe()
            self._connection.execute("COMMIT")
        self._window, self._window_start = follow.tail, self._merger.offset

    def _is_window_full(self) -> bool:
        window = self._window
        return window is not None and (
            self.durable - self._window_start >= WINDOW_TRANSACTIONS
            or self._window_bytes >= WINDOW_BYTES
            or len(window) >= WINDOW_CHANGES
        )

    def _end_window(self) -> None:
        assert self._window is not None
        self._merger.begin(self._window, self.durable)
        self._window, self._window_start, self._window_bytes = Window(), self.durable, 0

    def _merge(self) -> None:
        """Do a step; leave it open when a group waits, which is committed with it."""
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")
        before = self._connection.total_changes
        self._merger.step()
        changed = self._connection.total_changes - before
        if self._queue.empty() or not self._merger.is_busy:
            self._commit()
        self._unmoved_changes += changed
        self._wrote(int(changed * self._bytes_per_change))

    # When there is time

    def _idle(self) -> None:
        """Nothing has come in for a while."""
        if self._unmoved_bytes:
            self._move_wal()
        if self._window is not None and (self._window or self._merger.offset < self.durable):
            self._end_window()
        while self._queue.empty() and self._truncation.vacuum():
            self._unmoved_bytes += 1  # to be moved at the next idle time

    def _truncate(self) -> None:
        """Take away what need not be kept, as long as no group waits."""
        self._commit()
        retention = self._retention()
        while self._truncation.step(retention, self._merger.offset, time_ns() // 1000):
            self.first = self._truncation.first
            self._wrote(_FRAME_BYTES * 16)
            if not self._queue.empty():
                break
        self._looked_at = monotonic()

    def _finish(self) -> None:
        """Merge what there is time for, then move SQLite's log into the file."""
        stop_at = monotonic() + CLOSE_SECONDS
        while monotonic() < stop_at:
            if self._merger.is_busy:
                self._merge()
            elif self._window is not None and self._merger.offset < self.durable:
                self._end_window()
            else:
                break
        self._commit()
        self._move_wal()

    def _fail(self, error: Exception) -> None:
        self.failure = StorageError(
            f"{self._path}: offset {self.durable}: the log cannot be written: {error}. Everything before is stored;"
            " free the disk or repair it, then restart the database"
        )
        self.failure.__cause__ = error
        self._tell()

    def _tell(self) -> None:
        try:
            self._tell_owner(self.durable)
        except RuntimeError:  # the owner's event loop has ended
            self._tell_owner = _tell_nobody

    def _read_end(self) -> int:
        row = self._connection.execute(
            "SELECT first_offset, count FROM log ORDER BY first_offset DESC LIMIT 1"
        ).fetchone()
        if row is None:
            return 0
        if not isinstance(row[1], int):
            raise sqlite3.DatabaseError(f"the count of the last group is no number but {row[1]!r}")
        return int(row[0]) + row[1]


def _tell_nobody(durable: int) -> None:
    """Stand in for an owner who is gone."""
