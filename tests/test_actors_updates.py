"""Updates of a program whose rules of row-level security change, and those that leave them alone."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio

from stdb.actors import database
from stdb.actors.handle import DatabaseHandle
from stdb.actors.host import Host
from stdb.actors.refusals import PublishFailed, Unconfirmed, UpdateRejected
from stdb.actors.sink import Client
from stdb.actors.updates import Policy
from stdb.sats.types import IDENTITY, STRING, U32
from stdb.schema.model import Lifecycle
from stdb.testing.hosts import TestClient, identity, open_host
from stdb.testing.modules import Context, FunctionModule, reducer, table
from stdb.testing.sinks import Closed, Updated
from stdb.testing.storage import MemoryStorage
from tests.test_actors_database import lines, run

OWNER = identity(99)
BREAK = Policy(breaks_clients=True)
OWN, LOUD = "SELECT * FROM letter WHERE owner = :sender", "SELECT * FROM letter WHERE text = 'loud'"
ALL = "SELECT * FROM letter"


def letters(version: str, *rules: str, extra: bool = False) -> FunctionModule:
    """Return a module that notes which version of it somebody left."""

    def init(ctx: Context) -> None:
        ctx.insert("letter", 1, identity(1), "hers")
        ctx.insert("letter", 2, identity(2), "loud")

    def went(ctx: Context) -> None:
        ctx.insert("left", f"{ctx.call.sender[0]} from {version}")

    return FunctionModule(
        [
            table("letter", {"id": U32, "owner": IDENTITY, "text": STRING}, primary_key="id"),
            table("left", {"what": STRING}),
            table("hidden", {"id": U32}, public=False),
            *([table("extra", {"id": U32})] if extra else []),
        ],
        {"init": reducer(init, lifecycle=Lifecycle.INIT), "went": reducer(went, lifecycle=Lifecycle.ON_DISCONNECT)},
        version=version,
        rules=rules,
    )


PROGRAMS = {
    b"open": lambda: letters("open"),
    b"own": lambda: letters("own", OWN),
    b"own again": lambda: letters("own again", OWN, extra=True),
    b"own or loud": lambda: letters("own or loud", OWN, LOUD),
    b"hidden": lambda: letters("hidden", "SELECT * FROM hidden"),
    b"nowhere": lambda: letters("nowhere", OWN, "SELECT * FROM zz"),
}


def with_host(program: bytes, test: Callable[[Host, DatabaseHandle], Awaitable[None]]) -> None:
    async def main() -> None:
        async with open_host(PROGRAMS) as host:
            published = await host.publish(OWNER, program, name="letters")
            await test(host, host.database(published.identity))

    run(main)


def someone(who: int | bytes) -> Client:
    return Client(who if isinstance(who, bytes) else identity(who), b"c" * 16, "{}")


async def seen(handle: DatabaseHandle, who: int | bytes) -> list[str]:
    return sorted(row[0] for row in (await handle.sql(someone(who), "SELECT text FROM letter")).rows)


def left(handle: DatabaseHandle) -> set[str]:
    stored = handle._actor.datastore.table("left")
    return {stored.schema.codec.decode_exact(row)[0] for row in stored.rows()}


def told(handle: DatabaseHandle) -> list[str]:
    """Return the messages of the log from the last update on."""
    messages = [line.split('"message":"')[1].rstrip('"}') for line in lines(handle).splitlines()]
    return messages[max(i for i, message in enumerate(messages) if message.startswith("Updated program")) + 1 :]


def test_rules_hold_from_the_first_publish_on() -> None:
    async def test(_host: Host, handle: DatabaseHandle) -> None:
        assert [await seen(handle, who) for who in (1, 2, 3, OWNER)] == [["hers"], ["loud"], [], ["hers", "loud"]]
        messages = lines(handle)
        assert f"Creating row level security `{OWN}`" in messages
        assert messages.index("Creating table `letter`") < messages.index("Creating row level security")
        assert messages.index("Creating row level security") < messages.index("Invoking `init` reducer")

    with_host(b"own", test)


@pytest.mark.parametrize(("before", "after"), [(b"open", b"own"), (b"own", b"own or loud"), (b"own", b"open")])
def test_other_rules_disconnect_everybody_by_the_new_module_and_then_close(before: bytes, after: bytes) -> None:
    async def test(host: Host, handle: DatabaseHandle) -> None:
        ann, bob, owner = (TestClient(handle, who) for who in (1, 2, OWNER))
        for client in (ann, bob, owner):
            await client.subscribe(1, ALL, "SELECT * FROM left")
        await host.publish(OWNER, after, identity=handle.identity, policy=BREAK)
        for client in (ann, bob, owner):
            await client.attachment.wait_detached()
            assert client.sink.closed == Closed(1001, "module exited")
            assert client.messages(Updated) == [], "nobody is told of rows that it may not see any more"
        assert handle.client_count == 0
        name = after.decode()
        assert left(handle) == {f"1 from {name}", f"2 from {name}", f"99 from {name}"}
        again = TestClient(handle, 1)
        (rows,) = (await again.subscribe(1, ALL)).rows
        assert len(rows.inserts) == {b"own": 1, b"own or loud": 2, b"open": 2}[after]
        assert told(handle)[-2:] == ["Disconnecting all users", "Database updated"]
        handle._actor.datastore.verify()

    with_host(before, test)


def test_the_log_names_the_rules_around_the_tables() -> None:
    async def test(host: Host, handle: DatabaseHandle) -> None:
        await host.publish(OWNER, b"own again", identity=handle.identity)
        assert told(handle) == [
            f"Removing row-level security `{OWN}`",
            "Creating table `extra`",
            f"Adding row-level security `{OWN}`",
            "Database updated",
        ]
        await host.publish(OWNER, b"own again", identity=handle.identity)
        assert len([line for line in lines(handle).splitlines() if "Updated program" in line]) == 1

    with_host(b"own", test)


def test_unchanged_rules_disconnect_nobody() -> None:
    async def test(host: Host, handle: DatabaseHandle) -> None:
        ann = TestClient(handle, 1)
        await ann.subscribe(1, ALL)
        before = handle._actor.datastore.next_offset
        await host.publish(OWNER, b"own again", identity=handle.identity)
        await trio.sleep(1)
        assert handle._actor.datastore.next_offset == before + 1
        assert ann.sink.closed is None
        await handle.sql(someone(OWNER), f"INSERT INTO letter (id, owner, text) VALUES (7, 0x{1:064x}, 'for ann')")
        await handle.sql(someone(OWNER), f"INSERT INTO letter (id, owner, text) VALUES (8, 0x{2:064x}, 'for bob')")
        (update,) = ann.messages(Updated)
        assert isinstance(update, Updated)
        assert await seen(handle, 1) == ["for ann", "hers"]

    with_host(b"own", test)


@pytest.mark.parametrize(("program", "told_"), [
    (b"hidden", "`SELECT * FROM hidden`: Cannot define RLS rule on private table: hidden. "
        "Please make table public if you wish to restrict access using RLS."),
    (b"nowhere", "`SELECT * FROM zz`: no such table: `zz`. If the table exists, it may be marked private."),
])  # fmt: skip
def test_a_rule_that_is_none_refuses_the_publish_and_changes_nothing(program: bytes, told_: str) -> None:
    async def test(host: Host, handle: DatabaseHandle) -> None:
        ann = TestClient(handle, 1)
        await ann.subscribe(1, ALL)
        before, log = handle._actor.datastore.next_offset, lines(handle)
        for where in ({"identity": handle.identity}, {"name": "new"}, {"identity": handle.identity, "clear": True}):
            with pytest.raises(PublishFailed) as refusal:
                await host.publish(OWNER, program, **where)
            assert str(refusal.value) == f"failed to create row-level security: {told_}"
        assert host.control.resolve("new") is None
        assert (handle._actor.datastore.next_offset, lines(handle)) == (before, log)
        assert ann.sink.closed is None
        assert await seen(handle, 1) == ["hers"]

    with_host(b"own", test)


def test_rules_outlive_a_restart() -> None:
    async def main() -> None:
        storage = MemoryStorage()
        async with open_host(PROGRAMS, storage) as host:
            published = await host.publish(OWNER, b"open", name="letters")
            await host.publish(OWNER, b"own or loud", identity=published.identity, policy=BREAK)
        async with open_host(PROGRAMS, storage) as host:
            handle = host.database(published.identity)
            assert [await seen(handle, who) for who in (1, 2, 3)] == [["hers", "loud"], ["loud", "loud"], ["loud"]]
        storage.close()

    run(main)


def test_a_database_that_goes_while_everybody_is_disconnected_closes_them_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(database, "REQUESTS_A_TURN_MAX", 1)

    async def test(host: Host, handle: DatabaseHandle) -> None:
        clients = [TestClient(handle, who) for who in range(1, 6)]
        for client in clients:
            await client.subscribe(1, ALL)

        async def publish() -> None:
            with suppress(Unconfirmed):  # the database may be gone before its update is known to be durable
                await host.publish(OWNER, b"own", identity=handle.identity, policy=BREAK)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            while len(left(handle)) < 2:
                await trio.lowlevel.checkpoint()
            assert clients[-1].sink.closed is None
            handle._supervisor.end_nowait()
        for client in clients:
            assert client.sink.closed == Closed(1001, "module exited")

    with_host(b"open", test)


def test_a_program_that_does_not_load_is_replaced_by_one_with_rules_and_not_by_one_with_bad_rules() -> None:
    async def main() -> None:
        storage = MemoryStorage()
        async with open_host(PROGRAMS, storage) as host:
            published = await host.publish(OWNER, b"own", name="letters")
        programs = {name: make for name, make in PROGRAMS.items() if name != b"own"}
        async with open_host(programs, storage) as host:
            handle = host.database(published.identity)
            with pytest.raises(Exception, match="failed to create row-level security: `SELECT \\* FROM zz`"):
                await host.publish(OWNER, b"nowhere", identity=handle.identity)
            await host.publish(OWNER, b"own or loud", identity=handle.identity, policy=BREAK)
            assert await seen(handle, 3) == ["loud"]
        storage.close()

    run(main)


def test_tables_that_would_change_are_refused_before_rules_are_looked_at() -> None:
    narrow = FunctionModule([table("letter", {"id": U32}, primary_key="id")], {}, version="x", rules=("nonsense",))

    async def main() -> None:
        async with open_host({**PROGRAMS, b"narrow": lambda: narrow}) as host:
            published = await host.publish(OWNER, b"own", name="letters")
            with pytest.raises(UpdateRejected, match="Removing a column owner from table letter"):
                await host.publish(OWNER, b"narrow", identity=published.identity)

    run(main)
