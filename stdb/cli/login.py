"""Commands about who you are: login, logout, and the operator's grants."""

import argparse
import sys

from stdb.cli.api import Api, identity_of, status_cause
from stdb.cli.config import Config
from stdb.cli.databases import refused
from stdb.cli.errors import CliError
from stdb.cli.render import psql_table

__all__ = ["grant", "grants", "login", "login_show", "logout", "revoke"]


def login(config: Config, options: argparse.Namespace) -> None:
    """Store a token: one that is given, or a new identity's of a server."""
    token = options.token
    if options.server_issued_login:
        api = Api(config, config.server(options.server_issued_login), anonymous=True)
        response = api.request("POST", "/v1/identity")
        if response.status_code != 200:
            raise CliError(response.text, status_cause(response))
        token = str(response.json()["token"])
        print("We have logged in directly to your target server.")
        print("WARNING: This login will NOT work for any other servers.")
    if not token:
        raise CliError("Give --token JWT, or --server-issued-login SERVER to get a new identity from a server.")
    identity = identity_of(token)
    if config.token:
        logout(config, options)
    _store(config, token)
    print(f"Logged in with identity {identity}")


def login_show(config: Config, options: argparse.Namespace) -> None:
    """Print who is logged in, with `--token` also the token."""
    token = config.token
    if token is None:
        print("You are not logged in. Run `stdb login` to log in.")
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
    print(f"Logged out (identity {identity_of(token)}).")


def _store(config: Config, token: str | None) -> None:
    config.store_token(token)
    print(f"Saving config to {config.path}.", file=sys.stderr)


def grant(api: Api, options: argparse.Namespace) -> None:
    """Allow an identity to publish Python modules; the operator's command."""
    _change_grant(api, "PUT", options)
    print(f"{options.identity} may now {options.permission}.")


def revoke(api: Api, options: argparse.Namespace) -> None:
    """Take a grant back."""
    _change_grant(api, "DELETE", options)
    print(f"{options.identity} may no longer {options.permission}.")


def _change_grant(api: Api, method: str, options: argparse.Namespace) -> None:
    path = f"/stdb/v1/grants/{options.identity}"
    response = api.request(method, path, params={"permission": options.permission})
    if response.status_code != 200:
        raise refused(response)


def grants(api: Api, options: argparse.Namespace) -> None:
    """Print who was granted what."""
    response = api.request("GET", "/stdb/v1/grants")
    if response.status_code != 200:
        raise refused(response)
    rows = [[each["identity"], each["permission"]] for each in response.json()["grants"]]
    print(psql_table(["Identity", "Permission"], rows) if rows else "No grants.")
