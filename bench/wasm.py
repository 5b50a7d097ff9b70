"""wasm: keynote's `transfer` as WebAssembly beside the same as a Python module, on one server; what one call costs.

Against: the Python module of the same run, driven by the same generator. The table in the details is measured in this
process: a call of nothing by both runtimes, one host function, a whole transfer, an instance.
"""

import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import wasmtime

from bench import keynote, load
from bench.harness import Effort, Process, Report, alternate, prepare_generator, stdb_process
from stdb.datastore.datastore import Datastore
from stdb.modules.protocol import Module, ReducerCall
from stdb.modules.python.archive import pack
from stdb.modules.python.loader import load_archive
from stdb.modules.wasm.engine import engine
from stdb.modules.wasm.loader import load_wasm
from stdb.modules.wasm.module import WasmModule
from stdb.modules.wasm.public import PublicRuntime
from stdb.modules.wasm.raw import RawRuntime
from stdb.modules.wasm.runtime import Limits, Runtime
from stdb.schema import raw
from stdb.schema.documents import to_raw_v10
from stdb.sql.work import finish

HERE = Path(__file__).parent / "modules"
_CALLS = 20_000
_TABLES = 1_000


class _Silent:
    def write(self, *_: object, **__: object) -> None:
        pass


def run(effort: Effort) -> list[Report]:
    prepare_generator()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "keynote.wasm"
        path.write_bytes(program())
        published = ("--publish", f"{path}=wasm", "--publish", "bench/modules/keynote.py=python")
        with stdb_process(*published) as server:
            report = _measure(server, effort)
    report.extra |= table(200 if effort.is_quick else _CALLS)
    print(report.details())
    return [report]


def program() -> bytes:
    """Return the module; it declares what the Python module declares."""
    definition = raw.encode(to_raw_v10(python_module().definition))
    text = (HERE / "keynote.wat").read_text()
    text = text.replace("$DEFINITION", "".join(f"\\{byte:02x}" for byte in definition))
    return bytes(wasmtime.wat2wasm(text.replace("$SIZE", str(len(definition)))))


def python_module() -> Module:
    """Return the same in Python."""
    return load_archive(pack({"keynote.py": (HERE / "keynote.py").read_bytes()}))


def _measure(server: Process, effort: Effort) -> Report:
    prepared = keynote.calls(0.0)
    sides, sockets = {}, []
    for side, database in (("ours", "wasm"), ("ceiling", "python")):
        _seed(server, database)
        connections = [load.connect(server.port, database) for _ in range(keynote.CONNECTIONS)]
        sockets += connections
        sides[side] = keynote.side(server, connections, prepared, effort.seconds)
    series = alternate(effort.rounds, sides)
    for sock in sockets:
        sock.close()
    name = "transfers per server CPU second"
    return Report("wasm", name, series["ours"], series["ceiling"], against="the Python module")


def _seed(server: Process, database: str) -> None:
    sock = load.connect(server.port, database)
    sock.settimeout(60)
    sock.sendall(load.call(1, "seed", keynote.SEED.pack(keynote.ACCOUNTS, keynote.INITIAL_BALANCE)))
    assert load.read_message(sock)[14] == load.OK
    sock.close()


# In this process


def table(calls: int) -> dict[str, str]:
    """Return microseconds per call, by what is called."""
    found: dict[str, float] = {}
    runtimes: dict[str, Runtime] = {"raw": RawRuntime(engine()), "public": PublicRuntime(engine())}
    for name, runtime in runtimes.items():
        guest = runtime.instantiate(engine().compile(_empty(), b"bench"), {}, Limits())
        found[f"entry of ten arguments, {name}"] = _time(calls, partial(guest.entry("ten"), 0, *(1,) * 7, 1, 2))
        guest.close()
        module = load_wasm(program(), lambda: 0, runtime=runtime)
        found[f"transfer, {name}"] = _time(calls, _transfer(module))
        found[f"new instance, {name}"] = _time(20, partial(_remake, module))
    found["transfer, Python"] = _time(calls, _transfer(python_module()))
    return {name: f"{microseconds:.2f} µs" for name, microseconds in found.items()}


def _empty() -> bytes:
    return bytes(
        wasmtime.wat2wasm(
            '(module (memory (export "memory") 1) (func (export "ten")'
            " (param i32 i64 i64 i64 i64 i64 i64 i64 i32 i32) (result i32) i32.const 0))"
        )
    )


def _remake(module: WasmModule) -> None:
    finish(module._make())


def _transfer(module: Module) -> Callable[[], None]:
    """Return one transfer, from begin to commit."""
    datastore = Datastore()
    transaction = datastore.begin(0)
    datastore.create_tables(module.definition)
    transaction.commit()
    module.attach(datastore, bytes(32), _Silent())
    seed, transfer = module.reducer(0), module.reducer(1)
    transaction = datastore.begin(0)
    seed(ReducerCall(bytes(32), None, 0, transaction), keynote.SEED.pack(_TABLES, 10**9))
    transaction.commit()
    pairs = random.Random(1)
    args = [keynote.ARGUMENTS.pack(*pairs.sample(range(_TABLES), 2), 1) for _ in range(1_000)]
    position = 0

    def once() -> None:
        nonlocal position
        position = (position + 1) % 1_000
        transaction = datastore.begin(0)
        transfer(ReducerCall(bytes(32), None, 0, transaction), args[position])
        transaction.commit()

    return once


def _time(calls: int, work: Callable[[], object]) -> float:
    """Return the microseconds of a call: the best of three."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        for _ in range(calls):
            work()
        best = min(best, (time.process_time() - start) / calls * 1e6)
    return best
