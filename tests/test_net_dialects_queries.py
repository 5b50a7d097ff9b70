"""Joins, changes by SQL, rules and events in every dialect, down to the rows in the frames, against a real database.

The numbers of the join are those that the real server sent (spec 06 section 5.2).
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from operator import itemgetter
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing

from stdb.actors.handle import DatabaseHandle
from stdb.actors.sink import Client
from stdb.errors import QueryError
from stdb.sats import bsatn, json
from stdb.sats.types import IDENTITY, STRING, U32, U64
from stdb.schema.model import IndexAlgorithm, IndexDef, RowLevelSecurityDef, TableDef
from stdb.testing.hosts import identity, open_host
from stdb.testing.modules import Context, FunctionModule, reducer, table
from tests.test_net_connection_chat import ChatClient
from tests.websocket_messages import rows_of

ALL = pytest.mark.parametrize("protocol", ["v1.json", "v1.bsatn", "v2.bsatn", "v3.bsatn"])
V1 = pytest.mark.parametrize("protocol", ["v1.json", "v1.bsatn"])
V2 = pytest.mark.parametrize("protocol", ["v2.bsatn", "v3.bsatn"])


def indexed(definition: TableDef, column: str) -> TableDef:
    """Return a table with one more index."""
    place = next(i for i, each in enumerate(definition.columns) if each.name == column)
    index = IndexDef(f"{definition.name}_{column}_idx_btree", column, IndexAlgorithm.BTREE, (place,))
    return replace(definition, indexes=(*definition.indexes, index))


TABLES = [
    indexed(table("item", {"id": U64, "owner": U32, "qty": U32}, primary_key="id"), "owner"),
    indexed(table("holder", {"id": U32, "grp": U32}, primary_key="id"), "grp"),
    table("plain", {"a": U32, "b": U32}),
    table("note", {"id": U32, "owner": IDENTITY, "text": STRING}, primary_key="id"),
    indexed(table("seat", {"who": IDENTITY, "room": U32}, primary_key="who", public=False), "room"),
    indexed(table("letter", {"id": U32, "room": U32}, primary_key="id"), "room"),
    indexed(table("ev", {"n": U32, "grp": U32}, event=True), "grp"),
]
ROW_TYPES = {each.name: each.row_type for each in TABLES}
RULES = (
    "SELECT * FROM note WHERE owner = :sender",
    "SELECT l.* FROM seat s JOIN letter l ON s.room = l.room WHERE s.who = :sender",
)
JOIN = "SELECT item.* FROM item JOIN holder ON item.owner = holder.grp"
NO_INDEX = "SELECT item.* FROM item JOIN plain ON item.owner = plain.a"
EVENTS = "SELECT ev.* FROM ev JOIN holder ON ev.grp = holder.grp"
OWNER = 99
FULL, LIGHT = 1, 2
"""Tags of v1's updates: with who called what, and without."""
V1_UPDATES: dict[int, Callable[[Any], Any]] = {
    0: itemgetter(0),
    FULL: lambda fields: fields[0][1],
    LIGHT: itemgetter(1),
    8: itemgetter(3),
    9: itemgetter(3),
}
"""Where v1's messages have their rows, by tag."""


def fire(ctx: Context, *events: str) -> None:
    for event in events:
        ctx.insert("ev", *map(int, event.split()))


def world(*, rules: tuple[str, ...] = (), is_v10: bool = True) -> FunctionModule:
    """Return a fresh module."""
    module = FunctionModule(TABLES, {"fire": reducer(fire, {"first": STRING, "second": STRING})})
    rows = tuple(map(RowLevelSecurityDef, rules))
    module.definition = replace(module.definition, row_level_security=rows, abi_is_v10=is_v10)
    return module


class Change(NamedTuple):
    """What a message says of one query; rows sorted."""

    table: str
    inserts: list[tuple[Any, ...]]
    deletes: list[tuple[Any, ...]] = []
    is_event: bool = False


