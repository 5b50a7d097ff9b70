"""One WebSocket of a client of 0.7 to 0.11: whom the server takes it for, how it ends, what it outlives."""

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from stdb.net.protocols.legacy.choice import BIN, TEXT
from stdb.net.routes_publish import PYTHON_MAGIC
from tests.http_harness import Door, open_door
from tests.legacy_probe import probe
from tests.legacy_replay import Socket
from tests.websocket_bytes import client_frame

ADDRESS = "0123456789abcdef" * 2
MASK = b"\1\2\3\4"


@asynccontextmanager
async def door_of_probe() -> AsyncIterator[Door]:
    """Open a server with the probe module published as `p`."""
    program = PYTHON_MAGIC + b"1"
    async with open_door({program: probe("1")}) as door:
        answer = await door.send("POST", "/database/publish?name_or_address=p", basic(door), program)
        assert answer.status == 200, answer.text
        yield door


def basic(door: Door, token: str | None = None) -> dict[str, str]:
    """Return the header of somebody new, or of who has this token."""
    token = token or door.tokens.mint().token
    return {"Authorization": f"Basic {base64.b64encode(f'token:{token}'.encode()).decode()}"}


async def opened(
    door: Door, protocol: str = TEXT, *, prefix: str = "", query: str = "", headers: dict[str, str] | None = None
) -> Socket:
    """Return an open WebSocket."""
    client = door.connect()
    asked = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    asked |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": protocol} | (headers or {})
    answer = await client.request("GET", f"{prefix}/database/subscribe/p{query}", asked)
    assert answer.status == 101, answer.text
    return Socket(client, client.upgraded())


def send(socket: Socket, *messages: str | bytes, opcode: int | None = None) -> None:
    """Send messages in one write."""
    frames = [(m.encode(), opcode or 0x81) if isinstance(m, str) else (m, opcode or 0x82) for m in messages]
    socket.client.stream.send_nowait(b"".join(client_frame(code, data, MASK) for data, code in frames))


async def next_text(socket: Socket, seconds: float = 5.0) -> Any:
    """Return the next message, which is JSON."""
    frame = await socket.next(seconds)
    assert frame is not None
    assert frame[0] == 0x81, frame
    return json.loads(frame[1])


def run(script: Callable[[Door], Awaitable[None]], patience: float = 0) -> None:
    """Run an async script in virtual time, which waits for threads for this long."""

    async def main() -> None:
        async with door_of_probe() as door:
            await script(door)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=patience))


# Whom the server takes a client for.


def test_a_silent_client_of_text_waits_a_quarter_of_a_second_and_is_one_of_0_11() -> None:
    async def script(door: Door) -> None:
        socket = await opened(door)
        began = trio.current_time()
        assert await socket.next(0.2) is None
        message = await next_text(socket)
        assert set(message["IdentityToken"]["identity"]) == {"__identity_bytes"}
        assert trio.current_time() - began == pytest.approx(0.25, abs=0.01)

    run(script)


@pytest.mark.parametrize("is_early", [False, True])
def test_the_first_message_ends_the_wait(is_early: bool) -> None:
    async def script(door: Door) -> None:
        socket = await opened(door)
        if not is_early:
            await trio.sleep(0.1)
        began = trio.current_time()
        send(socket, '{"subscribe":{"query_strings":["SELECT * FROM Item"]}}')
        assert isinstance((await next_text(socket))["IdentityToken"]["identity"], str)
        assert "SubscriptionUpdate" in await next_text(socket)
        assert trio.current_time() - began < 0.05

    run(script)


def test_a_first_message_that_comes_byte_by_byte_is_heard_whole() -> None:
    async def script(door: Door) -> None:
        socket = await opened(door)
        for byte in client_frame(0x81, b'{"call":{"fn":"nop","args":[]}}', MASK):
            socket.client.stream.send_nowait(bytes((byte,)))
            await trio.sleep(0.001)
        assert isinstance((await next_text(socket))["IdentityToken"]["identity"], str)
        assert (await next_text(socket))["TransactionUpdate"]["event"]["function_call"]["reducer"] == "nop"

    run(script)


