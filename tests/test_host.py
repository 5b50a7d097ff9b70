"""Host: publishing, ownership, launch, recovery, reset, deletion, shutdown."""

import pytest
import trio
import trio.testing

from stdb.actors.host import Host, HostSettings
from stdb.actors.refusals import (
    DatabaseUnavailable,
    NoSuchDatabase,
    NotAuthorized,
    PublishFailed,
    UpdateRejected,
)
from stdb.actors.sink import Client, OutcomeKind
from stdb.modules.python.loader import load
from stdb.sats.types import STRING, U32
from stdb.storage.control import PUBLISH_PYTHON, NameNotYoursError, NotYourDatabaseError
from stdb.testing.hosts import TestClient, identity, open_host
from stdb.testing.modules import table
from stdb.testing.sinks import Closed, Updated
from stdb.testing.storage import MemoryStorage
from tests.actors_chat import EVENTS, FLASH, MESSAGE, ONLINE, SECRET, chat
from tests.test_actors_database import run, text

OWNER, STRANGER = identity(99), identity(98)
MORE = table("more", {"id": U32, "what": STRING}, primary_key="id")
WIDER = table("events", {"what": STRING, "when": U32})
OTHER = table("events", {"what": U32})

PROGRAMS = {
    b"chat": chat,
    b"chat 2": lambda: chat(version="2"),
    b"chat more": lambda: chat(version="3", extra_tables=[MORE]),
    b"chat wider": lambda: chat(version="4", tables=[MESSAGE, ONLINE, SECRET, WIDER, FLASH]),
    b"chat other": lambda: chat(version="5", tables=[MESSAGE, ONLINE, SECRET, OTHER, FLASH]),
    b"chat less": lambda: chat(version="6", tables=[MESSAGE, ONLINE, EVENTS, FLASH]),
    b"chat refuses": lambda: chat(version="7", init_error="init says no"),
}


async def count_rows(host: Host, where: bytes, query: str) -> int:
    client = TestClient(host.database(where), OWNER)
    applied = await client.subscribe(1, query)
    await client.leave()
    return sum(len(fragment.inserts) for fragment in applied.rows)


def log_of(host: Host, where: bytes) -> list[str]:
    import json

    return [json.loads(line)["message"] for line in b"".join(host.database(where).log.tail(None)).splitlines()]


# Publishing


def test_a_publish_makes_tables_runs_init_and_names_the_database() -> None:
    async def main() -> None:
        async with open_host(PROGRAMS) as host:
            result = await host.publish(OWNER, b"chat", name="chat")
            assert (result.name, result.operation) == ("chat", "created")
            assert host.control.resolve("chat") == result.identity
            assert host.database(result.identity).owner == OWNER
            assert await count_rows(host, result.identity, "SELECT * FROM events") == 1
            created = [f"Creating table `{name}`" for name in ("events", "flash", "message", "online", "secret")]
            expected = [*created, "Invoking `init` reducer", "Database initialized"]
            assert log_of(host, result.identity) == expected

    run(main)


def test_publishing_the_same_program_again_changes_nothing() -> None:
    async def main() -> None:
        async with open_host(PROGRAMS) as host:
            first = await host.publish(OWNER, b"chat", name="chat")
            before = log_of(host, first.identity)
            again = await host.publish(OWNER, b"chat", name="chat")
            assert again == (first.identity, "chat", "updated")
            assert log_of(host, first.identity) == before
            assert await count_rows(host, first.identity, "SELECT * FROM events") == 1, "init runs once"

    run(main)


SEEDED = {
    "seeded.py": b"""
from stdb import ReducerContext, init, primary_key, reducer, table, u64

@table(public=True)
class Thing:
    id: u64 = primary_key(auto_inc=True)
    name: str

@init
def fill(ctx: ReducerContext) -> None:
    for name in "abc":
        ctx.db[Thing].insert(Thing(name=name))

@reducer
def add(ctx: ReducerContext, name: str) -> None:
    ctx.db[Thing].insert(Thing(name=name))
"""
}


