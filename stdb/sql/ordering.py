"""ORDER BY: rows in the order of their keys, in steps, holding no more of them than needed.

Responsible for: keys of rows for a list of ascending and descending columns; sorting in runs; keeping the first only.
Not responsible for: which columns (`binder`), reading them (`analytic`), LIMIT and OFFSET (`analytic`).

Rows come and go in batches. They are sorted in runs, which are merged as they are asked for, so that no call takes
long; where only the first `keep` are wanted, what can not be among them is dropped. Equal rows keep their order.
"""

from collections.abc import Callable, Iterator
from heapq import merge
from itertools import chain, islice
from operator import itemgetter, neg
from typing import Any, Generic, NamedTuple, TypeVar

from stdb.sats.types import TIME_DURATION, TIMESTAMP, AlgebraicType, Scalar, ScalarKind
from stdb.sql.held import HELD_ROWS_MAX, Held
from stdb.sql.work import BATCH

__all__ = ["OrderColumn", "Sorter", "has_number_keys"]

RUN = 4_096
"""Rows that are sorted at once."""
KEEP_MAX = HELD_ROWS_MAX // 2
"""Most rows to keep of more; where more are wanted, all are held."""

Row = TypeVar("Row")
_key_of = itemgetter(0)
_row_of = itemgetter(1)


class OrderColumn(NamedTuple):
    """One column of an order: from a batch to keys, the direction, whether its keys are numbers."""

    keys: Callable[[list[Any]], list[Any]]
    is_descending: bool
    is_number: bool


def has_number_keys(type_: AlgebraicType) -> bool:
    """Tell whether the keys of a type are numbers, which change their order with their sign."""
    if isinstance(type_, Scalar):
        return type_.kind is not ScalarKind.STRING
    return type_ in (TIMESTAMP, TIME_DURATION)


class _Reversed:
    """A key in the opposite order."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reversed) and bool(self.key == other.key)

    def __hash__(self) -> int:
        return hash(self.key)

    def __lt__(self, other: "_Reversed") -> bool:
        return bool(other.key < self.key)


class _Keys:
    """Keys of batches, all in one direction: `is_reversed` tells which."""

    def __init__(self, columns: list[OrderColumn]) -> None:
        directions = [column.is_descending for column in columns if not column.is_number]
        self.is_reversed = directions[0] if directions else False
        self._columns = [(column.keys, self._turned(column)) for column in columns]

    def _turned(self, column: OrderColumn) -> Callable[[Any], Any] | None:
        if column.is_descending == self.is_reversed:
            return None
        return neg if column.is_number else _Reversed

    def of(self, batch: list[Any]) -> list[Any]:
        lists = [keys(batch) if turn is None else list(map(turn, keys(batch))) for keys, turn in self._columns]
        return lists[0] if len(lists) == 1 else list(zip(*lists, strict=True))


class Sorter(Generic[Row]):
    """Sorts rows; of more than `keep` (at least 1; None: all) it holds about twice as many, and loses the last."""

    def __init__(self, columns: list[OrderColumn], keep: int | None, size_of: Callable[[list[Row]], int]) -> None:
        self._keys = _Keys(columns)
        self._keep = keep if keep is not None and keep <= KEEP_MAX else None
        self._size_of = size_of
        self._held = Held(
            "ORDER BY would hold", HELD_ROWS_MAX, f"narrow it with WHERE or take at most {KEEP_MAX} rows with LIMIT"
        )
        self._run: list[tuple[Any, Row]] = []
        self._runs: list[list[tuple[Any, Row]]] = []
        self._worst: Any = None
        """Key of the last row to keep; rows that are not before it are lost."""
        self._is_full = False

    def add(self, batch: list[Row]) -> Iterator[None]:
        """Take rows; a chance to pause at every step."""
        pairs = list(zip(self._keys.of(batch), batch, strict=True))
        if self._is_full:
            worst = self._worst
            if self._keys.is_reversed:
                pairs = [pair for pair in pairs if pair[0] > worst]
            else:
                pairs = [pair for pair in pairs if pair[0] < worst]
        if not pairs:
            return
        self._held.add(len(pairs), self._size_of(list(map(_row_of, pairs))))
        self._run += pairs
        if len(self._run) >= RUN:
            self._close_run()
            if self._keep is not None and self._held.rows >= 2 * self._keep + RUN:
                yield from self._drop(self._keep)

    def batches(self) -> Iterator[list[Row]]:
        """Yield all rows in order."""
        self._close_run()
        rows = self._merged()
        while part := list(map(_row_of, islice(rows, BATCH))):
            yield part

    def _close_run(self) -> None:
        if self._run:
            self._run.sort(key=_key_of, reverse=self._keys.is_reversed)
            self._runs.append(self._run)
            self._run = []

    def _merged(self) -> Iterator[tuple[Any, Row]]:
        if self._held.rows <= 4 * RUN:
            joined = list(chain.from_iterable(self._runs))
            joined.sort(key=_key_of, reverse=self._keys.is_reversed)
            return iter(joined)
        return merge(*self._runs, key=_key_of, reverse=self._keys.is_reversed)

    def _drop(self, keep: int) -> Iterator[None]:
        """Drop all but the first `keep` rows."""
        merged = self._merged()
        kept: list[tuple[Any, Row]] = []
        size = 0
        while part := list(islice(merged, min(BATCH, keep - len(kept)))):
            kept += part
            size += self._size_of(list(map(_row_of, part)))
            yield
        self._held.add(len(kept) - self._held.rows, size - self._held.size)
        self._runs = [kept]
        self._is_full = True
        self._worst = kept[-1][0]
