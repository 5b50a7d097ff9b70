"""Supervision: keeps one database running, or says why it does not.

Responsible for: launching on demand, restarting after a bug with growing pauses, giving up, ending for good.
Not responsible for: how a database is launched (`launching`), which databases there are (`host`).

DESIGN decision 13: a bug ends one DatabaseActor; its clients get Close 1011 `database restarting`, the traceback goes
to the server log once, and it is recovered from its file after 0.1 s, doubling to 30 s. After five failures in five
minutes, or at once when its log or its program cannot be loaded, it stays down until `revive` is called.
"""

import logging
import re
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from enum import Enum

import trio

from stdb.actors.connections import MODULE_EXITED
from stdb.actors.database import DatabaseActor
from stdb.actors.refusals import DatabaseUnavailable, PublishFailed, UpdateRejected
from stdb.errors import ModuleFault, SchemaError, StorageError

__all__ = ["Launch", "Supervisor", "without_directories"]

Launch = Callable[[], AbstractAsyncContextManager[DatabaseActor]]
"""Recovers a database and holds what it needs (its log) open."""

PAUSE_SECONDS_FIRST = 0.1
PAUSE_SECONDS_MAX = 30.0
FAILURES_MAX = 5
FAILURES_SECONDS = 300.0
RESTARTING = (1011, "database restarting")
STOPPED = (1011, "database stopped")

_logger = logging.getLogger("stdb.databases")


class _State(Enum):
    IDLE = "not launched yet"
    LAUNCHING = "launching"
    RUNNING = "running"
    PAUSED = "restarting"
    DOWN = "down"
    ENDED = "ended"


