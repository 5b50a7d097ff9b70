"""Independent clients against our frames over TCP: trio-websocket and wsproto keep us honest."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing
import trio_websocket
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong

from stdb.actors.requests import Subscribe, SubscriptionKind
from stdb.actors.sink import Client
from stdb.net.connection import serve_client
from stdb.net.frames import MESSAGE_BYTES_MAX
from stdb.net.handshake import ConnectionOptions, Handshake, accept_key, choose_subprotocol
from stdb.net.protocols.wire import Compression
from stdb.net.stream import SocketStream
from stdb.subscriptions.fragment import ClientUpdate, Fragment, SetUpdate
from tests.websocket_messages import event
from tests.websocket_server import CONNECTION_ID, IDENTITY, FakeDatabase, call_noop, result_of

PROTOCOL = "v2.bsatn.spacetimedb"
FIRST = b"\0\0" + IDENTITY + CONNECTION_ID + b"\5\0\0\0token"


async def serve_upgrade(stream: trio.SocketStream, database: FakeDatabase) -> None:
    """Answer one upgrade as plainly as can be and serve the client."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive_some(4096)
    headers = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:-2])
    key = head[head.lower().index(b"sec-websocket-key: ") + 19 :].split(b"\r\n")[0]
    chosen = choose_subprotocol([headers[b"sec-websocket-protocol"].decode()])
    assert chosen == PROTOCOL
    await stream.send_all(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_key(key) + b"\r\nSec-WebSocket-Protocol: " + chosen.encode() + b"\r\n\r\n"
    )
    handshake = Handshake(
        chosen, Client(IDENTITY, CONNECTION_ID, "{}"), "token", ConnectionOptions(compression=Compression.NONE)
    )
    await serve_client(SocketStream.take(stream.socket), handshake, database)


@asynccontextmanager
async def server() -> AsyncIterator[tuple[int, FakeDatabase]]:
    """Listen on a free port; yield it and the database behind."""
    database = FakeDatabase()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, lambda stream: serve_upgrade(stream, database), listeners)
        yield listeners[0].socket.getsockname()[1], database
        nursery.cancel_scope.cancel()


async def upgraded(port: int) -> trio.SocketStream:
    """Connect and upgrade by hand; return the stream behind the 101."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(
        b"GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: abc\r\nSec-WebSocket-Protocol: "
        + PROTOCOL.encode()
        + b"\r\n\r\n"
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await stream.receive_some(1)
    return stream


@asynccontextmanager
async def trio_client(port: int) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    """Connect with trio-websocket; it leaves its socket open when the server closes, so that is done here."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream, trio.open_nursery() as nursery:
        client = await trio_websocket.wrap_client_stream(
            nursery, stream, "x", "/", subprotocols=[PROTOCOL], max_message_size=1 << 26, message_queue_size=1000
        )
        yield client
        await client.aclose()
        nursery.cancel_scope.cancel()


def run(script: Callable[[int, FakeDatabase], Awaitable[None]]) -> None:
    """Run an async script against a server."""

    async def main() -> None:
        with trio.fail_after(30):
            async with server() as (port, database):
                await script(port, database)

    trio.run(main)


def test_trio_websocket_connects_calls_and_pings() -> None:
    async def script(port: int, database: FakeDatabase) -> None:
        async with trio_client(port) as client:
            assert client.subprotocol == PROTOCOL
            assert await client.get_message() == FIRST
            for number in range(200):
                await client.send_message(call_noop(number))
            await client.ping(b"are you there")
            for number in range(200):
                assert await client.get_message() == result_of(number)[1]
        assert database.is_detached

    run(script)


@pytest.mark.parametrize(("code", "reason"), [(1000, "bye"), (4000, "app"), (3000, "")])
def test_a_close_of_trio_websocket_is_echoed(code: int, reason: str) -> None:
    async def script(port: int, database: FakeDatabase) -> None:
        async with trio_client(port) as client:
            await client.get_message()
            await client.aclose(code, reason)
            assert client.closed is not None
            assert (client.closed.code, client.closed.reason) == (code, reason or None)

    run(script)


def test_our_close_reaches_trio_websocket_with_code_and_reason() -> None:
    async def script(port: int, database: FakeDatabase) -> None:
        async with trio_client(port) as client:
            await client.get_message()
            database.sink.close(1001, "module exited")
            with pytest.raises(trio_websocket.ConnectionClosed) as caught:
                await client.get_message()
            assert (caught.value.reason.code, caught.value.reason.reason) == (1001, "module exited")

    run(script)


