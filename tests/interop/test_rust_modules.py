"""A module compiled by the official crate is published, called and asked, by the command line."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.interop.module_cargo import CACHE, build_module
from tests.interop.npm import ROOT
from tests.interop.processes import Server, serve

pytestmark = pytest.mark.slow  # it may have to build Rust's standard library

DATABASE = "kitchen"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    program = build_module("kitchen", "2.8.3")
    with serve("--publish", f"{program}={DATABASE}") as running:
        yield running


def stdb(server: Server, command: str, *arguments: str) -> str:
    """Run a command; return what it printed, both streams."""
    done = subprocess.run(
        [sys.executable, "-m", "stdb", command, "-s", server.http, *arguments],
        cwd=ROOT,
        env={**os.environ, "XDG_CONFIG_HOME": str(CACHE / "config")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_rows_of_every_kind_are_there_after_init(server: Server) -> None:
    assert '"Ann"' in stdb(server, "sql", DATABASE, "SELECT * FROM person WHERE id = 1")
    assert "error" not in stdb(server, "sql", DATABASE, "SELECT * FROM every").lower()


def test_reducers_change_rows_refuse_and_panic(server: Server) -> None:
    stdb(server, "call", DATABASE, "add_person", '"Dora"', "44")
    assert "Dora@x" in stdb(server, "sql", DATABASE, "SELECT * FROM person WHERE age = 44")
    assert "no way" in stdb(server, "call", DATABASE, "r_err", '"no way"')
    assert "The instance encountered a fatal error." in stdb(server, "call", DATABASE, "r_panic", '"boom"')
    assert "boom" in stdb(server, "logs", DATABASE)
    assert "Dora@x" in stdb(server, "sql", DATABASE, "SELECT * FROM person WHERE age = 44")


def test_procedures_and_views(server: Server) -> None:
    assert "7" in stdb(server, "call", DATABASE, "p_add", "3", "4")
    stdb(server, "call", DATABASE, "p_tx", "7")
    assert "Ann" in stdb(server, "sql", DATABASE, "SELECT * FROM v_first")


def test_a_loop_without_end_is_stopped_and_others_are_served(server: Server) -> None:
    assert "energy" in stdb(server, "call", DATABASE, "spin", "1000000").lower()
    assert "7" in stdb(server, "call", DATABASE, "p_add", "3", "4")
