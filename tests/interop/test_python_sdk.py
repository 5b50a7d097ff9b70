"""The Python SDK 0.7.0 from PyPI, unmodified, with generated bindings, against a real server."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.npm import ROOT
from tests.interop.processes import Server, serve, serve_on
from tests.interop.python_sdk import PythonDriver, bindings, sdk_python

pytestmark = pytest.mark.slow

DATABASE = "heroes"
MODULE = f"{ROOT / 'tests' / 'interop' / 'modules' / 'heroes.py'}={DATABASE}"
HEROES, DEEDS = "SELECT * FROM Hero", "SELECT * FROM deed"
Start = Callable[..., PythonDriver]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve("--publish", MODULE) as running:
        yield running


@pytest.fixture(scope="module")
def package(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bindings(server, DATABASE, tmp_path_factory.mktemp("generated") / "heroes_bindings")


@pytest.fixture
def start(package: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a client: `kind` of client, name of its home, queries."""
    started: list[PythonDriver] = []

    def start(server: Server, kind: str, *queries: str, home: str = "home") -> PythonDriver:
        directory = tmp_path / home
        directory.mkdir(exist_ok=True)
        driver = PythonDriver(kind, package, directory)
        started.append(driver)
        driver.do("connect", host=server.address, database=DATABASE, queries=queries)
        return driver

    yield start
    for driver in started:
        driver.close()


def call(client: PythonDriver, name: str, *args: Any) -> None:
    client.do("call", name=name, args=args)


def settle(client: PythonDriver) -> dict[str, Any]:
    """Wait for the first rows and forget them; return who the client is."""
    me = client.wait("identity")
    client.wait("applied")
    client.take("row", "transaction")
    return me


def rows(client: PythonDriver, table: str) -> list[dict[str, Any]]:
    return client.ask("rows", table=table)["rows"]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_client_gets_an_identity_rows_and_what_its_calls_do(server: Server, start: Start, kind: str) -> None:
    text = f"hi é 😀 {kind}"
    client = start(server, kind, HEROES, f"SELECT * FROM deed WHERE text = '{text}'")
    me = settle(client)
    mine = {"identity": me["identity"], "name": None, "online": True}
    assert mine in rows(client, "Hero")

    call(client, "set_name", "Åsa")
    row = client.wait("row", lambda event: event["operation"] == "update")
    assert (row["old"], row["new"]) == (mine, {**mine, "name": "Åsa"})
    assert (row["reducer"], row["caller"], row["address"]) == ("set_name", me["identity"], me["address"])
    called = client.wait("reducer")
    assert (called["caller"], called["address"]) == (me["identity"], me["address"])
    assert (called["name"], called["status"], called["message"], called["args"]) == (
        "set_name",
        "committed",
        "",
        ["Åsa"],
    )

    call(client, "set_name", None)
    assert client.wait("reducer")["args"] == [None]
    call(client, "say", text)
    assert client.wait("row", lambda event: event["table"] == "deed")["new"]["who"] == me["identity"]
    assert client.wait("reducer")["name"] == "say"
    client.do("close")
    assert client.wait("closed") == {"event": "closed", "alive": False}


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_calls_that_are_refused_or_break_are_told_with_their_arguments(server: Server, start: Start, kind: str) -> None:
    client = start(server, kind, HEROES)
    me = settle(client)
    call(client, "set_name", "")
    refused = client.wait("reducer")
    assert (refused["status"], refused["message"]) == ("failed", "a name must not be empty")
    assert (refused["caller"], refused["args"]) == (me["identity"], [""])
    call(client, "say", "13")
    assert client.wait("reducer")["message"] == "The Wasm instance encountered a fatal error."
    call(client, "say", 13)
    wrong = client.wait("reducer")
    assert wrong["status"] == "failed"
    assert wrong["message"].startswith("invalid arguments for reducer say")
    call(client, "say", "still there")
    assert client.wait("reducer")["status"] == "committed"


def test_two_clients_see_each_other_and_what_a_schedule_does(server: Server, start: Start) -> None:
    ann = start(server, "sync", HEROES, DEEDS, home="ann")
    ann_is = settle(ann)
    bob = start(server, "async", HEROES, DEEDS, home="bob")
    bob_is = bob.wait("identity")
    came = ann.wait("row", lambda event: event["new"].get("identity") == bob_is["identity"])
    assert (came["operation"], came["reducer"]) == ("insert", "__identity_connected__")
    bob.wait("applied")
    bob.take("row", "transaction")
    call(bob, "say", "from bob")
    heard = ann.wait("row", lambda event: event["table"] == "deed")
    assert (heard["caller"], heard["address"]) == (bob_is["identity"], bob_is["address"])
    call(ann, "later", "an errand")
    done = bob.wait("row", lambda event: event["table"] == "deed" and event["new"]["text"] == "an errand")
    assert (done["reducer"], done["address"]) == ("run_errand", None)
    call(bob, "forget", "from bob")
    gone = ann.wait("row", lambda event: event["operation"] == "delete")
    assert gone["old"]["text"] == "from bob"
    bob.do("close")
    left = ann.wait("row", lambda event: event["operation"] == "update" and not event["new"]["online"])
    assert (left["new"]["identity"], left["reducer"]) == (bob_is["identity"], "__identity_disconnected__")
    assert ann_is["identity"] != bob_is["identity"]


