"""What docs/testing.md shows runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # pytest in a process of its own

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "testing.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_tests_that_are_shown_pass(tmp_path: Path) -> None:
    first, machine, in_trio = BLOCKS
    in_trio = in_trio.replace("trio.run(test_chat, clock=VirtualClock())", "").replace(
        "async def test_chat", "async def chat_"
    )
    source = f"{first}\n{machine}\nimport trio\nfrom stdb.testing import AsyncTestHost, VirtualClock\n{in_trio}\n"
    source += "def test_in_trio():\n    trio.run(chat_, clock=VirtualClock())\n"
    path = tmp_path / "test_shown.py"
    path.write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "stdb.testing.plugin", str(path)]
    paths = f"{ROOT}:{ROOT / 'examples'}"
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": paths}, capture_output=True, text=True, timeout=120, check=False
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_the_calls_that_are_named_exist() -> None:
    from stdb.testing import Client, TestHost

    for owner, names in (("host", TestHost), ("alice", Client)):
        for name in re.findall(rf"`[^`]*\b{owner}\.(\w+)", TEXT):
            assert hasattr(names, name), f"{owner}.{name}"
