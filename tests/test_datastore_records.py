"""Tests of the stored form of a transaction."""

import struct
from zlib import crc32

import pytest

from stdb.datastore.delta import Delta, TableDelta
from stdb.datastore.records import (
    Change,
    Context,
    Record,
    RecordError,
    decode_changes,
    decode_context,
    encode,
    join,
    split,
)
from stdb.errors import StorageError
from stdb.sats.types import STRING, U8, U32, UNIT
from stdb.subscriptions.fragment import TransactionEvent
from tests.datastore_samples import CONTEXT, make_database, make_table, row

ITEM = make_table("item", {"id": U32, "name": STRING}, key="id")
FIXED = make_table("fixed", {"a": U8, "b": U32})
EMPTY = make_table("nothing", {"u": UNIT})


def sample() -> Delta:
    datastore = make_database(ITEM, FIXED, EMPTY)
    item, fixed, nothing = (datastore.table(name) for name in ("item", "fixed", "nothing"))
    return Delta(
        7,
        [
            TableDelta(fixed, [row(fixed, 1, 2), row(fixed, 3, 4)], [row(fixed, 5, 6)]),
            TableDelta(item, [row(item, 1, "longer"), row(item, 2, "")], [row(item, 1, "a")]),
            TableDelta(nothing, [b""], []),
        ],
    )


def read(data: bytes, offset: int = 7) -> Record:
    (record,) = split(data, offset)
    return record


def test_a_record_holds_rows_and_circumstances() -> None:
    delta = sample()
    record = read(encode(delta, CONTEXT))
    assert record.offset == 7
    assert decode_context(record) == CONTEXT
    assert decode_changes(record) == [Change(each.table.schema.id, each.deletes, each.inserts) for each in delta.tables]
    assert join(record) == encode(delta, CONTEXT)


def test_a_transaction_event_is_circumstances_too() -> None:
    event = TransactionEvent(
        caller=bytes(32), caller_connection_id=None, timestamp_us=-1, reducer_name="grüße", args=b"\x01"
    )
    assert decode_context(read(encode(sample(), event))) == Context("grüße", bytes(32), None, -1, b"\x01")


def test_the_layout_is_as_documented() -> None:
    datastore = make_database(FIXED)
    fixed = datastore.table("fixed")
    delta = Delta(3, [TableDelta(fixed, [b"\x01\x02\x00\x00\x00"], [b"\x01\x03\x00\x00\x00"])])
    data = encode(delta, Context("r", b"\xaa" * 32, b"\xbb" * 16, 5, b"xy"))
    payload = (
        struct.pack("<q32s16sBIII", 5, b"\xaa" * 32, b"\xbb" * 16, 1, 1, 2, 1)
        + b"rxy"
        + struct.pack("<IIII", fixed.schema.id, 1, 1, 5)
        + b"\x01\x03\x00\x00\x00\x01\x02\x00\x00\x00"
    )
    body = struct.pack("<Q", 3) + payload
    assert data == struct.pack("<II", len(payload), crc32(body)) + body


def test_several_records_stand_one_after_another() -> None:
    records = [Record(offset, bytes([offset]) * offset) for offset in range(5)]
    assert list(split(b"".join(map(join, records)), 0)) == records
    assert list(split(b"", 9)) == []


def test_every_flipped_bit_is_found() -> None:
    data = encode(sample(), CONTEXT)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RecordError) as caught:
            list(split(bytes(damaged), 7))
        assert caught.value.offset == 7
        assert str(caught.value).startswith("offset 7: ")


def test_every_cut_is_found() -> None:
    data = join(Record(0, b"first")) + join(Record(1, b"second"))
    first = len(join(Record(0, b"first")))
    for end in range(1, len(data)):
        if end == first:
            continue
        with pytest.raises(RecordError, match="cut") as caught:
            list(split(data[:end], 0))
        assert caught.value.offset == (0 if end < first else 1)


def test_a_record_of_another_offset_is_a_gap() -> None:
    with pytest.raises(RecordError, match="offset 3: the record is missing, one of offset 4 stands there"):
        list(split(join(Record(4, b"")), 3))


@pytest.mark.parametrize("size", range(0, 120, 5))
def test_a_payload_of_another_layout_is_refused_although_its_checksum_is_right(size: int) -> None:
    payload = read(encode(sample(), CONTEXT)).payload
    assert len(payload) > 120
    with pytest.raises(StorageError, match=r"offset 7: the payload"):
        decode_changes(Record(7, payload[:size]))
    with pytest.raises(StorageError, match=r"offset 7: the payload has"):
        decode_changes(Record(7, payload + b"x"))
