"""Streams: sockets and the pair in memory behave alike."""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

import pytest
import trio
import trio.testing

from stdb.net.stream import FrameStream, SocketStream, memory_stream_pair

Pair: TypeAlias = tuple[FrameStream, FrameStream]


def socket_pair() -> Pair:
    left, right = socket.socketpair()
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return SocketStream(left), SocketStream(right)


PAIRS = pytest.mark.parametrize("make", [socket_pair, lambda: memory_stream_pair(4096)], ids=["socket", "memory"])


@PAIRS
def test_bytes_come_out_in_order_and_the_end_is_empty(make: Callable[[], Pair]) -> None:
    async def main() -> None:
        left, right = make()
        assert left.send_nowait(b"ab") == 2
        assert left.send_nowait(memoryview(b"cd")) == 2
        received = b""
        while len(received) < 4:
            received += await right.receive_some()
        assert received == b"abcd"
        left.close_nowait()
        left.close_nowait()
        assert await right.receive_some() == b""
        assert await left.receive_some() == b""
        right.close_nowait()

    trio.run(main)


@PAIRS
def test_a_full_stream_takes_a_part_and_tells_when_there_is_room(make: Callable[[], Pair]) -> None:
    async def main() -> None:
        left, right = make()
        data = bytes(range(256)) * 4000
        got = bytearray()

        async def read() -> None:
            while len(got) < len(data):
                got.extend(await right.receive_some())

        rest = memoryview(data)
        rest = rest[left.send_nowait(rest) :]
        assert rest
        with pytest.raises(BlockingIOError):
            left.send_nowait(rest)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            while rest:
                await left.wait_writable()
                rest = rest[left.send_nowait(rest) :]
        assert got == data
        left.close_nowait()
        right.close_nowait()

    trio.run(main)


@PAIRS
def test_closing_wakes_whoever_waits(make: Callable[[], Pair]) -> None:
    async def main() -> None:
        left, right = make()
        ends = []

        async def read(stream: FrameStream) -> None:
            ends.append(await stream.receive_some())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, left)
            nursery.start_soon(read, right)
            await trio.testing.wait_all_tasks_blocked()
            left.close_nowait()
        assert ends == [b"", b""]
        right.close_nowait()

    trio.run(main)


@PAIRS
def test_sending_into_a_closed_stream_fails_whoever_closed_it(make: Callable[[], Pair]) -> None:
    async def main() -> None:
        left, right = make()
        right.close_nowait()
        for _ in range(2):
            with pytest.raises(OSError, match=r"Broken pipe|Bad file descriptor|was closed"):
                left.send_nowait(b"x")
            left.close_nowait()
        with trio.fail_after(5), suppress(trio.ClosedResourceError):
            await left.wait_writable()

    trio.run(main)


def test_a_trio_socket_is_taken_over_whole() -> None:
    async def main() -> None:
        left, right = trio.socket.socketpair()
        stream = SocketStream.take(left)
        assert left.fileno() == -1
        await right.send(b"hello")
        assert await stream.receive_some() == b"hello"
        stream.close_nowait()
        assert await right.recv(10) == b""
        right.close()

    trio.run(main)


def test_a_reset_is_an_end_like_any_other() -> None:
    async def main() -> None:
        listener = trio.socket.socket()
        await listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client = trio.socket.socket()
        await client.connect(listener.getsockname())
        accepted, _ = await listener.accept()
        stream = SocketStream.take(accepted)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        assert await stream.receive_some() == b""
        with pytest.raises(ConnectionError):
            stream.send_nowait(b"x")
        stream.close_nowait()
        listener.close()

    trio.run(main)
