"""Row-level security against what it means: a query is evaluated over what its caller may see of each table.

The oracle knows neither SQL nor plans: it evaluates the drawn queries and rules themselves over bags of rows, each
table replaced by the bag union of what its rules return.
"""

import operator
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.datastore.datastore import Datastore
from stdb.errors import QueryError, UniqueViolation
from stdb.sats.types import IDENTITY, U8
from stdb.schema.model import Access, RowLevelSecurityDef, TableDef
from stdb.sql import Caller, compile_one_off, compile_sql, run_sql
from stdb.sql.rules import replace_rules
from stdb.sql.work import finish
from stdb.subscriptions import Registry, SubscriptionActor
from tests.datastore_samples import make_module, make_table
from tests.subscriptions_world import Cache

OWNER, *OTHERS = (bytes([number] * 32) for number in (9, 1, 2))
WHO = {"OWNER": OWNER, "FIRST": OTHERS[0], "SECOND": OTHERS[1]}
NAMES = ("t0", "t1", "t2", "t3")
COLUMNS = {"id": U8, "a": U8, "b": U8, "who": IDENTITY}
POSITIONS = {name: place for place, name in enumerate(COLUMNS)}
NUMBERS = ("id", "a", "b")
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    ">=": operator.ge,
}
_NOT_SUBSCRIBED = "Subscriptions require indexes on join columns|Invalid number of tables in subscription: \\d"
Row = tuple[Any, ...]
Bag = Mapping[Row, int]


class Term(NamedTuple):
    """`alias.column operator operand`, the operand `(alias, column)`, a number, or `:sender`."""

    alias: str
    column: str
    operator: str
    operand: Any

    def __str__(self) -> str:
        operand = ".".join(self.operand) if isinstance(self.operand, tuple) else self.operand
        return f"{self.alias}.{self.column} {self.operator} {operand}"

    def holds(self, rows: Mapping[str, Row], caller: bytes) -> bool:
        """Tell whether it is true of one row for each alias."""
        value = rows[self.alias][POSITIONS[self.column]]
        if isinstance(self.operand, tuple):
            other = rows[self.operand[0]][POSITIONS[self.operand[1]]]
        else:
            other = caller if self.operand == ":sender" else self.operand
        if self.column == "who":
            value, other = value[::-1], other[::-1]  # identities are ordered as the numbers they are
        return OPERATORS[self.operator](value, other)


@dataclass(frozen=True)
class Drawn:
    """A query or a rule that returns the rows of one of its relations."""

    relations: tuple[tuple[str, str], ...]
    """Alias and table."""
    ons: tuple[Term | None, ...]
    terms: tuple[Term, ...]
    word: str
    """`AND` or `OR` between the terms."""
    returned: str
    """The alias whose rows are returned."""

    def sql(self, items: str | None = None) -> str:
        """Return it as SQL."""
        (alias, table), *others = self.relations
        text = f"SELECT {items or f'{self.returned}.*'} FROM {table} {alias}"
        for (alias, table), on in zip(others, self.ons, strict=True):
            text += f" JOIN {table} {alias}" + ("" if on is None else f" ON {on}")
        return text + (f" WHERE {f' {self.word} '.join(map(str, self.terms))}" if self.terms else "")

    @property
    def table(self) -> str:
        """The table whose rows are returned."""
        return dict(self.relations)[self.returned]

    def combinations(self, tables: Mapping[str, Bag], caller: bytes) -> Iterator[tuple[dict[str, Row], int]]:
        """Yield every combination of rows that matches, and how often it is there."""
        is_all = self.word == "AND"
        for rows in product(*(tables[alias].items() for alias, _ in self.relations)):
            by_alias = {alias: row for (alias, _), (row, _) in zip(self.relations, rows, strict=True)}
            joined = all(on is None or on.holds(by_alias, caller) for on in self.ons)
            found = [term.holds(by_alias, caller) for term in self.terms]
            if joined and (not found or (all(found) if is_all else any(found))):
                times = 1
                for _, count in rows:
                    times *= count
                yield by_alias, times

    def evaluate(self, tables: Mapping[str, Bag], caller: bytes) -> Counter[Row]:
        """Return the rows it returns, as a bag."""
        found: Counter[Row] = Counter()
        for by_alias, times in self.combinations(tables, caller):
            found[by_alias[self.returned]] += times
        return found


