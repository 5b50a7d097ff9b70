"""The history of one database's file: rows and records as they stand at one moment, while others go on writing.

Responsible for: a `stdb.datastore.history.History` over a connection of its own, inside one read transaction.
Not responsible for: which state is wanted, and how it is reached (`stdb.datastore.history`).

While a history is open SQLite's log cannot be moved into the file beyond that moment: it grows.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from stdb.datastore.records import Record
from stdb.errors import StorageError
from stdb.storage.log_file import damage, read_metadata
from stdb.storage.log_reading import walk_backwards, walk_forwards
from stdb.storage.rows import RowsOfFile

__all__ = ["FileHistory"]


class FileHistory:
    """A `stdb.datastore.history.History`; a context manager. Used by one thread."""

    def __init__(self, path: Path) -> None:
        """Open the file, which exists.

        Raises:
            StorageError: It cannot be read.
        """
        self._path = path
        if not path.exists():
            raise StorageError(f"{path} does not exist")
        self._connection = sqlite3.connect(path, isolation_level=None)
        try:
            self._connection.execute("PRAGMA cell_size_check=ON")
            self._connection.execute("BEGIN")  # one state for all that is read
            self.first = read_metadata(self._connection, "log_first") or 0
            self.rows = RowsOfFile(path, self._connection)
            self.end = max(self.first, self.rows.offset, self._read_end())
        except sqlite3.Error as error:
            self._connection.close()
            raise damage(path, None, str(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def records(self, from_offset: int) -> Iterator[Record]:
        """Yield the records from an offset on, which is kept. Raises StorageError."""
        return walk_forwards(self._path, self._connection, from_offset)

    def backwards(self, below: int, to_offset: int) -> Iterator[Record]:
        """Yield the records from the one before `below` down to `to_offset`. Raises StorageError."""
        return walk_backwards(self._path, self._connection, below, to_offset)

    def _read_end(self) -> int:
        row = self._connection.execute(
            "SELECT first_offset + count FROM log ORDER BY first_offset DESC LIMIT 1"
        ).fetchone()
        return 0 if row is None else int(row[0])
