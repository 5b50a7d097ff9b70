"""The parsers of commands about modules and servers: serve, publish."""

import argparse

from stdb.cli.config import DEFAULT_HOST
from stdb.cli.parts import Commands, add_anonymous, add_command, add_server, with_api, with_nothing

__all__ = ["QUESTIONS", "add_commands"]

QUESTIONS = ("all", "remote", "migrate", "break-clients", "skip-login", "delete-data")
"""What `publish --yes=…` may answer beforehand."""


def add_commands(commands: Commands) -> None:
    """Add these commands."""
    for add in (_add_serve, _add_publish):
        add(commands)


def _add_serve(commands: Commands) -> None:
    parser = add_command(
        commands,
        "serve",
        "Run a server. It stops cleanly at SIGINT (Ctrl-C) or SIGTERM, at once at a second one.",
        with_nothing("serve", "serve"),
        "serve",
        "serve -l 127.0.0.1:4000 --data-dir ./data --publish examples/quickstart_chat=chat",
    )
    parser.add_argument(
        "-l",
        "--listen-addr",
        default=DEFAULT_HOST,
        metavar="HOST:PORT",
        help=f"where to listen; port 0 takes a free one (default: {DEFAULT_HOST})",
    )
    parser.add_argument("--data-dir", metavar="DIR", help="where the data lies (default: $XDG_DATA_HOME/stdb)")
    parser.add_argument(
        "--publish",
        action="append",
        default=[],
        metavar="PATH[=NAME]",
        help="publish a Python module at start, as the operator; may be given several times",
    )
    parser.add_argument(
        "--sql",
        choices=("owner", "public"),
        help="who may run SQL over HTTP: a database's owner alone, or everyone on public tables (default: public)",
    )


def _add_publish(commands: Commands) -> None:
    parser = add_command(
        commands,
        "publish",
        "Create a database from a module, or update the one of that name.",
        with_api("publish", "publish"),
        "publish -p chat.py my-chat",
        "publish -p examples/quickstart_chat chat --server http://127.0.0.1:4000",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="name or identity of the database")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "-p", "--module-path", default=".", metavar="PATH", help="a .py file or a package directory (default: .)"
    )
    source.add_argument("-b", "--bin-path", metavar="FILE", help="publish this file as it is")
    parser.add_argument(
        "-c",
        "--delete-data",
        "--clear-database",
        choices=("always", "on-conflict", "never"),
        default="never",
        metavar="=WHEN",
        help="delete the database's data first: always (as the option alone says), on-conflict (when its tables cannot "
        "be updated) or never",
    )
    parser.add_argument(
        "--break-clients", action="store_true", help="do not ask before connected clients are disconnected"
    )
    add_server(parser)
    add_anonymous(parser)
    parser.add_argument(
        "-y",
        "--yes",
        action="append",
        type=_questions,
        metavar="=QUESTIONS",
        help=f"answer questions with yes: {', '.join(QUESTIONS)}; the option alone means all",
    )
    parser.alone = {"-y": "--yes=all", "--yes": "--yes=all"} | dict.fromkeys(
        ("-c", "--delete-data", "--clear-database"), "--delete-data=always"
    )


def _questions(text: str) -> frozenset[str]:
    kinds = frozenset(text.split(","))
    if unknown := kinds - set(QUESTIONS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))} is none of {', '.join(QUESTIONS)}")
    return kinds
