"""The example of docs/migrations.md does what the page says, and type checkers accept it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_harness import run
from tests.interop.npm import ROOT
from tests.interop.processes import Server
from tests.test_docs_modules import commands, server, typed
from tests.test_python_module_typing import mypy

__all__ = ["server"]

TEXT = (ROOT / "docs/migrations.md").read_text("utf-8")
VERSIONS = re.findall(r"```python\n(.*?)```\n\n((?:    [^\n]*\n|\n(?=    ))+)", TEXT, re.DOTALL)


def steps() -> Iterator[tuple[str, str, str]]:
    """Yield each command with the module as it is then and what is printed."""
    for source, session in VERSIONS:
        for command, printed in commands(session):
            yield source, command, printed


def test_the_example_does_what_the_page_says(server: Server, tmp_path: Path) -> None:
    assert len(VERSIONS) == TEXT.count("```python") == 2
    path = tmp_path / "people.py"
    for source, command, printed in steps():
        path.write_text(source)
        if "--break-clients" in command:
            ran = run("publish", "-p", str(path), "people", "--break-clients")
            assert (ran.code, ran.err) == (0, "")
            assert "▸ Migrated table person by @migrate function person (people.py:" in ran.out
            again = run("publish", "-p", str(path), "people")
            assert again.code == 0
            assert "▸" not in again.out
        else:
            assert typed(command, server, tmp_path) == printed, command


@pytest.mark.parametrize("version", [0, 1])
def test_mypy_accepts_the_example(version: int, tmp_path: Path) -> None:
    path = tmp_path / "people.py"
    path.write_text(VERSIONS[version][0])
    assert mypy(path) == []
