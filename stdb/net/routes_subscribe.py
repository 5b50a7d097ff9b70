"""The route to WebSockets: every check of the upgrade, in the reference's order, then 101.

Responsible for: spec 02 section 3.2 and route 20 of spec 05 section 1.2.
Not responsible for: parsing parameters (`handshake`), the connection afterwards (`connection`).
"""

import secrets
from functools import partial
from typing import TYPE_CHECKING

from stdb.actors.handle import DatabaseHandle
from stdb.actors.refusals import NoSuchDatabase
from stdb.actors.sink import Client
from stdb.net.auth import Access
from stdb.net.connection import serve_client
from stdb.net.cors import CORS
from stdb.net.errors import HttpError
from stdb.net.handshake import (
    NO_PROTOCOL,
    Handshake,
    accept_key,
    check_connection_id,
    choose_subprotocol,
    parse_options,
)
from stdb.net.http import Request
from stdb.net.routing import Call, Resource, Upgraded
from stdb.net.stream import FrameStream
from stdb.net.tokens import Credentials

if TYPE_CHECKING:
    from stdb.net.front_door import FrontDoor

__all__ = ["RESOURCES", "check_upgrade", "random_connection_id", "serve_upgraded", "switching"]


async def subscribe(call: Call) -> Upgraded:
    """Upgrade the connection."""
    call.name_or_identity()
    options = parse_options(call.query.pairs)
    if call.request.method != "GET":
        raise HttpError(405, headers=(("allow", "GET,HEAD"),))
    key = check_upgrade(call.request)
    check_connection_id(options)
    database = call.resolve()
    if call.door.host.control.database(database.identity) is None:
        raise NoSuchDatabase("No such database." if database.name is None else f"`{database.name}` not found")
    subprotocol = choose_subprotocol(call.request.headers.all("sec-websocket-protocol"))
    if subprotocol is None:
        raise HttpError(400, NO_PROTOCOL)
    handle = call.door.host.database(database.identity)
    await handle.ready()
    caller = call.caller
    client = Client(caller.identity, options.connection_id or random_connection_id(), caller.payload)
    stream = await call.connection.upgrade(switching(key, subprotocol, caller))
    handshake = Handshake(subprotocol, client, caller.token, options)
    return Upgraded(partial(serve_upgraded, call.door, stream, handshake, handle))


def switching(key: bytes, subprotocol: str, caller: Credentials) -> tuple[tuple[str, str], ...]:
    """Return the headers of the 101."""
    return (
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-accept", accept_key(key).decode()),
        ("sec-websocket-protocol", subprotocol),
        ("spacetime-identity", caller.hex),
        ("spacetime-identity-token", caller.token),
        *CORS,
    )


async def serve_upgraded(door: "FrontDoor", stream: FrameStream, handshake: Handshake, handle: DatabaseHandle) -> None:
    """Serve a client whose connection was taken over."""
    door.clients_opened.add(handle.identity)
    try:
        await serve_client(stream, handshake, handle, door.settings.websocket)
    finally:
        door.clients_closed.add(handle.identity)


def check_upgrade(request: Request) -> bytes:
    """Return the key of a well-formed upgrade.

    Raises:
        HttpError: 426 when it is no upgrade to a WebSocket, 400 when version or key are missing.
    """
    words = {word.strip().lower() for value in request.headers.all("connection") for word in value.split(",")}
    protocols = [value.strip().lower() for value in request.headers.all("upgrade")]
    if "upgrade" not in words or "websocket" not in protocols:
        text = "This service requires use of the websocket protocol"
        raise HttpError(426, text, headers=(("connection", "upgrade"), ("upgrade", "websocket")))
    if (request.headers.get("sec-websocket-version") or b"").strip() != b"13":
        raise HttpError(400, "`Sec-WebSocket-Version` header did not include '13'")
    key = request.headers.get("sec-websocket-key")
    if key is None:
        raise HttpError(400, "`Sec-WebSocket-Key` header missing")
    return key


def random_connection_id() -> bytes:
    """Return a connection id that is not the reserved one."""
    return secrets.token_bytes(15) + b"\x01"


RESOURCES = (Resource("/v1/database/{name_or_identity}/subscribe", {"GET": subscribe}, Access.ANONYMOUS),)
