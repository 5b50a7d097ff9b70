"""Plans over one table: which rows to look at, which of them match, which changes can matter.

Responsible for: choosing an index, evaluating now, the estimate of rows, the values that prune a subscription.
Not responsible for: names and types (`binder`), columns and LIMIT of a result (`analytic`).

Source: spec 06 sections 3.2, 5.3 and 7; DESIGN decision 7.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from stdb.sats import keys
from stdb.schema.model import IndexAlgorithm
from stdb.sql.binder import Comparison, Constant, Position, Typed
from stdb.sql.predicate import Predicate, Restriction, compile_predicate, restriction, row_cost, terms_of
from stdb.sql.work import Work, batch_for

if TYPE_CHECKING:
    from stdb.datastore.table import AnyIndex, Table

__all__ = ["Edge", "Pruning", "TablePlan", "Trigger"]

_UNORDERED_MAX = 65_536
"""Distinct keys that a query may put in order for a range; above it reads the table unless the order is there."""
_MIRRORED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


class Pruning(NamedTuple):
    """A changed row concerns the plan only if `extract(row)` is one of `keys`; `is_exact`: and always then."""

    columns: tuple[int, ...]
    keys: tuple[Any, ...]
    extract: Callable[[bytes], Any]
    is_exact: bool


class Edge(NamedTuple):
    """A changed row concerns the plan only if a partner row passes: one with its key in `via`, as the tables are now.

    A partner passes if `pruning.extract(partner)` is one of `pruning.keys`. Edges of the same `shape` differ in nothing
    but those keys.
    """

    key_of: Callable[[bytes], Any]
    via: "AnyIndex"
    pruning: Pruning
    shape: Hashable


Trigger: TypeAlias = Pruning | Edge | None
"""What a changed row of one relation must have to concern a plan; None when every change may."""


class _Lookup(NamedTuple):
    """Rows by equality on all columns of an index. `covers`: every row found matches the whole condition."""

    via: "AnyIndex"
    keys: tuple[Any, ...]
    covers: bool


class _Range(NamedTuple):
    """Rows by a range of an index: fixed keys of its first columns, bounds of the next."""

    via: "AnyIndex"
    prefix: tuple[Any, ...]
    lower: tuple[Any, bool] | None
    upper: tuple[Any, bool] | None

    def is_ordered(self) -> bool:
        """Tell whether the keys are in order already, or soon: to order very many would hold everybody up."""
        return self.via.order is not None or self.via.distinct_keys() <= _UNORDERED_MAX


class TablePlan:
    """How to answer one condition over one table. `is_parameterised`: the condition depends on who asks."""

    def __init__(self, table: "Table", condition: Typed | None, *, is_parameterised: bool = False) -> None:
        self.table = table
        self.condition = condition
        self.parameterised = is_parameterised
        self._restriction = None if condition is None else restriction(condition)
        self._lookup = _best_lookup(table, self._restriction)
        self._range = None if self._lookup else _best_range(table, condition)

    @cached_property
    def matches(self) -> Predicate | None:
        """The condition as a function of row bytes; None when every row matches."""
        if self.condition is None:
            return None
        return compile_predicate(self.condition, self.table.schema.row_type)

    @cached_property
    def pruning(self) -> Pruning | None:
        """What a changed row must have to concern this plan; None when every change may."""
        fixed = self._restriction
        if fixed is None:
            return None
        extract = keys.row_key(self.table.schema.row_type, fixed.columns)
        combinations = tuple(_bare(each) for each in fixed.combinations)
        return Pruning(fixed.columns, combinations, extract, fixed.is_exact)

    @cached_property
    def residual(self) -> Predicate | None:
        """What a row that pruning let through must still pass; None when nothing."""
        return None if self.pruning is not None and self.pruning.is_exact else self.matches

    @cached_property
    def _batch(self) -> int:
        """How many rows are looked at at a time."""
        return batch_for(row_cost(self.condition))

    @property
    def looked_up(self) -> "tuple[AnyIndex, tuple[Any, ...]] | None":
        """The index, and its keys, that are all it ever looks at; None when it reads more of the table."""
        return None if self._lookup is None else (self._lookup.via, self._lookup.keys)

    @property
    def tables(self) -> "tuple[Table, ...]":
        """The one table, as plans of several have them."""
        return (self.table,)

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        """What a changed row must have to concern the plan, per relation."""
        return (self.pruning,)

    def rows(self) -> list[bytes]:
        """Return the matching rows now, references only."""
        rows, matches = self._candidates()
        return list(rows) if matches is None else list(filter(matches, rows))

    def batches(self, work: Work) -> Iterator[list[bytes]]:
        """Yield the matching rows now, in batches, counting every row visited.

        Raises:
            QueryError: More than `work` allows.
        """
        rows, matches = self._candidates()
        remaining = iter(rows)
        at_once = self._batch
        while part := list(islice(remaining, at_once)):
            work.spend(len(part))
            yield part if matches is None else list(filter(matches, part))

    def _candidates(self) -> tuple[Iterable[bytes], Predicate | None]:
        """Return rows to look at and what they must pass."""
        if self._lookup is not None:
            index, wanted, covers = self._lookup
            return chain.from_iterable(map(index.stream, wanted)), None if covers else self.matches
        if self._range is not None and self._range.is_ordered():
            index, prefix, lower, upper = self._range
            return index.stream_range(prefix, lower, upper), self.matches
        return self.table.rows(), self.matches

    def candidates(self) -> int:
        """Return about how many rows are looked at."""
        if self._lookup is not None:
            index, wanted, _ = self._lookup
            return len(wanted) * (1 if index.unique else len(self.table) // (index.distinct_keys() or 1) + 1)
        if self._range is not None:
            return len(self.table) // 2
        return len(self.table)

    def estimate(self, limit: int | None = None) -> int:
        """Return how many rows the reference thinks are scanned; `limit` bounds a bare scan (spec 06 section 7)."""
        if self.condition is None and limit is not None:
            return min(len(self.table), limit)
        return self.estimated()[0]

    def estimated(self) -> tuple[int, int]:
        """Return how many rows the reference thinks are scanned, and how many it thinks are found."""
        rows = len(self.table)
        if self.condition is None:
            return rows, rows
        if self._lookup is None or len(self._lookup.keys) > 1:
            return 2 * rows, rows
        distinct = self._lookup.via.distinct_keys()
        found = rows // distinct if distinct else 0
        return (found if self._lookup.covers else 2 * found), found


def _bare(combination: tuple[Any, ...]) -> Any:
    """Return a key as indexes have it: one column alone, several as a tuple."""
    return combination[0] if len(combination) == 1 else combination


def _best_lookup(table: "Table", fixed: Restriction | None) -> _Lookup | None:
    if fixed is None:
        return None
    usable = [index for index in table.indexes if set(index.columns) <= set(fixed.columns)]
    if not usable:
        return None
    index = max(usable, key=lambda each: (each.unique, len(each.columns)))
    places = [fixed.columns.index(column) for column in index.columns]
    wanted = {_bare(tuple(each[place] for place in places)) for each in fixed.combinations}
    return _Lookup(index, tuple(wanted), fixed.is_exact and len(index.columns) == len(fixed.columns))


def _best_range(table: "Table", condition: Typed | None) -> _Range | None:
    if condition is None:
        return None
    bounds = _bounds(condition)
    ranges = [found for index in table.indexes if (found := _range_of(index, bounds)) is not None]
    return max(ranges, key=lambda each: (len(each.prefix), bool(each.lower) + bool(each.upper)), default=None)


def _range_of(index: "AnyIndex", bounds: dict[tuple[int, str], Any]) -> _Range | None:
    if index.definition.algorithm is IndexAlgorithm.HASH:
        return None
    prefix: list[Any] = []
    for column in index.columns:
        if (column, "=") not in bounds:
            lower = _bound(bounds, column, ">", ">=")
            upper = _bound(bounds, column, "<", "<=")
            return _Range(index, tuple(prefix), lower, upper) if prefix or lower or upper else None
        prefix.append(bounds[column, "="])
    return None


def _bound(bounds: dict[tuple[int, str], Any], column: int, open_: str, closed: str) -> tuple[Any, bool] | None:
    if (column, closed) in bounds:
        return bounds[column, closed], True
    return (bounds[column, open_], False) if (column, open_) in bounds else None


def _bounds(condition: Typed) -> dict[tuple[int, str], Any]:
    """Return the comparisons with constants that every matching row passes, the first of each column and operator."""
    bounds: dict[tuple[int, str], Any] = {}
    for term in terms_of(condition):
        match term:
            case Comparison(Position(_, column), ((operator, Constant(key)),)):
                bounds.setdefault((column, operator), key)
            case Comparison(Constant(key), ((operator, Position(_, column)),)):
                bounds.setdefault((column, _MIRRORED[operator]), key)
    return bounds
