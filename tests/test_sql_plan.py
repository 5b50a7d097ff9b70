import pytest

from stdb.errors import QueryError
from stdb.sats import types as t
from stdb.sql import Caller, SelectStatement, TablePlan, Work, compile_one_off, compile_sql, quote_name, run_sql
from tests.sql_schemas import datastore_of
from tests.subscriptions_world import ALICE, BOB, OWNER, World

OWNING, ANYONE = Caller(OWNER, is_owner=True), Caller(ALICE, is_owner=False)


@pytest.fixture(scope="module")
def world() -> World:
    world = World()
    world.insert("item", *((number, (ALICE, BOB)[number % 2], number % 4, float(number)) for number in range(40)))
    return world


def _plan(world: World, condition: str) -> TablePlan:
    (plan,) = compile_one_off(f"SELECT * FROM item WHERE {condition}", world.datastore, ANYONE).branches
    assert isinstance(plan, TablePlan)
    return plan


@pytest.mark.parametrize(
    ("condition", "estimate", "found"),
    [
        ("id = 7", 1, 1),
        ("7 = id", 1, 1),
        ("owner = :sender", 20, 20),
        ("owner = :sender AND size > 3", 40, 18),
        ("kind = 1 AND id = 5", 2, 1),
        ("id > 30", 80, 9),
        ("size = 3", 80, 1),
        ("id = 1 OR id = 2", 80, 2),
        ("id = 1 OR kind = 2", 80, 11),
        ("kind = 3 AND id >= 30", 80, 3),
        ("30 <= id AND id < 33", 80, 3),
        ("id > 33 AND id < 30", 80, 0),
        ("id = 7 AND id = 8", 2, 0),
        ("false", 80, 0),
        ("true", 80, 40),
        ("(id = 3) = (kind = 3)", 80, 31),
    ],
)
def test_a_plan_estimates_as_the_reference_and_finds_the_rows(
    world: World, condition: str, estimate: int, found: int
) -> None:
    plan = _plan(world, condition)
    assert (plan.estimate(), len(plan.rows())) == (estimate, found)


def test_estimates_are_those_that_were_seen() -> None:
    datastore = datastore_of("kitchen")
    for text, estimate in {
        "select * from person": 3,
        "select * from person limit 2": 2,
        "select count(*) as n from person limit 2": 3,
        "select * from person where id = 1": 1,
        "select * from person where age = 30": 1,
        "select * from person where name = 'Ann'": 6,
        "select * from person where name = 'Ann' and age = 30": 1,
        "select * from person where age > 5": 6,
        "select * from nums where id = 1": 0,
    }.items():
        assert compile_sql(text, datastore, OWNING).estimate() == estimate, text


@pytest.mark.parametrize(
    ("text", "estimate"),
    [
        ("SELECT * FROM item LIMIT 2", 2),
        ("SELECT * FROM item LIMIT 2 OFFSET 5", 7),
        ("SELECT id FROM item LIMIT 0 OFFSET 5", 5),
        ("SELECT * FROM item OFFSET 5", 40),
        ("SELECT * FROM item LIMIT 30 OFFSET 30", 40),
        ("SELECT * FROM item ORDER BY size LIMIT 2", 40),
        ("SELECT id FROM item ORDER BY size LIMIT 2 OFFSET 1", 40),
        ("SELECT SUM(size) AS n FROM item LIMIT 1", 40),
        ("SELECT kind, COUNT(*) AS n FROM item GROUP BY kind LIMIT 1", 40),
        ("SELECT COUNT(*) AS n FROM item LIMIT 1", 40),
    ],
)
def test_a_limit_lowers_the_estimate_only_where_it_spares_rows(world: World, text: str, estimate: int) -> None:
    statement = compile_sql(text, world.datastore, ANYONE)
    assert isinstance(statement, SelectStatement)
    assert statement.estimate() == estimate


@pytest.mark.parametrize(
    ("condition", "columns", "keys", "is_exact"),
    [
        ("id = 7", (0,), {7}, True),
        ("id = 7 AND kind = 1", (0, 2), {(7, 1)}, True),
        ("id = 7 AND kind > 1", (0,), {7}, False),
        ("id = 7 OR id = 8", (0,), {7, 8}, True),
        ("(id = 7 AND kind = 1) OR (kind = 2 AND id = 3)", (0, 2), {(7, 1), (3, 2)}, True),
        ("(id = 7 AND kind = 1) OR id = 3", (0,), {7, 3}, False),
        ("(id = 1 OR id = 2) AND (kind = 1 OR kind = 2)", (0, 2), {(1, 1), (1, 2), (2, 1), (2, 2)}, True),
        ("id = 7 AND id = 8", (0,), {7}, False),
    ],
)
def test_equalities_prune(
    world: World, condition: str, columns: tuple[int, ...], keys: set[object], is_exact: bool
) -> None:
    pruning = _plan(world, condition).pruning
    assert pruning is not None
    assert (pruning.columns, set(pruning.keys), pruning.is_exact) == (columns, keys, is_exact)


