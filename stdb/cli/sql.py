"""The command `sql`: run one statement and print its rows as psql would."""

import argparse
import json
from typing import Any

from stdb.cli.api import Api
from stdb.cli.databases import refused
from stdb.cli.render import cell, psql_table
from stdb.sats import json as sats_json
from stdb.sats import meta
from stdb.sats.types import F32, F64, AlgebraicType, Product

__all__ = ["sql"]


def sql(api: Api, options: argparse.Namespace) -> None:
    """Run a statement; `--format json` prints the answer as it came."""
    identity = api.database(options.database)
    query = "" if options.confirmed is None else f"?confirmed={options.confirmed}"
    response = api.request("POST", f"/v1/database/{identity}/sql{query}", content=options.query.encode())
    if response.status_code != 200:
        raise refused(response)
    if options.format == "json":
        print(response.text)
        return
    print("\n\n".join(_render(result) for result in json.loads(response.text)))


def _render(result: dict[str, Any]) -> str:
    row_type = meta.type_from_json({"Product": result["schema"]})
    assert isinstance(row_type, Product)
    if not row_type.elements:
        return ""
    headers = [element.name or f"column {i}" for i, element in enumerate(row_type.elements)]
    types = [element.type for element in row_type.elements]
    return psql_table(headers, [_cells(types, row) for row in result["rows"]])


def _cells(types: list[AlgebraicType], row: list[Any]) -> list[str]:
    return [cell(type_, _value(type_, item)) for type_, item in zip(types, row, strict=True)]


def _value(type_: AlgebraicType, item: Any) -> Any:
    if item is None and type_ in (F32, F64):  # NaN and the infinities have no JSON form (spec 01 section 7.1)
        return float("nan")
    return sats_json.decode(type_, item)
