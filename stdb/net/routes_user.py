"""Routes of modules: requests to the handlers that a module has registered, and what those answer.

Responsible for: route 30 of spec 05 section 1.2: which handler, the request as it sees it, which answers can be sent.
Not responsible for: running handlers (`stdb.actors`), what a module's author writes (`stdb.modules`), CORS
(`front_door`).

Credentials are not looked at. A handler is given all headers and, as an absolute URL, what the client asked for: of a
proxy that says so in `X-Forwarded-Proto` and `X-Forwarded-Host`, else of the header `Host`. OPTIONS never arrives.

What a handler answers is sent as it is, but for what belongs to the connection, which is the server's: such an answer,
or one that is no HTTP, becomes 500, and a line of the module's log says what was wrong with it.
"""

import re
from functools import partial
from urllib.parse import urlsplit

from stdb.actors.handle import DatabaseHandle
from stdb.actors.refusals import NoSuchRoute
from stdb.actors.sink import OutcomeKind, ReducerOutcome
from stdb.actors.visits import RouteResult
from stdb.errors import RequestError
from stdb.modules.protocol import FATAL, HTTP_1_1, HttpRequest, HttpResponse, LogLevel
from stdb.net.auth import Access
from stdb.net.errors import text_response
from stdb.net.http import Request, Response
from stdb.net.routing import ANY_METHOD, Call, Lookup, Resource

__all__ = ["HEADERS_MAX", "HEADER_BYTES_MAX", "RESOURCES"]

HEADERS_MAX = 256
"""Headers of one answer."""
HEADER_BYTES_MAX = 64 * 1024
"""Their names and values together."""

_OUT_OF_TIME = "The handler of this route took too long and was stopped."
_UNSENDABLE = "The handler of this route answered what cannot be sent; the module's log says why."
_STATUSES = {OutcomeKind.FAILED: 530, OutcomeKind.FAULT: 500, OutcomeKind.OUT_OF_TIME: 500}
"""530, as of a reducer that refuses: the module said no, and its text is for the client."""

_OF_THE_CONNECTION = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_NOT_IN_VALUES = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*\Z")
_AUTHORITY = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]+)(?::[0-9]*)?\Z")
_DIGITS = re.compile(rb"[0-9]{1,19}\Z")


async def answer_route(call: Call) -> Response:
    """Answer what the module's handler answers; it ends when the client leaves."""
    path = "/" + call.parameter("path") if "path" in call.parameters else ""
    method = call.request.method
    handle = await _handle(call)
    if not handle.has_route(method, path):
        raise NoSuchRoute
    url = _url(call.request)
    headers = tuple((name.decode("latin-1"), value) for name, value in call.request.headers.lines)
    version = HTTP_1_1 if call.request.version == "1.1" else HTTP_1_1 - 1
    async with call.shared_body(call.door.settings.stdb.route_bytes_max) as body:
        handle = await _handle(call)  # while the body came, the database may have gone
        request = HttpRequest(method, url, headers, body, version)
        result = await call.connection.while_connected(partial(handle.route, request, path))
    if isinstance(result.answer, ReducerOutcome):
        return _failure(result.answer)
    try:
        return _response(result.answer, method)
    except ValueError as error:
        _tell(handle, result, f"{method} {path or '(the empty path)'}", error)
        return text_response(_UNSENDABLE, 500)


async def _handle(call: Call) -> DatabaseHandle:
    """Return the database, running. Raises NoSuchDatabase, DatabaseUnavailable."""
    handle = call.door.host.database(call.database().identity)
    await handle.ready()
    return handle


# ---------------------------------------------------------------------- the request
def _url(request: Request) -> str:
    """Return the URL that the client asked for.

    Raises:
        RequestError: The headers that say so do not.
    """
    origin = request.origin
    if not origin:
        scheme = _forwarded(request, "x-forwarded-proto") or "http"
        host = _forwarded(request, "x-forwarded-host") or (request.headers.get("host") or b"").decode("latin-1")
        origin = f"{scheme}://{host or 'localhost'}"
    scheme, _, authority = origin.partition("://")
    if not _SCHEME.match(scheme) or not _AUTHORITY.match(authority):
        raise RequestError(f"Invalid URL: `{origin}` is no scheme and host; a proxy or the client says so in a header")
    url = origin + request.path + (f"?{request.query}" if request.query else "")
    try:
        urlsplit(url)
    except ValueError as error:
        raise RequestError(f"Invalid URL: {error}") from error
    return url


