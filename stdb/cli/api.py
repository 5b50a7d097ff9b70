"""Requests to a server over HTTP, with the answers the command line prints when one fails.

Responsible for: credentials of a request, resolving database names, error texts.
Not responsible for: what a command prints on success.
"""

import base64
import binascii
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import quote

import httpx

from stdb.cli import running
from stdb.cli.config import Config, Server
from stdb.cli.errors import CliError
from stdb.sats.names import database_name_error

__all__ = [
    "NAME_HINT",
    "TIMEOUT_SECONDS",
    "Api",
    "claims_of",
    "identity_digits",
    "identity_of",
    "refused",
    "status_cause",
]

TIMEOUT_SECONDS = 60.0
NAME_HINT = "A name is made of a-z, 0-9 and single hyphens between them."
_IDENTITY = re.compile(r"(?:0x)?([0-9a-fA-F]{64})")


def claims_of(token: str) -> dict[str, Any]:
    """Return the payload of a token, unverified; CliError when it does not look like one."""
    try:
        _, payload, _ = token.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (binascii.Error, ValueError) as error:
        raise CliError(f"Token does not look like a JSON web token: {token}") from error
    if not isinstance(claims, dict):
        raise CliError(f"Token does not look like a JSON web token: {token}")
    return claims


def identity_of(token: str) -> str:
    """Return the identity a token stands for, 64 hex digits."""
    from stdb.sats.special import Identity

    claims = claims_of(token)
    if not all(isinstance(claims.get(name), str) for name in ("iss", "sub")):
        raise CliError("Token has no issuer (iss) or subject (sub)")
    return Identity.derive(claims["iss"], claims["sub"]).hex()


def identity_digits(text: str) -> str | None:
    """Return the 64 lower-case hex digits of an identity; None when `text` is none."""
    found = _IDENTITY.fullmatch(text)
    return found[1].lower() if found else None


def status_cause(response: httpx.Response) -> str:
    """Return the line that says with which status a request failed, in the official form."""
    code = response.status_code
    kind = "client" if code < 500 else "server"
    try:
        phrase = HTTPStatus(code).phrase
    except ValueError:
        phrase = "<none>"
    return f"HTTP status {kind} error ({code} {phrase}) for url ({response.request.url})"


def refused(response: httpx.Response) -> CliError:
    """Return the error for an answer that is not a success: its text, then its status."""
    return CliError(response.text or "the server gave no reason", status_cause(response))


