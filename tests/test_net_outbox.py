"""The outbox: order, durability, bounds, and what happens to a client that does not listen."""

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from stdb.net.frames import binary_frame, close_frame, ping_frame, pong_frame
from stdb.net.outbox import Outbox


class Wire:
    """A FrameStream that takes `room` bytes and then blocks until more room is made."""

    def __init__(self, room: int = 1_000_000_000) -> None:
        self.room = room
        self.sent = bytearray()
        self.sends = 0
        self.is_closed = False
        self._more = trio.Event()

    def send_nowait(self, data: bytes | memoryview) -> int:
        if self.is_closed:
            raise BrokenPipeError
        if not self.room:
            raise BlockingIOError
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        self.sent += taken
        self.sends += 1
        return len(taken)

    def make_room(self, room: int) -> None:
        self.room += room
        self._more.set()
        self._more = trio.Event()

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self.room and not self.is_closed:
            await self._more.wait()

    async def receive_some(self) -> bytes:
        await trio.sleep_forever()
        return b""

    def close_nowait(self) -> None:
        self.is_closed = True
        self._more.set()


def run(script: Callable[[Wire, Outbox], Any], room: int = 1_000_000_000, **bounds: int) -> None:
    """Run an async script beside the writer task of an outbox on a wire."""

    async def main() -> None:
        wire = Wire(room)
        outbox = Outbox(wire, **bounds)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.drain)
            await trio.testing.wait_all_tasks_blocked()
            await script(wire, outbox)
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_all_that_may_leave_leaves_in_one_send_in_order() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        for frame in (b"a", b"b", b"c"):
            outbox.append((0, frame))
        assert wire.sent == b""
        outbox.flush(0)
        assert (wire.sent, wire.sends) == (b"abc", 1)
        assert not outbox.waits()

    run(script)


def test_an_entry_waits_until_what_it_needs_is_durable_and_holds_back_all_behind_it() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        outbox.append((0, b"a"))
        outbox.append((5, b"b"))
        outbox.append((0, b"c"))
        outbox.append((6, b"d"))
        outbox.flush(4)
        assert wire.sent == b"a"
        assert outbox.waits()
        outbox.flush(5)
        assert wire.sent == b"abc"
        assert outbox.waits()
        outbox.flush(9)
        assert wire.sent == b"abcd"
        assert not outbox.waits()

    run(script)


def test_what_is_put_leaves_at_once_unless_it_or_what_is_before_it_waits() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        assert not outbox.put((0, b"a"), 4)
        assert not outbox.put((4, b"b"), 4)
        assert wire.sent == b"ab"
        assert outbox.put((5, b"c"), 4)
        assert outbox.put((0, b"d"), 4)
        assert wire.sent == b"ab"
        assert not outbox.put((6, b"e"), 6)
        assert (wire.sent, wire.sends) == (b"abcde", 3)
        outbox.append((0, b"f"))
        assert not outbox.put((0, b"g"), 6)
        assert (wire.sent, wire.sends) == (b"abcdefg", 4)

    run(script)


def test_what_is_put_behind_what_the_socket_did_not_take_follows_it() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        outbox.put((0, b"abc"), 0)
        for frame in (b"d", b"e"):
            outbox.put((0, frame), 0)
        assert wire.sent == b"ab"
        wire.make_room(100)
        await trio.testing.wait_all_tasks_blocked()
        assert wire.sent == b"abcde"
        outbox.put((0, b"f"), 0)
        outbox.put((0, b"g"), 0)
        assert wire.sent == b"abcdefg"

    run(script, room=2)


def test_a_client_whose_socket_is_gone_is_cut_by_what_is_put() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        wire.close_nowait()
        for _ in range(3):
            assert not outbox.put((0, b"a"), 0)
            assert outbox.close_sent.is_set()
        assert not outbox.waits()

    run(script)


def test_pings_and_pongs_pass_what_waits_for_durability() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        outbox.append((5, b"held"))
        outbox.flush(0)
        outbox.send_control_nowait(pong_frame(b"x"))
        assert wire.sent == pong_frame(b"x")

    run(script)


def test_pings_do_not_cut_a_message_in_two_but_pass_those_behind_it() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        first, second = binary_frame(b"1" * 20), binary_frame(b"2" * 20)
        outbox.append((0, first))
        outbox.append((0, second))
        outbox.flush(0)
        outbox.send_control_nowait(ping_frame())
        assert wire.sent == first[:10]
        wire.make_room(1000)
        await trio.testing.wait_all_tasks_blocked()
        assert wire.sent == first + ping_frame() + second

    run(script, room=10)