def _forwarded(request: Request, name: str) -> str:
    """Return what the first proxy, the one next to the client, put into a header."""
    return (request.headers.get(name) or b"").decode("latin-1").partition(",")[0].strip()


# ---------------------------------------------------------------------- the answer
def _failure(outcome: ReducerOutcome) -> Response:
    """Return the answer for a handler that raised; what else there is to know stands in the module's log."""
    texts = {OutcomeKind.FAILED: outcome.text_chain, OutcomeKind.OUT_OF_TIME: _OUT_OF_TIME}
    return text_response(texts.get(outcome.kind, FATAL), _STATUSES[outcome.kind])


def _response(answer: HttpResponse, method: str) -> Response:
    """Return what is sent for an answer.

    Raises:
        ValueError: It cannot be sent; says why.
    """
    status, body = answer.status, answer.body
    if type(status) is not int or not 200 <= status <= 999:
        raise ValueError(f"its status is {_shown(status)}, not a number from 200 to 999")
    if method == "CONNECT" and status < 300:
        raise ValueError(f"the status {status} to a CONNECT would open a tunnel: answer 300 or above")
    if type(body) is not bytes:
        raise ValueError(f"its body is {_shown(body)}, not bytes")
    has_body = status not in (204, 304)
    headers = _headers(answer.headers, None if method == "HEAD" or not has_body else len(body))
    if status == 204:
        headers = tuple(each for each in headers if each[0] != "content-length")
    return Response(status, headers, body if has_body else b"")


def _headers(pairs: object, length: int | None) -> tuple[tuple[str, bytes], ...]:
    """Return the headers to send; `length` is that of the body, None where none is sent.

    Names go out in lower case. What CORS says about origins is the server's; the right length it says itself.
    """
    if not isinstance(pairs, tuple | list):
        raise ValueError(f"its headers are {_shown(pairs)}, not pairs of name and value")
    if len(pairs) > HEADERS_MAX:
        raise ValueError(f"it has {len(pairs)} headers, more than {HEADERS_MAX}")
    headers = [_header(pair) for pair in pairs]
    size = sum(len(name) + len(value) for name, value in headers)
    if size > HEADER_BYTES_MAX:
        raise ValueError(f"its headers have {size} bytes, more than {HEADER_BYTES_MAX}")
    for name in ("content-length", "date"):
        if [each for each, _ in headers].count(name) > 1:
            raise ValueError(f"it has the header {name} twice")
    said = dict(headers).get("content-length")
    if said is not None and (not _DIGITS.match(said) or length not in (None, int(said))):
        raise ValueError(f"its header content-length is {_shown(said)}, its body has {length} bytes: leave it out")
    dropped = {"access-control-allow-origin"} | ({"content-length"} if length is not None else set())
    return tuple(each for each in headers if each[0] not in dropped)


def _header(pair: object) -> tuple[str, bytes]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f"among its headers is {_shown(pair)}, not a pair of name and value")
    name, value = pair
    if type(name) is not str or not _NAME.match(name):
        raise ValueError(f"among its headers is one called {_shown(name)}, which is no name of a header")
    if type(value) is not bytes or _NOT_IN_VALUES.search(value):
        raise ValueError(f"its header {name} is {_shown(value)}, not one line of bytes")
    if name.lower() in _OF_THE_CONNECTION:
        raise ValueError(f"its header {name} is about the connection, which is the server's: leave it out")
    return name.lower(), value.strip(b" \t")


def _shown(value: object) -> str:
    """Return a value of a module's, or its type where its text would be made by the module's code."""
    if type(value) in (str, bytes, int, float, bool) or value is None:
        text = repr(value)
        return text if len(text) <= 100 else text[:100] + "…"
    return f"a {type.__name__ if isinstance(value, type) else type(value).__name__}"


def _tell(handle: DatabaseHandle, result: RouteResult, asked: str, error: ValueError) -> None:
    text = f"the answer of the handler {result.handler} to {asked} was not sent: {error}"
    handle.log.write(LogLevel.ERROR, text, function=result.handler)


_METHODS = {ANY_METHOD: answer_route}
RESOURCES = (
    Resource("/v1/database/{name_or_identity}/route", _METHODS, Access.NONE, Lookup.BEFORE_METHOD),
    Resource("/v1/database/{name_or_identity}/route/{*path}", _METHODS, Access.NONE, Lookup.BEFORE_METHOD),
)
