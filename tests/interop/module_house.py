"""A module behind a front door: published, asked over HTTP and heard, by any runtime, under virtual time."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import trio
from trio.testing import MockClock

from stdb.actors.epochs import keep_ticking
from stdb.actors.outgoing import HttpSender
from stdb.modules.wasm.engine import engine
from stdb.modules.wasm.loader import load_wasm
from stdb.modules.wasm.runtime import Limits
from stdb.net.tokens import Credentials
from stdb.testing.hosts import virtual_now_us
from tests.http_harness import Answer, Door, bearer, open_door
from tests.wasm_guests import RUNTIMES

__all__ = ["NAME", "PATIENT", "Check", "House", "play"]

NAME = "house"
PATIENT = Limits(call_ticks_max=10_000)
"""For calls that cannot pause, on a machine that does much else."""
_JSON = {"Content-Type": "application/json"}


class House:
    """A front door behind which the module is published, and its owner."""

    def __init__(self, door: Door, owner: Credentials) -> None:
        self.door, self.owner = door, owner

    async def call(self, name: str, args: str = "[]", who: Credentials | None = None) -> Answer:
        """Call a function."""
        path = f"/v1/database/{NAME}/call/{name}"
        return await self.door.send("POST", path, bearer(who or self.owner) | _JSON, args)

    async def sql(self, text: str, who: Credentials | None = None) -> Any:
        """Return the rows of a statement."""
        answer = await self.door.send("POST", f"/v1/database/{NAME}/sql", bearer(who or self.owner), text)
        assert answer.status == 200, answer.text
        return answer.document[0]["rows"]

    async def visit(self, method: str, path: str, body: str = "") -> Answer:
        """Ask a route of the module."""
        return await self.door.send(method, f"/v1/database/{NAME}/route{path}", {}, body)

    def log(self, level: str = "") -> list[str]:
        """Return what the module has said, at one level or at any."""
        return [line["message"] for line in self.door.log(NAME) if level in ("", line["level"])]


Check: TypeAlias = Callable[[House], Awaitable[None]]


def play(program: bytes, runtime: str, check: Check, *, http: HttpSender | None = None) -> None:
    """Run a check of a program by one of the runtimes; `http` answers what its procedures ask of others."""
    keep_ticking()

    def load() -> Any:
        return load_wasm(program, virtual_now_us, runtime=RUNTIMES[runtime](engine()), limits=PATIENT)

    async def main() -> None:
        with trio.fail_after(100_000):
            async with open_door({program: load}, http=http) as door:
                owner = door.tokens.mint()
                answer = await door.send("PUT", f"/v1/database/{NAME}", bearer(owner), program)
                assert answer.status == 200, answer.text
                await check(House(door, owner))

    trio.run(main, clock=MockClock(autojump_threshold=0))
