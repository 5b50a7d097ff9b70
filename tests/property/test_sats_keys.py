"""Keys of random types: their order is the values' order, and rows give the keys of their values."""

import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.sats import bsatn, keys
from stdb.sats.types import AlgebraicType, Element, Product
from tests.sats_strategies import RECURSIVE, algebraic_types, compare, in_order, values

FEW = settings(max_examples=120, deadline=None)


@FEW
@given(st.data(), algebraic_types())
def test_keys_are_ordered_and_equal_as_values_are(data: st.DataObject, type_: AlgebraicType) -> None:
    found = data.draw(st.lists(values(type_), min_size=2, max_size=5))
    key = keys.value_key(type_, RECURSIVE)
    by_value, by_key = in_order(type_, found), sorted(found, key=key)
    assert [key(value) for value in by_value] == [key(value) for value in by_key]
    for one, other in itertools.pairwise(by_value):
        assert (compare(type_, one, other) == 0) == (key(one) == key(other))
        assert key(one) != key(other) or hash(key(one)) == hash(key(other))


@FEW
@given(st.data(), st.lists(algebraic_types(), min_size=1, max_size=6))
def test_rows_give_the_keys_and_values_of_their_columns(data: st.DataObject, types: list[AlgebraicType]) -> None:
    row_type = Product(tuple(Element(f"c{i}", type_) for i, type_ in enumerate(types)))
    value: tuple[Any, ...] = data.draw(values(row_type))
    row = bsatn.codec(row_type, RECURSIVE).encode(value)
    columns = data.draw(st.lists(st.integers(0, len(types) - 1), min_size=1, max_size=4))
    wanted = [value[column] for column in columns]
    assert keys.row_key(row_type, columns, RECURSIVE)(row) == keys.values_key(
        [types[column] for column in columns], RECURSIVE
    )(wanted)
    assert repr(keys.row_columns(row_type, columns, RECURSIVE)(row)) == repr(tuple(wanted))
    for column in columns:
        assert repr(keys.row_column(row_type, column, RECURSIVE)(row)) == repr(value[column])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats() | st.floats(width=32), min_size=2, max_size=6))
def test_float_keys_know_one_zero_and_one_nan(found: list[float]) -> None:
    ordered = sorted(found, key=keys.float_key)
    finite = [value for value in ordered if value == value]
    assert finite == sorted(finite)
    assert all(value != value for value in ordered[len(finite) :])
    assert keys.float_key(0.0) == keys.float_key(-0.0)
    assert len({keys.float_key(value) for value in ordered[len(finite) :]}) <= 1
