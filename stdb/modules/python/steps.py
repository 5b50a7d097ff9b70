"""Steps: a coroutine of a module, run from one wait to the next under the time limit of a reducer.

Responsible for: the time limit of every step, whose log lines they are, awaits that belong to another event loop,
coroutines that do not end when they are told to.
Not responsible for: what a coroutine may wait for (`ProcedureHost`), sorting what it raises (`entries`).

What a module awaits goes on to whoever runs the procedure as it is, so the host's own coroutines work through this.
Whoever runs it throws exceptions in, or sends them in an outcome, whose `error` they are. A wait that was begun and
then dropped would wake up a task that does not wait: its `abort_func` lets go of it, or it is waited for to its end.

A coroutine that has to end is told so at every wait it tries, so often that any clean-up gets through; one that still
goes on is left where it is, for ever, at a wait that nothing ends. It must not be closed there: that would run it.
"""

import atexit
import gc
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from stdb.errors import ReducerTimeout
from stdb.modules.protocol import Expiry, HttpRequest, HttpResponse, ReducerCall
from stdb.modules.python.output import failure_text

if TYPE_CHECKING:
    from stdb.modules.protocol import ProcedureHost
    from stdb.modules.python.output import Output

__all__ = ["WAITS_MAX", "Steps", "Waits"]

T = TypeVar("T")
WAITS_MAX = 16
"""How many waits of a coroutine that has to end are refused before it is left where it is."""
_FOREIGN = "a procedure waits by await ctx.transact(), ctx.sleep() and ctx.http alone: asyncio has no event loop here"
_ELSEWHERE = "ctx belongs to a running procedure: it waits for nothing within a transaction, or once that has ended"
_left: list[object] = []
"""Coroutines that did not end."""


def _leave_for_good() -> None:
    """Keep the interpreter from closing them at its end, when nothing they call works any more: a cycle that is frozen
    is never taken apart.
    """
    if _left:
        _left.append(_left)
        gc.freeze()


atexit.register(_leave_for_good)


class _Never:
    def __await__(self) -> Generator[Any, Any, None]:
        while True:
            yield self


class Waits:
    """What one coroutine may ask of its database, a `ProcedureHost`, for as long as it may."""

    def __init__(self, host: "ProcedureHost") -> None:
        self._host = host
        self.cancelled = host.cancelled
        self.is_over = False
        """Every further wait is refused."""
        self.is_active = False
        """The coroutine runs: not one of its transactions, nor anybody who was given its context."""
        self._refused = 0

    def now_us(self) -> int:
        """Return the time in microseconds since 1970."""
        return self._host.now_us()

    def running(self) -> AbstractContextManager[Expiry]:
        """Hold the time limit of a reducer."""
        return self._host.running()

    async def transact(self, run: Callable[[ReducerCall], T]) -> T:
        """See `ProcedureHost.transact`."""
        return await self._unless_over(self._host.transact, run)

    async def transact_in_steps(self, run: Callable[[ReducerCall], Generator[None, None, T]]) -> T:
        """See `ProcedureHost.transact_in_steps`."""
        return await self._unless_over(self._host.transact_in_steps, run)

    async def pause(self) -> None:
        """See `ProcedureHost.pause`."""
        await self._host.pause()

    async def sleep(self, seconds: float) -> None:
        """See `ProcedureHost.sleep`."""
        await self._unless_over(self._host.sleep, seconds)

    async def http(self, request: HttpRequest) -> HttpResponse:
        """See `ProcedureHost.http`."""
        return await self._unless_over(self._host.http, request)

    async def _unless_over(self, wait: Callable[..., Awaitable[T]], argument: Any) -> T:
        if not self.is_active:
            raise RuntimeError(_ELSEWHERE)
        if self.is_over:
            self._refused += 1
            if self._refused <= WAITS_MAX:
                raise GeneratorExit
            await _Never()
        return await wait(argument)


class Steps(Generic[T]):
    """An awaitable that runs a coroutine step by step. What the coroutine raises comes out as it is."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], waits: Waits, output: "Output", function: str) -> None:
        self._coroutine = coroutine
        self._waits = waits
        self._output = output
        self._function = function

    def __await__(self) -> Generator[Any, Any, T]:
        """Run it.

        Raises:
            ReducerTimeout: A step ran longer than a reducer may.
        """
        coroutine = self._coroutine
        resume: Any = coroutine.send
        with_value: Any = None
        cancellations = 0
        while True:
            self._output.function = self._function
            with self._waits.running() as limit, self._active():
                try:
                    waits_for = resume(with_value)
                except StopIteration as end:
                    self._check(limit.expired)
                    result: T = end.value
                    return result
                except RuntimeError as error:
                    if "no running event loop" in failure_text(error):
                        error.add_note(_FOREIGN)
                    raise
            is_late = limit.expired
            if is_late and _is_let_go(waits_for):
                self._end()
                self._check(is_late)
            if _is_foreign(waits_for):
                resume, with_value = coroutine.throw, TypeError(_FOREIGN)
                continue
            try:
                with_value = yield waits_for
                resume, raised = coroutine.send, getattr(with_value, "error", None)
            except BaseException as error:  # noqa: BLE001 - whoever runs us throws what the coroutine is to see
                resume, with_value, raised = coroutine.throw, error, error
            if is_late:
                self._end()
                self._check(is_late)
            if type(raised) is self._waits.cancelled:
                cancellations += 1
                if cancellations > WAITS_MAX:
                    self._end()
                    raise raised

    @contextmanager
    def _active(self) -> Iterator[None]:
        self._waits.is_active = True
        try:
            yield
        finally:
            self._waits.is_active = False

    def _check(self, is_expired: bool) -> None:
        if is_expired:
            raise ReducerTimeout("the time limit of a procedure between two waits has passed")

    def _end(self) -> None:
        """End a coroutine that went on after its end; its clean-up gets as much time again."""
        self._waits.is_over = True
        whole = _chain(self._coroutine)
        try:
            with self._waits.running(), self._active():
                self._coroutine.close()
        except (Exception, ReducerTimeout):  # noqa: BLE001 - it was told to end, whatever it makes of that
            _left.extend(each for each in whole if inspect.getcoroutinestate(each) != inspect.CORO_CLOSED)


def _chain(coroutine: Any) -> list[Coroutine[Any, Any, Any]]:
    """Return a coroutine and what it awaits, and what that awaits, and so on."""
    found: list[Coroutine[Any, Any, Any]] = []
    while inspect.iscoroutine(coroutine):
        found.append(coroutine)
        coroutine = coroutine.cr_await
    return found


def _is_let_go(waits_for: object) -> bool:
    """Let go of a wait that was begun and handed to nobody; False where it can only be waited for."""
    abort = getattr(waits_for, "abort_func", None)
    return abort is None or getattr(abort(_not_cancelled), "name", "") == "SUCCEEDED"


def _not_cancelled() -> None:
    raise AssertionError("a wait that was let go of is over")


def _is_foreign(waits_for: object) -> bool:
    """Tell whether a bare `yield`, or asyncio, is what a coroutine waits for."""
    return waits_for is None or type(waits_for).__module__.partition(".")[0] in ("asyncio", "_asyncio")