def test_bindings_without_a_client_say_what_to_do(package: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(package.parent)!r}); from {package.name}.deed import Deed; Deed.iter()"
    )
    done = subprocess.run([sdk_python(), "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr.rstrip().endswith(
        "RuntimeError: there is no client yet: make a SpacetimeDBClient or a SpacetimeDBAsyncClient first"
    )


def test_a_new_set_of_queries_takes_the_place_of_the_old_one(server: Server, start: Start) -> None:
    client = start(server, "sync", HEROES)
    client.wait("applied")
    client.do("subscribe", queries=["SELECT * FROM deed WHERE text = 'second set'"])
    client.wait("applied")
    call(client, "set_name", "unseen")
    client.wait("reducer")
    call(client, "say", "second set")
    assert client.wait("row", lambda event: event["table"] == "deed")["operation"] == "insert"
    assert not client.seen("row", lambda event: event["table"] == "Hero" and event["operation"] == "update")


def test_a_query_that_does_not_compile_is_told_and_the_old_set_stays(server: Server, start: Start) -> None:
    client = start(server, "sync", HEROES)
    client.wait("applied")
    client.do("subscribe", queries=["SELECT * FROM nowhere"])
    assert client.wait("transaction") == {"event": "transaction", "reducer": "<none>", "status": "failed"}
    call(client, "set_name", "kept")
    assert client.wait("row", lambda event: event["operation"] == "update")["new"]["name"] == "kept"


RELIC: tuple[Any, ...] = (
    7,
    {"@rank": "Knight"},
    {"@place": {"x": -3, "y": 2**53 + 1}},
    {"@weapon": ["Spell", {"@spell": {"words": ["abra", "é"]}}]},
    0.1,
    {"@bytes": "00ff"},
    [0, 4294967295],
    {"@place": {"x": 0, "y": 1}},
    [None, [], ["x", ""]],
    {"@identity": "ab" * 32},
    {"@address": "0c" * 16},
    1_700_000_000_000_000,
    5_000_000,
    2**127 + 1,
    {"@bytes": "01" + "00" * 31},
)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_values_of_every_type_arrive_as_they_were_sent(server: Server, start: Start, kind: str) -> None:
    client = start(server, kind, "SELECT * FROM relic")
    settle(client)
    id_ = 100 if kind == "sync" else 101
    call(client, "store", id_, *RELIC[1:])
    new = client.wait("row")["new"]
    assert new == {
        "id": id_,
        "rank": "Knight",
        "place": {"x": -3, "y": 2**53 + 1},
        "weapon": {"Spell": {"words": ["abra", "é"]}},
        "weight": 0.1,
        "data": "00ff",
        "many": [0, 4294967295],
        "maybe": {"x": 0, "y": 1},
        "nested": [None, [], ["x", ""]],
        "owner": "ab" * 32,
        "finder": "0c" * 16,
        "found": 1_700_000_000_000_000,
        "lasted": 5_000_000,
        "big": 2**127 + 1,
        "huge": "01" + "00" * 31,
    }
    assert client.wait("reducer")["args"] == list(new.values())
    assert client.ask("find", table="relic", column="id", value=id_)["found"] == new
    (row,) = server.sql(DATABASE, f"SELECT * FROM relic WHERE id = {id_}")
    assert int(str(row["huge"]), 0) == 1
    assert row["place"] in ([-3, 2**53 + 1], {"x": -3, "y": 2**53 + 1})


def test_many_rows_and_changes_right_behind_them_come_in_order(server: Server, start: Start) -> None:
    client = start(server, "sync", HEROES)
    client.wait("applied")
    call(client, "pour", 20_000)
    client.wait("reducer")
    client.do("subscribe", queries=["SELECT * FROM grain"])
    for i in range(0, 20_000, 2_000):
        call(client, "take_grain", i)
    client.wait("applied", seconds=60)
    for _ in range(10):
        assert client.wait("reducer", seconds=60)["status"] == "committed"
    assert len(rows(client, "grain")) == 19_990
    assert not client.seen("ended")
    assert not client.seen("output")


def test_an_identity_is_kept_over_restarts_of_client_and_server(package: Path, start: Start, tmp_path: Path) -> None:
    with serve_on(tmp_path / "data", "--publish", MODULE) as first:
        client = start(first, "sync", HEROES)
        me = client.wait("identity")
        client.wait("applied")
        call(client, "set_name", "Ann")
        client.wait("reducer")
        client.do("close")
        client.wait("closed")
        other = start(first, "async", HEROES, home="other")
        assert other.wait("identity")["identity"] != me["identity"]
        other.wait("applied")
    assert other.wait("ended")["text"] or other.seen("closed")
    with serve_on(tmp_path / "data") as second:
        again = start(second, "async", HEROES)
        assert again.wait("identity")["identity"] == me["identity"]
        again.wait("applied")
        mine = [row for row in rows(again, "Hero") if row["identity"] == me["identity"]]
        assert mine == [{"identity": me["identity"], "name": "Ann", "online": True}]
