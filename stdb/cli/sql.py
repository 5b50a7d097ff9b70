"""The command `sql`: run one statement and print its rows as psql would, or one after the other."""

import argparse
import json
import math
from typing import Any

import httpx

from stdb.cli.api import Api, refused, status_cause
from stdb.cli.errors import CliError
from stdb.cli.pointing import pointed
from stdb.cli.render import cell, psql_table
from stdb.sats import json as sats_json
from stdb.sats import meta
from stdb.sats.types import AlgebraicType, Product

__all__ = ["result_table", "run_statement", "sql"]


def sql(api: Api, options: argparse.Namespace) -> None:
    """Run a statement; `--format json` prints the answer as it came. `--interactive` reads statements."""
    if options.interactive == (options.query is not None):
        told = "either a QUERY or --interactive" if options.interactive else "a QUERY, or --interactive to type several"
        raise CliError(f"sql takes {told}.", exit_code=2)
    identity = api.database(options.database)
    if options.interactive:
        from stdb.cli.interactive import converse

        converse(api, identity, options)
        return
    response = run_statement(api, identity, options.query, options)
    if response.status_code != 200:
        raise _failure(response, options.query)
    if options.format == "json":
        print(response.text)
    else:
        print("\n\n".join(result_table(result) for result in json.loads(response.text)))


def run_statement(api: Api, identity: str, text: str, options: argparse.Namespace) -> httpx.Response:
    """Return the server's answer to a statement."""
    asked = (("confirmed", options.confirmed), ("at", options.at))
    return api.request(
        "POST",
        f"/v1/database/{identity}/sql",
        params={name: value for name, value in asked if value is not None},
        content=text.encode("utf-8", "surrogateescape"),
        headers={"Content-Type": "text/plain; charset=utf-8"},
    )


def _failure(response: httpx.Response, text: str) -> CliError:
    if response.status_code != 400:
        return refused(response)
    return CliError(response.text, status_cause(response), hint=pointed(text, response.text))


def result_table(result: dict[str, Any]) -> str:
    """Return one result (spec 05 section 4.1) as a table; a statement without columns as nothing."""
    row_type = meta.type_from_json({"Product": result["schema"]})
    assert isinstance(row_type, Product)
    if not row_type.elements:
        return ""
    headers = [element.name or f"column {i}" for i, element in enumerate(row_type.elements)]
    types = [element.type for element in row_type.elements]
    return psql_table(headers, [_cells(types, row) for row in result["rows"]])


def _cells(types: list[AlgebraicType], row: list[Any]) -> list[str]:
    return [cell(type_, sats_json.decode(type_, _with_nan(item))) for type_, item in zip(types, row, strict=True)]


def _with_nan(item: Any) -> Any:
    """Put NaN for every null: rows have it only where a float is NaN or infinite (spec 05 section 4.1)."""
    if item is None:
        return math.nan
    return [_with_nan(each) for each in item] if isinstance(item, list) else item
