"""Ceiling of `codec`: what a person would write by hand for one row type.

Row: id u64, owner Identity, name String, x y z f32, hp u32, target Option<u32>, sent Timestamp.
"""

from struct import Struct
from typing import Any

_HEAD = Struct("<Q32sI")
_BODY = Struct("<3fIB")
_SOME = Struct("<Iq")
_NONE = Struct("<q")
_BODY_SOME = Struct("<3fIBIq")
_BODY_NONE = Struct("<3fIBq")


def decode(buffer: bytes, offset: int) -> tuple[tuple[Any, ...], int]:
    id_, owner, size = _HEAD.unpack_from(buffer, offset)
    offset += 44
    end = offset + size
    name = str(buffer[offset:end], "utf-8")
    x, y, z, hp, tag = _BODY.unpack_from(buffer, end)
    end += 17
    if tag == 0:
        target, sent = _SOME.unpack_from(buffer, end)
        return (id_, owner, name, x, y, z, hp, target, sent), end + 12
    if tag == 1:
        return (id_, owner, name, x, y, z, hp, None, _NONE.unpack_from(buffer, end)[0]), end + 8
    raise ValueError("bad tag")


def encode(row: tuple[Any, ...]) -> bytes:
    id_, owner, name, x, y, z, hp, target, sent = row
    text: bytes = name.encode()
    if target is None:
        return _HEAD.pack(id_, owner, len(text)) + text + _BODY_NONE.pack(x, y, z, hp, 1, sent)
    return _HEAD.pack(id_, owner, len(text)) + text + _BODY_SOME.pack(x, y, z, hp, 0, target, sent)