def test_a_reason_that_is_too_long_is_cut_and_conforms() -> None:
    async def script(port: int, database: FakeDatabase) -> None:
        async with trio_client(port) as client:
            await client.get_message()
            database.sink.close(1011, "é" * 500)
            with pytest.raises(trio_websocket.ConnectionClosed) as caught:
                await client.get_message()
            assert (caught.value.reason.code, caught.value.reason.reason) == (1011, "é" * 61)

    run(script)


def test_text_for_v2_is_refused_with_1011() -> None:
    async def script(port: int, database: FakeDatabase) -> None:
        async with trio_client(port) as client:
            await client.get_message()
            await client.send_message("text ☃")
            with pytest.raises(trio_websocket.ConnectionClosed) as caught:
                await client.get_message()
            assert caught.value.reason.code == 1011

    run(script)


@pytest.mark.parametrize("too_much", [0, 1])
def test_a_message_of_exactly_32_mib_passes_and_one_byte_more_is_1009(too_much: int) -> None:
    message = call_noop(1)[:-4]
    args_bytes = MESSAGE_BYTES_MAX - len(message) - 4 + too_much
    message += args_bytes.to_bytes(4, "little") + bytes(args_bytes)

    async def script(port: int, database: FakeDatabase) -> None:
        async with trio_client(port) as client:
            await client.get_message()
            with suppress(trio_websocket.ConnectionClosed):
                await client.send_message(message)
            if too_much:
                with pytest.raises(trio_websocket.ConnectionClosed) as caught:
                    await client.get_message()
                assert caught.value.reason.code in (1006, 1009)  # 1006: our Close met its bytes on the way
                assert database.committed == 0
            else:
                assert await client.get_message() == result_of(1)[1]
                assert len(database.batches[0][0].args) == args_bytes  # type: ignore[union-attr]  # a CallReducer

    run(script)


def test_large_answers_arrive_whole() -> None:
    async def script(port: int, database: FakeDatabase) -> None:
        rows = [b"%07d" % number for number in range(400_000)]
        async with trio_client(port) as client:
            await client.get_message()
            database.sink.subscribe_applied(
                Subscribe(SubscriptionKind.SET, 1, 2, ()), [Fragment(1, "t", None, rows, [])], 0, 0
            )
            database.sink.flush(0)
            message = await client.get_message()
            assert message.endswith(b"".join(rows))
            await client.send_message(call_noop(3))
            assert await client.get_message() == result_of(3)[1]

    run(script)


def test_fragments_with_control_frames_between_as_wsproto_writes_them() -> None:
    async def script(port: int, database: FakeDatabase) -> None:
        stream = await upgraded(port)
        client = Connection(ConnectionType.CLIENT)
        message = call_noop(5)
        data = b""
        for place in range(len(message)):
            last = place == len(message) - 1
            data += client.send(BytesMessage(data=message[place : place + 1], message_finished=last))
            data += client.send(Ping(payload=b"%d" % place)) if not last else b""
        for start in range(0, len(data), 3):
            await stream.send_all(data[start : start + 3])
        events: list[Event] = []
        while sum(type(event) is Pong for event in events) < len(message) - 1 or len(messages(events)) < 2:
            client.receive_data(await stream.receive_some())
            events += client.events()
        assert [event.payload for event in events if isinstance(event, Pong)] == [
            b"%d" % place for place in range(len(message) - 1)
        ]
        assert messages(events) == [FIRST, result_of(5)[1]]
        await stream.send_all(client.send(CloseConnection(code=1000, reason="done")))
        while rest := await stream.receive_some():
            client.receive_data(rest)
            events += client.events()
        closes = [event for event in events if isinstance(event, CloseConnection)]
        assert [(one.code, one.reason) for one in closes] == [(1000, "done")]
        await stream.aclose()

    run(script)


def messages(events: list[Event]) -> list[bytes]:
    return [bytes(event.data) for event in events if isinstance(event, BytesMessage)]


def test_a_client_that_stops_reading_is_cut_and_the_next_one_is_served() -> None:
    async def script(port: int, database: FakeDatabase) -> None:
        slow = await upgraded(port)
        while not hasattr(database, "sink"):
            await trio.lowlevel.checkpoint()
        stuck = database.sink
        rows = [bytes(1000) for _ in range(1000)]
        update = ClientUpdate((SetUpdate(1, (Fragment(1, "t", None, rows, []),)),))
        for _ in range(200):
            if database.is_detached:
                break
            stuck.update(event(), update)
            stuck.flush(1)
            await trio.lowlevel.checkpoint()
        with trio.fail_after(5):
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert database.is_detached
        async with trio_client(port) as client:
            assert await client.get_message() == FIRST
        await slow.aclose()

    run(script)
