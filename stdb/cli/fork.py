"""The command `fork`: a database of its own that begins as another one is, or was."""

import argparse

from stdb.cli.api import Api
from stdb.cli.backup import say_made

__all__ = ["fork"]


def fork(api: Api, options: argparse.Namespace) -> None:
    """Make a new database from a state of another."""
    identity = api.database(options.database)
    query = {name: value for name, value in (("name", options.name), ("at", options.at)) if value is not None}
    with api.stream("POST", f"/stdb/v1/database/{identity}/fork", params=query) as response:
        response.read()
    say_made("Forked", response.json())
