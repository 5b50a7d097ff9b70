from collections.abc import Callable
from typing import Any

import pytest

from stdb.sats import types as t
from stdb.schema.model import Access, ColumnDef, ModuleDef, RowLevelSecurityDef, TableDef
from stdb.sql import finish
from stdb.sql.rules import replace_rules
from stdb.subscriptions import SubscriptionActor
from stdb.subscriptions.pruning import HeldBranch
from tests.subscriptions_world import ALICE, BOB, JOINED, OWNER, World, rows_of, seen_by

BAG = "SELECT * FROM bag"
ANYBODY = bytes(32)


@pytest.fixture
def world() -> World:
    return World()


def _count_looks(monkeypatch: pytest.MonkeyPatch) -> list[HeldBranch]:
    """Return a list that grows by every branch whose fragment is made."""
    looked: list[HeldBranch] = []
    fragment: Callable[..., Any] = HeldBranch.fragment

    def counting(branch: HeldBranch, inserts: list[bytes], deletes: list[bytes]) -> Any:
        looked.append(branch)
        return fragment(branch, inserts, deletes)

    monkeypatch.setattr(HeldBranch, "fragment", counting)
    return looked


def test_clients_with_the_same_query_share_one_plan_and_one_update(world: World) -> None:
    clients = [world.client(bytes([number] * 32)) for number in range(10, 20)]
    for client in clients:
        finish(client.subscribe_set(1, [BAG]))
    assert len(world.registry) == 1
    evaluation = world.tell(world.insert("bag", (1, 1)))
    assert [actor for actor, _ in evaluation.others] == clients
    assert len({id(update) for _, update in evaluation.others}) == 1


def test_clients_with_another_set_id_share_the_fragment(world: World) -> None:
    first, second = world.client(), world.client(BOB)
    finish(first.subscribe_set(1, [BAG]))
    finish(second.subscribe_set(2, [BAG]))
    evaluation = world.tell(world.insert("bag", (1, 1)))
    (one,), (two,) = ([*seen_by(evaluation, client).sets] for client in (first, second))  # type: ignore[union-attr]
    assert (one.query_set_id, two.query_set_id) == (1, 2)
    assert one.fragments[0] is two.fragments[0]


def test_the_caller_is_told_apart(world: World) -> None:
    caller, other, stranger = world.client(), world.client(BOB), world.client(ANYBODY)
    for client in (caller, other):
        finish(client.subscribe_set(1, [BAG]))
    evaluation = world.tell(world.insert("bag", (1, 1)), caller)
    assert evaluation.caller is not None
    assert evaluation.others == [(other, evaluation.caller)]
    finish(other.unsubscribe_set(1))
    assert world.tell(world.insert("bag", (1, 3)), caller).audiences == []
    finish(other.subscribe_set(1, [BAG]))
    evaluation = world.tell(world.insert("bag", (1, 2)), stranger)
    assert evaluation.caller is None
    assert len(evaluation.others) == 2


def test_the_caller_is_told_apart_when_several_queries_change(world: World) -> None:
    caller, other = world.client(), world.client(BOB)
    for client in (caller, other):
        finish(client.subscribe_set(1, [BAG, "SELECT * FROM bag WHERE a = 1"]))
    evaluation = world.tell(world.insert("bag", (1, 1)), caller)
    assert evaluation.caller is not None
    assert len(evaluation.caller.sets[0].fragments) == 2
    assert evaluation.others == [(other, evaluation.caller)]


def test_fragments_stand_by_table_name_and_sets_by_id(world: World) -> None:
    client = world.client()
    finish(client.subscribe_set(9, ["SELECT * FROM item", BAG]))
    finish(client.subscribe_set(2, [BAG]))

    def change(world: World) -> None:
        world.table("item").insert(world.encode("item", 1, ALICE, 1, 1.0))
        world.table("bag").insert(world.encode("bag", 1, 1))

    update = seen_by(world.tell(world.transact(change)), client)
    assert update is not None
    assert [(each.query_set_id, [name for name, _, _ in rows_of(world, each.fragments)]) for each in update.sets] == [
        (2, ["bag"]),
        (9, ["bag", "item"]),
    ]


def test_nobody_is_told_of_what_concerns_nobody(world: World) -> None:
    client = world.client()
    finish(client.subscribe_set(1, ["SELECT * FROM bag WHERE a = 1", "SELECT * FROM bag WHERE b > 5"]))
    assert world.tell(world.insert("bag", (2, 2))).others == []


def test_a_changed_row_finds_only_the_plans_it_can_touch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(100):
        finish(world.client().subscribe_set(1, [f"SELECT * FROM bag WHERE a = {number} AND b = {number + 1}"]))
        finish(world.client().subscribe_set(1, [f"SELECT * FROM bag WHERE a = {number} OR a = {number + 100}"]))
    delta = world.insert("bag", (3, 4))
    looked = _count_looks(monkeypatch)
    evaluation = world.tell(delta)
    assert len(evaluation.others) == len(looked) == 2


