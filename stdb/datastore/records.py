"""Log records: one committed transaction to and from one checksummed run of bytes.

Responsible for: the record layout, its checksum, telling damage and saying where.
Not responsible for: files and durability (`stdb.storage`), what a row means (`replay`).

Layout (ours; its guarantees: 07 section 7), little-endian:

    record   size u32 | crc32 u32 of all that follows | offset u64 | payload, `size` bytes
    payload  timestamp i64, us | caller 32 | connection id 16 | flags u8 | name size u32 | args size u32 | groups u32
             | reducer name, UTF-8 | arguments, BSATN | groups
    group    table id u32 | deletes u32 | inserts u32 | row size u32 | [row sizes, u32 each]
             | deleted rows | inserted rows

Flag 1: there is a connection id. Row size 0xFFFFFFFF: rows differ in size, and all sizes stand first. Groups are in
ascending table id, so that the catalogue's rows come before those they describe. Rows of event tables are in it.
"""

import struct
from collections.abc import Callable, Container, Generator, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from struct import Struct
from typing import NamedTuple, Protocol
from zlib import crc32

from stdb.datastore.delta import Delta
from stdb.errors import StorageError

__all__ = [
    "PAYLOAD_BYTES_MAX",
    "Change",
    "Circumstances",
    "Context",
    "Record",
    "RecordError",
    "decode_changes",
    "decode_context",
    "decode_few",
    "encode",
    "join",
    "only",
    "split",
]

PAYLOAD_BYTES_MAX = 512 * 1024 * 1024
"""Greatest size of a payload; SQLite ends at 10^9 bytes a value."""

_HEAD = Struct("<II")
_FULL_HEAD = Struct("<IIQ")
_CONTEXT = Struct("<Qq32s16sBIII")  # the offset stands before it, both under the checksum
_GROUP = Struct("<IIII")
_OFFSET_SIZE = 8
_CONTEXT_END = _CONTEXT.size - _OFFSET_SIZE
_ROWS_DIFFER = 0xFFFFFFFF
_CUT_MAX = 16
"""Rows of one size that are cut out at once."""
_HAS_CONNECTION = 1
_NO_CONNECTION = bytes(16)


class Circumstances(Protocol):
    """What a record keeps of the call that made it; `stdb.subscriptions.fragment.TransactionEvent` is one."""

    @property
    def reducer_name(self) -> str:
        """Return the reducer's name, or another word for what ran."""

    @property
    def caller(self) -> bytes:
        """Return the caller's identity, 32 bytes."""

    @property
    def caller_connection_id(self) -> bytes | None:
        """Return its connection id, 16 bytes."""

    @property
    def timestamp_us(self) -> int:
        """Return the transaction's time in microseconds since 1970."""

    @property
    def args(self) -> bytes:
        """Return the arguments in BSATN."""


class Context(NamedTuple):
    """The circumstances of one transaction, as read from a record."""

    reducer_name: str
    caller: bytes
    caller_connection_id: bytes | None
    timestamp_us: int
    args: bytes = b""


class Record(NamedTuple):
    """One committed transaction as stored, its checksum checked."""

    offset: int
    """Transaction offset: counts commits from 0, without gaps."""
    payload: bytes
    """0 to PAYLOAD_BYTES_MAX bytes."""


