"""Tokens: who may say who they are. The server's key, new identities, and the check of every presented token.

Responsible for: the ES256 key pair, minting, validation with the server's own key, the cache of checked tokens.
Not responsible for: HTTP headers (`auth`), tokens of foreign issuers (`issuers`), what an identity may do.

Source: spec 05 sections 2.1 to 2.5. The algorithm follows from the key, never from the token.
"""

import json
import time
import uuid
from base64 import urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from stdb.errors import AuthError, StorageError
from stdb.net.claims import Claims, decode_part, parse_claims, parse_header, parse_legacy_claims, quoted
from stdb.sats.special import Identity
from stdb.storage.data_directory import DataDirectory

__all__ = [
    "LEEWAY_SECONDS",
    "WEBSOCKET_TOKEN_SECONDS",
    "Credentials",
    "IssuerKeys",
    "MalformedTokenError",
    "ServerKey",
    "Tokens",
    "UnsignedToken",
    "check_time",
    "credentials_from",
    "load_or_make_key",
    "load_or_make_operator",
    "split_token",
]

LOCAL_ISSUER = "localhost"
AUDIENCE = "spacetimedb"
LEEWAY_SECONDS = 60
WEBSOCKET_TOKEN_SECONDS = 60
CLAIM_BYTES_MAX = 128
CACHED_TOKENS_MAX = 4096

_HEADER = '{"typ":"JWT","alg":"ES256"}'
_CHECKED_ALGORITHMS = frozenset(("ES256", "RS256", "HS256"))
_CURVE = ec.SECP256R1()
_ECDSA = ec.ECDSA(SHA256())


class MalformedTokenError(AuthError):
    """Credentials that are none (400), where a wrong signature is told apart (401)."""

    def __init__(self) -> None:
        super().__init__("Authorization is invalid: malformed token")


class Credentials(NamedTuple):
    """Who somebody is: proven by a token, or just minted."""

    identity: bytes
    """32 bytes, little-endian."""
    token: str
    claims: Claims

    @property
    def hex(self) -> str:
        """Return the identity as people know it."""
        return self.identity[::-1].hex()

    @property
    def payload(self) -> str:
        """Return the JSON payload of the token, exactly as presented."""
        return self.claims.text


class UnsignedToken(NamedTuple):
    """A token taken apart, nothing of it believed."""

    message: bytes
    """What the signature is over."""
    signature: str
    """Still base64url."""
    algorithm: str
    key_id: str | None
    payload: str
    """Still base64url."""


class IssuerKeys(Protocol):
    """The tokens of foreign issuers."""

    async def check(self, token: UnsignedToken, claims: Claims) -> None:
        """Return when an accepted issuer signed this token.

        Raises:
            AuthError: The issuer is not accepted, cannot be reached, or did not sign.
        """


class ServerKey:
    """The server's own pair of keys: P-256."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self._private = private
        self._public = private.public_key()
        self.public_pem = self._public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()

    @classmethod
    def generate(cls) -> Self:
        """Return a new key."""
        return cls(ec.generate_private_key(_CURVE))

    @classmethod
    def from_pem(cls, private_pem: str, public_pem: str) -> Self:
        """Return the key of two PEM texts.

        Raises:
            StorageError: A text is no P-256 key, or they are not of one pair.
        """
        try:
            private = serialization.load_pem_private_key(private_pem.encode(), None)
        except (ValueError, TypeError) as error:
            raise StorageError("Unable to read private key for JWT token signing: not a PEM private key") from error
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name != _CURVE.name:
            raise StorageError("Unable to read private key for JWT token signing: not a P-256 key")
        try:
            public = serialization.load_pem_public_key(public_pem.encode())
        except (ValueError, TypeError) as error:
            raise StorageError("Unable to read public key for JWT token verification: not a PEM public key") from error
        if public != private.public_key():
            raise StorageError("the public key for JWT token verification is not that of the private key")
        return cls(private)

    @property
    def private_pem(self) -> str:
        """Return the private key as PKCS#8."""
        return self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    def sign(self, payload: str) -> str:
        """Return the token over exactly this payload text."""
        message = f"{_encode(_HEADER.encode())}.{_encode(payload.encode())}"
        r, s = decode_dss_signature(self._private.sign(message.encode(), _ECDSA))
        return f"{message}.{_encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def has_signed(self, message: bytes, signature: bytes) -> bool:
        """Tell whether this key made a raw (r, s) signature over a message."""
        if len(signature) != 64:
            return False
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        try:
            self._public.verify(encode_dss_signature(r, s), message, _ECDSA)
        except InvalidSignature:
            return False
        return True


