"""Pruning: which of the held branches a changed row can concern.

Responsible for: the branches that watch one table; finding those that a delta of it touches, by a value of the row, by
a value of its partners in a join, or always; the hits of branches over one table.
Not responsible for: evaluating joins and who is told (`registry`), what a branch must see (`stdb.sql`: its triggers).

A branch over one table is hit by the rows that pass it. A join branch watches the table of each of its relations, by
relation and not by table, so that both sides of a self join are watched; here it is only touched, and evaluated once
when every table of the transaction has been looked through. Which rows cannot concern a branch: spec 06 section 5.3.
"""

from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from stdb.sql import Edge, Pruning
from stdb.subscriptions.fragment import Fragment

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from stdb.datastore.delta import TableDelta
    from stdb.sql import Branch, Trigger
    from stdb.subscriptions.registry import HeldQuery

__all__ = ["HeldBranch", "Hit", "TableBranches", "Touched"]

_PARTNERS_PER_KEY = 16
"""Most partners to look at instead of evaluating one branch: a row may have as many as there are rows."""


class HeldBranch:
    """One branch of a held query: what is evaluated, and told as one fragment, at a time."""

    __slots__ = ("_schema", "is_event", "is_join", "order", "picked", "plan", "query")

    def __init__(self, query: "HeldQuery", place: int, plan: "Branch") -> None:
        self.query = query
        self.plan: Any = plan
        """A TablePlan, or a JoinPlan where `is_join`."""
        self.is_join = len(plan.tables) > 1
        self.is_event = any(table.schema.definition.is_event for table in plan.tables)
        """It reads an event table: what it returns are events too, of whichever table, and are never taken back."""
        self.picked = query.plan.picked
        """What is told of its rows where that is not all."""
        self._schema = plan.table.schema
        self.order = (self._schema.name, query.serial, place)
        """Where its fragment stands in a message."""

    def fragment(self, inserts: list[bytes], deletes: list[bytes]) -> Fragment:
        """Return rows of this branch as a fragment."""
        schema, picked = self._schema, self.picked
        if picked is not None:
            return Fragment(schema.shown_id, schema.name, picked.shape, picked.rows(inserts), picked.rows(deletes))
        return Fragment(schema.shown_id, schema.name, schema, inserts, deletes, self.is_event)


class Hit(NamedTuple):
    """A branch that changed, and how."""

    branch: HeldBranch
    fragment: Fragment


Touched: TypeAlias = "dict[HeldBranch, None]"
"""Join branches that a delta may concern, in the order found."""


class TableBranches:
    """The held branches that watch one table."""

    __slots__ = ("_always", "_joins", "_pruned")

    def __init__(self) -> None:
        self._always: dict[HeldBranch, None] = {}
        self._pruned: dict[tuple[int, ...], _Pruned] = {}
        self._joins: _JoinWatches | None = None

    def __bool__(self) -> bool:
        return bool(self._always or self._pruned or self._joins is not None)

    def add(self, branch: HeldBranch, relation: int) -> None:
        """Let a branch watch this table, which is that of one of its relations."""
        trigger = branch.plan.triggers[relation]
        if branch.is_join:
            if self._joins is None:
                self._joins = _JoinWatches()
            self._joins.add(branch, trigger)
        elif trigger is None:
            self._always[branch] = None
        else:
            _enter(self._pruned, trigger.columns, _Pruned(trigger.extract, {}), trigger.keys, branch)

    def remove(self, branch: HeldBranch, relation: int) -> None:
        """Undo `add`."""
        trigger = branch.plan.triggers[relation]
        if branch.is_join:
            assert self._joins is not None
            self._joins.remove(branch, trigger)
            if not self._joins:
                self._joins = None
        elif trigger is None:
            del self._always[branch]
        else:
            _take_out(self._pruned, trigger.columns, trigger.keys, branch)

    def collect(self, changed: "TableDelta", hits: list[Hit], touched: Touched) -> None:
        """Append a hit for every branch over this table alone that the delta changes; add the joins that it touches."""
        inserts = changed.inserts
        deletes = [] if changed.table.is_event else changed.deletes
        if self._always:
            _collect_always(self._always, inserts, deletes, hits)
        for pruned in self._pruned.values():
            _collect_pruned(pruned, inserts, deletes, hits)
        if self._joins is not None:
            self._joins.collect([*inserts, *deletes] if deletes else inserts, touched)


# Branches by the keys they wait for. A branch that waits for one key twice, as a self join may, is counted twice.


_ByKey: TypeAlias = dict[Any, dict[HeldBranch, int]]


class _Pruned(NamedTuple):
    """Branches that fix the same columns to constants, by the key of those constants."""

    extract: "Callable[[bytes], Any]"
    by_key: _ByKey


