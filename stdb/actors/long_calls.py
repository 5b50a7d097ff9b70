"""Long calls: reducers that come back before they are through, so that others run meanwhile.

Responsible for: one transaction around a reducer that is run in steps, the views that follow it included; the reducer
that a module of 0.11 has for its updates.
Not responsible for: the usual transaction (`database`), when a step is over (`stdb.modules.wasm`), slices (`pausing`).

Only modules that can be suspended have such reducers and views (`stdb.modules.protocol.Suspending`). The transaction
stays open between two steps and nothing else of its database is served, so nobody sees half of it.
"""

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from stdb.actors.calls import COMMITTED, RUN_ERRORS, ReducerEntry, Reducers
from stdb.actors.refusals import UpdateReducerFailed
from stdb.actors.sink import Client, ReducerOutcome
from stdb.modules.protocol import Module, ReducerCall
from stdb.sql.work import Steps
from stdb.subscriptions.fragment import ClientUpdate, TransactionEvent

if TYPE_CHECKING:
    from stdb.actors.database import DatabaseActor
    from stdb.datastore.delta import Delta
    from stdb.datastore.transaction import Transaction
    from stdb.subscriptions.actor import SubscriptionActor

__all__ = ["NO_REDUCER", "Ran", "TransactionStep", "begin_call", "run_update_reducer", "transact_in_steps"]

NO_REDUCER = 0xFFFFFFFF
TransactionStep: TypeAlias = "Callable[[Transaction], None]"
"""What is done in the transaction of a reducer, before or after it."""

_new = tuple.__new__
"""Makes a NamedTuple without its own `__new__`: 0.1 µs less a call."""

Ran: TypeAlias = tuple[ReducerOutcome, TransactionEvent, ClientUpdate | None]
"""One transaction that ended: how, and what the caller's own subscriptions saw of it."""


class _Told(NamedTuple):
    """What is told of a transaction, whatever becomes of it."""

    entry: ReducerEntry | None
    client: Client
    connection_id: bytes | None
    now_us: int
    name: str
    reducer_id: int
    args: bytes
    args_json: str | None
    request_id: int
    subscriber: "SubscriptionActor | None"
    started: float


def begin_call(
    actor: "DatabaseActor",
    entry: ReducerEntry,
    client: Client,
    args: bytes,
    args_json: str | None,
    request_id: int,
    subscriber: "SubscriptionActor | None",
    started: float,
) -> Ran | Steps[Ran]:
    """Run a client's call as `DatabaseActor.transact` does; return the steps that are left if it comes back early.

    Most calls never do, and have nothing to do with steps. Those that are returned are started: closed half-way,
    nothing of the call stays.
    """
    name, reducer_id, _, _, start = entry
    identity, connection_id, credentials = client
    now_us = actor.now_us()
    datastore = actor.datastore
    transaction = datastore.begin(now_us)
    told: _Told = _new(
        _Told,
        (entry, client, connection_id, now_us, name, reducer_id, args, args_json, request_id, subscriber, started),
    )
    delta: Delta | None = None
    try:
        assert start is not None, "else it is run in one go"
        rest = start(_new(ReducerCall, (identity, connection_id, now_us, transaction, credentials or None)), args)
        if rest is not None or datastore.refresh_views is not None:
            return _started(_go_on(actor, transaction, rest, told))
        delta = transaction.commit()
        outcome = COMMITTED
    except RUN_ERRORS as error:
        transaction.rollback()
        outcome = actor.reducers.failed(entry, error)
    return _ended(actor, outcome, delta, told)


def transact_in_steps(
    actor: "DatabaseActor",
    entry: ReducerEntry | None,
    client: Client,
    connection_id: bytes | None,
    args: bytes,
    args_json: str | None,
    *,
    name: str,
    reducer_id: int,
    due_us: int,
    before: "TransactionStep | None",
    after: "TransactionStep | None",
) -> Steps[Ran]:
    """Do as `DatabaseActor.transact_patiently` with what may come back early; closed half-way, nothing of it stays."""
    now_us = max(actor.now_us(), due_us)
    transaction = actor.datastore.begin(now_us)
    if entry is not None:
        name, reducer_id = entry.name, entry.id
    told = _Told(entry, client, connection_id, now_us, name, reducer_id, args, args_json, 0, None, perf_counter())

    def work() -> Steps[None]:
        if before is not None:
            before(transaction)
        if entry is not None:
            assert entry.start is not None, f"{entry.name} is run in one go"
            call = ReducerCall(client.identity, connection_id, now_us, transaction, client.credentials or None)
            rest = entry.start(call, args)
            if rest is not None:
                yield from rest
        if after is not None:
            after(transaction)

    return (yield from _go_on(actor, transaction, work(), told))


def _started(steps: Steps[Ran]) -> Ran | Steps[Ran]:
    """Run steps up to where they come back first; return them, or the result where they do not."""
    try:
        next(steps)
    except StopIteration as end:
        ran: Ran = end.value
        return ran
    return steps


def _go_on(actor: "DatabaseActor", transaction: "Transaction", work: Steps[None] | None, told: _Told) -> Steps[Ran]:
    """Do what is left to do in a transaction, and end it."""
    delta: Delta | None = None
    try:
        if work is not None:
            yield from work
        delta = yield from transaction.commit_in_steps()
        outcome = COMMITTED
    except RUN_ERRORS as error:
        transaction.rollback()
        assert told.entry is not None
        outcome = actor.reducers.failed(told.entry, error)
    except BaseException:
        transaction.rollback()
        raise
    return _ended(actor, outcome, delta, told)


def _ended(actor: "DatabaseActor", outcome: ReducerOutcome, delta: "Delta | None", told: _Told) -> Ran:
    """Tell of a transaction that has ended."""
    entry, client, connection_id, now_us, name, reducer_id, args, args_json, request_id, subscriber, started = told
    event = TransactionEvent(
        client[0],
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
    actor: "DatabaseActor", module: Module, transaction: "Transaction", now_us: int, publisher: bytes | None
) -> Steps[TransactionEvent]:
    """Run `__update__` within the transaction that puts a module in its place; return what that transaction is told as.

    Only modules of 0.11 have such a reducer, which is called from the connection id of its `publisher`; of others the
    event has no name.

    Raises:
        UpdateReducerFailed: It failed, with its text: the program that runs stays.
    """
    reducer_id = module.definition.update_reducer
    if reducer_id is None:
        return TransactionEvent(actor.owner, publisher, now_us)
    reducers = Reducers(module, actor.owner, actor.module_log)
    entry = reducers.by_name[module.definition.reducers[reducer_id].name]
    assert entry.start is not None, "modules of 0.11 are WebAssembly"
    actor.module_log.write_host("Invoking `update` reducer")
    try:
        rest = entry.start(ReducerCall(actor.owner, publisher, now_us, transaction), b"")
        if rest is not None:
            yield from rest
    except RUN_ERRORS as error:
        raise UpdateReducerFailed(reducers.failed(entry, error).text) from error
    return TransactionEvent(actor.owner, publisher, now_us, entry.name, entry.id)
