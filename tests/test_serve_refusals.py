"""Starts that cannot be: one clear line, exit code 1, nothing touched, and no repair needed afterwards."""

import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stdb.errors import StorageError
from stdb.storage.control import Control
from stdb.storage.data_directory import DataDirectory
from stdb.storage.log import SqliteLog
from tests.cli_harness import KITCHEN, Ran, own_place
from tests.interop.npm import ROOT
from tests.interop.processes import start_server

NOBODY = 65534


@pytest.fixture(autouse=True)
def home(tmp_path: Path) -> Iterator[None]:
    with own_place(tmp_path / "home"):
        yield


def serve(data: Path, file_bytes_max: int | None = None) -> Ran:
    """Start a server that cannot start; no file of its may grow beyond a size, as on a full disk."""

    def limit() -> None:
        if file_bytes_max is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, file_bytes_max))

    ended = subprocess.run(
        [sys.executable, "-m", "stdb", "serve", "-l", "127.0.0.1:0", "--data-dir", str(data)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        preexec_fn=limit,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    return Ran(ended.returncode, ended.stdout, ended.stderr)


def contents(path: Path) -> dict[str, bytes | None]:
    return {str(each.relative_to(path)): each.read_bytes() if each.is_file() else None for each in path.rglob("*")}


@contextmanager
def unprivileged() -> Iterator[None]:
    """Let permissions hold for root, too."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A data directory that a user other than its owner cannot write in."""
    path = tmp_path / "data"
    with DataDirectory(path) as directory:
        Control(str(directory.control_path)).close()
        SqliteLog(directory.database_path(bytes(32))).close()
    for each in (tmp_path, *tmp_path.parents):
        if each != Path("/tmp") and each != Path("/") and os.stat(each).st_uid == os.geteuid():
            each.chmod(stat.S_IMODE(each.stat().st_mode) | 0o055)
    for each in (path, *path.rglob("*")):
        each.chmod(0o555 if each.is_dir() else 0o444)
    yield path
    for each in (path, *path.rglob("*")):
        each.chmod(0o755 if each.is_dir() else 0o644)


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "pictures"
    home.mkdir()
    (home / "photo.jpg").write_text("a picture")
    before = contents(home)
    with pytest.raises(StorageError, match=r"pictures is no data directory of stdb: .* there is photo\.jpg; choose an"):
        DataDirectory(home)
    assert contents(home) == before


@pytest.mark.parametrize("name", ["config.toml", "lost+found", "stdb.lock"])
def test_what_may_lie_there_before_the_first_start_does_not_hinder_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with DataDirectory(tmp_path):
        pass
    with DataDirectory(tmp_path):
        pass


def test_a_data_directory_without_its_metadata_is_not_begun_anew(tmp_path: Path) -> None:
    with DataDirectory(tmp_path):
        pass
    (tmp_path / "metadata.toml").unlink()
    with pytest.raises(StorageError, match=r"no metadata\.toml, but there is databases"):
        DataDirectory(tmp_path)


@pytest.mark.parametrize("below", ["", "x", "x/y"])
def test_a_file_is_no_place(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_text("text")
    with pytest.raises(StorageError, match=r"cannot use the data directory .*: Not a directory$"):
        DataDirectory(file / below)
    assert file.read_text() == "text"


def test_a_directory_that_may_not_be_written_is_refused_and_not_touched(locked: Path) -> None:
    before = contents(locked)
    with unprivileged(), pytest.raises(StorageError, match=r"cannot use the data directory .*: Permission denied$"):
        DataDirectory(locked)
    assert contents(locked) == before


def test_a_database_that_may_not_be_written_or_read_is_refused_by_name(locked: Path) -> None:
    (path,) = locked.glob("databases/*.sqlite")
    with unprivileged(), pytest.raises(StorageError, match=r"\.sqlite: .*readonly database"):
        SqliteLog(path)
    path.chmod(0)
    with unprivileged(), pytest.raises(StorageError, match=rf"{path.name}: unable to open database file"):
        SqliteLog(path)


@pytest.mark.slow
def test_the_command_tells_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    ran = serve(tmp_path)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert ran.err.startswith(f"Error: {tmp_path} is no data directory of stdb")
    assert sorted(os.listdir(tmp_path)) == ["photo.jpg"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 50, 110, 200, 300, 4096, 20_000])
def test_a_full_disk_at_the_start_is_told_in_one_line_and_leaves_nothing_to_repair(tmp_path: Path, size: int) -> None:
    data = tmp_path / "data"
    ran = serve(data, size)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("Error: ")
    assert ran.err.count("\n") == 1, ran.err
    assert str(data) in ran.err
    server = start_server("--data-dir", str(data), "--publish", f"{KITCHEN}=kitchen")
    server.lines.until("published kitchen")
    assert server.stop() == 0
    before = contents(data)
    ran = serve(data, 0)
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    after = contents(data)
    assert {name: after[name] for name in before if name != "stdb.lock"} == {
        name: content for name, content in before.items() if name != "stdb.lock"
    }
