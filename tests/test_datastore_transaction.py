"""Tests of commit, rollback and net deltas: spec 07 sections 1 and 2."""

import pytest

from stdb.datastore.datastore import Datastore
from stdb.datastore.delta import Delta
from stdb.datastore.table import Table
from stdb.errors import ReducerError, ReducerTimeout, UniqueViolation
from stdb.sats.types import STRING, U8, U32
from tests.datastore_samples import make_database, make_table, row, state, transaction, values

ITEM = make_table("item", {"id": U32, "name": STRING}, key="id", btree=("name",))
PLAIN = make_table("plain", {"a": U8})
EVENT = make_table("event", {"id": U32, "name": STRING}, key="id", event=True)


def changes(delta: Delta | None) -> dict[str, tuple[list[tuple[object, ...]], list[tuple[object, ...]]]]:
    """Return inserts and deletes by table as sorted values."""
    assert delta is not None
    return {
        each.table.schema.name: (values(each.table, each.inserts), values(each.table, each.deletes))
        for each in delta.tables
    }


def open_item() -> tuple[Datastore, Table]:
    datastore = make_database(ITEM, PLAIN, EVENT)
    table = datastore.table("item")
    with transaction(datastore) as tx:
        tx.insert(table, row(table, 1, "a"))
        tx.insert(table, row(table, 2, "b"))
    return datastore, table


def test_a_changing_transaction_takes_the_next_offset() -> None:
    datastore, table = open_item()
    assert datastore.next_offset == 2
    tx = datastore.begin(0)
    tx.insert(table, row(table, 3, "c"))
    delta = tx.commit()
    assert delta is not None
    assert (delta.offset, datastore.next_offset) == (2, 3)


@pytest.mark.parametrize("case", ["nothing", "read", "identical", "insert delete", "delete insert", "there and back"])
def test_a_transaction_without_a_net_change_takes_no_offset_and_has_no_delta(case: str) -> None:
    datastore, table = open_item()
    before, offset = state(datastore), datastore.next_offset
    a, b, c = (row(table, number, name) for number, name in ((1, "a"), (1, "z"), (3, "c")))
    tx = datastore.begin(0)
    match case:
        case "read":
            assert table.indexes[0].find_all(1) == [a]
        case "identical":
            tx.insert(table, a)
            tx.update(table, table.indexes[0], a)
        case "insert delete":
            tx.insert(table, c)
            tx.delete(table, c)
        case "delete insert":
            tx.delete(table, a)
            tx.insert(table, a)
        case "there and back":
            tx.update(table, table.indexes[0], b)
            tx.update(table, table.indexes[0], a)
    assert tx.commit() is None
    assert not tx.is_open
    assert (state(datastore), datastore.next_offset) == (before, offset)
    datastore.verify()


def test_a_delta_is_net() -> None:
    datastore, table = open_item()
    plain = datastore.table("plain")
    tx = datastore.begin(0)
    tx.update(table, table.indexes[0], row(table, 1, "x"))
    tx.update(table, table.indexes[0], row(table, 1, "y"))
    tx.delete(table, row(table, 2, "b"))
    tx.insert(table, row(table, 3, "c"))
    tx.insert(table, row(table, 4, "d"))
    tx.delete(table, row(table, 4, "d"))
    tx.insert(plain, row(plain, 7))
    delta = tx.commit()
    assert changes(delta) == {
        "item": ([(1, "y"), (3, "c")], [(1, "a"), (2, "b")]),
        "plain": ([(7,)], []),
    }
    assert delta is not None
    assert [each.table.schema.id for each in delta.tables] == [table.schema.id, plain.schema.id]


def test_an_update_is_one_delete_and_one_insert() -> None:
    datastore, table = open_item()
    tx = datastore.begin(0)
    table.update_key(1, row(table, 1, "x"))
    assert changes(tx.commit()) == {"item": ([(1, "x")], [(1, "a")])}


def test_an_update_that_moves_the_primary_key_is_one_too() -> None:
    datastore = make_database(make_table("t", {"id": U8, "name": STRING}, key="id", unique=("name",)))
    table = datastore.table("t")
    with transaction(datastore) as tx:
        tx.insert(table, row(table, 1, "a"))
    tx = datastore.begin(0)
    tx.update(table, table.indexes[1], row(table, 2, "a"))
    assert changes(tx.commit()) == {"t": ([(2, "a")], [(1, "a")])}
    tx = datastore.begin(0)
    tx.update(table, table.indexes[1], row(table, 3, "a"))
    tx.update(table, table.indexes[1], row(table, 2, "a"))
    assert tx.commit() is None