class Tokens:
    """All tokens of one server."""

    def __init__(
        self, key: ServerKey, issuers: IssuerKeys | None = None, now_s: Callable[[], float] = time.time
    ) -> None:
        self.key = key
        self._issuers = issuers
        self._now_s = now_s
        self._cache: OrderedDict[str, Credentials] = OrderedDict()

    def mint(self) -> Credentials:
        """Return a new identity with a token that does not expire."""
        subject = str(uuid.uuid4())
        identity = Identity.derive(LOCAL_ISSUER, subject)
        payload = _compact(
            {
                "hex_identity": identity.hex(),
                "sub": subject,
                "iss": LOCAL_ISSUER,
                "aud": [AUDIENCE],
                "iat": int(self._now_s()),
                "exp": None,
            }
        )
        return Credentials(_wire(identity), self.key.sign(payload), parse_claims(payload.encode()))

    def mint_websocket_token(self, credentials: Credentials) -> str:
        """Return a short-lived token for the same identity, with all other claims, signed by this server."""
        now = int(self._now_s())
        known = ("hex_identity", "sub", "iss", "aud", "iat", "exp")
        document = credentials.claims.document
        payload: dict[str, Any] = {"hex_identity": credentials.hex}
        payload |= {name: document[name] for name in ("sub", "iss") if name in document}
        payload |= {"aud": document.get("aud", []), "iat": now, "exp": now + WEBSOCKET_TOKEN_SECONDS}
        payload |= {name: value for name, value in document.items() if name not in known}
        return self.key.sign(_compact(payload))

    async def validate(self, token: str) -> Credentials:
        """Return who a token proves its bearer to be.

        Raises:
            AuthError: With the reference's text; a token that does not hold is never an anonymous caller.
        """
        if (cached := self._cache.get(token)) is not None:
            check_time(cached.claims, self._now_s())
            self._cache.move_to_end(token)
            return cached
        parts = split_token(token)
        try:
            credentials = self._validate_locally(token, parts)
        except AuthError as error:
            claims = parse_claims(decode_part(parts.payload))
            check_time(claims, self._now_s())
            if claims.issuer == LOCAL_ISSUER:
                raise
            if self._issuers is None:
                raise AuthError(f"Error fetching public key for issuer {claims.issuer}") from error
            await self._issuers.check(parts, claims)
            return credentials_from(token, claims)
        self._cache[token] = credentials
        if len(self._cache) > CACHED_TOKENS_MAX:
            self._cache.popitem(last=False)
        return credentials

    async def validate_legacy(self, token: str) -> Credentials:
        """Return the same by the rules of 0.11 (spec 03 section 9): what this server signed needs no issuer.

        Raises:
            AuthError: With 0.11's text: somebody else signed it.
            MalformedTokenError: Anything else is wrong with it, also that it expired.
        """
        try:
            parts = split_token(token)
            is_ours = self.key.has_signed(parts.message, decode_part(parts.signature))
        except AuthError as error:
            raise MalformedTokenError from error
        claims = parse_legacy_claims(parts.payload) if is_ours and parts.algorithm == "ES256" else None
        try:
            if claims is None:
                return await self.validate(token)
            check_time(claims, self._now_s())
        except AuthError as error:
            if not is_ours and parts.algorithm == "ES256":
                raise AuthError("Authorization failed: token not signed by this instance") from error
            raise MalformedTokenError from error
        assert claims.hex_identity is not None
        return Credentials(Identity.from_hex(claims.hex_identity).wire, token, claims)

    def _validate_locally(self, token: str, parts: UnsignedToken) -> Credentials:
        if parts.algorithm not in _CHECKED_ALGORITHMS:
            raise AuthError("Invalid token: InvalidAlgorithm")
        signature = decode_part(parts.signature)
        if parts.algorithm != "ES256" or not self.key.has_signed(parts.message, signature):
            raise AuthError("Invalid token: InvalidSignature")
        claims = parse_claims(decode_part(parts.payload))
        check_time(claims, self._now_s())
        return credentials_from(token, claims)


