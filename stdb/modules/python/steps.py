"""Steps: a coroutine of a module, run from one wait to the next under the time limit of a reducer.

Responsible for: the time limit of every step, whose log lines they are, awaits that belong to another event loop.
Not responsible for: what a coroutine may wait for (`ProcedureHost`), sorting what it raises (`entries`).

What a module awaits goes on to whoever runs the procedure as it is, so the host's own coroutines work through this.
"""

from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from stdb.errors import ReducerTimeout
from stdb.modules.python.output import failure_text

if TYPE_CHECKING:
    from stdb.modules.protocol import ProcedureHost
    from stdb.modules.python.output import Output

__all__ = ["Steps"]

T = TypeVar("T")
_FOREIGN = "a procedure waits by await ctx.transact(), ctx.sleep() and ctx.http alone: asyncio has no event loop here"


class Steps(Generic[T]):
    """An awaitable that runs a coroutine step by step. What the coroutine raises comes out as it is."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], host: "ProcedureHost", output: "Output", function: str
    ) -> None:
        self._coroutine = coroutine
        self._host = host
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
        while True:
            self._output.function = self._function
            with self._host.running() as limit:
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
            if limit.expired:
                self._close()
                self._check(limit.expired)
            if _is_foreign(waits_for):
                resume, with_value = coroutine.throw, TypeError(_FOREIGN)
                continue
            try:
                with_value = yield waits_for
                resume = coroutine.send
            except BaseException as error:  # noqa: BLE001 - whoever runs us throws what the coroutine is to see
                resume, with_value = coroutine.throw, error

    def _check(self, is_expired: bool) -> None:
        if is_expired:
            raise ReducerTimeout("the time limit of a procedure between two waits has passed")

    def _close(self) -> None:
        """End a coroutine that went on after its time; its clean-up gets as much time again."""
        try:
            with self._host.running():
                self._coroutine.close()
        except (Exception, ReducerTimeout):  # noqa: BLE001 - it was told to end, whatever it makes of that
            return


def _is_foreign(waits_for: object) -> bool:
    """Tell whether a bare `yield`, or asyncio, is what a coroutine waits for."""
    return waits_for is None or type(waits_for).__module__.partition(".")[0] in ("asyncio", "_asyncio")
