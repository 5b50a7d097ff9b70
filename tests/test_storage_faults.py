"""Disks that fail below a database: power failures with lost and torn writes, full disks, errors, read-only places.

After a power failure or an error the state is one that was, with everything that was reported durable (I16a).
"""

import random
import shutil
import time
from contextlib import closing
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.datastore.recovery import recover
from stdb.errors import StorageError
from stdb.storage.log import SqliteLog
from stdb.storage.retention import Retention
from tests.merging_life import TABLES, Life
from tests.recorded_disk import Durable, Fault, RecordedDisk

pytestmark = pytest.mark.slow  # a disk fails at every write in turn

WAIT_SECONDS_MAX = 30
SMALL = {
    "log_writer.IDLE_SECONDS": 0.002,
    "log_writer.RETENTION_SECONDS": 0.001,
    "log_writer.WINDOW_TRANSACTIONS": 6,
    "log_writer.CHECKPOINT_BYTES": 100_000,
    "merging.STEP_CHANGES_MAX": 8,
    "merging.STEP_CHANGES_MIN": 2,
}
NAMES = [*(table.name for table in TABLES), "later", "CREATE", "DROP", "WIDEN", "CLEAR"]


@pytest.fixture(scope="module", autouse=True)
def small() -> object:
    """Let few transactions make many windows, steps, moves and truncations."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(f"stdb.storage.{name}", value)
        yield


def live(log: SqliteLog, life: Life, transactions: int, seed: int) -> None:
    """Write random transactions; raises StorageError when the log fails."""
    chosen = random.Random(seed)
    records = [life.create()]
    for number in range(transactions):
        for record, delta in records:
            log.append_nowait([record], [delta])
        records = life.step([(chosen.choice(NAMES), chosen.randrange(6), chosen.randrange(6)) for _ in range(4)])
        if number % 3 == 0:
            stop_at = time.monotonic() + WAIT_SECONDS_MAX
            while log.backlog and time.monotonic() < stop_at:
                assert log.durable is not None  # raises once the log failed
                time.sleep(0.0005)
        if number % 10 == 9:
            time.sleep(0.005)


def check(directory: Path, files: dict[str, bytes], life: Life, promised: int) -> int:
    """Recover from files; return how many transactions they hold."""
    for name, content in files.items():
        (directory / name).write_bytes(content)
    (path,) = directory.glob("*.sqlite")
    with closing(SqliteLog(path)) as log:
        datastore = recover(log)
        assert datastore.next_offset == log.durable >= promised
        life.check(datastore)
        return datastore.next_offset


@pytest.fixture(scope="module")
def recorded() -> tuple[RecordedDisk, Life]:
    """A life of 60 transactions, and everything that was done to its disk."""
    disk, life = RecordedDisk(), Life()
    with TemporaryDirectory() as directory, disk.below_logs():
        path = Path(directory) / "a.sqlite"
        log = SqliteLog(path, disk.note, retention=lambda: Retention(size=600))
        disk.begin(path)
        live(log, life, 60, seed=3)
        log.close()
        assert log.first > 0
        assert log.rows_offset == log.durable
    return disk, life


@given(at=st.floats(0, 1), seed=st.integers(0, 1 << 20))
@settings(max_examples=60, deadline=None)
def test_a_power_failure_at_any_moment_loses_nothing_that_was_reported_durable(
    recorded: tuple[RecordedDisk, Life], at: float, seed: int
) -> None:
    disk, life = recorded
    moment = int(at * len(disk.journal))
    promised = max((each.transactions for each in disk.journal[:moment] if isinstance(each, Durable)), default=0)
    with TemporaryDirectory() as directory:
        check(Path(directory), disk.after_power_failure(moment, random.Random(seed)), life, promised)


def test_a_disk_that_does_not_sync_is_found_out(recorded: tuple[RecordedDisk, Life]) -> None:
    """The test above can fail: without syncs, what was reported durable is lost, or the file is refused."""
    disk, life = recorded
    found = 0
    for seed in range(10):
        moment = len(disk.journal) * (seed + 1) // 11
        promised = max((each.transactions for each in disk.journal[:moment] if isinstance(each, Durable)), default=0)
        with TemporaryDirectory() as directory:
            try:
                files = disk.after_power_failure(moment, random.Random(seed), lies=True)
                check(Path(directory), files, life, promised)
            except (AssertionError, StorageError):
                found += 1
    assert found > 3


@pytest.mark.parametrize("fault", ["full", "write error", "sync error"])
@pytest.mark.parametrize("operations", [0, 1, 2, 7, 40, 111, 300])
def test_a_disk_that_fails_stops_the_log_by_name_and_leaves_a_state_that_was(fault: Fault, operations: int) -> None:
    disk, life = RecordedDisk(), Life()
    told: Queue[int] = Queue()
    with TemporaryDirectory() as directory, TemporaryDirectory() as copies:
        path = Path(directory) / "a.sqlite"
        with disk.below_logs():
            log = SqliteLog(path, told.put, retention=lambda: Retention(size=600))
            disk.begin(path)
            disk.operations_left = operations if fault != "sync error" else operations // 3
            disk.fault = fault
            with pytest.raises(StorageError) as failed:
                live_and_close(log, life)
        words = "database or disk is full" if fault == "full" else "disk I/O error"
        assert f"{path}: offset " in str(failed.value)
        assert f"the log cannot be written: {words}" in str(failed.value)
        with pytest.raises(StorageError):
            log.append_nowait([b""])
        promised = max(told.queue, default=0)
        files = {each.name: each.read_bytes() for each in path.parent.iterdir() if not each.name.endswith("-shm")}
        kept = check(Path(copies), files, life, promised)
        again = SqliteLog(path)  # where space is again: it goes on without a repair
        with closing(again):
            life.restart(recover(again))
            assert again.durable == kept
            for record, delta in life.step([("text", 1, 1), ("auto", 4, 4)]):
                again.append_nowait([record], [delta])
        assert again.durable == len(life.states) - 1
        shutil.rmtree(copies, ignore_errors=True)
        Path(copies).mkdir()


def live_and_close(log: SqliteLog, life: Life) -> None:
    try:
        live(log, life, 80, seed=5)
    finally:
        log.close()
