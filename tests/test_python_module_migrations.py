"""`@migrate`: rows through functions of the new module, in the publish's own transaction, all or nothing."""

from collections.abc import Awaitable, Callable
from functools import partial
from textwrap import dedent
from typing import Any

import pytest

from stdb.actors.deadline import open_deadline
from stdb.actors.handle import DatabaseHandle
from stdb.actors.host import Host
from stdb.actors.plan_text import plan_text
from stdb.actors.refusals import UpdateRejected
from stdb.actors.updates import Policy
from stdb.errors import SchemaError
from stdb.modules.python.loader import load
from stdb.testing.hosts import TestClient, identity, open_host
from stdb.testing.sinks import Closed
from stdb.testing.storage import MemoryStorage
from tests.test_actors_database import lines, run

OWNER = identity(99)
BREAK = Policy(breaks_clients=True)
REFUSED = "Failed to create or update the database: "
SAME = """
    import enum
    from stdb import *

    @product
    class Point:
        x: int
        y: int

    @table(scheduled=True)
    class Tick:
        what: str

    @reducer(scheduled=Tick)
    def tick(ctx: ReducerContext, timer: Tick) -> None: ...
"""
OLD = f"""{SAME}
    class Colour(enum.Enum):
        red = 1
        blue = 2

    @table(public=True)
    class User:
        id: u32 = primary_key(auto_inc=True)
        owner: Identity = unique()
        full_name: str
        age: str
        colour: Colour
        at: Point
        seen: Timestamp | None = None
        tags: list[Colour] = []

    @table(public=True)
    class Note:
        text: str

    @init
    def init(ctx: ReducerContext) -> None:
        users = ctx.db[User]
        for number in range(3):
            row = User(owner=Identity(bytes([number]) * 32), full_name=f"Ann {{number}}", age=str(20 + number),
                       colour=Colour.blue, at=Point(x=number, y=-1), seen=ctx.timestamp if number else None,
                       tags=[Colour.red] * number)
            users.insert(row)
        ctx.db[Note].insert(Note(text="one"))
        ctx.db[Note].insert(Note(text="two"))
"""
NEW_HEAD = f"""{SAME}
    class Colour(enum.Enum):
        green = 0
        red = 1
        blue = 2

    @table(public=True)
    class User:
        id: u32 = primary_key(auto_inc=True)
        owner: Identity = unique()
        first: str
        last: int
        age: int
        colour: Colour
        at: Point
        seen: Timestamp | None = None
        tags: list[Colour] = []

    @table(public=True)
    class Memo:
        about: u32
        text: str

    @reducer
    def add(ctx: ReducerContext, name: str) -> None:
        sender = ctx.sender
        ctx.db[User].insert(User(owner=sender, first=name, last=0, age=1, colour=Colour.green, at=Point(x=0, y=0)))
"""
NOTE_GONE = f"""{NEW_HEAD}
    @migrate("note")
    def note(old: OldRow, ctx: MigrationContext) -> None: ...
"""
MIGRATIONS = """
    @migrate("note")
    def note(old: OldRow, ctx: MigrationContext) -> None:
        assert old.columns == ("text",)
        ctx.db[Memo].insert(Memo(about=len(ctx.db[Memo]), text=f"{old.text} {ctx.timestamp is not None}"))

    @migrate(User)
    def user(old: OldRow, ctx: MigrationContext) -> User | None:
        if old.full_name == "Ann 1":
            return None
        first, last = old.full_name.split()
        row = User(owner=old.owner, first=first, last=int(last), age=int(old.age), colour=Colour[old.colour.name],
                   at=old.at, seen=old.seen, tags=[Colour[each.name] for each in old.tags])
        return row.replace(id=old.id)
"""


def program(source: str) -> Callable[[], Any]:
    return partial(load, {"chat.py": dedent(source).encode()})


