"""v1.bin of 0.11: BSATN messages, every one of the server's in a brotli stream.

Responsible for: encoding ServerMessage of 0.11 in BSATN (spec 03 section 6).
Not responsible for: who is told what (`events`), requests (`requests`), streams (`brotli`).

Table updates are cached under "0.11 bin" in the fragments they come from.
"""

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct

from stdb.actors.requests import Request
from stdb.net.frames import binary_frame, joined_frame
from stdb.net.protocols.legacy.brotli import pack, pack_pieces
from stdb.net.protocols.legacy.events import Legacy, TableRows, ToldCall
from stdb.net.protocols.legacy.requests import decode_0_11
from stdb.net.protocols.wire import write_bytes, write_string

__all__ = ["Bin011"]

_INITIAL_SUBSCRIPTION, _TRANSACTION_UPDATE, _IDENTITY_TOKEN, _ONE_OFF_RESPONSE = (bytes((tag,)) for tag in range(4))
_COMMITTED, _FAILED, _OUT_OF_ENERGY = b"\0", b"\1", b"\2"
_BINARY = b"\0"
_SOME, _NONE = b"\0", b"\1"

_u32 = Struct("<I").pack
_u64 = Struct("<Q").pack
_row_head = Struct("<BI").pack  # tag Binary, size
_id_and_duration = Struct("<IQ").pack
_tail = Struct("<IQQQ").pack  # request id, energy (low, high), duration


class Bin011(Legacy):
    """One client of 0.11 that speaks BSATN: Unity, TypeScript, Rust."""

    __slots__ = ()
    NAME = "0.11 v1.bin"
    FORM = "0.11 bin"

    def receive(self, message: bytes | str, requests: list[Request]) -> None:
        """Append the one request of `message`, text or binary."""
        requests.append(decode_0_11(message))

    def _identity_token(self, identity: bytes, connection_id: bytes, token: str) -> bytes:
        return self._frame(
            _IDENTITY_TOKEN + write_bytes(identity[::-1]) + write_string(token) + write_bytes(connection_id[::-1])
        )

    def _committed(self, told: ToldCall, tables: Sequence[TableRows]) -> bytes:
        encoded = b"".join(table.cached(self.FORM, _table_update) for table in tables)
        return self._transaction_update(told, _COMMITTED + _u32(len(tables)) + encoded)

    def _failed(self, told: ToldCall, text: str) -> bytes:
        return self._transaction_update(told, _FAILED + write_string(text))

    def _out_of_energy(self, told: ToldCall) -> bytes:
        return self._transaction_update(told, _OUT_OF_ENERGY)

    def _transaction_update(self, told: ToldCall, status: bytes) -> bytes:
        energy = told.energy
        parts = (
            _TRANSACTION_UPDATE,
            status,
            _u64(told.timestamp_us),
            write_bytes(told.caller[::-1]),
            write_bytes(told.address[::-1]),
            write_string(told.reducer),
            _u32(told.reducer_id),
            _BINARY,
            write_bytes(told.data()),
            _tail(told.request_id, energy & 0xFFFFFFFFFFFFFFFF, energy >> 64, told.duration_us),
        )
        return self._frame(b"".join(parts))

    def _subscribed(self, request_id: int, tables: Sequence[TableRows], duration_us: int) -> Iterator[bytes]:
        yield _INITIAL_SUBSCRIPTION + _u32(len(tables))
        for table in tables:
            yield _u32(table.id) + write_string(table.name) + _u32(0)
            yield from _row_pieces(table, table.inserts)
        yield _id_and_duration(request_id, duration_us)

    def _one_off(
        self, message_id: bytes, error: str | None, tables: Iterable[TableRows], duration_us: int
    ) -> Iterator[bytes]:
        listed = list(tables)
        failure = _NONE if error is None else _SOME + write_string(error)
        yield _ONE_OFF_RESPONSE + write_bytes(message_id) + failure + _u32(len(listed))
        for table in listed:
            yield write_string(table.name)
            yield from _row_pieces(table, table.inserts)
        yield _u64(duration_us)

    def _frame(self, body: bytes) -> bytes:
        return binary_frame(pack(body))

    def _large_frame(self, body: Iterable[bytes]) -> bytes:
        return joined_frame(pack_pieces(body))


def _table_update(table: TableRows) -> bytes:
    head = _u32(table.id) + write_string(table.name)
    return b"".join((head, *_row_pieces(table, table.deletes), *_row_pieces(table, table.inserts)))


def _row_pieces(table: TableRows, rows: Sequence[bytes]) -> Iterator[bytes]:
    """Yield an array of rows, each with its tag and its size."""
    yield _u32(len(rows))
    for piece in table.pieces(rows):
        yield b"".join([part for row in piece for part in (_row_head(0, len(row)), row)])