class QueryClient(ChatClient):
    """A client that says what its messages hold."""

    payload = b""
    """The last frame's payload."""

    async def frame(self) -> tuple[int, bytes] | None:
        """Return the next frame, and keep it."""
        frame = await super().frame()
        self.payload = frame[1] if frame is not None else b""
        return frame

    async def changes(self, *tags: int) -> list[Change]:
        """Return the rows in the next message, which must be of this tag (v1's, v2's)."""
        tag, fields = await self.next()
        assert tag == tags[not self.is_v1], (tag, fields)
        return list(self._changes_of_v1(tag, fields) if self.is_v1 else self._changes_of_v2(tag, fields))

    async def update(self) -> list[Change]:
        """Return the rows of an update that this client did not cause; the module must be V10."""
        return await self.changes(LIGHT, 4)

    async def applied(self, set_id: int, *queries: str) -> list[Change]:
        """Subscribe and return the rows of the answer."""
        self.subscribe(70 + set_id, set_id, *queries)
        return await self.changes(8, 1)

    async def ended(self, set_id: int) -> list[Change]:
        """Unsubscribe and return the rows of the answer."""
        self.unsubscribe(80 + set_id, set_id)
        return await self.changes(9, 2)

    async def error(self) -> str:
        """Return the text of the subscription error that must come next."""
        tag, fields = await self.next()
        assert tag == (7 if self.is_v1 else 3), (tag, fields)
        assert isinstance(fields[-1], str)
        return fields[-1]

    async def one_off(self, query: str) -> list[Change] | str:
        """Return the rows of a one-off query, or its error."""
        self.send((2, (b"\7" if self.is_v1 else 7, query)))
        tag, fields = await self.next()
        assert tag == (4 if self.is_v1 else 5)
        if self.is_v1:
            _, error, tables, _ = fields
            return [Change(name, self._rows(name, rows)) for name, rows in tables] if error is None else error
        failed, answer = fields[1]
        return answer if failed else list(self._inserts(answer))

    def _changes_of_v1(self, tag: int, fields: Any) -> Iterator[Change]:
        (tables,) = V1_UPDATES[tag](fields)
        for _, name, count, entries in tables:
            told = []
            for entry in entries:
                deletes, inserts = entry if self.is_json else entry[1]
                told.append(Change(name, self._rows(name, inserts), self._rows(name, deletes)))
            assert count == sum(len(each.inserts) + len(each.deletes) for each in told)
            yield from told

    def _changes_of_v2(self, tag: int, fields: Any) -> Iterator[Change]:
        if tag == 1:
            yield from self._inserts(fields[2])
        elif tag == 2:
            yield from (Change(name, [], rows) for name, rows, *_ in self._inserts(fields[2]))
        else:
            (sets,) = fields if tag == 4 else fields[2][1][1]
            for _, tables in sets:
                for name, entries in tables:
                    for kind, rows in entries:
                        inserts, *deletes = (self._rows(name, each) for each in rows)
                        yield Change(name, inserts, deletes[0] if deletes else [], bool(kind))

    def _inserts(self, rows: Any) -> Iterator[Change]:
        (tables,) = rows
        return (Change(name, self._rows(name, listed)) for name, listed in tables)

    def _rows(self, name: str, rows: Any) -> list[tuple[Any, ...]]:
        if self.is_json:
            return sorted(json.decode(ROW_TYPES[name], json.parse(text)) for text in rows)
        return sorted(map(bsatn.codec(ROW_TYPES[name]).decode_exact, rows_of(rows)))


class Town(NamedTuple):
    """A running database."""

    nursery: trio.Nursery
    handle: DatabaseHandle

    async def client(self, protocol: str, who: int = 1) -> QueryClient:
        """Return a client that is connected."""
        client = QueryClient(self.nursery, self.handle, protocol, who)
        await client.next()
        return client

    async def sql(self, *statements: str, who: int = OWNER) -> None:
        """Run statements over HTTP."""
        for text in statements:
            await self.handle.sql(Client(identity(who), b"h" * 16, '{"sub":"sql"}'), text, confirmed=False)


def run(script: Callable[[Town], Awaitable[None]], **options: Any) -> None:
    """Run a script against a fresh database in virtual time; a hang is a failure."""

    async def main() -> None:
        with trio.fail_after(3600):
            async with open_host({b"world": lambda: world(**options)}) as host, trio.open_nursery() as nursery:
                published = await host.publish(identity(OWNER), b"world", name="world")
                await script(Town(nursery, host.database(published.identity)))
                nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