class Api:
    """A server, the token to show it, and the requests of every command; holds connections until the block ends."""

    def __init__(self, config: Config, server: Server, *, anonymous: bool = False) -> None:
        self.server = server
        self._config = config
        self._anonymous = anonymous
        self._token: str | None = None
        self._token_source = ""
        self._http = _client(server)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request with credentials; a failed connection and a refused token become a CliError."""
        headers = self._headers(options)
        with self._failures(path):
            response = self._http.request(method, path, headers=headers, **options)
        self._check_token(response)
        return response

    def document(self, path: str, **options: Any) -> Any:
        """Return the JSON that a GET answers; CliError for every other answer."""
        response = self.request("GET", path, **options)
        if response.status_code != 200:
            raise refused(response)
        return self._parsed(response)

    @contextmanager
    def stream(self, method: str, path: str, **options: Any) -> Iterator[httpx.Response]:
        """Send a request whose answer arrives piece by piece, without a time limit; CliError unless it is a success."""
        headers = self._headers(options)
        with self._failures(path), self._http.stream(method, path, headers=headers, timeout=None, **options) as answer:
            if answer.status_code != 200:
                answer.read()
                self._check_token(answer)
                raise refused(answer)
            yield answer

    def database(self, name: str) -> str:
        """Return the identity (64 hex digits) of a database given by name or identity."""
        if digits := identity_digits(name):
            return digits
        response = self.request("GET", f"/v1/database/{quote(name, safe='')}/identity")
        if response.status_code != 200:
            raise CliError(f"failed to find database `{name}`.", hint=self._advice(name, response))
        return response.text.strip()

    def _advice(self, name: str, response: httpx.Response) -> str:
        """Return what may help when a name was not found."""
        if "spacetime-identity" not in response.headers:
            return f"{self.server.url} answers, but not as a server of stdb's kind: is --server right?"
        if reason := database_name_error(name):
            return f"No database can have this name: {reason}. {NAME_HINT}"
        return (
            f"There is none of that name at {self.server.url}: `python -m stdb list` shows yours there, and --server "
            "names another server."
        )

    def token(self) -> str:
        """Return the token to use: the stored one, a local server's operator token, else a new identity's."""
        if self._token is None:
            self._token = self._stored_token() or self._operator_token() or self._new_token()
        return self._token

    def new_identity_token(self) -> str:
        """Return the token of an identity that the server makes now."""
        with self._failures("/v1/identity"):
            response = self._http.post("/v1/identity")
        if response.status_code != 200:
            raise refused(response)
        return str(self._parsed(response)["token"])

    def websocket_url(self, path: str) -> str:
        """Return the WebSocket URL of a path on this server."""
        return self.server.url.replace("http", "ws", 1) + path

    def _stored_token(self) -> str | None:
        self._token_source = f"the token stored in {self._config.path}"
        return self._config.token

    def _operator_token(self) -> str | None:
        if not self.server.is_local:
            return None
        directory = running.data_directory_of(self.server.host, self.server.protocol)
        if directory is None:
            return None
        path = directory / "operator.token"
        self._token_source = f"the operator's token in {path}"
        try:
            return path.read_text().strip() or None
        except OSError:
            return None

    def _new_token(self) -> str:
        token = self.new_identity_token()
        self._config.store_token(token)
        self._token_source = f"the token stored in {self._config.path}"
        print(f"Not logged in: {self.server.url} issued a new identity, {identity_of(token)}.", file=sys.stderr)
        print(f"Its token is stored in {self._config.path}.", file=sys.stderr)
        return token

    def _headers(self, options: dict[str, Any]) -> dict[str, str]:
        headers = dict(options.pop("headers", {}))
        if not self._anonymous:
            headers["Authorization"] = f"Bearer {self.token()}"
        return headers

    def _check_token(self, response: httpx.Response) -> None:
        """Raise what to do when the server does not take our token; other refusals are the command's."""
        if response.status_code != 401 or response.text.startswith("{"):
            return
        hint = (
            f"{self.server.url} does not accept {self._token_source}: another server issued it, or it has expired.\n"
            "`python -m stdb logout` forgets the stored token; the next command then takes the operator's token of a\n"
            "server on this machine, else a new identity. `python -m stdb login --token JWT` stores another token,\n"
            "and --anonymous shows none."
        )
        raise CliError(response.text or "the server refused the token", status_cause(response), hint=hint)

    def _parsed(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError as error:
            raise CliError(f"{response.request.url} answered no JSON; is it a server of stdb's kind?") from error

    @contextmanager
    def _failures(self, path: str) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            cause = str(error) or type(error).__name__
            text = f"error sending request for url ({self.server.url}{path})"
            raise CliError(text, cause, hint=_what_to_check(error, self.server)) from error


def _what_to_check(error: httpx.HTTPError, server: Server) -> str | None:
    """Return what to do about a request that got no answer."""
    if isinstance(error, httpx.TimeoutException):
        return f"{server.url} did not answer in time: is it under load, or a firewall in between?"
    if "SSL" in str(error) or isinstance(error, httpx.RemoteProtocolError):
        other = "http" if server.protocol == "https" else "https"
        return f"Is {server.protocol} right? Try --server {other}://{server.host}"
    if isinstance(error, httpx.ConnectError):
        if server.is_local:
            return f"Is a server running there? `python -m stdb serve -l {server.host}` starts one."
        return "Is the address right, and a server running there? `python -m stdb server list` shows those you saved."
    return None


def _client(server: Server) -> httpx.Client:
    try:
        return httpx.Client(base_url=server.url, timeout=TIMEOUT_SECONDS, trust_env=not server.is_local)
    except httpx.InvalidURL as error:
        raise CliError(f"{server.url} is no URL of a server: {error}", exit_code=2) from error
