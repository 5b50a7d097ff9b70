"""Instance: one instance of a program, from its first breath to its last call.

Responsible for: the order in which a fresh instance is prepared, entering its functions, what comes out of them.
Not responsible for: when instances are made and replaced (`module`), host functions (`imports_10`), wasmtime (`raw`).

Source: spec 04 sections 5 and 6.
"""

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, NoReturn, Self

from stdb.errors import ModuleFault, ReducerTimeout
from stdb.modules.protocol import FATAL
from stdb.modules.wasm import abi
from stdb.modules.wasm.runtime import LOAD_TICKS_MAX, SUSPENDED, Guest, GuestTrap
from stdb.sql.work import Steps, finish

if TYPE_CHECKING:
    from stdb.modules.wasm.engine import CompiledProgram
    from stdb.modules.wasm.host import Host
    from stdb.modules.wasm.runtime import Imports, Limits, Runtime

__all__ = ["DESCRIBE", "FAILURE", "SETUP", "Instance", "connection_words", "raise_for", "words"]

FAILURE = 1
"""A function's return code: it refuses, its text is in the sink."""
_INITIALIZE = "_initialize"
SETUP = "__setup__"
DESCRIBE = "__describe_module__"
_WORDS = Struct("<4Q").unpack
_WORDS_OF_CONNECTION = Struct("<2Q").unpack
_NO_CONNECTION = bytes(16)


class Instance:
    """One instance. `description`: what it says of itself. `in_steps` makes one where others are to run meanwhile.

    Raises:
        ModuleFault: It cannot be made, or one of its first functions failed; the text is for the publisher.
    """

    __slots__ = ("call_reducer", "description", "guest", "host", "ticks_max")

    def __init__(
        self, runtime: "Runtime", program: "CompiledProgram", imports: "Imports", host: "Host", limits: "Limits"
    ) -> None:
        finish(self._begin(runtime, program, imports, host, limits))

    @classmethod
    def in_steps(
        cls, runtime: "Runtime", program: "CompiledProgram", imports: "Imports", host: "Host", limits: "Limits"
    ) -> Steps[Self]:
        """Return a new one, made in steps. Raises as the class."""
        made = cls.__new__(cls)
        yield from made._begin(runtime, program, imports, host, limits)
        return made

    def _begin(
        self, runtime: "Runtime", program: "CompiledProgram", imports: "Imports", host: "Host", limits: "Limits"
    ) -> Steps[None]:
        self.host = host
        self.ticks_max = limits.call_ticks_max
        try:
            self.guest: Guest = yield from runtime.instantiate_in_steps(program, imports, limits)
        except GuestTrap as trap:
            raise ModuleFault(str(trap)) from trap.__cause__
        host.memory = self.guest.memory
        self.guest.limit(None, LOAD_TICKS_MAX)
        try:
            self.description = yield from self._prepare(program)
        except BaseException:
            self.close()
            raise
        self.call_reducer: Callable[..., int] = self.guest.entry("__call_reducer__")

    def _prepare(self, program: "CompiledProgram") -> Steps[bytes]:
        exports = program.exports
        initialize = exports.get(_INITIALIZE)
        if initialize is not None and initialize.type == abi.NOTHING:
            yield from self._run_first(_INITIALIZE)
        for name in sorted((name for name in exports if name.startswith(abi.PREINIT)), key=str.encode):
            yield from self._run_first(name)
        if SETUP in exports:
            yield from self._set_up()
        try:
            return (yield from self._describe())
        except GuestTrap as trap:
            # The reference shows where it was twice; a text that people search for stays as it is.
            text = f"{trap.where}: {trap}" if trap.where else str(trap)
            raise ModuleFault(f"error getting module description: {text}") from trap.__cause__
        finally:
            self.host.end()

    def _describe(self) -> Steps[bytes]:
        """Return what the module says of itself. Raises GuestTrap."""
        sink = self.host.handles.add_sink()
        yield from self.guest.call_in_steps(DESCRIBE, sink)
        return bytes(self.host.handles.sinks[sink])

    def _run_first(self, name: str, *args: int) -> Steps[int]:
        try:
            return (yield from self.guest.call_in_steps(name, *args))
        except GuestTrap as trap:
            raise ModuleFault(f'wasm trap while calling "{name}": {trap}') from trap.__cause__

    def _set_up(self) -> Steps[None]:
        handles = self.host.handles
        sink = handles.add_sink()
        code = yield from self._run_first(SETUP, sink)
        text = handles.sinks[sink].decode("utf-8", "replace")
        handles.end_call()
        if code == FAILURE:
            raise ModuleFault(f"setup function returned an error: {text}")
        if code:
            raise ModuleFault(f'wasm trap while calling "{SETUP}": unknown return code')

    def entry(self, name: str) -> Callable[..., int]:
        """Return the function that enters an export. Raises ModuleFault where there is none of that name."""
        try:
            return self.guest.entry(name)
        except KeyError:
            raise ModuleFault(FATAL, report=f"the module has no export {name}") from None

    def run(self, name: str, *args: int) -> Steps[int]:
        """Run a function in steps, under the limit of the host's `expiry`; return its code. Raises GuestTrap."""
        self.guest.limit(self.host.expiry, self.ticks_max)
        code = self.entry(name)(*args)
        while code == SUSPENDED:
            yield
            code = self.guest.resume()
        return code

    def close(self) -> None:
        """Free it; what its host functions keep alive is let go, and what waits for the log is written."""
        self.host.write_panic()
        self.guest.close()


def words(identity: bytes) -> tuple[int, int, int, int]:
    """Return an identity as functions take it: four words, the least significant first."""
    return _WORDS(identity)


def connection_words(connection_id: bytes | None) -> tuple[int, int]:
    """Return a connection id as functions take it; zero where there is none."""
    return _WORDS_OF_CONNECTION(connection_id or _NO_CONNECTION)


def raise_for(trap: GuestTrap, what: str, host: "Host") -> NoReturn:
    """Raise what the database knows for the end of a guest; `what` ran. The report of a panic is what the guest logged.

    Raises:
        ReducerTimeout: Its time was over.
        ModuleFault: Anything else.
    """
    cause = trap.__cause__
    if trap.is_late or isinstance(cause, ReducerTimeout):
        raise ReducerTimeout(f"{what} ran longer than it may and was stopped") from cause
    if cause is not None and not isinstance(cause, Exception):
        raise cause  # an interrupt that came while the host was called
    panic = host.panic
    if panic is None or cause is not None:
        raise ModuleFault(FATAL, report=str(trap)) from cause
    host.panic = None
    raise ModuleFault(FATAL, report=panic.message, filename=panic.filename, line=panic.line, trace=trap.functions)
