"""Pending: what a method that waits returns until it is awaited; tells when that never happens.

Responsible for: a missing `await`, told with its line, and what an author tries with a value that is none yet.
Not responsible for: waiting (`procedures`, `http`).
"""

import functools
import sys
from collections.abc import Callable, Coroutine, Generator
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from stdb.modules.python.declarations import Place

if TYPE_CHECKING:
    from stdb.modules.python.output import Output

__all__ = ["Pending", "has_not_run", "pending"]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class Pending(Coroutine[Any, Any, T]):
    """A coroutine that is made when somebody awaits it; one that is dropped before warns in the module's log."""

    __slots__ = ("_coroutine", "_make", "_name", "_output", "_place")

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]], name: str, output: "Output", place: Place) -> None:
        self._make: Callable[[], Coroutine[Any, Any, T]] | None = make
        self._coroutine: Coroutine[Any, Any, T] | None = None
        self._name = name
        self._output = output
        self._place = place

    def __await__(self) -> Generator[Any, Any, T]:
        """Run it."""
        if self._make is None:
            raise RuntimeError(f"{self._name}(…) has been awaited already: call it again")
        return self._started().__await__()

    def send(self, value: Any) -> Any:
        """See `Coroutine.send`."""
        return self._started().send(value)

    def throw(self, *exception: Any) -> Any:
        """See `Coroutine.throw`."""
        return self._started().throw(*exception)

    def close(self) -> None:
        """End it, without a warning."""
        self._started().close()

    def _started(self) -> Coroutine[Any, Any, T]:
        if self._coroutine is None:
            assert self._make is not None, "it is made once"
            self._coroutine, self._make = self._make(), None
        return self._coroutine

    def __getattr__(self, attribute: str) -> NoReturn:
        """Say what is missing."""
        written = f"write (await {self._name}(…)).{attribute}"
        raise AttributeError(f"{self._name}(…) has no {attribute!r} before it is awaited: {written}")

    def __bool__(self) -> bool:
        """Refuse to be a condition."""
        written = f"write await {self._name}(…)"
        raise TypeError(f"{self._name}(…) is neither true nor false before it is awaited: {written}")

    def __repr__(self) -> str:
        """Return what it is."""
        return f"<{self._name}(…) without await>"

    def __del__(self) -> None:
        """Warn."""
        if self._make is not None:
            text = f"{self._name}(…) without await does nothing: write await {self._name}(…)"
            self._output.warn_once(self._place, text)


def pending(name: str) -> Callable[[F], F]:
    """Make an `async` method, of an object with an `_output`, return a `Pending`; `name` is what authors call it."""

    def decorate(method: F) -> F:
        @functools.wraps(method)
        def call(self: Any, /, *args: Any, **kwargs: Any) -> Pending[Any]:
            frame = sys._getframe(1)
            place = Place(frame.f_code.co_filename, frame.f_lineno)
            return Pending(functools.partial(method, self, *args, **kwargs), name, self._output, place)

        return call  # type: ignore[return-value]  # awaited as before

    return decorate


def has_not_run(result: Any) -> bool:
    """Tell whether what a plain function returned still has to be run; it is ended then, as nobody will."""
    if isinstance(result, Pending | CoroutineType | GeneratorType):
        result.close()
        return True
    return isinstance(result, AsyncGeneratorType)
