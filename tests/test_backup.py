"""Backups for real: of a server that is written to, restored there and elsewhere; files that are none."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from stdb.storage.backup import BackupError, check_backup, copy_database
from stdb.storage.log import SqliteLog
from tests.cli_harness import SHOP, Place, ok, own_place, refused
from tests.interop.npm import ROOT
from tests.interop.processes import Server, serve_on

pytestmark = pytest.mark.slow  # servers of their own


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with own_place(tmp_path_factory.mktemp("home")) as place:
        yield place


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def server(place: Place, data: Path) -> Iterator[Server]:
    with serve_on(data, "--publish", f"{SHOP}=shop") as server:
        for name in "abc":
            ok(server, "call", "shop", "add", name, "1.5")
        yield server


@pytest.fixture
def backup(server: Server, tmp_path: Path) -> Path:
    path = tmp_path / "shop.stdb"
    assert ok(server, "backup", "shop", str(path)).startswith(f"{path}: database shop (")
    return path


def names(server: Server, database: str, *options: str) -> list[str]:
    answer = ok(server, "sql", database, "SELECT name FROM item", "--format", "json", *options)
    return sorted(row[0] for row in json.loads(answer)[0]["rows"])


def identity_of(server: Server, database: str) -> str:
    with urllib.request.urlopen(f"{server.http}/v1/database/{database}/identity") as answer:
        return str(answer.read().decode())


# --------------------------------------------------------------------------------------------------- there and back
def test_a_backup_beside_its_database_becomes_another_one(server: Server, backup: Path) -> None:
    out = ok(server, "restore", str(backup), "copy")
    assert out.startswith("Restored copy (")
    assert identity_of(server, "copy") != identity_of(server, "shop")
    assert names(server, "copy") == names(server, "shop")
    ok(server, "call", "copy", "add", "only here", "1")
    assert "only here" in names(server, "copy")
    assert "only here" not in names(server, "shop")
    assert names(server, "copy", "--at", "0") == []  # its log came with it


def test_a_deleted_database_comes_back_as_itself(server: Server, tmp_path: Path) -> None:
    ok(server, "fork", "shop", "gone")
    path, identity = tmp_path / "gone.stdb", identity_of(server, "gone")
    ok(server, "backup", "gone", str(path))
    ok(server, "delete", "gone", "-y")
    ok(server, "restore", str(path), "gone")
    assert identity_of(server, "gone") == identity
    assert names(server, "gone") == names(server, "shop")


def test_a_backup_is_restored_on_another_server_and_lives_over_a_restart(
    server: Server, backup: Path, tmp_path: Path
) -> None:
    with serve_on(tmp_path / "elsewhere") as other:
        ok(other, "restore", str(backup), "shop")
        assert identity_of(other, "shop") == identity_of(server, "shop")
    with serve_on(tmp_path / "elsewhere") as other:
        assert names(other, "shop") == names(server, "shop")


def test_a_backup_of_a_busy_database_holds_what_was_committed_before(server: Server, tmp_path: Path) -> None:
    ok(server, "fork", "shop", "busy")
    done = threading.Event()
    added: list[int] = []

    def write() -> None:
        while not done.is_set():
            request = urllib.request.Request(
                f"{server.http}/v1/database/busy/call/note",
                data=json.dumps([str(len(added))]).encode(),
                headers={"Content-Type": "application/json"},
            )
            urllib.request.urlopen(request).close()
            added.append(len(added))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            while len(added) < 20 * (number + 1):
                pass
            before = len(added)
            ok(server, "backup", "busy", str(tmp_path / f"{number}.stdb"))
            after = len(added) + 1
            ok(server, "restore", str(tmp_path / f"{number}.stdb"), f"busy-{number}")
            answer = json.loads(ok(server, "sql", f"busy-{number}", "SELECT text FROM bare", "--format", "json"))
            kept = {int(row[0]) for row in answer[0]["rows"]}
            assert kept == set(range(len(kept)))
            assert before <= len(kept) <= after
    finally:
        done.set()
        writer.join()


def test_a_backup_goes_through_pipes(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stdb"]
    sent = subprocess.run(
        [*command, "backup", "shop", "-", "--server", server.http], cwd=ROOT, capture_output=True, check=True
    )
    assert (sent.stdout[:15], sent.stderr) == (b"SQLite format 3", b"")
    taken = subprocess.run(
        [*command, "restore", "-", "piped", "--server", server.http], cwd=ROOT, input=sent.stdout, capture_output=True
    )
    assert (taken.returncode, taken.stderr) == (0, b"")
    assert names(server, "piped") == names(server, "shop")


def test_the_offset_of_a_backup_is_that_of_its_newest_transaction(server: Server, backup: Path) -> None:
    request = urllib.request.Request(
        f"{server.http}/stdb/v1/database/shop/backup", headers={"Authorization": f"Bearer {operator(server)}"}
    )
    with urllib.request.urlopen(request) as answer:
        body = answer.read()
    assert len(body) == int(answer.headers["content-length"])
    log = ok(server, "log", "shop", "--format", "json").splitlines()
    assert int(answer.headers["stdb-offset"]) == json.loads(log[-1])["offset"]


def operator(server: Server) -> str:
    note = Path(os.environ["XDG_STATE_HOME"]) / "stdb/servers" / server.http.rsplit(":")[-1]
    return (Path(note.read_text().strip()) / "operator.token").read_text().strip()


# --------------------------------------------------------------------------------------------------- who may
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "database/shop/backup"),
        ("POST", "restore?name=x"),
        ("POST", "database/shop/restore"),
        ("GET", "database/shop/log"),
        ("POST", "database/shop/fork?name=x"),
        ("GET", "database/shop/retention"),
        ("PUT", "database/shop/retention"),
        ("GET", "database/shop/export/item"),
        ("POST", "database/shop/import/item"),
    ],
)
def test_others_may_do_nothing_of_it(server: Server, method: str, path: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(f"{server.http}/v1/identity", method="POST")) as answer:
        token = json.loads(answer.read())["token"]
    for headers, status in (({}, 401), ({"Authorization": f"Bearer {token}"}, 403)):
        request = urllib.request.Request(f"{server.http}/stdb/v1/{path}", method=method, headers=headers)
        if method != "GET":
            request.data = b"all"
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)
        caught.value.close()
        assert caught.value.code == status


# --------------------------------------------------------------------------------------------------- no backups
def _text(path: Path) -> None:
    path.write_text("id,name\n1,a\n")


def _nothing(path: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4096])


def _zeros(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8192:12288] = bytes(4096)
    path.write_bytes(data)


def _newer(path: Path) -> None:
    _execute(path, "UPDATE metadata SET value = 99 WHERE name = 'format_version'")


def _other(path: Path) -> None:
    path.unlink()
    _execute(path, "CREATE TABLE notes(text)")


def _trigger(path: Path) -> None:
    _execute(path, "CREATE TRIGGER t AFTER INSERT ON log BEGIN DELETE FROM rows; END")


def _execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (_text, "it is no SQLite file, which a backup is"),
        (_nothing, "it is no SQLite file, which a backup is"),
        (_cut, "it is cut: it has"),
        (_zeros, "it is damaged: "),
        (_newer, "it has format 99, this stdb knows formats up to"),
        (_other, "it is no backup of a database of stdb: it holds table notes"),
        (_trigger, "it is no backup of a database of stdb: it holds "),
    ],
)
def test_a_file_that_is_no_backup_is_refused_and_nothing_is_left(
    server: Server, backup: Path, data: Path, spoil: Callable[[Path], None], text: str
) -> None:
    spoil(backup)
    before = sorted(path.name for path in (data / "databases").iterdir())
    error = refused(server, "restore", str(backup), "spoiled")
    assert f"Error: the backup cannot be restored: {text}" in error
    assert str(data) not in error
    assert sorted(path.name for path in (data / "databases").iterdir()) == before
    with pytest.raises(urllib.error.HTTPError) as caught:
        identity_of(server, "spoiled")
    caught.value.close()


def test_a_taken_name_is_refused(server: Server, backup: Path) -> None:
    assert "the name `shop` is in use" in refused(server, "restore", str(backup), "shop")
    assert "Error parsing `a b`" in refused(server, "restore", str(backup), "a b")
    assert "`owner` is no identity" in refused(server, "restore", str(backup), "new", "--owner", "me")


def test_a_file_that_is_not_there_is_named(server: Server, tmp_path: Path) -> None:
    missing = tmp_path / "missing.stdb"
    assert f"Error: cannot read {missing}: No such file" in refused(server, "restore", str(missing))
    assert "cannot write" in refused(server, "backup", "shop", str(tmp_path / "no/such/place.stdb"))


# --------------------------------------------------------------------------------------------------- the file itself
def test_a_copy_is_a_whole_file_that_passes_its_own_check(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "a.sqlite")
    try:
        assert copy_database(tmp_path / "a.sqlite", tmp_path / "b.sqlite") == 0
    finally:
        log.close()
    check_backup(tmp_path / "b.sqlite")
    assert sorted(path.name for path in tmp_path.glob("b*")) == ["b.sqlite"]


def test_names_with_marks_of_urls_are_names(tmp_path: Path) -> None:
    path = tmp_path / "50%?mode=#1.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE metadata(name, value)")
    with pytest.raises(BackupError, match="it holds table metadata"):
        check_backup(path)
