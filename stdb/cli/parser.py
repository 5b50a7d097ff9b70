"""The parser of the command line: every command with its options, help and example.

Names and flags are the official command line's where it has them (spec 05 part 3). What a command needs is imported
when it runs, so that `--help` is quick.
"""

import argparse
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeAlias

from stdb.cli.config import DEFAULT_HOST, Config, config_path

__all__ = ["build_parser"]

PROGRAM = "python -m stdb"
QUESTIONS = ("all", "remote", "migrate", "break-clients", "skip-login", "delete-data")
"""What `publish --yes=…` may answer beforehand."""
LEVELS = ("trace", "debug", "info", "warn", "error", "panic")
PERMISSIONS = ("publish-python",)

_Run: TypeAlias = Callable[[argparse.Namespace], None]
_Commands: TypeAlias = "argparse._SubParsersAction[_CommandParser]"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every command; what it returns has the command as `run(options)`."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="stdb is a relational database that is also the server.",
        epilog=f"{PROGRAM} COMMAND --help explains a command.",
    )
    parser.add_argument("-V", "--version", action=_Version, nargs=0, help="show the version and exit")
    parser.add_argument("--config-path", metavar="FILE", help="use this cli.toml (default: $XDG_CONFIG_HOME/stdb's)")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_CommandParser)
    for add in (_add_serve, _add_publish, _add_call, _add_sql, _add_logs, _add_subscribe, _add_describe):
        add(commands)
    for add in (_add_log, _add_fork, _add_backup, _add_export, _add_retention):
        add(commands)
    for add in (_add_databases, _add_recover, _add_login, _add_grants):
        add(commands)
    return parser