SEED = (
    "INSERT INTO item (id, owner, qty) VALUES (1, 1, 5), (2, 1, 6), (3, 2, 7)",
    "INSERT INTO holder (id, grp) VALUES (1, 1), (2, 1), (3, 2)",
    "INSERT INTO plain (a, b) VALUES (1, 1), (1, 2)",
)
ITEM_1, ITEM_2, ITEM_3, ITEM_4 = (1, 1, 5), (2, 1, 6), (3, 2, 7), (4, 1, 99)
INITIAL = [ITEM_1, ITEM_1, ITEM_2, ITEM_2, ITEM_3]


@ALL
def test_a_row_of_a_join_comes_and_goes_once_per_partner(protocol: str) -> None:
    async def script(town: Town) -> None:
        await town.sql(*SEED)
        ann = await town.client(protocol)
        assert await ann.applied(1, JOIN) == [Change("item", INITIAL)]
        await town.sql("INSERT INTO item (id, owner, qty) VALUES (4, 1, 99)")
        assert await ann.update() == [Change("item", [ITEM_4, ITEM_4])]
        await town.sql("INSERT INTO holder (id, grp) VALUES (4, 1)")
        assert await ann.update() == [Change("item", [ITEM_1, ITEM_2, ITEM_4])]
        await town.sql("DELETE FROM holder WHERE id = 4")
        assert await ann.update() == [Change("item", [], [ITEM_1, ITEM_2, ITEM_4])]
        await town.sql("UPDATE holder SET grp = 2 WHERE id = 2")
        assert await ann.update() == [Change("item", [ITEM_3], [ITEM_1, ITEM_2, ITEM_4])]
        await town.sql("UPDATE item SET qty = 8 WHERE id = 3")
        assert await ann.update() == [Change("item", [(3, 2, 8)] * 2, [ITEM_3] * 2)]
        assert await ann.ended(1) == [Change("item", [], [ITEM_1, ITEM_2, (3, 2, 8), (3, 2, 8), ITEM_4])]

    run(script)


def tails(*hexes: str) -> list[bytes]:
    return [bytes.fromhex(each) for each in hexes]


V1_TAILS = tails(
    "0500000000000000010000000001000000000000000000100050000000"
    "01000000000000000100000005000000"
    "01000000000000000100000005000000"
    "02000000000000000100000006000000"
    "02000000000000000100000006000000"
    "03000000000000000200000007000000",
    "0200000000000000010000000001000000000000000000100020000000"
    "04000000000000000100000063000000"
    "04000000000000000100000063000000",
    "0300000000000000010000000001000000000000000000100030000000"
    "01000000000000000100000005000000"
    "02000000000000000100000006000000"
    "04000000000000000100000063000000",
    "0300000000000000010000000000100030000000"
    "01000000000000000100000005000000"
    "02000000000000000100000006000000"
    "04000000000000000100000063000000"
    "010000000000000000",
)
"""What the real server sent behind the table's name: the initial rows, an item, a holder, a holder less."""


def test_v1_has_the_bytes_that_the_real_server_sent() -> None:
    async def script(town: Town) -> None:
        await town.sql(*SEED)
        ann = await town.client("v1.bsatn")
        sent = []
        await ann.applied(1, JOIN)
        sent.append(ann.payload)
        for text in (
            "INSERT INTO item (id, owner, qty) VALUES (4, 1, 99)",
            "INSERT INTO holder (id, grp) VALUES (4, 1)",
            "DELETE FROM holder WHERE id = 4",
        ):
            await town.sql(text)
            await ann.update()
            sent.append(ann.payload)
        assert [payload.partition(b"item")[2] for payload in sent] == V1_TAILS

    run(script)


@V2
def test_v2_has_the_bytes_that_the_real_server_sent(protocol: str) -> None:
    async def script(town: Town) -> None:
        await town.sql(*SEED)
        ann = await town.client(protocol)
        await ann.applied(21, JOIN)
        assert ann.payload.partition(b"item")[2] == V1_TAILS[0][22:]

    run(script)


