"""Modules whose reducers and views come back before they are through, so that transactions pause half-way.

Responsible for: `PausingModule`, a `stdb.modules.protocol.Suspending` as WebAssembly modules are; `run_whole`.
Not responsible for: what the reducers do (`operations`), when a slice is over (`determinism`).
"""

from collections.abc import Callable, Generator, Iterable
from typing import Any

from stdb.errors import ModuleFault, ReducerError
from stdb.modules.protocol import ReducerCall, ViewCall, ViewSql
from stdb.sats import bsatn
from stdb.testing.modules import Context, FunctionModule

__all__ = ["PausingModule", "run_whole"]

Steps = Generator[None, None, None]


def run_whole(steps: Iterable[None]) -> None:
    """Run steps to their end in one go."""
    for _ in steps:
        pass


class PausingModule(FunctionModule):
    """A FunctionModule whose reducers are generators, run step by step."""

    def reducer_steps(self, reducer_id: int) -> Callable[[ReducerCall, bytes], Steps]:
        """Return what starts a reducer."""
        each = self._reducers[reducer_id]
        codec = bsatn.codec(each.params)
        run: Callable[..., Any] = each.run

        def start(call: ReducerCall, args: bytes) -> Steps:
            assert self._datastore is not None
            assert self._log is not None
            values, _ = codec.decode(args)
            return _told(run(Context(call, self._datastore, self._log), *values))

        return start

    def view_steps(self, position: int) -> Callable[[ViewCall], Generator[None, None, list[bytes] | ViewSql]]:
        """Return what runs a view in steps."""
        view = self.view(position)

        def start(call: ViewCall) -> Generator[None, None, list[bytes] | ViewSql]:
            yield
            found = view(call)
            yield
            return found

        return start


def _told(steps: Steps) -> Steps:
    """Do as `steps`; what breaks is told as modules tell it."""
    try:
        yield from steps
    except ReducerError:
        raise
    except Exception as error:
        raise ModuleFault("The instance encountered a fatal error.") from error
