"""Outgoing: the requests that the procedures of one database send to other servers.

Responsible for: what sends them (a Protocol that the server implements), how many at once, how long each may take.
Not responsible for: addresses, sizes and bytes (`stdb.net.http_client`), what a module sees of it (`stdb.modules`).

Rules: spec 04 section 3.7.
"""

import re
from typing import Protocol

import trio

from stdb.errors import HttpError
from stdb.modules.protocol import HttpRequest, HttpResponse

__all__ = ["HttpSender", "NoHttp", "Outgoing"]

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
        raise HttpError(f"this server sends no HTTP requests: {request.method} {_shown(request.url)} was not sent")


class Outgoing:
    """The requests of one database."""

    def __init__(self, sender: HttpSender, requests_max: int = REQUESTS_MAX) -> None:
        self._sender = sender
        self._turn = trio.Semaphore(requests_max)

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send a request of the procedure whose task this is, and return the response.

        Raises:
            HttpError: There is no response, or none in time.
        """
        seconds = SECONDS if request.timeout_us is None else min(max(request.timeout_us / 1e6, 0.0), SECONDS_MAX)
        ended: list[HttpResponse | HttpError] = []
        with trio.move_on_after(seconds):
            # beside the procedure's task: what runs in that one counts as its code, and its time limit interrupts it
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send, request, ended)
        if not ended:
            raise HttpError(
                f"error sending request for url ({_shown(request.url)}): operation timed out: "
                f"no whole response within {seconds:g} s"
            )
        [outcome] = ended
        if isinstance(outcome, HttpError):
            raise outcome
        return outcome

    async def _send(self, request: HttpRequest, ended: list[HttpResponse | HttpError]) -> None:
        async with self._turn:
            try:
                ended.append(await self._sender.send(request))
            except HttpError as error:
                ended.append(error)


def _shown(url: str) -> str:
    """Return a URL without the name and password in it."""
    return _USERINFO.sub(r"\1", url, count=1)
