"""Probes: what the simulation sees inside the server, and the checks that belong to every transaction.

Responsible for: the state after every transaction, transactions held to I1 to I8 and I21, evaluation held to its plain
    twin, what every client was told beside what arrives.
Not responsible for: what reducers do (`operations`), what clients make of it (`client`), launches (`recovery`).

The probes wrap a few methods of the server for the time of a run; they change nothing that it does.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from stdb.actors.database import DatabaseActor
from stdb.datastore.datastore import Datastore
from stdb.datastore.delta import Delta
from stdb.datastore.transaction import Transaction
from stdb.net.protocols import registry
from stdb.net.protocols.legacy.events import Legacy
from stdb.subscriptions import plain
from stdb.subscriptions.fragment import ClientUpdate
from stdb.subscriptions.plain import Rows, evaluate_plainly, rows_now
from stdb.subscriptions.registry import Evaluation, Registry
from tests.property.simulation.invariants import Checks
from tests.property.simulation.model import Query, State
from tests.property.simulation.operations import Call, Generated, Writer
from tests.property.simulation.world import OWNER, World

__all__ = ["History", "Probes", "Tap", "Told", "state_of"]


def state_of(datastore: Datastore) -> dict[str, frozenset[bytes]]:
    """Return all rows, by the name of their table."""
    return {table.schema.name: frozenset(table.rows()) for table in datastore.tables.values()}


WAITING_MESSAGES_TIGHT = 12


class History:
    """What the database was after each transaction of one life, those of earlier lives that survived included."""

    def __init__(self, states: list[State], flashes: dict[int, list[bytes]]) -> None:
        self.states = states
        """By the number of transactions; that of 0 is never seen."""
        self.flashes = flashes
        """Rows of the event table by the number of transactions after theirs."""
        self._memo: dict[tuple[str, int, bytes], Counter[bytes]] = {}

    def at(self, count: int) -> State:
        """Return the rows after so many transactions."""
        return self.states[count]

    def evaluate(self, query: Query, count: int, identity: bytes) -> Counter[bytes]:
        """Return what a query is worth after so many transactions."""
        key = query.text, count, identity
        if key not in self._memo:
            self._memo[key] = query.evaluate(self.states[count], identity, OWNER)
        return self._memo[key]

    def kept(self, count: int) -> "History":
        """Return the first so many transactions."""
        flashes = {number: rows for number, rows in self.flashes.items() if number <= count}
        return History(self.states[: count + 1], flashes)


class Told(NamedTuple):
    """A message as the database told it."""

    kind: str
    """The method of the sink."""
    needs: int
    """How many transactions it reflects; 0: none."""


class Tap:
    """What one connection was told, in order."""

    def __init__(self, confirmed: bool, history: History) -> None:
        self.confirmed = confirmed
        self.history = history
        """What the messages are about; a database that was stopped and launched again has another."""
        self.told: list[Told] = []
        self.is_telling = False
        self.appended = 0
        """How many messages a client of 0.11 or older was given, but for large ones."""

    def counting(self, append: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return `append`, counted."""

        def counted(entry: Any) -> None:
            self.appended += 1
            append(entry)

        return counted


class _Watch:
    """One datastore as it was after its last transaction."""

    def __init__(self, datastore: Datastore) -> None:
        self.state = state_of(datastore)
        self.next_offset = datastore.next_offset
        self.rows: Rows = {}
        self.writer: Writer | None = None


_NEEDS: dict[str, Callable[..., int]] = {
    "initial_connection": lambda *_: 0,
    "reducer_result": lambda _call, outcome, event, _update: 0 if outcome.kind else event.needs,
    "procedure_error": lambda *_: 0,
    "procedure_out_of_time": lambda *_: 0,
    "procedure_result": lambda _call, _result, needs: needs,
    "subscribe_applied": lambda _request, _rows, needs, _duration: needs,
    "subscribe_batch_applied": lambda _request, _results, needs: needs,
    "unsubscribe_applied": lambda _request, _rows, needs, _duration: needs,
    "subscription_error": lambda *_: 0,
    "one_off_result": lambda _request, _result, needs, _duration: needs,
    "one_off_results": lambda _request, _results, needs, _duration: needs,
    "update": lambda event, _update: event.needs,
    "update_at_once": lambda event, _update, _durable: event.needs,
}
"""What each message to a client reflects, as the database says it."""


