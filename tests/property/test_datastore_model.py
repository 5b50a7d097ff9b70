"""The datastore against a dictionary of sets: invariants I1 to I15 of spec 07 section 12."""

import math
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from stdb.datastore.datastore import Datastore
from stdb.datastore.delta import Delta, TableDelta, _net_by_row, net
from stdb.datastore.index import ManyIndex, UniqueIndex
from stdb.datastore.log import MemoryLog
from stdb.datastore.records import encode
from stdb.datastore.recovery import recover
from stdb.datastore.table import AnyIndex, Table
from stdb.datastore.transaction import Transaction
from stdb.errors import NoSuchRow, UniqueViolation
from stdb.sats import keys
from stdb.sats.types import (
    F32,
    F64,
    I8,
    I64,
    IDENTITY,
    STRING,
    TIMESTAMP,
    U8,
    U32,
    U256,
    AlgebraicType,
    Array,
    Element,
    Product,
    Sum,
    option,
)
from stdb.schema.model import TableDef
from tests.datastore_samples import CONTEXT, make_module, make_table, state

NAN = float("nan")
SHAPE = Sum((Element("dot", Product(())), Element("line", U8)))
POINT = Product((Element("x", F32), Element("y", U8)))
DOMAINS: list[tuple[AlgebraicType, list[Any]]] = [
    (U8, [0, 1, 2, 255]),
    (I8, [-128, -1, 0, 5]),
    (I64, [-(2**63), -1, 0, 2**40]),
    (U256, [0, 1, 2**200]),
    (STRING, ["", "a", "ab", "ä"]),
    (F64, [0.0, -0.0, 1.5, -math.inf, NAN]),
    (Array(U8), [b"", b"\0", b"\0\1", b"\xff"]),
    (option(U8), [None, 0, 1]),
    (IDENTITY, [bytes(32), (1).to_bytes(32, "little"), (256).to_bytes(32, "little")]),
    (TIMESTAMP, [-5, 0, 7]),
    (SHAPE, [(0, ()), (1, 0), (1, 3)]),
    (POINT, [(0.0, 1), (-0.0, 1), (2.5, 0), (NAN, 0)]),
]
"""Few values a type, so that rows and keys meet often."""
OPERATIONS = [*["insert"] * 8, *["update"] * 5, "delete", "delete_by_key", "delete_by_scan", "clear", "look_up", "scan"]
SEQUENCED: tuple[AlgebraicType, list[Any]] = (U32, [0, 0, 0, 3, 5000])


def comparable(type_: AlgebraicType, value: Any) -> Any:
    """Return a value in a form that orders and equals as keys must, made without `stdb.sats.keys`."""
    match type_:
        case Product(elements) if type_ not in (IDENTITY, TIMESTAMP):
            return tuple(comparable(element.type, part) for element, part in zip(elements, value, strict=True))
        case Sum() if type_ == SHAPE:
            return (value[0], comparable(type_.variants[value[0]].type, value[1]))
        case Sum():
            return (1,) if value is None else (0, value)
    if type_ == IDENTITY:
        return int.from_bytes(value, "little")
    if type_ in (F32, F64):
        return (1, 0.0) if math.isnan(value) else (0, value)
    return value


@st.composite
def tables(draw: st.DrawFn, name: str, is_keyed: bool) -> tuple[TableDef, list[list[Any]]]:
    """Draw a table and the values its columns may have; if keyed, with a primary key and another unique column."""
    domains = draw(st.lists(st.sampled_from(DOMAINS), min_size=1 + is_keyed, max_size=4))
    auto = draw(st.sampled_from([(), ("c0",)]))
    if auto:
        domains = [SEQUENCED, *domains]
    names = [f"c{i}" for i in range(len(domains))]
    lists = st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True).map(",".join)
    distinct = st.lists(lists, max_size=2, unique_by=lambda each: frozenset(each.split(",")))
    key = draw(st.sampled_from(names if is_keyed else [None, *names]))
    unique = [each for each in draw(distinct) if each != key]
    if is_keyed:
        unique = list(dict.fromkeys([*unique, names[names.index(key) - 1]]))
    definition = make_table(
        name,
        {column: type_ for column, (type_, _) in zip(names, domains, strict=True)},
        key=key,
        unique=tuple(unique),
        btree=tuple(each for each in draw(distinct) if each != key and each not in unique),
        hashed=tuple(draw(distinct)),
        auto=auto,
        event=draw(st.sampled_from([False, False, False, True])),
    )
    return definition, [domain for _, domain in domains]


