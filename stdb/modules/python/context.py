"""Context: what a reducer is told of the call that it serves.

Responsible for: `ReducerContext`, the author's view of a `ReducerCall`.
Not responsible for: tables (`database`), running the call (`module`).

Source: spec 08, "Functions".
"""

import json
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Any

from stdb.sats.special import Address, Identity, Timestamp

if TYPE_CHECKING:
    from stdb.modules.protocol import ReducerCall
    from stdb.modules.python.database import Database

__all__ = ["ReducerContext"]


class ReducerContext:
    """Who called, when, and the tables. Valid during the call; attributes are made when they are first read."""

    db: "Database"
    """The module's tables."""

    def __init__(self, db: "Database", call: "ReducerCall", database_identity: bytes) -> None:
        self.db = db
        self._call = call
        self._database_identity = database_identity

    @cached_property
    def sender(self) -> Identity:
        """Who called."""
        return Identity(self._call.sender)

    @cached_property
    def address(self) -> Address | None:
        """Which connection the call came over; None when it came over none (the scheduler, `init`)."""
        connection_id = self._call.connection_id
        return None if connection_id is None else Address(connection_id)

    @property
    def connection_id(self) -> Address | None:
        """The same as `address`."""
        return self.address

    @cached_property
    def timestamp(self) -> Timestamp:
        """When the call began."""
        return Timestamp(self._call.timestamp_us)

    @cached_property
    def database_identity(self) -> Identity:
        """Which database this is."""
        return Identity(self._database_identity)

    @cached_property
    def rng(self) -> Random:
        """Random numbers that depend on the time and the caller of this call alone, so that a replay gives the same."""
        return Random(self._call.timestamp_us.to_bytes(8, "little", signed=True) + self._call.sender)

    @cached_property
    def sender_auth(self) -> dict[str, Any]:
        """The claims of the caller's token; empty when the call came with none."""
        credentials = self._call.credentials
        claims: dict[str, Any] = json.loads(credentials) if credentials else {}
        return claims
