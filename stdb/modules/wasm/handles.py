"""Handles: the numbers by which a guest knows what the host keeps for it.

Responsible for: byte sources and sinks, row iterators, console timers: numbering and lifetimes.
Not responsible for: the functions that use them (`imports_10`), memory.

Source: spec 04 sections 2.2 and 3.3.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Handles", "Slab", "Source"]

T = TypeVar("T")


class Slab(Generic[T]):
    """Things by number, from 1 on; a number that is free again is given to the next."""

    __slots__ = ("_free", "_items", "get")

    def __init__(self) -> None:
        self._items: dict[int, T] = {}
        self._free: list[int] = []
        self.get: Callable[[int], T | None] = self._items.get
        """Returns what has a number."""

    def add(self, item: T) -> int:
        """Keep something; return its number."""
        items, free = self._items, self._free
        number = free.pop() if free else len(items) + 1
        items[number] = item
        return number

    def take(self, number: int) -> T | None:
        """Take out what has that number and return it."""
        item = self._items.pop(number, None)
        if item is not None:
            self._free.append(number)
        return item


class Source:
    """Bytes that a guest reads from their beginning."""

    __slots__ = ("data", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0


class Handles:
    """The handles of one instance."""

    __slots__ = ("_next_sink", "_next_source", "iterators", "sinks", "sources", "timers")

    def __init__(self) -> None:
        self.sources: dict[int, Source] = {}
        self.sinks: dict[int, bytearray] = {}
        self.iterators: Slab[list[bytes]] = Slab()
        """Chunks of whole rows that are still to be read, the next one last. They outlive a call."""
        self.timers: Slab[tuple[str, int]] = Slab()
        """Name and start, in microseconds."""
        self._next_source = 1
        self._next_sink = 1

    def add_source(self, data: bytes) -> int:
        """Return the handle of new bytes to read; 0, which is none, where there are none."""
        if not data:
            return 0
        number = self._next_source
        self._next_source = number + 1
        self.sources[number] = Source(data)
        return number

    def add_value(self, data: bytes) -> int:
        """Return the handle of new bytes to read, even where there are none."""
        number = self._next_source
        self._next_source = number + 1
        self.sources[number] = Source(data)
        return number

    def add_sink(self) -> int:
        """Return the handle of something to write to."""
        number = self._next_sink
        self._next_sink = number + 1
        self.sinks[number] = bytearray()
        return number

    def end_call(self) -> None:
        """Drop what lives for one call."""
        if self._next_source != 1:
            self.sources.clear()
            self._next_source = 1
        self.sinks.clear()
        self._next_sink = 1
