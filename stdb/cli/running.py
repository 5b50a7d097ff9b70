"""Which servers run on this machine: `serve` leaves a note that says where each keeps its data.

A note is a file `$XDG_STATE_HOME/stdb/servers/PORT` holding the data directory's path. It only helps the command line
of the same user to find `operator.token`. A note that a killed server left behind is not followed: the lock of its
data directory is free.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["announced", "data_directory_of"]

LOCK_NAME = "stdb.lock"
DEFAULT_PORTS = {"http": "80", "https": "443"}


def _notes() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "stdb" / "servers"


def data_directory_of(host: str, protocol: str = "http") -> Path | None:
    """Return the data directory of the server that runs at `HOST:PORT` on this machine, if it left a note."""
    port = host.rpartition(":")[2]
    try:
        directory = Path((_notes() / (port if port.isdecimal() else DEFAULT_PORTS[protocol])).read_text().strip())
        return directory if _is_locked(directory / LOCK_NAME) else None
    except OSError:
        return None


def _is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@contextlib.contextmanager
def announced(port: int, data_directory: Path) -> Iterator[None]:
    """Leave a note while a server runs."""
    note, text = _notes() / str(port), f"{data_directory.resolve()}\n"
    with contextlib.suppress(OSError):  # without a note the command line asks for a token, nothing else
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(text)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if note.read_text() == text:  # on another address of this port another server may have written its own
                note.unlink()
