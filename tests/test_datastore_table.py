"""Tests of rows, set semantics and constraints: spec 07 section 2, rule by rule."""

import struct

import pytest

from stdb.datastore.datastore import Datastore
from stdb.datastore.table import Table
from stdb.errors import DecodeError, NoSuchIndex, NoSuchRow, StorageError, UniqueViolation
from stdb.sats.types import F64, I32, IDENTITY, STRING, U8, U32, U64
from tests.datastore_samples import make_database, make_table, row, transaction, values

PERSON = make_table(
    "person",
    {"id": U64, "name": STRING, "age": U32, "email": STRING},
    key="id",
    unique=("email",),
    btree=("name,age",),
    hashed=("age",),
    auto=("id",),
)
PLAIN = make_table("plain", {"a": I32, "b": STRING}, btree=("a",))
ACCOUNT = make_table("account", {"id": U32, "balance": I32}, key="id")


def open_table(definition: object = PERSON) -> tuple[Datastore, Table]:
    datastore = make_database(definition)  # type: ignore[arg-type]
    datastore.begin(0)
    return datastore, datastore.table(definition.name)  # type: ignore[attr-defined]


def test_an_inserted_row_is_seen_at_once_by_every_way_to_it() -> None:
    _, table = open_table()
    ann = table.insert(row(table, 7, "Ann", 30, "ann@x"))
    assert len(table) == 1
    assert list(table.rows()) == [ann]
    assert ann in table
    assert table.primary is not None
    assert table.primary.find(7) == ann
    assert [index.find_all(key) for index, key in zip(table.indexes, (7, "ann@x", ("Ann", 30), 30), strict=True)] == [
        [ann]
    ] * 4


def test_an_identical_row_is_success_without_a_change() -> None:
    datastore, table = open_table()
    ann = row(table, 7, "Ann", 30, "ann@x")
    first = table.insert(ann)
    count = len(datastore.undo)
    assert table.insert(bytes(bytearray(ann))) is first
    assert len(datastore.undo) == count
    assert table.delete(ann)
    assert len(table) == 0


def test_an_identical_row_is_recognised_in_a_table_without_constraints() -> None:
    _, table = open_table(PLAIN)
    table.insert(row(table, 1, "x"))
    table.insert(row(table, 1, "x"))
    table.insert(row(table, 1, "y"))
    assert values(table) == [(1, "x"), (1, "y")]


def test_a_zero_is_generated_before_anything_else() -> None:
    _, table = open_table()
    ann = table.insert(row(table, 0, "Ann", 30, "ann@x"))
    ben = table.insert(row(table, 0, "Ben", 30, "ben@x"))
    assert [each[0] for each in values(table, [ann, ben])] == [1, 2]
    assert values(table) == [(1, "Ann", 30, "ann@x"), (2, "Ben", 30, "ben@x")]


@pytest.mark.parametrize(
    ("new", "index", "constraint", "columns", "value"),
    [
        ((7, "Bob", 1, "bob@x"), "person_id_idx_btree", "person_id_key", ("id",), "7"),
        ((8, "Bob", 1, "ann@x"), "person_email_idx_btree", "person_email_key", ("email",), '"ann@x"'),
        ((7, "Bob", 1, "ann@x"), "person_id_idx_btree", "person_id_key", ("id",), "7"),
    ],
)
def test_a_second_row_with_a_unique_key_is_refused_in_the_reference_s_words(
    new: tuple[object, ...], index: str, constraint: str, columns: tuple[str, ...], value: str
) -> None:
    datastore, table = open_table()
    table.insert(row(table, 7, "Ann", 30, "ann@x"))
    undo = list(datastore.undo)
    with pytest.raises(UniqueViolation) as caught:
        table.insert(row(table, *new))
    error = caught.value
    listed = ", ".join(f'"{column}"' for column in columns)
    text = f"Unique constraint violation '{index}' in table 'person': column(s): '[{listed}]' value: {value}"
    assert str(error) == text
    assert (error.table, error.constraint, error.columns, error.value) == ("person", constraint, columns, value)
    assert datastore.undo == undo
    assert values(table) == [(7, "Ann", 30, "ann@x")]
    table.verify()
    table.insert(row(table, 9, "Bob", 1, "bob@x"))  # the transaction goes on


def test_a_violation_of_several_columns_names_them_all() -> None:
    _, table = open_table(make_table("t", {"a": U8, "b": STRING, "c": U8}, unique=("a,b",)))
    table.insert(row(table, 1, "x", 1))
    table.insert(row(table, 1, "y", 1))
    with pytest.raises(UniqueViolation) as caught:
        table.insert(row(table, 1, "x", 2))
    assert str(caught.value).startswith(
        """Unique constraint violation 't_a_b_idx_btree' in table 't': column(s): '["a", "b"]' value: ("""
    )
    assert caught.value.columns == ("a", "b")