class Town:
    """Tables, rows and rules, and what they mean."""

    def __init__(self, definitions: tuple[TableDef, ...], rules: tuple[Drawn, ...]) -> None:
        self.rules = rules
        self.datastore = Datastore()
        transaction = self.datastore.begin(0)
        self.datastore.create_tables(make_module(*definitions))
        replace_rules(self.datastore, [RowLevelSecurityDef(rule.sql()) for rule in rules])
        transaction.commit()
        self.registry = Registry(self.datastore, OWNER)

    def rows(self, name: str) -> Bag:
        """Return the rows of a table, each once."""
        table = self.datastore.table(name)
        return dict.fromkeys(map(table.schema.codec.decode_exact, table.rows()), 1)

    def visible(self, name: str, caller: bytes) -> Bag:
        """Return what a caller sees of a table."""
        texts = {rule.sql(): rule for rule in self.rules if rule.table == name}
        if caller == OWNER or not texts:
            return self.rows(name)
        bag: Counter[Row] = Counter()
        for rule in texts.values():
            tables = {
                alias: self.rows(table) if table == name else self.visible(table, caller)
                for alias, table in rule.relations
            }
            bag += rule.evaluate(tables, caller)
        return bag

    def answer(self, query: Drawn, caller: bytes) -> Counter[Row]:
        """Return what a query returns for a caller."""
        return +query.evaluate(self._tables(query, caller), caller)

    def pairs(self, query: Drawn, caller: bytes) -> Counter[Row]:
        """Return the first and the last relation's `id` and `a` of what a query joins for a caller."""
        first, last = query.relations[0][0], query.relations[-1][0]
        found: Counter[Row] = Counter()
        for by_alias, times in query.combinations(self._tables(query, caller), caller):
            found[by_alias[first][0], by_alias[last][1]] += times
        return found

    def _tables(self, query: Drawn, caller: bytes) -> dict[str, Bag]:
        return {alias: self.visible(table, caller) for alias, table in query.relations}

    def change(self, changes: list[tuple[str, Row]]) -> Any:
        """Put rows into tables, or take them out where they are there, in one transaction; return the delta."""
        transaction = self.datastore.begin(0)
        for name, row in changes:
            table = self.datastore.table(name)
            encoded = table.schema.codec.encode(row)
            if not transaction.delete(table, encoded):
                with suppress(UniqueViolation):
                    transaction.insert(table, encoded)
        return transaction.commit()


# ---------------------------------------------------------------------- what is drawn


def terms(aliases: list[str]) -> st.SearchStrategy[Term]:
    """Return comparisons of columns of these relations with each other, with numbers, with the caller."""
    alias, number = st.sampled_from(aliases), st.sampled_from(NUMBERS)
    operators = st.sampled_from(sorted(OPERATORS))
    return st.one_of(
        st.builds(Term, alias, number, operators, st.integers(0, 2)),
        st.builds(Term, alias, st.just("who"), st.sampled_from(["=", "=", "<>", "<"]), st.just(":sender")),
        st.builds(Term, alias, number, operators, st.tuples(alias, number)),
        st.builds(Term, alias, st.just("who"), operators, st.tuples(alias, st.just("who"))),
    )


@st.composite
def ons(draw: st.DrawFn, earlier: list[str], alias: str) -> Term | None:
    """Return the ON of a join, or None."""
    if draw(st.integers(0, 4)) == 0:
        return None
    sides = [(draw(st.sampled_from(earlier)), None), (alias, None)]
    columns = draw(st.sampled_from([("who", "who"), *product(NUMBERS, NUMBERS)]))
    (left, _), (right, _) = draw(st.permutations(sides))
    return Term(left, columns[0], "=", (right, columns[1]))


@st.composite
def drawn(draw: st.DrawFn, tables: list[str], must: str | None = None) -> Drawn:
    """Return a query over one or two of these tables; a rule when it `must` return rows of one more."""
    count = draw(st.sampled_from([2, 1] if must is None else [1, 0]))
    chosen = draw(st.lists(st.sampled_from(tables), min_size=count, max_size=count))
    if must is not None:
        chosen.insert(draw(st.integers(0, len(chosen))), must)
    aliases = draw(st.permutations(["x", "y", "z", "x_1"]))[: len(chosen)]
    if must is None or len(chosen) == 1:
        returned = draw(st.sampled_from(aliases))
    else:
        returned = draw(st.sampled_from([alias for alias, table in zip(aliases, chosen, strict=True) if table == must]))
    return Drawn(
        tuple(zip(aliases, chosen, strict=True)),
        tuple(draw(ons(aliases[:place], aliases[place])) for place in range(1, len(aliases))),
        tuple(draw(st.lists(terms(aliases), max_size=2))),
        draw(st.sampled_from(["AND", "AND", "OR"])),
        returned,
    )


def definitions(private: str | None) -> tuple[TableDef, ...]:
    """Return the tables: two with a key, two as sets; one may be private."""
    made = (
        make_table(name, COLUMNS, key="id" if place % 2 else None, btree=("id", "a", "who")[place % 2 :])
        for place, name in enumerate(NAMES)
    )
    return tuple(replace(table, access=Access.PRIVATE if table.name == private else Access.PUBLIC) for table in made)


