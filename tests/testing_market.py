"""A market: a module with something of everything, for the tests of `stdb.testing`."""

import datetime
import enum

from stdb import (
    HttpContext,
    Identity,
    ProcedureContext,
    Query,
    ReducerContext,
    Request,
    Response,
    ScheduleAt,
    SenderError,
    Timestamp,
    ViewContext,
    client_connected,
    http_route,
    index,
    init,
    primary_key,
    procedure,
    product,
    reducer,
    table,
    u32,
    u64,
    view,
)


class Kind(enum.Enum):
    FRUIT = 0
    TOOL = 1


@product
class Place:
    x: int
    y: int


@table(public=True)
class Item:
    id: u64 = primary_key(auto_inc=True)
    owner: Identity = index()
    kind: Kind
    place: Place
    price: u32
    until: datetime.datetime | None = None


@table
class Note:
    text: str = primary_key()
    number: int = 0


sold = table(Item, name="sold", public=True)


@table(public=True, event=True)
class Rang:
    who: Identity
    times: u32


@table(scheduled=True)
class Alarm:
    scheduled_id: u64 = primary_key(auto_inc=True)
    scheduled_at: ScheduleAt
    times: u32


@init
def opened(ctx: ReducerContext) -> None:
    ctx.db[Note].insert(Note(text="opened", number=ctx.rng.randrange(1000)))
    print("the market is open")  # noqa: T201 - as authors do


@client_connected
def comes(ctx: ReducerContext) -> None:
    if ctx.sender_auth.get("banned"):
        raise SenderError("you are banned")


@reducer
def put(ctx: ReducerContext, kind: Kind, place: Place, price: u32 = 10, until: datetime.datetime | None = None) -> None:
    if price > 1000:
        raise SenderError("too dear")
    ctx.db[Item].insert(Item(owner=ctx.sender, kind=kind, place=place, price=price, until=until))


@reducer
def buy(ctx: ReducerContext, id: u64) -> None:
    item = ctx.db[Item].get(id)
    if item is None:
        raise SenderError(f"there is no item {id}")
    ctx.db[Item].delete_key(id)
    ctx.db[sold].insert(item)


@reducer
def reprice(ctx: ReducerContext, id: u64, price: u32) -> None:
    item = ctx.db[Item][id]
    item.price = price
    ctx.db[Item].update(item)


@reducer
def note_claim(ctx: ReducerContext, name: str) -> None:
    ctx.db[Note].insert_or_update(Note(text=f"{name}={ctx.sender_auth.get(name)}"))


@reducer
def roll(ctx: ReducerContext, text: str) -> None:
    ctx.db[Note].insert(Note(text=text, number=ctx.rng.randrange(1_000_000_000)))


@reducer(private=True)
def close(ctx: ReducerContext) -> None:
    ctx.db[Item].clear()


@reducer(name="ring_bell")
def ring(ctx: ReducerContext, times: u32) -> None:
    ctx.db[Rang].insert(Rang(who=ctx.sender, times=times))


@reducer
def set_alarm(ctx: ReducerContext, seconds: u32, again: bool) -> None:
    span = datetime.timedelta(seconds=seconds)
    when = ScheduleAt.every(span) if again else ScheduleAt.after(ctx, span)
    ctx.db[Alarm].insert(Alarm(scheduled_at=when, times=1))


@reducer(scheduled=Alarm)
def alarm(ctx: ReducerContext, timer: Alarm) -> None:
    ctx.db[Note].insert(Note(text=f"alarm at {ctx.timestamp}", number=timer.times))


@view(public=True)
def mine(ctx: ViewContext) -> list[Item]:
    return [item for item in ctx.db[Item].filter(Item.owner == ctx.sender)]


@view(public=True)
def first(ctx: ViewContext) -> Item | None:
    return next(ctx.db[Item].filter(order_by=Item.id, limit=1), None)


@view(public=True)
def fruit(ctx: ViewContext) -> Query[Item]:
    return ctx.db[Item].query(Item.kind == Kind.FRUIT)


@procedure
async def rate(ctx: ProcedureContext, factor: int) -> int:
    response = await ctx.http.get("https://rates.example/today")
    if response.status != 200:
        raise SenderError(f"no rate: {response.status}")
    return factor * int(response.text)


@procedure
async def nap(ctx: ProcedureContext, seconds: u32) -> Place:
    await ctx.sleep(seconds)
    await ctx.transact(wake, ctx.now())
    return Place(x=seconds, y=-1)


def wake(ctx: ReducerContext, when: Timestamp) -> None:
    ctx.db[Note].insert(Note(text=f"woke at {when}"))


@http_route("POST", "/echo")
def echo(ctx: HttpContext, request: Request) -> Response:
    return Response(request.text.upper())
