"""Alarms that note when they were due and when they ring."""

from stdb import ReducerContext, ScheduleAt, Timestamp, i64, primary_key, reducer, table, u32, u64


@table(public=True)
class Ring:
    id: u64 = primary_key(auto_inc=True)
    due_us: i64
    begun_us: i64


@table(scheduled=True)
class Alarm:
    scheduled_id: u64 = primary_key(auto_inc=True)
    scheduled_at: ScheduleAt
    due_us: i64


@reducer(scheduled=Alarm)
def ring(ctx: ReducerContext, timer: Alarm) -> None:
    ctx.db[Ring].insert(Ring(due_us=timer.due_us, begun_us=ctx.timestamp.micros))


@reducer
def set_alarms(ctx: ReducerContext, count: u32, first_us: u64, step_us: u64) -> None:
    first = ctx.timestamp.micros + first_us
    for due_us in range(first, first + count * step_us, step_us):
        ctx.db[Alarm].insert(Alarm(due_us=due_us, scheduled_at=ScheduleAt.at(Timestamp(due_us))))
