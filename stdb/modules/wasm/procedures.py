"""Procedures of WebAssembly modules: guests that wait, each on an instance of its own.

Responsible for: driving a guest from wait to wait, answering what it waits for by its `ProcedureHost`.
Not responsible for: making instances (`module`), what a guest may wait for (`waiting`), tasks (`stdb.actors`).

A transaction of a procedure is one call of `ProcedureHost.transact_in_steps`: within it the guest goes on until it
commits, aborts or ends. So nothing of it waits while its database is held.

Source: spec 04 section 3.7.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from stdb.errors import HttpError, ReducerError, ReducerTimeout
from stdb.modules.protocol import LogLevel, ReducerCall
from stdb.modules.wasm.http import encode_response, encode_text
from stdb.modules.wasm.imports_10 import Errno
from stdb.modules.wasm.runtime import SUSPENDED, U64_MAX, HostTrap, Wait
from stdb.modules.wasm.waiting import Abort, Commit, Http, Sleep, StartTransaction
from stdb.sql.work import Steps

if TYPE_CHECKING:
    from stdb.modules.protocol import ProcedureHost
    from stdb.modules.wasm.instance import Instance

__all__ = ["drive", "finish_pausing"]

T = TypeVar("T")
_LATE = "the time limit of a procedure between two waits has passed"


class _RolledBackError(Exception):
    """The guest aborted its transaction; nothing of it may stay."""


class _LeftError(Exception):
    """The guest ended with its transaction open. `code` is what it returned."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


async def finish_pausing(steps: Steps[T], host: "ProcedureHost") -> T:
    """Run steps to their end, and let others run in between; return the result."""
    try:
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
            await host.pause()
    finally:
        steps.close()


async def drive(instance: "Instance", host: "ProcedureHost", name: str, start: Callable[[], int]) -> int:
    """Run a function that may wait to its end; return its code. `start` enters it.

    Raises:
        GuestTrap, ReducerTimeout: It ended otherwise.
    """
    guest = instance.guest
    code = _step(instance, host, start)
    while code == SUSPENDED:
        wait, resume = guest.waiting, guest.resume
        if wait is None:  # an epoch has passed
            await host.pause()
            code = _go_on(host, resume)
            continue
        if isinstance(wait.request, Sleep):
            await host.sleep(max(wait.request.until_us - host.now_us(), 0) / 1e6)
            wait.answer = host.now_us() & U64_MAX
        elif isinstance(wait.request, Http):
            wait.answer = await _send(instance, host, wait.request)
        else:
            assert isinstance(wait.request, StartTransaction), f"{wait.request} ends a transaction; there is none"
            try:
                code = await _transact(instance, host, wait, wait.request)
            except _LeftError as left:
                _tell_dangling(instance, name)
                return left.code
            if code != SUSPENDED:
                return code
            continue
        code = _step(instance, host, resume)
    return code


def _step(instance: "Instance", host: "ProcedureHost", go_on: Callable[[], int]) -> int:
    """Let the guest run until it waits or ends, under the time limit of a reducer."""
    with host.running() as stretch:
        instance.guest.limit(stretch, instance.ticks_max)
        code = go_on()
    if stretch.expired:
        raise ReducerTimeout(_LATE)
    return code


def _go_on(host: "ProcedureHost", resume: Callable[[], int]) -> int:
    """Let the guest go on that came back because an epoch had passed: under the limit that began with its step."""
    with host.running() as stretch:
        code = resume()
    if stretch.expired:
        raise ReducerTimeout(_LATE)
    return code


async def _transact(instance: "Instance", host: "ProcedureHost", wait: Wait, request: StartTransaction) -> int:
    """Run one transaction, and the guest from there to its next wait; return as `Guest.resume`."""
    guest = instance.guest

    def run(call: ReducerCall) -> Steps[Wait]:
        instance.host.open(call.transaction)
        guest.limit(call.transaction, instance.ticks_max)
        try:
            instance.host.memory.write_u64(request.out, call.timestamp_us & U64_MAX)
            wait.answer = Errno.OK
            code = guest.resume()
            while code == SUSPENDED and guest.waiting is None:
                yield
                code = guest.resume()
        finally:
            instance.host.close()
        if code != SUSPENDED:
            raise _LeftError(code)
        ending = guest.waiting
        assert ending is not None
        if isinstance(ending.request, Abort):
            raise _RolledBackError
        assert isinstance(ending.request, Commit), f"{ending.request} is refused while a transaction is open"
        return ending

    try:
        ending = await host.transact_in_steps(run)
        ending.answer = Errno.OK
    except _RolledBackError:
        ending = guest.waiting  # type: ignore[assignment]  # the Abort
        ending.answer = Errno.OK
    except ReducerError as error:  # it was not begun, or could not be committed
        ending = guest.waiting or wait
        ending.error = HostTrap(str(error))
    return _step(instance, host, guest.resume)


async def _send(instance: "Instance", host: "ProcedureHost", request: Http) -> int:
    """Send a request; return the error number."""
    handles, memory = instance.host.handles, instance.host.memory
    try:
        response = await host.http(request.request)
    except HttpError as error:
        memory.write_u32(request.out, handles.add_source(encode_text(str(error))))
        return Errno.HTTP_ERROR
    memory.write_u32(request.out, handles.add_source(encode_response(response)))
    memory.write_u32(request.out + 4, handles.add_source(response.body))
    return Errno.OK


def _tell_dangling(instance: "Instance", name: str) -> None:
    if instance.host.log is not None:
        text = f"aborting dangling anonymous transaction in procedure {name}"
        instance.host.log.write(LogLevel.ERROR, text, function=name)
