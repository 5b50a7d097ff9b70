"""Scheduled tables of a Python module: their columns, their functions, what is refused."""

import pytest

from stdb.errors import DecodeError, ModuleFault, SchemaError
from stdb.sats.types import SCHEDULE_AT, U32, U64
from stdb.schema import documents, raw
from stdb.schema.model import ModuleDef, Visibility
from stdb.schema.validation import validate
from tests.python_module_harness import Host, Running, load

SOURCE = """
from datetime import timedelta
from stdb import *

@table(scheduled=True)
class Tick:
    zone: u32

@table(scheduled=True, public=True)
class Job:
    key: u64 = primary_key(auto_inc=True)
    what: str
    due: ScheduleAt

@table
class Ran:
    id: u64 = primary_key()
    zone: u32

@reducer(scheduled=Tick)
def tick(ctx: ReducerContext, timer: Tick) -> None:
    ctx.db[Ran].insert(Ran(id=timer.scheduled_id, zone=timer.zone))

@procedure(scheduled=Job)
async def work(ctx: ProcedureContext, job: "Job") -> None:
    print(job.what, job.due)

@reducer
def start(ctx: ReducerContext, kind: str, micros: i64) -> None:
    span = TimeDuration(micros=micros)
    at = {
        "after": lambda: ScheduleAt.after(ctx, span),
        "every": lambda: ScheduleAt.every(span),
        "at": lambda: ScheduleAt.at(ctx.timestamp + span),
    }[kind]()
    ctx.db[Tick].insert(Tick(zone=1, scheduled_at=at))

@reducer
def change(ctx: ReducerContext, how: str, micros: i64) -> None:
    tick = ctx.db[Tick].get(1)
    tick.scheduled_at = ScheduleAt.every(TimeDuration(micros=micros))
    if how == "update":
        ctx.db[Tick].update(tick)
    elif how == "insert_or_update":
        ctx.db[Tick].insert_or_update(tick)
    elif how == "accessor":
        ctx.db.tick.scheduled_id.update(tick)
    elif how == "delete":
        assert ctx.db[Tick].delete(tick) == 0 and tick not in ctx.db[Tick]
"""
TOO_LONG_US = (64**6 - 1) * 1000


@pytest.fixture
def running() -> Running:
    return Running(SOURCE)


def test_a_scheduled_table_gets_the_columns_that_it_does_not_declare() -> None:
    definition = load(SOURCE).definition
    tick, job = definition.table("tick"), definition.table("job")
    assert tick is not None
    assert job is not None
    assert [(column.name, column.type) for column in tick.columns] == [
        ("scheduled_id", U64),
        ("scheduled_at", SCHEDULE_AT),
        ("zone", U32),
    ]
    assert [column.name for column in job.columns] == ["key", "what", "due"]
    assert (tick.primary_key, [each.column for each in tick.sequences]) == (0, [0])


def schedules(definition: ModuleDef) -> dict[str, tuple[str, int]]:
    found = {table.name: table.schedule for table in definition.tables}
    return {name: (each.function, each.at_column) for name, each in found.items() if each is not None}


def test_a_schedule_names_its_function_and_hides_it_from_clients() -> None:
    definition = load(SOURCE).definition
    assert schedules(definition) == {"tick": ("tick", 1), "job": ("work", 2)}
    assert definition.reducers[0].visibility is Visibility.PRIVATE
    assert definition.procedures[0].visibility is Visibility.PRIVATE


@pytest.mark.parametrize("version", [9, 10])
def test_schedules_go_through_both_versions(version: int) -> None:
    definition = load(SOURCE).definition
    written = documents.to_raw_v9(definition) if version == 9 else documents.to_raw_v10(definition)
    again = validate(raw.decode(raw.encode(written)))
    assert schedules(again) == schedules(definition)
    assert validate(documents.from_json(documents.to_json(definition, version=version))).tables == again.tables


def test_the_functions_are_called_with_the_row(running: Running) -> None:
    running.call("start", "every", 5)
    running.call("tick", (3, (0, 5), 8))
    assert running.rows("ran") == [(3, 8)]
    running.procedure("work", (1, "clean", (1, 0)), host=Host(running))
    assert running.log.messages[-1] == "clean ScheduleAt.at(Timestamp(0))"


def test_other_arguments_than_a_row_run_nothing(running: Running) -> None:
    transaction = running.store.begin(0)
    with pytest.raises(DecodeError):
        running.run(transaction, "tick", b"\x01\x02")
    transaction.rollback()


@pytest.mark.parametrize("kind", ["after", "every", "at"])
def test_a_row_is_stored_with_the_key_that_it_got(running: Running, kind: str) -> None:
    running.call("start", kind, TOO_LONG_US - 2)
    ((key, due, zone),) = running.rows("tick")
    assert (key, zone) == (1, 1)
    assert due[0] == (0 if kind == "every" else 1)


