"""The pytest plugin: fixtures, databases of failed tests kept, runs in several processes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stdb.storage.data_directory import DataDirectory

pytestmark = pytest.mark.slow  # pytest in processes of its own

ROOT = Path(__file__).parent.parent
MODULE = """
from stdb import *

@table(public=True)
class Thing:
    n: u64 = primary_key()

@reducer
def add(ctx: ReducerContext, n: u64) -> None:
    ctx.db[Thing].insert(Thing(n=n))
"""
TESTS = """
import pytest
import things
import trio
from stdb.testing import AsyncTestHost, TestHost

@pytest.fixture
def host(stdb_host):
    return stdb_host(things)

def test_good(host):
    host.connect().call(things.add, 1)
    assert [row.n for row in host[things.Thing]] == [1]

def test_bad(host):
    host.connect().call(things.add, 2)
    assert len(host[things.Thing]) == 0

def test_bad_without_the_fixture():
    with TestHost(things) as host:
        host.connect().call(things.add, 3)
        raise LookupError

def test_bad_in_trio():
    async def test():
        async with AsyncTestHost.open(things):
            raise LookupError
    trio.run(test)

def test_good_although_a_host_is_left():
    with pytest.raises(LookupError):
        with TestHost(things) as host:
            raise LookupError

@pytest.mark.parametrize("n", range(6))
def test_many(host, n):
    assert len(host[things.Thing]) == 0
    host.connect().call("add", n)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "things.py").write_text(MODULE)
    (tmp_path / "test_things.py").write_text(TESTS)
    return tmp_path


def run(project: Path, *options: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "stdb.testing.plugin", "-rA", "-W", "error", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "8 passed" in done.stdout, done.stdout + done.stderr
    assert "3 failed" in done.stdout, done.stdout
    return done.stdout


def kept(output: str) -> list[Path]:
    return [Path(path) for path in re.findall(r"serve --data-dir (\S+)", output)]


def test_a_failed_test_keeps_its_database_and_says_where(project: Path) -> None:
    paths = kept(run(project))
    assert len(set(paths)) == 3
    assert set((project / ".pytest_cache/d/stdb").iterdir()) == set(paths)
    for path in paths:
        with DataDirectory(path) as directory:
            assert directory.control_path.exists()
            assert len(list((path / "databases").glob("*.sqlite"))) == 1


def test_databases_are_kept_where_one_says_or_not_at_all(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("kept")
    assert {path.parent for path in kept(run(project, f"--stdb-keep={elsewhere}"))} == {elsewhere}
    assert kept(run(project, "--stdb-keep=no", "-p", "no:cacheprovider")) == []


def test_tests_run_in_several_processes(project: Path) -> None:
    output = run(project, "-n", "2")
    assert len(set(kept(output))) == 3


def test_the_plugin_loads_no_server_before_a_test_asks_for_one() -> None:
    source = "import sys, stdb.testing.plugin; print({'stdb.actors', 'trio', 'hypothesis'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "set()"
