"""Files of databases as a stop or a crash leaves them, what is right about them, and ways to damage them.

An `Image` is a database's file and its `-wal` at one moment of a life that remembers every state it was in. What a
recovery may make of it, once damaged: exactly the state that was, or a refusal that names the file; see `judge`.
"""

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from struct import unpack_from
from tempfile import TemporaryDirectory

import pytest

from stdb.datastore.datastore import Datastore
from stdb.datastore.recovery import recover
from stdb.errors import StorageError
from stdb.storage.log import SqliteLog
from stdb.storage.log_writer import LogWriter
from stdb.storage.retention import Retention
from tests.merging_life import TABLES, Life

__all__ = ["Image", "images", "judge", "last_transaction"]

PAGE = 4096
_SMALL = {
    "IDLE_SECONDS": 0.002,
    "RETENTION_SECONDS": 0.0,
    "WINDOW_TRANSACTIONS": 8,
    "CHECKPOINT_BYTES": 8000,
}
_NAMES = [*(table.name for table in TABLES), "later", "CREATE", "DROP", "WIDEN"]


@dataclass(frozen=True)
class Image:
    """What is on the disk, and which state it is."""

    name: str
    file: bytes
    wal: bytes
    life: Life
    end: int
    """How many transactions it holds."""
    first: int
    """The first record it keeps."""
    is_mixed: bool

    def __repr__(self) -> str:
        """Write its name: a failing test shows what it was given, and files are long."""
        return f"<Image {self.name}>"


def images() -> list[Image]:
    """Return images of a stopped database and of crashed ones: merged, half merged, with all records and with few."""
    made = []
    for keeps in (True, False):
        stopped, crashed = _live(keeps)
        made.append(stopped)
        crashed = [image for image in crashed if image.wal and (keeps or image.first)]
        mixed = [image for image in crashed if image.is_mixed]
        level = [image for image in crashed if not image.is_mixed]
        made += [mixed[len(mixed) // 2], mixed[-1], level[-1]]
    assert any(image.first and image.is_mixed for image in made)
    assert any(not image.first and image.is_mixed for image in made)
    return made


def _live(keeps: bool) -> tuple[Image, list[Image]]:
    """Let a database live; return how it stopped, and how it would have crashed at any moment."""
    life, chosen = Life(), random.Random(7)
    crashed: list[tuple[bytes, bytes, int, int, bool]] = []
    commit = LogWriter._commit

    def noted(self: LogWriter) -> None:
        commit(self)
        wal = path.with_name("a.sqlite-wal")
        with closing(sqlite3.connect(path)) as connection:
            names = dict(connection.execute("SELECT name, value FROM metadata"))
            (end,) = connection.execute("SELECT coalesce(max(first_offset + count), 0) FROM log").fetchone()
        end = max(end, names["rows_offset"])
        crashed.append((path.read_bytes(), wal.read_bytes(), end, names["log_first"], "merging_to" in names))

    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        path = Path(directory) / "a.sqlite"
        for name, value in _SMALL.items():
            patch.setattr(f"stdb.storage.log_writer.{name}", value)
        patch.setattr("stdb.storage.merging.STEP_CHANGES_MAX", 6)
        patch.setattr("stdb.storage.merging.STEP_CHANGES_MIN", 2)
        patch.setattr(LogWriter, "_commit", noted)
        log = SqliteLog(path, retention=lambda: Retention() if keeps else Retention(size=700))
        record, delta = life.create()
        log.append_nowait([record], [delta])
        for number in range(60):
            operations = [(chosen.choice(_NAMES), chosen.randrange(6), chosen.randrange(6)) for _ in range(6)]
            for record, delta in life.step(operations):
                log.append_nowait([record], [delta])
                while log.backlog or (number % 12 == 11 and log.rows_offset < log.durable):
                    time.sleep(0.0005)
        log.close()
        stopped = Image(f"stopped, keeps={keeps}", path.read_bytes(), b"", life, log.durable, log.first, False)
    return stopped, [
        Image(f"crashed {number}, keeps={keeps}", file, wal, life, end, first, is_mixed)
        for number, (file, wal, end, first, is_mixed) in enumerate(crashed)
    ]


def judge(image: Image, file: bytes, wal: bytes, *, least: int, change: Callable[[Path], None] | None = None) -> str:
    """Recover a damaged image. Return the refusal; "" when it is a state that was, of `least` transactions or more.

    `change` may do more to the file before it is opened.
    """
    with TemporaryDirectory() as directory:
        path = Path(directory) / "a.sqlite"
        path.write_bytes(file)
        if wal:
            path.with_name("a.sqlite-wal").write_bytes(wal)
        if change is not None:
            change(path)
        recovered = _recover(path)
    if isinstance(recovered, str):
        assert "a.sqlite" in recovered, recovered
        return recovered
    assert least <= recovered.next_offset <= image.end
    image.life.check(recovered)
    return ""


def _recover(path: Path) -> Datastore | str:
    try:
        with closing(SqliteLog(path)) as log:
            recovered = recover(log)
            return recovered if recovered.next_offset else str(log.refusal(0, "the launcher finds no program"))
    except StorageError as error:
        return str(error)


def last_transaction(wal: bytes) -> int:
    """Return where the last whole transaction of a `-wal` file begins."""
    starts = [32]
    for at in _frames(wal):
        if unpack_from(">I", wal, at + 4)[0]:
            starts.append(at + 24 + PAGE)
    return starts[-2] if len(starts) > 1 else 32


def _frames(wal: bytes) -> Iterator[int]:
    salts = wal[16:24]
    for at in range(32, len(wal) - 24 - PAGE + 1, 24 + PAGE):
        if wal[at + 8 : at + 16] != salts:
            return
        yield at
