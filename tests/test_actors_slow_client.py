"""A client that takes nothing costs nobody else anything (I31), and leaves like any other (I32)."""

import trio

from stdb.actors.handle import DatabaseHandle
from stdb.actors.requests import CallReducer, OneOffQuery
from stdb.actors.sink import Client, OutcomeKind
from stdb.net.connection import serve_client
from stdb.net.handshake import ConnectionOptions, Handshake
from stdb.net.protocols import messages_v2
from stdb.net.protocols.wire import Compression
from stdb.net.stream import MemoryStream, memory_stream_pair
from stdb.sats import bsatn
from stdb.testing.hosts import TestClient, identity
from stdb.testing.sinks import OneOff
from tests.test_actors_database import chat_host, run, text
from tests.websocket_bytes import client_frame


def connect(nursery: trio.Nursery, handle: DatabaseHandle, who: int) -> MemoryStream:
    """Connect a client that subscribes to all messages and reads nothing."""
    near, far = memory_stream_pair(4096)
    client = Client(identity(who), who.to_bytes(16, "little"), "{}")
    options = ConnectionOptions(compression=Compression.NONE)
    nursery.start_soon(serve_client, near, Handshake("v2.bsatn.spacetimedb", client, "token", options), handle)
    subscribe = bsatn.codec(messages_v2.CLIENT_MESSAGE).encode((0, (1, (1,), ["SELECT * FROM message"])))
    frame = client_frame(0x82, subscribe)
    assert far.send_nowait(frame) == len(frame)
    return far


def test_a_client_that_reads_nothing_is_cut_and_nobody_else_notices() -> None:
    async def main() -> None:
        async with chat_host() as (_, handle), trio.open_nursery() as nursery:
            deaf = connect(nursery, handle, 7)
            ann = TestClient(handle, 1)
            await ann.subscribe(1, "SELECT * FROM online")
            while handle.client_count < 2:
                await trio.lowlevel.checkpoint()
            for _ in range(25):
                ann.submit(*[CallReducer(1, "say", text("x"), False)] * 1000)
                while ann.attachment.queued:
                    await trio.lowlevel.checkpoint()
            while handle.client_count > 1:
                await trio.lowlevel.checkpoint()
            assert (await ann.call("say", text("last"))).outcome.kind == OutcomeKind.COMMITTED
            question = OneOffQuery(5, "SELECT * FROM message")
            ann.submit(question)
            answer = (await ann.wait_for(OneOff, 1))[0]
            assert isinstance(answer, OneOff)
            assert not isinstance(answer.result, str)
            assert len(answer.result.inserts) == 25_001, "every call of the other one was served"
            assert sum(ann.sink.rows().values()) == 1, "the deaf one is no longer online"
            deaf.close_nowait()

    run(main)


def test_a_cancelled_connection_disconnects_once() -> None:
    async def main() -> None:
        async with chat_host() as (_, handle):
            ann = TestClient(handle, 1)
            await ann.subscribe(1, "SELECT * FROM online", "SELECT * FROM st_client")
            for pause in range(12):
                async with trio.open_nursery() as nursery:
                    connect(nursery, handle, 7)
                    for _ in range(pause):
                        await trio.lowlevel.checkpoint()
                    nursery.cancel_scope.cancel()
                await trio.sleep(1)
                assert handle.client_count == 1
                assert sum(ann.sink.rows().values()) == 2
            handle._actor.datastore.verify()

    run(main)
