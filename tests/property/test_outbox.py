"""The outbox under any order of messages, commits, full sockets, pings and closes, against a list."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stdb.net.frames import binary_frame, close_frame, pong_frame
from stdb.net.outbox import Outbox
from tests.websocket_bytes import server_frames
from tests.websocket_server import whole

MESSAGES_MAX, BYTES_MAX = 12, 600


class Wire:
    """Takes `room` bytes, then none."""

    def __init__(self) -> None:
        self.room = 0
        self.sent = b""
        self.is_closed = False

    def send_nowait(self, data: bytes | memoryview) -> int:
        if self.is_closed:
            raise BrokenPipeError
        if not self.room:
            raise BlockingIOError
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        self.sent += taken
        return len(taken)

    async def wait_writable(self) -> None:
        raise AssertionError("the machine pushes by itself")

    async def receive_some(self) -> bytes:
        raise AssertionError("nobody reads")

    def close_nowait(self) -> None:
        self.is_closed = True


class OutboxMachine(RuleBasedStateMachine):
    """`told` is what was appended, in order, as (needs, frame); what the wire holds must be a prefix of it."""

    @initialize(room=st.integers(1, 60))
    def start(self, room: int) -> None:
        self.wire = Wire()
        self.wire.room = room
        self.outbox = Outbox(self.wire, MESSAGES_MAX, BYTES_MAX)
        self.told: list[tuple[int, bytes]] = []
        self.pongs = 0
        self.durable = 0
        self.offset = 0
        self.number = 0
        self.close: bytes | None = None
        self.is_urgent = False

    @rule(confirmed=st.booleans(), size=st.integers(0, 60))
    def tell(self, confirmed: bool, size: int) -> None:
        self.offset += 1
        self.number += 1
        entry = (self.offset if confirmed else 0, binary_frame(b"%d:" % self.number + b"x" * size))
        self.outbox.append(entry)
        if self.close is None:
            self.told.append(entry)

    @rule(confirmed=st.booleans(), size=st.integers(0, 60))
    def tell_at_once(self, confirmed: bool, size: int) -> None:
        self.offset += 1
        self.number += 1
        entry = (self.offset if confirmed else 0, binary_frame(b"%d:" % self.number + b"z" * size))
        assert self.outbox.put(entry, self.durable) == self.outbox.waits()
        if self.close is None:
            self.told.append(entry)

    @rule(size=st.integers(0, 60))
    def defer(self, size: int) -> None:
        self.number += 1
        frame = binary_frame(b"%d:" % self.number + b"y" * size)
        self.outbox.append_deferred(self.offset, lambda: frame)
        if self.close is None:
            self.told.append((self.offset, frame))

    @rule()
    def encode(self) -> None:
        if self.outbox._unencoded:
            deferred = self.outbox._unencoded.popleft()
            self.outbox._fill(deferred, deferred.encode())

    @rule(behind=st.integers(0, 3))
    def flush(self, behind: int) -> None:
        self.durable = max(self.durable, self.offset - behind)
        self.outbox.flush(self.durable)

    @rule()
    def pong(self) -> None:
        self.pongs += 1
        self.outbox.send_control_nowait(pong_frame(b"p"))

    @rule(room=st.integers(1, 40))
    def make_room(self, room: int) -> None:
        self.wire.room += room
        self.outbox._push()

    @precondition(lambda self: self.close is None and self.number > 3)
    @rule(urgent=st.booleans())
    def end(self, urgent: bool) -> None:
        self.close = close_frame(1011, "why")
        self.is_urgent = urgent
        if urgent:
            self.outbox.close_now(1011, "why")
        else:
            self.outbox.close(1011, "why")

    @precondition(lambda self: self.close is not None and not self.wire.is_closed and self.number % 4 == 0)
    @rule()
    def hurry(self) -> None:
        self.is_urgent = True
        self.outbox.close_now(None)

    def sent(self) -> list[tuple[int, bytes]]:
        return server_frames(whole(self.wire.sent))

    @invariant()
    def what_left_is_a_prefix_of_what_was_told_and_durable(self) -> None:
        if not hasattr(self, "wire"):
            return
        data = [frame for frame in self.sent() if frame[0] == 0x82]
        told = [server_frames(frame)[0] for _, frame in self.told]
        assert data == told[: len(data)]
        assert all(needs <= self.durable for needs, _ in self.told[: len(data)])
        assert sum(frame[0] == 0x8A for frame in self.sent()) <= self.pongs

    @invariant()
    def a_close_is_the_last_and_comes_behind_all_unless_urgent(self) -> None:
        if not hasattr(self, "wire"):
            return
        frames = self.sent()
        kinds = [first for first, _ in frames]
        assert kinds.count(0x88) <= 1
        if 0x88 in kinds:
            assert kinds[-1] == 0x88
            assert self.outbox.is_closing
            if not self.is_urgent:
                assert kinds.count(0x82) == len(self.told)

    @invariant()
    def bounds_hold_and_nothing_is_miscounted(self) -> None:
        if not hasattr(self, "wire"):
            return
        box: Any = self.outbox
        counted = [len(frame) for _, frame in list(box._entries)[: box._counted]]
        assert box._held_bytes == sum(counted)
        assert box._sending_bytes == sum(map(len, box._sending))
        assert box._deferred >= len(box._unencoded)
        assert not box._is_plain or box._looks_plain()
        if box._counted == len(box._entries) and not self.wire.is_closed:
            assert box._counted + len(box._sending) - 1 <= MESSAGES_MAX

    def teardown(self) -> None:
        """With room and durability for all, everything leaves unless the client was cut or the close was urgent."""
        if not hasattr(self, "wire"):
            return
        while self.outbox._unencoded:
            self.encode()
        self.wire.room = 1 << 30
        self.outbox._push()
        self.durable = self.offset
        self.outbox.flush(self.durable)
        self.outbox._push()
        if not self.wire.is_closed and not self.is_urgent:
            assert [frame[0] for frame in self.sent()].count(0x82) == len(self.told)
        if self.close is not None and not self.wire.is_closed:
            assert self.sent()[-1] == server_frames(self.close)[0]
            assert self.outbox.close_sent.is_set()
        assert not self.outbox.waits() or self.wire.is_closed


OutboxMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestOutbox = OutboxMachine.TestCase
