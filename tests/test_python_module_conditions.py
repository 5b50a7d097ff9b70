"""Conditions: how they are written, what they find, which index finds it, what is refused."""

from typing import Any

import pytest

from stdb import between, desc, is_in, is_none, not_, product, starts_with
from tests.python_module_harness import PROBE, Running
from tests.test_python_module_tables import fails

PEOPLE = """
from stdb import *

@table(indexes=[Index("by_town_age", "town", "age")], uniques=[Unique("first", "last")])
class Person:
    id: u32 = primary_key()
    first: str
    last: str
    town: str | None = None
    age: u8 = 0
    score: float = index(default=0.0)
    mail: str = unique(default="")
    badge: u32 = index(kind="hash", default=0)
    nick: str | None = index(default=None)
    bonus: u8 | None = None
    active: bool = True

@table
class Other:
    id: u32 = primary_key()
    first: str

def ids(ctx, condition):
    found = sorted(person.id for person in ctx.db[Person].filter(condition))
    explained = ctx.db[Person].explain(condition)
    return found, explained.split(":")[0]
"""
ROWS = """
for values in [
    (1, "Ada", "L", "London", 36, 1.5, "a@x", 7, "countess", 3, True),
    (2, "Alan", "T", "London", 41, -0.0, "t@x", 7, None, None, True),
    (3, "Grace", "H", "Arlington", 85, 0.0, "g@x", 9, "amazing", 36, False),
    (4, "Edsger", "D", None, 72, float("nan"), "d@x", 9, "co", 0, True),
    (5, "Ada", "X", "Paris", 20, 99.0, "x@x", 8, "", 20, False),
]:
    ctx.db[Person].insert(Person(**dict(zip(Person.__match_args__, values))))
"""


def people() -> Running:
    running = Running(PEOPLE + PROBE)
    running.said(ROWS)
    return running


