"""Registry: every distinct query that somebody holds, and who sees what of a transaction.

Responsible for: one compiled plan per distinct query, reference-counted; evaluating a delta once per branch of a query
and sharing the result among all who see the same.
Not responsible for: finding the branches that a delta can concern (`pruning`), what one client holds and is told
(`actor`), compiling SQL (`stdb.sql`), wire formats.

Source: spec 06 sections 5.2 to 5.4, DESIGN decision 7. The plain twin of `evaluate` is `plain.evaluate_plainly`; a
property test keeps the two equal.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from stdb.errors import QueryError
from stdb.sql import Caller, Language, QueryPlan, compile_one_off, compile_subscription
from stdb.sql.work import Steps
from stdb.subscriptions.fragment import ClientUpdate, Fragment, SetUpdate
from stdb.subscriptions.pruning import HeldBranch, Hit, TableBranches, Touched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from stdb.datastore.datastore import Datastore
    from stdb.datastore.delta import Delta, TableDelta
    from stdb.subscriptions.actor import SubscriptionActor

__all__ = ["COUNTED", "INITIAL_BYTES_MAX", "LEGACY", "Audience", "Evaluation", "HeldQuery", "Registry"]

T = TypeVar("T")
INITIAL_BYTES_MAX = 256 << 20
"""Default bound of the rows in one initial answer (DESIGN decision 8)."""

LEGACY = -2
"""Label of queries held by a v1 connection's legacy set."""
COUNTED = -1
"""Label of queries held by v1 Single and Multi subscriptions, counted per connection and distinct query."""


class HeldQuery:
    """One distinct query: its plan and its holders, grouped by label (a query set id, LEGACY or COUNTED)."""

    __slots__ = ("branches", "groups", "holders", "key", "plan", "repeats", "serial", "text")

    def __init__(self, text: str, key: "_QueryKey", plan: QueryPlan, serial: int) -> None:
        self.text = text
        self.key = key
        self.plan = plan
        self.serial = serial
        """Age of the query: counts compiled queries; fragments of one table are told in this order."""
        self.branches: tuple[HeldBranch, ...] = ()
        """The branches of the plan that watch tables: all of them while somebody holds the query and it compiles."""
        self.groups: dict[int, dict[SubscriptionActor, Any]] = {}
        """Beside each holder stands its sink: who tells them all touches nothing else of them."""
        self.holders: dict[SubscriptionActor, int] = {}
        self.repeats = 0
        """How many holders hold it under more than one label."""

    def fragment(self, inserts: list[bytes], deletes: list[bytes]) -> Fragment:
        """Return rows of this query, of all its branches, as a fragment."""
        schema, picked = self.plan.table.schema, self.plan.picked
        if picked is not None:
            return Fragment(schema.shown_id, schema.name, picked.shape, picked.rows(inserts), picked.rows(deletes))
        return Fragment(schema.shown_id, schema.name, schema, inserts, deletes, self.plan.reads_events)


Audience: TypeAlias = "Mapping[SubscriptionActor, Any]"
"""Clients that see the same, and the sink of each; as they are now, to be read before anybody's holdings change."""


class Evaluation(NamedTuple):
    """What a transaction means to clients. Clients that see the same share one ClientUpdate."""

    caller: ClientUpdate | None
    """What the given caller sees; None when nothing."""
    audiences: list[tuple[Audience, ClientUpdate]]
    """Everyone else who sees something, in no particular order."""

    @property
    def others(self) -> "list[tuple[SubscriptionActor, ClientUpdate]]":
        """The audiences, client by client."""
        return [(actor, update) for audience, update in self.audiences for actor in audience]


class _QueryKey(NamedTuple):
    """Identity of a query: owners never share with others, nor callers of a query that says `:sender`."""

    text: str
    is_owner: bool
    identity: bytes | None
    language: Language


