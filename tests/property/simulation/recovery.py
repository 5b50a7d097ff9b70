"""Recovery held to what was promised: a prefix with all that was durable, the same twice, nothing from damage.

Responsible for: what must be true of a database right after a launch, before anything runs in it.
Not responsible for: what becomes of it then (`probes`).
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from stdb.actors.database import DatabaseActor
from stdb.datastore import recovery
from stdb.datastore.datastore import Datastore
from stdb.datastore.records import join
from stdb.errors import StorageError
from tests.property.simulation.probes import History, state_of
from tests.property.simulation.storage import Disk, SteppedLog

if TYPE_CHECKING:
    from tests.property.simulation.simulation import Simulation

__all__ = ["check_first_launch", "check_recovered"]

_ROWS_EMPTY = """
DELETE FROM rows; DELETE FROM tables; DELETE FROM metadata WHERE name = 'merging_to';
UPDATE metadata SET value = 0 WHERE name = 'rows_offset';
"""


class _Recovered(NamedTuple):
    state: dict[str, frozenset[bytes]]
    next_offset: int
    first: int


def check_first_launch(simulation: "Simulation", actor: DatabaseActor) -> History:
    """Check a database that was just made, or reset; return its history (I23)."""
    checks, datastore = simulation.checks, actor.datastore
    checks.equal("I23", datastore.next_offset, 1, "transactions of a new database")
    state = state_of(datastore)
    for name in ("journal", "presence", "alarm", "rung", "st_client"):
        checks.equal("I23", len(state[name]), 0, f"rows of {name} in a new database")
    return History([state_of(Datastore()), state], {})


def check_recovered(simulation: "Simulation", actor: DatabaseActor, before: History, *, is_clean: bool) -> History:
    """Check a database that was recovered from its log; return the part of its history that survived."""
    checks, datastore = simulation.checks, actor.datastore
    count, state = datastore.next_offset, state_of(datastore)
    disk = simulation.storage.disks[simulation.identity]
    checks.holds("I16", count >= simulation.durable_before, f"{count} left of {simulation.durable_before} durable")
    checks.holds("I16", count < len(before.states), f"{count} recovered, {len(before.states) - 1} were committed")
    _check_records(simulation, disk, count)
    for name, rows in before.at(count).items():
        checks.holds("I16", state.get(name) == rows, lambda name=name: f"{name} after recovery of {count}")
    if is_clean:
        checks.equal("I19", count, len(before.states) - 1, "transactions after a clean end")
    _check_ephemeral(simulation, actor)
    for seen in simulation.seen_confirmed:
        checks.holds("I29", seen <= count, f"a confirmed client saw {seen}, {count} are left")
    datastore.verify()
    _check_copies(simulation, disk, before, count)
    return before.kept(count)


def _check_records(simulation: "Simulation", disk: Disk, count: int) -> None:
    assert disk.log is not None
    checks, first = simulation.checks, disk.log.first
    checks.equal("I17", count, len(disk.records), "recovered transactions, and records")
    kept = [join(record) for record in disk.log.records()]
    checks.holds("I17", kept == disk.records[first:], "the records are not what was appended")


def _check_ephemeral(simulation: "Simulation", actor: DatabaseActor) -> None:
    checks, datastore = simulation.checks, actor.datastore
    checks.equal("I20", len(datastore.table("flash")), 0, "events after recovery")
    checks.equal("I20", len(list(datastore.views.instances())) if datastore.views else 0, 0, "rows of views")
    checks.equal("I20", len(datastore.table("st_module")), 1, "the program")
    checks.equal("I20", len(datastore.table("st_row_level_security")), len(simulation.world.rules), "rules")
    checks.equal("I20", len(datastore.table("st_scheduled")), 1, "schedules")


# ---------------------------------------------------------------------- copies of the file, whole and damaged
def _check_copies(simulation: "Simulation", disk: Disk, before: History, count: int) -> None:
    checks, random, state = simulation.checks, simulation.random, before.at(count)
    again = _recover(simulation, disk, lambda _path: None)
    checks.holds("I19", (again.state, again.next_offset) == (state, count), "recovering twice differs")
    if again.first == 0:
        bare = _recover(simulation, disk, lambda path: _run(path, _ROWS_EMPTY))
        checks.holds("I18", bare.state == state, "the log alone gives another state than rows and log")
    for damage in random.sample((_flip, _flip, _zero, _damage_row, _lose_row), 2):
        try:
            found = _recover(simulation, disk, partial(damage, random))
        except StorageError as error:
            checks.holds("I16", "copy.sqlite" in str(error), f"a refusal names no file: {error}")
        else:
            invariant = "I18" if damage in (_damage_row, _lose_row) else "I16"
            is_torn = damage in (_flip, _zero) and found.next_offset == _last_group(disk)
            expected = before.at(found.next_offset) if is_torn else state
            checks.holds(invariant, found.state == expected, f"{damage.__name__} went unnoticed")


def _last_group(disk: Disk) -> int:
    """Return where the last group begins: damage to it, while it is in SQLite's log, looks like a torn write."""
    assert disk.log is not None
    (offset,) = disk.log._writer._connection.execute("SELECT max(first_offset) FROM log").fetchone()
    return int(offset or 0)


def _recover(simulation: "Simulation", disk: Disk, change: Callable[[Path], None]) -> _Recovered:
    """Recover from a copy of the file that something is done to first."""
    path = simulation.storage.directory / "copy.sqlite"
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    disk.copy(path)
    change(path)
    log = SteppedLog(path, Random(0))
    try:
        datastore = recovery.recover(log)
        return _Recovered(state_of(datastore), datastore.next_offset, log.first)
    finally:
        log.abandon()


def _run(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(f"BEGIN IMMEDIATE;{script}COMMIT;")


def _flip(random: Random, path: Path) -> None:
    """Flip a bit of the file or of SQLite's log."""
    path = _some_file(random, path)
    data = bytearray(path.read_bytes())
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    path.write_bytes(data)


def _zero(random: Random, path: Path) -> None:
    """Fill a sector with zeros."""
    path = _some_file(random, path)
    data = bytearray(path.read_bytes())
    start = random.randrange(len(data)) // 512 * 512
    data[start : start + 512] = bytes(len(data[start : start + 512]))
    path.write_bytes(data)


def _some_file(random: Random, path: Path) -> Path:
    wal = path.with_name(path.name + "-wal")
    return wal if wal.exists() and wal.stat().st_size and random.random() < 0.5 else path


def _damage_row(random: Random, path: Path) -> None:
    """Change a stored row as if SQLite had been told to."""
    _run(path, f"UPDATE rows SET row = zeroblob(length(row)) WHERE row IS NOT NULL AND {_some_row(random)};")


def _lose_row(random: Random, path: Path) -> None:
    """Lose a stored row."""
    _run(path, f"DELETE FROM rows WHERE {_some_row(random)};")


def _some_row(random: Random) -> str:
    place = f"(SELECT {random.randrange(1000)} % max(count(*), 1) FROM rows)"
    return f"(table_id, key) IN (SELECT table_id, key FROM rows LIMIT 1 OFFSET {place})"
