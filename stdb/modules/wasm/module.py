"""WasmModule: a compiled program that a database calls.

Responsible for: the `Module` of `stdb.modules.protocol`: entries bytes in and bytes out, replacing broken instances.
Not responsible for: preparing an instance (`instance`), host functions (`imports_10`), waiting (`procedures`),
transactions (`stdb.actors`).

One instance serves all reducers and views, one at a time, and keeps its statics from call to call. A trap discards it;
the next call makes another. An attachment to other tables does too: guests keep ids for as long as they live.

Source: spec 04 sections 5 and 6.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NoReturn

from stdb.datastore.views import view_shape
from stdb.errors import DecodeError, ModuleFault, ReducerError, ReducerTimeout
from stdb.modules.environment import Environment
from stdb.modules.protocol import (
    FATAL,
    HttpRequest,
    HttpResponse,
    ProcedureCall,
    ReducerCall,
    RouteCall,
    ViewCall,
    ViewSql,
)
from stdb.modules.wasm import abi
from stdb.modules.wasm.host import Host
from stdb.modules.wasm.http import decode_response, encode_request
from stdb.modules.wasm.imports import host_functions
from stdb.modules.wasm.instance import FAILURE, Instance, connection_words, raise_for, words
from stdb.modules.wasm.procedures import drive, finish_pausing
from stdb.modules.wasm.runtime import SUSPENDED, U64_MAX, GuestTrap, Limits
from stdb.modules.wasm.tables import Tables
from stdb.modules.wasm.views import WITH_HEADER, rows_reader
from stdb.sats import bsatn
from stdb.sql.work import Steps, finish

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore
    from stdb.modules.protocol import LogSink, ProcedureHost
    from stdb.modules.wasm.engine import CompiledProgram
    from stdb.modules.wasm.runtime import Runtime
    from stdb.schema.model import ModuleDef

__all__ = ["WasmModule"]


class WasmModule:
    """A loaded WebAssembly program. One instance of this class belongs to one database and is called from one thread.

    `first` is the instance that was made to ask for the definition; it goes on to serve.
    """

    succeeded = 0
    """What a reducer returns when all is well."""

    def __init__(
        self,
        runtime: "Runtime",
        program: "CompiledProgram",
        program_hash: bytes,
        definition: "ModuleDef",
        first: Instance,
        now_us: Callable[[], int],
        limits: Limits,
    ) -> None:
        self.definition = definition
        self.program_hash = program_hash
        self.immediate: Callable[[str, bytes], None] | None = None
        """Takes calls that the module queues (`volatile_nonatomic_schedule_immediate`); set by the database."""
        self._runtime = runtime
        self._program = program
        self._now_us = now_us
        self._limits = limits
        self._main: Instance | None = first
        self._idle: list[Instance] = []
        """Instances for what may wait, between two calls."""
        self._tables: Tables | None = None
        self._environment: Environment | None = None
        self._identity = bytes(32)
        self._log: LogSink | None = None

    def attach(self, datastore: "Datastore", database_identity: bytes, log: "LogSink") -> None:
        """Bind to the tables of a database; called once before the first call and again after a schema change."""
        is_first = self._tables is None
        self._tables, self._identity, self._log = Tables(datastore), database_identity, log
        self._environment = Environment(self.definition, self.program_hash, datastore)
        if not is_first:
            self._discard()
            while self._idle:
                self._idle.pop().close()
        elif self._main is not None:
            self._bind(self._main.host)

    def reducer(self, reducer_id: int) -> Callable[[ReducerCall, bytes], None]:
        """Return the entry of a reducer, which runs it to its end; see `stdb.modules.protocol.Module`."""
        start = self.reducer_steps(reducer_id)

        def run(call: ReducerCall, args: bytes) -> None:
            rest = start(call, args)
            if rest is not None:
                finish(rest)

        return run

    def reducer_steps(self, reducer_id: int) -> Callable[[ReducerCall, bytes], Steps[None] | None]:
        """Return the entry of a reducer that comes back whenever an epoch has passed, which most never do.

        See `Suspending`.
        """
        definition = self.definition.reducers[reducer_id]
        name = definition.name
        skip = bsatn.codec(definition.params, self.definition.typespace).skip

        def start(call: ReducerCall, args: bytes) -> Steps[None] | None:
            end = skip(args, 0)
            instance = self._main
            if instance is None:
                return self._after_making(start, call, args)
            host = instance.host
            sender, connection_id, timestamp_us, transaction, _ = call
            host.open(transaction)
            host.function = name
            handles = host.handles
            instance.guest.limit(transaction, instance.ticks_max)
            who1, who2, who3, who4 = words(sender)  # with stars, all ten would be put together anew
            connection1, connection2 = connection_words(connection_id)
            try:
                code = instance.call_reducer(
                    reducer_id,
                    who1,
                    who2,
                    who3,
                    who4,
                    connection1,
                    connection2,
                    timestamp_us & U64_MAX,
                    handles.add_source(args if end == len(args) else args[:end]),
                    handles.add_sink(),
                )
            except GuestTrap as trap:
                self._broken(trap, name)
            if code == SUSPENDED:
                return self._rest(instance, name)
            if code or transaction.expired:
                self._refuse(instance, name, code)
            host.end()
            return None

        return start

    def _after_making(
        self, start: Callable[[ReducerCall, bytes], Steps[None] | None], call: ReducerCall, args: bytes
    ) -> Steps[None]:
        """Make a main instance, then start a reducer, and go on with it if it comes back early."""
        yield from self._make()
        rest = start(call, args)
        if rest is not None:
            yield from rest

    def _rest(self, instance: Instance, name: str) -> Steps[None]:
        """Go on with a reducer that came back early."""
        host, guest = instance.host, instance.guest
        code = SUSPENDED
        try:
            while code == SUSPENDED:
                yield
                code = guest.resume()
        except GuestTrap as trap:
            self._broken(trap, name)
        except GeneratorExit:
            self._discard()
            raise
        if code != self.succeeded or (host.expiry is not None and host.expiry.expired):
            self._refuse(instance, name, code)
        host.end()

    def _broken(self, trap: GuestTrap, name: str) -> NoReturn:
        """Discard the main instance; raise what the trap is to the database."""
        assert self._main is not None, "it has just run"
        try:
            raise_for(trap, f"`{name}`", self._main.host)
        finally:
            self._discard()

    def _refuse(self, instance: Instance, name: str, code: int) -> NoReturn:
        """End a call whose function returned a code, or too late; raises what it is to the database."""
        host = instance.host
        (sink,) = host.handles.sinks.values()
        text = sink.decode("utf-8", "replace")
        is_late = host.expiry is not None and host.expiry.expired
        host.end()
        if is_late:
            raise ReducerTimeout(f"`{name}` ran longer than it may")
        if code == FAILURE:
            raise ReducerError(text)
        raise ModuleFault(FATAL, report=f"{name} returned the code {code}, known are 0 and 1")

    # Views

    def view(self, position: int) -> Callable[[ViewCall], list[bytes] | ViewSql]:
        """Return the entry of a view, which runs it to its end; see `stdb.modules.protocol.Module`."""
        steps = self.view_steps(position)
        return lambda call: finish(steps(call))

    def view_steps(self, position: int) -> Callable[[ViewCall], Steps[list[bytes] | ViewSql]]:
        """Return what runs a view in steps; see `stdb.modules.protocol.Suspending`."""
        view = self.definition.views[position]
        read = rows_reader(view_shape(view, self.definition).row_type)
        name = view.name

        def run(call: ViewCall) -> Steps[list[bytes] | ViewSql]:
            instance = self._main or (yield from self._make())
            host = instance.host
            handles = host.handles
            host.open(call.reads, call.reads)
            host.function = name
            args, sink = handles.add_source(call.args), handles.add_sink()
            try:
                if view.is_anonymous:
                    code = yield from instance.run("__call_view_anon__", view.index, args, sink)
                else:
                    assert call.sender is not None, f"view {name} has rows for each caller"
                    code = yield from instance.run("__call_view__", view.index, *words(call.sender), args, sink)
                if code not in (0, WITH_HEADER) or call.reads.expired:
                    self._refuse(instance, name, code)
                return (yield from read(code, bytes(handles.sinks[sink])))
            except GuestTrap as trap:
                self._broken(trap, name)
            except GeneratorExit:
                self._discard()
                raise
            except DecodeError as error:
                raise ModuleFault(FATAL, report=f"what view {name} returned does not decode: {error}") from error
            finally:
                host.end()

        return run

    # Procedures and routes

    def procedure(self, procedure_id: int) -> Callable[[ProcedureCall, bytes], Awaitable[bytes]]:
        """Return the entry of a procedure; see `stdb.modules.protocol.Module`."""
        definition = self.definition.procedures[procedure_id]
        name = definition.name
        skip = bsatn.codec(definition.params, self.definition.typespace).skip

        async def run(call: ProcedureCall, args: bytes) -> bytes:
            args = args[: skip(args, 0)]
            instance = await self._make_for_waiting(name, call.host)
            handles = instance.host.handles
            sink = handles.add_sink()

            def start() -> int:
                return instance.entry("__call_procedure__")(
                    procedure_id,
                    *words(call.sender),
                    *connection_words(call.connection_id),
                    call.timestamp_us & U64_MAX,
                    handles.add_source(args),
                    sink,
                )

            await self._drive(instance, call.host, name, start)
            returned = bytes(handles.sinks[sink])
            self._put_back(instance)
            return returned

        return run

    def route(self, position: int) -> Callable[[RouteCall, HttpRequest], Awaitable[HttpResponse]]:
        """Return the handler of a route; see `stdb.modules.protocol.Module`."""
        name = self.definition.http_routes[position].handler
        handler_id = self.definition.http_handlers.index(name)
        knows_callers = self._handlers_know_callers()

        async def run(call: RouteCall, request: HttpRequest) -> HttpResponse:
            instance = await self._make_for_waiting(name, call.host)
            handles = instance.host.handles
            sinks = handles.add_sink(), handles.add_sink()
            caller: tuple[int, ...] = ()
            if knows_callers:
                identity, claims = call.stranger()
                caller = (*words(identity), handles.add_source(claims.encode()))

            def start() -> int:
                return instance.entry(abi.HTTP_HANDLER)(
                    handler_id,
                    *caller,
                    call.timestamp_us & U64_MAX,
                    handles.add_source(encode_request(request)),
                    handles.add_source(request.body),
                    *sinks,
                )

            await self._drive(instance, call.host, name, start)
            head, body = (bytes(handles.sinks[sink]) for sink in sinks)
            self._put_back(instance)
            try:
                return decode_response(head, body)
            except DecodeError as error:
                raise ModuleFault(FATAL, report=f"what handler {name} returned does not decode: {error}") from error

        return run

    async def _drive(self, instance: Instance, host: "ProcedureHost", name: str, start: Callable[[], int]) -> None:
        """Run what may wait on an instance of its own, which is closed unless the function returned 0."""
        try:
            code = await drive(instance, host, name, start)
            if code:
                raise ModuleFault(FATAL, report=f"{name} returned the code {code}, known is 0")
        except GuestTrap as trap:
            try:
                raise_for(trap, f"`{name}`", instance.host)
            finally:
                instance.close()
        except BaseException:
            instance.close()
            raise

    async def _make_for_waiting(self, name: str, pauses: "ProcedureHost") -> Instance:
        """Return an instance for one function that may wait: one that has served another, or a fresh one."""
        if self._idle:
            instance = self._idle.pop()
            instance.host.function = name
            return instance
        host = Host(self._now_us)
        host.is_procedure = True
        host.function = name
        return await finish_pausing(self._made(host), pauses)

    def _put_back(self, instance: Instance) -> None:
        """Keep an instance whose function has ended well, for the next one; not one that knows other tables."""
        instance.host.end()
        if len(self._idle) < IDLE_MAX and instance.host.tables is self._tables:
            self._idle.append(instance)
        else:
            instance.close()

    def _handlers_know_callers(self) -> bool:
        """Tell whether handlers are told who asks, as they are from 2.14 on."""
        export = self._program.exports.get(abi.HTTP_HANDLER)
        return export is not None and export.type == abi.CALL_HANDLER

    # Instances

    def _make(self) -> Steps[Instance]:
        """Return a fresh main instance."""
        self._main = made = yield from self._made(Host(self._now_us))
        return made

    def _made(self, host: Host) -> Steps[Instance]:
        self._bind(host)
        return Instance.in_steps(self._runtime, self._program, host_functions(host), host, self._limits)

    def _bind(self, host: Host) -> None:
        host.tables, host.identity, host.log = self._tables, self._identity, self._log
        host.environment = self._environment
        host.immediate = self._queue

    def _queue(self, name: str, args: bytes) -> None:
        if self.immediate is not None:
            self.immediate(name, args)

    def _discard(self) -> None:
        main, self._main = self._main, None
        if main is not None:
            main.close()


IDLE_MAX = 8
"""Instances kept for procedures and handlers that are not called just now."""