def with_old(new: str, test: Callable[[Host, DatabaseHandle], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        programs = {b"old": program(OLD), b"new": program(new)}
        async with open_host(programs, **options) as host:
            published = await host.publish(OWNER, b"old", name="chat")
            await test(host, host.database(published.identity))

    run(main)


def rows(handle: DatabaseHandle, name: str) -> list[tuple[Any, ...]]:
    table = handle._actor.datastore.table(name)
    return sorted((table.schema.codec.decode_exact(row) for row in table.rows()), key=repr)


def line_of(source: str, text: str) -> int:
    return next(i for i, line in enumerate(dedent(source).splitlines(), 1) if line.startswith(text))


def test_rows_go_through_functions_and_the_plan_says_so() -> None:
    new = NEW_HEAD + MIGRATIONS

    async def main() -> None:
        storage = MemoryStorage()
        programs = {b"old": program(OLD), b"new": program(new)}
        async with open_host(programs, storage) as host:
            where = (await host.publish(OWNER, b"old", name="chat")).identity
            handle = host.database(where)
            ann = TestClient(handle, 1)
            await ann.subscribe(1, "SELECT * FROM user")
            prospect = await host.plan(OWNER, where, b"new")
            assert prospect.update is not None
            text = plan_text(prospect.update, colored=False)
            user_line, note_line = line_of(new, "@migrate(User)"), line_of(new, '@migrate("note")')
            assert f"▸ Migrated table user by @migrate function user (chat.py:{user_line})\n" in text
            gone = "▸ Removed table note, its rows given to @migrate function note"
            assert f"{gone} (chat.py:{note_line})\n" in text
            assert "▸ Created user table: memo (public)\n" in text
            assert text.endswith("breaking schema changes\n")
            with pytest.raises(UpdateRejected, match="client-breaking"):
                await host.publish(OWNER, b"new", identity=where)
            await host.publish(OWNER, b"new", identity=where, policy=BREAK)
            await ann.attachment.wait_detached()
            assert ann.sink.closed == Closed(1001, "module exited")
            assert rows(handle, "memo") == [(0, "one True"), (1, "two True")]
            users = rows(handle, "user")
            assert [row[:6] for row in users] == [
                (1, bytes(32), "Ann", 0, 20, (2, ())),
                (3, bytes([2]) * 32, "Ann", 2, 22, (2, ())),
            ]
            assert [(row[6], row[7] is None, row[8]) for row in users] == [
                ((0, -1), True, []),
                ((2, -1), False, [(1, ()), (1, ())]),
            ]
            assert handle._actor.datastore.find_table("note") is None
            messages = lines(handle)
            assert f"Migrating table `user` by @migrate function user (chat.py:{user_line})" in messages
            await TestClient(handle, 7).call("add", '["Bob"]')
            assert max(row[0] for row in rows(handle, "user")) == 4, "the sequence goes on"
            handle._actor.datastore.verify()
            before = {name: rows(handle, name) for name in ("user", "memo", "st_table", "st_sequence")}
        async with open_host(programs, storage) as host:
            await host.database(where).ready()
            assert {name: rows(host.database(where), name) for name in before} == before
            await TestClient(host.database(where), 8).call("add", '["Cy"]')
        storage.close()

    run(main)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return 1 // 0", "ZeroDivisionError: integer division or modulo by zero"),
        ("raise SenderError('no thanks')", "no thanks"),
        ("raise SystemExit", "SystemExit"),
        ("return old", "TypeError: user returns User | None, got OldRow(id=1, "),
        ("return old.nothing", "AttributeError: the old row has no column 'nothing'; it has id, owner, full_name"),
        (
            "return User(owner=Identity(bytes(32)), first='', last=0, age=1, colour=Colour.red, at=old.at)",
            "UniqueViolation: Unique constraint violation 'user_owner_idx_btree' in table 'user'",
        ),
    ],
)
def test_a_migration_that_fails_names_its_place_and_changes_nothing(body: str, told: str) -> None:
    new = f"""{NOTE_GONE}
    @migrate(User)
    def user(old: OldRow, ctx: MigrationContext) -> User | None:
        {body}
"""

    async def test(host: Host, handle: DatabaseHandle) -> None:
        ann = TestClient(handle, 1)
        await ann.subscribe(1, "SELECT * FROM user")
        before = {name: rows(handle, name) for name in ("user", "note", "st_table", "st_module")}
        with pytest.raises(UpdateRejected) as refusal:
            await host.publish(OWNER, b"new", identity=handle.identity, policy=BREAK)
        text = str(refusal.value)
        last, first = line_of(new, f"    {body}"), line_of(new, "@migrate(User)")
        assert text.startswith(f"{REFUSED}the migration of table `user` failed at chat.py:")
        assert f":{last}: {told}" in text or f":{first}: {told}" in text
        assert "; the row was OldRow(id=" in text
        assert {name: rows(handle, name) for name in before} == before
        assert ann.sink.closed is None
        await TestClient(handle, 3).subscribe(1, "SELECT * FROM note")
        handle._actor.datastore.verify()

    with_old(new, test)


def test_a_migration_without_end_is_stopped() -> None:
    new = f"""{NOTE_GONE}
    @migrate(User)
    def user(old: OldRow, ctx: MigrationContext) -> User | None:
        while True: pass
"""

    async def test(host: Host, handle: DatabaseHandle) -> None:
        before = rows(handle, "user")
        with pytest.raises(UpdateRejected, match=r"failed at chat\.py:.*the migration ran longer than 0\.1 s"):
            await host.publish(OWNER, b"new", identity=handle.identity, policy=BREAK)
        assert rows(handle, "user") == before

    with open_deadline(0.1) as deadline:
        with_old(new, test, deadline=deadline)


