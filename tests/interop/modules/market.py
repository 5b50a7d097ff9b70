"""A market: views of items, event rows of sales, procedures that buy, prices that a schedule lowers."""

import enum
import logging
from datetime import timedelta

from stdb import (
    AnonymousViewContext,
    Identity,
    ProcedureContext,
    Query,
    ReducerContext,
    ScheduleAt,
    SenderError,
    ViewContext,
    index,
    primary_key,
    procedure,
    product,
    reducer,
    replace,
    table,
    u32,
    u64,
    view,
)


class Kind(enum.Enum):
    FOOD = 1
    TOOL = 2


@product
class Size:
    width: u32
    height: u32


@table(public=True)
class Item:
    id: u32 = primary_key(auto_inc=True)
    owner: Identity = index()
    name: str
    price: u32 = index()
    kind: Kind = Kind.FOOD
    size: Size | None = None


@table(public=True, event=True)
class Sale:
    item: u32
    buyer: Identity
    price: u32


@table(scheduled=True)
class Reduction:
    scheduled_id: u64 = primary_key(auto_inc=True)
    scheduled_at: ScheduleAt
    item: u32


@product
class Average:
    items: u32
    price: u32


@product
class Receipt:
    item: u32
    price: u32
    words: list[str]
    left: u32 | None


# Reducers


@reducer
def add(ctx: ReducerContext, name: str, price: u32) -> None:
    ctx.db[Item].insert(Item(owner=ctx.sender, name=name, price=price))


@reducer
def describe(ctx: ReducerContext, name: str, kind: Kind, size: Size | None, words: list[str]) -> None:
    found = next(ctx.db[Item].filter(Item.name == name))
    ctx.db[Item].update(replace(found, kind=kind, size=size, name=" ".join([name, *words])))


@reducer
def set_price(ctx: ReducerContext, item: u32, price: u32) -> None:
    found = ctx.db[Item].get(item)
    if found is None:
        raise SenderError(f"there is no item {item}")
    found.price = price
    ctx.db[Item].update(found)


@reducer
def announce(ctx: ReducerContext, price: u32) -> None:
    ctx.db[Sale].insert(Sale(item=0, buyer=ctx.sender, price=price))
    if price == 13:
        raise SenderError("nobody sells at 13")


@reducer
def reduce_soon(ctx: ReducerContext, item: u32, millis: u32) -> None:
    at = ScheduleAt.after(ctx, timedelta(milliseconds=millis))
    ctx.db[Reduction].insert(Reduction(scheduled_at=at, item=item))


@reducer(scheduled=Reduction)
def reduce_price(ctx: ReducerContext, timer: Reduction) -> None:
    if found := ctx.db[Item].get(timer.item):
        found.price -= 1
        ctx.db[Item].update(found)


# Views


@view(public=True)
def mine(ctx: ViewContext) -> Query[Item]:
    return ctx.db[Item].query(Item.owner == ctx.sender)


@view(public=True, primary_key="items")
def average(ctx: AnonymousViewContext) -> Average | None:
    prices = [item.price for item in ctx.db[Item]]
    if 0 in prices:
        raise ValueError("something is for free")
    return Average(items=len(prices), price=sum(prices) // len(prices)) if prices else None


@view(public=True)
def cheaper(ctx: AnonymousViewContext, price: u32) -> list[Item]:
    return list(ctx.db[Item].filter(Item.price < price, order_by=Item.id))


@view
def hidden(ctx: AnonymousViewContext) -> list[Item]:
    return list(ctx.db[Item])


# Procedures


def _sell(tx: ReducerContext, item: u32, buyer: Identity) -> Item:
    found = tx.db[Item].get(item)
    if found is None:
        raise SenderError(f"there is no item {item}")
    found.owner = buyer
    tx.db[Sale].insert(Sale(item=item, buyer=buyer, price=found.price))
    return tx.db[Item].update(found)


def _count(tx: ReducerContext, owner: Identity) -> int:
    return sum(1 for _ in tx.db[Item].filter(Item.owner == owner))


@procedure
async def buy(ctx: ProcedureContext, item: u32) -> Receipt:
    sold = await ctx.transact(_sell, item, ctx.sender)
    await ctx.sleep(0.01)
    left = await ctx.transact(_count, ctx.sender)
    return Receipt(item=item, price=sold.price, words=sold.name.split(), left=left)


@procedure
async def nothing(ctx: ProcedureContext) -> None:
    await ctx.sleep(0)


@procedure
async def breaks(ctx: ProcedureContext) -> u32:
    await ctx.sleep(0.01)
    raise ZeroDivisionError("nothing to divide")


@procedure(private=True)
async def owners_only(ctx: ProcedureContext) -> u32:
    return 1


@procedure
async def wait_long(ctx: ProcedureContext, name: str) -> u32:
    logging.info("%s waits", name)
    try:
        await ctx.sleep(3600)
    finally:
        logging.info("%s waits no more", name)
    return 1
