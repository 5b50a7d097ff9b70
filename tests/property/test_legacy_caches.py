"""What clients of 0.7 to 0.11 hold equals SQL's answer, after any transactions and any replaced set of queries."""

import json
from collections.abc import Callable
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from stdb.net.tokens import Credentials
from tests.http_harness import Door, bearer
from tests.legacy_clients import DIALECTS, LegacyClient, basic, opened

SOURCE = """
from stdb import Identity, ReducerContext, Timestamp, index, primary_key, product, reducer, table, u32

@product
class Step:
    kind: u32
    key: u32
    text: str

@table(name="Item", public=True)
class Item:
    id: u32 = primary_key()
    label: str
    owner: Identity
    maybe: str | None

@table(name="Note", public=True)
class Note:
    item: u32 = index()
    text: str
    at: Timestamp

@reducer
def change(ctx: ReducerContext, steps: list[Step]) -> None:
    items, notes = ctx.db[Item], ctx.db[Note]
    for step in steps:
        item = Item(id=step.key, label=step.text, owner=ctx.sender, maybe=step.text or None)
        note = Note(item=step.key, text=step.text, at=Timestamp(step.key))
        if step.kind == 0:
            items.delete_key(step.key)
            items.insert(item)
        elif step.kind == 1:
            items.delete_key(step.key)
        elif step.kind == 2:
            notes.insert(note)
        elif step.kind == 3:
            notes.delete(note)
        elif step.kind == 4 and items.get(step.key) is not None:
            items.update(item)
"""
QUERIES = [
    "SELECT * FROM Item",
    "SELECT * FROM Note",
    "SELECT * FROM Item WHERE label = 'a'",
    "SELECT * FROM Item WHERE id > 1",
    "SELECT * FROM Note WHERE item = 1 OR text = 'b'",
    "SELECT Note.* FROM Note JOIN Item ON Note.item = Item.id WHERE Item.label = 'a'",
]
STEP = st.tuples(st.integers(0, 4), st.integers(0, 3), st.sampled_from(["", "a", "b", "é"]))
ACTION = st.one_of(
    st.lists(STEP, min_size=1, max_size=6),
    st.lists(st.sampled_from(QUERIES), max_size=3),
)


def old_item(id_: int, label: str, owner: list[str], maybe: list[Any]) -> list[Any]:
    return [id_, label, [owner[0].removeprefix("0x")], {str(maybe[0]): maybe[1]}]


def old_note(item: int, text: str, at: list[int]) -> list[Any]:
    return [item, text, at[0]]


OLD: dict[str, Callable[..., list[Any]]] = {"Item": old_item, "Note": old_note}
"""Rows as SQL of today answers them, in the form that they have on the wires of 0.7 to 0.11."""


async def answer(door: Door, owner: Credentials, queries: list[str]) -> dict[str, list[str]]:
    """Return the rows of some queries, each once, by table."""
    found: dict[str, set[str]] = {}
    for query in queries:
        reply = await door.send("POST", "/v1/database/probe/sql", bearer(owner), query)
        assert reply.status == 200, reply.text
        (result,) = reply.document
        table = "Note" if "Note" in query.partition(" WHERE")[0] else "Item"
        found.setdefault(table, set()).update(json.dumps(OLD[table](*row)) for row in result["rows"])
    return {table: sorted(rows) for table, rows in found.items() if rows}


async def play(actions: list[list[Any]]) -> None:
    async with opened(SOURCE) as (door, definition, owner), trio.open_nursery() as nursery:
        clients = {name: LegacyClient(door, name) for name in DIALECTS}
        for client in clients.values():
            assert await client.open(nursery, "probe") == 101
            await client.subscribe(QUERIES[0])
        queries = [QUERIES[0]]
        for action in actions:
            await trio.sleep(1)
            if action and isinstance(action[0], tuple):
                steps = json.dumps([list(step) for step in action])
                reply = await door.send("POST", "/database/call/probe/change", basic(owner.token), f"[{steps}]")
                assert reply.status == 200, reply.text
            else:
                queries = action
                for client in clients.values():
                    if client.speech.keeps_stale:
                        client.cache.clear()  # such a client starts anew, or it holds what fell out for ever
                    await client.subscribe(*queries)
            await trio.sleep(1)
            wanted = await answer(door, owner, queries)
            for name, client in clients.items():
                assert client.rows(definition) == wanted, (name, client.messages[-1:])
        nursery.cancel_scope.cancel()


@given(actions=st.lists(ACTION, min_size=1, max_size=6), schedule=st.random_module())
@settings(max_examples=25, deadline=None)
def test_the_caches_of_all_dialects_equal_the_answer_of_sql(actions: list[list[Any]], schedule: object) -> None:
    trio.run(play, actions, clock=MockClock(autojump_threshold=0))
