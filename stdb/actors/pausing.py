"""Pausing: long evaluations, driven in slices between which other databases and connections run.

Responsible for: how long a slice is, taking turns, giving up an evaluation that nobody waits for any more.
Not responsible for: what is evaluated (`queries`, `statements`), what happens between two slices (`database`).

While an evaluation is suspended nothing else of its database is served: the tables it reads cannot change, and a
transaction it has open stays the only one.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Generic, NamedTuple, TypeVar

import trio

from stdb.errors import RequestError
from stdb.sql.work import Steps

__all__ = ["SLICE_SECONDS", "Done", "UnwantedError", "run_slice", "take_turn", "while_wanted"]

SLICE_SECONDS = 0.0025
"""An evaluation that takes longer lets others run. It looks at the clock once per batch of rows only, so that a slice
may take twice as long; with it a client of another database has its answer within 10 ms."""

Result = TypeVar("Result")


class Done(NamedTuple, Generic[Result]):
    """An evaluation that is through, and what it returned."""

    result: Result


class UnwantedError(RequestError):
    """Whoever asked is gone: the rest is not evaluated."""


def run_slice(steps: Steps[Result]) -> Done[Result] | None:
    """Go on with an evaluation for SLICE_SECONDS; None when it is not through by then."""
    stop_at = perf_counter() + SLICE_SECONDS
    try:
        while True:
            next(steps)
            if perf_counter() >= stop_at:
                return None
    except StopIteration as end:
        return Done(end.value)


def while_wanted(steps: Steps[Result], is_wanted: Callable[[], bool]) -> Steps[Result]:
    """Do as `steps` for as long as somebody wants the result.

    Raises:
        UnwantedError: Nobody does. Only for what changes nothing, or is rolled back.
    """
    try:
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: Result = end.value
                return result
            yield
            if not is_wanted():
                raise UnwantedError("nobody waits for the result any more")
    finally:
        steps.close()


async def take_turn(turns: trio.Lock) -> None:
    """Let others run, and return when it is the turn of whoever asks: one at a time between two runs of all others.

    So many evaluations that are half-way hold up the others no longer than one of them.
    """
    async with turns:
        pass
