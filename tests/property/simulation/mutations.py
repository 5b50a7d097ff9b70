"""Mutations: bugs put into the server on purpose, which the simulation has to find.

Responsible for: the list, each with how it is planted and within how many seeds it must be found.
Not responsible for: finding them (`simulation`), running the list (`tests/property/test_simulation.py`).

A mutation takes the place of one method for the time of a block. Most are bugs that this server, the reference or
another database had at some time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any, NamedTuple

from stdb.actors.connections import Connections
from stdb.actors.database import DatabaseActor
from stdb.actors.requests import OneOffQuery, Subscribe
from stdb.actors.scheduler import Scheduler
from stdb.datastore import loading
from stdb.datastore import transaction as transactions
from stdb.datastore.datastore import Datastore
from stdb.datastore.delta import Delta, net
from stdb.datastore.records import Record
from stdb.datastore.sequence import BLOCK_COUNT, Sequence
from stdb.datastore.table import Table
from stdb.datastore.transaction import Transaction
from stdb.net.outbox import Outbox
from stdb.net.protocols.legacy import events
from stdb.sql.join_plan import JoinPlan
from stdb.storage.log import SqliteLog
from stdb.subscriptions.fragment import TransactionEvent
from stdb.subscriptions.pruning import TableBranches
from stdb.subscriptions.registry import Registry

__all__ = ["MUTATIONS", "Mutation"]

Make = Callable[[Any], Any]
"""Given the method as it is, returns the one to put in its place."""


class Mutation(NamedTuple):
    """A planted bug."""

    owner: Any
    method: str
    make: Make
    seeds_max: int
    """It is found within so many seeds, counted from 0."""

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Have the bug within the block."""
        init = DatabaseActor.__init__
        original = self.owner.__dict__[self.method]
        setattr(self.owner, self.method, self.make(original))
        DatabaseActor.__init__ = _knowing_actors(init)  # type: ignore[method-assign]
        try:
            yield
        finally:
            setattr(self.owner, self.method, original)
            DatabaseActor.__init__ = init  # type: ignore[method-assign]
            _ACTORS.clear()


# ---------------------------------------------------------------------- subscriptions
def _no_retraction(changes: Any) -> Any:
    def mutated(plan: JoinPlan, deltas: Any) -> Any:
        inserts, _ = changes(plan, deltas)
        return inserts, []

    return mutated


def _shared_among_identities(find: Any) -> Any:
    def mutated(registry: Registry, text: str, caller: Any) -> Any:
        for query in registry.queries():
            if query.text == text.strip() and query.key.is_owner == caller.is_owner:
                return query
        return find(registry, text, caller)

    return mutated


def _deaf_to_deletes(collect: Any) -> Any:
    def mutated(branches: TableBranches, changed: Any, hits: Any, touched: Any) -> None:
        if changed.inserts or len(changed.deletes) > 1:
            collect(branches, changed, hits, touched)

    return mutated


# ---------------------------------------------------------------------- durability
def _not_waiting(flush: Any) -> Any:
    return lambda outbox, _durable: flush(outbox, 1 << 60)


def _appended_twice(turn: Any) -> Any:
    def mutated(actor: DatabaseActor) -> None:
        append = actor.log.append_nowait

        def twice(records: Any, deltas: Any, *, more: bool) -> None:
            append(records, deltas, more=more)
            if len(records) > 1:
                append(records[-1:], deltas[-1:], more=more)

        log: Any = actor.log
        log.append_nowait = twice
        try:
            turn(actor)
        finally:
            del log.append_nowait

    return mutated


def _held_is_durable(durable: property) -> property:
    """What waits in the log's hands for the next turn counts as written: a crash takes it along."""

    def mutated(log: SqliteLog) -> int:
        return int(durable.__get__(log)) if not log._held else log._appended

    return property(mutated)


def _promise_forgotten(turn: Any) -> Any:
    """A turn without records of its own does not tell the log that nothing follows."""

    def mutated(actor: DatabaseActor) -> None:
        actor._is_log_holding = False
        turn(actor)

    return mutated


