"""SQL under random text and random conditions: always an answer or a QueryError, and always the right rows."""

import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.errors import QueryError
from stdb.sats import keys
from stdb.sql import Caller, QueryPlan, TablePlan, compile_one_off, compile_sql, compile_subscription, run_sql
from stdb.sql.cursor import words
from stdb.sql.parser import parse
from stdb.sql.predicate import evaluate
from tests.sql_schemas import cases, sql_of
from tests.subscriptions_world import ALICE, BOB, OWNER, World

CALLER = Caller(OWNER, is_owner=True)
_WORDS = sorted(
    words(
        """select * from item bag st_table where a b id owner kind size = <> < <= > >= == and or not ( ) , ; . 1 -1 0x0
        1e5 'x' '' "a" :sender true false null limit order by group having union all join inner left on using as count
        ( * ) insert into values update set delete show row_limit in between like is case when then else end cast exists
        array [ ] { } :: + / % || ! ~ @ $1 ? with recursive distinct top fetch first rows only for offset window over
        partition interval '1' date E'x' N'y' $$z$$ -- /* */ explain begin create table - min max sum avg asc desc
        nulls last all bag.a item.kind ?"""
    )
)
_token_soup = st.lists(st.sampled_from(_WORDS), max_size=30).map(" ".join)
_accepted = [sql_of(case) for case in cases()["cases"] if len(sql_of(case)) < 300]
_SIZES = [0.0, -0.0, 1.5, -2.5, float("inf"), float("nan")]


@st.composite
def _mutated(draw: st.DrawFn) -> str:
    """Return a text of the vectors with a piece of another in the place of one of its own."""
    text, other = draw(st.sampled_from(_accepted)), draw(st.sampled_from(_accepted))
    start, end = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
    piece = draw(st.integers(0, len(other)))
    return text[:start] + other[piece : piece + 20] + text[end:]


# Texts of the grammar, with a wrong piece here and there.

_names = st.sampled_from(
    ["a", "b", "x.a", "y.b", "bag.a", "id", "x.kind", "size", "owner", "n", "nothing", '"a"', "'a'", "user"]
)
_literals = st.sampled_from(
    ["0", "1", "-1", "+2.5", "1e3", "0x01", "'x'", "true", "NULL", ":sender", "$1", "1e999999999"]
)


def _extend(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = st.sampled_from(["=", "<>", "<", ">=", "AND", "OR", "+", "||", "LIKE", "IS NOT DISTINCT FROM"])
    return (
        st.tuples(inner, operators, inner).map(" ".join)
        | inner.map("({})".format)
        | inner.map("NOT {}".format)
        | st.tuples(inner, st.lists(inner, min_size=1, max_size=3).map(", ".join)).map("{0[0]} IN ({0[1]})".format)
        | inner.map("CASE WHEN {0} THEN {0} END".format)
        | st.tuples(st.sampled_from(["count", "sum", "min", "avg", "foo", "cast"]), inner).map("{0[0]}({0[1]})".format)
        | inner.map("EXISTS (SELECT a FROM bag WHERE {})".format)
    )


_expressions = st.recursive(_names | _literals, _extend, max_leaves=12)
_few = st.lists(_names | _names | st.just("a") | _expressions, min_size=1, max_size=3)


def _maybe(clause: str, inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.just("") | inner.map(f" {clause} {{}}".format)


_items = st.sampled_from(
    ["*", "x.*", "a", "x.a, y.b AS n", "count(*) AS n", "sum(a) AS n, max(b) AS m", "b, count(*) n"]
)
_calls = st.tuples(st.sampled_from(["COUNT", "SUM", "MIN", "MAX", "AVG"]), _names).map("{0[0]}({0[1]}) AS n".format)
_joined = st.tuples(_names, _names).map("bag x JOIN item y ON {0[0]} = {0[1]}".format)
_froms = st.sampled_from(["bag", "bag x", "item", "bag x JOIN bag y", "(SELECT a FROM bag) z", "st_table"]) | _joined
_selects = st.builds(
    "SELECT {} FROM {}{}{}{}{}{}".format,
    _items | _calls | st.lists(_expressions, min_size=1, max_size=2).map(", ".join),
    _froms,
    _maybe("WHERE", st.sampled_from(["a = 1", "true", "x.a = y.id OR y.owner = :sender"]) | _expressions),
    _maybe("GROUP BY", _few.map(", ".join)),
    _maybe("ORDER BY", (_few | st.just(["1", "n DESC", "a ASC"]) | st.just(["2 NULLS FIRST"])).map(", ".join)),
    _maybe("LIMIT", st.just("3") | _literals),
    _maybe("OFFSET", st.just("2") | _literals),
)
_changes = st.builds("UPDATE bag SET a = {} WHERE {}".format, _literals, _expressions) | st.builds(
    "INSERT INTO bag (a, b) VALUES ({}, {})".format, _literals, _literals
)


@st.composite
def _nearly_sql(draw: st.DrawFn) -> str:
    """Return a text of the grammar, perhaps with a token lost, doubled or replaced."""
    tokens = draw(_selects | _selects | _changes).split(" ")
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        place = draw(st.integers(0, len(tokens) - 1))
        tokens[place : place + 1] = draw(
            st.sampled_from([[], tokens[place : place + 1] * 2, [draw(st.sampled_from(_WORDS))]])
        )
        tokens = tokens or [""]
    return " ".join(tokens)


@pytest.fixture(scope="module")
def world() -> World:
    world = World()
    rows = [(number, (ALICE, BOB)[number % 2], number % 3, _SIZES[number % len(_SIZES)]) for number in range(24)]
    world.insert("item", *rows)
    world.insert("bag", *((first, second) for first in range(4) for second in range(4)))
    return world


def _answer(world: World, text: str) -> None:
    """Give a text to every surface; each answers or refuses, and soon."""
    start = time.perf_counter()
    for run in (run_sql, compile_sql, compile_one_off, compile_subscription):
        with suppress(QueryError):
            plan = run(text, world.datastore, CALLER)
            if isinstance(plan, QueryPlan):
                plan.rows(100_000)
    assert time.perf_counter() - start < 6  # some 0.2 s; what breaks takes minutes


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=200) | _token_soup | _mutated() | _nearly_sql() | _nearly_sql())
def test_any_text_is_answered_or_refused(world: World, text: str) -> None:
    _answer(world, text)


