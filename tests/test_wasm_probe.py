"""Which runtime is chosen, and that epochs pass by themselves."""

import subprocess
import sys
from pathlib import Path

import wasmtime

from stdb.modules.wasm.engine import CompiledProgram, Engine, engine
from stdb.modules.wasm.loader import best_runtime
from stdb.modules.wasm.probe import works
from stdb.modules.wasm.public import PublicRuntime
from stdb.modules.wasm.raw import RawGuest, RawRuntime
from stdb.modules.wasm.runtime import Imports, Limits

ROOT = Path(__file__).parent.parent


def test_both_runtimes_work_here_and_the_raw_one_is_chosen() -> None:
    own = Engine()
    own.start_ticking()
    for _ in range(20):  # whenever an epoch passes
        assert works(RawRuntime(own), own)
        assert works(PublicRuntime(own), own)
    assert isinstance(best_runtime(), RawRuntime)


def test_a_runtime_that_does_not_work_is_noticed() -> None:
    class Broken(RawRuntime):
        def instantiate(self, program: CompiledProgram, imports: Imports, limits: Limits) -> RawGuest:
            guest = super().instantiate(program, imports, limits)
            guest.memory._view_of_all = lambda: memoryview(bytes(65_536))
            return guest

    assert not works(Broken(engine()), engine())


def test_epochs_pass_with_the_interpreter_held_until_the_process_ends() -> None:
    source = (
        "from stdb.modules.wasm.engine import engine; from tests.test_wasm_probe import spin;"
        "print(engine().start_ticking(), spin())"
    )
    for _ in range(3):
        ended = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stdout.split()) == (0, ["True", "interrupt"]), ended.stderr


def spin() -> str:
    """Run a loop without end; return how that ends."""
    store = wasmtime.Store(engine().wasmtime)
    store.set_epoch_deadline(3)
    module = wasmtime.Module(engine().wasmtime, '(module (func (export "spin") (loop (br 0))))')
    function = wasmtime.Instance(store, module, []).exports(store)["spin"]
    assert isinstance(function, wasmtime.Func)
    try:
        function(store)
    except wasmtime.Trap as trap:
        return str(trap).rsplit(" ", 1)[-1].strip()
    return "ended"
