"""Truncation: records that the stored rows reflect and nobody wants to keep any longer are deleted, in small steps.

Responsible for: which groups go, giving their pages back to the file system.
Not responsible for: the setting (`retention`), when there is time for a step (`log_writer`).
"""

import sqlite3
from struct import Struct

from stdb.storage.log_file import read_metadata
from stdb.storage.retention import Retention

__all__ = ["STEP_BYTES", "Truncation"]

STEP_BYTES = 4 * 1024 * 1024
"""About so much is deleted in one step."""
_STEP_GROUPS = 256
_FREE_PAGES_KEPT = 1024
_VACUUM_PAGES = 256
_TIME = Struct("<q")
_TIME_AT = 16
"""Where in a group's body the time of its first transaction stands, behind size, checksum and offset."""
_HOUR_US = 3_600_000_000


class Truncation:
    """Deletes the oldest groups of the log of one file. A step is a transaction of SQLite of its own."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.first = read_metadata(connection, "log_first") or 0
        """The first offset that is kept."""
        self._size: int | None = None

    def added(self, size: int) -> None:
        """Note that so many bytes were appended."""
        if self._size is not None:
            self._size += size

    def step(self, retention: Retention, rows_offset: int, now_us: int) -> bool:
        """Delete some of what may go; tell whether there may be more."""
        groups = self._oldest(rows_offset)
        count = self._count_to_go(groups, retention, now_us)
        if count == 0:
            return False
        end = groups[count - 1][0] + groups[count - 1][1]
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        execute("DELETE FROM log WHERE first_offset < ?", (end,))
        execute("UPDATE metadata SET value = ? WHERE name = 'log_first'", (end,))
        execute("COMMIT")
        self.first = end
        self.added(-sum(size for _, _, size, _ in groups[:count]))
        return True

    def vacuum(self) -> bool:
        """Give some free pages back when there are many; tell whether there may be more."""
        (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        spare = free - max(_FREE_PAGES_KEPT, pages // 4)
        if spare <= 0:
            return False
        self._connection.execute(f"PRAGMA incremental_vacuum({min(spare, _VACUUM_PAGES)})").fetchall()
        return bool(spare > _VACUUM_PAGES)

    def _oldest(self, rows_offset: int) -> list[tuple[int, int, int, bytes]]:
        """Return the oldest groups, wholly below an offset: first offset, count, size, bytes with the time."""
        return self._connection.execute(
            "SELECT first_offset, count, length(body), substr(body, ?, 8) FROM log"
            " WHERE first_offset + count <= ? ORDER BY first_offset LIMIT ?",
            (_TIME_AT + 1, rows_offset, _STEP_GROUPS),
        ).fetchall()

    def _count_to_go(self, groups: list[tuple[int, int, int, bytes]], retention: Retention, now_us: int) -> int:
        if retention.size is not None and self._size is None:
            (self._size,) = self._connection.execute("SELECT coalesce(sum(length(body)), 0) FROM log").fetchone()
        left, deleted = self._size or 0, 0
        for number, (_, _, size, time) in enumerate(groups):
            if deleted >= STEP_BYTES or not _may_go(retention, left - deleted, time, now_us):
                return number
            deleted += size
        return len(groups)


def _may_go(retention: Retention, size: int, time: bytes, now_us: int) -> bool:
    if retention.hours is not None:
        return len(time) < _TIME.size or now_us - _TIME.unpack(time)[0] > retention.hours * _HOUR_US
    return retention.size is not None and size > retention.size
