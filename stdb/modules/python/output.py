"""Output: what a module says with `print` and `logging` becomes lines of its database's log.

Responsible for: the `print` and the `logging` that a version's code sees, traces that show only its own frames.
Not responsible for: storing lines (`LogSink`), warnings about blocking calls (`blocking`).

Inside a module `logging` is a stand-in whose root logger is the version's own: other databases and the server never see
its records, and their settings do not filter them.

Source: spec 08, "Functions" and "Publishing and loading"; spec 05 section 5.5.
"""

import builtins
import logging
import sys
import traceback
from collections.abc import Callable
from types import FrameType, ModuleType, TracebackType
from typing import Any

from stdb.modules.protocol import LogLevel, LogSink
from stdb.modules.python.declarations import SOURCE_ROOT, Place, shown_path

__all__ = ["Facade", "Output", "describe_failure", "failure_place", "failure_text", "module_frames", "shown_value"]

_LEVELS = ((logging.ERROR, LogLevel.ERROR), (logging.WARNING, LogLevel.WARN), (logging.INFO, LogLevel.INFO))
SHOWN_MAX = 200
PENDING_LINES_MAX = 1000
"""Lines that a module writes while it is imported, before it has a log; further ones are dropped."""


class Output:
    """Where one version's lines go. `log` is None until the module is attached; lines wait for it."""

    def __init__(self, prefix: str) -> None:
        """Serve the code whose dotted names begin with `prefix`."""
        self.log: LogSink | None = None
        self.function: str | None = None
        """The reducer that runs, or ran last."""
        self._prefix = prefix
        self._pending: list[tuple[str, str, dict[str, Any]]] = []
        self._once: set[tuple[str, Place]] = set()

    def attach(self, log: LogSink) -> None:
        """Write to `log` from now on, what waits first."""
        self.log = log
        pending, self._pending = self._pending, []
        for level, message, members in pending:
            log.write(level, message, **members)

    def write(self, level: str, message: str, place: Place | None, module: str | None = None) -> None:
        """Append a line; `place` is where the module wrote it."""
        members: dict[str, Any] = {
            "target": None if module is None else module.removeprefix(self._prefix).lstrip(".") or None,
            "filename": None if place is None else shown_path(place.filename),
            "line": None if place is None else place.line,
            "function": self.function,
        }
        if self.log is not None:
            self.log.write(level, message, **members)
        elif len(self._pending) < PENDING_LINES_MAX:
            self._pending.append((level, message, members))

    def warn_once(self, place: Place, message: str, key: str | None = None) -> None:
        """Append a warning, the first time for this place and `key` (the message unless given)."""
        if (mark := (key or message, place)) not in self._once:
            self._once.add(mark)
            self.write(LogLevel.WARN, message, place)

    def print(
        self, *values: object, sep: str | None = " ", end: str | None = "\n", file: Any = None, flush: bool = False
    ) -> None:
        """Print as the builtin does; without `file`, into the log."""
        if file is not None:
            builtins.print(*values, sep=sep, end=end, file=file, flush=flush)
            return
        text = (" " if sep is None else sep).join(map(str, values)) + ("" if end is None else end)
        frame = sys._getframe(1)
        self.write(LogLevel.INFO, text.removesuffix("\n"), _place(frame), frame.f_globals.get("__name__"))

    def logging_facade(self) -> ModuleType:
        """Return the `logging` that the version's code imports."""
        root = logging.getLogger(self._prefix)
        root.propagate = False
        root.setLevel(1)
        root.handlers[:] = [_Handler(self)]
        names = ("debug", "info", "warning", "error", "exception", "critical", "log")
        overrides: dict[str, Any] = {name: getattr(root, name) for name in names}
        return Facade(logging, {**overrides, "getLogger": self._logger, "basicConfig": self._configure, "root": root})

    def _logger(self, name: str | None = None) -> logging.Logger:
        if not name:
            return logging.getLogger(self._prefix)
        inside = name == self._prefix or name.startswith(self._prefix + ".")
        return logging.getLogger(name if inside else f"{self._prefix}.{name}")

    def _configure(self, *, level: int | str | None = None, **_: Any) -> None:
        """Set the level below which records are dropped; the rest of `basicConfig` is the database's business."""
        if level is not None:
            logging.getLogger(self._prefix).setLevel(level)

    def close(self) -> None:
        """Forget the version's loggers."""
        known = logging.Logger.manager.loggerDict
        for name in [each for each in known if each == self._prefix or each.startswith(self._prefix + ".")]:
            del known[name]


