"""One simulation: everything that happens for one seed, life after life of one server, until the last is checked.

Responsible for: `simulate`, `Simulation` (what outlives a crash), promises to clients, I7.
Not responsible for: one life (`life`), what each part does, see the package.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from random import Random
from typing import Any, NamedTuple, cast

import trio
import trio.testing

from stdb.actors.database import DatabaseActor
from stdb.actors.host import Host
from stdb.datastore.datastore import Datastore
from stdb.datastore.records import decode_changes, decode_context, split
from stdb.errors import ReducerError, SchemaError
from stdb.modules.protocol import Module
from stdb.net.tokens import ServerKey, Tokens
from stdb.sats.types import STRING, U64
from stdb.schema.model import Lifecycle, TableDef
from stdb.testing.hosts import virtual_now_us
from stdb.testing.modules import Context, FunctionModule, Reader, reducer, table, view
from tests.property.simulation.determinism import PlainKey, deterministic
from tests.property.simulation.invariants import Checks
from tests.property.simulation.life import Life
from tests.property.simulation.operations import REDUCERS, Call, Writer
from tests.property.simulation.pausing import PausingModule, run_whole
from tests.property.simulation.probes import Probes
from tests.property.simulation.recovery import check_first_launch, check_recovered
from tests.property.simulation.storage import SimulatedStorage, stepped
from tests.property.simulation.world import ALARM, NAMES, OWNER, PEOPLE, World

__all__ = ["Outcome", "Simulation", "simulate"]

STEPS = 14
VIRTUAL_SECONDS_MAX = 1_000.0
_WORK = {"plan": U64, "tag": U64}
_LIFECYCLES = {"init": Lifecycle.INIT, "connected": Lifecycle.ON_CONNECT, "disconnected": Lifecycle.ON_DISCONNECT}


class Outcome(NamedTuple):
    """What became of a seed."""

    trace: list[str]
    """What happened, in order."""
    counts: Counter[str]
    """How often each invariant was checked."""
    error: BaseException | None

    @property
    def digest(self) -> str:
        """Return a digest of the trace: equal for equal runs."""
        return sha256("\n".join(self.trace).encode()).hexdigest()


def simulate(seed: int, *, steps: int = STEPS) -> Outcome:
    """Play one seed to its end, or to what is broken."""
    with deterministic(seed, pauses=Random(f"pauses {seed}").choice((0.0, 0.01, 0.2))), stepped():
        simulation = Simulation(seed, steps)
        error: BaseException | None = None
        with simulation.probes.installed(), _listening(simulation.complaints):
            try:
                trio.run(simulation.run, clock=trio.testing.MockClock(autojump_threshold=0))
            except Exception as raised:  # noqa: BLE001 - whatever ended it is the outcome
                error = raised
        simulation.storage.close()
    return Outcome(simulation.lines, simulation.checks.counts, simulation.checks.broken or error)


class _Complaints(logging.Handler):
    """Takes what the server complains about for a failure: in a simulation nothing may be wrong with it."""

    def __init__(self, checks: Checks) -> None:
        super().__init__(logging.ERROR)
        self._checks = checks
        self.expected = ""
        """What the server may rightly complain about now."""

    def emit(self, record: logging.LogRecord) -> None:
        """Take in a complaint."""
        if self.expected and self.expected in record.getMessage():
            return
        error = AssertionError(f"the server says: {record.getMessage()}")
        error.__cause__ = record.exc_info[1] if record.exc_info else None
        self._checks.failed(error)


@contextmanager
def _listening(complaints: _Complaints) -> Iterator[None]:
    """Take complaints of the server for failures within the block."""
    logger = logging.getLogger("stdb")
    logger.addHandler(complaints)
    try:
        yield
    finally:
        logger.removeHandler(complaints)


class Simulation:
    """What outlives the server's lives: the disk, the model, what clients were promised."""

    def __init__(self, seed: int, steps: int) -> None:
        self.seed = seed
        self.random = Random(f"simulation {seed}")
        self.world = World(Random(f"world {seed}"))
        self.checks = Checks()
        self.probes = Probes(self.world, self.checks, is_tight=self.random.random() < 0.2)
        self.complaints = _Complaints(self.checks)
        self.storage = SimulatedStorage(Random(f"disk {seed}"), self.checks, virtual_now_us)
        self.storage.appended = self._appended
        self.lines: list[str] = []
        self.identity = b""
        self.durable_before = 0
        """What was safe when the last life ended."""
        self.seen_confirmed: list[int] = []
        """The newest transaction that each confirmed client saw."""
        self.extra_tables = 0
        self.ids_ever: dict[str, set[int]] = {}
        self.is_resetting = False
        self.tags = 0
        self.can_pause = Random(f"module {seed}").random() < 0.4
        """Transactions of the module may come back half-way."""
        self.connections = 0
        self._steps = steps
        self._is_clean = False
        self._must_stay: set[int] = set()
        self._must_not: set[int] = set()
        self.tokens = Tokens(cast(ServerKey, PlainKey()), now_s=lambda: virtual_now_us() / 1e6)
        self._names: dict[int, str] = {}

    # ------------------------------------------------------------------ what others ask
    @property
    def datastore(self) -> Datastore:
        """The tables of the running database."""
        assert self.probes.actor is not None
        return self.probes.actor.datastore

    def trace(self, line: str) -> None:
        """Write down what happened."""
        self.lines.append(f"{trio.current_time():.6f} {line}")

    def durable(self) -> int:
        """Return how many transactions are safe now."""
        return self.storage.durable(self.identity)

    def token(self, identity: bytes) -> str:
        """Return the token of somebody known."""
        name = NAMES[[OWNER, *PEOPLE].index(identity)]
        return PlainKey().sign(f'{{"iss":"localhost","sub":"{name}","iat":1,"exp":null}}')

    def acknowledged(self, tag: int, is_committed: bool, needs: int, confirmed: bool) -> None:
        """Take in that a client was told how its call ended."""
        if not is_committed:
            self._must_not.add(tag)
        elif confirmed:
            self._must_stay.add(tag)
        if confirmed and needs:
            self.seen_confirmed.append(needs)

    async def publish_first(self, host: Host) -> None:
        """Make the database."""
        self.identity = (await host.publish(OWNER, b"world", name="simulated")).identity

    def crashed(self) -> None:
        """Kill the process: what it still does in this turn of the event loop reaches nobody."""
        self.durable_before = self.durable()
        self.storage.crash()

    # ------------------------------------------------------------------ the lives
    async def run(self) -> None:
        """Live all lives."""
        with trio.CancelScope() as scope:
            self.checks.stop = scope.cancel
            with trio.fail_after(VIRTUAL_SECONDS_MAX):
                self.probes.launched = self._launched
                lives = self.random.randint(1, 3)
                for number in range(lives):
                    is_clean = self.random.random() < 0.3
                    await Life(self, number).live(self._steps, crashes=not is_clean)
                    self._ended(is_clean)
                await Life(self, lives).live(self._steps, crashes=False, is_last=True)
                self._ended(True)
                self._check_replay()

    def _launched(self, actor: DatabaseActor) -> None:
        before = self.probes.history
        self.trace(f"launched at {actor.datastore.next_offset}")
        if not before.states or self.is_resetting:
            self.probes.generated.clear()
            self._must_stay.clear()
            self._must_not.clear()
            self.probes.history = check_first_launch(self, actor)
            self.is_resetting = False
        else:
            self.probes.history = check_recovered(self, actor, before, is_clean=self._is_clean)
            self.probes.generated.forget(actor.datastore.next_offset)
        self._is_clean = False  # until this life ends so
        self._names = {table_id: each.schema.name for table_id, each in actor.datastore.tables.items()}
        self.probes.newcomers = set()
        self._check_promises(actor.datastore)

    def _ended(self, is_clean: bool) -> None:
        self._is_clean = is_clean
        if is_clean:
            self.durable_before = self.durable()
        self.probes.actor = None

    def _check_promises(self, datastore: Datastore) -> None:
        """Check that every acknowledged call is there once, and no refused one is."""
        shape = self.world.shapes["journal"]
        found = Counter(shape.decode(row)[2] for row in datastore.table("journal").rows())
        twice = [tag for tag, count in found.items() if count > 1]
        self.checks.holds("I17", not twice, f"calls {twice} are there twice")
        self.checks.holds("I29", found.keys() >= self._must_stay, "an acknowledged call is lost")
        self.checks.holds("I6", not self._must_not & found.keys(), "a refused call left something")

    def _appended(self, offset: int, record: bytes) -> None:
        """Check a record that goes to the disk against what was committed."""
        if not self.probes.history.states or self.probes.actor is None:
            return
        (stored,) = split(record, offset)
        states = self.probes.history.states
        self.checks.holds("I17", offset + 1 < len(states), f"a record of offset {offset}, which was never committed")
        tables = self.datastore.tables
        for table_id, deletes, inserts in decode_changes(stored):
            if table_id not in tables or tables[table_id].is_event:
                continue
            name = tables[table_id].schema.name
            before, after = states[offset].get(name, frozenset()), states[offset + 1].get(name, frozenset())
            self.checks.holds("I3", set(inserts) == after - before, f"record {offset} has other inserts in {name}")
            self.checks.holds("I3", set(deletes) == before - after, f"record {offset} has other deletes in {name}")

    def _check_replay(self) -> None:
        """Run every committed call of what survived once more, on the model alone, in order (I7)."""
        history, disk = self.probes.history, self.storage.disks[self.identity]
        names = self.world.shapes
        state = {name: set(history.at(1)[name]) for name in names}
        for offset, data in enumerate(disk.records[1:], 1):
            (record,) = split(data, offset)
            context = decode_context(record)
            run = REDUCERS.get(context.reducer_name)
            if run is None:
                for table_id, deletes, inserts in decode_changes(record):
                    name = self._names.get(table_id, "")
                    if name in state:
                        state[name] = (state[name] - set(deletes)) | set(inserts)
            else:
                connection = int.from_bytes(context.caller_connection_id or b"", "little")
                call = Call(context.caller, connection, context.timestamp_us)
                given = iter(self.probes.given.get(offset, ()))
                writer = Writer(self.world, self.checks, call, state, given)
                run_whole(run(writer, *self._arguments(context.reducer_name, context.args)))
            state["flash"].clear()
            for name in names:
                self.checks.holds(
                    "I7", state[name] == history.at(offset + 1)[name], f"{name} after {offset}, run again"
                )

    def _arguments(self, name: str, args: bytes) -> list[Any]:
        if name == "ring":
            return [self.world.shapes["alarm"].decode(args)]
        return [int.from_bytes(args[:8], "little"), int.from_bytes(args[8:], "little")] if args else []

    # ------------------------------------------------------------------ the module
    def load(self, program: bytes) -> Module:
        """Return the module of a program."""
        if program == b"bad init":
            return self._module("bad init", init_error="init refuses")
        if program == b"incompatible":
            other = table("journal", {"id": STRING, "who": STRING}, primary_key="id")
            return self._module("incompatible", replaced={"journal": other})
        if program == b"world" or program.startswith(b"world+"):
            return self._module(program.decode(), extra=int(program[6:] or b"0"))
        raise SchemaError([f"there is no program {program!r}"])

    def _module(
        self, version: str, *, extra: int = 0, init_error: str = "", replaced: dict[str, TableDef] | None = None
    ) -> FunctionModule:
        tables = [(replaced or {}).get(each.name, each) for each in self.world.tables]
        tables += [table(f"extra{number}", {"id": U64}, primary_key="id") for number in range(extra)]
        parameters: dict[str, Any] = {"ring": {"alarm": ALARM.row_type}, "work": _WORK, "note": _WORK, "idle": _WORK}
        reducers = {
            name: reducer(self._entry(name, init_error), parameters.get(name), lifecycle=_LIFECYCLES.get(name))
            for name in REDUCERS
        }
        mine = view(lambda reader: _own(reader), of="journal")
        kind = PausingModule if self.can_pause else FunctionModule
        return kind(tables, reducers, version=version, rules=self.world.rules, views={"mine": mine})

    def _entry(self, name: str, init_error: str) -> Callable[..., Any]:
        def begin(context: Context, *arguments: Any) -> Iterator[None]:
            call, datastore = context.call, context._datastore
            connection = int.from_bytes(call.connection_id or b"", "little")
            about = Call(call.sender, connection, call.timestamp_us)
            if name == "init" and init_error:
                raise ReducerError(init_error)
            if name == "connected":
                self.probes.check_newcomer(about, datastore)
            writer = self.probes.open_writer(about, call.transaction, datastore)
            return REDUCERS[name](writer, *arguments)

        return begin if self.can_pause else lambda *arguments: run_whole(begin(*arguments))


def _own(reader: Reader) -> list[tuple[Any, ...]]:
    return [row for row in reader.rows("journal") if row[1] == reader.sender]