def _replayed_twice(replay: Any) -> Any:
    def mutated(datastore: Datastore, record: Record) -> None:
        replay(datastore, record)
        if datastore.next_offset % 11 == 5:
            datastore.next_offset -= 1
            replay(datastore, record)

    return mutated


def _deletes_not_replayed(apply: Any) -> Any:
    return lambda table, deletes, inserts, changes: apply(
        table, deletes if table.schema.is_system else [], inserts, changes
    )


def _mix_not_undone(_window: Any) -> Any:
    """Rows of a window that was half applied stay a mix of two offsets."""
    return lambda _records, _start, _end: iter(())


# ---------------------------------------------------------------------- sequences
def _block_reissued(resume: Any) -> Any:
    def mutated(sequence: Sequence, allocated: int) -> None:
        resume(sequence, allocated)
        if allocated > BLOCK_COUNT:
            sequence.go_on_at((allocated - BLOCK_COUNT, BLOCK_COUNT))

    return mutated


def _reservation_forgotten(rollback: Any) -> Any:
    def mutated(transaction: Transaction) -> None:
        if transaction._datastore.reservations.is_fresh:
            transaction._datastore.reservations.pending.clear()
        rollback(transaction)

    return mutated


# ---------------------------------------------------------------------- transactions
def _index_not_undone(revert: Any) -> Any:
    def mutated(table: Table, place: Any, old: bytes | None, new: bytes | None) -> None:
        revert(table, place, old, new)
        if new is not None and old is None and not table.schema.is_system:
            for index in table.indexes[1:2]:
                index.add(index.key_of(new), place, new)

    return mutated


def _failure_sent(rollback: Any) -> Any:
    def mutated(transaction: Transaction) -> None:
        datastore = transaction._datastore
        tables = net(datastore.undo, datastore.tables) if datastore.undo else []
        actor = _ACTORS.get(id(datastore))
        if tables and actor is not None:
            event = TransactionEvent(actor.owner, None, 0, needs=datastore.next_offset)
            for subscriber, update in actor.registry.evaluate(Delta(datastore.next_offset, tables, None)).others:
                subscriber.sink.update(event, update)
                actor.mark_dirty(subscriber.sink)
        rollback(transaction)

    return mutated


_ACTORS: dict[int, DatabaseActor] = {}
"""By the id of its datastore: for bugs that would need to know of each other."""


def _knowing_actors(init: Any) -> Any:
    def mutated(actor: DatabaseActor, **options: Any) -> None:
        init(actor, **options)
        _ACTORS[id(actor.datastore)] = actor

    return mutated


def _offset_for_nothing(ended: Any) -> Any:
    def mutated(transaction: Transaction, *changes: Any) -> Any:
        datastore = transaction._datastore
        delta = ended(transaction, *changes)
        if delta is None:
            datastore.next_offset += 1
        return delta

    return mutated


def _served_while_paused(turn: Any) -> Any:
    """What only reads is answered though a transaction is half-way."""

    def mutated(actor: DatabaseActor) -> None:
        paused = actor._suspended
        if paused is not None and actor._mailbox and actor._mailbox[0][0] is not None:
            attachment, requests = actor._mailbox[0]
            if all(type(each) in (OneOffQuery, Subscribe) for each in requests):
                actor._mailbox.popleft()
                actor._suspended = None
                actor._serve_client(attachment, requests, 256, inf)
                while actor._suspended is not None:
                    actor._resume(actor._suspended)
                actor._suspended = paused
        turn(actor)

    return mutated


# ---------------------------------------------------------------------- connections and schedules
def _presence_kept_when_refused(insert: Any) -> Any:
    def mutated(connections: Connections, client: Any) -> Any:
        refusal = yield from insert(connections, client)
        if refusal is not None:
            row = client.identity + client.connection_id

            def put(transaction: Transaction) -> None:
                transaction.insert(connections._client_table, row)

            yield from connections._actor.transact_patiently(None, client, client.connection_id, name="put", after=put)
        return refusal

    return mutated


