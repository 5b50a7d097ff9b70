"""Host: what the functions of one guest know of the call that it serves.

Responsible for: the circumstances of a call, the transaction or the read set it works through, its bytes in and out.
Not responsible for: what host functions do (`imports_10`), entering guests (`instance`).

Source: spec 04 sections 2.2 and 5.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from stdb.modules.protocol import LogLevel
from stdb.modules.wasm.handles import Handles
from stdb.modules.wasm.memory import LinearMemory

if TYPE_CHECKING:
    from stdb.modules.environment import Environment
    from stdb.modules.protocol import Expiry, LogSink, ReadSet
    from stdb.modules.wasm.tables import Tables

__all__ = ["Host", "Panic"]


class Panic(NamedTuple):
    """A line that a guest logged at the level of panics."""

    message: str
    target: str | None
    filename: str | None
    line: int | None


class Host:
    """The state behind one guest's host functions."""

    __slots__ = (
        *("can_write", "expiry", "function", "handles", "identity", "immediate", "log", "memory", "now_us"),
        *("environment", "is_procedure", "panic", "reads", "tables"),
    )

    def __init__(self, now_us: Callable[[], int]) -> None:
        self.now_us = now_us
        self.memory = LinearMemory()
        """That of the guest; nothing while its start function runs."""
        self.handles = Handles()
        self.identity = bytes(32)
        self.tables: Tables | None = None
        """Set once the module is attached to a database."""
        self.environment: Environment | None = None
        """Set with `tables`."""
        self.log: LogSink | None = None
        self.immediate: Callable[[str, bytes], None] | None = None
        """Queues a call of a function by name; told of no failure."""
        self.function: str | None = None
        """The name of what runs, for the log."""
        self.panic: Panic | None = None
        """The last line logged, not written yet: the trap that mostly follows knows which functions were running."""
        self.expiry: Expiry | None = None
        """What the time limit sets; None while no transaction is open and nothing may be read."""
        self.reads: ReadSet | None = None
        """Where a view notes what it reads."""
        self.can_write = False
        self.is_procedure = False
        """What runs may wait, and makes its own transactions."""

    def open(self, expiry: "Expiry", reads: "ReadSet | None" = None) -> None:
        """Let the guest reach the tables: to read and write them, or, with `reads`, to read alone."""
        self.expiry = expiry
        self.reads = reads
        self.can_write = reads is None

    def close(self) -> None:
        """Take the tables away."""
        self.expiry = self.reads = None
        self.can_write = False

    def end(self) -> None:
        """End a call: take the tables away, forget its handles, write what waits for the log."""
        self.expiry = self.reads = None
        self.can_write = False
        self.handles.end_call()
        if self.panic is not None:
            self.write_panic()

    def write_panic(self) -> None:
        """Write a panic's line that no trap followed."""
        panic, self.panic = self.panic, None
        if panic is not None and self.log is not None:
            message, target, filename, line = panic
            self.log.write(LogLevel.PANIC, message, target=target, filename=filename, line=line, function=self.function)