class DatastoreMachine(RuleBasedStateMachine):
    """Random schemas, random operations, rollbacks and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.datastore = Datastore()
        self.log = MemoryLog()
        self.domains: dict[str, list[list[Any]]] = {}
        self.visible: dict[str, set[bytes]] = {}
        self.before: dict[str, set[bytes]] = {}
        self.issued: dict[str, set[int]] = {}
        self.issued_at_commit: dict[str, set[int]] = {}
        self.rollback_state: dict[int, list[bytes]] | None = None

    @initialize(first=tables("first", True), second=tables("second", False))
    def create(self, first: tuple[TableDef, list[list[Any]]], second: tuple[TableDef, list[list[Any]]]) -> None:
        self.datastore.begin(0)
        self.datastore.create_tables(make_module(first[0], second[0]))
        for definition, domains in (first, second):
            self.domains[definition.name] = domains
            self.visible[definition.name] = set()
            self.issued[definition.name] = set()
        self.before = {name: set() for name in self.visible}
        self.record(self.transaction.commit())

    # Helpers

    @property
    def is_open(self) -> bool:
        return self.datastore.transaction is not None

    @property
    def transaction(self) -> Transaction:
        """The open transaction; opened now if there is none."""
        if self.datastore.transaction is None:
            self.rollback_state = state(self.datastore)
            self.datastore.begin(0)
        assert self.datastore.transaction is not None
        return self.datastore.transaction

    def table(self, data: st.DataObject) -> Table:
        return self.datastore.table(data.draw(st.sampled_from(sorted(self.visible))))

    def draw_values(self, data: st.DataObject, table: Table) -> tuple[Any, ...]:
        return tuple(data.draw(st.sampled_from(domain)) for domain in self.domains[table.schema.name])

    def draw_row(self, data: st.DataObject, table: Table) -> bytes:
        """Draw a row, often one that is there."""
        there = sorted(self.visible[table.schema.name])
        if there and data.draw(st.booleans()):
            return data.draw(st.sampled_from(there))
        drawn = self.draw_values(data, table)
        if there and data.draw(st.booleans()):  # a mixture of a new one and two that are there
            decode = table.schema.codec.decode_exact
            sources = [drawn, *(decode(data.draw(st.sampled_from(there))) for _ in range(2))]
            drawn = tuple(data.draw(st.sampled_from(parts)) for parts in zip(*sources, strict=True))
        encoded: bytes = table.schema.codec.encode(drawn)
        return encoded

    def key(self, table: Table, columns: Iterable[int], row: bytes) -> tuple[Any, ...]:
        decoded = table.schema.codec.decode_exact(row)
        types = [column.type for column in table.schema.definition.columns]
        return tuple(comparable(types[i], decoded[i]) for i in columns)

    def collides(self, table: Table, row: bytes, ignoring: bytes | None = None) -> bool:
        others = self.visible[table.schema.name] - {row, ignoring}
        return any(
            self.key(table, unique.columns, row) in {self.key(table, unique.columns, other) for other in others}
            for unique in table.schema.definition.uniques
        )

    def generated(self, table: Table, given: bytes, stored: bytes) -> None:
        """Check an auto-increment column: zeros are replaced by what was never there before (I12 to I14)."""
        if not table.sequences:
            assert stored == given
            return
        wanted, got = table.schema.codec.decode_exact(given), table.schema.codec.decode_exact(stored)
        assert table.schema.codec.encode((got[0], *wanted[1:])) == stored
        if wanted[0]:
            assert got[0] == wanted[0]
        else:
            assert got[0] not in self.issued[table.schema.name]
            self.issued[table.schema.name].add(got[0])

    def expected(self, table: Table, given: bytes) -> bytes:
        """Return the row that an insert of `given` will store, by looking at where the sequence stands."""
        decoded = table.schema.codec.decode_exact(given)
        if not table.sequences or decoded[0]:
            return given
        (sequence,) = table.sequences
        encoded: bytes = table.schema.codec.encode((sequence._value, *decoded[1:]))
        return encoded

    def record(self, delta: Delta | None) -> None:
        if delta is not None:
            self.log.append_nowait([encode(delta, CONTEXT)])
            self.issued_at_commit = {name: set(values) for name, values in self.issued.items()}

    # Operations

    @rule(
        data=st.data(),
        operations=st.lists(st.sampled_from(OPERATIONS), min_size=2, max_size=10),
        end=st.sampled_from(["commit", "commit", "rollback", "restart", ""]),
    )
    def turn(self, data: st.DataObject, operations: list[str], end: str) -> None:
        """Write, read and end a transaction or not: one rule, since Hypothesis leaves rules out at random."""
        for operation in operations:
            getattr(self, operation)(data)
            self.rows_are_the_model_s()
        if end:
            self.transaction  # noqa: B018 - opens one if only reads went before
            getattr(self, end)()

    def insert(self, data: st.DataObject) -> None:
        table, transaction = self.table(data), self.transaction
        given = self.draw_row(data, table)
        row = self.expected(table, given)
        visible = self.visible[table.schema.name]
        if row not in visible and self.collides(table, row):
            with pytest.raises(UniqueViolation):
                table.insert(given)
            self.generated(table, given, row)
            return
        stored = transaction.insert(table, given)
        assert stored == row
        self.generated(table, given, stored)
        visible.add(stored)

    def delete(self, data: st.DataObject) -> None:
        table = self.table(data)
        row = self.draw_row(data, table)
        visible = self.visible[table.schema.name]
        assert self.transaction.delete(table, row) == (row in visible)
        visible.discard(row)

    def update(self, data: st.DataObject) -> None:
        table = self.table(data)
        transaction = self.transaction
        indexes = [index for index in table.indexes if isinstance(index, UniqueIndex)]
        if not indexes:
            return
        index = data.draw(st.sampled_from(indexes))
        given = self.draw_row(data, table)
        row = self.expected(table, given)
        visible = self.visible[table.schema.name]
        key = self.key(table, index.columns, row)
        old = next((each for each in visible if self.key(table, index.columns, each) == key), None)

        def run() -> bytes:
            if index.is_storage and data.draw(st.booleans()):
                return table.update_key(index.key_of(given), given)
            return transaction.update(table, index, given)

        if old is None:
            with pytest.raises(NoSuchRow):
                run()
        elif self.collides(table, row, old):
            with pytest.raises(UniqueViolation):
                run()
        else:
            assert run() == row
            visible.remove(old)
            visible.add(row)
        self.generated(table, given, row)

    def delete_by_key(self, data: st.DataObject) -> None:
        table = self.table(data)
        if not table.indexes:
            return
        index = data.draw(st.sampled_from(table.indexes))
        row = self.draw_row(data, table)
        gone = self.with_key(table, index, self.key(table, index.columns, row))
        count = self.transaction.delete_by_key(table, index, index.key_of(row))
        assert count == len(gone)
        self.visible[table.schema.name] -= gone

    def delete_by_scan(self, data: st.DataObject) -> None:
        drawn = self.draw_range(data)
        if drawn is None:
            return
        table, index, bounds, inside = drawn
        gone = {row for row in self.visible[table.schema.name] if inside(row)}
        count = self.transaction.delete_by_scan(table, index, *bounds)
        assert count == len(gone)
        self.visible[table.schema.name] -= gone

    def clear(self, data: st.DataObject) -> None:
        table = self.table(data)
        visible = self.visible[table.schema.name]
        assert self.transaction.clear(table) == len(visible)
        visible.clear()

    def commit(self) -> None:
        offset = self.datastore.next_offset
        delta = self.transaction.commit()
        expected = {
            name: (self.visible[name] - self.before[name], self.before[name] - self.visible[name])
            for name in self.visible
            if self.visible[name] != self.before[name]
        }
        found = {} if delta is None else {each.table.schema.name: each for each in delta.tables}
        assert {
            name: (set(each.inserts), set(each.deletes)) for name, each in found.items() if name != "st_sequence"
        } == expected
        for each in found.values():
            assert len(each.inserts) == len(set(each.inserts))
            assert len(each.deletes) == len(set(each.deletes))
        if delta is not None:
            assert delta.offset == offset
            assert [each.table.schema.id for each in delta.tables] == sorted(
                each.table.schema.id for each in delta.tables
            )
        assert self.datastore.next_offset == offset + (delta is not None)
        for name in self.visible:
            if self.datastore.table(name).is_event:
                self.visible[name] = set()
        self.before = {name: set(rows) for name, rows in self.visible.items()}
        self.record(delta)

    def rollback(self) -> None:
        offset = self.datastore.next_offset
        self.transaction.rollback()
        self.visible = {name: set(rows) for name, rows in self.before.items()}
        assert state(self.datastore) == self.rollback_state
        assert self.datastore.next_offset == offset

    def restart(self) -> None:
        self.commit()
        old = self.datastore
        self.datastore = recover(self.log)
        assert state(self.datastore) == state(old)
        assert self.datastore.next_offset == old.next_offset
        self.issued = {name: set(values) for name, values in self.issued_at_commit.items()}

    # Reading

    def with_key(self, table: Table, index: AnyIndex, key: tuple[Any, ...]) -> set[bytes]:
        return {row for row in self.visible[table.schema.name] if self.key(table, index.columns, row) == key}

    def draw_range(self, data: st.DataObject) -> tuple[Table, AnyIndex, tuple[Any, ...], Any] | None:
        """Draw a range of a btree index as keys and as a predicate over rows; None where there is no such index."""
        table = self.table(data)
        indexes = [index for index in table.indexes if "btree" in index.name]
        if not indexes:
            return None
        index = data.draw(st.sampled_from(indexes))
        types = [table.schema.definition.columns[i].type for i in index.columns]
        domains = [self.domains[table.schema.name][i] for i in index.columns]
        size = data.draw(st.integers(0, len(types)))
        prefix = [data.draw(st.sampled_from(domain)) for domain in domains[:size]]
        ends: list[tuple[Any, bool] | None] = [None, None]
        if size < len(types):
            end = st.none() | st.tuples(st.sampled_from(domains[size]), st.booleans())
            ends = [data.draw(end), data.draw(end)]

        def inside(row: bytes) -> bool:
            key = self.key(table, index.columns, row)
            if key[:size] != tuple(comparable(type_, value) for type_, value in zip(types, prefix, strict=False)):
                return False
            lower, upper = (end and (comparable(types[size], end[0]), end[1]) for end in ends)
            if lower and (key[size] < lower[0] or (key[size] == lower[0] and not lower[1])):
                return False
            return not (upper and (key[size] > upper[0] or (key[size] == upper[0] and not upper[1])))

        key_of = [keys.value_key(type_) for type_ in types]
        bounds = (
            tuple(of(value) for of, value in zip(key_of, prefix, strict=False)),
            *((end and (key_of[size](end[0]), end[1])) for end in ends),
        )
        return table, index, bounds, inside

    def look_up(self, data: st.DataObject) -> None:
        table = self.table(data)
        row = self.draw_row(data, table)
        assert (row in table) == (row in self.visible[table.schema.name])
        for index in table.indexes:
            found = index.find_all(index.key_of(row))
            assert len(found) == len(set(found))
            assert set(found) == self.with_key(table, index, self.key(table, index.columns, row))
            assert isinstance(index, ManyIndex) or index.find(index.key_of(row)) == (found[0] if found else None)

    def scan(self, data: st.DataObject) -> None:
        drawn = self.draw_range(data)
        if drawn is None:
            return
        table, index, bounds, inside = drawn
        found = index.scan(*bounds)
        ordered = [self.key(table, index.columns, row) for row in found]
        assert ordered == sorted(ordered)
        assert len(found) == len(set(found))
        assert set(found) == {row for row in self.visible[table.schema.name] if inside(row)}

    @invariant()
    def rows_are_the_model_s(self) -> None:
        for name, rows in self.visible.items():
            table = self.datastore.table(name)
            assert set(table.rows()) == rows
            assert len(table) == len(rows)
            table.verify()


TestDatastore = DatastoreMachine.TestCase
TestDatastore.settings = settings(max_examples=50, stateful_step_count=10, deadline=None)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_netting_in_one_pass_equals_netting_row_by_row(data: st.DataObject) -> None:
    """`net` takes a short way when nothing repeats; both ways must agree."""
    datastore = Datastore()
    datastore.begin(0)
    definitions = [make_table("a", {"id": U8, "v": U8}, key="id"), make_table("b", {"v": U8})]
    datastore.create_tables(make_module(*definitions))
    datastore.undo.clear()
    written = [datastore.table(name) for name in data.draw(st.sampled_from(["a", "b", "ab"]))]
    small = st.integers(0, data.draw(st.sampled_from([3, 255])))
    for _ in range(data.draw(st.integers(1, 6))):
        table = data.draw(st.sampled_from(written))
        row = bytes(data.draw(small) for _ in table.schema.definition.columns)
        if data.draw(st.booleans()):
            table.delete_key(table.key_of(row))
        elif table.stored.get(table.key_of(row)) is None:
            table.insert(row)
        elif table.primary is not None:
            table.update_key(row[0], row)
    assume(datastore.undo)

    def sets(deltas: list[TableDelta]) -> list[tuple[Table, list[bytes], list[bytes]]]:
        return [(each.table, sorted(each.inserts), sorted(each.deletes)) for each in deltas]

    assert sets(net(datastore.undo, datastore.tables)) == sets(_net_by_row(datastore.undo, datastore.tables))
