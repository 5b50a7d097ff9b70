"""Commands about databases as a whole: delete, list, describe, rename, restart, lock, unlock."""

import argparse
import json
import sys
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import httpx

from stdb.cli.api import Api, identity_of, refused, status_cause
from stdb.cli.errors import CliError
from stdb.cli.render import psql_table
from stdb.errors import StdbError
from stdb.schema import documents
from stdb.schema.model import CasePolicy, ModuleDef
from stdb.schema.raw import RawModuleDefV10
from stdb.schema.validation import validate

__all__ = [
    "confirm",
    "definition_of",
    "delete",
    "describe",
    "entity",
    "fetch_schema",
    "list_databases",
    "lock",
    "rename",
    "restart",
    "unlock",
]


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


def lock(api: Api, options: argparse.Namespace) -> None:
    """Keep a database from being deleted."""
    identity = _post(api, options.database, "lock")
    print(f"Database {identity} is now locked. It cannot be deleted until unlocked.")


def unlock(api: Api, options: argparse.Namespace) -> None:
    """Allow a database to be deleted again."""
    identity = _post(api, options.database, "unlock")
    print(f"Database {identity} is now unlocked.")


def _post(api: Api, database: str, action: str, root: str = "/v1") -> str:
    """Do something with a database; return its identity."""
    identity = api.database(database)
    response = api.request("POST", f"{root}/database/{identity}/{action}")
    if response.status_code != 200:
        raise refused(response)
    return identity


def restart(api: Api, options: argparse.Namespace) -> None:
    """Start a database again that stays down after failures."""
    identity = _post(api, options.database, "restart", "/stdb/v1")
    print(f"Database {options.database} ({identity}) was started again.")


def rename(api: Api, options: argparse.Namespace) -> None:
    """Give a database another name in the place of all that it has."""
    path = f"/v1/database/{quote(options.database, safe='')}/names"
    response = api.request("PUT", path, json=[options.to])
    if response.status_code != 200:
        raise _not_renamed(response)
    print(f"Name set to {options.to} for identity {options.database}.")


def _not_renamed(response: httpx.Response) -> CliError:
    """Return the error for names that were not set: the answer is a document where it is about names."""
    if response.headers.get("content-type") != "application/json":
        return refused(response)
    kind, details = next(iter(response.json().items()))
    if kind == "OtherError":
        return CliError(details)
    if kind == "NotYourDatabase":
        return CliError("The database is not yours: its owner may rename it.", status_cause(response))
    return CliError("The name belongs to somebody else. Choose another.", status_cause(response))


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


def fetch_schema(api: Api, identity: str) -> Any:
    """Return the document of a database's definition (V10)."""
    return api.document(f"/v1/database/{identity}/schema?version=10")


def definition_of(document: Any) -> ModuleDef:
    """Return the definition that a document holds; a server's has canonical names, which are not converted again.

    Raises:
        CliError: It holds none.
    """
    try:
        raw = documents.from_json(document)
        return validate(_as_named(raw) if isinstance(raw, RawModuleDefV10) else raw)
    except StdbError as error:
        raise CliError(f"the definition is not understood: {error}") from error


def _as_named(raw: RawModuleDefV10) -> RawModuleDefV10:
    submodules = tuple(replace(submodule, module=_as_named(submodule.module)) for submodule in raw.submodules)
    return replace(raw, case_policy=raw.case_policy or CasePolicy.NONE, submodules=submodules)


def describe(api: Api, options: argparse.Namespace) -> None:
    """Print a database's definition, or one table or reducer of it, as JSON."""
    kind, name = options.entity_type, options.entity_name
    if kind and not name:
        raise CliError("Invalid describe arguments.\nUsage: describe DATABASE [table|reducer NAME] --json")
    if kind and kind not in _ENTITIES:
        raise CliError(f"Invalid entity_type '{kind}'. Expected one of: reducer, table.")
    document = fetch_schema(api, api.database(options.database))
    print(json.dumps(entity(document, kind, name) if kind else document, indent=2, ensure_ascii=False))


def entity(document: Any, kind: str, name: str) -> Any:
    """Return the part of a definition's document about one `table` or `reducer`, by canonical name."""
    definition = definition_of(document)
    entities = definition.tables if kind == "table" else definition.reducers
    source_name = next((each.accessor for each in entities if each.name == name), None)
    for entry in (entry for section in document["sections"] for entry in section.get(_ENTITIES[kind], ())):
        if entry["source_name"] == source_name:
            return entry
    raise CliError(f"no such {kind}")


_ENTITIES = {"table": "Tables", "reducer": "Reducers"}
