"""Context: what a reducer is told of the call that it serves.

Responsible for: `ReducerContext`, the author's view of a `ReducerCall`; what it shares with other contexts.
Not responsible for: tables (`database`), running the call (`module`).

Source: spec 08, "Functions".
"""

import json
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from stdb.modules.python.environment import Variables
from stdb.sats.special import Address, Identity, Timestamp

if TYPE_CHECKING:
    from stdb.modules.environment import Environment
    from stdb.modules.protocol import ReducerCall
    from stdb.modules.python.database import Database

__all__ = ["MAKERS", "OF_EVERY_CALL", "WAITS", "Circumstances", "ReducerContext", "Surroundings"]

WAITS = ("transact", "sleep", "http", "now")
"""Attributes of contexts whose functions may wait."""
OF_EVERY_CALL = ("timestamp", "database_identity", "rng", "env")
"""Attributes of contexts of functions that nobody in particular calls."""


class Circumstances(Protocol):
    """What is known of every call."""

    @property
    def timestamp_us(self) -> int:
        """When it began, in microseconds since 1970."""


class Surroundings(NamedTuple):
    """What is the same for every call of a module that is attached."""

    identity: bytes
    """Of the database."""
    environment: "Environment"


class ReducerContext:
    """Who called, when, and the tables. Valid during the call; what is costly is made when it is first read."""

    db: "Database"
    """The module's tables."""
    sender: Identity
    """Who called."""
    address: Address | None
    """Which connection the call came over; None when it came over none (the scheduler, `init`)."""
    connection_id: Address | None
    """The same as `address`."""
    timestamp: Timestamp
    """When the call began."""
    database_identity: Identity
    """Which database this is."""
    rng: Random
    """Random numbers that depend on the time and the caller of this call alone, so that a replay gives the same."""
    sender_auth: dict[str, Any]
    """The claims of the caller's token; empty when the call came with none."""

    env: Variables
    """The module's environment variables."""

    def __init__(self, db: "Database", call: "ReducerCall", around: Surroundings) -> None:
        self.db = db
        self._call = call
        self._around = around

    if not TYPE_CHECKING:  # a type checker would believe that every attribute exists

        def __getattr__(self, name: str) -> Any:
            """Make an attribute that was not read before."""
            if name not in MAKERS:
                if name in WAITS:
                    instead = "it runs without waiting; use a @procedure"
                    raise AttributeError(f"a reducer's context has no {name}: {instead}")
                raise AttributeError(f"a reducer's context has no attribute {name!r}; it has db, {', '.join(MAKERS)}")
            value = MAKERS[name](self)
            setattr(self, name, value)
            return value


def _address(ctx: Any) -> Address | None:
    connection_id = ctx._call.connection_id
    return None if connection_id is None else Address(connection_id)


def _rng(ctx: Any) -> Random:
    return Random(ctx._call.timestamp_us.to_bytes(8, "little", signed=True) + getattr(ctx._call, "sender", b""))


def _sender_auth(ctx: Any) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(ctx._call.credentials) if ctx._call.credentials else {}
    return claims


MAKERS: dict[str, Callable[[Any], Any]] = {
    "sender": lambda ctx: Identity(ctx._call.sender),
    "address": _address,
    "connection_id": lambda ctx: ctx.address,
    "timestamp": lambda ctx: Timestamp(ctx._call.timestamp_us),
    "database_identity": lambda ctx: Identity(ctx._around.identity),
    "rng": _rng,
    "env": lambda ctx: Variables(ctx._around.environment),
    "sender_auth": _sender_auth,
}
"""By attribute of a context: makes it of the context's `_call` and `_around`."""
