"""What a statement holds in memory: rows and bytes, against a bound.

Responsible for: the bounds on results, on the rows that ORDER BY holds and the groups of GROUP BY.
Not responsible for: rows visited and produced (`work`).
"""

from stdb.errors import QueryError

__all__ = ["HELD_ROWS_MAX", "RESULT_BYTES_MAX", "Held"]

HELD_ROWS_MAX = 1_000_000
"""Most rows that ORDER BY, most groups and distinct values that GROUP BY holds."""
RESULT_BYTES_MAX = 256 << 20
"""Most bytes of the rows that a result is made of, and of those that ORDER BY and GROUP BY hold."""
_ROW_BYTES = 64
"""What a row costs beside the bytes that it is made of."""


class Held:
    """Rows held for one purpose; `rows_max` None counts bytes alone. `what` and `advice` make the refusal."""

    __slots__ = ("advice", "rows", "rows_max", "size", "what")

    def __init__(self, what: str, rows_max: int | None, advice: str) -> None:
        self.what = what
        self.rows_max = rows_max
        self.advice = advice
        self.rows = 0
        self.size = 0

    def add(self, rows: int, size: int) -> None:
        """Count rows and the bytes they are made of; both may be negative.

        Raises:
            QueryError: More than the bounds.
        """
        self.rows += rows
        self.size += size
        if self.rows_max is not None and self.rows > self.rows_max:
            raise QueryError(f"{self.what} more than {self.rows_max} rows; {self.advice}")
        if self.size + self.rows * _ROW_BYTES > RESULT_BYTES_MAX:
            raise QueryError(f"{self.what} more than {RESULT_BYTES_MAX} bytes, in {self.rows} rows; {self.advice}")
