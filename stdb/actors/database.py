"""DatabaseActor: the one writer of one database; takes requests, commits, tells everyone who sees something.

Responsible for: turns, transactions, the order of answers, confirmed reads, connect and disconnect.
Not responsible for: which reducer a name means (`calls`), subscriptions' rows (`stdb.subscriptions`), recovery and
publishing (`launching`), restarting after a bug (`supervision`), bytes (`stdb.net`).

A turn serves at most 256 requests or 2 ms; for each: begin, run, commit or roll back, evaluate, put into sinks. Then
the turn's records go to the log as one group, and dirty sinks are flushed (DESIGN decision 1). There is no await
in between: nothing sees half a transaction and no cancellation can cut it. Whatever a handler raises that is not
the client's doing is a bug and ends the actor.

Rules: spec 02 sections 6.3, 8.3, 10 and 11; spec 07 sections 1, 5 and 9; spec 09 section 2.2.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from stdb.actors.actor import Actor
from stdb.actors.answers import Answers, CallResult, SqlResult
from stdb.actors.attachment import Attachment
from stdb.actors.calls import COMMITTED, NO_SUCH_REDUCER, RUN_ERRORS, ReducerEntry, Reducers
from stdb.actors.deadline import Deadline
from stdb.actors.programs import added_tables, replace_program
from stdb.actors.queries import Queries
from stdb.actors.refusals import (
    BadArguments,
    ConnectOutOfTime,
    ConnectRefused,
    DatabaseUnavailable,
    LifecycleCall,
    NoSuchFunction,
)
from stdb.actors.requests import (
    CallProcedure,
    CallReducer,
    OneOffQuery,
    Request,
    Subscribe,
    SubscribeBatch,
    Unsubscribe,
)
from stdb.actors.sink import Client, ClientSink, OutcomeKind, ReducerOutcome
from stdb.datastore import records
from stdb.errors import DecodeError
from stdb.modules.protocol import Module, ReducerCall
from stdb.schema.model import Lifecycle
from stdb.subscriptions.actor import SubscriptionActor
from stdb.subscriptions.fragment import ClientUpdate, TransactionEvent

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore
    from stdb.datastore.log import Log
    from stdb.datastore.transaction import Delta, Transaction
    from stdb.storage.module_log import ModuleLog
    from stdb.subscriptions.registry import Registry

__all__ = ["DatabaseActor"]

REQUESTS_A_TURN_MAX = 256
TURN_SECONDS_MAX = 0.002
CROWDED_REQUESTS = 65_536
"""Requests of all clients that may wait before readers wait too (DESIGN decision 8)."""
BACKLOG_CHECKED = 16_384
"""Transactions that may be on their way to the disk before clients that wait for it are held to their bounds."""
SESSION_BUSY = (4000, "session busy")
MODULE_EXITED = (1001, "module exited")

_NO_REDUCER = 0xFFFFFFFF
_ON_CONNECT, _ON_DISCONNECT = "__identity_connected__", "__identity_disconnected__"
_Job = Callable[[], None]


_Ran: TypeAlias = tuple[ReducerOutcome, TransactionEvent, ClientUpdate | None]
"""One transaction that ended: how, and what the caller's own subscriptions saw of it."""
_Step: TypeAlias = "Callable[[Transaction], None]"
_new_call = tuple.__new__
"""Makes a NamedTuple without its own `__new__`: 0.1 µs less a call."""


