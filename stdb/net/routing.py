"""Routing: a path and a method to a handler, and what is checked before the handler runs.

Responsible for: the table of resources, path parameters, names and identities in paths, the order of the checks.
Not responsible for: HTTP itself (`http`), what handlers do (`routes_*`).

Source: spec 05 sections 1.1 and 1.2; the order is the recorded server's: path, OPTIONS, credentials, name in the
path, its database, method.
"""

import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from urllib.parse import unquote_to_bytes

from stdb.actors.refusals import NoSuchDatabase, TooBusy
from stdb.actors.sink import Client
from stdb.errors import AuthError, RequestError, StdbError
from stdb.net.auth import Access, presented_token
from stdb.net.claims import parse_identity
from stdb.net.errors import HttpError, error_response
from stdb.net.http import BODY_BYTES_MAX, BodyTooLarge, HttpConnection, Request, Response
from stdb.net.query import Query
from stdb.net.tokens import Credentials, Tokens
from stdb.sats.names import database_name_error
from stdb.sats.special import Identity

if TYPE_CHECKING:
    from stdb.net.front_door import FrontDoor

__all__ = [
    "ANY_METHOD",
    "MODERN",
    "Call",
    "Conventions",
    "Database",
    "Handler",
    "Lookup",
    "Resource",
    "Router",
    "Upgraded",
    "hex_of",
]

ANY_METHOD = "*"
"""Among the methods of a resource: every one that has no handler of its own."""
_IDENTITY = re.compile(r"(?:0x)?([0-9a-fA-F]{64})", re.ASCII)


class Upgraded(NamedTuple):
    """What a handler returns that has taken the connection over: nothing is left to answer, `serve` does the rest."""

    serve: Callable[[], Awaitable[None]]


Handler: TypeAlias = Callable[["Call"], Awaitable[Response | Upgraded]]


class Lookup:
    """When the database that a path names must exist."""

    NEVER, BEFORE_METHOD = range(2)


class Conventions(NamedTuple):
    """How the paths of one generation take credentials, and what errors become there."""

    presented_token: Callable[[Request, Query], str | None]
    validate: Callable[[Tokens, str], Awaitable[Credentials]]
    error_response: Callable[[StdbError], Response | None]


MODERN = Conventions(presented_token, Tokens.validate, error_response)
"""From 1.0 on."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One path and its methods. A segment `{x}` is a parameter, a last one `{*x}` is the rest of the path, slashes
    and nothing included. GET answers HEAD as well; ANY_METHOD answers every method by itself.
    """

    path: str
    methods: Mapping[str, Handler]
    access: Access
    lookup: int = Lookup.NEVER
    conventions: Conventions = MODERN
    segments: tuple[str, ...] = field(init=False)
    allow: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "segments", tuple(self.path.split("/")[1:]))
        listed = [word for name in self.methods for word in (("GET", "HEAD") if name == "GET" else (name,))]
        object.__setattr__(self, "allow", "" if ANY_METHOD in listed else ",".join(listed))

    def handler(self, method: str) -> Handler | None:
        """Return who serves a method, or None."""
        return self.methods.get("GET" if method == "HEAD" else method) or self.methods.get(ANY_METHOD)


class Router:
    """The resources of a server."""

    def __init__(self, resources: Sequence[Resource]) -> None:
        self._by_length: dict[int, list[Resource]] = {}
        self._open: list[Resource] = []
        for resource in resources:
            if resource.segments[-1].startswith("{*"):
                self._open.append(resource)
            else:
                self._by_length.setdefault(len(resource.segments), []).append(resource)

    def match(self, path: str) -> tuple[Resource, dict[str, str]] | None:
        """Return the resource of a path with its parameters, still percent-encoded; None for an unknown path."""
        segments = path.split("/")[1:]
        for resource in self._by_length.get(len(segments), ()):
            parameters = _match(resource.segments, segments)
            if parameters is not None:
                return resource, parameters
        for resource in self._open:
            last = len(resource.segments) - 1
            parameters = _match(resource.segments[:last], segments[:last]) if len(segments) > last else None
            if parameters is not None:
                return resource, parameters | {resource.segments[last][2:-1]: "/".join(segments[last:])}
        return None


@dataclass(frozen=True, slots=True)
class Database:
    """A database as a path named it."""

    identity: bytes
    """32 bytes, little-endian."""
    name: str | None
    """None when the path had the identity."""


