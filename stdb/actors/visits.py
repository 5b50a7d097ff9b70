"""Visits: what one HTTP request runs: a reducer, a procedure, a statement of SQL, the handler of a route.

Responsible for: connect and disconnect around a call or a statement, finding and running handlers, answering once
durable.
Not responsible for: transactions (`database`), SQL (`statements`), the tasks of what waits and what it may ask for
(`procedures`), HTTP (`stdb.net`).

What waits runs among the procedures of its database and is cancelled with them, and when the request is given up: its
scope is then cancelled, `client_disconnected` still runs. A handler of a route has nobody to connect: nobody is
authenticated, so its transactions are those of the identity zero without a connection; modules that are told who asks
(crate 2.14) are told of a new identity each time.

Rules: spec 05 section 1.3, routes 21, 24 and 30; spec 04 sections 3.7 and 7.
"""

import json
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

import trio

from stdb.actors.answers import Answer, CallResult, LongJob, ProcedureOutcome, SqlResult
from stdb.actors.calls import COMMITTED, NO_SUCH_REDUCER, written_arguments
from stdb.actors.procedures import NO_SUCH_PROCEDURE, PreparedCall
from stdb.actors.refusals import BadArguments, LifecycleCall, NoSuchFunction, NoSuchRoute, TooBusy
from stdb.actors.requests import Arguments
from stdb.actors.sink import Client, OutcomeKind, ReducerOutcome
from stdb.errors import RequestError
from stdb.modules.protocol import HttpRequest, HttpResponse, Module, RouteCall, Stranger
from stdb.sats.special import Identity
from stdb.schema.model import STANDARD_HTTP_METHODS, HttpRouteDef
from stdb.sql import Language
from stdb.sql.work import Steps

if TYPE_CHECKING:
    from stdb.actors.database import DatabaseActor

__all__ = ["Asked", "RouteResult", "Visits"]

Result = TypeVar("Result")
_Handler: TypeAlias = Callable[[RouteCall, HttpRequest], Awaitable[HttpResponse]]
_CallAnswer: TypeAlias = Answer[CallResult | ProcedureOutcome]
_NOBODY = Client(bytes(32), bytes(16), "")
_ISSUER, _AUDIENCE = "localhost", "spacetimedb"


class Asked(NamedTuple):
    """A call of a reducer or a procedure."""

    client: Client
    name: str
    args: bytes | str | Arguments
    confirmed: bool
    """It is answered once what it did is durable."""


class RouteResult(NamedTuple):
    """What the handler of a route answered, or how it failed: FAILED, FAULT, OUT_OF_TIME, as the module's log says."""

    handler: str
    """Its name."""
    answer: HttpResponse | ReducerOutcome


