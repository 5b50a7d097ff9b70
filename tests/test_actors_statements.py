"""SQL over HTTP in a database: changes commit, count and are told as those of reducers are."""

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing

from stdb.actors.handle import DatabaseHandle
from stdb.actors.host import HostSettings
from stdb.actors.requests import Subscribe, SubscriptionKind
from stdb.actors.sink import Client
from stdb.errors import QueryError
from stdb.net.handshake import ConnectionOptions
from stdb.net.outbox import Outbox
from stdb.net.protocols import messages_v1, messages_v2
from stdb.net.protocols.registry import open_dialect
from stdb.net.protocols.wire import Compression
from stdb.net.stream import memory_stream_pair
from stdb.sats import bsatn
from stdb.testing.hosts import TestClient, identity, open_host
from stdb.testing.modules import FunctionModule
from stdb.testing.sinks import Updated
from stdb.testing.storage import MemoryStorage
from tests.actors_chat import chat
from tests.test_actors_database import OWNER, chat_host, in_chat, run, text
from tests.websocket_bytes import server_frames


def someone(who: int | bytes = OWNER, connection: int = 77) -> Client:
    sender = who if isinstance(who, bytes) else identity(who)
    return Client(sender, connection.to_bytes(16, "little"), "{}")


def next_offset(handle: DatabaseHandle) -> int:
    return handle._actor.datastore.next_offset


@in_chat
async def test_a_change_is_told_to_subscribers_as_nobodys_reducer(handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    await ann.subscribe(7, "SELECT * FROM events")
    before = next_offset(handle)
    result = await handle.sql(someone(), "INSERT INTO events (what) VALUES ('by SQL')")
    assert (result.inserted, result.deleted, result.updated, list(result.rows)) == (1, 0, 0, [])
    assert result.row_type.elements == ()
    assert next_offset(handle) == before + 3, "connect, the change, disconnect"
    (update,) = ann.messages(Updated)
    assert isinstance(update, Updated)
    ((fragment,),) = [each.fragments for each in update.update.sets]
    assert (fragment.inserts, fragment.deletes) == ([text("by SQL")], [])
    event = update.event
    assert (event.caller, event.caller_connection_id, event.reducer_name) == (OWNER, None, "")
    assert (event.reducer_id, event.request_id, event.args, event.args_json) == (0xFFFFFFFF, 0, b"", None)
    assert event.needs == before + 2


@in_chat
async def test_every_kind_of_change_reaches_those_whom_it_concerns(handle: DatabaseHandle) -> None:
    ann, bob = TestClient(handle, 1), TestClient(handle, 2)
    await ann.subscribe(1, "SELECT * FROM message")
    await bob.subscribe(1, "SELECT * FROM message WHERE text = 'two'")
    await ann.call("say", text("one"))
    changed = await handle.sql(someone(), "UPDATE message SET text = 'two' WHERE text = 'one'")
    assert (changed.inserted, changed.deleted, changed.updated) == (0, 0, 1)
    gone = await handle.sql(someone(), "DELETE FROM message")
    assert (gone.inserted, gone.deleted, gone.updated) == (0, 1, 0)
    sizes = [
        [(len(each.inserts), len(each.deletes)) for each in update.update.sets[0].fragments]
        for update in bob.messages(Updated)
        if isinstance(update, Updated)
    ]
    assert sizes == [[(1, 0)], [(0, 1)]]
    assert not +ann.sink.rows()
    assert not +bob.sink.rows()


@pytest.mark.parametrize("text_", [
    "INSERT INTO message (id, sender, text) VALUES (7, 0, 'a'), (7, 1, 'b')",  # one key twice
    "INSERT INTO events (what) VALUES (1, 2)",
    "DELETE FROM st_table",
    "UPDATE nowhere SET a = 1",
    "nonsense",
])  # fmt: skip
def test_a_refused_change_leaves_nothing_but_that_somebody_came_and_went(text_: str) -> None:
    async def main() -> None:
        async with chat_host() as (_, handle):
            ann = TestClient(handle, 1)
            await ann.subscribe(1, "SELECT * FROM message", "SELECT * FROM events")
            before = next_offset(handle)
            count = len(ann.sink.received)
            with pytest.raises(QueryError):
                await handle.sql(someone(), text_)
            assert next_offset(handle) == before + 2
            assert len(ann.sink.received) == count
            with pytest.raises(QueryError):
                await handle.sql(someone(2), "DELETE FROM message")
            assert next_offset(handle) == before + 4
            handle._actor.datastore.verify()

    run(main)


@in_chat
async def test_only_the_owner_changes_rows(handle: DatabaseHandle) -> None:
    refused = f"Caller {identity(2)[::-1].hex()} is not authorized to run SQL DML statements"
    for statement in ("DELETE FROM message", "SET row_limit = 1"):
        with pytest.raises(QueryError, match=refused):
            await handle.sql(someone(2), statement)


@in_chat
async def test_a_variable_that_is_set_counts_at_once(handle: DatabaseHandle) -> None:
    for i in range(5):
        await handle.call(someone(1), "note", f'["{i}"]')
    assert len((await handle.sql(someone(2), "SELECT * FROM events")).rows) == 6
    await handle.sql(someone(), "SET row_limit = 2")
    with pytest.raises(QueryError, match=r"Estimated cardinality \(6 rows\) exceeds limit \(2 rows\)"):
        await handle.sql(someone(2), "SELECT * FROM events")
    await handle.sql(someone(), "DELETE FROM st_var")
    assert len((await handle.sql(someone(2), "SELECT * FROM events")).rows) == 6


def test_a_change_costs_no_more_than_the_settings_allow() -> None:
    async def main() -> None:
        async with chat_host(settings=HostSettings(query_rows_max=10)) as (_, handle):
            for i in range(6):
                await handle.call(someone(1), "note", f'["{i}"]')
            before = next_offset(handle)
            with pytest.raises(QueryError, match="more than 10 rows"):
                await handle.sql(someone(), "DELETE FROM events")
            assert next_offset(handle) == before + 2
            assert len((await handle.sql(someone(), "SELECT count(*) AS n FROM events")).rows) == 1
            assert len(handle._actor.datastore.table("events")) == 7

    run(main)


def test_a_change_is_answered_once_durable_unless_told_otherwise_and_outlives_the_server() -> None:
    async def main() -> None:
        storage = MemoryStorage(delayed=True)
        insert = "INSERT INTO events (what) VALUES ('{}')"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sync_always, storage, stop := trio.Event())
            async with chat_host(storage) as (_, handle):
                stop.set()
                await trio.testing.wait_all_tasks_blocked()
                await handle.sql(someone(), insert.format("at once"), confirmed=False)
                with trio.move_on_after(60) as scope:
                    await handle.sql(someone(), insert.format("late"))
                assert scope.cancelled_caught
                async with trio.open_nursery() as inner:
                    inner.start_soon(handle.sql, someone(), insert.format("later"))
                    await trio.testing.wait_all_tasks_blocked()
                    storage.sync()
                nursery.start_soon(sync_always, storage, trio.Event())
            nursery.cancel_scope.cancel()
        async with open_host({b"chat": chat}, storage) as host:
            (handle,) = host.databases()
            await handle.ready()
            stored = handle._actor.datastore.table("events")
            assert set(stored.rows()) == {text("init"), text("at once"), text("late"), text("later")}
        storage.close()

    run(main)


