"""Which SELECTs return rows of one table, and which of their texts are kept parsed."""

import pytest

from stdb.errors import QueryError
from stdb.sql import Caller, row_query
from stdb.sql.row_query import KEPT_CHARACTERS_MAX, bind_row_query
from tests.subscriptions_world import ALICE, World

CALLER = Caller(ALICE, is_owner=False)


@pytest.mark.parametrize("columns", ["id", "COUNT(*) AS n", "item.id, item.kind"])
def test_a_list_of_columns_returns_no_rows_of_a_table(columns: str) -> None:
    with pytest.raises(QueryError, match="Subscriptions must return a table type"):
        bind_row_query(f"SELECT {columns} FROM item", World().datastore, CALLER)


def test_names_that_are_not_there_are_told_before_columns_are_refused() -> None:
    with pytest.raises(QueryError, match="`nope` is not in scope"):
        bind_row_query("SELECT nope FROM item", World().datastore, CALLER)


def test_long_texts_are_not_kept_for_they_would_fill_the_memory() -> None:
    datastore = World().datastore
    short = "SELECT * FROM item WHERE id = 4711"
    padded = short + " " * (KEPT_CHARACTERS_MAX - len(short))
    for text, times_parsed in ((padded, 1), (padded + " ", 0)):
        before = row_query._kept_shape.cache_info().misses
        first, second = (bind_row_query(text, datastore, CALLER) for _ in range(2))
        assert first == second
        assert row_query._kept_shape.cache_info().misses == before + times_parsed
