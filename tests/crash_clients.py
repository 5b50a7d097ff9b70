"""Clients of a server that will be killed: raw frames of v2 and v3, appends in flight, and what was told when.

A `Session` is one connection and what it knows: every append it sent, at what time, and the time of its answer; every
list it read. Times are of one clock for all sessions of one life. What it knows is judged by `crash_history`.
"""

import base64
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from struct import Struct
from time import perf_counter

import trio

from stdb.net.protocols import messages_v2
from stdb.sats import bsatn
from tests.crash_history import Append, Read
from tests.websocket_bytes import client_frame
from tests.websocket_messages import rows_of

__all__ = ["LISTS_A_LIFE", "GoneError", "Session", "connection_number", "lists_of", "play", "read_rows"]

LISTS_A_LIFE = 8
BINARY, PING, CLOSE = 0x82, 0x89, 0x88
CONNECTED, APPLIED, ONE_OFF, RESULT = 0, 1, 5, 6
CLIENT = bsatn.codec(messages_v2.CLIENT_MESSAGE)
SERVER = bsatn.codec(messages_v2.SERVER_MESSAGE)


class GoneError(Exception):
    """The server closed the connection."""


def connection_number(life: int, who: int) -> int:
    """Return the connection id of a client: which life it was of can be read from it."""
    return 1 << 100 | life << 32 | who


def lists_of(life: int) -> range:
    """Return the names of the lists that are appended to in one life of the server."""
    return range(life * LISTS_A_LIFE, (life + 1) * LISTS_A_LIFE)


class Wire:
    """One WebSocket connection as bytes."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._data = bytearray()

    async def upgrade(self, host: str, path: str, protocol: str) -> None:
        """Ask for the WebSocket. Raises GoneError when it is refused or nobody answers."""
        key = base64.b64encode(os.urandom(16)).decode()
        head = (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
        )
        await self._stream.send_all(head.encode())
        while (end := self._data.find(b"\r\n\r\n")) < 0:
            await self._read()
        if not self._data.startswith(b"HTTP/1.1 101"):
            raise GoneError(self._data[:end].decode())
        del self._data[: end + 4]

    async def send(self, payload: bytes) -> None:
        """Send one message."""
        await self._stream.send_all(client_frame(BINARY, payload, bytes(4)))

    async def receive(self) -> list[bytes]:
        """Return the payloads of all messages that came, at least one."""
        while True:
            frames = list(self._frames())
            if any(first == CLOSE for first, _ in frames):
                raise GoneError("closed")
            payloads = [payload for first, payload in frames if first == BINARY]
            if payloads:
                return payloads
            await self._read()

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        data, offset = self._data, 0
        while len(data) - offset >= 2:
            size, start = data[offset + 1], offset + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                size, start = int.from_bytes(data[start : start + width], "big"), start + width
            if len(data) < start + size:
                break
            yield data[offset], bytes(data[start : start + size])
            offset = start + size
        del data[:offset]

    async def _read(self) -> None:
        chunk = await self._stream.receive_some(65536)
        if not chunk:
            raise GoneError("cut")
        self._data += chunk


@dataclass
class Session:
    """One connection of one life and what it knows."""

    life: int
    who: int
    confirmed: bool
    connected: trio.Event = field(default_factory=trio.Event)
    """Set once it was told so."""
    appends: list[Append] = field(default_factory=list)
    """In the order in which they were sent."""
    reads: list[Read] = field(default_factory=list)
    sent: "list[Append | Read]" = field(default_factory=list)
    """Both, in the order in which they were sent."""

    @property
    def number(self) -> int:
        """Return the connection id."""
        return connection_number(self.life, self.who)

    def next_append(self, chosen: random.Random) -> Append:
        """Note an append that is about to be sent."""
        first, second = chosen.sample(range(LISTS_A_LIFE), 2)
        value = self.life << 40 | self.who << 24 | len(self.appends)
        lists = lists_of(self.life)
        append = Append(value, (lists[first], lists[second]), perf_counter())
        self.appends.append(append)
        self.sent.append(append)
        return append

    def next_read(self, chosen: random.Random) -> Read:
        """Note a read that is about to be sent."""
        read = Read(chosen.choice(lists_of(self.life)), perf_counter())
        self.reads.append(read)
        self.sent.append(read)
        return read


async def play(address: str, database: str, session: Session, chosen: random.Random, in_flight: int) -> None:
    """Append and read until the server is gone."""
    with suppress(OSError, GoneError, trio.BrokenResourceError):
        await _play(address, database, session, chosen, in_flight)


async def _play(address: str, database: str, session: Session, chosen: random.Random, in_flight: int) -> None:
    host, _, port = address.rpartition(":")
    is_v3 = session.who % 2 == 1
    confirmed = "true" if session.confirmed else "false"
    path = (
        f"/v1/database/{database}/subscribe?compression=None&confirmed={confirmed}&connection_id={session.number:032x}"
    )
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        wire = Wire(stream)
        await wire.upgrade(address, path, "v3.bsatn.spacetimedb" if is_v3 else "v2.bsatn.spacetimedb")
        waiting: dict[int, Append | Read] = {}
        numbers = count(1)
        while True:
            messages = []
            while session.connected.is_set() and len(waiting) < in_flight:
                number = next(numbers)
                reads = chosen.random() < 0.05
                waiting[number] = what = session.next_read(chosen) if reads else session.next_append(chosen)
                messages.append(_request(number, what, session.life))
            if is_v3 and messages:
                messages = [b"".join(messages)]
            for message in messages:
                await wire.send(message)
            for payload in await wire.receive():
                _take(payload, session, waiting)


def _request(number: int, what: Append | Read, life: int) -> bytes:
    if isinstance(what, Read):
        return CLIENT.encode((2, (number, f"SELECT * FROM element WHERE list = {what.list}")))
    args = b"".join((what.value.to_bytes(8, "little"), *(n.to_bytes(4, "little") for n in (life, *what.lists))))
    return CLIENT.encode((3, (number, 0, "append", args)))


def _take(payload: bytes, session: Session, waiting: dict[int, Append | Read]) -> None:
    tag, fields = SERVER.decode_exact(payload[1:])
    if tag == CONNECTED:
        session.connected.set()
    elif tag == RESULT:
        assert fields[2][0] in (0, 1), fields
        append = waiting.pop(fields[0])
        append.answered = perf_counter()
    else:
        assert tag == ONE_OFF, fields
        read = waiting.pop(fields[0])
        assert isinstance(read, Read)
        failed, answer = fields[1]
        assert not failed, answer
        (((_, rows),),) = answer
        read.seen = tuple(value for _, _, value in sorted(map(_ELEMENT.unpack, rows_of(rows))))
        read.answered = perf_counter()


_ELEMENT = Struct("<8xIIQ")
"""A row of `element` without its id: list, position, value."""


async def read_rows(address: str, database: str, query: str, number: int) -> list[bytes]:
    """Return the rows of a query, asked over a connection with this id."""
    host, _, port = address.rpartition(":")
    path = f"/v1/database/{database}/subscribe?compression=None&connection_id={number:032x}"
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        wire = Wire(stream)
        await wire.upgrade(address, path, "v2.bsatn.spacetimedb")
        await wire.send(CLIENT.encode((2, (1, query))))
        while True:
            for payload in await wire.receive():
                tag, fields = SERVER.decode_exact(payload[1:])
                if tag == ONE_OFF:
                    failed, answer = fields[1]
                    assert not failed, answer
                    return [row for _, rows in answer[0] for row in rows_of(rows)]
