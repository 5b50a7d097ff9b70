"""Order of floats and of map entries: the two orders that Python does not have by itself.

Source: spec 01 section 9.
"""

from collections.abc import Callable
from struct import Struct
from typing import Any

__all__ = ["FLOAT_NAN_KEY", "float_key", "ordered_pairs"]

_pack_double = Struct("<d").pack
_unpack_bits = Struct("<q").unpack
FLOAT_NAN_KEY = 0x7FF8_0000_0000_0000
"""The one key of every NaN: above the infinities."""


def float_key(value: float) -> int:
    """Return an integer that orders floats: -inf first, both zeros alike, every NaN last."""
    if value != value:
        return FLOAT_NAN_KEY
    bits: int = _unpack_bits(_pack_double(value))[0]
    return bits if bits >= 0 else -(bits & 0x7FFF_FFFF_FFFF_FFFF)


def ordered_pairs(pairs: list[tuple[Any, Any]], key: Callable[[Any], Any] | None) -> list[tuple[Any, Any]]:
    """Return map entries in key order, the last of equal keys alone; `key` orders, None where keys order themselves."""
    latest = {pair[0] if key is None else key(pair[0]): pair for pair in pairs}
    return [latest[order] for order in sorted(latest)]
