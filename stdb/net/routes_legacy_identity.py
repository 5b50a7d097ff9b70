"""Routes of 0.11 about identities: new ones, tokens, mail addresses, what somebody owns; and about the server.

Responsible for: spec 03 sections 8.2 and 8.3.
Not responsible for: energy (`routes_energy`), sending mail: codes to recover an identity are never sent here.
"""

import trio

from stdb.net.auth import Access
from stdb.net.claims import parse_identity
from stdb.net.errors import EMPTY, HttpError, json_response
from stdb.net.http import Response
from stdb.net.legacy_paths import address_hex, below_prefixes, email_parameter, required
from stdb.net.query import QueryStringError
from stdb.net.routes_identity import new_identity, public_key, verify, websocket_token
from stdb.net.routes_server import metrics, ping, service_discovery
from stdb.net.routing import Call, Resource, hex_of

__all__ = ["RESOURCES"]


async def new_identity_with_email(call: Call) -> Response:
    """Answer with a new identity and its token; keep its mail address."""
    if call.query.text("email") is None:
        return await new_identity(call)
    email = email_parameter(call.query)
    minted = call.door.tokens.mint()
    await trio.to_thread.run_sync(call.door.host.control.set_email, minted.identity, email)
    return json_response({"identity": minted.hex, "token": minted.token})


async def find_by_email(call: Call) -> Response:
    """Answer with the identities that gave a mail address."""
    email = call.query.text("email")
    if email is None:
        raise HttpError(400)
    found = call.door.host.control.identities_of(email)
    return json_response({"identities": [{"identity": hex_of(identity), "email": email} for identity in found]})


async def emails(call: Call) -> Response:
    """Answer with the caller's own mail address, if there is one."""
    identity = _own_identity(call)
    email = call.door.host.control.email(identity)
    return json_response([] if email is None else [email])


async def set_email(call: Call) -> Response:
    """Keep the caller's mail address."""
    identity = call.identity().wire
    email = email_parameter(call.query)
    _check_own(call, identity)
    await trio.to_thread.run_sync(call.door.host.control.set_email, identity, email)
    return EMPTY


async def databases(call: Call) -> Response:
    """Answer with the addresses of the databases that an identity owns."""
    control, owner = call.door.host.control, call.identity().wire
    owned = [database.address for database in control.databases() if database.owner == owner]
    return json_response({"addresses": [address_hex(address) for address in owned]})


async def request_recovery_code(call: Call) -> Response:
    """Refuse to send a code: there is no mail here."""
    email_parameter(call.query)
    _check_identity_parameter(call)
    raise HttpError(500, "SendGrid is disabled.")


async def confirm_recovery_code(call: Call) -> Response:
    """Refuse a code: none was ever sent."""
    email_parameter(call.query)
    _check_identity_parameter(call)
    required(call.query, "code")
    raise HttpError(400, "Recovery code not found.")


def _own_identity(call: Call) -> bytes:
    identity = call.identity().wire
    _check_own(call, identity)
    return identity


def _check_own(call: Call, identity: bytes) -> None:
    if identity != call.caller.identity:
        raise HttpError(401)


def _check_identity_parameter(call: Call) -> None:
    try:
        parse_identity(required(call.query, "identity"))
    except ValueError as error:
        raise QueryStringError(str(error)) from error


RESOURCES = tuple(
    below_prefixes(
        (
            Resource("/identity", {"GET": find_by_email, "POST": new_identity_with_email}, Access.NONE),
            Resource("/identity/public-key", {"GET": public_key}, Access.NONE),
            Resource("/identity/websocket_token", {"POST": websocket_token}, Access.REQUIRED),
            Resource("/identity/request_recovery_code", {"POST": request_recovery_code}, Access.NONE),
            Resource("/identity/confirm_recovery_code", {"POST": confirm_recovery_code}, Access.NONE),
            Resource("/identity/{identity}/verify", {"GET": verify}, Access.NONE),
            Resource("/identity/{identity}/set-email", {"POST": set_email}, Access.ANONYMOUS),
            Resource("/identity/{identity}/emails", {"GET": emails}, Access.ANONYMOUS),
            Resource("/identity/{identity}/databases", {"GET": databases}, Access.NONE),
            Resource("/database/ping", {"GET": ping}, Access.ANONYMOUS),
            Resource("/metrics", {"GET": metrics}, Access.NONE),
            Resource("/prometheus/sd_config", {"GET": service_discovery}, Access.NONE),
        )
    )
)
