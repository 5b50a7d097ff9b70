"""The archive over hosts without a server: the past across updates, others' turns meanwhile, what a restore brings."""

from pathlib import Path

import pytest
import trio
import trio.testing

from stdb.actors import archive as archive_module
from stdb.actors.host import Host, HostSettings
from stdb.actors.refusals import BackupRefused, NoFiles, NotAuthorized, PublishFailed
from stdb.actors.updates import Policy
from stdb.datastore.history import Moment, UnreachableError
from stdb.errors import QueryError, SchemaError
from stdb.modules.protocol import Module
from stdb.storage.control import NameInUseError
from stdb.storage.data_directory import DataDirectory
from stdb.storage.log import SqliteLog
from stdb.storage.server_storage import PART_SUFFIX, ServerStorage
from stdb.testing.hosts import TestClient, open_host
from tests.actors_chat import EVENTS, FLASH, MESSAGE, ONLINE, chat
from tests.test_actors_database import run, text
from tests.test_host import MORE, OWNER, STRANGER

PROGRAMS = {
    b"chat": chat,
    b"chat more": lambda: chat(version="3", extra_tables=[MORE]),
    b"chat less": lambda: chat(version="4", tables=[MESSAGE, ONLINE, EVENTS, FLASH]),
}
MESSAGES = "SELECT text FROM message"


async def say(host: Host, where: bytes, *words: str) -> None:
    client = TestClient(host.database(where), 1)
    for word in words:
        await client.call("say", text(word))
    await client.leave()


async def texts(host: Host, where: bytes, offset: int) -> list[str]:
    result = await host.archive.sql(where, MESSAGES, Moment(offset=offset))
    return sorted(row[0] for row in result.rows)


async def log_of(host: Host, where: bytes) -> list[tuple[str, list[tuple[str, int, int]]]]:
    async with host.archive.log(where, None, None) as entries:
        return [
            (
                entry.context.reducer_name,
                [(each.name, len(each.change.deletes), len(each.change.inserts)) for each in entry.tables],
            )
            for entry in entries
            if entry is not None
        ]


def test_the_past_is_that_of_the_tables_there_were() -> None:
    async def main() -> None:
        async with open_host(PROGRAMS) as host:
            where = (await host.publish(OWNER, b"chat")).identity
            await say(host, where, "one", "two")
            before = len(await log_of(host, where)) - 1
            await host.publish(OWNER, b"chat more", identity=where)
            after = len(await log_of(host, where)) - 1
            await say(host, where, "three")
            assert await texts(host, where, before) == ["one", "two"]
            with pytest.raises(QueryError, match="no such table: `more`"):
                await host.archive.sql(where, "SELECT * FROM more", Moment(offset=before))
            result = await host.archive.sql(where, "SELECT * FROM more", Moment(offset=after))
            assert [element.name for element in result.row_type.elements] == ["id", "what"]
            await host.publish(OWNER, b"chat less", identity=where, policy=Policy(breaks_clients=True))
            assert await host.archive.sql(where, "SELECT * FROM secret", Moment(offset=before))
            log = await log_of(host, where)
            assert ("message", 0, 1) in next(tables for name, tables in log if name == "say")

    run(main)


def test_others_run_while_a_state_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stdb.actors.launching.REPLAY_SECONDS", 0.0)

    async def main() -> None:
        async with open_host(PROGRAMS) as host:
            where = (await host.publish(OWNER, b"chat")).identity
            await say(host, where, *map(str, range(500)))
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    await trio.lowlevel.checkpoint()
                    turns += 1

            async with trio.open_nursery() as nursery:
                nursery.start_soon(count)
                assert await texts(host, where, 1) == []
                assert turns >= 16  # 500 records replayed, and 500 read backwards, 64 at a time
                nursery.cancel_scope.cancel()

    run(main)


def test_only_so_many_states_are_held_at_a_time() -> None:
    async def main() -> None:
        async with open_host(PROGRAMS) as host:
            where = (await host.publish(OWNER, b"chat")).identity
            held = 0

            async def hold() -> None:
                nonlocal held
                async with host.archive._state(where, None):
                    held += 1
                    await trio.sleep_forever()

            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(hold)
                await trio.testing.wait_all_tasks_blocked()
                assert held == archive_module.STATES_MAX
                nursery.cancel_scope.cancel()
            assert await texts(host, where, 0) == []

    run(main)


def test_a_query_of_the_past_costs_no_more_than_another() -> None:
    async def main() -> None:
        async with open_host(PROGRAMS, settings=HostSettings(query_rows_max=10)) as host:
            where = (await host.publish(OWNER, b"chat")).identity
            await say(host, where, *map(str, range(20)))
            with pytest.raises(QueryError, match="more than 10 rows"):
                await texts(host, where, len(await log_of(host, where)) - 1)

    run(main)