@pytest.mark.parametrize(
    ("kind", "micros"), [("after", TOO_LONG_US), ("at", 2**61), ("every", TOO_LONG_US), ("every", -TOO_LONG_US)]
)
def test_a_row_that_is_due_too_far_ahead_is_refused_and_shown(running: Running, kind: str, micros: int) -> None:
    with pytest.raises(ModuleFault) as caught:
        running.call("start", kind, micros)
    report = caught.value.report or ""
    assert "Specified delay in scheduling row was too long" in report
    assert "it is Tick(scheduled_id=0, scheduled_at=ScheduleAt." in report
    assert running.rows("tick") == []


@pytest.mark.parametrize("micros", [0, -1, -(2**62) // 2**40])
def test_past_times_and_odd_intervals_are_stored(running: Running, micros: int) -> None:
    running.call("start", "every", micros)
    running.call("start", "after", -(2**50))
    assert len(running.rows("tick")) == 2


@pytest.mark.parametrize("how", ["update", "insert_or_update", "accessor"])
def test_a_change_to_a_time_too_far_ahead_is_refused(running: Running, how: str) -> None:
    running.call("start", "every", 5)
    running.call("change", how, 6)
    assert running.rows("tick")[0][1] == (0, 6)
    with pytest.raises(ModuleFault, match=r"fatal error"):
        running.call("change", how, TOO_LONG_US)
    assert running.rows("tick")[0][1] == (0, 6)


def test_a_row_far_ahead_may_be_asked_for_and_deleted(running: Running) -> None:
    running.call("start", "every", 5)
    running.call("change", "delete", TOO_LONG_US)


def findings(source: str) -> list[str]:
    with pytest.raises(SchemaError) as caught:
        load("from stdb import *\n" + source)
    return caught.value.errors


TICK = "@table(scheduled=True)\nclass Tick:\n    zone: u32\n"
NO_TABLE = "is no scheduled table of this module: write @table(scheduled=True) on its class"
TAKES_ROW = "tick is called with a row of Tick and nothing else: write def tick(ctx, timer: Tick)"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            TICK,
            "chat.py:2: Tick is scheduled and its rows call nothing: "
            "write @reducer(scheduled=Tick) def tick_due(ctx: ReducerContext, timer: Tick) -> None",
        ),
        (f"{TICK}@reducer(scheduled=Tick)\ndef tick(ctx: ReducerContext) -> None: ...", f"chat.py:5: {TAKES_ROW}"),
        (
            f"{TICK}@reducer(scheduled=Tick)\ndef tick(ctx: ReducerContext, x: Tick, y: int) -> None: ...",
            f"chat.py:5: {TAKES_ROW}",
        ),
        (
            f"{TICK}@reducer(scheduled=Tick)\ndef tick(ctx: ReducerContext, x: int) -> None: ...",
            f"chat.py:5: {TAKES_ROW}",
        ),
        (
            f"{TICK}@reducer(scheduled=Tick)\ndef tick(ctx: ReducerContext, x: Tick) -> None: ...\n"
            "@procedure(scheduled=Tick)\nasync def other(ctx: ProcedureContext, x: Tick) -> None: ...",
            "chat.py:7: other is a second function for the rows of Tick; the first is tick at chat.py:5: merge them",
        ),
        (
            "@table\nclass Plain:\n    zone: u32\n"
            "@reducer(scheduled=Plain)\ndef tick(ctx: ReducerContext, x: Plain) -> None: ...",
            f"chat.py:5: tick: scheduled=Plain {NO_TABLE}",
        ),
        (
            "@reducer(scheduled=5)\ndef tick(ctx: ReducerContext, x: int) -> None: ...",
            f"chat.py:2: tick: scheduled=5 {NO_TABLE}",
        ),
        (
            "@table(scheduled=True, event=True)\nclass Tick:\n    zone: u32\n"
            "@reducer(scheduled=Tick)\ndef tick(ctx: ReducerContext, x: Tick) -> None: ...",
            "chat.py:2: scheduled table tick must not be an event table: its rows would be gone before they are due",
        ),
        (
            "@table(scheduled=True)\nclass Tick:\n    scheduled_at: ScheduleAt\n    other: ScheduleAt\n"
            "@reducer(scheduled=Tick)\ndef tick(ctx: ReducerContext, x: Tick) -> None: ...",
            "chat.py:5: Tick has several columns of ScheduleAt (scheduled_at, other): rows are due once, keep one",
        ),
        (
            "@table(scheduled=True)\nclass Tick:\n    scheduled_id: u64\n"
            "@reducer(scheduled=Tick)\ndef tick(ctx: ReducerContext, x: Tick) -> None: ...",
            "chat.py:4: Tick.scheduled_id: the key of a scheduled table is a u64: write = primary_key(auto_inc=True)",
        ),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_with_its_line(source: str, expected: str) -> None:
    assert findings(source) == [expected]


def test_a_second_table_of_a_class_is_not_scheduled() -> None:
    source = (
        f"{TICK}@reducer(scheduled=Tick)\ndef tick(ctx: ReducerContext, x: Tick) -> None: ...\n"
        "other = table(Tick, name='other', scheduled=True)\n"
    )
    assert findings(source) == [
        "chat.py:7: table(Tick, scheduled=True): a scheduled table needs a class of its own",
    ]
    plain = load("from stdb import *\n" + source.replace("'other', scheduled=True", "'other'")).definition
    other = plain.table("other")
    assert other is not None
    assert other.schedule is None
