"""Routes that run something in a database: reducers, procedures and SQL.

Responsible for: routes 21 and 24 of spec 05 section 1.2, the result document of section 4.1.
Not responsible for: running (`stdb.actors`), connect and disconnect around it (`DatabaseHandle`), statuses of errors
(`errors`).

A result that takes longer than a slice to encode is sent as it is encoded, slice by slice, others running in between;
it is never in memory as one text.
"""

import json
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any

import trio

from stdb.actors.answers import CallResult, ProcedureOutcome, SqlResult
from stdb.actors.sink import OutcomeKind
from stdb.net.auth import Access
from stdb.net.errors import JSON, TEXT, HttpError, text_response
from stdb.net.http import Response
from stdb.net.routing import Call, Lookup, Resource
from stdb.sats import json as sats_json
from stdb.sats import meta
from stdb.sats.types import Product
from stdb.sats.typespace import without_maps

__all__ = ["RESOURCES", "SLICE_SECONDS", "reducer_response", "sliced_response", "sql_document", "written_rows"]

SLICE_SECONDS = 0.005
"""A result is encoded for so long before others run."""

_ROWS_A_PIECE = 100
"""Rows that are encoded between two looks at the time."""

_REFUSED = 530
"""The reducer said no, or broke: a status of the reference's own."""

_BUDGET = 402
"""Our limit of time stands where the reference's limit of energy does."""
_OUT_OF_TIME = (_BUDGET, "Module energy budget exhausted.")


async def call_function(call: Call) -> Response:
    """Run a reducer or procedure with the JSON arguments of the body; a procedure ends when the client leaves."""
    database = call.database()
    function = call.parameter("function")
    if call.request.headers.get("content-type") is None:
        raise HttpError(400, "Header of type `content-type` was missing")
    call.check_content_type(allow_parameters=False)
    confirmed = call.query.flag("confirmed", True)
    arguments = await call.text(says_where=False)
    handle = call.door.host.database(database.identity)
    await handle.ready()
    work = partial(handle.call, call.client(), function, arguments, confirmed=confirmed)
    if handle.definition.procedure_id(function) is None:
        result = await work()
    else:
        result = await call.connection.while_connected(work)
    return _procedure_response(result) if isinstance(result, ProcedureOutcome) else reducer_response(result)


def reducer_response(result: CallResult) -> Response:
    """Return the answer to a call of a reducer, however it ended."""
    headers = (
        TEXT,
        ("spacetime-energy-used", str(result.energy)),
        ("spacetime-execution-duration-micros", str(result.duration_us)),
    )
    if result.outcome.kind == OutcomeKind.COMMITTED:
        return Response(200, headers)
    status, text = _OUT_OF_TIME if result.outcome.kind == OutcomeKind.OUT_OF_TIME else (_REFUSED, result.outcome.text)
    return Response(status, headers, text.encode("utf-8", "replace"))


def _procedure_response(result: ProcedureOutcome) -> Response:
    kind, text, _ = result.outcome
    if kind == OutcomeKind.COMMITTED:
        headers = (JSON, ("spacetime-execution-duration-micros", str(result.duration_us)))
        return Response(200, headers, result.as_json().encode("utf-8", "replace"))
    return text_response(text, _BUDGET if kind == OutcomeKind.OUT_OF_TIME else 500)


async def run_sql(call: Call) -> Response:
    """Run one SQL statement; one that only reads is given up when the client leaves.

    With `at`, an offset or a time, the owner reads the tables as they were then.
    """
    database = call.database()
    confirmed = call.query.flag("confirmed", True)
    moment = call.query.moment("at")
    text = await call.text()
    host, caller = call.door.host, call.caller.identity
    host.check_sql(caller, database.identity)
    if moment is None:
        work = partial(host.database(database.identity).sql, call.client(), text, confirmed=confirmed)
    else:
        host.check_owner(caller, database.identity, "query the past")
        work = partial(host.archive.sql, database.identity, text, moment)
    result = await call.connection.while_connected(work)
    headers = (JSON, ("spacetime-execution-duration-micros", str(result.duration_us)))
    return sliced_response(headers, sql_document(result))


def sliced_response(headers: tuple[tuple[str, str], ...], document: Iterator[bytes]) -> Response:
    """Return the answer that holds a document given in pieces, which is sent slice by slice where it is long."""
    first, is_whole = _slice(document)
    return Response(200, headers, first if is_whole else _rest(first, document))


def sql_document(result: SqlResult) -> Iterator[bytes]:
    """Yield the JSON of one statement's result, in pieces: its schema, its rows by position, what it changed.

    Rows are taken out of the result as they are encoded: to let go of very many at once would take long, too.
    """
    row_type = without_maps(result.row_type)
    assert isinstance(row_type, Product)
    elements = [
        {
            "name": {"none": []} if element.name is None else {"some": element.name},
            "algebraic_type": meta.type_to_json(element.type),
        }
        for element in row_type.elements
    ]
    schema = json.dumps({"elements": elements}, separators=(",", ":"), ensure_ascii=False)
    yield f'[{{"schema":{schema},"rows":['.encode("utf-8", "replace")
    yield from written_rows(result, sats_json.encoder(row_type, "positional"))
    stats = f'"rows_inserted":{result.inserted},"rows_deleted":{result.deleted},"rows_updated":{result.updated}'
    yield f'],"total_duration_micros":{result.duration_us},"stats":{{{stats}}}}}]'.encode()


def written_rows(result: SqlResult, write: Callable[[Any], str]) -> Iterator[bytes]:
    """Yield the rows of a result as members of a JSON list, some at a time; they are taken out of it."""
    rows = result.rows
    rows.reverse()
    separator = ""
    while rows:
        piece = rows[-_ROWS_A_PIECE:]
        del rows[-_ROWS_A_PIECE:]
        yield (separator + ",".join([write(row) for row in reversed(piece)])).encode("utf-8", "replace")
        separator = ","


def _slice(document: Iterator[bytes]) -> tuple[bytes, bool]:
    """Return what is encoded within SLICE_SECONDS, and whether that is the end."""
    stop_at = perf_counter() + SLICE_SECONDS
    pieces = []
    for piece in document:
        pieces.append(piece)
        if perf_counter() >= stop_at:
            return b"".join(pieces), False
    return b"".join(pieces), True


async def _rest(first: bytes, document: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield the slices of a document whose first one is there."""
    piece, is_whole = first, False
    while not is_whole:
        yield piece
        await trio.lowlevel.checkpoint()
        piece, is_whole = _slice(document)
    yield piece


RESOURCES = (
    Resource(
        "/v1/database/{name_or_identity}/call/{function}",
        {"POST": call_function},
        Access.ANONYMOUS,
        Lookup.BEFORE_METHOD,
    ),
    Resource("/v1/database/{name_or_identity}/sql", {"POST": run_sql}, Access.ANONYMOUS, Lookup.BEFORE_METHOD),
)
