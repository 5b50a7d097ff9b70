"""A raw load generator: plain sockets, prebuilt masked frames, v2.bsatn messages.

Responsible for: upgrading sockets, keeping a rolling window of calls in flight, counting and parsing what comes back.
Not responsible for: what the calls mean.
"""

import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence

U32 = struct.Struct("<I")
MASK = b"\x11\x22\x33\x44"
RECEIVE_BYTES = 1 << 20
REDUCER_RESULT = 6
OK = 0


def connect(
    port: int, database: str, query: str = "compression=None", protocol: str = "v2.bsatn.spacetimedb"
) -> socket.socket:
    """Return a socket upgraded to a WebSocket whose first message has been read."""
    return connect_at(port, f"/v1/database/{database}/subscribe?{query}", protocol)


def connect_at(port: int, path: str, protocol: str) -> socket.socket:
    """Return such a socket, by the path, for clients of any generation."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
    )
    sock.sendall(request.encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += _some(sock)
    assert head.startswith(b"HTTP/1.1 101"), head
    read_message(sock, head.partition(b"\r\n\r\n")[2])
    return sock


def _some(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    if not data:
        raise ConnectionError("the server closed the connection")
    return data


def read_message(sock: socket.socket, rest: bytes = b"") -> bytes:
    """Return the payload of the next data message of a blocking socket; nothing may follow it."""
    while True:
        for end, payload in frames(rest):
            assert end == len(rest), "more than one message came"
            return payload
        rest += _some(sock)


def client_frame(payload: bytes) -> bytes:
    """Return one masked binary frame."""
    size = len(payload)
    if size < 126:
        head = bytes((0x82, 0x80 | size))
    elif size < 65536:
        head = bytes((0x82, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x82, 0xFF)) + size.to_bytes(8, "big")
    mask = (MASK * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload, "little") ^ int.from_bytes(mask, "little")).to_bytes(size, "little")
    return head + MASK + masked


def frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (offset behind it, payload) of each whole data frame; pings and pongs are passed over."""
    offset, end = 0, len(data)
    while end - offset >= 2:
        size, start = data[offset + 1], offset + 2
        if size == 126:
            size, start = int.from_bytes(data[start : start + 2], "big"), start + 2
        elif size == 127:
            size, start = int.from_bytes(data[start : start + 8], "big"), start + 8
        if start + size > end:
            return
        opcode = data[offset] & 15
        offset = start + size
        if opcode == 8:
            raise ConnectionError(f"the server closed: {data[start:offset]!r}")
        if opcode < 3:
            yield offset, data[start:offset]


def text(value: str) -> bytes:
    """Return a BSATN string."""
    raw = value.encode()
    return U32.pack(len(raw)) + raw


def call(request_id: int, reducer: str, arguments: bytes) -> bytes:
    """Return a framed CallReducer."""
    head = b"\3" + U32.pack(request_id) + b"\0"
    return client_frame(head + text(reducer) + U32.pack(len(arguments)) + arguments)


def call_procedure(request_id: int, procedure: str, arguments: bytes) -> bytes:
    """Return a framed CallProcedure."""
    head = b"\4" + U32.pack(request_id) + b"\0"
    return client_frame(head + text(procedure) + U32.pack(len(arguments)) + arguments)


def subscribe(request_id: int, query_set_id: int, *queries: str) -> bytes:
    """Return a framed Subscribe."""
    head = b"\0" + U32.pack(request_id) + U32.pack(query_set_id) + U32.pack(len(queries))
    return client_frame(head + b"".join(map(text, queries)))


def unsubscribe(request_id: int, query_set_id: int) -> bytes:
    """Return a framed Unsubscribe."""
    return client_frame(b"\1" + U32.pack(request_id) + U32.pack(query_set_id) + b"\0")


def one_off(request_id: int, query: str) -> bytes:
    """Return a framed OneOffQuery."""
    return client_frame(b"\2" + U32.pack(request_id) + text(query))


UPDATES_AT = {4: 2, REDUCER_RESULT: 19}
"""Where the query sets begin in a TransactionUpdate and in a ReducerResult that is Ok, compression tag included."""


def inserted_rows(payload: bytes) -> Iterator[bytes]:
    """Yield the rows that a TransactionUpdate or a ReducerResult inserts, each list of rows as one run of bytes."""
    offset = UPDATES_AT.get(payload[1])
    if offset is None or (payload[1] == REDUCER_RESULT and payload[14] != OK):
        return
    sets, offset = _u32(payload, offset)
    for _ in range(sets):
        tables, offset = _u32(payload, offset + 4)
        for _ in range(tables):
            size, offset = _u32(payload, offset)
            parts, offset = _u32(payload, offset + size)
            for _ in range(parts):
                inserts, offset = _row_list(payload, offset + 1)
                _, offset = _row_list(payload, offset)
                if inserts:
                    yield inserts


def _u32(payload: bytes, offset: int) -> tuple[int, int]:
    return U32.unpack_from(payload, offset)[0], offset + 4


def _row_list(payload: bytes, offset: int) -> tuple[bytes, int]:
    """Return the rows of a BsatnRowList and the offset after it."""
    if payload[offset]:
        count, offset = _u32(payload, offset + 1)
        offset += 8 * count
    else:
        offset += 3
    size, offset = _u32(payload, offset)
    return payload[offset : offset + size], offset + size


class Window:
    """Connections with a rolling window of calls in flight each; every reply lets the next call go."""

    def __init__(self, sockets: Sequence[socket.socket], calls: Sequence[Sequence[bytes]], in_flight: int) -> None:
        self._calls = calls
        self._next = [0] * len(sockets)
        self._sockets = list(sockets)
        self._in_flight = in_flight
        self._rests = [b""] * len(sockets)
        self.failures = 0

    def run(self, seconds: float) -> tuple[int, float]:
        """Keep calling for `seconds`, then wait for what is in flight; return (replies, seconds it took)."""
        poll = select.epoll()
        places = {sock.fileno(): i for i, sock in enumerate(self._sockets)}
        for sock in self._sockets:
            sock.setblocking(False)
            poll.register(sock, select.EPOLLIN)
        start = time.perf_counter()
        end = start + seconds
        done = 0
        flying = [self._in_flight] * len(self._sockets)
        for i in range(len(self._sockets)):
            self._send(i, self._in_flight)
        open_ = sum(flying)
        while open_:
            for descriptor, _ in poll.poll(1.0):
                i = places[descriptor]
                count = self._receive(i)
                done += count
                open_ -= count
                if count and time.perf_counter() < end:
                    self._send(i, count)
                    open_ += count
        poll.close()
        for sock in self._sockets:
            sock.setblocking(True)
        return done, time.perf_counter() - start

    def _send(self, i: int, count: int) -> None:
        calls, first = self._calls[i], self._next[i]
        batch = [calls[(first + k) % len(calls)] for k in range(count)]
        self._next[i] = first + count
        data = memoryview(b"".join(batch))
        while data:
            try:
                data = data[self._sockets[i].send(data) :]
            except BlockingIOError:
                select.select([], [self._sockets[i]], [], 1.0)

    def _receive(self, i: int) -> int:
        """Count the replies that came; remember failures (a result that is not Ok)."""
        try:
            data = self._sockets[i].recv(RECEIVE_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            raise ConnectionError("the server closed a connection")
        data = self._rests[i] + data
        count = used = 0
        for used, payload in frames(data):  # noqa: B007 - the last offset is what is used
            if payload[1] == REDUCER_RESULT:
                count += 1
                if payload[14] != OK:
                    self.failures += 1
        self._rests[i] = data[used:]
        return count
