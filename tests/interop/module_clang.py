"""Modules in C (`c_modules/`), built with clang and wasm-ld into a cache directory of the project.

Nothing of a C library is linked: a module is one file, and `module.h` that is made for it.
"""

import shutil
import subprocess
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from tests.interop.npm import TEST_CACHE, alone, missing

__all__ = ["build_c_module", "build_c_program"]

SOURCES = Path(__file__).parent / "c_modules"
CACHE = TEST_CACHE / "wasm-c"
BUILD_SECONDS_MAX = 120
VERSIONS = ("", "-19", "-20", "-18", "-17", "-16")
"""As Debian names the programs; any of them will do."""
_COMPILE = (
    "--target=wasm32",
    "-std=c11",
    "-O2",
    "-fno-builtin",
    "-Wall",
    "-Werror",
    "-ffreestanding",
    "-mbulk-memory",
    "-c",
)
_LINK = ("--no-entry", "--strip-all", "--export-dynamic", "-z", "stack-size=65536")


def build_c_module(
    name: str, definition: bytes, *, views: Sequence[bytes] = (), scheduled_reducer: int = 0xFFFFFFFF
) -> bytes:
    """Return a module compiled from `c_modules/{name}.c`; built again only when something changed.

    `definition` is what it says of itself, `views` are the scripts of its views by index.
    """
    return build_c_program(name, "module.h", _header(definition, views, scheduled_reducer), *_COMPILE)


def build_c_program(name: str, header_name: str, header: str, *options: str) -> bytes:
    """Return a program compiled from `c_modules/{name}.c` and a header, by options of clang."""
    source = SOURCES / f"{name}.c"
    tag = sha256(source.read_bytes() + header.encode() + repr((options, _LINK)).encode()).hexdigest()[:16]
    directory = CACHE / f"{name}-{tag}"
    built = directory / f"{name}.wasm"
    with alone(directory):
        if not built.exists():
            directory.mkdir(exist_ok=True)
            (directory / header_name).write_text(header)
            _build(source, directory, built, options)
    return built.read_bytes()


def _build(source: Path, directory: Path, built: Path, options: Sequence[str]) -> None:
    clang, linker = _tool("clang"), _tool("wasm-ld")
    made, linked = directory / "module.o", directory / "module.wasm"
    _run(clang, *options, f"-I{directory}", "-o", str(made), str(source))
    _run(linker, *_LINK, "-o", str(linked), str(made))
    linked.replace(built)


def _tool(name: str) -> str:
    for version in VERSIONS:
        path = shutil.which(name + version)
        if path is not None:
            return path
    raise missing(f"there is no {name}: modules in C need Debian's clang-19 and lld-19")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS_MAX, check=False)
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stderr}"


def _header(definition: bytes, views: Sequence[bytes], scheduled_reducer: int) -> str:
    places, start = [], 0
    for each in views:
        places.append(f"{{{start}, {len(each)}}}")
        start += len(each)
    return (
        f"static const u8 DESCRIPTION[] = {{{_numbers(definition)}}};\n"
        f"static const u8 VIEWS[] = {{{_numbers(b''.join(views) or bytes(1))}}};\n"
        f"static const u32 VIEW_PLACES[][2] = {{{', '.join(places) or '{0, 0}'}}};\n"
        f"#define SCHEDULED_REDUCER {scheduled_reducer}u\n"
    )


def _numbers(data: bytes) -> str:
    return ",".join(map(str, data))
