"""Procedures that rows of scheduled tables call: when they start, how often, what a crash makes of them."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from stdb.actors.handle import DatabaseHandle
from stdb.actors.sink import OutcomeKind
from stdb.modules.protocol import Module, ProcedureCall
from stdb.sats import bsatn
from stdb.sats.types import SCHEDULE_AT, STRING, U64, AlgebraicType
from stdb.testing.hosts import EPOCH_US, TestClient, open_host, virtual_now_us
from stdb.testing.modules import Context, FunctionModule, procedure, reducer, table
from tests.actors_timers import COLUMNS, TICK, Time, at, every
from tests.test_actors_procedures_faults import OWNER, Disk, run_on_a_slow_disk, running

_JOB = bsatn.codec(TICK.row_type).encode


def timed_module(started: list[tuple[int, int]], seconds: float) -> Callable[[], Module]:
    """Return a maker of a module whose due rows call a procedure that takes so long."""
    job = table("job", COLUMNS, primary_key="scheduled_id", auto_inc=True, scheduled="work")

    def put_job(ctx: Context, scheduled_id: int, when: Time, what: str) -> None:
        for row in ctx.rows("job"):
            if row[0] == scheduled_id:
                ctx.delete("job", *row)
        ctx.insert("job", scheduled_id, when, what)

    async def work(call: ProcedureCall, timer: tuple[int, Time, str]) -> tuple[()]:
        started.append((timer[0], call.timestamp_us))
        if timer[2] == "fail":
            raise ValueError("this one fails")
        await call.host.sleep(seconds)
        return ()

    row: dict[str, AlgebraicType] = {"scheduled_id": U64, "when": SCHEDULE_AT, "what": STRING}
    return lambda: FunctionModule(
        [job],
        {"put_job": reducer(put_job, row)},
        procedures={"work": procedure(work, {"timer": job.row_type}, private=True)},
    )


async def put_job(client: TestClient, scheduled_id: int, when: Time, what: str = "") -> None:
    assert (await client.call("put_job", _JOB((scheduled_id, when, what)))).outcome.kind == OutcomeKind.COMMITTED


def run_timed(test: Callable[[TestClient, list[tuple[int, int]]], Awaitable[None]], seconds: float = 5.0) -> None:
    started: list[tuple[int, int]] = []

    async def play() -> None:
        async with open_host({b"m": timed_module(started, seconds)}) as host:
            where = (await host.publish(OWNER, b"m", name="m")).identity
            with trio.fail_after(10_000_000):
                await test(TestClient(host.database(where), OWNER), started)

    trio.run(play, clock=MockClock(autojump_threshold=0))


def rows_of_jobs(client: TestClient) -> int:
    return len(client.handle._actor.datastore.table("job"))


def test_due_procedures_run_beside_each_other_and_their_rows_are_gone() -> None:
    async def test(client: TestClient, started: list[tuple[int, int]]) -> None:
        due = virtual_now_us() + 1_000_000
        for scheduled_id in (1, 2, 3):
            await put_job(client, scheduled_id, at(due + scheduled_id), "fail" if scheduled_id == 2 else "")
        await trio.sleep(1.5)
        assert [scheduled_id for scheduled_id, _ in started] == [1, 2, 3]
        assert all(0 <= at_us - due < 10_000 for _, at_us in started)
        assert rows_of_jobs(client) == 0
        assert running(client.handle) == 2
        assert b"this one fails" in b"".join(client.handle.log.tail(None))
        await trio.sleep(100)
        assert len(started) == 3, "one that failed is not tried again"

    run_timed(test)


def test_an_interval_that_is_shorter_than_its_procedure_misses_ticks_and_keeps_its_phase() -> None:
    async def test(client: TestClient, started: list[tuple[int, int]]) -> None:
        start = virtual_now_us()
        await put_job(client, 1, every(2_000_000))
        await trio.sleep(27)
        seconds = [round((at_us - start) / 1e6, 2) for _, at_us in started]
        assert seconds == [2, 8, 14, 20, 26], "5 s of work: it is due again at every third tick"

    run_timed(test)


@pytest.mark.parametrize("micros", [0, -1, 1, -(2**63)])
def test_an_interval_of_nothing_runs_one_procedure_at_a_time(micros: int) -> None:
    async def test(client: TestClient, started: list[tuple[int, int]]) -> None:
        await put_job(client, 1, every(micros))
        await trio.sleep(16)
        assert running(client.handle) <= 1
        assert len(started) == (0 if micros < -1 else 4)
        assert (await client.call("put_job", _JOB((2, at(2**63 - 1), "")))).outcome.kind == OutcomeKind.COMMITTED

    run_timed(test)


def test_a_row_in_the_far_past_runs_at_once_and_one_in_the_far_future_never() -> None:
    async def test(client: TestClient, started: list[tuple[int, int]]) -> None:
        await put_job(client, 1, at(-(2**63)))
        await put_job(client, 2, at(2**63 - 1))
        await trio.sleep(80_000)
        ((scheduled_id, at_us),) = started
        assert (scheduled_id, rows_of_jobs(client)) == (1, 1)
        assert EPOCH_US <= at_us < EPOCH_US + 1_000_000, "it is told when it runs, not when it was due"

    run_timed(test)


def test_a_procedure_that_finds_too_many_running_comes_up_again() -> None:
    async def test(client: TestClient, started: list[tuple[int, int]]) -> None:
        client.handle._actor.procedures._concurrent_max = 2
        for scheduled_id in range(1, 7):
            await put_job(client, scheduled_id, at(virtual_now_us() + 1_000_000))
        await trio.sleep(2)
        assert (len(started), rows_of_jobs(client)) == (2, 4), "a row is not taken out for what does not start"
        await trio.sleep(20)
        assert sorted(scheduled_id for scheduled_id, _ in started) == [1, 2, 3, 4, 5, 6]
        assert rows_of_jobs(client) == 0

    run_timed(test)


def test_a_scheduled_procedure_starts_when_the_end_of_its_row_is_durable_and_never_twice() -> None:
    started: list[tuple[int, int]] = []
    programs = {b"m": timed_module(started, 5.0)}

    async def before(handle: DatabaseHandle, disk: Disk) -> None:
        client = TestClient(handle, OWNER)
        await put_job(client, 1, at(virtual_now_us() + 1_000_000))
        await trio.sleep(0.5)
        disk.is_working = False
        await trio.sleep(2)
        assert (rows_of_jobs(client), started) == (0, []), "taken out, but a crash would bring it back"
        disk.is_working = True
        await trio.sleep(0.1)
        assert [scheduled_id for scheduled_id, _ in started] == [1]

    run_on_a_slow_disk(before, programs)


@pytest.mark.parametrize("is_durable", [False, True])
def test_a_crash_around_the_start_of_a_scheduled_procedure_runs_it_at_most_once(is_durable: bool) -> None:
    started: list[tuple[int, int]] = []
    programs = {b"m": timed_module(started, 5.0)}

    async def play() -> None:
        disk = Disk()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(disk.run)
            with trio.CancelScope() as process:
                async with open_host(programs, disk.storage) as host:
                    where = (await host.publish(OWNER, b"m", name="m")).identity
                    client = TestClient(host.database(where), OWNER)
                    await put_job(client, 1, at(virtual_now_us() + 1_000_000))
                    await trio.sleep(0.9)
                    disk.is_working = is_durable
                    await trio.sleep(1)
                    assert len(started) == is_durable
                    disk.is_working = False
                    for log in disk.storage.logs.values():
                        log.is_broken = True  # nothing is saved at the end
                    process.cancel()
                    await trio.lowlevel.checkpoint()
            for log in disk.storage.logs.values():
                log.crash()
                log.is_broken = False
            disk.is_working = True
            async with open_host(programs, disk.storage) as host:
                await trio.sleep(10)
                assert len(host.database(where)._actor.datastore.table("job")) == 0
            nursery.cancel_scope.cancel()
        disk.storage.close()
        assert [scheduled_id for scheduled_id, _ in started] == [1], "at once, or after the restart"

    trio.run(play, clock=MockClock(autojump_threshold=0))
