"""A server as a process, killed at any moment, stopped amid clients, spun in. Real sockets, real files."""

import random
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_client_stream

from stdb.net.protocols import messages_v2
from stdb.sats import bsatn
from tests.interop.processes import Server, start_server
from tests.websocket_messages import rows_of

pytestmark = pytest.mark.slow

CHAT = Path(__file__).parent.parent / "examples" / "quickstart_chat"
CLIENT = bsatn.codec(messages_v2.CLIENT_MESSAGE)
SERVER = bsatn.codec(messages_v2.SERVER_MESSAGE)
APPLIED, UPDATE, RESULT = 1, 4, 6


@pytest.fixture
def data() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as path:
        yield path


def start(data: str, *arguments: str, listen: str = "127.0.0.1:0") -> Server:
    return start_server("--data-dir", data, "--publish", f"{CHAT}=chat", *arguments, listen=listen)


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[WebSocketConnection]:
    """Hold a v2 connection; its socket is closed whoever ends it."""
    host, _, path = url.removeprefix("ws://").partition("/")
    name, _, port = host.partition(":")
    async with await trio.open_tcp_stream(name, int(port)) as stream, trio.open_nursery() as nursery:
        socket = await wrap_client_stream(
            nursery, stream, host, f"/{path}", subprotocols=["v2.bsatn.spacetimedb"], max_message_size=1 << 28
        )
        yield socket
        await socket.aclose()


class Speaker:
    """A client over trio-websocket; remembers what was confirmed to it."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self._socket = socket
        self.confirmed: set[str] = set()

    async def send(self, message: Any) -> None:
        await self._socket.send_message(CLIENT.encode(message))

    async def next(self) -> Any:
        payload = await self._socket.get_message()
        assert payload[0] == 0, "no compression was asked for"
        return SERVER.decode_exact(payload[1:])

    async def say(self, request_id: int, text: str) -> None:
        data = text.encode()
        await self.send((3, (request_id, 0, "send_message", len(data).to_bytes(4, "little") + data)))

    async def rows(self, table: str) -> list[bytes]:
        """Return all rows of a table."""
        await self.send((0, (1, (1,), [f"SELECT * FROM {table}"])))
        while True:
            tag, fields = await self.next()
            if tag == APPLIED:
                return [row for _, rows in fields[2][0] for row in rows_of(rows)]


async def hammer(url: str, who: int, confirmed: set[str]) -> None:
    """Send messages as fast as they are answered, 20 in flight, until the server is gone."""
    said: dict[int, str] = {}
    try:
        async with connect(url) as socket:
            speaker = Speaker(socket)
            for number in range(1 << 30):
                if len(said) >= 20:
                    tag, fields = await speaker.next()
                    if tag == RESULT and fields[2][0] == 0:
                        confirmed.add(said.pop(fields[0]))
                else:
                    said[number] = f"{who}-{number}-{random.random()}"
                    await speaker.say(number, said[number])
    except* (ConnectionClosed, HandshakeError, OSError, trio.BrokenResourceError):
        pass  # the server was killed


async def read_on(speaker: Speaker) -> None:
    with trio.fail_after(20):
        while True:
            await speaker.next()


async def check(url: str, confirmed: set[str]) -> None:
    """Every confirmed message is there once; nobody of the last life is online."""
    async with connect(url) as socket:
        speaker = Speaker(socket)
        row = bsatn.codec(await table_type("message"))
        texts = [row.decode_exact(data)[3] for data in await speaker.rows("message")]
        assert len(texts) == len(set(texts))
        assert confirmed <= set(texts), f"{len(confirmed - set(texts))} confirmed messages are lost"
    async with connect(url) as socket:
        speaker = Speaker(socket)
        row = bsatn.codec(await table_type("user"))
        users = [row.decode_exact(data) for data in await speaker.rows("user")]
        assert sum(online for _, _, online in users) == 1, "this client alone"


async def table_type(name: str) -> Any:
    from stdb.modules.python.loader import load

    module = load({"chat.py": (CHAT / "__init__.py").read_bytes()}, "chat")
    table = module.definition.table(name)
    assert table is not None
    return table.row_type


def subscribe_url(server: Server, database: str = "chat") -> str:
    return f"{server.ws}/v1/database/{database}/subscribe?compression=None"


def test_kill_9_at_random_moments_loses_nothing_that_was_confirmed(data: str) -> None:
    confirmed: set[str] = set()
    chosen = random.Random(5)
    server = start(data)
    try:
        for round_ in range(5):

            async def until_killed(running: Server = server, number: int = round_) -> None:
                async with trio.open_nursery() as nursery:
                    for who in range(4):
                        nursery.start_soon(hammer, subscribe_url(running), 10 * number + who, confirmed)
                    await trio.sleep(0.3 + chosen.random())
                    running.kill()

            before = len(confirmed)
            trio.run(until_killed)
            assert len(confirmed) > before, "the server answered nobody"
            server = start(data)
            trio.run(check, subscribe_url(server), confirmed)
        assert server.stop() == 0
    finally:
        if server.process.poll() is None:
            server.kill()
    assert len(confirmed) > 100


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_server_cleanly(data: str, signal_number: int) -> None:
    server = start(data)

    async def main() -> None:
        async with connect(subscribe_url(server)) as socket:
            speaker = Speaker(socket)
            await speaker.rows("user")
            server.process.send_signal(signal_number)
            with pytest.raises(ConnectionClosed) as closed:
                await read_on(speaker)
            assert (closed.value.reason.code, closed.value.reason.reason) == (1001, "module exited")

    trio.run(main)
    assert server.process.wait(20) == 0
    again = start(data)
    try:
        trio.run(check, subscribe_url(again), set())
        assert again.stop() == 0
    finally:
        if again.process.poll() is None:
            again.kill()


LOOP = """
from stdb import ReducerContext, reducer, table, primary_key, u64

