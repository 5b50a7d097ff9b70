"""Guests that compute for long in one of their functions, and a watch on what others wait meanwhile.

The module has a table `note`, a view `notes` of it, a timer, a queued call, a procedure and all events of a life.
"""

import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from stdb.modules.wasm.engine import engine
from stdb.modules.wasm.loader import load_wasm
from stdb.modules.wasm.module import WasmModule
from stdb.modules.wasm.raw import RawRuntime
from stdb.modules.wasm.runtime import Limits
from stdb.sats.types import SCHEDULE_AT, U32, U64
from stdb.schema.model import Lifecycle
from stdb.testing.modules import FunctionModule, procedure, reducer, table, view
from tests.wasm_guests import module_text, wat
from tests.wasm_twins import encoded

LONG = 300_000_000
"""Rounds that take a tenth of a second or more."""
FOR_EVER = 1 << 62
JOB = table(
    *("job", {"scheduled_id": U64, "scheduled_at": SCHEDULE_AT}),
    primary_key="scheduled_id",
    auto_inc=True,
    scheduled="tick",
)
PLACES = ("init", "connected", "disconnected", "add", "tick", "later", "notes", "compute", "store", "prepare")
"""Where a guest may compute: its reducers, the view, the procedures, before its first call."""
_IMPORTS = """
  (import "spacetime_10.3" "procedure_start_mut_tx" (func $start (param i32) (result i32)))
  (import "spacetime_10.3" "procedure_commit_mut_tx" (func $commit (result i32)))
  (import "spacetime_10.0" "bytes_source_read" (func $read (param i32 i32 i32) (result i32)))
  (import "spacetime_10.0" "table_id_from_name" (func $id (param i32 i32 i32) (result i32)))
  (import "spacetime_10.0" "datastore_insert_bsatn" (func $insert (param i32 i32 i32) (result i32)))
  (import "spacetime_10.0" "datastore_table_scan_bsatn" (func $scan (param i32 i32) (result i32)))
  (import "spacetime_10.0" "row_iter_bsatn_advance" (func $advance (param i32 i32 i32) (result i32)))
  (import "spacetime_10.0" "volatile_nonatomic_schedule_immediate" (func $queue (param i32 i32 i32 i32)))"""
_HELPERS = """
  (data (i32.const 80000) "note") (data (i32.const 80010) "later")
  (func $compute (local i64)
    (loop (local.set 0 (i64.add (local.get 0) (i64.const 1))) (br_if 0 (i64.lt_u (local.get 0) (i64.const {rounds})))))
  (func $table (result i32) (drop (call $id (i32.const 80000) (i32.const 4) (i32.const 48))) (i32.load (i32.const 48)))
  (func $put (param i32) (i32.store (i32.const 80100) (local.get 0)) (i32.store (i32.const 40) (i32.const 4))
    (if (call $insert (call $table) (i32.const 80100) (i32.const 40)) (then unreachable)))
  (func (export "__call_view_anon__") (param i32 i32 i32) (result i32)
    (drop (call $scan (call $table) (i32.const 52)))
    (i32.store (i32.const 40) (i32.const 4096))
    (drop (call $advance (i32.load (i32.const 52)) (i32.const 81004) (i32.const 40)))
    (i32.store (i32.const 81000) (i32.div_u (i32.load (i32.const 40)) (i32.const 4)))
    (i32.store (i32.const 40) (i32.add (i32.load (i32.const 40)) (i32.const 4)))
    {notes}
    (drop (call $write (local.get 2) (i32.const 81000) (i32.const 40))) i32.const 0)
  (func (export "__call_procedure__") (param i32 i64 i64 i64 i64 i64 i64 i64 i32 i32) (result i32)
    (if (i32.eqz (local.get 0)) (then {compute} (return (i32.const 0))))
    (if (call $start (i32.const 64)) (then unreachable))
    (call $put (i32.const 77)) {store} (drop (call $commit)) i32.const 0)
  (func (export "__preinit__10") {prepare})"""
