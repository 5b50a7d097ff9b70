"""Virtual time: a clock that stands still until it is told to go on, in whole microseconds.

Responsible for: `VirtualClock`, a trio clock; running what is due on the way to a later time; times under other clocks.
Not responsible for: what is due (`stdb.actors.scheduler`, procedures that sleep).

A run under a VirtualClock never waits for time: everything that can run runs, then time jumps from one deadline to the
next, so the order of events is the same every time. Deadlines are floats; time as databases see it is an integer, the
nearest to the deadline that was jumped to.
"""

import math
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio
import trio.testing

from stdb.errors import StdbError

__all__ = ["START_US", "Time", "TrioTime", "VirtualClock", "VirtualTime", "time_of_this_run"]

START_US = 1_735_689_600_000_000
"""When virtual time begins unless a test says otherwise: 2025-01-01 00:00 UTC."""
_FOR_EVER = 1e9


class VirtualClock(trio.abc.Clock):
    """A clock for `trio.run(…, clock=VirtualClock())` that only tests move."""

    def __init__(self) -> None:
        self.micros = 0
        """Microseconds since the run began."""
        self._seconds = 0.0

    def start_clock(self) -> None:
        """Do nothing: it stands still."""

    def current_time(self) -> float:
        """Return the seconds since the run began."""
        return self._seconds

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Return 0 for what is due, and for everything else a time that nobody waits for."""
        return 0 if deadline <= self._seconds else _FOR_EVER

    def set(self, micros: int, seconds: float | None = None) -> None:
        """Move forward to a time; `seconds` is the deadline that it is the nearest microsecond of."""
        self.micros = max(self.micros, micros)
        self._seconds = max(self._seconds, self.micros / 1e6 if seconds is None else seconds)


class Time(Protocol):
    """The time of one host under test."""

    def now_us(self) -> int:
        """Return the time in microseconds since 1970."""

    def tick(self) -> None:
        """Let the shortest time pass that there is, where time can be moved: no two calls begin at the same time."""

    async def advance(self, micros: int) -> None:
        """Let time pass, and run what is due on the way; return when there is nothing left to do."""

    async def until(self, is_done: Callable[[], bool], wait_change: Callable[[], Awaitable[None]]) -> None:
        """Let time pass until something is done, which may be so whenever `wait_change` returns.

        Raises:
            StdbError: Nothing is due any more, and it is not done.
        """


class VirtualTime:
    """The time of one host under a VirtualClock."""

    def __init__(self, clock: VirtualClock, start_us: int) -> None:
        self._clock = clock
        self._start_us = start_us - clock.micros

    def now_us(self) -> int:
        """Return the time in microseconds since 1970."""
        return self._start_us + self._clock.micros

    def tick(self) -> None:
        """Let a microsecond pass; what becomes due by it runs with whatever is done next."""
        self._clock.set(self._clock.micros + 1)

    async def advance(self, micros: int) -> None:
        """Let time pass; see `Time`."""
        if micros < 0:
            raise ValueError(f"time goes forward only, not by {micros} µs")
        end = self._clock.micros + micros
        await trio.testing.wait_all_tasks_blocked()
        while await self._jump(end):
            pass
        self._clock.set(end)
        await trio.testing.wait_all_tasks_blocked()

    async def until(self, is_done: Callable[[], bool], wait_change: Callable[[], Awaitable[None]]) -> None:
        """Let time pass until something is done; see `Time`."""
        await trio.testing.wait_all_tasks_blocked()
        while not is_done():
            if not await self._jump(None):
                raise StdbError("this waits for something that never happens: nothing is due any more")

    async def _jump(self, end: int | None) -> bool:
        """Move to the next deadline and run what is due then; tell whether there was one up to `end`."""
        wait = trio.lowlevel.current_statistics().seconds_to_next_deadline
        if math.isinf(wait):
            return False
        deadline = math.nextafter(self._clock.current_time() + max(wait, 0.0), math.inf)
        micros = round(deadline * 1e6)
        if end is not None and micros > end:
            return False
        self._clock.set(micros, deadline)
        await trio.testing.wait_all_tasks_blocked()
        return True


class TrioTime:
    """The time of one host under any other clock: it passes by itself, or as that clock is made to."""

    def __init__(self, start_us: int) -> None:
        self._start_us = start_us - round(trio.current_time() * 1e6)

    def now_us(self) -> int:
        """Return the time in microseconds since 1970."""
        return self._start_us + round(trio.current_time() * 1e6)

    def tick(self) -> None:
        """Do nothing: this clock is somebody else's."""

    async def advance(self, micros: int) -> None:
        """Sleep, a little longer than asked for so that what is due at the end has run; see `Time`."""
        await trio.sleep((micros + 1) / 1e6)
        await trio.testing.wait_all_tasks_blocked()

    async def until(self, is_done: Callable[[], bool], wait_change: Callable[[], Awaitable[None]]) -> None:
        """Wait until something is done, however long that takes; see `Time`."""
        while not is_done():
            await wait_change()


def time_of_this_run(start_us: int) -> Time:
    """Return the time of a host that begins now, under the clock of the running trio."""
    clock = trio.lowlevel.current_clock()
    return VirtualTime(clock, start_us) if isinstance(clock, VirtualClock) else TrioTime(start_us)
