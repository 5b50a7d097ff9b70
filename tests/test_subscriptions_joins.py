"""Joins under subscription: exact deltas as bags, and what a changed row is allowed to leave out."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from stdb.datastore.delta import Delta
from stdb.sats import types as t
from stdb.sql import JoinPlan, finish
from stdb.subscriptions import Fragment, SubscriptionActor
from tests.sql_schemas import VECTORS, cases
from tests.subscriptions_world import ALICE, BOB, JOINED, OWNER, World, rows_of, seen_by

Row = tuple[Any, ...]
Rows = Mapping[str, list[Row]]


def _u32(*columns: str) -> dict[str, t.AlgebraicType]:
    return dict.fromkeys(columns, t.U32)


def _world(tables: dict[str, dict[str, Any]], rows: Rows) -> World:
    world = World(tables)
    world.change(rows, {})
    return world


def _told(world: World, delta: Delta | None, actor: SubscriptionActor) -> list[tuple[str, list[Row], list[Row]]]:
    """Return what a client is told of a transaction, per fragment."""
    if delta is None:
        return []
    update = seen_by(world.tell(delta), actor)
    return [] if update is None else [each for part in update.sets for each in rows_of(world, part.fragments)]


def _count_evaluations(monkeypatch: pytest.MonkeyPatch) -> list[JoinPlan]:
    """Return a list that grows by every join whose change is computed."""
    evaluated: list[JoinPlan] = []
    changes = JoinPlan.changes

    def counting(plan: JoinPlan, deltas: Any) -> Any:
        evaluated.append(plan)
        return changes(plan, deltas)

    monkeypatch.setattr(JoinPlan, "changes", counting)
    return evaluated


# The vectors: zones and the actors in them, five queries, sixteen transactions.

_DELTA = cases()["delta"]
ZONES = {
    "zone": {"columns": _u32("zid", "size"), "indexes": ((0,),)},
    "actor": {"columns": _u32("aid", "zid", "hp"), "indexes": ((1,),)},
}
_BEFORE: Rows = {name: [tuple(row) for row in rows] for name, rows in _DELTA["state_before"].items()}


def _tuples(rows: list[list[int]]) -> list[Row]:
    return sorted(map(tuple, rows))


@pytest.mark.parametrize("case", _DELTA["cases"], ids=lambda case: case["id"])
def test_a_transaction_changes_each_query_as_its_vector_says(case: dict[str, Any]) -> None:
    world = _world(ZONES, _BEFORE)
    clients = {name: world.client(connection=place) for place, name in enumerate(_DELTA["queries"])}
    for name, client in clients.items():
        finish(client.subscribe_set(1, [_DELTA["queries"][name]["sql"]]))
    changed = case["transaction"]
    delta = world.change(
        {name: _tuples(rows["insert"]) for name, rows in changed.items()},
        {name: _tuples(rows["delete"]) for name, rows in changed.items()},
    )
    for name, expected in case["expect"].items():
        inserts, deletes = _tuples(expected["inserts_bag"]), _tuples(expected["deletes_bag"])
        wanted = [(_DELTA["queries"][name]["returns"], inserts, deletes)] if inserts or deletes else []
        assert _told(world, delta, clients[name]) == wanted, name


# Self joins that the recorded server gets wrong; what it answers to a fresh subscription is right.


def _recorded() -> list[dict[str, Any]]:
    document = json.loads((VECTORS / "recorded_sql" / "vectors_run.json").read_text())
    found: list[dict[str, Any]] = document["self_join_pruning"]
    return found


def _recorded_row(text: str) -> Row:
    document = json.loads(text)
    return tuple(document.values() if isinstance(document, dict) else document)


@pytest.mark.parametrize("case", _recorded(), ids=lambda case: f"{case['transaction'][:6]} {case['query'][7:]}")
def test_a_self_join_is_told_what_a_fresh_subscription_would_see(case: dict[str, Any]) -> None:
    world = _world(ZONES, _BEFORE)
    client = world.client()
    (before,) = finish(client.subscribe_set(1, [case["query"]]))
    rows = Counter(before.inserts)
    assert rows.total() == case["rows_before"]
    verb, numbers = re.fullmatch(r"(\w+) actor \((.*)\)", case["transaction"]).groups()  # type: ignore[union-attr]
    row = tuple(map(int, numbers.split(",")))
    delta = world.change({"actor": [row]}, {}) if verb == "insert" else world.change({}, {"actor": [row]})
    (fragment,) = _told(world, delta, client) or [("", [], [])]
    if case["correct"]:
        assert fragment[1:] == tuple(sorted(map(_recorded_row, case[side])) for side in ("inserts", "deletes"))
    (after,) = finish(world.client().subscribe_set(1, [case["query"]]))
    assert len(after.inserts) == case["rows_of_a_fresh_subscription_after"]
    for inserted in fragment[1]:
        rows[world.encode("actor", *inserted)] += 1
    for deleted in fragment[2]:
        rows[world.encode("actor", *deleted)] -= 1
    assert +rows == Counter(after.inserts)


# The acceptance tables of spec 06 section 9.

SIDES = {
    "lhs": {"columns": {"id": t.I32, "x": t.I32}, "indexes": ((0,),)},
    "rhs": {"columns": {"rid": t.I32, "id": t.I32, "y": t.I32}, "indexes": ((1,),)},
}
_SIDES_BEFORE: Rows = {
    "lhs": [(i, i + 5) for i in range(5)],
    "rhs": [(j, j - 10, j - 8) for j in range(10, 20)],
}
A = "select lhs.* from lhs join rhs on lhs.id = rhs.id where rhs.y >= 2 and rhs.y <= 4"
B = "select lhs.* from lhs join rhs on lhs.id = rhs.id where lhs.x >= 5 and lhs.x <= 7"


def _moved(old: Row, new: Row) -> tuple[Rows, Rows]:
    return {"rhs": [new]}, {"rhs": [old]}


_BOTH = {"lhs": [(1, 7)], "rhs": [(11, 1, 4)]}, {"lhs": [(1, 6)], "rhs": [(11, 1, 3)]}


@pytest.mark.parametrize(
    ("query", "inserts", "deletes", "entered", "left"),
    [
        pytest.param(query, *changed, entered, left, id=name)
        for name, query, changed, entered, left in [
            ("A1", A, _moved((10, 0, 2), (10, 0, 3)), [], []),
            ("A2", A, _moved((13, 3, 5), (13, 3, 6)), [], []),
            ("A3", A, _moved((10, 0, 2), (10, 0, 5)), [], [(0, 5)]),
            ("A4", A, _moved((13, 3, 5), (13, 3, 4)), [(3, 8)], []),
            ("A5", A, ({"lhs": [(5, 10)], "rhs": [(20, 5, 3)]}, {}), [(5, 10)], []),
            ("A6", A, ({"lhs": [(5, 10)], "rhs": [(20, 5, 5)]}, {}), [], []),
            ("A7", A, ({}, {"lhs": [(0, 5)], "rhs": [(10, 0, 2)]}), [], [(0, 5)]),
            ("A8", A, ({}, {"lhs": [(3, 8)], "rhs": [(13, 3, 5)]}), [], []),
            ("A9", A, _BOTH, [(1, 7)], [(1, 6)]),
            ("B1", B, _moved((10, 0, 2), (10, 0, 3)), [], []),
            ("B2", B, _moved((13, 3, 5), (13, 4, 6)), [], []),
            ("B3", B, _moved((10, 0, 2), (10, 3, 5)), [], [(0, 5)]),
            ("B4", B, _moved((13, 3, 5), (13, 2, 4)), [(2, 7)], []),
            ("B5", B, ({"lhs": [(5, 6)], "rhs": [(20, 5, 3)]}, {}), None, []),
            ("B6", B, ({"lhs": [(5, 10)], "rhs": [(20, 5, 5)]}, {}), [], []),
            ("B7", B, ({}, {"lhs": [(0, 5)], "rhs": [(10, 0, 2)]}), [], [(0, 5)]),
            ("B8", B, ({}, {"lhs": [(3, 8)], "rhs": [(13, 3, 5)]}), [], []),
            ("B9", B, _BOTH, [(1, 7)], [(1, 6)]),
        ]
    ],
)
def test_the_delta_algebra_of_the_reference(
    query: str, inserts: Rows, deletes: Rows, entered: list[Row] | None, left: list[Row]
) -> None:
    world = _world(SIDES, _SIDES_BEFORE)
    client = world.client()
    finish(client.subscribe_set(1, [query]))
    if entered is None:  # B5 as the table has it: a row of rhs has id 5 already, so lhs (5, 6) joins twice
        entered = [(5, 6), (5, 6)]
    told = _told(world, world.change(inserts, deletes), client)
    assert told == ([("lhs", entered, left)] if entered or left else [])


# Which queries are evaluated at all (spec 06 section 9, the last paragraph).


def _chosen(x: int) -> str:
    return f"select u.* from u join v on u.i = v.i where v.x = {x}"


def _choices(*, is_unique: bool) -> tuple[World, SubscriptionActor, SubscriptionActor]:
    """Return tables u and v, and two clients with the queries for x = 4 and 5, and for x = 6 and 7."""
    key: dict[str, Any] = {"primary_key": 0} if is_unique else {}
    tables: dict[str, dict[str, Any]] = {
        "u": {"columns": _u32("i", "a", "b"), "indexes": ((0,),)},
        "v": {"columns": _u32("i", "x", "y"), "indexes": ((0,), (1,)), **key},
    }
    world = _world(tables, {"u": [(i, 0, 0) for i in range(1, 5)], "v": [(i, i + 3, 0) for i in range(1, 5)]})
    first, second = world.client(ALICE), world.client(BOB)
    finish(first.subscribe_set(1, [_chosen(4), _chosen(5)]))
    finish(second.subscribe_set(1, [_chosen(6), _chosen(7)]))
    return world, first, second


def test_a_changed_partner_evaluates_the_queries_that_name_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    world, first, second = _choices(is_unique=False)
    evaluated = _count_evaluations(monkeypatch)
    delta = world.change({"v": [(2, 5, 1)]}, {"v": [(2, 5, 0)]})
    assert (_told(world, delta, first), _told(world, delta, second)) == ([], [])
    assert len(evaluated) == 2  # one, in each of the two evaluations of `_told`
    evaluated.clear()
    assert _told(world, world.insert("v", (2, 6, 6)), second) == [("u", [(2, 0, 0)], [])]
    assert len(evaluated) == 1


@pytest.mark.parametrize("is_unique", [True, False])
def test_a_changed_row_evaluates_the_queries_that_its_partners_are_in(
    is_unique: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, first, _ = _choices(is_unique=is_unique)
    evaluated = _count_evaluations(monkeypatch)
    delta = world.change({"u": [(1, 9, 9)]}, {"u": [(1, 0, 0)]})
    assert _told(world, delta, first) == [("u", [(1, 9, 9)], [(1, 0, 0)])]
    assert len(evaluated) == 1  # the reference evaluates four where v.i is not unique
    evaluated.clear()
    assert _told(world, world.insert("u", (50, 0, 0)), first) == []
    assert not evaluated


def test_a_partner_that_moves_evaluates_both_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    world, first, _ = _choices(is_unique=True)
    evaluated = _count_evaluations(monkeypatch)
    delta = world.change({"v": [(1, 5, 0)]}, {"v": [(1, 4, 0)]})
    assert _told(world, delta, first) == [("u", [], [(1, 0, 0)]), ("u", [(1, 0, 0)], [])]
    assert len(evaluated) == 2


def test_a_row_and_its_only_partner_that_go_together_are_missed_by_nobody() -> None:
    world, first, _ = _choices(is_unique=True)
    delta = world.change({}, {"u": [(1, 0, 0)], "v": [(1, 4, 0)]})
    assert _told(world, delta, first) == [("u", [], [(1, 0, 0)])]


def test_edges_of_one_shape_look_a_partner_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world, _, _ = _choices(is_unique=True)
    index = world.table("v").indexes[0]
    looked_up: list[Any] = []
    find_all = type(index).find_all

    def counting(self: Any, key: Any) -> list[bytes]:
        looked_up.append(key)
        return find_all(self, key)

    monkeypatch.setattr(type(index), "find_all", counting)
    third = world.client()
    finish(third.subscribe_set(1, [_chosen(number) for number in range(100, 200)]))
    looked_up.clear()
    assert _told(world, world.insert("u", (50, 0, 0), (50, 1, 1), (51, 0, 0)), third) == []
    assert sorted(looked_up) == [50, 51]


@pytest.mark.parametrize(("partners", "evaluations"), [(10, 0), (100, 1)])
def test_very_many_partners_are_not_looked_at_to_spare_an_evaluation(
    partners: int, evaluations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = _world(ZONES, {"zone": [(1, 1)], "actor": [(aid, 1, 7) for aid in range(partners)]})
    client = world.client()
    finish(client.subscribe_set(1, ["select z.* from zone z join actor a on z.zid = a.zid where a.hp = 5"]))
    evaluated = _count_evaluations(monkeypatch)
    assert _told(world, world.insert("zone", (1, 2)), client) == []
    assert len(evaluated) == evaluations
    assert _told(world, world.insert("actor", (999, 1, 5)), client) == [("zone", [(1, 1), (1, 2)], [])]
    assert _told(world, world.insert("zone", (1, 3)), client) == [("zone", [(1, 3)], [])]


def test_clients_with_the_same_join_share_one_evaluation_and_one_fragment(monkeypatch: pytest.MonkeyPatch) -> None:
    world = _world(ZONES, _BEFORE)
    clients = [world.client(bytes([number] * 32)) for number in range(10, 20)]
    for client in clients:
        finish(client.subscribe_set(1, ["select z.* from zone z join actor a on z.zid = a.zid"]))
    evaluated = _count_evaluations(monkeypatch)
    evaluation = world.tell(world.change({"zone": [(9, 9)], "actor": [(1, 9, 9)]}, {}))
    assert len(evaluated) == 1
    assert [actor for actor, _ in evaluation.others] == clients
    assert len({id(update) for _, update in evaluation.others}) == 1


def test_letting_go_of_joins_empties_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(JOINED)
    texts = [
        "SELECT p.* FROM item p JOIN item q ON p.id = q.id WHERE p.kind = 1 AND q.kind = 1",
        "SELECT p.* FROM item p JOIN item q ON p.id = q.id",
        "SELECT i.* FROM item i JOIN part p ON i.id = p.item WHERE p.kind = 1 OR p.kind = 2",
        "SELECT p.* FROM part p JOIN item i ON p.item = i.id WHERE i.owner = :sender AND p.kind = 1",
        "SELECT i.* FROM item i JOIN part p ON i.id = p.item WHERE p.kind = i.kind",
    ]
    clients = [world.client(), world.client(BOB)]
    for client in clients:
        finish(client.subscribe_set(1, texts))
    assert len(world.registry) == len(texts) + 1  # `:sender` is another query for each
    evaluated = _count_evaluations(monkeypatch)
    rows: Rows = {"item": [(1, ALICE, 1, 1.0)], "part": [(1, 1, 1)]}
    assert {actor for actor, _ in world.tell(world.change(rows, {})).others} == set(clients)
    assert len(evaluated) == len(world.registry)
    evaluated.clear()
    for client in clients:
        finish(client.unsubscribe_set(1))
    assert len(world.registry) == 0
    assert world.tell(world.change({}, rows)).others == []
    assert not evaluated


# What reaches a client.


def test_a_row_is_told_as_often_as_it_joins() -> None:
    """As recorded on v1, spec 06 section 5.2: 5 rows, 2 for an item joined twice, 3 in and out for a holder."""
    tables: dict[str, dict[str, Any]] = {
        "item": {"columns": _u32("id", "owner", "qty"), "primary_key": 0, "indexes": ((0,), (1,))},
        "holder": {"columns": _u32("hid", "grp"), "primary_key": 0, "indexes": ((0,), (1,))},
    }
    items = [(1, 1, 5), (2, 1, 6), (3, 2, 7)]
    world = _world(tables, {"item": items, "holder": [(1, 1), (2, 1), (3, 2)]})
    query = "SELECT item.* FROM item JOIN holder ON item.owner = holder.grp"
    client = world.client()
    first, second, third = items
    assert rows_of(world, finish(client.subscribe_multi(12, [query]))) == [
        ("item", [first, first, second, second, third], [])
    ]
    added = (4, 1, 99)
    assert _told(world, world.insert("item", added), client) == [("item", [added, added], [])]
    assert _told(world, world.insert("holder", (4, 1)), client) == [("item", [first, second, added], [])]
    assert _told(world, world.delete("holder", (4, 1)), client) == [("item", [], [first, second, added])]
    finish(client.replace_legacy([query]))
    assert _told(world, world.insert("holder", (5, 2)), client) == [("item", [third], []), ("item", [third], [])]


def test_fragments_of_joins_stand_among_the_others_by_table_and_age() -> None:
    world = _world(ZONES, _BEFORE)
    client = world.client()
    texts = [
        "select z.* from zone z join actor a on z.zid = a.zid",
        "select * from zone",
        "select a.* from zone z join actor a on z.zid = a.zid",
        "select * from actor where zid = 5",
        "select z.* from zone z join actor a on z.zid = a.zid where a.hp > 1",
    ]
    finish(client.subscribe_set(1, texts))
    update = seen_by(world.tell(world.change({"zone": [(5, 5)], "actor": [(500, 5, 5)]}, {})), client)
    assert update is not None
    (part,) = update.sets
    expected = [("actor", 1), ("actor", 1), ("zone", 1), ("zone", 1), ("zone", 1)]
    assert [(each.table_name, len(each.inserts)) for each in part.fragments] == expected
    serials = [branch.order[1] for query in world.registry.queries() for branch in query.branches]
    assert serials == sorted(serials)


EVENTS = "SELECT ping.* FROM ping JOIN link ON ping.a = link.a"
PARTNERS = "SELECT link.* FROM ping JOIN link ON ping.a = link.a WHERE ping.b < 5"


def _events(world: World, delta: Delta | None, actor: SubscriptionActor) -> list[Fragment]:
    if delta is None:
        return []
    update = seen_by(world.tell(delta), actor)
    return [] if update is None else list(update.sets[0].fragments)


def test_what_joins_with_an_event_is_an_event_too_and_never_taken_back() -> None:
    world = _world(JOINED, {"link": [(1, 1), (1, 2), (2, 1)]})
    client = world.client()
    assert finish(client.subscribe_set(1, [EVENTS, PARTNERS])) == []
    told = _events(world, world.insert("ping", (1, 3), (3, 3)), client)
    assert rows_of(world, told) == [("link", [(1, 1), (1, 2)], []), ("ping", [(1, 3), (1, 3)], [])]
    assert all(fragment.is_event for fragment in told)
    assert _events(world, world.delete("link", (1, 1)), client) == []
    assert _events(world, world.insert("link", (1, 1)), client) == []
    assert finish(client.unsubscribe_set(1)) == []


def test_an_event_joins_with_the_rows_that_its_transaction_leaves() -> None:
    world = _world(JOINED, {"link": [(1, 1)]})
    client = world.client()
    finish(client.subscribe_set(1, [EVENTS, PARTNERS]))
    told = _events(world, world.change({"ping": [(1, 3), (2, 3)], "link": [(2, 2)]}, {"link": [(1, 1)]}), client)
    assert rows_of(world, told) == [("link", [(2, 2)], []), ("ping", [(2, 3)], [])]


def test_a_private_table_is_joined_by_the_owner_alone() -> None:
    world = World(JOINED)
    owner = world.client(OWNER)
    text = "SELECT link.* FROM secret JOIN link ON secret.a = link.a"
    finish(owner.subscribe_set(1, [text]))
    (outcome,) = finish(world.client().subscribe_batch([(1, [text])]))
    assert outcome[1] == (
        f"no such table: `secret`. If the table exists, it may be marked private., executing: `{text}`"
    )
    assert _told(world, world.change({"secret": [(1, 1)], "link": [(1, 9)]}, {}), owner) == [("link", [(1, 9)], [])]
