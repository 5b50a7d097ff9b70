"""What a newcomer meets: each mistake is answered with what is wrong, where, and what to do."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from stdb.cli.api import _what_to_check
from stdb.cli.config import Server as Address
from stdb.cli.interactive import duration_text
from stdb.cli.pointing import pointed
from tests.cli_harness import RECORDED, own_place, run, serve_kitchen
from tests.interop.processes import Server

UNSTABLE = "WARNING: This command is UNSTABLE and subject to breaking changes.\n\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with own_place(tmp_path_factory.mktemp("home")), serve_kitchen("kitchen") as server:
        yield server


def mistake(server: Server, *arguments: str) -> str:
    """Run what is a mistake; return what is said."""
    code, out, err = run(*arguments, "-s", server.http)
    assert (code, out) == (1, ""), err
    return err


# --------------------------------------------------------------------------------------------------- servers
@pytest.mark.parametrize(
    "command",
    [
        ("call", "chat", "send"),
        ("sql", "chat", "select 1"),
        ("logs", "chat"),
        ("subscribe", "chat", "select * from t"),
        ("describe", "chat", "--json"),
        ("server", "ping"),
    ],
    ids=lambda command: command[0],
)
def test_a_server_that_does_not_run_is_told_how_it_is_started(command: tuple[str, ...], tmp_path: Path) -> None:
    with own_place(tmp_path):
        where = ("http://127.0.0.1:1",) if command[0] == "server" else ("-s", "http://127.0.0.1:1")
        code, out, err = run(*command, *where)
    assert (code, out) == (1, "")
    assert err.startswith("Error: error sending request for url (http://127.0.0.1:1/v1/")
    assert err.endswith("Is a server running there? `python -m stdb serve -l 127.0.0.1:1` starts one.\n")


@contextmanager
def somebody_else(status: int) -> Iterator[str]:
    """Run an HTTP server that is no stdb."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


def test_a_server_of_another_kind_is_told_apart_from_one_without_the_database(tmp_path: Path) -> None:
    with own_place(tmp_path), somebody_else(404) as url:
        code, _, err = run("sql", "--anonymous", "chat", "select 1", "-s", url)
        assert (code, err) == (
            1,
            f"Error: failed to find database `chat`.\n\n{url} answers, but not as a server of stdb's kind: "
            "is --server right?\n",
        )
        assert run("server", "ping", url).out == f"Server returned 404 (Not Found): {url}\n"
        added = run("server", "add", "--url", url, "other")
        assert f"{url}/v1/identity/public-key answered no public key; is it a server of stdb's kind?" in added.err
    with own_place(tmp_path), somebody_else(503) as url:
        assert run("server", "ping", url).out == f"Server could not be reached (503 Service Unavailable): {url}\n"


def test_what_speaks_no_http_is_said(tmp_path: Path) -> None:
    with own_place(tmp_path), socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"\x15\x03\x01 who are you?\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        code, _, err = run("server", "ping", f"http://127.0.0.1:{port}")
        thread.join()
    assert code == 1
    assert err.endswith(f"Is http right? Try --server https://127.0.0.1:{port}\n")


@pytest.mark.parametrize(
    ("error", "host", "protocol", "advice"),
    [
        (
            httpx.ConnectError("[Errno -2] Name or service not known"),
            "far:1",
            "http",
            "Is the address right, and a server",
        ),
        (
            httpx.ConnectError("[SSL: WRONG_VERSION_NUMBER]"),
            "far:1",
            "https",
            "Is https right? Try --server http://",
        ),
        (httpx.ReadTimeout("timed out"), "far:1", "http", "http://far:1 did not answer in time"),
        (httpx.ReadError(""), "far:1", "http", None),
    ],
)
def test_requests_without_an_answer_have_advice(
    error: httpx.HTTPError, host: str, protocol: str, advice: str | None
) -> None:
    told = _what_to_check(error, Address(None, host, protocol))
    assert told is None if advice is None else (told or "").startswith(advice)


# --------------------------------------------------------------------------------------------------- names
@pytest.mark.parametrize(
    "command", [("call", "chess", "move"), ("sql", "chess", "select 1"), ("logs", "chess"), ("delete", "chess")]
)
def test_an_unknown_database_is_told_where_it_was_looked_for(server: Server, command: tuple[str, ...]) -> None:
    assert mistake(server, *command) == (
        "Error: failed to find database `chess`.\n\n"
        f"There is none of that name at {server.http}: `python -m stdb list` shows yours there, and --server names "
        "another server.\n"
    )


def test_a_name_that_no_database_can_have_is_told_so(server: Server) -> None:
    assert mistake(server, "sql", "My_Chat", "select 1") == (
        "Error: failed to find database `My_Chat`.\n\nNo database can have this name: invalid characters in database "
        "name. A name is made of a-z, 0-9 and single hyphens between them.\n"
    )


def test_a_database_gets_another_name_as_recorded(server: Server) -> None:
    assert run("publish", "-p", "examples/quickstart_chat", "shop", "-s", server.http).code == 0
    published = run("publish", "-p", "examples/quickstart_chat", "chat", "-s", server.http).out
    found = re.search(r"c200[0-9a-f]{60}", published)
    assert found is not None
    for index in (226, 227, 228, 229, 230):
        entry = RECORDED[index]

        def ours(text: str) -> str:
            text = text.replace("<db:cli-kitchen>", found[0]).replace("probe", server.http)
            return text.replace("http://127.0.0.1:3105", server.http)

        result = run(*map(ours, entry["args"]))
        assert result == (entry["exit"], ours(entry.get("stdout", "")), ours(entry.get("stderr", ""))), index


