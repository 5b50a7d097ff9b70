"""Keys: the form of values in which equality and order are those of Python.

Responsible for: reading keys and single columns out of row bytes, making keys of values.
Not responsible for: what is indexed (`stdb.datastore`).

Source: spec 01 section 9; ARCHITECTURE, "Plain values". Integers, bool, str and bytes are their own keys; Identity,
ConnectionId and Uuid are big-endian bytes; floats are integers of the same order; everything else is a tuple:
products by element, sums (tag, key), options (0, key) and (1,), arrays by element, maps of (key, key).

Row bytes are trusted: they were validated when they came in.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from stdb.sats.bsatn_decoder import DecoderSource, Mode
from stdb.sats.bsatn_layout import Layouts
from stdb.sats.caches import by_identity
from stdb.sats.keys_order import float_key
from stdb.sats.profiles import MODERN, OLD_ADDRESS, OLD_IDENTITY
from stdb.sats.types import (
    BYTES,
    CONNECTION_ID,
    IDENTITY,
    TIME_DURATION,
    TIMESTAMP,
    UUID,
    AlgebraicType,
    Array,
    Map,
    Product,
    Ref,
    Scalar,
    ScalarKind,
    Sum,
    Typespace,
    option_inner,
)
from stdb.sats.typespace import resolve

__all__ = ["float_key", "row_column", "row_columns", "row_key", "value_key", "values_key"]

Key = Any
"""A key: hashable, ordered among the keys of one type."""


def row_key(
    row_type: Product, columns: Sequence[int], typespace: Typespace = Typespace.EMPTY
) -> Callable[[bytes], Key]:
    """Return the function from a row's bytes to the key of `columns`: one column's own key, or a tuple of several."""
    return _reader(row_type, _interned(tuple(columns)), Mode.KEY, len(columns) != 1, typespace)


def row_column(row_type: Product, column: int, typespace: Typespace = Typespace.EMPTY) -> Callable[[bytes], Any]:
    """Return the function from a row's bytes to the value of one column."""
    return _reader(row_type, (column,), Mode.VALUE, False, typespace)


def row_columns(
    row_type: Product, columns: Sequence[int], typespace: Typespace = Typespace.EMPTY
) -> Callable[[bytes], tuple[Any, ...]]:
    """Return the function from a row's bytes to the tuple of the values of `columns`."""
    return _reader(row_type, _interned(tuple(columns)), Mode.VALUE, True, typespace)


@lru_cache(maxsize=4096)
def _interned(columns: tuple[int, ...]) -> tuple[int, ...]:
    """Return the one tuple that equals these columns: what is found by identity finds them."""
    return columns


@by_identity
def _reader(
    row_type: Product, columns: tuple[int, ...], mode: Mode, is_tuple: bool, typespace: Typespace
) -> Callable[[bytes], Any]:
    layouts = Layouts(typespace, MODERN)
    layouts.of(row_type)
    parts = [layouts.of(element.type) for element in row_type.elements]

    def returned(values: list[str]) -> str:
        by_column = dict(zip(sorted(set(columns)), values, strict=True))
        ordered = [by_column[column] for column in columns]
        return f"({', '.join(ordered)}{',' if len(ordered) == 1 else ''})" if is_tuple else ordered[0]

    source = DecoderSource(layouts)
    source.add_reader("read", parts, dict.fromkeys(columns, mode), returned)
    reader: Callable[[bytes], Any] = source.compile()["read"]
    return reader


def value_key(type_: AlgebraicType, typespace: Typespace = Typespace.EMPTY) -> Callable[[Any], Key]:
    """Return the function from a plain value of `type_` to its key."""
    return _value_key(type_, typespace)


@by_identity
def _value_key(type_: AlgebraicType, typespace: Typespace) -> Callable[[Any], Key]:
    return _Keys(typespace).of(type_)


def values_key(
    types: Sequence[AlgebraicType], typespace: Typespace = Typespace.EMPTY
) -> Callable[[Sequence[Any]], Key]:
    """Return the function from the values of some columns to their key, as `row_key` makes it of a row."""
    keys = [value_key(type_, typespace) for type_ in types]
    if len(keys) == 1:
        (only,) = keys
        return lambda values: only(values[0])
    return lambda values: tuple([key(value) for key, value in zip(keys, values, strict=True)])


def _itself(value: Any) -> Any:
    return value


def _reversed(value: bytes) -> bytes:
    return value[::-1]


def _old_key(value: Any) -> tuple[bytes]:
    """Return the key of an Identity or Address of 0.11: of a product, or of what that profile has in its place."""
    return (value[::-1],) if isinstance(value, bytes) else value


class _Keys:
    """Makes key functions of the types of one typespace; recursive types find their own."""

    def __init__(self, typespace: Typespace) -> None:
        self.typespace = typespace
        self.refs: dict[int, list[Callable[[Any], Key]]] = {}

    def of(self, type_: AlgebraicType) -> Callable[[Any], Key]:
        if isinstance(type_, Ref):
            return self._ref(type_)
        match type_:
            case Scalar(kind):
                return float_key if kind in (ScalarKind.F32, ScalarKind.F64) else _itself
            case Product(elements):
                if type_ in (TIMESTAMP, TIME_DURATION):
                    return _itself
                if type_ in (IDENTITY, CONNECTION_ID, UUID):
                    return _reversed
                if type_ in (OLD_IDENTITY, OLD_ADDRESS):
                    return _old_key
                parts = [self.of(element.type) for element in elements]
                return lambda value: tuple([part(item) for part, item in zip(parts, value, strict=True)])
            case Sum():
                return self._sum(type_)
            case Array(element_type):
                if type_ == BYTES:
                    return _itself
                each = self.of(element_type)
                return lambda value: tuple([each(item) for item in value])
            case Map(key, value):
                key_of, value_of = self.of(key), self.of(value)
                return lambda pairs: tuple([(key_of(one), value_of(other)) for one, other in pairs])

    def _ref(self, type_: Ref) -> Callable[[Any], Key]:
        if type_.index not in self.refs:
            self.refs[type_.index] = cell = []
            cell.append(self.of(resolve(type_, self.typespace)))
            return cell[0]
        cell = self.refs[type_.index]
        return lambda value: cell[0](value)

    def _sum(self, type_: Sum) -> Callable[[Any], Key]:
        parts = [self.of(variant.type) for variant in type_.variants]
        inner = option_inner(type_)
        if inner is None:
            return lambda value: (value[0], parts[value[0]](value[1]))
        some = parts[0]
        if option_inner(resolve(inner, self.typespace)) is None:
            return lambda value: (1,) if value is None else (0, some(value))
        return lambda value: (1,) if value is None else (0, some(value[0]))
