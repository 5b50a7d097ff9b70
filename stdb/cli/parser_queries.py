"""The parsers of commands that look into a database or call it: call, sql, logs, subscribe, describe."""

from stdb.cli.parts import (
    Commands,
    add_anonymous,
    add_at,
    add_command,
    add_confirmed,
    add_database,
    add_server,
    at_least,
    seconds_of,
    with_api,
)

__all__ = ["LEVELS", "add_commands"]

LEVELS = ("trace", "debug", "info", "warn", "error", "panic")


def add_commands(commands: Commands) -> None:
    """Add these commands."""
    for add in (_add_call, _add_sql, _add_logs, _add_subscribe, _add_describe):
        add(commands)


def _add_call(commands: Commands) -> None:
    parser = add_command(
        commands,
        "call",
        "Call a reducer or procedure.",
        with_api("call", "call"),
        'call my-chat send_message "hello"',
        """call my-game move '{"x": 1, "y": -2}' 5""",
    )
    add_database(parser)
    parser.add_argument("function", metavar="FUNCTION", help="the reducer's or procedure's name")
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="ARGUMENT",
        help="JSON; strings and identities may stand without quotes. What begins with - goes behind a --",
    )
    add_server(parser)
    add_anonymous(parser)


def _add_sql(commands: Commands) -> None:
    parser = add_command(
        commands,
        "sql",
        "Run an SQL statement and print its rows.",
        with_api("sql", "sql"),
        'sql my-chat "SELECT * FROM message WHERE id > 10"',
        "sql my-chat --interactive",
    )
    add_database(parser)
    parser.add_argument("query", nargs="?", metavar="QUERY", help="one statement")
    parser.add_argument("--interactive", action="store_true", help="read statements, one a line, until .exit")
    add_at(parser, "read the tables as they were then; the owner may")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: the answer as it came")
    add_server(parser)
    add_confirmed(parser)
    add_anonymous(parser)


def _add_logs(commands: Commands) -> None:
    parser = add_command(
        commands,
        "logs",
        "Print what a database's module printed and logged; its owner may.",
        with_api("logs", "logs"),
        "logs my-chat -f --level warn",
    )
    add_database(parser)
    parser.add_argument(
        "-n", "--num-lines", type=at_least(0), metavar="N", help="the last N lines (default: all; 10 with --follow)"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="wait for new lines")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: the lines as stored")
    parser.add_argument("-l", "--level", choices=LEVELS, help="this level and the graver ones")
    parser.add_argument("--level-exact", action="store_true", help="only that level")
    add_server(parser)


def _add_subscribe(commands: Commands) -> None:
    parser = add_command(
        commands,
        "subscribe",
        "Print changes as they happen, one JSON object a transaction.",
        with_api("subscribe", "subscribe"),
        'subscribe my-chat "SELECT * FROM message" --print-initial-update',
    )
    add_database(parser)
    parser.add_argument("queries", nargs="+", metavar="QUERY", help="what to watch, e.g. SELECT * FROM message")
    parser.add_argument("-n", "--num-updates", type=at_least(0), metavar="N", help="end after N updates")
    parser.add_argument("-t", "--timeout", type=seconds_of, metavar="SECONDS", help="end after this time")
    parser.add_argument("--print-initial-update", action="store_true", help="print the rows there are at first")
    add_server(parser)
    add_confirmed(parser)
    add_anonymous(parser)


def _add_describe(commands: Commands) -> None:
    parser = add_command(
        commands,
        "describe",
        "Print a database's definition, or one table or reducer of it.",
        with_api("databases", "describe"),
        "describe my-chat --json",
        "describe my-chat table message --json",
    )
    add_database(parser)
    parser.add_argument("entity_type", nargs="?", metavar="table|reducer")
    parser.add_argument("entity_name", nargs="?", metavar="NAME")
    parser.add_argument("--json", action="store_true", required=True, help="required: the only format there is")
    add_server(parser)
    add_anonymous(parser)
