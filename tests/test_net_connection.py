"""One client's lifetime: batches, malformed messages, close handshakes, pings, slow and silent clients."""

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from stdb.actors.refusals import DatabaseUnavailable
from stdb.net.frames import MESSAGE_BYTES_MAX
from stdb.storage.settings import Websocket
from tests.websocket_bytes import client_frame
from tests.websocket_server import CONNECTION_ID, IDENTITY, FakeDatabase, RawClient, call_noop, result_of, served

FIRST = (0x82, b"\0\0" + IDENTITY + CONNECTION_ID + b"\5\0\0\0token")
SESSION = json.loads((Path(__file__).parent / "vectors/recorded_ws/30_malformed.json").read_text())


def run(script: Callable[..., Awaitable[None]], *args: Any, seconds_max: float = 1e9) -> float:
    """Run an async script in virtual time and return how long it took."""

    async def timed() -> float:
        started = trio.current_time()
        with trio.fail_after(seconds_max):
            await script(*args)
        return trio.current_time() - started

    return trio.run(timed, clock=trio.testing.MockClock(autojump_threshold=0))


def close(code: int, reason: str) -> tuple[int, bytes]:
    return 0x88, code.to_bytes(2, "big") + reason.encode()


def test_the_first_message_comes_first_and_calls_are_answered_in_order() -> None:
    async def script() -> None:
        async with served() as client:
            client.call(1, 2, 3)
            assert await client.frames(4) == [FIRST, result_of(1), result_of(2), result_of(3)]

    run(script)


def test_all_messages_of_one_read_are_one_batch() -> None:
    async def script() -> None:
        async with served() as client:
            client.call(*range(100))
            await client.frames(101)
            assert [len(batch) for batch in client.database.batches] == [100]

    run(script)


def test_bytes_that_come_one_at_a_time_are_the_same_messages() -> None:
    async def script() -> None:
        async with served() as client:
            for byte in client_frame(0x82, call_noop(7)) + client_frame(0x02, call_noop(8)[:5]):
                client.send(bytes((byte,)))
                await trio.testing.wait_all_tasks_blocked()
            client.send(client_frame(0x89, b"mid"), client_frame(0x80, call_noop(8)[5:]))
            assert await client.frames(4) == [FIRST, result_of(7), (0x8A, b"mid"), result_of(8)]

    run(script)


@pytest.mark.parametrize("protocol", ["v2.bsatn", "v3.bsatn"])
def test_answers_to_valid_messages_precede_the_close_for_the_malformed_one(protocol: str) -> None:
    async def script() -> None:
        async with served(protocol) as client:
            messages = [call_noop(1), b"\x7f", call_noop(2)]
            if protocol == "v3.bsatn":
                messages = [b"".join(messages)]
            client.send(b"".join(client_frame(0x82, message) for message in messages))
            client.call(3)
            expected = [FIRST, result_of(1), close(1011, "unknown tag 0x7f for sum type ClientMessage")]
            assert await client.rest() == expected
            assert client.database.committed == 1

    assert run(script) == pytest.approx(0.25)


def test_a_close_waits_for_answers_that_are_not_durable_yet() -> None:
    async def script() -> None:
        async with served() as client:
            client.database.durable = 0
            client.call(1)
            client.send(client_frame(0x82, b"\x7f"))
            await trio.sleep(1)
            assert await client.frames(1) == [FIRST]
            client.database.make_durable()
            assert (await client.rest())[1:] == [
                result_of(1),
                close(1011, "unknown tag 0x7f for sum type ClientMessage"),
            ]

    assert run(script) == pytest.approx(1.25)


