"""The machine of `test_subscriptions_properties` with joins, event tables that drive them, and row-level security.

What a client holds is compared with two twins: the branches of its queries, and what spec 06 section 6 says they mean,
every relation replaced by what its caller may see of the table.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.errors import QueryError
from stdb.sql import Caller, finish
from stdb.sql.binder import BoundSelect, bind_select
from stdb.sql.parser import parse
from stdb.sql.shape import subscription_shape
from stdb.subscriptions import pruning
from stdb.subscriptions.plain import Rows, evaluate_plainly, rows_now, rows_of_branch
from tests.property.test_subscriptions_properties import SubscriptionMachine, change, compare, transactions_of
from tests.subscriptions_world import ALICE, BOB, JOINED, OWNER, Cache, Choices, World

_NUMBERS = {
    "item": ("id", "kind"),
    "part": ("item", "slot", "kind"),
    "player": ("kind",),
    "link": ("a", "b"),
    "bag": ("a", "b"),
    "secret": ("a", "b"),
    "ping": ("a", "b"),
}
"""Integer columns by table."""
_OTHERS = {
    "item": ("owner = :sender", "size > 0", "size = 0"),
    "player": ("who = :sender", "who <> :sender"),
}


class _Join(NamedTuple):
    left: str
    left_column: str
    right: str
    right_column: str


_JOINS = [
    _Join(*text.replace(".", " ").split())
    for text in (
        "item.id item.id",
        "item.kind item.kind",  # by (owner, kind), where a constant fixes the owner
        "item.id part.item",
        "item.id part.kind",
        "item.kind part.kind",
        "item.kind player.kind",
        "item.owner player.who",
        "part.item part.item",
        "part.kind part.kind",
        "part.kind player.kind",
        "part.item item.kind",
        "player.kind player.kind",
        "part.slot link.a",
        "link.a link.a",
        "link.b link.a",
        "bag.a link.a",
        "secret.a link.a",
        *["ping.a link.a", "ping.b link.a"] * 3,  # events lead: the other way round is refused
    )
]


def _term(choices: Choices, table: str, alias: str) -> str:
    """Return a condition on one side, mostly `column = constant`."""
    if table in _OTHERS and choices.pick(range(4)) == 3:
        return f"{alias}.{choices.pick(_OTHERS[table])}"
    operator = choices.pick(["=", "=", "=", "=", "=", "=", "<>", "<", ">=", ">"])
    return f"{alias}.{choices.pick(_NUMBERS[table])} {operator} {choices.pick(range(3))}"


def _crossing(choices: Choices, join: _Join) -> str:
    """Return a condition that compares the sides."""
    left, right = choices.pick(_NUMBERS[join.left]), choices.pick(_NUMBERS[join.right])
    are_narrow = [column in ("a", "b", "slot") for column in (left, right)]  # U8; all others are U32
    operator = choices.pick(["=", "<>", "<=", ">"])
    return f"l.{left} {operator} r.{right}" if are_narrow[0] == are_narrow[1] else "true"


_SHAPES = [
    "",
    " WHERE {left}",
    " WHERE {left}",
    " WHERE {right}",
    " WHERE {right}",
    " WHERE {left} AND {right}",
    " WHERE {right} AND {right}",
    " WHERE {left} OR {right}",
    " WHERE ({left} OR {left}) AND {right}",
    " WHERE ({left} AND {right}) OR ({left} AND {right})",
    " WHERE {right} AND {crossing}",
    " WHERE {left} OR {crossing}",
]
_PART = re.compile(r"\{(\w+)\}")


def _join_text(choices: Choices) -> str:
    """Return a join; `l` and `r` are the aliases of its sides whichever is written first."""
    join = choices.pick(_JOINS)
    parts = {
        "left": lambda: _term(choices, join.left, "l"),
        "right": lambda: _term(choices, join.right, "r"),
        "crossing": lambda: _crossing(choices, join),
    }
    where = _PART.sub(lambda found: parts[found[1]](), choices.pick(_SHAPES))
    sides = [f"{join.left} l", f"{join.right} r"]
    first, second = sides if choices.pick(range(3)) else reversed(sides)
    on = f"l.{join.left_column} = r.{join.right_column}"
    return f"SELECT {choices.pick('lr')}.* FROM {first} JOIN {second} ON {on}{where}"


def _single_text(choices: Choices) -> str:
    table = choices.pick(["item", "item", "item", "link", "link", "part", "player", "ping"])
    where = f" WHERE {_term(choices, table, table)}" if choices.pick(range(2)) else ""
    return f"SELECT * FROM {table}{where}"


_RULES = [
    "SELECT * FROM item WHERE owner = :sender",
    "SELECT * FROM item WHERE kind = 1",
    "SELECT i.* FROM player p JOIN item i ON p.who = i.owner WHERE p.kind = 1",
    "SELECT * FROM part WHERE kind = 1",
    "SELECT p.* FROM item i JOIN part p ON i.id = p.item",
    "SELECT * FROM player WHERE who = :sender",
    "SELECT * FROM link WHERE a = 1",
    "SELECT l.* FROM link l JOIN link m ON l.a = m.a WHERE m.b = 1",
    "SELECT p.* FROM ping p JOIN link l ON p.a = l.a WHERE l.b = 1",
]


def _accepted(world: World, drawn: bytes, writers: Sequence[Callable[[Choices], str]]) -> list[str]:
    """Return the half of the texts drawn: such that a client can subscribe to, if there are enough."""
    parts = [Choices(drawn[place : place + 16]) for place in range(0, len(drawn), 16)]
    texts = [choices.pick(writers)(choices) for choices in parts]
    return sorted(texts, key=lambda text: not _is_accepted(world, text))[: len(texts) // 2]


def _is_accepted(world: World, text: str) -> bool:
    try:
        world.registry.find(text, Caller(ALICE, is_owner=False))
    except QueryError:
        return False
    return True


_drawn_rules = st.lists(st.sampled_from(_RULES), min_size=1, max_size=4, unique=True)
_TABLES = ("item", "part", "link", "player", "item", "part", "link", "ping", "bag", "secret")


@settings(max_examples=150, deadline=None)
@given(
    texts=st.binary(min_size=8 * 16, max_size=8 * 16),
    rules=st.just([]) | _drawn_rules,
    changes=st.binary(min_size=60, max_size=100),
    partners_per_key=st.sampled_from([16, 0]),
)
def test_everyone_is_told_what_the_plain_twin_says(
    texts: bytes, rules: list[str], changes: bytes, partners_per_key: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning, "_PARTNERS_PER_KEY", partners_per_key)
        _tell_everyone(texts, rules, changes)


def _tell_everyone(texts: bytes, rules: list[str], changes: bytes) -> None:
    world = World(JOINED, rules=rules)
    clients = [world.client(identity) for identity in (OWNER, ALICE, BOB)]
    chosen = _accepted(world, texts, (_join_text, _join_text, _single_text))
    caches = {client: Cache() for client in clients}
    before = rows_now(world.datastore)
    for client in clients:
        for place, text in enumerate(chosen):
            finish(client.subscribe_batch([(place, [text])]))
    plans = [query.plan for client in clients for _, queries in client.holdings() for query in queries]
    tables = sorted({table.schema.name for plan in plans for table in plan.tables}) or _TABLES
    for transaction in transactions_of(changes, tables):
        delta = world.transact(partial(change, changes=transaction))
        if delta is not None:
            evaluation = world.registry.evaluate(delta)
            compare(evaluation, evaluate_plainly(before, delta, world.datastore, clients))
            for client, update in evaluation.others:
                caches[client].update(update)
            before = rows_now(world.datastore)
    for client in clients:
        for label, (query,) in client.holdings()[1:]:
            contents = caches[client].contents().get((label, query.plan.table.schema.name), Counter())
            assert contents == Counter(query.plan.rows())


class JoinMachine(SubscriptionMachine):
    """Clients that hold joins."""

    tables = _TABLES
    drawn_pool = st.binary(min_size=14 * 16, max_size=14 * 16)
    writers: Sequence[Callable[[Choices], str]] = (_join_text,)

    def choose(self, drawn: Any) -> list[str]:
        """Return the texts of the run."""
        return [*_accepted(self.world, drawn, self.writers), "SELECT * FROM *"]

    def plain_bag(self, text: str, caller: Caller, rows: Rows) -> Counter[bytes]:
        """Return a query's rows over what its caller may see of every table."""
        bound = self._bound(text, caller)
        visible = rows if caller.is_owner else self._visible(bound, caller, rows, None)
        return rows_of_branch(bound, visible)

    def _visible(self, bound: BoundSelect, caller: Caller, rows: Rows, own: int | None) -> Rows:
        """Return the rows that the relations of a query stand for; those of `own`, whose rule it is, as they are."""
        seen = dict(rows)
        for table_id in {relation.table.schema.id for relation in bound.relations} - {own}:
            texts = self.world.datastore.rules.get(table_id)
            if texts is not None:
                seen[table_id] = [row for text in texts for row in self._allowed(text, table_id, caller, rows)]
        return seen

    def _allowed(self, text: str, table_id: int, caller: Caller, rows: Rows) -> Any:
        rule = self._bound(text, Caller(caller.identity, is_owner=True))
        return rows_of_branch(rule, self._visible(rule, caller, rows, table_id)).elements()

    def _bound(self, text: str, caller: Caller) -> BoundSelect:
        return bind_select(subscription_shape(parse(text)), self.world.datastore, caller)


class RulesMachine(JoinMachine):
    """Clients that hold joins and queries over one table, of which they may not see every row."""

    writers = (_join_text, _single_text)
    drawn_rules = _drawn_rules


TestJoins = JoinMachine.TestCase
TestJoins.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestRules = RulesMachine.TestCase
TestRules.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
