"""What README and docs/ say is true: code loads, commands parse, files exist."""

import re
import shlex
from pathlib import Path

import pytest

from stdb.cli.main import build_parser
from stdb.modules.python.loader import load

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text()


def commands(text: str) -> list[str]:
    """Return every `python -m stdb …` line of indented blocks, up to a pipe."""
    return re.findall(r"^    .*?(?:python|python3|bin/python) -m stdb ([^|\n]+?)(?: \|.*)?$", text, re.MULTILINE)


def test_the_module_in_the_readme_loads() -> None:
    (source,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    module = load({"chat.py": source.encode()})
    assert [table.name for table in module.definition.tables] == ["message"]
    assert [reducer.name for reducer in module.definition.reducers] == ["send_message"]


@pytest.mark.parametrize("command", commands("\n".join(path.read_text() for path in DOCUMENTS)))
def test_every_command_that_is_shown_parses(command: str) -> None:
    build_parser().parse_args(shlex.split(command.split("  #")[0]))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(path: Path) -> None:
    named = re.findall(r"`((?:stdb|docs|examples|bench|tests)/[\w./]+)`", path.read_text())
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing, f"{path.name} names {missing}"
