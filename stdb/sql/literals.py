"""Typing of literals: text of SQL to a plain value of the type that is expected of it.

Responsible for: what text is a value of which type, in bounded time whatever the text.
Not responsible for: where the expectation comes from (`binder`).

Source: spec 06 section 2.2. Where its "we:" sentences differ from the reference (rounding of floats, 256-bit integers
with a fraction, huge exponents), they are followed.
"""

import math
import re
import struct
from collections.abc import Callable
from datetime import date
from typing import Any, NamedTuple

from stdb.errors import QueryError
from stdb.sats import keys, satn
from stdb.sats.profiles import OLD_ADDRESS, OLD_IDENTITY
from stdb.sats.types import (
    BOOL,
    BYTES,
    CONNECTION_ID,
    F32,
    F64,
    I256,
    IDENTITY,
    STRING,
    TIMESTAMP,
    UNIT,
    UUID,
    AlgebraicType,
    Scalar,
    ScalarKind,
    Sum,
    is_option,
)
from stdb.sql.syntax import Literal, LiteralKind

__all__ = [
    "INTEGERS",
    "OldConstant",
    "expect_bool",
    "is_comparable",
    "is_nameable",
    "mismatch",
    "parse_integer",
    "parse_literal",
    "parse_old_literal",
    "type_of_literals",
]

_DIGITS_MAX = 1_000
"""Digits of an integer literal that are looked at at all; no integer type needs more than 78."""
_EXPONENT_MAX = 400
"""Decimal exponents beyond it decide a number without arithmetic."""

_NUMBER = re.compile(r"([+-]?)([0-9]*)(?:(\.)([0-9]*))?(?:[eE]([+-]?[0-9]+))?", re.ASCII)
_HEX = re.compile(r"(?:0x)?((?:[0-9A-Fa-f]{2})*)", re.ASCII)
_UUID = re.compile(
    r"(?:urn:uuid:|\{)?([0-9A-Fa-f]{8})-([0-9A-Fa-f]{4})-([0-9A-Fa-f]{4})-([0-9A-Fa-f]{4})-([0-9A-Fa-f]{12})\}?"
)
_RFC_3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))",
    re.ASCII,
)
_DAY_0 = date(1970, 1, 1).toordinal()

INTEGERS: dict[AlgebraicType, tuple[int, int]] = {
    Scalar(kind): (-(1 << bits - 1), (1 << bits - 1) - 1) if kind.value.startswith("I") else (0, (1 << bits) - 1)
    for kind in ScalarKind
    if kind.value[0] in "IU"
    for bits in (int(kind.value[1:]),)
}
"""The integer types and their ranges."""


def parse_literal(text: str, expected: AlgebraicType) -> Any:
    """Return the plain value that `text` means where `expected` is expected.

    Raises:
        QueryError: It means none.
    """
    parser = _PARSERS.get(expected)
    value = None if parser is None else parser(text)
    if value is None:
        raise QueryError(f"The literal expression `{text}` cannot be parsed as type `{satn.format_type(expected)}`")
    return value


def mismatch(expected: AlgebraicType, inferred: AlgebraicType) -> QueryError:
    """Return the refusal of a type that does not fit."""
    return QueryError(
        f"Unexpected type: (expected) {satn.format_type(expected)} != {satn.format_type(inferred)} (inferred)"
    )


def expect_bool(expected: AlgebraicType | None) -> None:
    """Refuse a boolean where another type is expected."""
    if expected is not None and expected != BOOL:
        raise mismatch(BOOL, expected)


def is_comparable(type_: AlgebraicType) -> bool:
    """Tell whether values of this type may be compared."""
    return type_ in _PARSERS or type_ == Scalar(ScalarKind.BOOL)


class OldConstant(NamedTuple):
    """A constant, as its key."""

    key: Any


def is_nameable(type_: AlgebraicType) -> bool:
    """Tell whether there are values of this type that 0.11 has a word for: an enum, or an option."""
    return isinstance(type_, Sum) and (is_option(type_) or _is_enum(type_))


