"""Row lists, the compression tag, and encodings shared by all who see the same."""

import gzip

import brotli  # type: ignore[import-untyped]  # its wheel has no stubs
import pytest

from stdb.net.protocols.dialect import ConnectionOptions
from stdb.net.protocols.rows import EMPTY_ROW_LIST, row_list
from stdb.net.protocols.wire import Compression, tagged_payload
from stdb.subscriptions.fragment import ClientUpdate, Fragment, SetUpdate
from tests.websocket_messages import Spoken, event


def offsets(*starts: int) -> bytes:
    return b"\1" + len(starts).to_bytes(4, "little") + b"".join(start.to_bytes(8, "little") for start in starts)


def sized(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


def test_rows_of_one_size_are_a_fixed_size_list() -> None:
    assert row_list([b"abc", b"def"]) == b"\0\3\0" + sized(b"abcdef")
    assert row_list([b"abc"]) == b"\0\3\0" + sized(b"abc")
    assert row_list([b"x" * 65535]) == b"\0\xff\xff" + sized(b"x" * 65535)


def test_rows_of_different_sizes_have_offsets() -> None:
    assert row_list([b"abc", b"", b"de"]) == offsets(0, 3, 3) + sized(b"abcde")
    assert row_list([b"", b"abc"]) == offsets(0, 0) + sized(b"abc")


def test_rows_of_no_bytes_and_rows_too_long_for_the_hint_have_offsets() -> None:
    assert row_list([b"", b""]) == offsets(0, 0) + sized(b"")
    assert row_list([b""]) == offsets(0) + sized(b"")
    assert row_list([b"x" * 65536] * 2) == offsets(0, 65536) + sized(b"x" * 131072)


def test_no_rows_are_offsets_too() -> None:
    assert row_list([]) == EMPTY_ROW_LIST == offsets() + sized(b"")


@pytest.mark.parametrize("size", [0, 1023, 1024])
@pytest.mark.parametrize("compression", Compression)
def test_small_bodies_are_never_compressed(size: int, compression: Compression) -> None:
    assert tagged_payload(b"x" * size, compression) == b"\0" + b"x" * size


@pytest.mark.parametrize("size", [1025, 5000])
def test_larger_bodies_are_compressed_as_asked(size: int) -> None:
    body = b"x" * size
    assert tagged_payload(body, Compression.NONE) == b"\0" + body
    packed = tagged_payload(body, Compression.BROTLI)
    assert packed[0] == 1
    assert brotli.decompress(packed[1:]) == body
    packed = tagged_payload(body, Compression.GZIP)
    assert packed[0] == 2
    assert gzip.decompress(packed[1:]) == body


def shared_update(rows: int = 3) -> ClientUpdate:
    fragment = Fragment(4096, "person", None, [b"row %d" % i for i in range(rows)], [])
    return ClientUpdate((SetUpdate(7, (fragment,)),))


@pytest.mark.parametrize("protocol", ["v1.bsatn", "v2.bsatn", "v3.bsatn"])
def test_one_update_for_many_clients_is_one_frame_object(protocol: str) -> None:
    update, told = shared_update(), event()
    spoken = [Spoken(protocol) for _ in range(3)]
    for one in spoken:
        one.sink.update(told, update)
    frames = [one.outbox._entries[0][1] for one in spoken]
    assert frames[0] is frames[1] is frames[2]
    assert spoken[0].payloads() == spoken[2].payloads()


def test_v2_and_v3_share_their_frames() -> None:
    update, told = shared_update(), event()
    v2, v3 = Spoken("v2.bsatn"), Spoken("v3.bsatn")
    v2.sink.update(told, update)
    v3.sink.update(told, update)
    assert v2.outbox._entries[0][1] is v3.outbox._entries[0][1]


@pytest.mark.parametrize("protocol", ["v1.bsatn", "v2.bsatn", "v3.bsatn"])
def test_each_client_gets_the_compression_it_asked_for(protocol: str) -> None:
    update, told = shared_update(rows=500), event()
    bodies = set()
    for compression, tag in ((Compression.NONE, 0), (Compression.BROTLI, 1), (Compression.GZIP, 2)):
        spoken = Spoken(protocol, ConnectionOptions(compression=compression))
        spoken.sink.update(told, update)
        (payload,) = spoken.payloads()
        assert payload[0] == tag
        unpack = (bytes, brotli.decompress, gzip.decompress)[tag]
        bodies.add(unpack(payload[1:]))
    assert len(bodies) == 1


@pytest.mark.parametrize("protocol", ["v1.bsatn", "v2.bsatn"])
def test_a_large_initial_answer_is_encoded_elsewhere_and_keeps_its_place(protocol: str) -> None:
    from tests.websocket_messages import MULTI, SET, Subscribe

    kind = SET if protocol == "v2.bsatn" else MULTI
    rows = [Fragment(1, "person", None, [b"%08d" % i for i in range(10_000)], [])]
    spoken = Spoken(protocol)
    spoken.sink.subscribe_applied(Subscribe(kind, 1, 2, ()), rows, 0, 0)
    spoken.sink.update(event(), shared_update())
    assert spoken.outbox._deferred == 1
    first, second = spoken.payloads()
    assert b"".join(rows[0].inserts) in first
    assert len(second) < 100
