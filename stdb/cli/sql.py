"""The command `sql`: run one statement and print its rows as psql would."""

import argparse
import json
import math
from typing import Any

from stdb.cli.api import Api, refused
from stdb.cli.render import cell, psql_table
from stdb.sats import json as sats_json
from stdb.sats import meta
from stdb.sats.types import AlgebraicType, Product

__all__ = ["result_table", "sql"]


def sql(api: Api, options: argparse.Namespace) -> None:
    """Run a statement; `--format json` prints the answer as it came."""
    identity = api.database(options.database)
    asked = (("confirmed", options.confirmed), ("at", options.at))
    response = api.request(
        "POST",
        f"/v1/database/{identity}/sql",
        params={name: value for name, value in asked if value is not None},
        content=options.query.encode("utf-8", "surrogateescape"),
        headers={"Content-Type": "text/plain; charset=utf-8"},
    )
    if response.status_code != 200:
        raise refused(response)
    if options.format == "json":
        print(response.text)
    else:
        print("\n\n".join(result_table(result) for result in json.loads(response.text)))


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
