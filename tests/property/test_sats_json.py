"""SATS-JSON of random types and texts: round trips in every form, and nothing but DecodeError."""

import json as standard_json
import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.errors import DecodeError
from stdb.sats import bsatn, json
from stdb.sats.json_numbers import f32_text, f64_text, round_to_f32
from stdb.sats.profiles import MODERN, V0_11, V0_12
from stdb.sats.types import AlgebraicType
from tests.sats_strategies import RECURSIVE, algebraic_types, values

FEW = settings(max_examples=120, deadline=None)


@FEW
@given(st.data(), algebraic_types(is_named=True), st.sampled_from(json.FORMS), st.sampled_from([MODERN, V0_12, V0_11]))
def test_values_come_back_from_every_form(
    data: st.DataObject, type_: AlgebraicType, form: str, profile: bsatn.Profile
) -> None:
    codec = bsatn.codec(type_, RECURSIVE, profile)
    wire = codec.encode(data.draw(values(type_, is_finite=True)))
    value = codec.decode_exact(wire)
    text = json.encode(type_, value, form, typespace=RECURSIVE, profile=profile)
    back = json.decode(type_, json.parse(text), typespace=RECURSIVE, profile=profile)
    assert repr(back) == repr(value)
    assert json.parse(text.encode()) == standard_json.loads(text)


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@FEW
@given(DOCUMENTS)
def test_documents_are_parsed_as_by_the_standard_library(document: Any) -> None:
    for is_ascii in (True, False):
        text = standard_json.dumps(document, ensure_ascii=is_ascii)
        assert json.parse(text) == document
        assert json.parse(text.encode()) == document


@FEW
@given(DOCUMENTS, algebraic_types())
def test_any_document_is_a_value_or_a_decode_error(document: Any, type_: AlgebraicType) -> None:
    for profile in (MODERN, V0_11):
        try:
            value = json.decode(type_, document, typespace=RECURSIVE, profile=profile, root="$.args")
        except DecodeError as error:
            message = str(error)
        else:
            bsatn.codec(type_, RECURSIVE, profile).encode(value)
            continue
        assert message.startswith("$.args")


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet='[]{}",:0123456789-+.eE truefalsnINFity\\udabc\n', max_size=24) | st.binary(max_size=12))
def test_any_text_is_a_document_or_a_decode_error(text: str | bytes) -> None:
    try:
        document = json.parse(text)
    except DecodeError:
        return
    assert document == standard_json.loads(text)


@settings(max_examples=500, deadline=None)
@given(st.floats(width=32))
def test_an_f32_is_spelled_with_the_fewest_digits(value: float) -> None:
    text = f32_text(value)
    if math.isnan(value) or math.isinf(value):
        assert text == "null"
        return
    assert repr(round_to_f32(float(text))) == repr(value)
    digits = len(text.split("e")[0].lstrip("-").replace(".", "").strip("0"))
    assert all(round_to_f32(float(f"{value:.{fewer}e}")) != value for fewer in range(digits - 1))


@settings(max_examples=500, deadline=None)
@given(st.floats())
def test_an_f64_is_spelled_so_that_it_reads_back(value: float) -> None:
    text = f64_text(value)
    if math.isnan(value) or math.isinf(value):
        assert text == "null"
        return
    assert repr(float(text)) == repr(value)
    assert "." in text or "e" in text
    plain = value == 0 or 1e-5 <= abs(value) < 1e16
    assert plain == ("e" not in text)
