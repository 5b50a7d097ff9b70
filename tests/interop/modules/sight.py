"""What one sees: entities one looks at, actors of a zone, notes in the room of one's seat."""

from stdb import (
    Identity,
    ReducerContext,
    SenderError,
    client_visibility_filter,
    index,
    primary_key,
    reducer,
    table,
    u32,
    u64,
)


@table(public=True)
class Entity:
    id: u32 = primary_key()
    name: str
    x: u32 = 0


@table(public=True)
class Look:
    id: u64 = primary_key(auto_inc=True)
    viewer: Identity = index()
    entity: u32 = index()


@table(public=True)
class Mark:
    entity: u32 = index()
    text: str


@table(public=True)
class Actor:
    id: u32 = primary_key()
    zone: u32 = index()
    hp: u32


@table
class Seat:
    who: Identity = primary_key()
    room: u32 = index()


@table(public=True)
class Note:
    id: u32 = primary_key()
    room: u32 = index()
    text: str


client_visibility_filter("SELECT n.* FROM seat s JOIN note n ON s.room = n.room WHERE s.who = :sender")


@reducer
def look(ctx: ReducerContext, entity: u32) -> None:
    ctx.db[Look].insert(Look(viewer=ctx.sender, entity=entity))


@reducer
def look_away(ctx: ReducerContext, entity: u32) -> None:
    for seen in ctx.db[Look].filter((Look.viewer == ctx.sender) & (Look.entity == entity), limit=1):
        ctx.db[Look].delete(seen)
        return
    raise SenderError("you do not look at it")


@reducer
def move(ctx: ReducerContext, entity: u32, x: u32) -> None:
    moved = ctx.db[Entity][entity]
    moved.x = x
    ctx.db[Entity].update(moved)


@reducer
def sit(ctx: ReducerContext, room: u32) -> None:
    ctx.db[Seat].insert_or_update(Seat(who=ctx.sender, room=room))


@reducer
def pass_seat(ctx: ReducerContext, to: str) -> None:
    """Give one's seat to another who has none."""
    seat = ctx.db[Seat][ctx.sender]
    ctx.db[Seat].delete(seat)
    ctx.db[Seat].insert(Seat(who=Identity.from_hex(to), room=seat.room))
