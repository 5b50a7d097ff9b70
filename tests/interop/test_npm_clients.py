"""Unmodified npm SDKs of four generations against a real server with the example chat module."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.interop.npm import ROOT
from tests.interop.processes import SDKS, Driver, NodeDriver, Server, serve

pytestmark = pytest.mark.slow

DATABASE = "quickstart-chat"
ALL = ["SELECT * FROM user", "SELECT * FROM message"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve("--publish", f"{ROOT / 'examples' / 'quickstart_chat'}={DATABASE}") as running:
        yield running


@pytest.fixture(params=SDKS, ids=lambda version: f"npm {version}")
def drivers(request: pytest.FixtureRequest) -> Iterator[list[NodeDriver]]:
    """Two programs with the same SDK."""
    made = [NodeDriver(request.param), NodeDriver(request.param)]
    yield made
    for driver in made:
        driver.close()


def connect(driver: Driver, server: Server, **options: Any) -> dict[str, Any]:
    driver.do("connect", url=server.ws, database=DATABASE, **options)
    return driver.wait("connected")


def subscribe(driver: Driver, name: str = "all", queries: list[str] = ALL) -> dict[str, Any]:
    driver.do("subscribe", name=name, queries=queries)
    return driver.wait("applied")


def test_a_session_of_two_clients(server: Server, drivers: list[Driver]) -> None:
    ann, bob = drivers
    who_ann, who_bob = connect(ann, server)["identity"], connect(bob, server)["identity"]
    assert who_ann != who_bob
    for driver in drivers:
        subscribe(driver)
        rows = driver.ask("rows", table="user")["rows"]
        assert {row["identity"] for row in rows if row["online"]} >= {who_ann, who_bob}

    ann.do("call", reducer="setName", args={"name": "Ann"})
    assert ann.wait("result", lambda event: event["reducer"] == "setName")["status"] == "committed"
    for driver in drivers:
        update = driver.wait("update", lambda event: event["row"]["identity"] == who_ann and event["row"]["name"])
        assert (update["old"]["name"], update["row"]["name"]) == (None, "Ann")

    bob.do("call", reducer="sendMessage", args={"text": "hello, Ann ✓ naïve"})
    for driver in drivers:
        row = driver.wait("insert", lambda event: event["row"].get("sender") == who_bob)["row"]
        assert (row["sender"], row["text"]) == (who_bob, "hello, Ann ✓ naïve")
    assert bob.wait("result", lambda event: event["reducer"] == "sendMessage")["status"] == "committed"

    bob.do("disconnect")
    bob.wait("disconnected")
    gone = ann.wait("update", lambda event: event["row"]["identity"] == who_bob and not event["row"]["online"])
    assert gone["old"]["online"]


def test_a_reducer_that_fails_tells_its_caller_alone(server: Server, drivers: list[Driver]) -> None:
    ann, bob = drivers
    for driver in drivers:
        connect(driver, server)
        subscribe(driver)
    ann.do("call", reducer="setName", args={"name": "   "})
    result = ann.wait("result")
    assert (result["status"], result["text"]) == ("failed", "a name must not be empty")
    ann.do("call", reducer="sendMessage", args={"text": "still here"})
    assert ann.wait("result")["status"] == "committed"
    bob.wait("insert", lambda event: event["table"] == "message" and event["row"]["text"] == "still here")
    assert not bob.seen("result")


def test_a_token_brings_the_same_identity_back(server: Server, drivers: list[Driver]) -> None:
    first, second = drivers
    connected = connect(first, server)
    assert connect(second, server, token=connected["token"])["identity"] == connected["identity"]


def test_a_foreign_token_is_refused(server: Server, drivers: list[NodeDriver]) -> None:
    driver = drivers[0]
    token = connect(drivers[1], server)["token"]
    driver.do("connect", url=server.ws, database=DATABASE, token=token[:-6] + "AAAAAA")
    event = driver.wait("disconnected" if driver.version == "1.3.3" else "connect error")
    assert "Unauthorized" in event["text"]


def test_initial_rows_come_compressed(server: Server, drivers: list[Driver]) -> None:
    ann, bob = drivers
    connect(ann, server)
    subscribe(ann)
    for i in range(20):
        ann.do("call", reducer="sendMessage", args={"text": f"{i} " + "x" * 200})
    ann.wait("insert", lambda event: event["table"] == "message" and event["row"]["text"].startswith("19 "))
    connect(bob, server, compression="gzip")
    subscribe(bob)
    rows = bob.ask("rows", table="message")["rows"]
    assert sum(row["text"].endswith("x" * 200) for row in rows) >= 20


def test_unsubscribing_drops_the_rows(server: Server, drivers: list[Driver]) -> None:
    driver = drivers[0]
    identity = connect(driver, server)["identity"]
    subscribe(driver)
    driver.do("call", reducer="sendMessage", args={"text": "mine"})
    driver.wait("insert", lambda event: event["table"] == "message" and event["row"]["sender"] == identity)
    driver.do("unsubscribe", name="all")
    driver.wait("delete", lambda event: event["table"] == "message" and event["row"]["sender"] == identity)
    assert driver.ask("rows", table="message")["rows"] == []
    subscribe(driver, "mine", [f"SELECT * FROM message WHERE sender = 0x{identity}"])
    assert [row["text"] for row in driver.ask("rows", table="message")["rows"]] == ["mine"]


def test_a_wrong_query_is_a_subscription_error(server: Server, drivers: list[Driver]) -> None:
    driver = drivers[0]
    connect(driver, server)
    driver.do("subscribe", name="bad", queries=["SELECT * FROM nothing"])
    assert "no such table: `nothing`" in driver.wait("subscription error")["text"]
    subscribe(driver)


def test_an_unknown_reducer_is_told(server: Server, drivers: list[Driver]) -> None:
    driver = drivers[0]
    connect(driver, server)
    driver.do("call", reducer="noSuchReducer", args={})
    result = driver.wait("result")
    assert (result["status"], result["text"]) == ("failed", "no such reducer")