def test_a_close_does_not_wait_for_ever_and_what_is_not_durable_never_leaves() -> None:
    async def script() -> None:
        async with served() as client:
            client.database.durable = 0
            client.call(1)
            client.send(client_frame(0x82, b"\x7f"))
            assert (await client.rest())[1:] == [close(1011, "unknown tag 0x7f for sum type ClientMessage")]

    assert run(script) == pytest.approx(5.25)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (client_frame(0x82, b"\0", mask=None), 1002),
        (client_frame(0xC2, b"\0"), 1002),
        (client_frame(0x83), 1002),
        (client_frame(0x80), 1002),
        (client_frame(0x89, b"x" * 126), 1002),
        (client_frame(0x81, b"\xff\xfe"), 1007),
        (b"\x82\xff" + (MESSAGE_BYTES_MAX + 1).to_bytes(8, "big") + bytes(4), 1009),
    ],
)
def test_frames_that_break_the_protocol_are_answered_with_their_code_after_what_came_whole(
    frame: bytes, code: int
) -> None:
    async def script() -> None:
        async with served() as client:
            client.send(client_frame(0x82, call_noop(1)) + frame + client_frame(0x82, call_noop(2)))
            frames = await client.rest()
            assert frames[:2] == [FIRST, result_of(1)]
            assert frames[2][0] == 0x88
            assert frames[2][1][:2] == code.to_bytes(2, "big")
            assert len(frames) == 3
            assert client.database.committed == 1

    assert run(script) == pytest.approx(0.25)


@pytest.mark.parametrize("payload", [b"\x03\xe8bye", b"\x0f\xa0app", b""])
def test_a_clients_close_is_echoed_and_nothing_after_it_is_executed(payload: bytes) -> None:
    async def script() -> None:
        async with served() as client:
            client.call(1)
            await client.frames(2)
            client.send(client_frame(0x88, payload) + client_frame(0x82, call_noop(2)))
            assert (await client.rest())[2:] == [(0x88, payload)]
            assert client.database.committed == 1

    assert run(script) == 0


def test_messages_before_the_clients_close_are_executed() -> None:
    async def script() -> None:
        async with served() as client:
            client.send(client_frame(0x82, call_noop(1)) + client_frame(0x88, b"\x03\xe8"))
            await client.rest()
            assert client.database.committed == 1

    run(script)


def test_an_illegal_close_code_is_a_protocol_violation() -> None:
    async def script() -> None:
        async with served() as client:
            client.send(client_frame(0x88, (1005).to_bytes(2, "big")))
            assert (await client.rest())[1:] == [close(1002, "Protocol violation")]

    run(script)


def test_when_the_client_answers_our_close_the_connection_ends_at_once() -> None:
    async def script() -> None:
        async with served() as client:
            await client.frames(1)
            client.database.sink.close(1001, "module exited")
            assert (await client.frames(2))[1:] == [close(1001, "module exited")]
            client.send(client_frame(0x88, b"\x03\xe9"))
            assert (await client.rest())[1:] == [close(1001, "module exited")]

    assert run(script) == 0


def test_when_the_client_does_not_answer_our_close_the_socket_is_dropped_after_250_ms() -> None:
    async def script() -> None:
        async with served() as client:
            await client.frames(1)
            client.database.sink.close(1001, "module exited")
            client.call(1)
            assert (await client.rest())[1:] == [close(1001, "module exited")]
            assert client.database.committed == 0

    assert run(script) == pytest.approx(0.25)


def test_a_refused_client_sees_no_message_and_no_close() -> None:
    async def script() -> None:
        database = FakeDatabase()
        database.refusal = (None, "not today")
        async with served(database=database) as client:
            client.call(1)
            assert await client.rest() == []

    assert run(script) == 0


def test_a_busy_session_is_told_before_anything_else() -> None:
    async def script() -> None:
        database = FakeDatabase()
        database.refusal = (4000, "session busy")
        async with served(database=database, session_id=b"s" * 16) as client:
            assert await client.rest() == [close(4000, "session busy")]
            assert database.session_id == b"s" * 16

    run(script)


