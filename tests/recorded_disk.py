"""A disk that is written down: every write and sync of a database's files, so that a power failure can be replayed.

`RecordedDisk` is a VFS of SQLite (through apsw) below the writer of a log. At any moment of what it wrote down,
`after_power_failure` returns what might be on the disk: what was synced, and of the rest any part, torn at sectors.
It can also fail: from some operation on, a full disk or one that answers with errors.
"""

import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import apsw
import pytest

__all__ = ["Durable", "RecordedDisk"]

SECTOR = 512
_names = count()


class Write(NamedTuple):
    """Bytes at an offset of a file; None: the file was cut there."""

    file: str
    offset: int
    data: bytes | None


class Sync(NamedTuple):
    """Everything written to the file before is on the disk."""

    file: str


class Durable(NamedTuple):
    """The log's owner was told that so many transactions are durable."""

    transactions: int


Fault = Literal["full", "write error", "sync error"]


class RecordedDisk(apsw.VFS):
    """A disk below one log. Its own operations are `journal`, from `begin` on."""

    def __init__(self) -> None:
        self._name = f"recorded {next(_names)}"
        super().__init__(self._name, "")
        self.journal: list[Write | Sync | Durable] = []
        self.base: dict[str, bytes] = {}
        """Files as they were at `begin`."""
        self.fault: Fault | None = None
        self.operations_left = 0
        """Operations that succeed before the fault; it stays."""

    def xOpen(self, name: Any, flags: list[int]) -> "_File":  # noqa: N802 - SQLite's name
        """Open a file."""
        return _File(self, name, flags)

    @contextmanager
    def below_logs(self) -> Iterator[None]:
        """Put it below the writers of logs that are opened meanwhile."""

        def connect(path: Path, **_options: Any) -> _Connection:
            return _Connection(apsw.Connection(str(path), vfs=self._name))

        with pytest.MonkeyPatch.context() as patch:
            names = {name: getattr(sqlite3, name) for name in ("Error", "DatabaseError", "Connection")}
            patch.setattr("stdb.storage.log_file.sqlite3", SimpleNamespace(connect=connect, **names))
            yield

    def begin(self, path: Path) -> None:
        """Record from now on; what the files hold is on the disk."""
        for each in (path, path.with_name(f"{path.name}-wal")):
            self.base[each.name] = each.read_bytes() if each.exists() else b""
        self.journal.clear()

    def after_power_failure(self, moment: int, chosen: random.Random, *, lies: bool = False) -> dict[str, bytes]:
        """Return what may be in the files when the power fails at a moment of the journal; `lies`: syncs do nothing."""
        happened = self.journal[:moment]
        safe: dict[str, int] = {}
        for number, each in enumerate(happened):
            if isinstance(each, Sync) and not lies:
                safe[each.file] = number
        files = {name: bytearray(content) for name, content in self.base.items()}
        keeps = chosen.random()
        for number, each in enumerate(happened):
            if isinstance(each, Write):
                is_safe = number < safe.get(each.file, -1)
                if is_safe or chosen.random() < keeps:
                    _write(files[each.file], each, None if is_safe else chosen)
        return {name: bytes(content) for name, content in files.items()}

    def note(self, durable: int) -> None:
        """Write down what a log's owner was told."""
        self.journal.append(Durable(durable))

    def check(self, kind: Literal["write", "sync"]) -> None:
        """Raise what a broken disk answers."""
        if self.fault is None or (self.fault == "sync error") != (kind == "sync"):
            return
        self.operations_left -= 1
        if self.operations_left >= 0:
            return
        if self.fault == "full":
            raise apsw.FullError("database or disk is full")
        error = apsw.IOError("disk I/O error")
        error.extendedresult = apsw.SQLITE_IOERR_WRITE if kind == "write" else apsw.SQLITE_IOERR_FSYNC  # type: ignore[attr-defined]
        raise error


def _write(content: bytearray, write: Write, torn: random.Random | None) -> None:
    if write.data is None:
        del content[write.offset :]
        return
    data, offset = write.data, write.offset
    content.extend(bytes(max(0, offset + len(data) - len(content))))
    for start in range(0, len(data), SECTOR):
        if torn is None or torn.random() < 0.9:
            content[offset + start : offset + start + SECTOR] = data[start : start + SECTOR]


class _File(apsw.VFSFile):
    def __init__(self, disk: RecordedDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._file = Path(name.filename() if isinstance(name, apsw.URIFilename) else name or "").name
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._disk.check("write")
        super().xWrite(data, offset)
        self._disk.journal.append(Write(self._file, offset, bytes(data)))

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._disk.check("write")
        super().xTruncate(size)
        self._disk.journal.append(Write(self._file, size, None))

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.check("sync")
        self._disk.journal.append(Sync(self._file))


class _Connection:
    """What a log's writer uses of `sqlite3.Connection`, over apsw."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @property
    def in_transaction(self) -> bool:
        return bool(self._connection.in_transaction)

    @property
    def total_changes(self) -> int:
        return int(self._connection.total_changes())

    def execute(self, statement: str, values: Sequence[object] = ()) -> "_Cursor":
        return _Cursor(self._connection, statement, values)

    def executescript(self, script: str) -> None:
        _Cursor(self._connection, script, ())

    def close(self) -> None:
        with _errors():
            self._connection.close()


class _Cursor:
    def __init__(self, connection: Any, statement: str, values: Sequence[object]) -> None:
        with _errors():
            self._rows: list[tuple[Any, ...]] = list(connection.execute(statement, tuple(values)))

    def fetchone(self) -> tuple[Any, ...] | None:
        return self._rows.pop(0) if self._rows else None

    def fetchall(self) -> list[tuple[Any, ...]]:
        rows, self._rows = self._rows, []
        return rows

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.fetchall())


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        raise sqlite3.OperationalError(str(error).partition(": ")[2] or str(error)) from error
