"""INSERT, UPDATE, DELETE and SET: which rows they leave, what they count, with which words they are refused.

What whole servers answered to a long sequence of them is replayed by `test_sql_recorded.py`.
"""

from itertools import pairwise
from typing import Any

import pytest

from stdb.datastore.datastore import Datastore
from stdb.datastore.delta import Delta
from stdb.errors import QueryError
from stdb.sats import bsatn
from stdb.sats import types as t
from stdb.schema.model import Access, ColumnDef, IndexAlgorithm, IndexDef, ModuleDef, SequenceDef, TableDef, UniqueDef
from stdb.sql import Caller
from stdb.sql.changes import ChangeStatement, SqlStats, bind_change
from stdb.sql.parser import parse
from stdb.sql.shape import sql_shape
from stdb.sql.shapes import DeleteShape, InsertShape, SetShape, UpdateShape
from stdb.sql.work import BATCH, Work, finish
from tests.sql_schemas import CLIENT, IDENTITIES, OWNER, cases, datastore_of, plain, sql_of

OWNED = Caller(OWNER, is_owner=True)
STATS = {
    "ran-access": {7: (1, 0, 0), 8: (0, 0, 0), 9: (0, 0, 0), 11: (0, 0, 0), 12: (1, 0, 0), 13: (0, 0, 0)},
    "ran-dml": {
        1: (2, 0, 0), 2: (1, 0, 0), 3: (1, 0, 0), 4: (1, 0, 0), 10: (1, 0, 0), 11: (1, 0, 0), 15: (1, 0, 0),
        16: (1, 0, 0), 19: (1, 0, 0), 25: (1, 0, 0), 29: (1, 0, 0), 30: (1, 0, 0), 31: (2, 0, 0), 32: (0, 0, 0),
        33: (0, 0, 1), 39: (0, 0, 1), 40: (0, 0, 1), 42: (0, 0, 0), 52: (0, 0, 0), 54: (0, 0, 0), 62: (0, 0, 0),
        63: (3, 0, 0), 64: (0, 0, 0), 65: (0, 0, 0), 66: (1, 0, 0), 68: (0, 0, 0), 69: (0, 0, 0), 70: (0, 0, 0),
        72: (0, 0, 0), 75: (0, 0, 0), 79: (0, 0, 1), 80: (1, 0, 0), 81: (1, 0, 0), 82: (0, 0, 0), 83: (0, 0, 0),
        84: (0, 0, 0), 86: (1, 0, 0), 87: (0, 0, 0), 88: (0, 0, 0), 89: (0, 0, 0), 90: (1, 0, 0), 91: (0, 0, 0),
    },
    "ran-lit": {1: (1, 0, 0), 2: (1, 0, 0)},
    "ran-more": {
        88: (0, 0, 0), 89: (0, 0, 0), 90: (1, 0, 0), 91: (0, 0, 0), 94: (1, 0, 0), 97: (0, 0, 0), 98: (0, 0, 0),
        99: (0, 0, 1), 102: (1, 0, 0), 103: (1, 0, 0), 104: (0, 0, 0),
    },
    "ran-stmt": {138: (1, 0, 0)},
    "ran-sysdml": {8: (1, 0, 0)},
    "sql": {
        25: (2, 0, 0), 30: (1, 0, 0), 32: (1, 0, 0), 36: (0, 2, 0), 37: (0, 5, 0), 40: (0, 0, 1), 46: (0, 0, 0),
        47: (1, 0, 0), 48: (1, 0, 0),
    },
}  # fmt: skip
"""What each accepted change of the vectors counts on a fresh database: rows inserted, deleted, updated."""

ACCEPTED = {f"{prefix}-{number:03}": stats for prefix, numbers in STATS.items() for number, stats in numbers.items()}
CASES = {case["id"]: case for case in cases()["cases"] if case["surface"] == "sql" and case["versions"].endswith("+")}


def compiled(datastore: Datastore, text: str, caller: Caller = OWNED) -> ChangeStatement:
    """Return the statement that a text is."""
    shape = sql_shape(parse(text))
    assert isinstance(shape, InsertShape | UpdateShape | DeleteShape | SetShape)
    return bind_change(shape, datastore, caller)


def run(datastore: Datastore, text: str, caller: Caller = OWNED) -> tuple[SqlStats, Delta | None]:
    """Run a change in a transaction of its own; what fails leaves nothing behind."""
    statement = compiled(datastore, text, caller)
    transaction = datastore.begin(1)
    try:
        stats = finish(statement.steps(transaction, Work()))
    except QueryError:
        transaction.rollback()
        raise
    return stats, transaction.commit()


