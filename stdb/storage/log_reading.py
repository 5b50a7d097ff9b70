"""Reading records from a database's file, by a connection of its own: forwards for replay, backwards for history.

Responsible for: that what is yielded is an unbroken run of good records, or a refusal that says where it breaks.
Not responsible for: the file's format (`log_file`), what records mean (`stdb.datastore`).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import dropwhile
from pathlib import Path

from stdb.datastore.records import Record, RecordError, split
from stdb.errors import StorageError
from stdb.storage.log_file import DAMAGE_ERRORS, advice, damage, read_metadata

__all__ = ["CHECKED_BYTES_MAX", "read_backwards", "read_records", "walk_backwards", "walk_forwards"]

CHECKED_BYTES_MAX = 16 * 1024 * 1024
"""Up to this size the whole file is checked page by page before it is read; checksums settle greater ones."""


def read_records(path: Path, from_offset: int | None, end: int | None) -> Iterator[Record]:
    """Yield the records from an offset (None: the first that is kept) to the end (None: whatever there is).

    Raises:
        StorageError: The file is damaged, a record missing or no longer kept; names file and offset, and what to do.
            What was yielded before is good, and no record after is.
    """
    position = from_offset or 0
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA cell_size_check=ON")
            verdict = _verdict(connection)
            first = read_metadata(connection, "log_first") or 0
            position = first if from_offset is None else from_offset
            if position < first:
                raise StorageError(
                    f"{path}: offset {position}: the record is no longer kept, the log begins at offset {first}."
                    " `python -m stdb retention` says how long records are kept"
                )
            groups = connection.execute(_SELECT_GROUPS, (position,))
            start = position
            for first_offset, count, body in groups:
                if position == start:
                    position = min(first_offset, start)  # the first group may begin before what is asked for
                records = _split(path, position, first_offset, count, body)
                yield from records if position >= start else dropwhile(lambda record: record.offset < start, records)
                position += count
                if position == end:
                    break
    except DAMAGE_ERRORS as error:
        raise damage(path, position, str(error)) from error
    if verdict != "ok":
        raise damage(path, position, verdict)
    if end is not None and position < end:
        raise damage(path, position, f"the log ends here, its last offset was {end - 1}")


def read_backwards(path: Path, below: int, to_offset: int) -> Iterator[Record]:
    """Yield the records from the one before `below` down to `to_offset`, newest first.

    Raises:
        StorageError: As `read_records`.
    """
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA cell_size_check=ON")
            yield from walk_backwards(path, connection, below, to_offset)
    except DAMAGE_ERRORS as error:
        raise damage(path, below, str(error)) from error


def walk_forwards(path: Path, connection: sqlite3.Connection, from_offset: int) -> Iterator[Record]:
    """Yield the records from an offset on, which is kept, over a connection that is the caller's.

    Raises:
        StorageError: As `read_records`.
    """
    position = from_offset
    try:
        for first_offset, count, body in connection.execute(_SELECT_GROUPS, (from_offset,)):
            if position == from_offset:
                position = min(first_offset, from_offset)
            records = _split(path, position, first_offset, count, body)
            yield from dropwhile(lambda record: record.offset < from_offset, records)
            position += count
    except DAMAGE_ERRORS as error:
        raise damage(path, position, str(error)) from error


def walk_backwards(path: Path, connection: sqlite3.Connection, below: int, to_offset: int) -> Iterator[Record]:
    """Do as `read_backwards` over a connection that is the caller's."""
    position = below
    try:
        groups = connection.execute(
            "SELECT first_offset, count, body FROM log WHERE first_offset < ? ORDER BY first_offset DESC", (below,)
        )
        for first_offset, count, body in groups:
            if position <= to_offset:
                return
            if first_offset + count < position:
                raise damage(path, position - 1, "the record is missing")
            for record in reversed(list(_split(path, first_offset, first_offset, count, body))):
                if to_offset <= record.offset < position:
                    yield record
            position = first_offset
    except DAMAGE_ERRORS as error:
        raise damage(path, position, str(error)) from error
    if position > to_offset:
        raise StorageError(f"{path}: the log begins at offset {position}: what was before is no longer kept")


def _verdict(connection: sqlite3.Connection) -> str:
    """Return `ok`, or what is wrong with the file."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    if pages * page_size > CHECKED_BYTES_MAX:
        return "ok"
    return str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])


_SELECT_GROUPS = """
SELECT first_offset, count, body FROM log
WHERE first_offset >= (SELECT coalesce(max(first_offset), 0) FROM log WHERE first_offset <= ?1)
AND first_offset + count > ?1 ORDER BY first_offset
"""


def _split(path: Path, expected: int, first_offset: int, count: int, body: object) -> Iterator[Record]:
    """Yield the records of a group that must begin at an offset."""
    if first_offset != expected:
        raise damage(path, expected, f"the record is missing, the next group begins at offset {first_offset}")
    if not isinstance(body, bytes):
        raise damage(path, expected, f"the group is no blob but {type(body).__name__}")
    try:
        position = yield from split(body, first_offset)
    except RecordError as error:
        raise StorageError(f"{path}: {error}. {advice(path, error.offset)}") from error
    if position - first_offset != count:
        raise damage(path, position, f"a group of {count} records holds {position - first_offset}")
