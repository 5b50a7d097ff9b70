"""Work: what one statement may cost, and how a long one lets others run in between.

Responsible for: counting rows visited and produced against a bound, the size of batches.
Not responsible for: when to pause (whoever drives the steps: `stdb.actors`), plans.

Source: DESIGN decision 14. Plans hand over rows in batches, empty ones included, each after about `BATCH` rows of work;
who collects them yields after each, so that a pause is possible every few thousand rows at the latest.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from stdb.datastore.steps import Steps, finish
from stdb.errors import QueryError

__all__ = ["BATCH", "Steps", "Work", "batch_for", "finish", "parted"]

BATCH = 1_000
"""Rows that a plan reads, looks up or hands over at a time."""

Row = TypeVar("Row")


class Work:
    """Rows that a statement visited and produced so far; `rows_max` None counts without a bound."""

    __slots__ = ("rows_max", "spent")

    def __init__(self, rows_max: int | None = None) -> None:
        self.rows_max = rows_max
        self.spent = 0

    def spend(self, rows: int) -> None:
        """Count rows.

        Raises:
            QueryError: More than `rows_max` all in all.
        """
        self.spent += rows
        if self.rows_max is not None and self.spent > self.rows_max:
            raise QueryError(
                f"The query visits and returns more than {self.rows_max} rows; "
                "narrow it with WHERE on an indexed column or LIMIT"
            )


def batch_for(cost: float) -> int:
    """Return how many rows to take at a time where a row costs `cost` times as much as rows do on the whole."""
    return max(1, min(BATCH, int(BATCH / max(cost, 1))))


def parted(batches: Iterable[list[Row]], rows_max: int) -> Iterator[list[Row]]:
    """Yield the same rows in batches of at most `rows_max`, empty ones as they are."""
    for batch in batches:
        if len(batch) <= rows_max:
            yield batch
        else:
            yield from (batch[start : start + rows_max] for start in range(0, len(batch), rows_max))