_REDUCERS = """
  (if (i32.eq (local.get 0) (i32.const 0)) (then {init}))
  (if (i32.eq (local.get 0) (i32.const 1)) (then {connected}))
  (if (i32.eq (local.get 0) (i32.const 2)) (then {disconnected}))
  (if (i32.eq (local.get 0) (i32.const 3)) (then
    (i32.store (i32.const 40) (i32.const 4)) (drop (call $read (local.get 8) (i32.const 80200) (i32.const 40)))
    (call $put (i32.load (i32.const 80200))) {add}))
  (if (i32.eq (local.get 0) (i32.const 4)) (then (call $put (i32.const 44)) {tick}))
  (if (i32.eq (local.get 0) (i32.const 5)) (then (call $put (i32.const 55)) {later}))
  (if (i32.eq (local.get 0) (i32.const 6)) (then
    (call $queue (i32.const 80010) (i32.const 5) (i32.const 80010) (i32.const 0))))
  (if (i32.eq (local.get 0) (i32.const 7)) (then unreachable))
  i32.const 0"""


def declared() -> FunctionModule:
    """Return the module's declaration; what it does stands in the text."""
    nothing = reducer(lambda ctx: None)

    async def never(_call: object) -> tuple[()]:
        return ()

    return FunctionModule(
        [
            table("note", {"n": U32}, primary_key="n"),
            JOB,
        ],
        {
            "init": reducer(lambda ctx: None, lifecycle=Lifecycle.INIT),
            "connected": reducer(lambda ctx: None, lifecycle=Lifecycle.ON_CONNECT),
            "disconnected": reducer(lambda ctx: None, lifecycle=Lifecycle.ON_DISCONNECT),
            "add": reducer(lambda ctx, n: None, {"n": U32}),
            "tick": reducer(lambda ctx, row: None, {"job": JOB.row_type}),
            "later": nothing,
            "ask": nothing,
            "crash": nothing,
        },
        views={"notes": view(lambda reader: [], "note", anonymous=True)},
        procedures={"compute": procedure(never), "store": procedure(never)},
    )


def looping(place: str = "", rounds: int = LONG) -> bytes:
    """Return a guest that computes for so many rounds in one place, one of PLACES."""
    assert place in ("", *PLACES)
    work = {each: "(call $compute)" if each == place else "" for each in PLACES}
    helpers = _HELPERS.format(rounds=rounds, **work)
    return wat(module_text(_REDUCERS.format(**work), helpers, _IMPORTS, encoded(declared())))


def load(program: bytes, ticks: int = 2_000) -> WasmModule:
    """Return the module of a guest; its calls may take so many epochs."""
    return load_wasm(program, lambda: 0, runtime=RawRuntime(engine()), limits=Limits(call_ticks_max=ticks))


class Watch:
    """What a task saw that does nothing but to run whenever it may: the longest time between two of its runs."""

    def __init__(self) -> None:
        self.longest = 0.0
        """Seconds of this thread's processor: what other processes and threads do does not count."""
        self.longest_of_all = 0.0
        """Seconds."""

    async def run(self) -> None:
        """Look until cancelled."""
        own, wall = time.thread_time(), time.perf_counter()
        while True:
            await trio.lowlevel.checkpoint()
            own_now, wall_now = time.thread_time(), time.perf_counter()
            self.longest = max(self.longest, own_now - own)
            self.longest_of_all = max(self.longest_of_all, wall_now - wall)
            own, wall = own_now, wall_now


@asynccontextmanager
async def watching() -> AsyncIterator[Watch]:
    """Watch for the time of the block."""
    watch = Watch()
    gc.collect()
    gc.disable()  # what tests keep makes its collections long
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.run)
            await trio.lowlevel.checkpoint()
            yield watch
            nursery.cancel_scope.cancel()
    finally:
        gc.enable()
