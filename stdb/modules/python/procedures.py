"""Procedures: functions that may wait, and make transactions of their own.

Responsible for: the decorator `procedure`, the context `ProcedureContext`.
Not responsible for: checking signatures (`signatures`), running (`entries`, `steps`), waiting (`ProcedureHost`).

Source: spec 08, "Functions".
"""

import datetime
import inspect
from collections.abc import Callable, Coroutine
from random import Random
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from stdb.errors import ReducerTimeout
from stdb.modules.python.context import MAKERS, WAITS, ReducerContext
from stdb.modules.python.declarations import ProcedureDeclaration, caller_place, function_place, register, report
from stdb.modules.python.environment import Variables
from stdb.modules.python.http import HttpClient
from stdb.modules.python.pending import has_not_run, pending
from stdb.sats.special import Address, Identity, TimeDuration, Timestamp

if TYPE_CHECKING:
    from stdb.modules.protocol import ProcedureHost, ReducerCall
    from stdb.modules.python.context import Circumstances
    from stdb.modules.python.entries import Bound

__all__ = ["ProcedureContext", "Waiting", "procedure"]

F = TypeVar("F", bound=Callable[Concatenate["ProcedureContext", ...], Coroutine[Any, Any, Any]])
P = ParamSpec("P")
T = TypeVar("T")


class Waiting:
    """What everything that may wait can do: make transactions, sleep, ask other servers."""

    http: HttpClient
    """Asks other servers: `await ctx.http.get(url)`."""
    timestamp: Timestamp
    """When the call began."""
    database_identity: Identity
    """Which database this is."""
    rng: Random
    """Random numbers that depend on the time and the caller of this call."""

    env: Variables
    """The module's environment variables."""

    def __init__(self, bound: "Bound", call: "Circumstances", host: "ProcedureHost") -> None:
        self._bound = bound
        self._call = call
        self._around = bound.around
        self._host = host
        self._output = bound.output

    @pending("ctx.transact")
    async def transact(
        self, function: Callable[Concatenate[ReducerContext, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a plain function as one transaction in the database's own turn; return its result once committed.

        Whatever it raises rolls the transaction back and comes out of the `await`.

        Raises:
            ReducerTimeout: It ran longer than a reducer may.
        """
        if not callable(function) or inspect.iscoroutinefunction(function):
            text = "transact() takes a plain function, written with def, as there is no waiting inside"
            raise TypeError(f"{text}, got {function!r}")
        bound, mine = self._bound, self._bound.output.function

        def run(call: "ReducerCall") -> T:
            bound.output.function = getattr(function, "__name__", None)
            result = function(ReducerContext(bound.database, call, bound.around), *args, **kwargs)
            if has_not_run(result):
                name = getattr(function, "__name__", repr(function))
                no_waiting = "which never ran: there is no waiting inside a transaction"
                raise TypeError(f"transact(): {name} returned {result!r}, {no_waiting}")
            if call.transaction.expired:
                raise ReducerTimeout("the time limit of this transaction has passed")
            return result

        try:
            return await self._host.transact(run)
        finally:
            bound.output.function = mine

    @pending("ctx.sleep")
    async def sleep(self, duration: "float | TimeDuration | datetime.timedelta") -> None:
        """Wait for a number of seconds or a span of time; not at all for none or less."""
        await self._host.sleep(_seconds(duration))

    def now(self) -> Timestamp:
        """Return the time; `timestamp` is when the call began."""
        return Timestamp(self._host.now_us())


class ProcedureContext(Waiting):
    """Who called and when, transactions, waiting. Valid during the call."""

    sender: Identity
    """Who called."""
    address: Address | None
    """Which connection the call came over; None when it came over none."""
    connection_id: Address | None
    """The same as `address`."""
    sender_auth: dict[str, Any]
    """The claims of the caller's token; empty when the call came with none."""

    if not TYPE_CHECKING:  # a type checker would believe that every attribute exists

        def __getattr__(self, name: str) -> Any:
            """Make an attribute that was not read before."""
            return made_attribute(self, name, "a procedure's context", tuple(MAKERS))


def made_attribute(ctx: Any, name: str, what: str, known: tuple[str, ...]) -> Any:
    """Make an attribute of a context that was not read before.

    Raises:
        AttributeError: There is no such attribute.
    """
    if name == "http":
        value: Any = HttpClient(ctx._host, ctx._output)
    elif name in known:
        value = MAKERS[name](ctx)
    elif name == "db":
        raise AttributeError(f"{what} has no db: tables change in transactions alone; use await ctx.transact(function)")
    else:
        others = ", ".join((*WAITS, *known))
        raise AttributeError(f"{what} has no attribute {name!r}; it has {others}")
    setattr(ctx, name, value)
    return value


def _seconds(duration: "float | TimeDuration | datetime.timedelta") -> float:
    if isinstance(duration, TimeDuration):
        return duration.micros / 1_000_000
    if isinstance(duration, datetime.timedelta):
        return duration.total_seconds()
    if isinstance(duration, bool) or not isinstance(duration, int | float) or duration != duration:
        raise TypeError(f"sleep() takes seconds, a TimeDuration or a timedelta, got {duration!r}")
    return float(duration)


@overload
def procedure(function: F, /) -> F: ...
@overload
def procedure(
    *, name: str | None = None, private: bool = False, scheduled: type[Any] | None = None
) -> Callable[[F], F]: ...
def procedure(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    private: bool = False,
    scheduled: type[Any] | None = None,
) -> Any:
    """Let clients call an `async def` function that may wait and returns a value to its caller.

    It is called under its own name or `name`; a `private` one by the owner only. With `scheduled` rows of that table
    call it, each when it is due: `async def tick(ctx: ProcedureContext, timer: Tick) -> None`.
    """
    place = caller_place()

    def declare(function: F) -> F:
        if not hasattr(function, "__code__"):
            report(place, f"a procedure is a function written with async def, got {function!r}")
            return function
        register(
            ProcedureDeclaration(
                function,
                function.__name__ if name is None else name,
                private or scheduled is not None,
                function.__module__,
                function_place(function),
                scheduled,
            )
        )
        return function

    return declare if function is None else declare(function)
