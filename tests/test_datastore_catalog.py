"""Tests of the catalogue: the real server's rows, schema changes and their undoing."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stdb.datastore.catalog import read_views
from stdb.datastore.datastore import Datastore
from stdb.datastore.records import Record
from stdb.datastore.views import view_shape
from stdb.errors import SchemaError, UniqueViolation
from stdb.sats.types import SCHEDULE_AT, STRING, U8, U64, U256, Array, Element, Product, option
from stdb.schema import documents, validation
from stdb.schema.model import Access, IndexAlgorithm, IndexDef, SequenceDef, TableDef, UniqueDef, ViewDef
from stdb.schema.system_tables import USER_ID_FIRST
from tests.datastore_samples import as_record, make_database, make_module, make_table, row, state, transaction, values

VECTORS = Path(__file__).parent / "vectors"
ITEM = make_table(
    "item", {"id": U64, "name": STRING, "size": U8}, key="id", unique=("name",), btree=("size",), auto=("id",)
)
TIMER = make_table("timer", {"id": U64, "at": SCHEDULE_AT}, key="id", auto=("id",), schedule="at")
EVENT = make_table("event", {"id": U64}, event=True)


def as_json(value: Any) -> Any:
    """Return a row's value as the recorded answers of the SQL route show it."""
    match value:
        case None:
            return [1, []]
        case bytes():
            return value.hex()
        case tuple():
            return [as_json(each) for each in value]
        case list():
            return value
    return value


def catalog_rows(datastore: Datastore, name: str, *, system: bool = False) -> list[list[Any]]:
    """Return rows of a catalogue table, of system objects or of the user's."""
    table = datastore.table(name)
    position = {"st_sequence": 2, "st_index": 1, "st_constraint": 2, "st_scheduled": 1}.get(name, 0)
    rows = [[as_json(value) for value in each] for each in values(table)]
    if name == "st_table":
        rows = [[*each[:4], each[4] if each[4] == [1, []] else [0, each[4]]] for each in rows]
    if "accessor" in name:
        return rows
    return [each for each in rows if (each[position] < USER_ID_FIRST) == system]


@pytest.mark.parametrize("name", ["st_table", "st_column", "st_index", "st_constraint"])
def test_a_fresh_database_describes_its_system_tables_as_the_real_server_does(name: str) -> None:
    recorded = json.loads((VECTORS / "schema/system_tables.json").read_text())[name]
    assert sorted(catalog_rows(Datastore(), name, system=True)) == sorted(recorded)


def test_databases_begin_with_equal_system_rows_and_share_none() -> None:
    first, second = Datastore(), Datastore()
    assert state(first) == state(second)
    at_first = state(second)
    with transaction(first) as open_transaction:
        first.create_tables(make_module(ITEM))
        open_transaction.clear(first.table("st_index_accessor"))
        open_transaction.delete(first.table("st_table"), next(iter(first.table("st_table").rows())))
    assert state(first) != at_first
    assert state(second) == state(Datastore()) == at_first
    for each in (first, second, Datastore()):
        each.verify()


def test_system_sequences_begin_at_the_first_user_id() -> None:
    recorded = json.loads((VECTORS / "schema/system_tables.json").read_text())["st_sequence"]
    fresh = sorted(catalog_rows(Datastore(), "st_sequence", system=True))
    assert [each[:8] for each in fresh] == sorted(each[:8] for each in recorded)
    assert {each[8] for each in fresh} == {USER_ID_FIRST}


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("st_table", []),
        ("st_column", []),
        ("st_sequence", [8]),  # `allocated`: some of the recorded ones had been used
        ("st_index", [0]),  # within a table the real server numbers indexes and constraints in no order
        ("st_constraint", [0]),
        ("st_scheduled", []),
        ("st_event_table", []),
        ("st_table_accessor", []),
        ("st_index_accessor", []),
        ("st_column_accessor", []),
    ],
)
def test_a_module_s_tables_are_described_as_the_real_server_does(name: str, without: list[int]) -> None:
    document = json.loads((VECTORS / "schema/documents/kitchen_v10.json").read_text())
    kitchen = validation.validate(documents.from_json(document))
    datastore = make_database(*replace(kitchen, views=()).tables)
    views = {view.name for view in kitchen.views}
    recorded = json.loads((VECTORS / "datastore/kitchen_catalog.json").read_text())
    of_views = {each[0] for each in recorded["st_table"] if each[1] in views}
    position = {"st_sequence": 2, "st_index": 1, "st_constraint": 2, "st_scheduled": 1}.get(name, 0)

    def reduced(rows: list[list[Any]]) -> list[list[Any]]:
        kept = [each for each in rows if each[position] not in of_views | views]
        if name == "st_column_accessor":  # of these the document shows canonical names only
            kept = [each for each in kept if each[0] not in ("every", "nums", "renamed_wire")]
        if "accessor" not in name:
            kept = [each for each in kept if each[position] >= USER_ID_FIRST]
        return sorted([[value for i, value in enumerate(each) if i not in without] for each in kept])

    assert reduced(catalog_rows(datastore, name)) == reduced(recorded[name])


