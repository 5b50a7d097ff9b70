"""The command `publish`: build a module, show what an update would do, upload it.

Responsible for: questions and their answers, the order of things (spec 05 section 3.4).
Not responsible for: building (`build`), the plan itself (the server).
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import httpx

from stdb.cli.api import NAME_HINT, Api, identity_digits, refused, status_cause
from stdb.cli.build import build_program, module_path
from stdb.cli.databases import confirm
from stdb.cli.environment import environment_headers, missing_variables
from stdb.cli.errors import CliError
from stdb.cli.pack import Program, read_program
from stdb.sats.names import database_name_error

__all__ = ["publish"]


def publish(api: Api, options: argparse.Namespace) -> None:
    """Create a database from a module, or update the one of that name."""
    (name, parent), yes = _names(options), Yes.of(options.yes)
    headers = environment_headers(options)
    program = _program(options)
    if not api.server.is_local:
        print(f"You are about to publish to a non-local server: {api.server.host}")
        if not confirm("Are you sure you want to proceed?", yes.to("remote")):
            raise CliError("Aborted.")
    print(f"Uploading to {api.server.nickname or api.server.url} => {api.server.url}", flush=True)
    query = {"host_type": program.host_type} | _relatives(parent, options)
    if options.delete_data == "always":
        query = _deletion(name, yes) | query
    elif name is not None:
        query = _checked(api, name, program, options, yes) | query
    print("Publishing module...", flush=True)
    print(_outcome(_upload(api, name, program, query, headers)))


def _names(options: argparse.Namespace) -> tuple[str | None, str | None]:
    """Return the name of the database, and that of its parent; either may stand as an identity."""
    if options.name is None:
        return None, options.parent
    parent, slash, name = options.name.rpartition("/")
    if slash and options.parent is not None:
        raise CliError(f"{options.name} names a parent, and --parent does, too: give one of them.", exit_code=2)
    for each in (name, parent) if slash else (name,):
        if not identity_digits(each) and (reason := database_name_error(each)):
            raise CliError(reason, hint=NAME_HINT)
    return name, parent or options.parent


def _program(options: argparse.Namespace) -> Program:
    if options.js_path is not None:
        raise CliError(
            f"{options.js_path} cannot be published: JavaScript modules do not run here.",
            hint="Modules are WebAssembly (--bin-path FILE), Rust projects or Python (--module-path PATH).",
        )
    if options.bin_path is not None:
        program = read_program(Path(options.bin_path))
        print(f"({program.host_type.upper()}) Skipping build. Instead we are publishing {options.bin_path}")
        return program
    return build_program(module_path(options.module_path), options.build_options)


def _relatives(parent: str | None, options: argparse.Namespace) -> dict[str, str]:
    """Return the parameters that say what a new database belongs to."""
    given = {"parent": parent, "organization": options.organization, "num_replicas": options.num_replicas}
    return {name: str(value) for name, value in given.items() if value is not None}


class Yes(NamedTuple):
    """The questions that are answered beforehand."""

    kinds: frozenset[str]

    @classmethod
    def of(cls, given: list[frozenset[str]] | None) -> "Yes":
        """Return what every `--yes` of a command line says together."""
        return cls(frozenset().union(*(given or ())))

    def to(self, kind: str) -> bool:
        """Tell whether questions of a kind are answered with yes."""
        return kind in self.kinds or "all" in self.kinds


# --------------------------------------------------------------------------------------------------- before an update
def _checked(api: Api, name: str, program: Program, options: argparse.Namespace, yes: Yes) -> dict[str, str]:
    """Show what an update would do and ask what there is to ask; return the parameters that allow it."""
    print("Checking for breaking changes...", flush=True)
    query = {"style": _style(), "host_type": program.host_type}
    path = f"/v1/database/{quote(name, safe='')}/pre_publish"
    response = api.request("POST", path, params=query, content=program.body, timeout=None)
    if response.status_code == 404:
        return {}  # there is no such database yet
    if response.status_code != 200:
        status = f"{response.status_code} {response.reason_phrase}"
        raise CliError(f"Pre-publish check failed with status {status}: {response.text}")
    document = response.json()
    if manual := document.get("ManualMigrate"):
        return _conflict(name, manual["reason"], options, yes)
    automatic = document["AutoMigrate"]
    print(automatic["migrate_plan"])
    if automatic["major_version_upgrade"]:
        _confirm_upgrade(yes)
    if automatic["break_clients"] and not _may_break(options, yes):
        print("Aborting")
        raise CliError("Publishing aborted by user")
    return {"policy": "BreakClients", "token": automatic["token"]}


def _style() -> str:
    return "AnsiColor" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else "NoColor"


def _may_break(options: argparse.Namespace, yes: Yes) -> bool:
    if options.break_clients and not yes.to("break-clients"):
        print("Skipping confirmation due to --break-clients")
        return True
    question = "The above changes will BREAK existing clients. Do you want to proceed?"
    return confirm(question, yes.to("break-clients"))


def _confirm_upgrade(yes: Yes) -> None:
    """Have a word typed before a module of the generation before 2.0 is replaced by one of it."""
    print("This replaces a module made for 1.x by one made for 2.x: clients made for 1.x may not understand it.")
    if yes.to("migrate"):
        print("Skipping confirmation due to --yes")
        return
    print("Type `upgrade` to proceed: ", end="", flush=True)
    if sys.stdin.readline().strip() != "upgrade":
        print("Aborting")
        raise CliError("Publishing aborted by user")


def _conflict(name: str, reason: str, options: argparse.Namespace, yes: Yes) -> dict[str, str]:
    """Tell why the tables cannot be updated; delete them if that is wanted."""
    print(reason)
    if options.delete_data != "on-conflict":
        print("Aborting publish due to required manual migration.")
        raise CliError(
            "Aborting because publishing would require manual migration or deletion of data and --delete-data was not "
            "specified.",
            hint="A Python module can say what becomes of the rows: docs/migrations.md, `@migrate`.",
        )
    print("Proceeding with database clear due to --delete-data=on-conflict.")
    return _deletion(name, yes)


def _deletion(name: str | None, yes: Yes) -> dict[str, str]:
    """Ask before data is deleted; return the parameter that does it."""
    if name is None:
        raise CliError("--delete-data needs the name or identity of a database.", exit_code=2)
    print(f"This will DESTROY the current {name} module, and ALL corresponding data.")
    if not confirm(f"Are you sure you want to proceed? [deleting {name}]", yes.to("delete-data")):
        raise CliError("Aborted.")
    return {"clear": "true"}


# --------------------------------------------------------------------------------------------------- sending
def _upload(
    api: Api, name: str | None, program: Program, query: dict[str, str], headers: dict[str, str]
) -> httpx.Response:
    """Send the program; its arrival may take long, so nothing but a broken connection ends the wait."""
    method, path = ("POST", "/v1/database") if name is None else ("PUT", f"/v1/database/{quote(name, safe='')}")
    response = api.request(method, path, params=query, headers=headers, content=program.body, timeout=None)
    if response.status_code == 401:
        raise CliError(
            f"The database {name} is not registered to the identity you provided.",
            status_cause(response),
            hint="Choose another name, or log in as its owner: `python -m stdb login show` says who you are.",
        )
    if response.status_code != 200:
        raise missing_variables(response) or refused(response)
    return response


def _outcome(response: httpx.Response) -> str:
    success = json.loads(response.text)["Success"]
    verb = "Created new" if success["op"] == "created" else "Updated"
    named = f"name: {success['domain']}, " if success["domain"] else ""
    return f"{verb} database with {named}identity: {success['database_identity']}"
