"""A Python module with everything, in a host with a time limit: views, procedures, schedules as clients meet them."""

from textwrap import dedent
from typing import Any

import trio
from trio.testing import MockClock

from stdb.actors.deadline import Deadline, open_deadline
from stdb.actors.handle import DatabaseHandle
from stdb.actors.requests import CallProcedure, Subscribe, SubscriptionKind
from stdb.modules.python import loader
from stdb.sats import bsatn
from stdb.sats.types import STRING, U32
from stdb.testing.hosts import TestClient, identity, open_host
from stdb.testing.sinks import ProcedureFailed, ProcedureReturned, SubscriptionFailed, Updated

SOURCE = """
from datetime import timedelta
from stdb import *

@table(public=True)
class Item:
    id: u32 = primary_key()
    owner: Identity = index()

@table(scheduled=True)
class Tick:
    scheduled_at: ScheduleAt
    item: u32

@view(public=True)
def mine(ctx: ViewContext) -> list[Item]:
    return list(ctx.db[Item].filter(Item.owner == ctx.sender))

@view(public=True)
def endless(ctx: ViewContext) -> list[Item]:
    while True:
        pass

@reducer
def add(ctx: ReducerContext, id: u32) -> None:
    ctx.db[Item].insert(Item(id=id, owner=ctx.sender))

@reducer
def later(ctx: ReducerContext, item: u32) -> None:
    ctx.db[Tick].insert(Tick(item=item, scheduled_at=ScheduleAt.after(ctx, timedelta(hours=1))))

@reducer(scheduled=Tick)
def tick(ctx: ReducerContext, timer: Tick) -> None:
    ctx.db[Item].insert(Item(id=timer.item, owner=ctx.sender))

def take(tx: ReducerContext, id: u32) -> int:
    tx.db[Item].insert(Item(id=id, owner=tx.sender))
    return len(tx.db[Item])

@procedure
async def slowly(ctx: ProcedureContext, id: u32) -> str:
    await ctx.sleep(timedelta(hours=2))
    return f"item {await ctx.transact(take, id)}"

@procedure
async def refuse(ctx: ProcedureContext) -> None:
    raise SenderError("not you")

@procedure
async def spin(ctx: ProcedureContext) -> None:
    await ctx.sleep(1)
    while True:
        pass

@procedure
async def spin_inside(ctx: ProcedureContext) -> None:
    def endless(tx: ReducerContext) -> None:
        while True:
            pass
    await ctx.transact(endless)
"""
_U32 = bsatn.codec(U32).encode
LIMIT_SECONDS = 0.1
OUT_OF_TIME = "Procedure terminated due to insufficient budget"


def run(test: Any) -> None:
    """Run a test within an open database and a real time limit; sleeping takes no time."""

    async def play(deadline: Deadline) -> None:
        programs = {b"m": lambda: loader.load({"whole.py": dedent(SOURCE).encode()})}
        async with open_host(programs, deadline=deadline) as host:
            result = await host.publish(identity(9), b"m", name="m")
            handle = host.database(result.identity)
            await handle.ready()
            with trio.fail_after(100_000):
                await test(handle)

    with open_deadline(LIMIT_SECONDS) as deadline:
        trio.run(play, deadline, clock=MockClock(autojump_threshold=0))


async def answer(client: TestClient, name: str, args: bytes = b"") -> Any:
    call = CallProcedure(5, name, args)
    client.submit(call)
    while True:
        for message in client.sink.received:
            if getattr(message, "request", None) is call:
                return message
        await client.sink.wait_count(len(client.sink.received) + 1)


def ids(client: TestClient, table: str) -> list[int]:
    """Return the ids of the rows that a client has."""
    return sorted(int.from_bytes(row[:4], "little") for _, name, row in client.sink.rows() if name == table)


def test_a_view_changes_for_whom_it_changed() -> None:
    async def test(handle: DatabaseHandle) -> None:
        ann, bob = TestClient(handle, 1), TestClient(handle, 2)
        await ann.subscribe(1, "SELECT * FROM mine")
        await bob.subscribe(1, "SELECT * FROM mine")
        await ann.call("add", _U32(7))
        await bob.call("add", _U32(8))
        await ann.call("add", _U32(9))
        assert (ids(ann, "mine"), ids(bob, "mine")) == ([7, 9], [8])
        assert not ann.messages(Updated)

    run(test)


def test_a_procedure_waits_and_returns_after_its_transaction() -> None:
    async def test(handle: DatabaseHandle) -> None:
        ann = TestClient(handle, 1)
        await ann.subscribe(1, "SELECT * FROM mine")
        returned = await answer(ann, "slowly", _U32(3))
        assert isinstance(returned, ProcedureReturned)
        assert bsatn.codec(STRING).decode_exact(returned.returned) == "item 1"
        assert ids(ann, "mine") == [3]

    run(test)


def test_a_row_of_a_scheduled_table_calls_its_reducer_when_it_is_due() -> None:
    async def test(handle: DatabaseHandle) -> None:
        ann = TestClient(handle, 1)
        await ann.subscribe(1, "SELECT * FROM item")
        await ann.call("later", _U32(5))
        await trio.sleep(3599)
        assert ids(ann, "item") == []
        await trio.sleep(2)
        assert ids(ann, "item") == [5]

    run(test)


def test_what_never_ends_is_stopped_and_everything_else_goes_on() -> None:
    async def test(handle: DatabaseHandle) -> None:
        ann = TestClient(handle, 1)
        subscription = Subscribe(SubscriptionKind.SET, 3, 4, ("SELECT * FROM endless",))
        ann.submit(subscription)
        await ann.wait_for(SubscriptionFailed, 1)
        for name in ("refuse", "spin", "spin_inside"):
            assert isinstance(await answer(ann, name), ProcedureFailed), name
        await ann.subscribe(5, "SELECT * FROM mine")
        await ann.call("add", _U32(7))
        assert ids(ann, "mine") == [7]
        texts = [message.text for message in ann.messages(ProcedureFailed)]
        assert texts == ["The module instance encountered a fatal error: not you", *[OUT_OF_TIME] * 2]

    run(test)
