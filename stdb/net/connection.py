"""Connection: one WebSocket client, from the 101 until its disconnect has run.

Responsible for: the lifetime of a client's tasks, handing its requests over in batches, pings, the idle limit, the
    close handshake, what breaks a connection (spec 02 sections 3.3 and 11).
Not responsible for: the upgrade (the front door), frames (`frames`), messages (`protocols`), what waits (`outbox`).
"""

import math
from collections.abc import Sequence
from typing import Protocol

import trio

from stdb.actors.refusals import DatabaseUnavailable
from stdb.actors.requests import Request
from stdb.actors.sink import Client, ClientSink
from stdb.errors import DecodeError
from stdb.net.frames import (
    Close,
    CloseCodeError,
    Event,
    FrameError,
    FrameReader,
    Ping,
    ping_frame,
    pong_frame,
)
from stdb.net.handshake import Handshake
from stdb.net.outbox import Outbox
from stdb.net.protocols.dialect import Dialect
from stdb.net.protocols.legacy.choice import FIRST_MESSAGE_SECONDS_MAX, choose_by_message
from stdb.net.protocols.registry import open_dialect, open_outbox
from stdb.net.stream import FrameStream
from stdb.schema.model import ModuleDef
from stdb.storage.settings import Websocket

__all__ = ["AttachedClient", "Database", "serve_client"]

LAST_ANSWERS_SECONDS_MAX = 5.0
"""A Close waits this long for answers before it to become durable; then it goes without them."""
FAREWELL_SECONDS = 0.05
"""Between the pings that go before the answer to a Close of some clients."""

_DEFAULTS = Websocket()


class AttachedClient(Protocol):
    """What a connection needs of `stdb.actors.attachment.Attachment`."""

    def submit_nowait(self, requests: Sequence[Request]) -> None:
        """Hand in requests; they are served in order."""

    def close_nowait(self, code: int | None, reason: str) -> None:
        """Close the client behind the answers to what was handed in so far; `code` None drops the socket."""

    def detach_nowait(self) -> None:
        """Leave after the requests handed in so far."""

    async def wait_detached(self) -> None:
        """Return once `client_disconnected` ran."""

    async def wait_not_crowded(self) -> None:
        """Return at once unless too many requests wait in all."""


class Database(Protocol):
    """What a connection needs of `stdb.actors.handle.DatabaseHandle`."""

    @property
    def definition(self) -> ModuleDef:
        """The definition of the running module."""

    def attach(self, client: Client, sink: ClientSink, token: str, session_id: bytes | None = None) -> AttachedClient:
        """Connect a client."""


async def serve_client(
    stream: FrameStream, handshake: Handshake, database: Database, settings: Websocket = _DEFAULTS
) -> None:
    """Serve one client until it leaves, breaks the protocol, falls too far behind or its database is gone.

    The 101 was sent; `stream` is closed at the end, and `client_disconnected` has run. May be cancelled at any time.
    """
    name, early = handshake.subprotocol, b""
    if name is None:
        early, message = await _first_message(stream)
        name = choose_by_message(message)
    outbox = open_outbox(name, stream)
    outbox.send_control_nowait(ping_frame())  # before the first message: some clients trip over one while they close
    dialect = open_dialect(name, outbox, handshake.options, lambda: database.definition)
    try:
        try:
            attachment = database.attach(handshake.client, dialect, handshake.token, handshake.options.session_id)
        except DatabaseUnavailable as error:
            outbox.close_now(1011, str(error))
            await trio.lowlevel.checkpoint()
            return
        try:
            await _Connection(stream, outbox, dialect, attachment, settings).serve(early)
        finally:
            attachment.detach_nowait()
    finally:
        outbox.cut()  # closes the stream, too
    await attachment.wait_detached()


async def _first_message(stream: FrameStream) -> tuple[bytes, bytes | str | None]:
    """Wait a little for the first message; return all that came, as it came, and the message if it is whole."""
    frames, read = FrameReader(), bytearray()
    with trio.move_on_after(FIRST_MESSAGE_SECONDS_MAX):
        while chunk := await stream.receive_some():
            read += chunk
            try:
                events = frames.receive(chunk)
            except FrameError as error:
                events = [*error.events, Close(None, "")]
            for event in events:
                if isinstance(event, bytes | str):
                    return bytes(read), event
                if isinstance(event, Close):
                    return bytes(read), None
    return bytes(read), None


