"""When rows of scheduled tables are due, and how far ahead that may be."""

import pytest

from stdb.datastore.schedules import DELAY_US_MAX, RowSchedule
from stdb.datastore.table import TableSchema
from stdb.errors import DelayTooLong
from stdb.sats import bsatn
from stdb.sats.types import SCHEDULE_AT, STRING, U64
from stdb.testing.modules import table

TABLE = table("tick", {"id": U64, "what": STRING, "scheduled_at": SCHEDULE_AT}, primary_key="id", scheduled="tick")
SCHEDULE = RowSchedule(TableSchema(4096, TABLE, (1,), (1,)))
NOW = 1_700_000_000_000_000


def row(tag: int, micros: int) -> bytes:
    return bsatn.codec(TABLE.row_type).encode((1, "one", (tag, micros)))


@pytest.mark.parametrize("micros", [0, 1, -(2**63), 2**63 - 1, NOW])
def test_a_time_is_due_once(micros: int) -> None:
    assert SCHEDULE.first(row(1, micros), NOW) == (micros, 0)


@pytest.mark.parametrize(
    ("micros", "interval"), [(0, 1), (1, 1), (-1, 1), (-5, 5), (2**63 - 1, 2**63 - 1), (-(2**63), 2**63)]
)
def test_an_interval_begins_now_whatever_its_sign(micros: int, interval: int) -> None:
    assert SCHEDULE.first(row(0, micros), NOW) == (NOW + interval, interval)


@pytest.mark.parametrize(
    ("tag", "micros"),
    [(1, NOW + DELAY_US_MAX - 1), (0, DELAY_US_MAX - 1), (0, 1 - DELAY_US_MAX), (1, -(2**63)), (0, 0)],
)
def test_a_delay_below_the_limit_is_fine(tag: int, micros: int) -> None:
    SCHEDULE.check_delay(row(tag, micros), NOW)


@pytest.mark.parametrize(
    ("tag", "micros"), [(1, NOW + DELAY_US_MAX), (0, DELAY_US_MAX), (0, -DELAY_US_MAX), (1, 2**63 - 1), (0, -(2**63))]
)
def test_a_delay_of_two_years_is_refused_with_table_and_limit(tag: int, micros: int) -> None:
    with pytest.raises(DelayTooLong, match=r"Specified delay in scheduling row was too long: a row of table `tick`"):
        SCHEDULE.check_delay(row(tag, micros), NOW)
