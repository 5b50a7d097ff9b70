"""The benchmarks' command line."""

import argparse
import json
import sys
from pathlib import Path

from bench import codec, durability, fanout, keynote, latency, sleepers, subscriptions, timers, wasm, world
from bench.harness import QUICK, Effort, Report

BENCHMARKS = {
    "codec": codec.run,
    "durability": durability.run,
    "fanout": fanout.run,
    "keynote": keynote.run,
    "latency": latency.run,
    "sleepers": sleepers.run,
    "subscriptions": subscriptions.run,
    "timers": timers.run,
    "wasm": wasm.run,
    "world": world.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side, alternating")
    parser.add_argument("--quick", action="store_true", help="small and short: does it work")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    options = parser.parse_args()
    effort = QUICK if options.quick else Effort(options.seconds, options.rounds)
    reports: list[Report] = BENCHMARKS[options.name](effort)
    if options.json:
        options.json.write_text(json.dumps([report.document() for report in reports], indent=1))
    for report in reports:
        print(report.line())
    return 0


if __name__ == "__main__":
    sys.exit(main())