class Facade(ModuleType):
    """A module as a version's code sees it: the real one but for some names."""

    def __init__(self, real: ModuleType, overrides: dict[str, Any]) -> None:
        super().__init__(real.__name__, real.__doc__)
        self.__dict__.update({**vars(real), **overrides})
        self.__dict__["_real"] = real

    def __getattr__(self, name: str) -> Any:
        """Return what the real module has learned since."""
        return getattr(self.__dict__["_real"], name)


class _Handler(logging.Handler):
    """Hands records to an Output."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, the module's frames of its exception behind the message."""
        try:
            message = record.getMessage()
        except Exception as error:  # noqa: BLE001 - the module's own format and arguments
            message = f"{record.msg!r} does not take the arguments {record.args!r}: {error}"
        if record.exc_info and record.exc_info[1] is not None:
            message += "\n" + describe_failure(record.exc_info[1])
        self._output.write(_level(record.levelno), message, Place(record.pathname, record.lineno), record.name)


def _level(number: int) -> str:
    for least, level in _LEVELS:
        if number >= least:
            return level
    return LogLevel.DEBUG if number >= logging.DEBUG else LogLevel.TRACE


def _place(frame: FrameType) -> Place:
    return Place(frame.f_code.co_filename, frame.f_lineno)


def module_frames(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    """Return the frames of a traceback that are module code, file names as the author knows them; oldest first."""
    return [
        traceback.FrameSummary(shown_path(each.filename), each.lineno, each.name, lookup_line=False, line=each.line)
        for each in traceback.extract_tb(trace)
        if each.filename.startswith(SOURCE_ROOT)
    ]


def failure_place(error: BaseException) -> Place | None:
    """Return the innermost line of module code that an exception came through."""
    try:
        frames = module_frames(error.__traceback__)
    except BaseException:  # noqa: BLE001 - an exception's own code, see `failure_text`
        return None
    return Place(frames[-1].filename, frames[-1].lineno or 0) if frames else None


def failure_text(error: BaseException) -> str:
    """Return what an exception says. Its own `__str__` is module code: whatever that raises stays here."""
    try:
        return str.__str__(str(error))
    except BaseException as inner:  # noqa: BLE001 - SystemExit in a `__str__` must not end the server
        return f"(its text cannot be had: {type(inner).__name__})"


def shown_value(value: object) -> str:
    """Return a value of the module's as a message has it: SHOWN_MAX characters of it. Its `__repr__` is module code."""
    try:
        text = repr(value)
    except BaseException as error:  # noqa: BLE001 - see `failure_text`
        return f"(a {type(value).__name__} that cannot be shown: {type(error).__name__})"
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


def describe_failure(error: BaseException) -> str:
    """Return an exception as Python would print it, causes first, with the frames of module code alone."""
    parts: list[str] = []
    seen: set[int] = set()
    try:
        _describe(error, parts, seen)
    except BaseException as inner:  # noqa: BLE001 - an exception's own code, see `failure_text`
        parts.append(f"(an exception that cannot be shown: {type(inner).__name__})")
    return "\n".join(parts).rstrip()


def _describe(error: BaseException, parts: list[str], seen: set[int]) -> None:
    seen.add(id(error))
    before, link = error.__cause__, "The above exception was the direct cause of the following exception:"
    if before is None and not error.__suppress_context__:
        before, link = error.__context__, "During handling of the above exception, another exception occurred:"
    if before is not None and id(before) not in seen:
        _describe(before, parts, seen)
        parts.append(f"\n{link}\n")
    frames = module_frames(error.__traceback__)
    if frames:
        parts.append("Traceback (most recent call last):")
        parts.append("".join(traceback.format_list(frames)).rstrip("\n"))
    only: Callable[[BaseException], list[str]] = traceback.format_exception_only
    parts.append("".join(only(error)).rstrip("\n"))
