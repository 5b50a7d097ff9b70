"""Connections as data (spec 07 section 5, I21): coming and going is exactly once, through refusals and crashes."""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from struct import Struct

import pytest
import trio
import trio.testing

from stdb.actors.host import Host
from stdb.actors.sink import OutcomeKind
from stdb.modules.protocol import Module
from stdb.modules.python.loader import load
from stdb.testing.hosts import TestClient, identity, open_host
from stdb.testing.sinks import Closed, Updated
from stdb.testing.storage import MemoryStorage
from tests.test_actors_database import run

OWNER = identity(99)
VISIT = Struct("<Q16s?")
REFUSED, SHRUGS, FAULTY, STUBBORN = 4, 5, 6, 7
"""What connection ids leave modulo 8: is not let in; writes before it is not let in; two whose leaving fails."""

SOURCE = b"""
from stdb import ConnectionId, ReducerContext, SenderError, client_connected, client_disconnected
from stdb import primary_key, reducer, table, u64

@table(public=True)
class Visit:
    id: u64 = primary_key(auto_inc=True)
    connection: ConnectionId
    arrived: bool

@client_connected
def connected(ctx: ReducerContext) -> None:
    kind = int(ctx.connection_id) % 8
    if kind != 4:
        ctx.db[Visit].insert(Visit(connection=ctx.connection_id, arrived=True))
    if kind in (4, 5):
        raise SenderError("not you")

@client_disconnected
def disconnected(ctx: ReducerContext) -> None:
    ctx.db[Visit].insert(Visit(connection=ctx.connection_id, arrived=False))
    kind = int(ctx.connection_id) % 8
    if kind == 6:
        raise ValueError("a mistake of the module's author")
    if kind == 7:
        raise SenderError("I do not leave")

@reducer
def come_again(ctx: ReducerContext) -> None:
    ctx.db[Visit].insert(Visit(connection=ctx.connection_id, arrived=True))

@reducer
def nothing(ctx: ReducerContext) -> None:
    pass
"""
PROGRAMS = {b"visits": lambda: load({"visits.py": SOURCE}, "visits")}


async def publish(host: Host) -> bytes:
    return (await host.publish(OWNER, b"visits", name="visits")).identity


async def rows(client: TestClient, table: str) -> list[bytes]:
    applied = await client.subscribe(len(client.sink.received) + 1000, f"SELECT * FROM {table}")
    return [row for fragment in applied.rows for row in fragment.inserts]


async def visits(client: TestClient) -> list[tuple[int, bool]]:
    """Return who came and who left, in order, but for the client that asks."""
    mine = int.from_bytes(client.client.connection_id, "little")
    found = sorted(map(VISIT.unpack, await rows(client, "visit")))
    every = [(int.from_bytes(wire, "little"), arrived) for _, wire, arrived in found]
    return [each for each in every if each[0] != mine]


async def crash(storage: MemoryStorage, work: Callable[[Host], Awaitable[None]]) -> None:
    """Run `work(host)` and kill the host without any clean-up that could reach the storage."""
    with trio.CancelScope() as scope:
        async with open_host(PROGRAMS, storage) as host:
            await work(host)
            for log in storage.logs.values():
                log.crash()
            scope.cancel()
            await trio.sleep_forever()


def with_storage(test: Callable[[MemoryStorage], Awaitable[None]]) -> None:
    storage = MemoryStorage()
    try:
        run(lambda: test(storage))
    finally:
        storage.close()


@pytest.mark.parametrize("kind", [REFUSED, SHRUGS])
def test_a_refusal_takes_back_the_rows_and_what_the_reducer_wrote_and_nobody_disconnects(kind: int) -> None:
    async def test(storage: MemoryStorage) -> None:
        async def work(host: Host) -> None:
            handle = host.database(await publish(host))
            watcher = TestClient(handle, OWNER, 8)
            assert len(await rows(watcher, "visit")) == 1
            before = storage.logs[handle.identity].durable
            refused = TestClient(handle, 2, 16 + kind)
            await refused.attachment.wait_detached()
            assert [type(message) for message in refused.sink.received] == [Closed]
            assert storage.logs[handle.identity].durable == before
            await watcher.call("nothing")
            assert watcher.messages(Updated) == []
            assert len(await rows(watcher, "st_client")) == len(await rows(watcher, "st_connection_credentials")) == 1

        await crash(storage, work)
        async with open_host(PROGRAMS, storage) as host:
            handle = host.databases()[0]
            await handle.ready()
            assert await visits(TestClient(handle, 3, 24)) == [(8, True), (8, False)]

    with_storage(test)


