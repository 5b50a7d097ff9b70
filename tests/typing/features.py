"""What type checkers accept: every part of the author's face, used as it should be."""
# ruff: noqa: T201

import enum
from collections.abc import Iterator
from datetime import timedelta

from stdb import (
    Address,
    Identity,
    Index,
    ReducerContext,
    SenderError,
    Table,
    Timestamp,
    Unique,
    auto_inc,
    between,
    client_visibility_filter,
    column,
    desc,
    f32,
    index,
    init,
    is_in,
    is_none,
    not_,
    primary_key,
    product,
    reducer,
    replace,
    starts_with,
    table,
    u8,
    u32,
    u64,
    unique,
)


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


@product
class Circle:
    radius: f32


@product
class Square:
    side: f32 = 1.0


Shape = Circle | Square


@table(public=True, name="seats", indexes=[Index("by_room", "room", "number")], uniques=[Unique("room", "number")])
class Seat:
    id: u64 = primary_key(auto_inc=True)
    room: str
    number: u32 = index(kind="hash")
    code: str = unique(default="")
    counter: u32 = auto_inc()
    shape: Shape | None = None
    colour: Colour = column(default=Colour.RED)
    level: u8 = 1
    free: bool = True
    owner: Identity | None = None

    @property
    def label(self) -> str:
        return f"{self.room}{self.number}"


old_seat = table(Seat, name="old_seat", public=True)


client_visibility_filter("SELECT * FROM seats WHERE room = 'lobby'")


@table
class Plain:
    text: str


@init
def start(ctx: ReducerContext) -> None:
    book(ctx, "a", 1)


@reducer(name="book_seat", private=True)
def book(ctx: ReducerContext, room: str, number: u32, shape: Shape | None = None) -> None:
    seats: Table[Seat] = ctx.db[Seat]
    seat = seats.insert(Seat(room=room, number=number, shape=shape))
    seat.free = False
    updated: Seat = seats.update(seat)
    changed: Seat = replace(updated, id=7)
    one: Seat | None = seats.find((Seat.room == room) & (Seat.number == number) & Seat.free)
    many: Iterator[Seat] = seats.filter(
        between(Seat.level, 1, 3) | is_in(Seat.colour, [Colour.RED]) | not_(is_none(Seat.owner)),
        order_by=[desc(Seat.room), Seat.number],
        limit=3,
    )
    count: int = seats.delete(starts_with(Seat.code, "x")) + seats.delete(changed) + len(seats)
    for each in ctx.db[old_seat]:
        print(each.label, each in seats, count, one, list(many))
    match seat.shape:
        case Circle(radius=radius):
            print(radius)
        case Square(side=side):
            print(side)
        case None:
            raise SenderError("no shape")
    ctx.db.seats.id.find(3)
    later: Timestamp = ctx.timestamp + timedelta(seconds=1)
    where: Address | None = ctx.address
    print(later, where, ctx.rng.random(), ctx.sender.hex())
