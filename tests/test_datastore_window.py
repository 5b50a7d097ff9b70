"""Windows: what runs of transactions changed, joined and added, is what one after another would have made."""

import struct

import pytest

from stdb.datastore import window as windows
from stdb.datastore.datastore import Datastore
from stdb.datastore.delta import Delta
from stdb.datastore.window import Window, join_changes
from stdb.sats.types import U32, Typespace
from stdb.schema.model import ColumnDef, IndexAlgorithm, IndexDef, ModuleDef, TableDef, UniqueDef

TABLE = TableDef(
    "t", "t", 0, (ColumnDef("id", "id", U32), ColumnDef("value", "value", U32)), 0,
    (IndexDef("t_id_idx_btree", None, IndexAlgorithm.BTREE, (0,), "id"),), (UniqueDef("t_id_key", (0,)),),
)  # fmt: skip


def transactions() -> tuple[Datastore, list[Delta]]:
    """Return small transactions, great ones between them, on the same keys."""
    datastore = Datastore()
    transaction = datastore.begin(0)
    datastore.create_tables(ModuleDef(Typespace.EMPTY, (TABLE,)))
    transaction.commit()
    table, deltas = datastore.table("t"), []
    for number, size in enumerate((1, 2, 9, 1, 3, 40, 2, 9, 1)):
        transaction = datastore.begin(0)
        for key in range(size):
            if table.primary.find(key) is None:
                table.insert(struct.pack("<II", key, number))
            elif (key + number) % 4 == 0:
                table.delete_key(key)
            else:
                table.update_key(key, struct.pack("<II", key, number))
        delta = transaction.commit()
        assert delta is not None
        deltas.append(delta)
    return datastore, deltas


@pytest.mark.parametrize("group_size", [1, 2, 4, 9])
def test_joined_groups_hold_the_last_row_of_every_key_and_leave_the_deltas_as_they_are(
    monkeypatch: pytest.MonkeyPatch, group_size: int
) -> None:
    monkeypatch.setattr(windows, "_JOINED_CHANGES_MAX", 5)
    monkeypatch.setattr(windows, "PART_CHANGES_MAX", 20)
    datastore, deltas = transactions()
    table = datastore.table("t")
    before = [dict(delta.tables[0].changes) for delta in deltas]
    window = Window()
    for start in range(0, len(deltas), group_size):
        window.add(join_changes(deltas[start : start + group_size]))
    found: windows.Part = {}
    for table_id, part in window.in_order():
        assert table_id == table.schema.id
        found.update(part)
    assert found == {key: table.stored.get(key) for key in range(40)}
    assert len(window.parts[table.schema.id]) > 1
    assert [delta.tables[0].changes for delta in deltas] == before


def test_small_transactions_of_a_group_are_one_part() -> None:
    datastore, deltas = transactions()
    ((table, part),) = join_changes(deltas)
    assert table is datastore.table("t")
    assert part == {key: table.stored.get(key) for key in range(40)}