ROWS: tuple[Row, ...] = tuple(
    (place % 3, place // 2 % 3, place % 2, (*OTHERS, OWNER, OTHERS[0])[place % 4]) for place in range(8)
)
"""The rows that a table may have."""


@st.composite
def fillings(draw: st.DrawFn) -> list[tuple[str, Row]]:
    """Return rows of the tables: about half of those that they may have."""
    masks = [draw(st.integers(0, (1 << len(ROWS)) - 1)) for _ in NAMES]
    return [
        (name, row)
        for name, mask in zip(NAMES, masks, strict=True)
        for place, row in enumerate(ROWS)
        if mask >> place & 1
    ]


@st.composite
def towns(draw: st.DrawFn) -> Town:
    """Return tables with rows and rules; the rules of a table read tables that come after it."""
    private = draw(st.sampled_from([None, "t2", "t3"]))
    rules = []
    for place, name in enumerate(NAMES):
        if name != private:
            rule = drawn([*NAMES[place + 1 :], name], must=name)
            rules += [draw(rule) for _ in range(draw(st.sampled_from([1, 0, 2])))]
    town = Town(definitions(private), tuple(rules))
    town.change(draw(fillings()))
    return town


def readable(town: Town) -> list[str]:
    """Return the tables that everybody may name."""
    return [name for name in NAMES if town.datastore.table(name).schema.definition.access is Access.PUBLIC]


# ---------------------------------------------------------------------- what holds


@settings(max_examples=70, deadline=None)
@given(town=towns(), data=st.data())
def test_everyone_gets_what_the_query_returns_over_what_they_may_see(town: Town, data: st.DataObject) -> None:
    query = data.draw(drawn([*readable(town), NAMES[0]]))
    for identity in WHO.values():
        caller = Caller(identity, identity == OWNER)
        wanted = town.answer(query, identity)
        plan = compile_one_off(query.sql(), town.datastore, caller)
        assert Counter(map(plan.table.schema.codec.decode_exact, plan.rows())) == wanted
        assert Counter(run_sql(query.sql(), town.datastore, caller).rows) == wanted
        assert run_sql(query.sql("count(*) as n"), town.datastore, caller).rows == [(wanted.total(),)]
        first, last = query.relations[0][0], query.relations[-1][0]
        columns = query.sql(f"{first}.id as p, {last}.a as q")
        assert Counter(run_sql(columns, town.datastore, caller).rows) == town.pairs(query, identity)
        if plan.parameterised is False:
            assert wanted == town.answer(query, OTHERS[0] if identity != OWNER else OWNER)


def _subscribe(town: Town, identity: bytes, query: Drawn) -> tuple[SubscriptionActor, Cache] | None:
    """Return a client that holds a query and its rows; None when it may not be subscribed to."""
    actor, cache = SubscriptionActor(town.registry, identity), Cache()
    try:
        fragments = finish(actor.subscribe_set(1, [query.sql()]))
    except QueryError as error:
        refusal = str(error)
    else:
        cache.apply(1, fragments)
        return actor, cache
    assert re.match(_NOT_SUBSCRIBED, refusal)
    return None


@settings(max_examples=40, deadline=None)
@given(town=towns(), data=st.data())
def test_clients_are_told_of_every_row_that_comes_and_goes(town: Town, data: st.DataObject) -> None:
    queries = data.draw(st.lists(drawn(readable(town)), min_size=1, max_size=3))
    held: list[tuple[SubscriptionActor, Cache, Drawn, bytes]] = []
    for identity in WHO.values():
        for query in queries:
            client = _subscribe(town, identity, query)
            if client is not None:
                held.append((*client, query, identity))
    for _ in range(data.draw(st.integers(1, 4))):
        changed = st.tuples(st.sampled_from(NAMES), st.sampled_from(ROWS))
        delta = town.change(data.draw(st.lists(changed, min_size=1, max_size=4, unique=True)))
        told = {} if delta is None else dict(town.registry.evaluate(delta).others)
        for actor, cache, query, identity in held:
            cache.update(told.get(actor))
            decode = town.datastore.table(query.table).schema.codec.decode_exact
            contents = cache.contents().get((1, query.table), Counter())
            assert Counter({decode(row): count for row, count in contents.items()}) == town.answer(query, identity)


@settings(max_examples=30, deadline=None)
@given(town=towns(), data=st.data())
def test_a_private_table_is_not_there_whatever_the_rules_read(town: Town, data: st.DataObject) -> None:
    query = data.draw(drawn(list(NAMES)))
    named = {table for _, table in query.relations}
    for run in (run_sql, compile_sql, compile_one_off):
        if named <= set(readable(town)):
            run(query.sql(), town.datastore, Caller(OTHERS[0], is_owner=False))
        else:
            text = r"no such table: `t\d`. If the table exists, it may be marked private.$"
            with pytest.raises(QueryError, match=text):
                run(query.sql(), town.datastore, Caller(OTHERS[0], is_owner=False))
