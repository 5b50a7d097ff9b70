"""What type checkers accept: every part of the author's face, used as it should be."""
# ruff: noqa: T201

import enum
from collections.abc import Iterator
from datetime import timedelta

from stdb import (
    Address,
    AnonymousViewContext,
    ClientResponse,
    HttpContext,
    HttpError,
    Identity,
    Index,
    MigrationContext,
    OldRow,
    OldVariant,
    ProcedureContext,
    Query,
    ReadTable,
    ReducerContext,
    Request,
    Response,
    ScheduleAt,
    SenderError,
    Table,
    TimeDuration,
    Timestamp,
    Unique,
    ViewContext,
    auto_inc,
    between,
    client_visibility_filter,
    column,
    desc,
    f32,
    http_route,
    index,
    init,
    is_in,
    is_none,
    migrate,
    not_,
    primary_key,
    procedure,
    product,
    reducer,
    replace,
    starts_with,
    table,
    u8,
    u32,
    u64,
    unique,
    view,
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


@table(scheduled=True)
class Tick:
    scheduled_id: u64 = primary_key(auto_inc=True)
    scheduled_at: ScheduleAt
    room: str


@reducer(scheduled=Tick)
def tick(ctx: ReducerContext, timer: Tick) -> None:
    again: Tick = ctx.db[Tick].insert(Tick(room=timer.room, scheduled_at=ScheduleAt.after(ctx, timedelta(seconds=1))))
    ctx.db[Tick].insert(Tick(room="a", scheduled_at=ScheduleAt.every(TimeDuration(seconds=1))))
    ctx.db[Tick].insert(Tick(room="a", scheduled_at=ScheduleAt.at(ctx.timestamp)))
    print(again.scheduled_id, again.scheduled_at.time)


@view
def all_seats(ctx: AnonymousViewContext) -> list[Seat]:
    return list(ctx.db[Seat].filter(Seat.free, order_by=Seat.id))


@view(public=True, name="my_seats", primary_key="id")
def mine(ctx: ViewContext) -> list[Seat]:
    seats: ReadTable[Seat] = ctx.db[Seat]
    one: Seat | None = seats.get(3) or seats.find(Seat.code == "x")
    return [] if one is None else [one, *seats.filter((Seat.owner == ctx.sender) & (Seat.room == "a"))]


@view
def query(ctx: ViewContext) -> Query[Seat]:
    return ctx.db[Seat].query(Seat.owner == ctx.sender)


@view
def in_room(ctx: ViewContext, room: str, number: u32) -> list[Seat]:
    return list(ctx.db[Seat].filter((Seat.room == room) & (Seat.number == number)))


@view
def first(ctx: ViewContext) -> Seat | None:
    return next(iter(ctx.db[old_seat]), None)


def take(tx: ReducerContext, room: str, *, number: u32 = 1) -> Seat:
    return tx.db[Seat].insert(Seat(room=room, number=number))


@procedure(private=True)
async def reserve(ctx: ProcedureContext, room: str) -> u64 | None:
    seat: Seat = await ctx.transact(take, room, number=5)
    await ctx.transact(book, room, 6)
    first: Seat | None = await ctx.transact(lambda tx: tx.db[Seat].get(3))
    count: int = await ctx.transact(lambda tx: len(tx.db[Seat]))
    print(first, count)
    await ctx.sleep(0.5)
    await ctx.sleep(timedelta(minutes=1))
    try:
        answer: ClientResponse = await ctx.http.post(
            "https://x/", json={"seat": seat.id}, headers={"a": "b"}, timeout_s=5
        )
    except HttpError as error:
        raise SenderError(f"nobody answers: {error}") from None
    status: int = answer.status
    print(answer.headers["a"], answer.text, answer.json(), ctx.sender_auth, ctx.now(), ctx.address)
    return seat.id if status == 200 else None


@table(scheduled=True)
class Job:
    scheduled_at: ScheduleAt
    room: str


@procedure(scheduled=Job)
async def later(ctx: ProcedureContext, timer: Job) -> None:
    print(ctx.timestamp, timer.room)


@http_route("GET", "/hello")
def hello(ctx: HttpContext, request: Request) -> Response:
    names: list[str] = request.query.get_all("name")
    count: int = len(ctx.db[Seat])
    return Response(f"{names} {count}", status=201, headers={"x-a": request.headers.get("x-a", "")})


@http_route(None, "/wait")
async def wait(ctx: HttpContext, request: Request) -> Response:
    seat = await ctx.transact(take, request.text)
    return Response.json({"id": seat.id})


@migrate(Seat)
def seat(old: OldRow, ctx: MigrationContext) -> Seat | None:
    columns: tuple[str, ...] = old.columns
    print(columns, old["room"], ctx.timestamp, ctx.rng.random(), ctx.database_identity)
    row = Seat(room=old.room, number=int(old.number))
    return replace(row, id=old.id) if len(ctx.db[Seat]) < 9 else None


@migrate(old_seat)
def archived(old: OldRow, ctx: MigrationContext) -> Seat:
    variant: OldVariant = old.state
    return Seat(room=variant.name, number=1)


@migrate("gone")
def gone(old: OldRow, ctx: MigrationContext) -> None:
    ctx.db[Seat].insert(Seat(room=old.name, number=0))