def test_ids_begin_at_4096_in_the_order_of_names() -> None:
    datastore = make_database(TIMER, ITEM, EVENT)
    assert [datastore.table(name).schema.id for name in ("event", "item", "timer")] == [4096, 4097, 4098]
    item = datastore.table("item").schema
    assert (item.index_ids, item.constraint_ids, item.sequence_ids) == ((4096, 4097, 4098), (4096, 4097), (4096,))
    assert datastore.table("timer").schema.schedule_id == 4096


def test_tables_are_found_by_name() -> None:
    datastore = make_database(ITEM)
    assert datastore.find_table("item") is datastore.table("item") is datastore.tables[4096]
    assert datastore.find_table("absent") is None
    with pytest.raises(KeyError):
        datastore.table("absent")


def test_creating_tables_is_undone_by_a_rollback() -> None:
    datastore = Datastore()
    before = state(datastore)
    tx = datastore.begin(0)
    datastore.create_tables(make_module(ITEM, TIMER))
    item = datastore.table("item")
    tx.insert(item, row(item, 0, "a", 1))
    tx.rollback()
    assert state(datastore) == before
    assert datastore.find_table("item") is None
    with transaction(datastore):
        datastore.create_tables(make_module(ITEM))
    assert datastore.table("item").schema.id == 4098


def test_a_name_is_taken_once() -> None:
    datastore = make_database(ITEM)
    tx = datastore.begin(0)
    with pytest.raises(UniqueViolation, match="'st_table_table_name_idx_btree' in table 'st_table'"):
        datastore.catalog.create_table(ITEM)
    tx.rollback()
    datastore.verify()


# Views


MINE = ViewDef("mine", "Mine", 0, True, False, Array(ITEM.row_type), Product((Element("size", U8),)), "id")
FIRST = ViewDef("first", "first", 0, False, True, option(ITEM.row_type))


def with_views() -> tuple[Datastore, list[Record]]:
    """Return a database with a table and two views, and its record."""
    datastore = Datastore()
    tx = datastore.begin(0)
    datastore.create_tables(replace(make_module(ITEM), views=(MINE, FIRST)))
    delta = tx.commit()
    assert delta is not None
    return datastore, [as_record(delta)]


def test_a_view_has_a_backing_table_in_the_catalogue_and_nowhere_else() -> None:
    datastore, _ = with_views()
    assert datastore.find_table("mine") is None
    assert [table.schema.name for table in datastore.tables.values() if not table.schema.is_system] == ["item"]
    assert catalog_rows(datastore, "st_view") == [[4096, "first", 4097, False, True], [4097, "mine", 4098, True, False]]
    assert catalog_rows(datastore, "st_view_param") == [[4097, 0, "size", "07"]]
    assert [each[:3] for each in catalog_rows(datastore, "st_view_column")] == [
        [view, place, name] for view in (4096, 4097) for place, name in enumerate(("id", "name", "size"))
    ]
    assert catalog_rows(datastore, "st_table")[1:] == [
        [4097, "first", "user", "private", [1, []]],
        [4098, "mine", "user", "public", [1, []]],
    ]
    columns = [each[:3] for each in catalog_rows(datastore, "st_column") if each[0] == 4098]
    assert columns == [[4098, place, name] for place, name in enumerate(("arg_hash", "id", "name", "size"))]
    indexes = [each[1:] for each in catalog_rows(datastore, "st_index") if each[1] > 4096]
    assert indexes == [
        [4097, "first_arg_hash_idx_btree", [1, [0]]],
        [4098, "mine_arg_hash_idx_btree", [1, [0]]],
        [4098, "mine_arg_hash_id_idx_btree", [1, [0, 1]]],
    ]
    (constraint,) = [each[1:] for each in catalog_rows(datastore, "st_constraint") if each[2] == 4098]
    assert constraint == ["mine_arg_hash_id_key", 4098, [1, [0, 1]]]
    assert ["mine", "Mine"] in catalog_rows(datastore, "st_table_accessor")
    accessors = [each[1] for each in catalog_rows(datastore, "st_column_accessor") if each[0] == "mine"]
    assert accessors == ["id", "name", "size"]


