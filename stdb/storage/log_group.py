"""Groups: records on their way to the disk together, and what they changed.

Responsible for: joining records and groups; bodies of bounded size.
Not responsible for: when a group goes to the disk (`log`, `log_writer`).

Records are joined by whoever made them: they are at hand then, and their memory is at once that of the next ones.
"""

from collections.abc import Iterator, Sequence

from stdb.datastore.window import TableChanges

__all__ = ["BODY_BYTES_MAX", "Group"]

BODY_BYTES_MAX = 16 * 1024 * 1024
"""Size at which a body is closed; one record alone may be greater."""


class Group:
    """Some records in order. Used by one thread at a time."""

    __slots__ = ("_bodies", "_counts", "changes", "size")

    def __init__(self) -> None:
        self._bodies: list[bytes] = []
        self._counts: list[int] = []
        """How many records each body holds."""
        self.changes: list[list[TableChanges] | None] = []
        """Of those that were added together, in order; None: unknown, the rows stay where they are until the next
        start."""
        self.size = 0
        """Bytes of all bodies."""

    def __len__(self) -> int:
        """Return how often something was added."""
        return len(self.changes)

    def add(self, records: Sequence[bytes], changes: list[TableChanges] | None) -> None:
        """Add records, at least one, and what they changed."""
        size = sum(map(len, records))
        for start, end in _runs(records, size):
            self._bodies.append(b"".join(records[start:end]))
            self._counts.append(end - start)
        self.changes.append(changes)
        self.size += size

    def absorb(self, following: "Group") -> None:
        """Add a whole group."""
        self._bodies += following._bodies
        self._counts += following._counts
        self.changes += following.changes
        self.size += following.size

    def bodies(self) -> Iterator[tuple[bytes, int]]:
        """Yield the bodies, joined as far as they may be, each with the number of its records."""
        for start, end in _runs(self._bodies, self.size):
            yield b"".join(self._bodies[start:end]), sum(self._counts[start:end])


def _runs(parts: Sequence[bytes], size: int) -> Iterator[tuple[int, int]]:
    """Yield where runs of parts, `size` all together, begin and end that may be joined."""
    start = 0
    if size > BODY_BYTES_MAX:
        taken = 0
        for i, part in enumerate(parts):
            if taken and taken + len(part) > BODY_BYTES_MAX:
                yield start, i
                start, taken = i, 0
            taken += len(part)
    yield start, len(parts)