class Supervisor:
    """The life of one database; `run` is its task."""

    def __init__(self, name: str, launch: Launch) -> None:
        self._name = name
        self._launch = launch
        self._state = _State.IDLE
        self._changed = trio.Event()
        self._wanted = trio.Event()
        self._scope: trio.CancelScope | None = None
        self._failures: deque[float] = deque()
        self._pause_seconds = PAUSE_SECONDS_FIRST
        self.actor: DatabaseActor | None = None
        """The running actor, or None."""
        self._is_ending = False
        self._launch_once: Launch | None = None
        self._is_program_broken = False
        self.reason = ""
        """Why the database is down."""

    # ------------------------------------------------------------------ asking
    def running_actor(self) -> DatabaseActor:
        """Return the running actor. Raises DatabaseUnavailable."""
        if self.actor is None:
            raise self._unavailable()
        return self.actor

    async def ready(self) -> None:
        """Return once the database runs, launching it if nobody did. Raises DatabaseUnavailable."""
        self._wanted.set()
        while self.actor is None:
            if self._state not in (_State.IDLE, _State.LAUNCHING):
                raise self._unavailable()
            await self._changed.wait()

    async def settle(self) -> None:
        """Launch the database if nobody did; return once it runs or is known not to."""
        self._wanted.set()
        while self._state in (_State.IDLE, _State.LAUNCHING):
            await self._changed.wait()

    async def revive(self, launch_once: Launch | None = None) -> None:
        """Launch a database that is down, at once, with its failures forgotten; return once it runs.

        `launch_once` takes the place of the usual launch this time.

        Raises:
            DatabaseUnavailable: It still does not run.
        """
        if self._state in (_State.DOWN, _State.PAUSED):
            self._failures.clear()
            self._pause_seconds = PAUSE_SECONDS_FIRST
            self._launch_once = launch_once
            self._set(_State.IDLE)
        await self.ready()

    async def revive_unless_broken(self) -> bool:
        """Do as `revive`; False when the database stays down because its own program does not load.

        Raises:
            DatabaseUnavailable: It does not run for another reason.
        """
        try:
            await self.revive()
        except DatabaseUnavailable:
            if not self._is_program_broken:
                raise
            return False
        return True

    # ------------------------------------------------------------------ ending
    async def shutdown(self) -> None:
        """End cleanly: every client disconnected, everything durable; return once the database is closed."""
        self._is_ending = True
        if self.actor is not None:
            try:
                await self.actor.shutdown()
            except DatabaseUnavailable:  # it died on the way; its supervisor said why
                self.end_nowait()
        else:
            self.end_nowait()
        await self.wait_ended()

    def end_nowait(self) -> None:
        """End at once: clients are closed with 1001, nothing more is run. For deletion and reset."""
        self._is_ending = True
        if self.actor is not None:
            self.actor.bury(*MODULE_EXITED)
        if self._scope is not None:
            self._scope.cancel()
        else:
            self._set(_State.ENDED)

    async def wait_ended(self) -> None:
        """Return once the database is closed for good."""
        while self._state is not _State.ENDED:
            await self._changed.wait()

    # ------------------------------------------------------------------ the task
    async def run(self) -> None:
        """Keep the database running until it is ended."""
        if self._state is _State.ENDED:
            return
        with trio.CancelScope() as self._scope:
            try:
                await self._live()
            finally:
                if self.actor is not None:
                    self.actor.bury(*MODULE_EXITED)
                    self.actor = None
                self._set(_State.ENDED)

    async def _live(self) -> None:
        while not self._is_ending:
            await self._wait_wanted()
            self._set(_State.LAUNCHING)
            launch, self._launch_once = self._launch_once or self._launch, None
            self._is_program_broken = False
            try:
                async with launch() as actor:
                    self.actor = actor
                    self._set(_State.RUNNING)
                    await _serve(actor)
                    return
            except StorageError as error:
                _logger.error("database %s is stopped: %s", self._name, error)
                self._go_down(str(error), STOPPED)
            except (UpdateRejected, PublishFailed) as error:
                self._is_program_broken = True
                self._go_down(f"its program does not load, and the new one: {error}", STOPPED)
            except (SchemaError, ModuleFault) as error:
                self._is_program_broken = True
                _logger.error("database %s is stopped, its program does not load: %s", self._name, error)
                self._go_down(f"its program does not load: {error}", STOPPED)
            except Exception as error:
                _logger.error("database %s failed", self._name, exc_info=error)
                if not self._may_restart():
                    self._go_down(f"it failed {FAILURES_MAX} times in a row, last with {error!r}", STOPPED)
                else:
                    self._bury(RESTARTING)
                    await self._pause()

    async def _wait_wanted(self) -> None:
        while self._state is _State.DOWN:
            await self._changed.wait()
        if self._state is _State.IDLE:
            await self._wanted.wait()

    def _may_restart(self) -> bool:
        """Count a failure; tell whether there were few enough of late."""
        now = trio.current_time()
        self._failures.append(now)
        while now - self._failures[0] > FAILURES_SECONDS:
            self._failures.popleft()
        if len(self._failures) == 1:
            self._pause_seconds = PAUSE_SECONDS_FIRST
        return len(self._failures) < FAILURES_MAX

    async def _pause(self) -> None:
        """Wait before the next launch; `revive` cuts it short."""
        seconds = self._pause_seconds
        self._pause_seconds = min(seconds * 2, PAUSE_SECONDS_MAX)
        self._set(_State.PAUSED)
        with trio.move_on_after(seconds):
            while self._state is _State.PAUSED:
                await self._changed.wait()

    def _go_down(self, reason: str, close: tuple[int, str]) -> None:
        self.reason = without_directories(reason)
        self._bury(close)
        self._set(_State.DOWN)

    def _bury(self, close: tuple[int, str]) -> None:
        if self.actor is not None:
            self.actor.bury(*close)
            self.actor = None

    def _set(self, state: _State) -> None:
        self._state = state
        self._changed.set()
        self._changed = trio.Event()

    def _unavailable(self) -> DatabaseUnavailable:
        if self._state is _State.DOWN:
            return DatabaseUnavailable(
                f"the database is down: {self.reason}; `python -m stdb restart {self._name}` or a publish revives it"
            )
        return DatabaseUnavailable(f"the database is {self._state.value}")


async def _serve(actor: DatabaseActor) -> None:
    """Run a database, and beside it what wakes it, until it ends or one of them fails."""
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.scheduler.run)
        nursery.start_soon(actor.procedures.run)
        try:
            await actor.run()
        except Exception as error:  # noqa: BLE001 - raised below, as it is and not in a group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def without_directories(reason: str) -> str:
    """Return a reason as anybody may read it: where the server keeps its files is told in its log alone."""
    return re.sub(r"\S*/(?=[0-9a-f]{64}\.sqlite)", "", reason)
