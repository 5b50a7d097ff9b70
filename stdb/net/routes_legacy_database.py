"""Routes of 0.11 that read and call a database: information, schema, logs, reducers.

Responsible for: spec 03 section 8.1 but for publishing, names and SQL.
Not responsible for: those (`routes_legacy_publish`), types of that generation (`stdb.schema.legacy`).
"""

import json
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any

from stdb.actors.answers import CallResult
from stdb.actors.sink import Client
from stdb.net.auth import Access
from stdb.net.errors import HttpError, json_response
from stdb.net.http import Response
from stdb.net.legacy_paths import address_hex, address_parameter, below_prefixes, find
from stdb.net.protocols.legacy.requests import Arguments
from stdb.net.protocols.legacy.texts import of_failed_call
from stdb.net.routes_call import reducer_response
from stdb.net.routes_database import log_response
from stdb.net.routing import Call, Resource, hex_of
from stdb.schema import legacy_documents
from stdb.schema.legacy import LegacyFace, is_reserved, legacy_face
from stdb.storage.module_log import HOST

__all__ = ["RESOURCES"]


async def information(call: Call) -> Response:
    """Answer with address, owner, kind and initial program."""
    found = find(call)
    return json_response(
        {
            "address": address_hex(found.address),
            "host_type": found.host_type.lower(),
            "initial_program": found.program_hash.hex(),
            "owner_identity": hex_of(found.owner),
        }
    )


async def schema(call: Call) -> Response:
    """Answer with all tables and reducers, or with the definition as it was in 0.11."""
    expand, as_definition = call.query.flag("expand", False), call.query.flag("module_def", False)
    if expand and as_definition:
        raise HttpError(400, "expand and module_def cannot both be specified")
    face = await _face(call)
    document: Any = legacy_documents.definition(face) if as_definition else None
    return json_response(document or legacy_documents.entities(face, expand=expand))


async def entity(call: Call) -> Response:
    """Answer with one table or reducer."""
    expand = call.query.flag("expand", True)
    face = await _face(call)
    kind, name = call.parameter("entity_type"), call.parameter("entity")
    if kind not in ("table", "reducer"):
        raise HttpError(404, f"Invalid entity type for description: {kind}")
    document = legacy_documents.entity(face, kind, name, expand=expand)
    if document is None:
        raise HttpError(404, f'{kind} "{name}" not found')
    return json_response(document)


async def logs(call: Call) -> Response:
    """Answer with lines of the module's log, and with those to come when asked to follow."""
    line_count, follow = call.query.number("num_lines"), call.query.flag("follow", False)
    found = find(call)
    if found.owner != call.caller.identity:
        raise HttpError(400, f"Identity does not own database, expected: {hex_of(found.owner)} got: {call.caller.hex}")
    response = log_response(call.door.host.database(found.identity).log, line_count, follow=follow)
    assert not isinstance(response.body, bytes)
    return response._replace(body=_old_lines(response.body))


async def _old_lines(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield the lines of a log as 0.11 wrote them; a chunk may end anywhere."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        if whole:
            yield b"".join(_old_line(json.loads(line)) for line in whole)


def _old_line(line: dict[str, Any]) -> bytes:
    """Write a line without the function it is of; those of the host have one name in its places."""
    line.pop("function", None)
    if line.get("target") == HOST:
        del line["target"]
        line["filename"] = "external" if line["message"].startswith("External attempt") else "spacetimedb"
    return json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


async def call_reducer(call: Call) -> Response:
    """Run a reducer with the JSON arguments of the body, as a client with the address it gives, else a new one."""
    address = address_parameter(call.query, "client_address")
    found = find(call)
    text = await call.text(says_where=False)
    reducer = call.parameter("reducer")
    name = "" if is_reserved(reducer) else reducer
    client = call.client() if address is None else Client(call.caller.identity, address, call.caller.payload)
    handle = call.door.host.database(found.identity)
    await handle.ready()
    if handle.definition.procedure_id(name) is not None:
        raise HttpError(404, "no such reducer")
    result = await handle.call(client, name, Arguments(reducer, b"", text))
    assert isinstance(result, CallResult), "procedures are not called here"
    return reducer_response(result._replace(outcome=result.outcome._replace(text=of_failed_call(result.outcome))))


async def _face(call: Call) -> LegacyFace:
    handle = call.door.host.database(find(call).identity)
    await handle.ready()
    return legacy_face(handle.definition)


_PATH = "{name_or_address}"

RESOURCES = tuple(
    below_prefixes(
        (
            Resource(f"/database/info/{_PATH}", {"GET": information}, Access.ANONYMOUS),
            Resource(f"/database/schema/{_PATH}", {"GET": schema}, Access.ANONYMOUS),
            Resource(f"/database/schema/{_PATH}/{{entity_type}}/{{entity}}", {"GET": entity}, Access.ANONYMOUS),
            Resource(f"/database/logs/{_PATH}", {"GET": logs}, Access.ANONYMOUS),
            Resource(f"/database/call/{_PATH}/{{reducer}}", {"POST": call_reducer}, Access.ANONYMOUS),
        )
    )
)
