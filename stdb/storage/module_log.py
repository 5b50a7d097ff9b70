"""The log of a module: what it prints and what the host says about it, one JSON object a line.

Responsible for: the lines (spec 05 section 5.5), files per UTC day of at most 64 MiB kept for 14 days, reading the
last lines, followers. Not responsible for: who may read it (`stdb.net`), the server's own log.

A follower that does not keep up loses its oldest lines; nobody waits for it.
"""

import logging
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec
import trio

__all__ = ["FILE_BYTES_MAX", "FOLLOW_LINES_MAX", "HOST", "LogFollower", "ModuleLog"]

FILE_BYTES_MAX = 64 * 1024 * 1024
DAYS_KEPT = 14
FOLLOW_LINES_MAX = 2500
"""Old lines that a follower can ask for."""
PENDING_BYTES_MAX = 4 * 1024 * 1024
"""Lines that wait for one follower; beyond, the oldest are dropped."""
HOST = "__spacetimedb__"
"""Source of the lines that the host writes."""

_FILE = re.compile(r"(\d{4}-\d{2}-\d{2})(?:\.(\d+))?\.ndjson", re.ASCII)
_CHUNK_BYTES = 64 * 1024

_logger = logging.getLogger("stdb.module_log")


class LogFollower:
    """New lines of one log for one reader. Leave the `with` to stop following."""

    def __init__(self, log: "ModuleLog") -> None:
        self._log = log
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._arrived = trio.Event()
        self._closed = False

    def __enter__(self) -> Self:
        self._log._followers.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._log._followers.discard(self)

    async def receive_some(self) -> bytes:
        """Wait for lines and return all there are; empty when the log was closed."""
        while not self._lines and not self._closed:
            await self._arrived.wait()
            self._arrived = trio.Event()
        await trio.lowlevel.checkpoint()
        lines, self._size = b"".join(self._lines), 0
        self._lines.clear()
        return lines

    def _push(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line)
        while self._size > PENDING_BYTES_MAX and len(self._lines) > 1:
            self._size -= len(self._lines.popleft())
        self._arrived.set()

    def _end(self) -> None:
        self._closed = True
        self._arrived.set()