def test_what_does_not_fit_goes_when_there_is_room_and_later_flushes_queue_behind_it() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        outbox.append((0, b"abcdef"))
        outbox.append((0, b"ghi"))
        outbox.flush(0)
        outbox.append((0, b"jkl"))
        outbox.flush(0)
        assert wire.sent == b"abcd"
        for _ in range(20):
            wire.make_room(1)
            await trio.testing.wait_all_tasks_blocked()
        assert wire.sent == b"abcdefghijkl"

    run(script, room=4)


def test_too_many_messages_behind_the_one_being_sent_cut_the_client() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        for _ in range(11):
            outbox.append((0, b"message"))
        outbox.flush(0)
        assert not wire.is_closed
        outbox.append((0, b"message"))
        outbox.flush(0)
        assert wire.is_closed
        assert outbox.is_closing
        assert not outbox.waits()

    run(script, room=3, messages_max=10)


def test_messages_held_back_for_durability_count_too() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        for _ in range(11):
            outbox.append((7, b"message"))
            outbox.flush(6)
        assert not wire.is_closed
        outbox.append((7, b"message"))
        outbox.flush(6)
        assert wire.is_closed
        assert wire.sent == b""

    run(script, messages_max=10)


@pytest.mark.parametrize("needs", [0, 9])
def test_too_many_bytes_behind_the_one_being_sent_cut_the_client_but_one_message_never_does(needs: int) -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        outbox.append((needs, b"x" * 1000))
        outbox.flush(0)
        outbox.append((needs, b"y" * 100))
        outbox.flush(0)
        assert not wire.is_closed
        outbox.append((needs, b"z"))
        outbox.flush(0)
        assert wire.is_closed

    run(script, room=5, bytes_max=100)


def test_bytes_that_left_no_longer_count() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        for offset in range(1, 200):
            outbox.append((offset, b"x" * 60))
            outbox.flush(offset - 1)
            outbox.flush(offset)
            assert not wire.is_closed
        outbox.append((500, b"head"))
        outbox.append((500, b"x" * 60))
        outbox.append((500, b"x" * 41))
        outbox.flush(400)
        assert wire.is_closed

    run(script, bytes_max=100)


def test_a_close_goes_behind_what_waits_and_nothing_goes_behind_it() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        outbox.append((3, b"held"))
        outbox.close(1011, "why")
        outbox.append((0, b"late"))
        outbox.flush(2)
        assert wire.sent == b""
        assert outbox.is_closing
        assert not outbox.close_sent.is_set()
        outbox.flush(3)
        outbox.append((0, b"later"))
        outbox.flush(3)
        outbox.send_control_nowait(ping_frame())
        assert wire.sent == b"held" + close_frame(1011, "why")
        assert outbox.close_sent.is_set()
        assert not outbox.waits()

    run(script)


def test_a_close_without_a_code_drops_the_socket_at_once() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        outbox.append((0, b"unsent"))
        outbox.close(None, "refused")
        outbox.append((0, b"late"))
        outbox.flush(9)
        assert wire.is_closed
        assert wire.sent == b""
        assert outbox.close_sent.is_set()

    run(script)


def test_an_urgent_close_overtakes_all_but_the_message_being_sent() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        outbox.append((0, b"abcdef"))
        outbox.append((0, b"dropped"))
        outbox.append((9, b"dropped"))
        outbox.flush(0)
        outbox.close_now(1000, "bye")
        assert not outbox.close_sent.is_set()
        wire.make_room(1000)
        await trio.testing.wait_all_tasks_blocked()
        assert wire.sent == b"abcdef" + close_frame(1000, "bye")
        assert outbox.close_sent.is_set()

    run(script, room=4)


def test_an_urgent_close_keeps_the_code_of_one_that_waits() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        outbox.append((9, b"held"))
        outbox.close(1011, "why")
        outbox.close_now(None)
        assert wire.sent == close_frame(1011, "why")
        outbox.close_now(1000, "again")
        assert wire.sent == close_frame(1011, "why")

    run(script)


def test_a_client_that_is_gone_is_noticed_at_the_next_send() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        wire.is_closed = True
        outbox.append((0, b"a"))
        outbox.flush(0)
        assert outbox.is_closing
        assert outbox.close_sent.is_set()

    run(script)


