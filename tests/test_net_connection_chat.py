"""Every dialect from the first message to the disconnect, in frames, against a real database."""

import json as standard_json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from stdb.actors.handle import DatabaseHandle
from stdb.actors.sink import Client
from stdb.net.connection import serve_client
from stdb.net.handshake import ConnectionOptions, Handshake
from stdb.net.protocols import messages_v1, messages_v2
from stdb.net.protocols.wire import Compression
from stdb.net.stream import memory_stream_pair
from stdb.sats import bsatn, json
from stdb.testing.hosts import identity, open_host
from tests.actors_chat import chat
from tests.websocket_bytes import client_frame, server_frames
from tests.websocket_messages import rows_of
from tests.websocket_server import whole

ALL = pytest.mark.parametrize("protocol", ["v1.json", "v1.bsatn", "v2.bsatn", "v3.bsatn"])
V2 = pytest.mark.parametrize("protocol", ["v2.bsatn", "v3.bsatn"])
V1 = pytest.mark.parametrize("protocol", ["v1.json", "v1.bsatn"])


class ChatClient:
    """Sends messages as values of their declared types, in frames; receives the same."""

    def __init__(self, nursery: trio.Nursery, handle: DatabaseHandle, protocol: str, who: int, **options: Any) -> None:
        near, self._stream = memory_stream_pair(1 << 22)
        chosen = ConnectionOptions(compression=Compression.NONE, **options)
        client = Client(identity(who), chosen.connection_id or (1000 + who).to_bytes(16, "little"), '{"sub":"test"}')
        nursery.start_soon(serve_client, near, Handshake(f"{protocol}.spacetimedb", client, "token", chosen), handle)
        self.is_json = protocol == "v1.json"
        self.is_v1 = protocol.startswith("v1")
        messages = messages_v1 if self.is_v1 else messages_v2
        self._client_type = messages_v1.JSON_CLIENT_MESSAGE if self.is_json else messages.CLIENT_MESSAGE
        self._server_type = messages_v1.JSON_SERVER_MESSAGE if self.is_json else messages.SERVER_MESSAGE
        self._received = b""
        self.is_over = False

    def send(self, *messages: Any) -> None:
        for message in messages:
            if self.is_json:
                data = client_frame(0x81, json.encode(self._client_type, message, "compiled").encode())
            else:
                data = client_frame(0x82, bsatn.codec(self._client_type).encode(message))
            self.send_bytes(data)

    def send_bytes(self, data: bytes) -> None:
        assert self._stream.send_nowait(data) == len(data)

    def call(self, request_id: int, reducer: str, *args: str) -> None:
        """Call a reducer whose parameters are all strings."""
        if self.is_json:
            self.send((0, (reducer, standard_json.dumps(args), request_id, 0)))
            return
        encoded = b"".join(len(arg).to_bytes(4, "little") + arg.encode() for arg in args)
        self.send((0, (reducer, encoded, request_id, 0)) if self.is_v1 else (3, (request_id, 0, reducer, encoded)))

    def subscribe(self, request_id: int, set_id: int, *queries: str) -> None:
        if self.is_v1:
            self.send((4, (list(queries), request_id, (set_id,))))
        else:
            self.send((0, (request_id, (set_id,), list(queries))))

    def unsubscribe(self, request_id: int, set_id: int) -> None:
        self.send((6, (request_id, (set_id,))) if self.is_v1 else (1, (request_id, (set_id,), (1, ()))))

    async def frame(self) -> tuple[int, bytes] | None:
        """Return the next frame that is no ping; None at the end of the stream."""
        while True:
            complete = whole(self._received)
            for first, payload in server_frames(complete)[:1]:
                size = len(payload)
                self._received = self._received[size + (2 if size < 126 else 4 if size < 65536 else 10) :]
                if first != 0x89:
                    return first, payload
            if not complete:
                chunk = await self._stream.receive_some()
                if not chunk:
                    return None
                self._received += chunk

    async def next(self) -> Any:
        """Return the next message."""
        frame = await self.frame()
        assert frame is not None, "the server ended"
        first, payload = frame
        assert first == (0x81 if self.is_json else 0x82), frame
        if self.is_json:
            return json.decode(self._server_type, json.parse(payload.decode()))
        return bsatn.codec(self._server_type).decode_exact(payload[1:])

    def close(self) -> None:
        self._stream.close_nowait()


