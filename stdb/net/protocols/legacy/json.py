"""v1.text of 0.11: the same messages as `bsatn`, as SATS-JSON.

Responsible for: writing ServerMessage of 0.11 as JSON (spec 03 section 6).
Not responsible for: who is told what (`events`), requests (`requests`).

A row is a JSON text inside the JSON: an object by column where an initial answer reads it from its table, else an
array.
Table updates are cached under "0.11 text" in the fragments they come from.
"""

import json as standard_json
from collections.abc import Callable, Iterable, Iterator, Sequence

from stdb.actors.requests import Request
from stdb.net.frames import joined_frame, text_frame
from stdb.net.protocols.legacy.events import Legacy, TableRows, ToldCall
from stdb.net.protocols.legacy.requests import decode_0_11
from stdb.net.protocols.legacy.translation import identity_hex

__all__ = ["Text011"]

_quote = standard_json.JSONEncoder(ensure_ascii=False).encode


class Text011(Legacy):
    """One client of 0.11 that speaks JSON: its command line."""

    __slots__ = ()
    NAME = "0.11 v1.text"
    FORM = "0.11 text"

    def receive(self, message: bytes | str, requests: list[Request]) -> None:
        """Append the one request of `message`, text or binary."""
        requests.append(decode_0_11(message))

    def _identity_token(self, identity: bytes, connection_id: bytes, token: str) -> bytes:
        return text_frame(
            f'{{"IdentityToken":{{"identity":{_identity(identity)},"token":{_quote(token)},'
            f'"address":{_address(connection_id)}}}}}'
        )

    def _committed(self, told: ToldCall, tables: Sequence[TableRows]) -> bytes:
        encoded = b",".join(table.cached(self.FORM, _table_update) for table in tables).decode()
        return self._transaction_update(told, f'{{"Committed":{{"tables":[{encoded}]}}}}')

    def _failed(self, told: ToldCall, text: str) -> bytes:
        return self._transaction_update(told, f'{{"Failed":{_quote(text)}}}')

    def _out_of_energy(self, told: ToldCall) -> bytes:
        return self._transaction_update(told, '{"OutOfEnergy":[]}')

    def _transaction_update(self, told: ToldCall, status: str) -> bytes:
        return text_frame(
            f'{{"TransactionUpdate":{{"status":{status},"timestamp":{{"microseconds":{told.timestamp_us}}},'
            f'"caller_identity":{_identity(told.caller)},"caller_address":{_address(told.address)},'
            f'"reducer_call":{{"reducer_name":{_quote(told.reducer)},"reducer_id":{told.reducer_id},'
            f'"args":{{"Text":{_quote(told.text())}}},"request_id":{told.request_id}}},'
            f'"energy_quanta_used":{{"quanta":{told.energy}}},"host_execution_duration_micros":{told.duration_us}}}}}'
        )

    def _subscribed(self, request_id: int, tables: Sequence[TableRows], duration_us: int) -> Iterator[bytes]:
        yield b'{"InitialSubscription":{"database_update":{"tables":['
        for i, table in enumerate(tables):
            head = (
                f'{"," if i else ""}{{"table_id":{table.id},"table_name":{_quote(table.name)},"deletes":[],"inserts":'
            )
            yield head.encode()
            write = table.forms.positional if table.is_listed else table.forms.named
            yield from _row_pieces(table, table.inserts, write)
            yield b"}"
        yield f']}},"request_id":{request_id},"total_host_execution_duration_micros":{duration_us}}}}}'.encode()

    def _one_off(
        self, message_id: bytes, error: str | None, tables: Iterable[TableRows], duration_us: int
    ) -> Iterator[bytes]:
        failure = '{"none":[]}' if error is None else f'{{"some":{_quote(error)}}}'
        yield f'{{"OneOffQueryResponse":{{"message_id":"{message_id.hex()}","error":{failure},"tables":['.encode()
        for i, table in enumerate(tables):
            yield f'{"," if i else ""}{{"table_name":{_quote(table.name)},"rows":'.encode()
            yield from _row_pieces(table, table.inserts, table.forms.positional)
            yield b"}"
        yield f'],"total_host_execution_duration_micros":{duration_us}}}}}'.encode()

    def _frame(self, body: bytes) -> bytes:
        return joined_frame((body,), is_text=True)

    def _large_frame(self, body: Iterable[bytes]) -> bytes:
        return joined_frame(body, is_text=True)


def _identity(identity: bytes) -> str:
    return f'{{"__identity_bytes":"{identity_hex(identity)}"}}'


def _address(address: bytes) -> str:
    return f'{{"__address_bytes":"{identity_hex(address)}"}}'


def _table_update(table: TableRows) -> bytes:
    head = f'{{"table_id":{table.id},"table_name":{_quote(table.name)},"deletes":'.encode()
    write = table.forms.positional
    deletes, inserts = _row_pieces(table, table.deletes, write), _row_pieces(table, table.inserts, write)
    return b"".join((head, *deletes, b',"inserts":', *inserts, b"}"))


def _row_pieces(table: TableRows, rows: Sequence[bytes], write: Callable[[bytes], str]) -> Iterator[bytes]:
    """Yield an array of rows, each a JSON text."""
    separator = "["
    for piece in table.pieces(rows):
        yield (separator + ",".join([f'{{"Text":{_quote(write(row))}}}' for row in piece])).encode()
        separator = ","
    yield b"]" if rows else b"[]"
