"""Ticker: epochs that pass by a timer of the operating system, whoever holds the interpreter.

Responsible for: a POSIX timer that calls wasmtime's own function, in a thread that glibc makes, without any Python.
Not responsible for: ticks where there is no such timer (`stdb.actors.epochs` has a thread then).

With it guests may be entered with the interpreter held, which spares handing it over at every host function: while a
log is being written that is a third of a short call.
"""

import ctypes
import sys
from functools import cache

import wasmtime
from wasmtime import _ffi as ffi

from stdb.modules.wasm.runtime import TICK_SECONDS

__all__ = ["start_native_ticks"]

_CLOCK_MONOTONIC = 1
_SIGEV_THREAD = 2


class _Event(ctypes.Structure):
    """`struct sigevent` of 64-bit Linux, 64 bytes."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("padding", ctypes.c_char * 32),
    )


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Span(ctypes.Structure):
    _fields_ = (("interval", _Time), ("first", _Time))


@cache
def start_native_ticks(engine: wasmtime.Engine) -> bool:
    """Have the epoch of an engine pass from now on, for as long as the process lives; False where that cannot be."""
    if not sys.platform.startswith("linux") or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    libc = ctypes.CDLL(None)
    increment = ctypes.cast(ffi.dll.wasmtime_engine_increment_epoch, ctypes.c_void_p).value
    target = ctypes.cast(engine.ptr(), ctypes.c_void_p).value
    timer = ctypes.c_void_p()
    try:
        event = _Event(target, 0, _SIGEV_THREAD, increment, None, b"")
        if libc.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)):
            return False
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))  # for good: the timer outlives even the interpreter's end
        tick = _Time(0, round(TICK_SECONDS * 1e9))
        if libc.timer_settime(timer, 0, ctypes.byref(_Span(tick, tick)), None):
            return False
    except AttributeError:  # another C library
        return False
    return True
