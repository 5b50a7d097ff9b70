"""v1.bin of 0.7 to 0.10: protobuf messages, as they are (to 0.8) or each in a brotli stream (from 0.9).

Responsible for: encoding Message of both versions, the keys of rows (spec 03 sections 3.6 and 4).
Not responsible for: who is told what (`events`), requests (`requests`), the wire format (`wire`), streams (`brotli`).

Table updates are cached under "0.8 bin" and "0.10 bin" in the fragments they come from.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar

from stdb.actors.requests import Request
from stdb.net.frames import binary_frame, joined_frame
from stdb.net.protocols.legacy.brotli import pack, pack_pieces
from stdb.net.protocols.legacy.events import Legacy, TableRows, ToldCall
from stdb.net.protocols.legacy.requests import decode_old
from stdb.net.protocols.legacy.wire import field, length_prefix, nested, number
from stdb.sats.hashes import keccak256

__all__ = ["Bin010", "Bin08", "row_key"]

_SUBSCRIPTION_UPDATE, _TRANSACTION_UPDATE, _IDENTITY_TOKEN, _ONE_OFF_RESPONSE = 2, 4, 5, 8
_COMMITTED, _FAILED, _OUT_OF_ENERGY = range(3)
_DELETE, _INSERT = b"", b"\x08\x01"
_KEY_IS_ROW_BYTES_MAX = 31


def row_key(row: bytes) -> bytes:
    """Return the key by which clients of 0.8 keep a row (its `row_pk`): of a short one itself, else its hash."""
    size = len(row)
    return bytes((size,)) + row if size <= _KEY_IS_ROW_BYTES_MAX else b"\x80" + keccak256(row)


class _Protobuf(Legacy):
    """What both versions write."""

    __slots__ = ()
    HAS_IDS: ClassVar[bool]
    """Requests have ids, which answers repeat, and answers have durations; else rows have keys."""

    def receive(self, message: bytes | str, requests: list[Request]) -> None:
        """Append the one request of `message`, text or binary."""
        requests.append(decode_old(message))

    def _identity_token(self, identity: bytes, connection_id: bytes, token: str) -> bytes:
        body = field(1, identity[::-1]) + field(2, token.encode()) + field(3, connection_id[::-1])
        return self._frame(nested(_IDENTITY_TOKEN, body))

    def _committed(self, told: ToldCall, tables: Sequence[TableRows]) -> bytes:
        encode = self._table_update
        return self._transaction_update(
            told, _COMMITTED, "", b"".join(each.cached(self.FORM, encode) for each in tables)
        )

    def _failed(self, told: ToldCall, text: str) -> bytes:
        return self._transaction_update(told, _FAILED, text, b"")

    def _out_of_energy(self, told: ToldCall) -> bytes:
        return self._transaction_update(told, _OUT_OF_ENERGY, "", b"")

    def _transaction_update(self, told: ToldCall, status: int, message: str, tables: bytes) -> bytes:
        call = field(1, told.reducer.encode()) + field(2, told.data()) + self._id(3, told.request_id)
        event = b"".join(
            (
                number(1, told.timestamp_us),
                nested(2, told.caller[::-1]),
                nested(3, call),
                number(4, status),
                field(5, message.encode()),
                number(6, told.energy),
                number(7, told.duration_us),
                nested(8, told.address[::-1]),
            )
        )
        update = tables + self._id(2, told.request_id) + self._id(3, told.duration_us if told.request_id else 0)
        return self._frame(nested(_TRANSACTION_UPDATE, nested(1, event) + nested(2, update)))

    def _subscribed(self, request_id: int, tables: Sequence[TableRows], duration_us: int) -> Iterator[bytes]:
        tail = self._id(2, request_id) + self._id(3, duration_us)
        updates = [list(self._table_pieces(table)) for table in tables]
        size = sum(len(piece) for pieces in updates for piece in pieces) + len(tail)
        yield length_prefix(_SUBSCRIPTION_UPDATE, size)
        for pieces in updates:
            yield from pieces
        yield tail

    def _one_off(
        self, message_id: bytes, error: str | None, tables: Iterable[TableRows], duration_us: int
    ) -> Iterator[bytes]:
        parts = [field(1, message_id), field(2, (error or "").encode())]
        for table in tables:
            rows = [field(2, table.name.encode()), *_pieces(table, table.inserts, lambda row: nested(4, row))]
            parts += [length_prefix(3, sum(map(len, rows))), *rows]
        parts.append(self._id(4, duration_us))
        yield length_prefix(_ONE_OFF_RESPONSE, sum(map(len, parts)))
        yield from parts

    def _id(self, tag: int, value: int) -> bytes:
        """Return a field that only 0.9 and later have."""
        return number(tag, value) if self.HAS_IDS else b""

    def _table_update(self, table: TableRows) -> bytes:
        return b"".join(self._table_pieces(table))

    def _table_pieces(self, table: TableRows) -> Iterator[bytes]:
        """Yield the update of one table as a field of an update; deletes first."""
        head = number(1, table.id) + field(2, table.name.encode())
        deletes = list(_pieces(table, table.deletes, lambda row: self._operation(_DELETE, row)))
        inserts = list(_pieces(table, table.inserts, lambda row: self._operation(_INSERT, row)))
        yield length_prefix(1, len(head) + sum(map(len, deletes)) + sum(map(len, inserts))) + head
        yield from deletes
        yield from inserts

    def _operation(self, operation: bytes, row: bytes) -> bytes:
        key = b"" if self.HAS_IDS else field(2, row_key(row))
        return nested(3, operation + key + field(3, row))


class Bin08(_Protobuf):
    """One client of 0.7 or 0.8 that speaks protobuf."""

    __slots__ = ()
    NAME = "0.8 v1.bin"
    FORM = "0.8 bin"
    HAS_IDS = False

    def _frame(self, body: bytes) -> bytes:
        return binary_frame(body)

    def _large_frame(self, body: Iterable[bytes]) -> bytes:
        return joined_frame(body)


class Bin010(_Protobuf):
    """One client of 0.9 or 0.10 that speaks protobuf."""

    __slots__ = ()
    NAME = "0.10 v1.bin"
    FORM = "0.10 bin"
    HAS_IDS = True

    def _frame(self, body: bytes) -> bytes:
        return binary_frame(pack(body))

    def _large_frame(self, body: Iterable[bytes]) -> bytes:
        return joined_frame(pack_pieces(body))


def _pieces(table: TableRows, rows: Sequence[bytes], encode: Callable[[bytes], bytes]) -> Iterator[bytes]:
    for piece in table.pieces(rows):
        yield b"".join(map(encode, piece))
