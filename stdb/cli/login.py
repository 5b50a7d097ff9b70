"""Commands about who you are: login, logout, energy, and the operator's grants."""

import argparse
import json
import sys

from stdb.cli.api import Api, identity_digits, identity_of, refused
from stdb.cli.config import Config
from stdb.cli.errors import CliError
from stdb.cli.render import psql_table

__all__ = ["energy_balance", "grant", "grants", "login", "login_show", "logout", "revoke"]


def login(config: Config, options: argparse.Namespace) -> None:
    """Store a token: one that is given, or a new identity's of a server."""
    token = options.token
    if options.auth_host:
        raise CliError(
            f"{options.auth_host} cannot be logged in with: stdb has no log-in over the web.",
            hint="`login --token JWT` stores a token of an issuer that the server trusts; --server-issued-login SERVER "
            "gets a new identity.",
        )
    if options.server_issued_login:
        with Api(config, config.server(options.server_issued_login)) as api:
            token = api.new_identity_token()
    if not token:
        raise CliError(
            "Give --token JWT, or --server-issued-login SERVER to get a new identity from a server.", exit_code=2
        )
    identity = identity_of(token)
    if config.token:
        logout(config, options)
    if options.server_issued_login:
        print("We have logged in directly to your target server.")
        print("WARNING: This login will NOT work for any other servers.")
    _store(config, token)
    print(f"Logged in with identity {identity}")


def login_show(config: Config, options: argparse.Namespace) -> None:
    """Print who is logged in, with `--token` also the token."""
    token = config.token
    if token is None:
        print("You are not logged in. Run `python -m stdb login` to log in.")
        return
    print(f"You are logged in as {identity_of(token)}")
    if options.show_token:
        print(f"Your auth token (don't share this!) is {token}")


def logout(config: Config, options: argparse.Namespace) -> None:
    """Forget the stored token."""
    token = config.token
    if token is None:
        print("You are not logged in.")
        return
    _store(config, None)
    try:
        print(f"Logged out (identity {identity_of(token)}).")
    except CliError:  # what was stored was no token
        print("Logged out.")


def _store(config: Config, token: str | None) -> None:
    config.store_token(token)
    print(f"Saving config to {config.path}.", file=sys.stderr)


def energy_balance(api: Api, options: argparse.Namespace) -> None:
    """Print what an identity has, as the server answers it."""
    identity = _identity(options.identity) if options.identity else identity_of(api.token())
    print(json.dumps(api.document(f"/v1/energy/{identity}"), separators=(",", ":")))


def grant(api: Api, options: argparse.Namespace) -> None:
    """Allow an identity to publish Python modules; the operator's command."""
    identity = _change_grant(api, "PUT", options)
    print(f"{identity} may now {options.permission}.")


def revoke(api: Api, options: argparse.Namespace) -> None:
    """Take a grant back."""
    identity = _change_grant(api, "DELETE", options)
    print(f"{identity} may no longer {options.permission}.")


def _change_grant(api: Api, method: str, options: argparse.Namespace) -> str:
    identity = _identity(options.identity)
    response = api.request(method, f"/stdb/v1/grants/{identity}", params={"permission": options.permission})
    if response.status_code != 200:
        raise refused(response)
    return identity


def grants(api: Api, options: argparse.Namespace) -> None:
    """Print who was granted what, or what one identity was granted."""
    if options.identity:
        identity = _identity(options.identity)
        rows = [[identity, each] for each in api.document(f"/stdb/v1/grants/{identity}")["permissions"]]
    else:
        rows = [[each["identity"], each["permission"]] for each in api.document("/stdb/v1/grants")["grants"]]
    print(psql_table(["Identity", "Permission"], rows) if rows else "No grants.")


def _identity(text: str) -> str:
    digits = identity_digits(text)
    if digits is None:
        raise CliError(f"{text} is no identity: expected 64 hex digits, as `python -m stdb login show` prints them")
    return digits
