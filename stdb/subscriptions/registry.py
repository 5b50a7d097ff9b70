"""The registry: every distinct query that somebody holds, and who sees what of a transaction.

Responsible for: one compiled plan per distinct query, reference-counted; finding the plans a changed row can touch
(pruning); evaluating a delta once per query and sharing the result among all who see the same.
Not responsible for: what one client holds and is told (`actor`), compiling SQL (`stdb.sql`), wire formats.

Source: spec 06 sections 5.2 to 5.4, DESIGN decision 7. The plain twin of `evaluate` is `plain.evaluate_plainly`; a
property test keeps the two equal.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from stdb.errors import QueryError
from stdb.sql import Caller, TablePlan, compile_one_off, compile_subscription, row_limit
from stdb.subscriptions.fragment import ClientUpdate, Fragment, SetUpdate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stdb.datastore.datastore import Datastore
    from stdb.datastore.delta import Delta, TableDelta
    from stdb.subscriptions.actor import SubscriptionActor

__all__ = ["COUNTED", "INITIAL_BYTES_MAX", "LEGACY", "Evaluation", "HeldQuery", "Registry"]

INITIAL_BYTES_MAX = 256 << 20
"""Default bound of the rows in one initial answer (DESIGN decision 8)."""

LEGACY = -2
"""Label of queries held by a v1 connection's legacy set."""
COUNTED = -1
"""Label of queries held by v1 Single and Multi subscriptions, counted per connection and distinct query."""


class HeldQuery:
    """One distinct query: its plan and its holders, grouped by label (a query set id, LEGACY or COUNTED)."""

    __slots__ = ("groups", "holders", "key", "plan", "repeats", "serial", "text")

    def __init__(self, text: str, key: "_QueryKey", plan: TablePlan, serial: int) -> None:
        self.text = text
        self.key = key
        self.plan = plan
        self.serial = serial
        """Age of the query: counts compiled queries; fragments of one table are told in this order."""
        self.groups: dict[int, dict[SubscriptionActor, None]] = {}
        self.holders: dict[SubscriptionActor, int] = {}
        self.repeats = 0
        """How many holders hold it under more than one label."""

    def fragment(self, inserts: list[bytes], deletes: list[bytes]) -> Fragment:
        """Return rows of this query as a fragment."""
        schema = self.plan.table.schema
        return Fragment(schema.id, schema.name, schema, inserts, deletes, schema.definition.is_event)


class Evaluation(NamedTuple):
    """What a transaction means to clients. Clients that see the same share one ClientUpdate."""

    caller: ClientUpdate | None
    """What the given caller sees; None when nothing."""
    others: "list[tuple[SubscriptionActor, ClientUpdate]]"
    """Everyone else who sees something, in no particular order."""


class _QueryKey(NamedTuple):
    """Identity of a query: owners never share with others, nor callers of a query that says `:sender`."""

    text: str
    is_owner: bool
    identity: bytes | None