class ModuleLog:
    """The log of one database; a `LogSink` for its module. Belongs to the event loop's thread."""

    def __init__(self, directory: Path | None, now_us: Callable[[], int], file_bytes_max: int = FILE_BYTES_MAX) -> None:
        """Log into `directory`, made at the first line; None keeps the lines in memory, for tests."""
        self._directory = directory
        self._now_us = now_us
        self._file_bytes_max = file_bytes_max
        self._memory: list[bytes] = []
        self._file: BinaryIO | None = None
        self._day = ""
        self._part = 0
        self._size = 0
        self._followers: set[LogFollower] = set()
        self.lines_lost = 0
        """Lines that the disk did not take."""

    def write(
        self,
        level: str,
        message: str,
        *,
        target: str | None = None,
        filename: str | None = None,
        line: int | None = None,
        function: str | None = None,
        trace: Sequence[str] | None = None,
    ) -> None:
        """Append one line; `trace` holds function names, innermost first, and belongs to panics."""
        ts = self._now_us()
        record: dict[str, object] = {"level": level, "ts": ts}
        members = (("target", target), ("filename", filename), ("line_number", line), ("function", function))
        record.update((name, value) for name, value in members if value is not None)
        record["message"] = message
        if trace is not None:
            record["trace"] = [{"func_name": name} for name in trace]
        self._append(ts, _encode(record))

    def write_host(self, message: str, level: str = "Info", function: str = HOST) -> None:
        """Append a line of the host; errors about a function name it in `function`."""
        self.write(level, message, target=HOST, filename=HOST, function=function)

    def tail(self, line_count: int | None) -> Iterator[bytes]:
        """Yield the last lines of the latest day in chunks, oldest first; None means all of the latest file."""
        if self._directory is None:
            lines = self._memory if line_count is None else self._memory[len(self._memory) - line_count :]
            yield b"".join(self._memory if line_count is not None and line_count > len(self._memory) else lines)
            return
        if self._file is not None:
            self._file.flush()
        files = _files(self._directory)
        latest = [path for day, _, path in files if day == files[-1][0]]
        yield from _last_lines(latest[-1:] if line_count is None else latest, line_count)

    def follow(self) -> LogFollower:
        """Return a follower; it sees every line written after its `with` was entered."""
        return LogFollower(self)

    def clear(self) -> None:
        """Remove all lines, as a reset or the deletion of the database does; followers stay."""
        self._close_file()
        self._memory.clear()
        if self._directory is not None:
            for _, _, path in _files(self._directory):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file and end every follower."""
        self._close_file()
        for follower in self._followers:
            follower._end()

    # ------------------------------------------------------------------ inside
    def _append(self, ts: int, line: bytes) -> None:
        for follower in self._followers:
            follower._push(line)
        if self._directory is None:
            self._memory.append(line)
            return
        try:
            self._file_for(self._directory, ts).write(line)
            self._size += len(line)
        except OSError as error:
            if not self.lines_lost:
                _logger.error("lines of a module log are lost: %s", error)
            self.lines_lost += 1

    def _file_for(self, directory: Path, ts: int) -> BinaryIO:
        """Return the file that the next line goes to, beginning a new one when the day or the size says so."""
        day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ts)).strftime("%Y-%m-%d")
        if self._file is not None and day == self._day and self._size < self._file_bytes_max:
            return self._file
        self._close_file()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        parts = [part for known, part, path in _files(directory) if known == day]
        part = max(parts, default=0)
        path = directory / _file_name(day, part)
        if path.exists() and path.stat().st_size >= self._file_bytes_max:
            path = directory / _file_name(day, part + 1)
        _drop_old_files(directory, ts)
        file = path.open("ab", buffering=0)
        self._file, self._day, self._size = file, day, file.tell()
        return file

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _encode(record: dict[str, object]) -> bytes:
    try:
        return msgspec.json.encode(record) + b"\n"
    except UnicodeEncodeError:  # lone surrogates, which Python allows in a str and JSON readers do not
        clean = {
            name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
            for name, value in record.items()
        }
        return msgspec.json.encode(clean) + b"\n"


def _file_name(day: str, part: int) -> str:
    return f"{day}.{part}.ndjson" if part else f"{day}.ndjson"


def _files(directory: Path) -> list[tuple[str, int, Path]]:
    """Return (day, part, path) of the log files, oldest first."""
    if not directory.is_dir():
        return []
    matches = [(match, path) for path in directory.iterdir() if (match := _FILE.fullmatch(path.name))]
    return sorted((match[1], int(match[2] or 0), path) for match, path in matches)


def _drop_old_files(directory: Path, ts: int) -> None:
    oldest = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ts, days=-DAYS_KEPT)).strftime("%Y-%m-%d")
    for day, _, path in _files(directory):
        if day <= oldest:
            path.unlink(missing_ok=True)


def _last_lines(files: list[Path], line_count: int | None) -> Iterator[bytes]:
    """Yield the last lines of the files in chunks; None means all."""
    starts: list[tuple[Path, int]] = []
    missing = line_count
    for path in reversed(files):
        offset, found = (0, 0) if missing is None else _offset_of_last_lines(path, missing)
        starts.append((path, offset))
        if missing is not None:
            missing -= found
            if missing <= 0:
                break
    for path, offset in reversed(starts):
        with path.open("rb") as file:
            file.seek(offset)
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk


def _offset_of_last_lines(path: Path, line_count: int) -> tuple[int, int]:
    """Return where the last `line_count` lines begin, and how many lines that is."""
    with path.open("rb") as file:
        position = end = file.seek(0, 2)
        found = 0
        while position > 0 and line_count > 0:
            start = max(0, position - _CHUNK_BYTES)
            file.seek(start)
            block = file.read(position - start)
            at = len(block)
            while (at := block.rfind(b"\n", 0, at)) >= 0:
                if start + at + 1 == end:
                    continue  # the newline that ends the file ends its last line, it begins none
                found += 1
                if found == line_count:
                    return start + at + 1, found
            position = start
        return (end, 0) if line_count <= 0 else (0, found + 1 if end else 0)
