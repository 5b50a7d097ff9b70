"""The command `publish`: pack a module, show what an update would change, upload it."""

import argparse
from pathlib import Path
from urllib.parse import quote

from stdb.cli.api import Api, status_cause
from stdb.cli.databases import confirm
from stdb.cli.errors import CliError
from stdb.cli.pack import Program, read_program
from stdb.sats.names import database_name_error

__all__ = ["publish"]


def publish(api: Api, options: argparse.Namespace) -> None:
    """Create a database from a module, or update the one of that name."""
    if options.name is not None and (reason := database_name_error(options.name)) and not _is_identity(options.name):
        raise CliError(reason)
    program = read_program(Path(options.bin_path or options.module_path))
    if not api.server.is_local:
        print(f"You are about to publish to a non-local server: {api.server.host}")
        if not confirm("Are you sure you want to proceed?", options.yes):
            raise CliError("Aborted.")
    print(f"Uploading to {api.server.nickname or api.server.host} => {api.server.url}")
    query = {"host_type": program.host_type}
    if options.delete_data:
        _confirm_deletion(options)
        query["clear"] = "true"
    print("Publishing module...")
    _upload(api, options.name, program, query)


def _is_identity(name: str) -> bool:
    return len(name) == 64


def _confirm_deletion(options: argparse.Namespace) -> None:
    if options.name is None:
        raise CliError("--delete-data needs the name or identity of a database.")
    print(f"This will DESTROY the current {options.name} module, and ALL corresponding data.")
    if not confirm(f"Are you sure you want to proceed? [deleting {options.name}]", options.yes):
        raise CliError("Aborted.")


def _upload(api: Api, name: str | None, program: Program, query: dict[str, str]) -> None:
    method, path = ("POST", "/v1/database") if name is None else ("PUT", f"/v1/database/{quote(name, safe='')}")
    response = api.request(method, path, params=query, content=program.body)
    if response.status_code != 200:
        text = response.text
        if response.status_code == 401 and "PermissionDenied" in text:
            text = f"The database {name} is not registered to the identity you provided."
        raise CliError(text or "the server gave no reason", status_cause(response))
    success = response.json()["Success"]
    verb = "Created new" if success["op"] == "created" else "Updated"
    named = f"name: {success['domain']}, " if success["domain"] else ""
    print(f"{verb} database with {named}identity: {success['database_identity']}")
