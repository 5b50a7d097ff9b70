"""Views that take too long, or of which somebody reads too many: bounded, reported, nothing else disturbed."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from stdb.actors.handle import DatabaseHandle
from stdb.actors.requests import Subscribe, SubscribeBatch, SubscriptionKind
from stdb.actors.sink import Client, OutcomeKind
from stdb.errors import QueryError, ReducerError, ReducerTimeout
from stdb.modules import views
from stdb.sats.types import IDENTITY, U32
from stdb.testing.hosts import TestClient, identity, open_host
from stdb.testing.modules import Context, FunctionModule, Reader, reducer, table, view
from stdb.testing.sinks import Applied, BatchApplied, SubscriptionFailed
from tests.test_actors_database import lines, run

OWNER = identity(99)
ENDLESS = 13
"""While there is an item with this id, the view `slow` takes too long."""
RUNS: Counter[str] = Counter()


def slow(read: Reader) -> list[Any]:
    RUNS["slow"] += 1
    rows = read.rows("item")
    if any(row[0] == ENDLESS for row in rows):
        raise ReducerTimeout("the view ran too long")
    return rows


def quick(read: Reader) -> list[Any]:
    RUNS["quick"] += 1
    return read.rows("item")


def of_kind(read: Reader, kind: int) -> list[Any]:
    RUNS["of_kind"] += 1
    return [row for row in read.rows("item") if row[2] == kind]


def add(ctx: Context, number: int) -> None:
    ctx.insert("item", number, ctx.call.sender, number % 5)


def drop(ctx: Context, number: int) -> None:
    for row in ctx.rows("item"):
        if row[0] == number:
            ctx.delete("item", *row)


def module() -> FunctionModule:
    return FunctionModule(
        [table("item", {"id": U32, "owner": IDENTITY, "kind": U32}, primary_key="id")],
        {"add": reducer(add, {"number": U32}), "drop": reducer(drop, {"number": U32})},
        views={
            "slow": view(slow, "item"),
            "quick": view(quick, "item"),
            "of_kind": view(of_kind, "item", {"kind": U32}, anonymous=True),
            "of_kind_mine": view(of_kind, "item", {"kind": U32}),
        },
    )


def with_database(test: Callable[[DatabaseHandle], Awaitable[None]]) -> Callable[[], None]:
    def synchronous() -> None:
        async def main() -> None:
            RUNS.clear()
            async with open_host({b"m": module}) as host:
                published = await host.publish(OWNER, b"m", name="m")
                await test(host.database(published.identity))

        run(main)

    synchronous.__name__ = test.__name__
    return synchronous


async def change(client: TestClient, reducer_name: str, number: int) -> None:
    result = await client.call(reducer_name, number.to_bytes(4, "little"))
    assert result.outcome.kind == OutcomeKind.COMMITTED


def ids(client: TestClient, name: str) -> list[int]:
    return sorted(
        int.from_bytes(row[:4], "little") for (_, table, row), n in client.sink.rows().items() if table == name
    )


@with_database
async def test_a_view_that_takes_too_long_stops_one_run_and_rests_longer_and_longer(handle: DatabaseHandle) -> None:
    clients = [TestClient(handle, who) for who in range(1, 41)]
    for client in clients:
        await client.subscribe(1, "SELECT * FROM slow", "SELECT * FROM quick")
    ann = clients[0]
    await change(ann, "add", ENDLESS)
    runs = []
    for number in range(100, 131):
        RUNS.clear()
        await change(ann, "add", number)
        runs.append(RUNS["slow"])
        assert RUNS["quick"] == len(clients)
    assert [place for place, count in enumerate(runs) if count] == [1, 4, 9, 18]
    assert set(runs) == {0, 1}, "of forty clients the first tells that it still takes too long"
    assert lines(handle).count("the view ran too long; its rows stay as they are for now") == 5
    assert ids(ann, "quick") == [ENDLESS, *range(100, 131)]
    assert (ids(ann, "slow"), ann.messages(SubscriptionFailed)) == ([], [])
    await change(ann, "drop", ENDLESS)
    for number in range(200, 220):
        await change(ann, "add", number)
    for client in clients:
        assert ids(client, "slow") == ids(client, "quick") == [*range(100, 131), *range(200, 220)]
    RUNS.clear()
    await change(ann, "add", 300)
    assert RUNS["slow"] == len(clients), "all is as before"
    assert handle._actor.views._rests == {}
    handle._actor.datastore.verify()


@with_database
async def test_views_that_have_no_turn_in_one_transaction_are_the_first_in_the_next(handle: DatabaseHandle) -> None:
    clients = [TestClient(handle, who) for who in range(1, 11)]
    for client in clients:
        await client.subscribe(1, "SELECT * FROM quick")
    seconds = iter(range(1_000_000))
    handle._actor.views._clock = lambda: float(next(seconds))  # every look at the clock, and so every run, takes one
    counts = []
    for number in range(8):
        RUNS.clear()
        await change(clients[0], "add", number)
        counts.append(RUNS["quick"])
    assert counts == [3] * 8
    handle._actor.views._clock = lambda: 0.0
    await change(clients[0], "add", 50)
    for client in clients:
        assert ids(client, "quick") == [*range(8), 50]
    assert handle._actor.views._late == {}


@with_database
async def test_what_was_late_and_is_read_no_more_is_forgotten(handle: DatabaseHandle) -> None:
    ann, bob = TestClient(handle, 1), TestClient(handle, 2)
    for client in (ann, bob):
        await client.subscribe(1, "SELECT * FROM slow")
    await change(ann, "add", ENDLESS)
    await change(ann, "add", 1)
    assert handle._actor.views._late
    await ann.leave()
    await bob.leave()
    assert not handle._actor.views._late
    await change(TestClient(handle, 3), "add", 2)


@with_database
async def test_a_batch_of_queries_of_a_view_that_takes_too_long_answers_each(handle: DatabaseHandle) -> None:
    ann, bob = TestClient(handle, 1), TestClient(handle, 2)
    await change(ann, "add", ENDLESS)
    sets = tuple((i, ("SELECT * FROM slow" if i % 2 else "SELECT * FROM quick",)) for i in range(20))
    ann.submit(SubscribeBatch(5, sets))
    await change(bob, "add", 1)
    (answer,) = await ann.wait_for(BatchApplied, 1)
    assert isinstance(answer, BatchApplied)
    assert [isinstance(result, str) for _, result in answer.results] == [False, True] * 10
    assert set(ids(ann, "quick")) == {1, ENDLESS}


@with_database
async def test_others_have_their_turn_between_the_views_of_one_request(handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    await ann.sink.wait_count(1)
    turns, places = 0, list[int]()

    def note_the_turn() -> None:
        time.sleep(0.003)  # longer than a slice
        places.append(turns)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views.MaterialisedViews, "_remember", slowly(views.MaterialisedViews._remember, note_the_turn))
        ann.submit(Subscribe(SubscriptionKind.SET, 7, 7, tuple(f"SELECT * FROM of_kind({i})" for i in range(20))))
        while not ann.messages(Applied):
            await trio.lowlevel.checkpoint()
            turns += 1
    assert len(set(places)) >= 7, "a slice or two hold no more than a few of them"


def slowly(function: Callable[..., Any], before: Callable[..., None]) -> Callable[..., Any]:
    def slow_one(*args: Any) -> Any:
        before()
        return function(*args)

    return slow_one


# Arguments


async def refused(client: TestClient, *queries: str) -> str:
    known = len(client.messages(SubscriptionFailed))
    client.submit(Subscribe(SubscriptionKind.SET, 77, 1000 + known, queries))
    failure = (await client.wait_for(SubscriptionFailed, known + 1))[-1]
    assert isinstance(failure, SubscriptionFailed)
    return failure.text


@pytest.mark.parametrize("name", ["of_kind", "of_kind_mine"])
def test_one_caller_reads_so_many_arguments_and_no_more(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "ARGUMENTS_A_CALLER_MAX", 10)

    @with_database
    async def test(handle: DatabaseHandle) -> None:
        ann, again, bob = TestClient(handle, 1), TestClient(handle, 1), TestClient(handle, 2)
        queries = [f"SELECT * FROM {name}({kind})" for kind in range(20)]
        for i in range(5):
            await ann.subscribe(i, queries[i])
        for i in range(5):
            await again.subscribe(i, queries[5 + i])
        error = "you read views with 10 different arguments already; unsubscribe from some first"
        assert await refused(ann, queries[10]) == f"{error}, executing: `{queries[10]}`"
        with pytest.raises(QueryError, match=r"^you read views with 10 different arguments already"):
            await handle.sql(Client(identity(1), b"c" * 16, "{}"), queries[11])
        await ann.subscribe(50, queries[3])  # known already
        await bob.subscribe(1, queries[15])
        await again.leave()
        await ann.subscribe(51, queries[12])
        await refused(bob, *queries)
        assert len(list(handle._actor.views.instances())) == 7, "of a refused set nothing is left"
        await ann.leave()
        await bob.leave()
        assert (handle._actor.views._askers, handle._actor.views._asked) == ({}, 0)

    test()


def test_one_database_has_so_many_arguments_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "ARGUMENTS_MAX", 10)

    @with_database
    async def test(handle: DatabaseHandle) -> None:
        for who in range(1, 11):
            await TestClient(handle, who).subscribe(1, f"SELECT * FROM of_kind({who})")
        text = await refused(TestClient(handle, 11), "SELECT * FROM of_kind(11)")
        assert text.startswith("views of this database are read with 10 different arguments already; try again later")
        await TestClient(handle, 12).subscribe(1, "SELECT * FROM of_kind(3)", "SELECT * FROM quick")

    test()


def broken_for_all(read: Reader) -> list[Any]:
    if any(row[0] == ENDLESS for row in read.rows("item")):
        raise ReducerError("broken")
    return []


def test_of_a_view_that_fails_for_many_a_few_failures_are_told_and_how_many_more_there_are() -> None:
    async def main() -> None:
        programs = {
            b"m": lambda: FunctionModule(
                [table("item", {"id": U32, "owner": IDENTITY, "kind": U32}, primary_key="id")],
                {"add": reducer(add, {"number": U32})},
                views={"broken": view(broken_for_all, "item")},
            )
        }
        async with open_host(programs) as host:
            published = await host.publish(OWNER, b"m", name="m")
            handle = host.database(published.identity)
            readers = [TestClient(handle, i) for i in range(views.FAILURES_TOLD_MAX + 15)]
            for client in readers:
                await client.subscribe(1, "SELECT * FROM broken")
            for number in (ENDLESS, 1):
                before = len(lines(handle))
                await readers[0].call("add", number.to_bytes(4, "little"))
                told = lines(handle)[before:]
                assert told.count('"message":"broken"') == views.FAILURES_TOLD_MAX
                assert told.count("the view failed for 15 more of its readers") == 1

    run(main)