def test_what_has_no_migration_is_refused_and_what_has_is_not() -> None:
    async def test(host: Host, handle: DatabaseHandle) -> None:
        with pytest.raises(UpdateRejected) as refusal:
            await host.publish(OWNER, b"new", identity=handle.identity, policy=BREAK)
        text = str(refusal.value)
        assert "Removing a column full_name from table user requires a manual migration" in text
        assert "note" not in text

    with_old(NOTE_GONE, test)


def test_a_migration_that_is_not_needed_does_not_run() -> None:
    new = f"""{OLD}
    @reducer
    def more(ctx: ReducerContext) -> None: ...

    @migrate(User)
    def user(old: OldRow, ctx: MigrationContext) -> User | None:
        raise ValueError

    @migrate("long_gone")
    def gone(old: OldRow, ctx: MigrationContext) -> None:
        raise ValueError
"""

    async def test(host: Host, handle: DatabaseHandle) -> None:
        before = rows(handle, "user")
        await host.publish(OWNER, b"new", identity=handle.identity)
        assert rows(handle, "user") == before

    with_old(new, test)


def test_the_function_of_a_schedule_changes_by_a_migration() -> None:
    new = OLD.replace("def tick(", "def tock(")
    by_function = f"""{new}
    @migrate(Tick)
    def ticks(old: OldRow, ctx: MigrationContext) -> Tick | None:
        return Tick(what=old.what, scheduled_at=old.scheduled_at).replace(scheduled_id=old.scheduled_id)
"""

    async def refused(host: Host, handle: DatabaseHandle) -> None:
        with pytest.raises(UpdateRejected, match="Removing schedules is not yet implemented"):
            await host.publish(OWNER, b"new", identity=handle.identity)

    async def done(host: Host, handle: DatabaseHandle) -> None:
        await host.publish(OWNER, b"new", identity=handle.identity, policy=BREAK)
        assert [row[2] for row in rows(handle, "st_scheduled")] == ["tock"]

    with_old(new, refused)
    with_old(by_function, done)


def test_a_new_sequence_begins_behind_the_values_that_are_there() -> None:
    old = """
    from stdb import *
    @table
    class Item:
        id: u32 = primary_key()
        name: str
    @init
    def init(ctx: ReducerContext) -> None:
        ctx.db[Item].insert(Item(id=40, name="x"))
"""
    new = """
    from stdb import *
    @table
    class Item:
        id: u64 = primary_key(auto_inc=True)
        name: str
    @migrate(Item)
    def item(old: OldRow, ctx: MigrationContext) -> Item:
        return Item(name=old.name).replace(id=old.id)
    @reducer
    def add(ctx: ReducerContext) -> None:
        ctx.db[Item].insert(Item(name="new"))
"""

    async def main() -> None:
        async with open_host({b"old": program(old), b"new": program(new)}) as host:
            where = (await host.publish(OWNER, b"old", name="chat")).identity
            await host.publish(OWNER, b"new", identity=where, policy=BREAK)
            await TestClient(host.database(where), 1).call("add")
            assert rows(host.database(where), "item") == [(40, "x"), (41, "new")]

    run(main)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("@migrate(Other)\ndef f(old: OldRow, ctx: MigrationContext) -> Other: ...", "migrate(Other): it is no table"),
        ("@migrate(7)\ndef f(old: OldRow, ctx: MigrationContext) -> None: ...", "migrate() takes a @table class"),
        ("@migrate('item')\ndef f(old: OldRow, ctx: MigrationContext) -> None: ...", "is for a table that is gone"),
        ("@migrate(Item)\ndef f(old: OldRow) -> Item: ...", "f takes the old row and the context: write def f(old"),
        ("@migrate(Item)\nasync def f(old: OldRow, ctx: MigrationContext) -> Item: ...", "f is async or a generator"),
        ("@migrate(Item)\nclass F: ...", "a migration is a function"),
        (
            "@migrate(Item)\ndef f(old: OldRow, ctx: MigrationContext) -> Item: ...\n"
            "@migrate(Item)\ndef g(old: OldRow, ctx: MigrationContext) -> Item: ...",
            "two migrations are for the table item; the other is at chat.py:8: merge them",
        ),
    ],
)
def test_a_migration_written_wrongly_is_refused_with_its_line(source: str, told: str) -> None:
    head = "from stdb import *\n@table\nclass Item:\n    id: int\n@product\nclass Other:\n    id: int\n"
    with pytest.raises(SchemaError) as caught:
        program(head + source)()
    assert all(error.startswith("chat.py:") for error in caught.value.errors)
    assert any(told in error for error in caught.value.errors), caught.value.errors
