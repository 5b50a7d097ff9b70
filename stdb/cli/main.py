"""The parser of the command line and the way from a command's name to its function."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TypeAlias

from stdb.cli.config import Config, config_path
from stdb.cli.errors import CliError
from stdb.cli.logs import LEVELS

__all__ = ["build_parser", "main"]

VERSION = "0.1.0"
PERMISSIONS = ("publish-python",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 success, 1 an error, 2 wrong usage."""
    options = build_parser().parse_args(arguments)
    try:
        result = options.run(options)
    except CliError as error:
        print(error.render(), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    return int(result or 0)


def _with_config(name: str, command: str) -> Callable[[argparse.Namespace], None]:
    """Return a runner for a command that needs only the configuration."""

    def run(options: argparse.Namespace) -> None:
        module = __import__(f"stdb.cli.{name}", fromlist=[command])
        getattr(module, command)(Config(config_path(options.config_path)), options)

    return run


def _with_api(name: str, command: str) -> Callable[[argparse.Namespace], None]:
    """Return a runner for a command that talks to a server."""

    def run(options: argparse.Namespace) -> None:
        from stdb.cli.api import Api

        config = Config(config_path(options.config_path))
        api = Api(config, config.server(options.server), anonymous=getattr(options, "anonymous", False))
        module = __import__(f"stdb.cli.{name}", fromlist=[command])
        getattr(module, command)(api, options)

    return run


def _serve(options: argparse.Namespace) -> int:
    from stdb.cli.serve import serve

    code: int = serve(options)
    return code


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every command."""
    parser = argparse.ArgumentParser(prog="stdb", description="A relational database that is also the server.")
    parser.add_argument("-V", "--version", action="version", version=f"stdb {VERSION}")
    parser.add_argument("--config-path", metavar="FILE", help="use this cli.toml")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_serve(commands)
    _add_publish(commands)
    _add_call(commands)
    _add_sql(commands)
    _add_logs(commands)
    _add_subscribe(commands)
    _add_describe(commands)
    _add_databases(commands)
    _add_login(commands)
    _add_grants(commands)
    return parser


_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _command(
    commands: _Commands, name: str, text: str, run: Callable[[argparse.Namespace], object], *, server: bool = True
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    if server:
        parser.add_argument("-s", "--server", metavar="SERVER", help="nickname, host or URL; default: the saved one")
    return parser


def _anonymous(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--anonymous", action="store_true", help="show no token")


def _yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-y", "--yes", action="store_true", help="answer every question with yes")


def _confirmed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--confirmed", choices=("true", "false"), help="wait until what is read is durable")


def _add_serve(commands: _Commands) -> None:
    parser = _command(commands, "serve", "Run a server.", _serve, server=False)
    parser.add_argument("-l", "--listen-addr", default="127.0.0.1:3000", metavar="HOST:PORT")
    parser.add_argument("--data-dir", metavar="DIR", help="default: $XDG_DATA_HOME/stdb")
    parser.add_argument(
        "--publish", action="append", default=[], metavar="PATH[=NAME]", help="publish a Python module at start"
    )
    parser.add_argument(
        "--sql", choices=("owner", "public"), help="who may run SQL: the owner alone, or everyone on public tables"
    )


def _add_publish(commands: _Commands) -> None:
    text = "Create a database from a module, or update the one of that name."
    parser = _command(commands, "publish", text, _with_api("publish", "publish"))
    parser.add_argument("name", nargs="?", metavar="NAME", help="name or identity of the database")
    parser.add_argument("-p", "--module-path", default=".", metavar="PATH", help="module: a .py file or a directory")
    parser.add_argument("-b", "--bin-path", metavar="FILE", help="publish this file as it is")
    parser.add_argument("-c", "--delete-data", "--clear-database", action="store_true", help="delete all data first")
    _anonymous(parser)
    _yes(parser)


def _add_call(commands: _Commands) -> None:
    parser = _command(commands, "call", "Call a reducer.", _with_api("call", "call"))
    parser.add_argument("database", metavar="DATABASE")
    parser.add_argument("function", metavar="FUNCTION")
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="JSON; strings may stand without quotes")
    _anonymous(parser)


def _add_sql(commands: _Commands) -> None:
    parser = _command(commands, "sql", "Run an SQL statement.", _with_api("sql", "sql"))
    parser.add_argument("database", metavar="DATABASE")
    parser.add_argument("query", metavar="QUERY")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    _confirmed(parser)
    _anonymous(parser)


def _add_logs(commands: _Commands) -> None:
    parser = _command(commands, "logs", "Print a database's log.", _with_api("logs", "logs"))
    parser.add_argument("database", metavar="DATABASE")
    parser.add_argument("-n", "--num-lines", type=int, metavar="N")
    parser.add_argument("-f", "--follow", action="store_true", help="wait for new lines")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("-l", "--level", choices=LEVELS, help="this level and the graver ones")
    parser.add_argument("--level-exact", action="store_true", help="only that level")


def _add_subscribe(commands: _Commands) -> None:
    parser = _command(commands, "subscribe", "Print changes as they happen.", _with_api("subscribe", "subscribe"))
    parser.add_argument("database", metavar="DATABASE")
    parser.add_argument("queries", nargs="+", metavar="QUERY")
    parser.add_argument("-n", "--num-updates", type=int, metavar="N", help="end after N updates")
    parser.add_argument("-t", "--timeout", type=float, metavar="SECONDS")
    parser.add_argument("--print-initial-update", action="store_true", help="print the initial rows too")
    _confirmed(parser)
    _anonymous(parser)


def _add_describe(commands: _Commands) -> None:
    parser = _command(commands, "describe", "Print a database's definition.", _with_api("databases", "describe"))
    parser.add_argument("database", metavar="DATABASE")
    parser.add_argument("entity_type", nargs="?", metavar="table|reducer")
    parser.add_argument("entity_name", nargs="?", metavar="NAME")
    parser.add_argument("--json", action="store_true", required=True, help="the only format there is")
    _anonymous(parser)


def _add_databases(commands: _Commands) -> None:
    parser = _command(commands, "delete", "Delete a database.", _with_api("databases", "delete"))
    parser.add_argument("database", metavar="DATABASE")
    _yes(parser)
    _command(commands, "list", "List your databases.", _with_api("databases", "list_databases"))


def _add_login(commands: _Commands) -> None:
    parser = _command(commands, "login", "Store a token.", _with_config("login", "login"), server=False)
    parser.add_argument("--token", metavar="JWT", help="store this token")
    parser.add_argument("--server-issued-login", metavar="SERVER", help="get a new identity from a server")
    below = parser.add_subparsers(metavar="show")
    show = _command(below, "show", "Print who is logged in.", _with_config("login", "login_show"), server=False)
    show.add_argument("--token", action="store_true", dest="show_token", help="print the token too")
    _command(commands, "logout", "Forget the stored token.", _with_config("login", "logout"), server=False)


def _add_grants(commands: _Commands) -> None:
    for name, text in (("grant", "Allow an identity to publish Python code."), ("revoke", "Take a grant back.")):
        parser = _command(commands, name, text, _with_api("login", name))
        parser.add_argument("identity", metavar="IDENTITY")
        parser.add_argument("permission", nargs="?", default=PERMISSIONS[0], choices=PERMISSIONS, metavar="PERMISSION")
    _command(commands, "grants", "List who was granted what.", _with_api("login", "grants"))
