"""Deadline: stops a Python reducer that runs too long without breaking the tables it was writing.

Responsible for: the time limit of one reducer or import (`SignalDeadline`), of the whole event loop (`LoopWatch`).
Not responsible for: rolling back (`database`), WASM fuel (`modules.wasm`).

A timer signal interrupts the main thread between two bytecodes. Its handler looks at the interrupted stack: code of
the module on top means that raising there is safe; code of stdb on top (a table or an index may be half changed, a
codec half made) means that only `transaction.expired` is set, which every access of the module checks. Until the
reducer has ended the signal comes back. Threads' asynchronous exceptions are no alternative: they corrupted tables in
159 of 300 trials (DESIGN decision 10).
"""

import faulthandler
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter
from types import FrameType
from typing import TYPE_CHECKING, Protocol

import trio

from stdb.errors import ReducerTimeout

if TYPE_CHECKING:
    from stdb.modules.protocol import Expiry

__all__ = [
    "LOAD_SECONDS_MAX",
    "LOOP_SECONDS_MAX",
    "Deadline",
    "LoopWatch",
    "NoDeadline",
    "SignalDeadline",
    "open_deadline",
]

LOOP_SECONDS_MAX = 30.0
"""How long the event loop may stand still before the server logs where and stops."""
LOAD_SECONDS_MAX = 10.0
"""How long a module may take to be imported, libraries included; everything else stands still meanwhile."""

_RETRY_SECONDS = 0.001
_GENERATED = "<generated>"
_OURS = ("stdb.", _GENERATED)
"""Code that may be half-way through a change; functions made from generated source belong to no Python module."""
_OWNERS = ("stdb.actors", "stdb.modules.views")
"""What runs a module's code and is ready for its end; what stands further down is left in peace, as is a commit."""
MODULE_PREFIX = "_stdb_modules."
"""What the name of every module's Python module begins with (spec 08, Publishing and loading)."""


class Deadline(Protocol):
    """The time limit of reducers; the actor sets `started` and `transaction` before each, clears the latter after."""

    transaction: "Expiry | None"
    """What the running reducer writes through; None between reducers."""
    started: float
    """When it began, by `time.perf_counter`."""

    def arm(self) -> None:
        """Begin a turn of reducers."""

    def disarm(self) -> None:
        """End the turn."""

    def loading(self) -> AbstractContextManager[None]:
        """Stop the import of a module inside the block after LOAD_SECONDS_MAX; not within a turn."""

    def limiting(self, expiry: "Expiry", what: str) -> AbstractContextManager[None]:
        """Stop code of a module inside the block, which is `what`, after the time limit of reducers, its own.

        Within a turn or not; of one block within another only the inner one is timed.
        """


class NoDeadline:
    """No time limit: for tests, and for servers outside the main thread."""

    def __init__(self) -> None:
        self.transaction: Expiry | None = None
        self.started = 0.0

    def arm(self) -> None:
        """Do nothing."""

    def disarm(self) -> None:
        """Do nothing."""

    def loading(self) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()

    def limiting(self, expiry: "Expiry", what: str) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()


class _Import:
    """What stands for a transaction while a module is imported."""

    def __init__(self) -> None:
        self.expired = False


