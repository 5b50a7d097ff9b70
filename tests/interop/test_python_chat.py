"""The terminal chat of the examples, run as its docstring says, with the real Python SDK."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.npm import ROOT
from tests.interop.processes import Lines, Server, serve
from tests.interop.python_sdk import bindings, sdk_python

pytestmark = pytest.mark.slow

CHAT = ROOT / "examples" / "quickstart_chat"
CLIENT = CHAT / "python_sdk_client.py"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve("--publish", f"{CHAT}=quickstart-chat") as running:
        yield running


class Person:
    """A running client; its settings are those of `name`."""

    def __init__(self, server: Server, directory: Path, name: str) -> None:
        command = [sdk_python(), CLIENT, "--host", server.address, "--client", name]
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"HOME": str(directory), "PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"},
        )
        self.lines = Lines(self.process.stdout)
        self.identity = self.sees(r"^You are ([0-9a-f]{64})\.$").group(1)

    def sees(self, pattern: str) -> re.Match[str]:
        """Return the first match in what was printed so far, or comes: this SDK does not keep the order of messages."""
        found = (re.search(pattern, line) for line in list(self.lines.seen))
        return next((match for match in found if match), None) or self.lines.until(pattern)

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def leave(self) -> None:
        """End the input, as Ctrl-D does; the program ends by itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(timeout=20) == 0, self.lines.seen
        self.lines.join()


def test_two_people_chat_and_one_comes_back(server: Server, tmp_path: Path) -> None:
    bindings(server, "quickstart-chat", tmp_path / "chat_bindings")
    ann = Person(server, tmp_path, "ann")
    ann.type("/name Ann")
    ann.type("hello")
    ann.sees("^Ann: hello$")
    bob = Person(server, tmp_path, "bob")
    bob.sees("^Ann: hello$")
    ann.sees(f"^{bob.identity[:8]} is here.$")
    bob.type("/name Bob")
    ann.sees(f"^{bob.identity[:8]} is now Bob.$")
    bob.type("   ")
    bob.sees("^Refused: a message must not be empty$")
    bob.type("hé 😀")
    ann.sees("^Bob: hé 😀$")
    bob.leave()
    ann.sees("^Bob has left.$")
    again = Person(server, tmp_path, "bob")
    assert again.identity == bob.identity
    again.sees("^Bob: hé 😀$")
    again.leave()
    ann.leave()


def test_without_bindings_it_says_how_to_make_them(server: Server, tmp_path: Path) -> None:
    done = subprocess.run(
        [sdk_python(), CLIENT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
        env={"HOME": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 1
    assert "generate --lang python --sdk 0.7 -o chat_bindings quickstart-chat" in done.stderr


def test_a_module_published_with_the_client_beside_it_is_the_module_alone(server: Server) -> None:
    described = subprocess.run(
        [sys.executable, "-m", "stdb", "describe", "-s", server.http, "--json", "quickstart-chat"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "XDG_CONFIG_HOME": "/nonexistent"},
        check=True,
    )
    assert '"send_message"' in described.stdout
