"""Tests of the rows beside the log: followed, loaded at start, checked, rebuilt; and of old records that go."""

import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from stdb.datastore.datastore import Datastore
from stdb.datastore.recovery import recover
from stdb.errors import StorageError
from stdb.storage.control import Control, Database
from stdb.storage.log import SqliteLog
from stdb.storage.recovering import recover as recover_by_hand
from stdb.storage.recovering import write_database
from stdb.storage.retention import DEFAULT_RETENTION, KEEP_ALL, Retention, parse_retention
from stdb.storage.rows import load_rows
from stdb.storage.stored_keys import stored_key
from tests.datastore_samples import row, state
from tests.merging_life import Life

WAIT_SECONDS_MAX = 30
STEPS = [
    [("wide", 0, 1), ("wide", 4, 2), ("text", 1, 1), ("bare", 0, 5), ("pairs", 1, 1)],
    [("wide", 0, 2), ("auto", 5, 1), ("auto", 4, 1), ("blob", 3, 1), ("pair", 2, 3)],
    [("CREATE", 0, 0), ("later", 0, 1), ("event", 1, 1)],
    [("WIDEN", 0, 0), ("wide", 4, 5), ("bare", 0, 5)],
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stdb.storage.log_writer.IDLE_SECONDS", 0.02)
    monkeypatch.setattr("stdb.storage.log_writer.RETENTION_SECONDS", 0.02)
    monkeypatch.setattr("stdb.storage.log_writer.CLOSE_SECONDS", 10.0)


def wait_until(condition: Callable[[], bool]) -> None:
    stop_at = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < stop_at, "it does not come true"
        time.sleep(0.005)


def write(path: Path, retention: Retention = KEEP_ALL, steps: Any = STEPS) -> Life:
    """Make a database whose rows are level with its log."""
    life = Life()
    log = SqliteLog(path, retention=lambda: retention)
    record, delta = life.create()
    log.append_nowait([record], [delta])
    for operations in steps:
        for record, delta in life.step(operations):
            wait_until(lambda: log.backlog == 0)  # one group each
            log.append_nowait([record], [delta])
    wait_until(lambda: log.rows_offset == log.durable == len(life.states) - 1)
    if retention is not KEEP_ALL:
        wait_until(lambda: log.first == log.durable)
    log.close()
    return life


def change(path: Path, statement: str, *parameters: object) -> int:
    """Change the file behind the back of stdb."""
    connection = sqlite3.connect(path, isolation_level=None)
    count = connection.execute(statement, parameters).rowcount
    connection.close()
    return count


def look(path: Path, statement: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    found = connection.execute(statement).fetchall()
    connection.close()
    return found


def recovered(path: Path) -> Datastore:
    log = SqliteLog(path, retention=lambda: KEEP_ALL)
    try:
        return recover(log)
    finally:
        log.close()


def table_id(datastore: Datastore, name: str) -> int:
    return datastore.table(name).schema.id


def test_a_start_needs_no_record_that_the_rows_reflect(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    life = write(path)
    change(path, "UPDATE log SET body = zeroblob(length(body))")
    life.check(recovered(path))


def test_ids_and_sequences_go_on_behind_those_before(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    life = write(path)
    datastore = recovered(path)
    auto = datastore.table("auto")
    transaction = datastore.begin(0)
    number = auto.schema.codec.decode_exact(transaction.insert(auto, row(auto, 0, "new")))[0]
    used = {auto.schema.codec.decode_exact(each)[0] for each in life.datastore.table("auto").rows()}
    assert number not in used
    datastore.catalog.create_table(life.datastore.table("small").schema.definition.__class__("n", "n", 0, ()))
    assert table_id(datastore, "n") not in life.datastore.tables
    transaction.rollback()
    life.check(datastore)


def test_rows_of_events_and_of_dropped_tables_are_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    life = write(path)
    kept = {number for (number,) in look(path, "SELECT DISTINCT table_id FROM rows")}
    assert table_id(life.datastore, "event") not in kept
    assert table_id(life.datastore, "later") in kept  # after it was made anew under another id
    assert kept <= set(life.datastore.tables)
    sums = {number: count for number, count in look(path, "SELECT table_id, count FROM tables") if count}
    assert sums == dict(look(path, "SELECT table_id, count(*) FROM rows GROUP BY table_id"))


@pytest.mark.parametrize(
    ("key", "stored"),
    [
        (-1, -1),
        (True, 1),
        (2**63 - 1, 2**63 - 1),
        (2**63, b"i9223372036854775808;"),
        ("a\0", "a\0"),
        (b"a", b"a"),
        ((), b"()"),
        ((0, (1, "é")), b"(i0;(i1;s2:\xc3\xa9))"),
        ((b"x:", 5), b"(b2:x:i5;)"),
    ],
)
def test_keys_are_stored_as_the_module_says(key: object, stored: object) -> None:
    assert stored_key(key) == stored


def test_a_row_is_its_own_key_or_its_digest() -> None:
    assert stored_key(b"r" * 255, is_row=True) == b"r" * 255
    assert stored_key(b"r" * 256, is_row=True) == sha256(b"r" * 256).hexdigest()


DAMAGE = [
    "UPDATE rows SET row = row || x'00' WHERE table_id = {wide} AND key = 0",
    "UPDATE rows SET row = 'text' WHERE table_id = {wide} AND key = 0",
    "UPDATE rows SET key = 1 WHERE table_id = {wide} AND key = 0",
    "DELETE FROM rows WHERE table_id = {wide} AND key = 0",
    "DELETE FROM tables WHERE table_id = {wide}",
    "UPDATE rows SET key = 'b' WHERE table_id = {text}",
    "UPDATE rows SET key = x'0001' WHERE table_id = {blob}",
    "UPDATE rows SET row = NULL WHERE table_id = {blob}",
    "UPDATE rows SET key = x'00' || key WHERE table_id = {pairs}",
    "INSERT INTO rows SELECT table_id, key + 1, crc, row FROM rows WHERE table_id = {wide} AND key = 0",
]


@pytest.mark.parametrize("statement", DAMAGE)
def test_damaged_rows_are_replayed_from_a_log_that_reaches_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, statement: str
) -> None:
    path = tmp_path / "a.sqlite"
    life = write(path)
    ids = {name: table_id(life.datastore, name) for name in ("wide", "text", "blob", "pairs")}
    assert change(path, statement.format(**ids)) > 0
    with caplog.at_level(logging.WARNING):
        life.check(recovered(path))
    assert str(path) in caplog.text
    assert "replayed from the log" in caplog.text
    caplog.clear()
    life.check(recovered(path))  # the rows were written anew
    assert caplog.text == ""
    change(path, "UPDATE log SET body = zeroblob(length(body))")
    life.check(recovered(path))


@pytest.mark.parametrize("statement", DAMAGE)
def test_damaged_rows_without_old_records_are_refused(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "a.sqlite"
    life = write(path, Retention(size=0))
    ids = {name: table_id(life.datastore, name) for name in ("wide", "text", "blob", "pairs")}
    change(path, statement.format(**ids))
    with pytest.raises(StorageError, match=r"a\.sqlite: .*(table `\w+`|stored rows are damaged)"):
        recovered(path)


def test_damaged_rows_are_taken_from_a_backup_beside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.sqlite"
    life = write(path, Retention(size=0), STEPS[:2])
    shutil.copy(path, tmp_path / "a.sqlite.backup")
    log = SqliteLog(path, retention=lambda: KEEP_ALL)
    life.restart(recover(log))
    for operations in STEPS[2:]:
        for record, delta in life.step(operations):
            log.append_nowait([record], [delta])
    log.close()
    change(path, DAMAGE[0].format(wide=table_id(life.datastore, "wide")))
    with caplog.at_level(logging.WARNING):
        life.check(recovered(path))
    assert "a.sqlite.backup" in caplog.text
    (tmp_path / "a.sqlite.backup").unlink()
    life.check(recovered(path))


def test_a_backup_that_the_log_does_not_reach_back_to_is_of_no_use(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    life = write(path, Retention(size=0), STEPS[:1])
    shutil.copy(path, tmp_path / "a.sqlite.backup")
    path.unlink()
    write(path, Retention(size=0))
    change(path, DAMAGE[0].format(wide=table_id(life.datastore, "wide")))
    with pytest.raises(StorageError, match="does not reach back"):
        recovered(path)


def test_a_file_of_the_first_format_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    life = write(path)
    for statement in (
        "DROP TABLE rows",
        "DROP TABLE tables",
        "DELETE FROM metadata WHERE name <> 'format_version'",
        "UPDATE metadata SET value = 1",
    ):
        change(path, statement)
    life.check(recovered(path))
    assert look(path, "SELECT value FROM metadata WHERE name = 'format_version'") == [(2,)]
    assert look(path, "SELECT value FROM metadata WHERE name = 'rows_offset'") == [(len(life.states) - 1,)]


def test_records_without_deltas_leave_the_rows_where_they_are_until_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    life = write(path)
    log = SqliteLog(path, retention=lambda: KEEP_ALL)
    level = log.rows_offset
    recover(log)
    (record, _), *_ = life.step([("wide", 1, 1)])
    log.append_nowait([record])
    log.close()
    assert log.rows_offset == level
    life.check(recovered(path))
    assert look(path, "SELECT value FROM metadata WHERE name = 'rows_offset'") == [(level + 1,)]


def test_a_log_whose_tail_nobody_replayed_is_not_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.sqlite"
    monkeypatch.setattr("stdb.storage.log_writer.CLOSE_SECONDS", 0.0)
    monkeypatch.setattr("stdb.storage.log_writer.IDLE_SECONDS", 100.0)
    life, log = Life(), SqliteLog(path)
    record, delta = life.create()
    log.append_nowait([record], [delta])
    log.close()
    monkeypatch.setattr("stdb.storage.log_writer.CLOSE_SECONDS", 10.0)
    log = SqliteLog(path)
    for record, delta in life.step([("wide", 1, 1)]):
        log.append_nowait([record], [delta])
    log.close()
    assert log.rows_offset == 0
    life.check(recovered(path))


def test_an_empty_file_whose_records_are_all_gone_goes_on_where_its_rows_stand(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    life = write(path, Retention(size=0))
    log = SqliteLog(path)
    assert log.first == log.durable == len(life.states) - 1
    life.restart(recover(log))
    for record, delta in life.step([("wide", 1, 1)]):
        log.append_nowait([record], [delta])
    log.close()
    with pytest.raises(
        StorageError, match=f"offset 1: the record is no longer kept, the log begins at offset {log.first}"
    ):
        list(log.records(1))
    assert [each.offset for each in log.records()] == [log.first]
    assert [each.offset for each in log.history()] == [log.first]
    with pytest.raises(StorageError, match=f"begins at offset {log.first}"):
        list(log.history(0))
    life.check(recovered(path))


# Retention


@pytest.mark.parametrize("text", ["all", "hours=24", "hours=0", "bytes=1000000"])
def test_a_retention_is_read_and_written(text: str) -> None:
    assert str(parse_retention(text)) == text


@pytest.mark.parametrize("text", ["", "none", "hours", "hours=-1", "hours=1.5", "days=1", "bytes=٣", "hours=24 "])
def test_another_retention_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="it is `all`, `hours=T` or `bytes=B`"):
        parse_retention(text)


def test_records_go_by_age_or_by_size_and_never_above_the_rows(tmp_path: Path) -> None:
    assert Retention(hours=24) == DEFAULT_RETENTION
    for retention, first in ((KEEP_ALL, 0), (Retention(hours=1), 6), (Retention(size=10_000_000), 0)):
        path = tmp_path / f"{retention}.sqlite"
        life = Life()
        log = SqliteLog(path, retention=lambda retention=retention: retention)
        record, delta = life.create()
        log.append_nowait([record], [delta])
        for number in range(5):
            for record, delta in life.step([("wide", number, 1), ("bare", number % 3, number)]):
                log.append_nowait([record], [delta])
        stop_at = time.monotonic() + 0.3
        while time.monotonic() < stop_at or log.rows_offset != log.durable:
            time.sleep(0.01)
        assert log.first == (log.durable if first else 0), retention  # the records of these tests are of 2023
        log.close()


def test_the_file_stays_bounded_under_steady_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stdb.storage.log_writer.CHECKPOINT_BYTES", 100_000)
    monkeypatch.setattr("stdb.storage.log_writer.WINDOW_BYTES", 200_000)
    sizes = _sizes_under_load(tmp_path / "a.sqlite")
    if not _is_level(sizes):  # a machine that gives the writer no time lets it fall behind, hardly twice
        sizes = _sizes_under_load(tmp_path / "b.sqlite")
    assert _is_level(sizes), sizes


def _is_level(sizes: list[int]) -> bool:
    """Tell whether a file has grown to its size and stays so."""
    return max(sizes[5:]) <= 1.1 * max(sizes[:5])


def _sizes_under_load(path: Path) -> list[int]:
    """Return the sizes of a file, its `-wal` included, while some megabytes are written to it."""
    life = Life()
    log = SqliteLog(path, retention=lambda: Retention(size=300_000))
    record, delta = life.create()
    log.append_nowait([record], [delta])
    sizes = []
    for number in range(3000):
        transaction = life.datastore.begin(0)
        table = life.datastore.table("text")
        for key in range(3):
            changed = row(table, f"k{(number + key) % 40}", f"{number} " * 60)
            place = table.key_of(changed)
            if place in table.stored:
                table.update_key(place, changed)
            else:
                table.insert(changed)
        delta = transaction.commit()
        assert delta is not None
        record, delta = life._committed(delta)
        log.append_nowait([record], [delta])
        if number % 300 == 299:
            wait_until(lambda: log.backlog == 0)
            wait_until(lambda: log.durable - log.first < 900)
            sizes.append(path.stat().st_size + path.with_name(f"{path.name}-wal").stat().st_size)
    written = sum(len(each.payload) for each in log.records()) * 3000 / (log.durable - log.first)
    log.close()
    assert written > 4_000_000
    assert max(sizes) < written
    life.check(recovered(path))
    return sizes


def test_a_control_store_from_before_gets_a_retention(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sqlite")
    identity = bytes(range(32))
    control = Control(path)
    control.create(Database(identity, bytes(16), bytes(32), "Python", bytes(32), 0), b"program", "chat")
    control.close()
    change(tmp_path / "control.sqlite", "ALTER TABLE databases DROP COLUMN retention")
    control = Control(path)
    known = control.database(identity)
    assert known is not None
    assert known.retention == DEFAULT_RETENTION
    control.set_retention(identity, KEEP_ALL)
    control.close()
    control = Control(path)
    known = control.database(identity)
    assert known is not None
    assert known.retention == KEEP_ALL
    control.close()


# By hand


def test_recover_keeps_the_state_behind_damage_that_the_rows_have_passed(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    life = write(path)
    change(path, "UPDATE log SET body = zeroblob(length(body)) WHERE first_offset = 1")
    done = recover_by_hand(path)
    assert (done.kept, done.damage) == (len(life.states) - 1, None)
    life.check(recovered(path))


@pytest.mark.parametrize("offset", [1, 3, 4, 5])
def test_recover_goes_back_where_no_record_reaches_forward(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "a.sqlite"
    life = write(path)
    change(path, "DELETE FROM log WHERE first_offset < 1")
    change(path, "UPDATE metadata SET value = 1 WHERE name = 'log_first'")
    done = recover_by_hand(path, offset)
    assert (done.kept, done.damage) == (offset, None)
    datastore = recovered(path)
    assert datastore.next_offset == offset
    life.check(datastore)
    assert look(path, "SELECT value FROM metadata WHERE name = 'log_first'") == [(1,)]


def test_recover_cannot_go_back_without_records(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    write(path, Retention(size=0))
    before = path.read_bytes()
    with pytest.raises(StorageError, match="no longer kept"):
        recover_by_hand(path, 2)
    assert path.read_bytes() == before


def test_a_state_is_written_as_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    life = write(path)
    datastore = load_rows(path)
    life.check(datastore)
    copy = tmp_path / "b.sqlite"
    write_database(copy, datastore, end=datastore.next_offset)
    again = recovered(copy)
    assert again.next_offset == datastore.next_offset
    life.check(again)
    assert state(again) == state(datastore)


def test_many_threads_are_not_left_behind(tmp_path: Path) -> None:
    before = threading.active_count()
    for number in range(5):
        write(tmp_path / f"{number}.sqlite", steps=STEPS[:1])
    assert threading.active_count() == before
