"""Plans over joined tables: the rows of a join now, and what a transaction changes in them.

Responsible for: in which order the tables are visited and how partners are found; the delta formula; what a changed row
must have to concern the join.
Not responsible for: names and types (`binder`), which joins may be subscribed to (`joins`), columns of a result.

A join is a bag: a row is returned once for each combination of partners. Deltas are computed against the tables as they
are *after* the transaction. With V = R1 x … x Rn over the new states and Di the signed change of Ri, the old bag is the
product of the (Ri - Di), so the change is the sum over every non-empty set S of relations of

    (-1)^(|S|+1) * product of Di for i in S * product of Ri for i not in S

which for two relations are the eight terms of spec 06 section 5.1. Relations go by their place, not by their table: a
self join needs no rule of its own. Source: spec 06 sections 3.2, 5.1, 5.3 and 7.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import combinations, islice, product
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from stdb.errors import QueryError
from stdb.sats import keys
from stdb.sats.types import BOOL
from stdb.sql.binder import BoundSelect, BoundStar, Comparison, Conjunction, Constant, Position, Typed
from stdb.sql.plan import Edge, TablePlan, Trigger
from stdb.sql.predicate import JoinPredicate, Predicate, compile_joined, relations_of, terms_of
from stdb.sql.work import BATCH, Work

if TYPE_CHECKING:
    from stdb.datastore.delta import TableDelta
    from stdb.datastore.table import AnyIndex

__all__ = ["HASHED_ROWS_MAX", "JoinPlan"]

HASHED_ROWS_MAX = 1_000_000
"""Most rows of a table that one join without an index holds in a temporary one."""
_REORDERED_MAX = 8
"""Most relations for which an order is looked for; longer joins are visited as they are written."""

_Rows: TypeAlias = tuple[bytes, ...]
_Equality: TypeAlias = tuple[Position, Position]


class JoinPlan:
    """How to answer one SELECT over two or more relations."""

    def __init__(self, select: BoundSelect) -> None:
        self.select = select
        self.tables = tuple(relation.table for relation in select.relations)
        terms = [*_ons(select), *terms_of(select.where)]
        self._equalities = [equality for term in terms if (equality := _equality(term)) is not None]
        local = _local_terms(terms, self._equalities, len(self.tables))
        self.inputs = tuple(
            TablePlan(table, _conjunction(conditions)) for table, conditions in zip(self.tables, local, strict=True)
        )
        """Per relation: the access to its rows that meet the conditions on it alone."""
        self._linking = [term for term in terms if len(relations_of(term)) > 1]
        self._impossible = any(not relations_of(term) and not _is_true(term) for term in terms)
        self._routes: dict[frozenset[int], _Route] = {}
        projection = select.projection
        self.returned = projection.relation if isinstance(projection, BoundStar) else 0
        """The relation whose rows the plan returns, as a branch of a QueryPlan."""
        self.table = self.tables[self.returned]

    # Now.

    def batches(self, work: Work) -> Iterator[list[bytes]]:
        """Yield the returned relation's rows now, once for each combination, in batches (empty ones too).

        Raises:
            QueryError: More than `work` allows.
        """
        route = self._route(frozenset())
        place = route.places[self.returned]
        for batch in self._run(route, self.inputs[route.order[0]].batches(work), {}, work):
            yield [rows[place] for rows in batch]

    def combinations(self, work: Work, relations: Sequence[int]) -> Iterator[list[_Rows]]:
        """Yield the joined rows now, in batches: tuples of the rows of the given relations.

        Raises:
            QueryError: More than `work` allows.
        """
        route = self._route(frozenset())
        pick = _picker([route.places[relation] for relation in relations])
        for batch in self._run(route, self.inputs[route.order[0]].batches(work), {}, work):
            yield list(map(pick, batch))

    # After a transaction.

    def changes(self, deltas: "Mapping[int, TableDelta]") -> tuple[list[bytes], list[bytes]]:
        """Return the rows that entered and that left, netted, as bags.

        `deltas` are a transaction's changes by table id; the tables are as they are right after it.
        """
        if self._impossible:
            return [], []
        changed = self._changed(deltas)
        if not changed:
            return [], []
        net: dict[bytes, int] = {}
        for subset in self._subsets(changed):
            self._add_term(subset, changed, net)
        inserts: list[bytes] = []
        deletes: list[bytes] = []
        for row, count in net.items():
            if count > 0:
                inserts += [row] * count
            elif count < 0:
                deletes += [row] * -count
        return inserts, deletes

    @cached_property
    def _watched(self) -> tuple[tuple[int, int, Predicate | None, bool], ...]:
        """Per relation: its place, its table's id, what its rows must pass, whether they are events."""
        return tuple(
            (place, plan.table.schema.id, plan.matches, plan.table.is_event) for place, plan in enumerate(self.inputs)
        )

    @cached_property
    def _events(self) -> tuple[int, ...]:
        """The relations whose rows are there during their transaction only."""
        return tuple(place for place, _, _, is_event in self._watched if is_event)

    def _changed(self, deltas: "Mapping[int, TableDelta]") -> dict[int, tuple[list[bytes], list[bytes]]]:
        """Return the changed rows that meet the conditions on their relation, by relation."""
        changed = {}
        for place, table_id, matches, is_event in self._watched:
            delta = deltas.get(table_id)
            if delta is not None:
                entered, left = delta.inserts, [] if is_event else delta.deletes
                if matches is not None:
                    entered, left = list(filter(matches, entered)), list(filter(matches, left))
                if entered or left:
                    changed[place] = entered, left
        return changed

    def _subsets(self, changed: Mapping[int, Any]) -> list[tuple[int, ...]]:
        """Return the sets of relations that have a term.

        Rows of an event table are there for one transaction only: what they join with is new, and nothing leaves.
        """
        if self._events:
            return [self._events] if changed.keys() >= set(self._events) else []
        return [each for size in range(1, len(changed) + 1) for each in combinations(changed, size)]

    def _add_term(
        self, subset: tuple[int, ...], changed: dict[int, tuple[list[bytes], list[bytes]]], net: dict[bytes, int]
    ) -> None:
        """Add one term of the formula to the net count of each returned row."""
        route = self._route(frozenset(subset))
        place = route.places[self.returned]
        odd = len(subset) % 2
        for sides in product((0, 1), repeat=len(subset)):
            lists = {relation: changed[relation][side] for relation, side in zip(subset, sides, strict=True)}
            if not all(lists.values()):
                continue
            sign = 1 if (sum(sides) + odd) % 2 else -1
            if len(subset) == 1 and len(route.steps) == 1 and route.steps[0].index is not None:
                self._add_look_ups(route.steps[0], place, lists[subset[0]], sign, net)
                continue
            start: Iterator[list[_Rows]] = iter([[(row,) for row in lists[route.order[0]]]])
            for batch in self._walk(route, start, lists, Work()):
                for rows in batch:
                    row = rows[place]
                    net[row] = net.get(row, 0) + sign

    def _add_look_ups(self, step: "_Step", place: int, rows: list[bytes], sign: int, net: dict[bytes, int]) -> None:
        """Add the term of changed rows of one relation whose partners an index has: nearly every delta of a join."""
        index, key_of, check = step.index, step.key_of, step.check
        assert index is not None
        assert key_of is not None
        matches = self.inputs[step.relation].matches
        for row in rows:
            partners: Iterable[bytes] = index.find_all(key_of((row,)))
            if matches is not None:
                partners = filter(matches, partners)
            if check is not None:
                partners = [partner for partner in partners if check((row, partner))]
            if place == 0:
                net[row] = net.get(row, 0) + sign * sum(1 for _ in partners)
            else:
                for partner in partners:
                    net[partner] = net.get(partner, 0) + sign

    # The walk.

    def _run(
        self, route: "_Route", start: Iterator[list[bytes]], lists: Mapping[int, list[bytes]], work: Work
    ) -> Iterator[list[_Rows]]:
        if self._impossible:
            return iter(())
        singles: Iterator[list[_Rows]] = ([(row,) for row in batch] for batch in start)
        return self._walk(route, singles, lists, work)

    def _walk(
        self, route: "_Route", start: Iterator[list[_Rows]], lists: Mapping[int, list[bytes]], work: Work
    ) -> Iterator[list[_Rows]]:
        """Yield joined rows in the order of the route. Depth first, without recursion: a join may be very long."""
        visits = [_Visit(step, self.inputs[step.relation], lists.get(step.relation), work) for step in route.steps]
        size = max(1, min(BATCH, 64 * BATCH // len(self.tables) ** 2))
        pending: list[Iterator[list[_Rows]]] = [start]
        while pending:
            batch = next(pending[-1], None)
            if batch is None:
                pending.pop()
            elif len(pending) > len(visits):
                yield batch
            elif batch:
                pending.append(visits[len(pending) - 1].extended(batch, size))
            else:
                yield batch

    # Routes.

    def _route(self, listed: frozenset[int]) -> "_Route":
        """Return the way through the relations; those in `listed` are given as lists, and one of them comes first."""
        if not listed:  # sizes of tables change
            return self._best_route()
        route = self._routes.get(listed)
        if route is None:
            route = self._routes[listed] = _Route(self, min(listed), listed).bound()
        return route

    def _best_route(self) -> "_Route":
        places = range(len(self.tables)) if len(self.tables) <= _REORDERED_MAX else (0,)
        best = min((_Route(self, place, frozenset()) for place in places), key=lambda route: route.cost)
        return best.bound()

    def equalities_of(self, relation: int) -> list[_Equality]:
        """Return the equalities of a relation with others, its own column first."""
        return self._equalities_by_relation.get(relation, [])

    @cached_property
    def _equalities_by_relation(self) -> dict[int, list[_Equality]]:
        found: dict[int, list[_Equality]] = {}
        for left, right in self._equalities:
            found.setdefault(left.relation, []).append((left, right))
            found.setdefault(right.relation, []).append((right, left))
        return found

    @cached_property
    def fixed(self) -> tuple[dict[int, Any], ...]:
        """Per relation: the columns that conditions fix to one constant, with its key."""
        return tuple(_fixed_columns(plan.condition) for plan in self.inputs)

    @cached_property
    def links_by_relation(self) -> dict[int, list[Typed]]:
        """The conditions that join relations, by each relation that they mention."""
        found: dict[int, list[Typed]] = {}
        for term in self._linking:
            for relation in relations_of(term):
                found.setdefault(relation, []).append(term)
        return found

    # What concerns it.

    @cached_property
    def triggers(self) -> tuple[Trigger, ...]:
        """What a changed row must have to concern the plan, per relation."""
        return tuple(self._trigger(place) for place in range(len(self.inputs)))

    def _trigger(self, place: int) -> Trigger:
        own = self.inputs[place].pruning
        if own is not None:
            return own
        edges = [edge for equality in self.equalities_of(place) if (edge := self._edge(*equality)) is not None]
        return max(edges, key=lambda edge: edge.via.unique, default=None)

    def _edge(self, own: Position, other: Position) -> Edge | None:
        partner = self.inputs[other.relation]
        index = partner.table.index_on((other.column,))
        if index is None or partner.pruning is None:
            return None
        key_of = keys.row_key(self.tables[own.relation].schema.row_type, (own.column,))
        shape = (own.column, partner.table.schema.id, index.id, partner.pruning.columns)
        return Edge(key_of, index, partner.pruning, shape)

    # The estimate.

    def estimate(self) -> int:
        """Return how many rows the reference thinks are scanned (spec 06 section 7)."""
        if len(self.inputs) == 2 and self.inputs[0].condition is None and self.inputs[1].condition is not None:
            places = [1, 0]  # the filtered side drives
        else:
            places = list(range(len(self.inputs)))
        scanned, rows = self.inputs[places[0]].estimated()
        for place in places[1:]:
            scanned, rows = self._estimated_join(place, scanned, rows)
        is_filtered = any(_equality(term) is None for term in self._linking)
        return scanned + rows if is_filtered else scanned

    def _estimated_join(self, place: int, scanned: int, rows: int) -> tuple[int, int]:
        right = self.inputs[place]
        on = self.select.joins[max(0, place - 1)]
        columns = [] if on is None else [position.column for position in on if position.relation == place]
        if len(columns) != 1:
            right_scanned, right_rows = right.estimated()
            return scanned + right_scanned + rows * right_rows, rows * right_rows
        index = right.table.index_on((columns[0],))
        if index is not None:
            matches = 1 if index.unique else len(right.table) // (index.distinct_keys() or 1)
            joined = rows * matches
            return scanned + joined + (joined if right.condition is not None else 0), joined
        right_scanned, right_rows = right.estimated()
        return scanned + right_scanned + rows * right_rows, rows * right_rows


# Terms.


def _ons(select: BoundSelect) -> list[Typed]:
    return [Comparison(on[0], (("=", on[1]),)) for on in select.joins if on is not None]


def _equality(term: Typed) -> _Equality | None:
    """Return the columns of two relations that a term demands to be equal."""
    match term:
        case Comparison(Position() as left, (("=", Position() as right),)) if left.relation != right.relation:
            return left, right
    return None


def _is_true(term: Typed) -> bool:
    """Tell whether a term without columns holds."""
    return bool(compile_joined(term, (), ())(()))


def _conjunction(terms: list[Typed]) -> Typed | None:
    if len(terms) < 2:
        return terms[0] if terms else None
    return Conjunction(True, tuple(terms))


def _local_terms(terms: list[Typed], equalities: list[_Equality], relations: int) -> list[list[Typed]]:
    """Return the conditions on each relation alone, with those that follow from equalities with fixed columns."""
    local: list[list[Typed]] = [[] for _ in range(relations)]
    for term in terms:
        mentioned = relations_of(term)
        if len(mentioned) == 1:
            local[mentioned.pop()].append(term)
    for term, place in _implied(local, equalities):
        local[place].append(term)
    return local


def _implied(local: list[list[Typed]], equalities: list[_Equality]) -> list[tuple[Typed, int]]:
    """Return what follows: a column that must equal a fixed one is fixed, too."""
    known: dict[tuple[int, int], Any] = {}
    for place, terms in enumerate(local):
        for column, key in _fixed_columns(_conjunction(terms)).items():
            known[place, column] = key
    sides: dict[tuple[int, int], list[Position]] = {}
    for left, right in equalities:
        sides.setdefault(left[:2], []).append(right)
        sides.setdefault(right[:2], []).append(left)
    implied: list[tuple[Typed, int]] = []
    pending = list(known)
    while pending:
        fixed = pending.pop()
        for other in sides.get(fixed, ()):
            if other[:2] not in known:
                known[other[:2]] = known[fixed]
                pending.append(other[:2])
                implied.append((Comparison(other, (("=", Constant(known[fixed], other.type)),)), other.relation))
    return implied


def _fixed_columns(condition: Typed | None) -> dict[int, Any]:
    """Return the columns that the terms of a condition over one relation fix to a constant."""
    fixed: dict[int, Any] = {}
    for term in terms_of(condition):
        match term:
            case Comparison(Position(_, column), (("=", Constant(key)),)) | Comparison(
                Constant(key), (("=", Position(_, column)),)
            ):
                fixed.setdefault(column, key)
            case Position(_, column, type_) if type_ == BOOL:
                fixed.setdefault(column, True)
    return fixed


# Routes.


class _Route:
    """An order of the relations, and how each after the first finds its rows beside those before it."""

    def __init__(self, plan: JoinPlan, start: int, listed: frozenset[int]) -> None:
        self.order = [start]
        self.places = {start: 0}
        """Where in the tuple the row of each relation stands."""
        self.steps: list[_Step] = []
        self._plan = plan
        self._listed = listed
        rows = float(plan.inputs[start].candidates())
        self.cost = rows
        """About how many rows are visited."""
        left = [place for place in range(len(plan.tables)) if place != start]
        while left:
            step = self._next_step(left)
            left.remove(step.relation)
            self._take(step)
            rows = self._charge(step, rows)

    def _next_step(self, left: list[int]) -> "_Step":
        if len(left) >= _REORDERED_MAX:
            return self._step(left[0])
        return min((self._step(place) for place in left), key=lambda step: step.rank)

    def _step(self, relation: int) -> "_Step":
        table = self._plan.tables[relation]
        partners: dict[int, Position] = {}
        for own, other in self._plan.equalities_of(relation):
            if other.relation in self.places:
                partners.setdefault(own.column, other)
        if relation in self._listed:
            return _Step(relation, partners, None, 2 if partners else 4)
        fixed = self._plan.fixed[relation]
        usable = [
            index
            for index in table.indexes
            if partners.keys() & set(index.columns) and partners.keys() | fixed.keys() >= set(index.columns)
        ]
        index = max(usable, key=lambda each: (each.unique, len(each.columns)), default=None)
        if index is not None:
            return _Step(relation, partners, index, 0 if index.unique else 1)
        return _Step(relation, partners, None, 3 if partners else 5)

    def _take(self, step: "_Step") -> None:
        self.places[step.relation] = len(self.order)
        self.order.append(step.relation)
        self.steps.append(step)

    def bound(self) -> "_Route":
        """Compile the steps: each checks the conditions whose relations are all there from then on."""
        so_far = {self.order[0]}
        for step in self.steps:
            so_far.add(step.relation)
            covered = step.covered()
            terms = [
                term
                for term in self._plan.links_by_relation.get(step.relation, ())
                if relations_of(term) <= so_far and not _is_covered(term, covered)
            ]
            step.bind(self._plan, self.places, terms)
        return self

    def _charge(self, step: "_Step", rows: float) -> float:
        plan = self._plan.inputs[step.relation]
        size = plan.candidates()
        if step.index is not None:
            rows *= 1 if step.index.unique else max(1.0, len(plan.table) / (step.index.distinct_keys() or 1))
        elif step.partners:
            self.cost += 2 * size
        else:
            rows *= size
        self.cost += rows
        return rows


def _is_covered(term: Typed, covered: set[frozenset[tuple[int, int]]]) -> bool:
    equality = _equality(term)
    return equality is not None and frozenset(position[:2] for position in equality) in covered


@dataclass(slots=True)
class _Step:
    """How one relation's rows are found beside those of the relations before it: an index, a temporary one, or all."""

    relation: int
    partners: dict[int, Position]
    """Its columns that must equal columns of relations before it."""
    index: "AnyIndex | None"
    rank: int
    """Steps of a lower rank are taken first."""
    key_of: Callable[[_Rows], Any] | None = None
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

    def bind(self, plan: JoinPlan, places: Mapping[int, int], terms: list[Typed]) -> None:
        """Compile the key and the check; `places` is where the rows of the relations so far stand."""
        row_types = [table.schema.row_type for table in plan.tables]
        if self.partners:
            self.key_of = _key_of(self, plan, places)
        if terms:
            in_tuple = [places.get(relation, 0) for relation in range(len(row_types))]
            self.check = compile_joined(_conjunction(terms) or terms[0], row_types, in_tuple)


class _Visit:
    """One step of one evaluation."""

    __slots__ = ("_access", "_given", "_hashed", "_step", "_work")

    def __init__(self, step: _Step, access: TablePlan, given: list[bytes] | None, work: Work) -> None:
        self._step = step
        self._access = access
        self._given = given
        """The relation's rows where they are not the table's."""
        self._work = work
        self._hashed: dict[Any, list[bytes]] | None = None

    def extended(self, batch: list[_Rows], size: int) -> Iterator[list[_Rows]]:
        """Yield the rows so far with this relation's partners added, in batches of about `size`, empty ones too."""
        step = self._step
        check, key_of = step.check, step.key_of
        if step.index is None and key_of is not None and self._hashed is None:
            yield from self._hash()
        parts = self._parts()
        joined: list[_Rows] = []
        visited = 0
        for rows in batch:
            for part in parts(None if key_of is None else key_of(rows)):
                visited += len(part)
                added = [(*rows, row) for row in part]
                joined += added if check is None else filter(check, added)
                if len(joined) >= size or visited >= BATCH:
                    yield joined
                    joined, visited = [], 0
            visited += 1
        self._work.spend(len(batch))
        yield joined

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

    def _hash(self) -> Iterator[list[_Rows]]:
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


def _key_of(step: _Step, plan: JoinPlan, places: Mapping[int, int]) -> Callable[[_Rows], Any]:
    """Return the function from the rows so far to the key that a step looks up."""
    parts = [_part(step, column, plan, places) for column in step.columns()]
    if len(parts) == 1:
        return parts[0]
    return lambda rows: tuple([part(rows) for part in parts])


def _part(step: _Step, column: int, plan: JoinPlan, places: Mapping[int, int]) -> Callable[[_Rows], Any]:
    other = step.partners.get(column)
    if other is None:
        key = plan.fixed[step.relation][column]
        return lambda rows: key
    extract = keys.row_key(plan.tables[other.relation].schema.row_type, (other.column,))
    place = places[other.relation]
    return lambda rows: extract(rows[place])


def _picker(places: Sequence[int]) -> Callable[[_Rows], _Rows]:
    """Return the function from a tuple to some of its elements, as a tuple."""
    if len(places) == 1:
        (place,) = places
        return lambda rows: (rows[place],)
    return itemgetter(*places)
