"""The module of the crash tests: lists that are appended to, rows that are overwritten, who came and who left."""

from stdb import (
    ConnectionId,
    ReducerContext,
    SenderError,
    client_connected,
    client_disconnected,
    index,
    primary_key,
    reducer,
    table,
    u32,
    u64,
)

SLOTS = 7


@table(public=True)
class Tail:
    """How long each list is: a row that every append to the list overwrites."""

    list: u32 = primary_key()
    length: u32 = 0


@table(public=True)
class Element:
    id: u64 = primary_key(auto_inc=True)
    list: u32 = index()
    position: u32
    value: u64


@table(public=True)
class Operation:
    """What one append was to do, beside what it did."""

    value: u64 = primary_key()
    life: u32 = index()
    first: u32
    second: u32


@table(public=True)
class Slot:
    slot: u32 = primary_key()
    value: u64


@table(public=True)
class Baton:
    """One row without a key of its own: each append deletes the one before and inserts its own."""

    value: u64


@table(public=True)
class Visit:
    """Who came and who left, in this order."""

    id: u64 = primary_key(auto_inc=True)
    connection: ConnectionId
    arrived: bool


@reducer
def append(ctx: ReducerContext, value: u64, life: u32, first: u32, second: u32) -> None:
    """Append a value to two lists."""
    for name in (first, second):
        tail = ctx.db[Tail].get(name) or ctx.db[Tail].insert(Tail(list=name))
        ctx.db[Element].insert(Element(list=name, position=tail.length, value=value))
        tail.length += 1
        ctx.db[Tail].update(tail)
    ctx.db[Operation].insert(Operation(value=value, life=life, first=first, second=second))
    slot = ctx.db[Slot].get(value % SLOTS)
    if slot is None:
        ctx.db[Slot].insert(Slot(slot=value % SLOTS, value=value))
    else:
        slot.value = value
        ctx.db[Slot].update(slot)
    for baton in list(ctx.db[Baton]):
        ctx.db[Baton].delete(baton)
    ctx.db[Baton].insert(Baton(value=value))


@client_connected
def connected(ctx: ReducerContext) -> None:
    assert ctx.connection_id is not None
    ctx.db[Visit].insert(Visit(connection=ctx.connection_id, arrived=True))


@client_disconnected
def disconnected(ctx: ReducerContext) -> None:
    assert ctx.connection_id is not None
    ctx.db[Visit].insert(Visit(connection=ctx.connection_id, arrived=False))
    if int(ctx.connection_id) % 8 == 7:
        raise SenderError("I do not leave")
