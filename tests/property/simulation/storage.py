"""The disk: logs that keep what was synced, when the disk feels like it, and lose the rest at a crash.

Responsible for: `SimulatedStorage`, a `stdb.actors.host.Storage`; `Disk`, what of one log outlives a process.
Not responsible for: what must be there afterwards (`recovery`).
"""

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import TypeVar, TypeVarTuple, Unpack

import trio

from stdb.datastore.log import NoSnapshots, SnapshotStore
from stdb.datastore.records import Record, split
from stdb.errors import StorageError
from stdb.storage.control import Control
from stdb.storage.module_log import ModuleLog
from tests.property.simulation.invariants import Checks

__all__ = ["Disk", "SimulatedLog", "SimulatedStorage"]

Result = TypeVar("Result")
Args = TypeVarTuple("Args")


class Disk:
    """The records of one database, of which the first `synced` are safe."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.synced = 0
        self.is_full = False
        """Nothing more is written; what was is safe."""
        self.log: SimulatedLog | None = None
        """Who has it open."""

    def sync(self, count: int) -> None:
        """Make some more records safe and say so."""
        end = min(self.synced + count, len(self.records))
        if end > self.synced and not self.is_full:
            self.synced = end
            if self.log is not None:
                self.log.tell(end)

    def crash(self, surviving: int) -> None:
        """Lose what is not safe but for a few records that happened to be written; whoever had it open is dead."""
        del self.records[self.synced + surviving :]
        self.synced = len(self.records)
        self.is_full = False
        if self.log is not None:
            self.log.is_dead = True
            self.log = None


class SimulatedLog:
    """A log that one process has open: a `stdb.datastore.log.Log`."""

    def __init__(self, disk: Disk, on_durable: Callable[[int], None], appended: Callable[[int, bytes], None]) -> None:
        self.is_dead = False
        """The process was killed; what it still does reaches nothing."""
        self._disk = disk
        self._on_durable = on_durable
        self._appended = appended

    @property
    def durable(self) -> int:
        """How many transactions are safe."""
        if self._disk.is_full and not self.is_dead:
            raise StorageError("database or disk is full")
        return self._disk.synced

    @property
    def backlog(self) -> int:
        """How many are not safe yet."""
        return len(self._disk.records) - self._disk.synced

    @property
    def first(self) -> int:
        """The first offset that is kept."""
        return 0

    def append_nowait(self, records: Sequence[bytes], *_deltas: object) -> None:
        """Append records."""
        if self.is_dead:
            return
        if self._disk.is_full:
            raise StorageError("database or disk is full")
        for record in records:
            self._appended(len(self._disk.records), record)
            self._disk.records.append(record)

    def records(self, from_offset: int = 0) -> Iterator[Record]:
        """Yield the safe records from an offset on."""
        for offset in range(from_offset, self._disk.synced):
            yield from split(self._disk.records[offset], offset)

    def snapshots(self) -> SnapshotStore:
        """Return a store without snapshots."""
        return NoSnapshots()

    def close(self) -> None:
        """Make everything safe and let go."""
        if not self.is_dead:
            self._disk.sync(len(self._disk.records))
            self._disk.log = None
            self.is_dead = True

    def tell(self, durable: int) -> None:
        """Tell the owner what is safe."""
        self._on_durable(durable)


class SimulatedStorage:
    """A data directory in memory that outlives the hosts that use it."""

    def __init__(self, random: Random, checks: Checks, now_us: Callable[[], int]) -> None:
        self.control = Control()
        self.disks: dict[bytes, Disk] = {}
        self.appended: Callable[[int, bytes], None] = lambda _offset, _record: None
        """Told of every record."""
        self._random = random
        self._checks = checks
        self._now_us = now_us
        self._module_logs: dict[bytes, ModuleLog] = {}

    # ------------------------------------------------------------------ for the host
    def open_log(self, identity: bytes, on_durable: Callable[[int], None]) -> SimulatedLog:
        """Open or make the log of a database."""
        disk = self.disks.setdefault(identity, Disk())
        self._checks.holds("I17", disk.log is None, "a log is opened twice")
        disk.log = SimulatedLog(disk, on_durable, self.appended)
        return disk.log

    async def run(self, function: Callable[[Unpack[Args]], Result], *args: *Args) -> Result:
        """Call a function that waits for the disk."""
        await trio.sleep(self._random.random() * 0.01)
        return function(*args)

    def module_log(self, identity: bytes) -> ModuleLog:
        """Return the module log of a database."""
        return self._module_logs.setdefault(identity, ModuleLog(None, self._now_us))

    def delete_database(self, identity: bytes) -> None:
        """Remove the log of a database."""
        disk = self.disks.pop(identity, None)
        self._checks.holds("I23", disk is None or disk.log is None, "a log is deleted while it is open")

    # ------------------------------------------------------------------ for the simulation
    async def sync_now_and_then(self) -> None:
        """Sync, until cancelled: mostly soon, sometimes late, rarely everything at once."""
        while True:
            await trio.sleep(0.0005 + self._random.random() ** 6 * 0.1)
            for disk in self.disks.values():
                disk.sync(self._random.choice((1, 2, 5, 1000)))

    def durable(self, identity: bytes) -> int:
        """Return how many transactions of a database are safe."""
        disk = self.disks.get(identity)
        return 0 if disk is None else disk.synced

    def crash(self) -> None:
        """Kill the process that uses this storage."""
        for disk in self.disks.values():
            disk.crash(self._random.choice((0, 0, 0, 1, 2, 1000)))

    def close(self) -> None:
        """Let go of the control store."""
        self.control.close()
