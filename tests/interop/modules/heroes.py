"""Heroes: a column of every kind, tables with and without a key, reducers that commit, refuse, break and come late."""

import enum
from datetime import timedelta

from stdb import (
    Address,
    Identity,
    ReducerContext,
    ScheduleAt,
    SenderError,
    TimeDuration,
    Timestamp,
    client_connected,
    client_disconnected,
    primary_key,
    product,
    reducer,
    replace,
    sum_type,
    table,
    u8,
    u32,
    u64,
    u128,
    u256,
)


class Rank(enum.Enum):
    Squire = 1
    Knight = 2


@product
class Place:
    x: int
    y: int


@product
class Sword:
    sharpness: u8


@product
class Spell:
    words: list[str]


Weapon = sum_type("Weapon", Sword, Spell)


@table(name="Hero", public=True)
class Hero:
    identity: Identity = primary_key()
    name: str | None = None
    online: bool = False


@table(public=True)
class Deed:
    who: Identity
    at: Timestamp
    text: str


@table(public=True)
class Relic:
    id: u32 = primary_key()
    rank: Rank
    place: Place
    weapon: Weapon
    weight: float
    data: bytes
    many: list[u32]
    maybe: Place | None
    nested: list[list[str] | None]
    owner: Identity
    finder: Address
    found: Timestamp
    lasted: TimeDuration
    big: u128
    huge: u256


@table(public=True)
class Grain:
    id: u32 = primary_key()
    text: str


@table(scheduled=True)
class Errand:
    scheduled_id: u64 = primary_key(auto_inc=True)
    scheduled_at: ScheduleAt
    text: str


@reducer
def set_name(ctx: ReducerContext, name: str | None) -> None:
    if name == "":
        raise SenderError("a name must not be empty")
    hero = ctx.db[Hero].get(ctx.sender)
    assert hero is not None
    ctx.db[Hero].update(replace(hero, name=name))


@reducer
def say(ctx: ReducerContext, text: str) -> None:
    if text == "13":
        raise ZeroDivisionError("nothing to divide")
    ctx.db[Deed].insert(Deed(who=ctx.sender, at=ctx.timestamp, text=text))


@reducer
def forget(ctx: ReducerContext, text: str) -> None:
    for deed in list(ctx.db[Deed].filter(Deed.text == text)):
        ctx.db[Deed].delete(deed)


@reducer
def store(
    ctx: ReducerContext,
    id: u32,
    rank: Rank,
    place: Place,
    weapon: Weapon,
    weight: float,
    data: bytes,
    many: list[u32],
    maybe: Place | None,
    nested: list[list[str] | None],
    owner: Identity,
    finder: Address,
    found: Timestamp,
    lasted: TimeDuration,
    big: u128,
    huge: u256,
) -> None:
    relic = Relic(
        id=id,
        rank=rank,
        place=place,
        weapon=weapon,
        weight=weight,
        data=data,
        many=many,
        maybe=maybe,
        nested=nested,
        owner=owner,
        finder=finder,
        found=found,
        lasted=lasted,
        big=big,
        huge=huge,
    )
    ctx.db[Relic].insert(relic)


@reducer
def pour(ctx: ReducerContext, count: u32) -> None:
    for i in range(count):
        ctx.db[Grain].insert(Grain(id=i, text="x" * 60))


@reducer
def take_grain(ctx: ReducerContext, id: u32) -> None:
    ctx.db[Grain].delete_key(id)


@reducer
def later(ctx: ReducerContext, text: str) -> None:
    at = ScheduleAt.after(ctx, timedelta(milliseconds=50))
    ctx.db[Errand].insert(Errand(scheduled_at=at, text=text))


@reducer(scheduled=Errand)
def run_errand(ctx: ReducerContext, errand: Errand) -> None:
    ctx.db[Deed].insert(Deed(who=ctx.sender, at=ctx.timestamp, text=errand.text))


@client_connected
def connected(ctx: ReducerContext) -> None:
    hero = ctx.db[Hero].get(ctx.sender) or ctx.db[Hero].insert(Hero(identity=ctx.sender))
    ctx.db[Hero].update(replace(hero, online=True))


@client_disconnected
def disconnected(ctx: ReducerContext) -> None:
    if hero := ctx.db[Hero].get(ctx.sender):
        ctx.db[Hero].update(replace(hero, online=False))
