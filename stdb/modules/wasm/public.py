"""The public runtime: wasmtime through its documented Python API.

Responsible for: the fallback where the fast way (`raw`) does not work; it is held to the same tests.
Not responsible for: speed: an entry costs 80 µs, a host function 8 to 18.

There are no fibers: a guest never comes back early and no host function waits. A call that outlives its epochs is
stopped. Source: spec 04 section 11.
"""

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import wasmtime

from stdb.modules.wasm.engine import CompiledProgram, Engine, parted
from stdb.modules.wasm.memory import LinearMemory
from stdb.modules.wasm.runtime import (
    CALL_TICKS_MAX,
    U64_MAX,
    FunctionType,
    GuestTrap,
    HostFunction,
    HostTrap,
    Imports,
    Limits,
)
from stdb.sql.work import Steps

if TYPE_CHECKING:
    from stdb.modules.protocol import Expiry
    from stdb.modules.wasm.runtime import Wait

__all__ = ["KILLED_AFTER_TICKS", "PublicGuest", "PublicRuntime", "function_type", "limit_store", "memory_of", "trap_of"]

KILLED_AFTER_TICKS = 10
"""A call that cannot come back early is stopped after so many epochs, not to hold up everything else; fewer would stop
calls that are short, where another process has the processor for long."""
_MASKS = {"i32": 0xFFFFFFFF, "i64": U64_MAX}


class PublicRuntime:
    """Drives the engine by its public API."""

    can_wait = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def instantiate(self, program: CompiledProgram, imports: Imports, limits: Limits) -> "PublicGuest":
        """Make an instance; see `Runtime.instantiate`."""
        return PublicGuest(self._engine, program, imports, limits)

    def instantiate_in_steps(self, program: CompiledProgram, imports: Imports, limits: Limits) -> Steps["PublicGuest"]:
        """Make an instance, in one step."""
        yield from ()
        return self.instantiate(program, imports, limits)


class PublicGuest:
    """An instance; see `Guest`."""

    waiting: "Wait | None" = None

    def __init__(self, engine: Engine, program: CompiledProgram, imports: Imports, limits: Limits) -> None:
        self._store = wasmtime.Store(engine.wasmtime)
        limit_store(self._store, limits)
        self._raised: BaseException | None = None
        self._expiry: Expiry | None = None
        self._ticks_max = CALL_TICKS_MAX
        linker = wasmtime.Linker(engine.wasmtime)
        for module, name, _ in program.imports:
            function = imports[module, name]
            linker.define_func(module, name, function_type(function.type), self._checked(function))
        self._store.set_epoch_deadline(self._ticks_max)
        try:
            self._exports = linker.instantiate(self._store, program.module).exports(self._store)
        except (wasmtime.WasmtimeError, wasmtime.Trap, _RaisedError) as error:
            raise self._trap(error) from self._raised
        self.memory = memory_of(self._exports["memory"], self._store)

    def limit(self, expiry: "Expiry | None", ticks_max: int) -> None:
        """See `Guest.limit`."""
        self._expiry, self._ticks_max = expiry, ticks_max

    def call(self, name: str, *args: int) -> int:
        """See `Guest.call`."""
        return self._run(self._exports[name], args, self._ticks_max)

    def call_in_steps(self, name: str, *args: int) -> Steps[int]:
        """See `Guest.call_in_steps`."""
        yield from ()
        return self.call(name, *args)

    def entry(self, name: str) -> Callable[..., int]:
        """See `Guest.entry`."""
        function = self._exports[name]

        def enter(*args: int) -> int:
            return self._run(function, args, KILLED_AFTER_TICKS)

        return enter

    def resume(self) -> int:
        """See `Guest.resume`."""
        raise AssertionError("a guest of this runtime never comes back early")

    def abandon(self) -> None:
        """See `Guest.abandon`."""

    def close(self) -> None:
        """See `Guest.close`."""
        self.memory.close()
        self._exports = None  # type: ignore[assignment]  # nothing is called any more
        self._store.close()

    def _run(self, function: Any, args: tuple[int, ...], ticks: int) -> int:
        self._raised = None
        self._store.set_epoch_deadline(ticks)
        try:
            result = function(self._store, *args)
        except (wasmtime.WasmtimeError, wasmtime.Trap, _RaisedError) as error:
            raise self._trap(error) from self._raised
        return 0 if result is None else result & 0xFFFFFFFF

    def _trap(self, error: Exception) -> GuestTrap:
        if self._raised is not None:
            return trap_of(self._raised)
        is_late = isinstance(error, wasmtime.Trap) and error.trap_code is wasmtime.TrapCode.INTERRUPT
        where, what = parted(str(error))
        return GuestTrap(what, where, is_late=is_late)

    def _checked(self, function: HostFunction) -> Callable[..., int | None]:
        run, masks = function.run, [_MASKS[param] for param in function.type.params]
        has_result = bool(function.type.results)

        def checked(*args: int) -> int | None:
            try:
                result = run(*[value & mask for value, mask in zip(args, masks, strict=True)])
                if has_result and not isinstance(result, int):
                    raise HostTrap("this function waits, which this runtime cannot")
            except BaseException as error:  # noqa: BLE001 - it comes out of the entry as a cause
                self._raised = error
                raise _RaisedError from None
            return result if has_result else None  # type: ignore[return-value]  # an int, as was just seen

        return checked


class _RaisedError(Exception):
    """A host function raised something; what, the guest has kept."""


def function_type(type_: FunctionType) -> wasmtime.FuncType:
    """Return a type as wasmtime has it."""
    values = {"i32": wasmtime.ValType.i32, "i64": wasmtime.ValType.i64}
    return wasmtime.FuncType([values[each]() for each in type_.params], [values[each]() for each in type_.results])


def limit_store(store: wasmtime.Store, limits: Limits) -> None:
    """Bound what an instance in this store may take."""
    store.set_limits(
        memory_size=limits.memory_bytes_max,
        table_elements=limits.table_elements_max,
        instances=1,
        tables=limits.tables_max,
        memories=limits.memories_max,
    )


def memory_of(memory: object, store: wasmtime.Store) -> LinearMemory:
    """Return the memory that an instance in this store exports."""
    assert isinstance(memory, wasmtime.Memory), "`abi.check_exports` has seen it"

    def view_of_all() -> memoryview:
        start = ctypes.addressof(memory.data_ptr(store).contents)
        return memoryview((ctypes.c_uint8 * memory.data_len(store)).from_address(start)).cast("B")

    return LinearMemory(view_of_all)


def trap_of(raised: BaseException, where: str = "") -> GuestTrap:
    """Return how a guest ended by what a host function raised."""
    return GuestTrap(str(raised) if isinstance(raised, HostTrap) else repr(raised), where)
