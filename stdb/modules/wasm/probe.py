"""Probe: whether a runtime does here what is asked of it.

Responsible for: calling known functions of a known program through a runtime.
Not responsible for: choosing (`loader`).

The raw runtime speaks to wasmtime by functions whose Python names are private; what a version of wasmtime or Python
would break has to show before a module of somebody's is run.
"""

from typing import TYPE_CHECKING

import wasmtime

from stdb.modules.wasm.runtime import FunctionType, GuestTrap, HostFunction, HostTrap, Limits, Runtime

if TYPE_CHECKING:
    from stdb.modules.wasm.engine import Engine
    from stdb.modules.wasm.runtime import Guest

__all__ = ["works"]

_PROGRAM = """(module
  (import "probe" "add" (func $add (param i32 i32) (result i32)))
  (memory (export "memory") 1 3)
  (func (export "sum") (param i32 i64) (result i32)
    (i32.store (i32.const 16) (i32.wrap_i64 (local.get 1)))
    (drop (memory.grow (i32.const 1)))
    (call $add (local.get 0) (i32.const 16)))
  (func (export "trap") unreachable))"""


def works(runtime: Runtime, engine: "Engine") -> bool:
    """Tell whether a runtime runs a program, its host functions and its traps as it should."""
    program = wasmtime.wat2wasm(_PROGRAM)
    try:
        return _runs(runtime, engine, bytes(program))
    except (GuestTrap, AttributeError, TypeError, ValueError, OSError, AssertionError):
        return False


def _runs(runtime: Runtime, engine: "Engine", program: bytes) -> bool:
    failure = HostTrap("as it should be")

    def add(number: int, pointer: int) -> int:
        if number == 13:
            raise failure
        return number + guest.memory.read_u32(pointer)

    type_ = FunctionType(("i32", "i32"), ("i32",))
    guest = runtime.instantiate(
        engine.compile(program, b"probe"), {("probe", "add"): HostFunction(type_, add)}, Limits()
    )
    try:
        sums = [guest.call("sum", 1, 2), guest.call("sum", 0xFFFFFFF0, 2)]
        return (
            sums == [3, 0xFFFFFFF2]
            and guest.memory.size in (65_536, 131_072)
            and _trap_of(guest, "sum", 13, 0).__cause__ is failure
            and "unreachable" in str(_trap_of(guest, "trap"))
        )
    finally:
        guest.close()


def _trap_of(guest: "Guest", name: str, *args: int) -> GuestTrap:
    try:
        guest.call(name, *args)
    except GuestTrap as trap:
        return trap
    raise AssertionError(f"{name} did not trap")
