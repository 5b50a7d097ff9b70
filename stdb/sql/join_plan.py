"""Plans over joined tables: the rows of a join now, and what a transaction changes in them.

Responsible for: the delta formula; what a changed row must have to concern the join; the estimate of its rows.
Not responsible for: names and types (`binder`), what the conditions say (`join_terms`), how partners are found
(`join_route`), which joins may be subscribed to (`joins`), columns of a result.

A join is a bag: a row is returned once for each combination of partners. Deltas are computed against the tables as they
are *after* the transaction. With V = R1 x … x Rn over the new states and Di the signed change of Ri, the old bag is the
product of the (Ri - Di), so the change is the sum over every non-empty set S of relations of

    (-1)^(|S|+1) * product of Di for i in S * product of Ri for i not in S

which for two relations are the eight terms of spec 06 section 5.1. Relations go by their place, not by their table: a
self join needs no rule of its own. Source: spec 06 sections 3.2, 5.1, 5.3 and 7.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import combinations, product
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from stdb.sats import keys
from stdb.sql.binder import BoundSelect, BoundStar, Position
from stdb.sql.join_route import Route, Rows, Step, best_route
from stdb.sql.join_terms import JoinTerms, equality_of
from stdb.sql.plan import Edge, Trigger
from stdb.sql.predicate import Predicate
from stdb.sql.work import Work

if TYPE_CHECKING:
    from stdb.datastore.delta import TableDelta

__all__ = ["JoinPlan"]


class JoinPlan:
    """How to answer one SELECT over two or more relations."""

    def __init__(self, select: BoundSelect) -> None:
        self.select = select
        self._terms = JoinTerms(select)
        self._inputs = self._terms.inputs
        self.tables = self._terms.tables
        self._routes: dict[frozenset[int], Route] = {}
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
        route = best_route(self._terms)
        place = route.places[self.returned]
        for batch in self._walk(route, work):
            yield [rows[place] for rows in batch]

    def combinations(self, work: Work, relations: Sequence[int]) -> Iterator[list[Rows]]:
        """Yield the joined rows now, in batches: tuples of the rows of the given relations.

        Raises:
            QueryError: More than `work` allows.
        """
        route = best_route(self._terms)
        pick = _picker([route.places[relation] for relation in relations])
        for batch in self._walk(route, work):
            yield list(map(pick, batch))

    def _walk(self, route: Route, work: Work) -> Iterator[list[Rows]]:
        if self._terms.never:
            return iter(())
        first = self._inputs[route.order[0]].batches(work)
        start: Iterator[list[Rows]] = ([(row,) for row in batch] for batch in first)
        return route.walk(start, {}, work)

    # After a transaction.

    def changes(self, deltas: "Mapping[int, TableDelta]") -> tuple[list[bytes], list[bytes]]:
        """Return the rows that entered and that left, netted, as bags.

        `deltas` are a transaction's changes by table id; the tables are as they are right after it.
        """
        if self._terms.never:
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
            (place, plan.table.schema.id, plan.matches, plan.table.is_event) for place, plan in enumerate(self._inputs)
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
        route = self._delta_route(subset)
        place = route.places[self.returned]
        odd = 1 if self._events else len(subset) % 2  # all events together are one term, and new
        for sides in product((0, 1), repeat=len(subset)):
            lists = {relation: changed[relation][side] for relation, side in zip(subset, sides, strict=True)}
            if not all(lists.values()):
                continue
            sign = 1 if (sum(sides) + odd) % 2 else -1
            if len(subset) == 1 and len(route.steps) == 1 and route.steps[0].index is not None:
                self._add_look_ups(route.steps[0], place, lists[subset[0]], sign, net)
                continue
            start: Iterator[list[Rows]] = iter([[(row,) for row in lists[route.order[0]]]])
            for batch in route.walk(start, lists, Work()):
                for rows in batch:
                    row = rows[place]
                    net[row] = net.get(row, 0) + sign

    def _delta_route(self, changed: tuple[int, ...]) -> Route:
        """Return the way that begins at changed rows; unlike the way through whole tables it depends on no sizes."""
        listed = frozenset(changed)
        route = self._routes.get(listed)
        if route is None:
            route = self._routes[listed] = Route(self._terms, min(listed), listed).bound()
        return route

    def _add_look_ups(self, step: Step, place: int, rows: list[bytes], sign: int, net: dict[bytes, int]) -> None:
        """Add the term of changed rows of one relation whose partners an index has: nearly every delta of a join."""
        index, key_of, check = step.index, step.key_of, step.check
        assert index is not None
        assert key_of is not None
        matches = self._inputs[step.relation].matches
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

    # What concerns it.

    @cached_property
    def triggers(self) -> tuple[Trigger, ...]:
        """What a changed row must have to concern the plan, per relation."""
        return tuple(self._trigger(place) for place in range(len(self._inputs)))

    def _trigger(self, place: int) -> Trigger:
        own = self._inputs[place].pruning
        if own is not None:
            return own
        edges = [edge for equality in self._terms.equalities_of(place) if (edge := self._edge(*equality)) is not None]
        return max(edges, key=lambda edge: edge.via.unique, default=None)

    def _edge(self, own: Position, other: Position) -> Edge | None:
        partner = self._inputs[other.relation]
        index = partner.table.index_on((other.column,))
        if index is None or partner.pruning is None:
            return None
        key_of = keys.row_key(self.tables[own.relation].schema.row_type, (own.column,))
        shape = (own.column, partner.table.schema.id, index.id, partner.pruning.columns)
        return Edge(key_of, index, partner.pruning, shape)

    # The estimate.

    def estimate(self) -> int:
        """Return how many rows the reference thinks are scanned (spec 06 section 7)."""
        if len(self._inputs) == 2 and self._inputs[0].condition is None and self._inputs[1].condition is not None:
            places = [1, 0]  # the filtered side drives
        else:
            places = list(range(len(self._inputs)))
        scanned, rows = self._inputs[places[0]].estimated()
        for place in places[1:]:
            scanned, rows = self._estimated_join(place, scanned, rows)
        is_filtered = any(equality_of(term) is None for term in self._terms.links)
        return scanned + rows if is_filtered else scanned

    def _estimated_join(self, place: int, scanned: int, rows: int) -> tuple[int, int]:
        right = self._inputs[place]
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


def _picker(places: Sequence[int]) -> Callable[[Rows], Rows]:
    """Return the function from a tuple to some of its elements, as a tuple."""
    if len(places) == 1:
        (place,) = places
        return lambda rows: (rows[place],)
    return itemgetter(*places)