class Registry:
    """All queries held at one database, shared by its clients. The database actor owns it.

    `owner` is the identity (32 bytes LE) that may read private tables. `initial_bytes_max` bounds one initial answer.
    """

    def __init__(self, datastore: "Datastore", owner: bytes, *, initial_bytes_max: int = INITIAL_BYTES_MAX) -> None:
        self.datastore = datastore
        self.owner = owner
        self.initial_bytes_max = initial_bytes_max
        self._queries: dict[_QueryKey, HeldQuery] = {}
        self._tables: dict[int, _TableQueries] = {}
        self._compiled = 0

    def __len__(self) -> int:
        """Return how many distinct queries are held."""
        return len(self._queries)

    def queries(self) -> "Iterable[HeldQuery]":
        """Return the distinct queries that somebody holds."""
        return self._queries.values()

    # Compiling.

    def find(self, text: str, caller: Caller) -> HeldQuery:
        """Return the query of that text for that caller, shared when somebody holds it already.

        Raises:
            QueryError: The text is no query of the subscription language, or not for this caller.
        """
        trimmed = text.strip()
        for identity in (None, caller.identity):
            held = self._queries.get(_QueryKey(trimmed, caller.is_owner, identity))
            if held is not None:
                return held
        plan = compile_subscription(trimmed, self.datastore, caller)
        self._compiled += 1
        key = _QueryKey(trimmed, caller.is_owner, caller.identity if plan.parameterised else None)
        return HeldQuery(trimmed, key, plan, self._compiled)

    def is_held(self, query: HeldQuery) -> bool:
        """Tell whether somebody holds this query."""
        return self._queries.get(query.key) is query

    def one_off(self, text: str, caller: Caller) -> TablePlan:
        """Return the plan of a one-off query; nothing is kept.

        Raises:
            QueryError: The text is no query of the subscription language, or not for this caller.
        """
        return compile_one_off(text, self.datastore, caller)

    def row_limit(self, caller: Caller) -> int | None:
        """Return the bound on estimated rows for this caller; None when there is none (spec 06 section 7)."""
        return None if caller.is_owner else row_limit(self.datastore)

    # Holding.

    def hold(self, query: HeldQuery, actor: "SubscriptionActor", label: int) -> None:
        """Let a client hold a query under a label that it does not hold it under yet."""
        group = query.groups.setdefault(label, {})
        assert actor not in group
        if not query.holders:
            self._register(query)
        group[actor] = None
        count = query.holders.get(actor, 0) + 1
        query.holders[actor] = count
        query.repeats += count == 2

    def release(self, query: HeldQuery, actor: "SubscriptionActor", label: int) -> None:
        """Undo `hold`; a query nobody holds is forgotten."""
        group = query.groups[label]
        del group[actor]
        if not group:
            del query.groups[label]
        count = query.holders.pop(actor) - 1
        if count:
            query.holders[actor] = count
            query.repeats -= count == 1
        if not query.holders:
            self._unregister(query)

    def recompile(self) -> "set[SubscriptionActor]":
        """Bind every held query to the tables as they are now; call it after a change of schema.

        Returns the clients that hold a query which no longer compiles; that query stays as it was for them until they
        let go of it, and never again sees a change.
        """
        stranded: set[SubscriptionActor] = set()
        held = list(self._queries.values())
        self._tables.clear()
        for query in held:
            identity = next(iter(query.holders)).caller.identity
            try:
                query.plan = compile_subscription(query.text, self.datastore, Caller(identity, query.key.is_owner))
            except QueryError:
                stranded.update(query.holders)
            else:
                self._tables.setdefault(query.plan.table.schema.id, _TableQueries()).add(query)
        return stranded

    def _register(self, query: HeldQuery) -> None:
        assert query.key not in self._queries
        self._queries[query.key] = query
        table_id = query.plan.table.schema.id
        self._tables.setdefault(table_id, _TableQueries()).add(query)

    def _unregister(self, query: HeldQuery) -> None:
        del self._queries[query.key]
        table_id = query.plan.table.schema.id
        queries = self._tables.get(table_id)
        if queries is None or query not in queries:  # `recompile` could not place it
            return
        queries.remove(query)
        if queries.is_empty():
            del self._tables[table_id]

    # Evaluating.

    def evaluate(self, delta: "Delta", caller: "SubscriptionActor | None" = None) -> Evaluation:
        """Return what every client sees of a committed transaction.

        Must be called before the next transaction touches the tables.
        """
        hits: list[_Hit] = []
        tables = self._tables
        for changed in delta.tables:
            queries = tables.get(changed.table.schema.id)
            if queries is not None:
                queries.collect(changed, hits)
        if not hits:
            return _NOTHING
        if len(hits) == 1 and not hits[0].query.repeats:
            return _fan_out(hits[0], caller)
        return _merge(hits, caller)


class _Hit(NamedTuple):
    query: HeldQuery
    fragment: Fragment


_NOTHING = Evaluation(None, [])


class _Instances(NamedTuple):
    """Queries that fix the same columns to constants, by the key of those constants."""

    extract: "Callable[[bytes], Any]"
    by_key: dict[Any, list[HeldQuery]]


class _TableQueries:
    """The held queries of one table: those found by a value of a changed row, and those that are always evaluated."""

    __slots__ = ("_always", "_pruned")

    def __init__(self) -> None:
        self._always: dict[HeldQuery, None] = {}
        self._pruned: dict[tuple[int, ...], _Instances] = {}

    def __contains__(self, query: HeldQuery) -> bool:
        pruning = query.plan.pruning
        if pruning is None:
            return query in self._always
        instances = self._pruned.get(pruning.columns)
        return instances is not None and any(query in instances.by_key.get(key, ()) for key in pruning.keys)

    def is_empty(self) -> bool:
        return not self._always and not self._pruned

    def add(self, query: HeldQuery) -> None:
        pruning = query.plan.pruning
        if pruning is None:
            self._always[query] = None
            return
        instances = self._pruned.get(pruning.columns)
        if instances is None:
            instances = self._pruned[pruning.columns] = _Instances(pruning.extract, {})
        for key in pruning.keys:
            instances.by_key.setdefault(key, []).append(query)

    def remove(self, query: HeldQuery) -> None:
        pruning = query.plan.pruning
        if pruning is None:
            del self._always[query]
            return
        by_key = self._pruned[pruning.columns].by_key
        for key in pruning.keys:
            queries = by_key[key]
            queries.remove(query)
            if not queries:
                del by_key[key]
        if not by_key:
            del self._pruned[pruning.columns]

    def collect(self, changed: "TableDelta", hits: list[_Hit]) -> None:
        """Append a hit for every query of this table that the delta touches."""
        inserts = changed.inserts
        deletes = [] if changed.table.schema.definition.is_event else changed.deletes
        if self._always:
            _collect_always(self._always, inserts, deletes, hits)
        for instances in self._pruned.values():
            _collect_pruned(instances, inserts, deletes, hits)


