"""Scheduler: runs the rows of scheduled tables when they are due.

Responsible for: which rows have timers, waiting for the next one, what is run and what becomes of its row.
Not responsible for: the order of timers (`timers`), when a row is due (`stdb.datastore.schedules`), transactions
(`database`), running procedures (`procedures`).

The rows are the queue: every committed delta arms what it puts in, a scan at launch arms what is there. What it takes
out stays armed; when a timer comes up its row is looked up, and one that is gone or is another is passed over. Due rows
are served by one job in the database's mailbox, in due order, at most a turn's worth of them; the next such job stands
behind everything that was asked meanwhile. So neither waits for ever for the other, whatever the intervals are.

The time of a row is that of the wall; intervals are counted on a clock that nobody sets: when the wall's clock jumps,
they move along. After an update in place timers go on as they were.

Rules: spec 04 section 8, spec 07 section 10, spec 09 section 8; spec 02 section 6.3 (events).
"""

from collections.abc import Callable
from functools import partial
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import trio

from stdb.actors.calls import COMMITTED, ReducerEntry
from stdb.actors.sink import Client
from stdb.actors.timers import Timer, Timers
from stdb.datastore.schedules import RowSchedule
from stdb.modules.protocol import LogLevel
from stdb.sql.work import Steps

if TYPE_CHECKING:
    from stdb.actors.answers import LongJob
    from stdb.actors.database import DatabaseActor
    from stdb.datastore.table import Table
    from stdb.datastore.transaction import Delta, Transaction

__all__ = ["Scheduler", "StartProcedure"]

POSTPONED_US = 100_000
"""How much later a procedure is tried again that could not be started, because too many are running."""
ROWS_A_JOB_MAX = 256
JOB_SECONDS_MAX = 0.002
SLEEP_SECONDS_MAX = 10.0
"""How long a jump of the wall's clock may go unnoticed."""
JUMP_US = 1_000_000
"""By less the wall's clock is only being corrected."""
TIMERS_KEPT_MIN = 1024
"""So many entries are kept before it is asked how many of them count."""

_SCAN_ROWS = 1024


StartProcedure: TypeAlias = Callable[[int, bytes, int, Callable[[], None]], None]
"""Starts a procedure: given its id, its arguments, the time it is told, and what is called when it has ended."""


class _Scheduled(NamedTuple):
    """One scheduled table and what runs its rows."""

    schedule: RowSchedule
    run: Callable[[Timer], Steps[None]]


