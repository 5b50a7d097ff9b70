"""The parser of the command line: every command with its options, help and example.

Names and flags are the official command line's where it has them (spec 05 part 3).
"""

import argparse
from typing import Any

from stdb.cli import parser_databases, parser_modules, parser_people, parser_queries
from stdb.cli.parts import PROGRAM, CommandParser

__all__ = ["build_parser"]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every command; what it returns has the command as `run(options)`."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="stdb is a relational database that is also the server.",
        epilog=f"{PROGRAM} COMMAND --help explains a command.",
    )
    parser.add_argument("-V", "--version", action=_Version, nargs=0, help="show the version and exit")
    parser.add_argument("--config-path", metavar="FILE", help="use this cli.toml (default: $XDG_CONFIG_HOME/stdb's)")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=CommandParser)
    for module in (parser_modules, parser_queries, parser_databases, parser_people):
        module.add_commands(commands)
    return parser


class _Version(argparse.Action):
    """Prints the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from stdb.cli.version import version

        print(f"stdb {version()}")
        parser.exit()
