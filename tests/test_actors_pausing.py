"""Long reads and changes: others run meanwhile, the database itself waits, whatever happens in between is survived."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
import trio.testing

from stdb.actors import database, pausing
from stdb.actors.answers import SqlResult
from stdb.actors.deadline import NoDeadline
from stdb.actors.handle import DatabaseHandle
from stdb.actors.host import Host, HostSettings
from stdb.actors.pausing import Done
from stdb.actors.refusals import DatabaseUnavailable
from stdb.actors.requests import OneOffQuery, Subscribe, SubscribeBatch, SubscriptionKind, Unsubscribe
from stdb.actors.sink import Client, OutcomeKind
from stdb.errors import QueryError
from stdb.sats.types import STRING, U32
from stdb.schema.model import Lifecycle
from stdb.sql.work import BATCH, Steps, Work
from stdb.testing.hosts import TestClient, identity, open_host
from stdb.testing.modules import Context, FunctionModule, reducer, table
from stdb.testing.sinks import Applied, BatchApplied, Closed, OneOff, SubscriptionFailed, Unsubscribed, Updated
from stdb.testing.storage import MemoryStorage
from tests.test_actors_database import run

OWNER = identity(99)
ROWS = 10 * BATCH
READ = "SELECT * FROM big"
CHANGE = "UPDATE big SET text = 'new'"


def world() -> FunctionModule:
    """Return a module with one large table and a note of everybody who came and went."""

    def init(ctx: Context) -> None:
        for number in range(ROWS):
            ctx.insert("big", number, "old")

    def note(what: str) -> Callable[[Context], None]:
        def write(ctx: Context) -> None:
            ctx.insert("visits", ctx.call.timestamp_us % 2**32, f"{what} {ctx.call.sender[0]}")

        return write

    def add(ctx: Context, number: int) -> None:
        ctx.insert("big", number, "old")

    return FunctionModule(
        [table("big", {"id": U32, "text": STRING}, primary_key="id"), table("visits", {"at": U32, "what": STRING})],
        {
            "init": reducer(init, lifecycle=Lifecycle.INIT),
            "connected": reducer(note("came"), lifecycle=Lifecycle.ON_CONNECT),
            "disconnected": reducer(note("went"), lifecycle=Lifecycle.ON_DISCONNECT),
            "add": reducer(add, {"number": U32}),
        },
    )


@asynccontextmanager
async def two_databases(
    storage: MemoryStorage | None = None, deadline: NoDeadline | None = None
) -> AsyncIterator[tuple[Host, DatabaseHandle, DatabaseHandle]]:
    async with open_host({b"world": world}, storage, deadline=deadline) as host:
        first = await host.publish(OWNER, b"world", name="first")
        second = await host.publish(OWNER, b"world", name="second")
        yield host, host.database(first.identity), host.database(second.identity)


class Slices:
    """Counts how often an evaluation went on."""

    def __init__(self) -> None:
        self.count = 0

    def run_slice(self, steps: Steps[Any]) -> Done[Any] | None:
        self.count += 1
        return pausing.run_slice(steps)


@contextmanager
def shortest_slices() -> Iterator[Slices]:
    """Pause at every chance."""
    slices = Slices()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pausing, "SLICE_SECONDS", 0.0)
        patch.setattr(database, "run_slice", slices.run_slice)
        yield slices


def paused(test: Callable[[DatabaseHandle, DatabaseHandle, Slices], Awaitable[None]]) -> Callable[[], None]:
    def wrapped() -> None:
        async def main() -> None:
            async with two_databases() as (_, first, second):
                with shortest_slices() as slices:
                    await test(first, second, slices)

        run(main)

    wrapped.__name__ = test.__name__
    return wrapped


def someone(who: int | bytes = 1, connection: int = 77) -> Client:
    sender = who if isinstance(who, bytes) else identity(who)
    return Client(sender, connection.to_bytes(16, "little"), "{}")


def number(value: int) -> bytes:
    return value.to_bytes(4, "little")


def is_suspended(handle: DatabaseHandle) -> bool:
    return handle._actor._suspended is not None


async def wait_suspended(handle: DatabaseHandle, *, slices: int = 2) -> None:
    """Return in the middle of an evaluation."""
    for _ in range(slices):
        await trio.lowlevel.checkpoint()
        while not is_suspended(handle):
            await trio.lowlevel.checkpoint()


class Asked:
    """A statement that is under way, and how it ends."""

    def __init__(self, nursery: trio.Nursery, handle: DatabaseHandle, client: Client, text: str) -> None:
        self.scope = trio.CancelScope()
        self.result: SqlResult | None = None
        self.error: Exception | None = None
        self.is_over = trio.Event()
        nursery.start_soon(self._ask, handle, client, text)

    async def _ask(self, handle: DatabaseHandle, client: Client, text: str) -> None:
        try:
            with self.scope:
                self.result = await handle.sql(client, text)
        except (QueryError, DatabaseUnavailable) as error:
            self.error = error
        finally:
            self.is_over.set()


def visits(handle: DatabaseHandle) -> list[str]:
    stored = handle._actor.datastore.table("visits")
    return [stored.schema.codec.decode_exact(row)[1] for row in stored.rows()]


def texts(handle: DatabaseHandle) -> set[str]:
    stored = handle._actor.datastore.table("big")
    return {stored.schema.codec.decode_exact(row)[1] for row in stored.rows()}


# Others run, writers wait


@paused
async def test_clients_of_another_database_are_served_between_two_slices(
    first: DatabaseHandle, second: DatabaseHandle, slices: Slices
) -> None:
    bob = TestClient(second, 2)
    await bob.sink.wait_count(1)
    between: list[int] = []
    async with trio.open_nursery() as nursery:
        asked = Asked(nursery, first, someone(), READ)
        await wait_suspended(first)
        while is_suspended(first):
            before = slices.count
            await bob.call("add", number(ROWS + len(between)))
            between.append(slices.count - before)
    assert asked.result is not None
    assert len(asked.result.rows) == ROWS
    assert len(between) > 2, "it took several slices, and bob was served in between"
    assert max(between) <= 4, "a few passes of the event loop, not the whole read"


@paused
async def test_writers_wait_for_a_read_which_sees_one_state(
    first: DatabaseHandle, second: DatabaseHandle, slices: Slices
) -> None:
    ann = TestClient(first, 1)
    await ann.sink.wait_count(1)
    async with trio.open_nursery() as nursery:
        asked = Asked(nursery, first, someone(), READ)
        await wait_suspended(first)
        result = await ann.call("add", number(ROWS))
        assert result.outcome.kind == OutcomeKind.COMMITTED
        await asked.is_over.wait()
    assert asked.result is not None
    assert len(asked.result.rows) == ROWS
    assert len((await first.sql(someone(), READ)).rows) == ROWS + 1


@paused
async def test_subscriptions_and_queries_pause_and_answer_in_order(
    first: DatabaseHandle, second: DatabaseHandle, slices: Slices
) -> None:
    ann, bob = TestClient(first, 1), TestClient(first, 2)
    await ann.sink.wait_count(1)
    await bob.sink.wait_count(1)
    ann.submit(
        Subscribe(SubscriptionKind.SET, 1, 1, (READ,)),
        OneOffQuery(2, "SELECT * FROM big WHERE text = 'old'"),
        SubscribeBatch(3, ((2, (READ,)), (3, ("nonsense",)))),
        Subscribe(SubscriptionKind.MULTI, 4, 4, (READ,)),
        Subscribe(SubscriptionKind.SINGLE, 5, 5, ("SELECT * FROM big WHERE id < 9999",)),
        Subscribe(SubscriptionKind.LEGACY, 6, 0, (READ,)),
        Unsubscribe(SubscriptionKind.SET, 7, 1),
        Unsubscribe(SubscriptionKind.SINGLE, 8, 5),
        Unsubscribe(SubscriptionKind.MULTI, 9, 4),
        Unsubscribe(SubscriptionKind.MULTI, 10, 4),
    )
    await wait_suspended(first)
    assert (await bob.call("add", number(ROWS))).outcome.kind == OutcomeKind.COMMITTED
    messages = (await ann.sink.wait_count(12))[1:]
    answers = [message for message in messages if not isinstance(message, Updated)]
    kinds = [Applied, OneOff, BatchApplied, Applied, Applied, Applied]
    assert [type(each) for each in answers] == [*kinds, Unsubscribed, Unsubscribed, Unsubscribed, SubscriptionFailed]
    one_off = answers[1]
    assert isinstance(one_off, OneOff)
    assert not isinstance(one_off.result, str)
    assert ROWS <= len(one_off.result.inserts) <= ROWS + 1
    stored = set(first._actor.datastore.table("big").rows())
    held = ann.sink.rows()
    assert {key for key in held if key[0] == 2} == {(2, "big", row) for row in stored}
    assert {key[2] for key in held if key[0] is None} == stored, "the legacy set is left of v1"


def test_what_waits_for_the_disk_leaves_while_a_read_is_suspended() -> None:
    async def main() -> None:
        storage = MemoryStorage(delayed=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sync_always, storage, stop := trio.Event())
            async with two_databases(storage) as (_, first, _second):
                with shortest_slices():
                    ann = TestClient(first, 1, confirmed=True)
                    await ann.subscribe(1, "SELECT * FROM visits")
                    stop.set()
                    await trio.testing.wait_all_tasks_blocked()
                    asked = Asked(nursery, first, someone(2), READ)
                    await wait_suspended(first)
                    assert ann.messages(Updated) == []
                    storage.sync()
                    await trio.lowlevel.checkpoint()
                    await trio.lowlevel.checkpoint()
                    assert is_suspended(first)
                    assert len(ann.messages(Updated)) == 1, "somebody came"
                    nursery.start_soon(sync_always, storage, trio.Event())
                    await asked.is_over.wait()
            nursery.cancel_scope.cancel()

    run(main)


async def sync_always(storage: MemoryStorage, stop: trio.Event) -> None:
    while not stop.is_set():
        storage.sync()
        await trio.sleep(0.001)


class Watch(NoDeadline):
    """A deadline that knows whether it is armed."""

    def __init__(self) -> None:
        super().__init__()
        self.is_armed = False

    def arm(self) -> None:
        self.is_armed = True

    def disarm(self) -> None:
        self.is_armed = False


def test_a_disconnect_behind_a_long_read_is_held_to_the_time_limit_of_reducers() -> None:
    deadline = Watch()
    went: list[bool] = []

    class Module(FunctionModule):
        def reducer(self, reducer_id: int):  # type: ignore[no-untyped-def]
            run_it = super().reducer(reducer_id)
            if self.definition.reducers[reducer_id].lifecycle is not Lifecycle.ON_DISCONNECT:
                return run_it

            def watched(call, args):  # type: ignore[no-untyped-def]
                went.append(deadline.is_armed)
                run_it(call, args)

            return watched

    async def main() -> None:
        def load() -> Module:
            module = world()
            module.__class__ = Module
            return module  # type: ignore[return-value]

        async with open_host({b"world": load}, deadline=deadline) as host:
            published = await host.publish(OWNER, b"world")
            with shortest_slices() as slices:
                await host.database(published.identity).sql(someone(), READ)

                assert slices.count > 5, "it was read in several turns"

    run(main)
    assert went == [True]


# What may happen in between


@paused
async def test_a_client_that_leaves_meanwhile_is_not_read_for_any_longer(
    first: DatabaseHandle, second: DatabaseHandle, slices: Slices
) -> None:
    ann = TestClient(first, 1)
    await ann.sink.wait_count(1)
    ann.submit(Subscribe(SubscriptionKind.SET, 1, 1, (READ,)))
    await wait_suspended(first)
    before = slices.count
    await ann.leave()
    assert slices.count - before <= 4
    assert not ann.messages(Applied)
    assert len(first._actor.registry) == 0
    assert visits(first) == ["came 1", "went 1"]


@paused
async def test_a_read_over_http_ends_with_its_requester_and_a_change_does_not(
    first: DatabaseHandle, second: DatabaseHandle, slices: Slices
) -> None:
    async with trio.open_nursery() as nursery:
        asked = Asked(nursery, first, someone(1), READ)
        await wait_suspended(first)
        asked.scope.cancel()
        before = slices.count
        while is_suspended(first):
            await trio.lowlevel.checkpoint()
        assert slices.count - before <= 4
        assert visits(first) == ["came 1", "went 1"]
        asked = Asked(nursery, first, someone(OWNER), CHANGE)
        await wait_suspended(first)
        asked.scope.cancel()
    await first.sql(someone(OWNER, 78), "SELECT * FROM visits")
    assert texts(first) == {"new"}


@pytest.mark.parametrize("text", [READ, CHANGE])
def test_a_database_that_is_deleted_meanwhile_runs_nothing_more(text: str) -> None:
    async def main() -> None:
        async with two_databases() as (host, first, second), trio.open_nursery() as nursery:
            with shortest_slices():
                ann = TestClient(first, 1)
                await ann.sink.wait_count(1)
                actor = first._actor
                asked = Asked(nursery, first, someone(OWNER), text)
                await wait_suspended(first, slices=5)
                offset = actor.datastore.next_offset
                await host.delete(OWNER, first.identity)
                await asked.is_over.wait()
                assert isinstance(asked.error, DatabaseUnavailable)
                assert ann.sink.closed == Closed(1001, "module exited")
                assert actor.datastore.next_offset == offset, "nobody was disconnected, nothing was committed"
                assert actor._suspended is None
                assert len((await second.sql(someone(), READ)).rows) == ROWS

    run(main)


@pytest.mark.parametrize("text", [READ, CHANGE])
def test_a_bug_in_the_middle_ends_the_database_which_comes_back_as_it_was(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with two_databases() as (_, first, second), trio.open_nursery() as nursery:
            with shortest_slices():
                ann = TestClient(first, 1)
                await ann.sink.wait_count(1)
                asked = Asked(nursery, first, someone(OWNER), text)
                await wait_suspended(first, slices=5)
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(Work, "spend", broken)
                    await asked.is_over.wait()
                assert isinstance(asked.error, DatabaseUnavailable)
                assert ann.sink.closed == Closed(1011, "database restarting")
                assert len((await second.sql(someone(), READ)).rows) == ROWS
                await trio.sleep(1)
                assert len((await first.sql(someone(), READ)).rows) == ROWS
                assert texts(first) == {"old"}
                assert visits(first)[:4] == ["came 1", "came 99", "went 1", "went 99"], "dangling ones were sent away"
                first._actor.datastore.verify()

    run(main)
    assert caplog.text.count("RuntimeError: a bug of ours") == 1


def broken(self: Work, rows: int) -> None:
    raise RuntimeError("a bug of ours")


@pytest.mark.parametrize(("text", "wanted"), [(READ, "old"), (CHANGE, "new")])
def test_a_shutdown_waits_for_what_is_half_way(text: str, wanted: str) -> None:
    async def main() -> None:
        storage = MemoryStorage()
        asked = None
        async with trio.open_nursery() as nursery, two_databases(storage) as (_, first, _second):
            with shortest_slices():
                asked = Asked(nursery, first, someone(OWNER), text)
                await wait_suspended(first)
                name = first.identity
        assert asked.result is not None
        async with open_host({b"world": world}, storage) as host:
            first = host.database(name)
            await first.ready()
            assert texts(first) == {wanted}
            assert visits(first) == ["came 99", "went 99"]
        storage.close()

    run(main)


@paused
async def test_requests_behind_a_suspended_one_of_the_same_client_are_all_served(
    first: DatabaseHandle, second: DatabaseHandle, slices: Slices
) -> None:
    ann = TestClient(first, 1)
    await ann.sink.wait_count(1)
    for i in range(3):
        ann.submit(Subscribe(SubscriptionKind.SET, i, i, (READ,)), OneOffQuery(i, "SELECT * FROM visits"))
        ann.call_nowait("add", number(ROWS + i))
    messages = await ann.sink.wait_count(10)
    assert [type(each).__name__ for each in messages if not isinstance(each, Updated)][1:] == [
        "Applied",
        "OneOff",
        "Result",
    ] * 3
    assert ann.attachment.queued == 0
    assert first._actor._queued == 0


def test_rows_that_only_a_join_may_multiply_are_bounded() -> None:
    async def main() -> None:
        settings = HostSettings(query_rows_max=10 * ROWS, initial_bytes_max=ROWS * 11 * 2)
        async with open_host({b"world": world}, settings=settings) as host:
            published = await host.publish(OWNER, b"world")
            handle = host.database(published.identity)
            ann, owner = TestClient(handle, 1), TestClient(handle, OWNER)
            await ann.subscribe(1, READ)
            pairs = "SELECT a.* FROM big a JOIN big b ON a.id = b.id"
            await owner.subscribe(1, pairs)
            ann.submit(Subscribe(SubscriptionKind.SET, 2, 2, (pairs,)))
            (failed,) = await ann.wait_for(SubscriptionFailed, 1)
            assert isinstance(failed, SubscriptionFailed)
            assert failed.text.startswith(f"The query visits and returns more than {ROWS} rows; ")
            owner.submit(Subscribe(SubscriptionKind.SET, 3, 3, (READ, pairs, pairs.replace("JOIN", "join"))))
            (failed,) = await owner.wait_for(SubscriptionFailed, 1)
            assert isinstance(failed, SubscriptionFailed)
            assert "bytes" in failed.text

    run(main)