_openings = st.sampled_from(
    [
        "(",
        "[",
        "not ",
        "- ",
        "a = 1 or (",
        "a or b and a = (",
        "case when ",
        "cast(",
        "f(",
        "((",
        "exists (select * from bag where ",
    ]
)


@settings(max_examples=60, deadline=None)
@given(opening=_openings, times=st.integers(1, 4_000), tail=st.sampled_from(["a = 1", "1", ""]))
def test_nesting_never_breaks_the_interpreter(world: World, opening: str, times: int, tail: str) -> None:
    _answer(world, f"select * from bag where {opening * min(times, 49_000 // len(opening))}{tail}")


@settings(max_examples=20, deadline=None)
@given(
    link=st.sampled_from([" or a = 1", " and a = 1", " = true", " <> a", " + 1", ", a", " or (a = 1)"]),
    times=st.integers(1, 5_000),
)
def test_chains_of_any_length_are_answered(world: World, link: str, times: int) -> None:
    _answer(world, f"select * from bag where a = 1{link * min(times, 49_000 // len(link))}")


@settings(max_examples=200, deadline=None)
@given(text=_token_soup | _mutated() | _nearly_sql())
def test_what_prints_parses_to_what_prints_the_same(text: str) -> None:
    try:
        shown = str(parse(text))
    except QueryError:
        return
    try:
        again = str(parse(shown))
    except QueryError:  # statements that are kept as words only need not read again
        return
    assert str(parse(again)) == again


# Conditions.

_operators = st.sampled_from(["=", "<>", "<", "<=", ">", ">="])
_columns = {"id": "0 1 5 23 99", "kind": "0 1 2 3", "size": "0 -0 1.5 -2.5 1e999 -1e999", "owner": ":sender"}
_comparisons = (
    st.sampled_from(sorted(_columns))
    .flatmap(
        lambda column: st.tuples(st.just(column), _operators, st.sampled_from(_columns[column].split()), st.booleans())
    )
    .map(lambda drawn: f"{drawn[2]} {drawn[1]} {drawn[0]}" if drawn[3] else " ".join(drawn[:3]))
)
_conditions = st.recursive(
    _comparisons | st.sampled_from(["true", "false", "id = kind", "kind = 1 = true"]),
    lambda inner: st.tuples(st.lists(inner, min_size=2, max_size=4), st.sampled_from([" AND ", " OR ", ") = ("])).map(
        lambda drawn: "((" + f"{drawn[1] if '=' in drawn[1] else f'){drawn[1]}('}".join(drawn[0]) + "))"
    ),
    max_leaves=8,
)


def _only_table(query: QueryPlan) -> TablePlan:
    (plan,) = query.branches
    assert isinstance(plan, TablePlan)
    return plan


def _naive(plan: TablePlan) -> list[bytes]:
    assert plan.condition is not None
    row_type = plan.table.schema.row_type
    columns = [keys.row_key(row_type, (column,)) for column in range(len(row_type.elements))]
    return [row for row in plan.table.rows() if evaluate(plan.condition, [column(row) for column in columns])]


@settings(max_examples=300, deadline=None)
@given(condition=_conditions)
def test_indexes_generated_source_and_pruning_find_what_the_plain_condition_finds(world: World, condition: str) -> None:
    query = compile_one_off(f"SELECT * FROM item WHERE {condition}", world.datastore, Caller(ALICE, is_owner=False))
    plan = _only_table(query)
    wanted = sorted(_naive(plan))
    assert sorted(plan.rows()) == wanted
    assert sorted(query.rows(1_000)) == wanted
    matches: Any = plan.matches
    assert sorted(filter(matches, plan.table.rows())) == wanted
    if plan.pruning is not None:
        passing = [row for row in plan.table.rows() if plan.pruning.extract(row) in plan.pruning.keys]
        assert set(wanted) <= set(passing)
        assert sorted(row for row in passing if plan.residual is None or plan.residual(row)) == wanted


@settings(max_examples=100, deadline=None)
@given(condition=_conditions, limit=st.none() | st.integers(0, 30))
def test_sql_counts_limits_and_lists_what_a_query_finds(world: World, condition: str, limit: int | None) -> None:
    rows = [
        world.table("item").schema.codec.decode_exact(row)
        for row in _naive(
            _only_table(compile_one_off(f"SELECT * FROM item WHERE {condition}", world.datastore, CALLER))
        )
    ]
    suffix = "" if limit is None else f" LIMIT {limit}"
    listed = run_sql(f"SELECT kind, id AS n FROM item WHERE {condition}{suffix}", world.datastore, CALLER)
    assert len(listed.rows) == (len(rows) if limit is None else min(limit, len(rows)))
    assert set(listed.rows) <= {(row[2], row[0]) for row in rows}
    counted = run_sql(f"SELECT COUNT(*) AS n FROM item WHERE {condition}", world.datastore, CALLER)
    assert counted.rows == [(len(rows),)]
