"""The naive mode: every client's query against every changed row, nothing shared and nothing pruned.

`python -m bench.naive serve ...` is a server in this mode. Conditions are compiled as in ours; every client holds one
query of one table.
"""

import sys

from stdb.cli.main import main
from stdb.datastore.delta import Delta
from stdb.sql import TablePlan
from stdb.subscriptions import Audience, ClientUpdate, Evaluation, Registry, SubscriptionActor
from stdb.subscriptions.fragment import SetUpdate


def evaluate(registry: Registry, delta: Delta, caller: SubscriptionActor | None = None) -> Evaluation:
    """Return what `registry.evaluate` does, the naive way."""
    told: ClientUpdate | None = None
    audiences: list[tuple[Audience, ClientUpdate]] = []
    by_table = {changed.table.schema.id: changed for changed in delta.tables}
    for query in registry.queries():
        changed = by_table.get(query.plan.table.schema.id)
        if changed is None:
            continue
        (branch,) = query.plan.branches
        assert isinstance(branch, TablePlan)
        for label, group in query.groups.items():
            for actor in group:
                inserts, deletes = (list(filter(branch.matches, rows)) for rows in (changed.inserts, changed.deletes))
                if inserts or deletes:
                    update = ClientUpdate((SetUpdate(label, (query.fragment(inserts, deletes),)),))
                    if actor is caller:
                        told = update
                    else:
                        audiences.append(({actor: actor.sink}, update))
    return Evaluation(told, audiences)


if __name__ == "__main__":
    Registry.evaluate = evaluate  # type: ignore[method-assign, assignment]  # the point of this program
    sys.exit(main())
