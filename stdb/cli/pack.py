"""Programs to upload: a module's file or directory read from disk and packed, or a file as it is.

Responsible for: reading directories, choosing what kind of program a path is.
Not responsible for: the archive's layout and what is left out (`stdb.modules.python`), uploading (`publish`).
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from stdb.cli.errors import CliError
from stdb.errors import SchemaError
from stdb.modules.python.archive import MAGIC, pack
from stdb.modules.python.ignore import is_never_packed, select

__all__ = ["Program", "read_program"]

WASM_MAGIC = b"\0asm"


class Program(NamedTuple):
    """What is uploaded, and the `host_type` it is uploaded as."""

    body: bytes
    host_type: str


def read_program(path: Path) -> Program:
    """Return the program at `path`: a `.py` file, a package directory, a packed module or a WASM file."""
    try:
        if path.is_dir():
            return Program(_pack(_package(path)), "Python")
        body = path.read_bytes()
    except OSError as error:
        raise CliError(f"cannot read the module {path}: {error.strerror or error}") from error
    if path.suffix == ".py":
        return Program(_pack({f"{_module_name(path.stem)}.py": body}), "Python")
    if body.startswith(WASM_MAGIC):
        return Program(body, "Wasm")
    if body.startswith(MAGIC):
        return Program(body, "Python")
    raise CliError(f"{path} is no module: expected a .py file, a package directory, a packed module or a WASM file.")


def _pack(files: Mapping[str, bytes]) -> bytes:
    try:
        return pack(files)
    except SchemaError as error:
        raise CliError(str(error)) from error


def _package(directory: Path) -> dict[str, bytes]:
    if not (directory / "__init__.py").is_file():
        raise CliError(
            f"Could not find a module in {directory}: a package directory has an __init__.py.\n"
            "Name a .py file or a package directory with --module-path PATH."
        )
    name = _module_name(directory.resolve().name)
    files = select(_Directory(directory))
    return {f"{name}/{path}": body for path, body in files.items()}


def _module_name(stem: str) -> str:
    """Return the name a program is imported under."""
    return re.sub(r"\W", "_", stem) if not stem[:1].isdigit() else "_" + re.sub(r"\W", "_", stem)


class _Directory(Mapping[str, bytes]):
    """The regular files below a directory by `/`-separated path, read when asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._paths = sorted(_walk(root, ""))

    def __getitem__(self, path: str) -> bytes:
        return (self._root / path).read_bytes()

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def _walk(directory: Path, prefix: str) -> Iterator[str]:
    for entry in directory.iterdir():
        if entry.name == ".gitignore":
            yield prefix + entry.name
        elif is_never_packed(entry.name) or entry.is_symlink():
            continue
        elif entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif entry.is_file():
            yield prefix + entry.name