@V1
def test_a_change_by_sql_has_no_reducer_and_no_connection(protocol: str) -> None:
    """Of modules of before V10 v1 tells who changed what: the caller and a call of nothing."""

    async def script(town: Town) -> None:
        await town.sql(*SEED)
        ann, owner = await town.client(protocol), await town.client(protocol, OWNER)
        for client in (ann, owner):
            await client.applied(1, JOIN)
        await town.sql("INSERT INTO holder (id, grp) VALUES (9, 2)")
        for client in (ann, owner):
            tag, fields = await client.next()
            assert (tag, list(client._changes_of_v1(tag, fields))) == (FULL, [Change("item", [ITEM_3])])
            _, timestamp_us, caller, connection_id, call, energy, _ = fields
            assert (caller, connection_id, energy) == (identity(OWNER), bytes(16), (0,))
            assert timestamp_us > 0
            assert call == ("", 0xFFFFFFFF, "[]" if client.is_json else b"", 0)
        if protocol == "v1.json":
            assert b'"caller_connection_id":{"__connection_id__":0}' in ann.payload
            assert b'"reducer_call":{"reducer_name":"","reducer_id":4294967295' in ann.payload

    run(script, is_v10=False)


@ALL
def test_a_change_by_sql_that_concerns_nobody_is_told_to_nobody(protocol: str) -> None:
    async def script(town: Town) -> None:
        await town.sql(*SEED)
        ann = await town.client(protocol)
        await ann.applied(1, JOIN)
        await town.sql(
            "INSERT INTO holder (id, grp) VALUES (8, 77)",
            "UPDATE item SET qty = 5 WHERE id = 1",
            "DELETE FROM item WHERE id = 4711",
            "INSERT INTO plain (a, b) VALUES (1, 1)",
            "DELETE FROM holder WHERE id = 3",
        )
        assert await ann.update() == [Change("item", [], [ITEM_3])]

    run(script)


@ALL
def test_a_refused_change_tells_nobody_and_leaves_everything(protocol: str) -> None:
    async def script(town: Town) -> None:
        await town.sql(*SEED)
        ann = await town.client(protocol)
        await ann.applied(1, JOIN)
        with pytest.raises(QueryError, match="Unique constraint violation"):
            await town.sql("INSERT INTO holder (id, grp) VALUES (20, 1), (1, 2)")
        with pytest.raises(QueryError, match="is not authorized to run SQL DML statements"):
            await town.sql("DELETE FROM holder", who=1)
        assert await ann.ended(1) == [Change("item", [], INITIAL)]

    run(script)


@ALL
def test_a_self_join_is_told_of_changes_of_either_side(protocol: str) -> None:
    """The real server sends nothing for the second change: it takes the constant for one of both sides."""
    query = "SELECT p.* FROM item p JOIN item q ON p.owner = q.owner WHERE q.qty = 5"

    async def script(town: Town) -> None:
        await town.sql(*SEED)
        ann = await town.client(protocol)
        assert await ann.applied(1, query) == [Change("item", [ITEM_1, ITEM_2])]
        await town.sql("INSERT INTO item (id, owner, qty) VALUES (4, 1, 99)")
        assert await ann.update() == [Change("item", [ITEM_4])]
        await town.sql("UPDATE item SET qty = 5 WHERE id = 3")
        assert await ann.update() == [Change("item", [(3, 2, 5)])]
        await town.sql("UPDATE item SET qty = 6 WHERE id = 1")
        assert await ann.update() == [Change("item", [], [ITEM_1, ITEM_2, ITEM_4])]

    run(script)


@ALL
def test_a_row_of_two_queries_is_told_for_each(protocol: str) -> None:
    other = "SELECT * FROM item WHERE qty > 5"

    async def script(town: Town) -> None:
        await town.sql(*SEED)
        ann = await town.client(protocol)
        assert await ann.applied(1, JOIN, other) == [Change("item", INITIAL), Change("item", [ITEM_2, ITEM_3])]
        again = await ann.applied(2, JOIN)
        assert again == ([] if ann.is_v1 else [Change("item", INITIAL)])
        await town.sql("UPDATE item SET qty = 4 WHERE id = 3")
        joined, alone = Change("item", [(3, 2, 4)], [ITEM_3]), Change("item", [], [ITEM_3])
        expected = [joined, alone] if ann.is_v1 else [joined, alone, joined]
        assert sorted(await ann.update()) == sorted(expected)
        held = [ITEM_1, ITEM_1, ITEM_2, ITEM_2, (3, 2, 4)]
        if ann.is_v1:
            assert await ann.ended(1) == [Change("item", [], [ITEM_2])]
        else:
            assert sorted(await ann.ended(1)) == [Change("item", [], held), Change("item", [], [ITEM_2])]
        assert await ann.ended(2) == [Change("item", [], held)]

    run(script)


