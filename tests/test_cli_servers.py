"""Saved servers: the commands `server …` do what the recorded runs of the official command line did."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stdb.storage.data_directory import DataDirectory
from tests.cli_harness import RECORDED, Place, own_place, run
from tests.interop.processes import Server, serve

pytestmark = pytest.mark.slow  # servers of their own

UNSTABLE = "WARNING: This command is UNSTABLE and subject to breaking changes.\n\n"
FIRST = """\
default_server = "maincloud"

[[server_configs]]
nickname = "maincloud"
host = "maincloud.spacetimedb.com"
protocol = "https"

[[server_configs]]
nickname = "local"
host = "127.0.0.1:3000"
protocol = "http"
"""
"""The file that the recorded runs began with."""
PEM = re.compile(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
PANICKED = 101
OTHERWISE = {18: "the official one panics", 19: "advice follows", 20: "its command lacks the nickname"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with own_place(tmp_path_factory.mktemp("home")), serve() as server:
        yield server


@pytest.fixture
def place(server: Server, tmp_path: Path) -> Iterator[Place]:
    with own_place(tmp_path) as place:
        place.cli_toml.parent.mkdir(parents=True)
        place.cli_toml.write_text(FIRST)
        yield place


def comparable(text: str) -> str:
    """Blank keys, and the widths of columns, which depend on the port."""
    return re.sub(r" +", " ", PEM.sub("<PEM>", text))


def told(text: str) -> str:
    """Return what is said of an error before its causes, which name the parts of an HTTP client, and before advice."""
    return re.split(r"\n\n(?=Caused by|Known servers|A server's)", text)[0].rstrip("\n")


def test_saved_servers_are_listed_added_changed_and_removed_as_recorded(server: Server, place: Place) -> None:
    def ours(text: str) -> str:
        text = text.removeprefix(UNSTABLE).replace("127.0.0.1:3105", server.address)
        text = text.replace("<root>/config/cli.toml", str(place.cli_toml))
        return text.replace("spacetime server", "python -m stdb server")

    for index in range(14, 40):
        entry: dict[str, Any] = RECORDED[index]
        code, out, err = run(*map(ours, entry["args"]), stdin=entry.get("stdin", ""))
        assert code == (1 if entry["exit"] == PANICKED else entry["exit"]), (index, err)
        if code == 2 or index in OTHERWISE:
            assert out == "", index
            assert err, index
            continue
        assert comparable(out) == comparable(ours(entry.get("stdout", ""))), index
        assert told(err) == told(ours(entry.get("stderr", ""))), index
    assert PEM.sub("<PEM>", place.cli_toml.read_text()) == ours(RECORDED[40]["content"])


def test_a_server_that_does_not_answer_is_not_saved_without_the_word(place: Place) -> None:
    code, out, err = run("server", "add", "--url", "http://127.0.0.1:1", "dead")
    assert (code, out) == (1, "")
    assert err.startswith(
        "Error: Unable to retrieve fingerprint for server: http://127.0.0.1:1\nIs the server running?\n"
        "Add a server without retrieving its fingerprint with:\n"
        "\tpython -m stdb server add --url http://127.0.0.1:1 dead --no-fingerprint\n\nCaused by:\n"
        "    0: error sending request for url (http://127.0.0.1:1/v1/identity/public-key)\n    1: "
    )
    assert place.cli_toml.read_text() == FIRST


@pytest.mark.parametrize("url", ["ftp://x", "127.0.0.1:1", "http://", "http://h/path"])
def test_what_is_no_url_of_a_server_is_said(place: Place, url: str) -> None:
    assert run("server", "add", "--url", url, "x", "--no-fingerprint") == (
        1,
        "",
        f"Error: Invalid url: {url}\n\nA server's URL is http://HOST:PORT or https://HOST.\n",
    )


def test_a_host_is_saved_once(server: Server, place: Place) -> None:
    assert run("server", "add", "--url", server.http, "here", "-d").code == 0
    assert 'default_server = "here"' in place.cli_toml.read_text()
    again = run("server", "add", "--url", server.http, "there")
    assert again == (1, "", f"Error: Server host {server.address} is already saved as here: {server.http}\n")
    moved = run("server", "edit", "local", "--url", server.http, "-y")
    assert (moved.code, moved.err) == (1, f"Error: Server here has this nickname or host already: {server.http}\n")


def test_the_default_server_stays_the_default_when_it_is_renamed_and_is_none_when_it_is_removed(place: Place) -> None:
    assert run("server", "set-default", "local").code == 0
    assert run("server", "edit", "local", "--new-name", "home", "-y").code == 0
    assert run("list").err.startswith("Error: error sending request for url (http://127.0.0.1:3000/")
    code, out, _ = run("server", "remove", "home")
    assert code == 0
    assert out == "home was the default server; `python -m stdb server set-default SERVER` chooses another.\n"
    assert run("list").err.startswith("Error: No default server configuration.")
    assert run("server", "set-default", "maincloud").code == 0
    assert place.cli_toml.read_text().splitlines()[0] == 'default_server = "maincloud"'


def test_a_server_without_a_nickname_is_not_the_default_where_there_is_none(place: Place) -> None:
    place.cli_toml.write_text('[[server_configs]]\nhost = "127.0.0.1:3000"\nprotocol = "http"\n')
    assert "***" not in run("server", "list").out
    assert run("server", "remove", "127.0.0.1:3000", "-y").out == ""


def test_a_change_needs_a_yes(place: Place) -> None:
    code, out, err = run("server", "edit", "local", "--new-name", "home", stdin="n\n")
    assert (code, out, err) == (1, "Changing nickname from local to home\nContinue? [y/N]", "Error: Aborted\n")
    assert place.cli_toml.read_text() == FIRST


def test_another_key_of_a_server_is_shown_beside_the_saved_one(server: Server, place: Place, tmp_path: Path) -> None:
    assert run("server", "add", "--url", server.http, "here").code == 0
    saved = place.cli_toml.read_text()
    place.cli_toml.write_text(PEM.sub("another key", saved))
    code, out, _ = run("server", "fingerprint", "here", stdin="y\n")
    assert code == 0
    told = "Fingerprint has changed for server here. Saved fingerprint:\nanother key\n\nNew fingerprint:\n-"
    assert out.startswith(told)
    assert place.cli_toml.read_text() == saved


def test_a_data_directory_is_deleted_after_a_question_while_no_server_runs(place: Place, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with DataDirectory(data):
        busy = run("server", "clear", "--data-dir", str(data), "-y")
    assert busy.code == 1
    assert busy.err.startswith(f"Error: another stdb server runs in {data}")
    question = f"Database path: {data}\nAre you sure you want to delete all data from the local database? [y/N]"
    assert run("server", "clear", "--data-dir", str(data), stdin="n\n") == (0, f"{question}Aborting\n", "")
    assert data.exists()
    assert run("server", "clear", "--data-dir", str(data), "-y") == (
        RECORDED[272]["exit"],
        RECORDED[272]["stdout"].replace("<tmp>/data-http-x", str(data)),
        "",
    )
    assert not data.exists()


def test_what_is_no_data_directory_is_not_deleted(place: Place, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    code, out, err = run("server", "clear", "--data-dir", str(tmp_path / "photos"), "-y")
    assert (code, out) == (1, "")
    assert err.startswith(f"Error: {tmp_path / 'photos'} is no data directory of stdb.")
    assert (tmp_path / "photos").exists()
