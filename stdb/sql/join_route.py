"""Ways through a join: in which order its relations are visited, and how each finds its rows beside those before it.

Responsible for: choosing and compiling a route, walking it in batches.
Not responsible for: what the rows are used for (`join_plan`), reading one table (`plan`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

from stdb.datastore.index import UniqueIndex
from stdb.errors import QueryError
from stdb.sats import keys
from stdb.sql.binder import Position, Typed
from stdb.sql.join_terms import JoinTerms, conjunction, equality_of
from stdb.sql.plan import TablePlan
from stdb.sql.predicate import JoinPredicate, Predicate, compile_joined, relations_of
from stdb.sql.work import BATCH, Work, batch_for, parted

if TYPE_CHECKING:
    from stdb.datastore.table import AnyIndex

__all__ = ["HASHED_ROWS_MAX", "Route", "Rows", "Step", "best_route"]

HASHED_ROWS_MAX = 1_000_000
"""Most rows of a table that one join without an index holds in a temporary one."""
_REORDERED_MAX = 8
"""Most relations for which an order is looked for; longer joins are visited as they are written."""
_WAITING_MAX = 8_000 * BATCH
"""About how many references to rows wait in one evaluation, all its steps together."""

_WIDE = 64
"""Every so many relations a joined row counts for one row more: to make it is to copy it."""

Rows: TypeAlias = tuple[bytes, ...]
"""Joined rows, one of each relation, in the order of a route."""


def best_route(terms: JoinTerms) -> "Route":
    """Return the way through the relations that is thought to visit the fewest rows now."""
    places = range(len(terms.tables)) if len(terms.tables) <= _REORDERED_MAX else (0,)
    return min((Route(terms, place) for place in places), key=lambda route: route.cost).bound()


class Route:
    """An order of the relations, and how each after the first finds its rows beside those before it.

    The relations in `listed`, of which `start` is one unless there is none, are given as lists.
    """

    def __init__(self, terms: JoinTerms, start: int, listed: frozenset[int] = frozenset()) -> None:
        self.order = [start]
        self.places = {start: 0}
        """Where in the tuple the row of each relation stands."""
        self.steps: list[Step] = []
        self._terms = terms
        self._listed = listed
        rows = float(terms.inputs[start].candidates())
        self.cost = rows
        """About how many rows are visited."""
        left = [place for place in range(len(terms.tables)) if place != start]
        while left:
            step = self._next_step(left)
            left.remove(step.relation)
            self._take(step)
            rows = self._charge(step, rows)

    def _next_step(self, left: list[int]) -> "Step":
        if len(left) >= _REORDERED_MAX:
            return self._step(left[0])
        return min((self._step(place) for place in left), key=lambda step: step.rank)

    def _step(self, relation: int) -> "Step":
        table = self._terms.tables[relation]
        partners: dict[int, Position] = {}
        for own, other in self._terms.equalities_of(relation):
            if other.relation in self.places:
                partners.setdefault(own.column, other)
        if relation in self._listed:
            return Step(relation, partners, None, 2 if partners else 4)
        fixed = self._terms.fixed[relation]
        usable = [
            index
            for index in table.indexes
            if partners.keys() & set(index.columns) and partners.keys() | fixed.keys() >= set(index.columns)
        ]
        index = max(usable, key=lambda each: (each.unique, len(each.columns)), default=None)
        if index is not None:
            return Step(relation, partners, index, 0 if index.unique else 1)
        return Step(relation, partners, None, 3 if partners else 5)

    def _take(self, step: "Step") -> None:
        self.places[step.relation] = len(self.order)
        self.order.append(step.relation)
        self.steps.append(step)

    def bound(self) -> "Route":
        """Compile the steps: each checks the conditions whose relations are all there from then on."""
        so_far = {self.order[0]}
        for step in self.steps:
            so_far.add(step.relation)
            covered = step.covered()
            checked = [
                term
                for term in self._terms.links_of(step.relation)
                if relations_of(term) <= so_far and not _is_covered(term, covered)
            ]
            step.bind(self._terms, self.places, checked)
        return self

    def walk(self, start: Iterator[list[Rows]], lists: Mapping[int, list[bytes]], work: Work) -> Iterator[list[Rows]]:
        """Yield joined rows in batches, empty ones too.

        `start` yields rows of the first relation; `lists` has the rows of those that are not read from their table.
        Depth first, without recursion: a join may be very long.

        Raises:
            QueryError: More than `work` allows, or a temporary index would be too large.
        """
        inputs = self._terms.inputs
        visits = [_Visit(step, inputs[step.relation], lists.get(step.relation), work) for step in self.steps]
        size = max(1, min(batch_for(self._terms.row_cost), _WAITING_MAX // len(self.order) ** 2))
        pending: list[Iterator[list[Rows]]] = [parted(start, size)]
        while pending:
            batch = next(pending[-1], None)
            if batch is None:
                pending.pop()
            elif batch and len(pending) <= len(visits):
                pending.append(visits[len(pending) - 1].extended(batch, size))
            else:
                yield batch

    def _charge(self, step: "Step", rows: float) -> float:
        plan = self._terms.inputs[step.relation]
        size = plan.candidates()
        if step.index is not None:
            rows *= 1 if step.index.unique else max(1.0, len(plan.table) / (step.index.distinct_keys() or 1))
        elif step.partners:
            self.cost += 4 * size
        else:
            rows *= size
        self.cost += rows
        return rows


def _is_covered(term: Typed, covered: set[frozenset[tuple[int, int]]]) -> bool:
    equality = equality_of(term)
    return equality is not None and frozenset(position[:2] for position in equality) in covered


@dataclass(slots=True)
class Step:
    """How one relation's rows are found beside those of the relations before it: an index, a temporary one, or all."""

    relation: int
    partners: dict[int, Position]
    """Its columns that must equal columns of relations before it."""
    index: "AnyIndex | None"
    rank: int
    """Steps of a lower rank are taken first."""
    key_of: Callable[[Rows], Any] | None = None
    """The key to look up, from the rows before it; None when every row is a partner."""
    check: JoinPredicate | None = None
    """What the rows so far must pass."""

    def columns(self) -> tuple[int, ...]:
        """Return the columns that are looked up."""
        return self.index.columns if self.index is not None else tuple(sorted(self.partners))

    def covered(self) -> set[frozenset[tuple[int, int]]]:
        """Return the equalities that the look-up sees to."""
        pairs = ((column, self.partners[column]) for column in self.columns() if column in self.partners)
        return {frozenset(((self.relation, column), other[:2])) for column, other in pairs}

    def bind(self, terms: JoinTerms, places: Mapping[int, int], checked: list[Typed]) -> None:
        """Compile the key and the check; `places` is where the rows of the relations stand."""
        if self.partners:
            self.key_of = _key_of(self, terms, places)
        condition = conjunction(checked)
        if condition is not None:
            row_types = [table.schema.row_type for table in terms.tables]
            self.check = compile_joined(condition, row_types, [places[place] for place in range(len(row_types))])


