"""Transfers: files sent to a server and received from it, with a progress bar on a terminal.

Responsible for: progress, files that are written whole or not at all.
Not responsible for: requests (`api`), what the files hold (the commands).
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import httpx
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from stdb.cli.errors import CliError

__all__ = ["receive", "size_text", "uploading", "writing"]

PIECE_BYTES = 256 * 1024


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Hold a file open that gets its name once everything is in it; `-` is stdout. A file that is there is replaced."""
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def receive(response: httpx.Response, file: BinaryIO, what: str) -> int:
    """Write an answer into a file as it arrives; return how many bytes."""
    total = response.headers.get("content-length")
    size = 0
    with _progress() as progress:
        task = progress.add_task(what, total=None if total is None else int(total))
        for piece in response.iter_raw(PIECE_BYTES):
            file.write(piece)
            size += len(piece)
            progress.update(task, advance=len(piece))
    return size


@contextmanager
def uploading(path: Path, what: str) -> Iterator[Iterator[bytes]]:
    """Hold the pieces of a file to send; `-` is stdin."""
    is_stdin = str(path) == "-"
    try:
        file = sys.stdin.buffer if is_stdin else open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise CliError(f"cannot read {path}: {error.strerror}") from error
    try:
        total = None if is_stdin else os.fstat(file.fileno()).st_size
        with _progress() as progress:
            task = progress.add_task(what, total=total)

            def pieces() -> Iterator[bytes]:
                while piece := file.read(PIECE_BYTES):
                    yield piece
                    progress.update(task, advance=len(piece))

            yield pieces()
    finally:
        if not is_stdin:
            file.close()


def size_text(size: int) -> str:
    """Return a number of bytes as people read it."""
    number, units = float(size), iter(("bytes", "KiB", "MiB", "GiB"))
    unit = next(units)
    while number >= 1024 and unit != "GiB":
        number, unit = number / 1024, next(units)
    return f"{size} bytes" if unit == "bytes" else f"{number:.1f} {unit}"


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
