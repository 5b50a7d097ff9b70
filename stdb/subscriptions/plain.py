"""The plain twin of `Registry.evaluate`: every query of every client over all rows before and after, one by one.

Responsible for: saying in the simplest way what everyone must be told; property tests hold the registry to it.
Not responsible for: being fast. It shares nothing, prunes nothing, looks nothing up, runs no generated source and knows
no formula: what a query is told is what it returns after the transaction less what it returned before.
"""

from collections import Counter
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from stdb.sats import keys
from stdb.sql.binder import (
    COMPARISONS,
    BoundSelect,
    BoundStar,
    Caller,
    Comparison,
    Conjunction,
    Constant,
    Position,
    Typed,
)
from stdb.sql.row_query import bind_row_query
from stdb.sql.rules import expand
from stdb.subscriptions.fragment import ClientUpdate, Fragment, SetUpdate
from stdb.subscriptions.registry import Evaluation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stdb.datastore.datastore import Datastore
    from stdb.datastore.delta import Delta
    from stdb.datastore.table import Table
    from stdb.subscriptions.actor import SubscriptionActor
    from stdb.subscriptions.registry import HeldQuery

__all__ = ["Rows", "bound_branches", "evaluate_plainly", "rows_now", "rows_of_branch"]

Rows: TypeAlias = dict[int, list[bytes]]
"""All rows of a database at one moment, by table id."""


def rows_now(datastore: "Datastore") -> Rows:
    """Return all rows as they are now, those of views too."""
    views = () if datastore.views is None else datastore.views.instances()
    return {table.schema.id: list(table.rows()) for table in (*datastore.tables.values(), *views)}


def bound_branches(text: str, datastore: "Datastore", caller: Caller) -> list[BoundSelect]:
    """Return the branches of a query of the subscription language, names and types resolved.

    Raises:
        QueryError: It is none.
    """
    return expand(bind_row_query(text, datastore, caller), datastore, caller)


def rows_of_branch(branch: BoundSelect, rows: Rows) -> Counter[bytes]:
    """Return the bag of rows that a branch returns: every combination of rows of its tables is tried."""
    tables = [relation.table for relation in branch.relations]
    inputs = [[(row, _keys_of(table, row)) for row in rows.get(table.schema.id, ())] for table in tables]
    returned = _returned(branch)
    found: Counter[bytes] = Counter()
    for combination in product(*inputs):
        if _passes(branch, [columns for _, columns in combination]):
            found[combination[returned][0]] += 1
    return found


def evaluate_plainly(
    before: Rows,
    delta: "Delta",
    datastore: "Datastore",
    actors: "Iterable[SubscriptionActor]",
    caller: "SubscriptionActor | None" = None,
) -> Evaluation:
    """Return what every one of `actors` sees of a committed transaction; `before` are the rows before it."""
    moments = _Moments(datastore, before, _after(delta, datastore), {})
    updates = [(actor, update) for actor in actors if (update := _update(moments, actor)) is not None]
    told = next((update for actor, update in updates if actor is caller), None)
    return Evaluation(told, [({actor: actor.sink}, update) for actor, update in updates if actor is not caller])


# One query.


def _returned(branch: BoundSelect) -> int:
    assert isinstance(branch.projection, BoundStar), "subscriptions return whole rows"
    return branch.projection.relation


def _keys_of(table: "Table", row: bytes) -> list[Any]:
    row_type = table.schema.row_type
    return [keys.row_key(row_type, (column,))(row) for column in range(len(row_type.elements))]


def _passes(branch: BoundSelect, columns: "Sequence[Sequence[Any]]") -> bool:
    ons = [on for on in branch.joins if on is not None]
    if any(_value(left, columns) != _value(right, columns) for left, right in ons):
        return False
    return branch.where is None or bool(_value(branch.where, columns))


def _value(condition: Typed, columns: "Sequence[Sequence[Any]]") -> Any:
    """Return what a condition is for one row of each relation, given as keys by column."""
    match condition:
        case Constant(key):
            return key
        case Position(relation, column):
            return columns[relation][column]
        case Conjunction(is_and, terms):
            outcomes = (_value(term, columns) for term in terms)
            return all(outcomes) if is_and else any(outcomes)
        case Comparison(first, rest):
            value = _value(first, columns)
            for operator, operand in rest:
                value = COMPARISONS[operator](value, _value(operand, columns))
            return value
    raise AssertionError(condition)


# One transaction.


class _Moments(NamedTuple):
    """The rows around a transaction, and what was made of them for a text and a caller."""

    datastore: "Datastore"
    before: Rows
    after: Rows
    known: dict[tuple[str, Caller], list[Fragment]]


def _after(delta: "Delta", datastore: "Datastore") -> Rows:
    """Return the rows after a transaction, and of event tables those that were there during it."""
    rows = rows_now(datastore)
    for changed in delta.tables:
        if changed.table.is_event:
            rows[changed.table.schema.id] = list(changed.inserts)
    return rows


def _update(moments: _Moments, actor: "SubscriptionActor") -> ClientUpdate | None:
    by_set: dict[int | None, list[tuple[tuple[str, int, int], Fragment]]] = {}
    for label, queries in actor.holdings():
        query_set_id = label if label >= 0 else None
        for query in queries:
            for place, fragment in enumerate(_fragments(moments, query, actor.caller)):
                if fragment.inserts or fragment.deletes:
                    order = fragment.table_name, query.serial, place
                    by_set.setdefault(query_set_id, []).append((order, fragment))
    if not by_set:
        return None
    ordered = sorted(by_set.items(), key=lambda item: -1 if item[0] is None else item[0])
    return ClientUpdate(tuple(SetUpdate(which, _in_order(found)) for which, found in ordered))


def _in_order(found: list[tuple[tuple[str, int, int], Fragment]]) -> tuple[Fragment, ...]:
    return tuple(fragment for _, fragment in sorted(found, key=lambda each: each[0]))


def _fragments(moments: _Moments, query: "HeldQuery", caller: Caller) -> list[Fragment]:
    """Return one fragment per branch of what a text means to a caller, empty ones too."""
    known = moments.known.get((query.text, caller))
    if known is None:
        branches = bound_branches(query.text, moments.datastore, caller)
        known = moments.known[query.text, caller] = [_fragment(moments, branch) for branch in branches]
    return known


def _fragment(moments: _Moments, branch: BoundSelect) -> Fragment:
    """Return how a branch changed. Events are never taken back: no transaction begins with any."""
    before, after = rows_of_branch(branch, moments.before), rows_of_branch(branch, moments.after)
    schema = branch.relations[_returned(branch)].table.schema
    is_event = any(relation.table.is_event for relation in branch.relations)
    inserts, deletes = list((after - before).elements()), list((before - after).elements())
    return Fragment(schema.shown_id, schema.name, schema, inserts, deletes, is_event)