def split_token(token: str) -> UnsignedToken:
    """Take a token apart.

    Raises:
        AuthError: It has not three parts, or its header is none.
    """
    message, dot, signature = token.rpartition(".")
    header, second_dot, payload = message.rpartition(".")
    if not dot or not second_dot:
        raise AuthError("Invalid token: InvalidToken")
    algorithm, key_id = parse_header(decode_part(header))
    return UnsignedToken(message.encode(), signature, algorithm, key_id, payload)


def check_time(claims: Claims, now_s: float) -> None:
    """Raise AuthError when the claims expired; negative times never do, as in the reference."""
    if claims.expires_s is not None and 0 <= claims.expires_s < int(now_s) - LEEWAY_SECONDS:
        raise AuthError("Invalid token: ExpiredSignature")


def credentials_from(token: str, claims: Claims) -> Credentials:
    """Return who checked claims make their bearer.

    Raises:
        AuthError: Issuer or subject are empty or too long, or another identity is claimed.
    """
    for what, text in (("Issuer", claims.issuer), ("Subject", claims.subject)):
        if not text:
            raise AuthError(f"{what} empty")
        if len(text.encode()) > CLAIM_BYTES_MAX:
            raise AuthError(f"{what} too long: {quoted(text)}")
    identity = Identity.derive(claims.issuer, claims.subject)
    if claims.hex_identity not in (None, identity.hex()):
        raise AuthError(
            f"Identity mismatch: token identity Identity({claims.hex_identity}) does not match "
            f"computed identity Identity({identity.hex()})"
        )
    return Credentials(_wire(identity), token, claims)


def load_or_make_key(directory: DataDirectory) -> ServerKey:
    """Return the key pair of a data directory (or of the paths its settings name), made when there is none.

    Raises:
        StorageError: Exactly one of the two files is there, one is unreadable, or they are not of one pair.
    """
    paths = directory.settings.certificate_authority
    private_name, public_name = paths.jwt_priv_key_path or "id_ecdsa", paths.jwt_pub_key_path or "id_ecdsa.pub"
    private_pem, public_pem = directory.read_text(private_name), directory.read_text(public_name)
    if private_pem is None and public_pem is None:
        key = ServerKey.generate()
        directory.write_secret(private_name, key.private_pem)
        directory.write_secret(public_name, key.public_pem)
        return key
    if public_pem is None:
        raise StorageError(f"Unable to read public key for JWT token verification: {directory.path / public_name}")
    if private_pem is None:
        raise StorageError(f"Unable to read private key for JWT token signing: {directory.path / private_name}")
    return ServerKey.from_pem(private_pem, public_pem)


def load_or_make_operator(directory: DataDirectory, tokens: Tokens) -> Credentials:
    """Return the operator of a data directory (DESIGN decision 10), minted and written down when there is none.

    Raises:
        StorageError: `operator.token` holds no token of this server's key.
    """
    text = directory.read_text("operator.token")
    if text is None:
        operator = tokens.mint()
        directory.write_secret("operator.token", operator.token + "\n")
        return operator
    try:
        token = text.strip()
        return tokens._validate_locally(token, split_token(token))
    except AuthError as error:
        raise StorageError(
            f"{directory.path / 'operator.token'} is no token of this server ({error}); "
            "remove it to have a new operator made"
        ) from error


def _wire(identity: Identity) -> bytes:
    return identity.wire


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _compact(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)
