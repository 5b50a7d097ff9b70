"""Every example of docs/modules.md does what the page says, and type checkers accept it."""

import os
import re
import shlex
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli_harness import own_place, run
from tests.interop.npm import ROOT
from tests.interop.processes import Server, serve
from tests.test_python_module_typing import mypy, pyright

WAIT_SECONDS = 10.0


class Example(NamedTuple):
    """A module and what is typed in a terminal, each with what is printed."""

    file: str
    source: str
    session: list[tuple[str, str]]


def examples() -> list[Example]:
    """Return the examples of the page in their order."""
    text = (ROOT / "docs/modules.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(# (\w+\.py)\n.*?)```\n\n((?:    [^\n]*\n|\n(?=    ))+)", text, re.DOTALL)
    assert len(blocks) == text.count("```python"), "every module is followed by a session"
    return [Example(file, source, list(commands(session))) for source, file, session in blocks]


def commands(session: str) -> Iterator[tuple[str, str]]:
    """Yield the commands of an indented block, each with the lines below it."""
    lines = [line[4:].rstrip() for line in session.splitlines()]
    for part in re.split(r"^\$ ", "\n".join(lines), flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed.strip("\n")


EXAMPLES = examples()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with own_place(tmp_path_factory.mktemp("home")), serve() as server:
        os.environ["STDB_SERVER"] = server.http
        try:
            yield server
        finally:
            del os.environ["STDB_SERVER"]


def typed(command: str, server: Server, directory: Path) -> str:
    """Return what a command prints; of a failure, what it says first."""
    words = shlex.split(command)
    if words[0] == "curl":
        return curl(words[1:], server)
    assert words[:3] == ["python", "-m", "stdb"], command
    ran = run(*(str(directory / word) if word.endswith(".py") else word for word in words[3:]))
    if words[3] == "publish" and ran.code == 0:
        assert re.search("^(Created new|Updated) database", ran.out, re.MULTILINE), ran
        return ""
    printed = ran.out if ran.code == 0 else ran.err.partition("\n\n")[0]
    return "\n".join(line.rstrip() for line in printed.splitlines()).strip("\n")


def curl(words: list[str], server: Server) -> str:
    """Return what `curl [-d TEXT] URL` prints."""
    url = words[-1].replace("http://localhost:3000", server.http)
    body = words[1].encode() if words[0] == "-d" else None
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=WAIT_SECONDS) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.file)
def test_an_example_does_what_the_page_says(example: Example, server: Server, tmp_path: Path) -> None:
    (tmp_path / example.file).write_text(example.source)
    may_take_long = False
    for command, printed in example.session:
        if command.startswith("sleep "):
            may_take_long = True
            continue
        end = time.monotonic() + (WAIT_SECONDS if may_take_long else 0)
        while (shown := typed(command, server, tmp_path)) != printed and time.monotonic() < end:
            time.sleep(0.02)
        assert shown == printed, command


def test_mypy_accepts_every_example(tmp_path: Path) -> None:
    assert mypy(*files(tmp_path)) == []


@pytest.mark.slow
def test_pyright_accepts_every_example(tmp_path: Path) -> None:
    own = tmp_path / "sources"
    own.mkdir()
    checked = tmp_path / "checked"
    checked.mkdir()
    assert pyright(checked, *files(own)) == []


def files(directory: Path) -> list[Path]:
    for example in EXAMPLES:
        (directory / example.file).write_text(example.source)
    return [directory / example.file for example in EXAMPLES]