def test_numbers_go_on_behind_those_of_init_and_skip_a_block_after_a_restart() -> None:
    async def things(host: Host, where: bytes) -> list[int]:
        await TestClient(host.database(where), 1).call("add", text("new"))
        applied = await TestClient(host.database(where), OWNER).subscribe(1, "SELECT * FROM thing")
        return sorted(int.from_bytes(row[:8], "little") for fragment in applied.rows for row in fragment.inserts)

    async def main() -> None:
        storage = MemoryStorage()
        programs = {b"seeded": lambda: load(SEEDED)}
        async with open_host(programs, storage=storage) as host:
            where = (await host.publish(OWNER, b"seeded", name="seeded")).identity
            assert await things(host, where) == [1, 2, 3, 4]
            await host.reset(OWNER, where)
            assert await things(host, where) == [1, 2, 3, 4]
        async with open_host(programs, storage=storage) as host:
            await host.database(where).ready()
            assert await things(host, where) == [1, 2, 3, 4, 4097]

    run(main)


def test_an_update_swaps_the_module_under_living_clients() -> None:
    async def main() -> None:
        async with open_host(PROGRAMS) as host:
            where = (await host.publish(OWNER, b"chat", name="chat")).identity
            ann = TestClient(host.database(where), 1)
            await ann.subscribe(1, "SELECT * FROM message")
            count = len(ann.sink.received)
            await host.publish(OWNER, b"chat more", name="chat")
            assert len(ann.sink.received) == count, "nobody is told"
            result = await ann.call("say", text("after"))
            assert result.update is not None
            assert await count_rows(host, where, "SELECT * FROM more") == 0
            assert log_of(host, where)[-2:] == ["Creating table `more`", "Database updated"]
            assert log_of(host, where)[-3].startswith("Updated program to ")

    run(main)


@pytest.mark.parametrize(("program", "told"), [
    (b"chat wider", "Adding a column when to table events requires a default value annotation"),
    (b"chat other", "Changing the type of column what in table events from String to U32 requires a manual migration"),
])  # fmt: skip
def test_an_update_that_would_change_a_stored_table_is_refused_by_name(program: bytes, told: str) -> None:
    async def main() -> None:
        async with open_host(PROGRAMS) as host:
            where = (await host.publish(OWNER, b"chat", name="chat")).identity
            running = host.database(where).program_hash
            with pytest.raises(UpdateRejected) as caught:
                await host.publish(OWNER, program, name="chat")
            assert str(caught.value) == f"Database update rejected: Errors occurred:\n{told}\n\n"
            assert host.database(where).program_hash == running
            assert await count_rows(host, where, "SELECT * FROM events") == 1

    run(main)


@pytest.mark.parametrize(("program", "told"), [(b"chat refuses", "init says no"), (b"nope", "Errors occurred:\n")])
def test_a_failed_first_publish_leaves_no_trace_and_frees_the_name(program: bytes, told: str) -> None:
    async def main() -> None:
        storage = MemoryStorage()
        async with open_host(PROGRAMS, storage) as host:
            with pytest.raises(PublishFailed) as caught:
                await host.publish(OWNER, program, name="chat")
            assert str(caught.value).startswith(told)
            assert host.databases() == []
            assert host.control.resolve("chat") is None
            assert storage.logs == {}
            result = await host.publish(STRANGER, b"chat", name="chat")
            assert result.operation == "created"

    run(main)


def test_a_bad_program_leaves_a_database_as_it_was_even_with_clear() -> None:
    async def main() -> None:
        async with open_host(PROGRAMS) as host:
            where = (await host.publish(OWNER, b"chat", name="chat")).identity
            ann = TestClient(host.database(where), 1)
            await ann.call("note", text("kept"))
            for clear in (False, True):
                for program in (b"nope", *([b"chat refuses"] if clear else [])):
                    with pytest.raises(PublishFailed):
                        await host.publish(OWNER, program, name="chat", clear=clear)
            assert ann.sink.closed is None
            assert await count_rows(host, where, "SELECT * FROM events") == 2

    run(main)


def test_clear_starts_again_with_the_same_identity_and_closes_clients() -> None:
    async def main() -> None:
        async with open_host(PROGRAMS) as host:
            where = (await host.publish(OWNER, b"chat", name="chat")).identity
            ann = TestClient(host.database(where), 1)
            await ann.call("note", text("gone"))
            result = await host.publish(OWNER, b"chat 2", name="chat", clear=True)
            assert result == (where, "chat", "updated")
            assert ann.sink.closed == Closed(1001, "module exited")
            assert await count_rows(host, where, "SELECT * FROM events") == 1
            assert await count_rows(host, where, "SELECT * FROM online") == 1, "the asking client alone"
            assert log_of(host, where)[0] == "Creating table `events`"

    run(main)