def _collect_always(
    queries: "Iterable[HeldQuery]", inserts: list[bytes], deletes: list[bytes], hits: list[_Hit]
) -> None:
    whole: Fragment | None = None
    for query in queries:
        matches = query.plan.matches
        if matches is None:  # the whole table: all such queries share one fragment, however they are spelt
            if whole is None:
                whole = query.fragment(inserts, deletes)
            if inserts or deletes:
                hits.append(_Hit(query, whole))
            continue
        entered, left = list(filter(matches, inserts)), list(filter(matches, deletes))
        if entered or left:
            hits.append(_Hit(query, query.fragment(entered, left)))


def _collect_pruned(instances: _Instances, inserts: list[bytes], deletes: list[bytes], hits: list[_Hit]) -> None:
    found: dict[HeldQuery, tuple[list[bytes], list[bytes]]] = {}
    extract, by_key = instances
    for side, rows in enumerate((inserts, deletes)):
        for row in rows:
            for query in by_key.get(extract(row), ()):
                matches = query.plan.residual
                if matches is None or matches(row):
                    pair = found.get(query)
                    if pair is None:
                        pair = found[query] = ([], [])
                    pair[side].append(row)
    for query, (entered, left) in found.items():
        hits.append(_Hit(query, query.fragment(entered, left)))


def _fan_out(hit: _Hit, caller: "SubscriptionActor | None") -> Evaluation:
    """One query changed and each of its holders holds it once: one update per label."""
    told: ClientUpdate | None = None
    others: list[tuple[SubscriptionActor, ClientUpdate]] = []
    for label, group in hit.query.groups.items():
        update = ClientUpdate((SetUpdate(label if label >= 0 else None, (hit.fragment,)),))
        if caller is not None and caller in group:
            told = update
            others += [(actor, update) for actor in group if actor is not caller]
        else:
            others += [(actor, update) for actor in group]
    return Evaluation(told, others)


def _merge(hits: list[_Hit], caller: "SubscriptionActor | None") -> Evaluation:
    """Several queries changed, or one that somebody holds twice: clients with the same path of hits share an update.

    Every (hit, label) is a step; a client's state is the last step it took, which knows the one before.
    """
    hits.sort(key=_telling_order)
    states: dict[SubscriptionActor, int] = {}
    steps: list[_Step] = []
    for query, fragment in hits:
        for label, group in query.groups.items():
            after: dict[int | None, int] = {}
            for actor in group:
                before = states.get(actor)
                state = after.get(before)
                if state is None:
                    state = after[before] = len(steps)
                    steps.append(_Step(before, label, fragment))
                states[actor] = state
    updates: dict[int, ClientUpdate] = {state: _update_of(steps, state) for state in set(states.values())}
    told = None if caller is None else states.pop(caller, None)
    others = [(actor, updates[state]) for actor, state in states.items()]
    return Evaluation(None if told is None else updates[told], others)


class _Step(NamedTuple):
    before: int | None
    label: int
    fragment: Fragment


def _telling_order(hit: _Hit) -> tuple[str, int]:
    return hit.fragment.table_name, hit.query.serial


def _update_of(steps: "Sequence[_Step]", state: int) -> ClientUpdate:
    by_set: dict[int | None, list[Fragment]] = {}
    at: int | None = state
    while at is not None:
        step = steps[at]
        by_set.setdefault(step.label if step.label >= 0 else None, []).append(step.fragment)
        at = step.before
    ordered = sorted(by_set, key=lambda query_set_id: -1 if query_set_id is None else query_set_id)
    return ClientUpdate(tuple(SetUpdate(which, tuple(reversed(by_set[which]))) for which in ordered))
