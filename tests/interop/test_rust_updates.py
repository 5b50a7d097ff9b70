"""Updates of a module in Rust under npm's newest SDK: what clients keep, what ends them, what is refused whole."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.interop.clients import Client, Connect, Database, connecting
from tests.interop.gardens import Garden, versions
from tests.interop.processes import Server, serve

pytestmark = pytest.mark.slow

ALL = ("plant", "bench", "tall", "heights")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture(params=versions("2.8.3", "2.14.0"))
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


@pytest.fixture
def ann(database: Database, connect: Connect) -> Client:
    return subscribed(connect(database))


@pytest.fixture
def bob(database: Database, connect: Connect) -> Client:
    return subscribed(connect(database))


def subscribed(client: Client) -> Client:
    """Return the client when it has everything."""
    client.subscribe("all", *(f"SELECT * FROM {table}" for table in ALL))
    return client


def furnish(ann: Client, bob: Client) -> None:
    """Let one client make a few rows, and the other see them."""
    ann.call("buildBench", wood="ash")
    ann.call("sow", name="oak", kind=2, height=9)
    assert bob.wait("insert", "bench")["row"] == {"id": 1, "wood": "ash"}
    bob.wait("insert", "tall", name="oak")
    bob.wait("insert", "heights", plants=1, sum=9)


def post(database: Database, path: str, program: bytes, method: str = "POST") -> Any:
    """Ask something about a program as the owner."""
    return database.server.ask(method, f"/v1/database/{database.name}{path}", database.server.operator, program)


def state(database: Database) -> tuple[Any, ...]:
    """Return what there is: the definition and the rows."""
    schema = database.server.ask("GET", f"/v1/database/{database.name}/schema?version=9", database.server.operator)
    return schema, *(database.sql(f"SELECT * FROM {table}") for table in ALL)


def test_what_a_module_of_2_x_has_reaches_clients(ann: Client, bob: Client) -> None:
    furnish(ann, bob)
    for client in (ann, bob):
        client.subscribe("more", "SELECT * FROM rustle", "SELECT * FROM my_letters")
    ann.call("shake", text="leaves")
    assert bob.wait("insert", "rustle")["row"] == {"text": "leaves"}
    assert bob.rows("rustle") == []
    ann.call("write", text="mine")
    ann.wait("insert", "myLetters", text="mine")
    assert bob.rows("myLetters") == []
    assert bob.run("harvest", kind=2) == ["oak"]
    ann.wait("delete", "tall", name="oak")
    ann.wait("delete", "heights", plants=1)
    assert ann.run("nap", millis=20) >= 20_000
    assert ann.raised("fall").startswith("The module instance encountered a fatal error")
    assert ann.rows("heights") == [{"plants": 0, "sum": 0}]


def test_a_second_version_goes_on_under_its_clients(
    garden: Garden, database: Database, ann: Client, bob: Client
) -> None:
    furnish(ann, bob)
    assert post(database, "/pre_publish?style=NoColor", garden.build("v2"))["AutoMigrate"]["break_clients"] is False
    database.publish(garden.build("v2"))
    ann.call("buildBench", wood="elm")
    assert bob.wait("insert", "bench")["row"] == {"id": 2, "wood": "old elm"}
    assert ann.refused("buildBench", wood="") == "of which wood?"
    for client in (ann, bob):
        client.subscribe("new", "SELECT * FROM compost")
    bob.call("rot", id=5)
    ann.wait("insert", "compost", id=5)
    ann.call("grow", name="oak", by=2)
    bob.wait("update", "heights", plants=1, sum=11)
    for client in (ann, bob):
        assert not client.driver.seen("disconnected")
        for table in (*ALL, "compost"):
            client.check(table, f"SELECT * FROM {table}")


def test_a_column_more_ends_clients_that_do_not_know_it(
    garden: Garden, database: Database, ann: Client, bob: Client
) -> None:
    furnish(ann, bob)
    program = garden.build("v3")
    before = state(database)
    with pytest.raises(AssertionError, match=r"400 .*client-breaking change"):
        database.publish(program)
    assert state(database) == before
    ann.call("buildBench", wood="elm")
    bob.wait("insert", "bench", wood="elm")
    plan = post(database, "/pre_publish?style=NoColor", program)["AutoMigrate"]
    assert plan["break_clients"] is True
    post(database, f"?policy=BreakClients&token={plan['token']}", program, "PUT")
    for client in (ann, bob):
        client.driver.wait("disconnected")
    with connecting("2.10.1", "garden_2_v3") as connect:
        eve = subscribed(connect(database))
        old = [{"id": 1, "wood": "ash", "seats": 2}, {"id": 2, "wood": "elm", "seats": 2}]
        assert eve.rows("bench") == old
        eve.call("buildBench", wood="fir", seats=3)
        eve.wait("insert", "bench", wood="fir", seats=3)
        eve.check("bench", "SELECT * FROM bench")
        eve.check("tall", "SELECT * FROM tall")


def test_a_version_that_rows_do_not_fit_is_refused_whole(
    garden: Garden, database: Database, ann: Client, bob: Client
) -> None:
    furnish(ann, bob)
    before = state(database)
    program = garden.build("v4")
    assert "ManualMigrate" in post(database, "/pre_publish?style=NoColor", program)
    with pytest.raises(AssertionError, match=r"400 .*\n.*column wood in table bench from String to U64"):
        database.publish(program)
    assert state(database) == before
    ann.call("buildBench", wood="elm")
    assert bob.wait("insert", "bench")["row"] == {"id": 2, "wood": "elm"}
    ann.call("grow", name="oak", by=2)
    bob.wait("update", "heights", plants=1, sum=11)
    for client in (ann, bob):
        assert not client.driver.seen("disconnected")
        for table in ALL:
            client.check(table, f"SELECT * FROM {table}")
