"""Routes of 0.11 that make, name and delete databases.

Responsible for: publish, delete, dns, reverse_dns, set_name and register_tld of spec 03 section 8.1.
Not responsible for: doing it (`stdb.actors.host`), who owns what (`stdb.storage.control`).
"""

import json
from functools import partial

import trio

from stdb.actors.host import PublishResult
from stdb.actors.refusals import UpdateRejected
from stdb.errors import RequestError
from stdb.net.auth import Access
from stdb.net.errors import EMPTY, HttpError, json_response
from stdb.net.http import Response
from stdb.net.legacy_paths import (
    BAD_DOMAIN,
    address_hex,
    address_parameter,
    below_prefixes,
    domain_or_address,
    parse_address,
    path_address,
    required,
)
from stdb.net.query import QueryStringError
from stdb.net.routes_publish import host_type_of
from stdb.net.routing import Call, Resource
from stdb.storage.control import NameInUseError, NameNotYoursError, NotYourDatabaseError

__all__ = ["RESOURCES"]


async def publish(call: Call) -> Response:
    """Create a database with the program in the body, or update or clear the one that is named."""
    text = call.query.text("name_or_address")
    clear = call.query.flag("clear", False)
    publisher = address_parameter(call.query, "client_address")
    named = None if text is None else domain_or_address(text)
    program = await call.body(call.door.settings.stdb.publish_bytes_max)
    try:
        result = await _publish(call, named, program, clear, publisher)
    except NotYourDatabaseError as error:
        raise _denied(call, error.identity) from error
    except UpdateRejected as error:
        raise _rejected(call, named, error) from error
    database = call.door.host.control.database(result.identity)
    address = None if database is None else address_hex(database.address)
    domain = named if isinstance(named, str) else None
    return json_response({"Success": {"domain": domain, "address": address, "op": result.operation}})


async def _publish(
    call: Call, named: str | bytes | None, program: bytes, clear: bool, publisher: bytes | None
) -> PublishResult:
    """Do it; a database whose name lies below somebody else's is created without a name, as in 0.11."""
    host, caller = call.door.host, call.caller.identity
    control = host.control
    identity = control.resolve_address(named) if isinstance(named, bytes) else named and control.resolve(named)
    known = control.database(identity) if identity else None
    if known is not None and known.owner != caller:
        raise NotYourDatabaseError(known.identity)
    name = named if isinstance(named, str) and control.name_owner(named) in (None, caller) else None
    return await host.publish(
        caller,
        program,
        name=name,
        identity=identity or None,
        address=named if isinstance(named, bytes) else None,
        host_type=host_type_of(program, None),
        clear=clear and known is not None,
        publisher=publisher,
    )


async def delete(call: Call) -> Response:
    """Delete a database; one that is not there is deleted already."""
    control, address = call.door.host.control, path_address(call)
    identity = control.resolve_address(address)
    if identity is None or (known := control.database(identity)) is None:
        return EMPTY
    if known.owner != call.caller.identity:
        raise _denied(call, identity)
    await call.door.host.delete(call.caller.identity, identity)
    return EMPTY


async def dns(call: Call) -> Response:
    """Answer with the address that a name leads to."""
    name, control = _domain(call.parameter("database_name")), call.door.host.control
    identity = control.resolve(name)
    known = None if identity is None else control.database(identity)
    if known is None:
        return json_response({"Failure": {"domain": name}})
    return json_response({"Success": {"domain": name, "address": address_hex(known.address)}})


async def reverse_dns(call: Call) -> Response:
    """Answer with the names of an address."""
    control = call.door.host.control
    identity = control.resolve_address(path_address(call))
    names = control.names(identity) if identity is not None and control.database(identity) else ()
    return json_response({"names": list(names)})


async def set_name(call: Call) -> Response:
    """Give a database of the caller one more name."""
    text, digits = required(call.query, "domain"), required(call.query, "address")
    try:
        address = parse_address(digits)
    except ValueError as error:
        raise QueryStringError(str(error)) from error
    name, control, caller = _domain(text), call.door.host.control, call.caller.identity
    identity = control.resolve_address(address)
    if identity is None or control.database(identity) is None:
        raise HttpError(404, "No such database.")
    try:
        await trio.to_thread.run_sync(partial(control.add_name, name, identity, caller))
    except NotYourDatabaseError as error:
        raise HttpError(401, "Identity does not own database.") from error
    except NameInUseError as error:
        raise HttpError(500, str(error)) from error
    except NameNotYoursError:
        return json_response({"PermissionDenied": {"domain": name}})
    return json_response({"Success": {"domain": name, "address": address_hex(address)}})


async def register_tld(call: Call) -> Response:
    """Make the top of a name the caller's."""
    top, _, _ = _domain(required(call.query, "tld")).partition("/")
    control, caller = call.door.host.control, call.caller.identity
    try:
        is_new = await trio.to_thread.run_sync(partial(control.register_top, top, caller))
    except NameNotYoursError:
        return json_response({"Unauthorized": {"domain": top}})
    return json_response({"Success" if is_new else "AlreadyRegistered": {"domain": top}})


def _domain(text: str) -> str:
    """Return a name. Raises HttpError: it is none, or an address."""
    named = domain_or_address(text)
    if isinstance(named, bytes):
        raise HttpError(400, BAD_DOMAIN)
    return named


def _rejected(call: Call, named: str | bytes | None, error: UpdateRejected) -> RequestError:
    """Return the refusal of an update that changes tables, which the database's log tells as well."""
    control = call.door.host.control
    identity = control.resolve_address(named) if isinstance(named, bytes) else named and control.resolve(named)
    if not error.tables or not identity:
        return error
    log = call.door.host.database(identity).log
    log.write_host("Module update rejected due to schema mismatch", "Error")
    for table, text in error.tables:
        if not text:
            log.write_host(f"{table}: orphaned", "Warn")
        else:
            log.write_host(f"{table}: incompatible schema", "Warn")
            log.write_host(f"{table}: {text}", "Warn")
    tables = ", ".join(json.dumps(table, ensure_ascii=False) for table in dict(error.tables))
    return HttpError(
        400,
        f"Database update rejected: incompatible schema changes for: [{tables}]. See database log for details.",
    )


def _denied(call: Call, identity: bytes) -> HttpError:
    control = call.door.host.control
    known = control.database(identity) or control.deleted(identity)
    assert known is not None
    return HttpError(
        500, f"Permission denied: `{call.caller.hex}` does not own database `{address_hex(known.address)[:16]}`"
    )


RESOURCES = tuple(
    below_prefixes(
        (
            Resource("/database/publish", {"POST": publish}, Access.ANONYMOUS),
            Resource("/database/delete/{address}", {"POST": delete}, Access.ANONYMOUS),
            Resource("/database/dns/{database_name}", {"GET": dns}, Access.ANONYMOUS),
            Resource("/database/reverse_dns/{address}", {"GET": reverse_dns}, Access.ANONYMOUS),
            Resource("/database/set_name", {"GET": set_name}, Access.ANONYMOUS),
            Resource("/database/register_tld", {"GET": register_tld}, Access.ANONYMOUS),
        )
    )
)
