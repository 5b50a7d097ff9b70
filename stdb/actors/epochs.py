"""Epochs: the ticks by which guests of WebAssembly notice that time passes.

Responsible for: that they come, from the engine's own timer or, where there is none, from a thread of this process.
Not responsible for: what a guest does about it (`stdb.modules.wasm`).

The thread begins with the first WebAssembly program and is never ended: it holds nothing, and a process that ends does
not wait for it.
"""

import threading
from functools import cache
from time import sleep

from stdb.modules.wasm.engine import engine
from stdb.modules.wasm.runtime import TICK_SECONDS

__all__ = ["keep_ticking"]


@cache
def keep_ticking() -> None:
    """See to it that epochs pass from now on."""
    if engine().start_ticking():
        return
    threading.Thread(target=_tick, name="stdb-epochs", daemon=True).start()


def _tick() -> None:
    tick = engine().tick
    while True:
        sleep(TICK_SECONDS)
        tick()
