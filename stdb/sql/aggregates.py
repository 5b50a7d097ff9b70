"""GROUP BY: groups of rows and what is counted, added up and picked over each of them.

Responsible for: the groups of a stream of joined rows, COUNT, SUM, MIN, MAX and AVG over them, their bounds.
Not responsible for: names and types (`binder`), the order and number of groups in a result (`analytic`).

Rows come in batches; what is folded is the part of a batch that falls into one group. A group keeps its first row,
which its columns are read from, and a state for each aggregate.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeAlias

from stdb.errors import QueryError
from stdb.sats import keys, satn
from stdb.sats.types import F64, AlgebraicType, Product, option_inner
from stdb.sql.binder import BoundAggregate, BoundAggregated, BoundSelect, Position
from stdb.sql.held import HELD_ROWS_MAX, Held
from stdb.sql.literals import INTEGERS
from stdb.sql.work import BATCH, batch_for

__all__ = ["Group", "Groups", "Rows", "row_type_of"]

Rows: TypeAlias = tuple[bytes, ...]
"""One joined row: the bytes of a row of each relation."""

_STATE_BYTES = 64
_SHORT_LIST = 8
"""States of a group that what every group costs is enough for."""
_FOLD_ROWS = 5
"""Rows that are folded in the time that it takes to begin."""
_FOLDED_MAX = 8 * BATCH
"""Rows folded, of all aggregates together, between two chances to pause."""
_NONE = (1,)
"""The key of an option's none."""


class Group(NamedTuple):
    """A group's row of the result, and the first of the joined rows in it (empty for the group of no rows)."""

    first: Rows
    values: tuple[Any, ...]


class _Fold(Protocol):
    """One aggregate: a state that takes rows in."""

    def start(self) -> Any:
        """Return the state of no rows."""

    def fold(self, state: Any, rows: list[Rows]) -> Any:
        """Return the state with some more rows."""

    def result(self, state: Any) -> Any:
        """Return the value."""


def row_type_of(select: BoundSelect, relation: int) -> Product:
    """Return the row type of a relation."""
    return select.relations[relation].table.schema.row_type


class Groups:
    """All groups of a query, by the keys of their columns; one group of all rows without GROUP BY."""

    def __init__(self, select: BoundSelect) -> None:
        assert isinstance(select.projection, BoundAggregated)
        self._held = Held("GROUP BY would hold", HELD_ROWS_MAX, "group by fewer columns or narrow it with WHERE")
        self._keys = _keys_of(select)
        self._relations = sorted({column.relation for column in select.grouping})
        self._folds: list[_Fold] = []
        self._readers = [self._reader(item, select) for item, _ in select.projection.items]
        self._groups: dict[Any, list[Any]] = {} if select.grouping else {(): self._new(())}

    def _reader(self, item: Position | BoundAggregate, select: BoundSelect) -> Callable[[list[Any]], Any]:
        """Return the function from a group (its first row, its states) to the value of an item of the list."""
        if isinstance(item, Position):
            return _column_reader(item, select)
        fold = _fold(item, select, self._held)
        self._folds.append(fold)
        return _state_reader(len(self._folds), fold)

    def add(self, batch: list[Rows]) -> Iterator[None]:
        """Take rows; a chance to pause wherever many were folded."""
        groups, folded = self._groups, 0
        for key, rows in self._parts(batch).items():
            group = groups.get(key)
            if group is None:
                group = groups[key] = self._new(rows[0])
            for place, fold in enumerate(self._folds, 1):
                group[place] = fold.fold(group[place], rows)
                folded += _FOLD_ROWS + len(rows)
                if folded >= _FOLDED_MAX:
                    folded = 0
                    yield

    def batches(self) -> Iterator[list[Group]]:
        """Yield the groups as rows of the result, in the order in which they were met."""
        groups, at_once = iter(self._groups.values()), batch_for(len(self._readers) / _SHORT_LIST)
        while part := list(islice(groups, at_once)):
            yield [Group(group[0], tuple([read(group) for read in self._readers])) for group in part]

    def _parts(self, batch: list[Rows]) -> dict[Any, list[Rows]]:
        if self._keys is None:
            return {(): batch} if batch else {}
        parts: dict[Any, list[Rows]] = {}
        for key, rows in zip(self._keys(batch), batch, strict=True):
            if key in parts:
                parts[key].append(rows)
            else:
                parts[key] = [rows]
        return parts

    def _new(self, first: Rows) -> list[Any]:
        if first:
            states = _STATE_BYTES * max(len(self._folds) - _SHORT_LIST, 0)
            self._held.add(1, states + sum(len(first[relation]) for relation in self._relations))
        return [first, *(fold.start() for fold in self._folds)]


def _keys_of(select: BoundSelect) -> Callable[[list[Rows]], list[Any]] | None:
    """Return the function from a batch to the keys of its groups; None without GROUP BY."""
    parts = []
    for relation in sorted({column.relation for column in select.grouping}):
        columns = sorted({column.column for column in select.grouping if column.relation == relation})
        parts.append((relation, keys.row_key(row_type_of(select, relation), columns)))
    if not parts:
        return None
    if len(parts) > 1:
        return lambda batch: list(
            zip(*([read(rows[relation]) for rows in batch] for relation, read in parts), strict=True)
        )
    ((only, read_key),) = parts
    return lambda batch: [read_key(rows[only]) for rows in batch]


