"""Portals: a trio run in a thread of its own, for tests that are plain functions.

Responsible for: calling async functions in that run and waiting for them, threads kept for the next test.
Not responsible for: what is called (`running`), time (`clock`).

A call returns when nothing is left to do in the run: until the next call nothing changes there, so what it holds may be
looked at from the test's thread meanwhile. Such a run and the one of an async test never meet.
"""

import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple, Unpack

import trio
import trio.testing

from stdb.testing.clock import VirtualClock

__all__ = ["Portal", "borrow"]

Args = TypeVarTuple("Args")
Result = TypeVar("Result")
OLD_US = 10 * 24 * 3600 * 1_000_000


class Portal:
    """A trio run in virtual time."""

    def __init__(self) -> None:
        self._clock = VirtualClock()
        self._ready = threading.Event()
        self._token: trio.lowlevel.TrioToken
        self._end: trio.Event
        self._thread = threading.Thread(target=self._run, name="stdb.testing", daemon=True)
        self._thread.start()
        self._ready.wait()

    def call(self, function: Callable[[Unpack[Args]], Awaitable[Result]], *args: *Args) -> Result:
        """Run an async function and return what it returns, or raise what it raises, once all else has settled."""
        return trio.from_thread.run(self._call, function, args, trio_token=self._token)

    def give_back(self) -> None:
        """Keep the run for somebody else; nothing of this use of it is running any more.

        One whose time has come far ends: the later it is, the coarser are the floats that trio counts it in.
        """
        if self._clock.micros < OLD_US:
            _IDLE.append(self)
        else:
            self._token.run_sync_soon(self._end.set)

    async def _call(self, function: Callable[[Unpack[Args]], Awaitable[Result]], args: tuple[*Args]) -> Result:
        try:
            return await function(*args)
        finally:
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()

    def _run(self) -> None:
        trio.run(self._live, clock=self._clock)

    async def _live(self) -> None:
        self._token, self._end = trio.lowlevel.current_trio_token(), trio.Event()
        self._ready.set()
        await self._end.wait()


_IDLE: list[Portal] = []


def borrow() -> Portal:
    """Return a portal that nobody else uses until it is given back."""
    try:
        return _IDLE.pop()
    except IndexError:
        return Portal()
