"""Indexes: from a key to the rows that have it, in key order where asked.

Responsible for: the two shapes of index (unique, not unique), point look-ups, range scans.
Not responsible for: refusing duplicates (`table`), computing keys (`stdb.sats.keys`), undo.

A unique index maps a key to the row. Any other maps a key to a row's place in `Table.stored`, bare while there is one
and in a dict (an ordered set) from the second on. The order over distinct keys is built at the first range scan and
kept from then on, so tables that are only looked up by equality never pay for it (DESIGN decision 2).
"""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, TypeAlias

from sortedcontainers import SortedList

from stdb.errors import NoSuchIndex
from stdb.schema.model import IndexAlgorithm, IndexDef

__all__ = ["Bound", "Index", "Key", "ManyIndex", "UniqueIndex"]

Key: TypeAlias = Any
"""A key as ARCHITECTURE defines it: hashable, ordered among keys of one type; a tuple for several columns."""

Bound: TypeAlias = tuple[Key, bool] | None
"""One end of a range: the key of one column and whether it belongs to the range; None leaves that end open."""


class _Top:
    """Greater than every key; ends the range of all keys that begin with a prefix."""

    def __lt__(self, other: object) -> bool:
        return False

    def __gt__(self, other: object) -> bool:
        return True

    __le__, __ge__ = __lt__, __gt__


_TOP = _Top()


class Index:
    """What both shapes share. `unique` tells them apart without asking for the class."""

    __slots__ = ("columns", "definition", "distinct_keys", "entries", "id", "key_of", "name", "order")

    unique = False

    def __init__(self, index_id: int, definition: IndexDef, key_of: Callable[[bytes], Key]) -> None:
        self.id = index_id
        self.definition = definition
        self.name = definition.name
        self.columns = definition.columns
        self.key_of = key_of
        """Returns the key of a row."""
        self.entries: dict[Key, Any] = {}
        self.distinct_keys = self.entries.__len__
        """Returns how many distinct keys there are."""
        self.order: Any = None
        """Distinct keys in order (a SortedList), once a range was asked for."""

    def find_all(self, key: Key) -> list[bytes]:
        """Return the rows with exactly this key, in no particular order."""
        raise AssertionError("an Index is a UniqueIndex or a ManyIndex")

    def stream(self, key: Key) -> Iterator[bytes]:
        """Yield the rows with exactly this key without making a list of them; nothing may be written meanwhile."""
        raise AssertionError("an Index is a UniqueIndex or a ManyIndex")

    def stream_range(self, prefix: tuple[Key, ...], lower: Bound, upper: Bound) -> Iterator[bytes]:
        """Yield what `scan` returns without making a list of it; nothing may be written meanwhile.

        Raises:
            NoSuchIndex: As `scan`.
        """
        point = self._point(prefix, lower, upper)
        if point is not None:
            return self.stream(point[0])
        self._refuse_hash()
        return chain.from_iterable(map(self.stream, self._keys(prefix, lower, upper)))

    def scan(self, prefix: tuple[Key, ...] = (), lower: Bound = None, upper: Bound = None) -> list[bytes]:
        """Return the rows in a range, in key order (07 section 4).

        Args:
            prefix: Keys that the first columns must equal; as many as there are columns makes a point look-up.
            lower: Lower end for the column after the prefix.
            upper: Upper end for the same column. A lower end above the upper one is an empty range.

        Raises:
            NoSuchIndex: The index is a hash index and the range is no point.
        """
        point = self._point(prefix, lower, upper)
        if point is not None:
            return self.find_all(point[0])
        self._refuse_hash()
        return [row for key in self._keys(prefix, lower, upper) for row in self.find_all(key)]

    def keys_in_order(self) -> list[Key]:
        """Return every distinct key in order."""
        return list(self._ordered())

    def _refuse_hash(self) -> None:
        if self.definition.algorithm is IndexAlgorithm.HASH:
            raise NoSuchIndex(f"Index `{self.name}` does not support seeking for a range: it is a hash index")

    def _point(self, prefix: tuple[Key, ...], lower: Bound, upper: Bound) -> tuple[Key] | None:
        """Return the one key that the range means, in a 1-tuple; None when it is a true range."""
        columns = len(self.columns)
        if len(prefix) == columns:
            assert lower is None and upper is None, "no column is left for a range"  # noqa: PT018
            return (prefix[0] if columns == 1 else prefix,)
        assert len(prefix) < columns, f"index {self.name} has {columns} columns, the prefix {len(prefix)}"
        is_equality = lower is not None and lower == upper and lower[1]
        if not is_equality or len(prefix) + 1 != columns:
            return None
        assert lower is not None
        return (lower[0] if columns == 1 else (*prefix, lower[0]),)

    def _keys(self, prefix: tuple[Key, ...], lower: Bound, upper: Bound) -> Iterator[Key]:
        if len(self.columns) == 1:
            low, high = lower or (None, True), upper or (None, True)
            if lower and upper and upper[0] < lower[0]:
                return iter(())
            return iter(self._ordered().irange(low[0], high[0], (low[1], high[1])))
        minimum, maximum = _lowest(prefix, lower), _highest(prefix, upper)
        if maximum < minimum:
            return iter(())
        # No key equals either end of these: an end is shorter than a key or holds _TOP, but for a full exclusive end.
        return iter(self._ordered().irange(minimum, maximum, (True, False)))

    def _ordered(self) -> Any:
        if self.order is None:
            self.order = SortedList(self.entries)
        return self.order