def test_a_database_that_is_down_says_so_in_the_close() -> None:
    class Down(FakeDatabase):
        def attach(self, *args: Any) -> FakeDatabase:
            raise DatabaseUnavailable("the database is down")

    async def script() -> None:
        async with served(database=Down()) as client:
            assert await client.rest() == [close(1011, "the database is down")]

    run(script)


def test_a_text_message_on_v2_is_refused() -> None:
    async def script() -> None:
        async with served() as client:
            client.send(client_frame(0x81, b"{}"))
            assert (await client.rest())[1:] == [close(1011, "v2 websocket does not support text messages")]

    run(script)


# --------------------------------------------------------------------------------------------------- time
async def note_pings(client: RawClient, answer: bool, until: float) -> list[float]:
    """Return the seconds at which pings came, answering them or not; ends when the server does."""
    started = trio.current_time()
    times = []
    while trio.current_time() - started < until:
        chunk = b""
        with trio.move_on_after(until - (trio.current_time() - started)):
            chunk = await client.stream.receive_some()
            if not chunk:
                break
        times += [trio.current_time() - started] * chunk.count(b"\x89\0")
        if answer and b"\x89\0" in chunk:
            client.send(client_frame(0x8A))
    return times


def test_a_client_that_answers_is_pinged_every_15_seconds_and_kept() -> None:
    async def script() -> None:
        async with served() as client:
            times = await note_pings(client, answer=True, until=100)
            assert times == pytest.approx([0, 15, 30, 45, 60, 75, 90])
            client.call(1)
            assert await client.frames(1) == [result_of(1)]

    run(script)


def test_a_silent_client_is_cut_after_30_seconds_without_a_close() -> None:
    async def script() -> None:
        async with served() as client:
            times = await note_pings(client, answer=False, until=1000)
            assert times == [0]
            assert await client.rest() == []

    assert run(script) == pytest.approx(30)


def test_the_settings_say_how_often_is_pinged_and_how_long_a_client_may_be_silent() -> None:
    async def script() -> None:
        async with served(settings=Websocket(ping_interval="2s", idle_timeout="1m")) as client:
            assert await note_pings(client, answer=True, until=7) == pytest.approx([0, 2, 4, 6])
            await note_pings(client, answer=False, until=1000)
            assert await client.rest() == []

    assert run(script) == pytest.approx(66)


def test_the_settings_say_how_long_the_answer_to_our_close_may_take() -> None:
    async def script() -> None:
        async with served(settings=Websocket(close_handshake_timeout="3s")) as client:
            await client.frames(1)
            client.database.sink.close(1001, "module exited")
            assert (await client.rest())[1:] == [close(1001, "module exited")]

    assert run(script) == pytest.approx(3)


def test_any_frame_keeps_a_client_but_no_new_ping_goes_while_the_last_is_unanswered() -> None:
    async def script() -> None:
        async with served() as client:
            for _ in range(10):
                await trio.sleep(20)
                client.call(1)
            assert len(await client.frames(11)) == 11
            assert client._received.count(b"\x89\0") == 1

    assert run(script) == pytest.approx(200)


def test_a_client_is_not_silent_while_nobody_reads_it() -> None:
    async def script() -> None:
        database = FakeDatabase()
        database.crowded = trio.Event()
        async with served(database=database) as client:
            client.call(1)
            await trio.sleep(100)
            database.crowded.set()
            client.call(2)
            assert await client.frames(3) == [FIRST, result_of(1), result_of(2)]

    run(script)


# --------------------------------------------------------------------------------------- slow and broken clients
def test_a_client_that_does_not_read_is_cut_when_too_much_waits() -> None:
    async def script() -> None:
        async with served(capacity_bytes=4096) as client:
            sent = 0
            while not client.database.is_detached:
                client.call(*range(20))
                sent += 20
                await trio.testing.wait_all_tasks_blocked()
            assert 16_384 <= sent < 16_384 + 1000
            assert all(first == 0x82 for first, _ in await client.rest())

    run(script)


