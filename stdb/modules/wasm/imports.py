"""Imports: every function that a guest may import, of every version of the ABI.

Responsible for: putting the groups together.
Not responsible for: any of them (`imports_9`, `imports_10`, `waiting`, `variables`).
"""

from typing import TYPE_CHECKING

from stdb.modules.wasm import abi, imports_9, imports_10
from stdb.modules.wasm.variables import variable_functions
from stdb.modules.wasm.waiting import waiting_functions

if TYPE_CHECKING:
    from stdb.modules.wasm.host import Host
    from stdb.modules.wasm.runtime import Imports

__all__ = ["host_functions"]


def host_functions(host: "Host", version: tuple[int, int] = abi.HOST_VERSION) -> "Imports":
    """Return the host functions of one guest that wants a version of the ABI, by module and name."""
    if version == abi.ABI_9:
        return imports_9.functions(host)
    return {**imports_10.functions(host), **waiting_functions(host), **variable_functions(host)}
