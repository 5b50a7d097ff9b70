"""The command `publish`: pack a module and upload it."""

import argparse
import json
from pathlib import Path
from urllib.parse import quote

import httpx

from stdb.cli.api import Api, identity_digits, refused, status_cause
from stdb.cli.databases import confirm
from stdb.cli.errors import CliError
from stdb.cli.pack import Program, read_program
from stdb.sats.names import database_name_error

__all__ = ["publish"]

NAME_HINT = "A name is made of a-z, 0-9 and single hyphens between them."


def publish(api: Api, options: argparse.Namespace) -> None:
    """Create a database from a module, or update the one of that name."""
    name = options.name
    if name is not None and not identity_digits(name) and (reason := database_name_error(name)):
        raise CliError(reason, hint=NAME_HINT)
    program = read_program(Path(options.bin_path or options.module_path))
    if not api.server.is_local:
        print(f"You are about to publish to a non-local server: {api.server.host}")
        if not confirm("Are you sure you want to proceed?", options.yes):
            raise CliError("Aborted.")
    print(f"Uploading to {api.server.nickname or api.server.url} => {api.server.url}")
    query = {"host_type": program.host_type}
    if options.delete_data:
        _confirm_deletion(name, options.yes)
        query = {"clear": "true", **query}
    print("Publishing module...", flush=True)
    print(_outcome(_upload(api, name, program, query)))


def _confirm_deletion(name: str | None, yes: bool) -> None:
    if name is None:
        raise CliError("--delete-data needs the name or identity of a database.", exit_code=2)
    print(f"This will DESTROY the current {name} module, and ALL corresponding data.")
    if not confirm(f"Are you sure you want to proceed? [deleting {name}]", yes):
        raise CliError("Aborted.")


def _upload(api: Api, name: str | None, program: Program, query: dict[str, str]) -> httpx.Response:
    """Send the program; its arrival may take long, so nothing but a broken connection ends the wait."""
    method, path = ("POST", "/v1/database") if name is None else ("PUT", f"/v1/database/{quote(name, safe='')}")
    response = api.request(method, path, params=query, content=program.body, timeout=None)
    if response.status_code == 401:
        raise CliError(
            f"The database {name} is not registered to the identity you provided.",
            status_cause(response),
            hint="Choose another name, or log in as its owner: `python -m stdb login show` says who you are.",
        )
    if response.status_code != 200:
        raise refused(response)
    return response


def _outcome(response: httpx.Response) -> str:
    success = json.loads(response.text)["Success"]
    verb = "Created new" if success["op"] == "created" else "Updated"
    named = f"name: {success['domain']}, " if success["domain"] else ""
    return f"{verb} database with {named}identity: {success['database_identity']}"
