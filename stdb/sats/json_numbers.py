"""Numbers in JSON: the shortest spelling of floats, as the reference spells them; minus zero.

Source: spec 01 section 7.1, spec 05 section 4.1: digits without an exponent for 1e-5 <= |x| < 1e16 (F64) and
1e-6 <= |x| < 1e13 (F32), a point in every float, `null` for NaN and the infinities.
"""

from struct import Struct

from stdb.sats.types import ScalarKind

__all__ = ["MINUS_ZERO", "f32_text", "f64_text", "float_text", "round_to_f32"]

_SINGLE = Struct("<f")
_pack, _unpack = _SINGLE.pack, _SINGLE.unpack
_F32_PLAIN_MIN, _F32_PLAIN_MAX = -6, 13
_SPELLINGS = [f"%.{digits}g" for digits in range(1, 10)]
_F32_NORMAL_MIN = 2.0**-126
"""From here on six digits never say too much: a spelling that short reads back and is found again by rounding."""


class _MinusZero(float):
    """The literal `-0`, which is no float literal and yet no integer."""

    __slots__ = ()


MINUS_ZERO = _MinusZero(-0.0)


def float_text(value: float, kind: ScalarKind) -> str:
    """Return the JSON text of a float of that kind."""
    return f32_text(value) if kind is ScalarKind.F32 else f64_text(value)


def f64_text(value: float) -> str:
    """Return the shortest text that reads back as `value`."""
    text = repr(value)
    if "e" not in text:
        return "null" if "n" in text else text
    mantissa, exponent = text.split("e")
    if exponent == "-05":
        return _plain(mantissa, -5)
    return f"{mantissa}e{int(exponent)}"


def f32_text(value: float) -> str:
    """Return the shortest text that reads back as the F32 `value`."""
    if value - value != 0:
        return "null"
    wanted = _pack(value)
    is_normal = value == 0 or abs(value) >= _F32_NORMAL_MIN
    for spelling in _SPELLINGS[5:] if is_normal else _SPELLINGS:
        text = spelling % value
        if _pack(float(text)) == wanted:
            break
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        return text if "." in text else text + ".0"
    if _F32_PLAIN_MIN <= int(exponent) < _F32_PLAIN_MAX:
        return _plain(mantissa, int(exponent))
    return f"{mantissa}e{int(exponent)}"


def round_to_f32(value: float) -> float:
    """Return the nearest F32; too large becomes infinity."""
    try:
        (rounded,) = _unpack(_pack(value))
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
    return float(rounded)


def _plain(mantissa: str, exponent: int) -> str:
    """Return `mantissa` times ten to the `exponent` without an exponent."""
    sign = "-" if mantissa.startswith("-") else ""
    digits = mantissa.lstrip("-").replace(".", "")
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    whole = digits[: exponent + 1].ljust(exponent + 1, "0")
    return f"{sign}{whole}.{digits[exponent + 1 :] or '0'}"
