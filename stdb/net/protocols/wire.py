"""Small pieces that every binary dialect is made of: strings, counts, compression, the tagged frame.

Responsible for: reading with the reference's error texts, writing strings, the compression tag (spec 02 section 4).
Not responsible for: messages (one dialect a file), rows (`rows`).
"""

import zlib
from collections.abc import Iterable
from enum import Enum
from struct import Struct

import brotli  # type: ignore[import-untyped]  # its wheel has no stubs

from stdb.errors import DecodeError
from stdb.net.frames import binary_frame, joined_frame

__all__ = [
    "COMPRESSED_ABOVE_BYTES",
    "Compression",
    "large_tagged_frame",
    "procedure_answer",
    "read_bytes",
    "read_string",
    "read_strings",
    "read_u8",
    "read_u32",
    "tagged_frame",
    "tagged_payload",
    "unknown_tag",
    "write_bytes",
    "write_string",
]

COMPRESSED_ABOVE_BYTES = 1024
"""Bodies of exactly this many bytes still go as they are."""

_U32 = Struct("<I")
_pack_u32 = _U32.pack
_procedure_end = Struct("<qqI").pack
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class Compression(Enum):
    """What a client lets the server compress with; the values are the query parameter's spellings."""

    NONE = "None"
    BROTLI = "Brotli"
    GZIP = "Gzip"


def procedure_answer(
    tag: int, status: int, value: bytes | None, request_id: int, times_us: tuple[int, int] = (0, 0)
) -> bytes:
    """Return the message that ends a procedure call, which every binary dialect lays out alike.

    `value` is what the status holds, its length in front, None: nothing; `times_us` are when the call began and how
    long it took.
    """
    held = b"" if value is None else write_bytes(value)
    return bytes((tag, status)) + held + _procedure_end(*times_us, request_id)


def tagged_payload(body: bytes, compression: Compression) -> bytes:
    """Return the payload of a binary server message: the compression tag and the body, compressed where it pays."""
    if len(body) <= COMPRESSED_ABOVE_BYTES or compression is Compression.NONE:
        return b"\0" + body
    if compression is Compression.BROTLI:
        packed: bytes = brotli.compress(body, quality=1, lgwin=22)
        return b"\1" + packed
    gzip = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WINDOW)
    return b"\2" + gzip.compress(body) + gzip.flush()


def tagged_frame(body: bytes, compression: Compression) -> bytes:
    """Return the whole WebSocket frame of a binary server message."""
    size = len(body) + 1
    if size < 126:
        return bytes((0x82, size, 0)) + body
    return binary_frame(tagged_payload(body, compression))


def large_tagged_frame(body: Iterable[bytes], compression: Compression) -> bytes:
    """Do as `tagged_frame` for a large body in pieces; between two of them other threads run."""
    if compression is Compression.NONE:
        parts = [b"\0", *body]
    elif compression is Compression.BROTLI:
        packer = brotli.Compressor(quality=1, lgwin=22)
        parts = [b"\1", *map(packer.process, body), packer.finish()]
    else:
        gzip = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WINDOW)
        parts = [b"\2", *map(gzip.compress, body), gzip.flush()]
    return joined_frame(parts)


def write_bytes(value: bytes) -> bytes:
    """Return `value` with its length before it."""
    return _pack_u32(len(value)) + value


def write_string(value: str) -> bytes:
    """Return the BSATN of a string."""
    encoded = value.encode()
    return _pack_u32(len(encoded)) + encoded


def read_u8(payload: bytes, offset: int) -> tuple[int, int]:
    """Return the byte at `offset` and the offset after it."""
    if offset >= len(payload):
        raise DecodeError("data too short for u8: Expected 1, given 0", offset)
    return payload[offset], offset + 1


def read_u32(payload: bytes, offset: int) -> tuple[int, int]:
    """Return the u32 at `offset` and the offset after it."""
    end = offset + 4
    if end > len(payload):
        raise DecodeError(f"data too short for u32: Expected 4, given {len(payload) - offset}", offset)
    return int.from_bytes(payload[offset:end], "little"), end


def read_bytes(payload: bytes, offset: int) -> tuple[bytes, int]:
    """Return the bytes whose length stands at `offset`, and the offset after them."""
    size, start = read_u32(payload, offset)
    end = start + size
    if end > len(payload):
        raise DecodeError(f"data too short for [u8]: Expected {size}, given {len(payload) - start}", start)
    return payload[start:end], end


def read_string(payload: bytes, offset: int) -> tuple[str, int]:
    """Return the string whose length stands at `offset`, and the offset after it."""
    raw, end = read_bytes(payload, offset)
    try:
        return raw.decode(), end
    except UnicodeDecodeError:
        raise DecodeError("invalid utf8", offset + 4) from None


def read_strings(payload: bytes, offset: int) -> tuple[tuple[str, ...], int]:
    """Return the array of strings at `offset` and the offset after it; memory stays within the payload's size."""
    count, offset = read_u32(payload, offset)
    strings = []
    for _ in range(count):
        text, offset = read_string(payload, offset)
        strings.append(text)
    return tuple(strings), offset


def unknown_tag(tag: int, name: str, offset: int) -> DecodeError:
    """Return the error for a tag that the sum `name` does not have."""
    return DecodeError(f"unknown tag {tag:#x} for sum type {name}", offset)
