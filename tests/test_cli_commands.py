"""Commands for real, in this process, against a server of a process of its own."""

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_harness import KITCHEN, Place, own_place, run, serve_kitchen, started
from tests.interop.npm import ROOT
from tests.interop.processes import Server, serve, start_server

pytestmark = pytest.mark.slow  # servers of their own

CHAT = ROOT / "examples/quickstart_chat"
NOBODY = "c2" + "0" * 61 + "1"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with own_place(tmp_path_factory.mktemp("home")) as place:
        yield place


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[Server]:
    """A server whose operator is the user of the commands."""
    with serve_kitchen("kitchen") as server:
        yield server


@pytest.fixture
def home(server: Server, tmp_path: Path) -> Iterator[Place]:
    """Another user's home: no token is stored and no server is known to run here."""
    with own_place(tmp_path) as place:
        yield place


def identity_in(text: str) -> str:
    found = re.search(r"c200[0-9a-f]{60}", text)
    assert found is not None, text
    return found[0]


# --------------------------------------------------------------------------------------------------- publish
def test_a_module_is_published_updated_and_deleted_without_any_log_in(server: Server, place: Place) -> None:
    code, out, err = run("publish", "-p", str(CHAT), "chat", "--server", server.http)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[:3] == [
        f"Uploading to {server.http} => {server.http}",
        "Checking for breaking changes...",
        "Publishing module...",
    ]
    identity = identity_in(out)
    assert lines[3:] == [f"Created new database with name: chat, identity: {identity}"]
    _, out, _ = run("publish", "-p", str(CHAT / "__init__.py"), "chat", "-s", server.http.removeprefix("http://"))
    assert out.endswith(f"Updated database with name: chat, identity: {identity}\n")
    assert run("call", "chat", "send_message", "hello", "-s", server.http) == (0, "", "")
    assert '| "hello" ' in run("sql", "chat", "select * from message", "-s", server.http).out
    refused = run("publish", "-p", str(CHAT), "chat", "-c", "-s", server.http, stdin="no\n")
    assert (refused.code, refused.err) == (1, "Error: Aborted.\n")
    assert refused.out.endswith("[deleting chat] [y/N]")
    cleared = run("publish", "-p", str(CHAT), "chat", "-c", "-y", "-s", server.http)
    assert "This will DESTROY the current chat module, and ALL corresponding data." in cleared.out
    assert run("sql", "chat", "select * from message", "-s", server.http).out.count("\n") == 2
    assert " chat " in run("list", "-s", server.http).out
    question = f"Are you sure you want to delete database chat ({identity})? This action cannot be undone. [y/N]"
    assert run("delete", "chat", "-s", server.http, stdin="n\n") == (0, question + "Aborting\n", "")
    assert run("delete", "chat", "-s", server.http, stdin="y\n") == (0, question, "")
    assert run("sql", "chat", "select * from message", "-s", server.http).code == 1
    assert not place.cli_toml.exists()


def test_a_database_without_a_name_is_published_by_identity_next_time(server: Server) -> None:
    created = run("publish", "-p", str(CHAT), "-s", server.http)
    identity = identity_in(created.out)
    assert created.out.endswith(f"Created new database with identity: {identity}\n")
    again = run("publish", identity, "-p", str(CHAT), "-s", server.http)
    assert again.out.endswith(f"Updated database with identity: {identity}\n")
    assert run("delete", identity, "-y", "-s", server.http).code == 0
    nameless = run("publish", "-c", "-p", str(CHAT), "-s", server.http)
    assert nameless.code == 2


BAD = """\
from stdb import ReducerContext, primary_key, reducer, table, u64

@table
class A:
    id: u64 = primary_key()
    x: complex

@reducer
def f(ctx: ReducerContext, a): ...
"""


