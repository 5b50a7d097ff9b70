"""Strategies: hypothesis values of the types that a module's functions take.

Responsible for: from a type and the objects that stand for it to a strategy.
Not responsible for: which functions are called with them (`machines`).
"""

from collections.abc import Sequence
from typing import Any, cast

from hypothesis import strategies as st

from stdb.sats import bsatn
from stdb.sats.objects import (
    IDENTITY_SHAPE,
    Converted,
    EnumShape,
    ListShape,
    ObjectShape,
    OptionShape,
    Shape,
    UnionShape,
)
from stdb.sats.types import (
    SCHEDULE_AT,
    TIME_DURATION,
    TIMESTAMP,
    AlgebraicType,
    Array,
    Product,
    Ref,
    Scalar,
    ScalarKind,
    Sum,
    Typespace,
    option_inner,
)

__all__ = ["values"]

_TEXT_MAX = 40
_LIST_MAX = 5
_DAY_US = 24 * 3600 * 1_000_000
_YEARS_US = st.integers(0, 4_000_000_000_000_000)  # until 2096: what datetime can say, and then some


def values(
    type_: AlgebraicType, shape: Shape | None, typespace: Typespace, people: Sequence[bytes] = ()
) -> st.SearchStrategy[Any]:
    """Return a strategy for the objects of `shape` at a type; `people` are identities that mean somebody."""
    while isinstance(type_, Ref):
        type_ = typespace.types[type_.index]
    match shape:
        case None:
            return _plain(type_, typespace, people)
        case Converted():
            if shape is IDENTITY_SHAPE and people:
                return st.sampled_from(people).map(shape.decode)
            return _plain(type_, typespace, people).map(shape.decode)
        case EnumShape():
            return st.sampled_from(shape.members)
        case OptionShape():
            inner = option_inner(type_)
            assert inner is not None, "an option's shape stands beside an option"
            return st.none() | values(inner, shape.inner, typespace, people)
        case ListShape():
            assert isinstance(type_, Array), "a list's shape stands beside an array"
            return st.lists(values(type_.element, shape.inner, typespace, people), max_size=_LIST_MAX)
        case ObjectShape():
            assert isinstance(type_, Product), "an object's shape stands beside a product"
            parts = zip(type_.elements, shape.shapes, strict=True)
            return st.builds(shape.factory, *(values(each.type, part, typespace, people) for each, part in parts))
        case UnionShape():
            assert isinstance(type_, Sum), "a union's shape stands beside a sum"
            variants = zip(type_.variants, shape.shapes, strict=True)
            return st.one_of(*(values(each.type, part, typespace, people) for each, part in variants))


def _plain(type_: AlgebraicType, typespace: Typespace, people: Sequence[bytes]) -> st.SearchStrategy[Any]:
    """Return a strategy for the plain values of a type."""
    if type_ == TIMESTAMP:
        return _YEARS_US
    if type_ == TIME_DURATION:
        return st.integers(0, _DAY_US)
    if type_ == SCHEDULE_AT:
        return st.tuples(st.just(0), st.integers(1_000_000, _DAY_US)) | st.tuples(st.just(1), _YEARS_US)
    if (inner := option_inner(type_)) is not None:
        return st.none() | values(inner, None, typespace, people)
    match type_:
        case Scalar():
            return _scalar(type_.kind)
        case Array() if type_ == Array(Scalar(ScalarKind.U8)):
            return st.binary(max_size=_TEXT_MAX)
        case Array():
            return st.lists(values(type_.element, None, typespace, people), max_size=_LIST_MAX)
    size = bsatn.codec(type_, typespace).fixed_size
    assert size in (16, 32), f"{type_} is an identity, an address or a UUID: all else has a shape"
    return st.binary(min_size=size, max_size=size)


def _scalar(kind: ScalarKind) -> st.SearchStrategy[Any]:
    name = kind.value
    if name == "Bool":
        return st.booleans()
    if name == "String":
        return st.text(max_size=_TEXT_MAX)
    bits = int(name[1:])
    if name[0] == "F":
        return st.floats(width=cast(Any, bits), allow_nan=False)
    small = st.integers(0, 10)  # what modules mostly mean
    if name[0] == "U":
        return small | st.integers(0, (1 << bits) - 1)
    return small | st.integers(-(1 << bits - 1), (1 << bits - 1) - 1)
