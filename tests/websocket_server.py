"""One WebSocket connection against a small database that answers, for the tests of connections."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from stdb.actors.requests import CallReducer, Request
from stdb.actors.sink import Client, ClientSink, OutcomeKind, ReducerOutcome
from stdb.net.connection import serve_client
from stdb.net.handshake import ConnectionOptions, Handshake
from stdb.net.protocols.wire import Compression
from stdb.net.stream import FrameStream, MemoryStream, memory_stream_pair
from stdb.schema.model import ModuleDef
from stdb.storage.settings import Websocket
from tests.websocket_bytes import client_frame, server_frames
from tests.websocket_messages import V10, event

IDENTITY = bytes(31) + b"\xc2"
CONNECTION_ID = bytes(15) + b"\1"


class FakeDatabase:
    """Commits every call of a reducer at once and answers it; `durable` says how many commits are on disk."""

    def __init__(self) -> None:
        self.definition: ModuleDef = V10
        self.sink: ClientSink
        self.batches: list[Sequence[Request]] = []
        self.durable = 1 << 60
        self.committed = 0
        self.is_attached = False
        self.is_detached = False
        self.refusal: tuple[int | None, str] | None = None
        self.crowded: trio.Event | None = None
        self.session_id: bytes | None = None

    def attach(self, client: Client, sink: ClientSink, token: str, session_id: bytes | None = None) -> "FakeDatabase":
        self.sink = sink
        self.session_id = session_id
        self.is_attached = True
        if self.refusal is not None:
            sink.close(*self.refusal)
        else:
            sink.initial_connection(client.identity, client.connection_id, token)
            sink.flush(self.durable)
        return self

    def submit_nowait(self, requests: Sequence[Request]) -> None:
        self.batches.append(requests)
        for request in requests:
            assert isinstance(request, CallReducer)
            self.committed += 1
            told = event(timestamp_us=5, reducer_name=request.reducer, needs=self.committed)
            self.sink.reducer_result(request, ReducerOutcome(OutcomeKind.COMMITTED), told, None)
        self.sink.flush(self.durable)

    def make_durable(self) -> None:
        self.durable = self.committed
        self.sink.flush(self.durable)

    def close_nowait(self, code: int | None, reason: str) -> None:
        self.sink.close(code, reason)

    def detach_nowait(self) -> None:
        self.is_detached = True

    async def wait_detached(self) -> None:
        assert self.is_detached
        await trio.lowlevel.checkpoint()

    async def wait_not_crowded(self) -> None:
        if self.crowded is not None:
            await self.crowded.wait()


class RawClient:
    """A client that speaks in frames, so that it can be as wrong as it likes."""

    def __init__(self, stream: FrameStream, database: FakeDatabase) -> None:
        self.stream = stream
        self.database = database
        self._received = b""
        self._ended = False

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            assert self.stream.send_nowait(frame) == len(frame)

    def call(self, *request_ids: int) -> None:
        """Call the reducer `noop` on v2, all calls in one write."""
        self.send(b"".join(client_frame(0x82, call_noop(request_id)) for request_id in request_ids))

    async def receive(self) -> None:
        """Read once."""
        chunk = await self.stream.receive_some()
        self._received += chunk
        self._ended = not chunk

    async def frames(self, count: int) -> list[tuple[int, bytes]]:
        """Read until `count` frames are there and return them; pings are answered, not counted."""
        while len(frames := self._data_frames()) < count:
            assert not self._ended, f"the server ended after {frames}"
            await self.receive()
        return frames

    async def rest(self) -> list[tuple[int, bytes]]:
        """Read to the end of the stream and return all frames but pings."""
        while not self._ended:
            await self.receive()
        return self._data_frames()

    def _data_frames(self) -> list[tuple[int, bytes]]:
        return [frame for frame in server_frames(whole(self._received)) if frame[0] != 0x89]


def whole(data: bytes) -> bytes:
    """Cut a frame that has not come whole off the end."""
    for end in range(len(data), -1, -1):
        try:
            server_frames(data[:end])
        except (AssertionError, IndexError):
            continue
        return data[:end]
    raise AssertionError


def call_noop(request_id: int) -> bytes:
    """Return v2's CallReducer of `noop`."""
    return b"\3" + request_id.to_bytes(4, "little") + b"\0\4\0\0\0noop\0\0\0\0"


def result_of(request_id: int) -> tuple[int, bytes]:
    """Return the frame that answers `call_noop`."""
    return 0x82, b"\0\6" + request_id.to_bytes(4, "little") + (5).to_bytes(8, "little") + bytes(9)


@asynccontextmanager
async def served(
    protocol: str = "v2.bsatn",
    *,
    database: FakeDatabase | None = None,
    capacity_bytes: int = 1 << 20,
    settings: Websocket | None = None,
    **options: Any,
) -> AsyncIterator[RawClient]:
    """Serve one client in memory; at the end the server must have ended by itself or is cut by the client."""
    database = database or FakeDatabase()
    near, far = memory_stream_pair(capacity_bytes)
    chosen = ConnectionOptions(compression=Compression.NONE, **options)
    client = Client(IDENTITY, CONNECTION_ID, "{}")
    handshake = Handshake(f"{protocol}.spacetimedb", client, "token", chosen)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_client, near, handshake, database, settings or Websocket())
        yield RawClient(far, database)
        far.close_nowait()
    assert database.is_detached or not database.is_attached
    assert isinstance(near, MemoryStream)
    assert near._is_over
