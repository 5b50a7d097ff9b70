"""What comes behind the joined rows of a SELECT on the SQL surface: its columns, groups, order, OFFSET and LIMIT.

Responsible for: the columns of a result, its rows as plain values, in steps.
Not responsible for: finding the rows (`plan`, `join_plan`), names and types (`binder`).

Joined rows come in batches. One row is a tuple of row bytes, one of each relation in the order of the query; COUNT
looks at nothing but the length of a batch. No more batches are asked for than LIMIT needs.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from operator import itemgetter
from typing import Any, TypeAlias, TypeVar

from stdb.sats import bsatn, keys
from stdb.sats.types import U64, Element, Product
from stdb.sql.aggregates import Group, Groups, Rows, row_type_of
from stdb.sql.binder import BoundAggregated, BoundColumns, BoundCount, BoundOrder, BoundSelect, BoundStar, Position
from stdb.sql.held import Held
from stdb.sql.ordering import OrderColumn, Sorter, has_number_keys
from stdb.sql.work import Steps, Work, batch_for, parted

__all__ = ["Tail"]

_REFERENCE_BYTES = 8
_SHORT_LIST = 8
"""Columns of a row that what every row costs is enough for."""

Row = TypeVar("Row")
Values: TypeAlias = tuple[Any, ...]
"""One row of a result."""


class Tail:
    """All that a SELECT does with the rows that its joins find; bound once, run any number of times."""

    def __init__(self, select: BoundSelect) -> None:
        self._select = select
        self._sizes = _sizes(select)
        self._read = _reader(select)
        self.row_type = _row_type(select)
        """The columns of the result."""

    def steps(self, batches: Iterator[list[Rows]], work: Work) -> Steps[list[Values]]:
        """Return the rows of the result, with a chance to pause after every batch.

        Raises:
            QueryError: `work` has had enough, or too much would be held.
        """
        select = self._select
        if select.limit == 0:
            return _nothing()
        match select.projection:
            case BoundCount():
                return self._count(batches, work)
            case BoundAggregated():
                return self._groups(batches, work)
        return self._ordered(batches, work) if select.ordering else self._plain(batches, work)

    def _count(self, batches: Iterator[list[Rows]], work: Work) -> Steps[list[Values]]:
        count = 0
        for batch in batches:
            count += len(batch)
            yield
        work.spend(1)
        return [] if self._select.offset else [(count,)]

    def _plain(self, batches: Iterator[list[Rows]], work: Work) -> Steps[list[Values]]:
        held = Held("The result has", None, "narrow it with WHERE or LIMIT")
        at_once = batch_for(len(self.row_type.elements) / _SHORT_LIST)

        def produce(batch: list[Rows]) -> Iterable[Values]:
            held.add(len(batch), self._sizes(batch))
            return self._read(batch)

        return self._limited(parted(batches, at_once), produce, work)

    def _ordered(self, batches: Iterator[list[Rows]], work: Work) -> Steps[list[Values]]:
        sorter = Sorter([_row_order(each, self._select) for each in self._select.ordering], self._keep, self._sizes)
        for batch in batches:
            yield from sorter.add(batch)
            yield
        return (yield from self._plain(sorter.batches(), work))

    def _groups(self, batches: Iterator[list[Rows]], work: Work) -> Steps[list[Values]]:
        select = self._select
        groups = Groups(select)
        for batch in batches:
            yield from groups.add(batch)
            yield
        found = groups.batches()
        if select.ordering:
            # The groups themselves are counted by `groups`.
            sorter: Sorter[Group] = Sorter([_group_order(each, select) for each in select.ordering], self._keep, len)
            for part in found:
                yield from sorter.add(part)
                yield
            found = sorter.batches()
        return (yield from self._limited(found, lambda part: [group.values for group in part], work))

    @property
    def _keep(self) -> int | None:
        """How many rows of an order are wanted."""
        return None if self._select.limit is None else self._select.limit + self._select.offset

    def _limited(
        self, batches: Iterator[list[Row]], produce: Callable[[list[Row]], Iterable[Values]], work: Work
    ) -> Steps[list[Values]]:
        """Collect what `produce` makes of the rows between OFFSET and LIMIT."""
        limit, skip = self._select.limit, self._select.offset
        found: list[Values] = []
        for batch in batches:
            if skip:
                batch, skip = batch[skip:], max(skip - len(batch), 0)
            if limit is not None and len(found) + len(batch) >= limit:
                batch = batch[: limit - len(found)]
            work.spend(len(batch))
            found += produce(batch)
            if len(found) == limit:
                break
            yield
        return found


def _nothing() -> Steps[list[Values]]:
    yield from ()
    return []


# Columns.


def _row_type(select: BoundSelect) -> Product:
    match select.projection:
        case BoundStar(relation):
            return Product(row_type_of(select, relation).elements)
        case BoundCount(name):
            return Product((Element(name, U64),))
        case BoundColumns(columns):
            return Product(tuple(Element(name, position.type) for position, name in columns))
        case BoundAggregated(items):
            return Product(tuple(Element(name, item.type) for item, name in items))


def _reader(select: BoundSelect) -> Callable[[list[Rows]], Iterable[Values]]:
    """Return the function from joined rows to rows of the result."""
    match select.projection:
        case BoundStar(relation):
            return _read_all(relation, bsatn.codec(row_type_of(select, relation)).decode_exact)
        case BoundColumns(columns):
            return _columns_reader([position for position, _ in columns], select)
    return lambda batch: []  # counts and groups are read otherwise


def _read_all(relation: int, read: Callable[[bytes], Values]) -> Callable[[list[Rows]], Iterable[Values]]:
    row_of = itemgetter(relation)
    return lambda batch: map(read, map(row_of, batch))


def _columns_reader(positions: list[Position], select: BoundSelect) -> Callable[[list[Rows]], Iterable[Values]]:
    """Read the columns of one relation at a time, then put them in the order of the list."""
    by_relation: dict[int, list[int]] = {}
    for place, position in enumerate(positions):
        by_relation.setdefault(position.relation, []).append(place)
    readers, places = [], []
    for relation, mine in by_relation.items():
        columns = [positions[place].column for place in mine]
        readers.append(_read_all(relation, keys.row_columns(row_type_of(select, relation), columns)))
        places += mine
    if len(readers) == 1:
        return readers[0]
    in_order = itemgetter(*sorted(range(len(places)), key=places.__getitem__))
    return lambda batch: map(
        in_order, map(tuple, map(chain.from_iterable, zip(*[read(batch) for read in readers], strict=True)))
    )


def _sizes(select: BoundSelect) -> Callable[[list[Rows]], int]:
    """Return the function from joined rows to the bytes that rows of the result are made of.

    A row counts as often as the list names one of its columns at most; long lists cost what references to values do.
    """
    extra, factors = 0, dict[int, int]()
    match select.projection:
        case BoundStar(relation):
            factors[relation] = 1
        case BoundColumns(columns):
            extra = _REFERENCE_BYTES * max(len(columns) - _SHORT_LIST, 0)
            for (relation, _), times in Counter((column.relation, column.column) for column, _ in columns).items():
                factors[relation] = max(times, factors.get(relation, 0))
    weighted = []
    for relation, factor in factors.items():
        size = bsatn.codec(row_type_of(select, relation)).fixed_size
        if size is None:
            weighted.append((itemgetter(relation), factor))
        else:
            extra += factor * size
    return lambda batch: (
        extra * len(batch) + sum(factor * sum(map(len, map(row_of, batch))) for row_of, factor in weighted)
    )


# Order.


def _row_order(order: BoundOrder, select: BoundSelect) -> OrderColumn:
    """Order joined rows by a column."""
    position = order.by
    assert isinstance(position, Position)
    relation = position.relation
    key_of = keys.row_key(row_type_of(select, relation), (position.column,))
    return OrderColumn(
        lambda batch: [key_of(rows[relation]) for rows in batch], order.is_descending, has_number_keys(position.type)
    )


def _group_order(order: BoundOrder, select: BoundSelect) -> OrderColumn:
    """Order groups by a grouped column or an item of the result."""
    if isinstance(order.by, Position):
        of_rows = _row_order(order, select)
        return of_rows._replace(keys=lambda batch: of_rows.keys([group.first for group in batch]))
    place = order.by
    type_ = _row_type(select).elements[place].type
    key_of = keys.value_key(type_)
    return OrderColumn(
        lambda batch: [key_of(group.values[place]) for group in batch], order.is_descending, has_number_keys(type_)
    )
