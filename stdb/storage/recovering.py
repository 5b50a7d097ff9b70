"""Recovering by hand: the good part of a damaged file, or its state before an offset, in a file of its own.

Responsible for: what of a file is kept, putting the old one aside, going on after it was cut off.
Not responsible for: recovery at start, which needs no hand (`stdb.datastore.recovery`).

Where the log is whole from the first record on, its records are kept. Else the state is what counts: it is loaded from
the stored rows, followed forwards along the records behind them, or backwards along those before them (the record of
a delete holds the whole row), and written as rows.
"""

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from stdb.datastore.datastore import Datastore
from stdb.datastore.records import Record, join
from stdb.errors import StorageError
from stdb.storage.log import SqliteLog
from stdb.storage.log_file import RECOVER_COMMAND, UNFINISHED, open_file, read_metadata, sync_directory
from stdb.storage.log_reading import read_backwards, read_records
from stdb.storage.merging import Merger
from stdb.storage.rows import load_rows, whole_window

__all__ = ["Recovered", "recover", "write_database"]

_GROUP_BYTES = 1024 * 1024


class Recovered(NamedTuple):
    """What `recover` did."""

    kept: int
    """How many transactions the new file reflects."""
    aside: Path
    """Where the old file is now."""
    damage: str | None
    """What ended the good prefix; None when `to_offset` did, or the end."""


def recover(path: str | os.PathLike[str], to_offset: int | None = None) -> Recovered:
    """Keep the longest good prefix of a file that nobody has open, up to an offset (itself not kept).

    The old file stays beside the new one as `NAME.damaged-1` (or the next free number). May be cut off at any moment
    and run again.

    Raises:
        StorageError: The file cannot be read or written at all, or neither rows nor records lead to that state.
    """
    path = Path(path)
    copy = path.with_name(path.name + UNFINISHED)
    if not path.exists():
        if not copy.exists():
            raise StorageError(f"{path} does not exist")
        return _finish(path, copy, _aside(path, existing=True), None)
    _remove(copy)
    wal = path.with_name(path.name + "-wal")
    unmoved = wal.read_bytes() if wal.exists() else b""  # SQLite moves or drops it once the file was read
    damage = _copy(path, copy, to_offset)
    aside = _aside(path)
    os.rename(path, aside)
    done = _finish(path, copy, aside, damage)
    if unmoved:
        aside.with_name(aside.name + "-wal").write_bytes(unmoved)
    return done


def write_database(path: Path, datastore: Datastore | None, records: Iterable[Record] = (), *, end: int = 0) -> None:
    """Make the file of a database: a state as rows, and the records right before it.

    Args:
        path: The file, which does not exist.
        datastore: The state after `end` transactions; without one, the records are all there is.
        records: From any offset on up to `end`; without a datastore from 0 on.
        end: Where they end.

    Raises:
        StorageError: The file cannot be written, or reading `records` failed.
    """
    connection = open_file(path)
    try:
        connection.execute("BEGIN IMMEDIATE")
        first = _write_records(connection, records)
        if datastore is not None:
            merger = Merger(connection)
            merger.begin(whole_window(datastore), end)
            while merger.is_busy:
                merger.step()
            begins = end if first is None else first
            connection.execute("UPDATE metadata SET value = ? WHERE name = 'log_first'", (begins,))
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.Error as error:
        raise StorageError(f"{path} cannot be written: {error}") from error
    finally:
        connection.close()


def _write_records(connection: sqlite3.Connection, records: Iterable[Record]) -> int | None:
    """Write records in groups; return the offset of the first."""
    first: int | None = None
    group: list[bytes] = []
    offset = size = 0
    for record in records:
        if not group:
            offset = record.offset
            first = offset if first is None else first
        group.append(join(record))
        size += len(record.payload)
        if size >= _GROUP_BYTES:
            connection.execute("INSERT INTO log VALUES (?, ?, ?)", (offset, len(group), b"".join(group)))
            group, size = [], 0
    if group:
        connection.execute("INSERT INTO log VALUES (?, ?, ?)", (offset, len(group), b"".join(group)))
    return first


