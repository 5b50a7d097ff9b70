"""Modules compiled by the newest official crates: what 2.9 to 2.14 brought, by command line and by both runtimes."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest

from stdb.datastore.environment import write_environment
from stdb.errors import ModuleFault
from stdb.modules.protocol import HttpRequest, ReadSet, ReducerCall, RouteCall, Stranger, ViewCall
from stdb.modules.wasm.engine import engine
from stdb.modules.wasm.loader import load_wasm
from stdb.modules.wasm.runtime import Runtime
from stdb.sats import bsatn
from stdb.sats.types import STRING, U32, Element, Product
from stdb.schema.model import EnvironmentVariableDef
from tests.interop.module_cargo import build_module
from tests.interop.processes import Server, serve
from tests.test_wasm_module import HostOf, World, finish
from tests.wasm_guests import IDENTITY, NOW_US, RUNTIMES

pytestmark = [pytest.mark.slow, pytest.mark.long]  # each version of the crate is compiled

NEWEST, BEFORE = "2.14.0", "2.10.1"
DATABASE = "harbour"


@pytest.fixture(scope="module")
def newest() -> Path:
    return build_module("harbour", NEWEST, "env", "params", "senders")


@pytest.fixture(scope="module")
def before() -> Path:
    return build_module("harbour", BEFORE)


# By the command line


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


def publish(server: Server, program: Path, name: str, *options: str) -> str:
    return server.stdb("publish", "-b", str(program), name, "-y", *options)


def ask(server: Server, name: str, path: str, method: str = "GET", body: bytes | None = None) -> str:
    """Return the text of what a route answers."""
    return server.read(f"/v1/database/{name}/route{path}", method=method, body=body)


def call(server: Server, function: str, arguments: str) -> str:
    """Call with arguments as they are given; return the answer's text."""
    request = urllib.request.Request(
        f"{server.http}/v1/database/{DATABASE}/call/{function}",
        arguments.encode(),
        {"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return str(answer.read(), "utf-8")
    except HTTPError as error:
        with error:
            return f"Error: {error.read().decode()}"


@pytest.fixture(scope="module")
def harbour(server: Server, newest: Path) -> Server:
    assert "FLAG" in publish(server, newest, DATABASE)
    assert "Created" in publish(server, newest, DATABASE, "--env", "FLAG=red", "--env", "WEATHER=half a gale")
    return server


def test_an_environment_is_read_everywhere_and_changed_by_publishing(harbour: Server, newest: Path) -> None:
    assert "opened under red" in harbour.stdb("sql", DATABASE, "SELECT * FROM note")
    harbour.stdb("call", DATABASE, "observe")
    assert "red Some(Gale) None" in harbour.stdb("sql", DATABASE, "SELECT * FROM note")
    assert "red with None" in harbour.stdb("sql", DATABASE, "SELECT * FROM flag_shown")
    assert "Updated" in publish(harbour, newest, DATABASE, "--env", "PILOT=Ännchen", "--remove-env", "WEATHER")
    assert "red with" in (shown := harbour.stdb("sql", DATABASE, "SELECT * FROM flag_shown"))
    assert "Ännchen" in shown
    assert "red Some" in harbour.stdb("call", DATABASE, "flag_now")
    assert ask(harbour, DATABASE, "/flag") == "red"
    assert "does not satisfy" in publish(harbour, newest, DATABASE, "--env", "WEATHER=storm")
    for key in ("NOPE", "9"):
        assert "fatal error" in harbour.stdb("call", DATABASE, "peek", f'"{key}"')
    assert "is not declared by this module" in harbour.stdb("logs", DATABASE)


def test_views_take_arguments(harbour: Server) -> None:
    harbour.stdb("call", DATABASE, "moor", "3", '"Ann"')
    harbour.stdb("call", DATABASE, "moor", "4", '"Bea"')
    assert "Ann" in (rows := harbour.stdb("sql", DATABASE, "SELECT * FROM at_berth(3)"))
    assert "Bea" not in rows
    assert "Bea" in harbour.stdb("sql", DATABASE, "SELECT * FROM mine_named('Bea', 4)")
    assert "Bea" not in harbour.stdb("sql", DATABASE, "SELECT * FROM mine_named('Bea', 3)")
    assert "takes 1 argument(s), but 0 were given" in harbour.stdb("sql", DATABASE, "SELECT * FROM at_berth")
    assert "a ship has a name" in harbour.stdb("call", DATABASE, "moor", "3", '""')


def test_arguments_may_be_named_in_either_spelling(harbour: Server) -> None:
    harbour.stdb("call", DATABASE, "moor", "7", '"Old"')
    (row,) = [row for row in harbour.sql(DATABASE, "SELECT * FROM ship") if row["berth"] == 7]
    for spelling in ("newName", "new_name"):
        arguments = json.dumps({"ship_id": row["id"], spelling: f"by {spelling}"})
        assert "Error" not in call(harbour, "rename", arguments)
        assert f"by {spelling}" in harbour.stdb("sql", DATABASE, "SELECT * FROM at_berth(7)")
    both = json.dumps({"ship_id": row["id"], "new_name": "", "newName": ""})
    assert "duplicate field `newName`" in call(harbour, "rename", both)


def test_a_handler_knows_who_asks_anew_each_time(harbour: Server) -> None:
    first, second = ask(harbour, DATABASE, "/who").split(), ask(harbour, DATABASE, "/who").split()
    assert first[1:] == second[1:] == ["true", "true", "localhost"]
    assert first[0] != second[0]
    assert first[0].startswith("c200")
    landed = ask(harbour, DATABASE, "/land", "POST", b"Cid")
    assert landed in harbour.stdb("sql", DATABASE, "SELECT * FROM at_berth(99)")


def test_a_module_of_the_crate_before_works_as_it_did(server: Server, before: Path) -> None:
    assert "Created" in publish(server, before, "old")
    assert ask(server, "old", "/greet", "POST", b"ahoy") == "POST says ahoy"
    assert ask(server, "old", "/land", "POST", b"Cid") == "0" * 64
    server.stdb("call", "old", "moor", "1", '"Dan"')
    assert "2" in server.stdb("call", "old", "count_ships")
    assert "Dan" in server.stdb("sql", "old", "SELECT * FROM mine")
    with pytest.raises(AssertionError, match="404"):
        ask(server, "old", "/who")


def test_the_crate_before_is_updated_to_the_newest(server: Server, before: Path, newest: Path) -> None:
    publish(server, before, "lived")
    server.stdb("call", "lived", "moor", "1", '"Eve"')
    assert "FLAG" in publish(server, newest, "lived")
    assert "Eve" in server.stdb("sql", "lived", "SELECT * FROM mine")
    assert "Updated" in publish(server, newest, "lived", "--env", "FLAG=green")
    assert "Eve" in server.stdb("sql", "lived", "SELECT * FROM at_berth(1)")
    assert ask(server, "lived", "/flag") == "green"


# By both runtimes


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Return one of the runtimes."""
    made: Runtime = RUNTIMES[request.param](engine())
    return made


class Harbour(World):
    """The module attached to a database with these variables."""

    def __init__(self, program: Path, runtime: Runtime, **values: str) -> None:
        super().__init__(program.read_bytes(), runtime)
        transaction = self.datastore.begin(NOW_US)
        write_environment(self.datastore, values)
        transaction.commit()

    def reduce(self, name: str, params: tuple[Element, ...] = (), *args: object) -> None:
        """Call a reducer as a database does."""
        position = self.module.definition.reducer_id(name)
        assert position is not None
        transaction = self.datastore.begin(NOW_US)
        try:
            call = ReducerCall(IDENTITY, None, NOW_US, transaction)
            self.module.reducer(position)(call, bsatn.codec(Product(params)).encode(args))
        except BaseException:
            transaction.rollback()
            raise
        transaction.commit()

    def view(self, name: str, params: tuple[Element, ...] = (), *args: object) -> tuple[list[bytes], ReadSet]:
        """Run a view."""
        views = self.module.definition.views
        position = next(i for i, view in enumerate(views) if view.name == name)
        sender, reads = None if views[position].is_anonymous else IDENTITY, ReadSet()
        rows = self.module.view(position)(ViewCall(sender, bsatn.codec(Product(params)).encode(args), reads))
        assert isinstance(rows, list)
        return rows, reads

    def notes(self) -> list[str]:
        """Return the texts of the table `note`."""
        table = self.datastore.table("note")
        return [table.schema.codec.decode_exact(row)[0] for row in table.rows()]


def test_both_runtimes_read_the_definition(runtime: Runtime, newest: Path) -> None:
    definition = load_wasm(newest.read_bytes(), lambda: NOW_US, runtime=runtime).definition
    assert definition.environment == (
        EnvironmentVariableDef("FLAG", None, False),
        EnvironmentVariableDef("WEATHER", ("calm", "half a gale"), True),
        EnvironmentVariableDef("PILOT", None, True),
    )
    assert {view.name: len(view.params.elements) for view in definition.views} == {
        **{"at_berth": 1, "flag_shown": 0, "mine": 0, "mine_named": 2},
    }


def test_both_runtimes_read_the_environment(runtime: Runtime, newest: Path) -> None:
    harbour = Harbour(newest, runtime, FLAG="red", WEATHER="calm", PILOT="")
    harbour.reduce("observe")
    key = (Element("key", STRING),)
    harbour.reduce("peek", key, "WEATHER")
    for bad in ("NOPE", "", "9"):
        with pytest.raises(ModuleFault):
            harbour.reduce("peek", key, bad)
    assert harbour.notes() == ['red Some(Calm) Some("")', 'WEATHER is Some("calm")']
    rows, reads = harbour.view("flag_shown")
    assert len(rows) == 1
    assert set().union(*reads.keys.values()) == {"FLAG", "PILOT"}


def test_both_runtimes_give_views_their_arguments(runtime: Runtime, newest: Path) -> None:
    harbour = Harbour(newest, runtime, FLAG="red")
    moor = (Element("berth", U32), Element("name", STRING))
    for berth, name in ((3, "Ann"), (4, "Bea")):
        harbour.reduce("moor", moor, berth, name)
    rows, _ = harbour.view("at_berth", (Element("berth", U32),), 4)
    assert [b"Bea" in row for row in rows] == [True]
    named = (Element("name", STRING), Element("berth", U32))
    assert len(harbour.view("mine_named", named, "Ann", 3)[0]) == 1
    assert harbour.view("mine_named", named, "Ann", 4)[0] == []


def test_both_runtimes_call_handlers_of_both_forms(runtime: Runtime, newest: Path, before: Path) -> None:
    for program in (newest, before):
        harbour = Harbour(program, runtime, FLAG="red")
        routes = harbour.module.definition.http_routes
        position = next(i for i, route in enumerate(routes) if route.path == "/greet")
        call = RouteCall(NOW_US, HostOf(harbour), lambda: Stranger(IDENTITY, '{"iss":"me","sub":"x"}'))
        response = finish(harbour.module.route(position)(call, HttpRequest("POST", "http://here/greet", (), b"ahoy")))
        assert (response.status, response.body) == (200, b"POST says ahoy")
        assert ("x-harbour", b"open") in response.headers
