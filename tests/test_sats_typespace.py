"""Refs resolved, inlined and found recursive; types and values as text."""

from typing import Any

import pytest

from stdb.errors import SchemaError
from stdb.sats import satn, types
from stdb.sats.types import U8, UNIT, AlgebraicType, Array, Element, Map, Product, Ref, Sum, Typespace, option
from stdb.sats.typespace import inline, is_recursive, reachable_refs, recursive_refs, resolve


def product(**parts: AlgebraicType) -> Product:
    return Product(tuple(Element(name, type_) for name, type_ in parts.items()))


SPACE = Typespace(
    (
        product(x=types.F32, y=Ref(1)),
        Ref(2),
        Sum((Element("a", U8), Element("b", Array(Ref(3))))),
        product(m=Map(types.STRING, types.IDENTITY)),
        product(tail=option(Ref(4))),
        product(odd=Array(Ref(6))),
        Sum((Element("even", Ref(5)), Element("other", Ref(4)))),
        Ref(8),
        Ref(7),
    )
)


def test_chains_of_refs_are_followed() -> None:
    assert resolve(Ref(1), SPACE) == SPACE.types[2]
    assert resolve(U8, SPACE) == U8
    with pytest.raises(SchemaError, match="invalid type ref &9: the typespace has 9 types"):
        resolve(Ref(9), SPACE)
    with pytest.raises(SchemaError, match="leads back to itself"):
        resolve(Ref(7), SPACE)


def test_types_are_inlined() -> None:
    inner = Sum((Element("a", U8), Element("b", Array(SPACE.types[3]))))
    assert inline(Ref(0), SPACE) == product(x=types.F32, y=inner)
    assert inline(product(m=Map(Ref(1), Ref(3))), SPACE) == product(m=Map(inner, SPACE.types[3]))


def test_recursive_types_are_found_and_not_inlined() -> None:
    small = Typespace(SPACE.types[:7])
    assert recursive_refs(small) == {4, 5, 6}
    assert recursive_refs(small, Ref(0)) == frozenset()
    assert recursive_refs(small, Ref(4)) == {4}
    assert reachable_refs(Ref(5), small) == {4, 5, 6}
    assert is_recursive(Array(Ref(6)), small)
    assert not is_recursive(Ref(0), small)
    with pytest.raises(SchemaError, match="recursive type ref &4"):
        inline(product(a=U8, b=Ref(4)), small)


def test_types_too_large_to_write_out_are_refused() -> None:
    doubling = Typespace((*(product(a=Ref(i + 1), b=Ref(i + 1)) for i in range(30)), UNIT))
    with pytest.raises(SchemaError, match="more than 65536 parts"):
        inline(Ref(0), doubling)
    chain = Typespace((*(Array(Ref(i + 1)) for i in range(500)), U8))
    with pytest.raises(SchemaError, match="nested more than 128"):
        inline(Ref(0), chain)
    deep: AlgebraicType = U8
    for _ in range(1000):
        deep = Array(deep)
    with pytest.raises(SchemaError, match="nested more than 128"):
        reachable_refs(deep, Typespace.EMPTY)


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        (U8, "U8"),
        (types.BYTES, "Array<U8>"),
        (UNIT, "()"),
        (types.NEVER, "(|)"),
        (product(x=types.F32, y=types.F32), "(x: F32, y: F32)"),
        (Product((Element(None, U8), Element("b", Ref(3)))), "(0: U8, b: &3)"),
        (option(types.U32), "(some: U32 | none: ())"),
        (types.IDENTITY, "(__identity__: U256)"),
        (Map(types.STRING, U8), "Map<String, U8>"),
    ],
)
def test_types_have_a_text(type_: AlgebraicType, text: str) -> None:
    assert satn.format_type(type_) == text


@pytest.mark.parametrize(
    ("type_", "value", "text"),
    [
        (types.BOOL, True, "true"),
        (types.I64, -5, "-5"),
        (types.STRING, 'a"b', '"a"b"'),
        (types.BYTES, b"\x01\xff", "0x01ff"),
        (types.F64, 1.0, "1"),
        (types.F64, -0.0, "-0"),
        (types.F32, 0.10000000149011612, "0.1"),
        (types.F64, 1e300, "1" + "0" * 300),
        (types.F64, float("nan"), "NaN"),
        (types.F64, float("-inf"), "-inf"),
        (UNIT, (), "()"),
        (Array(types.I8), [1, -2, 3], "[1, -2, 3]"),
        (Array(U8), b"", "0x"),
        (product(a=types.U32, b=types.STRING), (1, "x"), '(a = 1, b = "x")'),
        (option(types.U32), 1, "(some = 1)"),
        (option(types.U32), None, "(none = ())"),
        (option(option(types.U32)), (None,), "(some = (none = ()))"),
        (Sum((Element("Red", UNIT), Element("Name", types.STRING))), (1, "r"), '(Name = "r")'),
        (types.IDENTITY, bytes(31) + b"\xc2", "0xc2" + "00" * 31),
        (types.CONNECTION_ID, b"\1" + bytes(15), "0x" + "00" * 15 + "01"),
        (Array(types.IDENTITY), [bytes(32)], "[(__identity__ = 0x" + "00" * 32 + ")]"),
        (types.TIMESTAMP, 0, "1970-01-01T00:00:00+00:00"),
        (types.TIME_DURATION, -1_500_000, "-1.500000"),
        (types.UUID, bytes(16), '"00000000-0000-0000-0000-000000000000"'),
        (types.SCHEDULE_AT, (0, 1_000_000), "(Interval = (__time_duration_micros__ = +1.000000))"),
        (
            types.SCHEDULE_AT,
            (1, 1),
            "(Time = (__timestamp_micros_since_unix_epoch__ = 1970-01-01T00:00:00.000001+00:00))",
        ),
        (Map(types.STRING, U8), [("a", 1)], '["a": 1]'),
    ],
)
def test_values_have_a_text(type_: AlgebraicType, value: Any, text: str) -> None:
    assert satn.format_value(type_, value) == text


def test_refs_are_followed_in_values() -> None:
    assert satn.format_value(Ref(1), (1, []), SPACE) == "(b = [])"
