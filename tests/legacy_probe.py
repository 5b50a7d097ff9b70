"""The probe module of the recordings of 0.8 to 0.11, written in Python (`recorded/legacy`, README there).

Tables, columns and reducers are in the order of the original, so that ids are the same. It keeps the rules of 0.11:
rows that are due run as the owner, a connect reducer that fails refuses nobody.
"""

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

from stdb.errors import ReducerError, UniqueViolation
from stdb.modules.protocol import LogLevel, ReducerCall
from stdb.sats.types import (
    BOOL,
    BYTES,
    CONNECTION_ID,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    I128,
    IDENTITY,
    SCHEDULE_AT,
    STRING,
    U8,
    U16,
    U32,
    U64,
    U128,
    UNIT,
    AlgebraicType,
    Array,
    Element,
    Map,
    Product,
    Sum,
    option,
)
from stdb.schema.model import IndexAlgorithm, IndexDef, Lifecycle, TableDef
from stdb.sql.work import Steps
from stdb.testing.modules import Context, FunctionModule, reducer, table

__all__ = ["KINDS", "MAPS", "VARIANTS", "ProbeModule", "probe"]


def _sum(**variants: AlgebraicType) -> Sum:
    return Sum(tuple(Element(name, type_) for name, type_ in variants.items()))


COLOR = _sum(Red=UNIT, Green=UNIT, Blue=UNIT)
SHAPE = _sum(Circle=U32, Label=STRING, Nothing=UNIT)
POINT = Product((Element("x", I32), Element("y", I32)))
KINDS: dict[str, AlgebraicType] = {
    "id": U32, "b": BOOL, "a1": I8, "a2": U8, "a3": I16, "a4": U16, "a5": I32, "a6": U32, "a7": I64, "a8": U64,
    "a9": I128, "a10": U128, "f": F32, "d": F64, "st": STRING, "by": BYTES, "ar": Array(U32), "ars": Array(STRING),
    "op": option(I32), "ops": option(STRING), "color": COLOR, "shape": SHAPE, "pt": POINT, "ident": IDENTITY,
    "addr": CONNECTION_ID,
}  # fmt: skip
MAPS: dict[str, AlgebraicType] = {
    "id": U32, "m1": Map(STRING, U32), "m2": Map(U32, STRING), "m3": Map(BOOL, U8), "m4": Map(IDENTITY, U8),
    "m5": Map(F32, U8), "m6": Map(option(U32), U8), "u": UNIT, "nest": option(option(U32)), "a2": Array(BYTES),
    "ao": Array(option(I8)),
}  # fmt: skip
"""The columns of Kinds in the first part of `extra_0.11.1`."""
TIMER = Product((Element("scheduled_id", U64), Element("scheduled_at", SCHEDULE_AT), Element("text", STRING)))
_OWNED_BY_SEVEN = 7


def _tables(kinds: dict[str, AlgebraicType]) -> list[TableDef]:
    item = table("Item", {"id": U32, "owner": U32, "name": STRING, "qty": U32}, primary_key="id", auto_inc=True)
    by_owner = IndexDef("item_owner", "item_owner", IndexAlgorithm.BTREE, (1,))
    timer: dict[str, AlgebraicType] = {"scheduled_id": U64, "scheduled_at": SCHEDULE_AT, "text": STRING}
    return [
        table("User", {"identity": IDENTITY, "name": option(STRING), "online": BOOL}, primary_key="identity"),
        table("Message", {"sender": IDENTITY, "sent": U64, "text": STRING}),
        replace(item, indexes=(*item.indexes, by_owner)),
        table("Owner", {"owner_id": U32, "label": STRING}, primary_key="owner_id"),
        table("Kinds", kinds),
        table("Secret", {"id": U32, "txt": STRING}, public=False),
        table("Timer", timer, primary_key="scheduled_id", auto_inc=True, scheduled="on_timer"),
    ]


# What the reducers do.


def _log(ctx: Context, *texts: str, level: str = LogLevel.INFO) -> None:
    for text in texts:
        ctx.log.write(level, text, target="probe", filename="mod.c", line=39)


def _address(ctx: Context) -> str:
    return (ctx.call.connection_id or bytes(16))[::-1].hex()


def _message(ctx: Context, text: str) -> None:
    ctx.insert("Message", ctx.call.sender, ctx.call.timestamp_us, text)


