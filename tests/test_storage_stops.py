"""A database whose disk is full or damaged stops with one message, others go on, and it comes back without repair."""

import json
import re
import resource
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli_harness import own_place, run
from tests.interop.processes import Server, start_server

pytestmark = pytest.mark.slow

SOURCE = """
from stdb import ReducerContext, primary_key, reducer, table, u64

@table(public=True)
class Row:
    id: u64 = primary_key(auto_inc=True)
    text: str

@reducer
def add(ctx: ReducerContext, text: str) -> None:
    ctx.db[Row].insert(Row(text=text))
"""


class Two:
    """A server with the databases `one` and `two`."""

    def __init__(self, place: Path) -> None:
        self.source = place / "rows.py"
        self.source.write_text(SOURCE)
        self.data = place / "data"
        self.server = self.start()
        self.token = (self.data / "operator.token").read_text().strip()

    def start(self) -> Server:
        """Start it (again)."""
        published = [f"--publish={self.source}={name}" for name in ("one", "two")]
        self.server = start_server("--data-dir", str(self.data), *published)
        return self.server

    def restart_without_publishing(self) -> None:
        """Start it as an operator does."""
        self.server = start_server("--data-dir", str(self.data))

    def file(self, name: str) -> Path:
        """Return the file of a database."""
        identity = self.server.read(f"/v1/database/{name}/identity")
        return self.data / "databases" / f"{identity}.sqlite"

    def add(self, name: str, text: str) -> str:
        """Add a row; return the refusal, or ""."""
        request = urllib.request.Request(
            f"{self.server.http}/v1/database/{name}/call/add",
            json.dumps([text]).encode(),
            {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        try:
            urllib.request.urlopen(request, timeout=30).close()
        except urllib.error.HTTPError as error:
            with error:
                return f"{error.code} {error.read().decode()}"
        return ""

    def count(self, name: str) -> int:
        """Return how many rows a database has."""
        (row,) = self.server.sql(name, "SELECT COUNT(*) AS n FROM row", self.token)
        return int(row["n"])

    def told(self, pattern: str) -> list[str]:
        """Return the lines of the server's own log so far that match."""
        time.sleep(0.1)
        while not self.server.lines._queue.empty():
            self.server.lines.next(1)
        return [line for line in self.server.lines.seen if re.search(pattern, line)]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    with own_place(tmp_path / "home"):
        made = Two(tmp_path)
        try:
            yield made
        finally:
            if made.server.process.poll() is None:
                made.server.kill()


def test_a_full_disk_stops_one_database_and_a_restart_brings_it_back_once_there_is_space(two: Two) -> None:
    pid = two.server.process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    assert two.add("one", "before") == two.add("two", "before") == ""
    size = sum(path.stat().st_size for path in two.file("one").parent.glob(f"{two.file('one').name}*"))
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + 200_000, hard))
    added = 1
    for _ in range(100):
        refusal = two.add("one", "x" * 20_000)
        if refusal:
            break
        added += 1
    assert "503" in refusal
    stopped = rf"database {two.file('one').stem} is stopped: .*: offset \d+: the log cannot be written"
    assert len(two.told(stopped)) == 1
    assert two.told("Traceback") == []
    assert two.add("two", "meanwhile") == ""
    assert "503" in two.add("one", "again")
    assert "python -m stdb restart" in two.add("one", "again")
    ran = run("restart", "one", "-s", two.server.http)
    if ran.code == 0:  # what was open is closed, which made room; it fills up again
        assert two.count("one") >= added
        while not two.add("one", "y" * 20_000):
            added += 1
        assert len(two.told(stopped)) == 2
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
    ran = run("restart", "one", "-s", two.server.http)
    assert ran.code == 0, ran.err
    assert added <= two.count("one") <= added + 2  # one more may have been written without having been confirmed
    assert two.add("one", "afterwards") == ""
    assert two.count("two") == 2
    assert two.server.stop() == 0


def test_a_damaged_database_is_refused_by_place_while_others_run_and_recover_gets_it_going(two: Two) -> None:
    for number in range(5):
        assert two.add("one", f"row {number}") == two.add("two", f"row {number}") == ""
    path = two.file("one")
    two.server.kill()
    wal = path.with_name(f"{path.name}-wal")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        (body, first) = connection.execute(
            "SELECT body, first_offset FROM log ORDER BY first_offset DESC LIMIT 1"
        ).fetchone()
        connection.execute("UPDATE log SET body = ? WHERE first_offset = ?", (body[:-1] + b"\xff", first))
        connection.execute("UPDATE metadata SET value = 1 WHERE name = 'rows_offset'")
        connection.commit()
    assert not wal.exists() or not wal.stat().st_size
    two.restart_without_publishing()
    refusal = two.add("one", "refused")
    assert "503" in refusal
    assert "offset" in refusal
    assert "python -m stdb recover" in refusal
    assert str(two.data) not in refusal, "clients need not know where files are"
    assert two.add("two", "goes on") == ""
    assert len(two.told(rf"database {path.stem} is stopped: {path}: offset \d+: ")) == 1
    assert two.server.stop() == 0
    ran = run("recover", "one", "--data-dir", str(two.data))
    assert ran.code == 0, ran.err
    assert "They end where the old log is damaged" in ran.out
    two.restart_without_publishing()
    assert two.add("one", "again") == ""
    assert 5 <= two.count("one") <= 6
    assert two.count("two") == 6
    assert two.server.stop() == 0
    assert sorted(each.name for each in path.parent.glob("*.damaged-1")) == [f"{path.name}.damaged-1"]


def test_a_database_of_a_newer_format_is_refused_and_not_touched(two: Two) -> None:
    path = two.file("one")
    assert two.server.stop() == 0
    with closing(sqlite3.connect(path)) as connection:
        (version,) = connection.execute("SELECT value FROM metadata WHERE name = 'format_version'").fetchone()
        connection.execute("UPDATE metadata SET value = value + 1 WHERE name = 'format_version'")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    before = path.read_bytes()
    two.restart_without_publishing()
    assert f"has format {version + 1}, this stdb knows format {version}" in two.add("one", "refused")
    assert two.add("two", "goes on") == ""
    assert two.server.stop() == 0
    assert path.read_bytes() == before


def test_two_servers_never_share_a_data_directory_and_the_second_touches_nothing(two: Two) -> None:
    def state() -> dict[str, bytes]:
        kept = ("stdb.lock", "metadata.toml", "operator.token", "id_ecdsa", "control.sqlite")
        return {name: (two.data / name).read_bytes() for name in kept}

    before, names = state(), sorted(path for path in two.data.rglob("*") if path.is_dir())
    ran = run("serve", "--data-dir", str(two.data), "-l", "127.0.0.1:0")
    assert ran.code == 1
    assert ran.err == (
        f"Error: another stdb server runs in {two.data} (pid {two.server.process.pid}); "
        "stop it, or choose another --data-dir\n"
    )
    assert state() == before
    assert sorted(path for path in two.data.rglob("*") if path.is_dir()) == names
    assert two.add("one", "goes on") == ""
    assert two.server.stop() == 0