def test_reset_without_a_program_goes_back_to_the_initial_one() -> None:
    async def main() -> None:
        async with open_host(PROGRAMS) as host:
            where = (await host.publish(OWNER, b"chat", name="chat")).identity
            first = host.database(where).program_hash
            await host.publish(OWNER, b"chat 2", name="chat")
            assert host.database(where).program_hash != first
            await host.reset(OWNER, where)
            assert host.database(where).program_hash == first
            await host.reset(OWNER, where, b"chat 2")
            await host.publish(OWNER, b"chat", name="chat")
            await host.reset(OWNER, where)
            assert host.database(where).program_hash != first, "a reset makes its program the initial one"

    run(main)


# Rights


def test_only_the_owner_changes_a_database() -> None:
    async def main() -> None:
        async with open_host(PROGRAMS) as host:
            where = (await host.publish(OWNER, b"chat", name="chat")).identity
            who = STRANGER[::-1].hex()
            what = f"^{who} is not authorized to perform action on database {where[::-1].hex()}: "
            with pytest.raises(NotAuthorized, match=what + "update database$"):
                await host.publish(STRANGER, b"nope", name="chat")
            with pytest.raises(NotAuthorized, match=what + "reset database$"):
                await host.publish(STRANGER, b"chat", name="chat", clear=True)
            with pytest.raises(NotAuthorized, match=what + "delete database$"):
                await host.delete(STRANGER, where)
            with pytest.raises(NotAuthorized, match=what + "delete database$"):
                await host.set_locked(STRANGER, where, True)
            with pytest.raises(NotAuthorized, match=what + "view module logs$"):
                host.check_owner(STRANGER, where, "view module logs")

    run(main)


def test_python_code_needs_the_operator_or_its_grant() -> None:
    async def main() -> None:
        async with open_host(PROGRAMS, settings=HostSettings(operator=OWNER)) as host:
            with pytest.raises(NotAuthorized, match=f"grant {STRANGER[::-1].hex()} publish-python"):
                await host.publish(STRANGER, b"chat", name="mine")
            assert host.control.resolve("mine") is None
            host.control.grant(STRANGER, PUBLISH_PYTHON)
            await host.publish(STRANGER, b"chat", name="mine")
            host.control.revoke(STRANGER, PUBLISH_PYTHON)
            with pytest.raises(NotAuthorized, match="publish-python"):
                await host.publish(STRANGER, b"chat 2", name="mine")
            await host.publish(OWNER, b"chat", name="operators")

    run(main)


def test_sql_may_be_the_owners_alone() -> None:
    async def main() -> None:
        for policy, allowed in (("public", True), ("owner", False)):
            async with open_host(PROGRAMS, settings=HostSettings(sql=policy)) as host:
                where = (await host.publish(OWNER, b"chat")).identity
                host.check_sql(OWNER, where)
                if allowed:
                    host.check_sql(STRANGER, where)
                else:
                    with pytest.raises(NotAuthorized, match="only its owner may"):
                        host.check_sql(STRANGER, where)
                client = Client(OWNER, b"c" * 16, "{}")
                result = await host.database(where).sql(client, "SELECT * FROM st_client")
                assert [row[0] for row in result.rows] == [int.from_bytes(OWNER, "little")]

    run(main)


def test_a_lock_keeps_a_database_from_deletion_and_reset() -> None:
    async def main() -> None:
        async with open_host(PROGRAMS) as host:
            where = (await host.publish(OWNER, b"chat", name="chat")).identity
            await host.set_locked(OWNER, where, True)
            with pytest.raises(
                NotAuthorized, match=r"^Database is locked and cannot be deleted. Run `spacetime unlock`"
            ):
                await host.delete(OWNER, where)
            with pytest.raises(NotAuthorized, match=r"^Database is locked and cannot be reset with --delete-data. Run"):
                await host.reset(OWNER, where)
            await host.publish(OWNER, b"chat 2", name="chat")
            await host.set_locked(OWNER, where, False)
            await host.delete(OWNER, where)

    run(main)


# Deletion