def _find(ctx: Context, name: str, key: Any) -> tuple[Any, ...] | None:
    return next((row for row in ctx.rows(name) if row[0] == key), None)


def _put_user(ctx: Context, name: str | None, online: bool) -> None:
    if known := _find(ctx, "User", ctx.call.sender):
        ctx.delete("User", *known)
    ctx.insert("User", ctx.call.sender, name, online)


def _set_online(ctx: Context, online: bool) -> None:
    known = _find(ctx, "User", ctx.call.sender)
    _put_user(ctx, known[1] if known else None, online)


def init(ctx: Context) -> None:
    ctx.insert("Secret", 1, "top secret")
    _log(ctx, "init, caller address:", _address(ctx))
    _message(ctx, "init")


def connected(ctx: Context) -> None:
    _log(ctx, "connected:", _address(ctx))
    _set_online(ctx, True)


def disconnected(ctx: Context) -> None:
    _log(ctx, "disconnected:", _address(ctx))
    _set_online(ctx, False)


def update(ctx: Context) -> None:
    _log(ctx, "update, caller address:", _address(ctx))


def set_name(ctx: Context, name: str) -> None:
    if not name:
        raise ReducerError("Names must not be empty")
    _put_user(ctx, name, True)


def send_message(ctx: Context, text: str) -> None:
    if not text:
        raise ReducerError("Messages must not be empty")
    _message(ctx, text)


def add_item(ctx: Context, owner: int, name: str, qty: int) -> None:
    ctx.insert("Item", 0, owner, name, qty)


def _item(ctx: Context, key: int) -> tuple[Any, ...]:
    found = _find(ctx, "Item", key)
    if found is None:
        raise ReducerError("no such item")
    return found


def set_qty(ctx: Context, key: int, qty: int) -> None:
    found = _item(ctx, key)
    ctx.delete("Item", *found)
    ctx.insert("Item", *found[:3], qty)


def delete_item(ctx: Context, key: int) -> None:
    ctx.delete("Item", *_item(ctx, key))


def fail(ctx: Context, text: str) -> None:
    _message(ctx, "rolled back")
    raise ReducerError(text)


def trap(ctx: Context) -> None:
    _message(ctx, "rolled back")
    _log(ctx, "about to trap")
    raise ZeroDivisionError


def nop(ctx: Context) -> None:
    pass


def put_kinds(ctx: Context, *values: Any) -> None:
    ctx.insert("Kinds", *values)


def schedule(ctx: Context, text: str, delay_us: int) -> None:
    ctx.insert("Timer", 0, (1, ctx.call.timestamp_us + delay_us), text)


def repeat(ctx: Context, text: str, interval_us: int) -> None:
    ctx.insert("Timer", 0, (0, interval_us), text)


def on_timer(ctx: Context, timer: tuple[Any, ...]) -> None:
    _log(ctx, "timer, caller address:", _address(ctx))
    _message(ctx, timer[2])


def typed(
    ctx: Context, who: bytes, where: bytes, o: str | None, color: tuple[int, Any], point: tuple[int, int]
) -> None:
    """Write down the arguments as 0.11 lays them out."""
    data = struct.pack("<I", 32) + who[::-1] + struct.pack("<I", 16) + where[::-1]
    data += b"\1" if o is None else b"\0" + struct.pack("<I", len(o.encode())) + o.encode()
    data += bytes((color[0],)) + struct.pack("<ii", *point)
    _message(ctx, data.hex()[:255])


def churn(ctx: Context, key: int) -> None:
    ghost = ctx.insert("Item", 900_001, 0, "ghost", 0)
    ctx.delete("Item", *ghost)
    found = _item(ctx, key)
    ctx.delete("Item", *found)
    ctx.insert("Item", *found)


def log_all(ctx: Context) -> None:
    _log(ctx, "an error", level=LogLevel.ERROR)
    _log(ctx, "a warning", level=LogLevel.WARN)
    _log(ctx, "an info")
    _log(ctx, "a debug", level=LogLevel.DEBUG)
    _log(ctx, "a trace", level=LogLevel.TRACE)
    _log(ctx, "a panic line", level=LogLevel.PANIC)


def add_owner(ctx: Context, owner_id: int, label: str) -> None:
    try:
        ctx.insert("Owner", owner_id, label)
    except UniqueViolation as error:
        raise ReducerError("owner exists") from error


def mass(ctx: Context, count: int, base: int) -> None:
    for i in range(count):
        ctx.insert("Item", base + i, _OWNED_BY_SEVEN, "mass item", i)


