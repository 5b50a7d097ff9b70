"""Routes about identities: new ones, tokens, the public key, what somebody owns.

Responsible for: routes 5 to 9 of spec 05 section 1.2.
Not responsible for: minting and checking tokens (`tokens`), energy (`routes_energy`).
"""

from stdb.net.auth import Access
from stdb.net.errors import json_response
from stdb.net.http import Response
from stdb.net.routing import Call, Resource, hex_of

__all__ = ["RESOURCES"]


async def new_identity(call: Call) -> Response:
    """Answer with a new identity and its token."""
    minted = call.door.tokens.mint()
    return json_response({"identity": minted.hex, "token": minted.token})


async def public_key(call: Call) -> Response:
    """Answer with the key that our tokens are checked with; the command line keeps it as the server's fingerprint."""
    headers = (("content-type", "application/pem-certificate-chain"),)
    return Response(200, headers, call.door.tokens.key.public_pem.encode())


async def websocket_token(call: Call) -> Response:
    """Answer with a token for the next minute, for clients that cannot set headers on a WebSocket."""
    return json_response({"token": call.door.tokens.mint_websocket_token(call.caller)})


async def verify(call: Call) -> Response:
    """Answer whether the token is that of the identity in the path."""
    identity = call.identity()
    await call.authenticate(Access.REQUIRED)
    if call.caller.identity != identity.wire:
        return Response(400)
    return Response(204)


async def databases(call: Call) -> Response:
    """Answer with the databases that an identity owns."""
    owned = call.door.host.control.databases_of(call.identity().wire)
    return json_response({"identities": [hex_of(identity) for identity in owned]})


RESOURCES = (
    Resource("/v1/identity", {"POST": new_identity}, Access.NONE),
    Resource("/v1/identity/public-key", {"GET": public_key}, Access.NONE),
    Resource("/v1/identity/websocket-token", {"POST": websocket_token}, Access.REQUIRED),
    # the path is checked before the token, so the handler asks for it
    Resource("/v1/identity/{identity}/verify", {"GET": verify}, Access.NONE),
    Resource("/v1/identity/{identity}/databases", {"GET": databases}, Access.NONE),
)
