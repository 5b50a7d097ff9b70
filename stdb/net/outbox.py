"""Outbox: what waits to be sent to one client, in order, within bounds.

Responsible for: holding entries until they are durable, one joined send a flush, the rest when the socket takes it,
    the bound that cuts a client too slow to listen, the place of the Close frame.
Not responsible for: what the bytes mean (`protocols`), when to flush (the database actor).

An entry is `(needs, frame)`: `frame` leaves when `needs` transactions are durable and all entries before it have left
(DESIGN decisions 6 and 8). Nothing here blocks but `drain`, the client's writer task.
"""

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import TypeAlias

import trio

from stdb.net.frames import close_frame
from stdb.net.stream import FrameStream

__all__ = ["WAITING_BYTES_MAX", "WAITING_MESSAGES_MAX", "Deferred", "Entry", "Outbox"]

WAITING_MESSAGES_MAX = 16_384
WAITING_BYTES_MAX = 64 * 1024 * 1024
"""What may wait behind the message being sent; a client with more is cut. One message alone is never refused."""


ENCODERS_MAX = 2
"""Large answers that are encoded at a time, of all clients: each holds all its rows once more until it is sent."""
_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("encoders")


def _encoders() -> trio.CapacityLimiter:
    """Return what lets ENCODERS_MAX encode at a time, one for all clients of the running event loop."""
    try:
        return _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(ENCODERS_MAX)
        _limiter.set(limiter)
        return limiter


class Deferred:
    """A place in the queue whose frame is encoded later; its length is what of it is encoded by now."""

    __slots__ = ("encode", "frame", "is_counted")

    def __init__(self, encode: Callable[[], bytes]) -> None:
        self.encode = encode
        self.frame = b""
        """Empty until it is encoded."""
        self.is_counted = False

    def __len__(self) -> int:
        return len(self.frame)


Entry: TypeAlias = tuple[int, bytes]
"""`(needs, frame)`; clients that are told the same may share it."""