def _reducers(kinds: dict[str, AlgebraicType]) -> dict[str, Any]:
    text: dict[str, AlgebraicType] = {"text": STRING}
    who: dict[str, AlgebraicType] = {
        "who": IDENTITY, "where_": CONNECTION_ID, "o": option(STRING), "c": COLOR, "p": POINT,
    }  # fmt: skip
    plain: dict[str, tuple[Callable[..., None], dict[str, AlgebraicType]]] = {
        "set_name": (set_name, {"name": STRING}),
        "send_message": (send_message, text),
        "add_item": (add_item, {"owner": U32, "name": STRING, "qty": U32}),
        "set_qty": (set_qty, {"id": U32, "qty": U32}),
        "delete_item": (delete_item, {"id": U32}),
        "fail": (fail, {"msg": STRING}),
        "trap": (trap, {}),
        "nop": (nop, {}),
        "put_kinds": (put_kinds, kinds),
        "schedule": (schedule, {"text": STRING, "delay": U64}),
        "on_timer": (on_timer, {"timer": TIMER}),
        "typed": (typed, who),
        "churn": (churn, {"id": U32}),
        "log_all": (log_all, {}),
        "add_owner": (add_owner, {"owner_id": U32, "label": STRING}),
        "repeat": (repeat, {"text": STRING, "interval": U64}),
        "mass": (mass, {"n": U32, "base": U32}),
    }
    return {
        "__init__": reducer(init, lifecycle=Lifecycle.INIT),
        "__identity_connected__": reducer(connected, lifecycle=Lifecycle.ON_CONNECT),
        "__identity_disconnected__": reducer(disconnected, lifecycle=Lifecycle.ON_DISCONNECT),
        **{name: reducer(run, params) for name, (run, params) in plain.items()},
        "__update__": reducer(update),
    }


def _refuse(ctx: Context, *values: Any) -> None:
    raise ReducerError("refused by the module")


def _trap_at_once(ctx: Context) -> None:
    raise ZeroDivisionError


def _tell_of_update(ctx: Context) -> None:
    _message(ctx, "update")


REFUSING = reducer(_refuse)
VARIANTS: dict[str, dict[str, Any]] = {
    "fail_init": {"__init__": reducer(_refuse, lifecycle=Lifecycle.INIT)},
    "fail_connect": {"__identity_connected__": reducer(_refuse, lifecycle=Lifecycle.ON_CONNECT)},
    "trap_connect": {"__identity_connected__": reducer(_trap_at_once, lifecycle=Lifecycle.ON_CONNECT)},
    "fail_disconnect": {"__identity_disconnected__": reducer(_refuse, lifecycle=Lifecycle.ON_DISCONNECT)},
    "fail_update": {"__update__": REFUSING, "nop": reducer(lambda ctx, x: None, {"x": U32})},
    "update_message": {"__update__": reducer(_tell_of_update)},
}
"""Reducers that are others in a variant of the program; `fail_update` also has an argument for nop."""
FRESH = table("Fresh", {"x": U32})
"""The table that the variant `add_table` has more."""


class ProbeModule(FunctionModule):
    """The probe module; `version` makes another program of it, `kinds` are the columns of Kinds."""

    def __init__(self, version: str = "1", kinds: dict[str, AlgebraicType] | None = None, *, variant: str = "") -> None:
        columns = kinds or KINDS
        tables = [*_tables(columns), *([FRESH] if variant == "add_table" else [])]
        super().__init__(tables, _reducers(columns) | VARIANTS.get(variant, {}), version=version)
        self.definition = replace(self.definition, is_0_11=True)

    def reducer_steps(self, reducer_id: int) -> Callable[[ReducerCall, bytes], Steps[None] | None]:
        """Return the entry of a reducer that could come back early; here none does."""
        run = self.reducer(reducer_id)

        def start(call: ReducerCall, args: bytes) -> None:
            run(call, args)

        return start

    def view_steps(self, position: int) -> NoReturn:
        """Refuse: it has no views."""
        raise AssertionError(f"the probe module has no view {position}")


def probe(
    version: str = "1", kinds: dict[str, AlgebraicType] | None = None, *, variant: str = ""
) -> Callable[[], ProbeModule]:
    """Return what makes the module, as harnesses take programs."""
    return lambda: ProbeModule(version, kinds, variant=variant)
