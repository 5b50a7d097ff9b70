"""Timers against a plain model: every due row runs exactly once, in due order, whatever happens meanwhile.

Time is virtual. What clients do happens at whole multiples of 10 ms and nothing is due then, so that there is one right
order; rows that are due at the same time run in the order in which they were armed.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.actors.handle import DatabaseHandle
from stdb.actors.sink import Client
from stdb.sats import bsatn
from stdb.testing.hosts import TestClient, identity, open_host, virtual_now_us
from stdb.testing.modules import Context, FunctionModule
from stdb.testing.storage import MemoryStorage
from tests.actors_timers import TICK, Time, at, every, tick, timers

OWNER = identity(99)
MS = 1_000
STEP_US = 10 * MS
OFFSET_US = 3 * MS
"""Rows that are due once are due so long after a step."""
PHASE_US = 70
"""Intervals are so much longer than some steps: none ends with a step within 142 of them."""
ROW = bsatn.codec(TICK.row_type)
IDS = st.integers(1, 4)
STEPS = st.integers(0, 12)


def words() -> st.SearchStrategy[str]:
    """What the reducer of a row does to it or to others."""
    moves = st.builds(lambda steps: f"again {steps * STEP_US}", st.integers(-3, 5))
    touches = st.builds(lambda other, steps: f"touch {other} {steps * STEP_US}", IDS, st.integers(-3, 5))
    return st.sampled_from(["plain", "fail", "fault", "delete", "replace"]) | moves | touches


def times() -> st.SearchStrategy[tuple[str, int]]:
    return st.tuples(st.just("at"), st.integers(-5, 12)) | st.tuples(st.just("every"), st.integers(1, 6))


ACTIONS = st.one_of(
    st.tuples(st.sampled_from(["schedule", "schedule", "schedule_and_fail"]), IDS, times(), words()),
    st.tuples(st.sampled_from(["unschedule", "sql delete", "sql update"]), IDS),
    st.tuples(st.sampled_from(["restart", "crash"]), STEPS),
)
SCRIPTS = st.lists(st.tuples(STEPS, ACTIONS), min_size=1, max_size=12)


class Model:
    """What should happen: every row with when it is due and in which order it was armed."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[Time, str]] = {}
        self.due: dict[int, tuple[int, int]] = {}
        self.ran: list[tuple[int, str]] = []
        self.armed = 0

    def arm(self, scheduled_id: int, due_us: int) -> None:
        self.armed += 1
        self.due[scheduled_id] = due_us, self.armed

    def put(self, scheduled_id: int, when: Time, what: str, now_us: int) -> None:
        if self.rows.get(scheduled_id) != (when, what):
            self.rows[scheduled_id] = when, what
            self.arm(scheduled_id, when[1] if when[0] == 1 else now_us + when[1])

    def take(self, scheduled_id: int) -> None:
        self.rows.pop(scheduled_id, None)
        self.due.pop(scheduled_id, None)

    def launch(self, now_us: int) -> None:
        rows, self.rows = self.rows, {}
        for scheduled_id in sorted(rows):
            self.put(scheduled_id, *rows[scheduled_id], now_us)

    def run(self, now_us: int) -> None:
        """Run what is due by now."""
        while due := min(
            ((due, scheduled_id) for scheduled_id, due in self.due.items() if due[0] <= now_us), default=None
        ):
            (due_us, _), scheduled_id = due
            self.fire(scheduled_id, due_us, now_us)

    def fire(self, scheduled_id: int, due_us: int, now_us: int) -> None:
        when, what = row = self.rows[scheduled_id]
        del self.due[scheduled_id]
        self.ran.append((scheduled_id, what))
        word, *rest = what.split()
        if word == "again":
            self.put(scheduled_id, at(when[1] + int(rest[0])), f"moved {what}", now_us)
        elif word == "touch":
            self.put(int(rest[0]), at(when[1] + int(rest[1])), f"touched {what}", now_us)
        if self.rows[scheduled_id] == row:
            if when[0] == 1 or word == "delete":
                self.take(scheduled_id)
            elif scheduled_id not in self.due:
                self.arm(scheduled_id, due_us + when[1])


