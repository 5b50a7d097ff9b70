"""The command `retention`: how long a database keeps its log."""

import argparse

from stdb.cli.api import Api, refused

__all__ = ["retention"]

_MEANINGS = {
    "all": "every transaction is kept",
    "hours": "transactions of the last {} hours are kept",
    "bytes": "the newest {} bytes of transactions are kept",
}


def retention(api: Api, options: argparse.Namespace) -> None:
    """Show or set how long the log is kept."""
    path = f"/stdb/v1/database/{api.database(options.database)}/retention"
    if options.keep is None:
        kept = api.document(path)["retention"]
    else:
        response = api.request("PUT", path, content=options.keep.encode())
        if response.status_code != 200:
            raise refused(response)
        kept = response.json()["retention"]
    kind, _, number = kept.partition("=")
    print(f"{options.database}: {kept} ({_MEANINGS[kind].format(number)}).")