def test_what_needs_files_says_so() -> None:
    async def main() -> None:
        async with open_host(PROGRAMS) as host:
            where = (await host.publish(OWNER, b"chat")).identity
            with pytest.raises(NoFiles, match="keeps its databases in memory"):
                await host.archive.fork(OWNER, where)
            with pytest.raises(NoFiles):
                async with host.archive.backup(where):
                    pass

    run(main)


# --------------------------------------------------------------------------------------------------- with files
async def with_files(directory: DataDirectory, test: object, settings: HostSettings | None = None) -> None:
    storage = ServerStorage(directory, lambda: 0)

    def load(program: bytes) -> Module:
        return PROGRAMS[program]()

    try:
        async with Host.open(storage, load, settings or HostSettings(), now_us=lambda: 5) as host:
            with trio.fail_after(30):
                await test(host)  # type: ignore[operator]
    finally:
        storage.close()


def test_a_fork_of_the_past_runs_the_program_of_that_time(tmp_path: Path) -> None:
    async def test(host: Host) -> None:
        where = (await host.publish(OWNER, b"chat", name="chat")).identity
        await say(host, where, "one")
        before = len(await log_of(host, where)) - 1
        await host.publish(OWNER, b"chat more", name="chat")
        made = await host.archive.fork(OWNER, where, "then", Moment(offset=before))
        assert made.offset == before
        handle = host.database(made.identity)
        assert handle.definition.table("more") is None
        assert host.database(where).definition.table("more") is not None
        found = host.control.database(made.identity)
        assert found is not None
        assert found.program_hash == handle.program_hash
        with pytest.raises(UnreachableError):
            await texts(host, made.identity, before - 1)
        with pytest.raises(NameInUseError):
            await host.archive.fork(OWNER, where, "then")

    with DataDirectory(tmp_path) as directory:
        trio.run(with_files, directory, test)


def test_a_fork_is_of_who_may_publish(tmp_path: Path) -> None:
    async def test(host: Host) -> None:
        where = (await host.publish(OWNER, b"chat")).identity
        with pytest.raises(NotAuthorized, match="may not publish Python modules"):
            await host.archive.fork(STRANGER, where)

    with DataDirectory(tmp_path) as directory:
        trio.run(with_files, directory, test, HostSettings(operator=OWNER))


def test_a_restore_disconnects_who_was_connected_and_gives_the_database_away(tmp_path: Path) -> None:
    async def test(host: Host) -> None:
        where = (await host.publish(OWNER, b"chat")).identity
        client = TestClient(host.database(where), 1)
        await client.call("say", text("one"))
        async with host.archive.backup(where) as copy:
            part = host.archive.new_part(where)
            part.write_bytes(copy.path.read_bytes())
        await client.leave()
        made = await host.archive.restore(part, "copy", STRANGER)
        assert (made.owner, made.name) == (STRANGER, "copy")
        assert made.identity != where
        assert host.database(made.identity).owner == STRANGER
        clients = await host.archive.sql(made.identity, "SELECT * FROM st_client", Moment(offset=made.offset))
        assert len(clients.rows) == 1
        log = await log_of(host, made.identity)
        assert [name for name, _ in log[made.offset + 1 : made.offset + 3]] == ["restore", "disconnected"]
        assert not part.exists()

    with DataDirectory(tmp_path) as directory:
        trio.run(with_files, directory, test)


def test_a_backup_whose_program_does_not_load_is_refused(tmp_path: Path) -> None:
    async def test(host: Host) -> None:
        where = (await host.publish(OWNER, b"chat")).identity
        async with host.archive.backup(where) as copy:
            part = host.archive.new_part(where)
            part.write_bytes(copy.path.read_bytes())
            databases = host.control.databases()

            def broken() -> Module:
                raise SchemaError(["it is too old"])

            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(PROGRAMS, b"chat", broken)
                with pytest.raises(PublishFailed, match="it is too old"):
                    await host.archive.restore(part)
            assert host.control.databases() == databases

    with DataDirectory(tmp_path) as directory:
        trio.run(with_files, directory, test)


def test_a_log_without_a_database_is_no_backup(tmp_path: Path) -> None:
    async def test(host: Host) -> None:
        part = host.archive.new_part(bytes(32))
        SqliteLog(part).close()
        with pytest.raises(BackupRefused, match="the backup cannot be restored: the log holds no program"):
            await host.archive.restore(part)

    with DataDirectory(tmp_path) as directory:
        trio.run(with_files, directory, test)


def test_what_a_crash_left_of_a_restore_is_gone_after_a_start(tmp_path: Path) -> None:
    async def test(host: Host) -> None:
        assert [path.name for path in (tmp_path / "databases").iterdir()] == []

    with DataDirectory(tmp_path) as directory:
        for suffix in ("", "-wal", "-shm"):
            (tmp_path / f"databases/0123{PART_SUFFIX}{suffix}").write_bytes(b"x")
        trio.run(with_files, directory, test)