class Visits:
    """The visits of one DatabaseActor."""

    def __init__(self, actor: "DatabaseActor") -> None:
        self._actor = actor
        self._routes: dict[tuple[str | None, str], int] = {}
        self._routes_of: Module | None = None

    def find_route(self, method: str, path: str) -> int | None:
        """Return the position of the route for a method and a path (what follows `/route`), or None."""
        module = self._actor.module
        if self._routes_of is not module:
            routes = enumerate(module.definition.http_routes)
            self._routes = {(_method_on_the_wire(each), each.path): position for position, each in routes}
            self._routes_of = module
        found = self._routes.get((method, path))
        return self._routes.get((None, path)) if found is None else found

    # ------------------------------------------------------------------ within a turn
    def call(self, asked: Asked, scope: trio.CancelScope, answer: _CallAnswer) -> LongJob:
        """Connect, run a reducer, disconnect, answer; or start a procedure, whose end, or that of `scope`, brings both.

        Raises:
            ConnectRefused, NoSuchFunction, LifecycleCall, BadArguments, TooBusy: Nothing was run, nobody is connected.
        """
        actor, name = self._actor, asked.name
        if name not in actor.reducers.by_name and actor.module.definition.procedure_id(name) is not None:
            yield from self._start_procedure(asked, scope, answer)
            return None
        end = yield from self._connected(asked.client, asked.confirmed, self._run_reducer(asked))
        return lambda: actor.answers.run(answer, end)

    def sql(
        self, client: Client, text: str, confirmed: bool, is_wanted: Callable[[], bool]
    ) -> Steps[Callable[[], tuple[SqlResult, int]]]:
        """Connect, run one statement, disconnect; return what returns the result and what must be durable before.

        A statement that only reads is given up when nobody wants its result any more.
        """
        return self._connected(client, confirmed, self._actor.statements.run(client.identity, text, is_wanted))

    def statements(
        self, caller: bytes, text: str, language: Language, is_wanted: Callable[[], bool]
    ) -> Steps[Callable[[], tuple[list[SqlResult], int]]]:
        """Run any number of statements, nobody connecting; return what returns the results and what must be durable."""
        actor = self._actor
        results = yield from actor.statements.run_all(caller, text, language, is_wanted)
        needs = actor.datastore.next_offset
        return lambda: (results, needs)

    def _connected(
        self, client: Client, confirmed: bool, steps: Steps[Result]
    ) -> Steps[Callable[[], tuple[Result, int]]]:
        """Connect, do `steps`, disconnect; return what returns or raises how they ended."""
        actor = self._actor
        yield from actor.connections.arrive(client)
        outcome: Result | RequestError
        try:
            outcome = yield from steps
        except RequestError as error:
            outcome = error
        needs = actor.datastore.next_offset if confirmed else 0
        yield from actor.connections.depart(client)

        def end() -> tuple[Result, int]:
            if isinstance(outcome, RequestError):
                raise outcome
            return outcome, needs

        return end

    def _run_reducer(self, asked: Asked) -> Steps[CallResult]:
        actor, (client, name, args, _) = self._actor, asked
        prepared = actor.prepare(client, name, args)
        if not isinstance(prepared, ReducerOutcome):
            entry, encoded = prepared
            args_json = written_arguments(args)
            outcome, event, _ = yield from actor.transact_patiently(
                entry, client, client.connection_id, encoded, args_json
            )
            if outcome.kind != OutcomeKind.NOT_RUN:
                return CallResult(outcome, event.duration_us)
            prepared = outcome
        entry_or_none = actor.reducers.by_name.get(name)
        if prepared is NO_SUCH_REDUCER or entry_or_none is None:
            if isinstance(args, bytes | str):  # who knows other forms knows no procedures
                actor.reducers.tell_no_procedure(name)
            raise NoSuchFunction(NO_SUCH_PROCEDURE.text)
        if entry_or_none.definition.lifecycle is not None:
            raise LifecycleCall(prepared.text)
        raise BadArguments(prepared.text_chain)

    def _start_procedure(self, asked: Asked, scope: trio.CancelScope, answer: _CallAnswer) -> Steps[None]:
        client, args = asked.client, asked.args
        connections = self._actor.connections
        yield from connections.arrive(client)
        try:
            assert isinstance(args, bytes | str), "who knows other forms knows no procedures"
            prepared = self._actor.procedures.prepare(client, asked.name, args, confirmed=asked.confirmed)
            if isinstance(prepared, ReducerOutcome):
                raise _refusal(prepared)
            self._start(partial(self._run_call, asked, prepared, answer), scope)
        except (NoSuchFunction, BadArguments, TooBusy):
            yield from connections.depart(client)
            raise

    def route(self, request: HttpRequest, path: str, scope: trio.CancelScope, answer: Answer[RouteResult]) -> None:
        """Start the handler for a request; answer at its end. Raises NoSuchRoute, TooBusy."""
        position = self.find_route(request.method, path)
        if position is None:
            raise NoSuchRoute
        module = self._actor.module
        name = module.definition.http_routes[position].handler
        self._start(partial(self._run_route, module.route(position), name, request, answer), scope)

    def _start(self, work: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
        refusal = self._actor.procedures.start(None, work, scope)
        if refusal is not None:
            raise TooBusy(refusal)

    # ------------------------------------------------------------------ their tasks
    async def _run_call(self, asked: Asked, prepared: PreparedCall, answer: _CallAnswer) -> None:
        started = perf_counter()
        outcome: bytes | ReducerOutcome | None = None
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            outcome = await self._actor.procedures.outcome(prepared)
        finally:
            duration_us = int((perf_counter() - started) * 1e6)
            result = None if outcome is None else _ended(prepared, outcome, duration_us)
            self._actor.post_nowait((None, partial(self._end_call, asked, result, answer)))

    def _end_call(self, asked: Asked, result: ProcedureOutcome | None, answer: _CallAnswer) -> Steps[None]:
        """Disconnect, and answer if anybody still waits; within a turn."""
        actor = self._actor
        needs = actor.datastore.next_offset if asked.confirmed else 0
        yield from actor.connections.depart(asked.client)
        if result is None:
            return
        if result.outcome.kind == OutcomeKind.NOT_RUN:
            answer.fail(_refusal(result.outcome))
        else:
            actor.answers.give(answer, result, needs)

    async def _run_route(self, handler: _Handler, name: str, request: HttpRequest, answer: Answer[RouteResult]) -> None:
        actor = self._actor
        host = actor.procedures.host_for_route(_NOBODY)
        ended: HttpResponse | ReducerOutcome
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            ended = await handler(RouteCall(actor.now_us(), host, partial(_stranger, actor.now_us())), request)
        except BaseException as error:  # as of a procedure: whatever a handler raises, its database goes on
            if isinstance(error, trio.Cancelled) and trio.current_effective_deadline() == -inf:
                raise
            ended = actor.procedures.failed(name, error, host)
        actor.post_nowait((None, partial(self._end_route, RouteResult(name, ended), answer)))

    def _end_route(self, result: RouteResult, answer: Answer[RouteResult]) -> None:
        """Answer with all that was committed so far; within a turn."""
        self._actor.answers.give(answer, result, self._actor.datastore.next_offset)


def _stranger(now_us: int) -> Stranger:
    """Return somebody new, as a server makes one for a client that shows no token (spec 09 section 4)."""
    subject = str(uuid.uuid4())
    identity = Identity.derive(_ISSUER, subject)
    claims = {"hex_identity": identity.hex(), "sub": subject, "iss": _ISSUER, "aud": [_AUDIENCE]}
    return Stranger(identity.wire, json.dumps(claims | {"iat": now_us // 1_000_000}, separators=(",", ":")))


def _ended(prepared: PreparedCall, outcome: bytes | ReducerOutcome, duration_us: int) -> ProcedureOutcome:
    if isinstance(outcome, ReducerOutcome):
        return ProcedureOutcome(outcome, duration_us)
    return ProcedureOutcome(COMMITTED, duration_us, partial(prepared.callee.as_json, outcome))


def _refusal(outcome: ReducerOutcome) -> NoSuchFunction | BadArguments:
    """Return the exception for a procedure that was not run."""
    return NoSuchFunction(outcome.text) if outcome is NO_SUCH_PROCEDURE else BadArguments(outcome.text_chain)


def _method_on_the_wire(route: HttpRouteDef) -> str | None:
    """Return the method of a route as a request has it: a definition writes the standard ones `Get` and so on."""
    return route.method.upper() if route.method in STANDARD_HTTP_METHODS else route.method
