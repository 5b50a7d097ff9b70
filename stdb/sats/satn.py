"""SATN: types and values as text for people, in error messages, logs and tables of results.

Responsible for: `format_type` as SQL messages show it, `format_value` as the command line shows it.
Not responsible for: anything that is read back.

Source: spec 06 section 2.2 "Type display", spec 01 section 14, spec 05 section 4.3 (arrays with brackets: ours).
"""

from decimal import Decimal
from typing import Any

from stdb.sats.json_numbers import float_text
from stdb.sats.special import TimeDuration, format_timestamp, uuid_from_wire
from stdb.sats.types import (
    BYTES,
    CONNECTION_ID,
    IDENTITY,
    TIME_DURATION,
    TIMESTAMP,
    UUID,
    AlgebraicType,
    Array,
    Element,
    Map,
    Product,
    Ref,
    Scalar,
    ScalarKind,
    Sum,
    Typespace,
    option_inner,
)
from stdb.sats.typespace import TYPE_DEPTH_MAX, resolve

__all__ = ["format_type", "format_value"]


def format_type(type_: AlgebraicType) -> str:
    """Return a type as messages show it: `Array<U8>`, `(x: F32, y: F32)`, `(some: U32 | none: ())`, `&3`."""
    return _type_text(type_, 0)


def _type_text(type_: AlgebraicType, depth: int) -> str:
    if depth > TYPE_DEPTH_MAX:
        return "…"
    match type_:
        case Scalar(kind):
            return kind.value
        case Ref(index):
            return f"&{index}"
        case Array(element):
            return f"Array<{_type_text(element, depth + 1)}>"
        case Map(key, value):
            return f"Map<{_type_text(key, depth + 1)}, {_type_text(value, depth + 1)}>"
        case Product(elements):
            return f"({', '.join(_named_types(elements, depth))})"
        case Sum(variants):
            return f"({' | '.join(_named_types(variants, depth))})" if variants else "(|)"


def _named_types(elements: tuple[Element, ...], depth: int) -> list[str]:
    return [f"{_name(element, i)}: {_type_text(element.type, depth + 1)}" for i, element in enumerate(elements)]


def _name(element: Element, place: int) -> str:
    return str(place) if element.name is None else element.name


def format_value(type_: AlgebraicType, value: Any, typespace: Typespace = Typespace.EMPTY) -> str:
    """Return a plain value as text: `(id = 1, name = (some = "Ann"))`; an Identity alone as `0x…`."""
    return _whole(type_, value, typespace)


def _whole(type_: AlgebraicType, value: Any, typespace: Typespace) -> str:
    type_ = resolve(type_, typespace)
    if isinstance(type_, Product):
        special = _special(type_, value)
        if special is not None:
            return special
    return _text(type_, value, typespace)


def _special(type_: Product, value: Any) -> str | None:
    if type_ in (IDENTITY, CONNECTION_ID):
        return f"0x{value[::-1].hex()}"
    if type_ == UUID:
        return f'"{uuid_from_wire(value)}"'
    if type_ == TIMESTAMP:
        return format_timestamp(value)
    return str(TimeDuration(micros=value)) if type_ == TIME_DURATION else None


def _text(type_: AlgebraicType, value: Any, typespace: Typespace) -> str:
    """Return the text of a value inside another, where special products show their one element."""
    type_ = resolve(type_, typespace)
    match type_:
        case Scalar(kind):
            return _scalar(kind, value)
        case Product(elements):
            special = _special(type_, value)
            if special is not None:
                return f"({elements[0].name} = {special})"
            pairs = zip(elements, value, strict=True)
            return f"({', '.join(_field(element, i, item, typespace) for i, (element, item) in enumerate(pairs))})"
        case Sum():
            tag, payload = _tagged(type_, value, typespace)
            return f"({_field(type_.variants[tag], tag, payload, typespace)})"
        case Array(element):
            if type_ == BYTES:
                return f"0x{value.hex()}"
            return f"[{', '.join(_text(element, item, typespace) for item in value)}]"
        case Map(key, item_type):
            entries = (f"{_text(key, one, typespace)}: {_text(item_type, other, typespace)}" for one, other in value)
            return f"[{', '.join(entries)}]"
    raise AssertionError(f"{type_} has no text")


def _field(element: Element, place: int, value: Any, typespace: Typespace) -> str:
    return f"{_name(element, place)} = {_text(element.type, value, typespace)}"


def _tagged(type_: Sum, value: Any, typespace: Typespace) -> tuple[int, Any]:
    inner = option_inner(type_)
    if inner is None:
        tag, payload = value
        return tag, payload
    if value is None:
        return 1, ()
    return 0, value[0] if option_inner(resolve(inner, typespace)) is not None else value


def _scalar(kind: ScalarKind, value: Any) -> str:
    if kind is ScalarKind.BOOL:
        return "true" if value else "false"
    if kind is ScalarKind.STRING:
        return f'"{value}"'
    if kind in (ScalarKind.F32, ScalarKind.F64):
        return _float(kind, value)
    return str(value)


def _float(kind: ScalarKind, value: float) -> str:
    """Return a float with all its digits and without an exponent, a whole one without a point."""
    if value != value:
        return "NaN"
    if value - value != 0:
        return "inf" if value > 0 else "-inf"
    return format(Decimal(float_text(value, kind)), "f").removesuffix(".0")
