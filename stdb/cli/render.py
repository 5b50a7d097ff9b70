"""Text for the terminal: psql-style tables, cells of SQL results, signatures of functions (spec 05 section 4.3)."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from stdb.sats.types import (
    BYTES,
    CONNECTION_ID,
    IDENTITY,
    SCHEDULE_AT,
    TIME_DURATION,
    TIMESTAMP,
    UUID,
    AlgebraicType,
    Array,
    Product,
    Scalar,
    ScalarKind,
    Sum,
    option_inner,
)

__all__ = ["cell", "function_signature", "psql_table", "type_signature"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def psql_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as psql draws it: every line starts and ends with one blank, no outer border."""
    widths = [len(header) for header in headers]
    for row in rows:
        for i, text in enumerate(row):
            widths[i] = max(widths[i], *(len(line) for line in text.split("\n")))
    lines = [_line(headers, widths), "+".join("-" * (width + 2) for width in widths)]
    for row in rows:
        parts = [text.split("\n") for text in row]
        for i in range(max((len(part) for part in parts), default=1)):
            lines.append(_line([part[i] if i < len(part) else "" for part in parts], widths))
    return "\n".join(lines)


def _line(texts: Sequence[str], widths: Sequence[int]) -> str:
    return "|".join(f" {text:<{width}} " for text, width in zip(texts, widths, strict=True))


def cell(type_: AlgebraicType, value: Any, *, nested: bool = False) -> str:
    """Return a plain value as a cell shows it; `nested`: inside an array, product or sum."""
    match type_:
        case Scalar(kind):
            return _scalar(kind, value)
        case Array(element):
            if type_ == BYTES:
                return f"0x{value.hex()}"
            return "[" + ", ".join(cell(element, item, nested=True) for item in value) + "]"
        case Product():
            return _special(type_, value, nested) or _product(type_, value)
        case Sum(variants):
            if type_ == SCHEDULE_AT:
                return f"({variants[value[0]].name} = {cell(variants[value[0]].type, value[1], nested=True)})"
            tag, payload = _option(type_, value) if option_inner(type_) else value
            return f"({variants[tag].name or tag} = {cell(variants[tag].type, payload, nested=True)})"
    raise AssertionError(f"a result column has the type {type_}")


def _option(type_: Sum, value: Any) -> tuple[int, Any]:
    if value is None:
        return 1, ()
    inner = option_inner(type_)
    return 0, value[0] if inner is not None and option_inner(inner) else value


def _scalar(kind: ScalarKind, value: Any) -> str:
    if kind is ScalarKind.BOOL:
        return "true" if value else "false"
    if kind is ScalarKind.STRING:
        return f'"{value}"'
    if kind in (ScalarKind.F32, ScalarKind.F64):
        return _float(value, kind)
    return str(value)


def _float(value: float, kind: ScalarKind) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    from stdb.sats.json import float_text

    text = format(Decimal(float_text(value, kind)), "f")
    return text.removesuffix(".0")


def _special(type_: Product, value: Any, nested: bool) -> str | None:
    text = _special_text(type_, value)
    if text is None or not nested or type_ == UUID:
        return text
    return f"({type_.elements[0].name} = {text})"


def _special_text(type_: Product, value: Any) -> str | None:
    if type_ in (IDENTITY, CONNECTION_ID):
        return f"0x{value[::-1].hex()}"
    if type_ == TIMESTAMP:
        return _timestamp(value)
    if type_ == TIME_DURATION:
        sign = "-" if value < 0 else "+"
        return f"{sign}{abs(value) // 1_000_000}.{abs(value) % 1_000_000:06}"
    if type_ == UUID:
        digits = value[::-1].hex()
        return f'"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"'
    return None


def _timestamp(micros: int) -> str:
    try:
        moment = EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return f"{micros}µs"
    spec = "microseconds" if micros % 1000 else "milliseconds" if micros % 1_000_000 else "seconds"
    return moment.isoformat(timespec=spec)


def _product(type_: Product, value: Any) -> str:
    if not type_.elements:
        return "()"
    parts = (
        f"{element.name or f'col_{i}'} = {cell(element.type, item, nested=True)}"
        for i, (element, item) in enumerate(zip(type_.elements, value, strict=True))
    )
    return "(" + ", ".join(parts) + ")"


_NAMED = {IDENTITY: "Identity", CONNECTION_ID: "ConnectionId", SCHEDULE_AT: "ScheduleAt", BYTES: "Vec<u8>"}


def type_signature(type_: AlgebraicType) -> str:
    """Return a type as signatures show it: `Vec<u8>`, `Option<String>`, `enum { red: {} }`, `{ x: i32 }`."""
    if name := _NAMED.get(type_):
        return name
    if inner := option_inner(type_):
        return f"Option<{type_signature(inner)}>"
    match type_:
        case Scalar(ScalarKind.STRING):
            return "String"
        case Scalar(kind):
            return kind.value.lower()
        case Array(element):
            return f"Vec<{type_signature(element)}>"
        case Product(elements):
            return _braces([f"{e.name}: {type_signature(e.type)}" for e in elements])
        case Sum(variants):
            return "enum " + _braces([f"{v.name}: {type_signature(v.type)}" for v in variants])
    return "?"


def _braces(parts: list[str]) -> str:
    return "{ " + ", ".join(parts) + " }" if parts else "{}"


def function_signature(name: str, params: Product) -> str:
    """Return `name(parameter: type, …)`."""
    parts = ", ".join(f"{element.name}: {type_signature(element.type)}" for element in params.elements)
    return f"{name}({parts})"
