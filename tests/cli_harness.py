"""The command line in tests: commands run in this process, against a server of a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stdb.cli.main import main
from tests.interop.npm import ROOT
from tests.interop.processes import Lines, Server, serve

__all__ = [
    "KITCHEN",
    "RECORDED",
    "SHOP",
    "Place",
    "Ran",
    "ok",
    "own_place",
    "refused",
    "run",
    "serve_kitchen",
    "started",
]

KITCHEN = Path(__file__).parent / "cli_kitchen.py"
SHOP = Path(__file__).parent / "archive_shop.py"
RECORDED: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "vectors/recorded_cli/commands.json").read_text("utf-8")
)["commands"]
HOMES = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME")


class Ran(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


def run(*arguments: str, stdin: str = "") -> Ran:
    """Run a command in this process."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setattr(sys, "stdin", StringIO(stdin))
        try:
            code = main(arguments)
        except SystemExit as end:  # argparse ends so
            code = int(end.code or 0)
    return Ran(code, out.getvalue(), err.getvalue())


def ok(server: Server, *arguments: str) -> str:
    """Run a command that must work; return what it printed."""
    code, out, err = run(*arguments, "--server", server.http)
    assert (code, err) == (0, ""), (out, err)
    return out


def refused(server: Server, *arguments: str) -> str:
    """Run a command that must be refused; return what it said on stderr."""
    code, out, err = run(*arguments, "--server", server.http)
    assert (code, out) == (1, ""), out
    return err


class Place(NamedTuple):
    """A user's home."""

    path: Path

    @property
    def cli_toml(self) -> Path:
        """Where the command line keeps its file."""
        return self.path / "XDG_CONFIG_HOME/stdb/cli.toml"


@contextmanager
def own_place(path: Path) -> Iterator[Place]:
    """Let commands and servers have no files but below `path` for a while."""
    with pytest.MonkeyPatch.context() as patch:
        for name in HOMES:
            patch.setenv(name, str(path / name))
        patch.delenv("STDB_SERVER", raising=False)
        patch.setenv("HOME", str(path))
        yield Place(path)


@contextmanager
def serve_kitchen(name: str) -> Iterator[Server]:
    """Run a server with the kitchen published; it finds its homes in the environment."""
    with serve("--publish", f"{KITCHEN}={name}") as server:
        yield server


@contextmanager
def started(*arguments: str) -> Iterator[tuple["subprocess.Popen[str]", Lines]]:
    """Run a command in a process of its own for a while, with what it prints, errors too."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stdb", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    lines = Lines(process.stdout)
    try:
        yield process, lines
    finally:
        process.kill()
        process.wait()
        lines.join()
