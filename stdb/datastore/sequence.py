"""Sequences: the numbers that fill auto-increment columns.

Responsible for: the next value, blocks of 4096 reserved at a time, wrap-around.
Not responsible for: which rows get one (`table`), writing `st_sequence` (`transaction`, from `Reservations`).

Values handed out are never taken back, by a rollback neither. A block counts as reserved once `allocated` is in a
committed `st_sequence` row; the reference forgets it when the transaction that reserved it rolls back and then hands
the same values out again after a restart. Here it stays pending until a transaction commits it (07 section 3).
"""

from stdb.schema.model import SequenceDef

__all__ = ["BLOCK_COUNT", "Reservations", "Sequence"]

BLOCK_COUNT = 4096
"""How many values are reserved at a time."""


class Reservations:
    """The sequences of one database whose reserved block is not yet in a committed `st_sequence` row."""

    __slots__ = ("is_fresh", "pending")

    def __init__(self) -> None:
        self.pending: dict[int, Sequence] = {}
        """By sequence id."""
        self.is_fresh = False
        """The running transaction itself reserved a block."""

    def add(self, sequence: "Sequence") -> None:
        """Note that a sequence reserved a block."""
        self.pending[sequence.id] = sequence
        self.is_fresh = True


class Sequence:
    """One sequence in memory. After a start it goes on at `allocated`: the rest of the block is skipped."""

    __slots__ = ("_remaining", "_reservations", "_value", "allocated", "column", "definition", "id")

    def __init__(self, sequence_id: int, definition: SequenceDef, allocated: int, reservations: Reservations) -> None:
        self.id = sequence_id
        self.definition = definition
        self.column = definition.column
        self._reservations = reservations
        self.resume(allocated)

    def resume(self, allocated: int) -> None:
        """Go on at `allocated`, as read from `st_sequence`."""
        self.allocated = allocated
        """The first value to hand out after a restart."""
        self._value = allocated
        self._remaining = 0

    @property
    def position(self) -> tuple[int, int]:
        """The next value and how many of the reserved block are left, from it on."""
        return self._value, self._remaining

    def go_on_at(self, position: tuple[int, int]) -> None:
        """Go on where another life of this sequence stood after everything that is stored."""
        self._value, self._remaining = position

    def next(self) -> int:
        """Return the next value, not yet cut to the width of its column."""
        if not self._remaining:
            self.allocated = self._step(self._value, BLOCK_COUNT)
            self._remaining = BLOCK_COUNT
            self._reservations.add(self)
        value = self._value
        self._value = self._step(value, 1)
        self._remaining -= 1
        return value

    def _step(self, value: int, count: int) -> int:
        _, low, high = self.definition.parameters()
        return low + (value - low + count * self.definition.increment) % (high - low + 1)
