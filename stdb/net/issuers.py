"""Foreign issuers: tokens of OIDC providers that the configuration lists, and of nobody else.

Responsible for: discovery, key sets and their cache, checking signatures with them, keeping to our own limits.
Not responsible for: tokens of the server's own key and what claims mean (`tokens`).

Source: spec 05 section 2.4 step 3 and its "we:" sentences: listed issuers only, https, no redirects, no private
addresses unless listed so, 5 s, 1 MiB. Whatever an issuer answers, the worst it can do is to refuse its own tokens.
"""

import ipaddress
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import trio
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

from stdb.errors import AuthError
from stdb.net.addresses import is_public
from stdb.net.claims import Claims, decode_part
from stdb.net.tokens import UnsignedToken
from stdb.storage.settings import Issuer

__all__ = ["Issuers"]

FETCH_SECONDS_MAX = 5.0
FETCH_BYTES_MAX = 1024 * 1024
REFRESH_SECONDS = 300.0
KEPT_SECONDS = 7200.0
KEYS_MAX = 64
RSA_BITS_MAX = 8192

_ES256 = ECAlgorithm(ECAlgorithm.SHA256)
_RS256 = RSAAlgorithm(RSAAlgorithm.SHA256)


class _Key(NamedTuple):
    """One public key of an issuer."""

    algorithm: str
    key_id: str | None
    public: Any


class _KeySet(NamedTuple):
    """The keys of an issuer and when they were fetched."""

    keys: tuple[_Key, ...]
    fetched_s: float


class _FetchError(Exception):
    """An issuer could not be asked; the text is for the server's log alone."""


class Issuers:
    """The accepted foreign issuers of one server."""

    def __init__(self, issuers: Sequence[Issuer], now_s: Callable[[], float] = time.monotonic) -> None:
        self._issuers = {issuer.url: issuer for issuer in issuers}
        self._now_s = now_s
        self._key_sets: dict[str, _KeySet] = {}
        self._locks: dict[str, trio.Lock] = {url: trio.Lock() for url in self._issuers}

    async def check(self, token: UnsignedToken, claims: Claims) -> None:
        """Return when an accepted issuer signed this token.

        Raises:
            AuthError: The issuer is not listed, cannot be reached, or did not sign.
        """
        issuer = self._issuers.get(claims.issuer)
        if issuer is None:
            raise AuthError(f"Error fetching public key for issuer {claims.issuer}")
        keys = await self._keys(issuer)
        if token.key_id is not None:
            keys = tuple(key for key in keys if key.key_id == token.key_id)
            if not keys:
                raise AuthError("Specified key ID not found in JWKs")
        signature = decode_part(token.signature)
        if not any(_has_signed(key, token, signature) for key in keys):
            raise AuthError("Invalid token: InvalidSignature")

    async def _keys(self, issuer: Issuer) -> tuple[_Key, ...]:
        async with self._locks[issuer.url]:
            known = self._key_sets.get(issuer.url)
            if known is not None and self._now_s() - known.fetched_s < REFRESH_SECONDS:
                return known.keys
            try:
                fresh = _KeySet(await _fetch_keys(issuer), self._now_s())
            except _FetchError as error:
                if known is not None and self._now_s() - known.fetched_s < KEPT_SECONDS:
                    return known.keys
                raise AuthError(f"Error fetching public key for issuer {issuer.url}") from error
            self._key_sets[issuer.url] = fresh
            return fresh.keys


async def _fetch_keys(issuer: Issuer) -> tuple[_Key, ...]:
    """Ask an issuer for its keys, within our limits."""
    with trio.move_on_after(FETCH_SECONDS_MAX):
        async with httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=FETCH_SECONDS_MAX) as client:
            location = issuer.url.rstrip("/") + "/.well-known/openid-configuration"
            configuration = await _fetch_json(client, location, issuer)
            jwks_uri = configuration.get("jwks_uri")
            if not isinstance(jwks_uri, str):
                raise _FetchError("the configuration names no jwks_uri")
            return _parse_keys(await _fetch_json(client, jwks_uri, issuer))
    raise _FetchError(f"no answer within {FETCH_SECONDS_MAX} s")


async def _fetch_json(client: httpx.AsyncClient, url: str, issuer: Issuer) -> dict[str, Any]:
    url, headers, extensions = await _pinned(url, issuer)
    try:
        async with client.stream("GET", url, headers=headers, extensions=extensions) as response:
            if response.status_code != 200:
                raise _FetchError(f"{url}: status {response.status_code}")
            data = bytearray()
            with trio.CancelScope() as reading:  # cancelled rather than left: httpx's generators end in order
                async for chunk in response.aiter_bytes():
                    data += chunk
                    if len(data) > FETCH_BYTES_MAX:
                        reading.cancel()
            if len(data) > FETCH_BYTES_MAX:
                raise _FetchError(f"{url}: more than {FETCH_BYTES_MAX} bytes")
        document = json.loads(bytes(data))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
        raise _FetchError(f"{url}: {error}") from error
    if not isinstance(document, dict):
        raise _FetchError(f"{url}: not a JSON object")
    return document


async def _pinned(url: str, issuer: Issuer) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Resolve a URL once and return it with the address in place of the name, so that what was checked is asked."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise _FetchError(f"{url}: {error}") from error
    if parts.scheme != "https" and not (parts.scheme == "http" and issuer.allow_http):
        raise _FetchError(f"{url}: only https")
    try:
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _FetchError(f"{url}: {error}") from error
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    if not issuer.allow_private and not all(is_public(address) for address in addresses):
        raise _FetchError(f"{url}: leads to a private address")
    address = addresses[0]
    authority = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
    target = parts._replace(netloc=authority, fragment="").geturl()
    return target, {"host": parts.netloc.rpartition("@")[2], "accept": "*/*"}, {"sni_hostname": host}


def _parse_keys(document: dict[str, Any]) -> tuple[_Key, ...]:
    """Return the keys we can use; what is unknown, broken or too large is left out."""
    listed = document.get("keys")
    if not isinstance(listed, list):
        raise _FetchError("the key set has no list of keys")
    keys = []
    for entry in listed[:KEYS_MAX]:
        key = _parse_key(entry) if isinstance(entry, dict) else None
        if key is not None:
            keys.append(key)
    return tuple(keys)


def _parse_key(entry: dict[str, Any]) -> _Key | None:
    key_id = entry.get("kid")
    if not (key_id is None or isinstance(key_id, str)):
        return None
    public = {name: value for name, value in entry.items() if name in ("kty", "crv", "x", "y", "n", "e")}
    try:
        if public.get("kty") == "EC" and public.get("crv") == "P-256":
            return _Key("ES256", key_id, ECAlgorithm.from_jwk(public))
        if public.get("kty") == "RSA":
            key: Any = RSAAlgorithm.from_jwk(public)
            return _Key("RS256", key_id, key) if 2048 <= key.key_size <= RSA_BITS_MAX else None
    except (PyJWTError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None  # a key that its library refuses, in whichever way it does
    return None


def _has_signed(key: _Key, token: UnsignedToken, signature: bytes) -> bool:
    """Tell whether a key made a signature; a key of another type than the token names did not."""
    if key.algorithm != token.algorithm:
        return False
    if key.algorithm == "ES256":
        return bool(_ES256.verify(token.message, key.public, signature))
    return bool(_RS256.verify(token.message, key.public, signature))
