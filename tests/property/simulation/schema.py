"""The operator: publishes that must fail and leave no trace, updates, indexes that come and go, a reset.

Responsible for: what changes programs and schemas, and the checks of I11, I15 and I23.
Not responsible for: what clients do meanwhile (`script`).
"""

from random import Random
from typing import TYPE_CHECKING

from stdb.actors.host import Host
from stdb.actors.refusals import DatabaseUnavailable, PublishFailed, Unconfirmed, UpdateRejected
from stdb.datastore.datastore import Datastore
from stdb.errors import UniqueViolation
from stdb.schema.model import IndexAlgorithm, IndexDef, UniqueDef
from tests.property.simulation.probes import state_of
from tests.property.simulation.world import OWNER

if TYPE_CHECKING:
    from tests.property.simulation.life import Life
    from tests.property.simulation.simulation import Simulation

__all__ = ["operate", "reset"]

CATALOGUE = ("st_table", "st_column", "st_index", "st_constraint", "st_module", "st_row_level_security", "st_scheduled")
_IDS = ("st_table", "st_index", "st_constraint", "st_sequence")


async def operate(life: "Life", host: Host, random: Random) -> None:
    """Do one thing that an operator may do."""
    simulation = life.simulation
    action = random.choice((_publish_badly, _update_badly, _add_table, _try_indexes, _try_indexes))
    simulation.trace(f"the operator: {action.__name__.strip('_')}")
    try:
        await action(simulation, host, random)
    except (DatabaseUnavailable, Unconfirmed):
        simulation.trace("the operator: the database does not run")


async def _publish_badly(simulation: "Simulation", host: Host, random: Random) -> None:
    databases, disks = host.control.databases(), set(simulation.storage.disks)
    program = random.choice((b"broken", b"bad init", b"unknown"))
    try:
        await host.publish(OWNER, program, name="another")
    except PublishFailed:
        pass
    else:
        simulation.checks.holds("I23", False, f"{program!r} was published")
    simulation.checks.equal("I23", host.control.databases(), databases, "databases after a failed publish")
    simulation.checks.equal("I23", set(simulation.storage.disks), disks, "logs after a failed publish")
    simulation.checks.equal("I23", host.control.resolve("another"), None, "the name of a failed publish")


async def _update_badly(simulation: "Simulation", host: Host, random: Random) -> None:
    datastore = simulation.datastore
    before = {name: state_of(datastore)[name] for name in CATALOGUE}
    program = random.choice((b"broken", b"incompatible"))
    try:
        await host.publish(OWNER, program, identity=simulation.identity)
    except (PublishFailed, UpdateRejected):
        pass
    else:
        simulation.checks.holds("I23", False, f"{program!r} was published")
    after = {name: state_of(datastore)[name] for name in CATALOGUE}
    simulation.checks.holds("I23", after == before, "program or schema differ after a failed update")


async def _add_table(simulation: "Simulation", host: Host, _random: Random) -> None:
    before = _ids(simulation.datastore)
    simulation.extra_tables += 1
    await host.publish(OWNER, b"world+%d" % simulation.extra_tables, identity=simulation.identity)
    for name, ids in _ids(simulation.datastore).items():
        ever = simulation.ids_ever.setdefault(name, set()) | before[name]
        new = ids - before[name]
        simulation.checks.holds("I15", bool(new) or name == "st_sequence", f"{name} got no rows")
        simulation.checks.holds("I15", not new & simulation.ids_ever[name], f"{name}: {new & ever} were used before")
        simulation.ids_ever[name] |= ids


def _ids(datastore: Datastore) -> dict[str, set[int]]:
    tables = {name: datastore.table(name) for name in _IDS}
    return {name: {table.schema.codec.decode_exact(row)[0] for row in table.rows()} for name, table in tables.items()}


async def _try_indexes(simulation: "Simulation", _host: Host, random: Random) -> None:
    """Make and drop an index and a constraint within one transaction, which is rolled back."""
    actor = simulation.probes.actor
    if actor is None or actor._suspended is not None:
        return
    datastore, checks = actor.datastore, simulation.checks
    shape = random.choice([*simulation.world.drawn, simulation.world.shapes["journal"]])
    transaction = datastore.begin(0)
    try:
        rows = frozenset(datastore.table(shape.name).rows())
        column = random.randrange(len(shape.columns))
        if datastore.table(shape.name).index_on((column,)) is None:
            index = IndexDef("tried_index", "tried_index", IndexAlgorithm.BTREE, (column,))
            table = datastore.catalog.create_index(datastore.table(shape.name), index)
            checks.equal("I11", frozenset(table.rows()), rows, f"{shape.name} with one more index")
        has_duplicates = len({shape.key((column,), row) for row in rows}) < len(rows)
        if (column,) not in shape.uniques:
            try:
                datastore.catalog.create_unique(datastore.table(shape.name), UniqueDef("tried_unique", (column,)))
                is_refused = False
            except UniqueViolation:
                is_refused = True
            checks.equal("I11", is_refused, has_duplicates, f"a unique constraint over {shape.name}.{column} refused")
            checks.equal("I11", frozenset(datastore.table(shape.name).rows()), rows, f"{shape.name} with a constraint")
    finally:
        transaction.rollback()
    checks.equal("I11", frozenset(datastore.table(shape.name).rows()), rows, f"{shape.name} without the index")


async def reset(simulation: "Simulation", host: Host) -> None:
    """Clear the database; what is left is what `init` makes."""
    before = state_of(simulation.datastore)
    simulation.is_resetting = True
    simulation.probes.generated.clear()
    await host.reset(OWNER, simulation.identity, b"world")
    await host.database(simulation.identity).ready()
    state = state_of(simulation.datastore)
    simulation.checks.equal("I23", len(state["journal"]), 0, "rows after a reset")
    simulation.checks.holds("I23", state["st_table"] <= before["st_table"], "tables after a reset")