class DatabaseActor(Actor[tuple[Attachment, Sequence[Request]] | tuple[None, _Job]]):
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
    ) -> None:
        super().__init__()
        self.identity = identity
        self.owner = owner
        self.datastore = datastore
        self.module_log = module_log
        self.log = log
        self.registry = registry
        self.answers = Answers(self.post_nowait)
        self._deadline = deadline
        self._now_us = now_us
        self._begin = datastore.begin
        self._finished = 0.0
        """When the last request ended, by `time.perf_counter`: where the next one begins."""
        self._attachments: dict[Attachment, None] = {}
        self._clients: dict[tuple[bytes, bytes], Attachment] = {}
        self._sessions: dict[tuple[bytes, bytes], Attachment] = {}
        self._credentials: dict[bytes, tuple[bytes, bytes]] = {}
        """Per connection id: whose credentials are stored, and the row."""
        self._records: list[bytes] = []
        self._dirty: list[Attachment] = []
        self._waiting: dict[Attachment, None] = {}
        self._durable_seen = 0
        self._is_last_request = False
        """Nothing else waits to be served in this turn."""
        self._queued = 0
        self._queued_requests_max = queued_requests_max
        self._uncrowded = trio.Event()
        self._is_ending = False
        """Everybody was disconnected: nobody may connect any more."""
        self._queries = queries = Queries(datastore, owner, query_rows_max)
        self._handlers: dict[type, Callable[[Attachment, Any], None]] = {
            CallProcedure: self._call_procedure,
            Subscribe: queries.subscribe,
            SubscribeBatch: queries.subscribe_batch,
            Unsubscribe: queries.unsubscribe,
            OneOffQuery: queries.one_off,
        }
        self._client_table = datastore.table("st_client")
        self._credentials_table = datastore.table("st_connection_credentials")
        self.install(module)

    # ------------------------------------------------------------------ from outside the turn
    @property
    def client_count(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    def attach(self, client: Client, sink: ClientSink, token: str, session_id: bytes | None) -> Attachment:
        """Take in a client; see `DatabaseHandle.attach`."""
        attachment = Attachment(self, client, sink, token, session_id, self._queued_requests_max)
        self._attachments[attachment] = None
        self.post_nowait((None, lambda: self._connect(attachment)))
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
        self._reducers = Reducers(module, self.owner, self.module_log)
        self._public_reducers = self._reducers.public

    async def shutdown(self) -> None:
        """Run `client_disconnected` for every client, wait until all is durable, close the clients, end `run`."""
        await self.answers.wait(self._begin_ending)
        await self.answers.wait(lambda: (None, self.datastore.next_offset))
        self.bury(*MODULE_EXITED)
        self.stop_nowait()

    def bury(self, code: int, reason: str) -> None:
        """Close every client and fail every answer, without running anything; the database is gone or restarting."""
        for attachment in self._attachments:
            attachment.sink.close(code, reason)
            attachment.mark_gone()
        self._attachments.clear()
        self._clients.clear()
        self.answers.fail_all(f"the database is not running: {reason}")
        self._queued = 0
        self._uncrowded.set()

    # ------------------------------------------------------------------ the turn
    def turn(self) -> None:
        """Serve some requests, hand their records to the log, flush what may leave."""
        if self._mailbox:  # else durability moved
            self._deadline.arm()
            try:
                self._serve()
            finally:
                self._deadline.disarm()
        if self._records:
            records, self._records = self._records, []
            self.log.append_nowait(records)
        self._flush()

    def _serve(self) -> None:
        mailbox = self._mailbox
        left = REQUESTS_A_TURN_MAX
        self._finished = perf_counter()
        stop_at = self._finished + TURN_SECONDS_MAX
        while mailbox and left > 0:
            attachment, work = mailbox.popleft()
            if attachment is None:
                self._is_last_request = not mailbox
                work()  # type: ignore[operator]  # beside None stands a job
                left -= 1
                self._finished = perf_counter()
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
                    call_reducer(attachment, request)
                else:
                    handlers[type(request)](attachment, request)
                    self._finished = perf_counter()
                served += 1
                if served >= limit or self._finished >= stop_at:
                    break
            self._mark_dirty(attachment)
        else:
            served = len(requests)  # refused, or cut: nothing of it is served
        attachment.queued -= served
        self._queued -= served
        if self._queued <= CROWDED_REQUESTS < self._queued + served:
            self._uncrowded.set()
            self._uncrowded = trio.Event()
        return served

    def _flush(self) -> None:
        durable = self.log.durable
        self.answers.settle(durable)
        if durable != self._durable_seen or self.datastore.next_offset - durable > BACKLOG_CHECKED:
            self._durable_seen = durable
            self._flush_all(list(self._waiting), durable)
        if self._dirty:
            dirty, self._dirty = self._dirty, []
            self._flush_all(dirty, durable)

    def _flush_all(self, attachments: Sequence[Attachment], durable: int) -> None:
        waiting = self._waiting
        for attachment in attachments:
            attachment.is_dirty = False
            if attachment.sink.flush(durable):
                waiting[attachment] = None
            elif waiting:
                waiting.pop(attachment, None)

    def _mark_dirty(self, attachment: Attachment) -> None:
        if not attachment.is_dirty:
            attachment.is_dirty = True
            self._dirty.append(attachment)

    # ------------------------------------------------------------------ transactions
    def _run(
        self,
        entry: ReducerEntry | None,
        client: Client,
        connection_id: bytes | None,
        args: bytes = b"",
        args_json: str | None = None,
        request_id: int = 0,
        subscriber: SubscriptionActor | None = None,
        *,
        name: str = "",
        before: "_Step | None" = None,
        after: "_Step | None" = None,
    ) -> _Ran:
        """Run one transaction to its end and tell everyone but the caller; the records wait for the end of the turn.

        Within it run `before`, the reducer of `entry` if any, then `after`.
        """
        reducer_id = _NO_REDUCER
        now_us = self._now_us()
        transaction = self._begin(now_us)
        deadline = self._deadline
        deadline.started = started = self._finished  # nothing of note was done since
        update: ClientUpdate | None = None
        delta: Delta | None = None
        try:
            if before is not None:
                before(transaction)
            if entry is not None:
                name, reducer_id, run = entry.name, entry.id, entry.run
                call = _new_call(ReducerCall, (client[0], connection_id, now_us, transaction, client[2]))
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
            outcome = self._reducers.failed(entry, error)
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
            int((finished - started) * 1e6),
        )
        if delta is not None:
            update = self._publish(delta, event, subscriber)
        return outcome, event, update

    def _publish(
        self, delta: "Delta", event: TransactionEvent, subscriber: SubscriptionActor | None
    ) -> ClientUpdate | None:
        """Record a committed transaction and tell the others; return what the caller itself saw."""
        self._records.append(records.encode(delta, event))
        told, others = self.registry.evaluate(delta, subscriber)
        if self._is_last_request:
            self._tell_at_once(event, others)
        else:
            waiting = self._waiting
            for other, update in others:
                attachment: Attachment = other.owner
                attachment.sink.update(event, update)
                if attachment.sink.confirmed:
                    waiting[attachment] = None  # nothing of it may leave before its record is on the disk
                else:
                    self._mark_dirty(attachment)
        return told

    def _tell_at_once(self, event: TransactionEvent, others: "list[tuple[SubscriptionActor, ClientUpdate]]") -> None:
        """Queue and flush in one pass: nothing more can be joined to it, and a second pass finds every client cold."""
        durable = self._durable_seen
        waiting = self._waiting
        for other, update in others:
            attachment: Attachment = other.owner
            sink = attachment.sink
            sink.update(event, update)
            if sink.confirmed or sink.flush(durable):
                waiting[attachment] = None

    # ------------------------------------------------------------------ calls
    def _call_reducer(self, attachment: Attachment, call: CallReducer) -> None:
        client = attachment.client
        entry = self._public_reducers.get(call.reducer)
        args, args_json = call.args, None
        if entry is None or type(args) is not bytes:
            prepared = self._prepare(client, call.reducer, args)
            if isinstance(prepared, ReducerOutcome):
                self._refuse(attachment, call, prepared)
                return
            entry, encoded = prepared
            args_json = args if type(args) is str else None
            args = encoded
        outcome, event, update = self._run(
            entry, client, client[1], args, args_json, call.request_id, attachment.subscriber
        )
        kind = outcome.kind
        if kind == OutcomeKind.NOT_RUN:
            self._refuse(attachment, call, outcome)
        elif call.notify_success:
            attachment.sink.reducer_result(call, outcome, event, update)
        elif update is not None:
            attachment.sink.update(event, update)

    def _prepare(self, client: Client, name: str, args: bytes | str) -> tuple[ReducerEntry, bytes] | ReducerOutcome:
        """Return a reducer with its arguments as BSATN, or why it cannot be called."""
        entry = self._reducers.find(name, client.identity)
        if isinstance(entry, ReducerOutcome):
            return entry
        if isinstance(args, bytes):
            return entry, args
        try:
            return entry, self._reducers.encode_args(entry, args)
        except DecodeError as error:
            return self._reducers.bad_arguments(entry, error)

    def _refuse(self, attachment: Attachment, call: CallReducer, outcome: ReducerOutcome) -> None:
        """Answer a call that was not run; its event carries what v1 tells of it (spec 02 section 6.3)."""
        entry = self._reducers.by_name.get(call.reducer)
        event = TransactionEvent(
            caller=attachment.client.identity,
            caller_connection_id=attachment.client.connection_id,
            timestamp_us=self._now_us(),
            reducer_name=call.reducer if call.reducer.isidentifier() else "",
            reducer_id=_NO_REDUCER if entry is None else entry.id,
            args_json="[]" if isinstance(call.args, str) else None,
        )
        attachment.sink.reducer_result(call, outcome, event, None)

    def _call_procedure(self, attachment: Attachment, call: CallProcedure) -> None:
        attachment.sink.procedure_error(call, "No such procedure")

    def call_over_http(self, client: Client, name: str, args: bytes | str, confirmed: bool) -> tuple[CallResult, int]:
        """Connect, run one reducer, disconnect; return the result and what must be durable before it is told."""
        with self._visit(client):
            prepared = self._prepare(client, name, args)
            if not isinstance(prepared, ReducerOutcome):
                entry, encoded = prepared
                args_json = args if isinstance(args, str) else None
                outcome, event, _ = self._run(entry, client, client.connection_id, encoded, args_json)
                if outcome.kind != OutcomeKind.NOT_RUN:
                    return CallResult(outcome, event.duration_us), self.datastore.next_offset if confirmed else 0
                prepared = outcome
        raise self._refusal(name, prepared)

    def sql_over_http(self, client: Client, text: str, confirmed: bool) -> tuple[SqlResult, int]:
        """Connect, run one statement, disconnect; return the result and what must be durable before it is told."""
        with self._visit(client):
            return self._queries.sql(client.identity, text), self.datastore.next_offset if confirmed else 0

    def _refusal(self, name: str, outcome: ReducerOutcome) -> Exception:
        entry = self._reducers.by_name.get(name)
        if outcome is NO_SUCH_REDUCER or entry is None:
            self._reducers.tell_no_procedure(name)
            return NoSuchFunction("No such procedure")
        if entry.definition.lifecycle is not None:
            return LifecycleCall(outcome.text)
        return BadArguments(outcome.text_chain)

    # ------------------------------------------------------------------ connections
    def _connect(self, attachment: Attachment) -> None:
        client = attachment.client
        if self._is_ending:
            self._drop(attachment, *MODULE_EXITED)
            return
        if self._is_session_busy(attachment):
            self._drop(attachment, *SESSION_BUSY)
            return
        older = self._clients.get((client.identity, client.connection_id))
        if older is not None:
            self._cut(older)
        refusal = self._insert_client(client)
        if refusal is not None:
            self._drop(attachment, None, refusal.text)
            return
        self._clients[client.identity, client.connection_id] = attachment
        if attachment.session_id is not None:
            self._sessions[client.identity, attachment.session_id] = attachment
        attachment.is_connected = True
        attachment.subscriber = SubscriptionActor(self.registry, client.identity, client.connection_id, attachment)
        attachment.sink.initial_connection(client.identity, client.connection_id, attachment.token)
        self._mark_dirty(attachment)

    def _is_session_busy(self, attachment: Attachment) -> bool:
        """Tell whether a living connection holds this one's session; it is cut, so that a retry succeeds."""
        if attachment.session_id is None:
            return False
        holder = self._sessions.get((attachment.client.identity, attachment.session_id))
        if holder is None:
            return False
        self._cut(holder)
        return True

    def disconnect(self, attachment: Attachment) -> None:
        """Run `client_disconnected` and forget the client; nothing happens the second time (spec 07 section 5)."""
        self._attachments.pop(attachment, None)
        if attachment.is_connected:
            attachment.is_connected = False
            client = attachment.client
            assert attachment.subscriber is not None
            attachment.subscriber.close()
            attachment.subscriber = None
            self._clients.pop((client.identity, client.connection_id), None)
            if attachment.session_id is not None:
                self._sessions.pop((client.identity, attachment.session_id), None)
            self._delete_client(client)
        attachment.mark_gone()

    def close(self, attachment: Attachment, code: int | None, reason: str) -> None:
        """Close a client behind its answers; its disconnect follows when its socket is gone."""
        attachment.sink.close(code, reason)
        self._mark_dirty(attachment)

    def _cut(self, attachment: Attachment) -> None:
        """Disconnect a client that does not know it yet, and drop its socket."""
        self.disconnect(attachment)
        self._drop(attachment, None, "another connection took its place")

    def _drop(self, attachment: Attachment, code: int | None, reason: str) -> None:
        self._attachments.pop(attachment, None)
        attachment.sink.close(code, reason)
        self._mark_dirty(attachment)
        attachment.mark_gone()

    def _begin_ending(self) -> tuple[None, int]:
        """Turn newcomers away and disconnect everybody, each in a request of its own: others run in between."""
        self._is_ending = True
        for attachment in self._attachments:
            self.post_nowait((None, partial(self._disconnect_last, attachment)))
        return None, 0

    def _disconnect_last(self, attachment: Attachment) -> None:
        if attachment in self._attachments:
            self.disconnect(attachment)
            self._attachments[attachment] = None  # to be closed once all is durable

    @contextmanager
    def _visit(self, client: Client) -> Iterator[None]:
        """Connect for the time of one request. Raises ConnectRefused, DatabaseUnavailable."""
        if self._is_ending:
            raise DatabaseUnavailable("the server is stopping")
        refusal = self._insert_client(client)
        if refusal is not None:
            raise ConnectOutOfTime if refusal.kind == OutcomeKind.OUT_OF_TIME else ConnectRefused(refusal.text)
        try:
            yield
        finally:
            self._delete_client(client)

    def _insert_client(self, client: Client) -> ReducerOutcome | None:
        """Store who connects and run `client_connected` in one transaction; return why it refused, or None."""
        identity, connection_id, payload = client
        is_first = connection_id not in self._credentials
        text = payload.encode()
        credentials = connection_id + len(text).to_bytes(4, "little") + text

        def insert(transaction: "Transaction") -> None:
            transaction.insert(self._client_table, identity + connection_id)
            if is_first:
                transaction.insert(self._credentials_table, credentials)

        entry = self._reducers.lifecycle(Lifecycle.ON_CONNECT)
        outcome, _, _ = self._run(entry, client, connection_id, name=_ON_CONNECT, before=insert)
        if outcome is not COMMITTED:
            return outcome
        if is_first:
            self._credentials[connection_id] = identity, credentials
        return None

    def _delete_client(self, client: Client) -> None:
        """Run `client_disconnected` and delete the client's rows; when it fails, delete them alone."""
        identity, connection_id, _ = client
        holder, credentials = self._credentials.get(connection_id, (b"", b""))
        if holder == identity:
            del self._credentials[connection_id]

        def delete(transaction: "Transaction") -> None:
            transaction.delete(self._client_table, identity + connection_id)
            if holder == identity:
                transaction.delete(self._credentials_table, credentials)

        entry = self._reducers.lifecycle(Lifecycle.ON_DISCONNECT)
        outcome, _, _ = self._run(entry, client, connection_id, name=_ON_DISCONNECT, after=delete)
        if outcome is not COMMITTED:
            self._run(None, client, connection_id, name=_ON_DISCONNECT, after=delete)

    def post_dangling(self) -> None:
        """Ask for the disconnect of every client that the last life left behind; before anybody attaches."""
        stored = {row[:16]: row for row in self._credentials_table.rows()}
        for row in self._client_table.rows():
            identity, connection_id = row[:32], row[32:]
            credentials = stored.get(connection_id, b"")
            if credentials:
                self._credentials[connection_id] = identity, credentials
            client = Client(identity, connection_id, credentials[20:].decode())
            self.post_nowait((None, partial(self._delete_client, client)))
        self.post_nowait((None, self._clear_clients))

    def _clear_clients(self) -> None:
        """Forget what is left of them without running reducers (spec 07 section 5)."""

        def clear(_transaction: "Transaction") -> None:
            self._client_table.clear()
            self._credentials_table.clear()

        if len(self._client_table) or len(self._credentials_table):
            self._run(None, Client(self.owner, bytes(16), ""), None, after=clear)

    # ------------------------------------------------------------------ the program
    def update(self, module: Module, program: bytes) -> tuple[None, int]:
        """Swap the module under its living clients; tables may only be added. Raises UpdateRejected."""
        if module.program_hash != self.module.program_hash:
            added = added_tables(self.module.definition, module.definition)

            def write(_transaction: "Transaction") -> None:
                replace_program(self.datastore, module, program, added)

            self._run(None, Client(self.owner, bytes(16), ""), None, after=write)
            module.attach(self.datastore, self.identity, self.module_log)
            self.install(module)
            for subscriber in self.registry.recompile():
                self.close(subscriber.owner, *MODULE_EXITED)
            self.module_log.write_host(f"Updated program to {module.program_hash.hex()}")
            for name in sorted(table.name for table in added):
                self.module_log.write_host(f"Creating table `{name}`")
            self.module_log.write_host("Database updated")
        return None, self.datastore.next_offset
