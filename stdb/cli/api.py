"""Requests to a server over HTTP, with the answers the command line prints when one fails.

Responsible for: credentials of a request, resolving database names, error texts.
Not responsible for: what a command prints on success.
"""

import base64
import binascii
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from stdb.cli import running
from stdb.cli.config import Config, Server, data_home
from stdb.cli.errors import CliError

__all__ = ["Api", "claims_of", "identity_of", "status_cause"]

TIMEOUT_SECONDS = 60.0


def claims_of(token: str) -> dict[str, Any]:
    """Return the payload of a token, unverified; CliError when it does not look like one."""
    parts = token.split(".")
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (IndexError, binascii.Error, ValueError) as error:
        raise CliError(f"Token does not look like a JSON web token: {token}") from error
    if len(parts) != 3 or not isinstance(payload, dict):
        raise CliError(f"Token does not look like a JSON web token: {token}")
    return payload


def identity_of(token: str) -> str:
    """Return the identity a token stands for, 64 hex digits."""
    from stdb.sats.special import Identity

    claims = claims_of(token)
    if not all(isinstance(claims.get(name), str) for name in ("iss", "sub")):
        raise CliError("Token has no issuer (iss) or subject (sub)")
    return Identity.derive(claims["iss"], claims["sub"]).hex()


def status_cause(response: httpx.Response) -> str:
    """Return the line that says with which status a request failed, in the official form."""
    code = response.status_code
    kind = "client" if code < 500 else "server"
    try:
        phrase = HTTPStatus(code).phrase
    except ValueError:
        phrase = response.reason_phrase or "<none>"
    return f"HTTP status {kind} error ({code} {phrase}) for url ({response.request.url})"


class Api:
    """A server, the token to show it, and the requests of every command."""

    def __init__(self, config: Config, server: Server, *, anonymous: bool = False) -> None:
        self.server = server
        self._config = config
        self._anonymous = anonymous
        self._http = httpx.Client(base_url=server.url, timeout=TIMEOUT_SECONDS)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request with credentials; connection failures become a CliError."""
        with self._failures(path):
            return self._http.request(method, path, headers=self._headers(options), **options)

    @contextmanager
    def stream(self, method: str, path: str, **options: Any) -> Iterator[httpx.Response]:
        """Send a request whose answer arrives piece by piece, without a time limit."""
        headers = self._headers(options)
        with self._failures(path), self._http.stream(method, path, headers=headers, timeout=None, **options) as answer:
            yield answer

    def database(self, name: str) -> str:
        """Return the identity (64 hex digits) of a database given by name or identity."""
        if len(name.removeprefix("0x")) == 64 and all(digit in "0123456789abcdefABCDEF" for digit in name[-64:]):
            return name.removeprefix("0x").lower()
        response = self.request("GET", f"/v1/database/{quote(name, safe='')}/identity")
        if response.status_code != 200:
            raise CliError(f"failed to find database `{name}`.")
        return response.text.strip()

    def token(self) -> str:
        """Return the token to use: the stored one, a local server's operator token, else a new identity's."""
        if token := self._config.token or self._operator_token():
            return token
        with self._failures("/v1/identity"):
            response = self._http.post("/v1/identity")
        if response.status_code != 200:
            raise CliError(f"Response text: {response.text}", status_cause(response))
        token = str(response.json()["token"])
        self._config.store_token(token)
        print(f"Not logged in: {self.server.url} issued a new identity, {identity_of(token)}.", file=sys.stderr)
        print(f"Its token is stored in {self._config.path}.", file=sys.stderr)
        return token

    def websocket_url(self, path: str) -> str:
        """Return the WebSocket URL of a path on this server."""
        return self.server.url.replace("http", "ws", 1) + path

    def _operator_token(self) -> str | None:
        if not self.server.is_local:
            return None
        for directory in self._data_directories():
            try:
                return (directory / "operator.token").read_text().strip() or None
            except OSError:
                continue
        return None

    def _data_directories(self) -> Iterator[Path]:
        """Yield where a server on this machine may keep its data: as announced by `serve`, then the default place."""
        if announced := running.data_directory_of(self.server.host):
            yield announced
        yield data_home()

    def _headers(self, options: dict[str, Any]) -> dict[str, str]:
        headers = dict(options.pop("headers", {}))
        if not self._anonymous:
            headers["Authorization"] = f"Bearer {self.token()}"
        return headers

    @contextmanager
    def _failures(self, path: str) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            hint = f"Is a server running there? `python -m stdb serve --listen-addr {self.server.host}` starts one."
            raise CliError(f"error sending request for url ({self.server.url}{path})", str(error), hint) from error
