"""Tests of telling damage of SQLite's write-ahead log from a torn end."""

import shutil
from pathlib import Path

import pytest

from stdb.datastore.records import Record, join
from stdb.errors import StorageError
from stdb.storage.log import SqliteLog
from stdb.storage.recovering import recover
from stdb.storage.wal import damaged_frame

FRAME = 24 + 4096
GROUPS = 6


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a log as a killed process leaves it: six groups in its WAL, nothing moved."""
    monkeypatch.setattr("stdb.storage.log_writer.IDLE_SECONDS", 10_000.0)
    path, kept = tmp_path / "a.sqlite", tmp_path / "kept"
    kept.mkdir()
    log = SqliteLog(path)
    for number in range(GROUPS):
        log.append_nowait([join(Record(number, b"%d" % number * 6000))])
        while log.backlog:
            pass
    for name in ("a.sqlite", "a.sqlite-wal"):
        shutil.copy(tmp_path / name, kept / name)
    log.close()
    return kept / "a.sqlite"


def count(path: Path) -> int:
    log = SqliteLog(path)
    try:
        return len(list(log.records()))
    finally:
        log.close()


def test_an_intact_or_missing_wal_is_not_damaged(copied: Path) -> None:
    assert damaged_frame(copied.with_name("a.sqlite-wal")) is None
    assert damaged_frame(copied.with_name("absent")) is None
    assert count(copied) == GROUPS


def test_any_cut_of_the_wal_is_a_torn_end(copied: Path) -> None:
    wal = copied.with_name("a.sqlite-wal")
    whole = wal.read_bytes()
    for end in range(0, len(whole), 7919):
        wal.write_bytes(whole[:end])
        assert damaged_frame(wal) is None


def test_a_flipped_byte_before_the_last_transaction_refuses_to_open(copied: Path) -> None:
    wal = copied.with_name("a.sqlite-wal")
    whole = wal.read_bytes()
    frames = (len(whole) - 32) // FRAME
    refused = set()
    for number in range(frames):
        damaged = bytearray(whole)
        damaged[32 + number * FRAME + 24 + 100] ^= 1
        wal.write_bytes(damaged)
        if (bad := damaged_frame(wal)) is not None:
            refused.add(bad)
            with pytest.raises(StorageError, match=rf"frame {number} of its -wal file is damaged.*recover a --to"):
                SqliteLog(copied)
    assert refused == set(range(len(refused)))
    assert frames - len(refused) <= 5  # the last transaction: a torn one looks the same
    assert wal.exists()


def test_a_damaged_header_with_transactions_behind_it_refuses_to_open(copied: Path) -> None:
    wal = copied.with_name("a.sqlite-wal")
    whole = wal.read_bytes()
    headers = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 : 32] for at in range(32)]
    for header in (bytes(32), b"\xff" * 32, *headers):
        wal.write_bytes(header + whole[32:])
        assert damaged_frame(wal) == 0
        with pytest.raises(StorageError, match="frame 0 of its -wal file is damaged"):
            SqliteLog(copied)


def test_recover_keeps_what_stands_before_the_damage(copied: Path) -> None:
    wal = copied.with_name("a.sqlite-wal")
    damaged = bytearray(wal.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    wal.write_bytes(damaged)
    kept = wal.read_bytes()
    done = recover(copied)
    assert done.aside.with_name(done.aside.name + "-wal").read_bytes() == kept
    assert 0 < done.kept < GROUPS
    assert count(copied) == done.kept


def test_a_file_that_is_no_wal_is_left_to_sqlite(tmp_path: Path) -> None:
    for content in (b"", b"short", bytes(100), b"\xff" * 10_000):
        (tmp_path / "x-wal").write_bytes(content)
        assert damaged_frame(tmp_path / "x-wal") is None