def _column_reader(column: Position, select: BoundSelect) -> Callable[[list[Any]], Any]:
    """Return the function from a group to the value of one of its columns."""
    relation, read = column.relation, keys.row_column(row_type_of(select, column.relation), column.column)
    return lambda group: read(group[0][relation])


def _state_reader(place: int, fold: _Fold) -> Callable[[list[Any]], Any]:
    result = fold.result
    return lambda group: result(group[place])


# Aggregates.


def _fold(aggregate: BoundAggregate, select: BoundSelect, held: Held) -> _Fold:
    column = aggregate.column
    if column is None:
        return _Count()
    row_type = row_type_of(select, column.relation)
    read = keys.row_column(row_type, column.column)
    key_of = keys.row_key(row_type, (column.column,))
    match aggregate.function:
        case "count" if aggregate.is_distinct:
            return _CountDistinct(column.relation, key_of, option_inner(column.type) is not None, held)
        case "count":
            return _Count() if option_inner(column.type) is None else _CountSome(column.relation, read)
        case "sum":
            return _Sum(column.relation, read, aggregate.type)
        case "avg":
            return _Average(column.relation, read)
        case "min":
            return _Best(column.relation, key_of, read, held, is_max=False)
        case "max":
            return _Best(column.relation, key_of, read, held, is_max=True)
    raise AssertionError(aggregate)


class _Count:
    """COUNT of rows."""

    def start(self) -> int:
        return 0

    def fold(self, state: int, rows: list[Rows]) -> int:
        return state + len(rows)

    def result(self, state: int) -> int:
        return state


class _CountSome(_Count):
    """COUNT of an option's values that are not none."""

    def __init__(self, relation: int, read: Callable[[bytes], Any]) -> None:
        self.relation, self.read = relation, read

    def fold(self, state: int, rows: list[Rows]) -> int:
        read, relation = self.read, self.relation
        return state + sum(read(each[relation]) is not None for each in rows)


class _CountDistinct:
    """COUNT of distinct values, by their keys; nones are not counted."""

    def __init__(self, relation: int, key_of: Callable[[bytes], Any], is_option: bool, held: Held) -> None:
        self.relation, self.key_of, self.is_option, self.held = relation, key_of, is_option, held

    def start(self) -> set[Any]:
        return set()

    def fold(self, state: set[Any], rows: list[Rows]) -> set[Any]:
        key_of, relation = self.key_of, self.relation
        sizes = {key_of(each[relation]): len(each[relation]) for each in rows}
        if self.is_option:
            sizes.pop(_NONE, None)
        fresh = sizes.keys() - state
        self.held.add(len(fresh), sum(map(sizes.__getitem__, fresh)))
        state |= fresh
        return state

    def result(self, state: set[Any]) -> int:
        return len(state)


class _Sum:
    """SUM of integers, exactly, or of floats, in the order of the rows."""

    def __init__(self, relation: int, read: Callable[[bytes], Any], type_: AlgebraicType) -> None:
        self.relation, self.read, self.type = relation, read, type_

    def start(self) -> int | float:
        return 0.0 if self.type == F64 else 0

    def fold(self, state: float, rows: list[Rows]) -> int | float:
        read, relation = self.read, self.relation
        return sum([read(each[relation]) for each in rows], state)

    def result(self, state: float) -> int | float:
        """Return the sum.

        Raises:
            QueryError: It does not fit its type.
        """
        if self.type in INTEGERS:
            low, high = INTEGERS[self.type]
            if not low <= state <= high:
                shown = satn.format_type(self.type)
                raise QueryError(f"A sum does not fit its type `{shown}`; narrow the query with WHERE")
        return state


class _Average:
    """AVG of numbers; of no rows none."""

    def __init__(self, relation: int, read: Callable[[bytes], Any]) -> None:
        self.relation, self.read = relation, read

    def start(self) -> tuple[float, int]:
        return 0, 0

    def fold(self, state: tuple[float, int], rows: list[Rows]) -> tuple[float, int]:
        read, relation = self.read, self.relation
        total, count = state
        return sum([read(each[relation]) for each in rows], total), count + len(rows)

    def result(self, state: tuple[float, int]) -> float | None:
        total, count = state
        return total / count if count else None


class _Best:
    """MIN or MAX, by keys: the state is the best key with the row that has it; of no rows none."""

    def __init__(
        self,
        relation: int,
        key_of: Callable[[bytes], Any],
        read: Callable[[bytes], Any],
        held: Held,
        *,
        is_max: bool,
    ) -> None:
        self.relation, self.key_of, self.read, self.held = relation, key_of, read, held
        self.pick: Callable[[list[Any]], Any] = max if is_max else min

    def start(self) -> tuple[Any, bytes] | None:
        return None

    def fold(self, state: tuple[Any, bytes] | None, rows: list[Rows]) -> tuple[Any, bytes]:
        key_of, relation = self.key_of, self.relation
        found = [key_of(each[relation]) for each in rows]
        best = self.pick(found)
        if state is not None and self.pick([state[0], best]) == state[0]:
            return state
        row = rows[found.index(best)][relation]
        self.held.add(0, len(row) - (0 if state is None else len(state[1])))
        return best, row

    def result(self, state: tuple[Any, bytes] | None) -> Any:
        return None if state is None else self.read(state[1])