class Registry:
    """All queries held at one database, shared by its clients. The database actor owns it.

    `owner` is the identity (32 bytes LE) that may read private tables. `initial_bytes_max` bounds one initial answer.
    """

    def __init__(self, datastore: "Datastore", owner: bytes, *, initial_bytes_max: int = INITIAL_BYTES_MAX) -> None:
        self.datastore = datastore
        self.owner = owner
        self.initial_bytes_max = initial_bytes_max
        self._queries: dict[_QueryKey, HeldQuery] = {}
        self._tables: dict[int, TableBranches] = {}
        self._compiled = 0

    def __len__(self) -> int:
        """Return how many distinct queries are held."""
        return len(self._queries)

    def queries(self) -> "Iterable[HeldQuery]":
        """Return the distinct queries that somebody holds."""
        return self._queries.values()

    # Compiling.

    def patiently(self, work: "Callable[[], T]") -> Steps[T]:
        """Do `find` or `one_off` in steps: views that are read for the first time may pause (`Views.patiently`)."""
        views = self.datastore.views
        return _at_once(work) if views is None else views.patiently(work)

    def find(self, text: str, caller: Caller) -> HeldQuery:
        """Return the query of that text for that caller, shared when somebody holds it already.

        Raises:
            QueryError: The text is no query of the subscription language, or not for this caller.
        """
        trimmed = text.strip()
        for identity in (None, caller.identity):
            held = self._queries.get(_QueryKey(trimmed, caller.is_owner, identity, caller.language))
            if held is not None:
                return held
        plan = compile_subscription(trimmed, self.datastore, caller)
        self._compiled += 1
        asking = caller.identity if plan.parameterised else None
        key = _QueryKey(trimmed, caller.is_owner, asking, caller.language)
        return HeldQuery(trimmed, key, plan, self._compiled)

    def is_held(self, query: HeldQuery) -> bool:
        """Tell whether somebody holds this query."""
        return self._queries.get(query.key) is query

    def one_off(self, text: str, caller: Caller) -> QueryPlan:
        """Return the plan of a one-off query; nothing is kept.

        Raises:
            QueryError: The text is no query of the subscription language, or not for this caller.
        """
        return compile_one_off(text, self.datastore, caller)

    # Holding.

    def hold(self, query: HeldQuery, actor: "SubscriptionActor", label: int) -> None:
        """Let a client hold a query under a label that it does not hold it under yet."""
        group = query.groups.setdefault(label, {})
        assert actor not in group
        if not query.holders:
            self._register(query)
        group[actor] = actor.sink
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

    def recompile_in_steps(self) -> "Steps[set[SubscriptionActor]]":
        """Bind every held query to the tables as they are now; call it after a change of schema.

        Returns the clients that hold a query which no longer compiles, or now depends on who asks; that query stays as
        it was for them until they let go of it, never again sees a change, and is found by nobody else.
        """
        stranded: set[SubscriptionActor] = set()
        self._tables.clear()
        for query in list(self._queries.values()):
            query.branches = ()
            identity = next(iter(query.holders)).caller.identity
            caller = Caller(identity, query.key.is_owner, query.key.language)
            plan: QueryPlan | None
            try:
                plan = yield from self.patiently(partial(compile_subscription, query.text, self.datastore, caller))
            except QueryError:
                plan = None
            if plan is None or (plan.parameterised and query.key.identity is None):
                stranded.update(query.holders)
                del self._queries[query.key]
                self._release_views(query.plan)
            else:
                self._hold_views(plan)
                self._release_views(query.plan)
                query.plan = plan
                self._watch(query)
        return stranded

    def _register(self, query: HeldQuery) -> None:
        assert query.key not in self._queries
        self._queries[query.key] = query
        self._hold_views(query.plan)
        self._watch(query)

    def _unregister(self, query: HeldQuery) -> None:
        if not self.is_held(query):  # it was stranded by a change of schema
            return
        del self._queries[query.key]
        self._release_views(query.plan)
        for branch in query.branches:
            for relation, table in enumerate(branch.plan.tables):
                watching = self._tables[table.schema.id]
                watching.remove(branch, relation)
                if not watching:
                    del self._tables[table.schema.id]
        query.branches = ()

    def _hold_views(self, plan: QueryPlan) -> None:
        if self.datastore.views is not None:
            for table in plan.tables:
                self.datastore.views.hold(table)

    def _release_views(self, plan: QueryPlan) -> None:
        if self.datastore.views is not None:
            for table in plan.tables:
                self.datastore.views.release(table)

    def sweep(self) -> None:
        """Forget the rows of views that no held query reads; at the end of every evaluation."""
        if self.datastore.views is not None:
            self.datastore.views.sweep()

    def _watch(self, query: HeldQuery) -> None:
        """Let every branch of a query watch the table of each of its relations."""
        query.branches = tuple(HeldBranch(query, place, plan) for place, plan in enumerate(query.plan.branches))
        for branch in query.branches:
            for relation, table in enumerate(branch.plan.tables):
                self._tables.setdefault(table.schema.id, TableBranches()).add(branch, relation)

    # Evaluating.

    def evaluate(self, delta: "Delta", caller: "SubscriptionActor | None" = None) -> Evaluation:
        """Return what every client sees of a committed transaction.

        Must be called before the next transaction touches the tables.
        """
        hits: list[Hit] = []
        touched: Touched = {}
        tables = self._tables
        changes = delta.tables if not delta.views else delta.tables + delta.views
        for changed in changes:
            watching = tables.get(changed.table.schema.id)
            if watching is not None:
                watching.collect(changed, hits, touched)
        if touched:
            _evaluate_joins(touched, changes, hits)
        if not hits:
            return _NOTHING
        if len(hits) == 1 and not hits[0].branch.query.repeats:
            return _fan_out(hits[0], caller)
        return _merge(hits, caller)


