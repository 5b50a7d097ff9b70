"""The raw runtime: wasmtime's C functions through ctypes, entries on fibers.

Responsible for: entering guests in microseconds, guests that come back early, host functions that wait.
Not responsible for: what host functions do; the documented API, which is the fallback (`public`).

Four things make it fast (spec 04 section 11; PERFORMANCE.md section 4.2): host functions are registered unchecked and
read their arguments from 16-byte slots through views kept by address, an entry writes all its arguments with one
`Struct.pack_into`, the memory is a kept view, and nothing is asked of wasmtime that can be bound beforehand.

An exception must never leave a ctypes callback: wasmtime would take garbage for a pointer. Every callback catches
everything, keeps it, and returns a trap.

Entries are asynchronous: wasmtime runs the guest on a stack of its own. When the epoch has passed, `_on_epoch` lets the
guest yield; nothing of Python is on that stack then. So it is with host functions that wait: they return, and
wasmtime asks `is_answered` at every resumption whether to go on.
"""

import ctypes
import itertools
from collections.abc import Callable
from functools import cache, partial
from struct import Struct
from types import CodeType
from typing import TYPE_CHECKING, Any

import wasmtime
from wasmtime import _ffi as ffi

from stdb.modules.wasm.engine import CompiledProgram, Engine, parted
from stdb.modules.wasm.memory import LinearMemory
from stdb.modules.wasm.public import function_type, limit_store, memory_of, trap_of
from stdb.modules.wasm.runtime import (
    CALL_TICKS_MAX,
    SUSPENDED,
    U64_MAX,
    GuestTrap,
    HostFunction,
    HostTrap,
    Imports,
    Limits,
    Wait,
)
from stdb.sql.work import Steps, finish

if TYPE_CHECKING:
    from stdb.modules.protocol import Expiry

__all__ = ["RawGuest", "RawRuntime"]

_SLOT_BYTES = 16
_SLOTS_MAX = 16
_VIEWS_MAX = 4_096
"""Slots are at few addresses, but fibers come and go: the views of old ones are dropped."""
_VALUE_BYTES = ctypes.sizeof(ffi.wasmtime_val_t)
_VALUE_OFFSET = ffi.wasmtime_val_t.of.offset
_KINDS = {"i32": 0, "i64": 1}
_FORMATS = {"i32": "I", "i64": "Q"}
_YIELD, _CONTINUE = 1, 0

_address = ctypes.c_size_t
_Slots = ctypes.c_uint8 * (_SLOT_BYTES * _SLOTS_MAX)
_HostCallback = ctypes.CFUNCTYPE(_address, _address, _address, _address, _address)
_EpochCallback = ctypes.CFUNCTYPE(_address, _address, _address, _address, _address)
_AsyncCallback = ctypes.CFUNCTYPE(
    None, _address, _address, _address, ctypes.c_size_t, _address, ctypes.c_size_t, _address, _address
)
_Continuation = ctypes.CFUNCTYPE(ctypes.c_bool, _address)


def _function(name: str, result: Any, *args: Any) -> Any:
    """Return a C function of wasmtime's library with types of our own: addresses stay plain numbers."""
    return ctypes.CFUNCTYPE(result, *args)((name, ffi.dll))


def _holding_function(name: str, result: Any) -> Any:
    """Return a C function that is called with the interpreter held, with arguments that are C values already."""
    return ctypes.PYFUNCTYPE(result)((name, ffi.dll))


class _Future(ctypes.c_void_p):
    """What becomes of a guest that was entered. A C value of its own: to make one of a number takes longer."""


_argument = ctypes.c_size_t.from_param
"""Returns a number as an argument that need not be converted at each call: that is most of what a call costs."""


_define_unchecked = _function(
    *("wasmtime_linker_define_func_unchecked", _address, _address, ctypes.c_char_p, ctypes.c_size_t),
    *(ctypes.c_char_p, ctypes.c_size_t, _address, _HostCallback, _address, _address),
)
_define_async = _function(
    *("wasmtime_linker_define_async_func", _address, _address, ctypes.c_char_p, ctypes.c_size_t),
    *(ctypes.c_char_p, ctypes.c_size_t, _address, _AsyncCallback, _address, _address),
)
_on_deadline = _function("wasmtime_store_epoch_deadline_callback", None, _address, _EpochCallback, _address, _address)
_instantiate_async = _function(
    "wasmtime_linker_instantiate_async", _Future, _address, _address, _address, _address, _address, _address
)
_call_async = _holding_function("wasmtime_func_call_async", _Future)
"""Makes the future; nothing of the guest runs."""
_delete_future = _holding_function("wasmtime_call_future_delete", None)
_holding_poll = _holding_function("wasmtime_call_future_poll", ctypes.c_bool)
_letting_poll = _function("wasmtime_call_future_poll", ctypes.c_bool, _Future)
"""Run the guest, with the interpreter held or without: only where epochs come without it may it be held, and never
while a guest is prepared, which happens in a thread beside the event loop."""
_new_trap = _function("wasmtime_trap_new", _address, ctypes.c_char_p, ctypes.c_size_t)
_new_error = _function("wasmtime_error_new", _address, ctypes.c_char_p)


