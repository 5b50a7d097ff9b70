"""Procedures: functions of a module that wait, one task each, beside the turns of their database.

Responsible for: starting and cancelling procedures, what they may ask for (`ProcedureHost`), how they end.
Not responsible for: turns and telling about transactions (`database`), running module code (`stdb.modules`).

A procedure runs outside the mailbox. Its transactions are jobs in it: each runs whole in a turn of the database, under
the time limit of a reducer, or in steps (`pausing`), and is then rolled back if the procedure is cancelled half-way. A
procedure is cancelled when its caller's connection goes, when the database is buried (deleted, reset, restarted,
broken) and when the server stops; what its transactions committed stays, what it asked for and has not had its turn is
not run.

Whatever a procedure raises ends that procedure alone, `SystemExit` and a `Cancelled` that it kept from elsewhere
included. Texts of exceptions are made by the module's code, so they are asked for within the time limit.

Rules: spec 02 sections 6.3 and 8.3, spec 04 sections 3.7 and 8.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import trio

from stdb.actors.arguments import arguments_from_json
from stdb.actors.attachment import Attachment
from stdb.actors.calls import bad_arguments, tell_fault
from stdb.actors.outgoing import HttpSender, Outgoing
from stdb.actors.pausing import take_turn, while_wanted
from stdb.actors.requests import CallProcedure
from stdb.actors.sink import OUT_OF_TIME, Client, OutcomeKind, ProcedureResult, ReducerOutcome
from stdb.errors import DecodeError, HttpError, ModuleFault, ReducerError, ReducerTimeout
from stdb.modules.protocol import (
    Expiry,
    HttpRequest,
    HttpResponse,
    LogLevel,
    ProcedureCall,
    ProcedureHost,
    ReducerCall,
)
from stdb.sats import bsatn, json
from stdb.sats.types import Typespace
from stdb.schema.model import ProcedureDef, Visibility
from stdb.sql.work import Steps
from stdb.subscriptions.fragment import TransactionEvent

if TYPE_CHECKING:
    from stdb.actors.database import DatabaseActor

__all__ = [
    "CONCURRENT_MAX",
    "DURABLE_SECONDS_MAX",
    "NOT_KNOWN_DURABLE",
    "NO_SUCH_PROCEDURE",
    "PreparedCall",
    "Procedures",
]

T = TypeVar("T")
_Entry: TypeAlias = Callable[[ProcedureCall, bytes], Awaitable[bytes]]
CONCURRENT_MAX = 10_000
"""Procedures of one database that may run at once."""

NO_SUCH_PROCEDURE = ReducerOutcome(OutcomeKind.NOT_RUN, "No such procedure", "No such procedure")
_FATAL = "The module instance encountered a fatal error: "

DURABLE_SECONDS_MAX = 5.0
"""As long as a procedure waits for a transaction of its own to be durable (spec 09 section 4)."""
NOT_KNOWN_DURABLE = "the transaction was committed, but it takes too long to know that it is stored for good"
OUTDATED = "the database was updated while this ran, and its tables are not the same any more: call again"


class _Ended(NamedTuple):
    """How a transaction ended: with a result or an exception. `needs` has to be durable for it to stay; 0: nothing."""

    result: Any
    error: BaseException | None
    needs: int = 0


_NOT_RUN = _Ended(None, None)
"""Of a procedure that ended before its transaction had its turn; nobody takes it."""


class _Stretch:
    """What the time limit sets for code between two waits."""

    expired = False


class _Host:
    """What one running procedure may ask for: a `ProcedureHost`."""

    cancelled: type[BaseException] = trio.Cancelled

    def __init__(
        self,
        actor: "DatabaseActor",
        client: Client,
        connection_id: bytes | None,
        what: str = "the procedure",
        *,
        confirmed: bool = True,
    ) -> None:
        self._actor = actor
        self._what = what
        self._confirmed = confirmed
        self._client = client
        self._connection_id = connection_id
        self._is_transacting = False
        self._layouts = actor.layouts

    def now_us(self) -> int:
        """Return the time in microseconds since 1970."""
        return self._actor.now_us()

    @contextmanager
    def running(self) -> Iterator[Expiry]:
        """Hold the time limit of a reducer over code that runs from one wait to the next."""
        stretch = _Stretch()
        with self._actor.deadline.limiting(stretch, self._what):
            yield stretch

    async def transact(self, run: Callable[[ReducerCall], T]) -> T:
        """Run one transaction in the database's own turn; see `ProcedureHost.transact`."""

        def run_at_once(call: ReducerCall) -> Steps[T]:
            yield from ()
            with self._actor.deadline.limiting(call.transaction, "the transaction"):
                return run(call)

        return await self.transact_in_steps(run_at_once)

    async def transact_in_steps(self, run: Callable[[ReducerCall], Steps[T]]) -> T:
        """Run one transaction in the database's own turns; see `ProcedureHost.transact_in_steps`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        scope = self._actor.procedures.scope_of(trio.lowlevel.current_task())
        is_wanted = True
        try:
            ended = await self._actor.answers.wait_steps(
                lambda: self._run(run, lambda: is_wanted and not scope.cancel_called)
            )
        finally:
            is_wanted = False
        if ended.error is not None:
            raise ended.error
        if self._confirmed and ended.needs:
            await self._wait_durable(ended.needs)
        result: T = ended.result
        return result

    async def _wait_durable(self, needs: int) -> None:
        """Return once a transaction is durable, so that what the procedure does next cannot come to be without it.

        Raises:
            ReducerError: It took too long.
        """
        with trio.move_on_after(DURABLE_SECONDS_MAX) as waiting:
            await self._actor.answers.wait(lambda: (None, needs))
        if waiting.cancelled_caught:
            raise ReducerError(NOT_KNOWN_DURABLE)

    async def pause(self) -> None:
        """Let others run; of all that pause in this process one goes on at a time."""
        await take_turn(self._actor.turns)

    async def sleep(self, seconds: float) -> None:
        """Wait; not at all for a time of zero or below."""
        await trio.sleep(max(seconds, 0.0))

    async def http(self, request: HttpRequest) -> HttpResponse:
        """Send a request to another server; see `ProcedureHost.http`."""
        if self._is_transacting:
            raise HttpError(f"no request is sent while a transaction is open: {request.method} was not sent")
        return await self._actor.procedures.outgoing.send(request)

    def _run(self, run: Callable[[ReducerCall], Steps[T]], is_wanted: Callable[[], bool]) -> Steps[tuple[_Ended, int]]:
        """Run a transaction while somebody waits for it; return how it ended, and 0: its answer waits for no disk."""
        actor = self._actor
        if not is_wanted():
            return _NOT_RUN, 0
        if self._layouts != actor.layouts:
            return _Ended(None, ReducerError(OUTDATED)), 0
        now_us = actor.now_us()
        transaction = actor.datastore.begin(now_us)
        identity, _, credentials = self._client
        call = ReducerCall(identity, self._connection_id, now_us, transaction, credentials or None)
        self._is_transacting = True
        try:
            result = yield from while_wanted(run(call), is_wanted)
            delta = yield from transaction.commit_in_steps()
        except GeneratorExit:
            transaction.rollback()
            raise
        except BaseException as error:  # noqa: BLE001 - raised where the procedure waits
            transaction.rollback()
            return _Ended(None, error), 0
        finally:
            self._is_transacting = False
        needs = 0
        if delta is not None:
            needs = actor.datastore.next_offset
            actor.publish(delta, TransactionEvent(actor.identity, None, now_us, "", 0, b"", None, 0, needs, 0, 0))
        return _Ended(result, None, needs), 0


class Procedures:
    """The running procedures of one DatabaseActor. `run` is its task; `call` and `start_scheduled` are of its turns."""

    def __init__(self, actor: "DatabaseActor", http: HttpSender, concurrent_max: int = CONCURRENT_MAX) -> None:
        self.outgoing = Outgoing(http)
        self._actor = actor
        self._concurrent_max = concurrent_max
        self._send, self._started = trio.open_memory_channel[Callable[[], Any]](concurrent_max)
        self._scopes: dict[trio.CancelScope, Attachment | None] = {}
        self._of: dict[Attachment, set[trio.CancelScope]] = {}
        self._tasks: dict[trio.lowlevel.Task, trio.CancelScope] = {}

    async def run(self) -> None:
        """Run what is started; cancel to end, and with it everything."""
        async with self.outgoing.open(), trio.open_nursery() as nursery:
            async for start in self._started:
                nursery.start_soon(start)

    def cancel_of(self, attachment: Attachment) -> None:
        """Cancel what a client called."""
        for scope in self._of.pop(attachment, ()):
            scope.cancel()

    def cancel_all(self) -> None:
        """Cancel everything."""
        for scope in self._scopes:
            scope.cancel()

    def call(self, attachment: Attachment, call: CallProcedure) -> None:
        """Start what a client asked for; it is answered once, whenever that has ended."""
        prepared = self.prepare(attachment.client, call.procedure, call.args, confirmed=attachment.sink.confirmed)
        if isinstance(prepared, ReducerOutcome):
            attachment.sink.procedure_error(call, prepared.text)
            return
        refusal = self.start(attachment, partial(self._answer, attachment, call, prepared))
        if refusal is not None:
            attachment.sink.procedure_error(call, refusal)

    def prepare(
        self, client: Client, name: str, args: bytes | str, *, confirmed: bool
    ) -> "PreparedCall | ReducerOutcome":
        """Return a call that `run` runs, or why it cannot be: there is no such procedure, or its arguments are bad.

        The transactions of one that is `confirmed` are durable before it goes on.
        """
        definition = self._actor.module.definition
        position = definition.procedure_id(name)
        each = None if position is None else definition.procedures[position]
        if each is None or (each.visibility is Visibility.PRIVATE and client.identity != self._actor.owner):
            self._actor.reducers.tell_no_procedure(name)
            return NO_SUCH_PROCEDURE
        assert position is not None
        try:
            encoded = args if isinstance(args, bytes) else arguments_from_json(each.params, args, definition)
        except DecodeError as error:
            return bad_arguments("procedure", each.name, error, is_json=isinstance(args, str))
        host = _Host(self._actor, client, client.connection_id, confirmed=confirmed)
        credentials = client.credentials or None
        how = ProcedureCall(client.identity, client.connection_id, self._actor.now_us(), credentials, host)
        return PreparedCall(self._callee(position), how, encoded)

    def host_for_route(self, client: Client) -> ProcedureHost:
        """Return what the handler of a route for `client` may ask for; its answer alone waits for the disk."""
        return _Host(self._actor, client, None, "the handler of the route", confirmed=False)

    def start_scheduled(self, procedure_id: int, args: bytes, timestamp_us: int, ended: Callable[[], None]) -> None:
        """Start a procedure that is due, once all that was committed is durable; `ended` is called at its end, however.

        A row that was taken out for it must not come back by a crash: it runs at most once.
        """
        actor = self._actor
        callee, needs = self._callee(procedure_id), actor.datastore.next_offset
        host = _Host(actor, Client(actor.identity, bytes(16), ""), None)
        call = ProcedureCall(actor.identity, None, timestamp_us, None, host)

        async def run() -> None:
            try:
                await trio.lowlevel.checkpoint_if_cancelled()  # the database may be gone, and be no more asked then
                await actor.answers.wait(lambda: (None, needs))
                await self.outcome(PreparedCall(callee, call, args))
            finally:
                ended()

        refusal = self.start(None, run)
        if refusal is not None:
            actor.module_log.write_host(f"the scheduled procedure `{callee.definition.name}` was not run: {refusal}")
            ended()

    @property
    def is_full(self) -> bool:
        """Tell whether so many are running that none is started now."""
        return len(self._scopes) >= self._concurrent_max

    def _callee(self, procedure_id: int) -> "_Callee":
        module = self._actor.module
        definition = module.definition
        return _Callee(definition.procedures[procedure_id], module.procedure(procedure_id), definition.typespace)

    def start(
        self, attachment: Attachment | None, work: Callable[[], Any], scope: trio.CancelScope | None = None
    ) -> str | None:
        """Have `work` run in a task of its own, within `scope`; cancelled with all and with `attachment`.

        Returns why it was not started, or None.
        """
        if self.is_full:
            return f"more than {self._concurrent_max} procedures of this database are running; try again later"
        scope = scope or trio.CancelScope()
        self._scopes[scope] = attachment
        if attachment is not None:
            self._of.setdefault(attachment, set()).add(scope)
        self._send.send_nowait(partial(self._live, scope, work))
        return None

    def scope_of(self, task: trio.lowlevel.Task) -> trio.CancelScope:
        """Return what is cancelled to end what runs in a task, at once, before the task learns of it."""
        return self._tasks.get(task) or trio.CancelScope()

    async def _live(self, scope: trio.CancelScope, work: Callable[[], Any]) -> None:
        task = trio.lowlevel.current_task()
        self._tasks[task] = scope
        try:
            with scope:
                await work()
        finally:
            del self._tasks[task]
            attachment = self._scopes.pop(scope)
            mine = None if attachment is None else self._of.get(attachment)
            if attachment is not None and mine is not None:
                mine.discard(scope)
                if not mine:
                    del self._of[attachment]

    async def _answer(self, attachment: Attachment, call: CallProcedure, prepared: "PreparedCall") -> None:
        started = perf_counter()
        outcome = await self.outcome(prepared)
        duration_us = int((perf_counter() - started) * 1e6)
        self._actor.post_nowait((None, partial(self._tell, attachment, call, prepared, outcome, duration_us)))

    def _tell(
        self,
        attachment: Attachment,
        call: CallProcedure,
        prepared: "PreparedCall",
        outcome: bytes | ReducerOutcome,
        duration_us: int,
    ) -> None:
        """Tell the caller how its call ended; within a turn."""
        if not attachment.is_connected:
            return
        sink = attachment.sink
        if isinstance(outcome, bytes):
            as_json = partial(prepared.callee.as_json, outcome)
            result = ProcedureResult(outcome, as_json, prepared.how.timestamp_us, duration_us)
            sink.procedure_result(call, result, self._actor.datastore.next_offset)
        elif outcome.kind == OutcomeKind.OUT_OF_TIME:
            sink.procedure_out_of_time(call)
        else:
            sink.procedure_error(call, outcome.text)
        self._actor.mark_dirty(sink)

    async def outcome(self, prepared: "PreparedCall") -> bytes | ReducerOutcome:
        """Run a call; return what the procedure returned, or how it ended, which the module's log tells more of."""
        callee, how, args = prepared
        try:
            returned: bytes = await callee.entry(how, args)
        except BaseException as error:  # whatever a procedure raises, its database goes on
            if isinstance(error, trio.Cancelled) and trio.current_effective_deadline() == -inf:
                raise
            if isinstance(error, DecodeError):
                return bad_arguments("procedure", callee.definition.name, error, is_json=False)
            return self.failed(callee.definition.name, error, how.host)
        try:
            return callee.cut(returned)
        except DecodeError as error:
            text = f"what the procedure returned does not decode: {error}"
            self._actor.module_log.write(LogLevel.ERROR, text, function=callee.definition.name)
            return _fault(str(error))

    def failed(self, name: str, error: BaseException, host: ProcedureHost) -> ReducerOutcome:
        """Log what a procedure or the handler of a route raised; return how that ends its call.

        Of FAILED `text_chain` is the module's text alone.
        """
        log = self._actor.module_log
        if isinstance(error, ReducerTimeout):
            log.write(LogLevel.ERROR, str(error) or "it ran too long and was stopped", function=name)
            return ReducerOutcome(OutcomeKind.OUT_OF_TIME, OUT_OF_TIME, OUT_OF_TIME)
        if isinstance(error, ReducerError):
            text = _text_of(error, host)
            log.write(LogLevel.ERROR, text, function=name)
            return ReducerOutcome(OutcomeKind.FAILED, _FATAL + text, text)
        fault = error
        if not isinstance(fault, ModuleFault):
            fault = ModuleFault("")
            fault.__cause__ = error
        tell_fault(log, fault, name)
        return _fault(_text_of(fault.__cause__ or fault, host))


