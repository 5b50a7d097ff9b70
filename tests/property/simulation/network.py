"""The network: streams in memory that cut what is sent anywhere, hold it back, fill up, break, or go silent.

Responsible for: `Pipe`, one connection with a server's end (`stdb.net.stream.FrameStream`) and a client's end.
Not responsible for: frames, who uses it.

What is sent arrives in order or not at all. Each piece takes a delay of its own and is cut into chunks at random; a
half-open connection takes bytes until it is full and delivers none; a cut ends both directions, with what was under
way.
"""

from bisect import bisect_right
from collections.abc import Callable
from random import Random
from typing import NamedTuple

import trio

__all__ = ["Behaviour", "ClientEnd", "Pipe", "ServerEnd"]


class Behaviour(NamedTuple):
    """How a connection treats what is sent over it."""

    chunk_max: int
    """Greatest piece that arrives in one go."""
    delay_s_max: float
    capacity_bytes: int
    """What is under way at most, in each direction."""


class _Way:
    """One direction."""

    def __init__(self, random: Random, behaviour: Behaviour) -> None:
        self._random = random
        self._behaviour = behaviour
        self._waiting = bytearray()
        self._arrives_at = 0.0
        self.is_over = False
        """No more goes in; what is there may still come out unless it was cut."""
        self.is_silent = False
        """Nothing comes out any more, and nobody is told."""
        self.changed = trio.Event()

    def put(self, data: bytes | memoryview) -> int:
        """Take as much as fits."""
        taken = data[: max(0, self._behaviour.capacity_bytes - len(self._waiting))]
        if not self._waiting and taken:
            self._hold()
        self._waiting += taken
        if taken:
            self.wake()
        return len(taken)

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= self._behaviour.capacity_bytes

    async def get(self) -> bytes:
        """Return the next chunk once it has arrived; empty at the end."""
        await trio.lowlevel.checkpoint()
        while True:
            if self.is_silent or not (self._waiting or self.is_over):
                await self.changed.wait()
            elif not self._waiting:
                return b""
            elif trio.current_time() < self._arrives_at:
                await trio.sleep_until(self._arrives_at)
            else:
                break
        size = self._random.randint(1, self._behaviour.chunk_max)
        chunk = bytes(self._waiting[:size])
        del self._waiting[:size]
        if self._waiting:
            self._hold()
        self.wake()
        return chunk

    def cut(self) -> None:
        """End; what was under way is lost."""
        self._waiting.clear()
        self.end()

    def end(self) -> None:
        """End behind what is under way."""
        self.is_over = True
        self.is_silent = False
        self.wake()

    def wake(self) -> None:
        """Let whoever waits look again."""
        self.changed.set()
        self.changed = trio.Event()

    def _hold(self) -> None:
        delay = self._random.random() ** 3 * self._behaviour.delay_s_max
        self._arrives_at = trio.current_time() + delay


class Pipe:
    """One connection. `durable` is asked at every send of the server: it says what the disk held by then."""

    def __init__(self, random: Random, behaviour: Behaviour, durable: Callable[[], int]) -> None:
        self.up = _Way(random, behaviour)
        self.down = _Way(random, behaviour)
        self.server = ServerEnd(self, durable)
        self.client = ClientEnd(self)

    def cut(self) -> None:
        """Break it: both sides learn of it, what was under way is lost."""
        self.up.cut()
        self.down.cut()

    def go_silent(self) -> None:
        """Leave it half open: the server hears nothing any more and may send until the connection is full."""
        self.up.is_silent = self.down.is_silent = True

    @property
    def is_over(self) -> bool:
        return self.up.is_over and self.down.is_over


class ServerEnd:
    """What the server reads from and writes to: a FrameStream."""

    def __init__(self, pipe: Pipe, durable: Callable[[], int]) -> None:
        self._pipe = pipe
        self._durable = durable
        self._sent = 0
        self._starts: list[int] = []
        self._durables: list[int] = []

    def durable_at(self, position: int) -> int:
        """Return how many transactions were on the disk when the byte at `position` was sent."""
        return self._durables[bisect_right(self._starts, position) - 1]

    async def receive_some(self) -> bytes:
        """Return the next bytes; empty when the stream is over."""
        return await self._pipe.up.get()

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Hand over what fits."""
        if self._pipe.down.is_over:
            raise BrokenPipeError("the client is gone")
        taken = self._pipe.down.put(data)
        if not taken:
            raise BlockingIOError("the connection is full")
        self._starts.append(self._sent)
        self._durables.append(self._durable())
        self._sent += taken
        return taken

    async def wait_writable(self) -> None:
        """Return when something fits again."""
        await trio.lowlevel.checkpoint()
        down = self._pipe.down
        while down.is_full and not down.is_over:
            await down.changed.wait()
        if down.is_over:
            raise trio.ClosedResourceError("the client is gone")

    def close_nowait(self) -> None:
        """End both directions; what was sent still arrives."""
        self._pipe.up.cut()
        self._pipe.down.end()


class ClientEnd:
    """What the client reads from and writes to."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    async def receive_some(self) -> bytes:
        """Return the next bytes; empty when the stream is over."""
        return await self._pipe.down.get()

    async def send_all(self, data: bytes) -> bool:
        """Send; tell whether the connection took it."""
        view = memoryview(data)
        up = self._pipe.up
        while view:
            if up.is_over:
                return False
            taken = up.put(view)
            view = view[taken:]
            if view:
                await up.changed.wait()
        return True
