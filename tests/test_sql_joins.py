"""Which joins may be subscribed to, what a join returns, what a transaction changes in it, how it is estimated."""

import tracemalloc

import pytest

from stdb.errors import QueryError
from stdb.sql import Caller, JoinPlan, Pruning, Work, compile_one_off, compile_sql, compile_subscription, join_route
from stdb.sql.work import BATCH
from tests.sql_schemas import datastore_of
from tests.subscriptions_world import ALICE, OWNER, World

OWNING = Caller(OWNER, is_owner=True)
CALLER = Caller(ALICE, is_owner=False)
NO_INDEX = "Subscriptions require indexes on join columns"
EVENTS = "Event tables cannot be used as the lookup table in subscription joins"
SELF = "SELECT p.* FROM item p JOIN item q ON p.kind = q.kind"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT p.* FROM item p JOIN item q ON p.id = q.id", None),
        ("SELECT p.* FROM item p JOIN item q ON q.id = p.kind", None),
        ("SELECT p.* FROM item p JOIN item q ON p.id = p.kind", NO_INDEX),
        (SELF, NO_INDEX),
        (f"{SELF} WHERE p.size > 1 AND q.owner = :sender", None),  # (owner, kind) with the owner fixed
        (f"{SELF} WHERE p.size > 1 AND :sender = q.owner", None),
        (f"{SELF} WHERE (p.size > 1 AND q.owner = :sender) AND q.size > 1", None),  # parentheses mean nothing
        (f"{SELF} WHERE p.size > 1 AND (q.size > 1 AND (q.size < 9 AND q.owner = :sender))", None),
        (f"{SELF} WHERE p.size > 1 AND q.owner > :sender", NO_INDEX),
        (f"{SELF} WHERE q.owner = :sender", NO_INDEX),  # the filtered side drives
        (f"{SELF} WHERE p.owner = :sender", NO_INDEX),
        (f"{SELF} WHERE p.size > 1 OR q.owner = :sender", NO_INDEX),
        ("SELECT p.* FROM item p JOIN item q", NO_INDEX),
        ("SELECT p.* FROM item p CROSS JOIN item q WHERE p.id = q.id", NO_INDEX),
        ("SELECT bag.* FROM bag JOIN ping ON bag.a = ping.a", EVENTS),
        ("SELECT bag.* FROM bag JOIN ping ON bag.a = ping.a WHERE ping.b = 1", NO_INDEX),
        (
            "SELECT p.* FROM item p JOIN item q ON p.id = q.id JOIN item r ON q.id = r.id",
            "Invalid number of tables in subscription: 3",
        ),
    ],
)
def test_a_join_is_judged_by_its_indexes(text: str, message: str | None) -> None:
    datastore = World().datastore
    if message is None:
        assert len(compile_subscription(text, datastore, CALLER).tables) == 2
    else:
        with pytest.raises(QueryError) as refusal:
            compile_subscription(text, datastore, CALLER)
        assert str(refusal.value) == message
    assert len(compile_one_off(text, datastore, CALLER).tables) >= 2  # a one-off query needs no index


# Running.


