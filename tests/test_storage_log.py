"""Tests of the durable log on SQLite: order, durability, damage, full disks, recovery of a good prefix."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from queue import Empty, Queue

import pytest

from stdb.datastore.records import Record, join
from stdb.errors import StorageError
from stdb.storage.log import FORMAT_VERSION, HELD_RECORDS_MIN, HELD_TURNS, SqliteLog
from stdb.storage.log_group import BODY_BYTES_MAX, Group
from stdb.storage.log_writer import LogWriter
from stdb.storage.recovering import recover

WAIT_SECONDS_MAX = 30


def record(offset: int, payload: bytes | None = None) -> bytes:
    return join(Record(offset, b"payload %d" % offset if payload is None else payload))


def write(path: Path, *groups: int) -> None:
    """Make a log with groups of so many records, one row each."""
    log = SqliteLog(path)
    offset = 0
    for count in groups:
        log.append_nowait([record(offset + i) for i in range(count)])
        offset += count
        log.close()
        log = SqliteLog(path)
    log.close()


def offsets(log: SqliteLog, from_offset: int = 0) -> list[int]:
    return [each.offset for each in log.records(from_offset)]


def test_what_was_appended_is_read_back_after_a_restart(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "a.sqlite")
    log.append_nowait([record(0), record(1)])
    log.append_nowait([record(2, b"")])
    log.close()
    again = SqliteLog(tmp_path / "a.sqlite")
    assert again.durable == 3
    assert again.backlog == 0
    assert list(again.records()) == [Record(0, b"payload 0"), Record(1, b"payload 1"), Record(2, b"")]
    assert offsets(again, 1) == [1, 2]
    assert offsets(again, 2) == [2]
    assert offsets(again, 3) == []
    again.append_nowait([record(3)])
    again.close()
    assert offsets(again) == [0, 1, 2, 3]


def test_an_empty_log_is_durable_at_zero(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "a.sqlite")
    assert (log.durable, offsets(log)) == (0, [])
    log.append_nowait([])
    log.close()
    log.close()
    assert log.durable == 0


def test_the_owner_is_told_of_every_step_and_only_after_it_is_on_the_disk(tmp_path: Path) -> None:
    path, told = tmp_path / "a.sqlite", []

    def on_durable(durable: int) -> None:
        with sqlite3.connect(path) as other:
            stored = other.execute("SELECT max(first_offset + count) FROM log").fetchone()[0]
        other.close()
        told.append((durable, stored, threading.current_thread() is threading.main_thread()))

    log = SqliteLog(path, on_durable)
    for offset in range(20):
        log.append_nowait([record(offset)])
    log.close()
    assert told[-1][0] == 20
    assert all(stored >= durable and not is_main for durable, stored, is_main in told)
    assert [durable for durable, _, _ in told] == sorted({durable for durable, _, _ in told})


def test_what_waits_is_written_as_one_group(tmp_path: Path) -> None:
    path, go = tmp_path / "a.sqlite", threading.Event()
    log = SqliteLog(path, lambda _: go.wait(WAIT_SECONDS_MAX) and None)
    for offset in range(100):
        log.append_nowait([record(offset)])
    assert log.backlog >= 99
    go.set()
    log.close()
    with sqlite3.connect(path) as other:
        (groups,) = other.execute("SELECT count(*) FROM log").fetchone()
    other.close()
    assert groups <= 3


def test_a_group_above_the_bound_is_split(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "a.sqlite")
    payload = bytes(BODY_BYTES_MAX // 2 + 1)
    log.append_nowait([record(offset, payload) for offset in range(3)])
    log.close()
    with sqlite3.connect(log.path) as other:
        assert other.execute("SELECT first_offset, count FROM log").fetchall() == [(0, 1), (1, 1), (2, 1)]
    other.close()
    assert offsets(log) == [0, 1, 2]


def test_bodies_of_waiting_groups_are_joined_up_to_the_bound(tmp_path: Path) -> None:
    group, payload = Group(), bytes(BODY_BYTES_MAX // 2 - 100)
    for numbers in ((0, 1), (2,), (3, 4), (5,)):
        following = Group()
        following.add([record(number, payload) for number in numbers], [])
        group.absorb(following)
    bodies = list(group.bodies())
    assert [count for _, count in bodies] == [2, 1, 2, 1]
    assert b"".join(body for body, _ in bodies) == b"".join(record(number, payload) for number in range(6))
    assert group.size == sum(len(body) for body, _ in bodies)


def stored_counts(path: Path) -> list[int]:
    with sqlite3.connect(path) as other:
        counts = [count for (count,) in other.execute("SELECT count FROM log ORDER BY first_offset")]
    other.close()
    return counts


def append_turn(log: SqliteLog, start: int, count: int, *, more: bool) -> None:
    log.append_nowait([record(start + i) for i in range(count)], more=more)


def test_turns_of_a_busy_owner_are_written_as_one_group(tmp_path: Path) -> None:
    told: Queue[int] = Queue()
    log = SqliteLog(tmp_path / "a.sqlite", told.put)
    append_turn(log, 0, HELD_RECORDS_MIN, more=True)
    append_turn(log, HELD_RECORDS_MIN, HELD_RECORDS_MIN, more=True)
    assert log.backlog == 2 * HELD_RECORDS_MIN
    with pytest.raises(Empty):
        told.get(timeout=0.05)
    append_turn(log, 2 * HELD_RECORDS_MIN, 1, more=False)
    assert told.get(timeout=WAIT_SECONDS_MAX) == 2 * HELD_RECORDS_MIN + 1
    log.close()
    assert stored_counts(log.path) == [2 * HELD_RECORDS_MIN + 1]
    assert offsets(log) == list(range(2 * HELD_RECORDS_MIN + 1))


@pytest.mark.parametrize("last", [0, 1, HELD_RECORDS_MIN - 1])
def test_a_small_turn_is_not_held_nor_what_was(tmp_path: Path, last: int) -> None:
    told: Queue[int] = Queue()
    log = SqliteLog(tmp_path / "a.sqlite", told.put)
    append_turn(log, 0, HELD_RECORDS_MIN, more=True)
    append_turn(log, HELD_RECORDS_MIN, last, more=True)
    assert told.get(timeout=WAIT_SECONDS_MAX) == HELD_RECORDS_MIN + last
    log.close()


def test_an_owner_that_is_always_busy_is_told_every_few_turns(tmp_path: Path) -> None:
    told: Queue[int] = Queue()
    log = SqliteLog(tmp_path / "a.sqlite", told.put)
    for turn in range(HELD_TURNS):
        append_turn(log, turn * HELD_RECORDS_MIN, HELD_RECORDS_MIN, more=True)
    assert told.get(timeout=WAIT_SECONDS_MAX) == HELD_TURNS * HELD_RECORDS_MIN
    log.close()


def test_what_is_held_is_written_when_the_log_is_closed(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "a.sqlite")
    append_turn(log, 0, HELD_RECORDS_MIN, more=True)
    log.close()
    assert (log.durable, log.backlog) == (HELD_RECORDS_MIN, 0)
    assert offsets(log) == list(range(HELD_RECORDS_MIN))


def test_records_out_of_order_are_refused(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "a.sqlite")
    with pytest.raises(AssertionError, match="record 1 appended, 0 is next"):
        log.append_nowait([record(1)])
    log.close()


def test_an_owner_whose_loop_has_ended_does_not_stop_the_writer(tmp_path: Path) -> None:
    def on_durable(_: int) -> None:
        raise RuntimeError("the loop is over")

    log = SqliteLog(tmp_path / "a.sqlite", on_durable)
    log.append_nowait([record(0)])
    log.append_nowait([record(1)])
    log.close()
    assert log.durable == 2


def test_the_wal_is_moved_into_the_file_when_the_writer_is_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stdb.storage.log_writer.IDLE_SECONDS", 0.01)
    moved = threading.Event()
    move = LogWriter._move_wal

    def spy(self: LogWriter) -> None:
        move(self)
        moved.set()

    monkeypatch.setattr(LogWriter, "_move_wal", spy)
    log = SqliteLog(tmp_path / "a.sqlite")
    log.append_nowait([record(0, b"\xab" * 5000)])
    assert moved.wait(WAIT_SECONDS_MAX)
    assert b"\xab" * 1000 in log.path.read_bytes()
    log.close()


def test_the_wal_is_moved_above_its_bound_however_busy_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stdb.storage.log_writer.CHECKPOINT_BYTES", 100_000)
    log = SqliteLog(tmp_path / "a.sqlite")
    for offset in range(40):
        log.append_nowait([record(offset, bytes(50_000))])
    log.close()
    assert offsets(log) == list(range(40))


# Full disks


def test_a_full_disk_stops_the_log_and_what_was_durable_stays(tmp_path: Path) -> None:
    told: Queue[int] = Queue()
    log = SqliteLog(tmp_path / "a.sqlite", told.put, file_bytes_max=400_000)
    written = 0

    def fill() -> None:
        nonlocal written
        for offset in range(1000):
            log.append_nowait([record(offset, bytes(10_000))])
            written += 1
            told.get(timeout=WAIT_SECONDS_MAX)
            assert log.durable == offset + 1

    with pytest.raises(StorageError, match="cannot be written: database or disk is full") as caught:
        fill()
    durable = written - 1
    assert f"offset {durable}" in str(caught.value)
    with pytest.raises(StorageError):
        log.append_nowait([record(written)])
    log.close()  # the owner knows: not told again
    again = SqliteLog(tmp_path / "a.sqlite")
    assert again.durable == durable > 5
    assert offsets(again) == list(range(durable))
    again.append_nowait([record(durable)])
    again.close()
    assert again.durable == durable + 1


def test_a_failure_that_nobody_asked_for_is_raised_by_close(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "a.sqlite", file_bytes_max=100_000)
    log.append_nowait([record(0, bytes(1_000_000))])
    with pytest.raises(StorageError, match="offset 0: the log cannot be written"):
        log.close()
    log.close()


# Damage


def test_every_flipped_bit_in_a_body_is_found_and_its_place_named(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    write(path, 3, 2)
    clean = sqlite3.connect(path)
    (body,) = clean.execute("SELECT body FROM log WHERE first_offset = 3").fetchone()
    clean.close()
    for bit in range(0, len(body) * 8, 7):
        damaged = bytearray(body)
        damaged[bit // 8] ^= 1 << bit % 8
        with sqlite3.connect(path) as other:
            other.execute("UPDATE log SET body = ? WHERE first_offset = 3", (bytes(damaged),))
        other.close()
        log = SqliteLog(path)
        good = []
        with pytest.raises(StorageError) as caught:
            good += [each.offset for each in log.records()]
        log.close()
        bad = 3 if bit // 8 < len(body) // 2 else 4
        assert str(caught.value).startswith(f"{path}: offset {bad}: ")
        assert f"python -m stdb recover a --to {bad}" in str(caught.value)


def test_what_was_yielded_before_the_damage_is_good(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    write(path, 3, 2)
    with sqlite3.connect(path) as other:
        other.execute("UPDATE log SET body = zeroblob(length(body)) WHERE first_offset = 3")
    other.close()
    log = SqliteLog(path)
    records = log.records()
    assert [next(records).offset for _ in range(3)] == [0, 1, 2]
    with pytest.raises(StorageError, match="offset 3: "):
        next(records)
    log.close()


@pytest.mark.parametrize(
    ("statement", "offset", "words"),
    [
        ("DELETE FROM log WHERE first_offset = 2", 2, "missing, the next group begins at offset 4"),
        ("DELETE FROM log WHERE first_offset = 0", 0, "missing, the next group begins at offset 2"),
        ("UPDATE log SET count = 3 WHERE first_offset = 2", 4, "a group of 3 records holds 2"),
        ("UPDATE log SET count = 1 WHERE first_offset = 4", 6, "a group of 1 records holds 2"),
        ("UPDATE log SET body = 'text' WHERE first_offset = 2", 2, "no blob"),
        ("UPDATE log SET body = x'' WHERE first_offset = 2", 2, "holds 0"),
        ("UPDATE log SET body = substr(body, 1, 30) WHERE first_offset = 2", 3, "cut"),
        (
            "UPDATE log SET body = (SELECT body FROM log WHERE first_offset = 0) WHERE first_offset = 2",
            2,
            "of offset 0",
        ),
        ("UPDATE log SET first_offset = 7 WHERE first_offset = 4", 4, "missing"),
    ],
)
def test_a_damaged_table_is_refused_where_it_breaks(tmp_path: Path, statement: str, offset: int, words: str) -> None:
    path = tmp_path / "a.sqlite"
    write(path, 2, 2, 2)
    with sqlite3.connect(path) as other:
        other.execute(statement)
    other.close()
    log = SqliteLog(path)
    with pytest.raises(StorageError, match=f"offset {offset}: .*{words}"):
        list(log.records())
    log.close()


def test_a_flipped_byte_anywhere_in_the_file_never_yields_other_records(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    log = SqliteLog(path)
    for offset in range(60):
        log.append_nowait([record(offset, bytes([offset]) * 300)])
    log.close()
    clean = path.read_bytes()
    expected = list(log.records())
    seen = set()
    for position in range(0, len(clean), 211):
        damaged = bytearray(clean)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        found: list[Record] = []
        try:
            again = SqliteLog(path)
            try:
                for each in again.records():
                    found.append(each)
            finally:
                again.close()
        except StorageError as error:
            seen.add("refused" if str(path) in str(error) else "refused without a name")
        else:
            assert found == expected
            seen.add("unharmed")
        assert found == expected[: len(found)]
    assert seen == {"refused", "unharmed"}


def test_a_zeroed_page_is_refused_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    log = SqliteLog(path)
    log.append_nowait([record(offset, bytes([offset]) * 2000) for offset in range(30)])
    log.close()
    clean, expected = path.read_bytes(), list(log.records())
    for start in range(0, len(clean), 4096):
        path.write_bytes(clean[:start] + bytes(4096) + clean[start + 4096 :])
        found: list[Record] = []
        try:
            again = SqliteLog(path)
            try:
                found += again.records()
            finally:
                again.close()
        except StorageError:
            continue
        assert found == expected


def test_a_group_whose_count_is_lost_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.sqlite"
    write(path, 3)
    page = bytearray(path.read_bytes())
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("UPDATE sqlite_schema SET sql = replace(sql, 'count INT NOT NULL', 'count INT')")
    connection.close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE log SET count = NULL")
    connection.close()
    assert path.read_bytes() != page
    with pytest.raises(StorageError, match="the count of the last group is no number"):
        SqliteLog(path)


def test_another_file_is_no_log(tmp_path: Path) -> None:
    text = tmp_path / "text.sqlite"
    text.write_text("this is not a database, whatever its name says" * 100)
    with pytest.raises(StorageError, match=r"text\.sqlite: file is not a database"):
        SqliteLog(text)
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as other:
        other.execute("CREATE TABLE metadata(name TEXT, value)")
    other.close()
    with pytest.raises(StorageError, match="no log of stdb"):
        SqliteLog(foreign)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    write(path, 1)
    with sqlite3.connect(path) as other:
        other.execute("UPDATE metadata SET value = ?", (FORMAT_VERSION + 1,))
    other.close()
    with pytest.raises(StorageError, match=f"format {FORMAT_VERSION + 1}, this stdb knows format {FORMAT_VERSION}"):
        SqliteLog(path)


def test_a_directory_that_is_not_there_is_an_error_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="unable to open database file"):
        SqliteLog(tmp_path / "absent" / "a.sqlite")


# Keeping a good prefix


def test_recover_keeps_the_longest_good_prefix_and_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    write(path, 2, 2, 2)
    with sqlite3.connect(path) as other:
        other.execute("UPDATE log SET body = zeroblob(length(body)) WHERE first_offset = 4")
    other.close()
    damaged = path.read_bytes()
    done = recover(path)
    assert done.kept == 4
    assert done.damage is not None
    assert "offset 4" in done.damage
    assert done.aside.read_bytes() == damaged
    log = SqliteLog(path)
    assert offsets(log) == [0, 1, 2, 3]
    log.append_nowait([record(4)])
    log.close()
    assert offsets(log) == [0, 1, 2, 3, 4]


def test_recover_stops_at_the_offset_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    write(path, 3, 3)
    done = recover(path, 4)
    assert (done.kept, done.damage) == (4, None)
    assert done.aside.name == "a.sqlite.damaged-1"
    assert recover(path, 2).aside.name == "a.sqlite.damaged-2"
    log = SqliteLog(path)
    log.close()
    assert log.durable == 2


def test_recover_of_a_good_log_keeps_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    write(path, 3, 3)
    assert recover(path)[::2] == (6, None)
    assert recover(path, 100)[::2] == (6, None)


def test_recover_of_a_file_that_is_no_database_starts_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    path.write_bytes(b"rubbish" * 1000)
    done = recover(path)
    assert done.kept == 0
    assert done.aside.read_bytes() == b"rubbish" * 1000


def test_recover_of_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        recover(tmp_path / "a.sqlite")


def test_a_recover_that_was_cut_off_is_finished_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    write(path, 3)
    write(tmp_path / "a.sqlite.recovering", 2)
    path.rename(tmp_path / "a.sqlite.damaged-1")
    (tmp_path / "a.sqlite-wal").write_bytes(b"stale")
    with pytest.raises(StorageError, match="a recover was cut off"):
        SqliteLog(path)
    assert recover(path).kept == 2
    assert (tmp_path / "a.sqlite.damaged-1-wal").read_bytes() == b"stale"
    log = SqliteLog(path)
    log.close()
    assert log.durable == 2


def test_a_recover_cut_off_while_copying_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    write(path, 3)
    (tmp_path / "a.sqlite.recovering").write_bytes(b"half a copy")
    assert recover(path).kept == 3


# Killing


_CHILD = """
import sys
from stdb.datastore.records import Record, join
from stdb.storage.log import SqliteLog