def test_a_constraint_may_list_its_columns_in_another_order_than_its_index() -> None:
    from dataclasses import replace

    definition = make_table("t", {"a": U8, "b": U8}, unique=("a,b",))
    (index,) = definition.indexes
    _, table = open_table(replace(definition, indexes=(replace(index, columns=(1, 0)),)))
    table.insert(row(table, 1, 2))
    table.insert(row(table, 2, 1))
    assert table.indexes[0].unique
    assert table.indexes[0].find_all((2, 1)) == [row(table, 1, 2)]


def test_keys_of_floats_are_equal_where_the_values_are_and_rows_are_not() -> None:
    _, table = open_table(make_table("t", {"x": F64}))
    other_nan = struct.pack("<Q", 0x7FF8000000000001)
    for bits in (row(table, 0.0), row(table, -0.0), row(table, float("nan")), other_nan):
        table.insert(bits)
    assert len(table) == 4
    _, unique = open_table(make_table("t", {"x": F64}, unique=("x",)))
    unique.insert(row(unique, 0.0))
    with pytest.raises(UniqueViolation):
        unique.insert(row(unique, -0.0))
    unique.insert(row(unique, float("nan")))
    with pytest.raises(UniqueViolation):
        unique.insert(other_nan)
    _, primary = open_table(make_table("t", {"x": F64, "y": U8}, key="x"))
    primary.insert(row(primary, 0.0, 1))
    with pytest.raises(UniqueViolation):
        primary.insert(row(primary, -0.0, 1))
    primary.verify()


def test_deleting_takes_the_whole_row_and_an_absent_row_is_no_error() -> None:
    _, table = open_table()
    ann = table.insert(row(table, 7, "Ann", 30, "ann@x"))
    assert not table.delete(row(table, 7, "Ann", 31, "ann@x"))
    assert not table.delete(row(table, 8, "Ann", 30, "ann@x"))
    assert table.delete(ann)
    assert not table.delete(ann)
    assert all(not index.entries for index in table.indexes)
    assert table.delete_key(7) is None


def test_an_update_replaces_the_row_with_the_same_key() -> None:
    datastore = make_database(PERSON)
    table = datastore.table("person")
    with transaction(datastore) as tx:
        tx.insert(table, row(table, 7, "Ann", 30, "ann@x"))
        tx.update(table, table.indexes[0], row(table, 7, "Ann", 31, "ann@y"))
        assert values(table) == [(7, "Ann", 31, "ann@y")]
        tx.update(table, table.indexes[1], row(table, 8, "Anna", 31, "ann@y"))
        assert values(table) == [(8, "Anna", 31, "ann@y")]
    table.verify()


def test_an_update_needs_a_unique_index_of_that_table() -> None:
    datastore = make_database(PERSON, PLAIN)
    table, plain = datastore.table("person"), datastore.table("plain")
    with transaction(datastore) as tx:
        with pytest.raises(NoSuchIndex, match="Index was not unique: `person_name_age_idx_btree`"):
            tx.update(table, table.indexes[2], row(table, 1, "a", 1, "a"))
        with pytest.raises(NoSuchIndex, match="Index not found"):
            tx.update(table, plain.indexes[0], row(table, 1, "a", 1, "a"))


def test_an_update_of_no_row_says_which_key_is_missing() -> None:
    datastore = make_database(PERSON, ACCOUNT)
    table, account = datastore.table("person"), datastore.table("account")
    with transaction(datastore) as tx:
        with pytest.raises(NoSuchRow, match=r"Key 5 was not found in index `person_id_idx_btree`"):
            tx.update(table, table.indexes[0], row(table, 5, "a", 1, "a"))
        with pytest.raises(NoSuchRow, match='Key "a" was not found in index `person_email_idx_btree`'):
            tx.update(table, table.indexes[1], row(table, 5, "a", 1, "a"))
        with pytest.raises(NoSuchRow, match="Key 3 was not found in index `account_id_idx_btree`"):
            account.update_key(3, row(account, 3, 1))


def test_a_zero_key_in_an_update_means_a_new_one_and_finds_nothing() -> None:
    datastore = make_database(PERSON)
    table = datastore.table("person")
    with transaction(datastore) as tx:
        tx.insert(table, row(table, 0, "Ann", 30, "ann@x"))
        with pytest.raises(NoSuchRow, match="Key 2 was not found"):
            tx.update(table, table.indexes[0], row(table, 0, "Ann", 31, "ann@x"))
        with pytest.raises(NoSuchRow, match="Key 3 was not found"):
            table.update_key(0, row(table, 0, "Ann", 31, "ann@x"))
        updated = tx.update(table, table.indexes[1], row(table, 0, "Ann", 31, "ann@x"))
        assert values(table, [updated]) == [(4, "Ann", 31, "ann@x")]


