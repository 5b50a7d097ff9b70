"""PacedOutbox: an outbox that rests behind every message, the longer the larger the message was.

Responsible for: the pauses that clients need which take each message in a thread of its own and so lose the order of
messages that come at once (the Python SDK 0.7; spec 03 section 11.3).
Not responsible for: everything else an outbox does (`outbox`).
"""

import trio

from stdb.net.outbox import Deferred, Entry, Outbox
from stdb.net.stream import FrameStream

__all__ = ["BYTES_A_SECOND", "PAUSE_SECONDS_MAX", "PacedOutbox"]

BYTES_A_SECOND = 1_000_000
"""What such a client is given time for: it reads JSON and makes objects of it."""
PAUSE_SECONDS_MAX = 2.0


class PacedOutbox(Outbox):
    """The queue of one client that needs pauses."""

    __slots__ = ("_owed_bytes", "_rests_until")

    def __init__(self, stream: FrameStream) -> None:
        super().__init__(stream)
        self._is_plain = False
        self._rests_until = 0.0
        self._owed_bytes = 0
        """Size of a message that the socket did not take whole: the pause begins when it has."""

    def put(self, entry: Entry, durable: int) -> bool:
        """Do what `append` and then `flush` do."""
        self.append(entry)
        return self.flush(durable)

    def flush(self, durable: int) -> bool:
        """Send the head if it may leave and the pause is over; return `waits()`."""
        self._durable = durable
        while self._entries and not self._is_over and not self._sending and not self._rests():
            frame = self._take_head(durable)
            if frame is None:
                break
            self._send([frame])
            self._rest_behind(len(frame))
        if self._is_over:
            self._entries.clear()
        elif self._entries or self._sending:
            self._check_bounds()
            if self._rests():
                self._wake.set()
        return bool(self._entries)

    def close_now(self, code: int | None, reason: str = "") -> None:
        """Send a Close behind the message being sent, without a pause."""
        self._rests_until = 0.0
        super().close_now(code, reason)

    async def drain(self) -> None:
        """Send what did not fit, encode what was deferred, end pauses, until cancelled: the client's writer task."""
        while True:
            if self._sending or self._unencoded:
                await self._drain_once()
            else:
                self._wake = trio.Event()
                is_waiting = bool(self._entries) and self._rests()
                with trio.move_on_at(self._rests_until if is_waiting else float("inf")) as pause:
                    await self._wake.wait()
                if pause.cancelled_caught:
                    self.flush(self._durable)

    def _rests(self) -> bool:
        return trio.current_time() < self._rests_until

    def _take_head(self, durable: int) -> bytes | None:
        """Take the next frame; None when it may not leave yet."""
        needs, frame = self._entries[0]
        if needs > durable or not len(frame):
            return None
        self._entries.popleft()
        if self._counted:
            self._counted -= 1
            self._held_bytes -= len(frame)
        if isinstance(frame, Deferred):
            self._deferred -= 1
            return frame.frame
        return frame

    def _rest_behind(self, size: int) -> None:
        if self._sending:
            self._owed_bytes = size
        else:
            self._owed_bytes = 0
            self._rests_until = trio.current_time() + min(size / BYTES_A_SECOND, PAUSE_SECONDS_MAX)

    def _push(self) -> None:
        super()._push()
        if not self._sending and self._owed_bytes:
            self._rest_behind(self._owed_bytes)
            self.flush(self._durable)

    def _looks_plain(self) -> bool:
        return False
