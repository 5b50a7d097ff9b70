"""Modules of crates from 0.11.1 to 2.14.0 on a server; the command line and npm's newest SDK are clients."""

from collections.abc import Iterator
from itertools import count

import pytest

from tests.interop.clients import Connect, Database, connecting
from tests.interop.gardens import Garden, versions
from tests.interop.processes import Server, serve

pytestmark = pytest.mark.slow

NUMBERS = count()
FATAL = "The instance encountered a fatal error."


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture(params=versions("0.11.1", "1.0.1", "1.12.0", "2.8.3", "2.14.0"))
def garden(request: pytest.FixtureRequest) -> Garden:
    found: Garden = request.param
    return found


@pytest.fixture
def database(server: Server, garden: Garden) -> Database:
    return Database(server, garden.module, garden.build())


@pytest.fixture
def connect(garden: Garden) -> Iterator[Connect]:
    with connecting("2.10.1", garden.module) as connect:
        yield connect


def test_a_client_sees_what_two_of_them_do(database: Database, connect: Connect, garden: Garden) -> None:
    ann, bob = connect(database), connect(database)
    for client in (ann, bob):
        client.subscribe("all", f"SELECT * FROM {garden.table('Plant')}")
    ann.call("sow", name="rose", kind=1, height=5)
    bob.wait("insert", "plant", name="rose", height=5)
    bob.call("grow", name="rose", by=4)
    ann.wait("update", "plant", name="rose", height=9)
    assert ann.refused("sow", name="", kind=1, height=1) == garden.error("a plant needs a name")
    assert ann.refused("refuse", why="no way") == garden.error("no way")
    bob.call("fell", kind=1)
    ann.wait("delete", "plant", name="rose")
    assert bob.rows("plant") == ann.rows("plant") == []


def test_a_panic_ends_one_call_alone(database: Database, connect: Connect, garden: Garden) -> None:
    ann = connect(database)
    ann.call("sow", name="rose", kind=1, height=5)
    assert ann.refused("panic", why="ouch") == FATAL
    assert database.wait_logged("ouch")["level"] == "Panic"
    ann.call("grow", name="rose", by=1)
    assert [row["height"] for row in database.sql(f"SELECT * FROM {garden.table('Plant')}")] == [6]


def test_visitors_and_timers_reach_a_client(database: Database, connect: Connect, garden: Garden) -> None:
    ann = connect(database)
    ann.subscribe("people", *(f"SELECT * FROM {garden.table(it)}" for it in ("Visitor", "Diary")))
    connect(database)
    ann.wait("insert", "visitor", online=True, visits=1)
    database.server.stdb("call", database.name, "water_later", "3", "50")
    told = ann.driver.wait("insert", lambda it: it["table"] == "diary" and it["row"]["text"].startswith("watered 3"))
    assert told["row"]["text"].endswith("None")


def test_an_update_under_a_client(database: Database, connect: Connect, garden: Garden) -> None:
    ann = connect(database)
    ann.subscribe("all", f"SELECT * FROM {garden.table('Plant')}")
    ann.call("sow", name="rose", kind=1, height=5)
    database.publish(garden.build("v2"))
    ann.call("sow", name="ivy", kind=1, height=5)
    assert [row["name"] for row in ann.rows("plant")] == ["rose", "ivy"]


def test_the_command_line(server: Server, garden: Garden) -> None:
    name, plant = f"mine-{next(NUMBERS)}", garden.table("Plant")
    assert "Created" in server.stdb("publish", "-b", str(garden.path()), name, "-y")
    assert server.stdb("call", name, "sow", '"rose"', "1", "5") == ""
    assert '"rose"' in server.stdb("sql", name, f"SELECT name FROM {plant} WHERE height = 5")
    assert "a plant needs a name" in server.stdb("call", name, "sow", '""', "1", "5")
    assert "no such reducer" in server.stdb("call", name, "__update__").lower()
    assert "error" not in server.stdb("call", name, "put_every", "4").lower()
    assert "héllo" in server.stdb("sql", name, f"SELECT * FROM {garden.table('Every')}")
    described = server.stdb("describe", "--json", name)
    assert f'"{plant}"' in described
    assert "__update__" not in described
    assert "planted" in server.stdb("logs", name)
    assert "Updated" in server.stdb("publish", "-b", str(garden.path("v2")), name, "-y")
    assert "error" not in server.stdb("call", name, "rot", "3").lower()
    assert "3" in server.stdb("sql", name, f"SELECT * FROM {garden.table('Compost')}")