@pytest.fixture(scope="module")
def world() -> World:
    world = World()
    world.insert("item", *((number, ALICE, number % 3, float(number)) for number in range(3_000)))
    world.insert("bag", *((number % 256, number // 256) for number in range(2_000)))
    return world


def _plan(world: World, text: str) -> JoinPlan:
    (plan,) = compile_one_off(text, world.datastore, OWNING).branches
    assert isinstance(plan, JoinPlan)
    return plan


@pytest.mark.parametrize(
    "text",
    [
        "SELECT p.* FROM item p JOIN item q ON p.id = q.id",  # by an index
        "SELECT b.* FROM bag b JOIN bag c ON b.a = c.a",  # by a temporary index
        "SELECT b.* FROM bag b JOIN bag c WHERE b.a < c.b",  # by nested loops
        "SELECT b.* FROM bag b JOIN bag c WHERE b.a > 254 AND b.b > 200",  # to no end
        "SELECT b.* FROM bag b JOIN bag c ON b.a = c.a WHERE b.b = 1 AND c.b > 6",
    ],
)
def test_a_join_can_be_paused_every_thousand_rows_and_is_bounded(world: World, text: str) -> None:
    work = Work()
    before = largest = rows = 0
    for batch in _plan(world, text).batches(work):
        largest = max(largest, work.spent - before)
        before = work.spent
        rows += len(batch)
    assert largest <= 5 * BATCH  # a batch read and found, and one looked up, found and handed over for it
    assert work.spent >= rows
    with pytest.raises(QueryError, match="visits and returns more than"):
        for _ in _plan(world, text).batches(Work(work.spent - 1)):
            pass


def test_an_index_is_used_where_there_is_one(world: World) -> None:
    work = Work()
    text = "SELECT p.* FROM item p JOIN item q ON p.kind = q.id WHERE p.id = 7"
    assert sum(len(batch) for batch in _plan(world, text).batches(work)) == 1
    assert work.spent < 10
    work = Work()
    text = "SELECT q.* FROM bag b JOIN item p JOIN item q ON q.id = p.id WHERE p.id = 3"
    assert sum(len(batch) for batch in _plan(world, text).batches(work)) == 2_000
    assert work.spent < 12_000


def test_what_an_equality_implies_finds_rows_by_index_on_both_sides(world: World) -> None:
    plan = _plan(world, "SELECT p.* FROM item p JOIN item q ON p.kind = q.id WHERE q.id = 2")
    triggers = plan.triggers
    assert [isinstance(each, Pruning) and each.columns for each in triggers] == [(2,), (0,)]


def test_a_join_of_very_many_tables_is_answered(world: World) -> None:
    tables = 1_200
    joins = " ".join(f"JOIN item t{place} ON t{place}.id = t{place - 1}.id" for place in range(1, tables))
    plan = _plan(world, f"SELECT t0.* FROM item t0 {joins} WHERE t0.id = 5")
    assert sum(len(batch) for batch in plan.batches(Work())) == 1


def test_the_rows_so_far_of_very_long_joins_take_little_memory(world: World) -> None:
    joins = " ".join(f"JOIN bag b{place}" for place in range(300))
    plan = _plan(world, f"SELECT bag.* FROM bag {joins}")
    tracemalloc.start()
    try:
        with pytest.raises(QueryError):
            for _ in plan.batches(Work(400_000)):
                pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 << 20


def test_joined_rows_of_very_many_tables_count_for_more_than_one(world: World) -> None:
    relations = " ".join(f"JOIN bag b{place}" for place in range(1, 640))
    text = f"SELECT b0.* FROM bag b0 {relations} WHERE b0.a = 1"
    work = Work()
    batches = _plan(world, text).batches(work)
    rows, first = 0, 0
    while rows < 20_000:
        first = first or (rows and work.spent)  # what it takes to get to the first row is another matter
        rows += len(next(batches))
    assert work.spent - first >= 9 * rows


def test_a_join_without_an_index_holds_a_bounded_number_of_rows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join_route, "HASHED_ROWS_MAX", 1_999)
    with pytest.raises(QueryError, match="create an index on the join column"):
        for _ in _plan(world, "SELECT b.* FROM bag b JOIN bag c ON b.a = c.a").batches(Work()):
            pass


def test_a_condition_that_never_holds_returns_and_changes_nothing(world: World) -> None:
    plan = _plan(world, "SELECT p.* FROM item p JOIN item q ON p.id = q.id WHERE false")
    assert [row for batch in plan.batches(Work()) for row in batch] == []
    delta = world.insert("item", (9_999, ALICE, 1, 1.0))
    assert delta is not None
    assert plan.changes({each.table.schema.id: each for each in delta.tables}) == ([], [])
    world.delete("item", (9_999, ALICE, 1, 1.0))


def test_estimates_of_joins_are_those_that_were_seen() -> None:
    datastore = datastore_of("kitchen")
    for text, estimate in {
        "select p.* from person p join person q on p.id = q.id": 6,
        "select p.* from person p join person q on p.age = q.age": 3 + 3 * (3 // 2),
        "select p.* from plain p join plain q on p.a = q.a": 3 + 3 + 9,
        "select p.* from plain p join plain q": 3 + 3 + 9,
    }.items():
        assert compile_sql(text, datastore, OWNING).estimate() == estimate, text


def test_events_that_join_events_come_and_never_go(world: World) -> None:
    plan = _plan(world, "SELECT p.* FROM ping p JOIN ping q ON p.a = q.a")
    delta = world.insert("ping", (1, 1), (1, 2), (2, 3))
    assert delta is not None
    inserts, deletes = plan.changes({each.table.schema.id: each for each in delta.tables})
    assert sorted(inserts) == sorted(world.encode("ping", *row) for row in [(1, 1), (1, 1), (1, 2), (1, 2), (2, 3)])
    assert deletes == []