_NOTHING = Evaluation(None, [])


def _evaluate_joins(touched: "Iterable[HeldBranch]", changes: "Iterable[TableDelta]", hits: list[Hit]) -> None:
    """Append a hit for every one of these join branches that the delta changes; bags, rows repeat as often as said."""
    by_table = {changed.table.schema.id: changed for changed in changes}
    for branch in touched:
        inserts, deletes = branch.plan.changes(by_table)
        if inserts or deletes:
            hits.append(Hit(branch, branch.fragment(inserts, deletes)))


def _fan_out(hit: Hit, caller: "SubscriptionActor | None") -> Evaluation:
    """One query changed and each of its holders holds it once: one update per label."""
    told: ClientUpdate | None = None
    audiences: list[tuple[Audience, ClientUpdate]] = []
    for label, group in hit.branch.query.groups.items():
        update = ClientUpdate((SetUpdate(label if label >= 0 else None, (hit.fragment,)),))
        if caller is not None and caller in group:
            told = update
            if len(group) == 1:
                continue
            group = group.copy()
            del group[caller]
        audiences.append((group, update))
    return Evaluation(told, audiences)


def _merge(hits: list[Hit], caller: "SubscriptionActor | None") -> Evaluation:
    """Several branches changed, or one that somebody holds twice: clients with the same path of hits share an update.

    Every (hit, label) is a step; a client's state is the last step it took, which knows the one before.
    """
    hits.sort(key=lambda hit: hit.branch.order)
    states: dict[SubscriptionActor, int] = {}
    steps: list[_Step] = []
    for branch, fragment in hits:
        for label, group in branch.query.groups.items():
            after: dict[int | None, int] = {}
            for actor in group:
                before = states.get(actor)
                state = after.get(before)
                if state is None:
                    state = after[before] = len(steps)
                    steps.append(_Step(before, label, fragment))
                states[actor] = state
    audiences: dict[int, dict[SubscriptionActor, Any]] = {}
    for actor, state in states.items():
        audiences.setdefault(state, {})[actor] = actor.sink
    updates = {state: _update_of(steps, state) for state in audiences}
    told: ClientUpdate | None = None
    if caller is not None and caller in states:
        told = updates[states[caller]]
        del audiences[states[caller]][caller]
    return Evaluation(told, [(audience, updates[state]) for state, audience in audiences.items() if audience])


class _Step(NamedTuple):
    before: int | None
    label: int
    fragment: Fragment


def _at_once(work: "Callable[[], T]") -> Steps[T]:
    yield from ()
    return work()


def _update_of(steps: "Sequence[_Step]", state: int) -> ClientUpdate:
    by_set: dict[int | None, list[Fragment]] = {}
    at: int | None = state
    while at is not None:
        step = steps[at]
        by_set.setdefault(step.label if step.label >= 0 else None, []).append(step.fragment)
        at = step.before
    ordered = sorted(by_set, key=lambda query_set_id: -1 if query_set_id is None else query_set_id)
    return ClientUpdate(tuple(SetUpdate(which, tuple(reversed(by_set[which]))) for which in ordered))
