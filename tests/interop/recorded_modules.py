"""The modules with which the real server was recorded, by the names of their files in the recordings."""

from tests.interop.module_cargo import build_module
from tests.interop.module_clang import SOURCES, build_c_program

__all__ = ["recorded_module"]

VERSION = "2.8.3"
_C = ("--target=wasm32", "-O2", "-fno-builtin", "-nostdlib", "-w", "-c")


def recorded_module(file: str) -> bytes:
    """Return a module of the recordings: `NAME.wasm`, or `NAME_FEATURE.wasm`."""
    name, _, feature = file.removesuffix(".wasm").partition("_")
    if name in ("v9", "v9b"):
        header = (SOURCES / f"{name}.data.h").read_text()
        return build_c_program("scripts", f"{name}.data.h", header, *_C, f'-DDATA="{name}.data.h"')
    return build_module(name, VERSION, *filter(None, [feature])).read_bytes()
