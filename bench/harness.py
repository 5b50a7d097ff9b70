"""What every benchmark needs: two processes on two cores, CPU time of the server, figures with their spread.

The server runs on core 0, the load generator (this process) on the last core. A figure is work per second of the
server's CPU time, and beside it per second on the wall.
"""

import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

ROOT = Path(__file__).parent.parent
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
START_SECONDS_MAX = 30

Measure: TypeAlias = Callable[[], tuple[float, float, float]]
"""One measurement: (work, server CPU seconds, wall seconds)."""


class Effort(NamedTuple):
    """How long to measure, how often, and whether what is measured should be small: then only its working counts."""

    seconds: float
    rounds: int
    is_quick: bool = False


QUICK = Effort(0.3, 1, is_quick=True)


@dataclass
class Series:
    """Figures of one side, a pair a round: per server CPU second, per wall second."""

    per_cpu: list[float] = field(default_factory=list)
    per_wall: list[float] = field(default_factory=list)

    def add(self, work: float, cpu_seconds: float, wall_seconds: float) -> None:
        self.per_cpu.append(work / max(cpu_seconds, 1 / TICKS_PER_SECOND))
        self.per_wall.append(work / wall_seconds)


@dataclass
class Report:
    """One measured quantity beside its ceiling (None where there is none to compare with)."""

    name: str
    unit: str
    ours: Series
    ceiling: Series | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    headline: tuple[float, float, str] | None = None
    """What the last line compares instead: a time of ours, the ceiling's, their unit."""
    against: str = "ceiling"
    """What the other side is."""

    def line(self) -> str:
        if self.headline is not None:
            ours, ceiling, unit = self.headline
            return f"{self.name}: {ours:,.2f} {unit}; {self.against} {ceiling:,.2f}; ratio {ours / ceiling:.2f}"
        value = statistics.median(self.ours.per_cpu)
        text = f"{self.name}: {value:,.0f} {self.unit}"
        if self.ceiling is None:
            return text
        ceiling = statistics.median(self.ceiling.per_cpu)
        return f"{text}; {self.against} {ceiling:,.0f}; ratio {value / ceiling:.2f}"

    def details(self) -> str:
        lines = [f"{self.name} ({self.unit})"]
        for side, series in (("ours", self.ours), (self.against, self.ceiling)):
            if series is not None and series.per_cpu:
                cpu, wall = _spread(series.per_cpu), _spread(series.per_wall)
                lines.append(f"  {side:8} per server CPU second {cpu}   per wall second {wall}")
        lines += [f"  {key}: {value}" for key, value in self.extra.items()]
        return "\n".join(lines)

    def document(self) -> dict[str, Any]:
        sides = {"ours": self.ours, self.against: self.ceiling}
        figures = {
            side: {"per_cpu_second": series.per_cpu, "per_wall_second": series.per_wall}
            for side, series in sides.items()
            if series is not None
        }
        return {"name": self.name, "unit": self.unit, **figures, **self.extra}


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def prepare_generator() -> None:
    """Raise the soft file limit and move this process to the last core."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {(os.cpu_count() or 1) - 1})


def cpu_seconds(pid: int) -> float:
    """Return the CPU time a process has used, all threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


@dataclass
class Process:
    """A server process and where it listens."""

    process: "subprocess.Popen[str]"
    port: int

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.process.pid)


@contextmanager
def server_process(command: Sequence[str]) -> Iterator[Process]:
    """Run a server on core 0; it must print `listening on HOST:PORT`."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        preexec_fn=_to_core_0,
    )
    try:
        yield Process(process, _port(process))
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()


def _to_core_0() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {0})


def _port(process: "subprocess.Popen[str]") -> int:
    end = time.monotonic() + START_SECONDS_MAX
    assert process.stdout is not None
    while time.monotonic() < end:
        line = process.stdout.readline()
        if match := re.search(r"listening on \S*:(\d+)", line):
            return int(match.group(1))
        if not line:
            raise RuntimeError(f"the server ended with {process.wait()} before it listened")
    raise RuntimeError("the server did not listen in time")


_CONFIG = """[websocket]
idle-timeout = "1h"
"""
"""A side that waits for its turn answers no pings."""


@contextmanager
def stdb_process(*arguments: str, program: str = "stdb") -> Iterator[Process]:
    """Run our own server on a data directory that is removed afterwards; `program` is a twin of `stdb`."""
    with tempfile.TemporaryDirectory() as data:
        Path(data, "config.toml").write_text(_CONFIG)
        listen = ["--listen-addr", "127.0.0.1:0", "--data-dir", data]
        with server_process(["-m", program, "serve", *listen, *arguments]) as process:
            yield process


def in_process(function: Callable[..., object], inputs: Sequence[object], seconds: float, work: float = 1) -> Measure:
    """Return a measurement in this process: calls with every input in turn until the time is over, `work` each."""

    def measure() -> tuple[float, float, float]:
        done, cpu, start = 0, time.process_time(), time.perf_counter()
        while time.perf_counter() - start < seconds:
            for value in inputs:
                function(value)
            done += len(inputs)
        return done * work, time.process_time() - cpu, time.perf_counter() - start

    return measure


def alternate(rounds: int, sides: dict[str, Measure]) -> dict[str, Series]:
    """Measure the sides in turn. The first round warms up."""
    series = {name: Series() for name in sides}
    for round_ in range(rounds + 1):
        for name, measure in sides.items():
            figures = measure()
            if round_:
                series[name].add(*figures)
    return series