def _copy(path: Path, copy: Path, to_offset: int | None) -> str | None:
    """Write what is good into a new file; return what ended it."""
    good = _scan(path, to_offset)
    if good.first == 0 and (good.damage is None or good.end >= _rows_offset(path)):
        write_database(copy, None, _up_to(path, 0, good.end))
        return good.damage
    try:
        state = _state_at(path, to_offset)
    except StorageError:
        if good.first:
            raise
        write_database(copy, None, _up_to(path, 0, good.end))
        return good.damage
    end = state.datastore.next_offset
    first = good.first if good.end >= end else min(state.loaded_at, end)
    write_database(copy, state.datastore, _up_to(path, first, end), end=end)
    return state.damage


class _Good(NamedTuple):
    """The unbroken run of records from the first that is kept."""

    first: int
    end: int
    damage: str | None


class _State(NamedTuple):
    datastore: Datastore
    loaded_at: int
    """How many transactions the stored rows reflect."""
    damage: str | None


def _scan(path: Path, to_offset: int | None) -> _Good:
    first: int | None = None
    end, damage = 0, None
    try:
        for record in read_records(path, None, None):
            first = record.offset if first is None else first
            if record.offset == to_offset:
                break
            end = record.offset + 1
    except StorageError as error:
        damage = _without_advice(error)
    return _Good(_log_first(path) if first is None else first, end, damage)


def _state_at(path: Path, to_offset: int | None) -> _State:
    """Return the state before an offset, or the last one that rows and records lead to.

    Raises:
        StorageError: The rows are damaged, or the records before them that lead back are.
    """
    datastore = load_rows(path)
    loaded_at, damage, failed = datastore.next_offset, None, None
    if to_offset is not None and to_offset < loaded_at:
        for record in read_backwards(path, loaded_at, to_offset):
            datastore.unreplay(record)
        return _State(datastore, loaded_at, None)
    try:
        for record in read_records(path, loaded_at, None):
            if record.offset == to_offset:
                break
            failed = record.offset
            datastore.replay(record)
            failed = None
    except StorageError as error:
        if failed is not None:  # half of it may be done
            return _state_at(path, failed)._replace(damage=str(error))
        damage = _without_advice(error)
    return _State(datastore, loaded_at, damage)


def _up_to(path: Path, first: int, end: int) -> Iterable[Record]:
    """Return the records from `first` to `end`, which are good."""
    return islice(read_records(path, first, None), end - first) if first < end else ()


def _rows_offset(path: Path) -> int:
    return _metadata(path, "rows_offset")


def _log_first(path: Path) -> int:
    return _metadata(path, "log_first")


def _metadata(path: Path, name: str) -> int:
    """Return a number of the metadata; 0 where it cannot be read."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            return read_metadata(connection, name) or 0
    except sqlite3.Error:
        return 0


def _without_advice(error: StorageError) -> str:
    return str(error).partition(f". `{RECOVER_COMMAND} ")[0]


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _finish(path: Path, copy: Path, aside: Path, damage: str | None) -> Recovered:
    """Move what belongs to the old file aside, then the copy into its place. A stale WAL must never meet a new file."""
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.rename(path.with_name(path.name + suffix), aside.with_name(aside.name + suffix))
    sync_directory(path.parent)
    os.rename(copy, path)
    sync_directory(path.parent)
    log = SqliteLog(path)
    try:
        return Recovered(log.durable, aside, damage)
    finally:
        log.close()


def _aside(path: Path, *, existing: bool = False) -> Path:
    """Return the next free name for a damaged file, or the last one taken."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return path.with_name(f"{path.name}.damaged-{number - 1}") if existing else aside
