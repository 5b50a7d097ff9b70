"""BSATN codecs: values to bytes and back, for any type.

Responsible for: `codec` (plain values), `object_codec` (objects), both generated once per type and cached.
Not responsible for: SATS-JSON (`json`), keys (`keys`), types as values (`meta`).

Source: spec 01 section 5. A failing fast path hands over to `bsatn_plain`, which finds out what is wrong and says it as
the reference does; `DecodeError.offset` is the byte.
"""

import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from stdb.errors import DecodeError
from stdb.sats import bsatn_plain
from stdb.sats.bsatn_decoder import DEPTH_MAX, ZERO_SIZE_COUNT_MAX, DecoderSource, Mode
from stdb.sats.bsatn_encoder import EncoderSource
from stdb.sats.bsatn_layout import Layout, Layouts, fixed_size, min_size
from stdb.sats.caches import by_identity
from stdb.sats.objects import Converted, ListShape, OptionShape, Shape
from stdb.sats.profiles import MODERN, V0_11, V0_12, Profile
from stdb.sats.types import AlgebraicType, Typespace

__all__ = [
    "DEPTH_MAX",
    "MODERN",
    "V0_11",
    "V0_12",
    "ZERO_SIZE_COUNT_MAX",
    "Codec",
    "Profile",
    "codec",
    "object_codec",
]

_DECODE_FAILURES = (struct.error, ValueError, IndexError, OverflowError, RecursionError)
_ENCODE_FAILURES = (*_DECODE_FAILURES, TypeError, KeyError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True, eq=False)
class Codec:
    """Reads and writes the values of one type.

    Buffers are `bytes`. Errors: DecodeError with the offset, EncodeError with the path of the element.
    """

    type: AlgebraicType
    typespace: Typespace
    profile: Profile
    encode: Callable[[Any], bytes]
    """Value to bytes."""
    decode: Callable[..., tuple[Any, int]]
    """(buffer, offset=0) to (value, end); what follows the end is the caller's."""
    decode_exact: Callable[[bytes], Any]
    """Buffer to value; leftovers are refused."""
    skip: Callable[..., int]
    """(buffer, offset=0) to end: validates everything, makes no value."""
    fixed_size: int | None
    """Bytes of every value, where they are the same."""
    min_size: int
    """Bytes of the smallest value."""


def codec(type_: AlgebraicType, typespace: Typespace = Typespace.EMPTY, profile: Profile = MODERN) -> Codec:
    """Return the codec of plain values of `type_`, whose Refs point into `typespace`.

    Raises:
        SchemaError: A Ref leads nowhere, or the type is too deep to be one.
    """
    return _plain_codec(type_, typespace, profile)


@by_identity
def _plain_codec(type_: AlgebraicType, typespace: Typespace, profile: Profile) -> Codec:
    return _generated(type_, None, typespace, profile)


def object_codec(
    type_: AlgebraicType,
    shape: Shape | None,
    typespace: Typespace = Typespace.EMPTY,
    profile: Profile = MODERN,
) -> Codec:
    """Return the codec of objects of `shape` (see `objects`) for values of `type_`.

    Hold on to it: one whose shape has classes of a program in it is not cached. Exceptions of the shape's own callables
    while decoding come out as they are.
    """
    if _belongs_to_nobody(shape):
        return _shared_codec(type_, shape, typespace, profile)
    return _generated(type_, shape, typespace, profile)


def _belongs_to_nobody(shape: Shape | None) -> bool:
    """Tell whether a shape keeps no class of a program alive: plain values and special types."""
    while isinstance(shape, OptionShape | ListShape):
        shape = shape.inner
    return shape is None or isinstance(shape, Converted)


@by_identity
def _shared_codec(type_: AlgebraicType, shape: Shape | None, typespace: Typespace, profile: Profile) -> Codec:
    return _generated(type_, shape, typespace, profile)


def _generated(type_: AlgebraicType, shape: Shape | None, typespace: Typespace, profile: Profile) -> Codec:
    layouts = Layouts(typespace, profile)
    layout = layouts.of(type_, shape)
    decoders, encoders = DecoderSource(layouts), EncoderSource(layouts)
    decoders.add("decode", layout, Mode.VALUE)
    decoders.add("skip", layout, Mode.CHECK)
    encoders.add("encode", layout)
    reading = decoders.compile(_DECODE_FAILURES, _decode_explainer(layout, layouts))
    writing = encoders.compile(_ENCODE_FAILURES, partial(bsatn_plain.encode, layout, layouts))
    return Codec(
        type_,
        typespace,
        profile,
        writing["encode"],
        reading["decode"],
        _exact(reading["decode"]),
        reading["skip"],
        fixed_size(layout, layouts),
        min_size(layout, layouts),
    )


def _decode_explainer(layout: Layout, layouts: Layouts) -> Callable[[bytes, int], None]:
    def explain(buffer: bytes, offset: int) -> None:
        """Raise the DecodeError of a value that failed to decode; return when it is none of the value's fault."""
        try:
            bsatn_plain.skip(layout, layouts, buffer, offset)
        except DecodeError as error:
            raise error from None
        if isinstance(sys.exception(), RecursionError):
            raise DecodeError("nested too deep for the stack of this reader", offset) from None

    return explain


def _exact(decode: Callable[..., tuple[Any, int]]) -> Callable[[bytes], Any]:
    def decode_exact(buffer: bytes) -> Any:
        value, end = decode(buffer, 0)
        if end != len(buffer):
            raise DecodeError(f"{len(buffer) - end} bytes left over: Expected {end}, given {len(buffer)}", end)
        return value

    return decode_exact
