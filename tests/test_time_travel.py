"""The past of a database, for real: a server process, commands that look back, forks, what is out of reach."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stdb.datastore.history import time_text
from tests.cli_harness import SHOP, Place, ok, own_place, refused
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
        yield server


@pytest.fixture(scope="module")
def offsets(server: Server) -> dict[str, int]:
    """Do one thing after another; return the offset of each."""
    for call in (("add", "a", "1.5"), ("add", "b", "3.5"), ("rename", "a", "c"), ("note", "hello"), ("clear",)):
        assert ok(server, "call", "shop", *call) == ""
    found: dict[str, int] = {}
    for entry in log_of(server, "shop"):
        found.setdefault(
            f"{entry['reducer']}{sum(name.startswith(entry['reducer']) for name in found)}", entry["offset"]
        )
    return found


def log_of(server: Server, database: str, *options: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ok(server, "log", database, "--format", "json", *options).splitlines()]


def names(server: Server, database: str, *options: str) -> list[str]:
    answer = ok(server, "sql", database, "SELECT name FROM item", "--format", "json", *options)
    return sorted(row[0] for row in json.loads(answer)[0]["rows"])


# --------------------------------------------------------------------------------------------------- looking back
def test_tables_are_read_as_they_were_behind_every_transaction(server: Server, offsets: dict[str, int]) -> None:
    expected = {"init0": [], "add0": ["a"], "add1": ["a", "b"], "rename0": ["b", "c"], "clear0": []}
    assert {step: names(server, "shop", "--at", str(offsets[step])) for step in expected} == expected
    assert names(server, "shop", "--at", str(offsets["add1"] - 1)) == ["a"]
    assert names(server, "shop") == []


def test_tables_are_read_as_they_were_at_a_time(server: Server, offsets: dict[str, int]) -> None:
    times = {entry["offset"]: entry["timestamp_us"] for entry in log_of(server, "shop")}
    at = times[offsets["add1"]]
    assert names(server, "shop", "--at", time_text(at)) == ["a", "b"]
    assert names(server, "shop", "--at", time_text(at - 1)) == ["a"]
    assert names(server, "shop", "--at", time_text(at).replace("Z", "+00:00")) == ["a", "b"]
    assert names(server, "shop", "--at", time_text(time.time_ns() // 1000)) == []


def test_a_moment_out_of_reach_says_what_can_be_reached(server: Server, offsets: dict[str, int]) -> None:
    last = log_of(server, "shop")[-1]["offset"]
    first_time = log_of(server, "shop")[0]["time"]
    query = ("sql", "shop", "SELECT * FROM item", "--at")
    assert f"the first offset that can be reached is 0, the first time {first_time}" in refused(
        server, *query, "1999-12-31T23:59:59Z"
    )
    assert f"offset {last + 1} is yet to come: the newest transaction has offset {last}" in refused(
        server, *query, str(last + 1)
    )
    assert "2999-01-01T00:00:00Z is yet to come" in refused(server, *query, "2999-01-01")
    assert "`at` is neither an offset nor a time such as 2026-11-28T07:30:00Z: `monday`" in refused(
        server, *query, "monday"
    )
    assert "number too large" in refused(server, *query, str(1 << 64))


def test_the_past_cannot_be_changed_and_has_no_views(server: Server, offsets: dict[str, int]) -> None:
    at = ("--at", str(offsets["add1"]))
    assert "the past cannot be changed" in refused(server, "sql", "shop", "DELETE FROM item", *at)
    assert "`dear` is a view, and views have no past" in refused(server, "sql", "shop", "SELECT * FROM dear", *at)
    assert "no such table: `nope`" in refused(server, "sql", "shop", "SELECT * FROM nope", *at)


def test_only_the_owner_looks_back(server: Server, offsets: dict[str, int]) -> None:
    query = ("sql", "shop", "SELECT * FROM item", "--anonymous", "--at", str(offsets["add0"]))
    assert "is not authorized to perform action on database" in refused(server, *query)


# --------------------------------------------------------------------------------------------------- the log
def test_the_log_tells_who_changed_what(server: Server, offsets: dict[str, int]) -> None:
    first, last = offsets["add0"], offsets["rename0"]
    entries = log_of(server, "shop", "--from", str(first), "--to", str(last), "--rows")
    assert [entry["offset"] for entry in entries] == list(range(first, last + 1))
    rename = entries[-1]
    a, c = ({"id": 1, "name": name, "price": 1.5, "color": {"none": {}}, "tags": ["a", "x"]} for name in "ac")
    assert rename["tables"] == [{"table": "item", "deletes": 1, "inserts": 1, "deleted": [a], "inserted": [c]}]
    event = next(table for table in entries[0]["tables"] if table["table"] == "noise")
    assert event["inserted"] == [{"word": "a"}]
    text = ok(server, "log", "shop", "--from", str(last), "--to", str(last), "--rows").splitlines()
    assert text[0].split()[:1] == [str(last)]
    assert text[0].endswith("item -1 +1")
    assert text[1] == f"         - item {json.dumps(a)}"
    assert text[2] == f"         + item {json.dumps(c)}"


def test_a_log_that_ends_before_it_begins_is_empty(server: Server, offsets: dict[str, int]) -> None:
    assert log_of(server, "shop", "--from", "3", "--to", "2") == []
    assert log_of(server, "shop", "--from", "1000000") == []


# --------------------------------------------------------------------------------------------------- forks
def test_a_fork_begins_as_the_database_was_and_goes_its_own_way(server: Server, offsets: dict[str, int]) -> None:
    at = offsets["add1"]
    assert f" as of offset {at}." in ok(server, "fork", "shop", "then", "--at", str(at))
    assert names(server, "then") == ["a", "b"]
    assert ok(server, "call", "then", "add", "later", "1") == ""
    assert names(server, "then") == ["a", "b", "later"]
    assert names(server, "shop") == []
    assert names(server, "then", "--at", str(at)) == ["a", "b"]
    log = log_of(server, "then")
    assert (log[0]["offset"], log[0]["reducer"]) == (at + 1, "fork")
    assert f"the first offset that can be reached is {at}, the first time {log[0]['time']}" in refused(
        server, "sql", "then", "SELECT * FROM item", "--at", str(at - 1)
    )
    assert f"it begins at offset {at + 1}" in refused(server, "log", "then", "--from", "0")


def test_a_fork_without_a_moment_is_the_present(server: Server, offsets: dict[str, int]) -> None:
    assert "Forked now (" in ok(server, "fork", "shop", "now")
    answer = json.loads(ok(server, "sql", "now", "SELECT text FROM bare", "--format", "json"))
    assert answer[0]["rows"] == [["hello"]]


def test_a_fork_needs_a_name_that_is_free(server: Server, offsets: dict[str, int], data: Path) -> None:
    before = sorted((data / "databases").glob("*.sqlite"))
    assert "the name `shop` is in use" in refused(server, "fork", "shop", "shop")
    assert "Error parsing `no name`" in refused(server, "fork", "shop", "no name")
    assert sorted((data / "databases").glob("*.sqlite")) == before
    assert list((data / "databases").glob("*.part*")) == []


# --------------------------------------------------------------------------------------------------- retention
def test_retention_is_shown_and_set(server: Server) -> None:
    assert ok(server, "retention", "shop").startswith("shop: hours=24 ")
    assert ok(server, "retention", "shop", "bytes=5000000").startswith("shop: bytes=5000000 ")
    assert ok(server, "retention", "shop", "all") == "shop: all (every transaction is kept).\n"
    assert "`sometimes` is no retention: it is `all`, `hours=T` or `bytes=B`" in refused(
        server, "retention", "shop", "sometimes"
    )


def test_what_retention_takes_away_is_out_of_reach_over_a_restart(place: Place, tmp_path: Path) -> None:
    with serve_on(tmp_path, "--publish", f"{SHOP}=shop") as server:
        ok(server, "retention", "shop", "bytes=0")
        for name in "abc":
            ok(server, "call", "shop", "add", name, "1")
    (path,) = (tmp_path / "databases").glob("*.sqlite")
    with closing(sqlite3.connect(path)) as connection:
        (end,) = connection.execute("SELECT value FROM metadata WHERE name = 'rows_offset'").fetchone()
        connection.execute("DELETE FROM log WHERE first_offset < ?", (end,))  # as the writer does, by itself
        connection.execute("UPDATE metadata SET value = ? WHERE name = 'log_first'", (end,))
        connection.commit()
    with serve_on(tmp_path) as server:
        assert names(server, "shop") == ["a", "b", "c"]
        error = refused(server, "sql", "shop", "SELECT * FROM item", "--at", "1")
        assert f"the log does not reach back to offset 1: the first offset that can be reached is {end - 1}" in error
        assert names(server, "shop", "--at", str(end - 1)) == ["a", "b", "c"]