class _Edges(NamedTuple):
    """Join branches that find the partners of a changed row in the same way, by the key those must have."""

    key_of: "Callable[[bytes], Any]"
    partners_of: "Callable[[Any], Iterable[bytes]]"
    extract: "Callable[[bytes], Any]"
    by_key: _ByKey


def _enter(groups: dict[Any, Any], place: "Hashable", fresh: Any, keys: "Iterable[Any]", branch: HeldBranch) -> None:
    by_key: _ByKey = groups.setdefault(place, fresh).by_key
    for key in keys:
        _count(by_key.setdefault(key, {}), branch)


def _take_out(groups: dict[Any, Any], place: "Hashable", keys: "Iterable[Any]", branch: HeldBranch) -> None:
    by_key: _ByKey = groups[place].by_key
    for key in keys:
        _discount(by_key[key], branch)
        if not by_key[key]:
            del by_key[key]
    if not by_key:
        del groups[place]


def _count(branches: dict[HeldBranch, int], branch: HeldBranch) -> None:
    branches[branch] = branches.get(branch, 0) + 1


def _discount(branches: dict[HeldBranch, int], branch: HeldBranch) -> None:
    branches[branch] -= 1
    if not branches[branch]:
        del branches[branch]


class _JoinWatches:
    """The join branches that watch one table."""

    __slots__ = ("_always", "_edges", "_pruned")

    def __init__(self) -> None:
        self._always: dict[HeldBranch, int] = {}
        self._pruned: dict[tuple[int, ...], _Pruned] = {}
        self._edges: dict[Hashable, _Edges] = {}

    def __bool__(self) -> bool:
        return bool(self._always or self._pruned or self._edges)

    def add(self, branch: HeldBranch, trigger: "Trigger") -> None:
        match trigger:
            case None:
                _count(self._always, branch)
            case Pruning():
                _enter(self._pruned, trigger.columns, _Pruned(trigger.extract, {}), trigger.keys, branch)
            case Edge(key_of, index, pruning, shape):
                _enter(self._edges, shape, _Edges(key_of, index.stream, pruning.extract, {}), pruning.keys, branch)

    def remove(self, branch: HeldBranch, trigger: "Trigger") -> None:
        match trigger:
            case None:
                _discount(self._always, branch)
            case Pruning():
                _take_out(self._pruned, trigger.columns, trigger.keys, branch)
            case Edge():
                _take_out(self._edges, trigger.shape, trigger.pruning.keys, branch)

    def collect(self, rows: list[bytes], touched: Touched) -> None:
        """Add the branches that one of these rows, come or gone, may concern."""
        touched.update(dict.fromkeys(self._always))
        for extract, by_key in self._pruned.values():
            _touch(set(map(extract, rows)), by_key, touched)
        for key_of, partners_of, extract, by_key in self._edges.values():
            partners = chain.from_iterable(map(partners_of, set(map(key_of, rows))))
            keys = set(map(extract, islice(partners, len(rows) + _PARTNERS_PER_KEY * len(by_key))))
            is_cheaper_than_evaluating = next(partners, None) is None
            _touch(keys if is_cheaper_than_evaluating else by_key, by_key, touched)


def _touch(keys: "Iterable[Any]", by_key: _ByKey, touched: Touched) -> None:
    for key in keys:
        found = by_key.get(key)
        if found is not None:
            touched.update(dict.fromkeys(found))


# Branches over one table.


def _collect_always(
    branches: "Iterable[HeldBranch]", inserts: list[bytes], deletes: list[bytes], hits: list[Hit]
) -> None:
    whole: Fragment | None = None
    for branch in branches:
        matches = branch.plan.matches
        if matches is None and branch.picked is None:  # the whole table: such queries share one fragment, however spelt
            if whole is None:
                whole = branch.fragment(inserts, deletes)
            if inserts or deletes:
                hits.append(Hit(branch, whole))
            continue
        entered = inserts if matches is None else list(filter(matches, inserts))
        left = deletes if matches is None else list(filter(matches, deletes))
        if entered or left:
            hits.append(Hit(branch, branch.fragment(entered, left)))


def _collect_pruned(pruned: _Pruned, inserts: list[bytes], deletes: list[bytes], hits: list[Hit]) -> None:
    found: dict[HeldBranch, tuple[list[bytes], list[bytes]]] = {}
    extract, by_key = pruned
    for side, rows in enumerate((inserts, deletes)):
        for row in rows:
            for branch in by_key.get(extract(row), ()):
                matches = branch.plan.residual
                if matches is None or matches(row):
                    pair = found.get(branch)
                    if pair is None:
                        pair = found[branch] = ([], [])
                    pair[side].append(row)
    for branch, (entered, left) in found.items():
        hits.append(Hit(branch, branch.fragment(entered, left)))
