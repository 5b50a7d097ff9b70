"""The durable log of one database: a table in an SQLite file, written by a thread of its own.

Responsible for: appending groups of records, the durable offset, reading them back checked, keeping a good prefix.
Not responsible for: what a record means (`stdb.datastore`), where the file lies (`data_directory`), snapshots.

Layout (ours, format 1; 07 section 7):

    log(first_offset INTEGER PRIMARY KEY, count INT, body BLOB)     body: `count` records, see `stdb.datastore.records`
    metadata(name TEXT PRIMARY KEY, value)                          format_version

One group is one autocommit INSERT in WAL mode with synchronous=FULL: when it returns, the group is on the disk. SQLite
settles torn writes, the checksum of each record settles damage. Nothing is cut off silently: whatever does not read
back as an unbroken run of records refuses to open (DESIGN decision 5).
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

from stdb.datastore.delta import Delta
from stdb.datastore.log import NoSnapshots, SnapshotStore
from stdb.datastore.records import Record, RecordError, join, split
from stdb.datastore.window import Window
from stdb.errors import StorageError
from stdb.storage.wal import damaged_frame

__all__ = ["BODY_BYTES_MAX", "CHECKPOINT_BYTES", "FORMAT_VERSION", "Recovered", "SqliteLog", "recover"]

FORMAT_VERSION = 1
BODY_BYTES_MAX = 16 * 1024 * 1024
"""Size at which a group is closed; one record alone may be greater."""
CHECKPOINT_BYTES = 16 * 1024 * 1024
"""Appended bytes after which the writer moves the WAL into the file although it is busy."""
IDLE_SECONDS = 0.5
"""How long nothing must have come in for the writer to do so anyway."""

_UNFINISHED = ".recovering"
_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE metadata(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE log(first_offset INTEGER PRIMARY KEY, count INT NOT NULL, body BLOB NOT NULL);
INSERT INTO metadata VALUES ('format_version', 1);
COMMIT;
"""


def _tell_nobody(durable: int) -> None:
    """Stand in for an owner who does not want to be told."""


