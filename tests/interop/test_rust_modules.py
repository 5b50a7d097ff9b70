"""A module compiled by the official crate is published, called and asked, by the command line."""

from collections.abc import Iterator

import pytest

from tests.interop.module_cargo import build_module
from tests.interop.processes import Server, serve

pytestmark = pytest.mark.slow  # it may have to build Rust's standard library

DATABASE = "kitchen"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    program = build_module("kitchen", "2.8.3")
    with serve("--publish", f"{program}={DATABASE}") as running:
        yield running


def test_rows_of_every_kind_are_there_after_init(server: Server) -> None:
    assert '"Ann"' in server.stdb("sql", DATABASE, "SELECT * FROM person WHERE id = 1")
    assert "error" not in server.stdb("sql", DATABASE, "SELECT * FROM every").lower()


def test_reducers_change_rows_refuse_and_panic(server: Server) -> None:
    server.stdb("call", DATABASE, "add_person", '"Dora"', "44")
    assert "Dora@x" in server.stdb("sql", DATABASE, "SELECT * FROM person WHERE age = 44")
    assert "no way" in server.stdb("call", DATABASE, "r_err", '"no way"')
    assert "The instance encountered a fatal error." in server.stdb("call", DATABASE, "r_panic", '"boom"')
    assert "boom" in server.stdb("logs", DATABASE)
    assert "Dora@x" in server.stdb("sql", DATABASE, "SELECT * FROM person WHERE age = 44")


def test_procedures_and_views(server: Server) -> None:
    assert "7" in server.stdb("call", DATABASE, "p_add", "3", "4")
    server.stdb("call", DATABASE, "p_tx", "7")
    assert "Ann" in server.stdb("sql", DATABASE, "SELECT * FROM v_first")


def test_a_loop_without_end_is_stopped_and_others_are_served(server: Server) -> None:
    assert "energy" in server.stdb("call", DATABASE, "spin", "1000000").lower()
    assert "7" in server.stdb("call", DATABASE, "p_add", "3", "4")
