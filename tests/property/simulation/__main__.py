"""Play seeds from the command line: for so many seconds, or one of them with all that happened."""

import argparse
import sys
import time
import traceback
from itertools import count

from tests.property.simulation.simulation import STEPS, simulate


def main() -> int:
    """Return 1 when a seed fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.property.simulation", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to look for a seed that fails")
    parser.add_argument("--first", type=int, default=None, help="the seed to begin with; by default the time")
    parser.add_argument("--seed", type=int, help="play this one, and print what happened")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each person in each life")
    options = parser.parse_args()
    if options.seed is not None:
        outcome = simulate(options.seed, steps=options.steps)
        say("\n".join(outcome.trace), f"digest {outcome.digest}")
        return report(options.seed, options.steps, outcome.error)
    stop_at = time.monotonic() + options.seconds
    first = int(time.time()) if options.first is None else options.first
    for seed in count(first):
        if report(seed, options.steps, simulate(seed, steps=options.steps).error):
            return 1
        if time.monotonic() >= stop_at:
            say(f"simulation: {seed - first + 1} seeds from {first} on, {options.steps} steps each: all is well")
            return 0
    return 0


def say(*lines: str) -> None:
    """Write lines."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def report(seed: int, steps: int, error: BaseException | None) -> int:
    """Print what failed and how to see it again; return 1 if something did."""
    if error is None:
        return 0
    traceback.print_exception(error)
    say(f"seed {seed} fails: python -m tests.property.simulation --seed {seed} --steps {steps}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
