"""Players on a grid of chunks."""

from stdb import ReducerContext, f32, index, primary_key, reducer, table, u32, u64


@table(public=True)
class Player:
    id: u32 = primary_key()
    chunk: u32 = index()
    x: f32
    y: f32
    step: u64


@reducer
def move(ctx: ReducerContext, id: u32, chunk: u32, x: f32, y: f32, step: u64) -> None:
    ctx.db[Player].insert_or_update(Player(id=id, chunk=chunk, x=x, y=y, step=step))