def test_every_finding_about_a_module_is_printed_with_its_place(server: Server, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(BAD)
    code, _, err = run("publish", "-p", str(tmp_path / "bad.py"), "bad", "-s", server.http)
    assert code == 1
    assert err.startswith("Error: Errors occurred:\nbad.py:6: A.x: complex is no column type")
    assert "\nbad.py:8: f(a): has no type" in err
    assert err.endswith(f"(500 Internal Server Error) for url ({server.http}/v1/database/bad?host_type=Python)\n")
    assert "\x1b" not in err
    assert "\\n" not in err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, r"cannot read the module .*x: No such file or directory"),
        (
            "",
            r"Could not detect the language of the module\. Are you in a SpacetimeDB project directory\?\n\n"
            r".*x holds neither Cargo\.toml \(Rust\) nor __init__\.py \(Python\)\.\nName the module with --module",
        ),
        (b"garbage", r".*x is no module: expected a \.py file, a package directory, a packed module or a WASM file"),
    ],
)
def test_what_is_no_module_is_said_before_anything_is_sent(
    server: Server, tmp_path: Path, content: bytes | str | None, told: str
) -> None:
    path = tmp_path / "x"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.mkdir()
    code, out, err = run("publish", "-p", str(path), "x", "-s", server.http)
    assert (code, out) == (1, "")
    assert re.match(f"Error: {told}", err)


def test_a_bad_name_is_refused_before_anything_is_sent() -> None:
    code, out, err = run("publish", "-p", str(CHAT), "Bad_Name", "-s", "http://127.0.0.1:1")
    assert (code, out) == (1, "")
    assert err.startswith("Error: invalid characters in database name\n")


def test_the_name_of_somebody_else_is_refused_with_what_to_do(server: Server, home: Place) -> None:
    code, _, err = run("publish", "-p", str(CHAT), "kitchen", "-s", server.http)
    assert code == 1
    assert "is not authorized to perform action on database" in err


def test_who_may_not_publish_python_is_told_the_operators_command(server: Server, home: Place) -> None:
    run("login", "--server-issued-login", server.http)
    me = identity_in(run("login", "show").out)
    code, _, err = run("publish", "-p", str(CHAT), "mine", "-s", server.http)
    assert code == 1
    assert f"python -m stdb grant {me} publish-python" in err


def test_a_server_elsewhere_is_only_published_to_after_a_question() -> None:
    code, out, err = run("publish", "-p", str(CHAT), "chat", "-s", "http://elsewhere.example", stdin="\n")
    assert (code, err) == (1, "Error: Aborted.\n")
    assert out == (
        "You are about to publish to a non-local server: elsewhere.example\nAre you sure you want to proceed? [y/N]"
    )


# --------------------------------------------------------------------------------------------------- tokens
def test_without_a_token_a_new_identity_is_made_stored_and_announced(server: Server, home: Place) -> None:
    code, _, err = run("sql", "kitchen", "select * from plain", "-s", server.http)
    me = identity_in(err)
    assert code == 0
    assert err == (
        f"Not logged in: {server.http} issued a new identity, {me}.\nIts token is stored in {home.cli_toml}.\n"
    )
    assert stat.S_IMODE(home.cli_toml.stat().st_mode) == 0o600
    assert run("login", "show").out == f"You are logged in as {me}\n"
    assert run("list", "-s", server.http) == (0, f"No databases found for {me}.\n", "")


def test_anonymous_makes_and_stores_nothing(server: Server, home: Place) -> None:
    assert run("sql", "kitchen", "select * from plain", "--anonymous", "-s", server.http).err == ""
    assert run("call", "--anonymous", "kitchen", "r_empty", "-s", server.http) == (0, "", "")
    assert not home.cli_toml.exists()


def test_a_token_of_another_server_is_refused_with_what_to_do(server: Server, place: Place, tmp_path: Path) -> None:
    with own_place(tmp_path) as home:
        with serve() as other:
            run("login", "--server-issued-login", other.http)
        code, _, err = run("call", "kitchen", "r_empty", "-s", server.http)
        assert code == 1
        assert "HTTP status client error (401 Unauthorized)" in err
        assert f"{server.http} does not accept the token stored in {home.cli_toml}" in err
        assert "`python -m stdb logout` forgets the stored token" in err
        assert run("logs", "kitchen", "-s", server.http).code == 1
        assert run("sql", "kitchen", "select * from plain", "--anonymous", "-s", server.http).code == 0
        run("logout")
        assert run("call", "kitchen", "r_empty", "-s", server.http).code == 0


