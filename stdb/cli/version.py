"""The version of this stdb: the installed package's, in a checkout that is not installed the checkout's."""

import argparse
import importlib.metadata
import tomllib
from pathlib import Path

__all__ = ["print_version", "version"]

DISTRIBUTION = "stdb-server"


def version() -> str:
    """Return the version, such as `0.1.0`."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return _checkout_version(Path(__file__).parents[2] / "pyproject.toml")


def print_version(options: argparse.Namespace) -> None:
    """Print the version."""
    print(f"stdb {version()}")


def _checkout_version(path: Path) -> str:
    try:
        return f"{tomllib.loads(path.read_text('utf-8'))['project']['version']}+checkout"
    except (OSError, tomllib.TOMLDecodeError, KeyError):
        return "unknown"
