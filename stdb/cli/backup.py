"""The commands `backup` and `restore`: a database as a file, and back."""

import argparse
from pathlib import Path
from typing import Any

from stdb.cli.api import Api
from stdb.cli.transfer import receive, size_text, uploading, writing

__all__ = ["backup", "post_file", "restore", "say_made"]


def backup(api: Api, options: argparse.Namespace) -> None:
    """Copy a database into a file while it runs."""
    identity = api.database(options.database)
    path = Path(options.file or f"{options.database}.stdb")
    with api.stream("GET", f"/stdb/v1/database/{identity}/backup") as response, writing(path) as file:
        size = receive(response, file, "backup")
        offset = response.headers["stdb-offset"]
    if str(path) != "-":
        print(f"{path}: database {options.database} ({identity}) up to offset {offset}, {size_text(size)}.")


def restore(api: Api, options: argparse.Namespace) -> None:
    """Make a database of a backup."""
    query = {name: value for name in ("name", "owner") if (value := getattr(options, name))}
    made = post_file(api, "/stdb/v1/restore", query, Path(options.file), "restore")
    say_made("Restored", made)
    print(f"It belongs to {made['owner_identity']}.")


def post_file(
    api: Api,
    path: str,
    query: dict[str, str],
    file: Path,
    what: str,
    content_type: str = "application/octet-stream",
) -> Any:
    """Send a file; return the document of the answer."""
    headers = {"Content-Type": content_type}
    with (
        uploading(file, what) as pieces,
        api.stream("POST", path, params=query, content=pieces, headers=headers) as response,
    ):
        response.read()
    return response.json()


def say_made(how: str, made: Any) -> None:
    """Tell what a restore or a fork has made."""
    name = f"{made['name']} " if made["name"] else "a database without a name "
    print(f"{how} {name}({made['database_identity']}) as of offset {made['offset']}.")
