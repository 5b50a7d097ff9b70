"""WasmModule9: a program of 0.11 that a database calls, by ABI 9.0.

Responsible for: what differs from later programs: buffers instead of sources and sinks, three of the exports.
Not responsible for: everything else (`module`, `instance`), host functions (`imports_9`), its definition (`raw_v8`).

Source: spec 04 section 9.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from stdb.errors import ModuleFault, ReducerError, ReducerTimeout
from stdb.modules.protocol import FATAL, ReducerCall
from stdb.modules.wasm import imports_9
from stdb.modules.wasm.imports_9 import NO_BUFFER
from stdb.modules.wasm.instance import DESCRIBE, SETUP, Instance
from stdb.modules.wasm.module import WasmModule
from stdb.modules.wasm.runtime import SUSPENDED, U64_MAX, GuestTrap
from stdb.modules.wasm.values_9 import checked_skip

if TYPE_CHECKING:
    from stdb.modules.wasm.host import Host
    from stdb.sql.work import Steps

__all__ = ["Instance9", "WasmModule9"]

_NO_ADDRESS = bytes(16)


class Instance9(Instance):
    """One instance of a program of 0.11."""

    __slots__ = ()

    def _describe(self) -> "Steps[bytes]":
        handle = yield from self.guest.call_in_steps(DESCRIBE)
        found = self._buffer(handle)
        if found is None:
            raise ModuleFault(f"error getting module description: {DESCRIBE} returned buffer {handle}, which is none")
        return found

    def _set_up(self) -> "Steps[None]":
        handle = yield from self._run_first(SETUP)
        if handle == NO_BUFFER:
            return
        found = self._buffer(handle)
        text = f"{SETUP} returned buffer {handle}, which is none" if found is None else found.decode("utf-8", "replace")
        self.host.handles.end_call()
        raise ModuleFault(f"setup function returned an error: {text}")

    def _buffer(self, handle: int) -> bytes | None:
        found = self.host.handles.sources.get(handle + 1)
        return None if found is None else found.data


class WasmModule9(WasmModule):
    """A loaded program of 0.11; see `WasmModule`."""

    succeeded = NO_BUFFER

    def reducer_steps(self, reducer_id: int) -> "Callable[[ReducerCall, bytes], Steps[None] | None]":
        """Return the entry of a reducer; see `WasmModule.reducer_steps`."""
        definition = self.definition.reducers[reducer_id]
        name = definition.name
        skip = checked_skip(definition.params, self.definition.typespace)

        def start(call: ReducerCall, args: bytes) -> "Steps[None] | None":
            args = args[: skip(args, 0)]
            instance = self._main
            if instance is None:
                return self._after_making(start, call, args)
            host = instance.host
            host.open(call.transaction)
            host.function = name
            add = host.handles.add_value
            instance.guest.limit(call.transaction, instance.ticks_max)
            try:
                code = instance.call_reducer(
                    reducer_id,
                    add(call.sender[::-1]) - 1,
                    add((call.connection_id or _NO_ADDRESS)[::-1]) - 1,
                    call.timestamp_us & U64_MAX,
                    add(args) - 1,
                )
            except GuestTrap as trap:
                self._broken(trap, name)
            if code == SUSPENDED:
                return self._rest(instance, name)
            if code != NO_BUFFER or call.transaction.expired:
                self._refuse(instance, name, code)
            host.end()
            return None

        return start

    def _refuse(self, instance: Instance, name: str, code: int) -> NoReturn:
        host = instance.host
        found = host.handles.sources.get(code + 1)
        is_late = host.expiry is not None and host.expiry.expired
        host.end()
        if is_late:
            raise ReducerTimeout(f"`{name}` ran longer than it may")
        if found is not None:
            raise ReducerError(found.data.decode("utf-8", "replace"))
        raise ModuleFault(FATAL, report=f"{name} returned buffer {code}, which is none")

    def _made(self, host: "Host") -> "Steps[Instance]":
        self._bind(host)
        return Instance9.in_steps(self._runtime, self._program, imports_9.functions(host), host, self._limits)
