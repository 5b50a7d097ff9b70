"""The wire format of Protocol Buffers: fields of a message to bytes and back.

Responsible for: varints, tags, the four wire types, what is wrong with bytes that are no message.
Not responsible for: which messages there are (`protobuf`).

Source: spec 03 section 4; texts of errors are those of the reference's decoder. Fields with the default of their type
are not written (proto3); unknown fields and groups are skipped.
"""

from collections.abc import Iterator

from stdb.errors import DecodeError

__all__ = ["FAILED", "LENGTH", "VARINT", "field", "fields", "length_prefix", "nested", "number", "varint"]

VARINT, _FIXED_64, LENGTH, _GROUP_START, _GROUP_END, _FIXED_32 = range(6)
_GROUPS_MAX = 100
FAILED = "failed to decode Protobuf message: "
"""What a refusal of bytes that are no message begins with."""


def varint(value: int) -> bytes:
    """Return an unsigned integer as a varint."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def length_prefix(tag: int, size: int) -> bytes:
    """Return what stands before the `size` bytes of a field number below 16."""
    return bytes((tag << 3 | LENGTH, size)) if size < 0x80 else bytes((tag << 3 | LENGTH,)) + varint(size)


def nested(tag: int, data: bytes) -> bytes:
    """Return a field that is written even when it is empty: a submessage, or bytes among others of its number."""
    return length_prefix(tag, len(data)) + data


def field(tag: int, data: bytes) -> bytes:
    """Return a field of bytes or text; nothing where it is empty."""
    return length_prefix(tag, len(data)) + data if data else b""


def number(tag: int, value: int) -> bytes:
    """Return a field of an integer of up to 64 bits; nothing where it is zero. Negative ones take ten bytes."""
    return bytes((tag << 3 | VARINT,)) + varint(value & 0xFFFFFFFFFFFFFFFF) if value else b""


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Yield number, wire type and content of every field that holds a varint or bytes; others are skipped.

    Raises:
        DecodeError: The bytes are no message.
    """
    offset, size = 0, len(data)
    while offset < size:
        tag, kind, offset = _key(data, offset)
        if kind == VARINT:
            value, offset = _varint(data, offset)
            yield tag, kind, value
        elif kind == LENGTH:
            start, offset = _run(data, offset)
            yield tag, kind, data[start:offset]
        else:
            offset = _skip(data, offset, tag, kind, 0)


def _key(data: bytes, offset: int) -> tuple[int, int, int]:
    """Return number and wire type of the field at `offset`, and where its content begins."""
    key, end = _varint(data, offset)
    if key > 0xFFFFFFFF:
        raise DecodeError(f"{FAILED}invalid key value: {key}", offset)
    kind = key & 7
    if kind > _FIXED_32:
        raise DecodeError(f"{FAILED}invalid wire type value: {kind}", offset)
    if not key >> 3:
        raise DecodeError(f"{FAILED}invalid tag value: 0", offset)
    return key >> 3, kind, end


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    value = shift = 0
    for place in range(offset, min(offset + 10, len(data))):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > 0xFFFFFFFFFFFFFFFF:
                break
            return value, place + 1
        shift += 7
    raise DecodeError(f"{FAILED}invalid varint", offset)


def _run(data: bytes, offset: int) -> tuple[int, int]:
    """Return where the bytes begin whose length stands at `offset`, and where they end."""
    size, start = _varint(data, offset)
    if size > len(data) - start:
        raise DecodeError(f"{FAILED}buffer underflow", offset)
    return start, start + size


def _skip(data: bytes, offset: int, tag: int, kind: int, depth: int) -> int:
    """Return the end of a field whose content is not wanted."""
    if kind == VARINT:
        return _varint(data, offset)[1]
    if kind == LENGTH:
        return _run(data, offset)[1]
    if kind in (_FIXED_32, _FIXED_64):
        end = offset + (4 if kind == _FIXED_32 else 8)
        if end > len(data):
            raise DecodeError(f"{FAILED}buffer underflow", offset)
        return end
    if kind == _GROUP_END:
        raise DecodeError(f"{FAILED}unexpected end group tag", offset)
    if depth >= _GROUPS_MAX:
        raise DecodeError(f"{FAILED}recursion limit reached", offset)
    while True:
        inner, kind, offset = _key(data, offset)
        if kind == _GROUP_END:
            if inner != tag:
                raise DecodeError(f"{FAILED}unexpected end group tag", offset)
            return offset
        offset = _skip(data, offset, inner, kind, depth + 1)
