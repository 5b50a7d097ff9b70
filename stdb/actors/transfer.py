"""Transfer: rows of one table taken out of a running database, and put into it.

Responsible for: one state for all rows that go out, transactions for those that come in.
Not responsible for: text forms (`stdb.net.row_text`), who may (`stdb.net.routes_rows`).

Both are evaluations in steps: they may be suspended, and meanwhile nothing else of their database is served.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from stdb.actors.refusals import NoSuchTable, RowRefused
from stdb.datastore.table import Table, TableSchema
from stdb.errors import ReducerError, RequestError, UniqueViolation
from stdb.sql.work import Steps
from stdb.subscriptions.fragment import TransactionEvent

if TYPE_CHECKING:
    from stdb.actors.database import DatabaseActor
    from stdb.datastore.datastore import Datastore

__all__ = ["TableRows", "find_table", "put_rows", "take_rows"]

_ROWS_TAKEN = 4096
_ROWS_PUT = 256


class TableRows(NamedTuple):
    """All rows of a table at one moment, in parts; the receiver's own."""

    schema: TableSchema
    parts: list[list[bytes]]
    row_count: int


def find_table(datastore: "Datastore", name: str, *, to_write: bool) -> Table:
    """Return a table of the module.

    Raises:
        NoSuchTable: There is none of that name.
        RequestError: Its rows are not stored, or nobody but stdb writes them.
    """
    table = datastore.find_table(name)
    if table is None:
        known = ", ".join(sorted(each.schema.name for each in datastore.tables.values() if not each.schema.is_system))
        raise NoSuchTable(f"no such table: `{name}`; the module has {known or 'none'}")
    if to_write and table.schema.is_system:
        raise RequestError(f"table `{name}` is one of stdb's own: nothing can be imported into it")
    if table.is_event:
        raise RequestError(f"table `{name}` is an event table: it keeps no rows")
    return table


def take_rows(
    datastore: "Datastore", name: str, is_wanted: Callable[[], bool]
) -> Steps[Callable[[], tuple[TableRows, int]]]:
    """Return what returns all rows of a table, and what must be durable before anybody sees them.

    Raises as `find_table`.
    """
    table = find_table(datastore, name, to_write=False)
    rows, parts = iter(table.rows()), []
    while is_wanted() and (part := list(islice(rows, _ROWS_TAKEN))):
        parts.append(part)
        yield
    taken = TableRows(table.schema, parts, sum(map(len, parts)))
    return lambda: (taken, datastore.next_offset)


def put_rows(
    actor: "DatabaseActor", caller: bytes, schema: TableSchema, rows: Sequence[bytes]
) -> Steps[Callable[[], tuple[int, int]]]:
    """Insert rows in one transaction, as SQL does; return what returns how many were new, and what must be durable.

    Raises:
        RowRefused: A row breaks a constraint; none of them was inserted.
        RequestError: The table is not what `schema` says any more.
    """
    datastore = actor.datastore
    table = find_table(datastore, schema.name, to_write=True)
    if table.schema.id != schema.id or table.schema.row_type != schema.row_type:
        raise RequestError(f"table `{schema.name}` was changed by a publish meanwhile")
    now_us, before, place = actor.now_us(), len(table), 0
    transaction = datastore.begin(now_us)
    try:
        for place, row in enumerate(rows):
            transaction.insert(table, row)
            if place % _ROWS_PUT == _ROWS_PUT - 1:
                yield
        delta = yield from transaction.commit_in_steps()
    except UniqueViolation as error:
        transaction.rollback()
        raise RowRefused(str(error), place) from error
    except ReducerError as error:
        transaction.rollback()
        raise RequestError(str(error)) from error
    yield  # to net, record and tell many rows takes long, each for itself
    if delta is not None:
        actor.publish(delta, TransactionEvent(caller, None, now_us, needs=datastore.next_offset))
    inserted = len(table) - before
    return lambda: (inserted, datastore.next_offset)