class _Connection:
    """The tasks of one connection and what they share."""

    def __init__(
        self, stream: FrameStream, outbox: Outbox, dialect: Dialect, attachment: AttachedClient, settings: Websocket
    ) -> None:
        self._stream = stream
        self._outbox = outbox
        self._decode = dialect.receive
        self._attachment = attachment
        self._frames = FrameReader()
        self._manners = manners = dialect.MANNERS
        self._ping_seconds = manners.ping_seconds or settings.ping_seconds
        self._idle_seconds_max = settings.idle_seconds_max if manners.ping_seconds is None else math.inf
        self._close_seconds_max = settings.close_seconds_max
        """After our Close the client has this long to answer, then the socket is dropped."""
        self._is_deaf = False
        """The client broke the protocol: what it sends from now on is ignored."""
        self._heard_at = trio.current_time()
        """When something last came in; infinite while nobody reads."""
        self._awaits_pong = True

    async def serve(self, early: bytes) -> None:
        """Read until the end, `early` first; the reader runs here, the writer and the clock beside it."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._outbox.drain)
            nursery.start_soon(self._keep_time, nursery.cancel_scope)
            await self._read(early)
            nursery.cancel_scope.cancel()

    async def _read(self, early: bytes) -> None:
        """Hand over what the client sends, one batch a read, until it closes or the socket is gone."""
        while chunk := early or await self._stream.receive_some():
            early = b""
            self._heard_at = math.inf
            try:
                events = self._frames.receive(chunk)
            except FrameError as error:
                self._take(error.events)
                self._refuse_frames(error)
                events = []
            if close := self._take(events):
                await self._say_goodbye(close)
                return
            await self._attachment.wait_not_crowded()
            self._heard_at = trio.current_time()

    async def _say_goodbye(self, close: Close) -> None:
        """Answer the client's Close."""
        for _ in range(0 if self._outbox.is_closing else self._manners.pings_before_close):
            self._outbox.send_control_nowait(ping_frame())
            await trio.sleep(FAREWELL_SECONDS)
        self._outbox.close_now(close.code, close.reason)
        with trio.move_on_after(self._close_seconds_max):
            await self._outbox.close_sent.wait()

    def _take(self, events: list[Event]) -> Close | None:
        """Act on the events of one read, all its requests in one batch; return the client's Close."""
        outbox = self._outbox
        decode = self._decode
        requests: list[Request] = []
        refused: str | None = None
        close: Close | None = None
        for event in events:
            kind = type(event)
            if kind is bytes or kind is str:
                if refused is None:
                    try:
                        decode(event, requests)  # type: ignore[arg-type]  # a message, by its type
                    except DecodeError as error:
                        refused = str(error)
            elif kind is Ping:
                outbox.send_control_nowait(pong_frame(event.payload))  # type: ignore[union-attr]
            elif kind is Close:
                close = event  # type: ignore[assignment]
            else:
                self._awaits_pong = False
        if requests and not self._is_deaf and not outbox.is_closing:
            self._attachment.submit_nowait(requests)
        if refused is not None:
            self._refuse(1011, refused)
        return close

    def _refuse_frames(self, error: FrameError) -> None:
        """Close for bytes that are no frames, in the manner of the client's generation."""
        is_cut = self._manners.cuts_bad_frames and not isinstance(error, CloseCodeError)
        self._refuse(None if is_cut else error.code, str(error))

    def _refuse(self, code: int | None, reason: str) -> None:
        """Close behind the answers to what came before the damage."""
        if not self._is_deaf:
            self._is_deaf = True
            self._attachment.close_nowait(code, reason)

    async def _keep_time(self, scope: trio.CancelScope) -> None:
        """Ping, cut a client that is silent for too long, and end the connection soon after a Close."""
        outbox = self._outbox
        ping_at = trio.current_time() + self._ping_seconds
        while not outbox.is_closing:
            now = trio.current_time()
            if now >= self._heard_at + self._idle_seconds_max:
                outbox.cut()
            elif now >= ping_at:
                ping_at += self._ping_seconds
                if not self._awaits_pong:
                    self._awaits_pong = True
                    outbox.send_control_nowait(ping_frame())
                elif self._manners.ping_seconds is not None:
                    outbox.cut()
            with trio.move_on_at(min(ping_at, self._heard_at + self._idle_seconds_max)):
                await outbox.close_requested.wait()
        with trio.move_on_after(LAST_ANSWERS_SECONDS_MAX):
            await outbox.close_sent.wait()
        outbox.close_now(None)
        await trio.sleep(self._close_seconds_max)
        scope.cancel()