def test_a_ping_is_no_message_and_is_answered_when_the_wait_is_over() -> None:
    async def script(door: Door) -> None:
        socket = await opened(door)
        send(socket, b"x", opcode=0x89)
        frames = [await socket.next(1), await socket.next(1)]
        assert (0x8A, b"x") in frames

    run(script)


@pytest.mark.parametrize("frame", [client_frame(0x88, b"", MASK), b"\x83\x80\0\0\0\0"])
def test_a_client_that_leaves_or_breaks_the_protocol_at_once_is_let_go(frame: bytes) -> None:
    async def script(door: Door) -> None:
        socket = await opened(door)
        socket.client.stream.send_nowait(frame)
        while await socket.next(20) is not None:
            pass
        assert socket.is_over

    run(script)


# Messages of another generation.


@pytest.mark.parametrize(
    ("prefix", "protocol", "message", "hint"),
    [
        ("/legacy/0.11", TEXT, '{"subscribe":{"query_strings":[]}}', "/legacy/0.8"),
        ("/legacy/0.8", TEXT, '{"Subscribe":{"query_strings":[],"request_id":0}}', "/legacy/0.11"),
        ("/legacy/0.10", TEXT, '{"Subscribe":{"query_strings":[],"request_id":0}}', "/legacy/0.11"),
        ("/legacy/0.8", BIN, b"\1\0\0\0\0\0\0\0\0", "/legacy/0.11"),
        ("/legacy/0.11", BIN, bytes.fromhex("0a050a036e6f70"), "/legacy/0.8 or /legacy/0.10"),
    ],
)
def test_a_message_of_another_generation_is_told_the_path(
    prefix: str, protocol: str, message: str | bytes, hint: str
) -> None:
    async def script(door: Door) -> None:
        socket = await opened(door, protocol, prefix=prefix)
        assert await socket.next(1)
        send(socket, message)
        assert await socket.next(1) == (0x88, (1011).to_bytes(2, "big") + f"wrong dialect, use <host>{hint}".encode())

    run(script)


# How connections end.


def test_a_text_client_of_0_8_hears_three_pings_before_its_close_is_answered() -> None:
    async def script(door: Door) -> None:
        socket = await opened(door, prefix="/legacy/0.8")
        await next_text(socket)
        send(socket, (1000).to_bytes(2, "big"), opcode=0x88)
        began, read = trio.current_time(), socket.data
        while chunk := await socket.client.stream.receive_some():
            read += chunk
        assert read.endswith(b"\x89\0\x89\0\x89\0\x88\2\x03\xe8")
        assert 0.1 <= trio.current_time() - began < 0.3

    run(script)


@pytest.mark.parametrize("prefix", ["/legacy/0.8", "/legacy/0.11"])
def test_a_client_that_does_not_answer_a_ping_is_cut_with_the_next_one(prefix: str) -> None:
    async def script(door: Door) -> None:
        socket = await opened(door, prefix=prefix)
        began = trio.current_time()
        while await socket.next(1000) is not None:
            pass
        assert socket.is_over
        assert trio.current_time() - began == pytest.approx(60, abs=1)

    run(script)


def test_a_client_that_answers_pings_stays() -> None:
    async def script(door: Door) -> None:
        socket = await opened(door, prefix="/legacy/0.11")
        for _ in range(6):
            send(socket, b"", opcode=0x8A)
            await trio.sleep(59)
        send(socket, b"x", opcode=0x89)
        frames = [await socket.next(1), await socket.next(1)]
        assert (0x8A, b"x") in frames

    run(script)


def test_frames_that_are_none_cut_the_connection() -> None:
    async def script(door: Door) -> None:
        socket = await opened(door, prefix="/legacy/0.11")
        await next_text(socket)
        send(socket, "x", opcode=0x83)
        frame = await socket.next(5)
        assert frame in (None, (0x88, b""))
        assert await socket.next(5) is None
        assert socket.is_over

    run(script)


