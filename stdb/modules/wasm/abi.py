"""ABI: which version of the host interface a program wants, and what a program must import and export.

Responsible for: the version carried in import names, signatures of exports, the texts of refusals.
Not responsible for: the host functions themselves (`imports_10`), running anything (`instance`).

Source: spec 04 sections 1 and 5; the texts are those of the real server (`70_abi_publish`).
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from stdb.errors import ModuleFault
from stdb.modules.wasm.runtime import ExportType, FunctionType

if TYPE_CHECKING:
    from stdb.modules.wasm.engine import CompiledProgram
    from stdb.modules.wasm.runtime import Imports

__all__ = [
    "ABI_9",
    "CALL_HANDLER",
    "CALL_REDUCER",
    "HTTP_HANDLER",
    "NOTHING",
    "PREINIT",
    "check_exports",
    "check_imports",
    "magic_refusal",
    "version",
]

MAGIC = b"\0asm"
HOST_VERSION = (10, 6)
ABI_9 = (9, 0)
"""Of programs of 0.11, which run too."""
PREINIT = "__preinit__"
CALL_REDUCER = FunctionType(("i32", *("i64",) * 7, "i32", "i32"), ("i32",))
_DESCRIBE = FunctionType(("i32",), ())
_SETUP = FunctionType(("i32",), ("i32",))
NOTHING = FunctionType((), ())
_HANDLE = FunctionType((), ("i32",))
_EXPORTS_9 = FunctionType(("i32", "i32", "i32", "i64", "i32"), ("i32",)), _HANDLE, _HANDLE
"""`__call_reducer__`, `__describe_module__` and `__setup__` in ABI 9."""
HTTP_HANDLER = "__call_http_handler__"
CALL_HANDLER = FunctionType(("i32", *("i64",) * 4, "i32", "i64", *("i32",) * 4), ("i32",))
"""From 2.14 on: with the four words of who asks, and a source with the claims."""
CALL_HANDLER_BEFORE = FunctionType(("i32", "i64", *("i32",) * 4), ("i32",))
"""From 2.4 to 2.13."""
_VERSION = re.compile(r"spacetime_([0-9]{1,5})\.([0-9]{1,5})")


def magic_refusal(program: bytes) -> str | None:
    """Return why a program is none in WebAssembly, None where it begins as one."""
    if program.startswith(MAGIC):
        return None
    reason = "unexpected end-of-file"
    if len(program) >= len(MAGIC):
        expected, actual = ("".join(f"    {byte:#x},\n" for byte in each) for each in (MAGIC, program[: len(MAGIC)]))
        reason = f"magic header not detected: bad magic number - expected=[\n{expected}] actual=[\n{actual}]"
    return f"failed to parse WebAssembly module: {reason} (at offset 0x0)"


def version(program: "CompiledProgram") -> tuple[int, int]:
    """Return the version of the ABI that a program needs.

    Raises:
        ModuleFault: It names none, several majors, or one that this server does not have.
    """
    found: tuple[int, int] | None = None
    for module, _, type_ in program.imports:
        if type_ is None or not module.startswith("spacetime_"):
            continue
        each = _parsed(module)
        if found is not None and found[0] != each[0]:
            raise ModuleFault(f"module cannot depend on both major version {found[0]} and major version {each[0]}")
        found = each if found is None else max(found, each)
    if found is None:
        raise ModuleFault("unable to determine ABI of module (may be on an spacetime version < 0.8)")
    implemented = ABI_9 if found[0] == ABI_9[0] else HOST_VERSION
    if found[0] != implemented[0] or found > implemented:
        host = ".".join(map(str, implemented))
        raise ModuleFault(f"abi version {found[0]}.{found[1]} is not supported (host implements {host})")
    return found


def check_imports(program: "CompiledProgram", functions: "Imports") -> None:
    """Check that everything a program imports is there, at its type.

    Raises:
        ModuleFault: Something is not; names it.
    """
    for module, name, type_ in program.imports:
        function = functions.get((module, name))
        if type_ is None or function is None:
            raise ModuleFault(f"unknown import: `{module}::{name}` has not been defined")
        if function.type != type_:
            raise ModuleFault(
                f"incompatible import type for `{module}::{name}`: types incompatible: "
                f"expected type `{type_}`, found type `{function.type}`"
            )


def check_exports(program: "CompiledProgram", version: tuple[int, int] = HOST_VERSION) -> None:
    """Check what a program of a version of the ABI must export.

    Raises:
        ModuleFault: Something is missing or of another type; names it.
    """
    exports = program.exports
    memory = exports.get("memory")
    if memory is None or memory.kind != "memory":
        raise ModuleFault('there should be a memory export called "memory" but it does not exist')
    call_reducer, describe, setup = _EXPORTS_9 if version == ABI_9 else (CALL_REDUCER, _DESCRIBE, _SETUP)
    _check(exports, "__call_reducer__", "call_reducer", call_reducer)
    _check(exports, "__describe_module__", "describe_module", describe)
    for name in exports:
        if name.startswith(PREINIT):
            _check(exports, name, "preinit", NOTHING, name.removeprefix(PREINIT))
    if "__setup__" in exports:
        _check(exports, "__setup__", "setup", setup)
    handler = exports.get(HTTP_HANDLER)
    if handler is not None and handler.type != CALL_HANDLER_BEFORE:
        _check(exports, HTTP_HANDLER, "call_http_handler", CALL_HANDLER)


def _check(
    exports: "Mapping[str, ExportType]", name: str, kind: str, wanted: FunctionType, shown: str | None = None
) -> None:
    shown = name if shown is None else shown
    if name not in exports:
        raise ModuleFault(f'there should be a function called "{shown}" but it does not exist')
    type_ = exports[name].type
    if type_ is None:
        raise ModuleFault(
            f'expected "{shown}" export to be a {kind} with signature {wanted}, but it wasn\'t a function at all'
        )
    if type_ != wanted:
        raise ModuleFault(f'bad {kind} signature for "{shown}"; expected {wanted} got {type_}')


def _parsed(module: str) -> tuple[int, int]:
    found = _VERSION.fullmatch(module)
    if found is None:
        raise ModuleFault(f'import module "{module}" has malformed version string')
    return int(found[1]), int(found[2])
