"""A chat as a FunctionModule, for the tests of actors: people come and go, send messages, fail in every way."""

from collections.abc import Sequence

from stdb.errors import ReducerError
from stdb.sats.types import I64, STRING, U32, U64, U256
from stdb.schema.model import Lifecycle, TableDef
from stdb.testing.modules import Context, FunctionModule, reducer, table

MESSAGE = table("message", {"id": U64, "sender": U256, "text": STRING}, primary_key="id", auto_inc=True)
ONLINE = table("online", {"who": U256, "count": I64}, primary_key="who")
SECRET = table("secret", {"id": U32, "text": STRING}, primary_key="id", public=False)
EVENTS = table("events", {"what": STRING})
FLASH = table("flash", {"what": STRING}, event=True)


def sender(ctx: Context) -> int:
    return int.from_bytes(ctx.call.sender, "little")


def step(ctx: Context, by: int) -> None:
    who = sender(ctx)
    before = next((row for row in ctx.rows("online") if row[0] == who), (who, 0))
    if before[1]:
        ctx.delete("online", *before)
    if before[1] + by:
        ctx.insert("online", who, before[1] + by)


def connected(ctx: Context) -> None:
    if (ctx.call.credentials or "").startswith('{"sub":"banned'):
        raise ReducerError("you are banned")
    step(ctx, 1)


def disconnected(ctx: Context) -> None:
    step(ctx, -1)
    if any(row == ("refuse to disconnect",) for row in ctx.rows("events")):
        raise ReducerError("not now")


def say(ctx: Context, text: str) -> None:
    if not text:
        raise ReducerError("say something")
    ctx.insert("message", 0, sender(ctx), text)


def note(ctx: Context, what: str) -> None:
    ctx.insert("events", what)


def flash(ctx: Context, what: str) -> None:
    ctx.insert("flash", what)


def keep(ctx: Context, number: int, text: str) -> None:
    ctx.insert("secret", number, text)


def write_and_fail(ctx: Context, how: str) -> None:
    ctx.insert("events", "never")
    if how == "refuse":
        raise ReducerError("refused")
    raise ZeroDivisionError(how)


def nothing(ctx: Context) -> None:
    pass


def chat(
    *,
    version: str = "1",
    init_error: str = "",
    extra_tables: Sequence[TableDef] = (),
    tables: Sequence[TableDef] = (MESSAGE, ONLINE, SECRET, EVENTS, FLASH),
) -> FunctionModule:
    """Return a fresh chat module."""

    def init(ctx: Context) -> None:
        ctx.insert("events", "init")
        if init_error:
            raise ReducerError(init_error)

    text = {"text": STRING}
    return FunctionModule(
        [*tables, *extra_tables],
        {
            "init": reducer(init, lifecycle=Lifecycle.INIT),
            "connected": reducer(connected, lifecycle=Lifecycle.ON_CONNECT),
            "disconnected": reducer(disconnected, lifecycle=Lifecycle.ON_DISCONNECT),
            "say": reducer(say, text),
            "note": reducer(note, text),
            "flash": reducer(flash, text),
            "keep": reducer(keep, {"number": U32, "text": STRING}, private=True),
            "write_and_fail": reducer(write_and_fail, text),
            "nothing": reducer(nothing),
        },
        version=version,
    )
