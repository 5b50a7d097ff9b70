"""Commands about databases as a whole: delete, list, describe."""

import argparse
import json
import sys
from typing import Any
from urllib.parse import quote

import httpx

from stdb.cli.api import Api, identity_of, status_cause
from stdb.cli.errors import CliError
from stdb.cli.render import psql_table

__all__ = ["confirm", "delete", "describe", "fetch_schema", "list_databases", "refused"]


def refused(response: httpx.Response) -> CliError:
    """Return the error for an answer that is not a success: its text, then its status."""
    return CliError(response.text or "the server gave no reason", status_cause(response))


def confirm(question: str, yes: bool) -> bool:
    """Ask `question [y/N]` on stdout; end of input and anything but yes is no."""
    if yes:
        print("Skipping confirmation due to --yes")
        return True
    print(f"{question} [y/N]", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def delete(api: Api, options: argparse.Namespace) -> None:
    """Delete a database with all its data."""
    identity = api.database(options.database)
    question = (
        f"Are you sure you want to delete database {options.database} ({identity})? This action cannot be undone."
    )
    if not confirm(question, options.yes):
        print("Aborting")
        return
    response = api.request("DELETE", f"/v1/database/{identity}")
    if response.status_code != 200:
        raise refused(response)


def list_databases(api: Api, options: argparse.Namespace) -> None:
    """Print the databases of the logged-in identity."""
    identity = identity_of(api.token())
    response = api.request("GET", f"/v1/identity/{identity}/databases")
    if response.status_code != 200:
        raise refused(response)
    identities: list[str] = response.json()["identities"]
    if not identities:
        print(f"No databases found for {identity}.")
        return
    print(f"Associated databases for user {identity}:\n")
    print(psql_table(["Database Name(s)", "Identity"], [[_names(api, each), each] for each in identities]))


def _names(api: Api, identity: str) -> str:
    response = api.request("GET", f"/v1/database/{identity}/names")
    return ", ".join(response.json()["names"]) if response.status_code == 200 else ""


def fetch_schema(api: Api, database: str) -> list[dict[str, Any]]:
    """Return the sections of a database's definition (V10 document)."""
    response = api.request("GET", f"/v1/database/{quote(database, safe='')}/schema?version=10")
    if response.status_code != 200:
        raise refused(response)
    sections: list[dict[str, Any]] = response.json()["sections"]
    return sections


_ENTITIES = {"table": "Tables", "reducer": "Reducers"}


def describe(api: Api, options: argparse.Namespace) -> None:
    """Print a database's definition, or one table or reducer of it, as JSON."""
    if options.entity_type and not options.entity_name:
        raise CliError("Invalid describe arguments.\nUsage: stdb describe DATABASE [table|reducer NAME] --json")
    identity = api.database(options.database)
    sections = fetch_schema(api, identity)
    document: Any = {"sections": sections}
    if options.entity_type:
        document = _entity(sections, options.entity_type, options.entity_name)
    print(json.dumps(document, indent=2, ensure_ascii=False))


def _entity(sections: list[dict[str, Any]], kind: str, name: str) -> Any:
    if kind not in _ENTITIES:
        raise CliError(f"Invalid entity_type '{kind}'. Expected one of: reducer, table.")
    entries: list[Any] = next((section[_ENTITIES[kind]] for section in sections if _ENTITIES[kind] in section), [])
    for entry in entries:
        if entry["source_name"] == name:
            return entry
    raise CliError(f"no such {kind}")
