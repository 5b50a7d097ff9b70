"""Caches: what a client under test holds of its subscriptions, and what each transaction changed of it.

Responsible for: `Cache`, rows by table as an SDK counts them; `Update`, a transaction as its client saw it; callbacks.
Not responsible for: talking to the database (`clients`).

A row that two subscriptions hold is one row of the cache, there as long as either holds it; callbacks are called for
what comes into the cache or leaves it. Rows of event tables are told and not kept.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from stdb.modules.python.tables import TableHandle
from stdb.sats import keys
from stdb.sats.special import Identity, Timestamp
from stdb.subscriptions.fragment import Fragment
from stdb.testing.twin import Twin

__all__ = ["Cache", "Change", "Update"]

R = TypeVar("R")


class Change:
    """What came into the rows of one table and what left them."""

    __slots__ = ("deletes", "events", "inserts", "key", "relation")

    def __init__(self, relation: str, key: Callable[[bytes], Any] | None) -> None:
        self.relation = relation
        self.key = key
        """Primary key of a row; None where there is none."""
        self.inserts: list[bytes] = []
        self.deletes: list[bytes] = []
        self.events: list[bytes] = []

    def updates(self) -> tuple[list[tuple[bytes, bytes]], list[bytes], list[bytes]]:
        """Return (old, new) of rows that were updated, and what was only inserted, only deleted."""
        if self.key is None:
            return [], self.inserts, self.deletes
        old = {self.key(row): row for row in self.deletes}
        pairs = [(old.pop(self.key(row)), row) for row in self.inserts if self.key(row) in old]
        updated = {new for _, new in pairs}
        return pairs, [row for row in self.inserts if row not in updated], list(old.values())


class Update:
    """One transaction as a client saw it through its subscriptions."""

    def __init__(
        self,
        twin: Twin,
        changes: dict[str, Change],
        reducer: str,
        caller: Identity,
        timestamp: Timestamp,
        is_mine: bool,
    ) -> None:
        self.reducer = reducer
        """Which reducer it was; empty for a transaction of a procedure."""
        self.caller = caller
        self.timestamp = timestamp
        self.is_mine = is_mine
        """It was a call of this client."""
        self._twin = twin
        self._changes = changes

    def inserted(self, table: Callable[..., R] | TableHandle[R]) -> list[R]:
        """Return the rows that came in and are no updates; of an event table, its rows."""
        change = self._changes.get(self._twin.relation(table))
        return [] if change is None else self._rows(table, [*change.updates()[1], *change.events])

    def deleted(self, table: Callable[..., R] | TableHandle[R]) -> list[R]:
        """Return the rows that left and are no updates."""
        change = self._changes.get(self._twin.relation(table))
        return [] if change is None else self._rows(table, change.updates()[2])

    def updated(self, table: Callable[..., R] | TableHandle[R]) -> list[tuple[R, R]]:
        """Return (old, new) of the rows that were replaced by one of the same primary key."""
        change = self._changes.get(self._twin.relation(table))
        pairs = [] if change is None else change.updates()[0]
        return [(old, new) for pair in pairs for old, new in [self._rows(table, pair)]]

    def __repr__(self) -> str:
        """Return the reducer and how many rows of which tables changed."""
        counts = ", ".join(
            f"{name} +{len(c.inserts) + len(c.events)} -{len(c.deletes)}" for name, c in self._changes.items()
        )
        return f"<Update by {self.reducer or 'a procedure'}: {counts}>"

    def _rows(self, table: Any, rows: Sequence[bytes]) -> list[Any]:
        decode = self._twin.rows(table).codec.decode_exact
        return [decode(row) for row in rows]


class Cache:
    """The rows that one client holds."""

    def __init__(self, twin: Twin) -> None:
        self._twin = twin
        self._counts: dict[str, Counter[bytes]] = {}
        self._insert: dict[str, list[Callable[[Any], object]]] = {}
        self._delete: dict[str, list[Callable[[Any], object]]] = {}
        self._update: dict[str, list[Callable[[Any, Any], object]]] = {}

    def rows(self, table: Any) -> list[Any]:
        """Return the rows of a table or view, in the order of their bytes."""
        decode = self._twin.rows(table).codec.decode_exact
        return [decode(row) for row in sorted(self._counts.get(self._twin.relation(table), ()))]

    def bytes_of(self, relation: str) -> set[bytes]:
        """Return the rows of a table or view as they came."""
        return set(self._counts.get(relation, ()))

    def on_insert(self, table: Any, callback: Callable[[Any], object]) -> None:
        """Call back for every row that comes in."""
        self._insert.setdefault(self._twin.relation(table), []).append(callback)

    def on_delete(self, table: Any, callback: Callable[[Any], object]) -> None:
        """Call back for every row that leaves."""
        self._delete.setdefault(self._twin.relation(table), []).append(callback)

    def on_update(self, table: Any, callback: Callable[[Any, Any], object]) -> None:
        """Call back with old and new for every row that is replaced."""
        self._update.setdefault(self._twin.relation(table), []).append(callback)

    def apply(self, fragments: Sequence[Fragment]) -> dict[str, Change]:
        """Take in what a message holds; return what it changed, tables without changes left out."""
        changes: dict[str, Change] = {}
        for fragment in fragments:
            relation = fragment.table_name
            change = changes.setdefault(relation, Change(relation, _key_of(fragment)))
            if fragment.is_event:
                change.events += [row for row in fragment.inserts if row not in change.events]
                continue
            counts = self._counts.setdefault(relation, Counter())
            before = {row: counts[row] > 0 for row in (*fragment.inserts, *fragment.deletes)}
            counts.update(fragment.inserts)
            counts.subtract(fragment.deletes)
            for row, was_there in before.items():
                assert counts[row] >= 0, f"{relation}: a row left that was not there: {row!r}"
                if was_there != (counts[row] > 0):
                    (change.deletes if was_there else change.inserts).append(row)
                if not counts[row]:
                    del counts[row]
        return {name: change for name, change in changes.items() if change.inserts or change.deletes or change.events}

    def clear(self) -> None:
        """Forget every row, as a client does whose connection ended."""
        self._counts.clear()

    def call_back(self, changes: dict[str, Change]) -> None:
        """Call everybody who asked to be told of these changes: deletes first, then updates, then inserts."""
        for change in changes.values():
            updates, inserts, deletes = change.updates()
            for callback, row in self._told(self._delete, change.relation, deletes):
                callback(row)
            for update in self._update.get(change.relation, ()):
                decode = self._twin.rows(change.relation).codec.decode_exact
                for old, new in updates:
                    update(decode(old), decode(new))
            for callback, row in self._told(self._insert, change.relation, [*inserts, *change.events]):
                callback(row)

    def _told(
        self, callbacks: dict[str, list[Callable[[Any], object]]], relation: str, rows: list[bytes]
    ) -> Iterator[tuple[Callable[[Any], object], Any]]:
        mine = callbacks.get(relation, ())
        if mine and rows:
            decode = self._twin.rows(relation).codec.decode_exact
            yield from ((callback, decode(row)) for row in rows for callback in list(mine))


def _key_of(fragment: Fragment) -> Callable[[bytes], Any] | None:
    """Return what reads the primary key of a fragment's rows."""
    schema = fragment.columns
    position = schema.definition.primary_key
    return None if position is None else keys.row_key(schema.row_type, (position,))
