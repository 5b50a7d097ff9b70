"""Statements of full SQL that read: a SELECT ready to run, branches and what comes behind them.

Responsible for: joining the branches of a query into one stream, its estimate.
Not responsible for: one branch (`plan`, `join_plan`), columns, groups, order and limits of the result (`analytic`),
statements that write (`changes`).

Source: spec 06 sections 4, 6 and 7.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from stdb.sats.types import Product
from stdb.sql.analytic import Tail
from stdb.sql.binder import BoundColumns, BoundCount, BoundSelect, BoundStar
from stdb.sql.changes import SqlStats
from stdb.sql.join_plan import JoinPlan
from stdb.sql.plan import TablePlan
from stdb.sql.query_plan import branch_of
from stdb.sql.work import Steps, Work

if TYPE_CHECKING:
    from stdb.datastore.table import Table

__all__ = ["SelectStatement", "SqlResult"]


class SqlResult(NamedTuple):
    """The answer to one statement: columns (names and types) and rows as plain values."""

    row_type: Product
    rows: list[tuple[Any, ...]]
    stats: SqlStats = SqlStats()


class SelectStatement:
    """A SELECT ready to run. `branches` are what it stands for under row-level security; `select` is as written."""

    def __init__(self, select: BoundSelect, branches: Sequence[BoundSelect]) -> None:
        self._select = select
        self._tail = Tail(select)
        self._branches = [(branch_of(branch), _places(select, branch)) for branch in branches]

    @property
    def row_type(self) -> Product:
        """The columns of the result."""
        return self._tail.row_type

    @property
    def table(self) -> "Table":
        """The table whose rows it returns; where they are of none alone, the one behind FROM."""
        projection = self._select.projection
        return self._select.relations[projection.relation if isinstance(projection, BoundStar) else 0].table

    @property
    def tables(self) -> "tuple[Table, ...]":
        """Every table that it reads, once for each time it is mentioned; those of rules too."""
        return tuple(table for plan, _ in self._branches for table in plan.tables)

    def estimate(self) -> int:
        """Return how many rows the reference thinks are scanned (spec 06 section 7)."""
        limit = self._scanned_max()
        return sum(
            plan.estimate() if isinstance(plan, JoinPlan) else plan.estimate(limit) for plan, _ in self._branches
        )

    def _scanned_max(self) -> int | None:
        """Return how many rows are enough for the result; None where all are needed: to count, group or order them."""
        select = self._select
        is_plain = isinstance(select.projection, BoundStar | BoundColumns) and not select.ordering
        return select.limit + select.offset if is_plain and select.limit is not None else None

    def steps(self, work: Work) -> Steps[SqlResult]:
        """Evaluate it; may be paused at least once per `BATCH` rows visited.

        Raises:
            QueryError: More rows are visited, produced or held than `work` and the server allow.
        """
        counted = self._counted()
        if counted is not None:
            return SqlResult(self.row_type, counted)
        rows = yield from self._tail.steps(self._combinations(work), work)
        return SqlResult(self.row_type, rows)

    def _counted(self) -> list[tuple[int]] | None:
        """Return the result of `count(*)` over a whole table, which needs no look at the rows; else None."""
        (plan, _), *others = self._branches
        is_count = isinstance(self._select.projection, BoundCount)
        if not is_count or others or not isinstance(plan, TablePlan) or plan.condition is not None:
            return None
        return [] if self._select.limit == 0 or self._select.offset else [(len(plan.table),)]

    def _combinations(self, work: Work) -> Iterator[list[tuple[bytes, ...]]]:
        """Yield the joined rows in batches: a tuple of one row for each relation of the statement as it is written."""
        for plan, places in self._branches:
            if isinstance(plan, JoinPlan):
                yield from plan.combinations(work, places)
            else:
                for batch in plan.batches(work):
                    yield list(zip(batch))


def _places(select: BoundSelect, branch: BoundSelect) -> list[int]:
    """Return where in a branch the relations of the statement stand: they keep their aliases."""
    aliases = {relation.alias: place for place, relation in enumerate(branch.relations)}
    return [aliases[relation.alias] for relation in select.relations]
