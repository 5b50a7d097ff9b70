"""Rows and arguments of random types, told to clients of 0.11 and older and heard from them."""

import json as standard_json

from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.errors import DecodeError
from stdb.net.protocols.legacy.translation import ArgumentForms, argument_forms, row_forms
from stdb.sats import bsatn
from stdb.sats.profiles import MODERN, V0_11
from stdb.sats.types import (
    CONNECTION_ID,
    I256,
    IDENTITY,
    SCHEDULE_AT,
    TIME_DURATION,
    TIMESTAMP,
    U256,
    UUID,
    AlgebraicType,
    Array,
    Element,
    Product,
    Typespace,
    option,
)
from stdb.schema.legacy import legacy_type
from tests.sats_strategies import RECURSIVE, algebraic_types, values

FEW = settings(max_examples=60, deadline=None)
KNOWN: tuple[AlgebraicType, ...] = (IDENTITY, CONNECTION_ID, TIMESTAMP, TIME_DURATION, SCHEDULE_AT, UUID, U256, I256)


def columns() -> st.SearchStrategy[AlgebraicType]:
    """Draw types, those which differ between the generations often."""
    known = st.sampled_from(KNOWN)
    return st.one_of(known, known.map(option), known.map(lambda each: Array(each)), algebraic_types(is_named=True))


@st.composite
def products(draw: st.DrawFn) -> Product:
    types = draw(st.lists(columns(), max_size=4))
    return Product(tuple(Element(f"c{place}", each) for place, each in enumerate(types)))


def after_1970(forms: ArgumentForms, wire: bytes) -> bytes:
    """Return values with times that those clients know: none is below zero."""
    return forms.from_old(forms.to_old(wire))


def test_times_below_zero_are_zero() -> None:
    params = Product((Element("at", TIMESTAMP), Element("lasts", TIME_DURATION)))
    forms = argument_forms(params, Typespace.EMPTY)
    assert forms.to_old(b"\xff" * 16) == bytes(16)
    assert after_1970(forms, bytes(range(16))) == bytes(range(16))


@FEW
@given(st.data(), products())
def test_arguments_come_back_from_bsatn_and_from_json(data: st.DataObject, params: Product) -> None:
    forms = argument_forms(params, RECURSIVE)
    wire = after_1970(forms, bsatn.codec(params, RECURSIVE, MODERN).encode(data.draw(values(params, is_finite=True))))
    old = forms.to_old(wire)
    assert forms.from_old(old) == wire
    text = forms.positional(wire)
    assert isinstance(standard_json.loads(text), list)
    assert forms.from_json(text) == wire
    types = Typespace(tuple(map(legacy_type, RECURSIVE.types)))
    assert bsatn.codec(legacy_type(params), types, V0_11).skip(old) == len(old)


@FEW
@given(st.data(), products(), st.binary(max_size=3))
def test_what_follows_arguments_stays_behind_them(data: st.DataObject, params: Product, more: bytes) -> None:
    forms = argument_forms(params, RECURSIVE)
    wire = after_1970(forms, bsatn.codec(params, RECURSIVE, MODERN).encode(data.draw(values(params))))
    assert forms.to_old(wire + more) == forms.to_old(wire) + more
    assert forms.from_old(forms.to_old(wire) + more) == wire + more


@FEW
@given(products(), st.binary(max_size=60))
def test_bytes_of_a_client_are_arguments_or_a_decode_error(params: Product, data: bytes) -> None:
    forms = argument_forms(params, RECURSIVE)
    try:
        wire = forms.from_old(data)
        size = bsatn.codec(params, RECURSIVE, MODERN).skip(wire)
    except DecodeError:
        return
    assert forms.to_old(wire[:size]) == data[: len(data) - (len(wire) - size)]


@FEW
@given(products(), st.text(max_size=20) | st.sampled_from(["[]", "{}", "[[]]", "[null]", '["0x0"]', "[1, 2]"]))
def test_a_text_of_a_client_is_arguments_or_a_decode_error(params: Product, text: str) -> None:
    forms = argument_forms(params, RECURSIVE)
    try:
        wire = forms.from_json(text)
    except DecodeError:
        return
    assert bsatn.codec(params, RECURSIVE, MODERN).skip(wire) == len(wire)


@FEW
@given(st.data(), st.lists(st.sampled_from(KNOWN), max_size=4))
def test_rows_are_told_in_types_of_that_time(data: st.DataObject, types: list[AlgebraicType]) -> None:
    row_type = Product(tuple(Element(f"c{place}", each) for place, each in enumerate(types)))
    wire = bsatn.codec(row_type, Typespace.EMPTY, MODERN).encode(data.draw(values(row_type)))
    forms = row_forms(row_type)
    old = wire if forms.to_old is None else forms.to_old(wire)
    assert bsatn.codec(legacy_type(row_type), Typespace.EMPTY, V0_11).skip(old) == len(old)
    positional, named = standard_json.loads(forms.positional(old)), standard_json.loads(forms.named(old))
    assert len(positional) == len(types)
    assert list(named) == [f"c{place}" for place in range(len(types))]
    assert forms.positional(old) == argument_forms(row_type, Typespace.EMPTY).positional(wire)