def rows_of(datastore: Datastore, name: str) -> list[tuple[Any, ...]]:
    """Return the rows of a table as plain values, sorted."""
    table = datastore.table(name)
    return sorted((table.schema.codec.decode_exact(row) for row in table.rows()), key=repr)


def total(datastore: Datastore) -> int:
    return sum(len(table) for table in datastore.tables.values() if table.schema.name != "st_sequence")


def _bytes_of(datastore: Datastore) -> dict[str, set[bytes]]:
    return {table.schema.name: set(table.rows()) for table in datastore.tables.values()}


def refusal(datastore: Datastore, text: str, caller: Caller = OWNED) -> str:
    """Return the words with which a change is refused, when it left no trace."""
    before = _bytes_of(datastore)
    with pytest.raises(QueryError) as refused:
        run(datastore, text, caller)
    assert _bytes_of(datastore) == before
    for table in datastore.tables.values():
        table.verify()
    return str(refused.value)


# The vectors.


def test_the_accepted_changes_of_the_vectors_are_all_here() -> None:
    changing = ("insert", "update", "delete", "set")
    accepted = {
        case_id
        for case_id, case in CASES.items()
        if sql_of(case).lower().startswith(changing) and case["result"] == "accept" and case.get("we") != "reject"
    }
    assert set(ACCEPTED) == accepted
    assert len(ACCEPTED) == 72


@pytest.mark.parametrize("case_id", ACCEPTED)
def test_an_accepted_change_of_the_vectors_counts_its_rows(case_id: str) -> None:
    case = CASES[case_id]
    datastore = datastore_of(case["schema"])
    identity = IDENTITIES[case["caller"]]
    before = total(datastore)
    stats, delta = run(datastore, sql_of(case), Caller(identity, identity == OWNER))
    assert stats == ACCEPTED[case_id]
    for table in datastore.tables.values():
        table.verify()
    changed = [] if delta is None else [each for each in delta.tables if each.table.schema.name != "st_sequence"]
    netted = sum(len(each.inserts) - len(each.deletes) for each in changed)
    assert netted == stats.rows_inserted - stats.rows_deleted
    is_event = any(each.table.is_event for each in changed)
    assert total(datastore) == before + (0 if is_event else stats.rows_inserted - stats.rows_deleted)


@pytest.mark.parametrize("case", cases()["dml_cases"], ids=lambda case: case["id"])
def test_a_change_of_the_vectors_leaves_its_rows(case: dict[str, Any]) -> None:
    datastore = datastore_of(case["schema"])
    table = datastore.table(case["table"])
    row_type = table.schema.row_type
    before, after = ([plain(row_type, row) for row in case[key]] for key in ("before", "after"))
    transaction = datastore.begin(0)
    transaction.clear(table)
    for row in before:
        transaction.insert(table, bsatn.codec(row_type).encode(row))
    transaction.commit()
    _, delta = run(datastore, case["sql"])
    assert rows_of(datastore, case["table"]) == sorted(after, key=repr)
    if sorted(before) == sorted(after):
        assert delta is None
    else:
        assert delta is not None
        (changed,) = delta.tables
        decode = table.schema.codec.decode_exact
        assert sorted(map(decode, changed.inserts)) == sorted(set(after) - set(before))
        assert sorted(map(decode, changed.deletes)) == sorted(set(before) - set(after))


# Unique constraints and generated values.


@pytest.mark.parametrize(
    ("text", "index", "columns", "value"),
    [
        ("insert into person (a, b, c, d) values (0, 'Ann2', 5, 'Ann@x')", "person_email", '["email"]', '"Ann@x"'),
        ("insert into person (a, b, c, d) values (1, 'X', 5, 'X@x')", "person_id", '["id"]', "1"),
        ("update person set email = 'Ann@x' where name = 'Bob'", "person_email", '["email"]', '"Ann@x"'),
        ("update person set email = 'same' where age = 30", "person_email", '["email"]', '"same"'),
        ("update person set id = 2 where id = 1", "person_id", '["id"]', "2"),
        ("update person set id = 51", "person_id", '["id"]', "51"),
        ("insert person (a, b, c, d) values (9, 'A', 1, 'a'), (8, 'B', 1, 'a')", "person_email", '["email"]', '"a"'),
    ],
)  # fmt: skip
def test_two_rows_with_one_unique_key_are_refused_by_name_and_value(
    text: str, index: str, columns: str, value: str
) -> None:
    assert refusal(datastore_of("kitchen"), text) == (
        f"IndexError: Unique constraint violation '{index}_idx_btree' in table 'person':"
        f" column(s): '{columns}' value: {value}"
    )


