"""Which joins may be subscribed to.

Responsible for: the index rule and the other refusals of joins on the subscription surface.
Not responsible for: evaluating joins.

Source: spec 06 section 3, rules 18 to 20, and section 3.2 (since v1.1.0).
"""

from typing import TYPE_CHECKING

from stdb.errors import QueryError
from stdb.sql.binder import BoundSelect, Comparison, Constant, Position, Typed
from stdb.sql.predicate import terms_of

if TYPE_CHECKING:
    from stdb.datastore.table import Table

__all__ = ["check_joins"]


def check_joins(select: BoundSelect) -> None:
    """Check a join against the rules for subscriptions.

    Raises:
        QueryError: A join column without an index, an event table to look up in, more than two tables.
    """
    if not select.joins:
        return
    pushed = _pushed_terms(select.where)
    looked_up = [_looked_up(select, place, pushed) for place in range(len(select.joins))]
    if any(relation is None for relation in looked_up):
        raise QueryError("Subscriptions require indexes on join columns")
    tables = [select.relations[relation].table for relation in looked_up if relation is not None]
    if any(table.schema.definition.is_event for table in tables):
        raise QueryError("Event tables cannot be used as the lookup table in subscription joins")
    if len(select.relations) > 2:
        raise QueryError(f"Invalid number of tables in subscription: {len(select.relations)}")


def _looked_up(select: BoundSelect, place: int, pushed: list[Typed]) -> int | None:
    """Return the relation that the join at `place` looks up by an index; None when it can not."""
    on = select.joins[place]
    if on is None:
        return None
    right = place + 1
    if (
        place == 0
        and len(select.relations) == 2
        and not _is_filtered(select, 0, pushed)
        and _is_filtered(select, 1, pushed)
    ):
        right = 0  # the filtered side drives
    columns = [position.column for position in on if position.relation == right]
    if len(columns) != 1:
        return None
    fixed = {position.column for term in _terms_of(right, pushed) if (position := _fixed(term)) is not None}
    return right if _has_index(select.relations[right].table, columns[0], fixed) else None


def _is_filtered(select: BoundSelect, relation: int, pushed: list[Typed]) -> bool:
    """Tell whether constants pick rows of a relation; those of a view are picked by caller and arguments."""
    return select.relations[relation].table.schema.is_view or bool(_terms_of(relation, pushed))


def _has_index(table: "Table", column: int, fixed: set[int]) -> bool:
    """Tell whether an index ends with the column and begins with columns that constants fix."""
    return any(index.columns[-1] == column and set(index.columns[:-1]) <= fixed for index in table.indexes)


def _pushed_terms(where: Typed | None) -> list[Typed]:
    """Return the terms of AND, also of AND within AND, that compare one column with a constant."""
    return [term for term in terms_of(where) if _column(term) is not None]


def _terms_of(relation: int, terms: list[Typed]) -> list[Typed]:
    return [term for term in terms if (position := _column(term)) is not None and position.relation == relation]


def _column(term: Typed) -> Position | None:
    match term:
        case Comparison(Position() as position, ((_, Constant()),)) | Comparison(
            Constant(), ((_, Position() as position),)
        ):
            return position
    return None


def _fixed(term: Typed) -> Position | None:
    match term:
        case Comparison(_, (("=", _),)):
            return _column(term)
    return None
