"""Engine: the one wasmtime engine of a process, and the programs compiled for it.

Responsible for: the configuration (features, stacks, epochs), compiling, the cache of compiled programs.
Not responsible for: instances (`raw`, `public`), who ticks (the shell calls `Engine.tick`), files (`CompiledCache`).

wasmtime's own names that are private in Python are used here and in `raw` only; `pyproject.toml` pins the range of
versions for which that is right.

Source: spec 04 sections 6 and 11; DESIGN decision 9.
"""

import ctypes
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol

import wasmtime

from stdb.errors import ModuleFault
from stdb.modules.wasm.abi import magic_refusal
from stdb.modules.wasm.runtime import ExportType, FunctionType
from stdb.modules.wasm.ticker import start_native_ticks

__all__ = ["CompiledCache", "CompiledProgram", "Engine", "engine", "parted"]

STACK_BYTES = 4 << 20
"""Of a fiber: the guest's own stack and, above it, that of the host functions it calls."""
GUEST_STACK_BYTES = 1 << 20
KEPT_MAX = 16
"""Compiled programs kept in memory."""


class CompiledCache(Protocol):
    """Where compiled programs are kept between runs of the server. Whoever writes there can run code here."""

    def get(self, program_hash: bytes) -> bytes | None:
        """Return what was put there for a program and this version of wasmtime, or None."""

    def put(self, program_hash: bytes, compiled: bytes) -> None:
        """Keep a compiled program."""


class CompiledProgram:
    """A compiled program: its code, what it imports and exports."""

    def __init__(self, module: wasmtime.Module) -> None:
        self.module = module
        self.imports: tuple[tuple[str, str, FunctionType | None], ...] = tuple(
            (each.module, each.name or "", _function_type(each.type)) for each in module.imports
        )
        self.exports: Mapping[str, ExportType] = {
            each.name: ExportType(_kind(each.type), _function_type(each.type)) for each in module.exports
        }


class Engine:
    """An engine. All instances in a process share one; `tick` may come from any thread, everything else from one."""

    def __init__(self) -> None:
        self.wasmtime = wasmtime.Engine(_config())
        self._kept: OrderedDict[bytes, CompiledProgram] = OrderedDict()
        self.tick = self.wasmtime.increment_epoch
        """Increments the epoch: guests that run notice that time has passed."""
        self.ticks_itself = False
        """The epoch passes by itself, whoever holds the interpreter (`ticker`)."""

    def start_ticking(self) -> bool:
        """Have the epoch pass by itself from now on; where that cannot be, False: then somebody has to call `tick`."""
        self.ticks_itself = start_native_ticks(self.wasmtime)
        return self.ticks_itself

    def compile(self, program: bytes, program_hash: bytes, cache: CompiledCache | None = None) -> CompiledProgram:
        """Return a program compiled, from memory or `cache` if it was compiled before.

        Raises:
            ModuleFault: It is no WebAssembly, or wants a feature that is switched off.
        """
        found = self._kept.get(program_hash)
        if found is None:
            found = self._from_cache(program_hash, cache) or self._compiled(program, program_hash, cache)
            self._kept[program_hash] = found
            if len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(program_hash)
        return found

    def _from_cache(self, program_hash: bytes, cache: CompiledCache | None) -> CompiledProgram | None:
        kept = None if cache is None else cache.get(program_hash)
        if kept is None:
            return None
        try:
            return CompiledProgram(wasmtime.Module.deserialize(self.wasmtime, kept))
        except wasmtime.WasmtimeError:  # of another version or machine
            return None

    def _compiled(self, program: bytes, program_hash: bytes, cache: CompiledCache | None) -> CompiledProgram:
        refusal = magic_refusal(program)  # else the text format would be tried
        if refusal is not None:
            raise ModuleFault(refusal)
        try:
            module = wasmtime.Module(self.wasmtime, program)
            compiled = CompiledProgram(module)
        except wasmtime.WasmtimeError as error:
            raise ModuleFault(joined(str(error))) from error
        if cache is not None:
            cache.put(program_hash, bytes(module.serialize()))
        return compiled


@cache
def engine() -> Engine:
    """Return the engine of this process: code that it compiled runs on no other."""
    return Engine()


def joined(message: str) -> str:
    """Return a message of wasmtime with its causes in one run, as the reference shows them."""
    return ": ".join(filter(None, parted(message)))


def parted(message: str) -> tuple[str, str]:
    """Return a message of wasmtime in two parts: where it happened, if it says so, and what."""
    head, *causes = message.rstrip().split("\n\nCaused by:\n")
    lines = [line.strip() for cause in causes for line in cause.split("\n")]
    what = ": ".join(line.split(": ", 1)[-1] if line.split(": ", 1)[0].isdigit() else line for line in lines)
    if not what:
        return "", head.rstrip()
    if head.startswith("error while executing"):
        return head.rstrip(), what
    return "", f"{head.rstrip()}: {what}"


def _config() -> wasmtime.Config:
    """Return the configuration. A combination that does not fit together would end the process: a test makes it."""
    config = wasmtime.Config()
    config.epoch_interruption = True
    config.memory_may_move = False
    config.wasm_threads = False
    config.shared_memory = False
    config.wasm_exceptions = False
    config.parallel_compilation = False  # all processors at once would take those who are served theirs
    config.max_wasm_stack = GUEST_STACK_BYTES
    set_stack = wasmtime._ffi.wasmtime_config_async_stack_size_set
    set_stack(config.ptr(), ctypes.c_size_t(STACK_BYTES))
    return config


def _function_type(type_: Any) -> FunctionType | None:
    if not isinstance(type_, wasmtime.FuncType):
        return None
    return FunctionType(tuple(map(str, type_.params)), tuple(map(str, type_.results)))


def _kind(type_: Any) -> str:
    if isinstance(type_, wasmtime.FuncType):
        return "func"
    return "memory" if isinstance(type_, wasmtime.MemoryType) else "other"