class Outbox:
    """The queue of one client. `append` takes an entry; it is the bare method of a deque, for speed."""

    __slots__ = (
        "_bytes_max",
        "_close_frame",
        "_counted",
        "_deferred",
        "_durable",
        "_entries",
        "_held_bytes",
        "_is_over",
        "_is_plain",
        "_messages_max",
        "_send_nowait",
        "_sending",
        "_sending_bytes",
        "_stream",
        "_unencoded",
        "_wake",
        "append",
        "close_requested",
        "close_sent",
    )

    def __init__(
        self,
        stream: FrameStream,
        messages_max: int = WAITING_MESSAGES_MAX,
        bytes_max: int = WAITING_BYTES_MAX,
    ) -> None:
        self._stream = stream
        self._send_nowait = stream.send_nowait
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._entries: deque[tuple[int, bytes | Deferred]] = deque()
        """In order, not yet allowed to leave (or not yet looked at: everything since the last flush)."""
        self.append: Callable[[Entry], None] = self._entries.append
        self._is_plain = True
        """Nothing special is going on: the only frame that waits may simply be sent. Never True when `_looks_plain` is
        not; False until the next look when that has become True."""
        self._counted = 0
        self._held_bytes = 0
        """Bytes of the first `_counted` entries."""
        self._sending: deque[bytes | memoryview] = deque()
        """May leave, but the socket was full; the first is perhaps sent in part."""
        self._sending_bytes = 0
        self._durable = 0
        self._deferred = 0
        """How many entries are places kept by `append_deferred`, encoded or not."""
        self._unencoded: deque[Deferred] = deque()
        self._close_frame: bytes | None = None
        self._is_over = False
        self._wake = trio.Event()
        self.close_requested = trio.Event()
        """Set when a Close (or the end) was asked for."""
        self.close_sent = trio.Event()
        """Set when the Close frame is with the kernel, or never will be."""

    @property
    def is_closing(self) -> bool:
        """Tell whether the end was asked for."""
        return self.close_requested.is_set()

    def append_deferred(self, needs: int, encode: Callable[[], bytes]) -> None:
        """Reserve a place for the frame that `encode` returns; the writer task calls it in a worker thread."""
        if self._is_over:  # nobody will call it, and it may hold many rows
            return
        deferred = Deferred(encode)
        self._entries.append((needs, deferred))
        self._unencoded.append(deferred)
        self._deferred += 1
        self._is_plain = False
        self._wake.set()

    def waits(self) -> bool:
        """Tell whether entries are left that may not leave yet."""
        return bool(self._entries)

    def put(self, entry: Entry, durable: int) -> bool:
        """Do what `append` and then `flush` do, of an entry that may not leave yet the first: most of a fan-out."""
        needs, frame = entry
        if needs > durable:
            self.append(entry)
            return True
        if self._is_plain and not self._entries:
            self._send_only(frame)
            return False
        self.append(entry)
        return self.flush(durable)

    def flush(self, durable: int) -> bool:
        """Send the entries from the head whose `needs` is at most `durable`, joined into one send; return `waits()`."""
        self._durable = durable
        entries = self._entries
        if not entries:
            return False
        if self._is_plain and len(entries) == 1 and entries[0][0] <= durable:
            self._send_only(entries.popleft()[1])  # type: ignore[arg-type]  # none is deferred
            return False
        if self._is_over:
            entries.clear()
            return False
        has_large = self._deferred > 0
        if has_large or self._close_frame is not None:
            ready = self._take_carefully(durable)
        else:
            ready = []
            take = entries.popleft
            while entries and entries[0][0] <= durable:
                ready.append(take()[1])  # type: ignore[arg-type]  # none is deferred
        if self._counted:
            counted = min(self._counted, len(ready))
            self._counted -= counted
            self._held_bytes -= sum(map(len, ready[:counted]))
        if ready:
            if has_large and len(ready) > 1 and not self._sending:
                self._send_apart(ready)
            else:
                self._send(ready)
        if entries or self._sending:
            self._check_bounds()
        self._is_plain = self._looks_plain()
        return bool(entries)

    def send_control_nowait(self, frame: bytes) -> None:
        """Send a ping or pong past everything that waits, but not into the middle of a message."""
        if self._is_over or self._close_frame is not None:
            return
        if self._sending:
            self._sending.insert(1, frame)
            self._sending_bytes += len(frame)
            self._check_bounds()
        else:
            self._send([frame])

    def close(self, code: int | None, reason: str) -> None:
        """Put a Close behind what waits; entries after it never leave. `code` None drops the socket at once."""
        if code is None:
            self.cut()
        elif not self._is_over and self._close_frame is None:
            self._close_frame = close_frame(code, reason)
            self._is_plain = False
            self.append((0, self._close_frame))
            self.close_requested.set()
            self.flush(self._durable)

    def close_now(self, code: int | None, reason: str = "") -> None:
        """Send a Close behind the message being sent; what else waits is dropped.

        A Close already waiting keeps its code; after one that was sent nothing happens.
        """
        if self._is_over:
            return
        self._drop_entries()
        while len(self._sending) > 1:
            self._sending_bytes -= len(self._sending.pop())
        if self._close_frame is None:
            self._close_frame = close_frame(code, reason)
        self._is_plain = False
        self.append((0, self._close_frame))
        self.close_requested.set()
        self.flush(self._durable)

    def cut(self) -> None:
        """Drop the socket without a Close frame, with all that waits."""
        self._is_over = True
        self._is_plain = False
        self._drop_entries()
        self._sending.clear()
        self._sending_bytes = 0
        self._stream.close_nowait()
        self.close_requested.set()
        self.close_sent.set()

    async def drain(self) -> None:
        """Send what did not fit and encode what was deferred, until cancelled: the client's writer task."""
        while True:
            if self._sending or self._unencoded:
                await self._drain_once()
            else:
                self._wake = trio.Event()
                await self._wake.wait()

    async def _drain_once(self) -> None:
        """Send more of what did not fit, else encode what was deferred."""
        if not self._sending:
            await self._encode_next()
            return
        try:
            await self._stream.wait_writable()
        except (OSError, trio.ClosedResourceError):
            self.cut()
        self._push()

    async def _encode_next(self) -> None:
        """Encode the oldest deferred frame in a worker thread, and send it if it may leave."""
        deferred = self._unencoded.popleft()
        frame = await trio.to_thread.run_sync(deferred.encode, abandon_on_cancel=True, limiter=_encoders())
        self._fill(deferred, frame)

    def _fill(self, deferred: Deferred, frame: bytes) -> None:
        """Put a frame into the place kept for it."""
        deferred.frame = frame
        if deferred.is_counted:
            self._held_bytes += len(frame)
        self.flush(self._durable)

    def _drop_entries(self) -> None:
        """Forget what has not left the queue."""
        for _, frame in self._entries if self._deferred else ():
            if isinstance(frame, Deferred):
                frame.is_counted = False
        self._entries.clear()
        self._unencoded.clear()
        self._counted = self._held_bytes = self._deferred = 0

    def _take_carefully(self, durable: int) -> list[bytes]:
        """Take what may leave while some entry is not encoded yet, or one is the Close and the last."""
        entries = self._entries
        ready: list[bytes] = []
        while entries and entries[0][0] <= durable:
            frame = entries[0][1]
            if isinstance(frame, Deferred):
                if not frame.frame:
                    break
                self._deferred -= 1
                frame = frame.frame
            entries.popleft()
            ready.append(frame)
            if frame is self._close_frame:
                break
        return ready

    def _looks_plain(self) -> bool:
        return not (self._deferred or self._counted or self._sending or self._is_over or self._close_frame is not None)

    def _send_only(self, frame: bytes) -> None:
        """Send the only frame there is."""
        try:
            sent = self._send_nowait(frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.cut()
            return
        if sent < len(frame):
            self._keep_rest([frame], sent)

    def _send(self, ready: list[bytes]) -> None:
        """Send what may leave, or queue it behind what does not fit already."""
        if self._sending:
            self._sending.extend(ready)
            self._sending_bytes += sum(map(len, ready))
            self._after_close(ready)
            return
        data = ready[0] if len(ready) == 1 else b"".join(ready)
        try:
            sent = self._send_nowait(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.cut()
            return
        if sent < len(data):
            self._keep_rest(ready, sent)
        self._after_close(ready)

    def _send_apart(self, ready: list[bytes]) -> None:
        """Send what may leave frame by frame: to join a large one with others would copy it."""
        self._sending.extend(ready)
        self._sending_bytes += sum(map(len, ready))
        self._after_close(ready)
        self._push()
        if self._sending:
            self._wake.set()

    def _after_close(self, sent: list[bytes]) -> None:
        """When the Close frame left the queue: let nothing follow it."""
        if self._close_frame is not None and sent[-1] is self._close_frame:
            self._drop_entries()
            self._is_over = True
            if not self._sending:
                self.close_sent.set()

    def _keep_rest(self, frames: list[bytes], sent: int) -> None:
        """Keep what the socket did not take, frame by frame, so that the bounds can count messages."""
        self._is_plain = False
        for frame in frames:
            size = len(frame)
            if sent >= size:
                sent -= size
            else:
                self._sending.append(memoryview(frame)[sent:] if sent else frame)
                self._sending_bytes += size - sent
                sent = 0
        self._wake.set()

    def _push(self) -> None:
        """Send what waits for the socket until it is full again."""
        sending = self._sending
        try:
            while sending:
                frame = sending[0]
                sent = self._send_nowait(frame)
                self._sending_bytes -= sent
                if sent < len(frame):
                    sending[0] = memoryview(frame)[sent:]
                    return
                sending.popleft()
        except BlockingIOError:
            return
        except OSError:
            self.cut()
        if self._is_over:
            self.close_sent.set()

    def _check_bounds(self) -> None:
        """Cut a client behind whose current message too much waits."""
        entries = self._entries
        uncounted = islice(reversed(entries), len(entries) - self._counted)
        if self._deferred:
            for _, frame in uncounted:
                self._held_bytes += len(frame)
                if isinstance(frame, Deferred):
                    frame.is_counted = True
        else:
            self._held_bytes += sum([len(frame) for _, frame in uncounted])
        self._counted = len(entries)
        head = self._sending[0] if self._sending else entries[0][1] if entries else b""
        if (
            len(entries) + len(self._sending) - 1 > self._messages_max
            or self._held_bytes + self._sending_bytes - len(head) > self._bytes_max
        ):
            self.cut()
