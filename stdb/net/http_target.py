"""Targets: what a request to another server consists of, from a URL and headers that a module wrote.

Responsible for: which URLs, methods and headers are sent, what is left of them at a redirect.
Not responsible for: addresses (`addresses`), connections and responses (`http_client`).

Source: spec 04 section 3.7 (texts); which headers a redirect keeps follows browsers.
"""

import base64
import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import httpx

from stdb.actors.outgoing import without_credentials
from stdb.errors import HttpError
from stdb.modules.protocol import HttpRequest
from stdb.net.addresses import literal

__all__ = ["Ask", "HeaderList", "Target", "ask_of", "follow", "parse_target"]

HeaderList = tuple[tuple[bytes, bytes], ...]

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"(?=.{1,253}\.?\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?\Z", re.ASCII)
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}\Z")
_OURS = frozenset(
    (b"connection", b"expect", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
"""Headers that are about the connection, which is the server's."""
_SECRET = frozenset((b"authorization", b"cookie", b"cookie2", b"host", b"proxy-authorization"))
"""Headers that another server than the one they were meant for does not get."""
_OF_BODY = frozenset(
    (b"content-encoding", b"content-language", b"content-length", b"content-location", b"content-type")
)
"""Headers about a body, which go when a redirect turns the request into one without."""
_DEFAULTS: HeaderList = ((b"user-agent", b"stdb"), (b"accept", b"*/*"), (b"accept-encoding", b"identity"))


class Target(NamedTuple):
    """Where a request goes."""

    url: httpx.URL
    """Without name, password and fragment."""
    scheme: str
    host: str
    """As it is looked up: ASCII, lower case, an IPv6 address without brackets."""
    port: int
    credentials: bytes
    """`name:password` of the URL, as written; empty: none."""

    def __str__(self) -> str:
        """Return the URL."""
        return str(self.url)

    @property
    def authority(self) -> bytes:
        """Return what the header `Host` says."""
        return self.url.netloc

    @property
    def origin(self) -> tuple[str, str, int]:
        """Return what two targets of one server have in common."""
        return self.scheme, self.host, self.port


class Ask(NamedTuple):
    """One request as it is sent, but for `Host`, defaults and framing."""

    method: str
    target: Target
    headers: HeaderList
    body: bytes

    def wire_headers(self) -> list[tuple[bytes, bytes]]:
        """Return all headers."""
        given = {name.lower() for name, _ in self.headers}
        headers = [] if b"host" in given else [(b"Host", self.target.authority)]
        headers += self.headers
        headers += [pair for pair in _DEFAULTS if pair[0] not in given]
        if b"content-length" not in given and (self.body or self.method in ("POST", "PUT", "PATCH")):
            headers.append((b"content-length", b"%d" % len(self.body)))
        headers.append((b"connection", b"close"))
        return headers


def parse_target(text: str, base: Target | None = None) -> Target:
    """Return the target that a URL means; a relative one only with a base.

    Raises:
        HttpError: It is no URL, or none that can be asked.
    """
    if not text and base is None:
        raise HttpError("empty string")
    shown = without_credentials(text)
    try:
        url = httpx.URL(text) if base is None else base.url.join(text)
        credentials = url.userinfo
        url = url.copy_with(userinfo=b"", fragment=None)
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        raise HttpError(f"builder error: {error}") from error
    if not url.scheme:
        raise HttpError("builder error: relative URL without a base")
    if url.scheme not in _PORTS:
        raise HttpError(f"builder error for url ({shown}): URL scheme is not allowed")
    host = url.raw_host.decode("ascii").lower()
    if not host:
        raise HttpError(f"builder error for url ({shown}): empty host")
    if not (_HOST.match(host) or (":" in host and "%" not in host and literal(host) is not None)):
        raise HttpError(f"builder error for url ({shown}): invalid international domain name")
    port = _PORTS[url.scheme] if url.port is None else url.port
    if not 0 < port < 65536:
        raise HttpError(f"builder error for url ({shown}): invalid port number")
    return Target(url, url.scheme, host, port, credentials)


def ask_of(request: HttpRequest) -> Ask:
    """Return what is sent for a request of a module.

    Raises:
        HttpError: Its URL, its method or a header is none that is sent.
    """
    target = parse_target(request.url)
    method = request.method
    if not _METHOD.match(method) or method == "CONNECT":
        raise HttpError(f"builder error for url ({target}): the method {request.method[:64]!r} is not sent")
    headers = tuple(_header(target, name, value) for name, value in request.headers)
    names = [name.lower() for name, _ in headers]
    for name, value in zip(names, (value for _, value in headers), strict=True):
        if name in _OURS:
            raise HttpError(f"builder error for url ({target}): the header {name.decode()} is the server's own to send")
        if name in (b"host", b"content-length") and names.count(name) > 1:
            raise HttpError(f"builder error for url ({target}): there is more than one header {name.decode()}")
        if name == b"content-length" and value != b"%d" % len(request.body):
            raise HttpError(
                f"builder error for url ({target}): content-length is {value.decode('latin-1')}, "
                f"the body has {len(request.body)} bytes"
            )
    if target.credentials and b"authorization" not in names:
        token = base64.b64encode(unquote_to_bytes(target.credentials))
        headers = (*headers, (b"authorization", b"Basic " + token))
    return Ask(method, target, headers, request.body)


def follow(ask: Ask, status: int, headers: HeaderList) -> Ask | None:
    """Return what to ask next when a response sends one on to another place, None when it is the answer.

    Raises:
        HttpError: The place is none that can be asked.
    """
    places = [value for name, value in headers if name == b"location"]
    if status not in (301, 302, 303, 307, 308) or len(places) != 1:
        return None
    try:
        target = parse_target(places[0].decode("utf-8", "replace"), ask.target)
    except HttpError as error:
        raise HttpError(f"error following redirect for url ({ask.target}): {error}") from error
    method, body, kept = ask.method, ask.body, ask.headers
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        method, body = "GET", b""
        kept = tuple(pair for pair in kept if pair[0].lower() not in _OF_BODY)
    if target.origin != ask.target.origin:
        kept = tuple(pair for pair in kept if pair[0].lower() not in _SECRET)
    return Ask(method, target, kept, body)


def _header(target: Target, name: str, value: bytes) -> tuple[bytes, bytes]:
    if not _METHOD.match(name) or any(byte < 32 and byte != 9 for byte in value) or b"\x7f" in value:
        raise HttpError(f"builder error for url ({target}): {name[:64]!r} is no header, or its value is none")
    return name.encode(), value.strip(b" \t")
