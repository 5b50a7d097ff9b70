"""Views, event rows, procedures and schedules of a Python module as unmodified npm SDKs see them."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.interop.clients import Client, Connect, Database, connecting, in_order
from tests.interop.processes import SDKS, Server, serve

pytestmark = pytest.mark.slow

WITH_PROCEDURES = ["2.10.1", "2.0.0", "1.12.0"]
"""SDKs that can call procedures; 1.3.3 is of the time before them."""
WITH_EVENTS = ["2.10.1", "2.0.0"]
"""SDKs that know event tables."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture
def database(server: Server) -> Database:
    return Database(server, "market")


@pytest.fixture(params=SDKS, ids=lambda version: f"npm {version}")
def version(request: pytest.FixtureRequest) -> str:
    version: str = request.param
    return version


@pytest.fixture
def connect(version: str) -> Iterator[Connect]:
    with connecting(version, "market") as connect:
        yield connect


def with_sdks(versions: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("version", versions, indirect=True, ids=lambda version: f"npm {version}")


def item(id: int, owner: Client, name: str, price: int, **columns: Any) -> dict[str, Any]:
    made = {"id": id, "owner": owner.identity, "name": name, "price": price}
    return {**made, "kind": "FOOD", "size": None, **columns}


# Views


def test_a_view_for_everybody_changes_with_what_it_reads(database: Database, connect: Connect) -> None:
    ann, bob = connect(database), connect(database)
    for client in (ann, bob):
        client.subscribe("average", "SELECT * FROM average")
        assert client.rows("average") == []
    ann.call("add", name="bread", price=4)
    for client in (ann, bob):
        client.wait("insert", "average", items=1, price=4)
    ann.call("setPrice", item=1, price=6)
    for client in (ann, bob):
        assert client.wait("update", "average", price=6)["old"] == {"items": 1, "price": 4}
    bob.call("add", name="hammer", price=10)
    for client in (ann, bob):
        client.wait("insert", "average", items=2, price=8)
        client.wait("delete", "average", items=1, price=6)
        assert client.told() == []
        client.check("average", "SELECT * FROM average")
    ann.unsubscribe("average")
    assert ann.rows("average") == []


def test_a_view_of_ones_own_shows_each_client_its_rows(database: Database, connect: Connect) -> None:
    ann, bob = connect(database), connect(database)
    for client in (ann, bob):
        client.subscribe("mine", "SELECT * FROM mine")
    ann.call("add", name="bread", price=4)
    bob.call("add", name="hammer", price=10)
    ann.call("setPrice", item=1, price=5)
    assert ann.wait("insert", "mine")["row"] == item(1, ann, "bread", 4)
    assert ann.wait("update", "mine")["row"] == item(1, ann, "bread", 5)
    assert bob.wait("insert", "mine")["row"] == item(2, bob, "hammer", 10)
    database.sql(f"UPDATE item SET owner = 0x{ann.identity} WHERE id = 2")
    ann.wait("insert", "mine", id=2)
    bob.wait("delete", "mine", id=2)
    assert (ann.told(), bob.told()) == ([], [])
    for client in (ann, bob):
        seen = [{key: row[key] for key in ("id", "name", "price")} for row in client.rows("mine")]
        assert seen == in_order(database.sql("SELECT id, name, price FROM mine", client.token))
    late = connect(database, token=ann.token)
    late.subscribe("mine", "SELECT * FROM mine")
    assert late.rows("mine") == ann.rows("mine") == [item(1, ann, "bread", 5), item(2, ann, "hammer", 10)]


def test_a_view_with_a_parameter_has_rows_for_each_argument(database: Database, connect: Connect) -> None:
    ann = connect(database)
    ann.call("add", name="bread", price=4)
    ann.call("add", name="hammer", price=10)
    ann.subscribe("below 5", "SELECT * FROM cheaper(5)")
    assert [row["name"] for row in ann.rows("cheaper")] == ["bread"]
    ann.subscribe("below 20", "SELECT * FROM cheaper(20)")
    assert sorted({row["name"] for row in ann.rows("cheaper")}) == ["bread", "hammer"]
    ann.unsubscribe("below 20")
    assert [row["name"] for row in ann.rows("cheaper")] == ["bread"]
    ann.told()
    ann.call("setPrice", item=2, price=1)
    assert ann.told() == [("insert", item(2, ann, "hammer", 1))]
    ann.driver.do("subscribe", name="none", queries=["SELECT * FROM cheaper"])
    assert "View `cheaper` takes 1 argument(s), but 0 were given" in ann.driver.wait("subscription error")["text"]
    names = [row["name"] for row in ann.rows("cheaper")]
    assert names == [row["name"] for row in database.sql("SELECT * FROM cheaper(5)", ann.token)] == ["bread", "hammer"]


def test_a_view_that_breaks_in_a_refresh_disturbs_nobody(database: Database, connect: Connect) -> None:
    ann, bob = connect(database), connect(database)
    for client in (ann, bob):
        client.subscribe("all", "SELECT * FROM average", "SELECT * FROM item")
    ann.call("add", name="bread", price=4)
    bob.wait("insert", "average", items=1, price=4)
    ann.call("setPrice", item=1, price=0)
    assert database.wait_logged("something is for free")["level"] == "Panic"
    for client in (ann, bob):
        client.wait("update", "item", id=1, price=0)
        assert client.rows("average") == [{"items": 1, "price": 4}]
    bob.call("setPrice", item=1, price=7)
    for client in (ann, bob):
        client.wait("update", "average", items=1, price=7)
        assert not client.driver.seen("disconnected")
        client.check("average", "SELECT * FROM average")


def test_a_view_that_breaks_when_it_is_first_read_refuses_the_query(database: Database, connect: Connect) -> None:
    ann = connect(database)
    ann.call("add", name="bread", price=0)
    ann.driver.do("subscribe", name="average", queries=["SELECT * FROM average"])
    error = ann.driver.wait("subscription error")["text"]
    assert error == "The instance encountered a fatal error., executing: `SELECT * FROM average`"
    ann.call("setPrice", item=1, price=7)
    ann.subscribe("again", "SELECT * FROM average")
    assert ann.rows("average") == [{"items": 1, "price": 7}]


def test_a_view_for_the_owner_is_no_table_to_others(database: Database, connect: Connect) -> None:
    ann = connect(database)
    ann.driver.do("subscribe", name="hidden", queries=["SELECT * FROM hidden"])
    assert "no such table: `hidden`" in ann.driver.wait("subscription error")["text"]
    ann.subscribe("item", "SELECT * FROM item")


# Event tables


@with_sdks(WITH_EVENTS)
def test_event_rows_are_told_and_not_kept(database: Database, connect: Connect) -> None:
    ann, bob, eve = connect(database), connect(database), connect(database)
    ann.subscribe("sales", "SELECT * FROM sale")
    bob.subscribe("dear sales", "SELECT * FROM sale WHERE price > 10")
    eve.subscribe("items", "SELECT * FROM item")
    for price in (5, 20):
        eve.call("announce", price=price)
    rows = [{"item": 0, "buyer": eve.identity, "price": price} for price in (5, 20)]
    assert [ann.wait("insert", "sale")["row"] for _ in rows] == rows
    assert bob.wait("insert", "sale")["row"] == rows[1]
    assert eve.refused("announce", price=13) == "nobody sells at 13"
    eve.call("announce", price=21)
    for client in (ann, bob):
        client.wait("insert", "sale", price=21)
    for client in (ann, bob, eve):
        assert client.told() == []
        assert client.rows("sale") == []
    assert database.sql("SELECT * FROM sale") == []
    late = connect(database)
    late.subscribe("sales", "SELECT * FROM sale")
    assert late.rows("sale") == []


@with_sdks(["1.12.0", "1.3.3"])
def test_clients_of_before_event_tables_are_told_why_not(database: Database, connect: Connect) -> None:
    ann = connect(database)
    ann.driver.do("subscribe", name="sales", queries=["SELECT * FROM sale"])
    text = ann.driver.wait("subscription error")["text"]
    assert text.startswith("Subscribing to event tables requires WebSocket v2.")
    ann.subscribe("items", "SELECT * FROM item")
    ann.call("announce", price=5)


# Procedures


@with_sdks(WITH_PROCEDURES)
def test_a_procedure_returns_a_value_to_its_caller(database: Database, connect: Connect) -> None:
    ann, bob = connect(database), connect(database)
    for client in (ann, bob):
        client.subscribe("items", "SELECT * FROM item", "SELECT * FROM mine")
    ann.call("add", name="rye bread", price=4)
    bob.wait("insert", "item", id=1)
    receipt = {"item": 1, "price": 4, "words": ["rye", "bread"], "left": 1}
    assert bob.run("buy", item=1) == receipt
    for client in (ann, bob):
        client.wait("update", "item", id=1, owner=bob.identity)
    assert ann.wait("delete", "mine")["row"] == item(1, ann, "rye bread", 4)
    assert bob.wait("insert", "mine")["row"] == item(1, bob, "rye bread", 4)
    assert not ann.driver.seen("returned")
    bob.run("nothing")


@with_sdks(WITH_EVENTS)
def test_event_rows_of_a_procedure_reach_everybody(database: Database, connect: Connect) -> None:
    ann, bob = connect(database), connect(database)
    for client in (ann, bob):
        client.subscribe("sales", "SELECT * FROM sale")
    ann.call("add", name="bread", price=4)
    bob.run("buy", item=1)
    for client in (ann, bob):
        assert client.wait("insert", "sale")["row"] == {"item": 1, "buyer": bob.identity, "price": 4}
        assert client.rows("sale") == []


@with_sdks(WITH_PROCEDURES)
def test_a_procedure_that_fails_tells_its_caller(database: Database, connect: Connect) -> None:
    ann = connect(database)
    assert ann.raised("buy", item=9) == "The module instance encountered a fatal error: there is no item 9"
    assert ann.raised("breaks") == "The module instance encountered a fatal error: nothing to divide"
    logged = database.wait_logged("nothing to divide")
    assert (logged["level"], logged["filename"]) == ("Panic", "market.py")
    assert "line " in logged["message"]
    assert "No such procedure" in ann.raised("ownersOnly")
    ann.call("add", name="bread", price=4)
    assert ann.run("buy", item=1)["price"] == 4
    owner = connect(database, token=database.server.operator)
    assert owner.run("ownersOnly") == 1


@with_sdks(WITH_PROCEDURES)
def test_procedures_run_beside_reducers_and_end_with_their_caller(database: Database, connect: Connect) -> None:
    ann, bob = connect(database), connect(database)
    ann.driver.do("run", procedure="waitLong", args={"name": "ann"})
    bob.driver.do("run", procedure="waitLong", args={"name": "bob"})
    for name in ("ann", "bob"):
        database.wait_logged(f"{name} waits")
    ann.call("add", name="bread", price=4)
    assert ann.run("buy", item=1)["price"] == 4
    ann.driver.do("disconnect")
    ann.driver.wait("disconnected")
    database.wait_logged("ann waits no more")
    bob.call("add", name="hammer", price=10)
    assert bob.run("buy", item=2)["price"] == 10
    lines = database.logged()
    assert not any("bob waits no more" in line["message"] for line in lines)
    assert not any(line["level"] in ("Error", "Panic") for line in lines)
    assert not bob.driver.seen("raised")


# Reducers, schedules


def test_arguments_of_every_shape_arrive(database: Database, connect: Connect) -> None:
    ann = connect(database)
    ann.subscribe("items", "SELECT * FROM item")
    ann.call("add", name="saw", price=4)
    size = {"width": 3, "height": 4}
    ann.call("describe", name="saw", kind={"tag": "TOOL"}, size=size, words=["sharp", "naïve ✓"])
    row = ann.wait("update", "item")["row"]
    assert row == item(1, ann, "saw sharp naïve ✓", 4, kind="TOOL", size=size)
    assert ann.refused("setPrice", item=77, price=1) == "there is no item 77"


def test_what_a_schedule_changes_reaches_subscribers(database: Database, connect: Connect) -> None:
    ann = connect(database)
    ann.subscribe("items", "SELECT * FROM item", "SELECT * FROM average")
    ann.call("add", name="bread", price=4)
    ann.call("reduceSoon", item=1, millis=30)
    assert ann.wait("update", "item")["row"] == item(1, ann, "bread", 3)
    ann.wait("update", "average", items=1, price=3)
    assert database.sql("SELECT * FROM reduction") == []