def parse_old_literal(literal: Literal, expected: AlgebraicType) -> OldConstant | None:
    """Return what a literal means in 0.11 alone: NULL, the name of a variant, the identity of nobody; else None.

    Raises:
        QueryError: An enum has no variant of that name, or a type no none.
    """
    if literal.kind is LiteralKind.OTHER:
        if not is_option(expected):
            raise QueryError(f"The literal expression `NULL` cannot be parsed as type `{satn.format_type(expected)}`")
        return OldConstant(keys.value_key(expected)(None))
    if literal.kind is not LiteralKind.STRING:
        return None
    if expected in (IDENTITY, CONNECTION_ID) and _PARSERS[expected](literal.text) is None:
        return OldConstant(b"")  # equal to none
    if expected in (OLD_IDENTITY, OLD_ADDRESS) and _PARSERS[expected](literal.text) is None:
        return OldConstant((b"",))
    if not isinstance(expected, Sum) or not _is_enum(expected):
        return None
    for tag, variant in enumerate(expected.variants):
        if variant.name == literal.text:
            return OldConstant(keys.value_key(expected)((tag, ())))
    raise QueryError(f"The enum `{satn.format_type(expected)}` has no variant `{literal.text}`")


def type_of_literals(left: Literal, right: Literal) -> AlgebraicType:
    """Return the type at which two literals are compared.

    Raises:
        QueryError: They have none in common.
    """
    kinds = {left.kind, right.kind}
    if len(kinds) > 1 or kinds & {LiteralKind.OTHER}:
        raise QueryError(f"Cannot compare {left} with {right}")
    if LiteralKind.NUMBER in kinds:
        are_integers = all(parse_integer(each.text, *INTEGERS[I256]) is not None for each in (left, right))
        return I256 if are_integers else F64
    if left.kind is LiteralKind.BOOL:
        return BOOL
    return STRING if left.kind is LiteralKind.STRING else BYTES


def _is_enum(type_: Sum) -> bool:
    return bool(type_.variants) and all(variant.type == UNIT for variant in type_.variants) and not is_option(type_)


class _Decimal:
    """A decimal number as text: sign, the digits without leading zeros, and the exponent of the last digit."""

    __slots__ = ("digits", "exponent", "is_negative", "written")

    def __init__(self, sign: str, whole: str, fraction: str, exponent: str) -> None:
        self.is_negative = sign == "-"
        self.written = len(whole) + len(fraction)
        self.digits = (whole + fraction).lstrip("0")
        bounded = exponent.lstrip("+-").lstrip("0")
        magnitude = int(bounded or "0") if len(bounded) < 9 else 10**9
        self.exponent = (-magnitude if exponent.startswith("-") else magnitude) - len(fraction)

    @property
    def first_exponent(self) -> int:
        """Exponent of the first significant digit."""
        return self.exponent + len(self.digits) - 1


def _decimal(text: str) -> _Decimal | None:
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    sign, whole, _, fraction, exponent = found.groups()
    if not whole and not fraction:
        return None
    return _Decimal(sign, whole, fraction or "", exponent or "")


def parse_integer(text: str, low: int, high: int) -> int | None:
    """Return a number that is mathematically an integer between `low` and `high`; None when `text` is none."""
    number = _decimal(text)
    if number is None or number.written > _DIGITS_MAX:
        return None
    if not number.digits:
        return 0 if low <= 0 <= high else None
    if abs(number.first_exponent) > _EXPONENT_MAX:
        return None
    value = _integral(number)
    if value is None:
        return None
    value = -value if number.is_negative else value
    return value if low <= value <= high else None


def _integral(number: _Decimal) -> int | None:
    if number.exponent >= 0:
        return int(number.digits + "0" * number.exponent)
    kept, dropped = number.digits[: number.exponent], number.digits[number.exponent :]
    return None if dropped.strip("0") or not kept else int(kept)


def _parse_f64(text: str) -> float | None:
    number = _decimal(text)
    if number is None:
        return None
    sign = -1.0 if number.is_negative else 1.0
    if not number.digits or number.first_exponent < -_EXPONENT_MAX:
        return math.copysign(0.0, sign)
    if number.first_exponent > _EXPONENT_MAX:
        return sign * math.inf
    return float(text)


def _parse_f32(text: str) -> float | None:
    value = _parse_f64(text)
    if value is None or math.isinf(value):
        return value
    return _round_to_f32(text, value)