def test_the_operators_token_is_only_shown_to_a_server_that_runs(server: Server, place: Place) -> None:
    notes = place.path / "XDG_STATE_HOME/stdb/servers"
    port = server.address.rpartition(":")[2]
    assert [note.name for note in notes.iterdir() if note.name == port] == [port]
    dead = place.path / "dead"
    dead.mkdir()
    (dead / "stdb.lock").touch()
    (dead / "operator.token").write_text("secret")
    whole = (notes / port).read_text()
    (notes / port).write_text(f"{dead}\n")
    try:
        _, _, err = run("list", "-s", server.http)
    finally:
        (notes / port).write_text(whole)
        place.cli_toml.unlink()
    assert err.startswith(f"Not logged in: {server.http} issued a new identity")


def test_logging_in_and_out(server: Server, home: Place) -> None:
    saving = f"Saving config to {home.cli_toml}.\n"
    assert run("login", "show") == (0, "You are not logged in. Run `python -m stdb login` to log in.\n", "")
    assert run("logout") == (0, "You are not logged in.\n", "")
    first = run("login", "--server-issued-login", server.http)
    me = identity_in(first.out)
    assert first == (
        0,
        "We have logged in directly to your target server.\n"
        f"WARNING: This login will NOT work for any other servers.\nLogged in with identity {me}\n",
        saving,
    )
    token = run("login", "show", "--token").out.split()[-1]
    assert run("login", "--token", token) == (
        0,
        f"Logged out (identity {me}).\nLogged in with identity {me}\n",
        saving * 2,
    )
    assert run("login", "--token", "garbage") == (1, "", "Error: Token does not look like a JSON web token: garbage\n")
    assert run("login", "--token", "e30.e30.e30").err == "Error: Token has no issuer (iss) or subject (sub)\n"
    assert run("login").code == 2
    assert run("login", "--auth-host", "https://spacetimedb.com").err.startswith(
        "Error: https://spacetimedb.com cannot be"
    )
    assert run("logout") == (0, f"Logged out (identity {me}).\n", saving)
    home.cli_toml.write_text('spacetimedb_token = "garbage"\n')
    assert run("logout").out == "Logged out.\n"


# --------------------------------------------------------------------------------------------------- grants, restart
def test_the_operator_grants_lists_and_revokes(server: Server, place: Place) -> None:
    at = ("-s", server.http)
    assert run("grants", *at) == (0, "No grants.\n", "")
    assert run("grant", f"0x{NOBODY}", *at) == (0, f"{NOBODY} may now publish-python.\n", "")
    assert f" {NOBODY} | publish-python " in run("grants", *at).out
    assert run("grants", NOBODY, *at).out == run("grants", *at).out
    assert run("revoke", NOBODY, "publish-python", *at) == (0, f"{NOBODY} may no longer publish-python.\n", "")
    assert run("grants", NOBODY, *at).out == "No grants.\n"
    assert run("grant", "ann", *at).err.startswith("Error: ann is no identity: expected 64 hex digits")
    assert run("grant", NOBODY, "fly", *at).code == 2


def test_nobody_has_energy_that_is_not_metered(server: Server, place: Place) -> None:
    assert run("energy", "balance", "-s", server.http) == (0, '{"balance":"0"}\n', "")
    assert run("energy", "balance", NOBODY, "-s", server.http).out == '{"balance":"0"}\n'
    assert run("energy", "balance", "ann", "-s", server.http).err.startswith("Error: ann is no identity")


def test_others_are_told_whose_grants_are(server: Server, home: Place) -> None:
    code, _, err = run("grant", NOBODY, "-s", server.http)
    assert code == 1
    assert "is not the operator of this server; the operator's token is in the file operator.token" in err
    me = identity_in(run("login", "show").out)
    assert run("grants", me, "-s", server.http).out == "No grants.\n"


