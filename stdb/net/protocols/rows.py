"""Row lists: the rows of a message as one run of bytes and a hint where each one starts.

Responsible for: BsatnRowList (spec 02 section 5.2), the order of tables in an update.
Not responsible for: the messages around it (`v1_bsatn`, `v2_bsatn`), JSON rows (`v1_json`).
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from struct import Struct, pack

from stdb.subscriptions.fragment import Fragment

__all__ = ["EMPTY_ROW_LIST", "bytes_of", "group_by_table", "row_list"]

_FIXED = Struct("<BHI")
EMPTY_ROW_LIST = b"\1\0\0\0\0\0\0\0\0"
_FIXED_BYTES_MAX = 0xFFFF


def row_list(rows: Sequence[bytes]) -> bytes:
    """Return the BsatnRowList of `rows`: FixedSize where all rows are equally long (1 to 65,535), else RowOffsets."""
    if not rows:
        return EMPTY_ROW_LIST
    size = len(rows[0])
    count = len(rows)
    if count == 1:
        if 0 < size <= _FIXED_BYTES_MAX:
            return _FIXED.pack(0, size, size) + rows[0]
    elif 0 < size <= _FIXED_BYTES_MAX and len(set(map(len, rows))) == 1:
        return _FIXED.pack(0, size, size * count) + b"".join(rows)
    ends = list(accumulate(map(len, rows)))
    return b"".join((pack(f"<BI{count}QI", 1, count, 0, *ends[:-1], ends[-1]), *rows))


def bytes_of(fragments: Iterable[Fragment]) -> int:
    """Return how many bytes of rows `fragments` hold."""
    return sum(sum(map(len, fragment.inserts)) + sum(map(len, fragment.deletes)) for fragment in fragments)


def group_by_table(fragments: Iterable[Fragment]) -> dict[str, list[Fragment]]:
    """Return the fragments of each table, tables in the order they first appear."""
    tables: dict[str, list[Fragment]] = {}
    for fragment in fragments:
        tables.setdefault(fragment.table_name, []).append(fragment)
    return tables
