"""Tests of look-ups and range scans: spec 07 section 4, spec 04 section 3.4."""

from itertools import product

import pytest

from stdb.datastore.index import Bound
from stdb.datastore.table import Table
from stdb.errors import NoSuchIndex
from stdb.sats.types import F64, I32, STRING, U8, Array, option
from tests.datastore_samples import make_database, make_table, row, values

GRID = make_table("grid", {"x": U8, "y": U8, "z": U8}, key="z", btree=("x", "x,y"), hashed=("y", "x,y"))


def grid() -> Table:
    datastore = make_database(GRID)
    datastore.begin(0)
    table = datastore.table("grid")
    for number, (x, y) in enumerate(product(range(0, 8, 2), repeat=2)):
        table.insert(row(table, x, y, number))
    return table


BOUNDS: list[Bound] = [None, *((at, included) for at in range(-1, 9) for included in (True, False))]


def inside(value: int, lower: Bound, upper: Bound) -> bool:
    above = lower is None or value > lower[0] or (lower[1] and value == lower[0])
    below = upper is None or value < upper[0] or (upper[1] and value == upper[0])
    return above and below


@pytest.mark.parametrize("columns", [(0,), (2,)])
def test_a_range_of_one_column_is_every_row_inside_in_order(columns: tuple[int, ...]) -> None:
    table = grid()
    index = table.index_on(columns)
    assert index is not None
    (column,) = columns
    everything = sorted(values(table), key=lambda each: each[column])
    for lower, upper in product(BOUNDS, BOUNDS):
        found = [table.schema.codec.decode_exact(each) for each in index.scan((), lower, upper)]
        assert [each[column] for each in found] == sorted(each[column] for each in found)
        assert sorted(found) == sorted(each for each in everything if inside(each[column], lower, upper))


def test_a_range_after_a_prefix_is_every_row_inside_in_order() -> None:
    table = grid()
    index = table.index_on((0, 1))
    assert index is not None
    for x, lower, upper in product(range(-1, 9), BOUNDS, BOUNDS):
        found = [table.schema.codec.decode_exact(each)[:2] for each in index.scan((x,), lower, upper)]
        assert found == [(x, y) for y in range(0, 8, 2) if x in range(0, 8, 2) and inside(y, lower, upper)]


def test_a_range_of_the_first_of_two_columns_takes_all_of_the_second() -> None:
    table = grid()
    index = table.index_on((0, 1))
    assert index is not None
    for lower, upper in product(BOUNDS, BOUNDS):
        found = [table.schema.codec.decode_exact(each)[:2] for each in index.scan((), lower, upper)]
        expected = [(x, y) for x in range(0, 8, 2) if inside(x, lower, upper) for y in range(0, 8, 2)]
        assert found == expected


def test_a_full_prefix_and_an_equal_range_are_points_on_any_index() -> None:
    table = grid()
    wanted = [row(table, 2, 4, 6)]
    for index in (index for index in table.indexes if index.columns == (0, 1)):
        assert index.scan((2, 4)) == wanted
        assert index.scan((2,), (4, True), (4, True)) == wanted
        assert index.scan((2, 5)) == []
    by_y = table.index("grid_y_idx_hash")
    assert by_y is not None
    assert sorted(by_y.scan((), (4, True), (4, True))) == sorted(by_y.find_all(4))
    assert len(by_y.find_all(4)) == 4


def test_a_hash_index_has_no_ranges() -> None:
    table = grid()
    by_y, by_xy = table.index("grid_y_idx_hash"), table.index("grid_x_y_idx_hash")
    assert by_y is not None
    assert by_xy is not None
    with pytest.raises(NoSuchIndex, match="Index `grid_y_idx_hash` does not support seeking for a range"):
        by_y.scan((), (1, True), None)
    with pytest.raises(NoSuchIndex, match="does not support seeking"):
        by_xy.scan((2,))
    with pytest.raises(NoSuchIndex, match="does not support seeking"):
        by_y.scan((), (4, True), (4, False))


def test_the_order_follows_every_change_after_the_first_scan() -> None:
    table = grid()
    indexes = [index for index in table.indexes if "btree" in index.name]
    for index in indexes:
        index.scan()
    table.delete_key(0)
    table.delete_key(5)
    table.insert(row(table, 9, 9, 200))
    table.insert(row(table, 9, 9, 100))
    table.update_key(3, row(table, 7, 1, 3))
    table.replace(row(table, 9, 9, 100), row(table, 9, 8, 101))
    table.verify()
    for index in indexes:
        found = index.scan()
        assert sorted(found) == sorted(table.rows())
        assert [index.key_of(each) for each in found] == sorted(index.key_of(each) for each in found)
        assert index.keys_in_order() == sorted(index.entries)


def test_an_order_is_built_only_when_a_range_is_asked_for() -> None:
    table = grid()
    index = table.index_on((0,))
    assert index is not None
    index.find_all(2)
    index.scan((2,))
    assert index.order is None
    index.scan((), (2, False))
    assert index.order is not None


def test_distinct_keys_are_counted() -> None:
    table = grid()
    assert [index.distinct_keys() for index in table.indexes] == [16, 4, 16, 4, 16]
    table.delete_key(0)
    assert [index.distinct_keys() for index in table.indexes] == [15, 4, 15, 4, 15]


def test_a_key_keeps_its_other_rows_when_one_goes() -> None:
    table = grid()
    index = table.index_on((0,))
    assert index is not None
    rows = index.find_all(2)
    for number, each in enumerate(rows, 1):
        table.delete(each)
        assert sorted(index.find_all(2)) == sorted(rows[number:])
    assert 2 not in index.entries


def test_floats_strings_and_composites_scan_in_the_order_of_values() -> None:
    infinity, nan = float("inf"), float("nan")
    for type_, ordered in (
        (F64, [-infinity, -1.5, 0.0, 1e-300, 2.0, infinity, nan]),
        (STRING, ["", "a", "aa", "b", "ä", "\U0001f600"]),
        (Array(I32), [[], [-1], [-1, 5], [2], [2, 2]]),
        (option(U8), [0, 5, 255, None]),
    ):
        datastore = make_database(make_table("t", {"v": type_}, btree=("v",)))
        table = datastore.table("t")
        datastore.begin(0)
        expected = [row(table, value) for value in ordered]
        for each in reversed(expected):
            table.insert(each)
        assert table.indexes[0].scan() == expected
