"""Random clients under random schedules, slow disks and crashes: what every client sees stays true.

Invariants of spec 07 section 12: I21, I24, I26, I27, I29, I31, I32.
"""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.actors import pausing
from stdb.actors.handle import DatabaseHandle
from stdb.actors.refusals import DatabaseUnavailable
from stdb.actors.requests import CallReducer, OneOffQuery, Subscribe, SubscriptionKind, Unsubscribe
from stdb.actors.sink import Client
from stdb.errors import QueryError
from stdb.sql import changes, join_route, work
from stdb.testing.hosts import TestClient, identity, open_host
from stdb.testing.sinks import Applied, Message, OneOff, Result, Updated
from stdb.testing.storage import MemoryStorage
from tests.actors_chat import chat
from tests.test_actors_database import text

OWNER = identity(99)
QUERIES = (
    "SELECT * FROM message",
    "SELECT * FROM message WHERE text = 'a'",
    "SELECT * FROM events WHERE what = 'b' OR what = 'a'",
    "SELECT * FROM online",
    "SELECT * FROM st_client",
    "SELECT a.* FROM message a JOIN message b ON a.id = b.id WHERE b.text = 'a'",
    "SELECT o.* FROM online o JOIN online b ON o.who = b.who",
)
STATEMENTS = (
    "INSERT INTO message (id, sender, text) VALUES (0, 5, 'a'), (0, 5, 'b'), (0, 6, 'c')",
    "INSERT INTO events (what) VALUES ('a'), ('c')",
    "UPDATE events SET what = 'b'",
    "DELETE FROM events WHERE what = 'b'",
    "INSERT INTO online (who, count) VALUES (77, 1), (77, 2)",  # refused half-way
    "SELECT * FROM message WHERE text = 'a'",
)


class Subscribing(NamedTuple):
    set_id: int
    query: int


class Unsubscribing(NamedTuple):
    set_id: int


class Calling(NamedTuple):
    reducer: str
    text: str


class Stating(NamedTuple):
    """Runs a statement as the owner over HTTP; perhaps gives up the answer."""

    statement: int
    is_given_up: bool


class Pausing(NamedTuple):
    pass


class Leaving(NamedTuple):
    """Leaves and comes back; at once the client's own doing, or cancelled in the middle of waiting."""

    cancelled: bool


class Person(NamedTuple):
    confirmed: bool
    is_v1: bool
    is_slow: bool
    steps: list[Any]


STEPS = st.one_of(
    st.builds(Subscribing, st.integers(0, 3), st.integers(0, len(QUERIES) - 1)),
    st.builds(Unsubscribing, st.integers(0, 3)),
    st.builds(Calling, st.sampled_from(["say", "note", "write_and_fail", "nothing"]), st.sampled_from("abc")),
    st.builds(Stating, st.integers(0, len(STATEMENTS) - 1), st.booleans()),
    st.builds(Pausing),
    st.builds(Leaving, st.booleans()),
)
PEOPLE = st.lists(
    st.builds(Person, st.booleans(), st.booleans(), st.booleans(), st.lists(STEPS, max_size=12)),
    min_size=1,
    max_size=4,
)


class World:
    """One run: its storage, everybody who was ever connected, what confirmed clients saw."""

    def __init__(self, sync_every: int) -> None:
        self.storage = MemoryStorage(delayed=True)
        self.sync_every = sync_every
        self.connected: list[TestClient] = []
        self.where = b""


async def sync_now_and_then(world: World) -> None:
    chosen = random.Random(world.sync_every)
    while True:
        await trio.sleep(0.001)
        for log in world.storage.logs.values():
            log.sync(chosen.randrange(1, 6))


