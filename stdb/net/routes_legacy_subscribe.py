"""The route to WebSockets of 0.11 and older: every check of the upgrade, in 0.11's order, then 101.

Responsible for: `/database/subscribe/:name_or_address` at the root and below each prefix (spec 03 section 2).
Not responsible for: which dialect a client gets (`protocols.legacy.choice`), the connection afterwards (`connection`).
"""

from functools import partial

from stdb.actors.refusals import NoSuchDatabase
from stdb.actors.sink import Client
from stdb.net.auth import Access
from stdb.net.errors import HttpError
from stdb.net.handshake import NO_PROTOCOL, ConnectionOptions, Handshake
from stdb.net.legacy_paths import LEGACY, PREFIXES, address_parameter, domain_or_address, find
from stdb.net.protocols.legacy.choice import choose, choose_subprotocol
from stdb.net.routes_subscribe import check_upgrade, random_connection_id, serve_upgraded, switching
from stdb.net.routing import Call, Resource, Upgraded

__all__ = ["RESOURCES"]

_ZERO_ADDRESS = "Invalid client address: the all-zeros Address is reserved."


async def subscribe(prefix: str, call: Call) -> Upgraded:
    """Upgrade the connection of a client that came below `prefix`."""
    named = domain_or_address(call.parameter("name_or_address"))
    address = address_parameter(call.query, "client_address")
    if call.request.method != "GET":
        raise HttpError(405, headers=(("allow", "GET,HEAD"),))
    key = check_upgrade(call.request)
    if address is not None and not any(address):
        raise HttpError(400, _ZERO_ADDRESS)
    if isinstance(named, str) and call.door.host.control.resolve(named) is None:
        raise HttpError(400)
    subprotocol = choose_subprotocol(call.request.headers.all("sec-websocket-protocol"))
    if subprotocol is None:
        raise HttpError(400, NO_PROTOCOL)
    try:
        handle = call.door.host.database(find(call).identity)
    except NoSuchDatabase as error:
        raise HttpError(400) from error
    await handle.ready()
    has_origin = call.request.headers.get("origin") is not None
    dialect = choose(prefix, subprotocol, has_address=address is not None, has_origin=has_origin)
    client = Client(call.caller.identity, address or random_connection_id(), call.caller.payload)
    stream = await call.connection.upgrade(switching(key, subprotocol, call.caller))
    handshake = Handshake(dialect, client, call.caller.token, ConnectionOptions())
    return Upgraded(partial(serve_upgraded, call.door, stream, handshake, handle))


def _resource(prefix: str) -> Resource:
    path = f"{prefix}/database/subscribe/{{name_or_address}}"
    return Resource(path, {"GET": partial(subscribe, prefix)}, Access.ANONYMOUS, conventions=LEGACY)


RESOURCES = tuple(map(_resource, PREFIXES))
