"""Large initial answers: encoded in pieces in another thread, to the bytes of small ones, and let go of in pieces."""

import zlib
from collections.abc import Callable
from itertools import accumulate
from struct import pack
from types import SimpleNamespace
from typing import Any

import brotli  # type: ignore[import-untyped]  # its wheel has no stubs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.actors.requests import OneOffQuery, Subscribe, SubscribeBatch, SubscriptionKind, Unsubscribe
from stdb.net.handshake import ConnectionOptions
from stdb.net.protocols import dialect, rows
from stdb.net.protocols.wire import Compression
from stdb.sats import bsatn
from stdb.sats.types import STRING, U32, Element, Product
from stdb.subscriptions.fragment import Fragment
from tests.websocket_messages import Spoken

NAMES = ("v1.bsatn", "v1.json", "v2.bsatn", "v3.bsatn")
ROW = Product((Element("id", U32), Element("text", STRING)))
COLUMNS = SimpleNamespace(codec=bsatn.codec(ROW), row_type=ROW)
TEXTS = st.lists(st.tuples(st.integers(0, 9), st.text(max_size=3)), max_size=9)


def fragment(values: list[tuple[int, str]], *, as_deletes: bool = False) -> Fragment:
    found = [COLUMNS.codec.encode(value) for value in values]
    return Fragment(7, "item", COLUMNS, *([], found) if as_deletes else (found, []))


def ask(name: str, spoken: Spoken, tables: list[list[tuple[int, str]]]) -> None:
    """Have every message with rows that this protocol knows queued."""
    sink, is_v1 = spoken.sink, name.startswith("v1")
    kinds = (SubscriptionKind.LEGACY, SubscriptionKind.MULTI) if is_v1 else (SubscriptionKind.SET,)
    for kind in kinds:
        sink.subscribe_applied(Subscribe(kind, 1, 2, ()), [fragment(values) for values in tables], 0, 3)
    kind = kinds[-1]
    dropped = [fragment(values, as_deletes=True) for values in tables]
    sink.unsubscribe_applied(Unsubscribe(kind, 1, 2), dropped, 0, 3)
    if is_v1:
        single = Subscribe(SubscriptionKind.SINGLE, 1, 2, ())
        sink.subscribe_applied(single, [fragment(tables[0])], 0, 3)
        sink.unsubscribe_applied(
            Unsubscribe(SubscriptionKind.SINGLE, 1, 2), [fragment(tables[0], as_deletes=True)], 0, 3
        )
        sink.one_off_result(OneOffQuery(b"\1", ""), fragment(tables[0]), 0, 3)
    else:
        results = [(i, [fragment(values)]) for i, values in enumerate(tables)]
        sink.subscribe_batch_applied(SubscribeBatch(1, ()), [*results, (9, "no")], 0)
        sink.one_off_result(OneOffQuery(1, ""), fragment(tables[0]), 0, 3)


def said(name: str, tables: list[list[tuple[int, str]]], compression: Compression = Compression.NONE) -> list[Any]:
    spoken = Spoken(name, ConnectionOptions(compression=compression))
    ask(name, spoken, tables)
    return spoken.frames()


@pytest.mark.parametrize("name", NAMES)
@given(tables=st.lists(TEXTS, min_size=1, max_size=3), piece=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_a_large_answer_has_the_bytes_of_a_small_one(name: str, tables: list[list[Any]], piece: int) -> None:
    small = said(name, tables)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dialect, "_ROWS_AT_ONCE_MAX", -1)
        patch.setattr(rows, "ROWS_A_PIECE", piece)
        assert said(name, tables) == small


UNPACK: dict[Compression, tuple[bytes, Callable[[bytes], bytes]]] = {
    Compression.BROTLI: (b"\1", brotli.decompress),
    Compression.GZIP: (b"\2", lambda data: zlib.decompress(data, 31)),
}


@pytest.mark.parametrize("compression", UNPACK)
def test_a_large_answer_is_compressed_piece_by_piece(compression: Compression, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [[(i % 10, "x" * (i % 7)) for i in range(3_000)]]
    plain = [payload for _, payload in said("v2.bsatn", tables)]
    monkeypatch.setattr(dialect, "_ROWS_AT_ONCE_MAX", -1)
    monkeypatch.setattr(rows, "ROWS_A_PIECE", 100)
    tag, unpack = UNPACK[compression]
    packed = [payload for _, payload in said("v2.bsatn", tables, compression)]
    assert [payload[:1] for payload in packed] == [tag] * len(plain)
    assert [b"\0" + unpack(payload[1:]) for payload in packed] == plain
    assert sum(map(len, packed)) < sum(map(len, plain)) / 2


def test_rows_are_let_go_of_once_they_are_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialect, "_ROWS_AT_ONCE_MAX", -1)
    spoken = Spoken("v2.bsatn")
    answer = fragment([(1, "a"), (2, "b")])
    spoken.sink.subscribe_applied(Subscribe(SubscriptionKind.SET, 1, 2, ()), [answer], 0, 3)
    assert len(answer.inserts) == 2
    spoken.frames()
    assert answer.inserts == []


@given(
    found=st.lists(st.binary(max_size=3), max_size=12) | st.lists(st.binary(min_size=2, max_size=2), max_size=12),
    piece=st.integers(1, 5),
)
@settings(max_examples=100, deadline=None)
def test_a_row_list_in_pieces_is_the_row_list(found: list[bytes], piece: int) -> None:
    whole = rows.row_list(found)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "ROWS_A_PIECE", piece)
        assert b"".join(rows.row_list_pieces(found)) == whole
        assert rows.row_list(found) == whole


def test_no_piece_of_a_long_row_list_is_made_of_more_rows_than_allowed() -> None:
    count = 3 * rows.ROWS_A_PIECE + 1
    found = [bytes(8 + i % 2) for i in range(count)]
    pieces = list(rows.row_list_pieces(found))
    assert len(pieces) == 2 + 4 + 4
    assert max(map(len, pieces)) <= 9 * rows.ROWS_A_PIECE
    starts = list(accumulate(map(len, found[:-1]), initial=0))
    assert b"".join(pieces[:5]) == pack(f"<BI{count}Q", 1, count, *starts)
