"""Seals: that the offset of stored rows and the checksums of all their tables were written together.

Responsible for: the number that binds them, in the metadata as `rows_seal`.
Not responsible for: the checksums of single tables (`merging`, `rows`).

SQLite has no checksums of its own for pages of the file. Where a page is lost, old, or covered by an older one that
its log still holds, each table may be whole and yet not of the offset that the metadata tells.
"""

import sqlite3
from zlib import crc32

from stdb.storage.log_file import read_metadata

__all__ = ["is_sealed", "seal", "table_part"]


def table_part(table_id: int, sums: tuple[int, ...]) -> int:
    """Return what a table with these checksums adds to the sum over all tables."""
    return crc32(repr((table_id, *sums)).encode())


def seal(offset: int, merging_to: int | None, tables_sum: int) -> int:
    """Return the seal of rows that reflect `offset` transactions, and `merging_to` in part; of a fresh file 0."""
    if (offset, merging_to, tables_sum) == (0, None, 0):
        return 0
    return crc32(repr((offset, merging_to, tables_sum)).encode())


def is_sealed(connection: sqlite3.Connection) -> bool:
    """Tell whether metadata and checksums of tables belong together. Raises what reading a damaged file does."""
    offset, merging_to = read_metadata(connection, "rows_offset"), read_metadata(connection, "merging_to")
    tables = connection.execute("SELECT * FROM tables")
    tables_sum = sum(table_part(table_id, tuple(sums)) for table_id, *sums in tables)
    return offset is not None and read_metadata(connection, "rows_seal") == seal(offset, merging_to, tables_sum)