def _lowest(prefix: tuple[Key, ...], lower: Bound) -> tuple[Key, ...]:
    if lower is None:
        return prefix
    return (*prefix, lower[0]) if lower[1] else (*prefix, lower[0], _TOP)


def _highest(prefix: tuple[Key, ...], upper: Bound) -> tuple[Key, ...]:
    if upper is None:
        return (*prefix, _TOP)
    return (*prefix, upper[0], _TOP) if upper[1] else (*prefix, upper[0])


class UniqueIndex(Index):
    """At most one row a key. The primary key's shares the dict in which the table keeps its rows."""

    __slots__ = ("constraint", "find", "is_storage")

    unique = True

    def __init__(
        self,
        index_id: int,
        definition: IndexDef,
        key_of: Callable[[bytes], Key],
        constraint: str,
        storage: dict[Key, bytes] | None = None,
    ) -> None:
        super().__init__(index_id, definition, key_of)
        self.constraint = constraint
        """Name of the unique constraint."""
        self.is_storage = storage is not None
        """The entries are the table's own rows; the table keeps them."""
        if storage is not None:
            self.entries = storage
            self.distinct_keys = storage.__len__
        self.find: Callable[[Key], bytes | None] = self.entries.get
        """Returns the row with a key, or None: the fastest way to a row."""

    def find_all(self, key: Key) -> list[bytes]:
        """Return the row with this key in a list, or an empty list."""
        row = self.entries.get(key)
        return [] if row is None else [row]

    def stream(self, key: Key) -> Iterator[bytes]:
        """Yield the row with this key, if any."""
        return iter(self.find_all(key))

    def add(self, key: Key, place: Key, row: bytes) -> None:
        """Enter a row whose key is free."""
        if self.order is not None and key not in self.entries:
            self.order.add(key)
        self.entries[key] = row

    def remove(self, key: Key, place: Key) -> None:
        """Take out the row with this key."""
        del self.entries[key]
        if self.order is not None:
            self.order.remove(key)

    def move(self, old_key: Key, new_key: Key, old_place: Key, new_place: Key, row: bytes) -> None:
        """Replace a row by one with another or the same key; the new key is free or the old row's."""
        if old_key != new_key:
            self.remove(old_key, old_place)
        self.add(new_key, new_place, row)


class ManyIndex(Index):
    """Any number of rows a key."""

    __slots__ = ("stored",)

    def __init__(
        self, index_id: int, definition: IndexDef, key_of: Callable[[bytes], Key], stored: dict[Key, bytes]
    ) -> None:
        super().__init__(index_id, definition, key_of)
        self.stored = stored
        """The table's rows by place."""

    def find_all(self, key: Key) -> list[bytes]:
        """Return the rows with exactly this key, in no particular order."""
        places = self.entries.get(key)
        if places is None:
            return []
        stored = self.stored
        return [stored[place] for place in places] if type(places) is dict else [stored[places]]

    def stream(self, key: Key) -> Iterator[bytes]:
        """Yield the rows with exactly this key without making a list of them; nothing may be written meanwhile."""
        places = self.entries.get(key)
        if type(places) is dict:
            return map(self.stored.__getitem__, places)
        return iter(self.find_all(key))

    def add(self, key: Key, place: Key, row: bytes) -> None:
        """Enter a row by its place."""
        entries = self.entries
        places = entries.get(key)
        if places is None:
            entries[key] = place
            if self.order is not None:
                self.order.add(key)
        elif type(places) is dict:
            places[place] = None
        else:
            entries[key] = {places: None, place: None}

    def remove(self, key: Key, place: Key) -> None:
        """Take out the row at this place."""
        entries = self.entries
        places = entries[key]
        if type(places) is dict:
            del places[place]
            if len(places) == 1:
                (entries[key],) = places
            return
        del entries[key]
        if self.order is not None:
            self.order.remove(key)

    def move(self, old_key: Key, new_key: Key, old_place: Key, new_place: Key, row: bytes) -> None:
        """Replace a row by one with another or the same key or place."""
        if old_key != new_key or old_place != new_place:
            self.remove(old_key, old_place)
            self.add(new_key, new_place, row)
