"""The parsers of commands that make modules and run them: init, build, publish, generate, serve."""

import argparse

from stdb.cli.config import DEFAULT_HOST
from stdb.cli.parts import Commands, add_anonymous, add_command, add_server, add_yes, at_least, with_api, with_nothing
from stdb.cli.templates import LANGUAGES

__all__ = ["QUESTIONS", "add_commands", "build_options_parser"]

QUESTIONS = ("all", "remote", "migrate", "break-clients", "skip-login", "delete-data")
"""What `publish --yes=…` may answer beforehand."""


def add_commands(commands: Commands) -> None:
    """Add these commands."""
    for add in (_add_serve, _add_init, _add_build, _add_publish, _add_generate):
        add(commands)


def build_options_parser() -> argparse.ArgumentParser:
    """Return the parser of what `publish --build-options` holds."""
    parser = argparse.ArgumentParser(prog="--build-options", add_help=False)
    _add_build_options(parser)
    return parser


def _add_serve(commands: Commands) -> None:
    for name, text in (
        ("serve", "Run a server. It stops cleanly at SIGINT (Ctrl-C) or SIGTERM, at once at a second one."),
        ("start", "The same as serve."),
    ):
        parser = add_command(
            commands,
            name,
            text,
            with_nothing("serve", "serve"),
            name,
            f"{name} -l 127.0.0.1:4000 --data-dir ./data --publish examples/quickstart_chat=chat",
        )
        _add_server_options(parser)


def _add_server_options(parser: argparse.ArgumentParser) -> None:
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
        help="publish a module at start, as the operator; may be given several times",
    )
    _add_environment(parser)
    parser.add_argument(
        "--sql",
        choices=("owner", "public"),
        help="who may run SQL over HTTP: a database's owner alone, or everyone on public tables (default: public)",
    )
    parser.add_argument("--non-interactive", action="store_true", help="accepted: nothing is ever asked")


def _add_init(commands: Commands) -> None:
    parser = add_command(
        commands,
        "init",
        "Fill an empty directory with a module to begin with.",
        with_nothing("init", "init"),
        "init --lang rust my-chat",
        "init --lang python",
    )
    parser.add_argument("project", nargs="?", metavar="PATH", help="the directory (default: .); made if it is missing")
    parser.add_argument("--project-path", metavar="PATH", help="the directory, where PATH is only a name for it")
    parser.add_argument("-l", "--lang", type=_language, required=True, metavar="rust|python", help="its language")
    for option in ("--non-interactive", "--local", "--server-only"):
        parser.add_argument(option, action="store_true", help="accepted: so it is always")


def _language(text: str) -> str:
    language = {"rs": "rust", "py": "python"}.get(text.lower(), text.lower())
    if language not in LANGUAGES:
        raise argparse.ArgumentTypeError(
            f"{text} is none of {', '.join(LANGUAGES)}; projects of other languages are begun and built with their own "
            "tools, and what they make is published with --bin-path FILE"
        )
    return language


def _add_build(commands: Commands) -> None:
    parser = add_command(
        commands,
        "build",
        "Build a module without publishing it: Rust by cargo; a Python module is checked.",
        with_nothing("build", "build"),
        "build -p my-chat",
    )
    _add_module_path(parser)
    _add_build_options(parser)


def _add_module_path(parser: "argparse._ActionsContainer") -> None:
    parser.add_argument(
        "-p",
        "--module-path",
        "--project-path",
        metavar="PATH",
        help="a project's directory, or a .py file (default: ./spacetimedb if it is there, else .)",
    )


def _add_build_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", "--debug", action="store_true", help="compile quickly instead of thoroughly")
    parser.add_argument("--features", metavar="LIST", help="features of the crate")
    parser.add_argument("--lint-dir", metavar="DIR", help="accepted: the compiler's own lints are what there is")


def _add_publish(commands: Commands) -> None:
    parser = add_command(
        commands,
        "publish",
        "Build a module; create a database from it, or update the one of that name.",
        with_api("publish", "publish"),
        "publish my-chat",
        "publish -p chat.py my-chat",
        "publish -p examples/quickstart_chat chat --server http://127.0.0.1:4000",
    )
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="name or identity of the database, or PARENT/NAME; without one a database without a name is created",
    )
    source = parser.add_mutually_exclusive_group()
    _add_module_path(source)
    source.add_argument("-b", "--bin-path", metavar="FILE", help="publish this file as it is")
    source.add_argument("-j", "--js-path", metavar="FILE", help="refused: JavaScript modules do not run here")
    parser.add_argument(
        "--build-options", "--build-opts", metavar="OPTIONS", help="options of `build`, such as --build-options=--debug"
    )
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
    _add_environment(parser)
    _add_remove_env(parser)
    parser.add_argument("--parent", metavar="DATABASE", help="the new database belongs to this one")
    parser.add_argument("--organization", "--org", metavar="NAME", help="the new database belongs to it")
    parser.add_argument("--num-replicas", type=at_least(0), metavar="N", help=argparse.SUPPRESS)
    parser.add_argument("--no-config", action="store_true", help=argparse.SUPPRESS)
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


def _add_generate(commands: Commands) -> None:
    parser = add_command(
        commands,
        "generate",
        "Write bindings for clients of the 0.11 generation: the Python SDK 0.7 and the Unity SDK 0.11.",
        with_api("generate", "generate"),
        "generate --lang python --sdk 0.7 -o chat_bindings quickstart-chat",
        "generate --lang csharp --sdk 0.11 -o Assets/Bindings -p examples/quickstart_chat",
    )
    parser.add_argument("database", nargs="?", metavar="DATABASE", help="take what this database runs")
    parser.add_argument("-p", "--module-path", metavar="PATH", help="take this .py file or package directory")
    parser.add_argument("-b", "--bin-path", metavar="FILE", help="take this program")
    parser.add_argument("--module-def", metavar="FILE", help="take the definition in this JSON file, - for stdin")
    parser.add_argument("-l", "--lang", required=True, metavar="python|csharp", help="the language of the client")
    parser.add_argument("--sdk", metavar="VERSION", help="the SDK the bindings are for: 0.7 (python), 0.11 (csharp)")
    parser.add_argument("-o", "--out-dir", required=True, metavar="DIR", help="where to write; made if it is missing")
    parser.add_argument("--namespace", metavar="NAME", help="the namespace of C# bindings (default: SpacetimeDB.Types)")
    add_server(parser)
    add_anonymous(parser)
    add_yes(parser)


def _add_environment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="KEY[=VALUE]",
        help="set an environment variable of the module; without =VALUE to what this shell has; may be given several "
        "times",
    )
    parser.add_argument(
        "--env-file", action="append", default=[], metavar="FILE", help="set those of a file of lines KEY=VALUE"
    )


def _add_remove_env(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--remove-env",
        action="append",
        default=[],
        metavar="KEY",
        help="take an environment variable away, or all of them: '*'",
    )


def _questions(text: str) -> frozenset[str]:
    kinds = frozenset(text.split(","))
    if unknown := kinds - set(QUESTIONS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))} is none of {', '.join(QUESTIONS)}")
    return kinds
