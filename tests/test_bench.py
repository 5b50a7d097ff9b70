"""Every benchmark runs, verifies what it measured, and ends with the line that is compared."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import BENCHMARKS

pytestmark = pytest.mark.slow

FLAT_BELOW = 5
"""How many times a cost may grow that must not grow: measured at 10 times the rows, 1,000 times the queries."""
SLEEPERS_COST_MAX = 3
"""How many times as long a call may take beside 1,000 sleeping procedures; measured: 1.0, on a busy machine 1.4."""
ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs_to_its_last_line(name: str, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench", name, "--quick", "--json", str(figures)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reports = json.loads(figures.read_text())
    line = rf"{name}[\w =.]*: [\d.,]+ [^;]+; [\w ,]+ [\d.,]+; ratio \d+\.\d+"
    for last in done.stdout.splitlines()[-len(reports) :]:
        assert re.fullmatch(line, last), done.stdout
    if name == "world":
        assert "dropped clients: 0" in done.stdout
    if name == "sleepers":
        assert all(report["p50_ratio"] < SLEEPERS_COST_MAX for report in reports), reports
    if name == "subscriptions":
        for report in reports:
            for micros in (report.get("µs by rows", {}), report.get("µs by queries", {})):
                assert all(each < FLAT_BELOW * min(micros.values()) for each in micros.values()), report