def rows_in(value: Any) -> int:
    """Count the rows in a message, wherever they are."""
    match value:
        case (((0 | 1), _), bytes()):
            return len(rows_of(value))
        case tuple() | list():
            return sum(map(rows_in, value))
        case str():
            return int(value.startswith("{"))  # a row of v1.json; arguments are arrays
    return 0


Script = Callable[[trio.Nursery, DatabaseHandle], Awaitable[None]]


@asynccontextmanager
async def database() -> AsyncIterator[tuple[trio.Nursery, DatabaseHandle]]:
    async with open_host({b"chat": chat}) as host:
        published = await host.publish(identity(99), b"chat", name="chat")
        async with trio.open_nursery() as nursery:
            yield nursery, host.database(published.identity)
            nursery.cancel_scope.cancel()


def run(script: Script) -> None:
    """Run a script against a chat in virtual time; a hang is a failure."""

    async def main() -> None:
        with trio.fail_after(3600):
            async with database() as (nursery, handle):
                await script(nursery, handle)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@ALL
def test_a_session_from_the_first_message_to_the_disconnect(protocol: str) -> None:
    async def script(nursery: trio.Nursery, handle: DatabaseHandle) -> None:
        ann = ChatClient(nursery, handle, protocol, 1)
        tag, fields = await ann.next()
        assert tag == (3 if ann.is_v1 else 0)
        assert fields[0] == identity(1)
        assert "token" in fields

        bob = ChatClient(nursery, handle, protocol, 2)
        await bob.next()
        bob.subscribe(1, 7, "SELECT * FROM message")
        applied, _ = await bob.next()
        assert applied == (8 if bob.is_v1 else 1)

        ann.call(5, "say", "a text")
        answer = await ann.next()
        if ann.is_v1:
            assert (answer[0], answer[1][0]) == (1, (0, ([],)))
            assert answer[1][4][0] == "say"
            assert answer[1][4][3] == 5
        else:
            assert (answer[0], answer[1][0], answer[1][2]) == (6, 5, (0, (b"", ([],))))

        update = await bob.next()
        assert update[0] == (2 if bob.is_v1 else 4)  # light: the module is V10
        assert rows_in(update) == 1

        bob.call(6, "say", "text of bob")
        own = await bob.next()
        assert own[0] == (1 if bob.is_v1 else 6)
        assert rows_in(own) == 1

        ann.subscribe(7, 3, "SELECT * FROM message")
        assert rows_in(await ann.next()) == 2
        ann.subscribe(8, 4, "SELECT * FROM online")
        await ann.next()
        bob.close()
        gone = await ann.next()
        assert gone[0] == (2 if ann.is_v1 else 4)
        ann.unsubscribe(9, 3)
        assert rows_in(await ann.next()) == 2

    run(script)


@ALL
def test_failures_are_told_in_the_words_of_the_dialect(protocol: str) -> None:
    async def script(nursery: trio.Nursery, handle: DatabaseHandle) -> None:
        ann = ChatClient(nursery, handle, protocol, 1)
        await ann.next()
        ann.call(1, "say", "")
        ann.call(2, "write_and_fail", "x")
        ann.call(3, "nope")
        refused, broken, unknown = [await ann.next() for _ in range(3)]
        if ann.is_v1:
            assert refused[1][0] == (1, "say something")
            assert broken[1][0] == (1, "The instance encountered a fatal error.")
            assert unknown[1][0] == (1, "no such reducer")
            assert unknown[1][4][3] == 0
        else:
            assert refused[1][2] == (2, b"\x0d\0\0\0say something")
            assert broken[1][2] == (3, "The instance encountered a fatal error.")
            assert unknown[1][0] == 3
            assert unknown[1][2] == (3, "no such reducer")

    run(script)


