"""Joins of two to four relations against nested loops: the rows now, and the formula of what a transaction changes."""

from collections import Counter
from collections.abc import Iterable
from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.datastore.table import Table
from stdb.sats import keys
from stdb.sql import Caller, JoinPlan, Work, compile_one_off
from stdb.sql.binder import BoundSelect, BoundStar, Position, Typed
from stdb.sql.predicate import evaluate
from tests.subscriptions_world import ALICE, BOB, OWNER, World

_COLUMNS = {"item": ("id", "kind"), "bag": ("a", "b")}
"""Per table two columns; those of one table have one type, those of two do not."""

_items = st.tuples(st.integers(0, 4), st.sampled_from([ALICE, BOB]), st.integers(0, 2), st.just(1.0))
_bags = st.tuples(st.integers(0, 2), st.integers(0, 2))
_changes = st.lists(
    st.one_of(st.tuples(st.just("item"), _items), st.tuples(st.just("bag"), _bags)).flatmap(
        lambda change: st.tuples(st.just(change[0]), st.sampled_from(["put", "take"]), st.just(change[1]))
    ),
    max_size=8,
)


@st.composite
def _queries(draw: st.DrawFn) -> str:
    """A join of two to four tables, in any order, self joins included."""
    tables = draw(st.lists(st.sampled_from(["item", "bag"]), min_size=2, max_size=4))
    names = [f"t{place}" for place in range(len(tables))]
    text = f"{tables[0]} {names[0]}"
    for place in range(1, len(tables)):
        text += f" JOIN {tables[place]} {names[place]}"
        partners = [other for other in range(place) if tables[other] == tables[place]]
        if partners and draw(st.integers(0, 4)):
            other = draw(st.sampled_from(partners))
            left, right = (draw(st.sampled_from(_COLUMNS[tables[place]])) for _ in range(2))
            text += f" ON {names[place]}.{left} = {names[other]}.{right}"
    terms = [draw(_terms(tables)) for _ in range(draw(st.integers(0, 3)))]
    where = f" WHERE {' AND '.join(terms)}" if terms else ""
    return f"SELECT {draw(st.sampled_from(names))}.* FROM {text}{where}"


@st.composite
def _terms(draw: st.DrawFn, tables: list[str]) -> str:
    place = draw(st.integers(0, len(tables) - 1))
    column = f"t{place}.{draw(st.sampled_from(_COLUMNS[tables[place]]))}"
    operator = draw(st.sampled_from(["=", "=", "=", "<", ">=", "<>"]))
    alike = [other for other, table in enumerate(tables) if table == tables[place]]
    match draw(st.integers(0, 5)):
        case 0:
            other = draw(st.sampled_from(alike))
            return f"{column} {operator} t{other}.{draw(st.sampled_from(_COLUMNS[tables[place]]))}"
        case 1:
            return f"({draw(_terms(tables))} OR {draw(_terms(tables))})"
        case 2:
            return draw(st.sampled_from(["true", "true", "false"]))
    return f"{column} {operator} {draw(st.integers(0, 3))}"


def _columns(table: Table, row: bytes) -> list[Any]:
    row_type = table.schema.row_type
    return [keys.row_key(row_type, (column,))(row) for column in range(len(row_type.elements))]


def _nested_loops(select: BoundSelect, rows: list[list[tuple[bytes, list[Any]]]]) -> Counter[bytes]:
    """Return the bag of returned rows; `rows` are those of each relation with their columns."""
    assert isinstance(select.projection, BoundStar)
    found: Counter[bytes] = Counter()
    for combination in product(*rows):
        columns = [values for _, values in combination]
        joined = all(
            on is None or columns[on[0].relation][on[0].column] == columns[on[1].relation][on[1].column]
            for on in select.joins
        )
        if joined and (select.where is None or _holds(select.where, columns)):
            found[combination[select.projection.relation][0]] += 1
    return found


def _holds(condition: Typed, columns: list[list[Any]]) -> bool:
    return bool(
        evaluate(_renumbered(condition, [len(each) for each in columns]), [x for each in columns for x in each])
    )


def _renumbered(condition: Any, widths: list[int]) -> Any:
    """Return a condition whose columns count through all relations."""
    if isinstance(condition, Position):
        return condition._replace(column=sum(widths[: condition.relation]) + condition.column)
    if type(condition) is tuple or hasattr(condition, "_fields"):
        parts = [_renumbered(part, widths) if isinstance(part, tuple) else part for part in condition]
        return type(condition)(*parts) if hasattr(condition, "_fields") else tuple(parts)
    return condition


def _state(plan: JoinPlan) -> list[list[tuple[bytes, list[Any]]]]:
    return [[(row, _columns(table, row)) for row in table.rows()] for table in plan.tables]


def _apply(world: World, changes: Iterable[tuple[str, str, tuple[Any, ...]]]) -> None:
    for name, what, values in changes:
        table, row = world.table(name), world.encode(name, *values)
        table.delete_key(table.key_of(row))
        if what == "put":
            table.insert(row)


@settings(max_examples=150, deadline=None)
@given(query=_queries(), before=_changes, transaction=_changes)
def test_a_join_and_its_changes_are_those_of_nested_loops(query: str, before: Any, transaction: Any) -> None:
    world = World()
    world.transact(lambda each: _apply(each, before))
    (plan,) = compile_one_off(query, world.datastore, Caller(OWNER, is_owner=True)).branches
    assert isinstance(plan, JoinPlan)
    old = _nested_loops(plan.select, _state(plan))
    assert Counter(row for batch in plan.batches(Work()) for row in batch) == old
    delta = world.transact(lambda each: _apply(each, transaction))
    new = _nested_loops(plan.select, _state(plan))
    everything = range(len(plan.tables))
    assert sum(len(batch) for batch in plan.combinations(Work(), everything)) == new.total()
    if delta is None:
        assert new == old
        return
    inserts, deletes = plan.changes({changed.table.schema.id: changed for changed in delta.tables})
    assert Counter(inserts) == new - old
    assert Counter(deletes) == old - new
