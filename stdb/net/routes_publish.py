"""Routes that change what a database runs: publish, reset, delete, lock, restart.

Responsible for: routes 12, 13, 15, 25, 26 and 28 of spec 05 section 1.2, and `restart`: parameters and documents.
Not responsible for: doing it (`stdb.actors.host`), who owns what (`stdb.storage.control`).
"""

from typing import Any, NamedTuple

from stdb.actors.host import CONFIRMATION_SECONDS, PublishResult
from stdb.actors.plan_text import plan_text
from stdb.actors.refusals import NoSuchDatabase, NotAuthorized, PublishFailed
from stdb.actors.updates import Policy, Update
from stdb.modules.wasm.abi import magic_refusal
from stdb.net.auth import Access
from stdb.net.environment import environment_of
from stdb.net.errors import EMPTY, HttpError, json_response
from stdb.net.http import Response
from stdb.net.routing import Call, Lookup, Resource, hex_of
from stdb.schema.environment import EnvironmentChange
from stdb.storage.control import NameInUseError, NameNotYoursError, NotYourDatabaseError

__all__ = ["RESOURCES", "host_type_of"]

PYTHON_MAGIC = b"PK\x03\x04"
WASM_HEADER_BYTES = 8

_HOST_TYPES = ("Wasm", "Js", "Python")


CONFIRMATION_SECONDS_MAX = 300.0
"""As long as a publisher may want to wait for an update to be durable."""


class _Options(NamedTuple):
    """What a publisher asks for beside the program, in the query and in headers."""

    clear: bool
    policy: Policy
    confirmation_seconds_max: float
    host_type: str | None
    parent: str | None
    organization: str | None
    environment: EnvironmentChange


async def publish_nameless(call: Call) -> Response:
    """Create a database without a name."""
    options = _options(call)
    if options.clear:
        raise HttpError(400, "Clear database requires database name or identity")
    _check_relatives(call, options, exists=False)
    return await _publish(call, None, options)


async def publish(call: Call) -> Response:
    """Create or update the database that the path names."""
    named = call.name_or_identity()
    options = _options(call)
    control = call.door.host.control
    identity = named if isinstance(named, bytes) else control.resolve(named)
    database = None if identity is None else control.database(identity)
    _check_relatives(call, options, exists=database is not None)
    if database is not None:
        action = "reset database" if options.clear else "update database"
        call.door.host.check_owner(call.caller.identity, database.identity, action)
    return await _publish(call, named, options)


async def reset(call: Call) -> Response:
    """Drop all data of a database and start again from the program in the body, else from the initial one."""
    database = call.database()
    options = _options(call)
    host, caller = call.door.host, call.caller.identity
    host.check_owner(caller, database.identity, "reset database")
    program = await call.body(call.door.settings.stdb.publish_bytes_max)
    known = host.control.database(database.identity)
    assert known is not None, "`database` has looked"
    host_type = host_type_of(program, options.host_type) if program else known.host_type
    result = await host.reset(
        caller, database.identity, program or None, host_type=host_type, environment=options.environment
    )
    return _success(result, database.name)


async def delete(call: Call) -> Response:
    """Delete a database; one that is not there is deleted already."""
    await call.door.host.delete(call.caller.identity, call.resolve().identity)
    return EMPTY


async def lock(call: Call) -> Response:
    """Keep a database from being deleted or reset."""
    await call.door.host.set_locked(call.caller.identity, call.database().identity, True)
    return EMPTY


async def unlock(call: Call) -> Response:
    """Allow a database to be deleted and reset again."""
    await call.door.host.set_locked(call.caller.identity, call.database().identity, False)
    return EMPTY


async def restart(call: Call) -> Response:
    """Launch a database again that stays down after failures (DESIGN decision 13); its owner or the operator may."""
    await call.door.host.restart(call.caller.identity, call.database().identity)
    return EMPTY


async def pre_publish(call: Call) -> Response:
    """Show what an update would do, as a document; nothing changes."""
    database = call.database()
    style = call.query.choice("style", ("AnsiColor", "NoColor"))
    asked = call.query.choice("host_type", _HOST_TYPES)
    host, caller = call.door.host, call.caller.identity
    host.check_owner(caller, database.identity, "update database")
    program = await call.body(call.door.settings.stdb.publish_bytes_max)
    prospect = await host.plan(caller, database.identity, program, host_type=host_type_of(program, asked))
    if prospect.update is None:
        reason = prospect.refusal.removeprefix("Database update rejected: ")
        kind, document = "ManualMigrate", {"reason": reason}
    else:
        kind, document = "AutoMigrate", _shown(prospect.update, colored=style != "NoColor")
    return json_response({kind: document | {"major_version_upgrade": prospect.is_major_upgrade}})


def _shown(update: Update, *, colored: bool) -> dict[str, Any]:
    token = f"0x{int.from_bytes(update.token, 'little'):x}"
    text = plan_text(update, colored=colored)
    return {"migrate_plan": text, "break_clients": update.breaks_clients, "token": token}


