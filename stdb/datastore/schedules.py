"""Schedules: when the rows of a scheduled table are due.

Responsible for: reading ScheduleAt out of row bytes, the first and the next time of a row, the greatest delay.
Not responsible for: waiting and running (`stdb.actors.scheduler`), the table's definition (`stdb.schema`).

Source: spec 04 section 8, spec 07 section 10. The sign of an interval does not count. An interval of nothing is one of
a microsecond: due again at once, but never twice at the same time.
"""

from collections.abc import Callable

from stdb.datastore.table import TableSchema
from stdb.errors import DelayTooLong
from stdb.sats import keys
from stdb.sats.profiles import OLD_SCHEDULE_AT

__all__ = ["DELAY_US_MAX", "RowSchedule"]

DELAY_US_MAX = (64**6 - 1) * 1000
"""A module may schedule less than this ahead, about 2.18 years."""


class RowSchedule:
    """Reads when rows of one scheduled table are due."""

    __slots__ = ("_at", "_name", "_time")

    def __init__(self, schema: TableSchema) -> None:
        schedule = schema.definition.schedule
        assert schedule is not None, f"table {schema.name} is not scheduled"
        self._name = schema.name
        self._at: Callable[[bytes], tuple[int, int]] = keys.row_column(schema.row_type, schedule.at_column)
        is_old = schema.row_type.elements[schedule.at_column].type == OLD_SCHEDULE_AT
        self._time = 0 if is_old else 1
        """The tag of a time: 0.11 has it first."""

    def first(self, row: bytes, now_us: int) -> tuple[int, int]:
        """Return when a row that was just seen is due, and after how long again: 0 for one that is due once."""
        tag, micros = self._at(row)
        if tag == self._time:
            return micros, 0
        interval_us = max(abs(micros), 1)
        return now_us + interval_us, interval_us

    def doubt(self, row: bytes) -> str | None:
        """Return what is odd about the interval of a row, for its module's author; None for most rows."""
        tag, micros = self._at(row)
        if tag == self._time or micros > 0:
            return None
        return (
            f"a row of table `{self._name}` has an interval of {micros} µs, which is taken for "
            f"{max(abs(micros), 1)} µs: give one above 0"
        )

    def check_delay(self, row: bytes, now_us: int) -> None:
        """Check a row that a module is about to write.

        Raises:
            DelayTooLong: It would be due DELAY_US_MAX or more from now.
        """
        due_us, _ = self.first(row, now_us)
        if due_us - now_us >= DELAY_US_MAX:
            raise DelayTooLong(
                f"Specified delay in scheduling row was too long: a row of table `{self._name}` is due in"
                f" {due_us - now_us} µs, it must be less than {DELAY_US_MAX} (2.18 years)"
            )
