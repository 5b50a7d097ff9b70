"""The disk: the real log of every database in a real file, written when the simulation says so, torn by crashes.

Responsible for: `SimulatedStorage`, a `stdb.actors.host.Storage`; `SteppedLog`, an SqliteLog without a thread; `Disk`,
    what of one database outlives a process.
Not responsible for: what must be there afterwards (`recovery`).

The writer of a log is a thread that waits on a queue. Here its turns are taken by a task of the simulation, so that
groups, steps of merging, truncation and checkpoints happen in an order that follows from the seed, and a crash may come
between any two of them. A crash leaves the files as they are, but for the end of SQLite's log, which is torn where a
group was being written. The files lie in memory where the machine has such a directory.
"""

import shutil
import sqlite3
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty
from random import Random
from types import SimpleNamespace
from typing import Any, TypeVar, TypeVarTuple, Unpack

import trio

from stdb.datastore.delta import Delta
from stdb.storage import log as log_owner
from stdb.storage import log_writer
from stdb.storage.control import Control
from stdb.storage.history import FileHistory
from stdb.storage.log import SqliteLog
from stdb.storage.module_log import ModuleLog
from stdb.storage.retention import KEEP_ALL, Retention
from stdb.testing.hosts import virtual_now_us
from tests.property.simulation.invariants import Checks

__all__ = ["FULL", "Disk", "SimulatedStorage", "SteppedLog", "stepped"]

Result = TypeVar("Result")
Args = TypeVarTuple("Args")

FULL = "database or disk is full"
_MEMORY = Path("/dev/shm")
_SUFFIXES = ("", "-wal")


class _Thread:
    """Takes the place of the writer's thread, and never runs."""

    def __init__(self, **_options: object) -> None: ...

    def start(self) -> None:
        """Do nothing: the simulation takes the turns."""

    def is_alive(self) -> bool:
        """Say that nobody has to be waited for."""
        return False


class _Queue(deque[Any]):
    """Takes the place of the writer's queue: whoever finds it empty does not wait."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random
        self.put = self.append

    def get(self, timeout: float | None = None) -> Any:
        """Return the oldest entry."""
        if not self:
            raise Empty
        return self.popleft()

    def get_nowait(self) -> Any:
        """Do the same; now and then what follows has not come yet."""
        if self._random.random() < 0.4:
            raise Empty
        return self.get()

    def empty(self) -> bool:
        """Tell whether nothing waits."""
        return not self


@contextmanager
def stepped() -> Iterator[None]:
    """Have logs without threads and real time within the block."""
    writer: Any = log_writer
    before = writer.threading, writer.monotonic, writer.time_ns, writer.WINDOW_TRANSACTIONS
    writer.threading = SimpleNamespace(Thread=_Thread)
    writer.monotonic, writer.time_ns = trio.current_time, lambda: virtual_now_us() * 1000
    writer.WINDOW_TRANSACTIONS = 20
    owner: Any = log_owner
    held_min, owner.HELD_RECORDS_MIN = owner.HELD_RECORDS_MIN, 1
    try:
        yield
    finally:
        owner.HELD_RECORDS_MIN = held_min
        writer.threading, writer.monotonic, writer.time_ns, writer.WINDOW_TRANSACTIONS = before


class SteppedLog(SqliteLog):
    """A log whose writer does something only when told to. The directory's random decides what it finds."""

    def __init__(
        self,
        path: Path,
        random: Random,
        on_durable: Callable[[int], None] = lambda _durable: None,
        retention: Retention = KEEP_ALL,
        appended: Callable[[int, bytes], None] = lambda _offset, _record: None,
    ) -> None:
        super().__init__(path, on_durable, retention=lambda: retention)
        self.is_dead = False
        """The process was killed, or the log is closed: what is still done to it reaches nothing."""
        self._writer._queue = _Queue(random)  # type: ignore[assignment]
        self._told = appended
        self._last_durable = self._writer.durable

    @property
    def durable(self) -> int:
        """How many transactions are safe."""
        return self._last_durable if self.is_dead else super().durable

    @property
    def written(self) -> int:
        """The same, whether or not the writer failed."""
        return self._writer.durable

    def append_nowait(self, records: Sequence[bytes], deltas: Sequence[Delta] = (), *, more: bool = False) -> None:
        """Append records."""
        if not self.is_dead:
            for number, record in enumerate(records):
                self._told(self._appended + number, record)
            super().append_nowait(records, deltas, more=more)

    def step(self) -> None:
        """Have the writer do what comes next."""
        if self.is_dead or self._writer.failure is not None:
            return
        try:
            self._writer._turn()
        except sqlite3.Error as error:
            self._writer._fail(error)

    def fail(self) -> None:
        """Have the disk full."""
        if not self.is_dead:
            self._writer._fail(sqlite3.OperationalError(FULL))

    def close(self) -> None:
        """Write everything and close; what a full disk does not take is lost."""
        if self.is_dead:
            return
        self._hand_over()
        while self._writer._queue and self._writer.failure is None:
            self.step()
        if self._writer.failure is None:
            self._writer._finish()
        self.abandon()
        if not self._is_failure_told:
            self._raise_failure()

    def abandon(self) -> None:
        """Let go of the file as it is."""
        self._last_durable = self._writer.durable
        self.is_dead = True
        with suppress(sqlite3.Error):
            self._writer._connection.close()


