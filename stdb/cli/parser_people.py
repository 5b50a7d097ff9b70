"""The parsers of commands about who talks to which server: login, logout, grants, saved servers, version."""

from stdb.cli.parts import (
    CommandParser,
    Commands,
    add_command,
    add_server,
    add_yes,
    with_api,
    with_config,
    with_nothing,
)

__all__ = ["PERMISSIONS", "add_commands"]

PERMISSIONS = ("publish-python",)


def add_commands(commands: Commands) -> None:
    """Add these commands."""
    for add in (_add_login, _add_grants, _add_energy, _add_servers, _add_version):
        add(commands)


def _add_login(commands: Commands) -> None:
    parser = add_command(
        commands,
        "login",
        "Store a token; one is stored for all servers.",
        with_config("login", "login"),
        "login --server-issued-login http://127.0.0.1:3000",
        "login show --token",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--token", metavar="JWT", help="store this token")
    source.add_argument("--server-issued-login", metavar="SERVER", help="get a new identity from a server")
    source.add_argument("--auth-host", metavar="URL", help="refused: nobody logs in over the web here")
    parser.add_argument("--no-browser", action="store_true", help="accepted: none is ever opened")
    below = parser.add_subparsers(metavar="[show]")
    show = add_command(below, "show", "Print who is logged in.", with_config("login", "login_show"))
    show.add_argument("--token", action="store_true", dest="show_token", help="print the token too")
    add_command(commands, "logout", "Forget the stored token.", with_config("login", "logout"))


def _add_grants(commands: Commands) -> None:
    example = f"{'c200' + '0' * 8}… publish-python"
    for name, text in (
        ("grant", "Allow an identity to publish Python modules; the operator may."),
        ("revoke", "Take a grant back; the operator may. What was published stays."),
    ):
        parser = add_command(commands, name, text, with_api("login", name), f"{name} {example}")
        parser.add_argument("identity", metavar="IDENTITY", help="64 hex digits, as `login show` prints them")
        parser.add_argument(
            "permission",
            nargs="?",
            default=PERMISSIONS[0],
            choices=PERMISSIONS,
            metavar="PERMISSION",
            help=f"what to allow (default and only one: {PERMISSIONS[0]})",
        )
        add_server(parser)
    parser = add_command(commands, "grants", "List who was granted what.", with_api("login", "grants"))
    parser.add_argument("identity", nargs="?", metavar="IDENTITY", help="only this one's; everybody may see their own")
    add_server(parser)


def _add_energy(commands: Commands) -> None:
    parser = commands.add_parser("energy", help="Show what an identity has of what this server does not meter.")
    below = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=CommandParser)
    balance = add_command(below, "balance", "Print an identity's balance.", with_api("login", "energy_balance"))
    balance.add_argument("identity", nargs="?", metavar="IDENTITY", help="64 hex digits (default: your own)")
    add_server(balance)


def _add_servers(commands: Commands) -> None:
    parser = commands.add_parser("server", help="Manage the servers that --server may name.")
    below = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=CommandParser)

    def add(name: str, function: str, text: str, *examples: str) -> CommandParser:
        return add_command(
            below, name, text, with_config("servers", function), *(f"server {each}" for each in examples)
        )

    def named(name: str, function: str, text: str, *examples: str) -> CommandParser:
        command = add(name, function, text, *examples)
        command.add_argument("saved", metavar="SERVER", help="nickname or HOST:PORT")
        return command

    add("list", "list_servers", "List the saved servers.")
    named("set-default", "set_default", "Let commands without --server talk to this one.", "set-default home")
    command = named("add", "add", "Save a server under a nickname.", "add home --url http://192.168.1.7:3000")
    command.add_argument("--url", required=True, metavar="URL", help="http://HOST:PORT or https://HOST")
    command.add_argument("-d", "--default", action="store_true", help="make it the default server")
    _no_fingerprint(command)
    add_yes(named("remove", "remove", "Forget a saved server."))
    add_yes(named("fingerprint", "fingerprint", "Compare a server's public key with the saved one."))
    named("ping", "ping", "Tell whether a server answers.", "ping http://127.0.0.1:3000")
    command = named("edit", "edit", "Change a saved server.", "edit home --new-name office")
    command.add_argument("--new-name", metavar="NAME", help="another nickname")
    command.add_argument("--url", metavar="URL", help="another address")
    _no_fingerprint(command)
    add_yes(command)
    command = add_command(
        below,
        "clear",
        "Delete the whole data directory of a server on this machine that does not run.",
        with_nothing("servers", "clear"),
    )
    command.add_argument("--data-dir", metavar="DIR", help="the directory (default: $XDG_DATA_HOME/stdb)")
    add_yes(command)


def _no_fingerprint(parser: CommandParser) -> None:
    parser.add_argument("--no-fingerprint", action="store_true", help="do not ask the server for its public key")


def _add_version(commands: Commands) -> None:
    add_command(commands, "version", "Print the version.", with_nothing("version", "print_version"))
