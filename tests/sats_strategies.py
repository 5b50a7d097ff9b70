"""Hypothesis strategies for types and plain values, and an order of values written independently of the keys."""

from functools import cmp_to_key
from typing import Any

from hypothesis import strategies as st

from stdb.sats import types
from stdb.sats.types import AlgebraicType, Array, Element, Map, Product, Ref, Scalar, ScalarKind, Sum, Typespace
from stdb.sats.typespace import resolve

SPECIALS = [
    types.IDENTITY,
    types.CONNECTION_ID,
    types.TIMESTAMP,
    types.TIME_DURATION,
    types.UUID,
    types.SCHEDULE_AT,
    types.BYTES,
    types.UNIT,
]
NAMES = ["a", "b", "x y", 'quo"te', "per%cent", "%s", "é", "日本", "__identity__", "some", "class", "\n"]

# Recursive types: a tree, a list, two that reach each other through an array.
TREE, LIST, EVEN, ODD, LEAF = range(5)
RECURSIVE = Typespace(
    (
        Sum((Element("leaf", types.U8), Element("node", Product((Element("l", Ref(0)), Element("r", Ref(0))))))),
        Product((Element("head", types.STRING), Element("tail", types.option(Ref(1))))),
        Product((Element("odds", Array(Ref(3))), Element("size", types.U16))),
        Sum((Element("even", Ref(2)), Element("end", types.UNIT), Element("text", types.STRING))),
        Product((Element("x", types.F32), Element("y", types.F32))),
    )
)


def elements(inner: st.SearchStrategy[AlgebraicType], is_named: bool, least: int) -> st.SearchStrategy[Any]:
    names = st.lists(st.sampled_from(NAMES), unique=True, min_size=least, max_size=6)
    name = (lambda text: st.just(text)) if is_named else (lambda text: st.sampled_from([text, None]))
    return names.flatmap(lambda found: st.tuples(*(st.builds(Element, name(text), inner) for text in found)))


def algebraic_types(is_named: bool = False, has_refs: bool = True) -> st.SearchStrategy[AlgebraicType]:
    """Types of any shape, their Refs into RECURSIVE."""
    leaves: list[AlgebraicType] = [Scalar(kind) for kind in ScalarKind] + SPECIALS
    if has_refs:
        leaves += [Ref(index) for index in range(len(RECURSIVE.types))]

    def extend(inner: st.SearchStrategy[AlgebraicType]) -> st.SearchStrategy[AlgebraicType]:
        units = st.integers(1, 12).map(lambda n: Sum(tuple(Element(f"u{i}", types.UNIT) for i in range(n))))
        return st.one_of(
            elements(inner, is_named, 0).map(Product),
            elements(inner, is_named, 1).map(Sum),
            inner.map(Array),
            inner.map(types.option),
            units,
            st.tuples(inner, inner).map(lambda pair: types.result(*pair)),
        )

    return st.recursive(st.sampled_from(leaves), extend, max_leaves=12)


def values(type_: AlgebraicType, typespace: Typespace = RECURSIVE, is_finite: bool = False) -> st.SearchStrategy[Any]:
    """Plain values of a type."""
    return _Values(typespace, is_finite).of(type_)


class _Values:
    def __init__(self, typespace: Typespace, is_finite: bool) -> None:
        self.typespace = typespace
        self.is_finite = is_finite
        self.refs: dict[int, st.SearchStrategy[Any]] = {}

    def of(self, type_: AlgebraicType) -> st.SearchStrategy[Any]:
        if isinstance(type_, Ref):
            if type_.index not in self.refs:
                self.refs[type_.index] = st.deferred(lambda: self.of(resolve(type_, self.typespace)))
            return self.refs[type_.index]
        match type_:
            case Scalar(kind):
                return self._scalar(kind)
            case Product(parts):
                return self._product(type_, parts)
            case Sum(variants):
                return self._sum(type_, variants)
            case Array(element):
                return st.binary(max_size=8) if element == types.U8 else st.lists(self.of(element), max_size=4)
            case Map(key, value):
                return st.lists(st.tuples(self.of(key), self.of(value)), max_size=3)

    def _scalar(self, kind: ScalarKind) -> st.SearchStrategy[Any]:
        match kind:
            case ScalarKind.BOOL:
                return st.booleans()
            case ScalarKind.STRING:
                return st.text(max_size=8)
            case ScalarKind.F32 | ScalarKind.F64:
                width = 32 if kind is ScalarKind.F32 else 64
                return st.floats(width=width, allow_nan=not self.is_finite, allow_infinity=not self.is_finite)
        bits = int(kind.value[1:])
        if kind.value.startswith("U"):
            return st.integers(0, (1 << bits) - 1)
        return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1)

    def _product(self, type_: Product, parts: tuple[Element, ...]) -> st.SearchStrategy[Any]:
        if type_ in (types.IDENTITY, types.CONNECTION_ID, types.UUID):
            size = 32 if type_ == types.IDENTITY else 16
            return st.binary(min_size=size, max_size=size)
        if type_ in (types.TIMESTAMP, types.TIME_DURATION):
            return self._scalar(ScalarKind.I64)
        return st.tuples(*(self.of(part.type) for part in parts))

    def _sum(self, type_: Sum, variants: tuple[Element, ...]) -> st.SearchStrategy[Any]:
        inner = types.option_inner(type_)
        if inner is None:
            return st.one_of(*(st.tuples(st.just(tag), self.of(variant.type)) for tag, variant in enumerate(variants)))
        some = self.of(inner)
        is_wrapped = types.option_inner(resolve(inner, self.typespace)) is not None
        return st.none() | (st.tuples(some) if is_wrapped else some)


def compare(type_: AlgebraicType, one: Any, other: Any, typespace: Typespace = RECURSIVE) -> int:
    """Order two values as spec 01 section 9 says: -1, 0 or 1."""
    type_ = resolve(type_, typespace)
    match type_:
        case Scalar(ScalarKind.F32 | ScalarKind.F64):
            if one != one or other != other:
                return (one != one) - (other != other)
        case Product(parts):
            if type_ in (types.IDENTITY, types.CONNECTION_ID, types.UUID):
                one, other = int.from_bytes(one, "little"), int.from_bytes(other, "little")
            elif type_ not in (types.TIMESTAMP, types.TIME_DURATION):
                return _first(compare(p.type, a, b, typespace) for p, a, b in zip(parts, one, other, strict=True))
        case Sum(variants):
            inner = types.option_inner(type_)
            if inner is not None:
                if one is None or other is None:
                    return (one is None) - (other is None)
                is_wrapped = types.option_inner(resolve(inner, typespace)) is not None
                return (
                    compare(inner, one[0], other[0], typespace) if is_wrapped else compare(inner, one, other, typespace)
                )
            if one[0] == other[0]:
                return compare(variants[one[0]].type, one[1], other[1], typespace)
            one, other = one[0], other[0]
        case Array(element) if element != types.U8:
            found = _first(compare(element, a, b, typespace) for a, b in zip(one, other, strict=False))
            return found or (len(one) > len(other)) - (len(one) < len(other))
    return (one > other) - (one < other)


def _first(results: Any) -> int:
    return next((result for result in results if result), 0)


def in_order(type_: AlgebraicType, items: list[Any]) -> list[Any]:
    """Sort values by `compare`."""
    return sorted(items, key=cmp_to_key(lambda one, other: compare(type_, one, other)))