class Disk:
    """The file of one database, and what was ever appended to it."""

    def __init__(self, path: Path, random: Random) -> None:
        self.path = path
        self.records: list[bytes] = []
        """What was appended and not lost, by offset: those too that the log no longer keeps."""
        self.log: SteppedLog | None = None
        """Of whoever has it open, or had it last."""
        self._random = random

    @property
    def synced(self) -> int:
        """How many transactions are safe."""
        return 0 if self.log is None else self.log.written

    def appended(self, offset: int, record: bytes) -> None:
        """Take in a record."""
        assert len(self.records) == offset
        self.records.append(record)

    def copy(self, path: Path) -> None:
        """Copy the file as it is now."""
        for suffix in _SUFFIXES:
            source = self.path.with_name(self.path.name + suffix)
            if source.exists():
                shutil.copyfile(source, path.with_name(path.name + suffix))

    def crash(self) -> None:
        """Kill the process that has it open, perhaps while it writes a group: then some of its frames are there."""
        log, self.log = self.log, None
        if log is None or log.is_dead:
            return
        wal = self.path.with_name(self.path.name + "-wal")
        size = wal.stat().st_size if wal.exists() else 0
        moved = log._writer._unmoved_bytes
        if self._random.random() < 0.6:
            log._writer._tell_owner = lambda _durable: None
            log.step()
        left = self.path.with_name("left.sqlite")
        self.copy(left)
        log.abandon()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        for suffix in _SUFFIXES:
            if (source := left.with_name(left.name + suffix)).exists():
                source.rename(self.path.with_name(self.path.name + suffix))
        if wal.exists() and wal.stat().st_size > size and log._writer._unmoved_bytes > moved:
            with wal.open("r+b") as file:
                file.truncate(self._random.choice((wal.stat().st_size, self._random.randint(size, wal.stat().st_size))))


class SimulatedStorage:
    """A data directory that outlives the hosts that use it."""

    def __init__(self, random: Random, checks: Checks, now_us: Callable[[], int]) -> None:
        self.control = Control()
        self.disks: dict[bytes, Disk] = {}
        self.appended: Callable[[int, bytes], None] = lambda _offset, _record: None
        """Told of every record."""
        self._directory = tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None)
        self._random = random
        self._retention = random.choice((KEEP_ALL, Retention(size=2_000), Retention(size=20_000)))
        self._checks = checks
        self._now_us = now_us
        self._module_logs: dict[bytes, ModuleLog] = {}

    @property
    def directory(self) -> Path:
        """Where files may lie."""
        return Path(self._directory.name)

    # ------------------------------------------------------------------ for the host
    def open_log(self, identity: bytes, on_durable: Callable[[int], None]) -> SteppedLog:
        """Open or make the log of a database."""
        disk = self.disks.get(identity)
        if disk is None:
            disk = self.disks[identity] = Disk(self.database_path(identity), self._random)
        self._checks.holds("I17", disk.log is None or disk.log.is_dead, "a log is opened twice")

        def appended(offset: int, record: bytes) -> None:
            self.appended(offset, record)
            disk.appended(offset, record)

        disk.log = SteppedLog(disk.path, self._random, on_durable, self._retention, appended)
        del disk.records[disk.log.written :]
        return disk.log

    def open_history(self, identity: bytes) -> FileHistory:
        """Open what the file of a database has stored."""
        return FileHistory(self.database_path(identity))

    def database_path(self, identity: bytes) -> Path:
        """Return where the file of a database is, or would be."""
        return self.directory / f"{identity[::-1].hex()}.sqlite"

    async def run(self, function: Callable[[Unpack[Args]], Result], *args: *Args) -> Result:
        """Call a function that waits for the disk."""
        await trio.sleep(self._random.random() * 0.01)
        return function(*args)

    def module_log(self, identity: bytes) -> ModuleLog:
        """Return the module log of a database."""
        return self._module_logs.setdefault(identity, ModuleLog(None, self._now_us))

    def delete_database(self, identity: bytes) -> None:
        """Remove the file of a database."""
        disk = self.disks.pop(identity, None)
        if disk is not None:
            self._checks.holds("I23", disk.log is None or disk.log.is_dead, "a log is deleted while it is open")
            for suffix in ("", "-wal", "-shm"):
                disk.path.with_name(disk.path.name + suffix).unlink(missing_ok=True)

    # ------------------------------------------------------------------ for the simulation
    async def write_now_and_then(self) -> None:
        """Have writers take turns, until cancelled: mostly soon, sometimes late."""
        while True:
            await trio.sleep(0.0005 + self._random.random() ** 6 * 0.1)
            for disk in self.disks.values():
                for _ in range(self._random.choice((1, 1, 2, 5))):
                    if disk.log is not None:
                        disk.log.step()

    def durable(self, identity: bytes) -> int:
        """Return how many transactions of a database are safe."""
        disk = self.disks.get(identity)
        return 0 if disk is None else disk.synced

    def fill(self) -> None:
        """Have every disk full, and let who writes know."""
        for disk in self.disks.values():
            if disk.log is not None:
                disk.log.fail()

    def crash(self) -> None:
        """Kill the process that uses this storage."""
        for disk in self.disks.values():
            disk.crash()

    def close(self) -> None:
        """Let go of everything."""
        for disk in self.disks.values():
            if disk.log is not None and not disk.log.is_dead:
                disk.log.abandon()
        self.control.close()
        self._directory.cleanup()
