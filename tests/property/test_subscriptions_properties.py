"""Random subscriptions and transactions: every cache equals a fresh evaluation, sharing and pruning change nothing.

Invariants I24 to I28 and I30 of spec 07 section 12, over all kinds of subscription.
"""

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stdb.errors import QueryError
from stdb.sats import keys
from stdb.sql.predicate import evaluate
from stdb.sql.work import finish
from stdb.subscriptions import ClientUpdate, Evaluation, Fragment, SubscriptionActor
from stdb.subscriptions.plain import evaluate_plainly
from stdb.subscriptions.registry import COUNTED, LEGACY, HeldQuery
from tests.subscriptions_world import ALICE, BOB, OWNER, Cache, World

IDENTITIES = [OWNER, ALICE, ALICE, BOB]
"""One client each; two of them are connections of one identity."""

_SIZES = [0.0, -0.0, 1.5, float("inf"), float("nan")]
_KINDS_OF_CHANGE = ["insert", "insert", "update", "delete"]
_rows = {
    "item": st.tuples(st.integers(0, 5), st.sampled_from([ALICE, BOB]), st.integers(0, 2), st.sampled_from(_SIZES)),
    "bag": st.tuples(st.integers(0, 2), st.integers(0, 2)),
    "secret": st.tuples(st.integers(0, 1), st.integers(0, 1)),
    "ping": st.tuples(st.integers(0, 2), st.integers(0, 2)),
}
_tables = st.sampled_from(sorted(_rows))
_changes = st.lists(
    _tables.flatmap(
        lambda name: st.tuples(st.just(name), st.sampled_from(["insert", "delete", "update"]), _rows[name])
    ),
    min_size=1,
    max_size=6,
)
_transactions = st.lists(_changes, min_size=2, max_size=6)
_operators = st.sampled_from(["=", "=", "=", "<>", "<", "<=", ">", ">="])
_terms = {
    "item": st.one_of(
        st.builds("{} {} {}".format, st.sampled_from(["id", "kind"]), _operators, st.integers(0, 5)),
        st.builds("size {} {}".format, _operators, st.sampled_from(["0", "-0", "1.5", "1e999"])),
        st.sampled_from(["owner = :sender", "owner <> :sender", "id = kind", "kind = 1 = true", "false"]),
    ),
    "bag": st.one_of(
        st.builds("{} {} {}".format, st.sampled_from(["a", "b"]), _operators, st.integers(0, 2)),
        st.sampled_from(["a = b", "true"]),
    ),
}
_terms["secret"] = _terms["ping"] = _terms["bag"]


def _conditions(table: str) -> st.SearchStrategy[str]:
    joined = st.lists(_terms[table], min_size=2, max_size=3)
    nested = st.tuples(joined, joined).map(lambda pair: f"({' AND '.join(pair[0])}) OR ({' AND '.join(pair[1])})")
    return st.one_of(_terms[table], joined.map(" AND ".join), joined.map(" OR ".join), nested)


_mostly = st.sampled_from(["item", "item", "item", "bag", "bag", "bag", "ping", "secret"])
_texts = st.one_of(
    _mostly.map("SELECT * FROM {}".format),
    *[_mostly.flatmap(lambda table: _conditions(table).map(f"SELECT * FROM {table} WHERE {{}}".format))] * 4,
)
_pools = st.lists(_texts, min_size=6, max_size=6).map(lambda texts: [*texts, "select * from bag", "SELECT * FROM *"])
"""The texts of one run: few, so that they are shared and held twice."""
_picks = st.lists(st.integers(0, 7), max_size=3)
_ids = st.integers(0, 9)
_places = st.integers(0, 3)


def _rows_now(query: HeldQuery) -> Counter[bytes]:
    """Return a query's rows in the plainest way: no index, no generated source."""
    table, condition = query.plan.table, query.plan.condition
    row_type = table.schema.row_type
    columns = [keys.row_key(row_type, (column,)) for column in range(len(row_type.elements))]
    return Counter(
        row for row in table.rows() if condition is None or evaluate(condition, [column(row) for column in columns])
    )


