"""Routes about what a database was: its log, forks, how long its log is kept.

Responsible for: parameters, the log as JSON lines, the documents of answers.
Not responsible for: states of the past (`stdb.actors.archive`), SQL of the past (`routes_call`).
"""

import json
from collections.abc import AsyncGenerator, Iterator
from time import perf_counter
from typing import Any

import trio

from stdb.actors.archive import Adopted
from stdb.datastore.history import ChangedTable, Entry, time_text
from stdb.datastore.table import TableSchema
from stdb.net.auth import Access
from stdb.net.errors import HttpError, json_response
from stdb.net.http import Response
from stdb.net.routing import Call, Lookup, Resource, hex_of
from stdb.sats import json as sats_json
from stdb.storage.control import NameInUseError, NameNotYoursError
from stdb.storage.retention import parse_retention

__all__ = ["RESOURCES", "adopted_response", "name_refusal"]

SLICE_SECONDS = 0.005
ROWS_A_PIECE = 100


async def log(call: Call) -> Response:
    """Answer with the transactions from one offset to another, both included, one JSON object a line."""
    database = call.database()
    start, last = call.query.number("from", 64), call.query.number("to", 64)
    with_rows = call.query.flag("rows", False)
    call.door.host.check_owner(call.caller.identity, database.identity, "read the log")
    lines = _lines(call, database.identity, start, last, with_rows)
    first = await anext(lines)
    headers = (("content-type", "application/x-ndjson"), ("cache-control", "no-cache"))
    if call.request.method == "HEAD":
        await lines.aclose()
        return Response(200, headers)
    return Response(200, headers, _behind(first, lines))


async def _lines(
    call: Call, identity: bytes, start: int | None, last: int | None, with_rows: bool
) -> AsyncGenerator[bytes, None]:
    """Yield the log in pieces; the first may be empty, and tells that there is one."""
    async with call.door.host.archive.log(identity, start, last) as entries:
        pieces: list[bytes] = []
        stop_at = perf_counter() + SLICE_SECONDS
        is_first = True
        for entry in entries:
            for piece in () if entry is None else _entry(entry, with_rows):
                pieces.append(piece)
                if perf_counter() >= stop_at:
                    break_at, is_first = b"".join(pieces), False
                    pieces.clear()
                    yield break_at
                    await trio.lowlevel.checkpoint()
                    stop_at = perf_counter() + SLICE_SECONDS
            if perf_counter() >= stop_at:
                await trio.lowlevel.checkpoint()
                stop_at = perf_counter() + SLICE_SECONDS
        if pieces or is_first:
            yield b"".join(pieces)


async def _behind(first: bytes, lines: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    try:
        if first:
            yield first
        async for piece in lines:
            if piece:
                yield piece
    finally:
        await lines.aclose()


def _entry(entry: Entry, with_rows: bool) -> Iterator[bytes]:
    """Yield the line of one transaction, in pieces."""
    context = entry.context
    connection_id = context.caller_connection_id
    head = _json(
        {
            "offset": entry.offset,
            "time": time_text(context.timestamp_us),
            "timestamp_us": context.timestamp_us,
            "reducer": context.reducer_name,
            "caller": hex_of(context.caller),
            "connection_id": None if connection_id is None else connection_id[::-1].hex(),
        }
    )
    yield head[:-1] + b',"tables":['
    for place, table in enumerate(entry.tables):
        yield b"," if place else b""
        counts = {"deletes": len(table.change.deletes), "inserts": len(table.change.inserts)}
        yield _json({"table": table.name, **counts})[:-1]
        if with_rows:
            yield from _rows(table)
        yield b"}"
    yield b"]}\n"


def _rows(table: ChangedTable) -> Iterator[bytes]:
    sides = (
        ("deleted", table.before or table.after, table.change.deletes),
        ("inserted", table.after or table.before, table.change.inserts),
    )
    for name, schema, rows in sides:
        yield f',"{name}":['.encode()
        if schema is not None:
            yield from _decoded(schema, rows)
        yield b"]"


def _decoded(schema: TableSchema, rows: list[bytes]) -> Iterator[bytes]:
    encode, decode = sats_json.encoder(schema.row_type, "typed"), schema.codec.decode_exact
    for start in range(0, len(rows), ROWS_A_PIECE):
        some = ",".join([encode(decode(row)) for row in rows[start : start + ROWS_A_PIECE]])
        yield ("," if start else "").encode() + some.encode("utf-8", "replace")


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


async def fork(call: Call) -> Response:
    """Make a database of the caller's that begins as this one is, or was at `at`."""
    database = call.database()
    name, moment = call.query.text("name"), call.query.moment("at")
    host, caller = call.door.host, call.caller.identity
    host.check_owner(caller, database.identity, "fork database")
    try:
        return adopted_response(await host.archive.fork(caller, database.identity, name, moment))
    except (NameInUseError, NameNotYoursError) as error:
        raise name_refusal(error) from error


def adopted_response(adopted: Adopted) -> Response:
    """Return the answer about a database that was made of another."""
    document = {
        "database_identity": hex_of(adopted.identity),
        "owner_identity": hex_of(adopted.owner),
        "name": adopted.name,
        "offset": adopted.offset,
    }
    return json_response(document)


def name_refusal(error: NameInUseError | NameNotYoursError) -> HttpError:
    """Return what a name that cannot be given becomes."""
    if isinstance(error, NameInUseError):
        return HttpError(409, f"the name `{error.name}` is in use: choose another, or delete that database")
    return HttpError(403, str(error))


async def retention(call: Call) -> Response:
    """Answer with how long the log is kept."""
    database = call.database()
    host = call.door.host
    host.check_owner(call.caller.identity, database.identity, "read retention")
    found = host.control.database(database.identity)
    assert found is not None
    return json_response({"retention": str(found.retention)})


async def set_retention(call: Call) -> Response:
    """Set how long the log is kept: the body is `all`, `hours=T` or `bytes=B`."""
    database = call.database()
    text = (await call.text()).strip()
    call.door.host.check_owner(call.caller.identity, database.identity, "change retention")
    try:
        wanted = parse_retention(text)
    except ValueError as error:
        raise HttpError(400, str(error)) from error
    await call.door.host.set_retention(call.caller.identity, database.identity, wanted)
    return json_response({"retention": str(wanted)})


_PATH = "/stdb/v1/database/{name_or_identity}"

RESOURCES = (
    Resource(f"{_PATH}/log", {"GET": log}, Access.REQUIRED, Lookup.BEFORE_METHOD),
    Resource(f"{_PATH}/fork", {"POST": fork}, Access.REQUIRED, Lookup.BEFORE_METHOD),
    Resource(f"{_PATH}/retention", {"GET": retention, "PUT": set_retention}, Access.REQUIRED, Lookup.BEFORE_METHOD),
)