class Probes:
    """All probes of one run."""

    def __init__(self, world: World, checks: Checks, is_tight: bool) -> None:
        self.world = world
        self.is_tight = is_tight
        """Clients are cut when little waits for them already."""
        self.checks = checks
        self.generated = Generated(checks)
        self.given: dict[int, list[int]] = {}
        """What sequences gave to the transaction of each offset."""
        self.taps: dict[bytes, Tap] = {}
        """The newest connection of each connection id."""
        self.actor: DatabaseActor | None = None
        """The database of the current life."""
        self.history = History([], {})
        self.launched: Callable[[DatabaseActor], None] = lambda _actor: None
        """Called when a database was recovered, before anything runs in it."""
        self.newcomers: set[tuple[bytes, int]] = set()
        """Who connected in this life."""
        self._watches: WeakKeyDictionary[Datastore, _Watch] = WeakKeyDictionary()

    # ------------------------------------------------------------------ reducers
    def open_writer(self, call: Call, transaction: Transaction, datastore: Datastore) -> Writer:
        """Return what a reducer of this transaction writes with."""
        watch = self._watch(datastore)
        names = self.world.shapes
        state = {name: set(rows) for name, rows in state_of(datastore).items() if name in names}
        self.checks.equal("I1", state, {name: set(watch.state.get(name, ())) for name in names}, "at the start")
        offset = datastore.next_offset
        watch.writer = writer = Writer(
            self.world,
            self.checks,
            call,
            state,
            note=lambda table, value: self.generated.note(table, value, offset),
            real=(transaction, datastore),
        )
        return writer

    def check_newcomer(self, call: Call, datastore: Datastore) -> None:
        """Check that nobody of an earlier life is still connected when somebody comes (I21)."""
        self.newcomers.add((call.sender, call.connection))
        found = {(row[:32], int.from_bytes(row[32:], "little")) for row in datastore.table("st_client").rows()}
        self.checks.holds("I21", found <= self.newcomers, "somebody of the last life is still connected")

    # ------------------------------------------------------------------ transactions
    def _watch(self, datastore: Datastore) -> _Watch:
        watch = self._watches.get(datastore)
        if watch is None:
            watch = self._watches[datastore] = _Watch(datastore)
        return watch

    def began(self, datastore: Datastore) -> None:
        """Check that nothing changed since the last transaction."""
        watch = self._watch(datastore)
        if self._is_live(datastore):
            watch.rows = rows_now(datastore)
        self.checks.holds("I1", state_of(datastore) == watch.state, "rows changed outside a transaction")

    def rolled_back(self, datastore: Datastore) -> None:
        """Check that all is as before."""
        watch, after = self._watch(datastore), state_of(datastore)
        self.checks.holds("I2", after == watch.state, lambda: f"left behind: {_changed(watch.state, after)}")
        self.checks.equal("I2", datastore.next_offset, watch.next_offset, "the offset after a rollback")
        self._verify("I2", datastore)
        if watch.writer is not None:
            self.checks.holds("I6", after == watch.state, "a failed reducer left something")
        watch.writer = None

    def committed(self, datastore: Datastore, delta: Delta | None) -> None:
        """Check what a transaction says it did, and keep the state behind it."""
        watch, after = self._watch(datastore), state_of(datastore)
        before, writer = watch.state, watch.writer
        watch.state, watch.writer = after, None
        self._check_delta(before, after, delta)
        self.checks.equal("I4", datastore.next_offset, watch.next_offset + (delta is not None), "the next offset")
        if delta is not None:
            self.checks.equal("I4", delta.offset, watch.next_offset, "the offset of a delta")
        watch.next_offset = datastore.next_offset
        self._check_rows(before, after, delta, writer)
        if self._is_live(datastore) and delta is not None:
            assert len(self.history.states) == delta.offset + 1
            self.history.states.append(after)
            self.history.flashes[delta.offset + 1] = _inserts(delta, "flash")
            if writer is not None:
                self.given[delta.offset] = writer.given

    def _check_delta(self, before: State, after: State, delta: Delta | None) -> None:
        told = {} if delta is None else {each.table.schema.name: each for each in delta.tables}
        self.checks.holds("I3", delta is None or bool(told), "an empty delta is none")
        for name in before.keys() | after.keys():
            old, new = before.get(name, frozenset()), after.get(name, frozenset())
            each = told.get(name)
            inserts, deletes = (Counter(each.inserts), Counter(each.deletes)) if each else (Counter(), Counter())
            if each is not None and each.table.is_event:
                self.checks.holds("I20", not new, f"rows of the event table {name} stay")
                continue
            self.checks.equal("I3", (inserts, deletes), (Counter(new - old), Counter(old - new)), f"delta of {name}")

    def _check_rows(self, before: State, after: State, delta: Delta | None, writer: Writer | None) -> None:
        for name, shape in self.world.shapes.items():
            if name not in after:
                continue
            self.checks.holds("I8", shape.is_consistent(after[name]), f"{name} holds a key twice")
            if writer is None:
                is_same = name == "alarm" or name not in before or after[name] == before[name]
                self.checks.holds("I6", is_same, f"{name} was changed by no reducer")
            elif shape.is_event:
                told = set() if delta is None else set(_inserts(delta, name))
                self.checks.equal("I1", told, writer.state[name], "events of a transaction")
            else:
                self.checks.equal("I1", set(after[name]), writer.state[name], f"{name} after a reducer")
        if writer is not None and all(writer.state[name] == set(before.get(name, ())) for name in self.world.shapes):
            is_quiet = delta is None or all(each.table.schema.is_system for each in delta.tables)
            self.checks.holds("I10", is_quiet, "what came back as it was is in the delta")
        if "presence" in after:
            self._check_presence(after)

    def _check_presence(self, after: State) -> None:
        """Check that the rows of st_client are those who came and did not go (I21)."""
        balance: Counter[tuple[bytes, int]] = Counter()
        for row in sorted(map(self.world.shapes["presence"].decode, after["presence"])):
            _, who, connection, kind = row
            balance[who, connection] += -1 if kind else 1
            wanted = (0, 1) if connection % 5 != 4 else range(1000)  # whose disconnect always fails leaves no trace
            self.checks.holds("I21", balance[who, connection] in wanted, f"connection {connection} came or went twice")
        here = {(row[:32], int.from_bytes(row[32:], "little")) for row in after["st_client"]}
        came = {client for client, count in balance.items() if count and client[1] % 5 != 4}
        steady = {client for client in here if client[1] % 5 != 4}
        self.checks.equal("I21", steady, came, "who is connected, and who came and did not go")

    def _is_live(self, datastore: Datastore) -> bool:
        return self.actor is not None and self.actor.datastore is datastore

    def _verify(self, invariant: str, datastore: Datastore) -> None:
        try:
            datastore.verify()
        except AssertionError as error:
            self.checks.holds(invariant, False, f"a table is not in order: {error}")

    # ------------------------------------------------------------------ subscriptions
    def evaluated(self, delta: Delta, caller: Any, evaluation: Evaluation) -> None:
        """Hold an evaluation to its plain twin."""
        actor = self.actor
        if actor is None or actor.datastore.next_offset != delta.offset + 1:
            return
        watch = self._watch(actor.datastore)
        subscribers = [each.subscriber for each in actor.connections._clients.values() if each.subscriber is not None]
        twin = evaluate_plainly(watch.rows, delta, actor.datastore, subscribers, caller)
        self.checks.equal("I28", _shown(evaluation.caller), _shown(twin.caller), "what the caller is told")
        told = {each.connection_id: _shown(update) for each, update in evaluation.others}
        expected = {each.connection_id: _shown(update) for each, update in twin.others}
        self.checks.equal("I28", told, expected, "what the others are told")
        self.checks.holds("I27", len(told) == len(evaluation.others), "somebody is told twice")

    # ------------------------------------------------------------------ messages
    def attached(self, client: Any, sink: Any) -> None:
        """Note from now on what a client is told."""
        tap = self.taps[client.connection_id] = Tap(sink.confirmed, self.history)
        if isinstance(sink, Legacy):
            sink._append = tap.counting(sink._append)
        for name, needs_of in _NEEDS.items():
            if hasattr(sink, name):
                setattr(sink, name, self._tapped(tap, sink, getattr(sink, name), name, needs_of))

    def _tapped(
        self, tap: Tap, sink: Any, tell: Callable[..., Any], name: str, needs_of: Callable[..., int]
    ) -> Callable[..., Any]:
        def is_counting() -> bool:
            return isinstance(sink, Legacy) and sink._counts is not None

        def told(*arguments: Any) -> Any:
            if tap.is_telling:  # one method by another
                return tell(*arguments)
            needs = needs_of(*arguments)
            if name.startswith("update"):
                self.checks.equal("I2", needs, len(self.history.states) - 1, "an update is of the last commit")
            tap.told.append(Told(name, needs))
            tap.is_telling, before = True, tap.appended
            try:
                return tell(*arguments)
            finally:
                tap.is_telling = False
                if name.startswith("update") and is_counting() and tap.appended == before:
                    tap.told.pop()  # for a set of rows nothing has changed

        return told

    # ------------------------------------------------------------------ in place
    @contextmanager
    def installed(self) -> Iterator[None]:
        """Watch within the block."""
        undo: list[tuple[type, str, Any]] = []

        def wrap(owner: type, name: str, make: Callable[[Any], Any]) -> None:
            original = owner.__dict__[name]
            undo.append((owner, name, original))
            setattr(owner, name, make(original))

        wrap(Datastore, "begin", self._wrap_begin)
        wrap(Transaction, "_ended", self._wrap_commit)
        wrap(Transaction, "rollback", self._wrap_rollback)
        wrap(Registry, "evaluate", self._wrap_evaluate)
        wrap(DatabaseActor, "__init__", self._wrap_init)
        wrap(DatabaseActor, "attach", self._wrap_attach)
        keys_of = plain._keys_of
        known: dict[tuple[int, bytes], list[Any]] = {}
        plain._keys_of = lambda table, row: (
            known.get((table.schema.id, row)) or known.setdefault((table.schema.id, row), keys_of(table, row))
        )
        dialects = dict(registry._DIALECTS)
        edge: Any = registry
        outbox = edge.Outbox
        if self.is_tight:
            edge.Outbox = partial(outbox, messages_max=WAITING_MESSAGES_TIGHT)
        registry._DIALECTS.update({name: type(each.__name__, (each,), {}) for name, each in dialects.items()})
        try:
            yield
        finally:
            registry._DIALECTS.update(dialects)
            plain._keys_of = keys_of
            edge.Outbox = outbox
            for owner, name, original in reversed(undo):
                setattr(owner, name, original)

    def _wrap_begin(self, original: Any) -> Any:
        def begin(datastore: Datastore, timestamp_us: int) -> Transaction:
            self.began(datastore)
            transaction: Transaction = original(datastore, timestamp_us)
            return transaction

        return begin

    def _wrap_commit(self, original: Any) -> Any:
        def ended(transaction: Transaction, *changes: Any) -> Delta | None:
            delta: Delta | None = original(transaction, *changes)
            self.committed(transaction._datastore, delta)
            return delta

        return ended

    def _wrap_rollback(self, original: Any) -> Any:
        def rollback(transaction: Transaction) -> None:
            original(transaction)
            self.rolled_back(transaction._datastore)

        return rollback

    def _wrap_evaluate(self, original: Any) -> Any:
        def evaluate(held: Registry, delta: Delta, caller: Any = None) -> Evaluation:
            evaluation: Evaluation = original(held, delta, caller)
            self.evaluated(delta, caller, evaluation)
            return evaluation

        return evaluate

    def _wrap_init(self, original: Any) -> Any:
        def init(actor: DatabaseActor, **options: Any) -> None:
            original(actor, **options)
            self.actor = actor
            self.launched(actor)

        return init

    def _wrap_attach(self, original: Any) -> Any:
        def attach(actor: DatabaseActor, client: Any, sink: Any, *more: Any) -> Any:
            self.attached(client, sink)
            return original(actor, client, sink, *more)

        return attach


def _inserts(delta: Delta, name: str) -> list[bytes]:
    return [row for each in delta.tables if each.table.schema.name == name for row in each.inserts]


def _changed(before: State, after: State) -> dict[str, Any]:
    return {
        name: (
            after.get(name, frozenset()) - before.get(name, frozenset()),
            before.get(name, frozenset()) - after[name],
        )
        for name in before.keys() & after.keys()
        if before[name] != after[name]
    }


def _shown(update: ClientUpdate | None) -> list[Any] | None:
    """Return an update without its sharing: what the messages would hold."""
    if update is None:
        return None
    return [
        (
            each.query_set_id,
            [(f.table_name, Counter(f.inserts), Counter(f.deletes), f.is_event) for f in each.fragments],
        )
        for each in update.sets
    ]
