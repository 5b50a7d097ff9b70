"""Routes about energy, which this server does not meter: identities have what was added to them.

Responsible for: routes 10 and 11 of spec 05 section 1.2, and their like in 0.11 (spec 03 section 8.3).
"""

from functools import partial

import trio

from stdb.net.auth import Access
from stdb.net.errors import HttpError, json_response
from stdb.net.http import Response
from stdb.net.legacy_paths import below_prefixes
from stdb.net.query import QueryStringError
from stdb.net.routing import Call, Resource

__all__ = ["RESOURCES"]


async def balance(call: Call) -> Response:
    """Answer with what an identity has."""
    return _shown(call.door.host.control.balance(call.identity().wire))


async def add(call: Call) -> Response:
    """Add `amount` to what the caller has, whoever the path names; without it, answer with the present balance."""
    call.identity()
    await call.authenticate(Access.REQUIRED)
    try:
        amount = call.query.number("amount", 128)
    except QueryStringError as error:
        raise HttpError(400) from error
    control, caller = call.door.host.control, call.caller.identity
    if amount is None:
        return _shown(control.balance(caller))
    return _shown(await trio.to_thread.run_sync(partial(control.add_balance, caller, amount)))


async def set_balance(call: Call) -> Response:
    """Refuse: nobody may set a balance."""
    call.identity()
    await call.authenticate(Access.REQUIRED)
    raise HttpError(401)


def _shown(amount: int) -> Response:
    return json_response({"balance": str(amount)})


_PATH = "/energy/{identity}"

RESOURCES = (  # the path is checked before the token, so handlers ask for it
    Resource(f"/v1{_PATH}", {"GET": balance, "PUT": set_balance, "POST": add}, Access.NONE),
    *below_prefixes([Resource(_PATH, {"GET": balance, "PUT": add, "POST": set_balance}, Access.NONE)]),
)