def test_a_client_that_vanishes_is_detached() -> None:
    async def script() -> None:
        async with served() as client:
            await client.frames(1)
            client.stream.close_nowait()
            await trio.testing.wait_all_tasks_blocked()
            assert client.database.is_detached

    assert run(script) == 0


def test_a_cancelled_connection_detaches_and_closes() -> None:
    async def script() -> None:
        with trio.move_on_after(1):
            async with served() as client:
                database = client.database
                await trio.sleep_forever()
        assert database.is_detached

    assert run(script) == pytest.approx(1)


def test_a_pong_goes_out_while_a_confirmed_result_is_held_back() -> None:
    async def script() -> None:
        async with served() as client:
            client.database.durable = 0
            client.call(1)
            client.send(client_frame(0x89, b"hello"))
            assert await client.frames(2) == [FIRST, (0x8A, b"hello")]
            client.database.make_durable()
            assert await client.frames(3) == [FIRST, (0x8A, b"hello"), result_of(1)]

    run(script)


# ----------------------------------------------------------------------------------- the real server's session
def malformed() -> list[tuple[str, str, list[dict[str, Any]], list[dict[str, Any]]]]:
    """Return (protocol, name, steps sent, steps received) of every connection of the recorded session."""
    connections: list[tuple[str, str, list[dict[str, Any]], list[dict[str, Any]]]] = []
    current: dict[str, Any] = {}
    for step in SESSION["steps"]:
        if "open" in step and step.get("protocol"):
            connection = (step["protocol"].removesuffix(".spacetimedb"), step["open"], [], [])
            connections.append(connection)
            current[step["open"]] = connection
        elif "to" in step and step["to"] in current:
            current[step["to"]][2].append(step)
        elif "from" in step and step["from"] in current:
            current[step["from"]][3].append(step)
    return [one for one in connections if one[2] and not any("reset" in step for step in one[2])]


CONNECTIONS = malformed()


def bytes_sent(step: dict[str, Any]) -> bytes:
    if "frames" in step:
        return b"".join(
            client_frame(first, bytes.fromhex(payload), b"abcd" if masked else None)
            for first, masked, payload in step["frames"]
        )
    if "close" in step:
        code, reason = step["close"]
        return client_frame(0x88, b"" if code is None else code.to_bytes(2, "big") + reason.encode())
    if "hex" in step:
        return client_frame(0x82, bytes.fromhex(step["hex"]))
    return client_frame(0x81, step["text"].encode())


def control_frames(frames: list[tuple[int, bytes]]) -> list[tuple[Any, ...]]:
    """Return what is neither data nor a reason of ours: pongs and closes."""
    found: list[tuple[Any, ...]] = []
    for first, payload in frames:
        if first == 0x8A:
            found.append(("pong", payload.hex()))
        elif first == 0x88:
            found.append(("close", int.from_bytes(payload[:2], "big") if payload else None))
    return found


@pytest.mark.parametrize("place", range(len(CONNECTIONS)), ids=[f"{one[0]} {one[1]}" for one in CONNECTIONS])
def test_the_recorded_misbehaviour_ends_as_it_did_but_with_a_close_where_there_was_none(place: int) -> None:
    protocol, name, sent, received = CONNECTIONS[place]
    expected: list[tuple[Any, ...]] = []
    for step in received:
        if "pong" in step:
            expected.append(("pong", step["pong"]))
        elif "close" in step:
            expected.append(("close", step["close"][0]))
        elif step.get("eof"):
            expected.append(("close", 1007 if "utf8" in name else 1002))

    async def script() -> None:
        async with served(protocol) as client:
            for step in sent:
                with suppress(OSError):  # the server is right to have left after a close
                    client.send(bytes_sent(step))
                await trio.testing.wait_all_tasks_blocked()
            if any(kind == "close" for kind, _ in expected):
                assert control_frames(await client.rest()) == expected
            else:
                await trio.testing.wait_all_tasks_blocked()
                await client.receive()
                assert control_frames(client._data_frames()) == expected

    run(script)
