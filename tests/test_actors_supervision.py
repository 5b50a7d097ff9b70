"""Supervision: a bug in one database ends nobody else, and the database comes back."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import trio
import trio.testing

from stdb.actors.host import Host
from stdb.actors.refusals import DatabaseUnavailable
from stdb.actors.sink import Client, OutcomeKind
from stdb.actors.supervision import without_directories
from stdb.testing.hosts import TestClient, identity, open_host
from stdb.testing.sinks import Closed
from stdb.testing.storage import DiskLog, MemoryStorage
from tests.actors_chat import EVENTS, FLASH, MESSAGE, ONLINE, chat
from tests.test_actors_database import run, text

OWNER = identity(99)
Result = TypeVar("Result")


class BugError(Exception):
    """A mistake of ours, somewhere below the module."""


def chat_with_bug(is_broken: Callable[[], bool]) -> object:
    """Return a chat whose entry for `nothing` breaks its promise about what it raises."""
    module = chat()
    entry = module.reducer

    def reducer(reducer_id: int) -> object:
        run = entry(reducer_id)
        if module.definition.reducers[reducer_id].name != "nothing":
            return run

        def broken(call: object, args: bytes) -> None:
            if is_broken():
                raise BugError("a bug of ours")
            run(call, args)  # type: ignore[arg-type]

        return broken

    module.reducer = reducer  # type: ignore[assignment,method-assign]
    return module


async def two_databases(host: Host) -> tuple[TestClient, TestClient]:
    one = (await host.publish(OWNER, b"buggy", name="one")).identity
    two = (await host.publish(OWNER, b"chat", name="two")).identity
    return TestClient(host.database(one), 1), TestClient(host.database(two), 2)


def tracebacks(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.exc_info is not None for record in caplog.records)


def test_a_bug_ends_one_database_which_comes_back_with_all_that_was_stored(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        broken = [True]
        async with open_host({b"buggy": lambda: chat_with_bug(lambda: broken[0]), b"chat": chat}) as host:
            ann, bob = await two_databases(host)
            await ann.call("say", text("stored"))
            ann.call_nowait("nothing")
            await ann.attachment.wait_detached()
            assert ann.sink.closed == Closed(1011, "database restarting")
            assert (await bob.call("say", text("undisturbed"))).outcome.kind == OutcomeKind.COMMITTED
            with pytest.raises(DatabaseUnavailable, match="restarting"):
                TestClient(ann.handle, 1)
            with pytest.raises(DatabaseUnavailable, match="restarting"):
                await ann.handle.ready()
            broken[0] = False
            started = trio.current_time()
            await trio.sleep(0.2)
            again = TestClient(ann.handle, 1)
            assert (await again.call("nothing")).outcome.kind == OutcomeKind.COMMITTED
            assert trio.current_time() - started < 1
            rows = await again.subscribe(1, "SELECT * FROM message", "SELECT * FROM online")
            assert [len(fragment.inserts) for fragment in rows.rows] == [1, 1], "the dangling client was disconnected"

    with caplog.at_level(logging.ERROR, "stdb.databases"):
        run(main)
    assert tracebacks(caplog) == 1


def test_an_awaited_call_fails_with_the_database(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with open_host({b"buggy": lambda: chat_with_bug(lambda: True), b"chat": chat}) as host:
            ann, bob = await two_databases(host)
            for _ in range(2):
                await ann.handle.ready()
                with pytest.raises(DatabaseUnavailable):
                    await ann.handle.call(Client(identity(3), b"c" * 16, "{}"), "nothing", "[]")
                await trio.sleep(1)
            assert (await bob.call("nothing")).outcome.kind == OutcomeKind.COMMITTED

    run(main)


def test_after_five_failures_it_stays_down_and_says_why_until_revived(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        broken = [True]
        pauses = []
        async with open_host({b"buggy": lambda: chat_with_bug(lambda: broken[0]), b"chat": chat}) as host:
            ann, bob = await two_databases(host)
            for _ in range(5):
                client = TestClient(ann.handle, 1)
                client.call_nowait("nothing")
                await client.attachment.wait_detached()
                failed_at = trio.current_time()
                with trio.move_on_after(40):
                    while True:
                        try:
                            await ann.handle.ready()
                            break
                        except DatabaseUnavailable:
                            await trio.sleep(0.01)
                pauses.append(trio.current_time() - failed_at)
            assert [round(pause, 1) for pause in pauses] == [0.1, 0.2, 0.4, 0.8, 40.0]
            assert client.sink.closed == Closed(1011, "database stopped")
            with pytest.raises(DatabaseUnavailable, match=r"failed 5 times.*BugError.*python -m stdb restart"):
                await ann.handle.ready()
            await trio.sleep(1000)
            with pytest.raises(DatabaseUnavailable):
                ann.handle.definition  # noqa: B018
            assert (await bob.call("nothing")).outcome.kind == OutcomeKind.COMMITTED
            broken[0] = False
            await host.restart(OWNER, ann.handle.identity)
            assert (await TestClient(ann.handle, 1).call("nothing")).outcome.kind == OutcomeKind.COMMITTED

    run(main)
    assert tracebacks(caplog) == 5


def test_a_publish_revives_a_database_that_is_down(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        programs = {
            b"buggy": lambda: chat_with_bug(lambda: True),
            b"chat": chat,
            b"fixed": lambda: chat(version="fixed"),
        }
        async with open_host(programs) as host:
            ann, _ = await two_databases(host)
            for _ in range(5):
                with trio.move_on_after(40):
                    while True:
                        try:
                            TestClient(ann.handle, 1).call_nowait("nothing")
                            break
                        except DatabaseUnavailable:
                            await trio.sleep(0.1)
                await trio.sleep(0.1)
            with pytest.raises(DatabaseUnavailable, match="failed 5 times"):
                await ann.handle.ready()
            await host.publish(OWNER, b"fixed", name="one")
            assert (await TestClient(ann.handle, 1).call("nothing")).outcome.kind == OutcomeKind.COMMITTED

    run(main)


def test_failures_long_ago_do_not_count(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with open_host({b"buggy": lambda: chat_with_bug(lambda: True), b"chat": chat}) as host:
            ann, _ = await two_databases(host)
            for _ in range(12):
                client = TestClient(ann.handle, 1)
                client.call_nowait("nothing")
                await client.attachment.wait_detached()
                assert client.sink.closed == Closed(1011, "database restarting")
                await trio.sleep(100)

    run(main)


def test_a_storage_error_stops_a_database_at_once_and_acknowledges_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        storage = MemoryStorage()
        async with open_host({b"buggy": chat, b"chat": chat}, storage) as host:
            ann, bob = await two_databases(host)
            confirmed = TestClient(ann.handle, 3, confirmed=True)
            await confirmed.sink.wait_count(1)
            storage.logs[ann.handle.identity].is_broken = True
            confirmed.call_nowait("say", text("lost"))
            await confirmed.attachment.wait_detached()
            assert confirmed.sink.received[1:] == [Closed(1011, "database stopped")]
            with pytest.raises(DatabaseUnavailable, match="disk is full"):
                await ann.handle.ready()
            await trio.sleep(1000)
            with pytest.raises(DatabaseUnavailable, match="disk is full"):
                await ann.handle.ready()
            assert (await bob.call("nothing")).outcome.kind == OutcomeKind.COMMITTED
            storage.logs[ann.handle.identity].is_broken = False
            await host.restart(OWNER, ann.handle.identity)
            rows = await TestClient(ann.handle, 1).subscribe(1, "SELECT * FROM message")
            assert rows.rows == []

    run(main)


class SlowStorage(MemoryStorage):
    """Closes logs when it is let to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_close = trio.Event()

    async def run(self, function: Callable[..., Result], *args: Any) -> Result:
        """Call a function, one that closes a log not before it may."""
        if isinstance(getattr(function, "__self__", None), DiskLog):
            await self.may_close.wait()
        return await super().run(function, *args)


