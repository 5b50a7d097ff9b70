"""Outgoing: the requests that the procedures of one database send to other servers.

Responsible for: what sends them (a Protocol that the server implements), how many at once, how long each may take.
Not responsible for: addresses, sizes and bytes (`stdb.net.http_client`), what a module sees of it (`stdb.modules`).

Rules: spec 04 section 3.7.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from stdb.errors import HttpError
from stdb.modules.protocol import HttpRequest, HttpResponse

__all__ = ["HttpSender", "NoHttp", "Outgoing", "without_credentials"]

REQUESTS_MAX = 32
"""Requests of one database under way at once; others wait their turn, which counts as part of their time."""
SECONDS = 30.0
"""How long a request may take unless it says so itself."""
SECONDS_MAX = 180.0
"""How long it may say."""

_USERINFO = re.compile(r"(//)[^/?#]*@")


class HttpSender(Protocol):
    """Sends requests to other servers; one for all databases of a server."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send a request and return the response, whatever its status. May be cancelled, and then leaves nothing open.

        Raises:
            HttpError: There is no response; says why.
        """


class NoHttp:
    """Sends nothing."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Refuse. Raises HttpError."""
        raise HttpError(
            f"this server sends no HTTP requests: {request.method} {without_credentials(request.url)} was not sent"
        )


class _UnderWay:
    """One request: what ends it, and how it ended."""

    __slots__ = ("ended", "outcome", "scope")

    def __init__(self, seconds: float) -> None:
        self.scope = trio.CancelScope(deadline=trio.current_time() + seconds)
        self.ended = trio.Event()
        self.outcome: HttpResponse | Exception | None = None


class Outgoing:
    """The requests of one database; they are sent while it is open."""

    def __init__(self, sender: HttpSender, requests_max: int = REQUESTS_MAX) -> None:
        self._sender = sender
        self._turn = trio.Semaphore(requests_max)
        self._nursery: trio.Nursery | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Send requests for as long as the block runs; its end ends those under way."""
        async with trio.open_nursery() as self._nursery:
            try:
                yield
            finally:
                self._nursery.cancel_scope.cancel()

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send a request of the procedure whose task this is, and return the response.

        Raises:
            HttpError: There is no response, or none in time.
        """
        assert self._nursery is not None, "not open"
        seconds = SECONDS if request.timeout_us is None else min(max(request.timeout_us / 1e6, 0.0), SECONDS_MAX)
        under_way = _UnderWay(seconds)
        # beside the procedure's task: what runs in that one counts as its code, and its time limit interrupts it. And
        # in no nursery of that task: it may be ended at this wait by closing its coroutine, which no nursery survives.
        self._nursery.start_soon(self._send, request, under_way)
        try:
            await under_way.ended.wait()
        finally:
            under_way.scope.cancel()
        outcome, under_way.outcome = under_way.outcome, None
        if outcome is None:
            raise HttpError(
                f"error sending request for url ({without_credentials(request.url)}): operation timed out: "
                f"no whole response within {seconds:g} s"
            )
        if isinstance(outcome, Exception):
            try:
                raise outcome
            finally:
                del outcome  # raised, it refers to this frame: they would hold each other
        return outcome

    async def _send(self, request: HttpRequest, under_way: _UnderWay) -> None:
        try:
            with under_way.scope:
                async with self._turn:
                    under_way.outcome = await self._sender.send(request)
        except Exception as error:  # noqa: BLE001 - raised where the procedure waits
            under_way.outcome = error
        finally:
            under_way.ended.set()


def without_credentials(url: str) -> str:
    """Return a URL, as a text may show it, without the name and password in it."""
    return _USERINFO.sub(r"\1", url, count=1)