class _Visit:
    """One step of one evaluation."""

    __slots__ = ("_access", "_given", "_hashed", "_step", "_work")

    def __init__(self, step: Step, access: TablePlan, given: list[bytes] | None, work: Work) -> None:
        self._step = step
        self._access = access
        self._given = given
        """The relation's rows where they are not the table's."""
        self._work = work
        self._hashed: dict[Any, list[bytes]] | None = None

    def extended(self, batch: list[Rows], size: int) -> Iterator[list[Rows]]:
        """Yield the rows so far with this relation's partners added, in batches of about `size`, empty ones too."""
        step = self._step
        check, key_of = step.check, step.key_of
        if step.index is None and key_of is not None and self._hashed is None:
            yield from self._hash()
        if isinstance(step.index, UniqueIndex) and key_of is not None and check is None:
            yield self._with_the_one(batch, step.index.find, key_of)
            return
        parts = self._parts()
        more = len(batch[0]) // _WIDE
        joined: list[Rows] = []
        visited = 0
        for rows in batch:
            found = parts(None if key_of is None else key_of(rows))
            for part in found if size >= BATCH else parted(found, size):
                visited += len(part)
                if more:
                    self._work.spend(more * len(part))
                added = [(*rows, row) for row in part]
                joined += added if check is None else filter(check, added)
                if len(joined) >= size or visited >= size:
                    yield joined
                    joined, visited = [], 0
            visited += 1
        self._work.spend(len(batch))
        yield joined

    def _with_the_one(
        self, batch: list[Rows], find: Callable[[Any], bytes | None], key_of: Callable[[Rows], Any]
    ) -> list[Rows]:
        """Return the rows so far with the one row that a unique index has for each, those without one left out."""
        joined = [(*rows, row) for rows in batch if (row := find(key_of(rows))) is not None]
        self._work.spend(len(batch) + len(joined) * (1 + len(batch[0]) // _WIDE))
        matches = self._access.matches
        return joined if matches is None else [rows for rows in joined if matches(rows[-1])]

    def _parts(self) -> Callable[[Any], Iterable[list[bytes]]]:
        """Return the function from a key to its rows, in batches."""
        if self._step.index is not None:
            return partial(_found, self._step.index.stream, self._access.matches, self._work)
        if self._step.key_of is not None:
            assert self._hashed is not None
            return partial(_hashed_rows, self._hashed, self._work)
        if self._given is not None:
            given = [self._given]
            return lambda _key: given
        return lambda _key: self._access.batches(self._work)

    def _hash(self) -> Iterator[list[Rows]]:
        """Put the relation's rows in a temporary index; yield nothing, often.

        Raises:
            QueryError: There are more than may be held.
        """
        own_key = keys.row_key(self._access.table.schema.row_type, self._step.columns())
        hashed: dict[Any, list[bytes]] = {}
        self._hashed = hashed
        count = 0
        for batch in self._access.batches(self._work) if self._given is None else (self._given,):
            count += len(batch)
            if count > HASHED_ROWS_MAX:
                raise _too_many_hashed()
            for row in batch:
                hashed.setdefault(own_key(row), []).append(row)
            yield []


def _hashed_rows(hashed: dict[Any, list[bytes]], work: Work, key: Any) -> Iterator[list[bytes]]:
    """Yield the rows that a temporary index has for a key, in batches."""
    rows = hashed.get(key, [])
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        work.spend(len(part))
        yield part


def _found(
    stream: Callable[[Any], Iterator[bytes]], matches: Predicate | None, work: Work, key: Any
) -> Iterator[list[bytes]]:
    """Yield the rows that an index has for a key and that match, in batches."""
    remaining = stream(key)
    while part := list(islice(remaining, BATCH)):
        work.spend(len(part))
        yield part if matches is None else list(filter(matches, part))


def _too_many_hashed() -> QueryError:
    return QueryError(
        f"The query joins more than {HASHED_ROWS_MAX} rows without an index; "
        "create an index on the join column or narrow the query with WHERE"
    )


def _key_of(step: Step, terms: JoinTerms, places: Mapping[int, int]) -> Callable[[Rows], Any]:
    """Return the function from the rows so far to the key that a step looks up."""
    parts = [_part(step, column, terms, places) for column in step.columns()]
    if len(parts) == 1:
        return parts[0]
    return lambda rows: tuple([part(rows) for part in parts])


def _part(step: Step, column: int, terms: JoinTerms, places: Mapping[int, int]) -> Callable[[Rows], Any]:
    other = step.partners.get(column)
    if other is None:
        key = terms.fixed[step.relation][column]
        return lambda rows: key
    extract = keys.row_key(terms.tables[other.relation].schema.row_type, (other.column,))
    place = places[other.relation]
    return lambda rows: extract(rows[place])
