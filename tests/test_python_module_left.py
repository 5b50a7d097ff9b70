"""Coroutines of modules that do not end when they are told to: the process ends all the same."""

import subprocess
import sys
from pathlib import Path

STUBBORN = """
from contextlib import nullcontext
from types import SimpleNamespace

from stdb.modules.python import steps


class Cancelled(BaseException):
    pass


async def stubborn(waits):
    while True:
        try:
            await waits.sleep(1)
        except BaseException:
            pass


async def sleep(seconds):
    await steps._Never()


host = SimpleNamespace(cancelled=Cancelled, running=lambda: nullcontext(SimpleNamespace(expired=False)), sleep=sleep)
waits = steps.Waits(host)
running = steps.Steps(stubborn(waits), waits, SimpleNamespace(function=""), "stubborn").__await__()
next(running)
try:
    for _ in range(steps.WAITS_MAX + 1):
        running.throw(Cancelled())
except Cancelled:
    assert steps._left, "it was left where it is"
    print("left")
"""


def test_a_process_ends_although_a_coroutine_of_it_never_does() -> None:
    ended = subprocess.run([sys.executable, "-c", STUBBORN], capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout) == (0, "left\n"), ended.stderr


def test_a_process_ends_although_procedures_of_ended_databases_never_do() -> None:
    """Everything they call is gone at its end: a hundred of them, whose databases end in four ways."""
    tests = "tests/test_actors_procedures_faults.py::test_a_hundred_procedures_end_with_their_database"
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", tests],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
