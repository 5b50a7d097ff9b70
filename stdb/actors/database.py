"""DatabaseActor: the one writer of one database; takes requests, commits, tells everyone who sees something.

Responsible for: turns, transactions, the order of answers, confirmed reads.
Not responsible for: which reducer a name means (`calls`), connecting (`connections`), queries (`queries`,
`statements`), recovery and publishing (`launching`), updates (`replacing`), restarting after a bug (`supervision`),
bytes (`stdb.net`).

A turn serves at most 256 requests or 2 ms; for each: begin, run, commit or roll back, evaluate, put into sinks. Then
the turn's records go to the log as one group, and dirty sinks are flushed (DESIGN decision 1). There is no await
in between: nothing sees half a transaction and no cancellation can cut it. Whatever a handler raises that is not
the client's doing is a bug and ends the actor.

What may take long (queries, SQL) is an evaluation in steps: after a slice it is suspended, the turn ends, and after one
checkpoint, in which others run, it goes on before anything else of this database (`pausing`). The hot path of reducer
calls knows nothing of it.

Rules: spec 02 sections 6.3, 8.3, 10 and 11; spec 07 sections 1, 5 and 9; spec 09 section 2.2.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from stdb.actors.actor import Actor
from stdb.actors.answers import Answers, Job, LongJob
from stdb.actors.attachment import Attachment
from stdb.actors.calls import COMMITTED, RUN_ERRORS, ReducerEntry, Reducers, written_arguments
from stdb.actors.connections import MODULE_EXITED, Connections
from stdb.actors.deadline import Deadline
from stdb.actors.long_calls import NO_REDUCER, Ran, TransactionStep, begin_call, transact_in_steps
from stdb.actors.outgoing import HttpSender
from stdb.actors.pausing import SLICE_SECONDS, Done, UnwantedError, run_slice, take_turn
from stdb.actors.procedures import Procedures
from stdb.actors.queries import Queries
from stdb.actors.queued_calls import QueuedCalls
from stdb.actors.replacing import Replacing
from stdb.actors.requests import (
    Arguments,
    CallProcedure,
    CallReducer,
    OneOffQuery,
    OneOffStatements,
    Request,
    Subscribe,
    SubscribeBatch,
    Unsubscribe,
)
from stdb.actors.scheduler import Scheduler
from stdb.actors.sink import Client, ClientSink, OutcomeKind, ReducerOutcome
from stdb.actors.statements import Statements
from stdb.actors.visits import Visits
from stdb.datastore import records
from stdb.datastore.delta import Delta
from stdb.errors import DecodeError
from stdb.modules.protocol import Module, ReducerCall, Suspending
from stdb.modules.views import MaterialisedViews
from stdb.sql.work import Steps
from stdb.subscriptions.fragment import ClientUpdate, TransactionEvent

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore
    from stdb.datastore.log import Log
    from stdb.storage.module_log import ModuleLog
    from stdb.subscriptions.actor import SubscriptionActor
    from stdb.subscriptions.registry import Registry

__all__ = ["DatabaseActor"]

REQUESTS_A_TURN_MAX = 256
TURN_SECONDS_MAX = 0.002
CROWDED_REQUESTS = 65_536
"""Requests of all clients that may wait before readers wait too (DESIGN decision 8)."""
BACKLOG_CHECKED = 16_384
"""Transactions that may be on their way to the disk before clients that wait for it are held to their bounds."""

_new_call = tuple.__new__
"""Makes a NamedTuple without its own `__new__`: 0.1 µs less a call."""


class _Suspended(NamedTuple):
    """An evaluation that is half-way. `attachment`: whose request it is."""

    steps: LongJob
    attachment: Attachment | None


class DatabaseActor(Actor[tuple[Attachment, Sequence[Request]] | tuple[None, Job]]):
    """One running database. Made by `launching`, run by a Supervisor."""

    def __init__(
        self,
        *,
        identity: bytes,
        owner: bytes,
        datastore: "Datastore",
        module: Module,
        log: "Log",
        module_log: "ModuleLog",
        registry: "Registry",
        deadline: Deadline,
        now_us: Callable[[], int],
        query_rows_max: int,
        queued_requests_max: int,
        http: HttpSender,
        turns: trio.Lock,
    ) -> None:
        super().__init__()
        self.identity = identity
        self.owner = owner
        self.datastore = datastore
        self.module_log = module_log
        self.log = log
        self.registry = registry
        self.answers = Answers(self.post_nowait)
        self.deadline = deadline
        self.now_us = now_us
        self.turns = turns
        """What all evaluations of this process take turns by that are half-way."""
        self._begin = datastore.begin
        self._finished = 0.0
        """When the last request ended, by `time.perf_counter`: where the next one begins."""
        self._suspended: _Suspended | None = None
        """What is half-way; nothing else of this database is served until it is through."""
        self.layouts = 0
        """How often an update changed rows in a way that what ran before it cannot read."""
        self._records: list[bytes] = []
        self._deltas: list[Delta] = []
        """What they were made of."""
        self._is_log_holding = False
        """The log was promised more, and may hold what it has until it hears again."""
        self._dirty: dict[ClientSink, None] = {}
        """Have something to flush at the end of the turn."""
        self._waiting: dict[ClientSink, None] = {}
        """Have something that may leave once more is durable."""
        self._durable_seen = 0
        self._is_last_request = False
        """Nothing else waits to be served in this turn."""
        self._queued = 0
        self._queued_requests_max = queued_requests_max
        self._uncrowded = trio.Event()
        self.connections = Connections(self)
        self.queries = queries = Queries(registry, query_rows_max)
        self.statements = Statements(datastore, owner, query_rows_max, now_us, self.publish)
        self.procedures = Procedures(self, http)
        self.visits = Visits(self)
        self.replacing = Replacing(self)
        self._queued_calls = QueuedCalls(self)
        self._handlers: dict[type, Callable[[Attachment, Any], LongJob | None]] = {
            CallProcedure: self.procedures.call,
            Subscribe: queries.subscribe,
            SubscribeBatch: queries.subscribe_batch,
            Unsubscribe: queries.unsubscribe,
            OneOffQuery: queries.one_off,
            OneOffStatements: queries.one_off_statements,
        }
        limit = partial(deadline.limiting, what="the view")
        self.views = MaterialisedViews(
            datastore, owner, limit, lambda *failure: self.reducers.view_failed(*failure), perf_counter
        )
        self.views.install(module)
        datastore.views = self.views
        self.scheduler = Scheduler(self, self.procedures.start_scheduled)
        self._scheduled_tables = self.scheduler.tables
        self.install(module)

    # ------------------------------------------------------------------ from outside the turn
    @property
    def client_count(self) -> int:
        """How many clients are connected."""
        return len(self.connections)

    def attach(self, client: Client, sink: ClientSink, token: str, session_id: bytes | None) -> Attachment:
        """Take in a client; see `DatabaseHandle.attach`."""
        attachment = Attachment(self, client, sink, token, session_id, self._queued_requests_max)
        self.connections.add(attachment)
        self.post_nowait((None, partial(self.connections.connect, attachment)))
        return attachment

    def submit_nowait(self, attachment: Attachment, requests: Sequence[Request]) -> None:
        """Take in a client's requests, already counted in its `queued`."""
        self._queued += len(requests)
        self.post_nowait((attachment, requests))

    async def wait_not_crowded(self) -> None:
        """Return without a checkpoint unless more than CROWDED_REQUESTS wait."""
        while self._queued > CROWDED_REQUESTS:
            await self._uncrowded.wait()

    def install(self, module: Module) -> None:
        """Serve calls with this module from now on; it is attached to the datastore."""
        self.module = module
        self.can_pause = isinstance(module, Suspending)
        self.reducers = Reducers(module, self.owner, self.module_log)
        self._public_reducers = self.reducers.public
        self._queued_calls.serve(module)
        self.scheduler.bind()

    async def shutdown(self) -> None:
        """Run `client_disconnected` for every client, wait until all is durable, close the clients, end `run`.

        What is due from now on is run after the next launch.
        """
        self.scheduler.stop()
        self.procedures.cancel_all()
        await self.answers.wait(self.connections.begin_ending)
        await self.answers.wait(lambda: (None, self.datastore.next_offset))
        self.bury(*MODULE_EXITED)
        self.stop_nowait()

    def bury(self, code: int, reason: str) -> None:
        """Close every client and fail every answer, without running anything; the database is gone or restarting."""
        self.scheduler.stop()
        self.procedures.cancel_all()
        if self._suspended is not None:
            self._suspended.steps.close()
            self._suspended = None
        self._mailbox.clear()
        self.connections.bury(code, reason)
        self.answers.fail_all(f"the database is not running: {reason}")
        self._queued = 0
        self._uncrowded.set()

    # ------------------------------------------------------------------ the turn
    async def pause(self) -> None:
        """Let others run between two turns; what is half-way goes on when it is its turn among all that are."""
        if self._suspended is None:
            await trio.lowlevel.checkpoint()
        else:
            await take_turn(self.turns)

    def turn(self) -> None:
        """Serve some requests, hand their records to the log, flush what may leave."""
        if self._mailbox or self._suspended is not None:  # else durability moved
            self.deadline.arm()
            try:
                if self._suspended is not None:
                    self._resume(self._suspended)
                if self._suspended is None:
                    self._serve()
            finally:
                self.deadline.disarm()
        if self._records or self._is_log_holding:
            records, deltas, self._records, self._deltas = self._records, self._deltas, [], []
            self._is_log_holding = bool(self._mailbox) and self._suspended is None
            self.log.append_nowait(records, deltas, more=self._is_log_holding)
        self._flush()
        if self._suspended is not None:
            self.wake_nowait()

    def _serve(self) -> None:
        mailbox = self._mailbox
        left = REQUESTS_A_TURN_MAX
        self._finished = perf_counter()
        stop_at = self._finished + TURN_SECONDS_MAX
        while mailbox and left > 0:
            attachment, work = mailbox.popleft()
            if attachment is None:
                self._is_last_request = not mailbox
                steps = work()  # type: ignore[operator]  # beside None stands a job
                left -= 1
                if steps is None:
                    self._finished = perf_counter()
                else:
                    self._begin_long(steps, None)
                if self._finished >= stop_at:
                    return
            else:
                requests: Sequence[Request] = work  # type: ignore[assignment]  # beside an Attachment stand requests
                served = self._serve_client(attachment, requests, left, stop_at)
                left -= served
                if served < len(requests):
                    mailbox.appendleft((attachment, requests[served:]))
                if self._finished >= stop_at:
                    return

    def _serve_client(self, attachment: Attachment, requests: Sequence[Request], limit: int, stop_at: float) -> int:
        """Serve requests of one client up to the limits; return how many."""
        handlers = self._handlers
        call_reducer = self._call_reducer
        mailbox = self._mailbox
        last = len(requests) - 1
        served = 0
        if attachment.is_connected:
            for request in requests:
                if type(request) is CallReducer:
                    self._is_last_request = served == last and not mailbox
                    steps = call_reducer(attachment, request)
                    if steps is not None:
                        self._begin_long(steps, attachment)
                else:
                    steps = handlers[type(request)](attachment, request)
                    if steps is None:
                        self._finished = perf_counter()
                    else:
                        self._begin_long(steps, attachment)
                served += 1
                if served >= limit or self._finished >= stop_at:
                    break
            self.mark_dirty(attachment.sink)
        else:
            served = len(requests)  # refused, or cut: nothing of it is served
        attachment.queued -= served
        self._queued -= served
        if self._queued <= CROWDED_REQUESTS < self._queued + served:
            self._uncrowded.set()
            self._uncrowded = trio.Event()
        return served

    # ------------------------------------------------------------------ evaluations of more than a slice
    def _begin_long(self, steps: LongJob, attachment: Attachment | None) -> None:
        """Evaluate for a slice; if that is not enough, end the turn and keep the rest for the next one.

        What has used its slice up already, before it came back, is kept at once.
        """
        done = None if perf_counter() >= self._finished + SLICE_SECONDS else _slice(steps)
        if done is None:
            self._suspended = _Suspended(steps, attachment)
            self._finished = inf
        else:
            self._finished = perf_counter()
            if done.result is not None:
                done.result()

    def _resume(self, suspended: "_Suspended") -> None:
        """Go on for a slice; what is to run at the end is the next request of the turn."""
        self._suspended = None  # a bug ends it, and with it the actor
        self._finished = perf_counter()
        self._is_last_request = False
        done = _slice(suspended.steps)
        if done is None:
            self._suspended = suspended
            return
        if done.result is not None:
            self._mailbox.appendleft((None, done.result))
        if suspended.attachment is not None:
            self.mark_dirty(suspended.attachment.sink)

    # ------------------------------------------------------------------ the end of a turn
    def _flush(self) -> None:
        durable = self.log.durable
        self.answers.settle(durable)
        if durable != self._durable_seen or self.datastore.next_offset - durable > BACKLOG_CHECKED:
            self._durable_seen = durable
            self._waiting = {sink: None for sink in self._waiting if sink.flush(durable)}
        if self._dirty:
            dirty, self._dirty = self._dirty, {}
            waiting = self._waiting
            for sink in dirty:
                if sink.flush(durable):
                    waiting[sink] = None
                elif waiting:
                    waiting.pop(sink, None)

    def mark_dirty(self, sink: ClientSink) -> None:
        """Flush the sink of a client at the end of this turn."""
        self._dirty[sink] = None

    def serve_first(self, jobs: Sequence[Job]) -> None:
        """Do these before anything else that waits, in their order."""
        self._mailbox.extendleft((None, job) for job in reversed(jobs))

    def more_follows(self) -> None:
        """Say that the request being served goes on after its next transaction: clients are told at the end of both."""
        self._is_last_request = False

    # ------------------------------------------------------------------ transactions
    def transact(
        self,
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
    ) -> Ran:
        """Run one transaction to its end and tell everyone but the caller; the records wait for the end of the turn.

        Within it run `before`, the reducer of `entry` if any (else the event says `name` and `reducer_id`), then
        `after`. Its time is now, or `due_us` if that is later.
        """
        now_us = self.now_us()
        if due_us > now_us:
            now_us = due_us
        transaction = self._begin(now_us)
        deadline = self.deadline
        deadline.started = started = self._finished  # nothing of note was done since
        update: ClientUpdate | None = None
        delta: Delta | None = None
        try:
            if before is not None:
                before(transaction)
            if entry is not None:
                name, reducer_id, run = entry.name, entry.id, entry.run
                call = _new_call(ReducerCall, (client[0], connection_id, now_us, transaction, client[2] or None))
                deadline.transaction = transaction
                try:
                    run(call, args)
                finally:
                    deadline.transaction = None
            if after is not None:
                after(transaction)
            delta = transaction.commit()
            outcome = COMMITTED
        except RUN_ERRORS as error:
            transaction.rollback()
            assert entry is not None
            outcome = self.reducers.failed(entry, error)
        self._finished = finished = perf_counter()
        event = TransactionEvent(
            client[0],
            connection_id,
            now_us,
            name,
            reducer_id,
            args,
            args_json,
            request_id,
            self.datastore.next_offset,
            0,
            0 if entry is None else int((finished - started) * 1e6),
        )
        if delta is not None:
            update = self.publish(delta, event, subscriber)
        return outcome, event, update

    def transact_patiently(
        self,
        entry: ReducerEntry | None,
        client: Client,
        connection_id: bytes | None,
        args: bytes = b"",
        args_json: str | None = None,
        *,
        name: str = "",
        reducer_id: int = NO_REDUCER,
        due_us: int = 0,
        before: "TransactionStep | None" = None,
        after: "TransactionStep | None" = None,
    ) -> Steps[Ran]:
        """Do as `transact`; come back early where the module can."""
        how: dict[str, Any] = {
            "name": name,
            "reducer_id": reducer_id,
            "due_us": due_us,
            "before": before,
            "after": after,
        }
        if self.can_pause:
            return (yield from transact_in_steps(self, entry, client, connection_id, args, args_json, **how))
        return self.transact(entry, client, connection_id, args, args_json, **how)

    def publish(
        self,
        delta: Delta,
        event: TransactionEvent,
        subscriber: "SubscriptionActor | None" = None,
        seen: Delta | None = None,
    ) -> ClientUpdate | None:
        """Record a committed transaction and tell the others; return what the caller itself saw.

        `seen` is what clients see of it, where that is not all.
        """
        self._records.append(records.encode(delta, event))
        self._deltas.append(delta)
        if self._scheduled_tables:
            self.scheduler.observe(delta)
        told, audiences = self.registry.evaluate(seen or delta, subscriber)
        for audience, update in audiences:
            self._tell(audience.values(), event, update)
        return told

    def _tell(self, sinks: Iterable[ClientSink], event: TransactionEvent, update: ClientUpdate) -> None:
        """Tell clients that see the same: in one pass if nothing more can be joined to it, a second finds them cold."""
        waiting = self._waiting
        if self._is_last_request:
            durable = self._durable_seen
            for sink in sinks:
                if sink.update_at_once(event, update, durable):
                    waiting[sink] = None
        else:
            dirty = self._dirty
            for sink in sinks:
                sink.update(event, update)
                if sink.confirmed:
                    waiting[sink] = None  # nothing of it may leave before its record is on the disk
                else:
                    dirty[sink] = None

    # ------------------------------------------------------------------ calls
    def _call_reducer(self, attachment: Attachment, call: CallReducer) -> LongJob | None:
        client = attachment.client
        entry = self._public_reducers.get(call.reducer)
        args, args_json = call.args, None
        if entry is None or type(args) is not bytes:
            prepared = self.prepare(client, call.reducer, args)
            if isinstance(prepared, ReducerOutcome):
                self._refuse(attachment, call, prepared)
                return None
            entry, encoded = prepared
            args_json = written_arguments(args)
            args = encoded
        if entry.start is not None:
            subscriber = attachment.subscriber
            ran = begin_call(self, entry, client, args, args_json, call.request_id, subscriber, self._finished)
            if not isinstance(ran, tuple):
                answering = self._answer_in_steps(attachment, call, ran)
                next(answering)
                return answering
            self._finished = perf_counter()
            self._answer_call(attachment, call, *ran)
            return None
        self._answer_call(
            attachment,
            call,
            *self.transact(entry, client, client[1], args, args_json, call.request_id, attachment.subscriber),
        )
        return None

    def _answer_in_steps(self, attachment: Attachment, call: CallReducer, steps: Steps[Ran]) -> LongJob:
        """Answer once a call is through. Whoever makes it starts it: closed at any time, nothing of the call stays."""
        try:
            yield
            ran = yield from steps
        finally:
            steps.close()
        self._answer_call(attachment, call, *ran)
        return None

    def _answer_call(
        self,
        attachment: Attachment,
        call: CallReducer,
        outcome: ReducerOutcome,
        event: TransactionEvent,
        update: ClientUpdate | None,
    ) -> None:
        kind = outcome.kind
        if kind == OutcomeKind.NOT_RUN:
            self._refuse(attachment, call, outcome)
        elif call.notify_success:
            attachment.sink.reducer_result(call, outcome, event, update)
        elif update is not None:
            attachment.sink.update(event, update)

    def prepare(
        self, client: Client, name: str, args: bytes | str | Arguments
    ) -> tuple[ReducerEntry, bytes] | ReducerOutcome:
        """Return a reducer with its arguments as BSATN, or why it cannot be called."""
        entry = self.reducers.find(name, client.identity)
        if isinstance(entry, ReducerOutcome):
            return entry
        if isinstance(args, bytes):
            return entry, args
        try:
            return entry, self.reducers.encode_args(entry, args)
        except DecodeError as error:
            is_json = isinstance(args, str) or args.text is not None
            return self.reducers.bad_arguments(entry, error, is_json=is_json)

    def _refuse(self, attachment: Attachment, call: CallReducer, outcome: ReducerOutcome) -> None:
        """Answer a call that was not run; its event carries what v1 tells of it (spec 02 section 6.3)."""
        entry = self.reducers.by_name.get(call.reducer)
        event = TransactionEvent(
            caller=attachment.client.identity,
            caller_connection_id=attachment.client.connection_id,
            timestamp_us=self.now_us(),
            reducer_name=call.reducer if call.reducer.isidentifier() else "",
            reducer_id=NO_REDUCER if entry is None else entry.id,
            args_json="[]" if isinstance(call.args, str) else None,
        )
        attachment.sink.reducer_result(call, outcome, event, None)


def _slice(steps: LongJob) -> Done[Callable[[], None] | None] | None:
    """Evaluate for a slice; None when it is not through. What nobody wants any more is through."""
    try:
        return run_slice(steps)
    except UnwantedError:
        return Done(None)
