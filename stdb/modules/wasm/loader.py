"""Loader: from the bytes of a program to a WasmModule, or to what is wrong with it.

Responsible for: the order of the checks, which runtime drives the engine.
Not responsible for: each check (`engine`, `abi`, `definition`), uploading (`stdb.net`).

Source: spec 04 sections 1, 4 and 5.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

from stdb.datastore.datastore import Datastore
from stdb.errors import ModuleFault, SchemaError
from stdb.modules.wasm import abi
from stdb.modules.wasm.definition import read_definition
from stdb.modules.wasm.engine import CompiledCache, CompiledProgram, Engine, engine
from stdb.modules.wasm.host import Host
from stdb.modules.wasm.imports import host_functions
from stdb.modules.wasm.instance import Instance
from stdb.modules.wasm.module import WasmModule
from stdb.modules.wasm.module_9 import Instance9, WasmModule9
from stdb.modules.wasm.probe import works
from stdb.modules.wasm.public import PublicRuntime
from stdb.modules.wasm.raw import RawRuntime
from stdb.modules.wasm.runtime import Limits, Runtime
from stdb.modules.wasm.waiting import WAITING
from stdb.sats.hashes import keccak256

if TYPE_CHECKING:
    from stdb.schema.model import ModuleDef

__all__ = ["best_runtime", "load_wasm"]


def load_wasm(
    program: bytes,
    now_us: Callable[[], int],
    *,
    cache: CompiledCache | None = None,
    runtime: Runtime | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> WasmModule:
    """Return the module of a program. `now_us` tells the time; `cache` keeps compiled programs.

    Raises:
        ModuleFault: It is no WebAssembly, does not fit the host's interface, or fails before its first call.
        SchemaError: Its definition cannot be published; holds every finding.
    """
    program_hash = keccak256(program)
    compiled = engine().compile(program, program_hash, cache)
    version = abi.version(compiled)
    is_0_11 = version == abi.ABI_9
    host = Host(now_us)
    functions = host_functions(host, version)
    abi.check_exports(compiled, version)
    abi.check_imports(compiled, functions)
    chosen = runtime or best_runtime()
    first = (Instance9 if is_0_11 else Instance)(chosen, compiled, functions, host, limits)
    try:
        definition = read_definition(first.description, is_0_11=is_0_11)
        if runtime is None and not chosen.can_wait:
            _refuse_waits(compiled, definition)
    except BaseException:
        first.close()
        raise
    made = WasmModule9 if is_0_11 else WasmModule
    module = made(chosen, compiled, program_hash, definition, first, now_us, limits)
    _make_codecs(module)
    return module


def _make_codecs(module: WasmModule) -> None:
    """Have the codecs of a module's tables and reducers made now, where this may be beside the event loop.

    They are kept by their types; to make them takes tens of milliseconds for a module of some size.
    """
    datastore = Datastore()
    transaction = datastore.begin(0)
    with suppress(SchemaError):  # whoever publishes it is told
        datastore.create_tables(module.definition)
    transaction.rollback()
    for position in range(len(module.definition.reducers)):
        module.reducer_steps(position)


def _refuse_waits(program: CompiledProgram, definition: "ModuleDef") -> None:
    """Refuse a program whose procedures or handlers would wait: better than to fail when they are called.

    Raises:
        ModuleFault: It has some, and imports a function that waits.
    """
    if not definition.procedures and not definition.http_handlers:
        return
    for module, name, _ in program.imports:
        if (module, name) in WAITING:
            raise ModuleFault(
                f"the module has procedures or HTTP handlers that use `{module}::{name}`, which waits, and this server "
                "cannot let WebAssembly wait: its fast way into wasmtime does not work here, as with a version of "
                "wasmtime or Python that it was not made for; install those that it asks for"
            )


@cache
def best_runtime() -> Runtime:
    """Return the fastest runtime that works here."""
    return _best(engine())


def _best(engine: Engine) -> Runtime:
    raw = RawRuntime(engine)
    return raw if works(raw, engine) else PublicRuntime(engine)
