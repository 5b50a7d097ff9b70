"""Imports: every function that a guest may import, of every version of the ABI.

Responsible for: putting the groups together.
Not responsible for: any of them (`imports_10`, `waiting`, `variables`).
"""

from typing import TYPE_CHECKING

from stdb.modules.wasm import imports_10
from stdb.modules.wasm.variables import variable_functions
from stdb.modules.wasm.waiting import waiting_functions

if TYPE_CHECKING:
    from stdb.modules.wasm.host import Host
    from stdb.modules.wasm.runtime import Imports

__all__ = ["host_functions"]


def host_functions(host: "Host") -> "Imports":
    """Return the host functions of one guest, by module and name."""
    return {**imports_10.functions(host), **waiting_functions(host), **variable_functions(host)}
