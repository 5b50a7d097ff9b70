"""Every benchmark runs, verifies what it measured, and ends with the line that is compared."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import BENCHMARKS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs_to_its_last_line(name: str, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench", name, "--seconds", "0.3", "--rounds", "1", "--json", str(figures)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    ceiling = r"; ceiling [\d.,]+; ratio \d+\.\d+"
    assert re.fullmatch(rf"{name}[\w =]*: [\d.,]+ [^;]+{ceiling}", last), done.stdout
    if name == "world":
        assert "dropped clients: 0" in done.stdout
    assert json.loads(figures.read_text())
