"""Stored rows: from a database's file into its tables at start, checked.

Responsible for: reading rows with their places, comparing checksums, what to do about damage (07 section 8).
Not responsible for: writing rows (`merging`), records (`log_reading`), the order of loading (`stdb.datastore.loading`).

Rows that are damaged are never used: where the log reaches back to the first record, the state is replayed from there;
else a backup beside the file (`NAME.backup`) gives the rows, if the log reaches back to it; else nothing is loaded.
"""

import logging
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from zlib import crc32

from stdb.datastore.datastore import Datastore
from stdb.datastore.index import Key
from stdb.datastore.loading import load
from stdb.datastore.records import Record
from stdb.datastore.table import Table
from stdb.datastore.window import PART_CHANGES_MAX, Window
from stdb.errors import StorageError
from stdb.storage.log_file import DAMAGE_ERRORS, damage, read_metadata
from stdb.storage.log_reading import read_records
from stdb.storage.seals import is_sealed
from stdb.storage.stored_keys import stored_key, wrapped

__all__ = ["BACKUP_SUFFIX", "RowsOfFile", "SqliteRows", "load_rows", "whole_window"]

BACKUP_SUFFIX = ".backup"
"""What a backup beside a database's file is called, behind the file's name."""
_ROWS_AT_ONCE = 2000

_log = logging.getLogger(__name__)


class _RowsDamagedError(StorageError):
    """The stored rows of one table are not what was stored."""


class SqliteRows:
    """A `stdb.datastore.log.SnapshotStore`: the rows of one file."""

    def __init__(self, path: Path, first: Callable[[], int], records: Callable[[int], Iterator[Record]]) -> None:
        """`first` returns where the log begins, `records` reads it from an offset on."""
        self._path = path
        self._first = first
        self._records = records
        self.rebuilt: Datastore | None = None
        """What was loaded without the rows of the file, which have to be written anew."""

    def load_newest(self, datastore: Datastore, next_offset_max: int) -> Iterator[None]:
        """Load the rows; see `stdb.datastore.log.SnapshotStore`. Tells about damage that it gets around.

        Raises:
            StorageError: They are damaged, and the log reaches back neither to its beginning nor to a backup.
        """
        try:
            yield from _load(self._path, datastore, next_offset_max, self._records)
            return
        except _RowsDamagedError as error:
            datastore.begin_anew()
            if self._first() == 0:
                _log.warning("%s. The state is replayed from the log, which reaches back to the beginning", error)
                self.rebuilt = datastore
                return
            backup = self._path.with_name(self._path.name + BACKUP_SUFFIX)
            if not backup.exists():
                raise damage(self._path, self._first(), f"{error}, and no record before this offset is kept") from error
            _log.warning("%s. The state is replayed from the backup %s", error, backup)
        yield from _load(backup, datastore, next_offset_max, self._records)
        if datastore.next_offset < self._first():
            raise damage(
                self._path, self._first(), f"the stored rows are damaged, and the log does not reach back to {backup}"
            )
        self.rebuilt = datastore


def load_rows(path: Path) -> Datastore:
    """Return the state that the stored rows of a file give, which nobody writes; `next_offset` is theirs.

    Raises:
        StorageError: They are damaged.
    """
    datastore = Datastore()
    for _ in _load(path, datastore, sys.maxsize, lambda offset: read_records(path, offset, None)):
        pass
    return datastore


def whole_window(datastore: Datastore) -> Window:
    """Return a window that writes all rows of a datastore but those that each has of itself."""
    window, fresh = Window(), Datastore()
    for table_id, table in sorted(datastore.tables.items()):
        if not table.is_event and not table.schema.is_view:
            bare = fresh.tables[table_id].stored if table.schema.is_system else {}
            rows = iter(table.stored.items())
            while some := list(islice(rows, PART_CHANGES_MAX)):
                window.part(table).update((place, row) for place, row in some if bare.get(place) != row)
    return window


