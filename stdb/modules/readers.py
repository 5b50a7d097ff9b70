"""Readers: which runs of views a change of rows concerns, by what they have read.

Responsible for: an index over read sets: by table, and by key of an index.
Not responsible for: running views (`views`), recording what they read (the module).

A run that looked up keys is found by the keys of the rows that came and went: a thousand readers of their own key cost
nothing when another key changes. Source: spec 04 section 12, its refresh rule.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from stdb.datastore.delta import TableDelta
    from stdb.datastore.table import Table
    from stdb.modules.protocol import ReadSet

__all__ = ["Readers"]

Reader = TypeVar("Reader")


class _Watched(NamedTuple, Generic[Reader]):
    """The readers of single keys of one index."""

    key_of: Callable[[bytes], Any]
    by_key: dict[Any, dict[Reader, None]]


class Readers(Generic[Reader]):
    """Who has read what. `tables` are those of the datastore, by id."""

    def __init__(self, tables: "Mapping[int, Table]") -> None:
        self._tables = tables
        self._whole: dict[int, dict[Reader, None]] = {}
        """Readers of a whole table, by its id."""
        self._keys: dict[int, dict[int, _Watched[Reader]]] = {}
        """By table id, then by index id."""

    def add(self, reader: Reader, reads: "ReadSet") -> None:
        """Know what a reader has read."""
        for table_id in reads.tables:
            self._whole.setdefault(table_id, {})[reader] = None
        for (table_id, index_id), keys in reads.keys.items():
            watched = self._keys.setdefault(table_id, {})
            if index_id not in watched:
                watched[index_id] = _Watched(self._key_of(table_id, index_id), {})
            for key in keys:
                watched[index_id].by_key.setdefault(key, {})[reader] = None

    def remove(self, reader: Reader, reads: "ReadSet") -> None:
        """Undo `add`."""
        for table_id in reads.tables:
            _take_out(self._whole, table_id, reader)
        for (table_id, index_id), keys in reads.keys.items():
            watched = self._keys[table_id]
            for key in keys:
                _take_out(watched[index_id].by_key, key, reader)
            if not watched[index_id].by_key:
                del watched[index_id]
                if not watched:
                    del self._keys[table_id]

    def concerned(self, changed: "Iterable[TableDelta]") -> dict[Reader, None]:
        """Return who has read anything of what changed, in the order found. Event tables are empty to readers."""
        found: dict[Reader, None] = {}
        for delta in changed:
            if delta.table.is_event:
                continue
            table_id = delta.table.schema.id
            found |= self._whole.get(table_id, {})
            for key_of, by_key in self._keys.get(table_id, _NOTHING).values():
                for rows in (delta.inserts, delta.deletes):
                    for key in map(key_of, rows):
                        readers = by_key.get(key)
                        if readers is not None:
                            found |= readers
        return found

    def _key_of(self, table_id: int, index_id: int) -> Callable[[bytes], Any]:
        return next(index.key_of for index in self._tables[table_id].indexes if index.id == index_id)


_NOTHING: dict[int, Any] = {}


def _take_out(readers: dict[Any, dict[Reader, None]], key: Any, reader: Reader) -> None:
    del readers[key][reader]
    if not readers[key]:
        del readers[key]
