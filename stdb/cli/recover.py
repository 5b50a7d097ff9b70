"""The command `recover`: keep the good part of a database's log while no server runs.

Responsible for: finding the log by the database's name or identity, holding the data directory meanwhile, telling what
was done.
Not responsible for: the recovery itself (`stdb.storage.recovering`).
"""

import argparse
from contextlib import closing
from pathlib import Path

from stdb.cli.api import identity_digits
from stdb.cli.config import data_home
from stdb.cli.errors import CliError
from stdb.errors import StorageError
from stdb.storage.control import Control
from stdb.storage.data_directory import DataDirectory
from stdb.storage.recovering import recover as recover_log

__all__ = ["recover"]


def recover(options: argparse.Namespace) -> None:
    """Keep a log's transactions before an offset, or before its first damage, and put the old file aside."""
    path = Path(options.data_dir) if options.data_dir else data_home()
    if not (path / "control.sqlite").exists():
        raise CliError(f"{path} is no data directory of stdb. Name it with --data-dir, as `serve` printed it.")
    try:
        with DataDirectory(path) as directory:
            identity = _identity(directory, options.database)
            done = recover_log(directory.database_path(identity), options.to)
    except StorageError as error:
        raise CliError(str(error)) from error
    print(f"Kept {done.kept} transactions of {options.database} ({identity[::-1].hex()}).")
    if done.damage is not None:
        print(f"They end where the old log is damaged: {done.damage}")
    print(f"The old log is now {done.aside}")


def _identity(directory: DataDirectory, database: str) -> bytes:
    """Return the identity that is meant; one given in digits needs no control store, which may be damaged too."""
    if digits := identity_digits(database):
        return bytes.fromhex(digits)[::-1]
    with closing(Control(str(directory.control_path))) as control:
        identity = control.resolve(database)
    if identity is None:
        raise CliError(f"no database is named `{database}` in {directory.path}. Its identity may be given, too.")
    return identity