def _shown(update: ClientUpdate) -> list[Any]:
    """Return an update without its sharing: what the messages would hold."""
    return [
        (
            each.query_set_id,
            [
                (fragment.table_name, Counter(fragment.inserts), Counter(fragment.deletes), fragment.is_event)
                for fragment in each.fragments
            ],
        )
        for each in update.sets
    ]


class SubscriptionMachine(RuleBasedStateMachine):
    """Clients of every kind over one database."""

    @initialize(changes=_changes, pool=_pools)
    def begin(self, changes: list[tuple[str, str, Any]], pool: list[str]) -> None:
        self.pool = pool
        self.world = World()
        self.world.transact(lambda world: _change(world, changes))
        self.clients = [self.world.client(identity, place) for place, identity in enumerate(IDENTITIES)]
        self.caches = {client: Cache() for client in self.clients}
        self.kinds: dict[tuple[SubscriptionActor, int], str] = {}
        for place in range(4):
            for pick in range(6):
                self.subscribe(place, 4 + pick, "set" if place % 2 else "multi", [pick])

    # Subscribing.

    def _picked(self, picks: list[int]) -> list[str]:
        return [self.pool[pick] for pick in picks]

    def _try(self, client: SubscriptionActor, query_id: int, kind: str, subscribe: Any) -> None:
        """Subscribe; a refusal changes nothing, a success tells the rows once."""
        before = _held(client)
        try:
            fragments: list[Fragment] = subscribe()
        except QueryError:
            assert _held(client) == before
            return
        assert (client, query_id) not in self.kinds, "an id was given twice"
        self.kinds[client, query_id] = kind
        self.caches[client].apply(query_id if kind == "set" else None, fragments)

    @rule(place=_places, query_id=_ids, kind=st.sampled_from(["set", "multi", "single"]), picks=_picks)
    def subscribe(self, place: int, query_id: int, kind: str, picks: list[int]) -> None:
        client, queries = self.clients[place], self._picked(picks)
        ways: dict[str, Any] = {
            "set": lambda: finish(client.subscribe_set(query_id, queries)),
            "multi": lambda: finish(client.subscribe_multi(query_id, queries)),
            "single": lambda: [finish(client.subscribe_single(query_id, queries[0] if queries else ""))],
        }
        self._try(client, query_id, kind, ways[kind])

    @rule(place=_places, sets=st.lists(st.tuples(_ids, _picks), max_size=3))
    def subscribe_batch(self, place: int, sets: list[tuple[int, list[int]]]) -> None:
        client = self.clients[place]
        asked = [(query_id, self._picked(picks)) for query_id, picks in sets]
        for query_id, outcome in finish(client.subscribe_batch(asked)):
            if not isinstance(outcome, str):
                self.kinds[client, query_id] = "set"
                self.caches[client].apply(query_id, outcome)

    @rule(place=_places, picks=_picks)
    def replace_legacy(self, place: int, picks: list[int]) -> None:
        client, queries = self.clients[place], self._picked(picks)
        held = dict(client.holdings())[LEGACY]
        dropped = [query.fragment([], list(_rows_now(query))) for query in held]
        try:
            fragments = finish(client.replace_legacy(queries))
        except QueryError:
            return
        self.caches[client].apply(None, fragments)
        self.caches[client].apply(None, dropped)

    @rule(place=_places, query_id=_ids, as_single=st.booleans())
    def unsubscribe(self, place: int, query_id: int, as_single: bool) -> None:
        client = self.clients[place]
        kind = self.kinds.get((client, query_id), "set")
        try:
            if kind == "set":
                fragments = finish(client.unsubscribe_set(query_id)) or []
            elif as_single:
                fragments = [finish(client.unsubscribe_single(query_id))]
            else:
                fragments = finish(client.unsubscribe_multi(query_id))
        except QueryError:
            assert (client, query_id) not in self.kinds or as_single
            return
        del self.kinds[client, query_id]
        self.caches[client].apply(query_id if kind == "set" else None, fragments)

    # Changing.

    @rule(transactions=_transactions)
    def commit(self, transactions: list[list[tuple[str, str, Any]]]) -> None:
        for changes in transactions:
            self._commit(changes, None)

    @rule(transactions=_transactions, caller=_places)
    def commit_for_a_caller(self, transactions: list[list[tuple[str, str, Any]]], caller: int) -> None:
        for changes in transactions:
            self._commit(changes, caller)

    def _commit(self, changes: list[tuple[str, str, Any]], caller: int | None) -> None:
        delta = self.world.transact(lambda world: _change(world, changes))
        if delta is None:
            return
        calling = None if caller is None else self.clients[caller]
        evaluation = self.world.registry.evaluate(delta, calling)
        self._compare(evaluation, evaluate_plainly(delta, self.clients, calling))
        if calling is not None:
            self.caches[calling].update(evaluation.caller)
        for actor, update in evaluation.others:
            self.caches[actor].update(update)

    def _compare(self, evaluation: Evaluation, plain: Evaluation) -> None:
        assert (evaluation.caller is None) == (plain.caller is None)
        if evaluation.caller is not None and plain.caller is not None:
            assert _shown(evaluation.caller) == _shown(plain.caller)
        told = {actor: _shown(update) for actor, update in evaluation.others}
        assert len(told) == len(evaluation.others)
        assert told == {actor: _shown(update) for actor, update in plain.others}

    @rule(changes=_changes)
    def roll_back(self, changes: list[tuple[str, str, Any]]) -> None:
        transaction = self.world.datastore.begin(0)
        _change(self.world, changes)
        transaction.rollback()

    @precondition(lambda self: self.kinds)
    @rule(place=_places)
    def leave_and_return(self, place: int) -> None:
        client = self.clients[place]
        client.close()
        self.caches[client] = Cache()
        self.kinds = {key: kind for key, kind in self.kinds.items() if key[0] is not client}

    @invariant()
    def every_cache_is_a_fresh_evaluation(self) -> None:
        for client in self.clients:
            wanted: dict[tuple[int | None, str], Counter[bytes]] = {}
            for label, queries in client.holdings():
                for query in queries:
                    rows = _rows_now(query)
                    key = (label if label >= 0 else None, query.plan.table.schema.name)
                    wanted[key] = wanted.get(key, Counter()) + rows
                    assert Counter(query.plan.rows()) == rows, query.text
            assert self.caches[client].contents() == {key: rows for key, rows in wanted.items() if rows}

    @invariant()
    def nothing_is_held_by_nobody(self) -> None:
        held = {query for client in self.clients for _, queries in client.holdings() for query in queries}
        assert held == set(self.world.registry.queries())

    @invariant()
    def nobody_but_the_owner_holds_a_private_table(self) -> None:
        for client in self.clients[1:]:
            names = {query.plan.table.schema.name for _, queries in client.holdings() for query in queries}
            assert "secret" not in names


def _held(client: SubscriptionActor) -> list[Any]:
    return [(label, list(queries)) for label, queries in client.holdings() if label != COUNTED or queries]


def _change(world: World, changes: list[tuple[str, str, Any]]) -> None:
    for name, what, values in changes:
        table, row = world.table(name), world.encode(name, *values)
        place = table.key_of(row)
        if what == "delete" and place in table.stored:
            table.delete_key(place)
        elif what == "update" and table.primary is not None and place in table.stored:
            table.update_key(place, row)
        elif what == "insert" and (place not in table.stored or table.stored[place] == row):
            table.insert(row)


TestSubscriptions = SubscriptionMachine.TestCase
TestSubscriptions.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
