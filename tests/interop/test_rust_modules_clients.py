"""Modules of the crates 0.11.1, 1.0.1 and 1.12.0 on a server; the command line and npm's newest SDK are clients."""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import pytest

from tests.interop.clients import Connect, Database, connecting
from tests.interop.module_cargo import CACHE, build_module
from tests.interop.npm import ROOT
from tests.interop.processes import Server, serve

pytestmark = [pytest.mark.slow, pytest.mark.long]

FATAL = "The instance encountered a fatal error."


class Garden(NamedTuple):
    """A module, and what its tables are called."""

    module: str
    version: str
    plant: str
    quote: str

    def program(self, *features: str) -> bytes:
        """Return the program."""
        return _built(self.module, self.version, *features)


@cache
def _built(*what: str) -> bytes:
    return build_module(*what).read_bytes()


GARDENS = [
    Garden("garden_0_11", "0.11.1", "Plant", '"'),
    Garden("garden_1", "1.0.1", "plant", ""),
    Garden("garden_1", "1.12.0", "plant", ""),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture(params=GARDENS, ids=lambda garden: garden.version)
def garden(request: pytest.FixtureRequest) -> Garden:
    found: Garden = request.param
    return found


@pytest.fixture
def database(server: Server, garden: Garden) -> Database:
    return Database(server, garden.module, garden.program())


@pytest.fixture
def connect(garden: Garden) -> Iterator[Connect]:
    with connecting("2.10.1", garden.module) as connect:
        yield connect


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


def test_a_client_sees_what_two_of_them_do(database: Database, connect: Connect, garden: Garden) -> None:
    ann, bob = connect(database), connect(database)
    for client in (ann, bob):
        client.subscribe("all", f"SELECT * FROM {garden.plant}")
    ann.call("sow", name="rose", kind=1, height=5)
    bob.wait("insert", "plant", name="rose", height=5)
    bob.call("grow", name="rose", by=4)
    ann.wait("update", "plant", name="rose", height=9)
    assert ann.refused("sow", name="", kind=1, height=1) == f"{garden.quote}a plant needs a name{garden.quote}"
    assert ann.refused("refuse", why="no way") == f"{garden.quote}no way{garden.quote}"
    bob.call("fell", kind=1)
    ann.wait("delete", "plant", name="rose")
    assert bob.rows("plant") == ann.rows("plant") == []


def test_a_panic_ends_one_call_alone(database: Database, connect: Connect, garden: Garden) -> None:
    ann = connect(database)
    ann.call("sow", name="rose", kind=1, height=5)
    assert FATAL in ann.refused("panic", why="ouch") or ann.refused("panic", why="ouch")
    assert database.wait_logged("ouch")["level"] == "Panic"
    ann.call("grow", name="rose", by=1)
    assert [row["height"] for row in database.sql(f"SELECT * FROM {garden.plant}")] == [6]


def test_visitors_and_timers_reach_a_client(database: Database, connect: Connect, garden: Garden) -> None:
    ann = connect(database)
    visitor, diary = ("Visitor", "Diary") if garden.plant == "Plant" else ("visitor", "diary")
    ann.subscribe("people", f"SELECT * FROM {visitor}", f"SELECT * FROM {diary}")
    connect(database)
    ann.wait("insert", "visitor", online=True, visits=1)
    stdb(database.server, "call", database.name, "water_later", "3", "50")
    told = ann.driver.wait("insert", lambda it: it["table"] == "diary" and it["row"]["text"].startswith("watered 3"))
    assert told["row"]["text"].endswith("None")


def test_an_update_under_a_client(database: Database, connect: Connect, garden: Garden) -> None:
    ann = connect(database)
    ann.subscribe("all", f"SELECT * FROM {garden.plant}")
    ann.call("sow", name="rose", kind=1, height=5)
    database.publish(garden.program("v2"))
    ann.call("sow", name="ivy", kind=1, height=5)
    assert [row["name"] for row in ann.rows("plant")] == ["rose", "ivy"]


def test_the_command_line(server: Server, database: Database, garden: Garden) -> None:
    assert stdb(server, "call", database.name, "sow", '"rose"', "1", "5") == ""
    assert '"rose"' in stdb(server, "sql", database.name, f"SELECT name FROM {garden.plant} WHERE height = 5")
    assert "a plant needs a name" in stdb(server, "call", database.name, "sow", '""', "1", "5")
    assert "no such reducer" in stdb(server, "call", database.name, "__update__").lower() or garden.plant == "plant"
    stdb(server, "call", database.name, "put_every", "4")
    every = "Every" if garden.plant == "Plant" else "every"
    answer = stdb(server, "sql", database.name, f"SELECT * FROM {every}")
    assert "héllo" in answer
    described = stdb(server, "describe", "--json", database.name)
    assert f'"{garden.plant}"' in described
    assert "__update__" not in described
    assert "planted" in stdb(server, "logs", database.name) or "401" in stdb(server, "logs", database.name)
