"""The smallest WebSocket server that works: a reactor that hands whole messages of one read to a function."""

import base64
import gc
import hashlib
import resource
import select
import socket
from collections.abc import Awaitable, Callable

import trio

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
FIRST_MESSAGE = b"\x82\x02\0\0"


class Connection:
    """A client: bytes that wait for more, bytes that wait for the kernel."""

    __slots__ = ("blocked", "buffer", "raw", "wake")

    def __init__(self, raw: socket.socket) -> None:
        self.raw = raw
        self.buffer = b""
        self.blocked: list[bytes | memoryview] = []
        self.wake: trio.Event | None = None

    def write(self, data: bytes | memoryview) -> None:
        if not self.blocked:
            try:
                sent = self.raw.send(data)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
        self.blocked.append(data)
        if self.wake is not None:
            self.wake.set()

    async def drain(self) -> None:
        while True:
            self.wake = trio.Event()
            if not self.blocked:
                await self.wake.wait()
            while self.blocked:
                await trio.lowlevel.wait_writable(self.raw)
                waiting, self.blocked = self.blocked, []
                self.write(waiting[0] if len(waiting) == 1 else b"".join(waiting))


def frame(payload: bytes) -> bytes:
    """Return one unmasked binary frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x82, size)) + payload
    if size < 1 << 16:
        return bytes((0x82, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x82, 127)) + size.to_bytes(8, "big") + payload


def parse(data: bytes, out: list[bytes]) -> int:
    """Append the payload of every whole masked frame; return the number of bytes used."""
    offset, end = 0, len(data)
    while end - offset >= 6:
        size, head = data[offset + 1] & 127, offset + 2
        if size == 126:
            size, head = data[head] << 8 | data[head + 1], head + 2
        last = head + 4 + size
        if last > end:
            break
        mask = (data[head : head + 4] * ((size + 3) >> 2))[:size]
        payload = int.from_bytes(data[head + 4 : last], "little") ^ int.from_bytes(mask, "little")
        out.append(payload.to_bytes(size, "little"))
        offset = last
    return offset


async def _handshake(sock: trio.socket.SocketType) -> None:
    request = b""
    while b"\r\n\r\n" not in request:
        request += await sock.recv(4096)
    lines = request.split(b"\r\n")
    key = next(line.split(b":", 1)[1].strip() for line in lines if line.lower().startswith(b"sec-websocket-key"))
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    await sock.send(head + accept + b"\r\n\r\n" + FIRST_MESSAGE)


async def serve(
    handle: Callable[[Connection, list[bytes]], None],
    connected: Callable[[Connection], None] = lambda _connection: None,
    beside: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Serve for ever on a free port: all messages of one read go to `handle`."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listener.setblocking(False)
    print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
    poll = select.epoll()
    connections: dict[int, Connection] = {}
    gc.collect()
    gc.freeze()
    async with trio.open_nursery() as nursery:

        async def start(raw: socket.socket) -> None:
            await _handshake(trio.socket.from_stdlib_socket(raw))
            connection = Connection(raw)
            connections[raw.fileno()] = connection
            connected(connection)
            nursery.start_soon(connection.drain)
            poll.register(raw, select.EPOLLIN)

        nursery.start_soon(_pump, poll, connections, handle)
        if beside is not None:
            nursery.start_soon(beside)
        while True:
            await trio.lowlevel.wait_readable(listener)
            raw, _ = listener.accept()
            raw.setblocking(False)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            nursery.start_soon(start, raw)


async def _pump(
    poll: select.epoll, connections: dict[int, Connection], handle: Callable[[Connection, list[bytes]], None]
) -> None:
    while True:
        events = poll.poll(0, 256)
        if not events:
            await trio.lowlevel.wait_readable(poll.fileno())
            continue
        for descriptor, _ in events:
            connection = connections[descriptor]
            try:
                data = connection.raw.recv(1 << 18)
            except OSError:
                data = b""
            if not data:
                poll.unregister(descriptor)
                continue
            messages: list[bytes] = []
            data = connection.buffer + data
            connection.buffer = data[parse(data, messages) :]
            handle(connection, messages)
        await trio.lowlevel.checkpoint()
