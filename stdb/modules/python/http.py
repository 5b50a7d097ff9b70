"""HTTP as a module sees it: requests to its routes, responses of theirs, what procedures ask of other servers.

Responsible for: `Headers`, `Request`, `Response`, `ClientResponse`, `HttpClient`.
Not responsible for: which function answers (`routes`), sockets, limits and addresses (`ProcedureHost`).

Source: spec 08, "Functions"; spec 04 section 3.7; spec 05 route 30.
"""

import json as json_module
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from stdb.modules.protocol import HttpRequest, HttpResponse
from stdb.modules.python.pending import pending

if TYPE_CHECKING:
    from stdb.modules.protocol import ProcedureHost
    from stdb.modules.python.output import Output

__all__ = ["ClientResponse", "Headers", "HeadersLike", "HttpClient", "QueryString", "Request", "Response"]

TIMEOUT_SECONDS = 30.0
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_NOT_IN_VALUES = re.compile(r"[\x00\r\n]")
HeadersLike: TypeAlias = Mapping[str, "str | bytes"] | Iterable[tuple[str, "str | bytes"]]


class _Multi(Mapping[str, str]):
    """Texts by name; the first one where a name comes several times."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._pairs = tuple(pairs)

    def _same(self, name: str) -> str:
        return name

    def __getitem__(self, name: str) -> str:
        """Return the first text of that name.

        Raises:
            KeyError: There is none.
        """
        for text in self._texts(name):
            return text
        raise KeyError(name)

    def get_all(self, name: str) -> list[str]:
        """Return every text of that name, in order."""
        return list(self._texts(name))

    def __iter__(self) -> Iterator[str]:
        """Return the names, each once."""
        return iter(dict.fromkeys(self._same(name) for name, _ in self._pairs))

    def __len__(self) -> int:
        """Return how many names there are."""
        return len({self._same(name) for name, _ in self._pairs})

    def pairs(self) -> list[tuple[str, str]]:
        """Return everything, in order."""
        return list(self._pairs)

    def __repr__(self) -> str:
        """Return everything, in order."""
        return f"{type(self).__name__}({list(self._pairs)!r})"

    def _texts(self, name: str) -> Iterator[str]:
        wanted = self._same(name)
        return (text for known, text in self._pairs if self._same(known) == wanted)


class Headers(_Multi):
    """The headers of a request or response; names in any case, listed in lower case."""

    __slots__ = ()

    def _same(self, name: str) -> str:
        return name.lower()


class QueryString(_Multi):
    """The query of a URL, `?a=1&b=2`."""

    __slots__ = ()


class _Message:
    """What requests and responses have in common: headers and a body."""

    headers: Headers
    body: bytes

    @property
    def text(self) -> str:
        """The body as text, by the charset of the content type (UTF-8 unless given); what does not decode is U+FFFD."""
        charset = re.search(r"charset=\"?([\w.:-]+)", self.headers.get("content-type", ""), re.IGNORECASE)
        try:
            return self.body.decode(charset[1] if charset else "utf-8", "replace")
        except LookupError:
            return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Return the body's JSON.

        Raises:
            ValueError: It is none.
        """
        return json_module.loads(self.body)


class Request(_Message):
    """A request to a route."""

    def __init__(self, request: HttpRequest, path: str) -> None:
        self.method: str = request.method
        """In capitals."""
        self.url: str = request.url
        """Absolute, with the query."""
        self.path: str = path
        """The path of the route, `/hello`."""
        self.query: QueryString = QueryString(parse_qsl(urlsplit(request.url).query, keep_blank_values=True))
        """What stands behind `?`."""
        self.headers = _headers_of(request.headers)
        self.body = request.body

    def __repr__(self) -> str:
        """Return method and URL."""
        return f"<Request {self.method} {self.url}>"


class ClientResponse(_Message):
    """What another server answered to `ctx.http`."""

    def __init__(self, response: HttpResponse, url: str) -> None:
        self.status: int = response.status
        """200 and so on; a status of 400 and above raises nothing."""
        self.url = url
        self.headers = _headers_of(response.headers)
        self.body = response.body

    def __repr__(self) -> str:
        """Return status and URL."""
        return f"<ClientResponse {self.status} {self.url}>"


