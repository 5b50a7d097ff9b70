"""Long calls: reducers that come back before they are through, so that others run meanwhile.

Responsible for: one transaction around a reducer that is run in steps, the views that follow it included; the reducer
that a module of 0.11 has for its updates.
Not responsible for: the usual transaction (`database`), when a step is over (`stdb.modules.wasm`), slices (`pausing`).

Only modules that can be suspended have such reducers and views (`stdb.modules.protocol.Suspending`). The transaction
stays open between two steps and nothing else of its database is served, so nobody sees half of it.
"""

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, TypeAlias

from stdb.actors.calls import COMMITTED, RUN_ERRORS, ReducerEntry, Reducers
from stdb.actors.refusals import PublishFailed
from stdb.actors.sink import Client, ReducerOutcome
from stdb.modules.protocol import Module, ReducerCall
from stdb.sql.work import Steps
from stdb.subscriptions.fragment import ClientUpdate, TransactionEvent

if TYPE_CHECKING:
    from stdb.actors.database import DatabaseActor
    from stdb.datastore.delta import Delta
    from stdb.datastore.transaction import Transaction
    from stdb.subscriptions.actor import SubscriptionActor

__all__ = ["NO_REDUCER", "Ran", "TransactionStep", "run_update_reducer", "transact_in_steps"]

NO_REDUCER = 0xFFFFFFFF
TransactionStep: TypeAlias = "Callable[[Transaction], None]"
"""What is done in the transaction of a reducer, before or after it."""

Ran: TypeAlias = tuple[ReducerOutcome, TransactionEvent, ClientUpdate | None]
"""One transaction that ended: how, and what the caller's own subscriptions saw of it."""


def transact_in_steps(
    actor: "DatabaseActor",
    entry: ReducerEntry | None,
    client: Client,
    connection_id: bytes | None,
    args: bytes = b"",
    args_json: str | None = None,
    request_id: int = 0,
    subscriber: "SubscriptionActor | None" = None,
    *,
    name: str = "",
    reducer_id: int = NO_REDUCER,
    due_us: int = 0,
    before: "TransactionStep | None" = None,
    after: "TransactionStep | None" = None,
) -> Steps[Ran]:
    """Do as `DatabaseActor.transact` with what may come back early; closed half-way, nothing of it stays."""
    now_us = actor.now_us()
    if due_us > now_us:
        now_us = due_us
    transaction = actor.datastore.begin(now_us)
    started = perf_counter()
    delta: Delta | None = None
    try:
        if before is not None:
            before(transaction)
        if entry is not None:
            assert entry.start is not None, f"{entry.name} is run in one go"
            name, reducer_id = entry.name, entry.id
            call = ReducerCall(client.identity, connection_id, now_us, transaction, client.credentials or None)
            rest = entry.start(call, args)
            if rest is not None:
                yield from rest
        if after is not None:
            after(transaction)
        if actor.datastore.refresh_views is None:
            delta = transaction.commit()
        else:
            delta = yield from transaction.commit_in_steps()
        outcome = COMMITTED
    except RUN_ERRORS as error:
        transaction.rollback()
        assert entry is not None
        outcome = actor.reducers.failed(entry, error)
    except BaseException:
        transaction.rollback()
        raise
    event = TransactionEvent(
        client.identity,
        connection_id,
        now_us,
        name,
        reducer_id,
        args,
        args_json,
        request_id,
        actor.datastore.next_offset,
        0,
        0 if entry is None else int((perf_counter() - started) * 1e6),
    )
    update = None if delta is None else actor.publish(delta, event, subscriber)
    return outcome, event, update


def run_update_reducer(
    actor: "DatabaseActor", module: Module, transaction: "Transaction", now_us: int
) -> Steps[TransactionEvent]:
    """Run `__update__` within the transaction that puts a module in its place; return what that transaction is told as.

    Only modules of 0.11 have such a reducer; of others the event has no name.

    Raises:
        PublishFailed: It failed, with its text: the program that runs stays.
    """
    reducer_id = module.definition.update_reducer
    if reducer_id is None:
        return TransactionEvent(actor.owner, None, now_us)
    reducers = Reducers(module, actor.owner, actor.module_log)
    entry = reducers.by_name[module.definition.reducers[reducer_id].name]
    assert entry.start is not None, "modules of 0.11 are WebAssembly"
    try:
        rest = entry.start(ReducerCall(actor.owner, None, now_us, transaction), b"")
        if rest is not None:
            yield from rest
    except RUN_ERRORS as error:
        raise PublishFailed(reducers.failed(entry, error).text) from error
    return TransactionEvent(actor.owner, None, now_us, entry.name, entry.id)