def test_views_are_read_back_from_the_catalogue_and_the_log() -> None:
    datastore, records = with_views()
    again = Datastore()
    for record in records:
        again.replay(record)
    definition = replace(make_module(ITEM), views=(MINE, FIRST))
    shapes = {view.name: view_shape(view, definition) for view in definition.views}
    for each in (datastore, again):
        assert {view.shape.name: view.shape for view in read_views(each)} == shapes
        assert [table.schema.name for table in each.tables.values() if not table.schema.is_system] == ["item"]
    assert state(again) == state(datastore)
    assert [view.shape.is_optional for view in read_views(again)] == [False, False], "the catalogue does not say it"


def test_a_column_that_is_called_like_the_hidden_one_is_not_hidden() -> None:
    datastore = make_database(make_table("t", {"arg_hash": U256}, btree=("arg_hash",)))
    assert catalog_rows(datastore, "st_column_accessor") == [["t", "arg_hash", "arg_hash"]]
    assert len(catalog_rows(datastore, "st_index_accessor")) == 1


def test_a_view_that_goes_leaves_nothing_behind() -> None:
    datastore, records = with_views()
    empty = make_database(ITEM)
    tx = datastore.begin(0)
    for view in read_views(datastore):
        datastore.catalog.drop_view(view)
    delta = tx.commit()
    assert delta is not None
    again = Datastore()
    for record in (*records, as_record(delta)):
        again.replay(record)
    for name in ("st_view", "st_view_param", "st_view_column", "st_table", "st_column", "st_index", "st_constraint"):
        assert values(datastore.table(name)) == values(again.table(name)) == values(empty.table(name)), name
    assert values(datastore.table("st_column_accessor")) == values(empty.table("st_column_accessor"))


def test_a_view_that_becomes_private_keeps_its_ids() -> None:
    datastore, _ = with_views()
    (_, mine) = read_views(datastore)
    tx = datastore.begin(0)
    hidden = replace(mine.shape, is_public=False, accessor="Own")
    datastore.catalog.alter_view(mine, hidden)
    tx.commit()
    (_, after) = read_views(datastore)
    assert after == mine._replace(shape=hidden)
    assert (after.shape.is_public, after.shape.accessor) == (False, "Own")
    assert [4098, "mine", "user", "private", [1, []]] in catalog_rows(datastore, "st_table")


@pytest.mark.parametrize(
    ("view", "error"),
    [
        (replace(MINE, return_type=Array(U8)), "View mine has invalid return type Array<U8>"),
        (replace(MINE, return_type=U64), "View mine has invalid return type U64"),
        (replace(MINE, primary_key="key"), "Primary key column key for view mine not found"),
    ],
)
def test_a_view_that_does_not_return_rows_is_refused(view: ViewDef, error: str) -> None:
    datastore = Datastore()
    datastore.begin(0)
    with pytest.raises(SchemaError) as refusal:
        datastore.create_tables(replace(make_module(ITEM), views=(view,)))
    assert refusal.value.errors == [error]


# Rules of row-level security


RULES = ((4096, "SELECT * FROM item"), (4096, "SELECT * FROM item WHERE size = 1"), (4097, "SELECT * FROM timer"))
RULES_BY_TABLE = {
    4096: ("SELECT * FROM item", "SELECT * FROM item WHERE size = 1"),
    4097: ("SELECT * FROM timer",),
}


def with_rules() -> tuple[Datastore, list[Record]]:
    """Return a database with two tables and their rules, and its records."""
    datastore, records = Datastore(), []
    for step in range(2):
        tx = datastore.begin(0)
        if step == 0:
            datastore.create_tables(make_module(ITEM, TIMER))
        else:
            datastore.catalog.replace_rules(RULES)
        records.append(as_record(tx.commit()))
    return datastore, records


def replayed(records: list[Record]) -> Datastore:
    """Return the database that records make."""
    datastore = Datastore()
    for record in records:
        datastore.replay(record)
    return datastore


def test_rules_are_rows_by_the_table_that_they_protect() -> None:
    datastore, _ = with_rules()
    assert datastore.rules == RULES_BY_TABLE
    assert values(datastore.table("st_row_level_security")) == [*RULES]
    assert make_database(ITEM).rules == {}


def test_rules_are_there_after_a_replay() -> None:
    datastore, records = with_rules()
    again = replayed(records)
    assert again.rules == datastore.rules
    assert state(again) == state(datastore)
    again.verify()