class RecordError(StorageError):
    """A record that cannot be trusted; `offset` is the one it should have."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(f"offset {offset}: {what}")
        self.offset = offset


class Change(NamedTuple):
    """What a record changed in one table."""

    table_id: int
    deletes: list[bytes]
    inserts: list[bytes]


def encode(delta: Delta, circumstances: Circumstances) -> bytes:
    """Return the record of a committed transaction."""
    connection_id = circumstances.caller_connection_id
    name, args = circumstances.reducer_name.encode(), circumstances.args
    parts = [
        _CONTEXT.pack(
            delta.offset,
            circumstances.timestamp_us,
            circumstances.caller,
            connection_id or _NO_CONNECTION,
            0 if connection_id is None else _HAS_CONNECTION,
            len(name),
            len(args),
            len(delta.tables),
        ),
        name,
        args,
    ]
    for table_delta in delta.tables:
        schema, deletes, inserts = table_delta.table.schema, table_delta.deletes, table_delta.inserts
        size = schema.codec.fixed_size
        if size is None:
            parts.append(_GROUP.pack(schema.id, len(deletes), len(inserts), _ROWS_DIFFER))
            parts.append(_sizes(len(deletes) + len(inserts)).pack(*map(len, deletes), *map(len, inserts)))
        else:
            parts.append(_GROUP.pack(schema.id, len(deletes), len(inserts), size))
        parts += deletes
        parts += inserts
    body = b"".join(parts)
    return _HEAD.pack(len(body) - _OFFSET_SIZE, crc32(body)) + body


def split(data: bytes, expected_offset: int) -> Generator[Record, None, int]:
    """Yield the records of a run of bytes that holds them whole, one after another; return the offset behind the last.

    Args:
        data: What `encode` returned, joined.
        expected_offset: The offset that the first record must have.

    Raises:
        RecordError: A checksum differs, a record is cut, or an offset is not the next. Those before it are good.
    """
    position, end, unpack_head, new = 0, len(data), _FULL_HEAD.unpack_from, tuple.__new__
    while position < end:
        if end - position < _FULL_HEAD.size:
            raise RecordError("the record is cut", expected_offset)
        size, checksum, offset = unpack_head(data, position)
        start = position + 16
        position = start + size
        if position > end:
            raise RecordError(f"the record is cut: it has {size - position + end} of {size} bytes", expected_offset)
        if crc32(data[start - 8 : position]) != checksum:
            raise RecordError("the checksum differs, the record is damaged", expected_offset)
        if offset != expected_offset:
            raise RecordError(f"the record is missing, one of offset {offset} stands there", expected_offset)
        yield new(Record, (offset, data[start:position]))  # without the call of its own `__new__`
        expected_offset += 1
    return expected_offset


def join(record: Record) -> bytes:
    """Return the stored form of a record that was read."""
    body = record.offset.to_bytes(8, "little") + record.payload
    return _HEAD.pack(len(record.payload), crc32(body)) + body


def decode_context(record: Record) -> Context:
    """Return the circumstances of a record."""
    timestamp_us, caller, connection_id, flags, name_size, args_size, _ = _context_of(record)
    args_start = _CONTEXT_END + name_size
    name = record.payload[_CONTEXT_END:args_start].decode()
    args = record.payload[args_start : args_start + args_size]
    return Context(name, caller, connection_id if flags & _HAS_CONNECTION else None, timestamp_us, args)


def decode_changes(record: Record) -> list[Change]:
    """Return what a record changed, by table in ascending id.

    Raises:
        StorageError: The payload is not of this layout although its checksum is right.
    """
    payload = record.payload
    try:
        name_size, args_size, groups = _PAYLOAD_SIZES.unpack_from(payload, 0)
        position = _CONTEXT_END + name_size + args_size
        changes = []
        for _ in range(groups):
            table_id, delete_count, insert_count, size = _GROUP.unpack_from(payload, position)
            position += 16
            count = delete_count + insert_count
            rows: Sequence[bytes]
            if size == _ROWS_DIFFER:
                sizes = _sizes(count).unpack_from(payload, position)
                ends = list(accumulate(sizes, initial=position + 4 * count))
                position = ends[-1]
                rows = [payload[start:end] for start, end in pairwise(ends)]
            elif count <= _CUT_MAX:
                rows = _cutter(size, count)(payload, position)
                position += size * count
            else:
                end = position + size * count
                rows = (
                    [payload[start : start + size] for start in range(position, end, size)] if size else [b""] * count
                )
                position = end
            changes.append(Change(table_id, list(rows[:delete_count]), list(rows[delete_count:])))
    except struct.error as error:
        raise StorageError(f"offset {record.offset}: the payload is cut: {error}") from error
    if position != len(payload):
        raise StorageError(f"offset {record.offset}: the payload has {len(payload)} bytes, its parts {position}")
    return changes


def decode_few(record: Record) -> tuple[int, Sequence[bytes], Sequence[bytes]] | None:
    """Return the one change of a record, the quick way that does for most; None where it takes `decode_changes`."""
    payload = record.payload
    try:
        name_size, args_size, groups = _unpack_sizes(payload)
        if groups != 1:
            return None
        position = _CONTEXT_END + name_size + args_size
        table_id, delete_count, insert_count, size = _unpack_group(payload, position)
        count = delete_count + insert_count
        position += 16
        if count > _CUT_MAX or len(payload) != position + size * count:
            return None
        rows = _cutter(size, count)(payload, position)
    except struct.error:
        return None
    return table_id, rows[:delete_count], rows[delete_count:]


def only(record: Record, table_ids: Container[int]) -> Record:
    """Return a record as if the transaction had changed only these tables. Its rows are not looked at one by one."""
    payload = record.payload
    name_size, args_size, groups = _unpack_sizes(payload)
    position = _CONTEXT_END + name_size + args_size
    kept, context = [], payload[_CONTEXT_END:position]
    for _ in range(groups):
        start = position
        table_id, deletes, inserts, size = _unpack_group(payload, start)
        position += 16
        count = deletes + inserts
        if size == _ROWS_DIFFER:
            position += 4 * count + sum(_sizes(count).unpack_from(payload, position))
        else:
            position += size * count
        if table_id in table_ids:
            kept.append(payload[start:position])
    head = payload[: _CONTEXT_END - 4] + len(kept).to_bytes(4, "little")
    return Record(record.offset, b"".join((head, context, *kept)))


_PAYLOAD_HEAD = Struct("<q32s16sBIII")
_PAYLOAD_SIZES = Struct("<57xIII")  # the same without what replay does not need
_unpack_sizes, _unpack_group = _PAYLOAD_SIZES.unpack_from, _GROUP.unpack_from


def _context_of(record: Record) -> tuple[int, bytes, bytes, int, int, int, int]:
    try:
        found: tuple[int, bytes, bytes, int, int, int, int] = _PAYLOAD_HEAD.unpack_from(record.payload, 0)
    except struct.error as error:
        raise StorageError(f"offset {record.offset}: the payload is cut: {error}") from error
    return found


@lru_cache(maxsize=1024)
def _sizes(count: int) -> Struct:
    return Struct(f"<{count}I")


@lru_cache(maxsize=4096)
def _cutter(size: int, count: int) -> Callable[[bytes, int], tuple[bytes, ...]]:
    """Return the function that cuts rows of one size out of a payload."""
    return Struct(f"{size}s" * count).unpack_from
