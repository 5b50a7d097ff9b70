"""Procedures: functions of a module that wait, one task each, beside the turns of their database.

Responsible for: starting and cancelling procedures, what they may ask for (`ProcedureHost`), how they end.
Not responsible for: turns and telling about transactions (`database`), running module code (`stdb.modules`).

A procedure runs outside the mailbox. Its transactions are jobs in it: each runs whole in a turn of the database, under
the time limit of a reducer. A procedure is cancelled when its caller's connection goes, when the database is buried
(deleted, reset, restarted, broken) and when the server stops; what its transactions committed stays.

Rules: spec 02 sections 6.3 and 8.3, spec 04 section 3.7.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import trio

from stdb.actors.attachment import Attachment
from stdb.actors.requests import CallProcedure
from stdb.actors.sink import Client, ProcedureResult
from stdb.errors import DecodeError, HttpError, ModuleFault, ReducerError, ReducerTimeout
from stdb.modules.protocol import Expiry, HttpRequest, HttpResponse, LogLevel, ProcedureCall, ReducerCall
from stdb.sats import bsatn, json
from stdb.schema.model import ProcedureDef, Visibility
from stdb.subscriptions.fragment import TransactionEvent

if TYPE_CHECKING:
    from stdb.actors.database import DatabaseActor

__all__ = ["CONCURRENT_MAX", "Procedures"]

T = TypeVar("T")
CONCURRENT_MAX = 10_000
"""Procedures of one database that may run at once."""

_NO_SUCH = "No such procedure"
_FATAL = "The module instance encountered a fatal error: "


class _Ended(NamedTuple):
    """How a transaction ended: with a result, or an exception."""

    result: Any
    error: BaseException | None


class _Stretch:
    """What the time limit sets for code between two waits."""

    expired = False


class _Host:
    """What one running procedure may ask for: a `ProcedureHost`."""

    cancelled: type[BaseException] = trio.Cancelled

    def __init__(self, actor: "DatabaseActor", client: Client, connection_id: bytes | None) -> None:
        self._actor = actor
        self._client = client
        self._connection_id = connection_id

    def now_us(self) -> int:
        """Return the time in microseconds since 1970."""
        return self._actor.now_us()

    @contextmanager
    def running(self) -> Iterator[Expiry]:
        """Hold the time limit of a reducer over code of the procedure that runs from one wait to the next."""
        stretch = _Stretch()
        with self._actor.deadline.limiting(stretch, "the procedure"):
            yield stretch

    async def transact(self, run: Callable[[ReducerCall], T]) -> T:
        """Run one transaction in the database's own turn; see `ProcedureHost.transact`."""
        ended = await self._actor.answers.wait(lambda: (self._run(run), 0))
        if ended.error is not None:
            raise ended.error
        result: T = ended.result
        return result

    async def sleep(self, seconds: float) -> None:
        """Wait; not at all for a time of zero or below."""
        await trio.sleep(max(seconds, 0.0))

    async def http(self, request: HttpRequest) -> HttpResponse:
        """Refuse: requests to other servers are switched off. Raises HttpError."""
        raise HttpError(f"this server sends no HTTP requests: {request.method} {request.url} was not sent")

    def _run(self, run: Callable[[ReducerCall], T]) -> _Ended:
        actor = self._actor
        now_us = actor.now_us()
        transaction = actor.datastore.begin(now_us)
        identity, _, credentials = self._client
        call = ReducerCall(identity, self._connection_id, now_us, transaction, credentials or None)
        try:
            with actor.deadline.limiting(transaction, "the transaction"):
                result = run(call)
            delta = transaction.commit()
        except BaseException as error:  # noqa: BLE001 - raised where the procedure waits
            transaction.rollback()
            return _Ended(None, error)
        if delta is not None:
            needs = actor.datastore.next_offset
            actor.publish(delta, TransactionEvent(actor.identity, None, now_us, "", 0, b"", None, 0, needs, 0, 0))
        return _Ended(result, None)


