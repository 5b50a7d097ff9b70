"""Any moment: the state that a history leads back to is the one that was, for random histories of every kind of key."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import sleep

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.datastore import history as history_module
from stdb.datastore.datastore import Datastore
from stdb.datastore.history import History, Moment, UnreachableError, entries, travel
from stdb.datastore.memory_log import MemoryLog
from stdb.datastore.records import decode_changes
from stdb.datastore.recovery import recover
from stdb.storage import log_writer
from stdb.storage.history import FileHistory
from stdb.storage.log import SqliteLog
from stdb.storage.recovering import write_database
from stdb.testing.storage import MemoryHistory
from tests.datastore_samples import state
from tests.merging_life import OPERATIONS, Life

_HISTORIES = st.lists(OPERATIONS, min_size=1, max_size=12)


def _at(history: History, offset: int) -> Datastore:
    """Go there; a record is applied as a whole or in slices, by what the offset is."""
    history_module._GREAT_BYTES = 0 if offset % 2 else 65_536
    datastore = Datastore()
    for _ in travel(datastore, history, Moment(offset=offset), 0):
        pass
    return datastore


def _check(life: Life, history: History) -> None:
    """Every offset that can be reached has its state, and every transaction says what it changed."""
    assert history.end == len(life.states) - 1
    for offset in range(max(history.first - 1, 0), history.end):
        then = _at(history, offset)
        assert state(then) == life.states[offset + 1]
        then.verify()
    for offset in (history.first - 2, history.end):
        if offset >= 0:
            with pytest.raises(UnreachableError):
                _at(history, offset)
    told = [each for each in entries(history, history.first, history.end) if each is not None]
    assert [each.offset for each in told] == list(range(history.first, history.end))
    for entry, record in zip(told, history.records(history.first), strict=True):
        assert [table.change for table in entry.tables] == decode_changes(record)
        for table in entry.tables:
            for _, schema, row in table.rows():
                schema.codec.decode_exact(row)


@settings(max_examples=15, deadline=None)
@given(histories=_HISTORIES, groups=st.lists(st.integers(1, 4), max_size=6), merged=st.booleans())
def test_every_state_of_a_file_is_reached_backwards(
    histories: Sequence[list[tuple[str, int, int]]], groups: Sequence[int], merged: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "d.sqlite"
        life, log = Life(), SqliteLog(path)
        recover(log)
        committed = [life.create()]
        for operations in histories:
            committed += life.step(operations)
        sizes = list(groups)
        while committed:
            some = [committed.pop(0) for _ in range(min(len(committed), sizes.pop() if sizes else 2))]
            log.append_nowait([record for record, _ in some], [delta for _, delta in some])
        if merged:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(log_writer, "CLOSE_SECONDS", 60.0)  # whatever else this machine does
                log.close()  # which merges
        while not merged and log.backlog:
            sleep(0.0005)
        with FileHistory(path) as history:
            assert history.rows.offset == (history.end if merged else history.rows.offset)
            _check(life, history)
        log.close()


@settings(max_examples=15, deadline=None)
@given(histories=_HISTORIES, first=st.integers(0, 12), end=st.integers(0, 12))
def test_a_file_whose_log_begins_late_reaches_as_far_as_its_log(
    histories: Sequence[list[tuple[str, int, int]]], first: int, end: int
) -> None:
    life, log = Life(), MemoryLog()
    for record, delta in [life.create(), *(each for operations in histories for each in life.step(operations))]:
        log.append_nowait([record], [delta])
    end = min(max(end, 1), log.durable)
    first = min(first, end)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "d.sqlite"
        records = [record for record in log.records(0) if first <= record.offset < end]
        write_database(path, _at(MemoryHistory(log), end - 1), records, end=end)
        del life.states[end + 1 :]
        with FileHistory(path) as history:
            assert (history.first, history.end) == (first, end)
            _check(life, history)


@settings(max_examples=15, deadline=None)
@given(
    histories=_HISTORIES,
    merges=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 3)), max_size=12),
    keep=st.integers(0, 12),
)
def test_rows_that_are_half_merged_are_no_obstacle(
    histories: Sequence[list[tuple[str, int, int]]], merges: Sequence[tuple[int, int]], keep: int
) -> None:
    life, log, left = Life(), MemoryLog(merging=True), list(merges)
    for record, delta in [life.create(), *(each for operations in histories for each in life.step(operations))]:
        log.append_nowait([record], [delta])
        if left:
            size, steps = left.pop()
            for _ in range(steps):
                log.merge(size)
    log.truncate(keep)
    _check(life, MemoryHistory(log))
