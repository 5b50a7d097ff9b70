"""WebSocket frames: the bytes of one connection to messages, and messages to frames.

Responsible for: masks, fragments, limits, UTF-8 of text, control frames, close codes (RFC 6455, spec 02 section 11.3).
Not responsible for: sockets (`stream`), what a message means (`protocols`), extensions (none is ever negotiated).

A binary message is `bytes`, a text message is `str`, control frames are `Ping`, `Pong` and `Close`.
"""

import codecs
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

from stdb.errors import ProtocolError

__all__ = [
    "CONTROL_BYTES_MAX",
    "MESSAGE_BYTES_MAX",
    "REASON_BYTES_MAX",
    "Close",
    "CloseCodeError",
    "Event",
    "FrameError",
    "FrameReader",
    "Ping",
    "Pong",
    "binary_frame",
    "close_frame",
    "cut_reason",
    "joined_frame",
    "ping_frame",
    "pong_frame",
    "text_frame",
    "unmask",
]

MESSAGE_BYTES_MAX = 32 * 1024 * 1024
"""One message of a client, fragments added up; exactly this many bytes pass."""
CONTROL_BYTES_MAX = 125
REASON_BYTES_MAX = 123

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_OPCODES = frozenset((_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG))
_WHOLE_BINARY = 0x82
_XOR_BYTES_MAX = 2048
"""Up to here one big integer XOR is the fastest mask, above it four strided translations (measured)."""
_CLOSE_CODES = frozenset((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014))
_XOR_TABLES = tuple(bytes(byte ^ key for byte in range(256)) for key in range(256))


class Ping(NamedTuple):
    """A ping; to be answered by a pong with the same payload."""

    payload: bytes


class Pong(NamedTuple):
    """A pong, asked for or not."""

    payload: bytes


class Close(NamedTuple):
    """A close; `code` is None when the frame was empty. Nothing after it is read."""

    code: int | None
    reason: str


Event: TypeAlias = bytes | str | Ping | Pong | Close


