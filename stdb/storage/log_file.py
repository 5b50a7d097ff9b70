"""The file of one database: opening it, its format, and what is said when it is damaged.

Responsible for: the tables of the file, upgrades of its format, SQLite's settings, the words of refusals.
Not responsible for: records (`log_reading`, `log_writer`), rows (`rows`, `merging`).

Layout (ours, format 2; 07 sections 7 and 8):

    log(first_offset INTEGER PRIMARY KEY, count INT, body BLOB)     body: `count` records, see `stdb.datastore.records`
    rows(table_id, key, crc, row)                                   see `stored_keys`
    tables(table_id, count, crc_sum, key_sum)                       checksum of what stands in `rows` at every moment
    metadata(name, value)      format_version; log_first: records below are gone; rows_offset: how many transactions
                               `rows` reflects; merging_to: some rows reflect so many already (else absent);
                               rows_seal: see `seals`
"""

import os
import sqlite3
from pathlib import Path

from stdb.errors import StorageError
from stdb.storage.wal import damaged_frame

__all__ = [
    "DAMAGE_ERRORS",
    "FORMAT_VERSION",
    "RECOVER_COMMAND",
    "UNFINISHED",
    "advice",
    "damage",
    "open_file",
    "read_metadata",
    "sync_directory",
]

DAMAGE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What reading a damaged file raises; what SQLite says of it may be no text itself."""
FORMAT_VERSION = 2
RECOVER_COMMAND = "python -m stdb recover"
UNFINISHED = ".recovering"
"""What the copy that a recover writes is called until it is whole."""

_LOG = """
CREATE TABLE metadata(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE log(first_offset INTEGER PRIMARY KEY, count INT NOT NULL, body BLOB NOT NULL);
INSERT INTO metadata VALUES ('format_version', 2);
"""
_ROWS = """
CREATE TABLE rows(table_id INTEGER, key, crc INTEGER NOT NULL, row BLOB, PRIMARY KEY(table_id, key)) WITHOUT ROWID;
CREATE TABLE tables(
    table_id INTEGER PRIMARY KEY, count INTEGER NOT NULL, crc_sum INTEGER NOT NULL, key_sum INTEGER NOT NULL);
INSERT INTO metadata VALUES ('log_first', 0);
INSERT INTO metadata VALUES ('rows_offset', 0);
INSERT INTO metadata VALUES ('rows_seal', 0);
"""
_UPGRADE = "UPDATE metadata SET value = 2 WHERE name = 'format_version';"


def open_file(path: Path, file_bytes_max: int | None = None) -> sqlite3.Connection:
    """Return the connection that writes a database's file, which is made where there is none.

    Raises:
        StorageError: It is no log, damaged, of a newer format, or cannot be opened.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    if not path.exists() and unfinished.exists():
        raise StorageError(f"{path} is missing: a recover was cut off before it ended. {advice(path, None)}")
    bad = damaged_frame(path.with_name(path.name + "-wal"))
    if bad is not None:
        raise damage(
            path, None, f"frame {bad} of its -wal file is damaged, and what was written after it would be lost"
        )
    try:
        return _connect(path, file_bytes_max)
    except DAMAGE_ERRORS as error:
        raise damage(path, None, str(error)) from error


def _connect(path: Path, file_bytes_max: int | None) -> sqlite3.Connection:
    is_new = not path.exists() or not path.stat().st_size
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        if is_new:  # else it would write to a file that is refused below
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise StorageError(
                f"{path}: SQLite cannot use a write-ahead log here (got {mode}): use a local file system"
            )
        for pragma in ("synchronous=FULL", "wal_autocheckpoint=0", "cell_size_check=ON"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        if file_bytes_max is not None:
            (page_size,) = connection.execute("PRAGMA page_size").fetchone()
            connection.execute(f"PRAGMA max_page_count={file_bytes_max // page_size}").fetchall()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if not tables:
            connection.executescript(f"BEGIN IMMEDIATE;{_LOG}{_ROWS}COMMIT;")
        if is_new:
            sync_directory(path.parent)
        _check_format(path, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_format(path: Path, connection: sqlite3.Connection) -> None:
    row = connection.execute("SELECT value FROM metadata WHERE name = 'format_version'").fetchone()
    if row is None:
        raise StorageError(f"{path} is no log of stdb: it has no format version")
    if row[0] == 1:
        connection.executescript(f"BEGIN IMMEDIATE;{_ROWS}{_UPGRADE}COMMIT;")
    elif row[0] != FORMAT_VERSION:
        raise StorageError(
            f"{path} has format {row[0]}, this stdb knows format {FORMAT_VERSION}: start the stdb that wrote it"
        )


def read_metadata(connection: sqlite3.Connection, name: str) -> int | None:
    """Return a number of the metadata; None where it is absent."""
    row = connection.execute("SELECT value FROM metadata WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    if not isinstance(row[0], int):
        raise sqlite3.DatabaseError(f"{name} is no number but {row[0]!r}")
    return row[0]


def sync_directory(directory: Path) -> None:
    """Make the name of a new file durable, where directories can be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def damage(path: Path, offset: int | None, what: str) -> StorageError:
    """Return the refusal of a damaged file: which, where, what, and what to do."""
    where = f"{path}: " if offset is None else f"{path}: offset {offset}: "
    return StorageError(f"{where}{what}. {advice(path, offset)}")


def advice(path: Path, offset: int | None) -> str:
    """Return what to do about damage at an offset."""
    to = "OFFSET" if offset is None else str(offset)
    return (
        f"`{RECOVER_COMMAND} {path.stem} --to {to}` keeps what is good before that offset and puts the old file aside"
    )
