"""What the SQL of clients of 0.11 and older takes beyond that of today, and what it does not know."""

import pytest

from stdb.errors import QueryError
from stdb.sql import OLD, PLAIN, Caller, Language, compile_one_off, compile_reading, compile_statements
from tests.subscriptions_world import ALICE, World


def rows(text: str, language: Language) -> int | str:
    """Return how many tables a query reads, or why it is refused."""
    try:
        return len(compile_one_off(text, World().datastore, Caller(ALICE, False, language)).tables)
    except QueryError as error:
        return str(error)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM item WHERE 1 = 1",
        "SELECT * FROM item WHERE 1 = 2",
        "SELECT item.* FROM item JOIN bag WHERE owner = :sender",
    ],
)
def test_old_clients_may_say_more(text: str) -> None:
    assert isinstance(rows(text, OLD), int), rows(text, OLD)
    assert isinstance(rows(text, PLAIN), str)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM item",
        "SELECT p.* FROM item p JOIN item q ON p.id = q.id",
        "SELECT * FROM nope",
        "SELECT * FROM item WHERE nope = 1",
        "SELECT * FROM item WHERE size = 'x'",
        "SELECT * FROM item LIMIT 1",
        "",
    ],
)
def test_what_both_say_is_the_same(text: str) -> None:
    assert rows(text, OLD) == rows(text, PLAIN)


def test_old_clients_see_no_event_tables() -> None:
    assert isinstance(rows("SELECT * FROM ping", PLAIN), int)
    assert str(rows("SELECT * FROM ping", OLD)).startswith("no such table: `ping`")


def test_a_name_that_two_tables_have_is_no_name() -> None:
    text = "SELECT p.* FROM item p JOIN item q ON p.id = q.id WHERE size > 1"
    assert isinstance(rows(text, OLD), str)


def test_a_text_holds_statements() -> None:
    datastore, caller = World().datastore, Caller(ALICE, False, OLD)
    assert len(compile_statements("SELECT * FROM item; SELECT * FROM bag;", datastore, caller)) == 2
    assert len(compile_statements(" ; ;", datastore, caller)) == 0


@pytest.mark.parametrize(
    "text",
    ["DELETE FROM item", "INSERT INTO item VALUES (1)", "UPDATE item SET size = 1", "SET x = 1"],
)
def test_who_only_reads_changes_nothing(text: str) -> None:
    with pytest.raises(QueryError, match="not allowed to modify"):
        compile_reading(text, World().datastore, Caller(ALICE, False, OLD))