class Response:
    """What a route answers."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, body: bytes | str = b"", *, status: int = 200, headers: HeadersLike = ()) -> None:
        """Make a response; text is sent as UTF-8, as plain text unless `headers` give another content type.

        Raises:
            TypeError: The body is neither bytes nor text.
            ValueError: There is no such status, or a header that would break the message.
        """
        if not isinstance(body, bytes | str):
            raise TypeError(f"the body of a Response is bytes or str, got {body!r}; Response.json(value) takes a value")
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(f"a Response has a status from 200 to 599, got {status!r}")
        self.status = status
        pairs = _wire_headers(headers)
        if isinstance(body, str) and not any(name.lower() == "content-type" for name, _ in pairs):
            pairs = (*pairs, ("content-type", b"text/plain; charset=utf-8"))
        self.headers = pairs
        self.body = body.encode() if isinstance(body, str) else body

    @classmethod
    def json(cls, value: Any, *, status: int = 200, headers: HeadersLike = ()) -> "Response":
        """Return a response whose body is JSON."""
        pairs = _wire_headers(headers)
        if not any(name.lower() == "content-type" for name, _ in pairs):
            pairs = (*pairs, ("content-type", b"application/json"))
        return cls(json_module.dumps(value, ensure_ascii=False).encode(), status=status, headers=pairs)

    def to_wire(self) -> HttpResponse:
        """Return what is sent."""
        return HttpResponse(self.status, self.headers, self.body)

    def __repr__(self) -> str:
        """Return the status."""
        return f"<Response {self.status}, {len(self.body)} bytes>"


class HttpClient:
    """What `ctx.http` is: asks other servers. Every method returns a response whatever its status.

    Raises:
        HttpError: There is no response: the server cannot be reached or may not be, is too slow or answers too much.
    """

    def __init__(self, host: "ProcedureHost", output: "Output") -> None:
        self._host = host
        self._output = output

    @pending("ctx.http.get")
    async def get(self, url: str, *, headers: HeadersLike = (), timeout_s: float = TIMEOUT_SECONDS) -> ClientResponse:
        """Send a GET request."""
        return await self.request("GET", url, headers=headers, timeout_s=timeout_s)

    @pending("ctx.http.post")
    async def post(
        self,
        url: str,
        *,
        headers: HeadersLike = (),
        body: bytes | str | None = None,
        json: Any = None,
        timeout_s: float = TIMEOUT_SECONDS,
    ) -> ClientResponse:
        """Send a POST request."""
        return await self.request("POST", url, headers=headers, body=body, json=json, timeout_s=timeout_s)

    @pending("ctx.http.put")
    async def put(
        self,
        url: str,
        *,
        headers: HeadersLike = (),
        body: bytes | str | None = None,
        json: Any = None,
        timeout_s: float = TIMEOUT_SECONDS,
    ) -> ClientResponse:
        """Send a PUT request."""
        return await self.request("PUT", url, headers=headers, body=body, json=json, timeout_s=timeout_s)

    @pending("ctx.http.delete")
    async def delete(
        self, url: str, *, headers: HeadersLike = (), timeout_s: float = TIMEOUT_SECONDS
    ) -> ClientResponse:
        """Send a DELETE request."""
        return await self.request("DELETE", url, headers=headers, timeout_s=timeout_s)

    @pending("ctx.http.request")
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: HeadersLike = (),
        body: bytes | str | None = None,
        json: Any = None,
        timeout_s: float = TIMEOUT_SECONDS,
    ) -> ClientResponse:
        """Send a request and return the response, whatever its status.

        Args:
            method: GET and so on.
            url: An absolute URL.
            headers: A mapping, or pairs where a name comes again.
            body: What is sent; text as UTF-8.
            json: A value that is sent as JSON instead of `body`.
            timeout_s: Seconds to wait for the whole response; the server has a maximum of its own.

        Raises:
            HttpError: There is no response; says why.
        """
        if not isinstance(url, str) or not isinstance(method, str) or not _NAME.match(method):
            raise TypeError(f"a request has a method and a URL as text, got {method!r} and {url!r}")
        if not timeout_s > 0:
            raise ValueError(f"timeout_s is a number of seconds above 0, got {timeout_s!r}")
        pairs, data = _content(_wire_headers(headers), body, json)
        timeout_us = min(round(timeout_s * 1_000_000), 2**62) if timeout_s < 1e12 else 2**62
        response = await self._host.http(HttpRequest(method.upper(), url, pairs, data, timeout_us=timeout_us))
        return ClientResponse(response, url)


def _content(
    headers: tuple[tuple[str, bytes], ...], body: bytes | str | None, json: Any
) -> tuple[tuple[tuple[str, bytes], ...], bytes]:
    """Return headers and body of a request."""
    if json is None:
        data, kind = (body or b""), b"text/plain; charset=utf-8"
    elif body is None:
        data, kind = json_module.dumps(json, ensure_ascii=False), b"application/json"
    else:
        raise TypeError("a request has a body or json=…, not both")
    if isinstance(data, str):
        if not any(name.lower() == "content-type" for name, _ in headers):
            headers = (*headers, ("content-type", kind))
        data = data.encode()
    if not isinstance(data, bytes):
        raise TypeError(f"the body of a request is bytes or str, got {body!r}; json=… takes a value")
    return headers, data


def _wire_headers(headers: HeadersLike) -> tuple[tuple[str, bytes], ...]:
    """Return headers as they are sent.

    Raises:
        ValueError: A name or value that would break the message.
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return tuple(_wire_header(name, value) for name, value in pairs)


def _wire_header(name: str, value: str | bytes) -> tuple[str, bytes]:
    if not isinstance(name, str) or not _NAME.match(name):
        raise ValueError(f"{name!r} is no name of a header")
    text = value if isinstance(value, str) else value.decode("latin-1")
    if _NOT_IN_VALUES.search(text):
        raise ValueError(f"the header {name} has no value {value!r}: it is one line")
    return name, text.encode() if isinstance(value, str) else value


def _headers_of(pairs: tuple[tuple[str, bytes], ...]) -> Headers:
    return Headers((name, _text_of(value)) for name, value in pairs)


def _text_of(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