def _pairs() -> Datastore:
    """Return a database with a table whose two columns are unique together, and an auto-increment column."""
    columns = (ColumnDef("a", "a", t.U32), ColumnDef("b", "b", t.STRING), ColumnDef("f", "f", t.F64))
    unique = TableDef(
        "pair", "pair", 0, columns, None,
        (IndexDef("pair_a_b_idx_btree", None, IndexAlgorithm.BTREE, (0, 1), "pair_a_b_idx_btree"),),
        (UniqueDef("pair_a_b_key", (0, 1)),), (), None, Access.PUBLIC, False,
    )  # fmt: skip
    counted = TableDef(
        "counted", "counted", 0, (ColumnDef("n", "n", t.U8), ColumnDef("x", "x", t.U32)), None, (), (),
        (SequenceDef("counted_n_seq", 0),), None, Access.PUBLIC, False,
    )  # fmt: skip
    datastore = Datastore()
    transaction = datastore.begin(0)
    datastore.create_tables(ModuleDef(t.Typespace.EMPTY, (unique, counted)))
    transaction.commit()
    return datastore


def test_a_key_of_several_columns_is_named_as_a_product() -> None:
    datastore = _pairs()
    run(datastore, "insert into pair (a, b, f) values (1, 'x', 0), (1, 'y', 1)")
    assert refusal(datastore, "update pair set b = 'x'") == (
        "IndexError: Unique constraint violation 'pair_a_b_idx_btree' in table 'pair':"
        ' column(s): \'["a", "b"]\' value: (a = 1, b = "x")'
    )


def test_generated_values_of_a_statement_that_failed_are_not_given_back() -> None:
    datastore = datastore_of("kitchen")
    refusal(datastore, "insert into person (id, name, age, email) values (0, 'A', 1, 'a@x'), (0, 'B', 1, 'a@x')")
    run(datastore, "insert into person (id, name, age, email) values (0, 'C', 1, 'c@x')")
    assert (6, "C", 1, "c@x") in rows_of(datastore, "person")


def test_a_generated_column_set_to_zero_gives_each_row_a_new_value() -> None:
    datastore = _pairs()
    run(datastore, "insert into counted (n, x) values (0, 7), (0, 8), (200, 9)")
    stats, _ = run(datastore, "update counted set n = 0")
    assert stats == SqlStats(rows_updated=3)
    rows = rows_of(datastore, "counted")
    assert {n for n, _ in rows} == {3, 4, 5}
    assert {x for _, x in rows} == {7, 8, 9}


# UPDATE.


def test_of_two_assignments_of_one_column_the_first_counts() -> None:
    datastore = datastore_of("kitchen")
    run(datastore, "update person set age = 1, age = 2 where id = 1")
    assert (1, "Ann", 1, "Ann@x") in rows_of(datastore, "person")


def test_a_second_assignment_of_one_column_is_checked_all_the_same() -> None:
    text = "update person set age = 1, age = 'x'"
    assert refusal(datastore_of("kitchen"), text) == "Unexpected type: (expected) String != U32 (inferred)"


def test_a_column_is_assigned_by_either_of_its_names() -> None:
    datastore = datastore_of("kitchen")
    run(datastore, "update renamedAcc set camelCol = 5 where camel_col = 1")
    run(datastore, "update renamed_wire set camel_col = 6 where camelCol = 5")
    assert rows_of(datastore, "renamed_wire") == [(6, "r")]


def test_an_update_gives_way_to_the_keys_of_the_rows_it_takes_out() -> None:
    datastore = _pairs()
    run(datastore, "insert into pair (a, b, f) values (1, 'x', 0), (2, 'x', 0), (3, 'y', 0)")
    stats, delta = run(datastore, "update pair set a = 2 where a = 2")
    assert stats == SqlStats(rows_updated=1)
    assert delta is None
    run(datastore, "update pair set a = 1, b = 'z' where b = 'y'")
    assert rows_of(datastore, "pair") == [(1, "x", 0.0), (1, "z", 0.0), (2, "x", 0.0)]


def test_what_an_update_does_not_assign_is_kept_to_the_bit() -> None:
    datastore = _pairs()
    nan = bytes.fromhex("010000000000f47f")  # a signalling one
    row = (7).to_bytes(4, "little") + b"\x03\x00\x00\x00abc" + nan
    transaction = datastore.begin(0)
    transaction.insert(datastore.table("pair"), row)
    transaction.commit()
    run(datastore, "update pair set a = 8")
    assert list(datastore.table("pair").rows()) == [(8).to_bytes(4, "little") + row[4:]]
    run(datastore, "update pair set b = 'longer'")
    (changed,) = datastore.table("pair").rows()
    assert changed.endswith(b"longer" + nan)
    run(datastore, "update pair set f = 1.5, a = 9")
    assert rows_of(datastore, "pair") == [(9, "longer", 1.5)]