@V1
def test_the_legacy_set_of_v1_stands_beside_the_other_sets(protocol: str) -> None:
    async def script(town: Town) -> None:
        await town.sql(*SEED)
        ann = await town.client(protocol)
        await ann.applied(1, JOIN)
        ann.send((1, ([JOIN], 2)))
        assert await ann.changes(0, 0) == [Change("item", INITIAL)]
        await town.sql("DELETE FROM holder WHERE id = 3")
        assert await ann.update() == [Change("item", [], [ITEM_3])] * 2
        ann.send((1, ([NO_INDEX], 3)))
        assert "indexes on join columns" in await ann.error()
        await town.sql("INSERT INTO holder (id, grp) VALUES (3, 2)")
        assert await ann.update() == [Change("item", [ITEM_3])] * 2

    run(script)


@ALL
def test_refused_queries_leave_the_others_alive(protocol: str) -> None:
    wrong = {
        NO_INDEX: "Subscriptions require indexes on join columns",
        "SELECT item.* FROM item JOIN holder": "Subscriptions require indexes on join columns",
        "SELECT * FROM item JOIN holder ON item.owner = holder.grp": "SELECT * is not supported for joins",
        "SELECT item.* FROM item JOIN seat ON item.owner = seat.room": "no such table: `seat`. If the table exists, it "
        "may be marked private.",
        "SELECT item.* FROM item JOIN ev ON item.owner = ev.grp": "Event tables cannot be used as the lookup table in "
        "subscription joins",
        "SELECT a.* FROM item a JOIN holder b ON a.owner = b.grp JOIN holder c ON a.owner = c.grp": "Invalid number of "
        "tables in subscription: 3",
    }

    async def script(town: Town) -> None:
        await town.sql(*SEED)
        ann = await town.client(protocol)
        await ann.applied(1, JOIN)
        for query, text in wrong.items():
            ann.subscribe(5, 5, "SELECT * FROM holder", query)
            assert await ann.error() == f"{text}, executing: `{query}`"
            await town.sql("INSERT INTO holder (id, grp) VALUES (7, 2)")
            assert await ann.update() == [Change("item", [ITEM_3])]
            await town.sql("DELETE FROM holder WHERE id = 7")
            assert await ann.update() == [Change("item", [], [ITEM_3])]
        assert await ann.applied(5, "SELECT * FROM holder") == [Change("holder", [(1, 1), (2, 1), (3, 2)])]

    run(script)


@ALL
def test_a_one_off_query_joins_without_an_index(protocol: str) -> None:
    async def script(town: Town) -> None:
        await town.sql(*SEED)
        ann = await town.client(protocol)
        assert await ann.one_off(JOIN) == [Change("item", INITIAL)]
        assert await ann.one_off(NO_INDEX) == [Change("item", [ITEM_1, ITEM_1, ITEM_2, ITEM_2])]
        assert await ann.one_off("DELETE FROM item") == "Unsupported: Non-SELECT queries"
        assert str(await ann.one_off("SELECT item.* FROM item JOIN seat ON item.id = seat.room")).startswith(
            "no such table: `seat`"
        )
        events = await ann.one_off(EVENTS)
        assert events == [Change("ev", [])]

    run(script)