# Two sockets of one client.


@pytest.mark.parametrize("prefix", ["/legacy/0.8", "/legacy/0.11"])
def test_the_newer_of_two_sockets_of_one_address_stays(prefix: str) -> None:
    async def script(door: Door) -> None:
        headers = basic(door)
        socket = await opened(door, prefix=prefix, query=f"?client_address={ADDRESS}", headers=headers)
        await next_text(socket)
        newer = await opened(door, prefix=prefix, query=f"?client_address={ADDRESS}", headers=headers)
        await next_text(newer)
        while await socket.next(30) is not None:
            pass
        assert socket.is_over
        name = "subscribe" if prefix.endswith("8") else "Subscribe"
        send(newer, json.dumps({name: {"query_strings": ["SELECT * FROM User"], "request_id": 1}}))
        told = json.dumps(await next_text(newer))
        assert told.count("insert") == 1, "its row is there once: the older one left before the newer came"

    run(script)


def test_sockets_of_one_identity_with_two_addresses_both_stay() -> None:
    async def script(door: Door) -> None:
        headers = basic(door)
        sockets = [await opened(door, prefix="/legacy/0.11", headers=headers) for _ in range(2)]
        for socket in sockets:
            await next_text(socket)
            send(socket, '{"CallReducer":{"reducer":"nop","args":{"Text":"[]"},"request_id":7}}')
        for socket in sockets:
            assert (await next_text(socket))["TransactionUpdate"]["reducer_call"]["request_id"] == 7

    run(script)


# Statements that kill the reference (spec 03 sections 7 and 10).

KILLERS = [
    "SELECT Item.* FROM Item JOIN Owner ON Item.owner < Owner.owner_id",
    "SELECT Item.* FROM Item JOIN Owner ON Item.owner = Owner.owner_id WHERE Item.qty < Owner.owner_id",
    "SELECT * FROM Item WHERE id",
    "SELECT * FROM Item WHERE",
    "INSERT INTO Item (qty, name, owner, id) VALUES (1, 'x', 1, 900)",
    "INSERT INTO Item (id) VALUES (1)",
    "UPDATE Item SET nope = 1",
    "SELECT id FROM Item",
    "SELECT * FROM Kinds WHERE map = 1",
    "SELECT * FROM Item WHERE name = 99999999999999999999999999999999999999999999999",
    "SELECT " + "(" * 3000 + "1" + ")" * 3000,
    "SELECT * FROM Item WHERE " + " AND ".join(["id = 1"] * 1000),
    "\0",
    ";;;",
    "",
]


@pytest.mark.parametrize("prefix", ["/legacy/0.8", "/legacy/0.11"])
def test_no_statement_does_more_than_fail(prefix: str) -> None:
    async def script(door: Door) -> None:
        old = prefix.endswith("8")
        socket = await opened(door, prefix=prefix)
        await next_text(socket)
        for number, statement in enumerate(KILLERS):
            one_off = {"message_id": "", "query_string": statement}
            subscribe = {"query_strings": [statement], "request_id": number}
            send(
                socket,
                json.dumps({"one_off_query" if old else "OneOffQuery": one_off}),
                json.dumps({"subscribe" if old else "Subscribe": subscribe}),
            )
            assert "OneOffQueryResponse" in await next_text(socket), statement
            (kind,) = await next_text(socket)
            assert kind in ("TransactionUpdate", "InitialSubscription", "SubscriptionUpdate")
        call = {"fn": "fail", "args": ["no luck"]} if old else {"reducer": "fail", "args": {"Text": '["no luck"]'}}
        send(socket, json.dumps({"call" if old else "CallReducer": call | {"request_id": 1}}))
        assert "no luck" in json.dumps(await next_text(socket))

    run(script, patience=0.2)
