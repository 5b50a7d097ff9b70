"""`python -m stdb recover`: what it keeps, where the old file goes, and when it refuses."""

import re
from contextlib import closing
from pathlib import Path

import pytest

from stdb.datastore.records import Record, join
from stdb.errors import StorageError
from stdb.storage.control import Control, Database
from stdb.storage.data_directory import DataDirectory
from stdb.storage.log import SqliteLog
from tests.cli_harness import own_place, run

IDENTITY = bytes(range(32))
DIGITS = IDENTITY[::-1].hex()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data directory of a server that stopped; its database `chat` has six transactions."""
    path = tmp_path / "data"
    with DataDirectory(path) as directory:
        control = Control(str(directory.control_path))
        control.create(Database(IDENTITY, bytes(32), bytes(32), "Python", bytes(32), 0, False), b"program", "chat")
        control.close()
        for group in ((0, 1, 2), (3, 4, 5)):
            log = SqliteLog(directory.database_path(IDENTITY))
            log.append_nowait([join(Record(offset, b"payload %d" % offset)) for offset in group])
            log.close()
    return path


def log_of(data: Path) -> Path:
    return data / "databases" / f"{DIGITS}.sqlite"


def kept(data: Path) -> int:
    log = SqliteLog(log_of(data))
    log.close()
    return log.durable


def read(path: Path) -> None:
    with closing(SqliteLog(path)) as log:
        list(log.records(0))


@pytest.mark.parametrize("database", ["chat", DIGITS, f"0x{DIGITS.upper()}"])
def test_what_is_before_the_offset_is_kept_and_the_old_file_is_put_aside(data: Path, database: str) -> None:
    code, out, err = run("recover", database, "--to", "4", "--data-dir", str(data))
    aside = log_of(data).with_name(f"{DIGITS}.sqlite.damaged-1")
    assert (code, err) == (0, "")
    assert out == f"Kept 4 transactions of {database} ({DIGITS}).\nThe old log is now {aside}\n"
    assert aside.exists()
    assert kept(data) == 4


def test_without_an_offset_all_that_is_good_is_kept_and_the_damage_is_named(data: Path) -> None:
    path = log_of(data)
    body = path.read_bytes()
    assert body.count(b"payload 4") == 1
    path.write_bytes(body.replace(b"payload 4", b"payload 7"))
    code, out, err = run("recover", "chat", "--data-dir", str(data))
    assert (code, err) == (0, "")
    assert out.startswith(f"Kept 4 transactions of chat ({DIGITS}).\nThey end where the old log is damaged: {path}: ")
    assert "offset 4" in out
    assert "python -m stdb" not in out
    assert kept(data) == 4


def test_the_command_that_a_damaged_log_offers_can_be_run_as_it_stands(data: Path) -> None:
    with own_place(data.parent):
        home = data.parent / "XDG_DATA_HOME/stdb"
        home.parent.mkdir()
        data.rename(home)
        path = log_of(home)
        path.write_bytes(path.read_bytes().replace(b"payload 4", b"payload 7"))
        with pytest.raises(StorageError, match="offset 4") as damaged:
            read(path)
        command = re.search("`python -m stdb (recover .*?)`", str(damaged.value))
        assert command is not None
        code, out, _ = run(*command[1].split())
        assert (code, out.splitlines()[0]) == (0, f"Kept 4 transactions of {DIGITS} ({DIGITS}).")
        assert kept(home) == 4


def test_nothing_is_touched_while_a_server_runs(data: Path) -> None:
    with DataDirectory(data):
        code, out, err = run("recover", "chat", "--data-dir", str(data))
    assert (code, out) == (1, "")
    assert err.startswith(f"Error: another stdb server runs in {data} (pid ")
    assert kept(data) == 6


def test_a_place_or_a_name_that_is_wrong_is_said(data: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    told = f"Error: {nowhere} is no data directory of stdb. Name it with --data-dir, as `serve` printed it.\n"
    assert run("recover", "chat", "--data-dir", str(nowhere)) == (1, "", told)
    assert not nowhere.exists()
    told = f"Error: no database is named `chess` in {data}. Its identity may be given, too.\n"
    assert run("recover", "chess", "--data-dir", str(data)) == (1, "", told)
    assert run("recover", "0" * 64, "--data-dir", str(data)).err.endswith(f"{'0' * 64}.sqlite does not exist\n")
    assert run("recover", "chat", "--to", "-1").code == 2
