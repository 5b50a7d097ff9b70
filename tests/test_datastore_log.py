"""Tests of the log in memory: it must lose in a crash exactly what a disk may lose."""

import pytest

from stdb.datastore.log import MemoryLog
from stdb.datastore.records import Record, RecordError, join


def record(offset: int) -> bytes:
    return join(Record(offset, b"%d" % offset))


def test_without_delay_everything_is_durable_at_once() -> None:
    told: list[int] = []
    log = MemoryLog(on_durable=told.append)
    log.append_nowait([record(0), record(1)])
    assert (log.durable, log.backlog, told) == (2, 0, [2])
    assert [each.payload for each in log.records(1)] == [b"1"]


def test_with_delay_records_become_durable_when_the_test_says() -> None:
    told: list[int] = []
    log = MemoryLog(delayed=True, on_durable=told.append)
    log.append_nowait([record(0), record(1), record(2)])
    assert (log.durable, log.backlog, list(log.records())) == (0, 3, [])
    log.sync(2)
    log.sync(0)
    assert (log.durable, log.backlog, told) == (2, 1, [2])
    log.close()
    assert (log.durable, told) == (3, [2, 3])


def test_with_more_to_come_records_become_durable_with_the_next_call() -> None:
    told: list[int] = []
    log = MemoryLog(on_durable=told.append)
    log.append_nowait([record(0)], more=True)
    assert (log.durable, log.backlog, told) == (0, 1, [])
    log.append_nowait([])
    assert (log.durable, log.backlog, told) == (1, 0, [1])


@pytest.mark.parametrize(("surviving", "left"), [(0, 1), (1, 2), (5, 3)])
def test_a_crash_loses_the_tail_that_was_not_durable(surviving: int, left: int) -> None:
    log = MemoryLog(delayed=True)
    log.append_nowait([record(0)])
    log.sync()
    log.append_nowait([record(1), record(2)])
    log.crash(surviving)
    assert (log.durable, log.backlog) == (left, 0)
    assert [each.offset for each in log.records()] == list(range(left))
    log.append_nowait([record(left)])
    log.sync()
    assert log.durable == left + 1


def test_records_are_checked_when_read() -> None:
    log = MemoryLog()
    log.append_nowait([record(0), record(2)])
    with pytest.raises(RecordError, match="offset 1: the record is missing"):
        list(log.records())
