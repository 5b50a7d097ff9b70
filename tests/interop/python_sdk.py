"""The Python SDK 0.7.0 from PyPI in a virtual environment of its own, and a program around it."""

import os
import subprocess
import sys
import venv
from pathlib import Path

from tests.interop.npm import INSTALL_SECONDS_MAX, ROOT, TEST_CACHE, alone
from tests.interop.processes import Driver, Server

__all__ = ["PythonDriver", "bindings", "sdk_python"]

PACKAGES = ("spacetimedb-sdk==0.7.0", "websocket-client==1.9.0")
CACHE = TEST_CACHE / "python-sdk"
PROGRAM = Path(__file__).parent / "python" / "driver.py"


def sdk_python() -> Path:
    """Return the interpreter of an environment that holds the SDK and nothing of this project."""
    python = CACHE / "bin" / "python"
    with alone(CACHE):
        stamp = CACHE / ".installed"
        wanted = "\n".join((*PACKAGES, sys.version))
        if not (stamp.exists() and stamp.read_text() == wanted):
            venv.create(CACHE, with_pip=True, clear=True)
            command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX, check=False)
            assert done.returncode == 0, f"pip install {PACKAGES} failed:\n{done.stdout}\n{done.stderr}"
            stamp.write_text(wanted)
    return python


def bindings(server: Server, database: str, directory: Path) -> Path:
    """Generate the bindings of a database into a directory, by the command line; return the directory."""
    command = ["generate", "-s", server.http, "--lang", "python", "--sdk", "0.7", "-o", str(directory), database]
    subprocess.run(
        [sys.executable, "-m", "stdb", *command],
        cwd=ROOT,
        env={**os.environ, "XDG_CONFIG_HOME": str(directory.parent)},
        check=True,
        capture_output=True,
        timeout=60,
    )
    return directory


class PythonDriver(Driver):
    """A process with the SDK's blocking or asyncio client, `kind`, on generated bindings; its home is `home`."""

    def __init__(self, kind: str, package: Path, home: Path) -> None:
        environment = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
        super().__init__("env", "-i", *_assignments(environment), sdk_python(), PROGRAM, kind, package, directory=home)


def _assignments(environment: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in environment.items()]
