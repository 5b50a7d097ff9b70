"""Deltas: what one transaction changed, net, as the log and the subscriptions take it.

Responsible for: the values `Delta` and `TableDelta`; netting an undo log into them (07 section 2).
Not responsible for: offsets and event tables (`transaction`), the stored form (`records`).

An undo entry is (table, place, row before, row after), one of the rows None when a row appeared or went. An entry whose
table is None undoes a change of the schema: its place is the function to call.
"""

from typing import TYPE_CHECKING, TypeAlias

from stdb.datastore.index import Key

if TYPE_CHECKING:
    from stdb.datastore.table import Table

__all__ = ["Delta", "TableDelta", "UndoEntry", "net"]

_NOTHING: "dict[Key, bytes | None]" = {}

UndoEntry: TypeAlias = "tuple[Table | None, Key, bytes | None, bytes | None]"


class TableDelta:
    """The rows of one table that a transaction took out or put in: as sets, disjoint."""

    __slots__ = ("changes", "deletes", "inserts", "table")

    def __init__(
        self,
        table: "Table",
        inserts: list[bytes],
        deletes: list[bytes],
        changes: "dict[Key, bytes | None] | None" = None,
    ) -> None:
        self.table = table
        self.inserts = inserts
        self.deletes = deletes
        self.changes = _NOTHING if changes is None else changes
        """The same by place: the row that is there now, or None. Places whose row came back may be in it, too. Not
        given for instances of views, which are stored nowhere. Nobody changes it."""

    def __repr__(self) -> str:
        return f"TableDelta({self.table.schema.name}, inserts={self.inserts}, deletes={self.deletes})"


class Delta:
    """One committed transaction: its offset and what it changed, by table in ascending id."""

    __slots__ = ("offset", "tables", "views")

    def __init__(self, offset: int, tables: list[TableDelta], views: list[TableDelta] | None = None) -> None:
        self.offset = offset
        self.tables = tables
        """What is stored."""
        self.views = views
        """How instances of views changed with it, in ascending id; None when no view was looked at."""

    def __repr__(self) -> str:
        return f"Delta({self.offset}, {self.tables})"


def net(undo: list[UndoEntry], tables: "dict[int, Table]") -> list[TableDelta]:
    """Return the net change that an undo log amounts to, tables in ascending id.

    A row that came and went, or went and came back, is in neither list. `tables` are those in force at the end.
    """
    # Nearly every transaction touches one table and no row of it twice: then every entry counts as it is.
    table = undo[0][0]
    if table is None:
        return _net_by_row(undo, tables)
    inserts, deletes = [], []
    changes: dict[Key, bytes | None] = {}
    for each, place, old, new in undo:
        if each is not table or place in changes:
            return _net_by_row(undo, tables)
        changes[place] = new
        if new is not None:
            inserts.append(new)
        if old is not None:
            deletes.append(old)
    return [TableDelta(table, inserts, deletes, changes)]


def _net_by_row(undo: list[UndoEntry], current: "dict[int, Table]") -> list[TableDelta]:
    """Return the same, whatever repeats. A row is there or not, so its comings less its goings are -1, 0 or 1."""
    touched: dict[int, tuple[Table, dict[bytes, int], dict[Key, bytes | None]]] = {}
    for table, place, old, new in undo:
        if table is None:
            continue
        _, balance, changes = touched.setdefault(table.schema.id, (table, {}, {}))
        changes[place] = new
        if old is not None:
            balance[old] = balance.get(old, 0) - 1
        if new is not None:
            balance[new] = balance.get(new, 0) + 1
    found = []
    for table_id in sorted(touched):
        table, balance, changes = touched[table_id]
        inserts = [row for row, count in balance.items() if count > 0]
        deletes = [row for row, count in balance.items() if count < 0]
        if inserts or deletes:
            found.append(TableDelta(current.get(table_id, table), inserts, deletes, changes))
    return found
