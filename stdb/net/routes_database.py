"""Routes that read a database's face: information, names, schema, logs, time; and rename it.

Responsible for: routes 14, 16 to 19, 22, 23 and 27 of spec 05 section 1.2; 13 and 15 hang on the same path.
Not responsible for: publishing (`routes_publish`), calls and SQL (`routes_call`), WebSockets (`routes_subscribe`).
"""

import json
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import trio

from stdb.actors.refusals import DatabaseUnavailable
from stdb.net import routes_publish
from stdb.net.auth import Access
from stdb.net.errors import HttpError, json_response, text_response
from stdb.net.http import Response
from stdb.net.query import QueryStringError
from stdb.net.routing import Call, Lookup, Resource, hex_of
from stdb.sats.names import database_name_error
from stdb.schema import documents
from stdb.storage.control import NameInUseError, NameNotYoursError, NotYourDatabaseError
from stdb.storage.module_log import FOLLOW_LINES_MAX, ModuleLog

__all__ = ["RESOURCES", "log_response"]

LAUNCH_SECONDS_MAX = 10.0
"""How long `schema` waits for a database that is still loading."""


async def information(call: Call) -> Response:
    """Answer with identity, owner, kind and initial program."""
    found = call.door.host.control.database(call.database().identity)
    assert found is not None
    document = {
        "database_identity": {"__identity__": f"0x{hex_of(found.identity)}"},
        "owner_identity": {"__identity__": f"0x{hex_of(found.owner)}"},
        "host_type": {found.host_type: []},
        "initial_program": f"0x{int.from_bytes(found.program_hash, 'little'):x}",
    }
    return json_response(document)


async def identity(call: Call) -> Response:
    """Answer with the identity of a name; an identity is echoed whether or not a database lives there."""
    return text_response(hex_of(call.resolve().identity))


async def names(call: Call) -> Response:
    """Answer with all names of a database."""
    return json_response({"names": list(call.door.host.control.names(call.database().identity))})


async def add_name(call: Call) -> Response:
    """Give a database of the caller one more name."""
    database = call.database()
    name = await call.text()
    if reason := database_name_error(name):
        raise HttpError(400, reason)
    control = call.door.host.control
    try:
        await trio.to_thread.run_sync(control.add_name, name, database.identity, call.caller.identity)
    except NotYourDatabaseError as error:
        raise _not_yours(error) from error
    except NameNotYoursError as error:
        raise HttpError(401, document={"PermissionDenied": {"domain": error.name}}) from error
    except NameInUseError as error:
        raise HttpError(500, str(error)) from error
    return json_response({"Success": {"domain": name, "database_identity": hex_of(database.identity)}})


async def set_names(call: Call) -> Response:
    """Replace all names of a database of the caller."""
    database = call.database()
    call.check_content_type(allow_parameters=True)
    wanted = _parse_names(await call.body())
    control = call.door.host.control
    for name in wanted:
        if reason := database_name_error(name):
            raise HttpError(400, f"Error parsing `{name}`: {reason}")
    try:
        await trio.to_thread.run_sync(control.set_names, database.identity, wanted, call.caller.identity)
    except NotYourDatabaseError as error:
        raise _not_yours(error) from error
    except NameNotYoursError as error:
        raise _foreign_name(control.resolve(error.name) is not None, error) from error
    except NameInUseError as error:
        raise _name_taken(error.name) from error
    return json_response("Success")


async def schema(call: Call) -> Response:
    """Answer with the definition of the running module, as version 9 or 10."""
    database = call.database()
    version = call.query.choice("version", ("9", "10"))
    if version is None:
        raise QueryStringError("missing field `version`")
    handle = call.door.host.database(database.identity)
    with trio.move_on_after(LAUNCH_SECONDS_MAX) as waiting:
        await handle.ready()
    if waiting.cancelled_caught:
        raise DatabaseUnavailable("the database is still loading; try again later")
    return json_response(documents.to_json(handle.definition, int(version)))


async def logs(call: Call) -> Response:
    """Answer with lines of the module's log, and with those to come when asked to follow."""
    database = call.database()
    line_count = call.query.number("num_lines")
    follow = call.query.flag("follow", False)
    call.door.host.check_owner(call.caller.identity, database.identity, "view module logs")
    return log_response(call.door.host.database(database.identity).log, line_count, follow=follow)


def log_response(log: ModuleLog, line_count: int | None, *, follow: bool) -> Response:
    """Return the answer that holds the last lines of a log (None: all), and with `follow` those to come."""
    headers = (("content-type", "application/x-ndjson"), ("cache-control", "no-cache"))
    if follow:
        return Response(200, headers, _follow(log, min(line_count or 0, FOLLOW_LINES_MAX)))
    return Response(200, headers, _tail(log, line_count))


async def timestamp(call: Call) -> Response:
    """Answer with the time of the server."""
    call.database()
    return json_response({"__timestamp_micros_since_unix_epoch__": call.door.now_us()})


async def _tail(log: ModuleLog, line_count: int | None) -> AsyncGenerator[bytes, None]:
    chunks = log.tail(line_count)
    while chunk := await trio.to_thread.run_sync(partial(next, chunks, b"")):
        yield chunk


async def _follow(log: ModuleLog, line_count: int) -> AsyncGenerator[bytes, None]:
    with log.follow() as follower:
        if old := b"".join(log.tail(line_count)):
            yield old
        while lines := await follower.receive_some():
            yield lines


def _parse_names(data: bytes) -> list[str]:
    """Return the names of a JSON list.

    Raises:
        HttpError: 400 for what is no JSON, 422 for JSON of another shape.
    """
    try:
        document: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise HttpError(400, f"Failed to parse the request body as JSON: {error}") from error
    prefix = "Failed to deserialize the JSON body into the target type: "
    if not isinstance(document, list):
        raise HttpError(422, f"{prefix}expected a sequence")
    for position, item in enumerate(document):
        if not isinstance(item, str):
            raise HttpError(422, f"{prefix}[{position}]: expected a string")
    return document


def _not_yours(error: NotYourDatabaseError) -> HttpError:
    return HttpError(401, document={"NotYourDatabase": {"database": hex_of(error.identity)}})


def _name_taken(name: str) -> HttpError:
    return HttpError(400, document={"OtherError": f"Cannot rename to {name} because it already is in use."})


def _foreign_name(is_in_use: bool, error: NameNotYoursError) -> HttpError:
    """A name of somebody else that leads somewhere is in use, as anybody can see; a freed one is denied."""
    return (
        _name_taken(error.name) if is_in_use else HttpError(401, document={"PermissionDenied": {"domain": error.name}})
    )


_PATH = "/v1/database/{name_or_identity}"

RESOURCES = (
    Resource(
        _PATH,
        {"GET": information, "PUT": routes_publish.publish, "DELETE": routes_publish.delete},
        Access.ANONYMOUS,
    ),
    Resource(
        f"{_PATH}/names", {"GET": names, "POST": add_name, "PUT": set_names}, Access.ANONYMOUS, Lookup.BEFORE_METHOD
    ),
    Resource(f"{_PATH}/identity", {"GET": identity}, Access.ANONYMOUS),
    Resource(f"{_PATH}/schema", {"GET": schema}, Access.ANONYMOUS, Lookup.BEFORE_METHOD),
    Resource(f"{_PATH}/logs", {"GET": logs}, Access.ANONYMOUS, Lookup.BEFORE_METHOD),
    Resource(f"{_PATH}/unstable/timestamp", {"GET": timestamp}, Access.ANONYMOUS, Lookup.BEFORE_METHOD),
)