@V2
def test_events_drive_a_join(protocol: str) -> None:
    async def script(town: Town) -> None:
        await town.sql(*SEED)
        ann = await town.client(protocol)
        assert [each for each in await ann.applied(1, EVENTS) if each.inserts] == []
        await town.sql("DELETE FROM holder WHERE id = 3", "INSERT INTO holder (id, grp) VALUES (5, 5)")
        ann.call(2, "fire", "10 1", "11 2")
        assert await ann.changes(FULL, 6) == [Change("ev", [(10, 1), (10, 1)], is_event=True)]
        bob = await town.client(protocol, 2)
        bob.call(3, "fire", "12 5", "13 6")
        await bob.next()
        assert await ann.update() == [Change("ev", [(12, 5)], is_event=True)]
        assert [each for each in await ann.ended(1) if each.deletes] == []

    run(script)


@V1
def test_v1_cannot_subscribe_to_events(protocol: str) -> None:
    async def script(town: Town) -> None:
        await town.sql(*SEED)
        ann = await town.client(protocol)
        await ann.applied(1, JOIN)
        text = (
            "Subscribing to event tables requires WebSocket v2. "
            "Please upgrade your client SDK and regenerate your module bindings."
        )
        for query in (EVENTS, "SELECT * FROM ev"):
            ann.subscribe(2, 2, query)
            assert await ann.error() == text
            ann.send((3, (query, 3, (3,))))
            assert await ann.error() == text
        ann.call(4, "fire", "10 1", "11 2")
        assert await ann.changes(FULL) == []
        await town.sql("DELETE FROM holder WHERE id = 3")
        assert await ann.update() == [Change("item", [], [ITEM_3])]

    run(script)


def hexed(who: int) -> str:
    return f"0x{identity(who)[::-1].hex()}"


@ALL
def test_everyone_sees_what_the_rules_give_them(protocol: str) -> None:
    """A row moves from one client's view to another's by a change of the table that the rule joins."""
    letters, notes = "SELECT * FROM letter", "SELECT * FROM note"

    async def script(town: Town) -> None:
        await town.sql(
            f"INSERT INTO note (id, owner, text) VALUES (1, {hexed(1)}, 'of ann'), (2, {hexed(2)}, 'of bob')",
            "INSERT INTO letter (id, room) VALUES (1, 1), (2, 1), (3, 2)",
            f"INSERT INTO seat (who, room) VALUES ({hexed(1)}, 1)",
        )
        ann, bob, owner = [await town.client(protocol, who) for who in (1, 2, OWNER)]
        for_ann, for_bob = (1, identity(1), "of ann"), (2, identity(2), "of bob")
        all_letters, in_room_1, in_room_2 = [(1, 1), (2, 1), (3, 2)], [(1, 1), (2, 1)], [(3, 2)]
        for client, its_notes, its_letters in (
            (ann, [for_ann], in_room_1),
            (bob, [for_bob], []),
            (owner, [for_ann, for_bob], all_letters),
        ):
            applied = sorted(each for each in await client.applied(1, letters, notes) if each.inserts)
            assert applied == [Change("letter", its_letters)] * bool(its_letters) + [Change("note", its_notes)]
            assert await client.one_off(letters) == [Change("letter", its_letters)]
            assert await client.one_off(notes) == [Change("note", its_notes)]

        await town.sql(f"INSERT INTO seat (who, room) VALUES ({hexed(2)}, 2)")
        assert await bob.update() == [Change("letter", in_room_2)]
        await town.sql(f"UPDATE seat SET room = 2 WHERE who = {hexed(1)}")
        assert await ann.update() == [Change("letter", in_room_2, in_room_1)]
        await town.sql(f"UPDATE seat SET who = {hexed(3)} WHERE who = {hexed(1)}")
        assert await ann.update() == [Change("letter", [], in_room_2)]
        await town.sql(f"UPDATE note SET owner = {hexed(1)} WHERE id = 2")
        moved = (2, identity(1), "of bob")
        assert await ann.update() == [Change("note", [moved])]
        assert await bob.update() == [Change("note", [], [for_bob])]
        assert await owner.update() == [Change("note", [moved], [for_bob])]
        await town.sql("UPDATE letter SET room = 3 WHERE id = 3")
        assert await bob.update() == [Change("letter", [], in_room_2)]
        assert await owner.update() == [Change("letter", [(3, 3)], in_room_2)]
        assert await ann.ended(1) == [Change("letter", [], []), Change("note", [], [for_ann, moved])]

    run(script, rules=RULES)
