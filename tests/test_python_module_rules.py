"""Filters of a Python module, from its source to what its clients see, also after a restart."""

from collections.abc import Awaitable, Callable

import pytest

from stdb.actors.handle import DatabaseHandle
from stdb.actors.host import Host
from stdb.actors.refusals import PublishFailed
from stdb.modules.protocol import Module
from stdb.testing.hosts import TestClient, identity, open_host
from stdb.testing.storage import MemoryStorage
from tests.python_module_harness import load
from tests.test_actors_database import run

OWNER, ALICE, BOB = identity(99), identity(1), identity(2)
HEAD = """
    from stdb import Identity, ReducerContext, client_visibility_filter, index, primary_key, reducer, table

    @table(public=True)
    class Message:
        id: int = primary_key(auto_inc=True)
        room: int = index()
        text: str

    @table
    class Member:
        who: Identity = index()
        room: int = index()

    @reducer
    def enter(ctx: ReducerContext, room: int) -> None:
        ctx.db[Member].insert(Member(who=ctx.sender, room=room))

    @reducer
    def leave(ctx: ReducerContext, room: int) -> None:
        ctx.db[Member].delete(Member.room == room)

    @reducer
    def say(ctx: ReducerContext, room: int, text: str) -> None:
        ctx.db[Message].insert(Message(room=room, text=text))
"""
ROOMS = "SELECT m.* FROM message m JOIN member r ON m.room = r.room WHERE r.who = :sender"
PROGRAMS: dict[bytes, Callable[[], Module]] = {
    b"rooms": lambda: load(f"{HEAD}\n    client_visibility_filter({ROOMS!r})\n"),
    b"private": lambda: load(f"{HEAD}\n    client_visibility_filter('SELECT * FROM member')\n"),
}
"""A filter whose partner is a private table; a filter of a private table."""


def with_host(test: Callable[[Host], Awaitable[None]], storage: MemoryStorage | None = None) -> None:
    async def main() -> None:
        async with open_host(PROGRAMS, storage) as host:
            await test(host)

    run(main)


def i64(number: int) -> bytes:
    return number.to_bytes(8, "little", signed=True)


def text(said: str) -> bytes:
    return len(said).to_bytes(4, "little") + said.encode()


async def told(client: TestClient) -> list[str]:
    """Return the texts of the messages that a client holds, after all that was sent so far."""
    await client.call("say", i64(0) + text("nobody is in this room"))
    schema = client.handle._actor.datastore.table("message").schema
    return sorted(schema.codec.decode_exact(row)[2] for _, _, row in client.sink.rows().elements())


async def read(handle: DatabaseHandle, client: TestClient) -> list[str]:
    """Return the texts of the messages that a client reads with SQL."""
    result = await handle.sql(client.client, "SELECT text FROM message WHERE room > 0")
    return sorted(row[0] for row in result.rows)


async def talk(handle: DatabaseHandle) -> None:
    alice, bob = TestClient(handle, ALICE), TestClient(handle, BOB)
    for client in (alice, bob):
        await client.subscribe(1, "SELECT * FROM message")
    await alice.call("enter", i64(1))
    await alice.call("say", i64(1) + text("one"))
    await bob.call("say", i64(2) + text("two"))
    assert (await told(alice), await told(bob)) == (["one"], [])
    await bob.call("enter", i64(1))
    assert (await told(alice), await told(bob)) == (["one"], ["one"])
    await bob.call("enter", i64(2))
    await alice.call("leave", i64(1))
    assert (await told(alice), await told(bob)) == ([], ["two"])


def test_clients_see_what_a_filter_returns_also_after_a_restart() -> None:
    storage = MemoryStorage()
    published = []

    async def first(host: Host) -> None:
        published.append((await host.publish(OWNER, b"rooms", name="talk")).identity)
        await talk(host.database(published[0]))

    async def second(host: Host) -> None:
        handle = host.database(published[0])
        await handle.ready()
        alice, bob, owner = (TestClient(handle, who) for who in (ALICE, BOB, OWNER))
        assert [await read(handle, client) for client in (alice, bob, owner)] == [[], ["two"], ["one", "two"]]
        await alice.subscribe(1, "SELECT * FROM message")
        await alice.call("enter", i64(2))
        assert await told(alice) == ["two"]

    with_host(first, storage)
    with_host(second, storage)
    storage.close()


def test_a_filter_of_a_private_table_refuses_the_publish_at_its_line() -> None:
    async def test(host: Host) -> None:
        with pytest.raises(PublishFailed) as refusal:
            await host.publish(OWNER, b"private", name="talk")
        assert (
            "chat.py:27: failed to create row-level security: `SELECT * FROM member`: "
            "Cannot define RLS rule on private table: member. "
            "Please make table public if you wish to restrict access using RLS."
        ) in str(refusal.value)

    with_host(test)
