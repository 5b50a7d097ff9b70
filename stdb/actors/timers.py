"""Timers: rows of scheduled tables in the order in which they are due.

Responsible for: which row is due next, one timer a row, forgetting replaced timers without sorting anything again.
Not responsible for: whether the row is still there (`scheduler`), waiting, clocks.

A heap whose entries are never moved or removed: the timer that counts for a row is the one armed last, all before it
are passed over when they come up, and swept out when they are most of the heap.
"""

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from stdb.datastore.index import Key

__all__ = ["Timer", "Timers"]


class Timer(NamedTuple):
    """A row that is due at a time. Compares by due time, then by the order of arming."""

    due_us: int
    """Microseconds since 1970, of any size and sign."""
    sequence: int
    """Tells timers apart: counts them."""
    table_id: int
    place: Key
    """The row's place in its table."""
    row: bytes
    interval_us: int
    """After how long it is due again; 0: it is due once."""


class Timers:
    """The timers of one database."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._armed: dict[tuple[int, Key], Timer] = {}
        self._count = 0

    def __len__(self) -> int:
        """Return how many entries are kept, those that do not count any more included."""
        return len(self._heap)

    def arm(self, table_id: int, place: Key, row: bytes, due_us: int, interval_us: int) -> None:
        """Have a row come up at a time; whatever timer it had does not count any more."""
        self._count += 1
        timer = self._armed[table_id, place] = Timer(due_us, self._count, table_id, place, row, interval_us)
        heappush(self._heap, timer)

    def has(self, table_id: int, place: Key) -> bool:
        """Tell whether the row at a place has a timer."""
        return (table_id, place) in self._armed

    def next_due_us(self) -> int | None:
        """Return when the next timer comes up; None when there is none."""
        self._pass_replaced()
        return self._heap[0].due_us if self._heap else None

    def pop_due(self, now_us: int) -> Timer | None:
        """Take out the next timer that is due; None when none is."""
        self._pass_replaced()
        if not self._heap or self._heap[0].due_us > now_us:
            return None
        timer = heappop(self._heap)
        del self._armed[timer.table_id, timer.place]
        return timer

    def sweep(self, counts: Callable[[Timer], bool]) -> None:
        """Forget every timer that was replaced or does not count."""
        self._keep(timer for timer in self._armed.values() if counts(timer))

    def shift_intervals(self, by_us: int) -> None:
        """Have everything that is due again and again come up later by so much: the clock was set forward by that."""
        self._keep(
            timer._replace(due_us=timer.due_us + by_us) if timer.interval_us else timer
            for timer in self._armed.values()
        )

    def _keep(self, timers: Iterable[Timer]) -> None:
        self._heap = list(timers)
        self._armed = {(timer.table_id, timer.place): timer for timer in self._heap}
        heapify(self._heap)

    def _pass_replaced(self) -> None:
        heap, armed = self._heap, self._armed
        while heap and armed.get((heap[0].table_id, heap[0].place)) is not heap[0]:
            heappop(heap)
