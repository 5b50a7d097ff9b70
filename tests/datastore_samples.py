"""Small tables and databases for tests of the datastore."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stdb.datastore.datastore import Datastore
from stdb.datastore.delta import Delta
from stdb.datastore.records import Context, Record, encode
from stdb.datastore.table import Table
from stdb.datastore.transaction import Transaction
from stdb.sats.types import AlgebraicType, Typespace
from stdb.schema.model import (
    ColumnDef,
    IndexAlgorithm,
    IndexDef,
    ModuleDef,
    ScheduleDef,
    SequenceDef,
    TableDef,
    UniqueDef,
)

CONTEXT = Context("test", bytes(range(32)), bytes(range(16)), 1_700_000_000_000_000, b"args")


def make_table(
    name: str,
    columns: dict[str, AlgebraicType],
    *,
    key: str | None = None,
    unique: tuple[str, ...] = (),
    btree: tuple[str, ...] = (),
    hashed: tuple[str, ...] = (),
    auto: tuple[str, ...] = (),
    event: bool = False,
    schedule: str | None = None,
) -> TableDef:
    """Return a definition. Indexes and constraints are lists of columns, `a,b` for several."""
    names = list(columns)

    def positions(listed: str) -> tuple[int, ...]:
        return tuple(names.index(column) for column in listed.split(","))

    def index(listed: str, algorithm: IndexAlgorithm) -> IndexDef:
        generated = f"{name}_{listed.replace(',', '_')}_idx_{algorithm.suffix}"
        return IndexDef(generated, None, algorithm, positions(listed), generated)

    uniques = ((key,) if key else ()) + unique
    return TableDef(
        name,
        name.title(),
        0,
        tuple(ColumnDef(column, column, type_) for column, type_ in columns.items()),
        names.index(key) if key else None,
        (
            *(index(each, IndexAlgorithm.BTREE) for each in (*uniques, *btree)),
            *(index(each, IndexAlgorithm.HASH) for each in hashed),
        ),
        tuple(UniqueDef(f"{name}_{each.replace(',', '_')}_key", positions(each)) for each in uniques),
        tuple(SequenceDef(f"{name}_{each}_seq", names.index(each)) for each in auto),
        ScheduleDef(f"{name}_sched", name, names.index(schedule), "tick") if schedule else None,
        is_event=event,
    )


def make_module(*tables: TableDef) -> ModuleDef:
    """Return a module of these tables."""
    return ModuleDef(Typespace.EMPTY, tables)


def make_database(*tables: TableDef) -> Datastore:
    """Return a database with these tables, created by the transaction of offset 0."""
    datastore = Datastore()
    with transaction(datastore):
        datastore.create_tables(make_module(*tables))
    return datastore


@contextmanager
def transaction(datastore: Datastore) -> Iterator[Transaction]:
    """Hold an open transaction; it commits, or rolls back when the block raises."""
    opened = datastore.begin(0)
    try:
        yield opened
    except BaseException:
        opened.rollback()
        raise
    opened.commit()


def row(table: Table, *values: Any) -> bytes:
    """Return the bytes of a row."""
    encoded: bytes = table.schema.codec.encode(values)
    return encoded


def values(table: Table, rows: Any = None) -> list[tuple[Any, ...]]:
    """Return rows (all of the table by default) as values, sorted by bytes."""
    return [table.schema.codec.decode_exact(each) for each in sorted(table.rows() if rows is None else rows)]


def state(datastore: Datastore) -> dict[int, list[bytes]]:
    """Return everything that a database holds, to compare."""
    return {table_id: sorted(table.rows()) for table_id, table in sorted(datastore.tables.items())}


def as_record(delta: Delta) -> Record:
    """Return a delta as its record is read back."""
    return Record(delta.offset, encode(delta, CONTEXT)[16:])
