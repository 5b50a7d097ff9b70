"""Views of a running database: their rows, their differences, what makes them run, how they fail, how they change."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from stdb.actors.deadline import open_deadline
from stdb.actors.handle import DatabaseHandle
from stdb.actors.host import Host
from stdb.actors.refusals import PublishFailed
from stdb.actors.requests import OneOffQuery, Subscribe, SubscriptionKind
from stdb.actors.sink import Client, OutcomeKind
from stdb.actors.updates import Policy
from stdb.datastore.records import decode_changes
from stdb.errors import QueryError
from stdb.sats import bsatn
from stdb.sats.types import IDENTITY, STRING, U32, Element, Product
from stdb.sql import finish
from stdb.testing.hosts import TestClient, identity, open_host
from stdb.testing.modules import view
from stdb.testing.sinks import Closed, OneOff, SubscriptionFailed, Updated
from stdb.testing.storage import MemoryStorage
from tests import actors_loops, views_shop
from tests.property.test_views import Drawn, ViewsWorld, by_links, by_owner_key
from tests.test_actors_database import lines, run
from tests.views_shop import OWNER, RUNS, shop

ITEM = bsatn.codec(Product((Element("id", U32), Element("owner", IDENTITY), Element("kind", U32))))
PROGRAMS = {
    b"shop": shop,
    b"other": lambda: shop("2", everything=view(views_shop.other, "item", anonymous=True, primary_key="id")),
    b"gone": lambda: shop("3", everything=None),
    b"by caller": lambda: shop("4", everything=view(views_shop.mine, "item", primary_key="id")),
    b"private": lambda: shop(
        "5", everything=view(views_shop.other, "item", anonymous=True, public=False, primary_key="id")
    ),
    b"no key": lambda: shop("7", mine=view(views_shop.mine, "item", primary_key="zz")),
    b"more": lambda: shop("6", more=view(views_shop.other, "item", anonymous=True)),
}


def with_host(test: Callable[[Host, DatabaseHandle], Awaitable[None]]) -> Callable[[], None]:
    """Make a test of a coroutine that takes a host and its one database, the shop."""

    def synchronous() -> None:
        async def main() -> None:
            RUNS.clear()
            async with open_host(PROGRAMS) as host:
                published = await host.publish(OWNER, b"shop", name="shop")
                await test(host, host.database(published.identity))

        run(main)

    synchronous.__name__, synchronous.__doc__ = test.__name__, test.__doc__
    return synchronous


def with_shop(test: Callable[[DatabaseHandle], Awaitable[None]]) -> Callable[[], None]:
    """Make a test of a coroutine that takes the shop."""

    async def of_handle(_host: Host, handle: DatabaseHandle) -> None:
        await test(handle)

    of_handle.__name__ = test.__name__
    return with_host(of_handle)


def args(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "little") for number in numbers)


def text_arg(text: str) -> bytes:
    return bsatn.codec(STRING).encode(text)


def ids(client: TestClient, name: str) -> list[int]:
    """Return the ids of the items that a client holds of a table or view."""
    return sorted(ITEM.decode_exact(row)[0] for (_, table, row), n in client.sink.rows().items() if table == name and n)


async def refused(client: TestClient, query: str) -> str:
    client.submit(Subscribe(SubscriptionKind.SET, 77, 77, (query,)))
    (failure,) = (await client.wait_for(SubscriptionFailed, 1))[-1:]
    assert isinstance(failure, SubscriptionFailed)
    return failure.text


async def one_off(client: TestClient, query: str) -> Any:
    known = len(client.messages(OneOff))
    client.submit(OneOffQuery(b"q", query))
    answer = (await client.wait_for(OneOff, known + 1))[-1]
    assert isinstance(answer, OneOff)
    return answer.result


async def sql(handle: DatabaseHandle, text: str, who: bytes = OWNER) -> Any:
    return (await handle.sql(Client(who, b"c" * 16, "{}"), text)).rows


# Rows and differences


@with_shop
async def test_each_caller_sees_its_own_rows_and_how_they_change(handle: DatabaseHandle) -> None:
    ann, bob = TestClient(handle, 1), TestClient(handle, 2)
    await ann.call("add", args(1, 0))
    (rows,) = (await ann.subscribe(1, "SELECT * FROM mine")).rows
    assert (len(rows.inserts), rows.table_name) == (1, "mine")
    assert (await bob.subscribe(1, "SELECT * FROM mine")).rows == []
    result = await ann.call("add", args(2, 0))
    assert result.update is not None, "the caller's own views change with its transaction"
    await bob.call("add", args(3, 0))
    await ann.call("drop", args(1))
    assert (ids(ann, "mine"), ids(bob, "mine")) == ([2], [3])
    assert bob.messages(Updated) == [], "rows of others are no news"


@with_shop
async def test_rows_go_out_under_the_id_of_the_backing_table(handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    await ann.call("add", args(1, 0))
    ((shown,),) = await sql(handle, "SELECT table_id FROM st_table WHERE table_name = 'mine'")
    (first,) = (await ann.subscribe(1, "SELECT * FROM mine")).rows
    result = await ann.call("add", args(2, 0))
    assert result.update is not None
    assert [first.table_id, result.update.sets[0].fragments[0].table_id] == [shown, shown]
    answer = await one_off(ann, "SELECT * FROM mine")
    assert (answer.table_id, answer.table_name, len(answer.inserts)) == (shown, "mine", 2)


@with_shop
async def test_an_anonymous_view_runs_once_for_all_who_read_it(handle: DatabaseHandle) -> None:
    clients = [TestClient(handle, who) for who in (1, 2, 3)]
    for client in clients:
        await client.subscribe(1, "SELECT * FROM everything")
    assert RUNS["everything"] == 1
    await clients[0].call("add", args(1, 0))
    updates = [(await client.wait_for(Updated, 1))[0] for client in clients[1:]]
    assert RUNS["everything"] == 2
    assert updates[0].update is updates[1].update  # type: ignore[attr-defined]  # messages of this kind
    assert [ids(client, "everything") for client in clients] == [[1]] * 3


@with_shop
async def test_equal_rows_collapse(handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    await ann.call("add", args(1, 0))
    assert len((await ann.subscribe(1, "SELECT * FROM everything")).rows[0].inserts) == 1
    assert len(await sql(handle, "SELECT * FROM everything")) == 1


@with_shop
async def test_a_view_that_reads_nothing_of_a_change_does_not_run(handle: DatabaseHandle) -> None:
    clients = [TestClient(handle, who) for who in range(1, 9)]
    for number, client in enumerate(clients):
        await client.call("set_mark", args(number))
        await client.subscribe(1, "SELECT * FROM my_mark")
    assert RUNS["my_mark"] == len(clients)
    await clients[3].call("set_mark", args(77))
    assert RUNS["my_mark"] == len(clients) + 1, "the others look up other keys"
    await clients[3].call("add", args(1, 1))
    assert RUNS["my_mark"] == len(clients) + 1
    assert [sum(client.sink.rows().values()) for client in clients] == [1] * len(clients)


@with_shop
async def test_what_nobody_reads_any_more_is_forgotten(handle: DatabaseHandle) -> None:
    datastore = handle._actor.datastore
    ann, bob = TestClient(handle, 1), TestClient(handle, 2)
    await ann.subscribe(1, "SELECT * FROM everything")
    await bob.subscribe(1, "SELECT * FROM everything WHERE kind = 1")
    await one_off(ann, "SELECT * FROM mine")
    await sql(handle, "SELECT * FROM of_kind(3)")
    assert [table.schema.name for table in datastore.views.instances()] == ["everything"]
    await ann.leave()
    assert [table.schema.name for table in datastore.views.instances()] == ["everything"]
    await bob.leave()
    assert list(datastore.views.instances()) == []
    assert datastore.refresh_views is None, "a database that nobody reads views of pays nothing for them"
    runs = RUNS.total()
    await TestClient(handle, 3).call("add", args(1, 0))
    assert RUNS.total() == runs


@with_shop
async def test_views_use_no_offset_and_are_in_no_record(handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    await ann.subscribe(1, "SELECT * FROM everything")
    before = handle._actor.datastore.next_offset
    await ann.call("add", args(1, 0))
    await one_off(ann, "SELECT * FROM mine")
    assert handle._actor.datastore.next_offset == before + 1
    record = next(iter(handle._actor.log.records(before)))

    assert [change.table_id for change in decode_changes(record)] == [handle._actor.datastore.table("item").schema.id]


def test_views_are_there_again_after_a_restart() -> None:
    async def main() -> None:
        storage = MemoryStorage()
        async with open_host(PROGRAMS, storage) as host:
            where = (await host.publish(OWNER, b"shop")).identity
            await TestClient(host.database(where), 1).call("add", args(1, 0))
        async with open_host(PROGRAMS, storage) as host:
            await host.database(where).ready()
            ann = TestClient(host.database(where), 1)
            await ann.subscribe(1, "SELECT * FROM mine", "SELECT * FROM everything")
            await ann.call("add", args(2, 0))
            assert ids(ann, "mine") == ids(ann, "everything") == [1, 2]
        storage.close()

    run(main)


@with_shop
async def test_views_join_tables_and_views(handle: DatabaseHandle) -> None:
    ann, bob = TestClient(handle, 1), TestClient(handle, 2)
    queries = (
        "SELECT i.* FROM item i JOIN mine m ON i.id = m.id",
        "SELECT m.* FROM mine m JOIN everything e ON m.id = e.id WHERE e.kind = 1",
    )
    await ann.subscribe(1, *queries)
    await bob.call("add", args(1, 1))
    await ann.call("add", args(2, 0))
    await ann.call("add", args(3, 1))
    assert (ids(ann, "item"), ids(ann, "mine")) == ([2, 3], [3])
    await bob.call("drop", args(3))
    await ann.wait_for(Updated, 1)
    assert (ids(ann, "item"), ids(ann, "mine")) == ([2], [])
    assert await refused(ann, "SELECT a.* FROM of_kind(1) a JOIN item b ON a.id = b.id") != ""
    assert "require indexes on join columns" in await refused(
        bob, "SELECT a.* FROM mine a JOIN picky b ON a.kind = b.kind"
    )


@with_shop
async def test_rows_of_event_tables_are_over_when_a_view_runs(handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    await ann.subscribe(1, "SELECT * FROM events", "SELECT * FROM everything")
    runs = RUNS["events"]
    await ann.call("ping")
    assert (ids(ann, "events"), ids(ann, "everything")) == ([], [50])
    assert RUNS["events"] == runs


@with_shop
async def test_all_tables_are_with_the_views_that_can_be_read_without_arguments(handle: DatabaseHandle) -> None:
    ann, owner = TestClient(handle, 1), TestClient(handle, OWNER)
    await ann.call("add", args(1, 1))
    views = ["by_query", "by_query_as_one", "everything", "mine", "one", "picky", "same_key"]
    rows = (await ann.subscribe(1, "SELECT * FROM *")).rows
    assert [fragment.table_name for fragment in rows] == sorted(["item", *views])
    assert "hidden" in [fragment.table_name for fragment in (await owner.subscribe(1, "select * from *")).rows]


@with_shop
async def test_a_private_view_is_the_owners(handle: DatabaseHandle) -> None:
    await TestClient(handle, 1).call("add", args(1, 1))
    assert len(await sql(handle, "SELECT * FROM hidden")) == 1
    with pytest.raises(QueryError, match="no such table: `hidden`"):
        await sql(handle, "SELECT * FROM hidden", identity(1))


@with_shop
async def test_a_query_finds_what_it_finds_though_crate_1_12_types_it_as_one_row(handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    await ann.subscribe(1, "SELECT * FROM by_query_as_one")
    for number in (1, 2, 3):
        await ann.call("add", args(number, number % 2))
    assert ids(ann, "by_query_as_one") == [1, 3]


@with_shop
async def test_a_view_may_be_a_query(handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    await ann.subscribe(1, "SELECT * FROM by_query")
    for number in (1, 2, 3):
        await ann.call("add", args(number, number % 2))
    assert ids(ann, "by_query") == [1, 3]
    await ann.call("make_trouble", text_arg("SELECT * FROM item WHERE id = 2"))
    assert ids(ann, "by_query") == [2]
    runs = RUNS["by_query"]
    await ann.call("drop", args(1))
    assert RUNS["by_query"] == runs, "it looks at one key"
    await ann.call("drop", args(2))
    assert ids(ann, "by_query") == []


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("SELECT * FROM everything", "`everything` is a view; a view reads tables only"),
        ("SELECT * FROM trouble", "the query of view `by_query` returns rows of another type: SELECT * FROM trouble"),
        ("SELECT * FROM nowhere", "no such table: `nowhere`. If the table exists, it may be marked private."),
        ("   ", ""),
    ],
)
def test_a_view_that_is_no_query_of_its_rows_fails(query: str, error: str) -> None:
    @with_shop
    async def test(handle: DatabaseHandle) -> None:
        ann = TestClient(handle, 1)
        await ann.call("make_trouble", text_arg(query))
        result = await one_off(ann, "SELECT * FROM by_query")
        assert result == error if error else result.inserts == []

    test()


# Failures


@with_shop
async def test_a_view_that_fails_when_first_read_fails_the_query(handle: DatabaseHandle) -> None:
    ann, bob = TestClient(handle, 1), TestClient(handle, 2)
    await ann.call("make_trouble", text_arg("refuse"))
    assert await refused(ann, "SELECT * FROM picky") == "not today, executing: `SELECT * FROM picky`"
    assert await one_off(ann, "SELECT * FROM picky") == "not today"
    with pytest.raises(QueryError, match=r"^not today$"):
        await sql(handle, "SELECT * FROM picky")
    await ann.call("calm")
    await ann.call("make_trouble", text_arg("secret detail"))
    text = await refused(bob, "SELECT * FROM picky")
    assert text == "The instance encountered a fatal error., executing: `SELECT * FROM picky`"
    assert "secret detail" in lines(handle), "the owner finds the back trace in the log"
    await ann.call("calm")
    assert (await ann.subscribe(2, "SELECT * FROM picky")).rows == []


@with_shop
async def test_a_view_that_fails_later_keeps_its_last_rows_until_it_works_again(handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    await ann.call("add", args(1, 0))
    await ann.subscribe(1, "SELECT * FROM picky")
    for step in (("make_trouble", text_arg("refuse")), ("add", args(2, 0)), ("drop", args(1)), ("add", args(3, 0))):
        assert (await ann.call(*step)).outcome.kind == OutcomeKind.COMMITTED
        assert ids(ann, "picky") == [1]
    assert lines(handle).count("not today") == 4
    assert ann.messages(SubscriptionFailed) == [], "nobody is told a failure that no request asked for"
    result = await ann.call("calm")
    assert result.update is not None
    (fragment,) = result.update.sets[0].fragments
    assert [len(fragment.inserts), len(fragment.deletes)] == [2, 1], "the difference to the rows that it has"
    assert ids(ann, "picky") == [2, 3]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("same_key", "view `same_key` returned two rows with one primary key"),
        ("one", "view `one` returned 2 rows, its type says one at most"),
    ],
)
def test_rows_that_are_not_as_declared_are_a_failure(name: str, error: str) -> None:
    @with_shop
    async def test(handle: DatabaseHandle) -> None:
        ann = TestClient(handle, 1)
        await ann.call("add", args(1, 0))
        await ann.subscribe(1, f"SELECT * FROM {name}")
        await ann.call("add", args(2, 1))
        assert ids(ann, name) == [1]
        assert error in lines(handle)
        (rows,) = (await TestClient(handle, 2).subscribe(1, f"SELECT * FROM {name} WHERE id = 1")).rows
        assert len(rows.inserts) == 1, "who comes later sees what the others see"

    test()


def test_a_view_without_end_is_stopped_and_the_reducer_commits() -> None:
    async def main() -> None:
        with open_deadline(0.1, actors_loops.is_module_frame) as deadline:
            async with open_host({b"loops": actors_loops.looping_views}, deadline=deadline) as host:
                where = (await host.publish(OWNER, b"loops")).identity
                handle = host.database(where)
                ann = TestClient(handle, 1)
                await ann.subscribe(1, "SELECT * FROM patient")
                started = time.monotonic()
                result = await ann.call("add")
                assert time.monotonic() - started < 2.5  # a second, and what a busy machine adds
                assert (result.outcome.kind, result.update) == (OutcomeKind.COMMITTED, None)
                assert len(handle._actor.datastore.table("row")) == 1
                assert "the view ran longer than 0.1 s and was stopped" in lines(handle)
                assert (await refused(ann, "SELECT * FROM endless")).startswith("view ran out of energy")
                handle._actor.datastore.verify()

    trio.run(main)


# SQL


@with_shop
async def test_views_are_not_changed_by_sql(handle: DatabaseHandle) -> None:
    for text in (
        "DELETE FROM mine",
        "UPDATE mine SET kind = 1",
        "INSERT INTO mine (id, owner, kind) VALUES (1, 0x, 1)",
    ):
        with pytest.raises(QueryError, match=r"^`mine` is a view; DML on views is not supported$"):
            await sql(handle, text)
    assert RUNS["mine"] == 0


ZERO = "0x" + "00" * 32


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("SELECT * FROM of_kind", "View `of_kind` takes 1 argument(s), but 0 were given"),
        ("SELECT * FROM of_kind()", "View `of_kind` takes 1 argument(s), but 0 were given"),
        ("SELECT * FROM of_kind(1, 2)", "View `of_kind` takes 1 argument(s), but 2 were given"),
        ("SELECT * FROM everything(1)", "View `everything` takes 0 argument(s), but 1 were given"),
        ("SELECT * FROM item(1)", "`item` is a table, not a view; it does not take arguments"),
        (
            "SELECT * FROM of_kind(1) WHERE id = 1",
            "View `of_kind` takes arguments, so it can only be queried as `SELECT * FROM of_kind(...)`",
        ),
        (
            "SELECT id FROM of_kind(1)",
            "View `of_kind` takes arguments, so it can only be queried as `SELECT * FROM of_kind(...)`",
        ),
        (
            "SELECT * FROM of_kind(1) LIMIT 1",
            "View `of_kind` takes arguments, so it can only be queried as `SELECT * FROM of_kind(...)`",
        ),
        (
            "SELECT count(*) AS n FROM of_kind(1)",
            "View `of_kind` takes arguments, so it can only be queried as `SELECT * FROM of_kind(...)`",
        ),
        (
            "SELECT i.* FROM item i JOIN of_kind(1) v ON v.id = i.id",
            "Unsupported view call in a JOIN: `of_kind`. A view that takes arguments can only be queried by itself",
        ),
        ("SELECT * FROM of_kind(x)", "Unsupported view argument: x. View arguments must be literals"),
        ("SELECT * FROM of_kind(1 + 1)", "Unsupported view argument: 1 + 1. View arguments must be literals"),
        ("SELECT * FROM of_kind(:sender)", "Unsupported view argument: :sender. View arguments must be literals"),
        (
            "SELECT * FROM of_kind(kind => 1)",
            "Unsupported view argument: kind => 1. View arguments must be positional literals",
        ),
        ("SELECT * FROM of_kind(*)", "Unsupported view argument: *. View arguments must be positional literals"),
        ("SELECT * FROM of_kind(-1)", "The literal expression `-1` cannot be parsed as type `U32`"),
        ("SELECT * FROM of_kind(true)", "Unexpected type: (expected) Bool != U32 (inferred)"),
        (
            "SELECT * FROM nested(1)",
            "Parameter `p` of view `nested` has type (some: U32 | none: ()), which cannot be passed from SQL",
        ),
        ("SELECT * FROM nowhere(1)", "Unsupported FROM expression: nowhere(1)"),
        ("SELECT * FROM nowhere()", "Unsupported FROM expression: nowhere()"),
        ("SELECT * FROM of_kind(1) v (a, b)", "Unsupported FROM expression: of_kind(1) AS v (a, b)"),
    ],
)
def test_calls_of_views_are_refused_with_the_text_of_the_reference(query: str, error: str) -> None:
    @with_shop
    async def test(handle: DatabaseHandle) -> None:
        with pytest.raises(QueryError) as refusal:
            await sql(handle, query)
        assert str(refusal.value) == error
        assert RUNS.total() == 0

    test()


@with_shop
async def test_a_view_is_called_with_literals_of_every_kind(handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    for number in (1, 2, 3, 4):
        await ann.call("add", args(number, number % 2))
    for query in ('"of_kind"(1)', "of_kind('1') AS v", "of_kind(+1) v", "of_kind(1e0)"):
        assert sorted(row[0] for row in await sql(handle, f"SELECT * FROM {query}")) == [1, 3]
    assert len(await sql(handle, "SELECT v.* FROM of_kind(0) v")) == 2
    assert len(await sql(handle, f"SELECT * FROM typed('O''Neil', -5, -0.0, {ZERO})")) == 1
    for query in ("item()", "everything()", "mine() m"):
        assert len(await sql(handle, f"SELECT * FROM {query}", identity(1))) == 4
    assert len(await sql(handle, "SELECT i.* FROM item() i JOIN everything() e ON i.id = e.id")) == 4


@with_shop
async def test_each_arguments_rows_are_kept_apart(handle: DatabaseHandle) -> None:
    ann, bob = TestClient(handle, 1), TestClient(handle, 2)
    await ann.subscribe(1, "SELECT * FROM of_kind(0)")
    await bob.subscribe(1, "SELECT * FROM of_kind(0)", "SELECT * FROM of_kind(1)")
    assert RUNS["of_kind"] == 2
    await ann.call("add", args(1, 0))
    await ann.call("add", args(2, 1))
    await bob.wait_for(Updated, 2)
    assert (ids(ann, "of_kind"), ids(bob, "of_kind")) == ([1], [1, 2])


# Updates


def told(handle: DatabaseHandle) -> list[str]:
    messages = [line.split('"message":"')[1].rstrip('"}') for line in lines(handle).splitlines()]
    return messages[max(i for i, message in enumerate(messages) if message.startswith("Updated program")) + 1 :]


@with_shop
async def test_the_log_names_views_behind_tables(handle: DatabaseHandle) -> None:
    messages = lines(handle)
    assert messages.index("Creating table `trouble`") < messages.index("Creating table for view `by_query`")
    assert messages.index("view `typed`") < messages.index("Database initialized")


@with_host
async def test_a_view_that_now_does_something_else_pushes_the_difference(host: Host, handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    for number in (1, 2):
        await ann.call("add", args(number, number))
    await ann.subscribe(1, "SELECT * FROM everything", "SELECT * FROM mine")
    await host.publish(OWNER, b"other", identity=handle.identity)
    (update,) = await ann.wait_for(Updated, 1)
    assert isinstance(update, Updated)
    assert [len(fragment.deletes) for fragment in update.update.sets[0].fragments] == [1]
    assert (ids(ann, "everything"), ids(ann, "mine")) == ([2], [1, 2])
    await ann.call("add", args(3, 2))
    assert (ids(ann, "everything"), ids(ann, "mine")) == ([2, 3], [1, 2, 3])
    assert told(handle) == ["Database updated"]
    handle._actor.datastore.verify()


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (b"gone", ["Dropping table for view `everything`"]),
        (b"by caller", ["Dropping table for view `everything`", "Creating table for view `everything`"]),
    ],
)
def test_a_view_that_goes_or_changes_its_shape_disconnects_everybody(program: bytes, said: list[str]) -> None:
    @with_host
    async def test(host: Host, handle: DatabaseHandle) -> None:
        ann, bob = TestClient(handle, 1), TestClient(handle, 2)
        await ann.subscribe(1, "SELECT * FROM everything")
        await bob.subscribe(1, "SELECT * FROM mine")
        await host.publish(OWNER, program, identity=handle.identity, policy=Policy(breaks_clients=True))
        for client in (ann, bob):
            await client.attachment.wait_detached()
            assert client.sink.closed == Closed(1001, "module exited")
        assert told(handle) == [*said, "Disconnecting all users", "Database updated"]
        again = TestClient(handle, 1)
        await again.call("add", args(1, 2))
        if program == b"gone":
            assert "no such table" in await refused(again, "SELECT * FROM everything")
        else:
            await again.subscribe(1, "SELECT * FROM everything")
            assert ids(again, "everything") == [1]
            assert await sql(handle, "SELECT * FROM everything") == []

    test()


@with_host
async def test_a_view_that_becomes_private_keeps_the_owner_only(host: Host, handle: DatabaseHandle) -> None:
    ann, owner = TestClient(handle, 1), TestClient(handle, OWNER)
    bob = TestClient(handle, 2)
    await ann.call("add", args(1, 2))
    await ann.call("add", args(7, 7))
    for client in (ann, owner):
        await client.subscribe(1, "SELECT * FROM everything")
    await bob.subscribe(1, "SELECT * FROM mine")
    await host.publish(OWNER, b"private", identity=handle.identity)
    await bob.call("add", args(2, 2))
    assert ann.sink.closed == Closed(1001, "module exited")
    assert ids(ann, "everything") == [1, 7], "what the private view has now is none of its business"
    assert not owner.sink.closed
    assert ids(owner, "everything") == [1, 2]
    assert "no such table" in await refused(bob, "SELECT * FROM everything")


@with_host
async def test_a_view_that_cannot_be_is_refused_at_publish(host: Host, handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    await ann.subscribe(1, "SELECT * FROM mine")
    for of in (handle.identity, None):
        with pytest.raises(PublishFailed, match="Primary key column zz for view mine not found"):
            await host.publish(OWNER, b"no key", identity=of)
    await ann.call("add", args(1, 2))
    assert (ids(ann, "mine"), len(host.databases())) == ([1], 1)


@with_host
async def test_a_new_view_disturbs_nobody(host: Host, handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    await ann.call("add", args(1, 2))
    await ann.subscribe(1, "SELECT * FROM everything")
    await host.publish(OWNER, b"more", identity=handle.identity)
    assert told(handle) == ["Creating table for view `more`", "Database updated"]
    await ann.subscribe(2, "SELECT * FROM more")
    assert (ids(ann, "more"), ann.sink.closed) == ([1], None)


# Read sets


def test_a_change_of_one_key_runs_only_who_looked_it_up() -> None:
    world = ViewsWorld([Drawn(by_owner_key, is_anonymous=False, has_key=False, fails_by=9)] * 4)
    people = [number.to_bytes(32, "little") for number in range(1, 1001)]
    clients = [world.client(who, place) for place, who in enumerate(people)]
    for client in clients:
        finish(client.subscribe_set(1, ["SELECT * FROM v0"]))
    world.runs = 0
    for place in (7, 8):
        delta = world.insert("item", (place, people[place], 0, 0.0))
        told = world.tell(delta).others
        assert [actor for actor, _ in told] == [clients[place]]
    assert world.runs == 2
    world.insert("bag", (1, 1))
    assert world.runs == 2
    world.delete("item", (7, people[7], 0, 0.0))
    assert world.runs == 3


def test_what_a_failed_run_has_read_brings_the_view_back() -> None:
    world = ViewsWorld([Drawn(by_links, is_anonymous=True, has_key=False, fails_by=9)] * 4)
    client = world.client(OWNER)
    world.insert("item", (2, OWNER, 0, 0.0))
    assert finish(client.subscribe_set(1, ["SELECT * FROM asked(0)"])) == []
    world.insert("link", (0, 1), (1, 1))
    assert world.failures == 1
    delta = world.change({"link": [(1, 2)]}, {"link": [(1, 1)]})
    ((_, update),) = world.tell(delta).others
    assert len(update.sets[0].fragments[0].inserts) == 1, "the link from 1 was looked up by the failed run only"
