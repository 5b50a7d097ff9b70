"""Routes for the rows of one table as text: export and import.

Responsible for: parameters, streams of rows out and in, what is told of an import that stops half-way.
Not responsible for: the forms (`row_text`), transactions (`stdb.actors.transfer`).
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import perf_counter

import trio

from stdb.actors.handle import DatabaseHandle
from stdb.actors.refusals import RowRefused
from stdb.actors.transfer import TableRows
from stdb.datastore.table import TableSchema
from stdb.errors import RequestError
from stdb.net.auth import Access
from stdb.net.errors import HttpError, json_response, status_of
from stdb.net.http import Response
from stdb.net.query import QueryStringError
from stdb.net.routing import Call, Lookup, Resource
from stdb.net.row_text import FORMATS, RowReader, RowWriter, TextRow

__all__ = ["RESOURCES"]

SLICE_SECONDS = 0.005
ROWS_A_PIECE = 200
ROWS_A_TRANSACTION = 1000
"""Of an import, unless `rows` says otherwise, up to"""
ROWS_A_TRANSACTION_MAX = 100_000
BYTES_A_TRANSACTION = 64 * 1024 * 1024
"""A transaction of an import ends earlier with so many bytes of rows."""


async def export_table(call: Call) -> Response:
    """Answer with all rows of a table as they are at one moment."""
    database, format_ = call.database(), _format(call)
    host = call.door.host
    host.check_owner(call.caller.identity, database.identity, "export tables")
    handle = host.database(database.identity)
    rows = await handle.take_rows(call.parameter("table"))
    headers = (("content-type", FORMATS[format_]), ("stdb-rows", str(rows.row_count)))
    return Response(200, headers, b"" if call.request.method == "HEAD" else _lines(rows, format_))


async def import_table(call: Call) -> Response:
    """Insert the rows of the body, so many a transaction; the first line that is wrong ends it."""
    database, format_ = call.database(), _format(call)
    size = call.query.number("rows") or ROWS_A_TRANSACTION
    if size > ROWS_A_TRANSACTION_MAX:
        raise QueryStringError(f"`rows` is {size}, a transaction takes {ROWS_A_TRANSACTION_MAX} at most")
    host, caller = call.door.host, call.caller.identity
    host.check_owner(caller, database.identity, "import rows")
    handle = host.database(database.identity)
    schema = await handle.table(call.parameter("table"))
    importing = _Import(handle, caller, schema, size)
    try:
        async with aclosing(_rows(call, RowReader(schema, format_))) as rows:
            async for row in rows:
                await importing.take(row)
        await importing.put()
    except HttpError:
        raise
    except RequestError as error:
        raise HttpError(status_of(error) or 400, f"{error}. {importing.progress()}") from error
    return json_response(
        {
            "rows_read": importing.read,
            "rows_inserted": importing.inserted,
            "transactions": importing.transactions,
        }
    )


class _Import:
    """Rows on their way into a table, up to `size` a transaction, and how many have arrived."""

    def __init__(self, handle: DatabaseHandle, caller: bytes, schema: TableSchema, size: int) -> None:
        self._handle = handle
        self._caller = caller
        self._schema = schema
        self._size = size
        self._waiting: list[TextRow] = []
        self._waiting_bytes = 0
        self.read = 0
        self.inserted = 0
        self.transactions = 0

    async def take(self, row: TextRow) -> None:
        self._waiting.append(row)
        self._waiting_bytes += len(row.row)
        if len(self._waiting) >= self._size or self._waiting_bytes >= BYTES_A_TRANSACTION:
            await self.put()

    async def put(self) -> None:
        """Insert what waits in one transaction. Raises RequestError, which names the line."""
        waiting = self._waiting
        if not waiting:
            return
        try:
            self.inserted += await self._handle.put_rows(self._caller, self._schema, [each.row for each in waiting])
        except RowRefused as error:
            raise RequestError(f"line {waiting[error.place].line}: {error}") from error
        self.read += len(waiting)
        self.transactions += 1
        self._waiting_bytes = 0
        waiting.clear()

    def progress(self) -> str:
        """Return what is told of an import that stops half-way."""
        last = f", the last transaction ended before line {self._waiting[0].line}" if self._waiting else ""
        return f"{self.read} rows before it were imported{last}"


async def _rows(call: Call, reader: RowReader) -> AsyncGenerator[TextRow, None]:
    stop_at = perf_counter() + SLICE_SECONDS
    async with aclosing(call.connection.body_pieces()) as pieces:
        async for piece in pieces:
            for row in reader.feed(piece):
                yield row
                if perf_counter() >= stop_at:
                    await trio.lowlevel.checkpoint()
                    stop_at = perf_counter() + SLICE_SECONDS
    for row in reader.end():
        yield row


async def _lines(rows: TableRows, format_: str) -> AsyncGenerator[bytes, None]:
    """Yield the text of rows, slice by slice; they are let go of as they are written."""
    writer = RowWriter(rows.schema, format_)
    pieces = [writer.head()]
    stop_at = perf_counter() + SLICE_SECONDS
    parts = rows.parts
    parts.reverse()
    while parts:
        part = parts.pop()
        for start in range(0, len(part), ROWS_A_PIECE):
            pieces.append(writer.lines(part[start : start + ROWS_A_PIECE]))
            if perf_counter() >= stop_at:
                yield b"".join(pieces)
                pieces.clear()
                await trio.lowlevel.checkpoint()
                stop_at = perf_counter() + SLICE_SECONDS
    if last := b"".join(pieces):
        yield last


def _format(call: Call) -> str:
    return call.query.choice("format", tuple(FORMATS)) or "jsonl"


_PATH = "/stdb/v1/database/{name_or_identity}"

RESOURCES = (
    Resource(f"{_PATH}/export/{{table}}", {"GET": export_table}, Access.REQUIRED, Lookup.BEFORE_METHOD),
    Resource(f"{_PATH}/import/{{table}}", {"POST": import_table}, Access.REQUIRED, Lookup.BEFORE_METHOD),
)