@pytest.mark.parametrize("kind", [0, FAULTY, STUBBORN])
def test_who_leaves_is_gone_whatever_the_module_says_and_subscribers_see_it(
    kind: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(storage: MemoryStorage) -> None:
        async with open_host(PROGRAMS, storage) as host:
            handle = host.database(await publish(host))
            watcher = TestClient(handle, OWNER, 8)
            await watcher.subscribe(1, "SELECT * FROM st_client")
            leaver = TestClient(handle, 2, 16 + kind)
            await leaver.sink.wait_count(1)
            await leaver.leave()
            came, went = (
                [(len(each.inserts), len(each.deletes)) for sets in message.update.sets for each in sets.fragments]
                for message in watcher.messages(Updated)
                if isinstance(message, Updated)
            )
            assert (came, went) == ([(1, 0)], [(0, 1)])
            assert ((16 + kind, False) in await visits(watcher)) == (kind == 0)
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]

    with_storage(test)


@pytest.mark.parametrize("survive", range(9))
def test_whoever_a_crash_left_is_disconnected_once_however_far_the_next_life_came(survive: int) -> None:
    """The second life is cut after so many of its transactions are durable; nobody is disconnected twice or never."""
    numbers = [16, 24, 32, 40 + FAULTY, 48 + STUBBORN]

    async def test(storage: MemoryStorage) -> None:
        async def first(host: Host) -> None:
            handle = host.database(await publish(host))
            for number in numbers:
                await TestClient(handle, number, number).sink.wait_count(1)

        async def second(host: Host) -> None:
            (handle,) = host.databases()
            log = storage.logs[handle.identity]
            log._delayed = True
            await handle.ready()
            await TestClient(handle, 1, 56).call("nothing")
            log.sync(survive)

        await crash(storage, first)
        await crash(storage, second)
        for log in storage.logs.values():
            log._delayed = False
        async with open_host(PROGRAMS, storage) as host:
            (handle,) = host.databases()
            await handle.ready()
            client = TestClient(handle, OWNER, 64)
            seen = await visits(client)
            assert len(await rows(client, "st_client")) == 1
            assert len(await rows(client, "st_connection_credentials")) == 1
        counts = Counter(seen)
        for number in numbers:
            assert counts[number, True] == 1
            assert counts[number, False] == (number % 8 < FAULTY)
        assert counts[56, True] == counts[56, False] == (survive > 5)  # five leave before
        if survive > 5:
            left_before = {each for each, arrived in seen[: seen.index((56, True))] if not arrived}
            assert left_before == {16, 24, 32}

    with_storage(test)


# Many databases


def test_of_thirty_databases_one_that_is_asked_for_runs_before_the_rest_and_none_is_forgotten() -> None:
    async def test(storage: MemoryStorage) -> None:
        async with open_host(PROGRAMS, storage) as host:
            for number in range(30):
                await host.publish(OWNER, b"visits", name=f"visits{number}")
            oldest = host.databases()[0]
            client = TestClient(oldest, 1, 8)
            for _ in range(2000):
                client.call_nowait("come_again")
            await client.call("nothing")
        launched = 0

        def counted() -> Module:
            nonlocal launched
            launched += 1
            return PROGRAMS[b"visits"]()

        async with open_host({b"visits": counted}, storage) as host:
            last = host.databases()[-1]
            await last.ready()
            assert (await TestClient(last, 1, 8).call("nothing")).outcome.kind == OutcomeKind.COMMITTED
            assert launched <= 2, "others than the first one came before"
            await trio.testing.wait_all_tasks_blocked()
            assert launched == 30
            for handle in host.databases():
                assert (await TestClient(handle, 1, 16).call("nothing")).outcome.kind == OutcomeKind.COMMITTED

    with_storage(test)
