"""What the recorded runs of the official command line need of their module `kitchen`, as a Python module."""

import enum
import logging
import uuid

from stdb import (
    ConnectionId,
    Identity,
    ProcedureContext,
    ReducerContext,
    ScheduleAt,
    SenderError,
    TimeDuration,
    Timestamp,
    client_connected,
    client_visibility_filter,
    init,
    primary_key,
    procedure,
    product,
    reducer,
    table,
    u32,
    u64,
)


@table(public=True)
class Plain:
    a: u32
    b: u32


@table(public=True)
class Person:
    id: u32 = primary_key()
    name: str
    age: u32
    email: str


@table
class Secret:
    id: u32 = primary_key()
    word: str


@table(public=True)
class Specials:
    id: u32 = primary_key()
    b: bool
    s: str
    bytes: bytes
    identity: Identity
    conn: ConnectionId
    ts: Timestamp
    td: TimeDuration
    uuid: uuid.UUID


@table(public=True, name="renamed_wire")
class Renamed:
    camel_col: u32 = primary_key()
    other_col: str


@table(public=True)
class Timer:
    scheduled_id: u64 = primary_key(auto_inc=True)
    scheduled_at: ScheduleAt
    note: str


@table(public=True)
class Owned:
    id: u64 = primary_key()
    owner: Identity
    word: str


client_visibility_filter("SELECT * FROM owned WHERE owner = :sender")


class Color(enum.Enum):
    red = 0
    green = 1
    blue = 2


@product
class Point:
    x: int
    y: int


@product
class Nested:
    name: str
    pos: Point
    tags: list[str]


@init
def on_init(ctx: ReducerContext) -> None:
    for a, b in ((1, 1), (1, 2), (2, 2)):
        ctx.db[Plain].insert(Plain(a=a, b=b))
    for id, name, age in ((1, "Ann", 30), (2, "Bob", 20), (3, "Cid", 30)):
        ctx.db[Person].insert(Person(id=id, name=name, age=age, email=f"{name}@x"))
    ctx.db[Secret].insert(Secret(id=1, word="hidden"))
    ctx.db[Renamed].insert(Renamed(camel_col=1, other_col="r"))
    ctx.db[Owned].insert(Owned(id=1, owner=ctx.sender, word="owner's"))
    ctx.db[Owned].insert(Owned(id=2, owner=Identity.from_hex("1".zfill(64)), word="one's"))
    ctx.db[Specials].insert(
        Specials(
            id=1,
            b=True,
            s="abc",
            bytes=b"\xab\xcd",
            identity=ctx.sender,
            conn=ConnectionId.from_hex("7".zfill(32)),
            ts=Timestamp.from_rfc3339("2025-02-10T15:45:30Z"),
            td=TimeDuration(micros=1_500_000),
            uuid=uuid.UUID("01020304-0506-0708-090a-0b0c0d0e0f10"),
        )
    )


@client_connected
def on_connect(ctx: ReducerContext) -> None:
    pass


@reducer
def r_empty(ctx: ReducerContext) -> None:
    pass


@reducer
def r_err(ctx: ReducerContext, text: str) -> None:
    raise SenderError(text)


@reducer
def r_panic(ctx: ReducerContext, text: str) -> None:
    raise RuntimeError(text)


@reducer
def add_plain(ctx: ReducerContext, a: u32, b: u32) -> None:
    ctx.db[Plain].insert(Plain(a=a, b=b))


@reducer
def drop_plain(ctx: ReducerContext, a: u32) -> None:
    ctx.db[Plain].delete(Plain.a == a)


@reducer
def swap_plain(ctx: ReducerContext, a: u32, b: u32) -> None:
    ctx.db[Plain].delete(Plain.a == a)
    ctx.db[Plain].insert(Plain(a=a, b=b))


@reducer
def log_all(ctx: ReducerContext, text: str) -> None:
    logging.info("info %s", text)
    logging.warning("warn %s", text)
    logging.error("error %s", text)


@reducer
def spin(ctx: ReducerContext) -> None:
    while True:
        pass


@reducer
def take_two(ctx: ReducerContext, first: u32, second: str) -> None: ...


@reducer
def take_string(ctx: ReducerContext, x: str) -> None: ...


@reducer
def take_u_64(ctx: ReducerContext, x: int) -> None: ...


@reducer
def take_i_32(ctx: ReducerContext, x: int) -> None: ...


@reducer
def take_opt_u_32(ctx: ReducerContext, x: u32 | None) -> None: ...


@reducer
def take_bool(ctx: ReducerContext, x: bool) -> None: ...


@reducer
def take_bytes(ctx: ReducerContext, x: bytes) -> None: ...


@reducer
def take_identity(ctx: ReducerContext, x: Identity) -> None:
    if x != ctx.sender:
        raise SenderError(f"{x} is not {ctx.sender}")


@reducer
def take_conn(ctx: ReducerContext, x: ConnectionId) -> None: ...


@reducer
def take_opt_str(ctx: ReducerContext, x: str | None) -> None: ...


@reducer
def take_color(ctx: ReducerContext, x: Color) -> None: ...


@reducer
def take_point(ctx: ReducerContext, x: Point) -> None: ...


@reducer
def take_nested(ctx: ReducerContext, x: Nested) -> None: ...


@reducer
def take_v_str(ctx: ReducerContext, x: list[str]) -> None: ...


@reducer
def take_ts(ctx: ReducerContext, x: Timestamp) -> None: ...


@procedure
async def ret_u_32(ctx: ProcedureContext) -> u32:
    return 7


@procedure
async def ret_string(ctx: ProcedureContext) -> str:
    return "s"


@procedure
async def ret_unit(ctx: ProcedureContext) -> None:
    pass


@procedure
async def ret_point(ctx: ProcedureContext) -> Point:
    return Point(x=1, y=2)


@procedure
async def ret_none(ctx: ProcedureContext) -> u32 | None:
    return None


@procedure
async def p_add(ctx: ProcedureContext, a: u32, b: u32) -> u32:
    return a + b


@procedure
async def p_panic(ctx: ProcedureContext) -> None:
    raise ValueError("procedure panics")


@procedure
async def nap(ctx: ProcedureContext, seconds: float) -> None:
    await ctx.sleep(seconds)