@ALL
def test_wrong_queries_and_ids_are_subscription_errors_and_the_connection_lives(protocol: str) -> None:
    async def script(nursery: trio.Nursery, handle: DatabaseHandle) -> None:
        ann = ChatClient(nursery, handle, protocol, 1)
        await ann.next()
        ann.subscribe(1, 1, "SELECT * FROM nope")
        ann.subscribe(2, 2, "SELECT * FROM message")
        ann.subscribe(3, 2, "SELECT * FROM message")
        ann.unsubscribe(4, 77)
        tags = [(await ann.next())[0] for _ in range(4)]
        assert tags == ([7, 8, 7, 7] if ann.is_v1 else [3, 1, 3, 3])
        ann.call(5, "nothing")
        assert (await ann.next())[0] == (1 if ann.is_v1 else 6)

    run(script)


@V2
def test_a_batch_of_sets_is_answered_at_once(protocol: str) -> None:
    async def script(nursery: trio.Nursery, handle: DatabaseHandle) -> None:
        ann = ChatClient(nursery, handle, protocol, 1)
        await ann.next()
        ann.send((5, (6, [((1,), ["SELECT * FROM message"]), ((2,), ["SELECT * FROM nope"]), ((3,), [])])))
        tag, (request_id, results) = await ann.next()
        assert (tag, request_id) == (8, 6)
        assert [(set_id, outcome[0]) for (set_id,), outcome in results] == [(1, 0), (2, 1), (3, 0)]

    run(script)


@V1
def test_the_legacy_set_and_single_queries_of_v1(protocol: str) -> None:
    async def script(nursery: trio.Nursery, handle: DatabaseHandle) -> None:
        ann = ChatClient(nursery, handle, protocol, 1)
        await ann.next()
        ann.call(1, "say", "a text")
        await ann.next()
        ann.send((1, (["SELECT * FROM message"], 2)))
        initial = await ann.next()
        assert (initial[0], initial[1][1], rows_in(initial)) == (0, 2, 1)
        ann.send((3, ("SELECT * FROM message", 3, (9,))))
        single = await ann.next()
        assert (single[0], rows_in(single)) == (5, 1)
        ann.send((5, (4, (9,))))
        ended = await ann.next()
        assert (ended[0], rows_in(ended)) == (6, 1)

    run(script)


@ALL
def test_a_one_off_query_is_answered_with_its_rows_or_its_error(protocol: str) -> None:
    async def script(nursery: trio.Nursery, handle: DatabaseHandle) -> None:
        ann = ChatClient(nursery, handle, protocol, 1)
        await ann.next()
        ann.call(1, "say", "a text")
        await ann.next()
        key: Any = b"\1\2" if ann.is_v1 else 4
        ann.send((2, (key, "SELECT * FROM message")), (2, (key, "SELECT nonsense")))
        good, bad = await ann.next(), await ann.next()
        assert (good[0], good[1][0], rows_in(good)) == (4 if ann.is_v1 else 5, key, 1)
        assert (bad[0], bad[1][0], rows_in(bad)) == (4 if ann.is_v1 else 5, key, 0)

    run(script)


@ALL
def test_a_call_of_a_procedure_is_answered(protocol: str) -> None:
    async def script(nursery: trio.Nursery, handle: DatabaseHandle) -> None:
        ann = ChatClient(nursery, handle, protocol, 1)
        await ann.next()
        args: Any = "[]" if ann.is_json else b""
        ann.send((7, ("fetch", args, 9, 0)) if ann.is_v1 else (4, (9, 0, "fetch", args)))
        tag, fields = await ann.next()
        assert tag == (10 if ann.is_v1 else 7)
        assert fields == ((2 if ann.is_v1 else 1, "No such procedure"), 0, 0, 9)

    run(script)


