"""Random subscriptions and transactions: every cache equals a fresh evaluation, sharing and pruning change nothing.

Invariants I24 to I28 and I30 of spec 07 section 12, over all kinds of subscription. Here queries over one table; the
same machine with joins and row-level security is in `test_subscriptions_joins`.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stdb.errors import QueryError
from stdb.sql import Caller, finish
from stdb.subscriptions import ClientUpdate, Evaluation, Fragment, SubscriptionActor
from stdb.subscriptions.plain import Rows, bound_branches, evaluate_plainly, rows_now, rows_of_branch
from stdb.subscriptions.registry import COUNTED, LEGACY
from tests.subscriptions_world import ALICE, BOB, JOINED, OWNER, Cache, Choices, World

IDENTITIES = [OWNER, ALICE, ALICE, BOB]
"""One client each; two of them are connections of one identity."""

_SIZES = [0.0, -0.0, 1.5, float("inf"), float("nan")]
_SMALL = range(3)
_COLUMNS: dict[str, list[Any]] = {
    "item": [range(6), [ALICE, BOB], _SMALL, _SIZES],
    "bag": [_SMALL, _SMALL],
    "secret": [range(2), range(2)],
    "ping": [_SMALL, _SMALL],
    "part": [_SMALL, range(2), _SMALL],
    "player": [[OWNER, ALICE, BOB], _SMALL],
    "link": [_SMALL, _SMALL],
}
"""What stands in the columns of each table."""
Change = tuple[str, str, Any]
"""A table, what is done to it, a row; to take out the n-th row that is there, n."""


def transactions_of(drawn: bytes, tables: Sequence[str]) -> list[list[Change]]:
    """Return what some bytes stand for: transactions of a few changes each."""
    choices = Choices(drawn)
    transactions: list[list[Change]] = []
    while choices:
        changes: list[Change] = []
        while choices and choices.pick(range(4)) < 3:
            name = choices.pick(tables)
            what = choices.pick(["insert", "insert", "delete", "update", "remove", "remove"])
            row = tuple(choices.pick(options) for options in _COLUMNS[name])
            changes.append((name, what, choices.pick(range(16)) if what == "remove" else row))
        transactions.append(changes)
    return transactions


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


def pools_of(texts: st.SearchStrategy[str], *always: str) -> st.SearchStrategy[list[str]]:
    """Return the texts of one run: few, so that they are shared and held twice."""
    return st.lists(texts, min_size=8 - len(always), max_size=8 - len(always)).map(lambda drawn: [*drawn, *always])


_changes = st.binary(min_size=12, max_size=30)
_picks = st.lists(st.integers(0, 7), max_size=3)
_ids = st.integers(0, 9)
_places = st.integers(0, 3)


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


def compare(evaluation: Evaluation, plain: Evaluation) -> None:
    """Check that everyone is told the same (I28)."""
    assert (evaluation.caller is None) == (plain.caller is None)
    if evaluation.caller is not None and plain.caller is not None:
        assert _shown(evaluation.caller) == _shown(plain.caller)
    told = {actor: _shown(update) for actor, update in evaluation.others}
    assert len(told) == len(evaluation.others)
    assert told == {actor: _shown(update) for actor, update in plain.others}


class SubscriptionMachine(RuleBasedStateMachine):
    """Clients of every kind over one database."""

    tables: Sequence[str] = ("item", "bag", "secret", "ping")
    drawn_pool: Any = pools_of(_texts, "select * from bag", "SELECT * FROM *")
    drawn_rules: Any = st.just(())

    @initialize(data=st.data(), changes=_changes)
    def begin(self, data: Any, changes: bytes) -> None:
        self.world = self.make_world(data)
        self.pool = self.choose(data.draw(self.drawn_pool))
        for transaction in transactions_of(changes, self.tables):
            self.world.transact(partial(change, changes=transaction))
        self.clients = [self.world.client(identity, place) for place, identity in enumerate(IDENTITIES)]
        self.caches = {client: Cache() for client in self.clients}
        self.kinds: dict[tuple[SubscriptionActor, int], str] = {}
        self.bags: dict[tuple[str, Caller], Counter[bytes]] = {}
        for place in range(4):
            for pick in range(6):
                self.subscribe(place, 4 + pick, "set" if place % 2 else "multi", [pick])

    def make_world(self, data: Any) -> World:
        """Return the database of the run."""
        return World(JOINED, rules=data.draw(self.drawn_rules))

    def choose(self, drawn: Any) -> list[str]:
        """Return the texts of the run, out of what was drawn."""
        return list(drawn)

    def bag(self, text: str, caller: Caller) -> Counter[bytes]:
        """Return a query's rows in the plainest way: no index, no generated source."""
        if (text, caller) not in self.bags:
            self.bags[text, caller] = self.plain_bag(text, caller, rows_now(self.world.datastore))
        return self.bags[text, caller]

    def plain_bag(self, text: str, caller: Caller, rows: Rows) -> Counter[bytes]:
        (branch,) = bound_branches(text, self.world.datastore, caller)
        return rows_of_branch(branch, rows)

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
        dropped = [query.fragment([], list(self.bag(query.text, client.caller).elements())) for query in held]
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

    @rule(changes=_changes)
    def commit(self, changes: bytes) -> None:
        for transaction in transactions_of(changes, self.tables):
            self._commit(transaction, None)

    @rule(changes=_changes, caller=_places)
    def commit_for_a_caller(self, changes: bytes, caller: int) -> None:
        for transaction in transactions_of(changes, self.tables):
            self._commit(transaction, self.clients[caller])

    def _commit(self, changes: list[Change], caller: SubscriptionActor | None) -> None:
        before = rows_now(self.world.datastore)
        delta = self.world.transact(partial(change, changes=changes))
        if delta is None:
            return
        self.bags.clear()
        evaluation = self.world.registry.evaluate(delta, caller)
        compare(evaluation, evaluate_plainly(before, delta, self.world.datastore, self.clients, caller))
        if caller is not None:
            self.caches[caller].update(evaluation.caller)
        for actor, update in evaluation.others:
            self.caches[actor].update(update)

    @rule(changes=_changes)
    def roll_back(self, changes: bytes) -> None:
        transaction = self.world.datastore.begin(0)
        for each in transactions_of(changes, self.tables):
            change(self.world, each)
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
                    rows = self.bag(query.text, client.caller)
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
            plans = [query.plan for _, queries in client.holdings() for query in queries]
            assert "secret" not in {table.schema.name for plan in plans for table in plan.tables}


def _held(client: SubscriptionActor) -> list[Any]:
    return [(label, list(queries)) for label, queries in client.holdings() if label != COUNTED or queries]


def change(world: World, changes: list[Change]) -> None:
    """Do these changes as far as they can be done."""
    for name, what, values in changes:
        table = world.table(name)
        if what == "remove":
            if len(table):
                table.delete(list(table.rows())[values % len(table)])
            continue
        row = world.encode(name, *values)
        place = table.key_of(row)
        if what == "delete" and place in table.stored:
            table.delete_key(place)
        elif what == "update" and table.primary is not None and place in table.stored:
            table.update_key(place, row)
        elif what == "insert" and (place not in table.stored or table.stored[place] == row):
            table.insert(row)


TestSubscriptions = SubscriptionMachine.TestCase
TestSubscriptions.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
