"""Windows: what a run of transactions changed, net, by table and key, as the stored rows take it.

Responsible for: netting (the last write of a key wins), of a group and of a window; parts of bounded size.
Not responsible for: when a window ends, writing it to rows (`stdb.storage`), what a key looks like there.

A key is a row's place in `Table.stored`; what tells rows of one table id apart never changes. A part is one dict of
bounded size, so that nothing that is done to a part at once takes long. Parts of one table stand in order of time: a
key may be in several, the last one holds.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from stdb.datastore.delta import Delta
from stdb.datastore.index import Key

if TYPE_CHECKING:
    from stdb.datastore.table import Table

__all__ = ["PART_CHANGES_MAX", "Part", "TableChanges", "Window", "join_changes"]

PART_CHANGES_MAX = 65_536
"""Changes after which the next part of a table begins; a single transaction may make a greater part."""
_JOINED_CHANGES_MAX = 256
"""Changes of one transaction that are copied to be joined with those of others."""

Part: TypeAlias = "dict[Key, bytes | None]"
"""Rows by key; None where a row went."""
TableChanges: TypeAlias = "tuple[Table, Part]"
"""What some transactions changed in a table."""


def join_changes(deltas: Iterable[Delta]) -> list[TableChanges]:
    """Return what committed transactions changed in tables that are stored, those of one table in order of time.

    For whoever made them: they are at hand, and can be let go; another thread would find each of them cold.
    """
    found: list[TableChanges] = []
    open_parts: dict[Table, Part] = {}
    open_get = open_parts.get
    for delta in deltas:
        for each in delta.tables:
            table, changes = each.table, each.changes
            part = open_get(table)
            if part is not None and len(changes) <= _JOINED_CHANGES_MAX:
                part.update(changes)
            elif not table.is_event:
                if len(changes) <= _JOINED_CHANGES_MAX:
                    changes = open_parts[table] = changes.copy()
                else:
                    open_parts.pop(table, None)
                found.append((table, changes))
    return found


class Window:
    """The net change of the transactions of one run. Used by one thread at a time."""

    __slots__ = ("dropped", "open_parts", "parts", "row_keyed")

    def __init__(self) -> None:
        self.parts: dict[int, list[Part]] = {}
        """By table id, in order of time."""
        self.row_keyed: set[int] = set()
        """The tables among them that have no primary key: a row is its own key."""
        self.dropped: set[int] = set()
        """Ids of tables that are no more, rows of which may be left whatever the parts say."""
        self.open_parts: dict[Table, Part] = {}
        """Those that take more, by table."""

    def __len__(self) -> int:
        """Return how many changes it holds; a key in two parts counts twice."""
        return sum(len(part) for parts in self.parts.values() for part in parts)

    def __bool__(self) -> bool:
        return bool(self.dropped) or any(part for parts in self.parts.values() for part in parts)

    def add(self, changes: Iterable[TableChanges]) -> None:
        """Add what the next transactions changed, as `join_changes` returns it; it is the window's from now on."""
        for table, part in changes:
            if len(part) > PART_CHANGES_MAX:
                self._adopt(table, part)
            else:
                self.part(table).update(part)

    def end_full_parts(self) -> None:
        """Let the next changes of tables whose parts are full begin others."""
        for table, part in list(self.open_parts.items()):
            if len(part) > PART_CHANGES_MAX:
                del self.open_parts[table]

    def part(self, table: "Table") -> Part:
        """Return the part that takes the next changes of a table; write it at once, the next call may begin another."""
        part = self.open_parts.get(table)
        if part is None or len(part) > PART_CHANGES_MAX:
            part = self.open_parts[table] = {}
            self._parts(table).append(part)
        return part

    def drop(self, table_id: int) -> None:
        """Note that a table is no more; its id never comes back."""
        self.parts.pop(table_id, None)
        self.dropped.add(table_id)

    def _adopt(self, table: "Table", changes: Part) -> None:
        """Take a great part as it is: nobody else changes it."""
        self.open_parts.pop(table, None)
        self._parts(table).append(changes)

    def _parts(self, table: "Table") -> list[Part]:
        if table.key_of is bytes:
            self.row_keyed.add(table.schema.id)
        return self.parts.setdefault(table.schema.id, [])

    def in_order(self) -> Iterator[tuple[int, Part]]:
        """Yield every part with its table's id, tables in ascending order, which is that of their making."""
        for table_id in sorted(self.parts):
            for part in self.parts[table_id]:
                yield table_id, part