def told(durable):
    sys.stdout.write(f"{durable}\\n")
    sys.stdout.flush()

log = SqliteLog(sys.argv[1], told)
offset = log.durable
while True:
    group = [join(Record(offset + i, b"%d " % (offset + i) * 40)) for i in range(7)]
    log.append_nowait(group)
    offset += 7
    while log.backlog > 500:
        pass
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_killing_the_process_loses_nothing_that_was_reported_durable(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    durable_before = 0
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", _CHILD, str(path)], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(20)]
            child.send_signal(signal.SIGKILL)
            lines += child.stdout.read().split("\n")[:-1]
        reported = int(lines[-1])
        assert reported > durable_before
        log = SqliteLog(path)
        durable_before = log.durable
        log.close()
        assert durable_before >= reported
        assert [(each.offset, each.payload) for each in log.records()] == [
            (offset, b"%d " % offset * 40) for offset in range(durable_before)
        ]


def test_a_writer_that_fails_in_any_way_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: Queue[int] = Queue()
    log = SqliteLog(tmp_path / "a.sqlite", told.put)

    def break_down(*_: object) -> None:
        raise LookupError("a mistake of ours")

    monkeypatch.setattr(LogWriter, "_append", break_down)
    log.append_nowait([record(0)])
    assert told.get(timeout=WAIT_SECONDS_MAX) == 0
    wanted = r"a\.sqlite: offset 0: the log cannot be written: a mistake of ours"
    with pytest.raises(StorageError, match=wanted) as caught:
        _ = log.durable
    assert isinstance(caught.value.__cause__, LookupError)
    log.close()
