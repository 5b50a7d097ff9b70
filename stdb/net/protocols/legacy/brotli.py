"""Brotli streams: what every binary message of 0.9 to 0.11 is wrapped in, however small.

Responsible for: one message to one stream, stored where compressing does not pay; large messages in pieces.
Not responsible for: frames, messages.

Source: spec 03 section 5. A stored stream is a legal one that needs no compressor; the reference's own compressor
(quality 1, window 22) makes the same of most small messages.
"""

from collections.abc import Iterable, Iterator

import brotli  # type: ignore[import-untyped]  # its wheel has no stubs

__all__ = ["STORED_BYTES_MAX", "pack", "pack_pieces", "stored"]

STORED_BYTES_MAX = 1024
"""Messages of up to this many bytes are stored: compressing one takes longer than sending what it saves."""

_CHUNK_BYTES_MAX = 65_536
_END = b"\3"
_EMPTY = b"\x3b"


def pack(message: bytes) -> bytes:
    """Return `message` as a stream."""
    if len(message) <= STORED_BYTES_MAX:
        return stored(message)
    packed: bytes = brotli.compress(message, quality=1, lgwin=22)
    return packed


def pack_pieces(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the stream of a message that comes in pieces."""
    packer = brotli.Compressor(quality=1, lgwin=22)
    for piece in pieces:
        yield packer.process(piece)
    yield packer.finish()


def stored(message: bytes) -> bytes:
    """Return a stream of chunks that are not compressed.

    Bits are packed from the lowest: the window (4 bits, before the first chunk), then for each chunk: last 0, nibbles
    00, size - 1 in 16 bits, uncompressed 1, zeros up to the next byte, the bytes; at the end last 1, empty 1.
    """
    if not message:
        return _EMPTY
    parts: list[bytes] = []
    for start in range(0, len(message), _CHUNK_BYTES_MAX):
        chunk = message[start : start + _CHUNK_BYTES_MAX]
        head = (len(chunk) - 1) << 3 | 1 << 19
        parts.append((head.to_bytes(3, "little")) if start else (head << 4 | 0xB).to_bytes(3, "little"))
        parts.append(chunk)
    return b"".join((*parts, _END))
