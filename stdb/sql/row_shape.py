"""Row shapes: rows that are no whole rows of a table.

Responsible for: picking columns of rows; what reads such rows, in the place of a table's schema.
Not responsible for: which columns (`row_query`), rows of full SQL before they are encoded (`statement`).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from stdb.sats import bsatn, keys
from stdb.sats.types import Product

__all__ = ["Picked", "RowShape"]


class RowShape(NamedTuple):
    """What rows consist of."""

    row_type: Product
    codec: bsatn.Codec


class Picked(NamedTuple):
    """Some columns of a table."""

    shape: RowShape
    rows: Callable[[Sequence[bytes]], list[bytes]]
    """Rows of the table to those of the picked columns, one for each."""

    @classmethod
    def of(cls, row_type: Product, columns: Sequence[int]) -> "Picked":
        """Return the columns at these places of rows of `row_type`, in this order."""
        picked = Product(tuple(row_type.elements[column] for column in columns))
        codec = bsatn.codec(picked)
        values, encode = keys.row_columns(row_type, columns), codec.encode
        return cls(RowShape(picked, codec), lambda rows: [encode(values(row)) for row in rows])
