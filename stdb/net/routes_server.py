"""Routes about the server: ping, health, metrics, grants.

Responsible for: routes 1 to 4 of spec 05 section 1.2, the refusal of 29, `/stdb/v1/grants` (DESIGN decision 10).
Not responsible for: databases and identities (other `routes_*`).
"""

import trio

from stdb.actors.refusals import NotAuthorized
from stdb.net.auth import Access
from stdb.net.errors import EMPTY, HttpError, json_response, text_response
from stdb.net.http import Response
from stdb.net.metrics import exposition
from stdb.net.routing import Call, Resource, hex_of
from stdb.storage.control import PUBLISH_PYTHON

__all__ = ["RESOURCES"]

SERVED_VERSION = "2.8.3"
"""The version of the reference whose interfaces we serve; clients compare with it."""


async def ping(call: Call) -> Response:
    """Answer that we are here."""
    return EMPTY


async def health(call: Call) -> Response:
    """Answer which interface this is."""
    document = {"package_name": "spacetimedb-client-api", "version": SERVED_VERSION, "nodes": [0], "schedulable": True}
    return json_response(document)


async def metrics(call: Call) -> Response:
    """Answer with all numbers."""
    return text_response(exposition(call.door.host, call.door.counters))


async def service_discovery(call: Call) -> Response:
    """Answer with the one node there is."""
    return json_response([{"targets": ["node:80"], "labels": {}}])


async def list_grants(call: Call) -> Response:
    """Answer with what an identity was granted; the operator may ask for everybody, others for themselves."""
    identity = call.identity().wire
    if identity != call.caller.identity:
        _check_operator(call)
    return json_response({"identity": hex_of(identity), "permissions": sorted(call.door.host.control.grants(identity))})


async def list_all_grants(call: Call) -> Response:
    """Answer with every grant."""
    _check_operator(call)
    listed = call.door.host.control.all_grants()
    return json_response(
        {"grants": [{"identity": hex_of(identity), "permission": grant} for identity, grant in listed]}
    )


async def give_grant(call: Call) -> Response:
    """Give an identity a grant."""
    identity, grant = call.identity().wire, await _grant(call)
    await trio.to_thread.run_sync(call.door.host.control.grant, identity, grant)
    return await list_grants(call)


async def take_grant(call: Call) -> Response:
    """Take a grant from an identity."""
    identity, grant = call.identity().wire, await _grant(call)
    await trio.to_thread.run_sync(call.door.host.control.revoke, identity, grant)
    return await list_grants(call)


async def _grant(call: Call) -> str:
    """Return the grant a request is about: parameter `permission`, which has only one known value today."""
    _check_operator(call)
    return call.query.choice("permission", (PUBLISH_PYTHON,)) or PUBLISH_PYTHON


def _check_operator(call: Call) -> None:
    if call.door.operator is None:
        raise HttpError(403, "this server has no operator")
    if call.caller.identity != call.door.operator:
        raise NotAuthorized(
            f"{call.caller.hex} is not the operator of this server; "
            "the operator's token is in the file operator.token of the server's data directory"
        )


async def no_mcp(call: Call) -> Response:
    """Refuse route 29, which clients find and this server does not serve."""
    text = "MCP is not served here; use `/v1/database/{name}/schema`, `/sql` and `/call/{reducer}`"
    return text_response(text, 501)


RESOURCES = (
    Resource("/v1/ping", {"GET": ping}, Access.OPTIONAL),
    Resource("/v1/health", {"GET": health}, Access.NONE),
    Resource("/v1/metrics", {"GET": metrics}, Access.NONE),
    Resource("/v1/prometheus/sd_config", {"GET": service_discovery}, Access.NONE),
    Resource("/v1/mcp", {"POST": no_mcp}, Access.NONE),
    Resource("/v1/database/{name_or_identity}/mcp", {"POST": no_mcp}, Access.ANONYMOUS),
    Resource("/stdb/v1/grants", {"GET": list_all_grants}, Access.REQUIRED),
    Resource(
        "/stdb/v1/grants/{identity}",
        {"GET": list_grants, "PUT": give_grant, "DELETE": take_grant},
        Access.REQUIRED,
    ),
)
