"""SQLite's write-ahead log, read beside SQLite: tells damage from a tail that was never finished.

Responsible for: finding transactions that stand behind a frame that does not check.
Not responsible for: anything else about the file; SQLite reads, writes and repairs it.

SQLite ends at the first frame whose checksum differs and drops what follows: right for the torn last transaction of a
crash, wrong for a flipped bit in an older one. With synchronous=FULL a transaction's frames are written only after the
one before was synced, so a later transaction in sequence behind a bad one means damage. (Damage within the very last
transaction cannot be told from a torn one.)

Layout (SQLite's file format, section 4): header 32 bytes; frames of 24 bytes and a page: page number, database size
after a commit or 0, two salts, two running checksums, all big-endian.
"""

from pathlib import Path
from struct import Struct, unpack

__all__ = ["damaged_frame"]

_HEADER = Struct(">8I")
_FRAME = Struct(">6I")
_MAGIC_LITTLE, _MAGIC_BIG = 0x377F0682, 0x377F0683
_MASK = 0xFFFFFFFF
_PAGE_SIZES = tuple(1 << power for power in range(9, 17))


def damaged_frame(path: Path) -> int | None:
    """Return the number of the frame, from 0, that is damaged although a later transaction was written; else None.

    `path` is that of the `-wal` file, which need not exist; no connection to its database is open.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(data) < _HEADER.size:
        return None
    magic, _, page_size, _, *salts, first, second = _HEADER.unpack_from(data)
    order = ">" if magic == _MAGIC_BIG else "<"
    if magic not in (_MAGIC_LITTLE, _MAGIC_BIG) or _checksum(data[: _HEADER.size - 8], order) != (first, second):
        return 0 if _has_frames(data) else None  # SQLite would take it for an empty log
    frames = _Frames(data, page_size, order, (salts[0], salts[1]))
    bad = frames.first_bad((first, second))
    return bad if bad is not None and frames.has_transaction_behind(bad) else None


def _checksum(data: bytes, order: str) -> tuple[int, int]:
    first = second = 0
    words = unpack(f"{order}{len(data) // 4}I", data)
    for i in range(0, len(words), 2):
        first = (first + words[i] + second) & _MASK
        second = (second + words[i + 1] + first) & _MASK
    return first, second


def _has_frames(data: bytes) -> bool:
    """Tell whether frames stand behind a header that does not check: two, of which one goes on from the other."""
    for page_size in _PAGE_SIZES:
        for order in "<>":
            if len(data) < _HEADER.size + _FRAME.size + page_size:
                continue
            _, _, *salts, _, _ = _FRAME.unpack_from(data, _HEADER.size)
            frames = _Frames(data, page_size, order, (salts[0], salts[1]))
            for number in range(frames.count - 1):
                page, _, _, stored = frames.head(number)
                if page and frames.checks(number + 1, stored):
                    return True
    return False


class _Frames:
    def __init__(self, data: bytes, page_size: int, order: str, salts: tuple[int, int]) -> None:
        self.data = data
        self.size = _FRAME.size + page_size
        self.format = f"{order}{page_size // 4}I"
        self.head_format = f"{order}2I"
        self.salts = salts
        self.count = (len(data) - _HEADER.size) // self.size

    def head(self, number: int) -> tuple[int, int, tuple[int, int], tuple[int, int]]:
        """Return page number, size after a commit, salts and checksums of a frame."""
        page, committed, *rest = _FRAME.unpack_from(self.data, _HEADER.size + number * self.size)
        return page, committed, (rest[0], rest[1]), (rest[2], rest[3])

    def checks(self, number: int, before: tuple[int, int]) -> bool:
        """Tell whether a frame is of this log and its checksum goes on from the one before."""
        start = _HEADER.size + number * self.size
        _, _, salts, stored = self.head(number)
        if salts != self.salts:
            return False
        head = unpack(self.head_format, self.data[start : start + 8])
        words = unpack(self.format, self.data[start + _FRAME.size : start + self.size])
        first, second = before
        for i in range(0, len(head), 2):
            first = (first + head[i] + second) & _MASK
            second = (second + head[i + 1] + first) & _MASK
        for i in range(0, len(words), 2):
            first = (first + words[i] + second) & _MASK
            second = (second + words[i + 1] + first) & _MASK
        return (first, second) == stored

    def first_bad(self, before: tuple[int, int]) -> int | None:
        for number in range(self.count):
            if not self.checks(number, before):
                return number
            before = self.head(number)[3]
        return None

    def has_transaction_behind(self, bad: int) -> bool:
        """Tell whether the transaction of a bad frame ended and a frame of the next one follows in sequence."""
        for number in range(bad, self.count - 1):
            _, committed, salts, stored = self.head(number)
            if committed and salts == self.salts and self.checks(number + 1, stored):
                return True
        return False
