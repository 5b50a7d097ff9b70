"""Attachment: one client's place at a database, seen from both sides.

Responsible for: handing requests in, leaving, and the marks the DatabaseActor keeps on a client.
Not responsible for: serving the requests (`database`), what leaves the server (`sink`).

Everything here is synchronous but the waiting; a connection task may be cancelled at any of its awaits and calls
`detach_nowait` on its way out.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from stdb.actors.requests import Request
from stdb.actors.sink import Client, ClientSink

if TYPE_CHECKING:
    from stdb.actors.database import DatabaseActor
    from stdb.subscriptions.actor import SubscriptionActor

__all__ = ["QUEUED_REQUESTS_MAX", "Attachment"]

QUEUED_REQUESTS_MAX = 16_384
"""Requests of one client that may wait unless the server is told otherwise; above it the client is closed with 1013
(DESIGN decision 8)."""


class Attachment:
    """One client connection at one database, from `DatabaseHandle.attach` until `wait_detached` returns."""

    __slots__ = (
        "_actor",
        "_detached",
        "_is_leaving",
        "_queued_max",
        "client",
        "is_connected",
        "queued",
        "session_id",
        "sink",
        "subscriber",
        "token",
    )

    def __init__(
        self,
        actor: "DatabaseActor",
        client: Client,
        sink: ClientSink,
        token: str,
        session_id: bytes | None,
        queued_max: int,
    ) -> None:
        self._actor = actor
        self._queued_max = queued_max
        self._detached = trio.Event()
        self._is_leaving = False
        self.client = client
        self.sink = sink
        self.token = token
        self.session_id = session_id
        # The rest belongs to the DatabaseActor.
        self.subscriber: SubscriptionActor | None = None
        self.is_connected = False
        """`client_connected` committed and `client_disconnected` did not run yet."""
        self.queued = 0
        """Requests handed in and not yet served."""

    @property
    def is_attached(self) -> bool:
        """Tell whether requests are still taken."""
        return not self._is_leaving

    def submit_nowait(self, requests: Sequence[Request]) -> None:
        """Hand in requests; they are served in order. Ignored once the client is leaving.

        With more than `queued_max` waiting the client is closed with 1013 and detached; what waits still runs.
        """
        if self._is_leaving or not requests:
            return
        self.queued += len(requests)
        if self.queued > self._queued_max:
            self.queued -= len(requests)
            self.sink.close(1013, "too many requests")
            self.detach_nowait()
            return
        self._actor.submit_nowait(self, requests)

    def detach_nowait(self) -> None:
        """Leave after the requests handed in so far; may be called twice."""
        if not self._is_leaving:
            self._is_leaving = True
            self._actor.post_nowait((None, lambda: self._actor.connections.disconnect(self)))

    def close_nowait(self, code: int | None, reason: str) -> None:
        """Close the client behind the answers to the requests handed in so far; what it asks later is not served."""
        if not self._is_leaving:
            self._actor.post_nowait((None, lambda: self._actor.connections.close(self.sink, code, reason)))

    async def wait_detached(self) -> None:
        """Return once `client_disconnected` ran (or never has to)."""
        await self._detached.wait()

    async def wait_not_crowded(self) -> None:
        """Return at once unless all clients of the database together have too many requests waiting."""
        await self._actor.wait_not_crowded()

    def mark_gone(self) -> None:
        """Let `wait_detached` return; called by the DatabaseActor or whoever buries it."""
        self._is_leaving = True
        self._detached.set()
