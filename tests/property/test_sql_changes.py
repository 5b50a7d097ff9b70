"""Random INSERT, UPDATE and DELETE against a set of rows: what is left, what is counted, what is in the delta."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.datastore.datastore import Datastore
from stdb.datastore.delta import Delta
from stdb.errors import QueryError
from stdb.sats import types as t
from stdb.schema.model import (
    Access,
    ColumnDef,
    IndexAlgorithm,
    IndexDef,
    ModuleDef,
    SequenceDef,
    TableDef,
    UniqueDef,
)
from stdb.sql import Caller
from stdb.sql.changes import ChangeStatement, SqlStats
from stdb.sql.execute import compile_sql
from stdb.sql.work import Work, finish

OWNER = Caller(bytes(32), is_owner=True)
COLUMNS = ("id", "mail", "n")
Row = tuple[Any, ...]


class Violation(Exception):  # noqa: N818 - what happened
    """The model says that two rows would have one unique key."""


class Condition(NamedTuple):
    """A WHERE clause and what it means."""

    text: str
    holds: Callable[[Row], bool]


class Insert(NamedTuple):
    """New rows; an id of zero is generated."""

    rows: tuple[Row, ...]


class Update(NamedTuple):
    """New values by column name."""

    values: tuple[tuple[str, Any], ...]
    where: Condition


class Delete(NamedTuple):
    """Rows to take out."""

    where: Condition


_ids, _mails, _numbers = st.integers(1, 12), st.sampled_from("abcdef"), st.integers(-2, 2)
_values = {"id": st.just(0) | _ids, "mail": _mails, "n": _numbers}


@st.composite
def _conditions(draw: st.DrawFn) -> Condition:
    if draw(st.booleans()):
        left, right, is_and = draw(_comparisons()), draw(_comparisons()), draw(st.booleans())
        if is_and:
            return Condition(f"({left.text} and {right.text})", lambda row: left.holds(row) and right.holds(row))
        return Condition(f"({left.text} or {right.text})", lambda row: left.holds(row) or right.holds(row))
    return draw(st.just(Condition("true", lambda row: True)) | _comparisons())


@st.composite
def _comparisons(draw: st.DrawFn) -> Condition:
    place = draw(st.integers(0, 2))
    value = draw((_ids, _mails, _numbers)[place])
    operator, holds = draw(
        st.sampled_from(
            [
                ("=", lambda row: row[place] == value),
                ("<>", lambda row: row[place] != value),
                ("<", lambda row: row[place] < value),
                (">=", lambda row: row[place] >= value),
            ]
        )
    )
    return Condition(f"{COLUMNS[place]} {operator} {_literal(value)}", holds)


_inserts = st.builds(Insert, st.lists(st.tuples(_values["id"], _mails, _numbers), min_size=1, max_size=4).map(tuple))
_assignments = st.lists(
    st.sampled_from(COLUMNS).flatmap(lambda name: st.tuples(st.just(name), _values[name])), min_size=1, max_size=3
)
_updates = st.builds(Update, _assignments.map(tuple), _conditions())
_deletes = st.builds(Delete, _conditions())
_statements = st.lists(_inserts | _inserts | _updates | _deletes, max_size=12)


def _literal(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


def text_of(statement: Insert | Update | Delete, table: str) -> str:
    """Return a statement as SQL."""
    match statement:
        case Insert(rows):
            listed = ", ".join(f"({', '.join(map(_literal, row))})" for row in rows)
            return f"insert into {table} (id, mail, n) values {listed}"
        case Update(values, where):
            listed = ", ".join(f"{name} = {_literal(value)}" for name, value in values)
            return f"update {table} set {listed} where {where.text}"
        case Delete(where):
            return f"delete from {table} where {where.text}"


class Model:
    """The rows as they should be; `next_id` None is a table without keys, a plain set of rows."""

    def __init__(self, next_id: int | None) -> None:
        self.rows: set[Row] = set()
        self.next_id = next_id

    def run(self, statement: Insert | Update | Delete) -> tuple[set[Row], SqlStats]:
        """Return the rows and the counts after a statement. Raises Violation; generated ids are used up then, too."""
        match statement:
            case Insert(rows):
                after = self._with(self.rows, rows)
                return after, SqlStats(rows_inserted=len(after) - len(self.rows))
            case Update(values, where):
                matching = sorted(filter(where.holds, self.rows))
                first = dict(reversed(values))
                changed = [
                    tuple(first.get(name, old) for name, old in zip(COLUMNS, row, strict=True)) for row in matching
                ]
                return self._with(self.rows - set(matching), changed), SqlStats(rows_updated=len(matching))
            case Delete(where):
                matching = list(filter(where.holds, self.rows))
                return self.rows - set(matching), SqlStats(rows_deleted=len(matching))

    def _with(self, rows: set[Row], added: Any) -> set[Row]:
        rows = set(rows)
        for row in added:
            filled = self._filled(row)
            others = rows - {filled}
            if self.next_id is not None and any(filled[0] == each[0] or filled[1] == each[1] for each in others):
                raise Violation
            rows.add(filled)
        return rows

    def _filled(self, row: Row) -> Row:
        if self.next_id is None or row[0]:
            return row
        self.next_id += 1
        return (self.next_id - 1, *row[1:])


def _database() -> Datastore:
    columns = (ColumnDef("id", "id", t.U32), ColumnDef("mail", "mail", t.STRING), ColumnDef("n", "n", t.I32))
    indexes = [
        IndexDef(f"keyed_{name}_idx_btree", None, IndexAlgorithm.BTREE, (place,), name)
        for place, name in enumerate(COLUMNS)
    ]
    uniques = (UniqueDef("keyed_id_key", (0,)), UniqueDef("keyed_mail_key", (1,)))
    keyed = TableDef(
        "keyed", "keyed", 0, columns, 0, tuple(indexes), uniques, (SequenceDef("keyed_id_seq", 0),), None,
        Access.PUBLIC, False,
    )  # fmt: skip
    plain = TableDef("plain", "plain", 0, columns, None, (), (), (), None, Access.PUBLIC, False)
    datastore = Datastore()
    transaction = datastore.begin(0)
    datastore.create_tables(ModuleDef(t.Typespace.EMPTY, (keyed, plain)))
    transaction.commit()
    return datastore


def _run(datastore: Datastore, text: str) -> tuple[SqlStats, Delta | None]:
    statement = compile_sql(text, datastore, OWNER)
    assert isinstance(statement, ChangeStatement)
    transaction = datastore.begin(0)
    try:
        stats = finish(statement.steps(transaction, Work()))
    except QueryError:
        transaction.rollback()
        raise
    return stats, transaction.commit()


def _rows(datastore: Datastore, name: str) -> set[Row]:
    table = datastore.table(name)
    return {table.schema.codec.decode_exact(row) for row in table.rows()}


def _delta_rows(delta: Delta | None, name: str) -> Iterator[set[Row]]:
    """Yield what was put in, then what was taken out."""
    found = [each for each in delta.tables if each.table.schema.name == name] if delta else []
    for kind in ("inserts", "deletes"):
        yield {each.table.schema.codec.decode_exact(row) for each in found for row in getattr(each, kind)}


def _agree(wanted: set[Row], found: set[Row], old: set[Row]) -> bool:
    """Tell whether rows are the same but for which of the new rows got which of the generated ids."""
    if wanted == found:
        return True
    fresh, got = wanted - old, found - old
    return (
        wanted & old == found & old
        and sorted(row[0] for row in fresh) == sorted(row[0] for row in got)
        and sorted(row[1:] for row in fresh) == sorted(row[1:] for row in got)
    )


@settings(max_examples=80, deadline=None)
@given(statements=_statements, name=st.sampled_from(["keyed", "keyed", "plain"]))
def test_changes_leave_the_rows_that_a_set_of_rows_has(statements: list[Insert | Update | Delete], name: str) -> None:
    datastore = _database()
    model = Model(1 if name == "keyed" else None)
    for statement in statements:
        before = set(datastore.table(name).rows())
        try:
            wanted, counted = model.run(statement)
        except Violation:
            with pytest.raises(QueryError, match=r"^IndexError: Unique constraint violation 'keyed_"):
                _run(datastore, text_of(statement, name))
            assert set(datastore.table(name).rows()) == before
            datastore.table(name).verify()
            continue
        stats, delta = _run(datastore, text_of(statement, name))
        found = _rows(datastore, name)
        assert stats == counted
        assert _agree(wanted, found, model.rows)
        assert list(_delta_rows(delta, name)) == [found - model.rows, model.rows - found]
        datastore.table(name).verify()
        model.rows = found