def test_rules_made_with_their_tables_are_there_after_a_replay() -> None:
    datastore = Datastore()
    tx = datastore.begin(0)
    datastore.create_tables(make_module(ITEM, TIMER))
    datastore.catalog.replace_rules(RULES)
    assert replayed([as_record(tx.commit())]).rules == RULES_BY_TABLE


def test_new_rules_stand_in_the_place_of_the_old_ones() -> None:
    datastore, records = with_rules()
    tx = datastore.begin(0)
    datastore.catalog.replace_rules([(4097, "SELECT * FROM timer"), (4097, "SELECT * FROM timer WHERE id = 1")])
    delta = tx.commit()
    assert datastore.rules == {4097: ("SELECT * FROM timer", "SELECT * FROM timer WHERE id = 1")}
    assert [(each.table.schema.name, len(each.inserts), len(each.deletes)) for each in delta.tables] == [
        ("st_row_level_security", 1, 2)
    ]
    again = replayed([*records, as_record(delta)])
    assert {table_id: set(texts) for table_id, texts in again.rules.items()} == {
        table_id: set(texts) for table_id, texts in datastore.rules.items()
    }


def test_the_same_rules_again_change_nothing() -> None:
    datastore, _ = with_rules()
    tx = datastore.begin(0)
    datastore.catalog.replace_rules(RULES)
    assert tx.commit() is None
    assert datastore.rules == RULES_BY_TABLE


def test_rules_are_rolled_back() -> None:
    datastore, _ = with_rules()
    before = state(datastore)
    tx = datastore.begin(0)
    datastore.catalog.replace_rules([])
    assert datastore.rules == {}
    datastore.catalog.drop_table(datastore.table("item"))
    tx.rollback()
    assert datastore.rules == RULES_BY_TABLE
    assert state(datastore) == before


def test_a_dropped_table_takes_its_rules_with_it() -> None:
    datastore, records = with_rules()
    tx = datastore.begin(0)
    datastore.catalog.drop_table(datastore.table("item"))
    records.append(as_record(tx.commit()))
    assert datastore.rules == {4097: ("SELECT * FROM timer",)}
    assert replayed(records).rules == datastore.rules


def test_a_table_in_a_new_layout_keeps_its_rules() -> None:
    datastore, records = with_rules()
    tx = datastore.begin(0)
    datastore.catalog.create_index(datastore.table("item"), NEW_INDEX)
    records.append(as_record(tx.commit()))
    assert datastore.rules == replayed(records).rules == RULES_BY_TABLE


def test_a_unique_constraint_needs_an_index_on_its_columns() -> None:
    datastore = Datastore()
    datastore.begin(0)
    with pytest.raises(SchemaError, match=r"`item_name_key` needs an index on exactly \(name\)"):
        datastore.catalog.create_table(replace(ITEM, indexes=ITEM.indexes[:1]))


# Altering


NEW_INDEX = IndexDef("item_size_name_idx_btree", None, IndexAlgorithm.BTREE, (2, 1), "item_size_name_idx_btree")
NEW_UNIQUE = UniqueDef("item_size_key", (2,))
ALTERATIONS = {
    "create_index": (NEW_INDEX,),
    "drop_index": ("item_size_idx_btree",),
    "create_unique": (NEW_UNIQUE,),
    "drop_unique": ("item_id_key",),
    "create_sequence": (SequenceDef("item_size_seq", 2),),
    "drop_sequence": ("item_id_seq",),
    "set_access": (Access.PUBLIC,),
    "set_primary_key": (None,),
    "alter_index": (replace(ITEM.indexes[0], source_name="other_source"),),
    "rename_accessors": ("Item", ("ID", "Name", "Size")),
}
MOVING = ("set_primary_key",)
"""What gives the table new ids: its rows go and come."""


def filled() -> tuple[Datastore, list[Record]]:
    """Return a database with items, and its records."""
    datastore, records = Datastore(), []
    for step in range(2):
        tx = datastore.begin(0)
        if step == 0:
            datastore.create_tables(make_module(ITEM))
        item = datastore.table("item")
        for number in range(3):
            tx.insert(item, row(item, 0, f"{step} {number}", 10 * step + number))
        delta = tx.commit()
        assert delta is not None
        records.append(as_record(delta))
    return datastore, records