async def live(world: World, handle: DatabaseHandle, number: int, person: Person) -> TestClient:
    """Play one person; return its last connection."""
    me = connect(world, handle, number, person)
    for step in person.steps:
        match step:
            case Pausing():
                await trio.sleep(0.0015 if person.is_slow else 0)
            case Leaving(cancelled):
                await leave(me, cancelled)
                me = connect(world, handle, number, person)
            case Stating(statement, is_given_up):
                await state(handle, number, STATEMENTS[statement], is_given_up)
            case Calling(reducer, argument):
                me.submit(CallReducer(1, reducer, b"" if reducer == "nothing" else text(argument)))
            case Subscribing(set_id, query):
                kind = SubscriptionKind.MULTI if person.is_v1 else SubscriptionKind.SET
                me.submit(Subscribe(kind, 2, set_id, (QUERIES[query],)))
            case Unsubscribing(set_id):
                kind = SubscriptionKind.MULTI if person.is_v1 else SubscriptionKind.SET
                me.submit(Unsubscribe(kind, 3, set_id))
        if random.random() < 0.3:
            await trio.lowlevel.checkpoint()
    return me


async def state(handle: DatabaseHandle, number: int, statement: str, is_given_up: bool) -> None:
    client = Client(OWNER, number.to_bytes(16, "big"), "{}")
    with trio.move_on_after(0.0005 if is_given_up else 5), suppress(QueryError):
        await handle.sql(client, statement, confirmed=not is_given_up)


@contextmanager
def pauses(rows: int) -> Iterator[None]:
    """Have everything that may be suspended suspended as often as can be: every so many rows; 0: hardly ever."""
    with pytest.MonkeyPatch.context() as patch:
        if rows:
            patch.setattr(pausing, "SLICE_SECONDS", 0.0)
            for module in (work, join_route, changes):
                patch.setattr(module, "BATCH", rows)
        yield


async def live_until_killed(world: World, handle: DatabaseHandle, number: int, person: Person) -> None:
    with suppress(DatabaseUnavailable):
        await live(world, handle, number, person)


def connect(world: World, handle: DatabaseHandle, number: int, person: Person) -> TestClient:
    client = TestClient(handle, number, confirmed=person.confirmed)
    world.connected.append(client)
    return client


async def leave(client: TestClient, cancelled: bool) -> None:
    with trio.CancelScope() as scope:
        if cancelled:
            scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        finally:
            client.attachment.detach_nowait()
    with trio.CancelScope(shield=True):
        await client.attachment.wait_detached()


async def fresh(world: World, client: TestClient) -> Counter[tuple[object, str, bytes]]:
    """Return what the client's subscriptions are worth now, asked query by query."""
    held: dict[int, str] = {}
    is_v1 = False
    for message in client.sink.received:
        if isinstance(message, Applied):
            held[message.request.query_set_id] = message.request.queries[0]
            is_v1 = message.request.kind is SubscriptionKind.MULTI
        elif type(message).__name__ == "Unsubscribed":
            held.pop(message.request.query_set_id)  # type: ignore[union-attr]
    expected: Counter[tuple[object, str, bytes]] = Counter()
    counted = [(None, query) for query in sorted(set(held.values()))] if is_v1 else list(held.items())
    for key, query in counted:
        request = OneOffQuery(4, query)
        client.submit(request)
        answer = await wait_for(client, lambda message, request=request: getattr(message, "request", 0) is request)
        assert isinstance(answer, OneOff)
        assert not isinstance(answer.result, str)
        for row in answer.result.inserts:
            expected[key, answer.result.table_name, row] += 1
    return expected


async def wait_for(client: TestClient, wanted: Any) -> Message:
    while True:
        for message in client.sink.received:
            if wanted(message):
                return message
        await client.sink.wait_count(len(client.sink.received) + 1)