CASES: list[tuple[str, list[int], str]] = [
    ("Person.id == 3", [3], "index person_id_idx_btree"),
    ("Person.id == 99", [], "index person_id_idx_btree"),
    ("3 == Person.id", [3], "index person_id_idx_btree"),
    ("Person.id != 3", [1, 2, 4, 5], "scan of all rows of person"),
    ("Person.id < 3", [1, 2], "index person_id_idx_btree"),
    ("Person.id <= 3", [1, 2, 3], "index person_id_idx_btree"),
    ("Person.id > 3", [4, 5], "index person_id_idx_btree"),
    ("3 < Person.id", [4, 5], "index person_id_idx_btree"),
    ("Person.id >= 3", [3, 4, 5], "index person_id_idx_btree"),
    ("(Person.id > 1) & (Person.id < 4)", [2, 3], "index person_id_idx_btree"),
    ("(Person.id > 1) & (Person.id > 2)", [3, 4, 5], "index person_id_idx_btree"),
    ("between(Person.id, 2, 4)", [2, 3, 4], "index person_id_idx_btree"),
    ("between(Person.id, 4, 2)", [], "index person_id_idx_btree"),
    ("Person.id < 10**9", [1, 2, 3, 4, 5], "index person_id_idx_btree"),
    ("Person.age == 300", [], "scan of all rows of person"),
    ("Person.age < 300", [1, 2, 3, 4, 5], "scan of all rows of person"),
    ("is_in(Person.id, [1, 5, 9, 1])", [1, 5], "index person_id_idx_btree"),
    ("is_in(Person.id, [])", [], "index person_id_idx_btree"),
    ("is_in(Person.age, {36, 20})", [1, 5], "scan of all rows of person"),
    ("Person.first == 'Ada'", [1, 5], "index person_first_last_idx_btree"),
    ("(Person.first == 'Ada') & (Person.last == 'X')", [5], "index person_first_last_idx_btree"),
    ("(Person.last == 'X') & (Person.first == 'Ada') & Person.active", [], "index person_first_last_idx_btree"),
    ("Person.town == 'London'", [1, 2], "index person_town_age_idx_btree"),
    ("(Person.town == 'London') & (Person.age > 36)", [2], "index person_town_age_idx_btree"),
    ("(Person.town == 'London') & (Person.age == 36)", [1], "index person_town_age_idx_btree"),
    ("is_in(Person.town, ['London', 'Paris']) & (Person.age < 40)", [1, 5], "index person_town_age_idx_btree"),
    ("(Person.town > 'B') & (Person.age == 20)", [5], "index person_town_age_idx_btree"),
    ("is_none(Person.town)", [4], "index person_town_age_idx_btree"),
    ("Person.town == None", [4], "index person_town_age_idx_btree"),
    ("not_(is_none(Person.town))", [1, 2, 3, 5], "scan of all rows of person"),
    ("Person.town > 'London'", [5], "index person_town_age_idx_btree"),
    ("Person.town >= ''", [1, 2, 3, 5], "index person_town_age_idx_btree"),
    ("Person.town < 'London'", [3], "index person_town_age_idx_btree"),
    ("Person.town != 'London'", [3, 4, 5], "scan of all rows of person"),
    ("Person.score == 0.0", [2, 3], "index person_score_idx_btree"),
    ("Person.score > 0", [1, 4, 5], "index person_score_idx_btree"),
    ("Person.badge == 7", [1, 2], "index person_badge_idx_hash"),
    ("Person.badge > 7", [3, 4, 5], "scan of all rows of person"),
    ("is_in(Person.badge, [7, 8])", [1, 2, 5], "index person_badge_idx_hash"),
    ("starts_with(Person.nick, 'co')", [1, 4], "index person_nick_idx_btree"),
    ("starts_with(Person.nick, '')", [1, 3, 4, 5], "index person_nick_idx_btree"),
    ("starts_with(Person.mail, 'a')", [1], "index person_mail_idx_btree"),
    ("starts_with(Person.first, 'A')", [1, 2, 5], "index person_first_last_idx_btree"),
    ("starts_with(Person.last, 'X')", [5], "scan of all rows of person"),
    ("Person.active", [1, 2, 4], "scan of all rows of person"),
    ("not_(Person.active)", [3, 5], "scan of all rows of person"),
    ("(Person.id == 1) | (Person.mail == 't@x')", [1, 2], "(index person_id_idx_btree"),
    ("(Person.id == 1) | (Person.id < 3)", [1, 2], "(index person_id_idx_btree"),
    ("(Person.id == 1) | (Person.age > 80)", [1, 3], "scan of all rows of person"),
    ("((Person.id == 1) | (Person.id == 2)) & (Person.age > 40)", [2], "scan of all rows of person"),
    ("not_((Person.id == 1) | Person.active)", [3, 5], "scan of all rows of person"),
    ("Person.age == Person.bonus", [5], "scan of all rows of person"),
    ("Person.age != Person.bonus", [1, 2, 3, 4], "scan of all rows of person"),
    ("Person.age > Person.bonus", [1, 3, 4], "scan of all rows of person"),
    ("Person.bonus >= 0", [1, 3, 4, 5], "scan of all rows of person"),
    ("Person.bonus < 4", [1, 4], "scan of all rows of person"),
]


@pytest.fixture(scope="module")
def running() -> Running:
    return people()


@pytest.mark.parametrize(("condition", "expected", "way"), CASES, ids=[case[0] for case in CASES])
def test_a_condition_finds_its_rows_by_the_best_index(
    running: Running, condition: str, expected: list[int], way: str
) -> None:
    assert running.said(f"out.append(ids(ctx, {condition}))") == (expected, way)


def test_explain_tells_what_is_tested_afterwards(running: Running) -> None:
    said = running.said("out.append(ctx.db[Person].explain((Person.id == 1) & (Person.age > 5) & Person.active))")
    assert said == "index person_id_idx_btree: Person.id == 1; then test Person.age > 5 & Person.active"
    assert running.said("out.append(ctx.db[Person].explain())") == "scan of all rows of person"


