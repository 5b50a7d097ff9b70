"""A module whose past is travelled to in tests: values of many types, a timer, a view, an event."""

import enum

from stdb import (
    Identity,
    ReducerContext,
    ScheduleAt,
    Timestamp,
    ViewContext,
    client_disconnected,
    primary_key,
    reducer,
    table,
    u64,
    unique,
    view,
)


class Color(enum.Enum):
    red = 0
    green = 1


@table(public=True)
class Item:
    id: u64 = primary_key(auto_inc=True)
    name: str = unique()
    price: float
    color: Color | None
    tags: list[str]


@table
class Bare:
    text: str
    at: Timestamp
    who: Identity


@table(event=True, public=True)
class Noise:
    word: str


@table(scheduled=True)
class Bell:
    scheduled_id: u64 = primary_key(auto_inc=True)
    scheduled_at: ScheduleAt


@reducer(scheduled=Bell)
def ring(ctx: ReducerContext, bell: Bell) -> None:
    return


@reducer
def add(ctx: ReducerContext, name: str, price: float) -> None:
    ctx.db[Item].insert(Item(name=name, price=price, color=Color.green if price > 2 else None, tags=[name, "x"]))
    ctx.db[Noise].insert(Noise(word=name))


@reducer
def note(ctx: ReducerContext, text: str) -> None:
    ctx.db[Bare].insert(Bare(text=text, at=ctx.timestamp, who=ctx.sender))


@reducer
def rename(ctx: ReducerContext, old: str, new: str) -> None:
    item = ctx.db[Item].name.find(old)
    assert item is not None
    item.name = new
    ctx.db[Item].id.update(item)


@reducer
def clear(ctx: ReducerContext) -> None:
    for item in list(ctx.db[Item]):
        ctx.db[Item].delete(item)


@client_disconnected
def left(ctx: ReducerContext) -> None:
    return


@view(public=True)
def dear(ctx: ViewContext) -> list[Item]:
    return [item for item in ctx.db[Item] if item.price > 2]