def test_a_client_that_goes_while_the_writer_waits_is_noticed() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        outbox.append((0, b"abc"))
        outbox.flush(0)
        wire.close_nowait()
        await outbox.close_requested.wait()
        assert outbox.close_sent.is_set()

    run(script, room=1)


def test_a_deferred_frame_keeps_its_place_and_is_encoded_in_another_thread() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        threads = []
        encoded = trio.Event()

        def encode() -> bytes:
            threads.append(threading.current_thread())
            trio.from_thread.run_sync(encoded.set)
            return b"large"

        outbox.append((0, b"a"))
        outbox.append_deferred(2, encode)
        outbox.append((2, b"z"))
        outbox.flush(1)
        assert wire.sent == b"a"
        assert outbox.waits()
        await encoded.wait()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert wire.sent == b"a"
        outbox.flush(2)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert wire.sent == b"alargez"
        assert threads != [threading.current_thread()]
        assert not outbox.waits()

    run(script)


def test_a_deferred_frame_behind_one_that_is_held_back_is_not_forgotten() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        encoded = trio.Event()

        def encode() -> bytes:
            trio.from_thread.run_sync(encoded.set)
            return b"large"

        outbox.append((5, b"held"))
        outbox.append_deferred(5, encode)
        outbox.append((5, b"z"))
        outbox.flush(4)
        await encoded.wait()
        outbox.flush(5)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert wire.sent == b"heldlargez"
        assert not outbox.waits()
        assert outbox._held_bytes == 0

    run(script)


def test_a_deferred_frame_counts_once_it_is_encoded() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        outbox.append((5, b"head"))
        outbox.append_deferred(5, lambda: b"x" * 101)
        outbox.flush(0)
        await outbox.close_requested.wait()
        assert wire.is_closed

    run(script, bytes_max=100)


def test_a_deferred_frame_leaves_by_itself_when_it_was_durable_already() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        encoded = trio.Event()

        def encode() -> bytes:
            trio.from_thread.run_sync(encoded.set)
            return b"large"

        outbox.append_deferred(2, encode)
        outbox.append((2, b"z"))
        outbox.flush(2)
        await encoded.wait()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert wire.sent == b"largez"

    run(script)


def test_a_client_that_is_gone_keeps_no_rows_alive() -> None:
    class Rows(list[bytes]):
        """Something that a weak reference can watch."""

    def deferred(outbox: Outbox) -> weakref.ref[Rows]:
        rows = Rows([b"row"])
        outbox.append_deferred(5, lambda: b"".join((bytes(id(outbox) & 1), *rows)))
        return weakref.ref(rows)

    outbox = Outbox(Wire())
    gc.disable()  # a cycle of outbox, queue and rows would only be found later
    try:
        before = deferred(outbox)
        outbox.cut()
        after = deferred(outbox)
        outbox.flush(5)
        assert before() is after() is None
    finally:
        gc.enable()


def test_a_deferred_frame_is_not_copied_together_with_what_follows_it() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        outbox.append((1, b"a"))
        outbox.append_deferred(1, lambda: b"large")
        outbox.append((1, b"y"))
        outbox.append((1, b"z"))
        await trio.testing.wait_all_tasks_blocked(0.05)
        outbox.flush(1)
        assert wire.sent == b"alargeyz"
        assert wire.sends == 4
        outbox.append((1, b"b"))
        outbox.append((1, b"c"))
        outbox.flush(1)
        assert wire.sends == 5, "small frames are joined again"

    run(script)


def test_a_deferred_frame_that_does_not_fit_keeps_its_order_and_the_close_comes_last() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        outbox.append_deferred(1, lambda: b"large")
        outbox.append((1, b"z"))
        await trio.testing.wait_all_tasks_blocked(0.05)
        outbox.close(1001, "")
        outbox.flush(1)
        assert wire.sent == b"la"
        assert not outbox.close_sent.is_set()
        wire.make_room(2)
        await trio.testing.wait_all_tasks_blocked()
        assert wire.sent == b"larg"
        wire.make_room(100)
        await outbox.close_sent.wait()
        assert wire.sent == b"largez" + close_frame(1001)

    run(script, room=2)


def test_a_client_that_goes_under_a_deferred_frame_is_noticed() -> None:
    async def script(wire: Wire, outbox: Outbox) -> None:
        outbox.append_deferred(1, lambda: b"large")
        outbox.append((1, b"z"))
        await trio.testing.wait_all_tasks_blocked(0.05)
        wire.close_nowait()
        outbox.flush(1)
        assert outbox.close_sent.is_set()

    run(script)