def test_a_database_is_started_again(server: Server, place: Place) -> None:
    code, out, _ = run("restart", "kitchen", "-s", server.http)
    assert (code, out) == (0, f"Database kitchen ({identity_in(out)}) was started again.\n")
    assert run("restart", "nosuch", "-s", server.http).err == (
        "Error: failed to find database `nosuch`.\n\n"
        f"There is none of that name at {server.http}: `python -m stdb list` shows yours there, and --server names "
        "another server.\n"
    )


# --------------------------------------------------------------------------------------------------- calls, logs
def test_options_may_stand_between_arguments_and_negative_numbers_need_nothing(server: Server, place: Place) -> None:
    assert run("call", "kitchen", "-s", server.http, "take_i_32", "-5") == (0, "", "")
    assert run("call", "kitchen", "take_i_32", "-s", server.http, "--", "-5") == (0, "", "")
    assert run("call", "kitchen", "take_string", "-s", server.http, "--", "-s").code == 0


def test_too_many_arguments_are_an_error(server: Server, place: Place) -> None:
    assert run("call", "kitchen", "take_two", "1", "a", "b", "-s", server.http) == (
        1,
        "",
        "Error: 3 arguments given, but reducer `take_two` takes 2.\n\n"
        "The reducer has the following signature:\n\ttake_two(first: u32, second: String)\n",
    )


def test_logs_are_counted_filtered_and_followed(server: Server, place: Place) -> None:
    at = ("kitchen", "-s", server.http)
    assert run("call", "kitchen", "log_all", "m", "-s", server.http).code == 0
    lines = run("logs", *at, "-n", "3").out.splitlines()
    assert [re.sub(r":\d+: ", ":N: ", re.sub(r"^\S+Z", "", line)) for line in lines] == [
        "  INFO: log_all cli_kitchen.py:N: info m",
        "  WARN: log_all cli_kitchen.py:N: warn m",
        " ERROR: log_all cli_kitchen.py:N: error m",
    ]
    assert len(run("logs", *at, "-n", "3", "--level", "warn").out.splitlines()) == 2
    assert len(run("logs", *at, "-n", "3", "--level", "warn", "--level-exact").out.splitlines()) == 1
    stored = json.loads(run("logs", *at, "-n", "1", "--format", "json").out)
    assert (stored["level"], stored["message"]) == ("Error", "error m")
    with started("logs", *at, "-f", "-n", "1") as (process, followed):
        assert followed.next(20) == lines[-1]
        run("call", "kitchen", "log_all", "again", "-s", server.http)
        assert [followed.next(20).split()[-1] for _ in range(3)] == ["again"] * 3
        process.send_signal(2)
        assert process.wait(20) == 130
    assert "Traceback" not in "".join(followed.seen)
    assert run("logs", *at, "-n", "-1").code == 2
    assert run("logs", *at, "--level", "nosuch").code == 2


def test_a_stranger_sees_no_logs(server: Server, home: Place) -> None:
    code, out, err = run("logs", "kitchen", "-s", server.http)
    assert (code, out) == (1, "")
    assert "403 Forbidden" in err


def test_a_subscription_ends_with_the_server_or_at_ctrl_c(server: Server, place: Place, tmp_path: Path) -> None:
    watch = ("subscribe", "kitchen", "select * from plain", "--print-initial-update", "-s", server.http)
    with started(*watch) as (process, lines):
        assert lines.next(20).startswith('{"plain":{"deletes":[],"inserts":[{"a":1,"b":1}')
        process.send_signal(2)
        assert process.wait(20) == 130
    assert len(lines.seen) == 1
    other = start_server("--data-dir", str(tmp_path), "--publish", f"{KITCHEN}=kitchen")
    with started(*watch[:-1], other.http) as (process, lines):
        lines.next(20)
        assert other.stop() == 0
        assert process.wait(20) == 1
        assert lines.next(1) == "Error: the server closed the connection: 1001 module exited"
