"""What goes on while stored tables change: procedures, timers, subscriptions, slow disks, programs that do not load."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import trio

from stdb.actors.handle import DatabaseHandle
from stdb.actors.host import Host
from stdb.actors.plan_text import plan_text
from stdb.actors.refusals import Unconfirmed, UpdateRejected
from stdb.actors.sink import Client
from stdb.actors.updates import Policy
from stdb.modules.protocol import ProcedureCall, ReducerCall
from stdb.sats import bsatn
from stdb.sats.types import SCHEDULE_AT, STRING, U8, U32, U64
from stdb.schema.model import TableDef
from stdb.testing.hosts import TestClient, identity, open_host
from stdb.testing.modules import Context, FunctionModule, procedure, reducer, table, view
from stdb.testing.sinks import Closed, Updated
from stdb.testing.storage import MemoryStorage
from tests.datastore_samples import make_table, values
from tests.test_actors_database import run

OWNER = identity(99)
BREAK = Policy(breaks_clients=True)
ITEM = make_table("item", {"id": U32, "name": STRING}, key="id", auto=("id",))
INDEXED = make_table("item", {"id": U32, "name": STRING}, key="id", auto=("id",), btree=("name",))
KEYLESS = replace(ITEM, primary_key=None)
TIMER = make_table("timer", {"id": U64, "at": SCHEDULE_AT}, key="id", auto=("id",), schedule="at")


def public(definition: TableDef) -> TableDef:
    return replace(definition, access=table("x", {}).access)


def with_column(definition: TableDef) -> TableDef:
    more = table("x", {"more": U8}).columns[0]
    return replace(definition, columns=(*definition.columns, replace(more, default=b"\7")))


async def late(call: ProcedureCall) -> None:
    """Write a row after a while, by the tables of the version that it belongs to."""
    await call.host.sleep(10)

    def write(call: ReducerCall) -> None:
        module = CURRENT[0]
        stored = module.tables["item"]
        call.transaction.insert(stored, bsatn.codec(ITEM.row_type).encode((0, "late")))

    await call.host.transact(write)


class Holding(FunctionModule):
    """A module that binds its tables when it is attached, as real ones do."""

    def attach(self, datastore: Any, database_identity: bytes, log: Any) -> None:
        super().attach(datastore, database_identity, log)
        self.tables = {each.name: datastore.table(each.name) for each in self.definition.tables}


CURRENT: list[Holding] = []
"""The version that `late` was started in."""


def version(name: str, *tables: TableDef, **options: Any) -> Holding:
    def add(ctx: Context) -> None:
        rest = ctx._table("item").schema.definition.columns[2:]
        ctx.insert("item", 0, name, *(7 for _ in rest))

    def tick(ctx: Context, *_: Any) -> None:
        add(ctx)

    columns = {column.name: column.type for column in TIMER.columns}
    return Holding(
        [public(each) for each in tables],
        {"add": reducer(add), "tick": reducer(tick, columns, private=True)},
        procedures={"late": procedure(late)},
        version=name,
        **options,
    )


PROGRAMS: dict[bytes, Callable[[], Holding]] = {
    b"old": lambda: version("old", ITEM, TIMER),
    b"indexed": lambda: version("indexed", INDEXED, TIMER),
    b"keyless": lambda: version("keyless", KEYLESS, TIMER),
    b"wider": lambda: version("wider", with_column(ITEM), with_column(TIMER)),
}


def with_host(test: Callable[[Host, DatabaseHandle], Awaitable[None]], storage: MemoryStorage | None = None) -> None:
    async def main() -> None:
        CURRENT.clear()

        def old() -> Holding:
            CURRENT.append(version("old", ITEM, TIMER))
            return CURRENT[-1]

        async with open_host(PROGRAMS | {b"old": old}, storage) as host:
            where = (await host.publish(OWNER, b"old", name="it")).identity
            CURRENT[:] = CURRENT[-1:]
            await test(host, host.database(where))

    run(main)


def rows(handle: DatabaseHandle, name: str) -> list[tuple[Any, ...]]:
    return values(handle._actor.datastore.table(name))


async def call_late(handle: DatabaseHandle) -> Any:
    return await handle.call(Client(identity(4), b"d" * 16, "{}"), "late", "[]")


@pytest.mark.parametrize("program", [b"indexed", b"keyless"])
def test_a_procedure_of_the_old_program_writes_into_the_tables_as_they_are_now(program: bytes) -> None:
    async def test(host: Host, handle: DatabaseHandle) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call_late, handle)
            await trio.sleep(1)
            CURRENT[0] = handle._actor.module  # type: ignore[call-overload]  # the running module is one of ours
            await host.publish(OWNER, program, identity=handle.identity)
        assert [row[1] for row in rows(handle, "item")] == ["late"]
        handle._actor.datastore.verify()

    with_host(test)


def test_a_procedure_whose_tables_have_other_rows_now_is_told_so() -> None:
    async def test(host: Host, handle: DatabaseHandle) -> None:
        found: list[Any] = []

        async def ask() -> None:
            found.append(await call_late(handle))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(1)
            await host.publish(OWNER, b"wider", identity=handle.identity, policy=BREAK)
        assert "the database was updated while this ran" in str(found[0].outcome)
        assert rows(handle, "item") == []

    with_host(test)


@pytest.mark.parametrize("program", [b"indexed", b"keyless"])
def test_a_subscription_goes_on_over_an_update_and_nobody_is_told_of_it(program: bytes) -> None:
    async def test(host: Host, handle: DatabaseHandle) -> None:
        ann = TestClient(handle, 1)
        await TestClient(handle, 2).call("add")
        await ann.subscribe(1, "SELECT * FROM item", "SELECT * FROM item WHERE name = 'old'")
        await host.publish(OWNER, program, identity=handle.identity)
        assert ann.messages(Updated) == []
        await TestClient(handle, 2).call("add")
        assert len(ann.messages(Updated)) == 1
        held = sorted(row for _, name, row in ann.sink.rows() if name == "item")
        assert held == sorted(handle._actor.datastore.table("item").rows())
        assert len(held) == 2
        assert ann.sink.closed is None

    with_host(test)


@pytest.mark.parametrize(("program", "policy"), [(b"keyless", Policy()), (b"wider", BREAK)])
def test_timers_go_on_when_their_table_is_another(program: bytes, policy: Policy) -> None:
    async def test(host: Host, handle: DatabaseHandle) -> None:
        await handle.sql(Client(OWNER, b"c" * 16, "{}"), "INSERT INTO item (id, name) VALUES (5, 'kept')")
        datastore = handle._actor.datastore
        stored = datastore.table("timer")

        def add(_transaction: Any) -> None:
            stored.insert(stored.schema.codec.encode((0, (0, 60_000_000))))

        await handle._actor.answers.wait(
            lambda: (handle._actor.transact(None, Client(OWNER, bytes(16), ""), None, after=add), 0)
        )
        await trio.sleep(61)
        await host.publish(OWNER, program, identity=handle.identity, policy=policy)
        await trio.sleep(125)
        names = [row[1] for row in rows(handle, "item")]
        assert names.count("old") == 1
        assert names.count(program.decode()) == 2
        assert "kept" in names

    with_host(test)


def test_sequences_go_on_where_they_were_now_and_after_a_restart() -> None:
    async def main() -> None:
        storage = MemoryStorage()
        async with open_host(PROGRAMS, storage) as host:
            where = (await host.publish(OWNER, b"old", name="it")).identity
            handle = host.database(where)
            for _ in range(3):
                await TestClient(handle, 1).call("add")
            await host.publish(OWNER, b"wider", identity=where, policy=BREAK)
            await TestClient(handle, 1).call("add")
            assert [row[0] for row in rows(handle, "item")] == [1, 2, 3, 4]
        async with open_host(PROGRAMS, storage) as host:
            handle = host.database(where)
            await handle.ready()
            await TestClient(handle, 1).call("add")
            assert sorted(row[0] for row in rows(handle, "item")) == [1, 2, 3, 4, 4097]
        storage.close()

    run(main)


def test_a_disk_that_is_too_slow_leaves_the_update_unconfirmed_and_done() -> None:
    async def main() -> None:
        storage = MemoryStorage(delayed=True)
        async with open_host(PROGRAMS, storage) as host, trio.open_nursery() as nursery:

            async def sync() -> None:
                while True:
                    await trio.sleep(0.1)
                    for log in storage.logs.values():
                        log.sync()

            scope = trio.CancelScope()

            async def syncing() -> None:
                with scope:
                    await sync()

            nursery.start_soon(syncing)
            where = (await host.publish(OWNER, b"old", name="it")).identity
            await host.database(where).ready()
            scope.cancel()
            before = trio.current_time()
            with pytest.raises(Unconfirmed) as late:
                await host.publish(OWNER, b"indexed", identity=where, confirmation_seconds_max=7)
            assert trio.current_time() - before == pytest.approx(7)
            assert str(late.value) == "Database update failed: timeout waiting for transaction confirmation"
            assert late.value.is_late
            assert len(host.database(where).definition.tables[0].indexes) == 2
            for log in storage.logs.values():
                log.sync()
            scope = trio.CancelScope()
            nursery.start_soon(syncing)
            await host.publish(OWNER, b"indexed", identity=where, confirmation_seconds_max=7)
            await host.shutdown()
            scope.cancel()
        storage.close()

    run(main)


def test_the_plan_for_a_program_that_does_not_load_is_made_from_the_stored_tables() -> None:
    async def main() -> None:
        storage = MemoryStorage()
        async with open_host(PROGRAMS, storage) as host:
            where = (await host.publish(OWNER, b"old", name="it")).identity
            await TestClient(host.database(where), 1).call("add")
        programs = {name: make for name, make in PROGRAMS.items() if name != b"old"}
        async with open_host(programs, storage) as host:
            handle = host.database(where)
            prospect = await host.plan(OWNER, where, b"wider")
            assert prospect.update is not None
            assert "Created column in table item" in plan_text(prospect.update, colored=False)
            assert "auto-increment" not in plan_text(prospect.update, colored=False), "sequences are the same"
            policy = Policy(breaks_clients=True, token=prospect.update.token)
            await host.publish(OWNER, b"wider", identity=where, policy=policy)
            assert rows(handle, "item") == [(1, "old", 7)]
        storage.close()

    run(main)


def test_a_failed_update_keeps_clients_views_and_rows() -> None:
    def shown(reader: Any) -> list[tuple[Any, ...]]:
        return reader.rows("item")  # type: ignore[no-any-return]  # rows as tuples

    def make(name: str, *tables: TableDef) -> Callable[[], Holding]:
        return lambda: version(name, *tables, TIMER, views={"shown": view(shown, "item", anonymous=True)})

    unique = make_table("item", {"id": U32, "name": STRING}, key="id", unique=("name",), auto=("id",))
    programs = {b"old": make("old", ITEM), b"unique": make("unique", unique, make_table("new", {"a": U8}))}

    async def main() -> None:
        async with open_host(programs) as host:
            where = (await host.publish(OWNER, b"old", name="it")).identity
            ann = TestClient(host.database(where), 1)
            await ann.subscribe(1, "SELECT * FROM shown")
            for _ in range(2):
                await ann.call("add")
            with pytest.raises(UpdateRejected) as refusal:
                await host.publish(OWNER, b"unique", identity=where)
            assert str(refusal.value).endswith('1 duplicate group(s) found.\n  - String("old") appears 2 times')
            await ann.call("add")
            assert len(ann.sink.rows()) == 3
            assert host.database(where)._actor.datastore.find_table("new") is None
            host.database(where)._actor.datastore.verify()

    run(main)


def test_clients_are_disconnected_by_the_new_program() -> None:
    async def test(host: Host, handle: DatabaseHandle) -> None:
        ann = TestClient(handle, 1)
        await ann.subscribe(1, "SELECT * FROM item")
        await host.publish(OWNER, b"wider", identity=handle.identity, policy=BREAK)
        await ann.attachment.wait_detached()
        assert ann.sink.closed == Closed(1001, "module exited")
        assert handle.client_count == 0
        again = TestClient(handle, 1)
        await again.subscribe(1, "SELECT * FROM item")
        await again.call("add")
        assert len(again.sink.rows()) == 1

    with_host(test)
