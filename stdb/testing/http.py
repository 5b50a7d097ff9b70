"""Answers of other servers, written down: what procedures under test get from `ctx.http`.

Responsible for: `FakeHttp`.
Not responsible for: the hosts that it is given to (`hosts`), the real client (`stdb.net.http_client`).
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import trio

from stdb.errors import HttpError
from stdb.modules.protocol import HttpRequest, HttpResponse

__all__ = ["Answer", "FakeHttp"]

Answer: TypeAlias = HttpResponse | HttpError | Callable[[HttpRequest], HttpResponse]
"""A response, an error to raise, or a function that makes a response of the request or raises HttpError."""


class FakeHttp:
    """An `HttpSender` without sockets: answers by URL, remembers what it was asked.

    http = FakeHttp({"https://api.example/rate": HttpResponse(200, (), b"1.25")})
    async with open_host(programs, http=http) as host: ...
    """

    def __init__(self, answers: Mapping[str, Answer], delay_s: float = 0.0) -> None:
        self.answers = dict(answers)
        """By URL; may be changed at any time."""
        self.delay_s = delay_s
        """How long every answer takes, in the clock of the test."""
        self.requests: list[HttpRequest] = []
        """Everything that was asked, in order."""
        self.under_way = 0
        """Requests that wait for their answer."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Answer a request.

        Raises:
            HttpError: The answer is one, or there is no answer for this URL.
        """
        self.requests.append(request)
        self.under_way += 1
        try:
            await trio.sleep(self.delay_s)
        finally:
            self.under_way -= 1
        answer = self.answers.get(request.url)
        if answer is None:
            raise HttpError(f"the test has no answer for {request.method} {request.url}; it has {sorted(self.answers)}")
        if isinstance(answer, HttpError):
            raise answer
        return answer if isinstance(answer, HttpResponse) else answer(request)
