"""Rows beside the log: whenever a crash comes while they follow it, recovery gives exactly a state that was."""

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from stdb.datastore.log import MemoryLog
from stdb.datastore.recovery import recover
from stdb.storage.log import SqliteLog
from stdb.storage.log_writer import LogWriter
from stdb.storage.retention import Retention
from tests.merging_life import OPERATIONS, Life, Operation

WAIT_SECONDS_MAX = 30


class MergingMachine(RuleBasedStateMachine):
    """In memory: commits, disks that lag, single steps of merging, truncation, crashes and clean restarts."""

    @initialize()
    def start(self) -> None:
        self.life = Life()
        self.log = MemoryLog(delayed=True, merging=True)
        record, delta = self.life.create()
        self.log.append_nowait([record], [delta])

    @rule(steps=st.lists(OPERATIONS, max_size=4), durable=st.integers(0, 4))
    def commit(self, steps: list[list[Operation]], durable: int) -> None:
        for operations in steps:
            for record, delta in self.life.step(operations):
                self.log.append_nowait([record], [delta])
        self.log.sync(durable)

    @rule(steps=st.integers(1, 12), changes_max=st.integers(1, 9))
    def merge(self, steps: int, changes_max: int) -> None:
        for _ in range(steps):
            self.log.merge(changes_max)

    @rule(offset=st.integers(0, 40))
    def truncate(self, offset: int) -> None:
        self.log.truncate(offset)

    @rule(surviving=st.integers(0, 3), is_clean=st.booleans(), is_twice=st.booleans())
    def restart(self, surviving: int, is_clean: bool, is_twice: bool) -> None:
        if is_clean:
            self.log.close()
        else:
            self.log.crash(surviving)
        datastore = recover(self.log)
        if is_twice:
            self.log.crash()
            datastore = recover(self.log)
        assert datastore.next_offset == self.log.durable
        if datastore.next_offset == 0:  # not even the tables were durable
            self.start()
        else:
            self.life.restart(datastore)

    @invariant()
    def rows_never_pass_what_is_durable(self) -> None:
        if hasattr(self, "life"):
            assert self.log.first <= self.log.rows.offset <= (self.log.rows.merging_to or 10**9)
            assert (self.log.rows.merging_to or self.log.rows.offset) <= self.log.durable


TestMerging = MergingMachine.TestCase
TestMerging.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)


class Disk:
    """The files of a log as they are whenever a transaction of SQLite was committed."""

    def __init__(self) -> None:
        self.copies: list[tuple[bytes, bytes, int]] = []
        """File, its WAL, what was durable."""

    def note(self, log: LogWriter) -> None:
        wal = log._path.with_name(log._path.name + "-wal")
        copy = log._path.read_bytes(), wal.read_bytes() if wal.exists() else b"", log.durable
        if not self.copies or self.copies[-1] != copy:
            self.copies.append(copy)


@pytest.fixture
def small() -> Iterator[pytest.MonkeyPatch]:
    """Let windows, parts and steps be so small that few transactions make many."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "log_writer.WINDOW_TRANSACTIONS": 3,
            "log_writer.IDLE_SECONDS": 0.002,
            "log_writer.RETENTION_SECONDS": 0.001,
            "log_writer.CLOSE_SECONDS": WAIT_SECONDS_MAX,
            "merging.STEP_CHANGES_MAX": 2,
            "merging.STEP_CHANGES_MIN": 1,
            "merging.PART_CHANGES_MAX": 5,
            "truncation._STEP_GROUPS": 2,
            "rows._ROWS_AT_ONCE": 3,
        }.items():
            patch.setattr(f"stdb.storage.{name}", value)
        patch.setattr("stdb.datastore.window.PART_CHANGES_MAX", 4)
        yield patch


def test_a_crash_between_any_two_transactions_of_sqlite_leaves_exactly_a_state_that_was(
    small: pytest.MonkeyPatch,
) -> None:
    disk = Disk()
    commit, truncate = LogWriter._commit, LogWriter._truncate

    def commit_noted(self: LogWriter) -> None:
        commit(self)
        disk.note(self)

    def truncate_noted(self: LogWriter) -> None:
        truncate(self)
        disk.note(self)

    small.setattr(LogWriter, "_commit", commit_noted)
    small.setattr(LogWriter, "_truncate", truncate_noted)
    seen = {"mixed": 0, "level": 0}

    @given(
        steps=st.lists(OPERATIONS, min_size=4, max_size=16),
        paces=st.lists(st.sampled_from([0.0, 0.0, 0.002, 0.008]), min_size=16, max_size=16),
        keeps=st.booleans(),
        moments=st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=4, unique=True),
    )
    @settings(max_examples=6, deadline=None)
    def check(steps: list[list[Operation]], paces: list[float], keeps: bool, moments: list[float]) -> None:
        disk.copies.clear()
        life = Life()
        with TemporaryDirectory() as directory:
            retention = Retention() if keeps else Retention(size=0)
            log = SqliteLog(Path(directory) / "a.sqlite", retention=lambda: retention)
            record, delta = life.create()
            log.append_nowait([record], [delta])
            for operations, pace in zip(steps, paces, strict=False):
                for record, delta in life.step(operations):
                    log.append_nowait([record], [delta])
                time.sleep(pace)
            log.close()
            assert log.rows_offset == log.durable == len(life.states) - 1
            assert log.first == 0 or not keeps
        copies = list(disk.copies)
        for moment in moments:
            _check_copy(life, *copies[int(moment * len(copies))], seen)

    check()
    assert min(seen.values()) > 0


def _check_copy(life: Life, file: bytes, wal: bytes, durable: int, seen: dict[str, int]) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "a.sqlite"
        path.write_bytes(file)
        path.with_name("a.sqlite-wal").write_bytes(wal)
        for _ in range(2):
            log = SqliteLog(path)
            try:
                assert log.durable >= durable
                seen["mixed" if log._writer._merger.is_mixed else "level"] += 1
                datastore = recover(log)
                assert datastore.next_offset == log.durable
                life.check(datastore)
            finally:
                log.close()
            assert log.rows_offset == log.durable  # the window was finished


@given(steps=st.lists(OPERATIONS, min_size=1, max_size=12), data=st.data())
@settings(max_examples=8, deadline=None)
def test_the_state_at_any_offset_is_reached_backwards_too(steps: list[list[Operation]], data: st.DataObject) -> None:
    life = Life()
    with TemporaryDirectory() as directory:
        log = SqliteLog(Path(directory) / "a.sqlite")
        created, delta = life.create()
        log.append_nowait([created], [delta])
        for operations in steps:
            for record, delta in life.step(operations):
                log.append_nowait([record], [delta])
        log.close()
        log = SqliteLog(Path(directory) / "a.sqlite")
        datastore = recover(log)
        stop = data.draw(st.integers(0, log.durable))
        for each in log.history(stop):
            datastore.unreplay(each)
            life.check(datastore)
        log.close()
        assert datastore.next_offset == stop
