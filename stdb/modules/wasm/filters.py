"""Filters of ABI 9.0: the condition that a guest of 0.11 hands over with a scan.

Responsible for: reading a condition's bytes against a row type, and what it makes of a row.
Not responsible for: scans (`imports_9`).

Source: spec 04 section 9, "Filter bytes". Values are compared as indexes compare them.
"""

import operator
from collections.abc import Callable
from typing import Any

from stdb.errors import DecodeError
from stdb.modules.wasm.values_9 import checked_skip
from stdb.sats import keys
from stdb.sats.types import Element, Product

__all__ = ["FILTER_DEPTH_MAX", "row_filter"]

FILTER_DEPTH_MAX = 64
"""Levels of `and` and `or` in one another."""
_OPERATORS: tuple[Callable[[Any, Any], bool], ...] = (
    *(operator.eq, operator.ne, operator.lt),
    *(operator.le, operator.gt, operator.ge),
)

Condition = Callable[[bytes], bool]


def row_filter(row_type: Product, data: bytes) -> Condition:
    """Return what tells whether a row is wanted. Raises DecodeError: the bytes are no condition on such rows."""
    reader = _Reader(row_type, data)
    condition = reader.condition(0)
    if reader.offset != len(data):
        raise DecodeError(f"{len(data) - reader.offset} bytes after the condition", reader.offset)
    return condition


class _Reader:
    def __init__(self, row_type: Product, data: bytes) -> None:
        self._row_type = row_type
        self._data = data
        self.offset = 0

    def condition(self, depth: int) -> Condition:
        if depth > FILTER_DEPTH_MAX:
            raise DecodeError(f"a condition is nested more than {FILTER_DEPTH_MAX} levels deep", self.offset)
        match self._byte():
            case 0:
                return self._comparison()
            case 1:
                return self._logic(depth)
        raise DecodeError("conditions are comparisons (0) and `and` or `or` of two (1)", self.offset - 1)

    def _comparison(self) -> Condition:
        place = self._byte()
        if place >= len(_OPERATORS):
            raise DecodeError(f"operator {place}, known are 0 to {len(_OPERATORS) - 1}", self.offset - 1)
        compare, column = _OPERATORS[place], self._column()
        left = keys.row_key(self._row_type, (column,))
        match self._byte():
            case 0:
                value = self._value(column)
                return lambda row: compare(left(row), value)
            case 1:
                other = self._column()
                if self._type(other) != self._type(column):
                    raise DecodeError(f"columns {column} and {other} are of different types", self.offset)
                right = keys.row_key(self._row_type, (other,))
                return lambda row: compare(left(row), right(row))
        raise DecodeError("a column is compared with a value (0) or another column (1)", self.offset - 1)

    def _logic(self, depth: int) -> Condition:
        left = self.condition(depth + 1)
        kind = self._byte()
        if kind > 1:
            raise DecodeError(f"logic {kind}, known are 0 (and) and 1 (or)", self.offset - 1)
        right = self.condition(depth + 1)
        if kind:
            return lambda row: left(row) or right(row)
        return lambda row: left(row) and right(row)

    def _value(self, column: int) -> Any:
        only = Product((Element(None, self._type(column)),))
        end = checked_skip(only)(self._data, self.offset)
        value = keys.row_key(only, (0,))(self._data[self.offset : end])
        self.offset = end
        return value

    def _type(self, column: int) -> Any:
        return self._row_type.elements[column].type

    def _column(self) -> int:
        column = self._byte()
        if column >= len(self._row_type.elements):
            raise DecodeError(f"there is no column {column}", self.offset - 1)
        return column

    def _byte(self) -> int:
        if self.offset >= len(self._data):
            raise DecodeError("the condition is cut short", self.offset)
        self.offset += 1
        return self._data[self.offset - 1]
