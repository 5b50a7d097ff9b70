"""Routes that run something in a database: reducers and SQL.

Responsible for: routes 21 and 24 of spec 05 section 1.2, the result document of section 4.1.
Not responsible for: running (`stdb.actors`), connect and disconnect around it (`DatabaseHandle`), statuses of errors
(`errors`).
"""

import json

from stdb.actors.answers import SqlResult
from stdb.actors.sink import OutcomeKind
from stdb.net.auth import Access
from stdb.net.errors import JSON, TEXT, HttpError
from stdb.net.http import Response
from stdb.net.routing import Call, Lookup, Resource
from stdb.sats import json as sats_json
from stdb.sats import meta

__all__ = ["RESOURCES"]

_REFUSED = 530
"""The reducer said no, or broke: a status of the reference's own."""

_OUT_OF_TIME = (402, "Module energy budget exhausted.")
"""Our limit of time stands where the reference's limit of energy does."""


async def call_reducer(call: Call) -> Response:
    """Run a reducer with the JSON arguments of the body."""
    database = call.database()
    reducer = call.parameter("reducer")
    if call.request.headers.get("content-type") is None:
        raise HttpError(400, "Header of type `content-type` was missing")
    call.check_content_type(allow_parameters=False)
    confirmed = call.query.flag("confirmed", True)
    arguments = await call.text(says_where=False)
    handle = call.door.host.database(database.identity)
    result = await handle.call(call.client(), reducer, arguments, confirmed=confirmed)
    headers = (
        TEXT,
        ("spacetime-energy-used", str(result.energy)),
        ("spacetime-execution-duration-micros", str(result.duration_us)),
    )
    if result.outcome.kind == OutcomeKind.COMMITTED:
        return Response(200, headers)
    status, text = _OUT_OF_TIME if result.outcome.kind == OutcomeKind.OUT_OF_TIME else (_REFUSED, result.outcome.text)
    return Response(status, headers, text.encode("utf-8", "replace"))


async def run_sql(call: Call) -> Response:
    """Run one SQL statement."""
    database = call.database()
    confirmed = call.query.flag("confirmed", True)
    text = await call.text()
    call.door.host.check_sql(call.caller.identity, database.identity)
    handle = call.door.host.database(database.identity)
    result = await handle.sql(call.client(), text, confirmed=confirmed)
    headers = (JSON, ("spacetime-execution-duration-micros", str(result.duration_us)))
    return Response(200, headers, sql_document(result).encode("utf-8", "replace"))


def sql_document(result: SqlResult) -> str:
    """Return the JSON text of one statement's result: its schema, its rows by position, what it changed."""
    elements = [
        {
            "name": {"none": []} if element.name is None else {"some": element.name},
            "algebraic_type": meta.type_to_json(element.type),
        }
        for element in result.row_type.elements
    ]
    schema = json.dumps({"elements": elements}, separators=(",", ":"), ensure_ascii=False)
    rows = ",".join(sats_json.encode(result.row_type, row, "positional") for row in result.rows)
    stats = f'"rows_inserted":{result.inserted},"rows_deleted":{result.deleted},"rows_updated":{result.updated}'
    duration = f'"total_duration_micros":{result.duration_us}'
    return f'[{{"schema":{schema},"rows":[{rows}],{duration},"stats":{{{stats}}}}}]'


RESOURCES = (
    Resource(
        "/v1/database/{name_or_identity}/call/{reducer}",
        {"POST": call_reducer},
        Access.ANONYMOUS,
        Lookup.BEFORE_METHOD,
    ),
    Resource("/v1/database/{name_or_identity}/sql", {"POST": run_sql}, Access.ANONYMOUS, Lookup.BEFORE_METHOD),
)
