"""What queries cost grows with what they return or what changed, not with the tables or with other people's queries."""

import timeit
from collections.abc import Callable
from functools import partial

import pytest

from bench import joins
from bench.subscriptions import own_rows, owner_changes
from bench.tables import CLIENT, OWNER, Tables, rows_seen
from stdb.sql import Caller, compile_sql, compile_subscription
from stdb.sql.statement import SelectStatement
from stdb.sql.work import Work, finish

SMALL, LARGE = joins.ROWS_QUICK
FLAT_BELOW = 5
"""A cost that is proportional is 10 times here; what it is at most when it is not, on a busy machine."""
CASES = (joins.STAYING, joins.PARTNER, joins.LOOKED_UP, joins.ARRIVING)


@pytest.fixture(scope="module")
def grids() -> dict[int, Tables]:
    return {rows: joins.grid(rows) for rows in (SMALL, LARGE)}


def seconds_of(call: Callable[[], object]) -> float:
    """Return what a call takes when nothing else runs, as nearly as can be told."""
    return min(timeit.repeat(call, number=3, repeat=20)) / 3


def evaluation_seconds(tables: Tables, case: joins.Case, subscriptions: int) -> float:
    """Return what the evaluation of all changes of a case takes."""
    registry = joins.subscribed(tables, case, subscriptions)
    deltas = joins.changes(tables, case)
    return seconds_of(lambda: [registry.evaluate(delta) for delta in deltas])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_changed_row_of_a_join_costs_the_same_beside_ten_times_as_many_rows(
    grids: dict[int, Tables], case: joins.Case
) -> None:
    small, large = (evaluation_seconds(tables, case, 1) for tables in grids.values())
    assert large < FLAT_BELOW * small


@pytest.mark.parametrize("case", [joins.STAYING, joins.LOOKED_UP], ids=lambda case: case.name)
def test_a_changed_row_costs_the_same_beside_a_hundred_times_as_many_joins(
    grids: dict[int, Tables], case: joins.Case
) -> None:
    few, many = (evaluation_seconds(grids[LARGE], case, count) for count in (10, 1_000))
    assert many < FLAT_BELOW * few


def test_a_changed_row_costs_the_same_beside_ten_times_as_many_owners() -> None:
    few, many = (seconds_of(partial(_change_of_one_owner, own_rows(clients))) for clients in (100, 1_000))
    assert many < FLAT_BELOW * few


def _change_of_one_owner(tables: Tables) -> None:
    """Change rows of a few owners and tell them."""
    for delta in owner_changes(tables):
        assert rows_seen(tables.registry.evaluate(delta)) == 2


@pytest.mark.parametrize("query", [joins.PLAYERS, joins.FOOTPRINTS])
def test_the_first_rows_of_a_join_visit_their_partners_alone(grids: dict[int, Tables], query: str) -> None:
    spent = []
    for tables in grids.values():
        work = Work()
        plan = compile_subscription(query.format(3), tables.datastore, Caller(CLIENT, False))
        assert sum(map(len, plan.batches(work))) == joins.PER_CHUNK
        spent.append(work.spent)
    assert spent[0] == spent[1] <= 4 * joins.PER_CHUNK


@pytest.mark.parametrize(
    ("query", "rows_visited_max"),
    [
        ("SELECT * FROM player LIMIT 10", 2_000),
        ("SELECT p.id FROM player p JOIN footprint f ON p.id = f.player LIMIT 10", 10_000),
        ("SELECT * FROM player ORDER BY x LIMIT 10", LARGE + 2_000),
        ("SELECT * FROM player WHERE id = 7", 10),
        ("SELECT COUNT(*) AS n FROM player", 0),
    ],
)
def test_a_query_visits_what_it_must(grids: dict[int, Tables], query: str, rows_visited_max: int) -> None:
    work, statement = Work(), compile_sql(query, grids[LARGE].datastore, Caller(OWNER, True))
    assert isinstance(statement, SelectStatement)
    finish(statement.steps(work))
    assert work.spent <= rows_visited_max