class RawRuntime:
    """Drives the engine by its C functions."""

    can_wait = True

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def instantiate(self, program: CompiledProgram, imports: Imports, limits: Limits) -> "RawGuest":
        """Make an instance; see `Runtime.instantiate`."""
        return finish(self.instantiate_in_steps(program, imports, limits))

    def instantiate_in_steps(self, program: CompiledProgram, imports: Imports, limits: Limits) -> Steps["RawGuest"]:
        """Make an instance; see `Runtime.instantiate_in_steps`."""
        guest = RawGuest(self._engine, program, imports, limits)
        try:
            yield from guest.begin(program)
        except BaseException:
            guest.close()
            raise
        return guest


class RawGuest:
    """An instance; see `Guest`. `begin` makes it."""

    memory: LinearMemory

    def __init__(self, engine: Engine, program: CompiledProgram, imports: Imports, limits: Limits) -> None:
        self.waiting: Wait | None = None
        self._raised: BaseException | None = None
        self._expiry: Expiry | None = None
        self._ticks = self._ticks_max = CALL_TICKS_MAX
        self._is_late = False
        self._future: _Future | None = None
        self._poll = _holding_poll if engine.ticks_itself else _letting_poll
        self._results = memoryview(b"")
        self._store = wasmtime.Store(engine.wasmtime)
        self._context = _pointer(self._store._context())
        limit_store(self._store, limits)
        self._on_epoch = _EpochCallback(self._epoch_passed)
        _on_deadline(_pointer(self._store.ptr()), self._on_epoch, 0, 0)
        self._store.set_epoch_deadline(1)
        self._trap_slot, self._error_slot = ctypes.c_void_p(), ctypes.c_void_p()
        self._trap_at, self._error_at = ctypes.addressof(self._trap_slot), ctypes.addressof(self._error_slot)
        self._linker = wasmtime.Linker(engine.wasmtime)
        self._callbacks: list[Any] = []
        """Everything that wasmtime calls, for as long as it may."""
        self._slot_views: dict[int, memoryview] = {}
        for module, name in {(module, name) for module, name, _ in program.imports}:
            self._define(module, name, imports[module, name])
        self._entries: dict[str, Callable[..., int]] = {}
        self._exports: Any = None

    def begin(self, program: CompiledProgram) -> Steps[None]:
        """Make the instance in steps: a start function may take more than an epoch. Raises GuestTrap."""
        instance = ffi.wasmtime_instance_t()
        self._future = _instantiate_async(
            _pointer(self._linker.ptr()),
            self._context,
            _pointer(program.module.ptr()),
            ctypes.addressof(instance),
            self._trap_at,
            self._error_at,
        )
        while not _letting_poll(self._future):
            yield
        future, self._future = self._future, None
        _delete_future(future)
        if self._trap_slot.value or self._error_slot.value:
            self._raise_trap()
        self._exports = wasmtime.Instance._from_raw(instance).exports(self._store)
        self.memory = memory_of(self._exports["memory"], self._store)

    # What a guest does

    def limit(self, expiry: "Expiry | None", ticks_max: int) -> None:
        """See `Guest.limit`."""
        self._expiry = expiry
        self._ticks = self._ticks_max = ticks_max

    def call(self, name: str, *args: int) -> int:
        """See `Guest.call`."""
        return finish(self.call_in_steps(name, *args))

    def call_in_steps(self, name: str, *args: int) -> Steps[int]:
        """See `Guest.call_in_steps`."""
        result = self._make_entry(self._exports[name], _letting_poll)(*args)
        while result == SUSPENDED:
            assert self.waiting is None, f"{name} must not wait"
            yield
            result = self._resume(_letting_poll)
        return result

    def entry(self, name: str) -> Callable[..., int]:
        """See `Guest.entry`."""
        found = self._entries.get(name)
        if found is None:
            found = self._entries[name] = self._make_entry(self._exports[name], self._poll)
        return found

    def resume(self) -> int:
        """See `Guest.resume`."""
        return self._resume(self._poll)

    def _resume(self, poll: Callable[[_Future | None], bool]) -> int:
        future = self._future
        if not poll(future):
            return SUSPENDED
        self._future = None
        _delete_future(future)
        if self._trap_slot.value or self._error_slot.value:
            self._raise_trap()
        result: int = self._results[_VALUE_OFFSET // 4]
        return result

    def abandon(self) -> None:
        """See `Guest.abandon`."""
        self.waiting = None
        future, self._future = self._future, None
        if future is not None:
            _delete_future(future)
            self._take_error()

    def close(self) -> None:
        """See `Guest.close`."""
        self.abandon()
        if self._exports is not None:
            self.memory.close()
        self._slot_views.clear()
        self._entries.clear()
        self._exports = None
        self._linker.close()
        self._store.close()

    # Entries

    def _make_entry(self, function: wasmtime.Func, poll: Callable[[_Future], bool]) -> Callable[..., int]:
        """Return what enters one export; its arguments lie in memory of its own, which it writes in one go."""
        type_ = function.type(self._store)
        params = [str(each) for each in type_.params]
        values = (ffi.wasmtime_val_t * max(len(params), 1))()
        results = (ffi.wasmtime_val_t * max(len(type_.results), 1))()
        place = memoryview(values).cast("B")
        call = map(
            _argument,
            (
                *(self._context, ctypes.addressof(function._func), ctypes.addressof(values), len(params)),
                *(ctypes.addressof(results), len(type_.results), self._trap_at, self._error_at),
            ),
        )
        result = memoryview(results).cast("B").cast("I")
        layout = "<" + "".join(map(_layout, params))
        names = [f"a{position}" for position in range(len(params))]
        packed = "".join(f", {_KINDS[each]}, {name}" for each, name in zip(params, names, strict=True))
        source = _ENTRY.format(names=", ".join(names), packed=packed)
        scope: dict[str, Any] = {
            **{"pack": Struct(layout).pack_into, "place": place, "result": result, "guest": self},
            **{"call": partial(_call_async, *call), "poll": poll, "delete_future": _delete_future},
            **{"trap": self._trap_slot, "error": self._error_slot, "RESULT": _VALUE_OFFSET // 4},
            **{"keep": (function, values, results), "SUSPENDED": SUSPENDED},
        }
        exec(_code(source, "<entry of a guest>"), scope)
        enter: Callable[..., int] = scope["enter"]
        return enter

    def _entered(self, future: _Future, result: memoryview) -> None:
        """Keep what came back early."""
        self._future, self._results = future, result

    # How it ends

    def _raise_trap(self) -> None:
        """Raise what is in the slots for errors."""
        message = self._take_error()
        raised, self._raised = self._raised, None
        is_late, self._is_late = self._is_late, False
        where, what = parted(message)
        if raised is not None:
            raise trap_of(raised, where) from raised
        raise GuestTrap(what, where, is_late=is_late)

    def _take_error(self) -> str:
        """Free what is in the slots for errors; return its text."""
        trap, error = self._trap_slot.value, self._error_slot.value
        self._trap_slot.value = self._error_slot.value = None
        message = ""
        if trap:
            found = wasmtime.Trap._from_ptr(ctypes.cast(trap, ctypes.POINTER(ffi.wasm_trap_t)))
            message = str(found)
        if error:
            failure = wasmtime.WasmtimeError._from_ptr(ctypes.cast(error, ctypes.POINTER(ffi.wasmtime_error_t)))
            message = str(failure)
        return message

    def _epoch_passed(self, _context: int, _data: int, delta_at: int, kind_at: int) -> int:
        """Let the guest yield, or end it if its time is over. Signals that came in since are handled here."""
        try:
            is_first = self._ticks == self._ticks_max  # perhaps it had passed before the guest was entered
            self._ticks -= 1
            expiry = self._expiry
            if self._ticks <= 0 or (expiry is not None and expiry.expired):
                self._is_late = True
                return int(_new_error(b"the time limit of this call has passed"))
            ctypes.c_uint64.from_address(delta_at).value = 1
            ctypes.c_uint8.from_address(kind_at).value = _CONTINUE if is_first else _YIELD
        except BaseException as error:  # noqa: BLE001 - nothing may leave a callback
            self._raised = error
            return int(_new_error(b"interrupted"))
        return 0

    # Host functions

    def _define(self, module: str, name: str, function: HostFunction) -> None:
        type_ = function_type(function.type)
        callback: Any
        if function.waits:
            callback, define = _AsyncCallback(self._waiting_callback(function)), _define_async
        else:
            callback, define = _HostCallback(self._callback(function)), _define_unchecked
        self._callbacks += (callback, type_)
        where, what = module.encode(), name.encode()
        linker, type_at = _pointer(self._linker.ptr()), _pointer(type_.ptr())
        failed = define(linker, where, len(where), what, len(what), type_at, callback, 0, 0)
        assert not failed, f"{module}::{name} is defined once"

    def _callback(self, function: HostFunction) -> Callable[..., int]:
        """Return what wasmtime calls: generated, so that arguments are read where they lie."""
        arguments = ", ".join(itertools.starmap(_slot, enumerate(function.type.params)))
        source = _CALLBACK.format(arguments=arguments, result="slots[0] = " if function.type.results else "")
        scope: dict[str, Any] = {"get": self._slot_views.get, "view": self._slot_view}
        scope |= {"run": function.run, "failed": self._failed}
        exec(_code(source, "<host function>"), scope)
        callback: Callable[..., int] = scope["callback"]
        return callback

    def _slot_view(self, address: int) -> memoryview:
        views = self._slot_views
        if len(views) >= _VIEWS_MAX:
            views.clear()
        view = views[address] = memoryview(_Slots.from_address(address)).cast("B").cast("I")
        return view

    def _failed(self, error: BaseException) -> int:
        """Keep what a host function raised; return a trap."""
        self._raised = error
        message = str(error).encode("utf-8", "replace") if isinstance(error, HostTrap) else b"host error"
        return int(_new_trap(message, len(message)))

    def _waiting_callback(self, function: HostFunction) -> Callable[..., None]:
        run, params = function.run, function.type.params
        kind = _KINDS[function.type.results[0]]

        def callback(
            _env: int, _caller: int, args: int, _count: int, results: int, _results: int, trap_at: int, next_at: int
        ) -> None:
            try:
                result = run(*_values(args, params))
                assert result is not None, "functions that may wait have a result"
                if isinstance(result, int):
                    _set_value(results, kind, result)
                    is_done: Callable[[int], bool] = _is_done
                else:
                    self.waiting = result
                    is_done = self._answer_to(result, results, kind, trap_at)
            except BaseException as error:  # noqa: BLE001 - nothing may leave a callback
                ctypes.c_size_t.from_address(trap_at).value = self._failed(error)
                is_done = _is_done
            continuation = self._continuation = _Continuation(is_done)
            ffi.wasmtime_async_continuation_t.from_address(next_at).callback = ctypes.cast(
                continuation, type(ffi.wasmtime_async_continuation_t().callback)
            )

        return callback

    def _answer_to(self, wait: Wait, results: int, kind: int, trap_at: int) -> Callable[[int], bool]:
        """Return what wasmtime asks at each resumption: whether there is an answer; it writes it."""

        def is_answered(_env: int) -> bool:
            try:
                if wait.error is not None:
                    ctypes.c_size_t.from_address(trap_at).value = self._failed(wait.error)
                elif wait.answer is None:
                    return False
                else:
                    _set_value(results, kind, wait.answer)
                self.waiting = None
            except BaseException as error:  # noqa: BLE001 - nothing may leave a callback
                self._raised = error
            return True

        return is_answered


_ENTRY = """
def enter({names}):
    pack(place, 0{packed})
    future = call()
    if not poll(future):
        guest._entered(future, result)
        return SUSPENDED
    delete_future(future)
    if trap.value or error.value:
        guest._raise_trap()
    return result[RESULT]
"""
_CALLBACK = """
def callback(env, caller, address, count):
    try:
        slots = get(address) or view(address)
        {result}run({arguments})
    except BaseException as error:
        return failed(error)
    return 0
"""


@cache
def _code(source: str, name: str) -> CodeType:
    """Return compiled source: there are as many as there are signatures, and instances are made often."""
    return compile(source, name, "exec")


def _layout(type_: str) -> str:
    """Return the layout of one `wasmtime_val_t`: its kind, the value, padding."""
    used = _VALUE_OFFSET + (4 if type_ == "i32" else 8)
    return f"B{_VALUE_OFFSET - 1}x{_FORMATS[type_]}{_VALUE_BYTES - used}x"


def _slot(position: int, type_: str) -> str:
    low = f"slots[{position * 4}]"
    return low if type_ == "i32" else f"{low} | slots[{position * 4 + 1}] << 32"


def _values(address: int, params: tuple[str, ...]) -> list[int]:
    kinds = {"i32": ctypes.c_uint32, "i64": ctypes.c_uint64}
    return [
        kinds[each].from_address(address + position * _VALUE_BYTES + _VALUE_OFFSET).value
        for position, each in enumerate(params)
    ]


def _set_value(address: int, kind: int, value: int) -> None:
    ctypes.c_uint8.from_address(address).value = kind
    ctypes.c_uint64.from_address(address + _VALUE_OFFSET).value = value & U64_MAX


def _is_done(_env: int) -> bool:
    return True


def _pointer(pointer: Any) -> int:
    address = ctypes.cast(pointer, ctypes.c_void_p).value
    assert address is not None
    return address
