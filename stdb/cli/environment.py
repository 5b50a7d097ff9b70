"""Environment variables on the command line: options of `publish` to headers of its request; the command `env`.

Responsible for: `--env`, `--env-file`, `--remove-env`, how values are written in headers (spec 09 section 5.3).
Not responsible for: which values a module takes (the server).
"""

import argparse
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import httpx

from stdb.cli.api import Api
from stdb.cli.errors import CliError
from stdb.cli.render import psql_table
from stdb.schema.environment import is_variable_name

__all__ = ["environment_headers", "environment_values", "missing_variables", "show_environment"]

_BARE = re.compile(r"""[!#-&(-+\--\[\]-~]*""")
"""Values that need no quotes: visible ASCII without those that mean something."""


def environment_headers(options: argparse.Namespace) -> dict[str, str]:
    """Return the headers of a publish that these options ask for.

    Raises:
        CliError: A variable has no valid name, or cannot be read.
    """
    values = environment_values(options)
    for name in options.remove_env:
        if name != "*":
            _check_name(name, "--remove-env")
    removes = ["*"] if "*" in options.remove_env else options.remove_env
    headers = {
        "spacetime-environment": ",".join(f"{name}={_written(value)}" for name, value in values.items()),
        "spacetime-environment-remove": ",".join(removes),
    }
    return {name: line for name, line in headers.items() if line}


def environment_values(options: argparse.Namespace) -> dict[str, str]:
    """Return the values that these options set, those of files first. Raises CliError as `environment_headers`."""
    values: dict[str, str] = {}
    for path in options.env_file:
        values.update(_read(Path(path)))
    for text in options.env:
        name, separator, value = text.partition("=")
        _check_name(name, "--env")
        if not separator and name not in os.environ:
            raise CliError(f"--env {name}: this shell has no variable of that name. Give --env {name}=VALUE.")
        values[name] = value if separator else os.environ[name]
    return values


def _written(value: str) -> str:
    return value if _BARE.fullmatch(value) else json.dumps(value)


def _check_name(name: str, where: str) -> None:
    if not is_variable_name(name):
        raise CliError(f"{where}: a variable's name is made of letters, digits and `_`, and begins with no digit.")


def _read(path: Path) -> Iterator[tuple[str, str]]:
    """Yield what a file of lines `KEY=VALUE` says; blank lines and those that begin with `#` say nothing."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is no UTF-8 text'}") from error
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            name, separator, value = text.partition("=")
            if not separator:
                raise CliError(f"{path}, line {number}: this is no KEY=VALUE.")
            _check_name(name, f"{path}, line {number}")
            yield name, value


def missing_variables(response: httpx.Response) -> CliError | None:
    """Return what to tell of a refused publish whose module misses environment variables; None of any other."""
    try:
        names = response.json()["EnvironmentError"]["MissingRequiredEnvironment"]["keys"]
    except (ValueError, LookupError, TypeError):
        return None
    options = " ".join(f"--env {name}=VALUE" for name in names)
    return CliError(
        f"The module needs environment variables that have no value: {', '.join(names)}.", hint=f"Set them: {options}"
    )


def show_environment(api: Api, options: argparse.Namespace) -> None:
    """Print which environment variables a module reads and which have a value; never a value."""
    document = api.document(f"/v1/database/{quote(options.database, safe='')}/environment")
    rows = list(_rows(document["declarations"], set(document["stored_keys"])))
    if not rows:
        print("The module reads no environment variables, and none is set.")
        return
    print(psql_table(("name", "value", "may be"), rows))


def _rows(declarations: Iterable[dict[str, object]], stored: set[str]) -> Iterator[tuple[str, str, str]]:
    declared = {str(each["name"]): each for each in declarations}
    for name, each in declared.items():
        missing = "not set" if each["optional"] else "MISSING"
        yield name, "set" if name in stored else missing, _kind(each["ty"])
    for name in sorted(stored - declared.keys()):
        yield name, "set", "(the module does not read it)"


def _kind(kind: object) -> str:
    if not isinstance(kind, dict):
        return "any text"
    ((_, texts),) = kind.items()
    return " | ".join(json.dumps(text) for text in ([texts] if isinstance(texts, str) else texts))
