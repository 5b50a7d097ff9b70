"""The function of ABI 10.6: reading environment variables.

Responsible for: where a guest may read, what it is told.
Not responsible for: which names it may read (`stdb.modules.environment`).

Source: spec 09 section 4.
"""

from typing import TYPE_CHECKING

from stdb.modules.wasm.imports_10 import Errno
from stdb.modules.wasm.runtime import FunctionType, HostFunction, HostTrap
from stdb.schema.environment import is_variable_name

if TYPE_CHECKING:
    from stdb.modules.wasm.host import Host
    from stdb.modules.wasm.runtime import Imports

__all__ = ["SOURCES_MAX", "variable_functions"]

SOURCES_MAX = 256
"""As many sources may wait to be read when one more value is asked for."""
_NAMESPACE = "."


def variable_functions(host: "Host") -> "Imports":
    """Return this function of one guest, by module and name."""
    type_ = FunctionType(("i32",) * 3, ("i32",))
    return {("spacetime_10.6", "env_get"): HostFunction(type_, _Variables(host).get)}


class _Variables:
    def __init__(self, host: "Host") -> None:
        self._host = host

    def get(self, pointer: int, length: int, out: int) -> int:
        """Write a source with a value, 0 where an optional variable has none."""
        host = self._host
        name = host.memory.text(pointer, length)
        host.memory.write_u32(out, 0)
        function, environment = host.function, host.environment
        if function is None or environment is None:
            raise HostTrap("the environment is read by functions that are called, not while a module is prepared")
        if _NAMESPACE in function:
            raise HostTrap(f"`{function}` is of a submodule; only the root module reads the environment")
        if not is_variable_name(name):
            return Errno.HOST_CALL_FAILURE
        if host.expiry is None and not host.is_procedure:
            return Errno.NOT_IN_TRANSACTION
        if len(host.handles.sources) >= SOURCES_MAX:
            return Errno.NO_SPACE
        try:
            value = environment.get(name, host.reads)
        except LookupError as error:
            raise HostTrap(str(error.args[0])) from error
        if value is not None:
            host.memory.write_u32(out, host.handles.add_value(value.encode()))
        return Errno.OK