class _Callee:
    """A procedure as it was when it was called: an update of the program may come while it runs."""

    def __init__(self, definition: ProcedureDef, entry: "_Entry", typespace: Typespace) -> None:
        self.definition = definition
        self.entry = entry
        self._typespace = typespace
        self._codec = bsatn.codec(definition.return_type, typespace)

    def cut(self, returned: bytes) -> bytes:
        """Return the one value that `returned` begins with. Raises DecodeError when it is none."""
        return returned[: self._codec.skip(returned, 0)]

    def as_json(self, returned: bytes) -> str:
        """Return what was returned as JSON."""
        write = json.encoder(self.definition.return_type, "positional", typespace=self._typespace)
        return write(self._codec.decode_exact(returned))


class PreparedCall(NamedTuple):
    """A call that can run: what is called, by whom, with what."""

    callee: _Callee
    how: ProcedureCall
    args: bytes


def _fault(text: str) -> ReducerOutcome:
    return ReducerOutcome(OutcomeKind.FAULT, _FATAL + text, _FATAL + text)


def _text_of(error: BaseException, host: ProcedureHost) -> str:
    """Return what an exception of a module says, as a message can carry it; making it is code of the module."""
    try:
        with host.running():
            return str.__str__(str(error)).encode("utf-8", "replace").decode()
    except BaseException as inner:  # noqa: BLE001 - whatever its own code raises instead
        return f"(its text cannot be had: {type(inner).__name__})"
