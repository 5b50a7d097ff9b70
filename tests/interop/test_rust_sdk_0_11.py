"""The Rust SDK 0.11.1 of crates.io, unmodified, against modules in Python and of the crate of its own generation."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.cargo import build
from tests.interop.clients import Database
from tests.interop.module_cargo import build_module
from tests.interop.npm import ROOT
from tests.interop.processes import Driver, Server, serve, start_server

pytestmark = [pytest.mark.slow, pytest.mark.long]

MODULE = ROOT / "tests" / "interop" / "modules" / "heroes.py"
HEROES, DEEDS, RELICS = "SELECT * FROM Hero", "SELECT * FROM deed", "SELECT * FROM relic"
GRAINS = "SELECT * FROM grain"
PLANTS, VISITORS, DIARY = "SELECT * FROM Plant", "SELECT * FROM Visitor", "SELECT * FROM Diary"
FATAL = "The Wasm instance encountered a fatal error."
Row = dict[str, Any]


class Client:
    """A program around the SDK with the bindings of `module`; its home directory is its own."""

    def __init__(self, module: str, server: Server, home: Path) -> None:
        self.server = server
        self.identity = self.address = self.token = ""
        home.mkdir(exist_ok=True)
        self.driver = Driver("env", f"HOME={home}", build("sdk_0_11"), module)

    def connect(self, database: str, prefix: str = "", **options: Any) -> "Client":
        """Connect, or connect anew, and learn who the client is."""
        self.driver.do("connect", url=self.server.http + prefix, database=database, **options)
        connected = self.driver.wait("connected")
        self.identity, self.address, self.token = (connected[key] for key in ("identity", "address", "token"))
        return self

    def subscribe(self, *queries: str) -> None:
        """Ask for another set of queries and wait for its rows."""
        self.driver.do("subscribe", queries=queries)
        self.driver.wait("applied")

    def call(self, reducer: str, **arguments: Any) -> dict[str, Any]:
        """Call a reducer and return what its callback was told."""
        self.call_nowait(reducer, **arguments)
        return self.result(reducer)

    def call_nowait(self, reducer: str, **arguments: Any) -> None:
        """Call a reducer; the arguments travel as text, in which 128 bits stay whole."""
        self.driver.do("call", reducer=reducer, args=json.dumps(arguments))

    def result(self, reducer: str) -> dict[str, Any]:
        """Return what the callback of a reducer was told next."""
        event = self.driver.wait("result", lambda event: event["reducer"] == reducer)
        told: dict[str, Any] = {**event["told"], "args": event["args"]}
        return told

    def wait(self, event: str, table: str, **columns: Any) -> dict[str, Any]:
        """Return the first unread event of that kind about a row with these values."""
        return self.driver.wait(event, lambda it: it["table"] == table and columns.items() <= it["row"].items())

    def disconnect(self) -> None:
        """End the connection; the SDK does not expect that its Close is answered, and says so."""
        self.driver.do("disconnect")
        self.driver.wait("disconnected")
        self.driver.wait("warning", lambda event: event["text"] == "Unexpected WebSocket message Close(None)")

    def rows(self, table: str) -> list[Row]:
        """Return the rows in the SDK's cache."""
        rows: list[Row] = self.driver.ask("rows", table=table)["rows"]
        return sorted(rows, key=str)


Start = Callable[..., Client]


def identity(text: str) -> Row:
    return {"__identity_bytes": text}