def _departs_twice(depart: Any) -> Any:
    def mutated(connections: Connections, client: Any) -> Any:
        yield from depart(connections, client)
        if client.connection_id[0] % 4 == 1:
            yield from depart(connections, client)

    return mutated


def _deleted_apart(_run: Any) -> Any:
    """A one-shot's row goes in a second transaction: a crash between the two runs it twice."""

    def mutated(scheduler: Scheduler, entry: Any, timer: Any) -> Any:
        transact = scheduler._actor.transact_patiently
        yield from transact(entry, scheduler._client, None, timer.row, due_us=timer.due_us)
        if timer.interval_us:
            scheduler._arm_again(timer)
        else:
            yield from scheduler._delete(timer)

    return mutated


def _never_again(arm_again: Any) -> Any:
    def mutated(scheduler: Scheduler, timer: Any) -> None:
        if timer.row[0] % 2:
            arm_again(scheduler, timer)

    return mutated


# ---------------------------------------------------------------------- messages
def _order_lost(keep_rest: Any) -> Any:
    def mutated(outbox: Outbox, frames: Any, sent: int) -> None:
        keep_rest(outbox, frames, sent)
        if len(outbox._sending) > 2:
            outbox._sending[-1], outbox._sending[-2] = outbox._sending[-2], outbox._sending[-1]

    return mutated


def _never_repeated(_may_repeat: Any) -> Any:
    """Rows that several partners of a join or several queries return come and go with each of them."""
    return lambda _queries, _definition: False


def _nothing(_original: Any) -> Any:
    return lambda *_arguments, **_options: None


MUTATIONS = {
    "a join does not tell what it no longer returns": Mutation(JoinPlan, "changes", _no_retraction, 10),
    "identities share what row-level security tells apart": Mutation(Registry, "find", _shared_among_identities, 10),
    "pruning is deaf to a single delete": Mutation(TableBranches, "collect", _deaf_to_deletes, 10),
    "confirmed clients are told before it is durable": Mutation(Outbox, "flush", _not_waiting, 10),
    "the last record of a group is appended twice": Mutation(DatabaseActor, "turn", _appended_twice, 10),
    "what the log still holds counts as durable": Mutation(SqliteLog, "durable", _held_is_durable, 10),
    "the log holds what nothing follows": Mutation(DatabaseActor, "turn", _promise_forgotten, 10),
    "a record is replayed twice": Mutation(Datastore, "replay", _replayed_twice, 10),
    "a window that was half applied is not healed": Mutation(loading, "_window", _mix_not_undone, 30),
    "deletes are not replayed": Mutation(Table, "apply", _deletes_not_replayed, 10),
    "a block of a sequence is issued again after a restart": Mutation(Sequence, "resume", _block_reissued, 10),
    "a rollback forgets that a block was reserved": Mutation(Transaction, "rollback", _reservation_forgotten, 30),
    "a rollback leaves an index as it is": Mutation(Table, "revert", _index_not_undone, 10),
    "a failed reducer's changes are sent": Mutation(Transaction, "rollback", _failure_sent, 10),
    "a transaction without changes takes an offset": Mutation(Transaction, "_ended", _offset_for_nothing, 10),
    "others read while a transaction is half-way": Mutation(DatabaseActor, "turn", _served_while_paused, 10),
    "events stay in their table": Mutation(transactions, "_empty", _nothing, 10),
    "who was connected at a crash is never disconnected": Mutation(Connections, "post_dangling", _nothing, 10),
    "who is refused is connected all the same": Mutation(
        Connections, "_insert_client", _presence_kept_when_refused, 10
    ),
    "some are disconnected twice": Mutation(Connections, "depart", _departs_twice, 10),
    "the row of a one-shot is deleted in a second transaction": Mutation(Scheduler, "_run_reducer", _deleted_apart, 10),
    "some intervals ring only once": Mutation(Scheduler, "_arm_again", _never_again, 20),
    "clients of 0.11 are told a row as often as it is returned": Mutation(events, "_may_repeat", _never_repeated, 30),
    "messages change places behind a slow client": Mutation(Outbox, "_keep_rest", _order_lost, 30),
}
"""Every planted bug by what is wrong then."""
