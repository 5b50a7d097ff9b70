"""Backups: a copy of a database's file while it is written, and files that become databases.

Responsible for: copying by SQLite's backup API, refusing what is no backup before anything is done with it.
Not responsible for: which identity a restored database gets (`stdb.actors.archive`), what rows mean.

A file that somebody hands in may be anything: it must be an SQLite file of its full length with the tables of a
database and nothing else (no trigger, no view: SQLite would run them), whole page by page, and of a known format.
"""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from stdb.errors import StorageError
from stdb.storage.log_file import FORMAT_VERSION, read_metadata

__all__ = ["BackupError", "check_backup", "copy_database", "remove_file"]

_MAGIC = b"SQLite format 3\0"
_TABLES = {"metadata", "log", "rows", "tables"}
_TABLES_OF_FORMAT_1 = {"metadata", "log"}


class BackupError(StorageError):
    """A file that is no backup of a database; the text says why, without its name."""


def copy_database(path: Path, target: Path) -> int:
    """Copy the file of a database, which may be written meanwhile, as it stands; return how many transactions it has.

    Blocks; the writer does not wait for it.

    Raises:
        StorageError: It cannot be read, or there is no room for the copy.
    """
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as source:
            source.execute("SELECT 1 FROM sqlite_schema").fetchall()
            with closing(sqlite3.connect(target, isolation_level=None)) as copy:
                source.backup(copy)  # in one step, hence one moment
                copy.execute("PRAGMA journal_mode=DELETE").fetchall()
                return _end(copy)
    except sqlite3.Error as error:
        raise StorageError(f"{path} cannot be copied to {target}: {error}") from error


def check_backup(path: Path) -> None:
    """Raise BackupError unless a file is a whole backup that this stdb can open. Blocks for as long as to read it."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        header = file.read(100)
    if len(header) < 100 or not header.startswith(_MAGIC):
        raise BackupError(f"it is no SQLite file, which a backup is: its {size} bytes begin otherwise")
    try:
        with closing(sqlite3.connect(f"file:{_quoted(path)}?mode=ro&immutable=1", uri=True)) as connection:
            _check(connection, header, size)
    except sqlite3.Error as error:
        raise BackupError(f"it is damaged: {error}") from error


def remove_file(path: Path) -> None:
    """Remove a file of SQLite and what it keeps beside it, as far as they are there."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        with suppress(OSError):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


def _check(connection: sqlite3.Connection, header: bytes, size: int) -> None:
    page_size = int.from_bytes(header[16:18], "big")
    page_size = 65_536 if page_size == 1 else page_size
    expected = int.from_bytes(header[28:32], "big") * page_size
    if size < expected:
        raise BackupError(f"it is cut: it has {size} of {expected} bytes")
    connection.execute("PRAGMA trusted_schema=OFF")
    found = {(kind, name) for kind, name in connection.execute("SELECT type, name FROM sqlite_schema")}
    tables = {name for kind, name in found if kind == "table"}
    if tables not in (_TABLES, _TABLES_OF_FORMAT_1) or len(tables) != len(found):
        names = ", ".join(sorted(f"{kind} {name}" for kind, name in found)) or "nothing"
        raise BackupError(f"it is no backup of a database of stdb: it holds {names}")
    version = read_metadata(connection, "format_version")
    if version is None:
        raise BackupError("it is no backup of a database of stdb: it has no format version")
    if not 1 <= version <= FORMAT_VERSION:
        raise BackupError(
            f"it has format {version}, this stdb knows formats up to {FORMAT_VERSION}: restore it with a newer stdb"
        )
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise BackupError(f"it is damaged: {verdict}")


def _end(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT first_offset + count FROM log ORDER BY first_offset DESC LIMIT 1").fetchone()
    rows_offset = read_metadata(connection, "rows_offset") or 0
    return max(rows_offset, 0 if row is None else int(row[0]))


def _quoted(path: Path) -> str:
    return os.fspath(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
