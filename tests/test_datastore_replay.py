"""Tests of replay: a database rebuilt from its records is the same, and a record that does not fit is refused."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from stdb.datastore.datastore import Datastore
from stdb.datastore.log import MemoryLog
from stdb.datastore.records import Record, encode, join
from stdb.datastore.recovery import recover
from stdb.errors import StorageError
from stdb.sats.types import SCHEDULE_AT, STRING, U8, U32, U64
from stdb.schema.model import Access
from tests.datastore_samples import CONTEXT, as_record, make_module, make_table, row, state, values

ITEM = make_table("item", {"id": U32, "name": STRING}, key="id", btree=("name",), auto=("id",))
PLAIN = make_table("plain", {"a": U8}, hashed=("a",))
EVENT = make_table("event", {"id": U64}, event=True)
TICK = replace(ITEM, name="tick", access=Access.PUBLIC, accessor="Ticks", indexes=(), uniques=(), primary_key=None)


def life() -> tuple[Datastore, list[Record]]:
    """Return a database that has lived a little, and its records."""
    datastore, records = Datastore(), []

    def commit() -> None:
        delta = tx.commit()
        assert delta is not None
        records.append(as_record(delta))

    tx = datastore.begin(0)
    datastore.create_tables(make_module(ITEM, PLAIN, EVENT))
    item, plain, event = (datastore.table(name) for name in ("item", "plain", "event"))
    tx.insert(item, row(item, 0, "a"))
    commit()
    for number in range(3):
        tx = datastore.begin(0)
        tx.insert(item, row(item, 0, "b" * number))
        tx.update(item, item.indexes[0], row(item, 1, f"a{number}"))
        tx.insert(plain, row(plain, number))
        tx.insert(event, row(event, number))
        commit()
    tx = datastore.begin(0)
    tx.clear(plain)
    commit()
    return datastore, records


def test_replay_rebuilds_the_same_state_without_events() -> None:
    datastore, records = life()
    again = Datastore()
    for record in records:
        again.replay(record)
    assert state(again) == state(datastore)
    assert again.next_offset == datastore.next_offset == len(records)
    assert len(again.table("event")) == 0
    again.verify()
    assert values(again.table("item")) == [(1, "a2"), (2, ""), (3, "b"), (4, "bb")]
    definition, original = again.table("event").schema.definition, EVENT
    assert (definition.is_event, definition.accessor) == (True, original.accessor)


def test_replay_again_gives_the_same_again() -> None:
    _, records = life()
    first, second = Datastore(), Datastore()
    for record in records:
        first.replay(record)
        second.replay(record)
        assert state(first) == state(second)


def test_the_whole_first_transaction_of_a_database_is_replayed_whatever_its_order() -> None:
    """`st_module` (6) stands between the catalogue's tables: `st_scheduled` (9) and later ones must not be missed."""
    timer = make_table("timer", {"id": U64, "at": SCHEDULE_AT}, key="id", auto=("id",), schedule="at")
    datastore = Datastore()
    tx = datastore.begin(0)
    datastore.create_tables(make_module(timer, EVENT))
    module, table = datastore.table("st_module"), datastore.table("timer")
    tx.insert(module, row(module, 1, 2, 2, 3, b"program", ""))
    tx.insert(table, row(table, 0, (1, 5)))
    delta = tx.commit()
    assert delta is not None
    again = Datastore()
    again.replay(as_record(delta))
    assert state(again) == state(datastore)
    assert again.table("timer").schema.definition.schedule == timer.schedule
    assert again.table("timer").schema.definition.accessor == "Timer"
    assert again.table("event").is_event


def test_ids_after_a_restart_are_fresh() -> None:
    _, records = life()
    again = Datastore()
    for record in records:
        again.replay(record)
    used = {table.schema.id for table in again.tables.values()}
    tx = again.begin(0)
    again.create_tables(make_module(TICK))
    assert tx.commit() is not None
    assert again.table("tick").schema.id not in used


@pytest.mark.parametrize(("position", "words"), [(1, "offset 1 expected, the next record has 2"), (0, "offset 0 exp")])
def test_a_record_out_of_turn_is_refused(position: int, words: str) -> None:
    _, records = life()
    again = Datastore()
    for record in records[:position]:
        again.replay(record)
    with pytest.raises(StorageError, match=words):
        again.replay(records[position + 1])


def test_a_record_is_not_applied_twice() -> None:
    _, records = life()
    again = Datastore()
    again.replay(records[0])
    with pytest.raises(StorageError, match="offset 1 expected, the next record has 0"):
        again.replay(records[0])


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (0, "offset 0: there is no table 4096"),
        (1, "offset 1: table `item`: the row to delete is not there"),
    ],
)
def test_a_record_that_does_not_fit_the_state_is_refused(missing: int, words: str) -> None:
    _, records = life()
    kept = [each for each in records if each.offset != missing]
    log = MemoryLog()
    log.append_nowait([_stored(Record(offset, record.payload)) for offset, record in enumerate(kept)])
    with pytest.raises(StorageError, match=words):
        recover(log)


def test_a_row_that_is_there_already_is_refused() -> None:
    _, records = life()
    again = Datastore()
    again.replay(records[0])
    again.table("plain").put(b"\x00")
    with pytest.raises(StorageError, match="offset 1: table `plain`: a row with the key of 00 is there already"):
        again.replay(records[1])


def test_recovery_replays_what_is_durable() -> None:
    datastore, records = life()
    log = MemoryLog()
    log.append_nowait([_stored(each) for each in records])
    recovered = recover(log)
    assert state(recovered) == state(datastore)
    assert recovered.next_offset == log.durable


def test_recovery_of_a_log_that_ends_early_is_refused() -> None:
    _, records = life()

    class Short(MemoryLog):
        @property
        def durable(self) -> int:
            return super().durable + 1

    log = Short()
    log.append_nowait([_stored(each) for each in records])
    with pytest.raises(StorageError, match="offset 5: the log ends here, it said that it holds 6"):
        recover(log)


def test_recovery_begins_with_the_newest_snapshot() -> None:
    datastore, records = life()
    tx = datastore.begin(0)
    item = datastore.table("item")
    tx.insert(item, row(item, 0, "after"))
    delta = tx.commit()
    assert delta is not None

    class Snapshots:
        """Loads a state by replay; stands for a store that loads rows."""

        def load_newest(self, datastore: Datastore, next_offset_max: int) -> Iterator[None]:
            assert next_offset_max == 6
            for record in records:
                datastore.replay(record)
                yield

    class Truncated(MemoryLog):
        def snapshots(self) -> Snapshots:
            return Snapshots()

    log = Truncated()
    log.append_nowait([bytes(16)] * 5)  # what the snapshot reflects is not read
    log.append_nowait([encode(delta, CONTEXT)])
    assert state(recover(log)) == state(datastore)


def _stored(record: Record) -> bytes:
    return join(record)
