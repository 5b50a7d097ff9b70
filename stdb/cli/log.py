"""The command `log`: the transactions of a database, one a line."""

import argparse
import json
from collections.abc import Iterator
from typing import Any

from stdb.cli.api import Api

__all__ = ["entry_lines", "log"]

_CALLER_DIGITS = 16


def log(api: Api, options: argparse.Namespace) -> None:
    """Print transactions: offset, time, reducer, caller, rows out and in by table."""
    identity = api.database(options.database)
    query = {"rows": "true" if options.rows else "false"}
    for name, value in (("from", options.start), ("to", options.end)):
        if value is not None:
            query[name] = str(value)
    with api.stream("GET", f"/stdb/v1/database/{identity}/log", params=query) as response:
        for line in response.iter_lines():
            if options.format == "json":
                print(line, flush=True)
            elif line:
                print("\n".join(entry_lines(json.loads(line))), flush=True)


def entry_lines(entry: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of one transaction; its rows, where they are told, follow indented, `-` out and `+` in."""
    counts = [f"{each['table']} -{each['deletes']} +{each['inserts']}" for each in entry["tables"]]
    caller = entry["caller"][:_CALLER_DIGITS]
    yield f"{entry['offset']:>8} {entry['time']} {entry['reducer'] or '(sql)'} {caller} {', '.join(counts)}".rstrip()
    for table in entry["tables"]:
        for sign, name in (("-", "deleted"), ("+", "inserted")):
            for row in table.get(name, ()):
                yield f"         {sign} {table['table']} {json.dumps(row, ensure_ascii=False)}"