def test_others_are_served_while_a_log_is_closed_and_nothing_cuts_that_short() -> None:
    async def main() -> None:
        storage = SlowStorage()
        storage.may_close.set()
        async with open_host({b"chat": chat}, storage=storage) as host:
            one = (await host.publish(OWNER, b"chat", name="one")).identity
            two = (await host.publish(OWNER, b"chat", name="two")).identity
            storage.may_close = trio.Event()
            log = storage.logs[one]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(host.delete, OWNER, one)
                await trio.testing.wait_all_tasks_blocked()
                assert log.is_open
                bob = TestClient(host.database(two), 2)
                assert (await bob.call("say", text("hello"))).outcome.kind == OutcomeKind.COMMITTED
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await trio.testing.wait_all_tasks_blocked()
                    assert log.is_open, "only whoever waited for the deletion was cancelled"
                storage.may_close.set()
            await trio.testing.wait_all_tasks_blocked()
            assert not log.is_open

    run(main)


def test_a_damaged_log_keeps_one_database_down_and_the_others_up(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        storage = MemoryStorage()
        async with open_host({b"buggy": chat, b"chat": chat}, storage) as host:
            ann, bob = await two_databases(host)
            await ann.call("say", text("x"))
        records = storage.logs[ann.handle.identity]._records
        records[-1] = records[-1][:-1] + bytes([records[-1][-1] ^ 1])
        async with open_host({b"buggy": chat, b"chat": chat}, storage) as host:
            with pytest.raises(DatabaseUnavailable, match="checksum"):
                await host.database(ann.handle.identity).ready()
            other = host.database(bob.handle.identity)
            await other.ready()
            assert (await TestClient(other, 1).call("nothing")).outcome.kind == OutcomeKind.COMMITTED

    run(main)


def test_clients_are_not_told_where_the_server_keeps_its_files() -> None:
    name = "c2" * 32 + ".sqlite"
    told = without_directories(f"/var/lib/stdb/databases/{name}: offset 3: disk full; kept as /var/lib/x/{name}.bad")
    assert told == f"{name}: offset 3: disk full; kept as {name}.bad"


def test_a_module_that_no_longer_loads_keeps_its_database_down(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        storage = MemoryStorage()
        async with open_host({b"buggy": chat, b"chat": chat}, storage) as host:
            ann, bob = await two_databases(host)
        async with open_host({b"chat": chat}, storage) as host:
            with pytest.raises(DatabaseUnavailable, match="there is no program"):
                await host.database(ann.handle.identity).ready()
            await host.database(bob.handle.identity).ready()

    run(main)


def test_a_publish_replaces_a_program_that_no_longer_loads_and_keeps_the_data(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        storage = MemoryStorage()
        async with open_host({b"buggy": chat, b"chat": chat}, storage) as host:
            ann, _ = await two_databases(host)
            await ann.call("say", text("kept"))
            crashed = TestClient(ann.handle, 7)
            await crashed.sink.wait_count(1)
            for log in storage.logs.values():
                log.sync()
                log.crash()
        programs = {
            b"chat": chat,
            b"fixed": lambda: chat(version="fixed"),
            b"less": lambda: chat(version="less", tables=[MESSAGE, ONLINE, EVENTS, FLASH]),
        }
        async with open_host(programs, storage) as host:
            handle = host.database(ann.handle.identity)
            with pytest.raises(DatabaseUnavailable, match="client-breaking change which is disallowed"):
                await host.publish(OWNER, b"less", name="one")
            await host.publish(OWNER, b"fixed", name="one")
            again = TestClient(handle, 1)
            rows = await again.subscribe(1, "SELECT * FROM message", "SELECT * FROM online", "SELECT * FROM st_client")
            assert [len(fragment.inserts) for fragment in rows.rows] == [1, 1, 1]
        async with open_host(programs, storage) as host:
            await host.database(ann.handle.identity).ready()

    run(main)


def test_a_context_is_not_kept_alive_by_the_dead(caplog: pytest.LogCaptureFixture) -> None:
    """Attachments of a dead actor ignore what their connection still hands in."""

    async def main() -> None:
        async with open_host({b"buggy": lambda: chat_with_bug(lambda: True), b"chat": chat}) as host:
            ann, _ = await two_databases(host)
            ann.call_nowait("nothing")
            await ann.attachment.wait_detached()
            ann.call_nowait("say", text("x"))
            await ann.leave()
            assert not ann.attachment.is_attached

    run(main)
