"""Players in chunks, what they left behind, items, and a counter."""

from stdb import Identity, ReducerContext, Timestamp, f32, index, primary_key, reducer, table, u32, u64


@table(public=True)
class Chunk:
    id: u32 = primary_key()
    biome: u32


@table(public=True)
class Player:
    id: u32 = primary_key()
    chunk: u32 = index()
    x: f32
    y: f32
    tag: u32


@table(public=True)
class Footprint:
    player: u32 = primary_key()
    kind: u32
    tag: u32


@table(public=True)
class Item:
    id: u64 = primary_key()
    owner: Identity
    name: str
    x: f32
    y: f32
    z: f32
    hp: u32
    target: u32 | None = None
    sent: Timestamp


@table(public=True)
class Counter:
    id: u32 = primary_key()
    value: u64


@reducer
def fill(ctx: ReducerContext, first: u32, count: u32) -> None:
    for i in range(first, first + count):
        name, target = "item" + "x" * (i % 12), i if i % 2 else None
        ctx.db[Item].insert(
            Item(id=i, owner=ctx.sender, name=name, x=i / 8, y=0.5, z=0.0, hp=9, target=target, sent=ctx.timestamp)
        )


@reducer
def count(ctx: ReducerContext, value: u64) -> None:
    ctx.db[Counter].insert_or_update(Counter(id=1, value=value))
