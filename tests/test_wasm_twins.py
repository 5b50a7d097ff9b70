"""Timers and views of WebAssembly modules: what holds for modules in Python is asked once more, with their twins."""

from collections.abc import Iterator
from typing import Any

import pytest

from stdb.modules.wasm.module import WasmModule
from stdb.testing.modules import FunctionModule
from tests import test_actors_scheduler as scheduler
from tests import test_views as views
from tests.wasm_twins import twin

OTHERWISE = {
    "test_a_scheduled_reducer_that_is_not_private_is_everybodys",  # the ABI of 2.x makes every one of them private
    "test_extreme_times_wait_for_ever",  # the ABI refuses a time that is too far away
    "test_a_row_runs_again_when_its_database_failed_before_it_was_stored",  # puts its bug into `reducer`
    "test_timers_keep_their_time_under_steady_load_and_leave_the_load_its_share",  # measures speed
}
"""What does not hold, or is none of it."""


def asked_again(module: Any) -> Iterator[tuple[str, Any]]:
    """Return a module's tests under names of their own."""
    kind = module.__name__.rsplit("_", 1)[-1]
    for name, test in vars(module).items():
        if name.startswith("test_") and name not in OTHERWISE:
            yield f"test_{kind}: {name.removeprefix('test_')}", test


globals().update(asked_again(scheduler))
globals().update(asked_again(views))


@pytest.fixture(autouse=True)
def twins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put twins in the places of the modules."""
    timers, programs = scheduler.timers, views.PROGRAMS

    def twin_of_timers(*args: Any, **more: Any) -> WasmModule:
        return twin(timers(*args, **more))

    def twin_of_shop(program: bytes) -> WasmModule:
        plain: FunctionModule = programs[program]()  # its definition is not held to all rules
        return twin(plain, is_checked=False)

    monkeypatch.setattr(scheduler, "timers", twin_of_timers)
    made = {program: (lambda program=program: twin_of_shop(program)) for program in programs}
    monkeypatch.setattr(views, "PROGRAMS", made)


def test_twins_are_webassembly() -> None:
    assert isinstance(scheduler.timers(), WasmModule)
    assert isinstance(views.PROGRAMS[b"shop"](), WasmModule)