# Who may, and where.


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("delete from plain", "Caller {} is not authorized to run SQL DML statements"),
        ("set row_limit = 5", "Caller {} is not authorized to run SQL DML statements"),
        ("delete from st_var", "Caller {} is not authorized to run SQL DML statements"),
        ("delete from plain where nosuch = 1", "`nosuch` is not in scope"),
        ("set other = 5", "other is not a valid system variable"),
        ("set row_limit = 'x'", "Unexpected type: (expected) U64 != String (inferred)"),
        ("update secret set word = 'x'", "no such table: `secret`. If the table exists, it may be marked private."),
        ("delete from st_table", "`st_table` is a system table; DML on system tables is not supported"),
        ("delete from st_module", "no such table: `st_module`. If the table exists, it may be marked private."),
    ],
)
def test_who_is_not_the_owner_changes_nothing(text: str, wanted: str) -> None:
    caller = Caller(CLIENT, is_owner=False)
    assert refusal(datastore_of("kitchen"), text, caller) == wanted.format(CLIENT[::-1].hex())


def test_every_system_table_but_the_variables_is_read_only() -> None:
    datastore = datastore_of("kitchen")
    names = [table.schema.name for table in datastore.tables.values() if table.schema.is_system]
    assert len(names) > 15
    own_words = {"st_env": "Database environment variables can only be changed by publishing"}
    assert own_words.keys() < set(names)
    for name in names:
        if name != "st_var":
            wanted = f"`{name}` is a system table; DML on system tables is not supported"
            assert refusal(datastore, f"delete from {name}") == own_words.get(name, wanted)


def test_a_variable_is_set_once_and_unset_by_delete() -> None:
    datastore = datastore_of("kitchen")
    assert run(datastore, "set row_limit = 5")[0] == SqlStats(rows_inserted=1)
    assert run(datastore, "set row_limit to 5.0")[0] == SqlStats()
    assert refusal(datastore, "set row_limit = 6") == (
        "IndexError: Unique constraint violation 'st_var_name_idx_btree' in table 'st_var':"
        ' column(s): \'["name"]\' value: "row_limit"'
    )
    assert rows_of(datastore, "st_var") == [("row_limit", (8, 5))]
    assert run(datastore, "delete from st_var where name = 'row_limit'")[0] == SqlStats(rows_deleted=1)
    assert run(datastore, "set row_limit = 18446744073709551615")[0] == SqlStats(rows_inserted=1)


# Work.


def _filled(count: int) -> Datastore:
    datastore = _pairs()
    table, transaction = datastore.table("pair"), datastore.begin(0)
    for number in range(count):
        transaction.insert(table, bsatn.codec(table.schema.row_type).encode((number, "x", 0.0)))
    transaction.commit()
    return datastore


@pytest.mark.parametrize(
    ("text", "written"),
    [("delete from pair", 1), ("update pair set f = 1", 2), ("update pair set f = 1 where f < 0", 0)],
)
def test_a_long_change_may_pause_while_it_reads_and_while_it_writes(text: str, written: int) -> None:
    batches = 5
    datastore = _filled(batches * BATCH)
    statement = compiled(datastore, text)
    transaction = datastore.begin(1)
    work, spent = Work(), [0]
    for _ in statement.steps(transaction, work):
        spent.append(work.spent)
    transaction.commit()
    assert work.spent == (1 + written) * batches * BATCH
    at_once = [after - before for before, after in pairwise(spent)]
    assert max(at_once) == BATCH
    assert sum(each <= BATCH // 4 for each in at_once) == 4 * written * batches


@pytest.mark.parametrize("text", ["delete from pair", "update pair set f = 1"])
def test_a_change_that_costs_more_than_allowed_is_refused_and_undone(text: str) -> None:
    datastore = _filled(3 * BATCH)
    before = rows_of(datastore, "pair")
    transaction = datastore.begin(1)
    with pytest.raises(QueryError, match="more than 5000 rows"):
        finish(compiled(datastore, text).steps(transaction, Work(5 * BATCH)))
    transaction.rollback()
    assert rows_of(datastore, "pair") == before
    datastore.table("pair").verify()


def test_a_change_that_writes_too_many_bytes_is_refused_before_it_has_written_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    datastore = _filled(3 * BATCH)
    monkeypatch.setattr("stdb.sql.changes.ROW_BYTES_MAX", 1_000_000)
    steps = compiled(datastore, f"update pair set b = '{'x' * 1_000}'").steps(datastore.begin(1), Work())
    with pytest.raises(QueryError, match="writes more than 1000000 bytes of rows: narrow it with WHERE"):
        finish(steps)
    assert sum(map(len, datastore.table("pair").rows())) < 1_000_000
    transaction = datastore.transaction
    assert transaction is not None
    transaction.rollback()
    assert len(datastore.table("pair")) == 3 * BATCH
    run(datastore, "update pair set b = 'y'")
