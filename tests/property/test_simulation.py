"""The whole server in one deterministic process holds every invariant of spec 07 section 12, and bugs are found."""

import ast
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.property.simulation.invariants import INVARIANTS
from tests.property.simulation.mutations import MUTATIONS
from tests.property.simulation.simulation import simulate

PACKAGE = Path(__file__).parent / "simulation"
SEEDS = range(12)
"""Played in every run of the tests, whatever the machine; others follow until the time is over."""
SECONDS = float(os.environ.get("STDB_SIMULATION_SECONDS", "40"))
QUICK = {
    "a join does not tell what it no longer returns",
    "confirmed clients are told before it is durable",
    "a record is replayed twice",
    "a rollback leaves an index as it is",
    "who was connected at a crash is never disconnected",
}
"""Planted bugs that every run looks for; `./check --all` looks for all."""


@pytest.mark.slow
def test_every_invariant_holds_and_is_checked() -> None:
    counts: Counter[str] = Counter()
    stop_at = time.monotonic() + SECONDS
    seed = 0
    while seed < len(SEEDS) or time.monotonic() < stop_at:
        outcome = simulate(seed)
        if outcome.error is not None:
            again = f"seed {seed} fails: python -m tests.property.simulation --seed {seed}"
            raise AssertionError(f"{again}\n" + "\n".join(outcome.trace[-20:])) from outcome.error
        counts += outcome.counts
        seed += 1
    assert [name for name in INVARIANTS if not counts[name]] == []


def test_each_invariant_is_checked_where_the_table_says() -> None:
    found: dict[str, set[str]] = {name: set() for name in INVARIANTS}
    for path in PACKAGE.glob("*.py"):
        if path.stem == "invariants":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in found:
                found[str(node.value)].add(path.stem)
    missing = {name: set(each.checked_in) - found[name] for name, each in INVARIANTS.items()}
    assert {name: modules for name, modules in missing.items() if modules} == {}
    assert list(INVARIANTS) == [f"I{number}" for number in range(1, 33)]


def test_a_seed_played_twice_gives_the_same_trace() -> None:
    first, second = simulate(3), simulate(3)
    assert first.error is None
    assert first.trace == second.trace
    assert first.digest == second.digest
    assert len(first.trace) > 50


@pytest.mark.slow
def test_another_process_gives_the_same_trace() -> None:
    digests = set()
    for hash_seed in ("1", "2"):
        ran = subprocess.run(
            [sys.executable, "-m", "tests.property.simulation", "--seed", "3"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=PACKAGE.parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(ran.stdout.splitlines()[-1])
    assert digests == {f"digest {simulate(3).digest}"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(each, marks=[pytest.mark.slow] if each in QUICK else [pytest.mark.long, pytest.mark.slow])
        for each in MUTATIONS
    ],
)
def test_a_planted_bug_is_found(name: str) -> None:
    mutation = MUTATIONS[name]
    with mutation.planted():
        outcomes = (simulate(seed) for seed in range(mutation.seeds_max))
        error = next((outcome.error for outcome in outcomes if outcome.error is not None), None)
    assert error is not None, f"not found in {mutation.seeds_max} seeds: {name}"
    misfits = [each for each in _causes(error) if isinstance(each, TypeError | AttributeError | NameError)]
    assert misfits == [], "the bug no longer fits what it is planted in, and that is what was found"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those behind it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