class SqliteLog:
    """A `stdb.datastore.log.Log` in a file. Made and called by one thread; the writer is a daemon thread."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        on_durable: Callable[[int], None] = _tell_nobody,
        *,
        file_bytes_max: int | None = None,
    ) -> None:
        """Open the log, or make an empty one.

        Args:
            path: The file; SQLite keeps `-wal` and `-shm` beside it while it is open.
            on_durable: Called *in the writer's thread* with `durable` whenever it moved, and once when the log failed
                (then `durable` raises). It hands over to the owner's thread and may raise RuntimeError when that is
                over.
            file_bytes_max: The file must not grow beyond; reaching it is a full disk.

        Raises:
            StorageError: The file is no log, damaged, of a newer format, or cannot be opened.
        """
        self.path = Path(path)
        self._on_durable = on_durable
        self._connection = _open(self.path, file_bytes_max)
        self._durable = self._appended = self._read_end()
        self._failure: StorageError | None = None
        self._is_failure_told = False
        self._unmoved_bytes = 0
        self._queue: SimpleQueue[Sequence[bytes] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"log writer {self.path.stem}", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<SqliteLog {self.path} durable={self._durable}>"

    # The owner's thread

    @property
    def durable(self) -> int:
        """How many transactions are on the disk.

        Raises:
            StorageError: The writer failed. Nothing becomes durable any more: stop the database.
        """
        self._raise_failure()
        return self._durable

    @property
    def backlog(self) -> int:
        """How many appended transactions are not durable yet."""
        return self._appended - self._durable

    @property
    def first(self) -> int:
        """The first offset whose record is kept."""
        return 0

    def follow(self, tail: Window) -> None:
        """Keep the stored rows up to date from now on."""

    def append_nowait(self, records: Sequence[bytes], deltas: Sequence[Delta] = ()) -> None:
        """Append records; the sequence is the log's from now on. Never blocks.

        Raises:
            StorageError: The writer failed; nothing was appended.
        """
        self._raise_failure()
        if records:
            offset = int.from_bytes(records[0][8:16], "little")
            assert offset == self._appended, f"record {offset} appended, {self._appended} is next"
            self._appended += len(records)
            self._queue.put(records)

    def records(self, from_offset: int | None = None) -> Iterator[Record]:
        """Yield every record on the disk from an offset on, checked; may run while records are appended.

        Raises:
            StorageError: The file is damaged or a record missing; names file and offset, and what to do. What was
                yielded before is good, and no record after is.
        """
        yield from _read(self.path, from_offset or 0, self._durable)

    def snapshots(self) -> SnapshotStore:
        """Return a store without snapshots: the log keeps every record."""
        return NoSnapshots()

    def close(self) -> None:
        """Wait until everything appended is on the disk, then close the file. Blocks; may be called again.

        Raises:
            StorageError: The writer failed and nobody has been told yet.
        """
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        if not self._is_failure_told:
            self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            self._is_failure_told = True
            raise self._failure

    def _read_end(self) -> int:
        try:
            row = self._connection.execute(
                "SELECT first_offset, count FROM log ORDER BY first_offset DESC LIMIT 1"
            ).fetchone()
        except sqlite3.Error as error:
            self._connection.close()
            raise _damage(self.path, None, str(error)) from error
        return 0 if row is None else int(row[0]) + int(row[1])

    # The writer's thread

    def _run(self) -> None:
        try:
            while group := self._take():
                for body, count in _bodies(group):
                    self._append(body, count)
            self._move_wal()
        except sqlite3.Error as error:
            self._fail(error)
        finally:
            with suppress(sqlite3.Error):
                self._connection.close()

    def _take(self) -> list[bytes]:
        """Return all records that wait, at least one, up to a size; an empty list when the log is closed."""
        records = self._wait()
        if records is None:
            return []
        group = list(records)
        size = sum(map(len, group))
        while size < BODY_BYTES_MAX:
            try:
                records = self._queue.get_nowait()
            except Empty:
                break
            if records is None:
                self._queue.put(None)  # seen again once this group is written
                break
            group += records
            size += sum(map(len, records))
        return group

    def _wait(self) -> Sequence[bytes] | None:
        if self._unmoved_bytes:
            try:
                return self._queue.get(timeout=IDLE_SECONDS)
            except Empty:
                self._move_wal()
        return self._queue.get()

    def _append(self, body: bytes, count: int) -> None:
        self._connection.execute("INSERT INTO log VALUES (?, ?, ?)", (self._durable, count, body))
        self._durable += count
        self._tell()
        self._unmoved_bytes += len(body)
        if self._unmoved_bytes >= CHECKPOINT_BYTES:
            self._move_wal()

    def _move_wal(self) -> None:
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._unmoved_bytes = 0

    def _fail(self, error: sqlite3.Error) -> None:
        self._failure = StorageError(
            f"{self.path}: offset {self._durable}: the log cannot be written: {error}. Everything before is stored;"
            " free the disk or repair it, then restart the database"
        )
        self._failure.__cause__ = error
        self._tell()

    def _tell(self) -> None:
        try:
            self._on_durable(self._durable)
        except RuntimeError:  # the owner's event loop has ended
            self._on_durable = _tell_nobody


def _bodies(records: list[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield records joined into bodies of about BODY_BYTES_MAX at most, with their counts."""
    start, size = 0, 0
    for i, record in enumerate(records):
        if size and size + len(record) > BODY_BYTES_MAX:
            yield b"".join(records[start:i]), i - start
            start, size = i, 0
        size += len(record)
    yield b"".join(records[start:]), len(records) - start


def _open(path: Path, file_bytes_max: int | None) -> sqlite3.Connection:
    unfinished = path.with_name(path.name + _UNFINISHED)
    if not path.exists() and unfinished.exists():
        raise StorageError(f"{path} is missing: a recover was cut off before it ended. {_advice(path, None)}")
    bad = damaged_frame(path.with_name(path.name + "-wal"))
    if bad is not None:
        raise _damage(
            path, None, f"frame {bad} of its -wal file is damaged, and what was written after it would be lost"
        )
    try:
        return _connect(path, file_bytes_max)
    except sqlite3.Error as error:
        raise _damage(path, None, str(error)) from error