NO_TRUTH = "use & | not_()"
REFUSED: list[tuple[str, type[Exception], str]] = [
    ("bool(Person.id == 1)", TypeError, NO_TRUTH),
    ("ids(ctx, (Person.id == 1) and Person.active)", TypeError, NO_TRUTH),
    ("ids(ctx, (Person.id == 1) or Person.active)", TypeError, NO_TRUTH),
    ("ids(ctx, not Person.active)", TypeError, NO_TRUTH),
    ("ids(ctx, 1 < Person.id < 3)", TypeError, NO_TRUTH),
    ("[1 for x in [1] if Person.id == x]", TypeError, NO_TRUTH),
    ("Person.id in [1, 2]", TypeError, NO_TRUTH),
    ("ids(ctx, ~Person.active)", TypeError, "use not_(condition)"),
    ("ids(ctx, True)", TypeError, "expected a condition such as"),
    ("ids(ctx, (Person.id == 1) & True)", TypeError, "expected a condition such as"),
    ("ids(ctx, False | (Person.id == 1))", TypeError, "expected a condition such as"),
    ("ids(ctx, True & (Person.id == 1))", TypeError, "expected a condition such as"),
    ("not_(True)", TypeError, "expected a condition such as"),
    ("ctx.db[Person].find(True)", TypeError, "find() on table person: expected a condition"),
    ("ids(ctx, Other.id == 1)", TypeError, "Other.id is no column of table person, whose rows are Person"),
    ("ids(ctx, (Person.id == 1) & (Other.id != 1))", TypeError, "is no column of table person"),
    ("ids(ctx, (Person.id == 1) & (Person.age == Other.id))", TypeError, "is no column of table person"),
    ("ids(ctx, Person.id == 'x')", TypeError, "Person.id is an integer, got 'x'"),
    ("ids(ctx, Person.first == 5)", TypeError, "Person.first has no value 5"),
    ("ids(ctx, Person.bonus < None)", TypeError, "use is_none()"),
    ("ids(ctx, Person.age == Person.first)", TypeError, "different types"),
    ("ids(ctx, Person.age)", TypeError, "only Bool columns stand alone"),
    ("ids(ctx, is_none(Person.age))", TypeError, "never None"),
    ("ids(ctx, starts_with(Person.age, 'x'))", TypeError, "the column is no text"),
    ("starts_with(Person.first, 5)", TypeError, "takes a str as prefix"),
    ("between(5, 1, 9)", TypeError, "between() takes a column"),
    ("is_in('x', ['x'])", TypeError, "is_in() takes a column"),
    ("desc(5)", TypeError, "desc() takes a column"),
    ("Person.first.upper()", AttributeError, "Person.first is a column, not a value"),
    ("list(ctx.db[Person].filter(order_by=Other.id))", TypeError, "is no column of table person"),
]


@pytest.mark.parametrize(("source", "kind", "text"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_is_no_condition_is_refused(running: Running, source: str, kind: type[Exception], text: str) -> None:
    error = fails(running, source)
    assert isinstance(error, kind)
    assert text in str(error)


def test_conditions_show_themselves_as_they_were_written() -> None:
    @product
    class Pair:
        a: int
        b: str | None

    pair: Any = Pair
    condition = not_((pair.a == 1) | between(pair.a, 2, 3) & is_in(pair.a, [4])) & is_none(pair.b)
    assert repr(condition & starts_with(pair.b, "x") & (pair.a != pair.a)) == (
        "(((not_((Pair.a == 1) | ((between(Pair.a, 2, 3)) & (is_in(Pair.a, [4]))))) & (is_none(Pair.b)))"
        " & (starts_with(Pair.b, 'x'))) & (Pair.a != Pair.a)"
    )
    assert desc(pair.a).column is pair.a
    assert len({pair.a, pair.b}) == 2