async def sync_always(storage: MemoryStorage, stop: trio.Event) -> None:
    while not stop.is_set():
        storage.sync()
        await trio.sleep(0.001)


# On the wire


def old_chat() -> FunctionModule:
    """Return a module whose calls v1 shows to everybody."""
    module = chat()
    module.definition = replace(module.definition, abi_is_v10=False)
    return module


def tell(
    protocol: str, kind: SubscriptionKind, module: Callable[[], FunctionModule], message: Any, light: bool = False
) -> tuple[str, Any]:
    """Return what a client of this protocol is sent of a change: the message's name and value."""
    told: list[tuple[str, Any]] = []

    async def main() -> None:
        async with open_host({b"chat": module}) as host:
            published = await host.publish(OWNER, b"chat")
            handle = host.database(published.identity)
            near, far = memory_stream_pair(1 << 20)
            options = ConnectionOptions(compression=Compression.NONE, confirmed=False, light=light)
            dialect = open_dialect(protocol, Outbox(near), options, lambda: handle.definition)
            attachment = handle.attach(someone(1), dialect, "token")
            attachment.submit_nowait([Subscribe(kind, 1, 1, ("SELECT * FROM message",))])
            await handle.sql(someone(2, 78), "SELECT * FROM message")
            await far.receive_some()
            await handle.sql(someone(), "INSERT INTO message (id, sender, text) VALUES (5, 6, 'x')")
            ((_, payload),) = server_frames(await far.receive_some())
            tag, value = bsatn.codec(message).decode_exact(payload[1:])
            told.append((message.variants[tag].name, value))

    run(main)
    return told[0]


def test_v1_is_told_of_a_change_without_a_reducers_name() -> None:
    name, value = tell("v1.bsatn.spacetimedb", SubscriptionKind.MULTI, old_chat, messages_v1.SERVER_MESSAGE)
    assert name == "TransactionUpdate"
    status, _, caller, connection_id, reducer_call, energy, _ = value
    assert status[0] == 0
    assert [(table[1], table[2]) for table in status[1][0]] == [("message", 1)]
    assert (caller, connection_id, reducer_call) == (OWNER, bytes(16), ("", 0xFFFFFFFF, b"", 0))
    assert energy == (0,)


def test_v1_light_and_v2_are_told_the_rows_alone() -> None:
    name, value = tell("v1.bsatn.spacetimedb", SubscriptionKind.MULTI, chat, messages_v1.SERVER_MESSAGE, light=True)
    assert name == "TransactionUpdateLight"
    assert value[0] == 0
    assert [(table[1], table[2]) for table in value[1][0]] == [("message", 1)]
    name, value = tell("v2.bsatn.spacetimedb", SubscriptionKind.SET, chat, messages_v2.SERVER_MESSAGE)
    assert name == "TransactionUpdate"
    ((query_set_id, tables),) = value[0]
    assert query_set_id == (1,)
    assert [table[0] for table in tables] == ["message"]


@in_chat
async def test_what_a_failed_statement_held_is_let_go_at_once(handle: DatabaseHandle) -> None:
    await handle.sql(someone(), "INSERT INTO message (id, sender, text) VALUES (1, 1, 'a'), (2, 2, 'b')")
    gc.disable()
    try:
        for wrong in ("SELECT * FROM nowhere", "UPDATE message SET id = 1"):
            try:
                await handle.sql(someone(), wrong)
            except QueryError as error:
                raised = [each for each in (error, error.__cause__) if each is not None]
                kept = list(map(weakref.ref, raised))
                del raised
            assert [each() for each in kept] == [None] * len(kept)
    finally:
        gc.enable()