class SignalDeadline:
    """A time limit by SIGALRM; use `open_deadline`. All databases of a process share one: only one runs at a time."""

    def __init__(self, seconds_max: float, is_module_frame: Callable[[FrameType], bool] | None = None) -> None:
        self.seconds_max = seconds_max
        self.transaction: Expiry | None = None
        self.started = 0.0
        self._running = "the reducer"
        self._is_module_frame = is_module_frame or _is_module_frame
        self._is_armed = False

    def arm(self) -> None:
        """Begin a turn: one timer for all its reducers."""
        self._is_armed = True
        signal.setitimer(signal.ITIMER_REAL, self.seconds_max)

    def disarm(self) -> None:
        """End the turn."""
        self._is_armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Stop the import of a module inside the block after LOAD_SECONDS_MAX."""
        usual = self.seconds_max, self._running
        self.seconds_max, self._running = LOAD_SECONDS_MAX, "the import"
        self.started, self.transaction = perf_counter(), _Import()
        self.arm()
        try:
            yield
        finally:
            self.transaction = None
            self.disarm()
            self.seconds_max, self._running = usual

    @contextmanager
    def limiting(self, expiry: "Expiry", what: str) -> Iterator[None]:
        """Stop code of a module inside the block after the time limit of reducers."""
        outer = self.transaction, self.started, self._running
        was_armed = self._is_armed
        self._running, self.started, self.transaction = what, perf_counter(), expiry
        if not was_armed:
            self.arm()
        try:
            yield
        finally:
            self.transaction, self.started, self._running = outer
            if not was_armed:
                self.disarm()

    def on_signal(self, _signum: int, frame: FrameType | None) -> None:
        """Stop the running reducer if its time is over; else come back when it will be."""
        if not self._is_armed:
            return
        transaction = self.transaction
        left = self.seconds_max if transaction is None else self.started + self.seconds_max - perf_counter()
        signal.setitimer(signal.ITIMER_REAL, max(left, _RETRY_SECONDS))
        if transaction is None or left > 0:
            return
        transaction.expired = True
        if self._is_safe_to_raise(frame):
            raise ReducerTimeout(f"{self._running} ran longer than {self.seconds_max:g} s and was stopped")

    def _is_safe_to_raise(self, frame: FrameType | None) -> bool:
        """Tell whether the module is on top, and no table further down waits for it to return."""
        is_module_on_top = False
        while frame is not None:
            name: str = frame.f_globals.get("__name__", _GENERATED)
            if name.startswith(_OWNERS):
                return is_module_on_top
            if self._is_module_frame(frame):
                is_module_on_top = True
            elif name.startswith("stdb.datastore") or (not is_module_on_top and name.startswith(_OURS)):
                return False
            frame = frame.f_back
        return is_module_on_top


class LoopWatch:
    """Stops the process when its event loop stands still: a C call in a reducer that nothing can interrupt.

    The watchdog thread is faulthandler's own, written in C, so it runs while the interpreter is held; it writes every
    thread's traceback to stderr and exits with 1, which is as safe as SIGKILL.
    """

    _is_running = False

    def __init__(self, seconds_max: float = LOOP_SECONDS_MAX) -> None:
        self.seconds_max = seconds_max

    @classmethod
    def expect(cls, seconds: float) -> None:
        """Let the loop stand still for so long this time, if a watch runs: for work that is known to be long."""
        if cls._is_running:
            faulthandler.dump_traceback_later(seconds, exit=True)

    async def run(self) -> None:
        """Keep the watchdog quiet for as long as the loop runs; cancel to end."""
        try:
            LoopWatch._is_running = True
            while True:
                faulthandler.dump_traceback_later(self.seconds_max, exit=True)
                await trio.sleep(self.seconds_max / 10)
        finally:
            LoopWatch._is_running = False
            faulthandler.cancel_dump_traceback_later()


@contextmanager
def open_deadline(
    seconds_max: float, is_module_frame: Callable[[FrameType], bool] | None = None
) -> Iterator[SignalDeadline | NoDeadline]:
    """Hold the time limit of this process's reducers; NoDeadline where there are no timer signals to be had."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield NoDeadline()
        return
    deadline = SignalDeadline(seconds_max, is_module_frame)
    previous = signal.signal(signal.SIGALRM, deadline.on_signal)
    try:
        yield deadline
    finally:
        deadline.disarm()
        signal.signal(signal.SIGALRM, previous)


def _is_module_frame(frame: FrameType) -> bool:
    name: str = frame.f_globals.get("__name__", "")
    return name.startswith(MODULE_PREFIX)
