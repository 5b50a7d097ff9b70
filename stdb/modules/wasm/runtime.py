"""Runtime: what the rest of this package needs of a WebAssembly engine, whichever way it is driven.

Responsible for: the Protocols `Runtime` and `Guest`, host functions with their signatures, how a guest's end is told.
Not responsible for: driving wasmtime (`raw`, `public`), what host functions do (`imports_10`), the order of calls
(`instance`).

A guest is entered with `enter` and may come back before it is through: its epoch has passed, or a host function waits.
Then `resume` goes on, `abandon` gives up. `call` runs an export to its end and never comes back early.
"""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from stdb.modules.protocol import Expiry
    from stdb.modules.wasm.engine import CompiledProgram
    from stdb.modules.wasm.memory import LinearMemory
    from stdb.sql.work import Steps

__all__ = [
    "CALL_TICKS_MAX",
    "EXHAUSTED",
    "LOAD_TICKS_MAX",
    "SUSPENDED",
    "TICK_SECONDS",
    "U64_MAX",
    "ExportType",
    "FunctionType",
    "Guest",
    "GuestTrap",
    "HostFunction",
    "HostTrap",
    "Imports",
    "Limits",
    "Runtime",
    "Wait",
]

TICK_SECONDS = 0.005
"""How often whoever runs this process increments the epoch (`Engine.tick`)."""
CALL_TICKS_MAX = 200
"""A call is stopped after so many epochs of its own, unless its Limits say otherwise."""
LOAD_TICKS_MAX = 2_000
"""So is everything that runs before a module's first call."""
EXHAUSTED = 0xFFFFFFFF
"""What the two readers return at the end: -1 as an i32."""
SUSPENDED = -1
"""What `enter` and `resume` return for a guest that has come back early; results are unsigned."""

U64_MAX = 0xFFFFFFFFFFFFFFFF


class FunctionType(NamedTuple):
    """Parameters and results of a function, each `i32`, `i64` or another value type by its name."""

    params: tuple[str, ...]
    results: tuple[str, ...]

    def __str__(self) -> str:
        """Return it as the text format writes it: `(func (param i32) (result i32))`."""
        parts = ["func"]
        if self.params:
            parts.append(f"(param {' '.join(self.params)})")
        if self.results:
            parts.append(f"(result {' '.join(self.results)})")
        return f"({' '.join(parts)})"


class ExportType(NamedTuple):
    """An export: its kind (`func`, `memory` or anything else), and its type if it is a function."""

    kind: str
    type: FunctionType | None


class HostFunction(NamedTuple):
    """A function that guests import. It is called with unsigned integers and returns one, or None.

    What it raises traps the guest and comes out of the guest's entry as the `__cause__` of a GuestTrap. Where `waits`
    is set it may return a Wait instead: the guest is suspended until that is answered.
    """

    type: FunctionType
    run: "Callable[..., int | Wait | None]"
    waits: bool = False


Imports: TypeAlias = Mapping[tuple[str, str], HostFunction]
"""Host functions by module and name."""


class Wait:
    """What a suspended guest waits for: `request` says what, `answer` lets it go on with a result."""

    __slots__ = ("answer", "error", "request")

    def __init__(self, request: object) -> None:
        self.request = request
        self.answer: int | None = None
        """The function's result, once there is one."""
        self.error: BaseException | None = None
        """Traps the guest instead."""


class Limits(NamedTuple):
    """What one guest may take."""

    memory_bytes_max: int = 1 << 30
    """Each linear memory."""
    memories_max: int = 4
    table_elements_max: int = 1_000_000
    """Each table."""
    tables_max: int = 16
    call_ticks_max: int = CALL_TICKS_MAX
    """Epochs that one call may take, those in which others ran not counted; a procedure has as many between two waits
    and in each of its transactions."""


_FRAME = re.compile(r"^ *\d+: +(?:0x[0-9a-f]+ - )?(?:(?P<nameless><wasm function \d+>)|[^!\n]*!(?P<name>.+))$", re.M)
"""A line of a backtrace: position, offset, and `module!function`."""


class HostTrap(Exception):  # noqa: N818 - what it does to the guest
    """A host function refuses to go on; the guest is trapped with this text."""


class GuestTrap(Exception):  # noqa: N818 - what happened to the guest
    """A guest ended by a trap, whose text and backtrace is the message. `__cause__`: what a host function raised.

    `where` is the backtrace alone, with which the message begins. `is_late`: its epochs or the time limit of its call
    were over.
    """

    def __init__(self, message: str, where: str = "", *, is_late: bool = False) -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.where = where
        self.is_late = is_late

    @property
    def functions(self) -> list[str]:
        """The names of the functions that were running, innermost first."""
        return [each["name"] or each["nameless"] for each in _FRAME.finditer(self.where)]


class Guest(Protocol):
    """One instance of a program. Used by one thread."""

    memory: "LinearMemory"
    waiting: Wait | None
    """What a host function waits for, while the guest is suspended for that."""

    def limit(self, expiry: "Expiry | None", ticks_max: int) -> None:
        """Hold what is entered from now on to `ticks_max` epochs, and stop it once `expiry` says so."""

    def call(self, name: str, *args: int) -> int:
        """Run an export to its end; return its result, 0 if it has none. Raises GuestTrap."""

    def call_in_steps(self, name: str, *args: int) -> "Steps[int]":
        """Do as `call`, in steps. Closed half-way, the guest is to be closed, too."""

    def entry(self, name: str) -> Callable[..., int]:
        """Return the function that enters an export: it returns the result or SUSPENDED. It raises GuestTrap."""

    def resume(self) -> int:
        """Go on with what was entered and came back; return the result or SUSPENDED. Raises GuestTrap."""

    def abandon(self) -> None:
        """Give up what was entered; the guest is of no use afterwards."""

    def close(self) -> None:
        """Free it."""


class Runtime(Protocol):
    """A way to drive the engine."""

    can_wait: bool
    """Host functions may wait, so that procedures sleep, write and send."""

    def instantiate(self, program: "CompiledProgram", imports: Imports, limits: Limits) -> Guest:
        """Make an instance; a start function runs. Every import is there, at its type.

        Raises:
            GuestTrap: It cannot be made, or its start function trapped.
        """

    def instantiate_in_steps(self, program: "CompiledProgram", imports: Imports, limits: Limits) -> "Steps[Guest]":
        """Do as `instantiate`, in steps."""
