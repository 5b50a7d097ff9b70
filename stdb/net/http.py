"""HTTP/1.1 on one connection: requests in, responses out, what is left over handed to whoever upgrades.

Responsible for: parsing (h11's), framing, keep-alive, limits of time and size, half-read bodies, streaming answers.
Not responsible for: which path means what (`routing`), refusals in words (`errors`), accepting (`front_door`).

Source: spec 05 section 1.1. Nobody can hold a connection by being slow: a request head and every next piece of a
body or answer have their time.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple, TypeVar

import h11
import trio

from stdb.errors import RequestError, StdbError
from stdb.net.stream import FrameStream

__all__ = ["BODY_BYTES_MAX", "BodyTooLarge", "Headers", "HttpConnection", "Request", "Response"]

BODY_BYTES_MAX = 2 * 1024 * 1024
"""The limit of every route that has none of its own."""
TARGET_BYTES_MAX = 64 * 1024 - 2
HEAD_BYTES_MAX = 448 * 1024
HEAD_SECONDS_MAX = 30.0
"""From the first byte of a request to the end of its head."""
IDLE_SECONDS_MAX = 120.0
"""Between two requests."""
PIECE_SECONDS_MAX = 30.0
"""For every next piece of a body, and of an answer that the client must take."""
DISCARD_BYTES_MAX = 1024 * 1024 * 1024
DISCARD_SECONDS_MAX = 10.0
"""For a body that nobody wants: it is taken off the wire so that the client sees the answer."""

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus} | {418: b"I'm a teapot", 530: b"<none>"}


class BodyTooLarge(RequestError):  # noqa: N818 - named like the status it becomes
    """The body of a request is longer than its route allows."""

    def __init__(self) -> None:
        super().__init__("Failed to buffer the request body: length limit exceeded")


class Headers(NamedTuple):
    """Header lines of a request; names in lower case."""

    lines: tuple[tuple[bytes, bytes], ...]

    def get(self, name: str) -> bytes | None:
        """Return the first value, or None."""
        wanted = name.encode()
        return next((value for key, value in self.lines if key == wanted), None)

    def all(self, name: str) -> list[str]:
        """Return all values, as text."""
        wanted = name.encode()
        return [value.decode("latin-1") for key, value in self.lines if key == wanted]


class Request(NamedTuple):
    """The head of a request."""

    method: str
    path: str
    """Without the query, still percent-encoded."""
    query: str
    """Still percent-encoded."""
    headers: Headers
    origin: str = ""
    """Scheme and authority of a target that has them, `http://example.com`."""
    version: str = "1.1"
    """Of HTTP."""


Result = TypeVar("Result")


class Response(NamedTuple):
    """An answer. A streamed body is sent chunk by chunk until it ends or the client leaves."""

    status: int
    headers: tuple[tuple[str, str | bytes], ...] = ()
    """`date` and `content-length` are added where they are not among them."""
    body: bytes | AsyncGenerator[bytes, None] = b""


class HttpConnection:
    """One client's connection while it speaks HTTP."""

    def __init__(self, stream: FrameStream) -> None:
        self._stream = stream
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._has_held_back = False
        """The client waited for our word before it sent its body, and never got it."""
        self.bytes_sent = 0
        """Bytes of answered bodies; whoever counts them sets it back."""
        self.about: bytes | None = None
        """Identity of the database that the request is about, once that is known."""

    async def next_request(self) -> Request | None:
        """Return the next request, or None when the client is done.

        Raises:
            h11.RemoteProtocolError: What arrived is no HTTP; `error_status_hint` is the status to answer.
            trio.TooSlowError: The head did not arrive in time.
        """
        event = self._h11.next_event()
        if event is h11.NEED_DATA and not self._h11.trailing_data[0]:
            with trio.move_on_after(IDLE_SECONDS_MAX) as waiting:
                self._h11.receive_data(await self._receive_some())
            if waiting.cancelled_caught:
                return None
            event = self._h11.next_event()
        with trio.fail_after(HEAD_SECONDS_MAX):
            while event is h11.NEED_DATA:
                self._h11.receive_data(await self._receive_some())
                event = self._h11.next_event()
        if not isinstance(event, h11.Request):
            return None
        if len(event.target) > TARGET_BYTES_MAX:
            raise h11.RemoteProtocolError("the URI is too long", error_status_hint=414)
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in event.headers}:  # smuggled, RFC 9112 6.3
            raise h11.RemoteProtocolError("the body has two lengths", error_status_hint=400)
        origin, target = _target(event.target)
        path, _, query = target.partition("?")
        method, version = event.method.decode("latin-1"), event.http_version.decode("latin-1")
        return Request(method, path, query, Headers(tuple(event.headers)), origin, version)

    async def read_body(
        self, limit: int = BODY_BYTES_MAX, received: Callable[[int], None] = lambda _size: None
    ) -> bytes:
        """Return the whole body of the request; `received` is told of the bytes of each piece and may raise.

        Raises:
            BodyTooLarge: It is longer than `limit` bytes.
            h11.RemoteProtocolError: It is framed wrongly, or the client left.
            trio.TooSlowError: It stopped coming.
        """
        pieces: list[bytes] = []
        size = 0
        while piece := await self._next_piece():
            size += len(piece)
            if size > limit:
                raise BodyTooLarge
            received(len(piece))
            pieces.append(piece)
        return b"".join(pieces)

    async def body_pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the body of the request piece by piece, however long it is. Raises as `read_body`."""
        while piece := await self._next_piece():
            yield piece

    async def while_connected(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Return what `work` returns; it is cancelled when the client leaves meanwhile. The body is read before.

        Raises:
            trio.BrokenResourceError: The client left.
        """
        results: list[Result] = []
        failure: StdbError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_at_hangup, nursery.cancel_scope)
            try:
                results.append(await work())
            except StdbError as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # which refers to this frame
        if not results:
            raise trio.BrokenResourceError("the client left before it was answered")
        return results[0]

    async def send(self, response: Response, *, is_head: bool = False) -> None:
        """Send an answer; afterwards the connection is ready for the next request or closes by itself."""
        headers = [(name.encode(), _bytes(value)) for name, value in response.headers]
        names = {name for name, _ in headers}
        if b"date" not in names:
            headers.append((b"date", formatdate(usegmt=True).encode()))
        if isinstance(response.body, bytes) and response.status not in (204, 304) and b"content-length" not in names:
            headers.append((b"content-length", b"%d" % len(response.body)))
        self._has_held_back = self._h11.they_are_waiting_for_100_continue
        reason = _REASONS.get(response.status, b"")
        head = h11.Response(status_code=response.status, headers=headers, reason=reason)
        if isinstance(response.body, bytes):
            await self._send_whole(head, b"" if is_head else response.body)
        else:
            await self._send_stream(head, response.body, is_head=is_head)

    async def finish(self) -> bool:
        """Take the rest of the request off the wire; tell whether another request may follow."""
        if self._h11.their_state is h11.SEND_BODY and not self._has_held_back:
            with trio.move_on_after(DISCARD_SECONDS_MAX):
                await self._discard_body()
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            return True
        return False

    async def send_refusal(self, status: int) -> None:
        """Answer bytes that were no request, if anything can still be said, and be done."""
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            head = h11.Response(
                status_code=status,
                headers=[("content-length", "0"), ("connection", "close"), ("date", formatdate(usegmt=True))],
                reason=_REASONS.get(status, b""),
            )
            await self._send_whole(head, b"")
            with trio.move_on_after(1.0):
                while await self._stream.receive_some():
                    pass  # closing with unread bytes would take the answer from the client

    async def upgrade(self, headers: tuple[tuple[str, str], ...]) -> FrameStream:
        """Answer 101 and hand the stream over; this object is used up."""
        data = self._h11.send(h11.InformationalResponse(status_code=101, headers=list(headers), reason=_REASONS[101]))
        await self._send_all(data)
        received, _ = self._h11.trailing_data
        return _Resumed(self._stream, received) if received else self._stream

    # ------------------------------------------------------------------ inside
    async def _next_piece(self) -> bytes:
        """Return the next bytes of the body; empty at its end."""
        if self._h11.they_are_waiting_for_100_continue:
            data = self._h11.send(h11.InformationalResponse(status_code=100, headers=[], reason=_REASONS[100]))
            await self._send_all(data)
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            with trio.fail_after(PIECE_SECONDS_MAX):
                self._h11.receive_data(await self._receive_some())
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def _discard_body(self) -> None:
        size = 0
        try:
            while size < DISCARD_BYTES_MAX and self._h11.their_state is h11.SEND_BODY:
                event = self._h11.next_event()
                if event is h11.NEED_DATA:
                    self._h11.receive_data(await self._receive_some())
                elif isinstance(event, h11.Data):
                    size += len(event.data)
        except h11.RemoteProtocolError:
            return

    async def _send_whole(self, head: h11.Response, body: bytes) -> None:
        data = self._h11.send(head) or b""
        if body:
            data += self._h11.send(h11.Data(data=body)) or b""
            self.bytes_sent += len(body)
        data += self._h11.send(h11.EndOfMessage()) or b""
        await self._send_all(data)

    async def _send_stream(self, head: h11.Response, body: AsyncGenerator[bytes, None], *, is_head: bool) -> None:
        await self._send_all(self._h11.send(head))
        failure: OSError | trio.BrokenResourceError | trio.ClosedResourceError | trio.TooSlowError | None = None
        if not is_head:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_for_hangup, nursery.cancel_scope)
                try:
                    async with aclosing(body):
                        async for piece in body:
                            self.bytes_sent += len(piece)
                            await self._send_all(self._h11.send(h11.Data(data=piece)))
                except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
                    failure = error
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        await self._send_all(self._h11.send(h11.EndOfMessage()))

    async def _watch_for_hangup(self, sending: trio.CancelScope) -> None:
        """End a streamed answer when its reader leaves, or sends more than it should before it ends."""
        await self._wait_hangup()
        sending.cancel()

    async def _cancel_at_hangup(self, work: trio.CancelScope) -> None:
        if await self._wait_hangup():
            work.cancel()

    async def _wait_hangup(self) -> bool:
        """Wait until the client leaves, or sends more than it should before it is answered; tell whether it left."""
        waiting = 0
        while waiting < HEAD_BYTES_MAX:
            data = await self._receive_some()
            if not data:
                return True
            self._h11.receive_data(data)
            waiting += len(data)
        return False

    async def _receive_some(self) -> bytes:
        try:
            return await self._stream.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def _send_all(self, data: bytes | None) -> None:
        rest = memoryview(data or b"")
        while rest:
            try:
                rest = rest[self._stream.send_nowait(rest) :]
            except BlockingIOError:
                with trio.fail_after(PIECE_SECONDS_MAX):
                    await self._stream.wait_writable()
            except OSError as error:
                raise trio.BrokenResourceError("the client left before its answer was sent") from error


class _Resumed:
    """A stream some of whose bytes were read already."""

    def __init__(self, stream: FrameStream, received: bytes) -> None:
        self._stream = stream
        self._received = received
        self.send_nowait = stream.send_nowait
        self.wait_writable = stream.wait_writable
        self.close_nowait = stream.close_nowait

    async def receive_some(self) -> bytes:
        """Return the bytes that were read already, then those of the stream."""
        if not self._received:
            return await self._stream.receive_some()
        await trio.lowlevel.checkpoint()
        received, self._received = self._received, b""
        return received


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1")


def _target(target: bytes) -> tuple[str, str]:
    """Return a request target in two: scheme and authority, empty unless it is absolute, and path with query."""
    text = target.decode("latin-1").partition("#")[0]
    if text.startswith("/"):
        return "", text
    scheme, mark, rest = text.partition("://")
    authority, _, path = rest.partition("/")
    return (f"{scheme}://{authority}", f"/{path}") if mark else ("", text)