class _Version(argparse.Action):
    """Prints the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from stdb.cli.version import version

        print(f"stdb {version()}")
        parser.exit()


class _CommandParser(argparse.ArgumentParser):
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
def _with_nothing(module: str, command: str) -> _Run:
    """Return a runner for a command that needs neither a server nor the configuration."""
    return lambda options: getattr(import_module(f"stdb.cli.{module}"), command)(options)


def _with_config(module: str, command: str) -> _Run:
    """Return a runner for a command that needs only the configuration."""
    return lambda options: getattr(import_module(f"stdb.cli.{module}"), command)(
        Config(config_path(options.config_path)), options
    )


def _with_api(module: str, command: str) -> _Run:
    """Return a runner for a command that talks to a server."""

    def run(options: argparse.Namespace) -> None:
        from stdb.cli.api import Api

        config = Config(config_path(options.config_path))
        server = config.server(options.server)
        with Api(config, server, anonymous=getattr(options, "anonymous", False)) as api:
            getattr(import_module(f"stdb.cli.{module}"), command)(api, options)

    return run


# --------------------------------------------------------------------------------------------------- parts
def _command(commands: _Commands, name: str, text: str, run: _Run, *examples: str) -> _CommandParser:
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


def _server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-s",
        "--server",
        metavar="SERVER",
        help=f"nickname, HOST:PORT or URL (default: $STDB_SERVER, else default_server of cli.toml: {DEFAULT_HOST})",
    )


def _database(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("database", metavar="DATABASE", help="name or identity of the database")


def _anonymous(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--anonymous", action="store_true", help="show no token")


def _yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-y", "--yes", action="store_true", help="answer every question with yes")


def _confirmed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--confirmed", choices=("true", "false"), help="wait until what is read is durable")


def _at(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--at", metavar="OFFSET|TIME", help=f"{text}: behind a transaction's offset, or a time like 2026-11-28T07:30Z"
    )


def _at_least(lowest: int, bits: int = 32) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not lowest <= int(text) < 1 << bits:
            raise argparse.ArgumentTypeError(f"{text} is no number from {lowest} to {(1 << bits) - 1}")
        return int(text)

    return number


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return seconds


# --------------------------------------------------------------------------------------------------- commands
def _add_serve(commands: _Commands) -> None:
    parser = _command(
        commands,
        "serve",
        "Run a server. It stops cleanly at SIGINT (Ctrl-C) or SIGTERM, at once at a second one.",
        _with_nothing("serve", "serve"),
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


def _add_publish(commands: _Commands) -> None:
    parser = _command(
        commands,
        "publish",
        "Create a database from a module, or update the one of that name.",
        _with_api("publish", "publish"),
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
    _server(parser)
    _anonymous(parser)
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


def _add_call(commands: _Commands) -> None:
    parser = _command(
        commands,
        "call",
        "Call a reducer or procedure.",
        _with_api("call", "call"),
        'call my-chat send_message "hello"',
        """call my-game move '{"x": 1, "y": -2}' 5""",
    )
    _database(parser)
    parser.add_argument("function", metavar="FUNCTION", help="the reducer's or procedure's name")
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="ARGUMENT",
        help="JSON; strings and identities may stand without quotes. What begins with - goes behind a --",
    )
    _server(parser)
    _anonymous(parser)


def _add_sql(commands: _Commands) -> None:
    parser = _command(
        commands,
        "sql",
        "Run an SQL statement and print its rows.",
        _with_api("sql", "sql"),
        'sql my-chat "SELECT * FROM message WHERE id > 10"',
    )
    _database(parser)
    parser.add_argument("query", metavar="QUERY", help="one statement")
    _at(parser, "read the tables as they were then; the owner may")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: the answer as it came")
    _server(parser)
    _confirmed(parser)
    _anonymous(parser)


def _add_logs(commands: _Commands) -> None:
    parser = _command(
        commands,
        "logs",
        "Print what a database's module printed and logged; its owner may.",
        _with_api("logs", "logs"),
        "logs my-chat -f --level warn",
    )
    _database(parser)
    parser.add_argument(
        "-n", "--num-lines", type=_at_least(0), metavar="N", help="the last N lines (default: all; 10 with --follow)"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="wait for new lines")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: the lines as stored")
    parser.add_argument("-l", "--level", choices=LEVELS, help="this level and the graver ones")
    parser.add_argument("--level-exact", action="store_true", help="only that level")
    _server(parser)


def _add_subscribe(commands: _Commands) -> None:
    parser = _command(
        commands,
        "subscribe",
        "Print changes as they happen, one JSON object a transaction.",
        _with_api("subscribe", "subscribe"),
        'subscribe my-chat "SELECT * FROM message" --print-initial-update',
    )
    _database(parser)
    parser.add_argument("queries", nargs="+", metavar="QUERY", help="what to watch, e.g. SELECT * FROM message")
    parser.add_argument("-n", "--num-updates", type=_at_least(0), metavar="N", help="end after N updates")
    parser.add_argument("-t", "--timeout", type=_seconds, metavar="SECONDS", help="end after this time")
    parser.add_argument("--print-initial-update", action="store_true", help="print the rows there are at first")
    _server(parser)
    _confirmed(parser)
    _anonymous(parser)


def _add_describe(commands: _Commands) -> None:
    parser = _command(
        commands,
        "describe",
        "Print a database's definition, or one table or reducer of it.",
        _with_api("databases", "describe"),
        "describe my-chat --json",
        "describe my-chat table message --json",
    )
    _database(parser)
    parser.add_argument("entity_type", nargs="?", metavar="table|reducer")
    parser.add_argument("entity_name", nargs="?", metavar="NAME")
    parser.add_argument("--json", action="store_true", required=True, help="required: the only format there is")
    _server(parser)
    _anonymous(parser)


def _add_databases(commands: _Commands) -> None:
    parser = _command(commands, "delete", "Delete a database with all its data.", _with_api("databases", "delete"))
    _database(parser)
    _server(parser)
    _yes(parser)
    for name, text in (
        ("lock", "Lock a database: it cannot be deleted, nor its data."),
        ("unlock", "Unlock a database."),
    ):
        parser = _command(commands, name, text, _with_api("databases", name))
        _database(parser)
        _server(parser)
    _server(_command(commands, "list", "List your databases.", _with_api("databases", "list_databases")))
    parser = _command(
        commands,
        "restart",
        "Start a database again that stays down after failures; its owner or the operator may.",
        _with_api("databases", "restart"),
    )
    _database(parser)
    _server(parser)


def _add_log(commands: _Commands) -> None:
    parser = _command(
        commands,
        "log",
        "Print a database's transactions: offset, time, reducer, caller, rows out and in; its owner may.",
        _with_api("log", "log"),
        "log my-chat --from 1000 --rows",
    )
    _database(parser)
    parser.add_argument(
        "--from", dest="start", type=_at_least(0, bits=64), metavar="OFFSET", help="begin here (default: the oldest)"
    )
    parser.add_argument(
        "--to", dest="end", type=_at_least(0, bits=64), metavar="OFFSET", help="end here (default: the newest)"
    )
    parser.add_argument("--rows", action="store_true", help="print the rows, too")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: the lines as they came")
    _server(parser)


def _add_fork(commands: _Commands) -> None:
    parser = _command(
        commands,
        "fork",
        "Make a database of your own that begins as another one of yours is, or was.",
        _with_api("fork", "fork"),
        "fork my-chat my-chat-yesterday --at 2026-11-27T18:00Z",
    )
    _database(parser)
    parser.add_argument("name", nargs="?", metavar="NAME", help="name of the new database (default: none)")
    _at(parser, "begin as it was then")
    _server(parser)


def _add_backup(commands: _Commands) -> None:
    parser = _command(
        commands,
        "backup",
        "Copy a database into a file while it runs; its owner may.",
        _with_api("backup", "backup"),
        "backup my-chat my-chat.stdb",
    )
    _database(parser)
    parser.add_argument("file", nargs="?", metavar="FILE", help="where to (default: DATABASE.stdb; - is stdout)")
    _server(parser)
    parser = _command(
        commands,
        "restore",
        "Make a database of a backup; the operator may.",
        _with_api("backup", "restore"),
        "restore my-chat.stdb my-chat",
    )
    parser.add_argument("file", metavar="FILE", help="the backup (- is stdin)")
    parser.add_argument("name", nargs="?", metavar="NAME", help="name of the database (default: none)")
    parser.add_argument("--owner", metavar="IDENTITY", help="whose it will be (default: whose it was)")
    _server(parser)


def _add_export(commands: _Commands) -> None:
    for name, text, example in (
        ("export", "Write a table's rows into a file; the owner may.", "export my-chat message message.csv"),
        ("import", "Insert a file's rows into a table; the owner may.", "import my-chat message message.csv"),
    ):
        parser = _command(commands, name, text, _with_api("export", f"{name}_table"), example)
        _database(parser)
        parser.add_argument("table", metavar="TABLE")
        if name == "export":
            parser.add_argument("file", nargs="?", metavar="FILE", help="where to (default: TABLE.jsonl; - is stdout)")
        else:
            parser.add_argument("file", metavar="FILE", help="the rows (- is stdin)")
            parser.add_argument(
                "--rows", type=_at_least(1), metavar="N", help="commit after so many rows (default: 1000)"
            )
        parser.add_argument("--format", choices=("jsonl", "csv"), help="default: as the file's name says")
        _server(parser)


def _add_retention(commands: _Commands) -> None:
    parser = _command(
        commands,
        "retention",
        "Show or set how long a database keeps its log, which time travel needs; its owner may.",
        _with_api("retention", "retention"),
        "retention my-chat hours=168",
    )
    _database(parser)
    parser.add_argument("keep", nargs="?", metavar="all|hours=T|bytes=B", help="keep so much (default: show it)")
    _server(parser)


def _add_recover(commands: _Commands) -> None:
    parser = _command(
        commands,
        "recover",
        "Keep the good part of a damaged database while no server runs; the old file is put aside.",
        _with_nothing("recover", "recover"),
        "recover my-chat --to 1234 --data-dir ./data",
    )
    _database(parser)
    parser.add_argument(
        "--to",
        type=_at_least(0, bits=64),
        metavar="OFFSET",
        help="keep the transactions before this one (default: all before the first damage)",
    )
    parser.add_argument("--data-dir", metavar="DIR", help="where the data lies (default: $XDG_DATA_HOME/stdb)")


def _add_login(commands: _Commands) -> None:
    parser = _command(
        commands,
        "login",
        "Store a token; one is stored for all servers.",
        _with_config("login", "login"),
        "login --server-issued-login http://127.0.0.1:3000",
        "login show --token",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--token", metavar="JWT", help="store this token")
    source.add_argument("--server-issued-login", metavar="SERVER", help="get a new identity from a server")
    below = parser.add_subparsers(metavar="[show]")
    show = _command(below, "show", "Print who is logged in.", _with_config("login", "login_show"))
    show.add_argument("--token", action="store_true", dest="show_token", help="print the token too")
    _command(commands, "logout", "Forget the stored token.", _with_config("login", "logout"))


def _add_grants(commands: _Commands) -> None:
    example = f"{'c200' + '0' * 8}… publish-python"
    for name, text in (
        ("grant", "Allow an identity to publish Python modules; the operator may."),
        ("revoke", "Take a grant back; the operator may. What was published stays."),
    ):
        parser = _command(commands, name, text, _with_api("login", name), f"{name} {example}")
        parser.add_argument("identity", metavar="IDENTITY", help="64 hex digits, as `login show` prints them")
        parser.add_argument(
            "permission",
            nargs="?",
            default=PERMISSIONS[0],
            choices=PERMISSIONS,
            metavar="PERMISSION",
            help=f"what to allow (default and only one: {PERMISSIONS[0]})",
        )
        _server(parser)
    parser = _command(commands, "grants", "List who was granted what.", _with_api("login", "grants"))
    parser.add_argument("identity", nargs="?", metavar="IDENTITY", help="only this one's; everybody may see their own")
    _server(parser)