class FrameError(ProtocolError):
    """Bytes that are no valid frames. `code` closes the connection; `events` is what came whole before the damage."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
        self.events: list[Event] = []


class CloseCodeError(FrameError):
    """A Close whose code nobody may send."""


class FrameReader:
    """Turns the bytes of a client into events; feed it chunks of any size, in order."""

    __slots__ = ("_chunks", "_closed", "_decoder", "_fragments", "_got", "_message_bytes_max", "_need", "_opcode")

    def __init__(self, message_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self._message_bytes_max = message_bytes_max
        self._chunks: list[bytes] = []
        self._got = 0
        self._need = 2
        self._opcode = _CONTINUATION
        """Kind of the message whose fragments are coming in; CONTINUATION when there is none."""
        self._fragments = bytearray()
        self._decoder: codecs.IncrementalDecoder | None = None
        self._closed = False

    def receive(self, chunk: bytes) -> list[Event]:
        """Return the messages and control frames that `chunk` completes.

        Raises:
            FrameError: The bytes break the protocol; feed nothing more.
        """
        if self._closed:
            return []
        if self._chunks:
            self._chunks.append(chunk)
            self._got += len(chunk)
            if self._got < self._need:
                return []
            chunk = b"".join(self._chunks)
            self._chunks = []
        events: list[Event] = []
        try:
            used = self._parse(chunk, events)
        except FrameError as error:
            self._closed = True
            error.events = events
            raise
        if used < len(chunk) and not self._closed:
            self._chunks = [chunk[used:] if used else chunk]
            self._got = len(chunk) - used
        return events

    def _parse(self, buffer: bytes, events: list[Event]) -> int:
        """Append what `buffer` holds whole to `events`; return the number of bytes used."""
        offset = 0
        end = len(buffer)
        append = events.append
        number = int.from_bytes
        while offset + 2 <= end:
            first = buffer[offset]
            second = buffer[offset + 1]
            if first == _WHOLE_BINARY and 0x80 <= second < 0xFE and self._opcode == _CONTINUATION:
                # Nearly every frame of nearly every client: short, whole, binary.
                size = second - 0x80
                body = offset + 6
                stop = body + size
                if stop > end:
                    self._need = stop - offset
                    return offset
                mask = (buffer[offset + 2 : body] * 32)[:size]
                append((number(buffer[body:stop], "little") ^ number(mask, "little")).to_bytes(size, "little"))
                offset = stop
                continue
            stop = self._frame(buffer, offset, end, append)
            if stop == offset or self._closed:
                return stop
            offset = stop
        self._need = 2
        return offset

    def _frame(self, buffer: bytes, offset: int, end: int, append: Callable[[Event], None]) -> int:
        """Read one frame of any kind; return its end, or `offset` when bytes are missing."""
        first = buffer[offset]
        opcode = first & 0x0F
        size = buffer[offset + 1] & 0x7F
        self._check_header(first, buffer[offset + 1], opcode, size)
        body = offset + (6 if size < 126 else 8 if size == 126 else 14)
        if body > end:
            self._need = body - offset
            return offset
        if size >= 126:
            size = int.from_bytes(buffer[offset + 2 : body - 4], "big")
        if opcode < _CLOSE and len(self._fragments) + size > self._message_bytes_max:
            raise FrameError(f"message of more than {self._message_bytes_max} bytes", 1009)
        stop = body + size
        if stop > end:
            self._need = stop - offset
            return offset
        payload = unmask(buffer[body:stop], buffer[body - 4 : body])
        if opcode >= _CLOSE:
            append(self._control(opcode, payload))
        elif first & 0x80 and opcode != _CONTINUATION:
            append(payload if opcode == _BINARY else _decode_text(payload))
        else:
            self._fragment(opcode, payload, bool(first & 0x80), append)
        return stop

    def _check_header(self, first: int, second: int, opcode: int, size: int) -> None:
        """Refuse what no frame of a client may start with."""
        if first & 0x70:
            raise FrameError("reserved bits are set, no extension was negotiated", 1002)
        if opcode not in _OPCODES:
            raise FrameError(f"unknown opcode {opcode}", 1002)
        if second < 0x80:
            raise FrameError("frames of a client must be masked", 1002)
        if opcode >= _CLOSE:
            if size > CONTROL_BYTES_MAX:
                raise FrameError(f"control frame of more than {CONTROL_BYTES_MAX} bytes", 1002)
            if first < 0x80:
                raise FrameError("control frame in fragments", 1002)
        elif opcode == _CONTINUATION and self._opcode == _CONTINUATION:
            raise FrameError("continuation without a message to continue", 1002)
        elif opcode != _CONTINUATION and self._opcode != _CONTINUATION:
            raise FrameError("new message before the last fragment of the one before", 1002)

    def _control(self, opcode: int, payload: bytes) -> Ping | Pong | Close:
        if opcode == _PING:
            return Ping(payload)
        if opcode == _PONG:
            return Pong(payload)
        close = _decode_close(payload)
        self._closed = True
        return close

    def _fragment(self, opcode: int, payload: bytes, last: bool, append: Callable[[Event], None]) -> None:
        """Take one fragment; append the message when it was the last."""
        if opcode != _CONTINUATION:
            self._opcode = opcode
            self._decoder = codecs.getincrementaldecoder("utf-8")() if opcode == _TEXT else None
        if self._decoder is not None:
            _check_part(self._decoder, payload, last)
        self._fragments += payload
        if last:
            append(self._fragments.decode() if self._opcode == _TEXT else bytes(self._fragments))
            self._opcode = _CONTINUATION
            self._fragments = bytearray()


def unmask(payload: bytes, mask: bytes) -> bytes:
    """Return `payload` XORed with the four bytes of `mask`, again and again (masking is the same)."""
    size = len(payload)
    if size <= _XOR_BYTES_MAX:
        key = (mask * ((size + 3) >> 2))[:size]
        return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")
    result = bytearray(payload)
    for place in range(4):
        result[place::4] = result[place::4].translate(_XOR_TABLES[mask[place]])
    return bytes(result)


def _decode_text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise FrameError(f"text that is not UTF-8 at byte {error.start}", 1007) from None


def _check_part(decoder: codecs.IncrementalDecoder, payload: bytes, last: bool) -> None:
    try:
        decoder.decode(payload, last)
    except UnicodeDecodeError:
        raise FrameError("text that is not UTF-8", 1007) from None


def _decode_close(payload: bytes) -> Close:
    if not payload:
        return Close(None, "")
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1:
        raise FrameError("Protocol violation", 1002)
    if not (code in _CLOSE_CODES or 3000 <= code < 5000):
        raise CloseCodeError("Protocol violation", 1002)
    return Close(code, _decode_text(payload[2:]))


def _header(first: int, size: int) -> bytes:
    if size < 126:
        return bytes((first, size))
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")


def binary_frame(payload: bytes) -> bytes:
    """Return the frame of a server's binary message."""
    size = len(payload)
    if size < 126:
        return bytes((_WHOLE_BINARY, size)) + payload
    return _header(_WHOLE_BINARY, size) + payload


def text_frame(text: str) -> bytes:
    """Return the frame of a server's text message."""
    payload = text.encode()
    return _header(0x80 | _TEXT, len(payload)) + payload


def joined_frame(pieces: Iterable[bytes], *, is_text: bool = False) -> bytes:
    """Return the frame of a server's message that comes in pieces, of which no copy is made but the frame."""
    parts = list(pieces)
    return b"".join((_header(0x80 | _TEXT if is_text else _WHOLE_BINARY, sum(map(len, parts))), *parts))


def ping_frame(payload: bytes = b"") -> bytes:
    """Return the frame of a ping."""
    return _header(0x80 | _PING, len(payload)) + payload


def pong_frame(payload: bytes) -> bytes:
    """Return the frame that answers a ping of that payload."""
    return _header(0x80 | _PONG, len(payload)) + payload


def close_frame(code: int | None, reason: str = "") -> bytes:
    """Return the frame of a Close; `reason` is cut to what a control frame holds."""
    payload = b"" if code is None else code.to_bytes(2, "big") + cut_reason(reason)
    return _header(0x80 | _CLOSE, len(payload)) + payload


def cut_reason(reason: str) -> bytes:
    """Return `reason` as UTF-8 of at most 123 bytes, cut between characters."""
    encoded = reason.encode("utf-8", "replace")
    if len(encoded) <= REASON_BYTES_MAX:
        return encoded
    return encoded[:REASON_BYTES_MAX].decode("utf-8", "ignore").encode()
