"""The route of 0.11 that runs SQL: any number of statements in one transaction, rows in the types of that generation.

Responsible for: `POST /database/sql/:name_or_address` of spec 03 section 8.1, its result document.
Not responsible for: the language (`stdb.sql`), running (`stdb.actors`), the words of refusals
(`protocols.legacy.texts`).
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial

from stdb.actors.answers import SqlResult
from stdb.errors import QueryError
from stdb.net.auth import Access
from stdb.net.errors import JSON, HttpError
from stdb.net.http import Response
from stdb.net.legacy_paths import below_prefixes, find
from stdb.net.protocols.legacy.texts import NOT_AUTHORIZED, of_sql
from stdb.net.protocols.legacy.translation import row_forms
from stdb.net.routes_call import sliced_response, written_rows
from stdb.net.routing import Call, Resource
from stdb.sats import bsatn, meta
from stdb.sats.profiles import V0_11
from stdb.schema.legacy import legacy_type
from stdb.sql import OLD

__all__ = ["RESOURCES"]


async def run_sql(call: Call) -> Response:
    """Run the statements of the body; answer with the rows of each SELECT."""
    found = find(call)
    text = await call.text()
    call.door.host.check_sql(call.caller.identity, found.identity)
    handle = call.door.host.database(found.identity)
    await handle.ready()
    try:
        work = partial(handle.statements, call.caller.identity, text, OLD)
        results = await call.connection.while_connected(work)
    except QueryError as error:
        told = of_sql(str(error), text, handle.definition)
        raise HttpError(401 if told.startswith(NOT_AUTHORIZED) else 400, told) from error
    return sliced_response((JSON,), _document(results))


def _document(results: Sequence[SqlResult]) -> Iterator[bytes]:
    """Yield the JSON of the results in pieces. Rows are taken out of them as they are encoded."""
    yield b"["
    for place, result in enumerate(results):
        schema = json.dumps(meta.type_to_json(legacy_type(result.row_type), V0_11)["Product"], separators=(",", ":"))
        yield f'{"," if place else ""}{{"schema":{schema},"rows":['.encode()
        yield from _rows(result)
        yield b"]}"
    yield b"]"


def _rows(result: SqlResult) -> Iterator[bytes]:
    encode, forms = bsatn.codec(result.row_type).encode, row_forms(result.row_type)
    write, to_old = forms.positional, forms.to_old or bytes
    return written_rows(result, lambda row: write(to_old(encode(row))))


RESOURCES = tuple(below_prefixes((Resource("/database/sql/{name_or_address}", {"POST": run_sql}, Access.ANONYMOUS),)))
