"""Keys of rows as SQLite holds them, and what is stored beside each row.

Responsible for: keys and their reading back, the checksums of rows.
Not responsible for: which rows there are (`rows`, `merging`).

A row's key is its place in the table in memory: an integer of 64 bits as INTEGER, a string as TEXT, bytes as BLOB; any
other as a BLOB that is made of it: `b` size `:` bytes, `s` size `:` UTF-8, `i` decimal digits `;`, `(` parts `)`. Where
a table has no primary key, a row is its own key: up to INLINE_BYTES_MAX as BLOB with NULL in place of the row, a longer
one as its SHA-256 in hexadecimal TEXT. Keys of one table are all of one type in memory, so two never become one.

Checksum of a row: its CRC-32; for a key that is no INTEGER and beside which a row stands, that of the key is added.
Those of integers are added up by themselves (`key_sum`, modulo 2^64).
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import TypeAlias
from zlib import crc32

from stdb.datastore.index import Key

__all__ = ["INLINE_BYTES_MAX", "StoredKey", "StoredRow", "row_stored", "row_stored_by_itself", "stored_key", "wrapped"]

INLINE_BYTES_MAX = 255

StoredKey: TypeAlias = "int | str | bytes"
StoredRow: TypeAlias = "tuple[StoredKey, int, bytes | None]"
"""Key, checksum, row."""

_INTEGER_MIN, _INTEGER_MAX = -(1 << 63), (1 << 63) - 1


def stored_key(key: Key, *, is_row: bool = False) -> StoredKey:
    """Return a key as it is stored; `is_row`: of a table without a primary key."""
    if is_row:
        return key if len(key) <= INLINE_BYTES_MAX else sha256(key).hexdigest()
    if isinstance(key, int) and _INTEGER_MIN <= key <= _INTEGER_MAX:
        return int(key)
    return key if isinstance(key, str | bytes) else _packed(key)


def row_stored(key: Key, row: bytes) -> StoredRow:
    """Return what is stored of a row with a primary key."""
    stored = stored_key(key)
    if isinstance(stored, int):
        return stored, crc32(row), row
    return stored, crc32(row) + crc32(stored.encode() if isinstance(stored, str) else stored), row


def row_stored_by_itself(row: bytes) -> StoredRow:
    """Return what is stored of a row without one."""
    if len(row) <= INLINE_BYTES_MAX:
        return row, crc32(row), None
    key = sha256(row).hexdigest()
    return key, crc32(row) + crc32(key.encode()), row


def wrapped(keys: Iterable[StoredKey]) -> int:
    """Return the sum of the integers among keys, modulo 2^64, as SQLite can hold it."""
    total = sum(key for key in keys if type(key) is int)
    return (total + (1 << 63)) % (1 << 64) - (1 << 63)


def _packed(key: Key) -> bytes:
    if isinstance(key, tuple):
        return b"(" + b"".join(map(_packed, key)) + b")"
    if isinstance(key, bytes):
        return b"b%d:" % len(key) + key
    if isinstance(key, str):
        text = key.encode()
        return b"s%d:" % len(text) + text
    return b"i%d;" % key