def _load(
    path: Path, datastore: Datastore, next_offset_max: int, records: Callable[[int], Iterator[Record]]
) -> Iterator[None]:
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA cell_size_check=ON")
            connection.execute("BEGIN")  # one state for all that is read
            reader = RowsOfFile(path, connection)
            end = reader.offset if reader.merging_to is None else reader.merging_to
            if end > next_offset_max:
                raise damage(path, next_offset_max, f"its rows reflect {end} transactions, its log has fewer")
            yield from load(datastore, reader, records)
    except DAMAGE_ERRORS as error:
        raise _RowsDamagedError(f"{path}: the stored rows are damaged: {error}") from error


class RowsOfFile:
    """A `stdb.datastore.loading.StoredRows` over a connection."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self.offset = read_metadata(connection, "rows_offset") or 0
        self.merging_to = read_metadata(connection, "merging_to")
        if not is_sealed(connection):
            raise _RowsDamagedError(
                f"{path}: the stored rows are damaged: their offset and their checksums are not of one time"
            )

    def read(self, table: Table) -> Iterator[dict[Key, bytes]]:
        """Yield the rows of a table with their places, in slices."""
        if table.is_event:
            return
        found = _Sums()
        slices = self._by_itself(table, found) if table.key_of is bytes else self._by_key(table, found)
        yield from slices
        stored = self._connection.execute(
            "SELECT count, crc_sum, key_sum FROM tables WHERE table_id = ?", (table.schema.id,)
        ).fetchone() or (0, 0, 0)
        if stored != found.values():
            raise _RowsDamagedError(
                f"{self._path}: table `{table.schema.name}`: its stored rows are damaged: count and checksums are"
                f" {found.values()}, those of what was stored are {stored}"
            )

    def _by_key(self, table: Table, found: "_Sums") -> Iterator[dict[Key, bytes]]:
        """Read a table with a primary key. Integers come first; what is a BLOB may be no key in memory."""
        for some in self._slices(table, _NATIVE):
            found.add(some)
            yield some
        for some in self._slices(table, _BLOBS):
            found.add(some)
            key_of = table.key_of
            placed = {key_of(row): row for row in some.values()}
            if list(map(stored_key, placed)) != list(some):
                raise _RowsDamagedError(
                    f"{self._path}: table `{table.schema.name}`: a stored row is under another's key"
                )
            yield placed

    def _by_itself(self, table: Table, found: "_Sums") -> Iterator[dict[Key, bytes]]:
        """Read a table without one."""
        for some in self._slices(table, _NATIVE):
            found.add(some)
            yield dict(zip(some.values(), some.values(), strict=True))
        for some in self._slices(table, _BLOBS):
            found.add_inline(some)
            yield dict(zip(some, some, strict=True))

    def _slices(self, table: Table, condition: str) -> Iterator[dict[Key, bytes]]:
        cursor = self._connection.execute(
            f"SELECT key, row FROM rows WHERE table_id = ? AND {condition}", (table.schema.id,)
        )
        while some := cursor.fetchmany(_ROWS_AT_ONCE):
            yield dict(some)


_NATIVE, _BLOBS = "key < x''", "key >= x''"


class _Sums:
    """Count and checksums of rows that were read."""

    def __init__(self) -> None:
        self.count = self.crc = self.keys = 0

    def values(self) -> tuple[int, int, int]:
        """Return them as stored."""
        return self.count, self.crc, wrapped((self.keys,))

    def add(self, rows: dict[Key, bytes]) -> None:
        """Add rows by their stored keys: integers and strings, or bytes."""
        self.count += len(rows)
        try:
            self.crc += sum(map(crc32, rows.values()))
        except TypeError as error:
            raise sqlite3.DatabaseError("a row is no blob") from error
        try:
            self.keys += sum(rows)
        except TypeError:
            for key in rows:
                if isinstance(key, str | bytes):
                    self.crc += crc32(key.encode() if isinstance(key, str) else key)
                elif isinstance(key, int):
                    self.keys += key
                else:
                    raise sqlite3.DatabaseError("a key is neither integer, text nor blob") from None

    def add_inline(self, rows: dict[Key, bytes]) -> None:
        """Add rows that are their own keys."""
        self.count += len(rows)
        try:
            self.crc += sum(map(crc32, rows))
        except TypeError as error:
            raise sqlite3.DatabaseError("a row is no blob") from error
