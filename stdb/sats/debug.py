"""Debug: values as the reference prints them to developers, in plans of migration and in some refusals.

Responsible for: `debug_value`, on one line or spread over several.
Not responsible for: SATN (`satn`), which people read everywhere else.

Source: recorded texts (spec 05 route 25: `U32(\\n    7,\\n)`; `vectors/migration.json`); the form is Rust's own.
"""

from collections.abc import Iterable
from math import isfinite
from typing import Any

from stdb.sats.json_numbers import float_text
from stdb.sats.types import (
    CONNECTION_ID,
    IDENTITY,
    TIME_DURATION,
    TIMESTAMP,
    UNIT,
    UUID,
    AlgebraicType,
    Array,
    Map,
    Product,
    Scalar,
    ScalarKind,
    Sum,
    option_inner,
)

__all__ = ["debug_value"]

_UNWRAPPED = (IDENTITY, CONNECTION_ID, UUID, TIMESTAMP, TIME_DURATION)
"""Products whose plain value is not wrapped in a tuple: the number that is their one element, or its bytes."""
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}


def debug_value(type_: AlgebraicType, value: Any, *, spread: bool = False) -> str:
    """Return a plain value as `U32(7)`, or spread over lines."""
    return _Printer(spread).value(type_, value, "")


class _Printer:
    def __init__(self, spread: bool) -> None:
        self._spread = spread

    def value(self, type_: AlgebraicType, value: Any, indent: str) -> str:
        return self._list(f"{_kind(type_)}(", [self._inner(type_, value, f"{indent}    ")], ")", indent)

    def _inner(self, type_: AlgebraicType, value: Any, indent: str) -> str:
        """Return what stands between the brackets behind a value's kind."""
        inner = f"{indent}    "
        match type_:
            case Scalar(kind):
                return _scalar(kind, value)
            case Sum():
                payload_type, tag, payload = _variant(type_, value)
                fields = [f"tag: {tag}", f"value: {self.value(payload_type, payload, inner)}"]
                return self._fields("SumValue", fields, indent)
            case Product(elements):
                values = (_number(value),) if type_ in _UNWRAPPED else value
                pairs = zip(elements, values, strict=True)
                shown = [self.value(element.type, item, f"{inner}    ") for element, item in pairs]
                return self._fields("ProductValue", [f"elements: {self._list('[', shown, ']', inner)}"], indent)
            case Array(element):
                shown = [self._inner(element, item, f"{inner}    ") for item in value]
                return self._list(f"{_kind(element)}(", [self._list("[", shown, "]", inner)], ")", indent)
            case Map(key, item):
                shown = [f"{self.value(key, one, inner)}: {self.value(item, other, inner)}" for one, other in value]
                return self._list("{", shown, "}", indent)
        raise AssertionError(f"a type of a column has no references left: {type_}")

    def _fields(self, name: str, fields: list[str], indent: str) -> str:
        if self._spread:
            return self._list(f"{name} {{", fields, "}", indent)
        return f"{name} {{ {', '.join(fields)} }}"

    def _list(self, begin: str, items: Iterable[str], end: str, indent: str) -> str:
        items = list(items)
        if not self._spread or not items:
            return f"{begin}{', '.join(items)}{end}"
        return f"{begin}\n" + "".join(f"{indent}    {item},\n" for item in items) + f"{indent}{end}"


def _scalar(kind: ScalarKind, value: Any) -> str:
    if kind is ScalarKind.STRING:
        return '"' + "".join(_ESCAPES.get(each, each) for each in value) + '"'
    if kind is ScalarKind.BOOL:
        return "true" if value else "false"
    if kind in (ScalarKind.F32, ScalarKind.F64):
        return float_text(value, kind) if isfinite(value) else str(value).replace("nan", "NaN")
    return str(value)


def _kind(type_: AlgebraicType) -> str:
    return type_.kind.value if isinstance(type_, Scalar) else type(type_).__name__


def _number(value: "int | bytes") -> int:
    return value if isinstance(value, int) else int.from_bytes(value, "little")


def _variant(type_: Sum, value: Any) -> tuple[AlgebraicType, int, Any]:
    """Return the type of a sum's payload, its tag and the payload."""
    inner = option_inner(type_)
    if inner is None:
        tag, payload = value
        return type_.variants[tag].type, tag, payload
    if value is None:
        return UNIT, 1, ()
    return inner, 0, value[0] if option_inner(inner) is not None else value