def test_a_deleted_database_closes_its_clients_and_only_its_last_owner_brings_it_back() -> None:
    async def main() -> None:
        storage = MemoryStorage()
        async with open_host(PROGRAMS, storage) as host:
            where = (await host.publish(OWNER, b"chat", name="chat")).identity
            ann = TestClient(host.database(where), 1)
            await ann.call("note", text("gone"))
            await host.delete(OWNER, where)
            assert ann.sink.closed == Closed(1001, "module exited")
            await ann.attachment.wait_detached()
            assert storage.logs == {}
            with pytest.raises(NoSuchDatabase):
                host.database(where)
            await host.delete(STRANGER, where)
            with pytest.raises(NotYourDatabaseError):
                await host.publish(STRANGER, b"chat", name="chat")
            back = await host.publish(OWNER, b"chat", name="chat")
            assert back == (where, "chat", "created")
            assert await count_rows(host, where, "SELECT * FROM events") == 1

    run(main)


def test_an_identity_nobody_allocated_is_no_place_to_publish() -> None:
    async def main() -> None:
        async with open_host(PROGRAMS) as host:
            with pytest.raises(NoSuchDatabase):
                await host.publish(OWNER, b"chat", identity=identity(12345))

    run(main)


def test_a_freed_name_stays_its_owners() -> None:
    async def main() -> None:
        async with open_host(PROGRAMS) as host:
            where = (await host.publish(OWNER, b"chat", name="chat")).identity
            host.control.set_names(where, ["other"], OWNER)
            with pytest.raises(NameNotYoursError):
                await host.publish(STRANGER, b"chat", name="chat")

    run(main)


def test_two_publishes_of_one_name_at_once_make_one_database() -> None:
    async def main() -> None:
        async with open_host(PROGRAMS) as host:
            results = []

            async def publish() -> None:
                results.append(await host.publish(OWNER, b"chat", name="chat"))

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(publish)
            assert sorted(result.operation for result in results) == ["created", "updated", "updated"]
            assert len({result.identity for result in results}) == 1
            assert len(host.databases()) == 1

    run(main)


# Shutdown and recovery


def test_shutdown_disconnects_everyone_durably_and_closes_them() -> None:
    async def main() -> None:
        storage = MemoryStorage()
        async with open_host(PROGRAMS, storage) as host:
            where = (await host.publish(OWNER, b"chat", name="chat")).identity
            ann, bob = TestClient(host.database(where), 1), TestClient(host.database(where), 2)
            await ann.call("note", text("kept"))
            await bob.sink.wait_count(1)
        assert ann.sink.closed == bob.sink.closed == Closed(1001, "module exited")
        assert not storage.logs[where].is_open
        async with open_host(PROGRAMS, storage) as host:
            await host.database(where).ready()
            assert await count_rows(host, where, "SELECT * FROM st_client") == 1, "the asking client alone"
            assert await count_rows(host, where, "SELECT * FROM online") == 1
            assert await count_rows(host, where, "SELECT * FROM events") == 2
            assert log_of(host, where).count("Invoking `init` reducer") == 1

    run(main)