@dataclass(slots=True)
class Call:
    """One request on its way through a handler."""

    door: "FrontDoor"
    connection: HttpConnection
    request: Request
    query: Query
    parameters: Mapping[str, str]
    conventions: Conventions = MODERN
    credentials: Credentials | None = None

    @property
    def caller(self) -> Credentials:
        """Return who asks; only where the resource's access says somebody does."""
        assert self.credentials is not None
        return self.credentials

    async def authenticate(self, access: Access) -> None:
        """Find out who asks.

        Raises:
            AuthError: The token does not hold, or there is none and one is needed.
            QueryStringError: There are two `token` parameters and no header.
        """
        if access is Access.NONE:
            return
        tokens, token = self.door.tokens, self.conventions.presented_token(self.request, self.query)
        if token is not None:
            self.credentials = await self.conventions.validate(tokens, token)
        elif access is Access.REQUIRED:
            raise AuthError("Authorization required")
        elif access is Access.ANONYMOUS:
            self.credentials = tokens.mint()

    def client(self) -> Client:
        """Return the caller as a client with a connection id of its own, for this one request."""
        connection_id = secrets.token_bytes(16)
        return Client(self.caller.identity, connection_id, self.caller.payload)

    async def body(self, limit: int = BODY_BYTES_MAX) -> bytes:
        """Return the body. Raises BodyTooLarge."""
        self._check_declared(limit)
        return await self.connection.read_body(limit)

    @asynccontextmanager
    async def shared_body(self, limit: int) -> AsyncIterator[bytes]:
        """Hold the body, a part of what all requests of this kind may hold in memory together.

        Raises:
            BodyTooLarge: It is longer than `limit` bytes.
            TooBusy: It does not fit beside those of others.
        """
        door, held = self.door, 0

        def received(size: int) -> None:
            nonlocal held
            if size > door.body_bytes_left:
                raise TooBusy("the bodies of other requests take all the memory there is for them; try again later")
            door.body_bytes_left -= size
            held += size

        self._check_declared(limit)
        try:
            yield await self.connection.read_body(limit, received)
        finally:
            door.body_bytes_left += held

    def _check_declared(self, limit: int) -> None:
        """Raise BodyTooLarge before a body is asked for that says itself that it is."""
        declared = self.request.headers.get("content-length")
        is_chunked = self.request.headers.get("transfer-encoding") is not None
        if declared is not None and not is_chunked and int(declared) > limit:
            raise BodyTooLarge

    async def text(self, *, says_where: bool = True) -> str:
        """Return the body as text.

        Raises:
            BodyTooLarge, RequestError: It is too large, or no UTF-8; the text says where, but on one route (recorded).
        """
        data = await self.body()
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            size = error.end - error.start
            where = f": invalid utf-8 sequence of {size} bytes from index {error.start}" if says_where else ""
            raise RequestError(f"Request body didn't contain valid UTF-8{where}") from error

    def parameter(self, name: str) -> str:
        """Return a path parameter, decoded.

        Raises:
            RequestError: It is no UTF-8.
        """
        try:
            return unquote_to_bytes(self.parameters[name].encode("latin-1")).decode()
        except UnicodeDecodeError as error:
            raise RequestError(f"Invalid URL: Invalid UTF-8 in `{name}`") from error

    def identity(self) -> Identity:
        """Return the identity that the path names in 64 digits. Raises RequestError."""
        try:
            return parse_identity(self.parameter("identity"))
        except ValueError as error:
            raise RequestError(f"Invalid URL: {error}") from error

    def name_or_identity(self, text: str | None = None) -> str | bytes:
        """Return the database name, or the identity (32 bytes, little-endian), of the path or of `text`.

        Raises:
            RequestError: It is neither.
        """
        if text is None:
            text = self.parameter("name_or_identity")
        if match := _IDENTITY.fullmatch(text):
            return bytes.fromhex(match[1])[::-1]
        if reason := database_name_error(text):
            raise RequestError(f"Invalid URL: {reason}")
        return text

    def resolve(self) -> Database:
        """Return the identity that the path names, whether or not a database lives there.

        Raises:
            RequestError: The path names neither name nor identity.
            NoSuchDatabase: Nobody registered the name.
        """
        named = self.name_or_identity()
        if isinstance(named, bytes):
            return Database(named, None)
        identity = self.door.host.control.resolve(named)
        if identity is None:
            raise NoSuchDatabase(f"`{named}` not found")
        return Database(identity, named)

    def database(self) -> Database:
        """Return the living database that the path names. Raises as `resolve`, and NoSuchDatabase for an identity."""
        found = self.resolve()
        if self.door.host.control.database(found.identity) is None:
            raise NoSuchDatabase("No such database.")
        self.connection.about = found.identity
        return found

    def check_content_type(self, *, allow_parameters: bool) -> None:
        """Raise HttpError 415 unless the body is said to be JSON."""
        value = self.request.headers.get("content-type") or b""
        if allow_parameters:
            value = value.partition(b";")[0].strip()
        if value.lower() != b"application/json":
            raise HttpError(415, "Expected request with `Content-Type: application/json`")


def hex_of(identity: bytes) -> str:
    """Write 32 little-endian bytes as people know them."""
    return identity[::-1].hex()


def _match(pattern: tuple[str, ...], segments: Sequence[str]) -> dict[str, str] | None:
    parameters: dict[str, str] = {}
    for expected, actual in zip(pattern, segments, strict=True):
        if expected.startswith("{"):
            if not actual:
                return None
            parameters[expected[1:-1]] = actual
        elif expected != actual:
            return None
    return parameters
