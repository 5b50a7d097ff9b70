"""The command `logs`: what a module printed and logged."""

import argparse
import json
from datetime import UTC, datetime
from typing import Any

from stdb.cli.api import Api
from stdb.cli.parser_queries import LEVELS

__all__ = ["log_line", "logs"]


HOST = "__spacetimedb__"
LINES_WHEN_FOLLOWING = 10


def logs(api: Api, options: argparse.Namespace) -> None:
    """Print the last lines, with `--follow` also those that come."""
    identity = api.database(options.database)
    count = options.num_lines
    if count is None and options.follow:
        count = LINES_WHEN_FOLLOWING
    query = {"follow": "true" if options.follow else "false"}
    if count is not None:
        query["num_lines"] = str(count)
    with api.stream("GET", f"/v1/database/{identity}/logs", params=query) as response:
        for line in response.iter_lines():
            if line and _wanted(line, options):
                print(line if options.format == "json" else log_line(json.loads(line)), flush=True)


def _wanted(line: str, options: argparse.Namespace) -> bool:
    if options.level is None:
        return True
    level = LEVELS.index(json.loads(line)["level"].lower())
    wanted = LEVELS.index(options.level)
    return level == wanted if options.level_exact else level >= wanted


def log_line(entry: dict[str, Any]) -> str:
    """Return an entry as one line: time, level, where, message; frames of a trace follow, indented."""
    moment = datetime.fromtimestamp(entry["ts"] / 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    parts = [f"{moment} {entry['level'].upper():>5}:"]
    function, filename = entry.get("function"), entry.get("filename")
    if function and function != HOST:
        parts.append(function if filename and filename != HOST else f"{function}:")
    if filename and filename != HOST:
        line = entry.get("line_number")
        parts.append(f"{filename}:{line}:" if line is not None else f"{filename}:")
    parts.append(entry["message"])
    trace = [f"    in {_frame(frame)}" for frame in entry.get("trace") or ()]
    return "\n".join([" ".join(parts), *trace])


def _frame(frame: dict[str, Any]) -> str:
    return " :: ".join(str(frame[name]) for name in ("module_name", "func_name") if frame.get(name))
