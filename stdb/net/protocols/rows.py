"""Row lists: the rows of a message as one run of bytes and a hint where each one starts.

Responsible for: BsatnRowList (spec 02 section 5.2), long ones in pieces; the order of tables in an update.
Not responsible for: the messages around it (`v1_bsatn`, `v2_bsatn`), JSON rows (`v1_json`).

One call of C over a million rows would hold the interpreter, and with it the event loop, for 30 to 120 ms, in whichever
thread it runs; so no such call is made over more than ROWS_A_PIECE rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from struct import Struct, pack

from stdb.subscriptions.fragment import Fragment

__all__ = [
    "EMPTY_ROW_LIST",
    "ROWS_A_PIECE",
    "bytes_of",
    "group_by_table",
    "let_go",
    "pieces_of",
    "row_list",
    "row_list_pieces",
]

ROWS_A_PIECE = 16_384

_FIXED = Struct("<BHI")
EMPTY_ROW_LIST = b"\1\0\0\0\0\0\0\0\0"
_FIXED_BYTES_MAX = 0xFFFF


def row_list(rows: Sequence[bytes]) -> bytes:
    """Return the BsatnRowList of `rows`: FixedSize where all rows are equally long (1 to 65,535), else RowOffsets."""
    if not rows:
        return EMPTY_ROW_LIST
    size = len(rows[0])
    count = len(rows)
    if count > ROWS_A_PIECE:
        return b"".join(row_list_pieces(rows))
    if count == 1:
        if 0 < size <= _FIXED_BYTES_MAX:
            return _FIXED.pack(0, size, size) + rows[0]
    elif 0 < size <= _FIXED_BYTES_MAX and len(set(map(len, rows))) == 1:
        return _FIXED.pack(0, size, size * count) + b"".join(rows)
    ends = list(accumulate(map(len, rows)))
    return b"".join((pack(f"<BI{count}QI", 1, count, 0, *ends[:-1], ends[-1]), *rows))


def row_list_pieces(rows: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the bytes of `row_list(rows)` in pieces."""
    if len(rows) <= ROWS_A_PIECE:
        yield row_list(rows)
        return
    size, count = len(rows[0]), len(rows)
    if 0 < size <= _FIXED_BYTES_MAX and all(set(map(len, piece)) == {size} for piece in pieces_of(rows)):
        yield _FIXED.pack(0, size, size * count)
    else:
        yield pack("<BI", 1, count)
        end = 0
        for piece in pieces_of(rows):
            *starts, end = accumulate(map(len, piece), initial=end)
            yield pack(f"<{len(starts)}Q", *starts)
        yield pack("<I", end)
    yield from map(b"".join, pieces_of(rows))


def pieces_of(rows: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Yield rows in runs of at most ROWS_A_PIECE."""
    return (rows[first : first + ROWS_A_PIECE] for first in range(0, len(rows), ROWS_A_PIECE))


def let_go(fragments: Iterable[Fragment]) -> None:
    """Empty fragments that nobody else has, step by step: to drop the last reference to their rows takes as long."""
    for fragment in fragments:
        for rows in (fragment.inserts, fragment.deletes):
            while rows:
                del rows[-ROWS_A_PIECE:]


def bytes_of(fragments: Iterable[Fragment]) -> int:
    """Return how many bytes of rows `fragments` hold."""
    return sum(sum(map(len, fragment.inserts)) + sum(map(len, fragment.deletes)) for fragment in fragments)


def group_by_table(fragments: Iterable[Fragment]) -> dict[str, list[Fragment]]:
    """Return the fragments of each table, tables in the order they first appear."""
    tables: dict[str, list[Fragment]] = {}
    for fragment in fragments:
        tables.setdefault(fragment.table_name, []).append(fragment)
    return tables
