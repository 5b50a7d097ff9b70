"""Commands about databases as a whole: delete, list, describe, restart."""

import argparse
import json
import sys
from typing import Any

from stdb.cli.api import Api, identity_of, refused
from stdb.cli.errors import CliError
from stdb.cli.render import psql_table

__all__ = ["confirm", "delete", "describe", "fetch_schema", "list_databases", "restart"]


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


def restart(api: Api, options: argparse.Namespace) -> None:
    """Start a database again that stays down after failures."""
    identity = api.database(options.database)
    response = api.request("POST", f"/stdb/v1/database/{identity}/restart")
    if response.status_code != 200:
        raise refused(response)
    print(f"Database {options.database} ({identity}) was started again.")


def list_databases(api: Api, options: argparse.Namespace) -> None:
    """Print the databases of the logged-in identity."""
    identity = identity_of(api.token())
    identities: list[str] = api.document(f"/v1/identity/{identity}/databases")["identities"]
    if not identities:
        print(f"No databases found for {identity}.")
        return
    print(f"Associated databases for user {identity}:\n")
    print(psql_table(["Database Name(s)", "Identity"], [[_names(api, each), each] for each in identities]))


def _names(api: Api, identity: str) -> str:
    return ", ".join(api.document(f"/v1/database/{identity}/names")["names"])


def fetch_schema(api: Api, identity: str) -> list[dict[str, Any]]:
    """Return the sections of a database's definition (V10 document)."""
    sections: list[dict[str, Any]] = api.document(f"/v1/database/{identity}/schema?version=10")["sections"]
    return sections


_ENTITIES = {"table": "Tables", "reducer": "Reducers"}


def describe(api: Api, options: argparse.Namespace) -> None:
    """Print a database's definition, or one table or reducer of it, as JSON."""
    kind, name = options.entity_type, options.entity_name
    if kind and not name:
        raise CliError("Invalid describe arguments.\nUsage: describe DATABASE [table|reducer NAME] --json")
    if kind and kind not in _ENTITIES:
        raise CliError(f"Invalid entity_type '{kind}'. Expected one of: reducer, table.")
    sections = fetch_schema(api, api.database(options.database))
    document: Any = _entity(sections, kind, name) if kind else {"sections": sections}
    print(json.dumps(document, indent=2, ensure_ascii=False))


def _entity(sections: list[dict[str, Any]], kind: str, name: str) -> Any:
    for entry in (entry for section in sections for entry in section.get(_ENTITIES[kind], ())):
        if entry["source_name"] == name:
            return entry
    raise CliError(f"no such {kind}")
