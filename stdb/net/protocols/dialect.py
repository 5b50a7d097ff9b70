"""Dialect: what all WebSocket protocols share of being one client's way in and out.

Responsible for: the base of every dialect, its options, queueing of encoded messages, small and large.
Not responsible for: message layouts (one dialect a file), when entries leave (`stdb.net.outbox`).

A dialect is the `ClientSink` of one connection and the decoder of what that connection sends.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, NamedTuple

from stdb.actors.requests import OneOffStatements, Request
from stdb.actors.sink import ClientSink
from stdb.net.outbox import Entry, Outbox
from stdb.net.protocols.rows import bytes_of, let_go
from stdb.net.protocols.wire import Compression
from stdb.schema.model import ModuleDef
from stdb.subscriptions.fragment import ClientUpdate, Fragment, TransactionEvent

__all__ = ["ConnectionOptions", "Dialect", "Manners"]

_ROWS_AT_ONCE_MAX = 4096
_BYTES_AT_ONCE_MAX = 1024 * 1024
"""Initial answers above either bound are encoded in a worker thread; their place in the queue is kept."""


class ConnectionOptions(NamedTuple):
    """What a client chose in the query string of its upgrade; spec 02 section 1.1, spec 09 section 2.2."""

    connection_id: bytes | None = None
    """16 bytes, little-endian; None: the server draws one."""
    compression: Compression = Compression.BROTLI
    light: bool = False
    confirmed: bool | None = None
    """None: the default of the protocol."""
    session_id: bytes | None = None
    """16 bytes, little-endian; the same for every attempt of one client object."""


class Manners(NamedTuple):
    """How the connections of a generation of clients behave beside their messages."""

    ping_seconds: float | None = None
    """Between two pings; None: as configured. Given, a ping that was not answered before the next one is the end, else
    silence is."""
    cuts_bad_frames: bool = False
    """Bytes that are no frames end the connection without a Close."""
    is_paced: bool = False
    """Its clients lose the order of messages that come at once."""
    pings_before_close: int = 0
    """Pings that go before the answer to a Close: some clients sleep through the answer alone."""


class Dialect(ClientSink, ABC):
    """One client's protocol. The database actor calls the sink's methods, the connection's reader `receive`."""

    __slots__ = (
        "_append",
        "_compression",
        "_definition",
        "_frame_key",
        "_light",
        "_update_key",
        "confirmed",
        "outbox",
    )
    NAME: ClassVar[str]
    FORM: ClassVar[str]
    """Protocols of one form send the same bytes."""
    CONFIRMED_BY_DEFAULT: ClassVar[bool]
    MANNERS: ClassVar[Manners] = Manners()

    def __init__(self, outbox: Outbox, options: ConnectionOptions, definition: Callable[[], ModuleDef]) -> None:
        """Write into `outbox`; `definition` tells what the module declares now (it may be replaced under us)."""
        self.outbox = outbox
        self.confirmed = self.CONFIRMED_BY_DEFAULT if options.confirmed is None else options.confirmed
        self._compression = options.compression
        self._light = options.light
        self._definition = definition
        self._append = outbox.append
        self._frame_key = f"{self.FORM} {options.compression.value}"
        """Of an update's frame in its cache, shared by all clients of this form and compression."""
        self._update_key = sys.intern(f"{self._frame_key} {self._light} {self.confirmed}")
        """Of an update's entry in its cache, shared by all clients who are told the same at the same time."""

    @abstractmethod
    def receive(self, message: bytes | str, requests: list[Request]) -> None:
        """Append the requests that `message` holds.

        Raises:
            DecodeError: It does not decode; requests before the damage were appended.
        """

    def update(self, event: TransactionEvent, update: ClientUpdate) -> None:
        """Tell of a transaction that this client did not call."""
        self._append(update.cache.get(self._update_key) or self._update_entry(event, update))

    def update_at_once(self, event: TransactionEvent, update: ClientUpdate, durable: int) -> bool:
        """Do what `update` and then `flush` do."""
        return self.outbox.put(update.cache.get(self._update_key) or self._update_entry(event, update), durable)

    def _update_entry(self, event: TransactionEvent, update: ClientUpdate) -> Entry:
        """Return the entry of an update, and keep it for everybody who is told the same."""
        entry = (self._needs(event.needs), self._update_frame(event, update))
        update.cache[self._update_key] = entry
        return entry

    @abstractmethod
    def _update_frame(self, event: TransactionEvent, update: ClientUpdate) -> bytes:
        """Return the frame of an update, encoded once for all clients of this form and compression."""

    def flush(self, durable: int) -> bool:
        """Send what may leave: entries from the head whose `needs` is at most `durable`; return `waits()`."""
        return self.outbox.flush(durable)

    def waits(self) -> bool:
        """Tell whether entries are left that wait for durability."""
        return self.outbox.waits()

    def close(self, code: int | None, reason: str) -> None:
        """Close after what may leave has left; `code` None drops the socket without a Close frame."""
        self.outbox.close(code, reason)

    def _needs(self, needs: int) -> int:
        return needs if self.confirmed else 0

    def one_off_results(
        self, request: OneOffStatements, results: Sequence[Fragment] | str, needs: int, duration_us: int
    ) -> None:
        """Refuse: no protocol from 1.0 on has several statements, so no client can have asked."""
        raise AssertionError(f"{self.NAME} has no OneOffStatements (request {request.request_id!r})")

    @abstractmethod
    def _frame(self, body: bytes) -> bytes:
        """Return the frame of a message."""

    @abstractmethod
    def _large_frame(self, body: Iterable[bytes]) -> bytes:
        """Return the frame of a message that comes in pieces; called in a worker thread."""

    def _queue_rows(self, needs: int, fragments: Sequence[Fragment], encode: Callable[[], Iterable[bytes]]) -> None:
        """Queue the message that `encode` returns in pieces, at once or, for many rows, from a worker thread.

        The fragments are this client's alone; what is encoded in a worker thread is emptied there.
        """
        rows = sum(len(fragment.inserts) + len(fragment.deletes) for fragment in fragments)
        if rows > _ROWS_AT_ONCE_MAX or bytes_of(fragments) > _BYTES_AT_ONCE_MAX:
            self.outbox.append_deferred(self._needs(needs), lambda: self._encode_large(fragments, encode))
        else:
            self._append((self._needs(needs), self._frame(b"".join(encode()))))

    def _encode_large(self, fragments: Sequence[Fragment], encode: Callable[[], Iterable[bytes]]) -> bytes:
        frame = self._large_frame(encode())
        let_go(fragments)
        return frame