class Scheduler:
    """The timers of one DatabaseActor. `run` is its task; all else is called within turns, but for `stop`."""

    def __init__(self, actor: "DatabaseActor", start_procedure: StartProcedure) -> None:
        self.tables: dict[int, _Scheduled] = {}
        """The scheduled tables by id; whoever publishes a delta calls `observe` when there are any."""
        self._actor = actor
        self._datastore = actor.datastore
        self._start_procedure = start_procedure
        self._client: Client
        """Who calls reducers."""
        self._timers = Timers()
        self._doubted: set[int] = set()
        """The tables whose rows were complained of."""
        self._is_running = False
        self._is_stopped = False
        self._clock_us: int | None = None
        """The wall's clock less the event loop's, when both were read last."""
        self._changed = trio.Event()
        self._served = trio.Event()
        self._wakes_at_us = inf
        """When the task looks again by itself."""

    # ------------------------------------------------------------------ which rows have timers
    def bind(self) -> None:
        """Follow the actor's module, which was just installed: its schedules, rows of tables it added included."""
        known = set(self.tables)
        self.tables.clear()
        caller = self._actor.owner if self._actor.module.definition.is_0_11 else self._actor.identity
        self._client = Client(caller, bytes(16), "")
        for definition in self._actor.module.definition.tables:
            if definition.schedule is None or definition.is_event:  # rows of events are gone before they are due
                continue
            run = self._runner(definition.schedule.function)
            if run is not None:
                schema = self._datastore.table(definition.name).schema
                self.tables[schema.id] = _Scheduled(RowSchedule(schema), run)
        if self._is_running:
            for table_id in sorted(self.tables.keys() - known):
                self._arm(table_id, sorted(self._datastore.tables[table_id].rows()))

    def _runner(self, function: str) -> Callable[[Timer], Steps[None]] | None:
        """Return what runs rows with this function; None for a program without functions (`TablesOnly`)."""
        entry = self._actor.reducers.by_name.get(function)
        if entry is not None:
            return partial(self._run_reducer, entry)
        procedure_id = self._actor.module.definition.procedure_id(function)
        return None if procedure_id is None else partial(self._run_procedure, procedure_id)

    def start(self) -> "LongJob":
        """Arm every row that is there; until then nothing is due. A job of the mailbox, in steps."""
        if self._is_stopped:
            return None
        self._is_running = True
        for table_id in sorted(self.tables):
            table = self._datastore.tables[table_id]
            places = sorted(table.stored)
            for i in range(0, len(places), _SCAN_ROWS):
                self._arm(table_id, [table.stored[place] for place in places[i : i + _SCAN_ROWS]])
                yield
        return None

    def stop(self) -> None:
        """Start nothing any more; what runs goes on to its end."""
        self._is_running = False
        self._is_stopped = True

    def observe(self, delta: "Delta") -> None:
        """Arm the rows that a committed transaction put into scheduled tables."""
        if self._is_running:
            for each in delta.tables:
                table_id = each.table.schema.id
                if table_id in self.tables and each.inserts:
                    self._arm(table_id, each.inserts)

    def _arm(self, table_id: int, rows: "list[bytes]") -> None:
        first, place_of = self.tables[table_id].schedule.first, self._datastore.tables[table_id].key_of
        timers, now_us = self._timers, self._now_us()
        for row in rows:
            due_us, interval_us = first(row, now_us)
            timers.arm(table_id, place_of(row), row, due_us, interval_us)
            if interval_us and table_id not in self._doubted:
                self._doubt(table_id, row)
        if len(timers) > TIMERS_KEPT_MIN and len(timers) > 2 * self._row_count():
            timers.sweep(self._is_there)
        self._wake()

    def _doubt(self, table_id: int, row: bytes) -> None:
        """Tell the module's author, once a table, of an interval that is none."""
        text = self.tables[table_id].schedule.doubt(row)
        if text is not None:
            self._doubted.add(table_id)
            self._actor.module_log.write(LogLevel.WARN, text)

    def _row_count(self) -> int:
        return sum(len(self._datastore.tables[table_id]) for table_id in self.tables)

    # ------------------------------------------------------------------ waiting
    async def run(self) -> None:
        """Post a job whenever something is due; cancel to end."""
        while True:
            self._changed = trio.Event()
            seconds = self._seconds_to_wait()
            if seconds > 0:
                with trio.move_on_after(seconds):
                    await self._changed.wait()
            else:
                self._served = trio.Event()
                self._actor.post_nowait((None, self._serve_due))
                await self._served.wait()

    def _seconds_to_wait(self) -> float:
        """Return how long to sleep, and remember until when; 0 when something is due."""
        now_us = self._now_us()
        due_us = self._timers.next_due_us() if self._is_running else None
        if due_us is None:
            self._wakes_at_us = inf
            return inf
        if due_us <= now_us:
            self._wakes_at_us = -inf
            return 0
        self._wakes_at_us = due_us
        return min((due_us - now_us) / 1e6, SLEEP_SECONDS_MAX)

    def _wake(self) -> None:
        """Have the task look again when something is due before it would."""
        due_us = self._timers.next_due_us()
        if due_us is not None and due_us < self._wakes_at_us:
            self._changed.set()

    def _now_us(self) -> int:
        """Read the wall's clock; move intervals along when somebody set it."""
        now_us = self._actor.now_us()
        clock_us = now_us - int(trio.current_time() * 1e6)
        if self._clock_us is not None and abs(clock_us - self._clock_us) >= JUMP_US:
            self._timers.shift_intervals(clock_us - self._clock_us)
        self._clock_us = clock_us
        return now_us

    # ------------------------------------------------------------------ running
    def _serve_due(self) -> Steps[None]:
        """Run what is due, in due order, for as long as a turn may take; nothing twice."""
        timers, now_us = self._timers, self._now_us()
        stop_at = perf_counter() + JOB_SECONDS_MAX
        for _ in range(ROWS_A_JOB_MAX):
            timer = timers.pop_due(now_us) if self._is_running else None
            if timer is None:
                break
            if self._is_there(timer):
                due_us = timers.next_due_us()
                if due_us is not None and due_us <= now_us:
                    self._actor.more_follows()
                yield from self.tables[timer.table_id].run(timer)
            if perf_counter() >= stop_at:
                break
        self._served.set()

    def _is_there(self, timer: Timer) -> bool:
        """Tell whether the row of a timer is still there, and still the same."""
        table = self._datastore.tables.get(timer.table_id)
        return table is not None and table.stored.get(timer.place) == timer.row

    def _run_reducer(self, entry: ReducerEntry, timer: Timer) -> Steps[None]:
        after = None if timer.interval_us else partial(_take_out, self._datastore.tables[timer.table_id], timer)
        outcome, _, _ = yield from self._actor.transact_patiently(
            entry, self._client, None, timer.row, after=after, due_us=timer.due_us
        )
        if timer.interval_us:
            self._arm_again(timer)
        elif outcome is not COMMITTED:
            yield from self._delete(timer)

    def _run_procedure(self, procedure_id: int, timer: Timer) -> Steps[None]:
        """Start a procedure; it runs beside everything else. Where too many do, it comes up again a little later."""
        if self._actor.procedures.is_full:
            self._timers.arm(timer.table_id, timer.place, timer.row, self._now_us() + POSTPONED_US, timer.interval_us)
            return
        if not timer.interval_us:
            yield from self._delete(timer)
        timestamp_us = max(timer.due_us, self._now_us())
        self._start_procedure(procedure_id, timer.row, timestamp_us, partial(self._post_ended, timer))

    def _post_ended(self, timer: Timer) -> None:
        if timer.interval_us:
            self._actor.post_nowait((None, partial(self._arm_again, timer)))

    def _arm_again(self, timer: Timer) -> None:
        """Have a row come up at its first tick after now, unless it is gone, another, or armed already."""
        if self._is_running and self._is_there(timer) and not self._timers.has(timer.table_id, timer.place):
            now_us, interval_us = self._now_us(), timer.interval_us
            missed = max(now_us - timer.due_us, 0) // interval_us
            due_us = min(timer.due_us + (missed + 1) * interval_us, now_us + interval_us)  # the clock may be set back
            self._timers.arm(timer.table_id, timer.place, timer.row, due_us, interval_us)
            self._wake()

    def _delete(self, timer: Timer) -> Steps[None]:
        """Take out the row of a timer in a transaction of its own."""
        take_out = partial(_take_out, self._datastore.tables[timer.table_id], timer)
        yield from self._actor.transact_patiently(None, self._client, None, reducer_id=0, after=take_out)


def _take_out(table: "Table", timer: Timer, _transaction: "Transaction") -> None:
    """Take out the row of a timer if it is still there, and still the same."""
    if table.stored.get(timer.place) == timer.row:
        table.delete_key(timer.place)
