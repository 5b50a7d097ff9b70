"""The parsers of commands about who may do what: login, logout, grants."""

from stdb.cli.parts import Commands, add_command, add_server, with_api, with_config

__all__ = ["PERMISSIONS", "add_commands"]

PERMISSIONS = ("publish-python",)


def add_commands(commands: Commands) -> None:
    """Add these commands."""
    for add in (_add_login, _add_grants):
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