def test_only_the_owner_gives_another_name(server: Server, tmp_path: Path) -> None:
    with own_place(tmp_path):
        code, out, err = run("rename", "kitchen", "--to", "mine", "-s", server.http)
    assert (code, out) == (1, "")
    assert "\nError: The database is not yours: its owner may rename it.\n" in err


# --------------------------------------------------------------------------------------------------- calls
def test_too_few_and_wrong_arguments_are_told_the_signature(server: Server) -> None:
    signature = "The reducer has the following signature:\n\ttake_two(first: u32, second: String)\n"
    for arguments in ((), ("1",), ("true", "a"), ("-1", "a")):
        err = mistake(server, "call", "kitchen", "take_two", *arguments)
        assert err.startswith("Error: Invalid arguments provided for reducer `take_two` for database `kitchen`")
        assert signature in err
        assert "Response text: invalid arguments for reducer take_two: " in err
        assert err.endswith("/call/take_two)\n")


def test_an_argument_that_is_no_json_is_named(server: Server) -> None:
    assert mistake(server, "call", "kitchen", "take_two", "x", "a").endswith(
        "\n\n`x`, given for first, is no JSON. Examples are 5, true, '[1, 2]' for lists, "
        """'{"x": 1}' for structs, '{"some": 1}' or null for options.\n"""
    )


def test_a_mistyped_function_is_guessed(server: Server) -> None:
    assert "A reducer with a similar name exists: `take_two`" in mistake(server, "call", "kitchen", "taketwo", "1")


# --------------------------------------------------------------------------------------------------- SQL
@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("selec * from plain", "    selec * from plain\n    ^^^^^"),
        ("select * from plan", "    select * from plan\n                  ^^^^"),
        ("select * from plain\n where c = 1", "     where c = 1\n           ^"),
        (
            "select * from plain where a = 'x'",
            "    select * from plain where a = 'x'\n                                   ^",
        ),
    ],
)
def test_a_mistake_in_a_statement_has_a_caret_below_it(server: Server, query: str, place: str) -> None:
    err = mistake(server, "sql", "kitchen", query)
    assert err.startswith("Error: ")
    assert "(400 Bad Request) for url (" in err
    assert err.endswith(f"\n\n{place}\n")


@pytest.mark.parametrize(
    ("text", "error", "place"),
    [
        ("a a", "`a` is not in scope", None),
        ("a aa a_", "`a` is not in scope", "    a aa a_\n    ^"),
        ("", "Empty SQL query", None),
        ("x", "found: EOF at Line: 1, Column 2", "    x\n     ^"),
        ("x", "at Line: 9, Column 1", None),
        ("x", "at Line: 1, Column 9", None),
        ("a\n\tb", "at Line: 2, Column 2", "     b\n     ^"),
        ("x" * 200 + " b", "`b` is not in scope", f"    {'x' * 49} b\n    {' ' * 50}^"),
    ],
)
def test_a_place_is_shown_where_it_is_certain(text: str, error: str, place: str | None) -> None:
    assert pointed(text, error) == place


# --------------------------------------------------------------------------------------------------- typed statements
MEASURED = re.compile(r"\d+\.\d\d(µs|ms|s)(?=\]|\n)")


def test_statements_typed_one_after_the_other_are_answered_as_recorded(server: Server) -> None:
    for a, b in ((1, 1), (1, 2), (2, 2), (51, 50)):
        run("sql", "kitchen", f"delete from plain where a = {a} and b = {b}", "-s", server.http)
        assert run("sql", "kitchen", f"insert into plain (a, b) values ({a}, {b})", "-s", server.http).code == 0

    def ours(index: int) -> str:
        text = RECORDED[index]["stdout"].replace("cli-kitchen", "kitchen")
        return MEASURED.sub("T", re.sub(r"│ (Give us|   https|   {40}).*\n", "", text))

    ran = run("sql", "kitchen", "--interactive", "-s", server.http, stdin=RECORDED[191]["stdin"])
    told = RECORDED[191]["stderr"].removeprefix(UNSTABLE).removeprefix("No previous history.\n").splitlines()
    assert (ran.code, MEASURED.sub("T", ran.out)) == (0, ours(191))
    assert [line for line in ran.err.splitlines() if line.startswith("sql parser error")] == told
    assert "    selec\n    ^^^^^\n" in ran.err
    ran = run("sql", "kitchen", "--interactive", "-s", server.http, stdin="\n.clear\n")
    assert ran.code == 0
    assert ran.out == ours(192).replace("🪐kitchen>\nAborted!", "🪐kitchen>" * 2 + "\x1b[H\x1b[2J🪐kitchen>\nAborted!")


@pytest.mark.parametrize(
    ("micros", "text"), [(0, "0.00µs"), (483, "483.00µs"), (2566, "2.57ms"), (1e6, "1.00s"), (999.5, "999.50µs")]
)
def test_durations_are_as_rust_prints_them(micros: float, text: str) -> None:
    assert duration_text(micros) == text
