"""The parsers of commands about databases as a whole: their life, their past, their rows as files."""

from stdb.cli.parts import (
    Commands,
    add_at,
    add_command,
    add_database,
    add_server,
    add_yes,
    at_least,
    with_api,
    with_nothing,
)

__all__ = ["add_commands"]


def add_commands(commands: Commands) -> None:
    """Add these commands."""
    for add in (_add_databases, _add_log, _add_fork, _add_backup, _add_export, _add_retention, _add_recover):
        add(commands)


def _add_databases(commands: Commands) -> None:
    parser = add_command(commands, "delete", "Delete a database with all its data.", with_api("databases", "delete"))
    add_database(parser)
    add_server(parser)
    add_yes(parser)
    for name, text in (
        ("lock", "Lock a database: it cannot be deleted, nor its data."),
        ("unlock", "Unlock a database."),
    ):
        parser = add_command(commands, name, text, with_api("databases", name))
        add_database(parser)
        add_server(parser)
    parser = add_command(
        commands,
        "rename",
        "Give a database of yours another name, in the place of all that it has.",
        with_api("databases", "rename"),
        "rename my-chat --to our-chat",
    )
    add_database(parser)
    parser.add_argument("--to", required=True, metavar="NAME", help="the new name")
    add_server(parser)
    add_server(add_command(commands, "list", "List your databases.", with_api("databases", "list_databases")))
    parser = add_command(
        commands,
        "restart",
        "Start a database again that stays down after failures; its owner or the operator may.",
        with_api("databases", "restart"),
    )
    add_database(parser)
    add_server(parser)
    parser = add_command(
        commands,
        "env",
        "Show which environment variables a module reads and which are set, never a value; its owner may.",
        with_api("environment", "show_environment"),
        "env my-chat",
    )
    add_database(parser)
    add_server(parser)


def _add_log(commands: Commands) -> None:
    parser = add_command(
        commands,
        "log",
        "Print a database's transactions: offset, time, reducer, caller, rows out and in; its owner may.",
        with_api("log", "log"),
        "log my-chat --from 1000 --rows",
    )
    add_database(parser)
    parser.add_argument(
        "--from", dest="start", type=at_least(0, bits=64), metavar="OFFSET", help="begin here (default: the oldest)"
    )
    parser.add_argument(
        "--to", dest="end", type=at_least(0, bits=64), metavar="OFFSET", help="end here (default: the newest)"
    )
    parser.add_argument("--rows", action="store_true", help="print the rows, too")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: the lines as they came")
    add_server(parser)


def _add_fork(commands: Commands) -> None:
    parser = add_command(
        commands,
        "fork",
        "Make a database of your own that begins as another one of yours is, or was.",
        with_api("fork", "fork"),
        "fork my-chat my-chat-yesterday --at 2026-11-27T18:00Z",
    )
    add_database(parser)
    parser.add_argument("name", nargs="?", metavar="NAME", help="name of the new database (default: none)")
    add_at(parser, "begin as it was then")
    add_server(parser)


def _add_backup(commands: Commands) -> None:
    parser = add_command(
        commands,
        "backup",
        "Copy a database into a file while it runs; its owner may.",
        with_api("backup", "backup"),
        "backup my-chat my-chat.stdb",
    )
    add_database(parser)
    parser.add_argument("file", nargs="?", metavar="FILE", help="where to (default: DATABASE.stdb; - is stdout)")
    add_server(parser)
    parser = add_command(
        commands,
        "restore",
        "Make a database of a backup; the operator may.",
        with_api("backup", "restore"),
        "restore my-chat.stdb my-chat",
    )
    parser.add_argument("file", metavar="FILE", help="the backup (- is stdin)")
    parser.add_argument("name", nargs="?", metavar="NAME", help="name of the database (default: none)")
    parser.add_argument("--owner", metavar="IDENTITY", help="whose it will be (default: whose it was)")
    add_server(parser)


def _add_export(commands: Commands) -> None:
    for name, text, example in (
        ("export", "Write a table's rows into a file; the owner may.", "export my-chat message message.csv"),
        ("import", "Insert a file's rows into a table; the owner may.", "import my-chat message message.csv"),
    ):
        parser = add_command(commands, name, text, with_api("export", f"{name}_table"), example)
        add_database(parser)
        parser.add_argument("table", metavar="TABLE")
        if name == "export":
            parser.add_argument("file", nargs="?", metavar="FILE", help="where to (default: TABLE.jsonl; - is stdout)")
        else:
            parser.add_argument("file", metavar="FILE", help="the rows (- is stdin)")
            parser.add_argument(
                "--rows", type=at_least(1), metavar="N", help="commit after so many rows (default: 1000)"
            )
        parser.add_argument("--format", choices=("jsonl", "csv"), help="default: as the file's name says")
        add_server(parser)


def _add_retention(commands: Commands) -> None:
    parser = add_command(
        commands,
        "retention",
        "Show or set how long a database keeps its log, which time travel needs; its owner may.",
        with_api("retention", "retention"),
        "retention my-chat hours=168",
    )
    add_database(parser)
    parser.add_argument("keep", nargs="?", metavar="all|hours=T|bytes=B", help="keep so much (default: show it)")
    add_server(parser)


def _add_recover(commands: Commands) -> None:
    parser = add_command(
        commands,
        "recover",
        "Keep the good part of a damaged database while no server runs; the old file is put aside.",
        with_nothing("recover", "recover"),
        "recover my-chat --to 1234 --data-dir ./data",
    )
    add_database(parser)
    parser.add_argument(
        "--to",
        type=at_least(0, bits=64),
        metavar="OFFSET",
        help="keep the transactions before this one (default: all before the first damage)",
    )
    parser.add_argument("--data-dir", metavar="DIR", help="where the data lies (default: $XDG_DATA_HOME/stdb)")
