"""Blocking calls: warns once per line of a module that stops the whole server while it waits.

Responsible for: noticing `time.sleep`, `input`, sockets and subprocesses under a module's frame.
Not responsible for: preventing them; modules are trusted code (DESIGN decision 10).

Sockets, `input` and processes tell of themselves by audit events, whichever library opens them; the one hook comes
with the first module. `time.sleep` has no event before Python 3.13, so a module's `time` is a stand-in.

Source: spec 08, "Publishing and loading".
"""

import sys
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any

from stdb.modules.python.declarations import SOURCE_ROOT, Place
from stdb.modules.python.output import Facade, Output

__all__ = ["time_facade", "unwatch", "watch"]

_EVENTS = {"builtins.input": "input()", "subprocess.Popen": "a subprocess", "os.system": "os.system()"}
_HOSTS = ("stdb.actors.", "stdb.net.")
_outputs: dict[str, Output] = {}
"""By directory of a version's file names."""
_installed: list[Callable[[str, tuple[Any, ...]], None]] = []


def watch(directory: str, output: Output) -> None:
    """Warn into `output` about the code whose file names begin with `directory`."""
    _outputs[directory] = output
    if not _installed:
        _installed.append(_on_event)
        sys.addaudithook(_on_event)


def unwatch(directory: str) -> None:
    """Stop watching."""
    _outputs.pop(directory, None)


def time_facade(real: ModuleType, output: Output) -> ModuleType:
    """Return a `time` whose `sleep` warns."""

    def sleep(seconds: float) -> None:
        """Suspend everybody for some seconds."""
        _warn(output, sys._getframe(1), "time.sleep()")
        real.sleep(seconds)

    return Facade(real, {"sleep": sleep})


def _on_event(event: str, _: tuple[Any, ...]) -> None:
    if not _outputs:
        return
    what = "a socket" if event.startswith("socket.") else _EVENTS.get(event)
    if what is None:
        return
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(_HOSTS):
            return  # the server's own, on behalf of `ctx.http`
        filename = frame.f_code.co_filename
        if filename.startswith(SOURCE_ROOT):
            output = _outputs.get(filename[: filename.index("/", len(SOURCE_ROOT)) + 1])
            if output is not None:
                _warn(output, frame, what)
            return
        frame = frame.f_back


def _warn(output: Output, frame: FrameType, what: str) -> None:
    output.warn_once(
        Place(frame.f_code.co_filename, frame.f_lineno),
        f"{what} waits in the server's only thread: every client of every database waits with it",
        key="blocking",
    )