@table(public=True)
class Row:
    id: u64 = primary_key(auto_inc=True)
    n: int = 0

@reducer
def spin(ctx: ReducerContext) -> None:
    ctx.db[Row].insert(Row(n=1))
    while True:
        pass

@reducer
def write_forever(ctx: ReducerContext) -> None:
    while True:
        ctx.db[Row].insert(Row(n=2))

@reducer
def add(ctx: ReducerContext) -> None:
    ctx.db[Row].insert(Row(n=3))
"""


@pytest.mark.parametrize("reducer", ["spin", "write_forever"])
def test_an_endless_reducer_of_a_python_module_is_stopped_within_its_time(data: str, reducer: str) -> None:
    source = Path(data) / "loops.py"
    source.write_text(LOOP)
    server = start_server("--data-dir", f"{data}/server", "--publish", f"{source}=loops")

    async def main() -> None:
        async with connect(subscribe_url(server, "loops")) as socket:
            speaker = Speaker(socket)
            assert (await speaker.next())[0] == 0
            started = time.monotonic()
            await speaker.send((3, (1, 0, reducer, b"")))
            await speaker.send((3, (2, 0, "add", b"")))
            tag, fields = await speaker.next()
            assert time.monotonic() - started < 3  # its time is far less; the machine may be busy
            assert (tag, fields[0], fields[2]) == (RESULT, 1, (3, "reducer ran out of energy"))
            tag, fields = await speaker.next()
            assert (tag, fields[0], fields[2][0]) == (RESULT, 2, 0)
            assert len(await speaker.rows("row")) == 1

    try:
        trio.run(main)
        assert server.stop() == 0
    finally:
        if server.process.poll() is None:
            server.kill()


STUBBORN = """
from stdb import ReducerContext, client_disconnected

@client_disconnected
def disconnected(ctx: ReducerContext) -> None:
    while True:
        pass
"""


def test_a_second_signal_ends_a_server_at_once_and_the_next_start_is_not_in_the_way(data: str) -> None:
    source = Path(data) / "stubborn.py"
    source.write_text(STUBBORN)
    arguments = ("--data-dir", f"{data}/server", "--publish", f"{source}=stubborn")
    server = start_server(*arguments)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(stay, subscribe_url(server, "stubborn"))
            await trio.sleep(1)
            server.process.send_signal(signal.SIGINT)
            await trio.sleep(0.5)
            server.process.send_signal(signal.SIGINT)
            with trio.fail_after(4):
                assert await trio.to_thread.run_sync(server.process.wait) == 1
            nursery.cancel_scope.cancel()

    trio.run(main)
    server.lines.join()
    again = start_server(*arguments)  # disconnects the six, one second each, and lets others run meanwhile
    try:
        assert again.stop() in (0, 1)
    finally:
        if again.process.poll() is None:
            again.kill()


async def stay(url: str) -> None:
    try:
        async with connect(url) as socket:
            while True:
                await socket.get_message()
    except* (ConnectionClosed, HandshakeError, OSError, trio.BrokenResourceError):
        pass  # the server ended
