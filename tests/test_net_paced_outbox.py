"""The outbox that rests behind every message: order, pauses, a full socket, closing."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from stdb.net.frames import close_frame, pong_frame
from stdb.net.paced_outbox import BYTES_A_SECOND, PAUSE_SECONDS_MAX, PacedOutbox
from tests.test_net_outbox import Wire


def run(script: Callable[[Wire, PacedOutbox], Awaitable[None]], room: int = 1_000_000_000) -> None:
    """Run an async script in virtual time beside the writer task of an outbox on a wire."""

    async def main() -> None:
        wire = Wire(room)
        outbox = PacedOutbox(wire)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.drain)
            await trio.testing.wait_all_tasks_blocked()
            await script(wire, outbox)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.02))


def frame(letter: bytes, seconds: float) -> bytes:
    """Return a frame that takes a client so long."""
    return letter * int(seconds * BYTES_A_SECOND)


def test_messages_leave_one_by_one_each_after_a_pause_as_long_as_the_one_before_is_large() -> None:
    async def script(wire: Wire, outbox: PacedOutbox) -> None:
        frames = [frame(b"a", 0.5), frame(b"b", 0.25), frame(b"c", 0.125), b"d"]
        started = trio.current_time()
        for each in frames:
            outbox.put((0, each), 0)
        assert bytes(wire.sent) == frames[0]
        sizes = []
        for seconds in (0.49, 0.02, 0.23, 0.02, 0.11, 0.02):
            await trio.sleep(seconds)
            sizes.append(wire.sends)
        assert sizes == [1, 2, 2, 3, 3, 4]
        assert bytes(wire.sent) == b"".join(frames)
        assert trio.current_time() - started < 1

    run(script)


def test_a_message_that_comes_after_the_pause_leaves_at_once() -> None:
    async def script(wire: Wire, outbox: PacedOutbox) -> None:
        outbox.put((0, frame(b"a", 0.2)), 0)
        await trio.sleep(0.3)
        outbox.put((0, b"b"), 0)
        assert wire.sends == 2

    run(script)


def test_no_pause_is_longer_than_the_bound() -> None:
    async def script(wire: Wire, outbox: PacedOutbox) -> None:
        outbox.put((0, frame(b"a", PAUSE_SECONDS_MAX * 3)), 0)
        outbox.put((0, b"b"), 0)
        await trio.sleep(PAUSE_SECONDS_MAX - 0.05)
        assert wire.sends == 1
        await trio.sleep(0.1)
        assert wire.sends == 2

    run(script)


def test_what_is_not_durable_waits_and_takes_no_pause_from_others() -> None:
    async def script(wire: Wire, outbox: PacedOutbox) -> None:
        outbox.put((2, b"a"), 1)
        outbox.put((0, b"b"), 1)
        await trio.sleep(1)
        assert (wire.sends, outbox.waits()) == (0, True)
        outbox.flush(2)
        await trio.sleep(1)
        assert bytes(wire.sent) == b"ab"
        assert not outbox.waits()

    run(script)


def test_a_pause_begins_when_the_socket_has_taken_the_message() -> None:
    async def script(wire: Wire, outbox: PacedOutbox) -> None:
        first = frame(b"a", 0.5)
        outbox.put((0, first), 0)
        outbox.put((0, b"b"), 0)
        await trio.sleep(5)
        assert len(wire.sent) == 100
        wire.make_room(1_000_000_000)
        await trio.sleep(0.4)
        assert bytes(wire.sent) == first
        await trio.sleep(0.2)
        assert bytes(wire.sent) == first + b"b"

    run(script, room=100)


@pytest.mark.parametrize("seconds", [0.0, 0.1])
def test_a_deferred_message_keeps_its_place(seconds: float) -> None:
    async def script(wire: Wire, outbox: PacedOutbox) -> None:
        outbox.put((0, b"a"), 0)
        outbox.append_deferred(0, lambda: b"large")
        outbox.flush(0)
        await trio.sleep(seconds)
        outbox.put((0, b"z"), 0)
        for _ in range(40):  # what is deferred is made in a thread, whose time is real
            await trio.sleep(0.01)
        assert bytes(wire.sent) == b"alargez"

    run(script)


def test_an_orderly_close_comes_behind_all_messages_and_their_pauses() -> None:
    async def script(wire: Wire, outbox: PacedOutbox) -> None:
        outbox.put((0, frame(b"a", 0.5)), 0)
        outbox.put((0, b"b"), 0)
        outbox.close(1000, "")
        outbox.flush(0)
        assert not outbox.close_sent.is_set()
        await trio.sleep(1)
        assert outbox.close_sent.is_set()
        assert bytes(wire.sent).endswith(b"ab" + close_frame(1000))

    run(script)


def test_a_close_now_and_pongs_wait_for_no_pause() -> None:
    async def script(wire: Wire, outbox: PacedOutbox) -> None:
        outbox.put((0, frame(b"a", 1.5)), 0)
        outbox.put((0, b"b"), 0)
        outbox.send_control_nowait(pong_frame(b"x"))
        assert bytes(wire.sent).endswith(b"a" + pong_frame(b"x"))
        outbox.close_now(1000)
        await trio.testing.wait_all_tasks_blocked()
        assert outbox.close_sent.is_set()
        assert bytes(wire.sent).endswith(close_frame(1000))

    run(script)


def test_a_client_that_goes_in_a_pause_is_noticed() -> None:
    async def script(wire: Wire, outbox: PacedOutbox) -> None:
        outbox.put((0, frame(b"a", 0.5)), 0)
        outbox.put((0, b"b"), 0)
        wire.close_nowait()
        await trio.sleep(1)
        assert outbox.close_sent.is_set()
        assert not outbox.waits()

    run(script)
