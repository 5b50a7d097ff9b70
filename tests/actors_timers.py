"""A module with scheduled tables, for the tests of timers: reducers that succeed, fail, and meddle with their rows."""

from collections.abc import Callable
from typing import Any

from stdb.errors import ReducerError
from stdb.sats.types import I64, SCHEDULE_AT, STRING, U64, AlgebraicType
from stdb.testing.modules import Context, FunctionModule, reducer, table

COLUMNS: dict[str, AlgebraicType] = {"scheduled_id": U64, "scheduled_at": SCHEDULE_AT, "what": STRING}
TICK = table("tick", COLUMNS, primary_key="scheduled_id", auto_inc=True, scheduled="tick")
RAN = table("ran", {"n": U64, "timer": U64, "what": STRING, "at": I64}, primary_key="n", auto_inc=True)
PING = table("ping", {"n": U64}, primary_key="n", auto_inc=True)

Time = tuple[int, int]


def at(micros: int) -> Time:
    """Return a ScheduleAt that is due once."""
    return 1, micros


def every(micros: int) -> Time:
    """Return a ScheduleAt that is due again and again."""
    return 0, micros


def tick(ctx: Context, timer: tuple[int, Time, str]) -> None:
    """Note what is run; what the row says decides what else is done."""
    scheduled_id, (_, micros), what = timer
    assert timer in ctx.rows("tick"), "the row is there while its reducer runs"
    ctx.insert("ran", 0, scheduled_id, what, ctx.call.timestamp_us)
    word, _, rest = what.partition(" ")
    match word:
        case "fail":
            raise ReducerError("this one fails")
        case "fault":
            raise ZeroDivisionError
        case "delete":
            ctx.delete("tick", *timer)
        case "again":  # the same key, a later time
            ctx.delete("tick", *timer)
            ctx.insert("tick", scheduled_id, at(micros + int(rest.split()[0])), f"moved {what}")
        case "touch":  # another row
            other, later = rest.split()[:2]
            schedule(ctx, int(other), at(micros + int(later)), f"touched {what}")
        case "replace":  # the very same row
            ctx.delete("tick", *timer)
            ctx.insert("tick", *timer)
        case "chain":
            ctx.insert("tick", 0, at(ctx.call.timestamp_us), what)
        case "count":
            if sum(row[1] == scheduled_id for row in ctx.rows("ran")) == int(rest):
                ctx.delete("tick", *timer)


def schedule(ctx: Context, scheduled_id: int, when: Time, what: str) -> None:
    """Put in a row, in the place of the one with its id."""
    unschedule(ctx, scheduled_id)
    ctx.insert("tick", scheduled_id, when, what)


def schedule_and_fail(ctx: Context, scheduled_id: int, when: Time, what: str) -> None:
    """Put in a row that does not stay."""
    schedule(ctx, scheduled_id, when, what)
    raise ReducerError("rolled back")


def unschedule(ctx: Context, scheduled_id: int) -> None:
    """Take out the row with an id."""
    for row in ctx.rows("tick"):
        if row[0] == scheduled_id:
            ctx.delete("tick", *row)


def ping(ctx: Context) -> None:
    """Do next to nothing."""
    ctx.insert("ping", 0)


def timers(version: str = "1", run: Callable[..., None] = tick, **more: Any) -> FunctionModule:
    """Return a fresh module whose rows call `run`; `more` goes to FunctionModule."""
    row: dict[str, AlgebraicType] = {"scheduled_id": U64, "when": SCHEDULE_AT, "what": STRING}
    reducers = {
        "tick": reducer(run, {"timer": TICK.row_type}, private=True),
        "schedule": reducer(schedule, row),
        "schedule_and_fail": reducer(schedule_and_fail, row),
        "unschedule": reducer(unschedule, {"scheduled_id": U64}),
        "ping": reducer(ping),
        **more.pop("reducers", {}),
    }
    return FunctionModule([TICK, RAN, PING, *more.pop("tables", [])], reducers, version=version, **more)
