"""v1.text of 0.7 to 0.10: one JSON for all of them, which the Python SDK 0.7 speaks.

Responsible for: writing those servers' messages as JSON (spec 03 section 3).
Not responsible for: who is told what (`events`), requests (`requests`), pauses behind large
messages (`stdb.net.paced_outbox`).

It is the superset: `row_pk` as 0.8 has it beside the request ids and durations of 0.10. Every client of that time
ignores members that it does not know. Table updates are cached under "0.8 text" in the fragments they come from.
"""

import base64
import json as standard_json
from collections.abc import Callable, Iterable, Iterator, Sequence

from stdb.actors.requests import Request
from stdb.net.frames import joined_frame, text_frame
from stdb.net.protocols.legacy.events import Legacy, TableRows, ToldCall
from stdb.net.protocols.legacy.protobuf import row_key
from stdb.net.protocols.legacy.requests import decode_old
from stdb.net.protocols.legacy.translation import identity_hex

__all__ = ["Text08"]

_quote = standard_json.JSONEncoder(ensure_ascii=False).encode


class Text08(Legacy):
    """One client of 0.7 to 0.10 that speaks JSON."""

    __slots__ = ()
    NAME = "0.8 v1.text"
    FORM = "0.8 text"
    MANNERS = Legacy.MANNERS._replace(is_paced=True, pings_before_close=3)

    def receive(self, message: bytes | str, requests: list[Request]) -> None:
        """Append the one request of `message`, text or binary."""
        requests.append(decode_old(message))

    def _identity_token(self, identity: bytes, connection_id: bytes, token: str) -> bytes:
        return text_frame(
            f'{{"IdentityToken":{{"identity":"{identity_hex(identity)}","token":{_quote(token)},'
            f'"address":"{identity_hex(connection_id)}"}}}}'
        )

    def _committed(self, told: ToldCall, tables: Sequence[TableRows]) -> bytes:
        encoded = b",".join(table.cached(self.FORM, _table_update) for table in tables).decode()
        return self._transaction_update(told, "committed", "", encoded)

    def _failed(self, told: ToldCall, text: str) -> bytes:
        return self._transaction_update(told, "failed", text, "")

    def _out_of_energy(self, told: ToldCall) -> bytes:
        return self._transaction_update(told, "out_of_energy", "", "")

    def _transaction_update(self, told: ToldCall, status: str, message: str, tables: str) -> bytes:
        return text_frame(
            f'{{"TransactionUpdate":{{"event":{{"timestamp":{told.timestamp_us},"status":"{status}",'
            f'"caller_identity":"{identity_hex(told.caller)}","function_call":{{"reducer":{_quote(told.reducer)},'
            f'"args":{_quote(told.array())},"request_id":{told.request_id}}},"energy_quanta_used":{told.energy},'
            f'"message":{_quote(message)},"caller_address":"{identity_hex(told.address)}"}},'
            f'"subscription_update":{{"table_updates":[{tables}],"request_id":{told.request_id},'
            f'"total_host_execution_duration_micros":{told.duration_us}}}}}}}'
        )

    def _subscribed(self, request_id: int, tables: Sequence[TableRows], duration_us: int) -> Iterator[bytes]:
        yield b'{"SubscriptionUpdate":{"table_updates":['
        for i, table in enumerate(tables):
            if i:
                yield b","
            yield from _table_pieces(table)
        yield f'],"request_id":{request_id},"total_host_execution_duration_micros":{duration_us}}}}}'.encode()

    def _one_off(
        self, message_id: bytes, error: str | None, tables: Iterable[TableRows], duration_us: int
    ) -> Iterator[bytes]:
        shown = base64.b64encode(message_id).decode()
        failure = "null" if error is None else _quote(error)
        yield f'{{"OneOffQueryResponse":{{"message_id_base64":"{shown}","error":{failure},"result":['.encode()
        for i, table in enumerate(tables):
            yield f'{"," if i else ""}{{"table_name":{_quote(table.name)},"rows":['.encode()
            write = table.forms.positional
            for place, piece in enumerate(table.pieces(table.inserts)):
                yield (("," if place else "") + ",".join(map(write, piece))).encode()
            yield b"]}"
        yield f'],"total_host_execution_duration_micros":{duration_us}}}}}'.encode()

    def _frame(self, body: bytes) -> bytes:
        return joined_frame((body,), is_text=True)

    def _large_frame(self, body: Iterable[bytes]) -> bytes:
        return joined_frame(body, is_text=True)


def _table_update(table: TableRows) -> bytes:
    return b"".join(_table_pieces(table))


def _table_pieces(table: TableRows) -> Iterator[bytes]:
    """Yield the update of one table: deletes first, since the Python SDK applies them in order."""
    yield f'{{"table_id":{table.id},"table_name":{_quote(table.name)},"table_row_operations":['.encode()
    write, separator = table.forms.positional, ""
    for operation, rows in (("delete", table.deletes), ("insert", table.inserts)):
        for piece in table.pieces(rows):
            yield (separator + ",".join([_operation(write, operation, row) for row in piece])).encode()
            separator = ","
    yield b"]}"


def _operation(write: Callable[[bytes], str], operation: str, row: bytes) -> str:
    key = base64.b64encode(row_key(row)).decode()
    return f'{{"op":"{operation}","row_pk":"{key}","row":{write(row)}}}'
