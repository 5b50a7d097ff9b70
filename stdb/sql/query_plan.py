"""Plans of whole queries that return rows of one table: what a subscription holds and a one-off query runs.

Responsible for: the bag union of a query's branches (more than one only through row-level security).
Not responsible for: how one branch is answered (`plan`, `join_plan`), compiling (`execute`).

Source: spec 06 sections 5.1 and 6.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from stdb.sql.binder import BoundSelect
from stdb.sql.join_plan import JoinPlan
from stdb.sql.plan import TablePlan
from stdb.sql.row_shape import Picked
from stdb.sql.work import Work

if TYPE_CHECKING:
    from stdb.datastore.table import Table

__all__ = ["Branch", "QueryPlan", "branch_of"]

Branch: TypeAlias = TablePlan | JoinPlan
"""One SELECT without row-level security: over one table, or a join."""


def branch_of(select: BoundSelect) -> Branch:
    """Return the plan of one SELECT over the tables as they are."""
    if len(select.relations) > 1:
        return JoinPlan(select)
    return TablePlan(select.relations[0].table, select.where)


class QueryPlan:
    """How to answer a query that returns rows of one table: whole, or columns picked from them."""

    def __init__(
        self, selects: Sequence[BoundSelect], *, is_parameterised: bool, columns: Sequence[int] | None = None
    ) -> None:
        self.selects = tuple(selects)
        """What each branch answers, for its plain twins."""
        self.branches = tuple(map(branch_of, selects))
        self.table = self.branches[0].table
        self.parameterised = is_parameterised
        """It depends on who asks."""
        self.picked = None if columns is None else Picked.of(self.table.schema.row_type, columns)
        """What is told of its rows where that is not all; `batches` and `rows` are of whole rows."""

    @property
    def tables(self) -> "tuple[Table, ...]":
        """Every table that it reads, once for each time it is mentioned."""
        return tuple(table for branch in self.branches for table in branch.tables)

    @property
    def reads_empty_table(self) -> bool:
        """Tell whether each branch reads a table without rows: nothing can be returned."""
        return not any(all(len(table) for table in branch.tables) for branch in self.branches)

    @property
    def reads_events(self) -> bool:
        """Tell whether it reads an event table, whose rows are there during their transaction only."""
        return any(table.is_event for table in self.tables)

    @property
    def is_whole_table(self) -> bool:
        """Tell whether it returns every row of its table."""
        (branch, *others) = self.branches
        return not others and isinstance(branch, TablePlan) and branch.condition is None

    def batches(self, work: Work) -> Iterator[list[bytes]]:
        """Yield the rows now, as a bag, in batches (empty ones too), counting every row visited and produced.

        Raises:
            QueryError: More than `work` allows.
        """
        for branch in self.branches:
            for batch in branch.batches(work):
                work.spend(len(batch))
                yield batch

    def rows(self, rows_max: int | None = None) -> list[bytes]:
        """Return the rows now, references only, without a pause.

        Raises:
            QueryError: More than `rows_max` rows were visited and produced.
        """
        if self.is_whole_table and rows_max is None:
            return list(self.table.rows())
        return [row for batch in self.batches(Work(rows_max)) for row in batch]

    def estimate(self) -> int:
        """Return how many rows the reference thinks are scanned (spec 06 section 7)."""
        return sum(branch.estimate() for branch in self.branches)