def test_who_connects_while_the_server_stops_is_turned_away() -> None:
    async def main() -> None:
        storage = MemoryStorage()
        async with open_host(PROGRAMS, storage) as host:
            handle = host.database((await host.publish(OWNER, b"chat", name="chat")).identity)
            ann = TestClient(handle, 1)
            await ann.sink.wait_count(1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(host.shutdown)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(DatabaseUnavailable):
                    TestClient(handle, 2)
                with pytest.raises(DatabaseUnavailable):
                    await handle.call(Client(OWNER, b"c" * 16, "{}"), "nothing", "[]")

    run(main)


def test_who_connects_between_the_disconnects_and_their_durability_is_closed() -> None:
    async def main() -> None:
        storage = MemoryStorage(delayed=True)
        async with open_host(PROGRAMS, storage) as host, trio.open_nursery() as nursery:
            nursery.start_soon(sync_later, storage, 1.0)
            handle = host.database((await host.publish(OWNER, b"chat", name="chat")).identity)
            early = TestClient(handle, 1)
            await early.sink.wait_count(1)
            nursery.start_soon(host.shutdown)
            await trio.sleep(0.1)
            late = TestClient(handle, 2)
            await late.attachment.wait_detached()
            assert late.sink.received == [Closed(1001, "module exited")]
            with pytest.raises(DatabaseUnavailable, match="stopping"):
                await handle.call(Client(OWNER, b"c" * 16, "{}"), "nothing", "[]")

    run(main)


async def sync_later(storage: MemoryStorage, seconds: float) -> None:
    for _ in range(10):
        storage.sync()
        await trio.lowlevel.checkpoint()
    await trio.sleep(seconds)
    storage.sync()


def test_shutdown_ends_when_the_disk_fails_on_the_way() -> None:
    async def main() -> None:
        storage = MemoryStorage()
        async with open_host(PROGRAMS, storage) as host:
            handle = host.database((await host.publish(OWNER, b"chat", name="chat")).identity)
            ann = TestClient(handle, 1)
            await ann.sink.wait_count(1)
            storage.logs[handle.identity].is_broken = True
        assert isinstance(ann.sink.closed, Closed)

    run(main)


async def crash(storage: MemoryStorage, work: object) -> None:
    """Run `work(host)` and kill the host without any clean-up that could reach the storage."""
    with trio.CancelScope() as scope:
        async with open_host(PROGRAMS, storage) as host:
            await work(host)  # type: ignore[operator]
            for log in storage.logs.values():
                log.crash()
            scope.cancel()
            await trio.sleep_forever()


def test_clients_left_by_a_crash_are_disconnected_before_anything_else() -> None:
    async def main() -> None:
        storage = MemoryStorage()
        wheres = []

        async def work(host: Host) -> None:
            where = (await host.publish(OWNER, b"chat", name="chat")).identity
            wheres.append(where)
            for number in (1, 2, 2):
                await TestClient(host.database(where), number).call("nothing")
            assert await count_rows(host, where, "SELECT * FROM online") == 3

        await crash(storage, work)
        async with open_host(PROGRAMS, storage) as host:
            await host.database(wheres[0]).ready()
            assert await count_rows(host, wheres[0], "SELECT * FROM online") == 1
            assert await count_rows(host, wheres[0], "SELECT * FROM st_client") == 1
            assert await count_rows(host, wheres[0], "SELECT * FROM st_connection_credentials") == 1

    run(main)


def test_a_failing_disconnect_of_a_left_client_does_not_stop_the_launch() -> None:
    async def main() -> None:
        storage = MemoryStorage()
        wheres = []

        async def work(host: Host) -> None:
            where = (await host.publish(OWNER, b"chat", name="chat")).identity
            wheres.append(where)
            await TestClient(host.database(where), 1).call("note", text("refuse to disconnect"))

        await crash(storage, work)
        async with open_host(PROGRAMS, storage) as host:
            await host.database(wheres[0]).ready()
            assert await count_rows(host, wheres[0], "SELECT * FROM st_client") == 1
            assert "not now" in log_of(host, wheres[0])

    run(main)


def test_all_databases_launch_in_the_background_and_a_request_launches_its_own() -> None:
    async def main() -> None:
        storage = MemoryStorage()
        async with open_host(PROGRAMS, storage) as host:
            for name in ("a", "b", "c"):
                await host.publish(OWNER, b"chat", name=name)
        async with open_host(PROGRAMS, storage) as host:
            last = host.databases()[-1]
            with pytest.raises(DatabaseUnavailable):
                last.attach(Client(OWNER, b"c" * 16, "{}"), TestClient.__new__(TestClient), "")  # type: ignore[arg-type]
            await last.ready()
            assert (await TestClient(last, 1).call("nothing")).outcome.kind == OutcomeKind.COMMITTED
            await trio.testing.wait_all_tasks_blocked()
            for handle in host.databases():
                assert handle.definition.table("message") is not None

    run(main)


def test_databases_do_not_see_each_other() -> None:
    async def main() -> None:
        async with open_host(PROGRAMS) as host:
            one = host.database((await host.publish(OWNER, b"chat", name="one")).identity)
            two = host.database((await host.publish(OWNER, b"chat", name="two")).identity)
            watcher = TestClient(two, 2)
            await watcher.subscribe(1, "SELECT * FROM message")
            await TestClient(one, 1).call("say", text("hello"))
            await watcher.call("nothing")
            assert watcher.messages(Updated) == []

    run(main)
