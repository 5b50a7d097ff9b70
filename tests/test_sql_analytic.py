"""GROUP BY, aggregates, ORDER BY and OFFSET: what is accepted, with which types, rows, bounds and refusals."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.errors import QueryError
from stdb.sats import types as t
from stdb.sql import Caller, compile_sql, ordering, run_sql
from stdb.sql import aggregates as aggregates_module
from stdb.sql import held as held_module
from stdb.sql.analytic import Tail
from stdb.sql.binder import bind_select
from stdb.sql.held import Held
from stdb.sql.ordering import OrderColumn, Sorter
from stdb.sql.parser import parse
from stdb.sql.shape import sql_shape
from stdb.sql.shapes import SelectShape
from stdb.sql.work import BATCH, Work, finish
from tests.subscriptions_world import ALICE, BOB, OWNER, World

CALLER = Caller(OWNER, is_owner=True)
I256_MAX = (1 << 255) - 1
PAIR = t.Product((t.Element("x", t.U8), t.Element("y", t.STRING)))
KINDS = t.Sum((t.Element("red", t.UNIT), t.Element("blue", t.U8)))
TABLES: dict[str, dict[str, Any]] = {
    "numbers": {
        "columns": {kind.value.lower(): t.Scalar(kind) for kind in t.ScalarKind if kind is not t.ScalarKind.BOOL}
        | {"yes": t.BOOL, "raw": t.BYTES, "who": t.IDENTITY, "at": t.TIMESTAMP}
    },
    "mixed": {
        "columns": {"id": t.U32, "pair": PAIR, "kind": KINDS, "maybe": t.option(t.U8), "list": t.Array(t.I8)},
        "primary_key": 0,
        "indexes": ((0,),),
    },
    "line": {"columns": {"n": t.U32, "half": t.U32, "word": t.STRING}},
}
MIXED = [
    (1, (1, "a"), (0, ()), None, [1]),
    (2, (1, "b"), (1, 7), 3, [1, 2]),
    (3, (1, "a"), (1, 5), 3, []),
    (4, (0, "z"), (0, ()), 4, [1]),
    (5, (1, "a"), (1, 7), None, [-1]),
]
LINES = [(number, number // 2, f"w{number % 7}") for number in range(2_500)]


@pytest.fixture(scope="module")
def world() -> World:
    world = World(TABLES)
    world.insert("mixed", *MIXED)
    world.insert("line", *LINES)
    return world


def _rows(world: World, text: str) -> list[tuple[Any, ...]]:
    return run_sql(text, world.datastore, CALLER).rows


def _refusal(world: World, text: str) -> str:
    with pytest.raises(QueryError) as refusal:
        run_sql(text, world.datastore, CALLER)
    return str(refusal.value)


# Types.


@pytest.mark.parametrize(
    ("function", "columns", "type_"),
    [
        ("sum", "i8 i16 i32 i64", t.I128),
        ("sum", "u8 u16 u32 u64", t.U128),
        ("sum", "i128 i256", t.I256),
        ("sum", "u128 u256", t.U256),
        ("sum", "f32 f64", t.F64),
        ("avg", "i8 i16 i32 i64 i128 i256 u8 u16 u32 u64 u128 u256 f32 f64", t.F64),
        ("count", "i8 string raw", t.U64),
    ],
)
def test_an_aggregate_has_a_type_wide_enough(world: World, function: str, columns: str, type_: t.AlgebraicType) -> None:
    for column in columns.split():
        text = f"SELECT {function}({column}) AS x FROM numbers"
        alone, grouped = (
            compile_sql(each, world.datastore, CALLER).row_type.elements[0].type  # type: ignore[union-attr]
            for each in (text, f"{text} GROUP BY yes")
        )
        assert grouped == type_
        assert alone == (t.option(type_) if function == "avg" else type_)


@pytest.mark.parametrize("function", ["min", "max"])
def test_the_least_and_greatest_have_the_type_of_their_column(world: World, function: str) -> None:
    for column, type_ in TABLES["numbers"]["columns"].items():
        text = f"SELECT {function}({column}) AS x FROM numbers"
        assert run_sql(text, world.datastore, CALLER).row_type.elements == (t.Element("x", t.option(type_)),)
        grouped = run_sql(f"{text} GROUP BY u8", world.datastore, CALLER)
        assert grouped.row_type.elements == (t.Element("x", type_),)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("sum(string)", "Invalid aggregate `SUM` for type `String`"),
        ("avg(yes)", "Invalid aggregate `AVG` for type `Bool`"),
        ("sum(at)", "Invalid aggregate `SUM` for type `(__timestamp_micros_since_unix_epoch__: I64)`"),
        ("sum(raw)", "Invalid aggregate `SUM` for type `Array<U8>`"),
        ("sum(*)", "Unsupported aggregate function: sum(*)"),
        ("sum(distinct u8)", "Unsupported aggregate function: sum(DISTINCT u8)"),
        ("count(1)", "Unsupported aggregate function: count(1)"),
        ("total(u8)", "Unsupported aggregate function: total(u8)"),
        ('"sum"(u8)', 'Unsupported aggregate function: "sum"(u8)'),
        ("sum(u8) over ()", "Unsupported aggregate function: sum(u8) OVER ()"),
        ("sum(u8) filter (where yes)", "Unsupported projection expression: sum(u8) FILTER (WHERE yes)"),
        ("sum(nothing)", "`nothing` is not in scope"),
    ],
)
@pytest.mark.parametrize("tail", ["", " GROUP BY u16"])
def test_an_aggregate_that_means_nothing_is_refused(world: World, call: str, message: str, tail: str) -> None:
    assert _refusal(world, f"SELECT {call} AS x FROM numbers{tail}") == message


@pytest.mark.parametrize("column", ["pair", "kind", "list"])
def test_what_cannot_be_compared_has_no_least(world: World, column: str) -> None:
    assert _refusal(world, f"SELECT MIN({column}) AS x FROM mixed").startswith("Invalid aggregate `MIN` for type `")


# Rows.


def test_no_rows_are_one_group_without_group_by_and_none_with(world: World) -> None:
    items = "COUNT(u8) AS c, COUNT(DISTINCT u8) AS d, SUM(u8) AS s, SUM(f64) AS f, MIN(u8) AS lo, AVG(u8) AS av"
    assert _rows(world, f"SELECT {items} FROM numbers") == [(0, 0, 0, 0.0, None, None)]
    assert _rows(world, f"SELECT {items} FROM numbers LIMIT 1 OFFSET 1") == []
    assert _rows(world, f"SELECT {items} FROM numbers LIMIT 0") == []
    assert _rows(world, f"SELECT {items} FROM numbers GROUP BY i8") == []


@pytest.mark.parametrize(
    ("column", "groups"),
    [
        ("pair", [((0, "z"), 1), ((1, "a"), 3), ((1, "b"), 1)]),
        ("kind", [((0, ()), 2), ((1, 5), 1), ((1, 7), 2)]),
        ("maybe", [(3, 2), (4, 1), (None, 2)]),
        ("list", [([], 1), ([-1], 1), ([1], 2), ([1, 2], 1)]),
    ],
)
def test_rows_are_grouped_and_ordered_by_values_of_any_type(world: World, column: str, groups: list[Any]) -> None:
    text = f"SELECT {column}, COUNT(*) AS n FROM mixed GROUP BY {column} ORDER BY {column}"
    assert _rows(world, text) == groups
    assert _rows(world, f"{text} DESC") == groups[::-1]
    ordered = [each for each, count in groups for _ in range(count)]
    assert [value for (value,) in _rows(world, f"SELECT {column} AS v FROM mixed ORDER BY v")] == ordered


def test_count_of_a_column_counts_values_that_are_there(world: World) -> None:
    assert _rows(world, "SELECT COUNT(maybe) AS n, COUNT(DISTINCT maybe) AS d FROM mixed") == [(3, 2)]
    assert _rows(world, "SELECT COUNT(pair) AS n, COUNT(DISTINCT pair) AS d FROM mixed") == [(5, 3)]


def test_directions_mix_and_equal_rows_keep_their_order(world: World) -> None:
    rows = _rows(world, "SELECT pair, id FROM mixed ORDER BY pair, id DESC")
    assert [number for _, number in rows] == [4, 5, 3, 1, 2]
    rows = _rows(world, "SELECT id, list FROM mixed ORDER BY list DESC, pair, 1 DESC")
    assert [number for number, _ in rows] == [2, 4, 1, 5, 3]


def test_a_name_of_the_result_hides_a_column(world: World) -> None:
    rows = _rows(world, "SELECT half AS n, n AS half FROM line WHERE n < 4 ORDER BY half DESC")
    assert rows == [(1, 3), (1, 2), (0, 1), (0, 0)]
    rows = _rows(world, "SELECT half AS n, n AS half FROM line WHERE n < 4 ORDER BY line.half, line.n DESC")
    assert rows == [(0, 1), (0, 0), (1, 3), (1, 2)]


def test_groups_are_ordered_by_what_is_grouped_though_not_listed(world: World) -> None:
    text = "SELECT COUNT(*) AS c FROM line WHERE n < 10 GROUP BY word, half ORDER BY word DESC, half LIMIT 2 OFFSET 1"
    assert _rows(world, text) == [(1,), (1,)]
    assert _rows(world, "SELECT MAX(n) AS m FROM line GROUP BY word ORDER BY line.word LIMIT 2") == [(2_499,), (2_493,)]


def test_aggregates_of_joined_rows(world: World) -> None:
    text = """SELECT l.word, COUNT(*) AS c, SUM(m.id) AS s FROM mixed m JOIN line l ON m.id = l.half
        GROUP BY l.word ORDER BY s DESC, l.word LIMIT 3 OFFSET 1"""
    pairs = [(word, number) for n, half, word in LINES for number, *_ in MIXED if number == half]
    sums = {word: [number for each, number in pairs if each == word] for word, _ in pairs}
    wanted = sorted(((word, len(found), sum(found)) for word, found in sums.items()), key=lambda row: (-row[2], row[0]))
    assert _rows(world, text) == wanted[1:4]


def test_a_sum_beyond_its_type_is_refused() -> None:
    world = World({"big": {"columns": {"id": t.U8, "value": t.I256, "other": t.U256}}})
    world.insert("big", (1, I256_MAX, 2**256 - 1), (2, 1, 0))
    assert _rows(world, "SELECT SUM(other) AS s FROM big") == [(2**256 - 1,)]
    assert _refusal(world, "SELECT SUM(value) AS s FROM big").startswith("A sum does not fit its type `I256`")
    assert _rows(world, "SELECT SUM(value) AS s FROM big WHERE id = 1") == [(I256_MAX,)]


# Refusals.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT n FROM line GROUP BY half", "`n` is not grouped; name it in GROUP BY or in an aggregate"),
        (
            "SELECT half FROM line GROUP BY half ORDER BY n",
            "`n` is not grouped; name it in GROUP BY or in an aggregate",
        ),
        ("SELECT COUNT(*) AS c FROM line ORDER BY n", "`n` is not grouped; name it in GROUP BY or in an aggregate"),
        ("SELECT * FROM line GROUP BY n", "SELECT * is not supported with GROUP BY; list the grouped columns"),
        ("SELECT SUM(n) FROM line", "Aggregate expressions must have column aliases"),
        ("SELECT half, SUM(n) AS s FROM line", "Unsupported projection expression: SUM(n)"),
        ("SELECT half, SUM(n) AS half FROM line GROUP BY half", "Duplicate name `half`"),
        ("SELECT half FROM line GROUP BY 1", "Unsupported GROUP BY expression: 1; GROUP BY takes columns"),
        ("SELECT n FROM line ORDER BY 2", "ORDER BY position 2 is not in the select list; it has 1 columns"),
        ("SELECT n FROM line ORDER BY 0", "ORDER BY position 0 is not in the select list; it has 1 columns"),
        ("SELECT n FROM line ORDER BY nothing", "`nothing` is not in scope"),
        (
            "SELECT n FROM line ORDER BY n + 1",
            "Unsupported ORDER BY expression: n + 1; ORDER BY takes columns, names of the result and positions in it",
        ),
        (
            "SELECT n FROM line ORDER BY n NULLS LAST",
            "Unsupported: SELECT n FROM line ORDER BY n NULLS LAST; no value is null, leave NULLS LAST out",
        ),
        ("SELECT l.n FROM line l JOIN mixed m ORDER BY half", "Names must be qualified when using joins"),
        ("SELECT l.n FROM line l JOIN mixed m GROUP BY n", "Names must be qualified when using joins"),
        ("SELECT n FROM line OFFSET -1", "Unsupported: SELECT n FROM line OFFSET -1"),
        ("SELECT n FROM line OFFSET 1.5", "The literal expression `1.5` cannot be parsed as type `U64`"),
        ("SELECT n FROM line GROUP BY n HAVING n > 1", "Unsupported: SELECT n FROM line GROUP BY n HAVING n > 1"),
        ("SELECT n FROM line GROUP BY ALL", "Unsupported: SELECT n FROM line GROUP BY ALL"),
        ("SELECT DISTINCT n FROM line ORDER BY n", "Unsupported: SELECT DISTINCT n FROM line ORDER BY n"),
        (
            "SELECT n FROM line ORDER BY n FETCH FIRST 1 ROW ONLY",
            "Unsupported: SELECT n FROM line ORDER BY n FETCH FIRST 1 ROWS ONLY",
        ),
        (
            "SELECT COUNT(DISTINCT id) AS c FROM mixed",
            "Unsupported aggregate function: COUNT(DISTINCT id); the column is unique, use count(*)",
        ),
    ],
)
def test_what_is_not_run_is_refused_and_says_why(world: World, text: str, message: str) -> None:
    assert _refusal(world, text) == message


# Batches, pauses, bounds.


def _tail(world: World, text: str) -> Tail:
    shape = sql_shape(parse(text))
    assert isinstance(shape, SelectShape)
    return Tail(bind_select(shape, world.datastore, CALLER))


def _batches(world: World, size: int, taken: list[int]) -> Iterator[list[tuple[bytes, ...]]]:
    rows: Iterator[tuple[bytes, ...]] = iter([(row,) for row in world.table("line").rows()])
    yield []
    while batch := list(islice(rows, size)):
        taken.append(len(batch))
        yield batch


@pytest.mark.parametrize("size", [1, 7, 1_000])
@pytest.mark.parametrize(("limit", "offset"), [(0, 0), (1, 0), (10, 5), (10, 2_495), (5_000, 0), (3, 5_000)])
def test_limit_and_offset_hold_over_batches_and_ask_for_no_more(
    world: World, size: int, limit: int, offset: int
) -> None:
    taken: list[int] = []
    tail = _tail(world, f"SELECT n FROM line LIMIT {limit} OFFSET {offset}")
    work = Work()
    rows = finish(tail.steps(_batches(world, size, taken), work))
    assert rows == [(n,) for n, _, _ in LINES[offset : offset + limit]]
    assert work.spent == len(rows)
    wanted = min(offset + limit, len(LINES)) if limit else 0
    assert sum(taken) <= -(-wanted // size) * size


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM line",
        "SELECT COUNT(*) AS c FROM line",
        "SELECT word, COUNT(*) AS c FROM line GROUP BY word",
        "SELECT n FROM line ORDER BY word, n",
        "SELECT n FROM line ORDER BY word, n LIMIT 3",
    ],
)
def test_there_is_a_pause_after_every_batch(world: World, text: str) -> None:
    taken: list[int] = []
    steps = _tail(world, text).steps(_batches(world, 100, taken), Work())
    for batches in range(20):
        next(steps)
        assert len(taken) <= batches + 1
    assert finish(steps)


def test_a_long_order_is_handed_over_in_parts_with_pauses(world: World) -> None:
    tail = _tail(world, "SELECT n FROM line ORDER BY half DESC, n")
    steps = tail.steps(_batches(world, BATCH, []), Work())
    pauses = sum(1 for _ in steps)
    assert pauses == 4 + 3  # four batches in (an empty one first), three parts out


def test_produced_rows_are_work(world: World) -> None:
    for text in ("SELECT n FROM line", "SELECT n FROM line ORDER BY word", "SELECT n FROM line GROUP BY n"):
        with pytest.raises(QueryError, match="visits and returns more than 2499 rows"):
            finish(_tail(world, text).steps(_batches(world, 100, []), Work(2_499)))
        assert len(finish(_tail(world, text).steps(_batches(world, 100, []), Work(2_500)))) == 2_500


def test_what_is_held_has_bounds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering, "HELD_ROWS_MAX", 2_000)
    monkeypatch.setattr(ordering, "KEEP_MAX", 1_000)
    monkeypatch.setattr(ordering, "RUN", 200)
    monkeypatch.setattr(aggregates_module, "HELD_ROWS_MAX", 2_000)
    assert _refusal(world, "SELECT n FROM line ORDER BY n") == (
        "ORDER BY would hold more than 2000 rows; narrow it with WHERE or take at most 1000 rows with LIMIT"
    )
    assert _rows(world, "SELECT n FROM line ORDER BY n DESC LIMIT 2") == [(2_499,), (2_498,)]
    assert _refusal(world, "SELECT n FROM line ORDER BY n LIMIT 1001").startswith("ORDER BY would hold more than")
    many = "GROUP BY would hold more than 2000 rows; group by fewer columns or narrow it with WHERE"
    assert _refusal(world, "SELECT n FROM line GROUP BY n") == many
    assert _refusal(world, "SELECT COUNT(DISTINCT n) AS d FROM line") == many
    assert len(_rows(world, "SELECT half FROM line GROUP BY half")) == 1_250


def test_what_is_held_is_bounded_in_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    row = len(next(iter(world.table("line").rows())))
    monkeypatch.setattr(held_module, "RESULT_BYTES_MAX", 1_000 * (row + 64))
    assert _refusal(world, "SELECT n FROM line") == (
        f"The result has more than {1_000 * (row + 64)} bytes, in 2000 rows; narrow it with WHERE or LIMIT"
    )
    assert _refusal(world, "SELECT n FROM line ORDER BY n").startswith("ORDER BY would hold more than")
    assert _refusal(world, "SELECT n FROM line GROUP BY n").startswith("GROUP BY would hold more than")
    assert len(_rows(world, "SELECT n FROM line LIMIT 1000")) == 1_000
    assert len(_rows(world, "SELECT half FROM line WHERE half < 900 GROUP BY half")) == 900
    listed = ", ".join(f"word AS w{place}" for place in range(100))
    assert _refusal(world, f"SELECT {listed} FROM line LIMIT 500").startswith("The result has more than")


def test_held_counts_both_ways() -> None:
    held = Held("It has", 2, "stop")
    held.add(2, 100)
    held.add(-1, -50)
    held.add(1, 0)
    with pytest.raises(QueryError, match="It has more than 2 rows; stop"):
        held.add(1, 0)


def _column(place: int, is_descending: bool, is_number: bool) -> OrderColumn:
    return OrderColumn(lambda batch: [row[place] for row in batch], is_descending, is_number)


@settings(max_examples=200, deadline=None)
@given(
    batches=st.lists(st.lists(st.tuples(st.integers(0, 3), st.text("ab", max_size=2)), max_size=9), max_size=12),
    columns=st.lists(st.tuples(st.integers(0, 1), st.booleans()), min_size=1, max_size=3),
    keep=st.none() | st.integers(1, 12),
)
def test_rows_come_sorted_however_they_went_in(
    batches: list[list[tuple[int, str]]], columns: list[tuple[int, bool]], keep: int | None
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordering, "RUN", 3)
        patch.setattr(ordering, "BATCH", 4)
        sorter: Sorter[tuple[int, str]] = Sorter(
            [_column(place, is_descending, place == 0) for place, is_descending in columns], keep, len
        )
        for batch in batches:
            for _ in sorter.add(batch):
                pass
        found = [row for batch in sorter.batches() for row in batch]
    wanted = [row for batch in batches for row in batch]
    for place, is_descending in reversed(columns):
        wanted.sort(key=lambda row, place=place: row[place], reverse=is_descending)  # type: ignore[misc]
    assert found[:keep] == wanted[:keep]
    if keep is not None:
        assert len(found) <= 2 * keep + 3 + 9


def test_an_order_by_everything_groups_the_rows_of_two_owners(world: World) -> None:
    other = World()
    other.insert("item", *((number, (ALICE, BOB)[number % 2], number % 3, 0.5 * number) for number in range(6)))
    rows = _rows(other, "SELECT owner, MAX(size) AS m, MIN(id) AS i FROM item GROUP BY owner ORDER BY m DESC")
    assert rows == [(BOB, 2.5, 1), (ALICE, 2.0, 0)]