@ALL
def test_valid_messages_before_a_malformed_one_are_executed_and_answered(protocol: str) -> None:
    async def script(nursery: trio.Nursery, handle: DatabaseHandle) -> None:
        ann = ChatClient(nursery, handle, protocol, 1)
        ann.call(1, "say", "a text")
        ann.send_bytes(client_frame(0x82, b"\x7f"))
        ann.call(2, "say", "another text")
        await ann.next()
        assert (await ann.next())[0] == (1 if ann.is_v1 else 6)
        assert await ann.frame() == (0x88, b"\x03\xf3unknown tag 0x7f for sum type ClientMessage")
        assert await ann.frame() is None
        bob = ChatClient(nursery, handle, protocol, 2)
        bob.subscribe(1, 1, "SELECT * FROM message")
        await bob.next()
        assert rows_in(await bob.next()) == 1

    run(script)


@ALL
def test_a_flood_beyond_the_bound_is_closed_with_1013(protocol: str) -> None:
    async def script(nursery: trio.Nursery, handle: DatabaseHandle) -> None:
        ann = ChatClient(nursery, handle, protocol, 1)
        await ann.next()
        ann.send_bytes(b"".join(client_frame(0x82, NOTHING[ann.is_v1]) for _ in range(40_000)))
        answers = 0
        while (frame := await ann.frame()) is not None and frame[0] != 0x88:
            answers += 1
        assert frame == (0x88, b"\x03\xf5too many requests")
        assert answers < 40_000
        assert await ann.frame() is None

    run(script)


NOTHING = {
    True: b"\0\7\0\0\0nothing\0\0\0\0\1\0\0\0\0",
    False: b"\3\1\0\0\0\0\7\0\0\0nothing\0\0\0\0",
}


@ALL
def test_a_refused_client_sees_neither_message_nor_close(protocol: str) -> None:
    async def script(nursery: trio.Nursery, handle: DatabaseHandle) -> None:
        near, far = memory_stream_pair()
        client = Client(identity(5), bytes(15) + b"\5", '{"sub":"banned"}')
        await serve_client(near, Handshake(f"{protocol}.spacetimedb", client, "token", ConnectionOptions()), handle)
        received = b""
        while chunk := await far.receive_some():
            received += chunk
        assert all(first == 0x89 for first, _ in server_frames(received))

    run(script)


@ALL
def test_the_same_identity_and_connection_id_cut_the_older_connection(protocol: str) -> None:
    async def script(nursery: trio.Nursery, handle: DatabaseHandle) -> None:
        old = ChatClient(nursery, handle, protocol, 1, connection_id=b"c" * 16)
        await old.next()
        new = ChatClient(nursery, handle, protocol, 1, connection_id=b"c" * 16)
        other = ChatClient(nursery, handle, protocol, 2, connection_id=b"c" * 16)
        await new.next()
        await other.next()
        assert await old.frame() is None
        for client in (new, other):
            client.call(1, "nothing")
            assert (await client.next())[0] == (1 if client.is_v1 else 6)

    run(script)


@V2
def test_a_session_id_in_use_is_refused_with_4000_and_cuts_its_holder(protocol: str) -> None:
    async def script(nursery: trio.Nursery, handle: DatabaseHandle) -> None:
        first = ChatClient(nursery, handle, protocol, 1, session_id=b"s" * 16, connection_id=b"a" * 16)
        await first.next()
        second = ChatClient(nursery, handle, protocol, 1, session_id=b"s" * 16, connection_id=b"b" * 16)
        assert await second.frame() == (0x88, b"\x0f\xa0session busy")
        assert await first.frame() is None
        third = ChatClient(nursery, handle, protocol, 1, session_id=b"s" * 16, connection_id=b"d" * 16)
        assert (await third.next())[0] == 0

    run(script)


@ALL
def test_a_deleted_database_closes_its_clients_with_1001(protocol: str) -> None:
    async def main() -> None:
        with trio.fail_after(3600):
            async with open_host({b"chat": chat}) as host, trio.open_nursery() as nursery:
                published = await host.publish(identity(99), b"chat", name="chat")
                ann = ChatClient(nursery, host.database(published.identity), protocol, 1)
                await ann.next()
                await host.delete(identity(99), published.identity)
                assert await ann.frame() == (0x88, b"\x03\xe9module exited")
                assert await ann.frame() is None

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
