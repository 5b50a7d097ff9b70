"""Foreign issuers: only listed ones are asked, within limits, and nothing they answer can do harm."""

import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.errors import AuthError
from stdb.net.issuers import FETCH_BYTES_MAX, KEPT_SECONDS, REFRESH_SECONDS, Issuers, _FetchError, _parse_keys, _pinned
from stdb.net.tokens import Credentials, ServerKey, Tokens
from stdb.sats.special import Identity
from stdb.storage.settings import Issuer
from tests.http_harness import loopback

KEY = ServerKey.generate()
EC, OTHER_EC = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)


def encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def ec_jwk(key: ec.EllipticCurvePrivateKey, kid: str | None) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    x, y = (encode(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y} | ({} if kid is None else {"kid": kid})


def rsa_jwk(kid: str | None) -> dict[str, Any]:
    numbers = RSA.public_key().public_numbers()
    jwk = {"kty": "RSA", "n": encode(numbers.n.to_bytes(256, "big")), "e": "AQAB"}
    return jwk | ({} if kid is None else {"kid": kid})


def token(issuer: str, *, alg: str = "ES256", kid: str | None = None, key: Any = EC, **claims: Any) -> str:
    header = {"typ": "JWT", "alg": alg} | ({} if kid is None else {"kid": kid})
    payload = {"sub": "u1", "iss": issuer, "iat": 1737665769} | claims
    message = ".".join(encode(json.dumps(part).encode()) for part in (header, payload))
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(message.encode(), padding.PKCS1v15(), SHA256())
    else:
        r, s = decode_dss_signature(key.sign(message.encode(), ec.ECDSA(SHA256())))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return f"{message}.{encode(signature)}"


class Provider:
    """An OIDC issuer on loopback: answers what `pages` says, and counts."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[str] = []
        keys = {"keys": [ec_jwk(EC, "e1"), rsa_jwk("r1")]}
        self.pages: dict[str, bytes] = {
            "/.well-known/openid-configuration": self.configuration("/jwks"),
            "/tenant/.well-known/openid-configuration": self.configuration("/jwks"),
            "/broken/.well-known/openid-configuration": b"{",
            "/nojwks/.well-known/openid-configuration": b"{}",
            "/jwks": json.dumps(keys).encode(),
        }

    def configuration(self, path: str) -> bytes:
        return json.dumps({"issuer": "ignored", "jwks_uri": self.url + path}).encode()

    async def serve(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        async with stream:
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await stream.receive_some())
                elif isinstance(event, h11.Request):
                    path = event.target.decode()
                    self.asked.append(path)
                elif isinstance(event, h11.EndOfMessage):
                    await stream.send_all(self._answer(connection, path))
                    return
                else:
                    return

    def _answer(self, connection: h11.Connection, path: str) -> bytes:
        body = self.pages.get(path)
        status = 404 if body is None else 302 if body == b"redirect" else 200
        headers = [("location", self.url + "/jwks"), ("connection", "close"), ("content-length", str(len(body or b"")))]
        data = connection.send(h11.Response(status_code=status, headers=headers)) or b""
        if body:
            data += connection.send(h11.Data(data=body)) or b""
        return data + (connection.send(h11.EndOfMessage()) or b"")


@asynccontextmanager
async def open_provider() -> AsyncIterator[Provider]:
    listener, port = loopback()
    provider = Provider(f"http://127.0.0.1:{port}")
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, provider.serve, [listener])
        yield provider
        nursery.cancel_scope.cancel()


def listed(*urls: str, **options: bool) -> Issuers:
    allowed = {"allow_http": True, "allow_private": True} | options
    return Issuers([Issuer(url, **allowed) for url in urls])


async def answer(issuers: Issuers, text: str) -> str:
    """Return the identity a token proves, or the text of its refusal."""
    try:
        return (await Tokens(KEY, issuers).validate(text)).hex
    except AuthError as error:
        return str(error)


def identity(issuer: str) -> str:
    return Identity.derive(issuer, "u1").hex()


def run(test: Callable[[Provider], Any]) -> None:
    async def main() -> None:
        with trio.fail_after(10):
            async with open_provider() as provider:
                await test(provider)

    trio.run(main)


def test_tokens_of_a_listed_issuer_are_answered_as_recorded() -> None:
    async def test(provider: Provider) -> None:
        url = provider.url
        issuers = listed(url, url + "/", url + "//", url + "/tenant", url + "/broken", url + "/nojwks")
        cases = [
            (token(url, kid="e1"), identity(url)),
            (token(url), identity(url)),
            (token(url, alg="RS256", kid="r1", key=RSA), identity(url)),
            (token(url, alg="RS256", key=RSA), identity(url)),
            (token(url, kid="zz"), "Specified key ID not found in JWKs"),
            (token(url, kid="e1", key=OTHER_EC), "Invalid token: InvalidSignature"),
            (token(url, key=OTHER_EC), "Invalid token: InvalidSignature"),  # this one ended the real server
            (token(url, alg="RS256", kid="e1", key=RSA), "Invalid token: InvalidSignature"),
            (token(url, alg="HS256", kid="e1"), "Invalid token: InvalidSignature"),
            (token(url + "/", kid="e1"), identity(url + "/")),
            (token(url + "//", kid="e1"), identity(url + "//")),
            (token(url + "/tenant"), identity(url + "/tenant")),
            (token(url + "/broken"), f"Error fetching public key for issuer {url}/broken"),
            (token(url + "/nojwks"), f"Error fetching public key for issuer {url}/nojwks"),
            (token(url, kid="e1", exp=1737665769), "Invalid token: ExpiredSignature"),
            (token(url, kid="e1", hex_identity="0" * 64), "Identity mismatch: token identity Identity("),
            (token(url, kid="e1", iat=None), "Invalid token: JSON error: invalid type: null, expected i64"),
            (token(url, kid="e1", sub="u" * 129), f'Subject too long: "{"u" * 129}"'),
        ]
        for text, expected in cases:
            assert (await answer(issuers, text)).startswith(expected)

    run(test)


def test_an_issuer_that_is_not_listed_is_never_asked() -> None:
    async def test(provider: Provider) -> None:
        expected = f"Error fetching public key for issuer {provider.url}"
        assert await answer(listed("https://example.com"), token(provider.url)) == expected
        assert await answer(Issuers([]), token(provider.url)) == expected
        assert provider.asked == []

    run(test)


@pytest.mark.parametrize("options", [{"allow_http": False}, {"allow_private": False}])
def test_plain_http_and_private_addresses_are_not_asked_unless_listed_so(options: dict[str, bool]) -> None:
    async def test(provider: Provider) -> None:
        expected = f"Error fetching public key for issuer {provider.url}"
        assert await answer(listed(provider.url, **options), token(provider.url)) == expected
        assert provider.asked == []

    run(test)


def test_a_redirect_and_too_much_are_not_followed() -> None:
    async def test(provider: Provider) -> None:
        expected = f"Error fetching public key for issuer {provider.url}"
        for page in (b"redirect", b"[]", b'"' + b"x" * FETCH_BYTES_MAX + b'"', b"[" * 100_000, b"\xff"):
            provider.pages["/.well-known/openid-configuration"] = page
            assert await answer(listed(provider.url), token(provider.url)) == expected
        assert "/jwks" not in provider.asked

    run(test)


def test_keys_outlive_their_issuer_for_a_while() -> None:
    async def test(provider: Provider) -> None:
        now = [0.0]
        issuers = Issuers([Issuer(provider.url, allow_http=True, allow_private=True)], lambda: now[0])
        good = token(provider.url, kid="e1")
        for _ in range(3):
            assert await answer(issuers, good) == identity(provider.url)
        assert len(provider.asked) == 2
        now[0] = REFRESH_SECONDS
        provider.pages.clear()
        assert await answer(issuers, good) == identity(provider.url)
        assert len(provider.asked) == 3
        now[0] = KEPT_SECONDS
        assert await answer(issuers, good) == f"Error fetching public key for issuer {provider.url}"

    run(test)


def test_a_websocket_token_works_when_the_issuer_is_gone() -> None:
    async def test(provider: Provider) -> None:
        tokens = Tokens(KEY, listed(provider.url))
        long: Credentials = await tokens.validate(token(provider.url, kid="e1", email="a@b.c"))
        short = await Tokens(KEY).validate(tokens.mint_websocket_token(long))
        assert short.identity == long.identity
        assert short.claims.document["email"] == "a@b.c"

    run(test)


def test_the_servers_own_key_goes_before_the_issuer() -> None:
    async def test(provider: Provider) -> None:
        own = KEY.sign(json.dumps({"sub": "u1", "iss": provider.url, "iat": 5}))
        assert await answer(listed(provider.url), own) == identity(provider.url)
        assert provider.asked == []

    run(test)


ANYTHING = st.none() | st.booleans() | st.integers() | st.text(max_size=50) | st.lists(st.integers(), max_size=2)
NUMBERS = ANYTHING | st.sampled_from(
    ["AQAB", "AA", "", encode(bytes(32)), encode(b"\xff" * 32), encode(b"\xff" * 4096)]
)
KEYS = st.fixed_dictionaries(
    {"kty": ANYTHING | st.sampled_from(["EC", "RSA", "oct", "OKP"])},
    optional={"crv": ANYTHING | st.sampled_from(["P-256", "P-384"]), "kid": ANYTHING}
    | dict.fromkeys(("x", "y", "n", "e", "d", "p", "oth"), NUMBERS),
)


@given(st.lists(KEYS, max_size=8))
@settings(max_examples=200, deadline=None)
def test_no_key_set_does_more_than_hold_no_keys(keys: list[dict[str, Any]]) -> None:
    good = {**ec_jwk(EC, "e1"), **({} if not keys else {"use": "sig"})}
    parsed = _parse_keys({"keys": [*keys[:60], good]})
    assert "e1" in [key.key_id for key in parsed]


@pytest.mark.parametrize("document", [{}, {"keys": None}, {"keys": {}}, {"keys": "x"}])
def test_a_key_set_without_a_list_is_a_failure_to_fetch(document: dict[str, Any]) -> None:
    with pytest.raises(_FetchError):
        _parse_keys(document)


@pytest.mark.parametrize("address", ["[64:ff9b::7f00:1]", "[::ffff:127.0.0.1]", "[2002:7f00:1::1]", "224.0.0.1"])
def test_translated_and_multicast_addresses_count_as_private(address: str) -> None:
    async def ask() -> None:
        with pytest.raises(_FetchError, match="leads to a private address"):
            await _pinned(f"https://{address}/", Issuer("https://issuer.example"))

    trio.run(ask)
