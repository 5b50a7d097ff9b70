"""Tests of auto-increment: spec 07 section 3."""

import pytest

from stdb.datastore.datastore import Datastore
from stdb.datastore.sequence import BLOCK_COUNT, Reservations, Sequence
from stdb.errors import UniqueViolation
from stdb.sats.types import (
    I8,
    I16,
    I32,
    I64,
    I128,
    I256,
    STRING,
    U8,
    U16,
    U32,
    U64,
    U128,
    U256,
    AlgebraicType,
)
from stdb.schema.model import SequenceDef
from tests.datastore_samples import as_record, make_database, make_module, make_table, row, transaction, values

INTEGERS = [U8, U16, U32, U64, U128, U256, I8, I16, I32, I64, I128, I256]
ITEM = make_table("item", {"id": U64, "name": STRING}, key="id", auto=("id",))


def sequence(**parameters: int) -> Sequence:
    definition = SequenceDef("s", 0, **parameters)
    return Sequence(1, definition, parameters.get("start", 1), Reservations())


def allocated(datastore: Datastore, name: str = "item_id_seq") -> int:
    table = datastore.table("st_sequence")
    return next(each[8] for each in values(table) if each[1] == name)


@pytest.mark.parametrize("type_", INTEGERS)
def test_every_integer_type_counts_from_one(type_: AlgebraicType) -> None:
    datastore = make_database(make_table("t", {"s": STRING, "n": type_, "u": U8}, auto=("n",)))
    table = datastore.table("t")
    with transaction(datastore) as tx:
        stored = [tx.insert(table, row(table, "x" * i, 0, 9)) for i in range(3)]
    assert values(table, stored) == [("", 1, 9), ("x", 2, 9), ("xx", 3, 9)]
    assert values(table) == values(table, stored)


@pytest.mark.parametrize(("type_", "last"), [(U8, 255), (I8, 127)])
def test_a_narrow_column_takes_the_value_cut_to_its_width(type_: AlgebraicType, last: int) -> None:
    datastore = make_database(make_table("t", {"n": type_}, auto=("n",)))
    table = datastore.table("t")
    with transaction(datastore) as tx:
        found = [table.schema.codec.decode_exact(tx.insert(table, row(table, 0)))[0] for _ in range(260)]
    after = 0 if type_ is U8 else -128
    assert found[:last] == list(range(1, last + 1))
    assert found[last : last + 2] == [after, after + 1]
    assert len(table) == 256


def test_a_narrow_primary_key_that_wraps_collides() -> None:
    datastore = make_database(make_table("t", {"n": U8, "s": STRING}, key="n", auto=("n",)))
    table = datastore.table("t")
    with transaction(datastore) as tx:
        for _ in range(256):
            tx.insert(table, row(table, 0, "a"))
        with pytest.raises(UniqueViolation):
            tx.insert(table, row(table, 0, "b"))


def test_an_explicit_value_is_stored_as_given_and_does_not_move_the_sequence() -> None:
    datastore = make_database(ITEM)
    table = datastore.table("item")
    with transaction(datastore) as tx:
        tx.insert(table, row(table, 2, "explicit"))
        assert values(table, [tx.insert(table, row(table, 0, "a"))]) == [(1, "a")]
        with pytest.raises(UniqueViolation):
            tx.insert(table, row(table, 0, "b"))
        assert values(table, [tx.insert(table, row(table, 0, "b"))]) == [(3, "b")]


def test_several_columns_of_one_table_count_each_for_itself() -> None:
    datastore = make_database(make_table("t", {"a": U8, "s": STRING, "b": I64}, auto=("b", "a")))
    table = datastore.table("t")
    with transaction(datastore) as tx:
        tx.insert(table, row(table, 0, "x", 0))
        tx.insert(table, row(table, 9, "xx", 0))
        tx.insert(table, row(table, 0, "xxx", 70))
    assert sorted(values(table)) == [(1, "x", 1), (2, "xxx", 70), (9, "xx", 2)]


def test_values_of_a_rolled_back_transaction_are_skipped() -> None:
    datastore = make_database(ITEM)
    table = datastore.table("item")
    tx = datastore.begin(0)
    tx.insert(table, row(table, 0, "lost"))
    tx.rollback()
    with transaction(datastore) as tx:
        tx.insert(table, row(table, 0, "kept"))
    assert values(table) == [(2, "kept")]