@pytest.mark.parametrize("condition", ["id > 7", "id = 7 OR kind = 1", "id = 7 OR size > 1", "true", "id = kind"])
def test_what_fixes_no_column_does_not_prune(world: World, condition: str) -> None:
    assert _plan(world, condition).pruning is None


# Running.


def test_bounds_within_parentheses_are_looked_up_in_the_index(world: World) -> None:
    work = Work()
    plan = _plan(world, "(id >= 30 AND id < 33) AND (kind < 9 AND size > 1)")
    assert sum(map(len, plan.batches(work))) == 3
    assert work.spent == 3


def test_columns_have_the_names_that_were_written(world: World) -> None:
    result = run_sql("SELECT kind, id AS n FROM item WHERE id = 6", world.datastore, ANYONE)
    assert result.row_type == t.Product((t.Element("kind", t.U32), t.Element("n", t.U32)))
    assert result.rows == [(2, 6)]
    assert result.stats == (0, 0, 0)


def test_one_column_is_a_row_of_one(world: World) -> None:
    assert run_sql("SELECT owner FROM item WHERE id = 6", world.datastore, ANYONE).rows == [(ALICE,)]


def test_work_is_bounded_and_a_tenth_of_it_for_others(world: World) -> None:
    text = "SELECT * FROM item"
    assert len(run_sql(text, world.datastore, OWNING, rows_max=80).rows) == 40
    for caller, rows_max, named in ((OWNING, 79, 79), (ANYONE, 799, 79)):
        with pytest.raises(QueryError, match=f"more than {named} rows; narrow it"):
            run_sql(text, world.datastore, caller, rows_max=rows_max)
    assert len(run_sql("SELECT * FROM item WHERE id = 3", world.datastore, ANYONE, rows_max=20).rows) == 1
    assert run_sql("SELECT COUNT(*) AS n FROM item", world.datastore, OWNING, rows_max=1).rows == [(40,)]
    assert run_sql("SELECT COUNT(*) AS n FROM item WHERE size > 1", world.datastore, OWNING, rows_max=41).rows == [
        (38,)
    ]
    with pytest.raises(QueryError, match="more than 40 rows"):
        run_sql("SELECT COUNT(*) AS n FROM item WHERE size > 1", world.datastore, OWNING, rows_max=40)
    with pytest.raises(QueryError, match="more than 10 rows"):
        compile_one_off(text, world.datastore, ANYONE).rows(10)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT id FROM item WHERE " + " OR ".join(f"size = {place + 0.5}" for place in range(1_500)),
        "SELECT p.id FROM item p JOIN item q ON p.id = q.id WHERE "
        + " OR ".join(f"q.size = {place + 0.5}" for place in range(1_500)),
        "SELECT " + ", ".join(f"size AS c{place}" for place in range(1_000)) + " FROM item",
        "SELECT " + ", ".join(f"size AS c{place}" for place in range(1_000)) + " FROM item ORDER BY size",
        "SELECT " + ", ".join(f"SUM(size) AS c{place}" for place in range(1_500)) + " FROM item",
        "SELECT " + ", ".join(f"SUM(size) AS c{place}" for place in range(1_000)) + " FROM item GROUP BY kind, id",
    ],
    ids=lambda text: f"{text[:30]} … {text[-30:]}",
)
def test_there_are_more_pauses_the_more_is_done_with_a_row(world: World, text: str) -> None:
    statement = compile_sql(text, world.datastore, OWNING)
    assert isinstance(statement, SelectStatement)
    assert sum(1 for _ in statement.steps(Work())) >= 3  # of 40 rows, which else are one batch


def test_show_reads_the_variable_and_the_row_limit_binds_others_than_the_owner() -> None:
    world = World()
    world.insert("item", *((number, ALICE, 1, 1.0) for number in range(7)))
    assert run_sql("SHOW row_limit", world.datastore, ANYONE).rows == []
    table = world.table("st_var")
    world.transact(lambda _: table.insert(table.schema.codec.encode(("row_limit", (8, 5)))) and None)
    result = run_sql("show row_limit", world.datastore, ANYONE)
    assert [column.name for column in result.row_type.elements] == ["value"]
    assert result.rows == [((8, 5),)]
    with pytest.raises(QueryError) as refusal:
        run_sql("SELECT * FROM item", world.datastore, ANYONE)
    assert str(refusal.value) == "Estimated cardinality (7 rows) exceeds limit (5 rows)"
    assert len(run_sql("SELECT * FROM item", world.datastore, OWNING).rows) == 7


def test_the_program_and_credentials_are_the_owners_alone(world: World) -> None:
    for name in ("st_module", "st_connection_credentials", "secret"):
        run_sql(f"SELECT * FROM {name}", world.datastore, OWNING)
        with pytest.raises(QueryError, match=f"no such table: `{name}`"):
            run_sql(f"SELECT * FROM {name}", world.datastore, ANYONE)


@pytest.mark.parametrize(("name", "shown"), [("plain", "plain"), ("a b", '"a b"'), ('q"q', '"q""q"'), ("1a", '"1a"')])
def test_names_are_quoted_where_they_must_be(name: str, shown: str) -> None:
    assert quote_name(name) == shown
