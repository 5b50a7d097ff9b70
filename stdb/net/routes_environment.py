"""The route that tells a database's owner which environment variables its module reads, and which of them are set.

Responsible for: `GET …/environment`, which never shows a value.
Not responsible for: setting them (`routes_publish`, by headers that `environment` reads).

Source: spec 09 section 5.3.
"""

from typing import Any

from stdb.net.auth import Access
from stdb.net.errors import json_response
from stdb.net.http import Response
from stdb.net.routing import Call, Lookup, Resource
from stdb.schema.model import EnvironmentVariableDef

__all__ = ["RESOURCES"]


async def environment(call: Call) -> Response:
    """Answer with what the running module declares and the names that have values."""
    database = call.database()
    call.door.host.check_owner(call.caller.identity, database.identity, "view environment")
    handle = call.door.host.database(database.identity)
    await handle.ready()
    document = {
        "module_hash": f"0x{int.from_bytes(handle.program_hash, 'little'):x}",
        "declarations": [_declaration(each) for each in handle.definition.environment or ()],
        "stored_keys": handle.environment_names,
    }
    return json_response(document)


def _declaration(variable: EnvironmentVariableDef) -> dict[str, Any]:
    return {"name": variable.name, "ty": _type_of(variable.choices), "optional": variable.is_optional}


def _type_of(choices: tuple[str, ...] | None) -> Any:
    if choices is None:
        return "String"
    return {"StringLiteral": choices[0]} if len(choices) == 1 else {"Union": list(choices)}


RESOURCES = (
    Resource(
        "/v1/database/{name_or_identity}/environment", {"GET": environment}, Access.ANONYMOUS, Lookup.BEFORE_METHOD
    ),
)