def test_a_rollback_leaves_everything_as_it_was() -> None:
    datastore, table = open_item()
    plain = datastore.table("plain")
    table.index_on((1,)).scan()  # type: ignore[union-attr]
    before, offset = state(datastore), datastore.next_offset
    tx = datastore.begin(0)
    tx.insert(table, row(table, 3, "a"))
    tx.update(table, table.indexes[0], row(table, 1, "b"))
    tx.update(table, table.indexes[0], row(table, 1, "c"))
    tx.delete(table, row(table, 2, "b"))
    tx.insert(plain, row(plain, 1))
    tx.clear(table)
    tx.insert(table, row(table, 2, "b"))
    tx.rollback()
    assert (state(datastore), datastore.next_offset) == (before, offset)
    datastore.verify()
    assert datastore.transaction is None


def test_a_failed_insert_leaves_earlier_writes_and_the_transaction_alone() -> None:
    datastore, table = open_item()
    tx = datastore.begin(0)
    tx.insert(table, row(table, 3, "c"))
    with pytest.raises(UniqueViolation):
        tx.insert(table, row(table, 1, "other"))
    tx.insert(table, row(table, 4, "d"))
    assert changes(tx.commit()) == {"item": ([(3, "c"), (4, "d")], [])}


def test_one_transaction_at_a_time() -> None:
    datastore, _ = open_item()
    tx = datastore.begin(0)
    with pytest.raises(AssertionError, match="open already"):
        datastore.begin(0)
    tx.commit()
    with pytest.raises(AssertionError, match="has ended"):
        tx.commit()
    with pytest.raises(AssertionError, match="has ended"):
        tx.rollback()


def test_a_write_outside_a_transaction_is_found_at_the_next() -> None:
    datastore, table = open_item()
    table.insert(row(table, 9, "stray"))
    with pytest.raises(AssertionError, match="written outside a transaction"):
        datastore.begin(0)


def test_an_expired_transaction_does_not_commit() -> None:
    datastore, table = open_item()
    before = state(datastore)
    tx = datastore.begin(0)
    tx.insert(table, row(table, 3, "c"))
    tx.expired = True
    with pytest.raises(ReducerTimeout):
        tx.commit()
    assert tx.is_open
    tx.rollback()
    assert state(datastore) == before


@pytest.mark.parametrize("count", [1, 40])
def test_a_transaction_too_big_for_the_log_is_refused_while_it_can_be_rolled_back(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr("stdb.datastore.transaction.ROW_BYTES_MAX", 1000)
    datastore, table = open_item()
    before = state(datastore)
    tx = datastore.begin(0)
    for number in range(count):
        tx.insert(table, row(table, 10 + number, "x" * (1000 // count)))
    with pytest.raises(ReducerError, match=r"changes \d+ bytes of rows, at most 1000"):
        tx.commit()
    tx.rollback()
    assert state(datastore) == before


# Event tables


def test_rows_of_an_event_table_live_in_the_transaction_and_its_delta() -> None:
    datastore, _ = open_item()
    event = datastore.table("event")
    tx = datastore.begin(0)
    tx.insert(event, row(event, 1, "ping"))
    assert values(event) == [(1, "ping")]
    with pytest.raises(UniqueViolation):
        tx.insert(event, row(event, 1, "pong"))
    assert changes(tx.commit()) == {"event": ([(1, "ping")], [])}
    assert len(event) == 0
    event.verify()
    tx = datastore.begin(0)
    tx.insert(event, row(event, 1, "pong"))
    assert changes(tx.commit()) == {"event": ([(1, "pong")], [])}


def test_an_event_deleted_again_is_none_and_an_updated_one_is_the_last() -> None:
    datastore, _ = open_item()
    event = datastore.table("event")
    tx = datastore.begin(0)
    tx.insert(event, row(event, 1, "ping"))
    tx.delete(event, row(event, 1, "ping"))
    assert tx.commit() is None
    tx = datastore.begin(0)
    tx.insert(event, row(event, 1, "ping"))
    tx.update(event, event.indexes[0], row(event, 1, "pong"))
    assert changes(tx.commit()) == {"event": ([(1, "pong")], [])}
    tx = datastore.begin(0)
    tx.insert(event, row(event, 1, "ping"))
    tx.rollback()
    assert len(event) == 0
