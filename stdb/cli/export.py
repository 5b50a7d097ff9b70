"""The commands `export` and `import`: the rows of one table as lines of text."""

import argparse
from pathlib import Path
from urllib.parse import quote

from stdb.cli.api import Api
from stdb.cli.backup import post_file
from stdb.cli.errors import CliError
from stdb.cli.transfer import receive, size_text, writing

__all__ = ["export_table", "import_table"]

_SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_TYPES = {"jsonl": "application/x-ndjson", "csv": "text/csv"}


def export_table(api: Api, options: argparse.Namespace) -> None:
    """Write the rows of a table into a file."""
    identity = api.database(options.database)
    path = Path(options.file or f"{options.table}.{options.format or 'jsonl'}")
    format_ = _format(options, path)
    url = f"/stdb/v1/database/{identity}/export/{quote(options.table, safe='')}"
    with api.stream("GET", url, params={"format": format_}) as response, writing(path) as file:
        size = receive(response, file, "export")
        count = response.headers["stdb-rows"]
    if str(path) != "-":
        print(f"{path}: {count} rows of {options.table}, {size_text(size)}.")


def import_table(api: Api, options: argparse.Namespace) -> None:
    """Insert the rows of a file into a table."""
    identity = api.database(options.database)
    path = Path(options.file)
    format_ = _format(options, path)
    query = {"format": format_} | ({} if options.rows is None else {"rows": str(options.rows)})
    url = f"/stdb/v1/database/{identity}/import/{quote(options.table, safe='')}"
    done = post_file(api, url, query, path, "import", _TYPES[format_])
    known = done["rows_read"] - done["rows_inserted"]
    there = f", {known} were there already" if known else ""
    print(f"{done['rows_inserted']} rows inserted into {options.table} in {done['transactions']} transactions{there}.")


def _format(options: argparse.Namespace, path: Path) -> str:
    """Return the format that is asked for, or that the file's name says."""
    if options.format:
        return str(options.format)
    if str(path) == "-":
        return "jsonl"
    found = _SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise CliError(f"{path}: is it csv or jsonl? Say so with --format.", exit_code=2)
    return found
