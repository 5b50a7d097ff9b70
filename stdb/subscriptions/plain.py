"""The plain twin of `Registry.evaluate`: every client's every query against every changed row, one by one.

Responsible for: saying in the simplest way what everyone must be told; property tests hold the registry to it.
Not responsible for: being fast. It shares nothing, prunes nothing and runs no generated source.
"""

from typing import TYPE_CHECKING

from stdb.sats import keys
from stdb.sql.predicate import evaluate
from stdb.subscriptions.fragment import ClientUpdate, Fragment, SetUpdate
from stdb.subscriptions.registry import Evaluation, HeldQuery

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stdb.datastore.delta import Delta
    from stdb.subscriptions.actor import SubscriptionActor

__all__ = ["evaluate_plainly"]


def evaluate_plainly(
    delta: "Delta", actors: "Iterable[SubscriptionActor]", caller: "SubscriptionActor | None" = None
) -> Evaluation:
    """Return what every one of `actors` sees of a committed transaction."""
    updates = [(actor, update) for actor in actors if (update := _update(delta, actor)) is not None]
    told = next((update for actor, update in updates if actor is caller), None)
    return Evaluation(told, [(actor, update) for actor, update in updates if actor is not caller])


def _update(delta: "Delta", actor: "SubscriptionActor") -> ClientUpdate | None:
    by_set: dict[int | None, list[tuple[str, int, Fragment]]] = {}
    for label, queries in actor.holdings():
        query_set_id = label if label >= 0 else None
        for query in queries:
            fragment = _fragment(delta, query)
            if fragment is not None:
                by_set.setdefault(query_set_id, []).append((fragment.table_name, query.serial, fragment))
    if not by_set:
        return None
    ordered = sorted(by_set.items(), key=lambda item: -1 if item[0] is None else item[0])
    return ClientUpdate(tuple(SetUpdate(which, _in_order(found)) for which, found in ordered))


def _in_order(found: list[tuple[str, int, Fragment]]) -> tuple[Fragment, ...]:
    return tuple(fragment for _, _, fragment in sorted(found, key=lambda each: each[:2]))


def _fragment(delta: "Delta", query: HeldQuery) -> Fragment | None:
    for changed in delta.tables:
        if changed.table.schema.id == query.plan.table.schema.id:
            is_event = changed.table.schema.definition.is_event
            inserts = [row for row in changed.inserts if _matches(query, row)]
            deletes = [] if is_event else [row for row in changed.deletes if _matches(query, row)]
            return query.fragment(inserts, deletes) if inserts or deletes else None
    return None


def _matches(query: HeldQuery, row: bytes) -> bool:
    condition = query.plan.condition
    if condition is None:
        return True
    row_type = query.plan.table.schema.row_type
    values = [keys.row_key(row_type, (column,))(row) for column in range(len(row_type.elements))]
    return bool(evaluate(condition, values))
