"""Which servers run on this machine: `serve` leaves a note that says where each keeps its data.

A note is a file `$XDG_STATE_HOME/stdb/servers/PORT` holding the data directory's path. It only helps the command line
of the same user to find `operator.token`; a stale note does no harm, since that file must still be readable.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["announced", "data_directory_of"]


def _notes() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "stdb" / "servers"


def data_directory_of(host: str) -> Path | None:
    """Return the data directory of the server at `HOST:PORT` on this machine, if it left a note."""
    port = host.rsplit(":", 1)[-1] if ":" in host else "80"
    try:
        return Path((_notes() / port).read_text().strip())
    except OSError:
        return None


@contextlib.contextmanager
def announced(port: int, data_directory: Path) -> Iterator[None]:
    """Leave a note while a server runs."""
    note = _notes() / str(port)
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{data_directory.resolve()}\n")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            note.unlink()
