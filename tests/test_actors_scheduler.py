"""Timers: rows of scheduled tables run when they are due, whatever happens to them meanwhile."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from stdb.actors.handle import DatabaseHandle
from stdb.actors.host import Host
from stdb.actors.refusals import NoSuchFunction
from stdb.actors.requests import CallReducer
from stdb.actors.scheduler import ROWS_A_JOB_MAX
from stdb.actors.sink import Client, OutcomeKind
from stdb.modules.protocol import Module, ProcedureCall, ReducerCall
from stdb.sats import bsatn
from stdb.sats.types import SCHEDULE_AT, STRING, U64
from stdb.testing.hosts import EPOCH_US, TestClient, identity, open_host, virtual_now_us
from stdb.testing.modules import Context, FunctionModule, procedure, reducer, table
from stdb.testing.sinks import Result, Updated
from stdb.testing.storage import MemoryStorage
from tests.actors_timers import COLUMNS, TICK, Time, at, every, tick, timers

OWNER = identity(99)
MS = 1_000
SECOND = 1_000_000
ROW = bsatn.codec(TICK.row_type)
Test = Callable[["World"], Awaitable[None]]


class World:
    """One database with timers and its owner, connected."""

    def __init__(self, host: Host, handle: DatabaseHandle) -> None:
        self.host = host
        self.handle = handle
        self.ann = TestClient(handle, OWNER)

    async def schedule(self, when: Time, what: str = "", scheduled_id: int = 0) -> Result:
        result = await self.ann.call("schedule", ROW.encode((scheduled_id, when, what)))
        assert result.outcome.kind == OutcomeKind.COMMITTED, result
        return result

    async def sql(self, text: str) -> list[tuple[object, ...]]:
        client = Client(OWNER, (1).to_bytes(16, "little"), "")
        return (await self.handle.sql(client, text)).rows

    async def ran(self) -> list[tuple[int, str, float]]:
        """Return what ran, in order: scheduled_id, what it said, the seconds since the start of the test."""
        rows = sorted(await self.sql("SELECT n, timer, what, at FROM ran"))
        return [(row[1], row[2], (row[3] - EPOCH_US) / SECOND) for row in rows]  # type: ignore[misc,operator]

    async def waiting(self) -> list[int]:
        """Return the ids of the rows that are there."""
        return sorted(row[0] for row in await self.sql("SELECT scheduled_id FROM tick"))  # type: ignore[type-var]


def now() -> float:
    """Return the seconds since the start of the test."""
    return trio.current_time()


def run(test: Callable[[], Awaitable[None]], clock: trio.testing.MockClock | None = None) -> None:
    async def within() -> None:
        with trio.fail_after(10_000):
            await test()

    trio.run(within, clock=clock or trio.testing.MockClock(autojump_threshold=0))


@asynccontextmanager
async def world(
    storage: MemoryStorage | None = None, programs: Mapping[bytes, Callable[[], Module]] | None = None
) -> AsyncIterator[World]:
    known = programs or {b"timers": timers}
    async with open_host(known, storage) as host:
        databases = host.databases()
        if databases:
            handle = databases[0]
            await handle.ready()
        else:
            published = await host.publish(OWNER, next(iter(known)), name="timers")
            handle = host.database(published.identity)
        yield World(host, handle)


def in_world(test: Test, clock: trio.testing.MockClock | None = None) -> Callable[[], None]:
    def wrapped() -> None:
        async def main() -> None:
            async with world() as its:
                await test(its)

        run(main, clock)

    wrapped.__name__ = test.__name__
    return wrapped


# Rows that are due once


@in_world
async def test_a_row_runs_when_it_is_due_and_is_gone(its: World) -> None:
    start = now()
    await its.schedule(at(virtual_now_us() + 5 * SECOND), "one", 7)
    await trio.sleep(4.9)
    assert await its.ran() == []
    assert await its.waiting() == [7]
    await trio.sleep(0.2)
    assert await its.ran() == [(7, "one", pytest.approx(start + 5, abs=1e-3))]
    assert await its.waiting() == []


@in_world
async def test_rows_run_in_the_order_in_which_they_are_due(its: World) -> None:
    base = virtual_now_us() + SECOND
    for i, later in enumerate((3, 1, 2, 1)):
        await its.schedule(at(base + later), str(later), i + 1)
    await its.schedule(at(-(2**63)), "long ago", 5)
    await trio.sleep(2)
    assert [(each[0], each[1]) for each in await its.ran()] == [
        (5, "long ago"), (2, "1"), (4, "1"), (3, "2"), (1, "3")
    ]  # fmt: skip


@in_world
async def test_subscribers_see_the_reducer_and_the_end_of_its_row_as_one_update(its: World) -> None:
    bob = TestClient(its.handle, 2)
    await bob.subscribe(1, "SELECT * FROM tick", "SELECT * FROM ran")
    due = virtual_now_us() + SECOND
    await its.schedule(at(due), "one", 7)
    await bob.wait_for(Updated, 2)
    await trio.sleep(1)
    _, update = bob.messages(Updated)
    assert isinstance(update, Updated)
    ran, tick = sorted(update.update.sets[0].fragments, key=lambda each: each.table_name)
    assert (len(ran.inserts), len(ran.deletes), tick.inserts, tick.deletes) == (
        1, 0, [], [ROW.encode((7, at(due), "one"))]
    )  # fmt: skip
    event = update.event
    assert event.caller == its.handle.identity
    assert (event.caller_connection_id, event.reducer_name, event.reducer_id) == (None, "tick", 0)
    assert (event.args, event.request_id) == (ROW.encode((7, at(due), "one")), 0)
    assert 0 <= event.timestamp_us - due < 5 * MS


@pytest.mark.parametrize("what", ["fail", "fault"])
def test_after_a_failure_the_row_goes_in_a_transaction_of_its_own(what: str) -> None:
    @in_world
    async def test(its: World) -> None:
        bob = TestClient(its.handle, 2)
        await bob.subscribe(1, "SELECT * FROM tick", "SELECT * FROM ran")
        await its.schedule(at(virtual_now_us() + SECOND), what, 7)
        await trio.sleep(10)
        assert await its.waiting() == []
        assert await its.ran() == []
        _, update = bob.messages(Updated)
        assert isinstance(update, Updated)
        (fragment,) = update.update.sets[0].fragments
        assert (fragment.table_name, len(fragment.inserts), len(fragment.deletes)) == ("tick", 0, 1)
        event = update.event
        assert (event.caller, event.caller_connection_id) == (its.handle.identity, None)
        assert (event.reducer_name, event.reducer_id, event.duration_us) == ("", 0, 0)

    test()


@in_world
async def test_a_row_that_its_reducer_moved_runs_again_at_its_new_time(its: World) -> None:
    start = now()
    await its.schedule(at(virtual_now_us() + SECOND), f"again {3 * SECOND}", 7)
    await trio.sleep(3)
    assert await its.waiting() == [7]
    await trio.sleep(10)
    assert [(each[0], each[1], round(each[2] - start)) for each in await its.ran()] == [
        (7, f"again {3 * SECOND}", 1), (7, f"moved again {3 * SECOND}", 4)
    ]  # fmt: skip
    assert await its.waiting() == []


@in_world
async def test_a_row_that_its_reducer_deleted_or_put_back_is_gone(its: World) -> None:
    await its.schedule(at(virtual_now_us() + SECOND), "delete", 7)
    await its.schedule(at(virtual_now_us() + SECOND), "replace", 8)
    await trio.sleep(10)
    assert [each[0] for each in await its.ran()] == [7, 8]
    assert await its.waiting() == []


@in_world
async def test_a_deleted_row_does_not_run(its: World) -> None:
    await its.schedule(at(virtual_now_us() + SECOND), "one", 7)
    await its.ann.call("unschedule", (7).to_bytes(8, "little"))
    await trio.sleep(5)
    assert await its.ran() == []


@in_world
async def test_a_row_of_a_rolled_back_transaction_does_not_run(its: World) -> None:
    await its.ann.call("schedule_and_fail", ROW.encode((7, at(virtual_now_us() + SECOND), "one")))
    await trio.sleep(5)
    assert await its.ran() == []


@in_world
async def test_a_replaced_row_runs_once_at_its_new_time(its: World) -> None:
    start = now()
    base = virtual_now_us()
    await its.schedule(at(base + 2 * SECOND), "first", 7)
    await its.schedule(at(base + 4 * SECOND), "second", 7)
    await its.schedule(at(base + 5 * SECOND), "third", 8)
    await its.schedule(at(base + 1 * SECOND), "fourth", 8)
    await trio.sleep(10)
    assert [(each[0], each[1], round(each[2] - start)) for each in await its.ran()] == [
        (8, "fourth", 1), (7, "second", 4)
    ]  # fmt: skip


@in_world
async def test_a_row_that_changed_and_changed_back_runs_once(its: World) -> None:
    for _ in range(3):
        await its.schedule(every(SECOND), "one", 7)
        await its.schedule(every(2 * SECOND), "two", 7)
    await its.schedule(every(SECOND), "one", 7)
    await trio.sleep(3.5)
    assert [each[:2] for each in await its.ran()] == [(7, "one")] * 3


@in_world
async def test_sql_arms_moves_and_cancels(its: World) -> None:
    client = TestClient(its.handle, OWNER)
    await its.schedule(every(SECOND), "slow", 9)
    await its.schedule(every(SECOND), "gone", 8)
    await its.sql("DELETE FROM tick WHERE scheduled_id = 8")
    await its.sql("UPDATE tick SET what = 'renamed' WHERE scheduled_id = 9")
    await trio.sleep(1.5)
    assert [each[:2] for each in await its.ran()] == [(9, "renamed")]
    assert client.sink.closed is None


# Intervals


@in_world
async def test_an_interval_does_not_drift(its: World) -> None:
    start = now()
    await its.schedule(every(100 * MS), "one", 7)
    await trio.sleep(100.05)
    times = [each[2] - start for each in await its.ran()]
    assert len(times) == 1000
    assert times == [pytest.approx(0.1 * (i + 1), abs=2e-3) for i in range(1000)]
    assert await its.waiting() == [7]


@in_world
async def test_missed_ticks_are_skipped(its: World) -> None:
    await its.schedule(every(SECOND), "one", 7)
    start = now()
    await trio.sleep(1.5)
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    clock.jump(3)  # everything stands still
    await trio.sleep(1)
    assert [each[2] - start for each in await its.ran()] == [
        pytest.approx(each, abs=2e-3) for each in (1, 4.5, 5)
    ]  # fmt: skip


@in_world
async def test_a_failing_interval_goes_on(its: World) -> None:
    await its.schedule(every(SECOND), "fail", 7)
    await trio.sleep(3.5)
    log = b"".join(its.handle.log.tail(None)).decode()
    assert log.count("this one fails") == 3
    assert await its.waiting() == [7]


@in_world
async def test_an_interval_ends_with_its_row(its: World) -> None:
    await its.schedule(every(SECOND), "count 3", 7)
    await trio.sleep(10)
    assert len(await its.ran()) == 3


@pytest.mark.parametrize("micros", [0, -1, 1])
def test_an_interval_of_nothing_lets_others_run(micros: int) -> None:
    async def test(its: World) -> None:
        bob = TestClient(its.handle, 2)
        await its.schedule(every(micros), "endless", 7)
        counts = []
        for _ in range(20):
            before = len(its.handle._actor.datastore.table("ran"))  # SQL would connect and disconnect in between
            await bob.call("ping")
            counts.append(len(its.handle._actor.datastore.table("ran")) - before)
        await its.ann.call("unschedule", (7).to_bytes(8, "little"))
        assert max(counts) <= 3, "it is served once a turn, behind other requests"
        assert sum(counts) >= 10, "it is served all the time"
        ended = len(await its.ran())
        await trio.sleep(0.1)
        assert len(await its.ran()) == ended

    in_world(test, trio.testing.MockClock(rate=1))()  # where every turn takes some time


@in_world
async def test_the_sign_of_an_interval_does_not_count(its: World) -> None:
    start = now()
    await its.schedule(every(-SECOND), "one", 7)
    await trio.sleep(2.5)
    assert [each[2] - start for each in await its.ran()] == [pytest.approx(each, abs=2e-3) for each in (1, 2)]


@in_world
async def test_an_interval_of_zero_or_below_is_reported_once_a_table(its: World) -> None:
    await its.schedule(every(SECOND), "one", 6)
    assert b"interval" not in b"".join(its.handle.log.tail(None))
    await its.schedule(every(-SECOND), "one", 7)
    await its.schedule(every(0), "one", 8)
    log = b"".join(its.handle.log.tail(None)).decode()
    assert log.count("is taken for") == 1
    assert "a row of table `tick` has an interval of -1000000 µs, which is taken for 1000000 µs" in log
    await its.ann.call("unschedule", (8).to_bytes(8, "little"))


@in_world
async def test_extreme_times_wait_for_ever(its: World) -> None:
    await its.schedule(every(-(2**63)), "one", 7)
    await its.schedule(every(2**63 - 1), "two", 8)
    await its.schedule(at(2**63 - 1), "three", 9)
    await trio.sleep(1000)
    assert await its.ran() == []
    assert await its.waiting() == [7, 8, 9]


# Many


@in_world
async def test_a_chain_of_rows_that_are_due_at_once_lets_others_run(its: World) -> None:
    bob = TestClient(its.handle, 2)
    await its.schedule(at(virtual_now_us()), "chain")
    stored = its.handle._actor.datastore.table("ran")
    for _ in range(5):
        before = len(stored)
        await bob.call("ping")
        assert len(stored) - before <= ROWS_A_JOB_MAX, "a request waits for one job"
    await its.sql("DELETE FROM tick")
    ended = len(stored)
    assert ended > 5
    await trio.sleep(1)
    assert len(stored) == ended


@in_world
async def test_many_rows_due_at_once_let_others_run(its: World) -> None:
    bob = TestClient(its.handle, 2)
    await bob.call("ping")
    due = virtual_now_us() + SECOND
    for i in range(700):
        its.ann.call_nowait("schedule", ROW.encode((i + 1, at(due), "")))
    await trio.sleep(1)
    stored = its.handle._actor.datastore.table("ran")
    while len(stored) == 0:
        await trio.lowlevel.checkpoint()
    before = len(stored)
    await bob.call("ping")
    assert before < 700, "a job serves no more than a turn's worth"
    assert len(stored) - before <= ROWS_A_JOB_MAX, "a request waits for one job, not for all"
    await trio.sleep(1)
    assert [each[0] for each in await its.ran()] == list(range(1, 701))


def test_timers_keep_their_time_under_steady_load_and_leave_the_load_its_share() -> None:
    async def test(its: World) -> None:
        bob = TestClient(its.handle, 2)
        await bob.call("ping")
        served = its.handle._actor.datastore.table("ping")
        await its.schedule(every(10 * MS), "one", 7)
        start, before, batches = now(), len(served), 0
        while now() < start + 0.5:
            batches += 1
            bob.submit(*[CallReducer(0, "ping", b"", False)] * 500)
            while bob.attachment.queued:
                await trio.lowlevel.checkpoint()
        pings, seconds = len(served) - before, now() - start
        assert len(await its.ran()) >= min(25, batches // 2), "of 50 ticks; fewer batches where the machine is slow"
        assert pings / seconds > 2000, "the load is served"

    in_world(test, trio.testing.MockClock(rate=1))()


@in_world
async def test_replaced_timers_do_not_pile_up(its: World) -> None:
    due = virtual_now_us() + 1000 * SECOND
    for i in range(10_000):
        its.ann.call_nowait("schedule", ROW.encode((7, at(due + i), "")))
        if i % 1000 == 0:
            await trio.sleep(0.001)
    await its.schedule(at(due), "last", 7)
    assert len(its.handle._actor.scheduler._timers) < 2500
    await trio.sleep(1001)
    assert [each[:2] for each in await its.ran()] == [(7, "last")]


# Launch and end


def test_rows_that_came_due_while_nothing_ran_run_at_launch_without_a_request() -> None:
    async def main() -> None:
        storage = MemoryStorage()
        async with world(storage) as its:
            await its.schedule(at(virtual_now_us() + 100 * SECOND), "one", 7)
            await its.schedule(at(virtual_now_us() + 50 * SECOND), "two", 8)
            await its.schedule(every(10 * SECOND), "three", 9)
            await trio.sleep(7)
            ended = virtual_now_us()
        await trio.sleep(200)
        async with open_host({b"timers": timers}, storage) as host:
            started = now()
            await trio.sleep(10.5)
            handle = host.databases()[0]
            its = World(host, handle)
            assert [(each[0], round(each[2] - started)) for each in await its.ran()] == [(8, 0), (7, 0), (9, 10)]
        assert ended < virtual_now_us()
        storage.close()

    run(main)


def test_one_broken_database_does_not_keep_others_from_their_timers(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        storage = MemoryStorage()
        async with open_host({b"broken": lambda: timers("2"), b"timers": timers}, storage) as host:
            await host.publish(OWNER, b"broken", name="broken")
        async with open_host({b"broken": lambda: timers("2"), b"timers": timers}, storage) as host:
            published = await host.publish(OWNER, b"timers", name="timers")
            its = World(host, host.database(published.identity))
            await its.schedule(at(virtual_now_us() + SECOND), "one", 7)
        await trio.sleep(5)
        async with open_host({b"timers": timers}, storage) as host:
            await trio.sleep(1)
            its = World(host, host.database(published.identity))
            assert [each[0] for each in await its.ran()] == [7]
        storage.close()

    run(main)
    assert "its program does not load" in caplog.text


def test_nothing_starts_after_the_shutdown_began() -> None:
    async def main() -> None:
        storage = MemoryStorage(delayed=True)
        is_disk_alive = True

        async def sync() -> None:
            while True:
                await trio.sleep(0.01)
                if is_disk_alive:
                    storage.sync()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sync)
            async with world(storage) as its:
                await its.schedule(at(virtual_now_us() + SECOND), "one", 7)
                ran = its.handle._actor.datastore.table("ran")
                is_disk_alive = False  # so that the shutdown takes long
                nursery.start_soon(its.host.shutdown)
                await trio.sleep(5)
                assert len(ran) == 0
                is_disk_alive = True
            async with world(storage) as its:
                await trio.sleep(1)
                assert [each[0] for each in await its.ran()] == [7]
            nursery.cancel_scope.cancel()
        storage.close()

    run(main)


@in_world
async def test_a_deleted_database_runs_nothing(its: World) -> None:
    await its.schedule(every(SECOND), "one", 7)
    actor = its.handle._actor
    await trio.sleep(2.5)
    await its.host.delete(OWNER, its.handle.identity)
    await trio.sleep(10)
    assert len(actor.datastore.table("ran")) == 2


# The clock


class Wall:
    """A wall clock that somebody sets."""

    def __init__(self) -> None:
        self.set_by_us = 0

    def now_us(self) -> int:
        """Return its time."""
        return virtual_now_us() + self.set_by_us


@asynccontextmanager
async def world_by(wall: Wall) -> AsyncIterator[World]:
    storage = MemoryStorage()
    async with Host.open(storage, lambda _program: timers(), now_us=wall.now_us) as host:
        published = await host.publish(OWNER, b"timers", name="timers")
        yield World(host, host.database(published.identity))
    storage.close()


@pytest.mark.parametrize("jump", [3600, -3600, 86_400 * 365])
def test_intervals_go_on_as_before_when_the_clock_is_set(jump: int) -> None:
    async def main() -> None:
        wall = Wall()
        async with world_by(wall) as its:
            await its.schedule(every(SECOND), "one", 7)
            await its.schedule(every(40 * SECOND), "two", 8)
            await trio.sleep(3.5)
            wall.set_by_us = jump * SECOND
            await trio.sleep(100)
            ran = [each[0] for each in await its.ran()]
            assert (ran.count(7), ran.count(8)) == (103, 2)

    run(main)


def test_times_follow_the_clock_when_it_is_set() -> None:
    async def main() -> None:
        wall = Wall()
        async with world_by(wall) as its:
            base = wall.now_us()
            await its.schedule(at(base + 100 * SECOND), "one", 7)
            await its.schedule(at(base + 200 * SECOND), "two", 8)
            wall.set_by_us = 150 * SECOND
            await trio.sleep(11)
            assert [each[0] for each in await its.ran()] == [7]
            wall.set_by_us = -100 * SECOND
            await trio.sleep(200)
            assert [each[0] for each in await its.ran()] == [7]
            await trio.sleep(100)
            assert [each[0] for each in await its.ran()] == [7, 8]

    run(main)


def test_the_time_that_a_reducer_is_told_is_never_before_its_row_is_due() -> None:
    async def main() -> None:
        wall = Wall()
        async with world_by(wall) as its:
            due = wall.now_us() + SECOND
            readings = 0

            def now_us() -> int:  # set back between seeing that the row is due and running it
                nonlocal readings
                readings += wall.now_us() >= due
                return wall.now_us() - (SECOND // 2 if readings > 2 else 0)

            its.handle._actor.now_us = now_us
            await its.schedule(at(due), "one", 7)
            await trio.sleep(10)
            assert [each[2] * SECOND + EPOCH_US for each in await its.ran()] == [due]

    run(main)


# Who may call


@in_world
async def test_only_the_owner_may_call_a_scheduled_reducer(its: World) -> None:
    bob = TestClient(its.handle, 2)
    args = ROW.encode((7, at(0), "by hand"))
    refused = await bob.call("tick", args)
    assert (refused.outcome.kind, refused.outcome.text) == (OutcomeKind.NOT_RUN, "no such reducer")
    with pytest.raises(NoSuchFunction, match="No such procedure"):
        await its.handle.call(bob.client, "tick", args)
    await its.schedule(every(1000 * SECOND), "by hand", 7)
    called = await its.ann.call("tick", ROW.encode((7, every(1000 * SECOND), "by hand")))
    assert called.outcome.kind == OutcomeKind.COMMITTED
    assert [each[:2] for each in await its.ran()] == [(7, "by hand")]
    assert await its.waiting() == [7]


def test_a_scheduled_reducer_that_is_not_private_is_everybodys() -> None:
    """As in every module of the time before V10."""

    def older() -> FunctionModule:
        return timers(reducers={"tick": reducer(tick, {"timer": TICK.row_type})})

    async def main() -> None:
        async with world(None, {b"older": older}) as its:
            bob = TestClient(its.handle, 2)
            await its.schedule(every(1000 * SECOND), "by hand", 7)
            args = ROW.encode((7, every(1000 * SECOND), "by hand"))
            called = await bob.call("tick", args)
            assert called.outcome.kind == OutcomeKind.COMMITTED
            assert (called.event.caller, called.event.reducer_name) == (bob.client.identity, "tick")
            await its.handle.call(bob.client._replace(connection_id=b"h" * 16), "tick", args)
            assert [each[:2] for each in await its.ran()] == [(7, "by hand")] * 2
            assert await its.waiting() == [7], "a call by hand is none of the row's own"
            await trio.sleep(1001)
            assert len(await its.ran()) == 3

    run(main)


# Updates in place


def test_an_update_adds_scheduled_tables_and_leaves_timers_as_they_were() -> None:
    tock = table("tock", COLUMNS, primary_key="scheduled_id", auto_inc=True, scheduled="tock")

    def tocked(ctx: Context, timer: tuple[int, Time, str]) -> None:
        ctx.insert("ran", 0, timer[0], "tock", ctx.call.timestamp_us)

    def wind(ctx: Context) -> None:
        ctx.insert("tock", 0, at(ctx.call.timestamp_us + 7 * SECOND // 2), "")

    def newer() -> FunctionModule:
        return timers(
            "2",
            tables=[tock],
            reducers={"tock": reducer(tocked, {"timer": tock.row_type}, private=True), "wind": reducer(wind)},
        )

    async def main() -> None:
        async with world(None, {b"timers": timers, b"newer": newer}) as its:
            start = now()
            await its.schedule(every(2 * SECOND), "tick", 7)
            await trio.sleep(1)
            await its.host.publish(OWNER, b"newer", identity=its.handle.identity)
            await its.ann.call("wind")
            await trio.sleep(5.5)
            assert [(each[1], round(each[2] - start)) for each in await its.ran()] == [
                ("tick", 2), ("tick", 4), ("tock", 4), ("tick", 6)
            ]  # fmt: skip

    run(main)


# A database that fails


def test_a_row_runs_again_when_its_database_failed_before_it_was_stored(caplog: pytest.LogCaptureFixture) -> None:
    lives = 0

    def buggy() -> FunctionModule:
        module = timers()
        entry = module.reducer

        def run_with_bug(reducer_id: int) -> Callable[[ReducerCall, bytes], None]:
            inner = entry(reducer_id)

            def run(call: ReducerCall, args: bytes) -> None:
                nonlocal lives
                if reducer_id == 0:
                    lives += 1
                    if lives < 3:
                        raise LookupError("a bug of the server")
                inner(call, args)

            return run

        module.reducer = run_with_bug  # type: ignore[method-assign]
        return module

    async def main() -> None:
        async with world(None, {b"timers": buggy}) as its:
            await its.schedule(at(virtual_now_us() + SECOND), "one", 7)
            await trio.sleep(5)
            await its.handle.ready()
            assert [each[:2] for each in await its.ran()] == [(7, "one")]
            assert lives == 3

    run(main)
    assert caplog.text.count("a bug of the server") >= 2


def test_what_a_crash_took_from_the_disk_runs_again_and_counts_once() -> None:
    async def main() -> None:
        storage = MemoryStorage(delayed=True)

        async def sync() -> None:
            while True:
                storage.sync()
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            disk = trio.CancelScope()

            async def until_the_crash() -> None:
                with disk:
                    await sync()

            nursery.start_soon(until_the_crash)
            with trio.CancelScope() as process:
                async with world(storage) as its:
                    await its.schedule(at(virtual_now_us() + SECOND), "one", 7)
                    ran = its.handle._actor.datastore.table("ran")
                    await trio.sleep(0.5)
                    disk.cancel()
                    await trio.sleep(1)
                    assert len(ran) == 1
                    process.cancel()
                    await trio.lowlevel.checkpoint()
            for log in storage.logs.values():
                log.crash()
            nursery.start_soon(sync)
            async with world(storage) as its:
                await trio.sleep(1)
                assert [each[:2] for each in await its.ran()] == [(7, "one")]
                assert await its.waiting() == []
            nursery.cancel_scope.cancel()
        storage.close()

    run(main)


# Procedures


Started = list[tuple[bytes, int, Callable[[], None]]]
"""Arguments, the time that is told, and what is called at the end of each procedure that was started."""


@asynccontextmanager
async def procedures() -> AsyncIterator[tuple[World, Started]]:
    """Hold a database whose due rows call a procedure, and the list of what was started."""
    job = table("job", COLUMNS, primary_key="scheduled_id", auto_inc=True, scheduled="work")

    def put(ctx: Context, scheduled_id: int, when: Time, what: str) -> None:
        for row in ctx.rows("job"):
            if row[0] == scheduled_id:
                ctx.delete("job", *row)
        ctx.insert("job", scheduled_id, when, what)

    async def work(_call: ProcedureCall, _timer: tuple[int, Time, str]) -> tuple[()]:
        return ()

    def module() -> FunctionModule:
        row = {"scheduled_id": U64, "when": SCHEDULE_AT, "what": STRING}
        return FunctionModule(
            [job], {"put": reducer(put, row)}, procedures={"work": procedure(work, {"timer": job.row_type})}
        )

    async with world(None, {b"timers": module}) as its:
        started: Started = []

        def start(procedure_id: int, args: bytes, timestamp_us: int, ended: Callable[[], None]) -> None:
            assert procedure_id == 0
            started.append((args, timestamp_us, ended))

        its.handle._actor.scheduler._start_procedure = start
        yield its, started


def in_procedures(test: Callable[[World, Started], Awaitable[None]]) -> Callable[[], None]:
    def wrapped() -> None:
        async def main() -> None:
            async with procedures() as (its, started):
                await test(its, started)

        run(main)

    wrapped.__name__ = test.__name__
    return wrapped


async def put(its: World, scheduled_id: int, when: Time, what: str = "") -> None:
    await its.ann.call("put", ROW.encode((scheduled_id, when, what)))


@in_procedures
async def test_the_row_of_a_procedure_is_gone_before_it_starts(its: World, started: Started) -> None:
    bob = TestClient(its.handle, 2)
    await bob.subscribe(1, "SELECT * FROM job")
    due = virtual_now_us() + SECOND
    await put(its, 7, at(due), "one")
    await trio.sleep(1.5)
    ((args, timestamp_us, ended),) = started
    assert args == ROW.encode((7, at(due), "one"))
    assert 0 <= timestamp_us - due < 5 * MS
    assert await its.sql("SELECT * FROM job") == []
    _, update = bob.messages(Updated)
    assert isinstance(update, Updated)
    event = update.event
    assert (event.caller, event.reducer_name, event.reducer_id) == (its.handle.identity, "", 0)
    ended()
    await trio.sleep(10)
    assert len(started) == 1


@in_procedures
async def test_due_procedures_overlap(its: World, started: Started) -> None:
    due = virtual_now_us() + SECOND
    for i in range(5):
        await put(its, i + 1, at(due + i))
    await trio.sleep(2)
    assert [int.from_bytes(args[:8], "little") for args, _, _ in started] == [1, 2, 3, 4, 5]


@in_procedures
async def test_an_interval_waits_for_its_procedure_and_keeps_its_phase(its: World, started: Started) -> None:
    start = virtual_now_us()
    await put(its, 7, every(SECOND))
    await trio.sleep(3.3)
    assert [at_us - start for _, at_us, _ in started] == [pytest.approx(SECOND, abs=2 * MS)]
    started[0][2]()
    await trio.sleep(1)
    assert [at_us - start for _, at_us, _ in started[1:]] == [pytest.approx(4 * SECOND, abs=2 * MS)]


@in_procedures
async def test_a_row_changed_while_its_procedure_runs_fires_at_its_new_time_once(its: World, started: Started) -> None:
    start = virtual_now_us()
    await put(its, 7, every(SECOND), "old")
    await trio.sleep(1.5)
    await put(its, 7, every(2 * SECOND), "new")
    started[0][2]()
    await trio.sleep(2.1)
    assert [(args[-3:], at_us - start) for args, at_us, _ in started] == [
        (b"old", pytest.approx(SECOND, abs=2 * MS)), (b"new", pytest.approx(3.5 * SECOND, abs=2 * MS))
    ]  # fmt: skip


@in_procedures
async def test_a_row_changed_back_while_its_procedure_runs_counts_from_the_change(its: World, started: Started) -> None:
    start = virtual_now_us()
    await put(its, 7, every(SECOND), "same")
    await trio.sleep(1.5)
    await put(its, 7, every(2 * SECOND), "other")
    await put(its, 7, every(SECOND), "same")
    started[0][2]()
    await trio.sleep(1.1)
    assert [at_us - start for _, at_us, _ in started] == [
        pytest.approx(SECOND, abs=2 * MS),
        pytest.approx(2.5 * SECOND, abs=2 * MS),
    ]


@in_procedures
async def test_a_one_shot_put_back_while_its_procedure_runs_stays_until_it_is_due(its: World, started: Started) -> None:
    due = virtual_now_us() + SECOND
    await put(its, 7, at(due))
    await trio.sleep(1.5)
    await put(its, 7, at(due + 2 * SECOND))
    started[0][2]()
    await trio.sleep(1)
    assert len(await its.sql("SELECT * FROM job")) == 1
    await trio.sleep(1)
    assert len(started) == 2
    assert await its.sql("SELECT * FROM job") == []


@in_procedures
async def test_an_interval_deleted_while_its_procedure_runs_does_not_come_again(its: World, started: Started) -> None:
    await put(its, 7, every(SECOND))
    await trio.sleep(1.5)
    await its.sql("DELETE FROM job")
    started[0][2]()
    await trio.sleep(10)
    assert len(started) == 1