def _connect(path: Path, file_bytes_max: int | None) -> sqlite3.Connection:
    is_new = not path.exists()
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
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
            connection.executescript(_SCHEMA)
        if is_new:
            _sync_directory(path.parent)
        _check_format(path, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_format(path: Path, connection: sqlite3.Connection) -> None:
    row = connection.execute("SELECT value FROM metadata WHERE name = 'format_version'").fetchone()
    if row is None:
        raise StorageError(f"{path} is no log of stdb: it has no format version")
    if row[0] != FORMAT_VERSION:
        raise StorageError(
            f"{path} has format {row[0]}, this stdb knows format {FORMAT_VERSION}: start the stdb that wrote it"
        )


def _sync_directory(directory: Path) -> None:
    """Make the name of a new file durable, where directories can be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path, from_offset: int, end: int | None) -> Iterator[Record]:
    """Yield the records from an offset to the end (None: whatever there is), as `SqliteLog.records` says."""
    position = from_offset
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA cell_size_check=ON")
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            for first_offset, count, body in connection.execute(_SELECT_GROUPS, (from_offset,)):
                if position == from_offset:
                    position = min(first_offset, from_offset)  # the first group may begin before what is asked for
                for record in _read_group(path, position, first_offset, body):
                    if record.offset >= from_offset:
                        yield record
                    position += 1
                if position - first_offset != count:
                    raise _damage(path, position, f"a group of {count} records holds {position - first_offset}")
                if position == end:
                    break
    except sqlite3.Error as error:
        raise _damage(path, position, str(error)) from error
    if verdict != "ok":
        raise _damage(path, position, str(verdict))
    if end is not None and position < end:
        raise _damage(path, position, f"the log ends here, its last offset was {end - 1}")


_SELECT_GROUPS = """
SELECT first_offset, count, body FROM log
WHERE first_offset >= (SELECT coalesce(max(first_offset), 0) FROM log WHERE first_offset <= ?) ORDER BY first_offset
"""


def _read_group(path: Path, expected: int, first_offset: int, body: object) -> Iterator[Record]:
    if first_offset != expected:
        raise _damage(path, expected, f"the record is missing, the next group begins at offset {first_offset}")
    if not isinstance(body, bytes):
        raise _damage(path, expected, f"the group is no blob but {type(body).__name__}")
    try:
        yield from split(body, first_offset)
    except RecordError as error:
        raise StorageError(f"{path}: {error}. {_advice(path, error.offset)}") from error


def _damage(path: Path, offset: int | None, what: str) -> StorageError:
    where = f"{path}: " if offset is None else f"{path}: offset {offset}: "
    return StorageError(f"{where}{what}. {_advice(path, offset)}")


_COMMAND = "python -m stdb recover"


def _advice(path: Path, offset: int | None) -> str:
    to = "OFFSET" if offset is None else str(offset)
    return f"`{_COMMAND} {path.stem} --to {to}` keeps what is good before that offset and puts the old file aside"


class Recovered(NamedTuple):
    """What `recover` did."""

    kept: int
    """How many transactions the new log holds."""
    aside: Path
    """Where the old file is now."""
    damage: str | None
    """What ended the good prefix; None when `to_offset` did, or the end."""


def recover(path: str | os.PathLike[str], to_offset: int | None = None) -> Recovered:
    """Keep the longest good prefix of a log that nobody has open, up to an offset (itself not kept).

    The old file stays beside the new one as `NAME.damaged-1` (or the next free number). May be cut off at any moment
    and run again.

    Raises:
        StorageError: The file cannot be read or written at all.
    """
    path = Path(path)
    copy = path.with_name(path.name + _UNFINISHED)
    if not path.exists():
        if not copy.exists():
            raise StorageError(f"{path} does not exist")
        return _finish(path, copy, _aside(path, existing=True), None)
    for suffix in ("", "-wal", "-shm"):
        copy.with_name(copy.name + suffix).unlink(missing_ok=True)
    wal = path.with_name(path.name + "-wal")
    unmoved = wal.read_bytes() if wal.exists() else b""  # SQLite moves or drops it once the file was read
    damage = _copy(path, copy, to_offset)
    aside = _aside(path)
    os.rename(path, aside)
    done = _finish(path, copy, aside, damage)
    if unmoved:
        aside.with_name(aside.name + "-wal").write_bytes(unmoved)
    return done


def _copy(path: Path, copy: Path, to_offset: int | None) -> str | None:
    """Write the good prefix into a new log; return what ended it."""
    log = SqliteLog(copy)
    damage = None
    try:
        for record in _read(path, 0, None):
            if record.offset == to_offset:
                break
            log.append_nowait([join(record)])
    except StorageError as error:
        damage = str(error).partition(f". `{_COMMAND} ")[0]
    finally:
        log.close()
    return damage


def _finish(path: Path, copy: Path, aside: Path, damage: str | None) -> Recovered:
    """Move what belongs to the old file aside, then the copy into its place. A stale WAL must never meet a new file."""
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.rename(path.with_name(path.name + suffix), aside.with_name(aside.name + suffix))
    _sync_directory(path.parent)
    os.rename(copy, path)
    _sync_directory(path.parent)
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
