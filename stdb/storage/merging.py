"""Merging: what transactions changed goes into the stored rows, in small steps.

Responsible for: one window after another, step by step; checksums of tables; the offset that the rows reflect.
Not responsible for: when a window begins and ends, transactions of SQLite and their commits (`log_writer`), keys
(`stored_keys`).

Each step is one statement a purpose, whatever the number of rows: SQLite then works without Python's lock, which a
statement a row would have to get back as often as there are rows, half a millisecond each while the server is busy.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from time import perf_counter

from stdb.datastore.index import Key
from stdb.datastore.window import PART_CHANGES_MAX, Part, Window
from stdb.storage.log_file import read_metadata
from stdb.storage.seals import is_sealed, seal, table_part
from stdb.storage.stored_keys import StoredKey, row_stored, row_stored_by_itself, stored_key, wrapped

__all__ = ["STEP_CHANGES_MAX", "STEP_SECONDS", "Merger"]

STEP_CHANGES_MAX = 512
STEP_CHANGES_MIN = 32
STEP_SECONDS = 0.002
"""How long a step should take: a group of records may wait for one."""
_SORTED_AT_ONCE = 8192
_LOW = (1 << 32) - 1


class Merger:
    """Writes windows into the rows of a file. A step belongs to whatever transaction of SQLite is open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.offset = read_metadata(connection, "rows_offset") or 0
        """How many transactions the rows reflect, once the steps so far are committed."""
        self._merging_to = read_metadata(connection, "merging_to")
        self.is_whole = is_sealed(connection)
        """Offset and checksums belong together; else nothing is known of the rows, and they are wiped or refused."""
        if not self.is_whole:
            self.offset, self._merging_to = 0, None
        self._sums = {row[0]: row[1:] for row in connection.execute("SELECT * FROM tables")} if self.is_whole else {}
        self._tables_sum = sum(table_part(table_id, sums) for table_id, sums in self._sums.items())
        self._steps: Iterator[None] | None = None
        self._size = STEP_CHANGES_MAX

    @property
    def is_mixed(self) -> bool:
        """Tell whether some rows reflect more than `offset`."""
        return self._merging_to is not None

    @property
    def is_busy(self) -> bool:
        """Tell whether steps are left of a window."""
        return self._steps is not None

    def begin(self, window: Window, end: int) -> None:
        """Merge a window, which is the merger's from now on: the transactions from `offset` to `end`."""
        assert self._steps is None, "one window at a time"
        self._steps = self._merge(window, end)

    def step(self) -> None:
        """Do some of it."""
        assert self._steps is not None, "nothing is to be merged"
        started = perf_counter()
        if next(self._steps, self) is self:
            self._steps = None
        self._seal()
        taken = perf_counter() - started
        if taken > STEP_SECONDS:
            self._size = max(self._size // 2, STEP_CHANGES_MIN)
        elif taken < STEP_SECONDS / 2:
            self._size = min(self._size * 2, STEP_CHANGES_MAX)

    def wipe(self) -> None:
        """Take out all rows, which are damaged."""
        self._connection.execute("DELETE FROM rows")
        self._connection.execute("DELETE FROM tables")
        self._connection.execute("UPDATE metadata SET value = 0 WHERE name = 'rows_offset'")
        self._connection.execute("DELETE FROM metadata WHERE name = 'merging_to'")
        self._sums, self._steps, self._tables_sum, self.offset, self._merging_to = {}, None, 0, 0, None
        self._seal()
        self.is_whole = True

    def _merge(self, window: Window, end: int) -> Iterator[None]:
        pieces = self._pieces(window)
        piece = next(pieces, None)
        if piece is not None:
            following = next(pieces, None)
            if following is not None or self.is_mixed:
                self._connection.execute("INSERT OR REPLACE INTO metadata VALUES ('merging_to', ?)", (end,))
                self._merging_to = end
            while piece is not None:
                self._change(*piece)
                piece, following = following, next(pieces, None) if following is not None else None
                if piece is not None:
                    yield
        self._connection.execute("UPDATE metadata SET value = ? WHERE name = 'rows_offset'", (end,))
        if self.is_mixed:
            self._connection.execute("DELETE FROM metadata WHERE name = 'merging_to'")
        self.offset, self._merging_to = end, None

    def _pieces(self, window: Window) -> Iterator[tuple[int, bool, Part, Sequence[Key]]]:
        """Yield what each step does: a table, some keys of a part. Of a table that is no more, one after another."""
        for table_id, part in window.in_order():
            is_row = table_id in window.row_keyed
            keys = list(part)
            for start in range(0, len(keys), PART_CHANGES_MAX):
                run = _in_order(keys[start : start + PART_CHANGES_MAX])
                position = 0
                while position < len(run):
                    size = self._size
                    yield table_id, is_row, part, run[position : position + size]
                    position += size
        for table_id in window.dropped:
            while self._sums.get(table_id, (0,))[0]:
                yield table_id, False, {}, ()

    def _change(self, table_id: int, is_row: bool, part: Part, keys: Sequence[Key]) -> None:
        execute = self._connection.execute
        if not keys:
            self._drop_some(table_id)
            return
        put: list[object] = [table_id]
        gone: list[StoredKey] = []
        checksums, stored = 0, []
        for key in keys:
            row = part.pop(key)  # a great part that goes at once would hold everybody up
            if row is None:
                gone.append(stored_key(key, is_row=is_row))
            else:
                entry = row_stored_by_itself(row) if is_row else row_stored(key, row)
                put += entry
                stored.append(entry[0])
                checksums += entry[1]
        old = _count(self._connection, table_id, [*gone, *stored])
        if gone:
            execute(_delete(_rounded(len(gone))), _padded([table_id, *gone], 1, len(gone)))
        if stored:
            execute(_insert(_rounded(len(stored))), _padded(put, 3, len(stored)))
        self._add(table_id, len(stored) - old[0], checksums - old[1], wrapped(stored) - old[2])

    def _drop_some(self, table_id: int) -> None:
        execute = self._connection.execute
        found = execute("SELECT key FROM rows WHERE table_id = ? LIMIT ?", (table_id, STEP_CHANGES_MAX)).fetchall()
        keys = [key for (key,) in found]
        old = _count(self._connection, table_id, keys)
        if keys:
            execute(_delete(_rounded(len(keys))), _padded([table_id, *keys], 1, len(keys)))
            self._add(table_id, -old[0], -old[1], -old[2])
        if len(keys) < STEP_CHANGES_MAX:
            execute("DELETE FROM tables WHERE table_id = ?", (table_id,))
            if table_id in self._sums:
                self._tables_sum -= table_part(table_id, self._sums.pop(table_id))

    def _add(self, table_id: int, count: int, crc_sum: int, key_sum: int) -> None:
        before = self._sums.get(table_id, (0, 0, 0))
        after = (before[0] + count, before[1] + crc_sum, wrapped((before[2] + key_sum,)))
        if table_id in self._sums:
            self._tables_sum -= table_part(table_id, before)
        self._tables_sum += table_part(table_id, after)
        self._sums[table_id] = after
        self._connection.execute("INSERT OR REPLACE INTO tables VALUES (?, ?, ?, ?)", (table_id, *after))

    def _seal(self) -> None:
        number = seal(self.offset, self._merging_to, self._tables_sum)
        self._connection.execute("INSERT OR REPLACE INTO metadata VALUES ('rows_seal', ?)", (number,))


def _in_order(keys: list[Key]) -> list[Key]:
    """Return keys sorted, so that neighbours in the file are written together; never sorts many at once."""
    runs = [sorted(keys[i : i + _SORTED_AT_ONCE]) for i in range(0, len(keys), _SORTED_AT_ONCE)]
    while len(runs) > 1:
        runs = [sorted(runs[i] + (runs[i + 1] if i + 1 < len(runs) else [])) for i in range(0, len(runs), 2)]
    return runs[0]


def _count(connection: sqlite3.Connection, table_id: int, keys: Sequence[StoredKey]) -> tuple[int, int, int]:
    """Return number, checksums and sum of the integer keys of what stands at some keys."""
    found = connection.execute(_sums_of(_rounded(len(keys))), _padded([table_id, *keys], 1, len(keys))).fetchall()
    count, checksums, low, high = found[0]
    return count, checksums or 0, (low or 0) + ((high or 0) << 32)


def _rounded(count: int) -> int:
    """Return the next power of two: few statements, which SQLite need not compile again."""
    return 1 << max(count - 1, 0).bit_length()


def _padded(values: list[object], width: int, count: int) -> list[object]:
    """Repeat the last entry up to the rounded number; doing it twice does no harm."""
    return values + values[len(values) - width :] * (_rounded(count) - count)


@lru_cache(maxsize=32)
def _sums_of(count: int) -> str:
    integer = "CASE typeof(key) WHEN 'integer' THEN key END"
    return (
        f"SELECT count(*), sum(crc), sum({integer} & {_LOW}), sum({integer} >> 32) FROM rows"
        f" WHERE table_id = ? AND key IN ({', '.join('?' * count)})"
    )


@lru_cache(maxsize=32)
def _delete(count: int) -> str:
    return f"DELETE FROM rows WHERE table_id = ? AND key IN ({', '.join('?' * count)})"


@lru_cache(maxsize=32)
def _insert(count: int) -> str:
    return f"INSERT OR REPLACE INTO rows VALUES {', '.join(['(?1, ?, ?, ?)'] * count)}"
