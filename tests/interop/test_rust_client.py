"""The unmodified Rust SDKs of crates.io against a real server with the example chat module."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.cargo import build, build_with
from tests.interop.npm import ROOT
from tests.interop.processes import Driver, Server, serve, start_server

pytestmark = pytest.mark.slow

CHAT = ROOT / "examples" / "quickstart_chat"
DATABASE = "quickstart-chat"
ALL = ["SELECT * FROM user", "SELECT * FROM message"]
MANY = 10_000
SDKS = [
    pytest.param(("sdk_2", None), id="crates.io 2.8.3"),
    pytest.param(("sdk_2", "2.10.1"), id="crates.io 2.10.1", marks=pytest.mark.long),
    pytest.param(("sdk_2", "2.0.1"), id="crates.io 2.0.1", marks=pytest.mark.long),
    pytest.param(("sdk_1", None), id="crates.io 1.12.0", marks=pytest.mark.long),
]


@pytest.fixture(scope="module", params=SDKS)
def program(request: pytest.FixtureRequest) -> Path:
    """The program around one SDK; without a version it is the one that the lock file pins."""
    package, version = request.param
    return build_with(package, version) if version else build(package)


@pytest.fixture(scope="module")
def server(program: Path) -> Iterator[Server]:
    with serve("--publish", f"{CHAT}={DATABASE}") as running:
        yield running


@pytest.fixture
def drivers(program: Path) -> Iterator[list[Driver]]:
    """Two programs with the same SDK."""
    made = [Driver(program), Driver(program)]
    yield made
    for driver in made:
        driver.close()


def connect(driver: Driver, server: Server, **options: Any) -> dict[str, Any]:
    driver.do("connect", url=server.http, database=DATABASE, **options)
    return driver.wait("connected")


def subscribe(driver: Driver, name: str = "all", queries: list[str] | str | None = ALL) -> dict[str, Any]:
    """Subscribe; "typed" and "joined" stand for the typed queries of `driver.rs`, None for every table."""
    driver.do("subscribe", name=name, queries=queries)
    return driver.wait("applied")


def call(driver: Driver, reducer: str, **arguments: Any) -> tuple[str, str | None]:
    driver.do("call", reducer=reducer, args=arguments)
    result = driver.wait("result", lambda event: event["reducer"] == reducer)
    return result["status"], result["text"]


def texts(driver: Driver) -> list[str]:
    return sorted(row["text"] for row in driver.ask("rows", table="message")["rows"])


def of_text(text: str) -> Any:
    return lambda event: event["table"] == "message" and event["row"]["text"] == text


def is_2(program: Path) -> bool:
    return program.name == "sdk_2"


def test_a_session_of_two_clients(server: Server, program: Path, drivers: list[Driver]) -> None:
    ann, bob = drivers
    who_ann, who_bob = connect(ann, server)["identity"], connect(bob, server)["identity"]
    assert who_ann != who_bob
    for driver in drivers:
        subscribe(driver)
        rows = driver.ask("rows", table="user")["rows"]
        assert {row["identity"] for row in rows if row["online"]} >= {who_ann, who_bob}

    assert call(ann, "set_name", name="Ann") == ("committed", None)
    for driver, why in ((ann, "set_name"), (bob, "transaction")):
        update = driver.wait("update", lambda event: event["row"]["identity"] == who_ann and event["row"]["name"])
        assert (update["old"]["name"], update["row"]["name"], update["why"]) == (None, "Ann", why)

    bob.do("call", reducer="send_message", args={"text": "hello, Ann ✓ naïve"})
    for driver, why in ((ann, "transaction"), (bob, "send_message")):
        came = driver.wait("insert", of_text("hello, Ann ✓ naïve"))
        assert (came["row"]["sender"], came["why"]) == (who_bob, why)
    assert bob.wait("result")["status"] == "committed"

    bob.do("disconnect")
    assert bob.wait("disconnected")["text"] is None
    gone = ann.wait("update", lambda event: event["row"]["identity"] == who_bob and not event["row"]["online"])
    assert gone["old"]["online"]


def test_a_reducer_that_fails_tells_its_caller_alone(server: Server, drivers: list[Driver]) -> None:
    ann, bob = drivers
    for driver in drivers:
        connect(driver, server)
        subscribe(driver)
    assert call(ann, "set_name", name="   ") == ("failed", "a name must not be empty")
    assert call(ann, "send_message", text="still here") == ("committed", None)
    bob.wait("insert", of_text("still here"))
    assert not bob.seen("result")
    assert not bob.seen("foreign result")


def test_an_unknown_reducer_is_told(server: Server, program: Path, drivers: list[Driver]) -> None:
    connect(drivers[0], server)
    status = "internal error" if is_2(program) else "failed"
    assert call(drivers[0], "no_such_reducer") == (status, "no such reducer")
    assert call(drivers[0], "send_message", text="alive") == ("committed", None)


def test_a_token_brings_the_same_identity_back(server: Server, drivers: list[Driver]) -> None:
    first, second = drivers
    connected = connect(first, server)
    again = connect(second, server, token=connected["token"])
    assert again["identity"] == connected["identity"]
    assert again["connection_id"] != connected["connection_id"]


def test_a_foreign_token_is_refused(server: Server, drivers: list[Driver]) -> None:
    token = connect(drivers[1], server)["token"]
    drivers[0].do("connect", url=server.http, database=DATABASE, token=token[:-6] + "AAAAAA")
    assert "401 Unauthorized" in drivers[0].wait("connect error")["text"]


def test_a_connection_id_asked_for_is_given(server: Server, drivers: list[Driver]) -> None:
    wanted = "0123456789abcdef0123456789abcdef"
    assert connect(drivers[0], server, connection_id=wanted)["connection_id"] == wanted


def test_unsubscribing_drops_the_rows_of_that_subscription_alone(server: Server, drivers: list[Driver]) -> None:
    driver, other = drivers
    identity = connect(driver, server)["identity"]
    subscribe(driver)
    subscribe(driver, "mine", [f"SELECT * FROM message WHERE sender = 0x{identity}"])
    assert call(driver, "send_message", text="mine") == ("committed", None)
    connect(other, server)
    assert call(other, "send_message", text="another's") == ("committed", None)
    driver.wait("insert", of_text("another's"))

    driver.do("unsubscribe", name="all")
    driver.wait("unsubscribed")
    assert driver.wait("delete", of_text("another's"))["why"] == "unsubscribed"
    assert texts(driver) == ["mine"]
    assert driver.ask("rows", table="user")["rows"] == []

    driver.do("unsubscribe", name="mine")
    driver.wait("unsubscribed")
    assert driver.wait("delete", of_text("mine"))["why"] == "unsubscribed"
    assert texts(driver) == []


def test_a_wrong_query_is_a_subscription_error(server: Server, drivers: list[Driver]) -> None:
    driver = drivers[0]
    connect(driver, server)
    driver.do("subscribe", name="bad", queries=["SELECT * FROM user", "SELECT * FROM nothing"])
    assert "no such table: `nothing`" in driver.wait("subscription error")["text"]
    assert subscribe(driver)["users"] >= 1


def test_a_subscription_to_all_tables(server: Server, drivers: list[Driver]) -> None:
    driver = drivers[0]
    identity = connect(driver, server)["identity"]
    subscribe(driver, queries=None)
    assert identity in {row["identity"] for row in driver.ask("rows", table="user")["rows"]}
    assert call(driver, "send_message", text="to all") == ("committed", None)
    driver.wait("insert", of_text("to all"))


def test_typed_queries_find_their_rows(server: Server, drivers: list[Driver]) -> None:
    driver, other = drivers
    identity = connect(driver, server)["identity"]
    connect(other, server)
    for text in ("that's", "it's"):
        assert call(driver, "send_message", text=text) == ("committed", None)
    assert call(other, "send_message", text="foreign") == ("committed", None)
    subscribe(driver, queries="typed")
    assert texts(driver) == ["that's"]
    users = driver.ask("rows", table="user")["rows"]
    assert all(row["online"] for row in users)
    assert identity in {row["identity"] for row in users}

    other.do("disconnect")
    driver.wait("delete", lambda event: event["table"] == "user")
    assert call(driver, "send_message", text="it's") == ("committed", None)
    assert call(driver, "send_message", text="later") == ("committed", None)
    assert texts(driver) == ["later", "that's"]


def test_a_typed_join_follows_both_tables(server: Server, drivers: list[Driver]) -> None:
    ann, bob = drivers
    connect(ann, server)
    token = connect(bob, server)["token"]
    subscribe(ann, queries="joined")
    assert call(bob, "send_message", text="of who is here") == ("committed", None)
    assert ann.wait("insert", of_text("of who is here"))["why"] == "transaction"
    bob.do("disconnect")
    bob.wait("disconnected")
    ann.wait("delete", of_text("of who is here"))
    connect(bob, server, token=token)
    ann.wait("insert", of_text("of who is here"))
    online = "SELECT m.* FROM user u JOIN message m ON u.identity = m.sender WHERE u.online = true"
    assert texts(ann) == sorted(row["text"] for row in server.sql(DATABASE, online))


def test_a_row_of_a_join_stays_as_long_as_one_partner_does(server: Server, drivers: list[Driver]) -> None:
    """The owner takes the partners away over HTTP."""
    ann, bob = drivers
    connect(ann, server)
    connect(bob, server)
    company = "SELECT m.* FROM message m JOIN message n ON m.sender = n.sender WHERE n.text = 'partner'"
    for text in ("partner", "stays", "partner"):
        assert call(bob, "send_message", text=text) == ("committed", None)
    subscribe(ann, queries=[company])
    assert texts(ann) == ["partner", "partner", "stays"]
    assert call(bob, "send_message", text="late") == ("committed", None)
    ann.wait("insert", of_text("late"))

    first, second = sorted(row["id"] for row in server.sql(DATABASE, company) if row["text"] == "partner")[::2]
    server.sql(DATABASE, f"DELETE FROM message WHERE id = {first}")
    assert ann.wait("delete")["row"]["id"] == first
    server.sql(DATABASE, "UPDATE message SET text = 'moved' WHERE text = 'stays'")
    update = ann.wait("update")
    assert (update["old"]["text"], update["row"]["text"], update["why"]) == ("stays", "moved", "transaction")
    assert texts(ann) == ["late", "moved", "partner"]
    server.sql(DATABASE, f"UPDATE message SET text = 'alone' WHERE id = {second}")
    assert sorted(ann.wait("delete")["row"]["text"] for _ in range(3)) == ["late", "moved", "partner"]
    assert texts(ann) == []
    assert not any(ann.seen(event) for event in ("delete", "update"))


@pytest.mark.parametrize("option", [{"confirmed": True}, {"confirmed": False}, {"light": True}])
def test_messages_pass_whatever_the_builder_is_told(
    server: Server, drivers: list[Driver], option: dict[str, bool]
) -> None:
    """Light mode is an option of 1.x alone; the program around 2.x does not look at it."""
    for driver in drivers:
        connect(driver, server, **option)
        subscribe(driver)
    sent = [f"{option} {i}" for i in range(20)]
    for i, text in enumerate(sent):
        assert call(drivers[i % 2], "send_message", text=text) == ("committed", None)
    for driver in drivers:
        for text in sent:
            driver.wait("insert", of_text(text))


def test_many_rows_come_compressed(program: Path, drivers: list[Driver]) -> None:
    """Ten thousand calls in flight at once, then their rows as one answer."""
    sender, receiver = drivers
    with serve("--publish", f"{CHAT}={DATABASE}") as server:
        connect(sender, server, confirmed=False)
        for i in range(MANY):
            sender.do("call", reducer="send_message", args={"text": f"message {i} of many"})
        assert {sender.wait("result")["status"] for _ in range(MANY)} == {"committed"}

        connect(receiver, server)  # the SDK's default: Brotli
        applied = subscribe(receiver, queries=["SELECT * FROM message"])
        assert (applied["users"], applied["messages"]) == (0, MANY)
        rows = [receiver.wait("insert")["row"] for _ in range(MANY)]
        assert {row["text"] for row in rows} == {f"message {i} of many" for i in range(MANY)}
        assert len({row["id"] for row in rows}) == MANY
        bytes_by_compression = {"brotli": receiver.ask("received")["bytes"]}

        for compression in ("gzip", "none"):
            other = Driver(program)
            connect(other, server, compression=compression)
            assert subscribe(other, queries=["SELECT * FROM message"])["messages"] == MANY
            bytes_by_compression[compression] = other.ask("received")["bytes"]
            other.close()
    assert bytes_by_compression["none"] > MANY * 60
    assert bytes_by_compression["brotli"] < bytes_by_compression["none"] / 2
    assert bytes_by_compression["gzip"] < bytes_by_compression["none"] / 2


def test_a_client_comes_back_after_the_server_did(program: Path, drivers: list[Driver], tmp_path: Path) -> None:
    first, second = drivers
    arguments = ("--data-dir", str(tmp_path / "data"), "--publish", f"{CHAT}={DATABASE}")
    server = start_server(*arguments)
    try:
        connected = connect(first, server)
        subscribe(first)
        assert call(first, "send_message", text="before") == ("committed", None)
        assert server.stop() == 0
        first.wait("disconnected")

        server = start_server(*arguments)
        assert connect(second, server, token=connected["token"])["identity"] == connected["identity"]
        subscribe(second)
        assert texts(second) == ["before"]
        assert server.stop() == 0
    finally:
        server.kill()


@pytest.fixture(scope="module")
def views(program: Path) -> Iterator[Server]:
    """A server whose chat has views and procedures."""
    module = Path(__file__).parent / "modules" / "chat_views.py"
    with serve("--publish", f"{module}={DATABASE}") as running:
        yield running


def test_views_are_tables_to_a_client(views: Server, drivers: list[Driver]) -> None:
    ann, bob = drivers
    who_ann, who_bob = connect(ann, views)["identity"], connect(bob, views)["identity"]
    for driver in drivers:
        subscribe(driver)
        assert {row["identity"] for row in driver.ask("rows", table="user")["rows"]} >= {who_ann, who_bob}
    assert call(ann, "set_name", name="Ann") == ("committed", None)
    for driver in drivers:
        update = driver.wait("update", lambda event: event["row"]["identity"] == who_ann)
        assert (update["table"], update["old"]["name"], update["row"]["name"]) == ("user", None, "Ann")
    assert call(bob, "send_message", text="to myself") == ("committed", None)
    assert bob.wait("insert", of_text("to myself"))["row"]["sender"] == who_bob
    assert call(ann, "send_message", text="of my own") == ("committed", None)
    ann.wait("insert", of_text("of my own"))
    assert (texts(ann), texts(bob)) == (["of my own"], ["to myself"])


def test_a_procedure_answers_its_caller(views: Server, drivers: list[Driver]) -> None:
    ann, bob = drivers
    for driver in drivers:
        connect(driver, views)
        subscribe(driver)
    ann.do("run", procedure="post_later", args={"text": "after a while"})
    returned = ann.wait("returned")["value"]
    assert (returned["words"], returned["left"]) == (["after", "a", "while"], None)
    posted = ann.wait("insert", of_text("after a while"))["row"]
    assert posted["id"] == returned["id"]

    for procedure, text, told in (
        ("post_later", "", "The module instance encountered a fatal error: a message must not be empty"),
        ("no_such_procedure", "x", "No such procedure"),
    ):
        ann.do("run", procedure=procedure, args={"text": text})
        raised = ann.wait("raised")
        assert raised["procedure"] == procedure
        assert told in raised["text"]
    assert call(ann, "send_message", text="alive") == ("committed", None)
    assert not any(bob.seen(event) for event in ("returned", "raised"))
    assert texts(bob) == []