def test_a_row_that_moves_between_two_values_concerns_both(world: World) -> None:
    world.insert("item", (1, ALICE, 1, 1.0))
    alice, bob, third = world.client(ALICE), world.client(BOB), world.client(ANYBODY)
    for client in (alice, bob, third):
        finish(client.subscribe_set(1, ["SELECT * FROM item WHERE owner = :sender"]))
    delta = world.change({"item": [(1, BOB, 1, 1.0)]}, {"item": [(1, ALICE, 1, 1.0)]})
    evaluation = world.tell(delta)
    assert {id(actor) for actor, _ in evaluation.others} == {id(alice), id(bob)}
    left, came = seen_by(evaluation, alice), seen_by(evaluation, bob)
    assert left is not None
    assert came is not None
    assert rows_of(world, left.sets[0].fragments) == [("item", [], [(1, ALICE, 1, 1.0)])]
    assert rows_of(world, came.sets[0].fragments) == [("item", [(1, BOB, 1, 1.0)], [])]


def test_floats_prune_by_their_key(world: World) -> None:
    client = world.client()
    finish(client.subscribe_set(1, ["SELECT * FROM item WHERE size = 0"]))
    assert seen_by(world.tell(world.insert("item", (1, ALICE, 1, -0.0))), client) is not None
    assert seen_by(world.tell(world.insert("item", (2, ALICE, 1, float("nan")))), client) is None


def test_letting_go_empties_the_registry(world: World) -> None:
    clients = [world.client() for _ in range(3)]
    for client in clients:
        finish(
            client.subscribe_set(1, [BAG, "SELECT * FROM bag WHERE a = 1", "SELECT * FROM bag WHERE a = 1 OR a = 2"])
        )
    for client in clients:
        finish(client.unsubscribe_set(1))
    assert len(world.registry) == 0
    assert list(world.registry.queries()) == []
    assert world.tell(world.insert("bag", (1, 1))).others == []


def _replace_table(world: World, name: str) -> None:
    """Put a table of another layout in the place of one of that name."""
    datastore = world.datastore
    transaction = datastore.begin(0)
    datastore.catalog.drop_table(datastore.table(name))
    column = ColumnDef("c", "c", t.U8)
    datastore.create_tables(ModuleDef(t.Typespace.EMPTY, (TableDef(name, name, 0, (column,), access=Access.PUBLIC),)))
    transaction.commit()


def test_after_a_change_of_schema_plans_are_bound_anew_or_their_holders_named(world: World) -> None:
    whole, column = world.client(), world.client(BOB)
    finish(whole.subscribe_set(1, [BAG]))
    finish(column.subscribe_set(1, ["SELECT * FROM bag WHERE a = 1"]))
    _replace_table(world, "bag")
    assert finish(world.registry.recompile_in_steps()) == {column}
    evaluation = world.tell(world.insert("bag", (1,)))
    assert [actor for actor, _ in evaluation.others] == [whole]
    column.close()
    whole.close()
    assert len(world.registry) == 0


def test_after_a_change_of_schema_both_sides_of_a_join_are_bound_anew() -> None:
    world = World(JOINED)
    client = world.client()
    finish(client.subscribe_set(1, ["SELECT l.* FROM link l JOIN link m ON l.a = m.a WHERE m.b = 1"]))
    assert finish(world.registry.recompile_in_steps()) == set()
    evaluation = world.tell(world.insert("link", (1, 1), (1, 2)))
    update = seen_by(evaluation, client)
    assert update is not None
    assert rows_of(world, update.sets[0].fragments) == [("link", [(1, 1), (1, 2)], [])]
    _replace_table(world, "link")
    assert finish(world.registry.recompile_in_steps()) == {client}
    assert world.tell(world.insert("link", (1,))).others == []
    client.close()
    assert len(world.registry) == 0


def test_a_query_that_comes_to_depend_on_who_asks_is_no_longer_shared() -> None:
    world = World(JOINED)
    alice, bob, owner = world.client(), world.client(BOB), world.client(OWNER)
    for client in (alice, bob, owner):
        finish(client.subscribe_set(1, ["SELECT * FROM item"]))
    transaction = world.datastore.begin(0)
    replace_rules(world.datastore, [RowLevelSecurityDef("SELECT * FROM item WHERE owner = :sender")])
    transaction.commit()
    assert finish(world.registry.recompile_in_steps()) == {alice, bob}
    evaluation = world.tell(world.insert("item", (1, ALICE, 1, 1.0)))
    assert [actor for actor, _ in evaluation.others] == [owner]


def test_a_row_that_two_rules_allow_is_told_by_each_of_them() -> None:
    rules = ["SELECT * FROM item WHERE owner = :sender", "SELECT * FROM item WHERE kind = 1"]
    world = World(JOINED, rules=rules)
    alice, bob = world.client(), world.client(BOB)
    for client in (alice, bob):
        finish(client.subscribe_set(1, ["SELECT * FROM item"]))
    assert len(world.registry) == 2
    evaluation = world.tell(world.insert("item", (1, ALICE, 1, 1.0), (2, ALICE, 2, 1.0)))
    first, second = (1, ALICE, 1, 1.0), (2, ALICE, 2, 1.0)
    told = {actor: rows_of(world, update.sets[0].fragments) for actor, update in evaluation.others}
    assert told == {alice: [("item", [first, second], []), ("item", [first], [])], bob: [("item", [first], [])]}


def test_whoever_sees_something_is_told_through_the_sink_it_came_with(world: World) -> None:
    sink = object()
    actor = SubscriptionActor(world.registry, ALICE, sink=sink)
    finish(actor.subscribe_set(1, ["SELECT * FROM bag"]))
    ((audience, _),) = world.tell(world.insert("bag", (1, 1))).audiences
    assert audience == {actor: sink}