def _round_to_f32(text: str, value: float) -> float:
    """Round a decimal text to the nearest F32; rounding the rounded F64 alone may be one step off at a tie."""
    from fractions import Fraction

    try:
        near: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    number = _decimal(text)
    assert number is not None
    if near == 0 or math.isinf(near) or len(number.digits) > _DIGITS_MAX:
        return near
    exact = Fraction(int(number.digits)) * Fraction(10) ** number.exponent
    exact = -exact if number.is_negative else exact
    if exact == Fraction(value):
        return near
    (bits,) = struct.unpack("<I", struct.pack("<f", near))
    neighbours = [near]
    for step in (-1, 1):
        (neighbour,) = struct.unpack("<f", struct.pack("<I", bits + step))
        if not math.isinf(neighbour) and not math.isnan(neighbour):
            neighbours.append(neighbour)
    return min(neighbours, key=lambda each: (abs(Fraction(each) - exact), _mantissa_is_odd(each)))


def _mantissa_is_odd(value: float) -> bool:
    return bool(struct.pack("<f", value)[0] & 1)


def _parse_string(text: str) -> str:
    return text


def _parse_bytes(text: str) -> bytes | None:
    found = _HEX.fullmatch(text.removeprefix("X'"))
    return None if found is None else bytes.fromhex(found.group(1))


def _fixed_hex(size: int) -> Callable[[str], bytes | None]:
    """Return a parser of exactly `size` bytes in display order; their value is little-endian."""

    def parse(text: str) -> bytes | None:
        found = _HEX.fullmatch(text)
        if found is None or len(found.group(1)) != 2 * size:
            return None
        return bytes.fromhex(found.group(1))[::-1]

    return parse


_parse_plain_uuid = _fixed_hex(16)


def _parse_uuid(text: str) -> bytes | None:
    simple = text
    if text.startswith("urn:uuid:"):
        simple = text[9:]
    elif text.startswith("{") and text.endswith("}"):
        simple = text[1:-1]
    found = _UUID.fullmatch(simple)
    if found is not None and not simple.startswith(("u", "{")):
        return bytes.fromhex("".join(found.groups()))[::-1]
    is_plain = len(simple) == 32 and not simple.startswith("0x")
    return _parse_plain_uuid(simple) if is_plain else None


def _parse_timestamp(text: str) -> int | None:
    found = _RFC_3339.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    fraction, sign, zone_hours, zone_minutes = found.groups()[6:]
    if hour > 23 or minute > 59 or second > 60 or int(zone_hours or 0) > 23 or int(zone_minutes or 0) > 59:
        return None
    try:
        days = _days(year, month, day)
    except ValueError:
        return None
    offset = (int(zone_hours or 0) * 60 + int(zone_minutes or 0)) * (-60 if sign == "-" else 60)
    seconds = days * 86_400 + hour * 3_600 + minute * 60 + second - offset
    return seconds * 1_000_000 + int((fraction or "")[:6].ljust(6, "0"))


def _days(year: int, month: int, day: int) -> int:
    if year == 0:  # the proleptic calendar repeats every 400 years; `date` begins with year 1
        return date(400, month, day).toordinal() - _DAY_0 - 146_097
    return date(year, month, day).toordinal() - _DAY_0


def _integer_parser(low: int, high: int) -> Callable[[str], int | None]:
    return lambda text: parse_integer(text, low, high)


def _old_hex(size: int) -> Callable[[str], tuple[bytes] | None]:
    """Return the parser of what 0.11 has as a product around bytes, in the order of their text."""
    wire_of = _fixed_hex(size)

    def parse(text: str) -> tuple[bytes] | None:
        wire = wire_of(text)
        return None if wire is None else (wire[::-1],)

    return parse


_PARSERS: dict[AlgebraicType, Callable[[str], Any]] = {
    **{type_: _integer_parser(low, high) for type_, (low, high) in INTEGERS.items()},
    F32: _parse_f32,
    F64: _parse_f64,
    STRING: _parse_string,
    BYTES: _parse_bytes,
    IDENTITY: _fixed_hex(32),
    CONNECTION_ID: _fixed_hex(16),
    OLD_IDENTITY: _old_hex(32),
    OLD_ADDRESS: _old_hex(16),
    UUID: _parse_uuid,
    TIMESTAMP: _parse_timestamp,
}