async def play(people: list[Person], sync_every: int) -> None:
    world = World(sync_every)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sync_now_and_then, world)
            async with open_host({b"chat": chat}, world.storage) as host:
                world.where = (await host.publish(OWNER, b"chat")).identity
                handle = host.database(world.where)
                last: list[TestClient] = []

                async def one(number: int, person: Person) -> None:
                    last.append(await live(world, handle, number, person))

                async with trio.open_nursery() as lives:
                    for number, person in enumerate(people, 1):
                        lives.start_soon(one, number, person)
                await settle(last)
                for client in last:
                    assert client.sink.rows() == await fresh(world, client), "I24"
                check_confirmed(world)
                handle._actor.datastore.verify()
                assert handle.client_count == len(last), "I21"
                world.connected.extend(last)
            nursery.cancel_scope.cancel()
    await check_after_restart(world)


async def settle(clients: list[TestClient]) -> None:
    """Let every request be answered and every answer leave."""
    for client in clients:
        request = OneOffQuery(9, QUERIES[0])
        client.submit(request)
        await wait_for(client, lambda message, request=request: getattr(message, "request", 0) is request)


def check_confirmed(world: World) -> None:
    """I29, first half, and the order of I26: confirmed clients get nothing too early, everybody in order."""
    for client in world.connected:
        sink = client.sink
        for durable, needs in zip(sink.durable_at, sink.needs, strict=True):
            assert needs <= durable
        told = [message.event.needs for message in sink.received if isinstance(message, Updated | Result)]
        assert told == sorted(told)


async def check_after_restart(world: World) -> None:
    """After a restart nobody is connected and what confirmed clients saw is there (I21, I29)."""
    seen = {
        row
        for client in world.connected
        if client.sink.confirmed
        for (_, name, row) in client.sink.rows()
        if name == "message"
    }
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sync_now_and_then, world)
        async with open_host({b"chat": chat}, world.storage) as host:
            handle = host.database(world.where)
            await handle.ready()
            await trio.testing.wait_all_tasks_blocked()
            datastore = handle._actor.datastore
            datastore.verify()
            assert len(datastore.table("st_client")) == len(datastore.table("online")) == 0
            assert seen <= set(datastore.table("message").rows())
        nursery.cancel_scope.cancel()


@settings(max_examples=60, deadline=None)
@given(people=PEOPLE, sync_every=st.integers(0, 99), batch=st.integers(0, 2), schedule=st.random_module())
def test_every_client_ends_with_the_query_result(
    people: list[Person], sync_every: int, batch: int, schedule: object
) -> None:
    with pauses(batch):
        trio.run(play, people, sync_every, clock=trio.testing.MockClock(autojump_threshold=0))


async def play_and_crash(people: list[Person], sync_every: int, crash_after: int, surviving: int) -> None:
    world = World(sync_every)
    with trio.move_on_after(10) as scope:
        async with trio.open_nursery() as nursery, open_host({b"chat": chat}, world.storage) as host:
            nursery.start_soon(sync_now_and_then, world)
            world.where = (await host.publish(OWNER, b"chat")).identity
            handle = host.database(world.where)
            for number, person in enumerate(people, 1):
                person.steps[:0] = [Subscribing(9, 0), Calling("say", "a"), Calling("say", "b")]
                nursery.start_soon(live_until_killed, world, handle, number, person)
            disk = world.storage.logs[world.where]
            for _ in range(crash_after):
                await trio.lowlevel.checkpoint()
                if random.random() < 0.4:
                    disk.sync(random.randrange(1, 4))
            check_confirmed(world)
            disk.crash(surviving)
            scope.cancel()
            await trio.sleep_forever()
    assert trio.current_time() < scope.deadline
    with trio.fail_after(10):
        await check_after_restart(world)


@settings(max_examples=60, deadline=None)
@given(
    people=PEOPLE,
    sync_every=st.integers(0, 99),
    crash_after=st.integers(0, 60),
    surviving=st.integers(0, 3),
    batch=st.integers(0, 2),
    schedule=st.random_module(),
)
def test_a_crash_at_any_moment_loses_nothing_that_was_confirmed(
    people: list[Person], sync_every: int, crash_after: int, surviving: int, batch: int, schedule: object
) -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    with pauses(batch):
        trio.run(play_and_crash, people, sync_every, crash_after, surviving, clock=clock)
