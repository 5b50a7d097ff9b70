"""Long calls: reducers that come back before they are through, so that others run meanwhile.

Responsible for: one transaction around a reducer that is run in steps.
Not responsible for: the usual transaction (`database`), when a step is over (`stdb.modules.wasm`), slices (`pausing`).

Only modules that can be suspended have such reducers (`stdb.modules.protocol.Suspending`). The transaction stays open
between two steps and nothing else of its database is served, so nobody sees half of it.
"""

from time import perf_counter
from typing import TYPE_CHECKING, TypeAlias

from stdb.actors.calls import COMMITTED, RUN_ERRORS, ReducerEntry
from stdb.actors.sink import Client, ReducerOutcome
from stdb.modules.protocol import ReducerCall
from stdb.sql.work import Steps
from stdb.subscriptions.fragment import ClientUpdate, TransactionEvent

if TYPE_CHECKING:
    from stdb.actors.database import DatabaseActor
    from stdb.datastore.delta import Delta
    from stdb.subscriptions.actor import SubscriptionActor

__all__ = ["Ran", "transact_in_steps"]

Ran: TypeAlias = tuple[ReducerOutcome, TransactionEvent, ClientUpdate | None]
"""One transaction that ended: how, and what the caller's own subscriptions saw of it."""


def transact_in_steps(
    actor: "DatabaseActor",
    entry: ReducerEntry,
    client: Client,
    args: bytes,
    args_json: str | None = None,
    request_id: int = 0,
    subscriber: "SubscriptionActor | None" = None,
) -> Steps[Ran]:
    """Do as `DatabaseActor.transact` with a reducer that may come back early; closed half-way, nothing of it stays."""
    assert entry.start is not None, f"{entry.name} is run in one go"
    now_us = actor.now_us()
    transaction = actor.datastore.begin(now_us)
    started = perf_counter()
    delta: Delta | None = None
    try:
        call = ReducerCall(client.identity, client.connection_id, now_us, transaction, client.credentials or None)
        rest = entry.start(call, args)
        if rest is not None:
            yield from rest
        delta = transaction.commit()
        outcome = COMMITTED
    except RUN_ERRORS as error:
        transaction.rollback()
        outcome = actor.reducers.failed(entry, error)
    except BaseException:
        transaction.rollback()
        raise
    event = TransactionEvent(
        client.identity,
        client.connection_id,
        now_us,
        entry.name,
        entry.id,
        args,
        args_json,
        request_id,
        actor.datastore.next_offset,
        0,
        int((perf_counter() - started) * 1e6),
    )
    update = None if delta is None else actor.publish(delta, event, subscriber)
    return outcome, event, update