@pytest.mark.parametrize("operation", ALTERATIONS)
@pytest.mark.parametrize("commits", [True, False])
def test_altering_a_table_keeps_its_rows_and_is_undone_by_a_rollback(operation: str, commits: bool) -> None:
    datastore, records = filled()
    item = datastore.table("item")
    rows, before, definition = values(item), state(datastore), item.schema.definition
    tx = datastore.begin(0)
    tx.insert(item, row(item, 0, "before", 99))
    altered: Any = getattr(datastore.catalog, operation)(item, *ALTERATIONS[operation])
    assert altered is datastore.table("item")
    assert altered.schema.definition != definition
    tx.insert(altered, row(altered, 50, "after", 100))
    assert values(altered) == sorted([*rows, (7, "before", 99), (50, "after", 100)])
    altered.verify()
    if not commits:
        tx.rollback()
        assert datastore.table("item") is item
        assert (values(item), state(datastore)) == (rows, before)
        item.verify()
        return
    delta = tx.commit()
    assert delta is not None
    *gone, items = [each for each in delta.tables if each.table.schema.name == "item"]
    assert items.table is altered
    assert [values(item, each.deletes) for each in gone] == ([rows] if operation in MOVING else [])
    added = [(7, "before", 99), (50, "after", 100)]
    assert values(altered, items.inserts) == (sorted([*rows, *added]) if gone else added)
    assert (altered.schema.id != item.schema.id) == bool(gone)
    again = Datastore()
    for record in (*records, as_record(delta)):
        again.replay(record)
    again.verify()
    assert state(again) == state(datastore)
    assert described(again.table("item").schema.definition) == described(altered.schema.definition)
    assert again.table("item").schema.index_ids == altered.schema.index_ids


def described(definition: TableDef) -> TableDef:
    """Return a definition without what the catalogue does not hold."""
    sequences = tuple(SequenceDef(each.name, each.column) for each in definition.sequences)
    return replace(definition, sequences=sequences, type_ref=0)


def test_a_dropped_unique_constraint_allows_duplicates_and_one_over_duplicates_is_refused() -> None:
    datastore, _ = filled()
    with transaction(datastore) as tx:
        item = datastore.catalog.drop_unique(datastore.table("item"), "item_id_key")
        tx.insert(item, row(item, 1, "one again", 50))
        assert len(item.index_on((0,)).find_all(1)) == 2  # type: ignore[union-attr]
    before = state(datastore)
    tx = datastore.begin(0)
    with pytest.raises(
        UniqueViolation, match="`item_id_key` cannot be added to table `item`: its rows have duplicates"
    ):
        datastore.catalog.create_unique(datastore.table("item"), UniqueDef("item_id_key", (0,)))
    assert tx.commit() is None
    assert state(datastore) == before
    datastore.verify()


def test_an_index_that_a_constraint_stands_on_is_not_dropped() -> None:
    datastore, _ = filled()
    datastore.begin(0)
    with pytest.raises(SchemaError, match="`item_name_key` needs an index"):
        datastore.catalog.drop_index(datastore.table("item"), "item_name_idx_btree")
    with pytest.raises(SchemaError, match="has no `absent` among its indexes"):
        datastore.catalog.drop_index(datastore.table("item"), "absent")


@pytest.mark.parametrize("commits", [True, False])
def test_dropping_a_table_takes_its_rows_and_every_trace(commits: bool) -> None:
    datastore, records = filled()
    fresh, before = state(Datastore()), state(datastore)
    tx = datastore.begin(0)
    datastore.catalog.drop_table(datastore.table("item"))
    assert datastore.find_table("item") is None
    if not commits:
        tx.rollback()
        assert state(datastore) == before
        datastore.verify()
        return
    delta = tx.commit()
    assert delta is not None
    assert len(next(each for each in delta.tables if each.table.schema.name == "item").deletes) == 6
    sequences = datastore.table("st_sequence").schema.id
    assert {**state(datastore), sequences: []} == {**fresh, sequences: []}
    again = Datastore()
    for record in (*records, as_record(delta)):
        again.replay(record)
    assert state(again) == state(datastore)
    assert again.find_table("item") is None
    with transaction(again):
        again.create_tables(make_module(ITEM))
    assert again.table("item").schema.id == 8192


def test_a_table_dropped_with_a_reserved_block_leaves_nothing_to_write() -> None:
    datastore, _ = filled()
    tx = datastore.begin(0)
    item = datastore.table("item")
    for number in range(5000):
        tx.insert(item, row(item, 0, f"x{number}", 1))
    datastore.catalog.drop_table(item)
    tx.commit()
    assert all(each[2] < USER_ID_FIRST for each in values(datastore.table("st_sequence")))
