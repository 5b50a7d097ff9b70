"""npm packages in a cache directory of the project, installed by name and pinned version."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["NODE_SOURCES", "ROOT", "TEST_CACHE", "alone", "install", "missing", "require"]

ROOT = Path(__file__).parent.parent.parent
NODE_SOURCES = Path(__file__).parent / "node"
TEST_CACHE = Path(os.environ.get("STDB_TEST_CACHE", ROOT / ".cache"))
CACHE = TEST_CACHE / "npm"
INSTALL_SECONDS_MAX = 600


def missing(message: str) -> BaseException:
    """Return what a test raises that lacks something of this machine: it is skipped for a user, fails in CI."""
    return (pytest.fail if os.environ.get("CI") == "true" else pytest.skip).Exception(message)


def require(program: str, needed: str = "Node.js 20 or later with npm") -> str:
    """Return the path of a program; a missing one skips the test for a user and fails it in CI."""
    path = shutil.which(program)
    if path is None:
        raise missing(f"{program} is not installed: these tests with real clients need {needed}")
    return path


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Keep the other test processes waiting that want to prepare the same directory."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_name(f"{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def install(name: str, *packages: str) -> Path:
    """Return a directory named `name` whose node_modules holds `packages` (`name@version`)."""
    npm = require("npm")
    directory = CACHE / name
    with alone(directory):
        stamp = directory / ".installed"
        wanted = "\n".join(packages)
        if not (stamp.exists() and stamp.read_text() == wanted):
            _install(npm, directory, packages)
            stamp.write_text(wanted)
    return directory


def _install(npm: str, directory: Path, packages: tuple[str, ...]) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / "package.json").write_text('{"name": "interop", "private": true, "type": "module"}')
    command = [npm, "install", "--no-audit", "--no-fund", "--legacy-peer-deps", *packages]
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX, check=False
    )
    assert done.returncode == 0, f"npm install {packages} failed:\n{done.stdout}\n{done.stderr}"
