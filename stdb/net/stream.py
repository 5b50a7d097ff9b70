"""FrameStream: the seam between bytes on a wire and everything above.

Responsible for: the Protocol, a TCP socket behind it, and a pair of streams in memory for tests.
Not responsible for: frames (`frames`), what waits to be sent (`outbox`).

Writing never blocks and never switches tasks: it goes straight to the non-blocking socket (DESIGN decision 8).
"""

import socket
from collections.abc import Callable
from typing import Protocol

import trio

__all__ = ["RECEIVE_BYTES_MAX", "FrameStream", "MemoryStream", "SocketStream", "memory_stream_pair"]

RECEIVE_BYTES_MAX = 256 * 1024
"""One read takes at most this much; all frames in it are one batch."""


class FrameStream(Protocol):
    """A two-way run of bytes with one reader and one writer."""

    async def receive_some(self) -> bytes:
        """Return the next bytes, at least one; empty when the stream is over, whichever side ended it."""

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Hand over as much of `data` as fits and return how much that was: what a socket's own `send` does.

        Raises:
            BlockingIOError: Nothing fits.
            OSError: The other side is gone, or this side is closed.
        """

    async def wait_writable(self) -> None:
        """Return when `send_nowait` may take something again.

        Raises:
            OSError, trio.ClosedResourceError: It never will.
        """

    def close_nowait(self) -> None:
        """End both directions at once; whoever waits is woken. May be called again."""


class SocketStream:
    """A FrameStream over a connected TCP socket, which it owns from now on."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._closed = False
        self.send_nowait: Callable[[bytes | memoryview], int] = sock.send
        """The bare method, for speed."""

    @classmethod
    def take(cls, sock: trio.socket.SocketType) -> "SocketStream":
        """Return a stream over the socket that was `sock`, which nobody may use any more."""
        return cls(socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach()))

    async def receive_some(self) -> bytes:
        """Return the next bytes; empty when the stream is over."""
        while not self._closed:
            try:
                await trio.lowlevel.wait_readable(self._socket)
                return self._socket.recv(RECEIVE_BYTES_MAX)
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError):
                return b""
        await trio.lowlevel.checkpoint()
        return b""

    async def wait_writable(self) -> None:
        """Return when the kernel may take something again."""
        if self._closed:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError("this stream was closed")
        await trio.lowlevel.wait_writable(self._socket)

    def close_nowait(self) -> None:
        """Close the socket."""
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


class MemoryStream:
    """One end of a pair in memory; made by `memory_stream_pair`."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._incoming = bytearray()
        self._peer = self
        self._is_over = False
        self._changed = trio.Event()

    async def receive_some(self) -> bytes:
        """Return the next bytes; empty when the stream is over."""
        await trio.lowlevel.checkpoint()
        while not self._incoming and not self._is_over:
            await self._changed.wait()
        received = bytes(self._incoming[:RECEIVE_BYTES_MAX])
        del self._incoming[:RECEIVE_BYTES_MAX]
        self._peer._wake()
        return received

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Hand over as much of `data` as the other end still has room for."""
        if self._is_over:
            raise BrokenPipeError("this stream was closed")
        room = self._capacity_bytes - len(self._peer._incoming)
        if room <= 0:
            raise BlockingIOError("the other end has no room")
        taken = data[:room]
        self._peer._incoming += taken
        self._peer._wake()
        return len(taken)

    async def wait_writable(self) -> None:
        """Return when the other end has room."""
        await trio.lowlevel.checkpoint()
        while not self._is_over and len(self._peer._incoming) >= self._capacity_bytes:
            await self._changed.wait()

    def close_nowait(self) -> None:
        """End both directions; the other end still gets what was sent before."""
        for end in (self, self._peer):
            end._is_over = True
            end._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def memory_stream_pair(capacity_bytes: int = 64 * 1024) -> tuple[MemoryStream, MemoryStream]:
    """Return two streams; what goes into one comes out of the other, which buffers at most `capacity_bytes`."""
    left, right = MemoryStream(capacity_bytes), MemoryStream(capacity_bytes)
    left._peer, right._peer = right, left
    return left, right
