"""Parts that the parsers of commands share: how a command is run, and the options that many have.

What a command needs is imported when it runs, so that `--help` is quick.
"""

import argparse
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeAlias

from stdb.cli.config import DEFAULT_HOST, Config, config_path

__all__ = [
    "PROGRAM",
    "CommandParser",
    "Commands",
    "Run",
    "add_anonymous",
    "add_at",
    "add_command",
    "add_confirmed",
    "add_database",
    "add_server",
    "add_yes",
    "at_least",
    "seconds_of",
    "with_api",
    "with_config",
    "with_nothing",
]

PROGRAM = "python -m stdb"

Run: TypeAlias = Callable[[argparse.Namespace], None]
Commands: TypeAlias = "argparse._SubParsersAction[CommandParser]"


class CommandParser(argparse.ArgumentParser):
    """The parser of one command. Options may stand between arguments, as in the official command line."""

    _is_parsing = False
    alone: Mapping[str, str] = {}
    """What options with an optional value mean without one; a value is given as `--option=value` only."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments and options in any order."""
        if self._is_parsing or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._is_parsing = True
        try:
            return self.parse_known_intermixed_args(self._completed(args), namespace)
        finally:
            self._is_parsing = False

    def _completed(self, args: Any) -> Any:
        """Give options that stand alone the value that this means; several letters are several options."""
        if not self.alone or args is None:
            return args
        end = args.index("--") if "--" in args else len(args)
        found: list[str] = []
        for word in args[:end]:
            letters = [f"-{letter}" for letter in word[1:]] if word[:1] == "-" and word[:2] != "--" else []
            if letters and all(each in self.alone for each in letters):
                found += (self.alone[each] for each in letters)
            else:
                found.append(self.alone.get(word, word))
        return [*found, *args[end:]]


# --------------------------------------------------------------------------------------------------- running
def with_nothing(module: str, command: str) -> Run:
    """Return a runner for a command that needs neither a server nor the configuration."""
    return lambda options: getattr(import_module(f"stdb.cli.{module}"), command)(options)


def with_config(module: str, command: str) -> Run:
    """Return a runner for a command that needs only the configuration."""
    return lambda options: getattr(import_module(f"stdb.cli.{module}"), command)(
        Config(config_path(options.config_path)), options
    )


def with_api(module: str, command: str) -> Run:
    """Return a runner for a command that talks to a server."""

    def run(options: argparse.Namespace) -> None:
        from stdb.cli.api import Api

        config = Config(config_path(options.config_path))
        server = config.server(options.server)
        with Api(config, server, anonymous=getattr(options, "anonymous", False)) as api:
            getattr(import_module(f"stdb.cli.{module}"), command)(api, options)

    return run


# --------------------------------------------------------------------------------------------------- parts
def add_command(commands: Commands, name: str, text: str, run: Run, *examples: str) -> CommandParser:
    """Add a command; its help ends with examples."""
    epilog = "\n".join(
        ["example:" if len(examples) == 1 else "examples:", *(f"  {PROGRAM} {each}" for each in examples)]
    )
    parser = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=epilog if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add `--server`."""
    parser.add_argument(
        "-s",
        "--server",
        metavar="SERVER",
        help=f"nickname, HOST:PORT or URL (default: $STDB_SERVER, else default_server of cli.toml: {DEFAULT_HOST})",
    )


def add_database(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names a database."""
    parser.add_argument("database", metavar="DATABASE", help="name or identity of the database")


def add_anonymous(parser: argparse.ArgumentParser) -> None:
    """Add `--anonymous`."""
    parser.add_argument("--anonymous", action="store_true", help="show no token")


def add_yes(parser: argparse.ArgumentParser) -> None:
    """Add `--yes`, for all questions."""
    parser.add_argument("-y", "--yes", action="store_true", help="answer every question with yes")


def add_confirmed(parser: argparse.ArgumentParser) -> None:
    """Add `--confirmed`."""
    parser.add_argument("--confirmed", choices=("true", "false"), help="wait until what is read is durable")


def add_at(parser: argparse.ArgumentParser, text: str) -> None:
    """Add `--at`, a moment of the past; `text` says what it does."""
    parser.add_argument(
        "--at", metavar="OFFSET|TIME", help=f"{text}: behind a transaction's offset, or a time like 2026-11-28T07:30Z"
    )


def at_least(lowest: int, bits: int = 32) -> Callable[[str], int]:
    """Return what takes a number of so many bits, and not below `lowest`."""

    def number(text: str) -> int:
        if not text.isdecimal() or not lowest <= int(text) < 1 << bits:
            raise argparse.ArgumentTypeError(f"{text} is no number from {lowest} to {(1 << bits) - 1}")
        return int(text)

    return number


def seconds_of(text: str) -> float:
    """Return a number of seconds."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return seconds