class Play:
    """One script, played to a database and to the model."""

    def __init__(self) -> None:
        self.model = Model()
        self.storage = MemoryStorage()
        self.attempts: list[tuple[int, str]] = []
        self.serial = 0
        self.handle: DatabaseHandle
        self.ann: TestClient

    def module(self) -> FunctionModule:
        def noted(ctx: Context, timer: tuple[int, Time, str]) -> None:
            self.attempts.append((timer[0], timer[2]))
            tick(ctx, timer)

        return timers(run=noted)

    @asynccontextmanager
    async def life(self) -> AsyncIterator[None]:
        async with open_host({b"timers": self.module}, self.storage) as host:
            if not host.databases():
                await host.publish(OWNER, b"timers")
            (self.handle,) = host.databases()
            await self.handle.ready()
            self.ann = TestClient(self.handle, OWNER)
            await self.ann.sink.next()
            yield

    async def play(self, script: list[tuple[int, tuple[object, ...]]]) -> None:
        step, left = 0, list(script)
        while left:
            is_crash = False
            with trio.CancelScope() as scope:
                async with self.life():
                    self.model.launch(virtual_now_us())
                    while left:
                        pause, action = left.pop(0)
                        step += pause
                        await self.sleep_to(step)
                        if action[0] in ("restart", "crash"):
                            is_crash = action[0] == "crash"
                            break
                        await self.act(action)
                    else:
                        step += 100
                        await self.sleep_to(step)
                        await self.check_rows()
                    if is_crash:
                        scope.cancel()
                        await trio.lowlevel.checkpoint()
            if is_crash:
                for log in self.storage.logs.values():
                    log.crash()
            if left:
                step += int(str(action[1]))
                await trio.sleep_until(step * STEP_US / 1e6)

    async def sleep_to(self, step: int) -> None:
        await trio.sleep_until(step * STEP_US / 1e6)
        for _ in range(20):  # what is due by now has a few turns to run
            await trio.lowlevel.checkpoint()
        self.model.run(virtual_now_us())
        assert self.attempts == self.model.ran

    async def act(self, action: tuple[object, ...]) -> None:
        now_us = virtual_now_us()
        match action:
            case "schedule" | "schedule_and_fail" as name, int(scheduled_id), (kind, int(steps)), str(word):
                self.serial += 1
                what = f"{word} {self.serial}"
                when = at(now_us + steps * STEP_US + OFFSET_US) if kind == "at" else every(steps * STEP_US + PHASE_US)
                if when[0] == 0 and word.startswith(("again", "touch")):
                    what = f"plain {self.serial}"
                await self.ann.call(name, ROW.encode((scheduled_id, when, what)))
                if name == "schedule":
                    self.model.put(scheduled_id, when, what, now_us)
            case "unschedule", int(scheduled_id):
                await self.ann.call("unschedule", scheduled_id.to_bytes(8, "little"))
                self.model.take(scheduled_id)
            case "sql delete", int(scheduled_id):
                await self.sql(f"DELETE FROM tick WHERE scheduled_id = {scheduled_id}")
                self.model.take(scheduled_id)
            case "sql update", int(scheduled_id):
                self.serial += 1
                await self.sql(f"UPDATE tick SET what = 'plain {self.serial}' WHERE scheduled_id = {scheduled_id}")
                if scheduled_id in self.model.rows:
                    self.model.put(scheduled_id, self.model.rows[scheduled_id][0], f"plain {self.serial}", now_us)

    async def sql(self, text: str) -> list[tuple[object, ...]]:
        return (await self.handle.sql(Client(OWNER, bytes(16), ""), text)).rows

    async def check_rows(self) -> None:
        rows = {row[0]: (row[1], row[2]) for row in await self.sql("SELECT * FROM tick")}
        assert rows == self.model.rows
        ran = [(row[1], row[2]) for row in sorted(await self.sql("SELECT * FROM ran"))]  # type: ignore[type-var]
        assert ran == [each for each in self.model.ran if not each[1].startswith(("fail", "fault"))]


@settings(max_examples=120, deadline=None)
@given(SCRIPTS)
def test_every_due_row_runs_once_in_due_order(script: list[tuple[int, tuple[object, ...]]]) -> None:
    trio.run(Play().play, script, clock=trio.testing.MockClock(autojump_threshold=0))