class Procedures:
    """The running procedures of one DatabaseActor. `run` is its task; `call` and `start_scheduled` are of its turns."""

    def __init__(self, actor: "DatabaseActor", concurrent_max: int = CONCURRENT_MAX) -> None:
        self._actor = actor
        self._concurrent_max = concurrent_max
        self._send, self._started = trio.open_memory_channel[Callable[[], Any]](concurrent_max)
        self._scopes: dict[trio.CancelScope, Attachment | None] = {}
        self._of: dict[Attachment, set[trio.CancelScope]] = {}

    async def run(self) -> None:
        """Run what is started; cancel to end, and with it everything."""
        async with trio.open_nursery() as nursery:
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
        definition = self._actor.module.definition
        position = definition.procedure_id(call.procedure)
        each = None if position is None else definition.procedures[position]
        client = attachment.client
        if each is None or (each.visibility is Visibility.PRIVATE and client.identity != self._actor.owner):
            self._actor.reducers.tell_no_procedure(call.procedure)
            attachment.sink.procedure_error(call, _NO_SUCH)
            return
        assert position is not None
        try:
            args = call.args if isinstance(call.args, bytes) else self._encode(each, call.args)
        except DecodeError as error:
            attachment.sink.procedure_error(call, _bad_arguments(each, error))
            return
        entry = self._actor.module.procedure(position)
        host = _Host(self._actor, client, client.connection_id)
        circumstances = ProcedureCall(
            client.identity, client.connection_id, self._actor.now_us(), client.credentials or None, host
        )
        refusal = self._start(attachment, partial(self._answer, attachment, call, each, entry, circumstances, args))
        if refusal is not None:
            attachment.sink.procedure_error(call, refusal)

    def start_scheduled(self, procedure_id: int, args: bytes, timestamp_us: int, ended: Callable[[], None]) -> None:
        """Start a procedure that is due; `ended` is called when it has ended, however."""
        actor = self._actor
        each, entry = actor.module.definition.procedures[procedure_id], actor.module.procedure(procedure_id)
        host = _Host(actor, Client(actor.identity, bytes(16), ""), None)
        call = ProcedureCall(actor.identity, None, timestamp_us, None, host)

        async def run() -> None:
            try:
                await self._outcome(each, entry, call, args)
            finally:
                ended()

        refusal = self._start(None, run)
        if refusal is not None:
            actor.module_log.write_host(f"the scheduled procedure `{each.name}` was not run: {refusal}")
            ended()

    def _start(self, attachment: Attachment | None, work: Callable[[], Any]) -> str | None:
        """Have `work` run in a task of its own; return why not, or None."""
        if len(self._scopes) >= self._concurrent_max:
            return f"more than {self._concurrent_max} procedures of this database are running; try again later"
        scope = trio.CancelScope()
        self._scopes[scope] = attachment
        if attachment is not None:
            self._of.setdefault(attachment, set()).add(scope)
        self._send.send_nowait(partial(self._live, scope, work))
        return None

    async def _live(self, scope: trio.CancelScope, work: Callable[[], Any]) -> None:
        try:
            with scope:
                await work()
        finally:
            attachment = self._scopes.pop(scope)
            mine = None if attachment is None else self._of.get(attachment)
            if attachment is not None and mine is not None:
                mine.discard(scope)
                if not mine:
                    del self._of[attachment]

    async def _answer(
        self,
        attachment: Attachment,
        call: CallProcedure,
        each: ProcedureDef,
        entry: Any,
        how: ProcedureCall,
        args: bytes,
    ) -> None:
        started = perf_counter()
        actor, typespace = self._actor, self._actor.module.definition.typespace  # an update may come meanwhile
        outcome = await self._outcome(each, entry, how, args)
        duration_us = int((perf_counter() - started) * 1e6)

        def tell() -> None:
            if not attachment.is_connected:
                return
            if isinstance(outcome, str):
                attachment.sink.procedure_error(call, outcome)
            else:
                codec = bsatn.codec(each.return_type, typespace)
                write = json.encoder(each.return_type, "positional", typespace=typespace)
                result = ProcedureResult(
                    outcome, lambda: write(codec.decode(outcome)[0]), how.timestamp_us, duration_us
                )
                attachment.sink.procedure_result(call, result, actor.datastore.next_offset)
            actor.mark_dirty(attachment)

        actor.post_nowait((None, tell))

    async def _outcome(self, each: ProcedureDef, entry: Any, call: ProcedureCall, args: bytes) -> bytes | str:
        """Return what a procedure returned, or the text for its caller; what it raised goes to the module's log."""
        log = self._actor.module_log
        result = bsatn.codec(each.return_type, self._actor.module.definition.typespace)
        try:
            returned: bytes = await entry(call, args)
        except DecodeError as error:
            return _bad_arguments(each, error)
        except ReducerTimeout as error:
            log.write(LogLevel.ERROR, str(error) or "the procedure ran too long and was stopped", function=each.name)
            return "Procedure terminated due to insufficient budget"
        except ReducerError as error:
            text = _clean(error)
            log.write(LogLevel.ERROR, text, function=each.name)
            return _FATAL + text
        except ModuleFault as error:
            cause = error.__cause__ or error
            report = error.report or "".join(traceback.format_exception(cause)).rstrip()
            log.write(LogLevel.PANIC, report, filename=error.filename, line=error.line, function=each.name)
            return _FATAL + _clean(cause)
        except Exception as error:  # noqa: BLE001 - whatever a procedure raises, its database goes on
            log.write(LogLevel.PANIC, "".join(traceback.format_exception(error)).rstrip(), function=each.name)
            return _FATAL + _clean(error)
        try:
            return returned[: result.skip(returned, 0)]
        except DecodeError as error:
            log.write(LogLevel.ERROR, f"what the procedure returned does not decode: {error}", function=each.name)
            return _FATAL + str(error)

    def _encode(self, each: ProcedureDef, text: str) -> bytes:
        typespace = self._actor.module.definition.typespace
        return bsatn.codec(each.params, typespace).encode(
            json.decode(each.params, json.parse(text), typespace=typespace)
        )


def _bad_arguments(each: ProcedureDef, error: DecodeError) -> str:
    return f"invalid arguments for procedure {each.name}: {getattr(error, 'path', None) or error}"


def _clean(error: BaseException) -> str:
    """Return the text of an exception of a module, which may raise what no message can carry."""
    return str(error).encode("utf-8", "replace").decode()
