"""Statements typed one after the other: `sql --interactive`.

Responsible for: the prompt, its history, what is printed below each result (spec 05 section 4.3).
Not responsible for: statements and tables (`sql`).
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stdb.cli.api import Api
from stdb.cli.pointing import pointed
from stdb.cli.sql import result_table, run_statement

__all__ = ["converse", "duration_text"]

HISTORY_NAME = ".stdb.history.txt"
HISTORY_LINES_MAX = 1000
CLEAR_SCREEN = "\x1b[H\x1b[2J"
WIDTH = 58
WORDS = ("exit: Exit the REPL", "clear: Clear the Screen")


def converse(api: Api, identity: str, options: argparse.Namespace) -> None:
    """Run the statements of stdin until `.exit` or its end; an error ends nothing."""
    print("┌" + "─" * WIDTH + "┐")
    for words in WORDS:
        print(f"│ {f'.{words}':<{WIDTH - 2}} │")
    print("└" + "─" * WIDTH + "┘")
    with _history():
        while (text := _read(f"🪐{options.database}>")) is not None and text != ".exit":
            if text == ".clear":
                print(CLEAR_SCREEN, end="")
            elif text:
                _run(api, identity, text, options)


def _read(prompt: str) -> str | None:
    """Return what was typed, or None at its end."""
    try:
        return input(prompt).strip()
    except EOFError:
        print("\nAborted!")
        return None


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Let a user find what was typed before, also in earlier conversations."""
    try:
        import readline
    except ImportError:  # some Pythons are built without
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    path = Path.home() / HISTORY_NAME
    readline.set_history_length(HISTORY_LINES_MAX)
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            readline.write_history_file(path)


def _run(api: Api, identity: str, text: str, options: argparse.Namespace) -> None:
    start = time.monotonic()
    response = run_statement(api, identity, text, options)
    elapsed_us = (time.monotonic() - start) * 1e6
    if response.status_code != 200:
        place = pointed(text, response.text)
        print(response.text if place is None else f"{response.text}\n\n{place}\n", file=sys.stderr)
        return
    for result in json.loads(response.text):
        if table := result_table(result):
            print(table)
        print(_footer(result))
    print(f"Roundtrip time: {duration_text(elapsed_us)}\n")


def _footer(result: dict[str, Any]) -> str:
    count = len(result["rows"])
    changes = [f"{name}: {result['stats'][f'rows_{name}']}" for name in ("inserted", "deleted", "updated")
               if result["stats"][f"rows_{name}"]]  # fmt: skip
    changes.append(f"server: {duration_text(result['total_duration_micros'])}")
    return f"({count} row{'' if count == 1 else 's'}) [{', '.join(changes)}]"


def duration_text(micros: float) -> str:
    """Return a duration as Rust prints it with two decimals: `483.00µs`, `2.57ms`, `1.00s`."""
    if micros < 1e3:
        return f"{micros:.2f}µs"
    return f"{micros / 1e3:.2f}ms" if micros < 1e6 else f"{micros / 1e6:.2f}s"