def test_an_update_is_checked_against_other_rows_but_not_the_one_it_replaces() -> None:
    datastore = make_database(PERSON)
    table = datastore.table("person")
    with transaction(datastore) as tx:
        tx.insert(table, row(table, 1, "Ann", 30, "ann@x"))
        tx.insert(table, row(table, 2, "Ben", 40, "ben@x"))
        before = values(table)
        with pytest.raises(UniqueViolation, match="person_email_idx_btree"):
            tx.update(table, table.indexes[0], row(table, 1, "Ann", 31, "ben@x"))
        with pytest.raises(UniqueViolation, match="person_id_idx_btree"):
            tx.update(table, table.indexes[1], row(table, 1, "Ben", 41, "ben@x"))
        with pytest.raises(UniqueViolation, match="person_email_idx_btree"):
            table.update_key(1, row(table, 1, "Ann", 31, "ben@x"))
        assert values(table) == before
        table.verify()
        tx.update(table, table.indexes[0], row(table, 1, "Ann", 31, "ann@x"))


def test_an_update_to_the_same_row_is_no_change() -> None:
    for definition, new in ((PERSON, (1, "Ann", 30, "ann@x")), (ACCOUNT, (1, 30))):
        datastore, table = open_table(definition)
        ann = table.insert(row(table, *new))
        count = len(datastore.undo)
        assert table.update_key(1, ann) == ann
        assert table.update(table.indexes[0], ann) == ann  # type: ignore[arg-type]
        assert len(datastore.undo) == count


def test_a_unique_swap_is_legal_only_without_an_intermediate_violation() -> None:
    datastore = make_database(make_table("t", {"name": STRING, "n": U8}, key="name", unique=("n",)))
    table = datastore.table("t")
    with transaction(datastore) as tx:
        tx.insert(table, row(table, "A", 1))
        tx.insert(table, row(table, "B", 2))
    with transaction(datastore) as tx:
        with pytest.raises(UniqueViolation):
            tx.update(table, table.indexes[0], row(table, "A", 2))
        tx.delete(table, row(table, "B", 2))
        tx.update(table, table.indexes[0], row(table, "A", 2))
        tx.insert(table, row(table, "B", 1))
    assert values(table) == [("A", 2), ("B", 1)]


def test_deletes_by_key_by_range_and_of_everything_count_rows() -> None:
    datastore = make_database(PERSON)
    table = datastore.table("person")
    by_name_age = table.index("person_name_age_idx_btree")
    by_age = table.index("person_age_idx_hash")
    assert by_name_age is not None
    assert by_age is not None
    with transaction(datastore) as tx:
        for number in range(1, 10):
            tx.insert(table, row(table, number, "ab"[number % 2], number // 2, f"{number}@x"))
        assert tx.delete_by_key(table, by_age, 4) == 2
        assert tx.delete_by_key(table, by_age, 4) == 0
        assert tx.delete_by_scan(table, by_name_age, ("a",), (2, True), None) == 2
        assert tx.delete_by_key(table, table.indexes[0], 1) == 1
        assert [each[0] for each in values(table)] == [2, 3, 5, 7]
        table.verify()
        assert tx.clear(table) == 4
        assert tx.clear(table) == 0
        assert all(not index.entries for index in table.indexes)


def test_identities_order_as_numbers() -> None:
    datastore = make_database(make_table("t", {"who": IDENTITY}, btree=("who",)))
    table = datastore.table("t")
    small, large = (1).to_bytes(32, "little"), (256).to_bytes(32, "little")
    with transaction(datastore) as tx:
        for who in (large, small):
            tx.insert(table, row(table, who))
    assert table.indexes[0].scan() == [small, large]


def test_a_row_from_outside_is_checked_to_its_last_byte() -> None:
    _, table = open_table()
    good = row(table, 1, "Ann", 30, "ann@x")
    table.check_row(good)
    with pytest.raises(DecodeError, match="1 bytes after a row of table `person`"):
        table.check_row(good + b"x")
    with pytest.raises(DecodeError):
        table.check_row(good[:-1])


# verify


def test_verify_finds_what_differs() -> None:
    _, table = open_table()
    ann = table.insert(row(table, 1, "Ann", 30, "ann@x"))
    ben = table.insert(row(table, 2, "Ben", 30, "ben@x"))
    table.index_on((1, 2)).scan()  # type: ignore[union-attr]
    table.verify()
    by_email, by_name, by_age = table.indexes[1:]

    def refused(words: str) -> None:
        with pytest.raises(StorageError, match=words):
            table.verify()

    del by_email.entries["ben@x"]
    refused("index `person_email_idx_btree`: key 'ben@x' finds")
    by_email.entries["ben@x"] = ben
    by_age.entries[30] = 1
    refused("index `person_age_idx_hash`: key 30 finds")
    by_age.entries[30] = {1: None, 2: None}
    by_age.entries[31] = 1
    refused("index `person_age_idx_hash`: key 31 finds")
    del by_age.entries[31]
    by_name.order.add(("Zed", 1))
    refused("index `person_name_age_idx_btree`: the order holds")
    by_name.order.remove(("Zed", 1))
    table.stored[1] = ben
    refused("is kept at 1")
    table.stored[1] = ann + b"x"
    refused("does not decode")
    table.stored[1] = ann
    table.verify()
