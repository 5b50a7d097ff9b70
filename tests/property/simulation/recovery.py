"""Recovery held to what was promised: a prefix with all that was durable, the same twice, nothing from damage.

Responsible for: what must be true of a database right after a launch, before anything runs in it.
Not responsible for: what becomes of it then (`probes`).
"""

from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING

from stdb.actors.database import DatabaseActor
from stdb.datastore import recovery
from stdb.datastore.datastore import Datastore
from stdb.datastore.log import MemoryLog, NoSnapshots, SnapshotStore
from stdb.datastore.records import Record, split
from stdb.errors import StorageError
from tests.property.simulation.probes import History, state_of

if TYPE_CHECKING:
    from tests.property.simulation.simulation import Simulation

__all__ = ["check_first_launch", "check_recovered"]


class _Copy(MemoryLog):
    """Records as they lie on a disk, perhaps damaged."""

    def __init__(self, records: list[bytes]) -> None:
        super().__init__()
        self._records = records
        self._durable = len(records)

    def records(self, from_offset: int = 0) -> Iterator[Record]:
        for offset in range(from_offset, len(self._records)):
            yield from split(self._records[offset], offset)

    def snapshots(self) -> SnapshotStore:
        return NoSnapshots()


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
    checks.equal("I17", count, len(disk.records), "recovered transactions, and records")
    for name, rows in before.at(count).items():
        checks.equal("I16", state.get(name), rows, f"{name} after recovery")
    if is_clean:
        checks.equal("I19", count, len(before.states) - 1, "transactions after a clean end")
    again = recovery.recover(_Copy(list(disk.records)))
    checks.holds("I19", state_of(again) == state, "recovering twice differs")
    checks.equal("I17", again.next_offset, count, "transactions when recovered again")
    _check_ephemeral(simulation, actor)
    _check_damage(simulation, disk.records, state)
    for seen in simulation.seen_confirmed:
        checks.holds("I29", seen <= count, f"a confirmed client saw {seen}, {count} are left")
    datastore.verify()
    return before.kept(count)


def _check_ephemeral(simulation: "Simulation", actor: DatabaseActor) -> None:
    checks, datastore = simulation.checks, actor.datastore
    checks.equal("I20", len(datastore.table("flash")), 0, "events after recovery")
    checks.equal("I20", len(list(datastore.views.instances())) if datastore.views else 0, 0, "rows of views")
    checks.equal("I20", len(datastore.table("st_module")), 1, "the program")
    checks.equal("I20", len(datastore.table("st_row_level_security")), len(simulation.world.rules), "rules")
    checks.equal("I20", len(datastore.table("st_scheduled")), 1, "schedules")


def _check_damage(simulation: "Simulation", records: list[bytes], state: dict[str, frozenset[bytes]]) -> None:
    """Check that what is damaged is refused, or does not matter."""
    random = simulation.random
    for _ in range(3):
        damaged = _damaged(random, list(records))
        try:
            found = state_of(recovery.recover(_Copy(damaged)))
        except StorageError as error:
            simulation.checks.holds("I16", "offset" in str(error), f"a refusal names no offset: {error}")
        else:
            is_prefix = len(damaged) < len(records)  # a log in memory does not know that its end is missing
            simulation.checks.holds("I16", is_prefix or found == state, "damage went unnoticed")


def _damaged(random: Random, records: list[bytes]) -> list[bytes]:
    place = random.randrange(len(records))
    record = bytearray(records[place])
    match random.randrange(5):
        case 0:
            record[random.randrange(len(record))] ^= 1 << random.randrange(8)
        case 1:
            start = random.randrange(len(record))
            record[start : start + 64] = bytes(len(record[start : start + 64]))
        case 2:
            del record[random.randrange(len(record)) :]
        case 3:
            return [*records[: place + 1], *records[place:]]
        case _:
            other = random.randrange(len(records))
            record = bytearray(records[other])
    records[place] = bytes(record)
    return records