def _options(call: Call) -> _Options:
    query = call.query
    clear = query.flag("clear", False)
    replicas = query.number("num_replicas")
    host_type = query.choice("host_type", _HOST_TYPES)
    policy = query.choice("policy", ("Compatible", "BreakClients"))
    confirmation_seconds = query.duration("update_confirmation_timeout")
    token = query.hash("token") if policy == "BreakClients" else None
    if replicas is not None and replicas > 255:
        raise HttpError(400, f"Replication factor {replicas} out of bounds")
    if policy == "BreakClients" and token is None:
        raise HttpError(400, "Migration policy is set to `BreakClients`, but no migration token was provided.")
    return _Options(
        clear,
        Policy(policy == "BreakClients", token),
        CONFIRMATION_SECONDS if confirmation_seconds is None else min(confirmation_seconds, CONFIRMATION_SECONDS_MAX),
        host_type,
        query.text("parent"),
        query.text("organization", "org"),
        environment_of(call.request.headers),
    )


def _check_relatives(call: Call, options: _Options, *, exists: bool) -> None:
    """Refuse a parent or an organization that is not there; good ones change nothing, as in the reference."""
    for text in (options.parent, options.organization):
        if text is None:
            continue
        named = call.name_or_identity(text)
        if isinstance(named, str) and call.door.host.control.resolve(named) is None:
            raise NoSuchDatabase(f"`{named}` not found")
    if options.parent is not None and options.clear and exists:
        raise HttpError(400, "Setting the parent of an existing database is not supported")


async def _publish(call: Call, named: str | bytes | None, options: _Options) -> Response:
    host, caller = call.door.host, call.caller
    name, identity = (named, None) if isinstance(named, str) else (None, named)
    program = await call.body(call.door.settings.stdb.publish_bytes_max)
    try:
        _check_may_create(call, name, identity)
        host_type = host_type_of(program, options.host_type)
        result = await host.publish(
            caller.identity,
            program,
            name=name,
            identity=identity,
            host_type=host_type,
            clear=options.clear,
            policy=options.policy,
            environment=options.environment,
            confirmation_seconds_max=options.confirmation_seconds_max,
        )
    except NameNotYoursError as error:
        raise HttpError(401, document={"PermissionDenied": {"name": error.name}}) from error
    except NameInUseError as error:
        raise HttpError(500, str(error)) from error
    except NotYourDatabaseError as error:
        action = f"is not authorized to perform action on database {hex_of(error.identity)}: update database"
        raise NotAuthorized(f"{caller.hex} {action}") from error
    return _success(result, name)


def _check_may_create(call: Call, name: str | None, identity: bytes | None) -> None:
    """Raise what creating would raise, before anything is said about the program."""
    control = call.door.host.control
    if name is not None:
        identity = control.resolve(name)
    if identity is not None and control.database(identity) is None:
        control.check_create(call.caller.identity, identity, name)
    elif identity is None and name is not None and control.name_owner(name) not in (None, call.caller.identity):
        raise NameNotYoursError(name)


def host_type_of(program: bytes, asked: str | None) -> str:
    """Return what kind of program this is, said by the publisher or seen by its first bytes.

    Raises:
        PublishFailed: It is none that this server runs; the text says why.
    """
    if asked == "Python" or (asked is None and program.startswith(PYTHON_MAGIC)):
        return "Python"
    if asked == "Js":
        raise PublishFailed("JS modules unsupported in this build")
    refusal = magic_refusal(program)
    if refusal is not None:
        raise PublishFailed(refusal)
    if len(program) <= WASM_HEADER_BYTES:
        raise PublishFailed("unable to determine ABI of module (may be on an spacetime version < 0.8)")
    return "Wasm"


def _success(result: PublishResult, name: str | None) -> Response:
    document = {"domain": name, "database_identity": hex_of(result.identity), "op": result.operation}
    return json_response({"Success": document})


RESOURCES = (
    Resource("/stdb/v1/database/{name_or_identity}/restart", {"POST": restart}, Access.ANONYMOUS, Lookup.BEFORE_METHOD),
    Resource("/v1/database", {"POST": publish_nameless}, Access.ANONYMOUS),
    Resource("/v1/database/{name_or_identity}/reset", {"PUT": reset}, Access.ANONYMOUS, Lookup.BEFORE_METHOD),
    Resource("/v1/database/{name_or_identity}/lock", {"POST": lock}, Access.ANONYMOUS, Lookup.BEFORE_METHOD),
    Resource("/v1/database/{name_or_identity}/unlock", {"POST": unlock}, Access.ANONYMOUS, Lookup.BEFORE_METHOD),
    Resource(
        "/v1/database/{name_or_identity}/pre_publish", {"POST": pre_publish}, Access.ANONYMOUS, Lookup.BEFORE_METHOD
    ),
)