def hero(client: Client, name: str | None = None, *, online: bool = True) -> Row:
    held: Row = {"none": []} if name is None else {"some": name}
    return {"identity": identity(client.identity), "name": held, "online": online}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve("--publish", f"{MODULE}=heroes") as running:
        yield running


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start clients: bindings, server, home. In the end the SDK must not have found any mistake of the server."""
    clients: list[Client] = []

    def start(module: str, server: Server, home: str = "home") -> Client:
        clients.append(Client(module, server, tmp_path / home))
        return clients[-1]

    yield start
    for client in clients:
        client.driver.close()
    assert [event["text"] for client in clients for event in client.driver.take("warning", "output")] == []


def test_a_client_gets_an_identity_rows_and_what_its_calls_do(server: Server, start: Start) -> None:
    client = start("heroes", server).connect("heroes")
    client.subscribe(HEROES, "SELECT * FROM deed WHERE text = 'hi é 😀'")
    assert hero(client) in client.rows("Hero")
    assert client.wait("insert", "Hero", identity=identity(client.identity))["why"] == "none"

    told = client.call("set_name", name={"some": "Åsa"})
    assert told == {
        "caller": client.identity,
        "address": client.address,
        "status": "committed",
        "text": None,
        "args": {"name": {"some": "Åsa"}},
    }
    update = client.wait("update", "Hero", identity=identity(client.identity))
    assert (update["old"], update["row"], update["why"]) == (hero(client), hero(client, "Åsa"), "set_name")
    assert hero(client, "Åsa") in client.rows("Hero")

    assert client.call("say", text="hi é 😀")["status"] == "committed"
    assert client.wait("insert", "deed")["row"]["who"] == identity(client.identity)
    assert client.call("say", text="of no interest")["status"] == "committed"
    assert client.call("forget", text="hi é 😀")["status"] == "committed"
    assert client.wait("delete", "deed")["why"] == "forget"
    assert client.rows("deed") == []


def test_calls_that_are_refused_or_break_are_told_with_their_arguments(server: Server, start: Start) -> None:
    client, other = start("heroes", server).connect("heroes"), start("heroes", server, "other").connect("heroes")
    for each in (client, other):
        each.subscribe(HEROES, DEEDS)
    refused = client.call("set_name", name={"some": ""})
    assert (refused["status"], refused["text"]) == ("failed", "a name must not be empty")
    assert (refused["caller"], refused["args"]) == (client.identity, {"name": {"some": ""}})
    broken = client.call("say", text="13")
    assert (broken["status"], broken["text"]) == ("failed", FATAL)
    unknown = client.call("no_such_reducer")
    assert (unknown["status"], unknown["text"]) == ("failed", "no such reducer")
    assert client.call("say", text="still there")["status"] == "committed"
    assert other.wait("insert", "deed", text="still there")["why"] == "say"
    assert other.result("say")["caller"] == client.identity
    assert not other.driver.seen("result")


def test_two_clients_see_each_other_and_what_a_schedule_does(server: Server, start: Start) -> None:
    ann = start("heroes", server, "ann").connect("heroes")
    ann.subscribe(HEROES, DEEDS)
    bob = start("heroes", server, "bob").connect("heroes")
    assert bob.identity != ann.identity
    assert ann.wait("insert", "Hero", identity=identity(bob.identity))["row"] == hero(bob)
    unbound = ann.driver.wait("unbound")
    assert (unbound["reducer"], unbound["text"]) == ("__identity_connected__", None)
    bob.subscribe(HEROES, DEEDS)
    assert bob.call("say", text="from bob")["status"] == "committed"
    assert ann.wait("insert", "deed", text="from bob")["row"]["who"] == identity(bob.identity)
    assert (heard := ann.result("say"))["caller"] == bob.identity
    assert heard["address"] == bob.address

    assert ann.call("later", text="an errand")["status"] == "committed"
    done = bob.wait("insert", "deed", text="an errand")
    assert done["why"] == "run_errand"
    ran = bob.result("run_errand")
    assert (ran["address"], ran["args"]["errand"]["text"]) == (None, "an errand")
    assert set(ran["args"]["errand"]["scheduled_at"]) == {"Time"}

    bob.disconnect()
    left = ann.wait("update", "Hero", identity=identity(bob.identity))
    assert (left["old"]["online"], left["row"]["online"]) == (True, False)
    assert ann.driver.wait("unbound")["reducer"] == "__identity_disconnected__"


RELIC = {
    "rank": {"Knight": []},
    "place": {"x": -3, "y": 2**53 + 1},
    "weapon": {"Spell": {"words": ["abra", "é"]}},
    "weight": 0.1,
    "data": "00ff",
    "many": [0, 4294967295],
    "maybe": {"some": {"x": 0, "y": 1}},
    "nested": [{"none": []}, {"some": []}, {"some": ["x", ""]}],
    "owner": {"__identity_bytes": "ab" * 32},
    "finder": {"__address_bytes": "0c" * 16},
    "found": 1_700_000_000_000_000,
    "lasted": 5_000_000,
    "big": 2**127 + 1,
    "huge": "01" + "00" * 31,
}


def test_values_of_every_type_arrive_as_they_were_sent(server: Server, start: Start) -> None:
    client = start("heroes", server).connect("heroes")
    client.subscribe(RELICS)
    relic = {"id": 100, **RELIC}
    told = client.call("store", **relic)
    assert (told["status"], told["text"], told["args"]) == ("committed", None, relic)
    assert client.wait("insert", "relic")["row"] == relic
    assert client.rows("relic") == [relic]
    (row,) = server.sql("heroes", "SELECT * FROM relic WHERE id = 100")
    assert (int(str(row["huge"]), 0), row["many"]) == (1, RELIC["many"])


def test_another_set_of_queries_takes_rows_out_of_the_cache_and_keeps_what_stays(server: Server, start: Start) -> None:
    client = start("heroes", server).connect("heroes")
    mine = f"SELECT * FROM deed WHERE who = 0x{client.identity}"
    for text in ("red", "blue", "green"):
        assert client.call("say", text=text)["status"] == "committed"
    client.subscribe(f"{mine} AND text = 'red'", f"{mine} AND text = 'blue'", mine + " AND text = 'red'")
    assert sorted(client.wait("insert", "deed")["row"]["text"] for _ in range(2)) == ["blue", "red"]
    client.subscribe(f"{mine} AND text = 'green'", f"{mine} AND text = 'blue'")
    assert client.wait("insert", "deed")["row"]["text"] == "green"
    assert client.wait("delete", "deed")["row"]["text"] == "red"
    assert [row["text"] for row in client.rows("deed")] == ["blue", "green"]
    assert not client.driver.seen("insert")
    assert client.call("say", text="red")["status"] == "committed"
    assert client.call("forget", text="green")["status"] == "committed"
    assert client.wait("delete", "deed")["row"]["text"] == "green"
    assert [row["text"] for row in client.rows("deed")] == ["blue"]


def test_a_wrong_query_is_told_and_keeps_the_old_set(server: Server, start: Start) -> None:
    client = start("heroes", server).connect("heroes")
    client.subscribe(DEEDS)
    client.driver.do("subscribe", queries=[HEROES, "SELECT * FROM nothing"])
    refused = client.driver.wait("unbound", lambda event: event["reducer"] == "<none>")
    assert "nothing" in refused["text"]
    assert client.call("say", text="still subscribed")["status"] == "committed"
    client.wait("insert", "deed", text="still subscribed")
    assert client.rows("Hero") == []


def test_many_rows_come_in_one_answer_and_changes_right_behind(server: Server, start: Start) -> None:
    client = start("heroes", server).connect("heroes")
    assert client.call("pour", count=20_000)["status"] == "committed"
    client.driver.do("subscribe", queries=[GRAINS])
    for id_ in range(0, 20_000, 2_000):
        client.call_nowait("take_grain", id=id_)
    client.driver.wait("applied")
    assert {client.result("take_grain")["status"] for _ in range(10)} == {"committed"}
    rows = client.rows("grain")
    assert len(rows) == 19_990
    assert {row["text"] for row in rows} == {"x" * 60}
    assert sum(1 for _ in range(10) if client.wait("delete", "grain")["why"] == "take_grain") == 10


def test_a_token_brings_the_same_identity_back(server: Server, start: Start) -> None:
    first = start("heroes", server).connect("heroes")
    given = {"token": first.token, "identity": first.identity}
    second = start("heroes", server, "second").connect("heroes", **given)
    assert (second.identity, second.token) == (first.identity, first.token)
    assert second.address != first.address
    third = start("heroes", server, "third").connect("heroes", prefix="/legacy/0.11", **given)
    assert third.identity == first.identity
    for client in (first, second, third):
        client.subscribe(HEROES)
    assert third.call("set_name", name={"some": "We"})["address"] == third.address
    for client in (first, second):
        assert client.result("set_name")["address"] == third.address
        assert client.wait("update", "Hero", name={"some": "We"})["why"] == "set_name"


def test_what_cannot_connect_is_told(server: Server, start: Start) -> None:
    known = start("heroes", server).connect("heroes")
    client = start("heroes", server, "foreign")
    foreign = {"token": known.token[:-6] + "AAAAAA", "identity": known.identity}
    client.driver.do("connect", url=server.http, database="heroes", **foreign)
    assert "401 Unauthorized" in client.driver.wait("connect error")["text"]
    client.driver.do("connect", url=server.http, database="villains")
    assert "400 Bad Request" in client.driver.wait("connect error")["text"]
    assert client.connect("heroes").identity != known.identity


def test_a_client_of_this_generation_on_an_older_path_is_told_the_right_one(server: Server, start: Start) -> None:
    """There its first answer is Protobuf, which the SDK only logs; what it sends closes the connection."""
    client = start("heroes", server)
    client.driver.do("connect", url=server.http + "/legacy/0.10", database="heroes")
    undecoded = client.driver.wait("warning")
    assert "Error decoding WebSocketMessage::Binary payload" in undecoded["text"]
    client.driver.do("subscribe", queries=[HEROES])
    closed = client.driver.wait("warning", lambda event: "Close" in event["text"])
    assert "/legacy/0.11" in closed["text"]
    client.driver.wait("disconnected")


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_client_comes_back_after_the_server_did(start: Start, tmp_path: Path, end: str) -> None:
    """The same process connects anew with the credentials that the SDK saved."""
    arguments = ("--data-dir", str(tmp_path / "data"))
    server = start_server(*arguments, "--publish", f"{MODULE}=heroes")
    try:
        client = start("heroes", server).connect("heroes")
        client.driver.ask("save", directory="heroes")
        client.subscribe(HEROES)
        me, address = client.identity, client.address
        assert client.call("set_name", name={"some": "Ann"})["status"] == "committed"
        server.ask("POST", "/v1/database/heroes/sql", client.token, HEROES.encode())  # answered once all is on disk
        if end == "kill":
            server.kill()
        else:
            assert server.stop() == 0
        client.driver.wait("disconnected")
        client.driver.take("warning")  # the connection was cut

        client.server = server = start_server(*arguments)
        client.connect("heroes", saved="heroes")
        assert (client.identity, client.address) == (me, address)
        client.subscribe(HEROES)
        assert client.rows("Hero") == [hero(client, "Ann")]
        assert client.call("set_name", name={"none": []})["status"] == "committed"
        assert client.wait("update", "Hero", name={"none": []})["old"] == hero(client, "Ann")
        client.disconnect()
        assert server.stop() == 0
    finally:
        server.kill()


@pytest.fixture
def garden(server: Server) -> Database:
    """A database with a module of the crate 0.11.1."""
    return Database(server, "garden_0_11", build_module("garden_0_11", "0.11.1").read_bytes())


def test_a_module_of_the_same_generation_has_a_session_of_two_clients(
    server: Server, start: Start, garden: Database
) -> None:
    ann = start("garden", server, "ann").connect(garden.name)
    bob = start("garden", server, "bob").connect(garden.name)
    for client in (ann, bob):
        client.subscribe(PLANTS, VISITORS, DIARY, "SELECT * FROM Every")
        here = [row["identity"] for row in client.rows("Visitor") if row["online"]]
        assert identity(ann.identity) in here
        assert identity(bob.identity) in here
    (visit,) = [row for row in ann.rows("Visitor") if row["identity"] == identity(bob.identity)]
    assert visit["address"] == {"some": {"__address_bytes": bob.address}}

    assert ann.call("sow", name="rose", kind=1, height=5)["status"] == "committed"
    rose = bob.wait("insert", "Plant")["row"]
    assert (rose["name"], rose["height"], rose["alive"]) == ("rose", 5, True)
    assert bob.call("grow", name="rose", by=-2)["status"] == "committed"
    grown = ann.wait("update", "Plant")
    assert (grown["old"], grown["row"], grown["why"]) == (rose, {**rose, "height": 3}, "grow")
    assert ann.call("fell", kind=1)["status"] == "committed"
    assert bob.wait("delete", "Plant")["row"] == {**rose, "height": 3}

    refused = ann.call("sow", name="", kind=1, height=5)
    assert (refused["status"], refused["text"]) == ("failed", '"a plant needs a name"')
    broken = ann.call("panic", why="a storm")
    assert (broken["status"], broken["text"]) == ("failed", FATAL)
    assert ann.call("refuse", why="weeds")["text"] == '"weeds"'
    assert not any(row["text"] == "not to be seen" for row in ann.rows("Diary"))
    assert not bob.driver.seen("result", lambda event: event["reducer"] in ("panic", "refuse"))

    assert ann.call("put_every", id=7)["status"] == "committed"
    row = bob.wait("insert", "Every")["row"]
    assert (row["i128_"], row["f32_"], row["bytes"], row["s"]) == (-128, 1.5, "00ff", "héllo")
    assert (row["identity"], row["address"]) == (identity(ann.identity), {"__address_bytes": ann.address})
    assert (row["shape"], row["colour"], row["maybe_text"]) == ({"Label": "rose"}, {"Green": []}, {"none": []})
    assert bob.rows("Every") == ann.rows("Every") == [row]

    told = {
        "who": identity("ab" * 32),
        "where_": {"__address_bytes": "0c" * 16},
        "colour": {"Blue": []},
        "shape": {"Nothing": []},
        "point": {"x": 1, "y": -1},
        "maybe": {"some": "é"},
        "numbers": [-(2**127), 2**127 - 1],
    }
    assert ann.call("echo", **told)["args"] == told
    (said,) = {row["text"] for row in bob.rows("Diary")} - {"init"}
    assert str(2**127 - 1) in said
    assert "ab" * 32 in said


def test_timers_of_a_module_of_the_same_generation_reach_its_clients(
    server: Server, start: Start, garden: Database
) -> None:
    client = start("garden", server).connect(garden.name)
    client.subscribe(DIARY, "SELECT * FROM Watering")
    about = server.ask("GET", f"/v1/database/{garden.name}", server.operator)
    owner = about["owner_identity"]["__identity__"].removeprefix("0x")
    assert client.call("water_later", amount=3, millis=50)["status"] == "committed"
    (planned,) = client.rows("Watering") or [client.wait("insert", "Watering")["row"]]
    done = client.wait("insert", "Diary", text=f"watered 3 {owner} None")
    assert done["why"] == "water"
    watered = client.result("water")
    assert (watered["address"], watered["args"]["watering"]) == (None, planned)
    assert client.wait("delete", "Watering")["row"] == planned
    assert client.rows("Watering") == []
