"""Codecs of random types: round trips, prefixes, mutations, offsets, and agreement with the plain twin."""

from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.errors import DecodeError
from stdb.sats import bsatn, bsatn_plain, meta
from stdb.sats.bsatn_layout import Layouts
from stdb.sats.profiles import MODERN, V0_11, V0_12
from stdb.sats.types import AlgebraicType, Array, Map, Product, Ref, Scalar, ScalarKind, Sum
from tests.sats_strategies import EVEN, LIST, RECURSIVE, TREE, algebraic_types, values

PREFIXES = 100
"""How many prefixes of one value are tried; the last byte is always missed once."""

FEW = settings(max_examples=120, deadline=None)


@st.composite
def typed_values(draw: st.DrawFn) -> tuple[AlgebraicType, Any]:
    type_ = draw(algebraic_types())
    return type_, draw(values(type_))


def has_f32(type_: AlgebraicType) -> bool:
    match type_:
        case Scalar(kind):
            return kind is ScalarKind.F32
        case Product(parts) | Sum(parts):
            return any(has_f32(part.type) for part in parts)
        case Array(element):
            return has_f32(element)
        case Ref(index):
            return index == len(RECURSIVE.types) - 1
    return False


@FEW
@given(typed_values(), st.sampled_from([MODERN, V0_12, V0_11]))
def test_values_come_back(typed: tuple[AlgebraicType, Any], profile: bsatn.Profile) -> None:
    type_, value = typed
    codec = bsatn.codec(type_, RECURSIVE, profile)
    data = codec.encode(value)
    back = codec.decode_exact(data)
    if profile is MODERN:
        assert repr(back) == repr(value)
    assert codec.encode(back) == data
    assert codec.skip(data) == len(data) >= codec.min_size
    assert codec.fixed_size in (None, len(data))
    layouts = Layouts(RECURSIVE, profile)
    layout = layouts.of(type_)
    assert bsatn_plain.encode(layout, layouts, value) == data
    assert bsatn_plain.skip(layout, layouts, data, 0) == len(data)


@FEW
@given(typed_values())
def test_every_strict_prefix_fails(typed: tuple[AlgebraicType, Any]) -> None:
    type_, value = typed
    codec = bsatn.codec(type_, RECURSIVE)
    data = codec.encode(value)
    for length in {*range(0, len(data), len(data) // PREFIXES + 1), len(data) - 1} - {-1}:
        for read in (codec.decode, codec.skip):
            failure = outcome(read, data[:length])
            assert isinstance(failure, Failure), failure
            assert failure.offset is not None
            assert failure.offset <= length


class Failure(NamedTuple):
    text: str
    offset: int | None


def outcome(read: Callable[[bytes], Any], data: bytes) -> Any:
    """What `read` returns, or its DecodeError; anything else that is raised fails the test."""
    try:
        return read(data)
    except DecodeError as error:
        return Failure(str(error), error.offset)


@FEW
@given(typed_values(), st.data())
def test_mutated_bytes_are_a_value_or_a_decode_error(typed: tuple[AlgebraicType, Any], data: st.DataObject) -> None:
    type_, value = typed
    codec = bsatn.codec(type_, RECURSIVE)
    layouts = Layouts(RECURSIVE, MODERN)
    layout = layouts.of(type_)
    changed = bytearray(codec.encode(value))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(changed)))
        changed[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    mutated = bytes(changed)
    decoded, skipped = outcome(codec.decode, mutated), outcome(codec.skip, mutated)
    assert skipped == outcome(lambda buffer: bsatn_plain.skip(layout, layouts, buffer, 0), mutated)
    if isinstance(skipped, Failure):
        assert decoded == skipped
        return
    back, end = decoded
    assert end == skipped
    if not has_f32(type_):  # a signalling NaN turns quiet in a Python float
        assert codec.encode(back) == mutated[:end]


@FEW
@given(st.data(), algebraic_types())
def test_values_are_read_one_behind_another_at_any_offset(data: st.DataObject, type_: AlgebraicType) -> None:
    codec = bsatn.codec(type_, RECURSIVE)
    chunks = [codec.encode(value) for value in data.draw(st.lists(values(type_), max_size=5))]
    before = data.draw(st.binary(max_size=5))
    buffer = before + b"".join(chunks)
    offset = len(before)
    for chunk in chunks:
        value, end = codec.decode(buffer, offset)
        assert buffer[offset:end] == chunk == codec.encode(value)
        assert codec.skip(buffer, offset) == end
        offset = end
    assert offset == len(buffer)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([Ref(TREE), Ref(LIST), Ref(EVEN), Array(Ref(EVEN))]), st.binary(max_size=64))
def test_any_bytes_are_a_value_or_a_decode_error(type_: AlgebraicType, data: bytes) -> None:
    codec = bsatn.codec(type_, RECURSIVE)
    found = outcome(codec.decode, data)
    if not isinstance(found, Failure):
        assert codec.encode(found[0]) == data[: found[1]]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64), st.sampled_from([MODERN, V0_12, V0_11]))
def test_any_bytes_are_a_type_or_a_decode_error(data: bytes, profile: bsatn.Profile) -> None:
    found = outcome(lambda buffer: meta.decode_type(buffer, 0, profile), data)
    if not isinstance(found, Failure):
        assert meta.encode_type(found[0], profile) == data[: found[1]]


@FEW
@given(algebraic_types())
def test_types_come_back_in_both_encodings(type_: AlgebraicType) -> None:
    for profile in (MODERN, V0_12):
        data = meta.encode_type(type_, profile)
        assert meta.decode_type(data, 0, profile) == (type_, len(data))
        assert meta.type_from_json(meta.type_to_json(type_, profile), profile) == type_


@FEW
@given(st.data(), st.sampled_from([Scalar(ScalarKind.STRING), Scalar(ScalarKind.I16)]), algebraic_types())
def test_maps_come_back_in_key_order(data: st.DataObject, key: AlgebraicType, value: AlgebraicType) -> None:
    type_ = Map(key, value)
    codec = bsatn.codec(type_, RECURSIVE, V0_11)
    pairs = data.draw(values(type_))
    back = codec.decode_exact(codec.encode(pairs))
    assert [one for one, _ in back] == sorted({one for one, _ in pairs})
    latest = dict(pairs)
    assert all(repr(codec.encode([(one, other)])) == repr(codec.encode([(one, latest[one])])) for one, other in back)