def test_a_block_is_reserved_by_the_transaction_that_needs_it() -> None:
    datastore = make_database(ITEM)
    table = datastore.table("item")
    assert allocated(datastore) == 1
    with transaction(datastore) as tx:
        tx.insert(table, row(table, 0, "a"))
    assert allocated(datastore) == 1 + BLOCK_COUNT
    tx = datastore.begin(0)
    tx.insert(table, row(table, 0, "b"))
    delta = tx.commit()
    assert delta is not None
    assert [each.table.schema.name for each in delta.tables] == ["item"]
    with transaction(datastore) as tx:
        for i in range(BLOCK_COUNT - 2):
            tx.insert(table, row(table, 0, str(i)))
    assert allocated(datastore) == 1 + BLOCK_COUNT
    with transaction(datastore) as tx:
        tx.insert(table, row(table, 0, "next block"))
    assert allocated(datastore) == 1 + 2 * BLOCK_COUNT


def test_a_block_reserved_by_a_rolled_back_transaction_is_written_with_the_next_commit() -> None:
    """The reference forgets it and hands the same values out again after a restart (07 section 3, ran)."""
    datastore = make_database(ITEM)
    table = datastore.table("item")
    tx = datastore.begin(0)
    tx.insert(table, row(table, 0, "lost"))
    tx.rollback()
    assert allocated(datastore) == 1
    offset = datastore.next_offset
    assert datastore.begin(0).commit() is None
    assert datastore.next_offset == offset
    tx = datastore.begin(0)
    tx.insert(table, row(table, 0, "kept"))
    delta = tx.commit()
    assert delta is not None
    assert [each.table.schema.name for each in delta.tables] == ["st_sequence", "item"]
    assert allocated(datastore) == 1 + BLOCK_COUNT


def test_a_block_reserved_for_a_row_that_did_not_stay_is_written_at_once() -> None:
    datastore = make_database(ITEM)
    table = datastore.table("item")
    tx = datastore.begin(0)
    tx.delete(table, tx.insert(table, row(table, 0, "gone")))
    delta = tx.commit()
    assert delta is not None
    assert [each.table.schema.name for each in delta.tables] == ["st_sequence"]


def test_a_restart_skips_the_rest_of_the_block() -> None:
    first = Datastore()
    records = []
    tx = first.begin(0)
    first.create_tables(make_module(ITEM))
    tx.insert(first.table("item"), row(first.table("item"), 0, "a"))
    delta = tx.commit()
    assert delta is not None
    records.append(as_record(delta))
    expected = [1]
    for life in range(1, 4):
        datastore = Datastore()
        for record in records:
            datastore.replay(record)
        table = datastore.table("item")
        tx = datastore.begin(0)
        tx.insert(table, row(table, 0, str(life)))
        delta = tx.commit()
        assert delta is not None
        records.append(as_record(delta))
        expected.append(1 + life * BLOCK_COUNT)
        assert [each[0] for each in values(table)] == expected


def test_a_sequence_wraps_upwards_and_downwards() -> None:
    up = sequence(start=8, min_value=3, max_value=10, increment=2)
    assert [up.next() for _ in range(6)] == [8, 10, 4, 6, 8, 10]
    down = sequence(start=2, min_value=-1, max_value=3, increment=-3)
    assert [down.next() for _ in range(6)] == [2, -1, 1, 3, 0, 2]
    one = sequence(start=5, min_value=5, max_value=5)
    assert [one.next() for _ in range(3)] == [5, 5, 5]


def test_a_block_that_wraps_is_reserved_once() -> None:
    reservations = Reservations()
    short = Sequence(1, SequenceDef("s", 0, 1, 1, 10), 1, reservations)
    for _ in range(BLOCK_COUNT):
        short.next()
    assert short.allocated == 1 + BLOCK_COUNT % 10
    reservations.pending.clear()
    short.next()
    assert list(reservations.pending) == [1]


def test_a_sequence_starts_where_it_is_told() -> None:
    from dataclasses import replace

    counted = SequenceDef("item_id_seq", 0, 10, 5, 100, 5)
    datastore = make_database(replace(ITEM, sequences=(counted,)))
    table = datastore.table("item")
    with transaction(datastore) as tx:
        for name in "ab":
            tx.insert(table, row(table, 0, name))
    assert [each[0] for each in values(table)] == [10, 15]
