"""What a token says: header and payload texts to checked claims.

Responsible for: the JSON of both parts, types of the members we know, texts of every refusal.
Not responsible for: signatures and time (`tokens`), who the claims make you (`tokens`).

Source: spec 05 sections 1.1 and 2.4; the texts and their columns are those of the reference (its recorded tokens are
the test).
"""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any, NamedTuple

from stdb.errors import AuthError
from stdb.sats.special import Identity

__all__ = ["Claims", "decode_part", "parse_claims", "parse_header", "parse_identity", "parse_legacy_claims", "quoted"]

_ALGORITHMS = (
    "HS256", "HS384", "HS512", "ES256", "ES384", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA",
)  # fmt: skip
_I64_MIN, _I64_MAX, _U64_MAX = -(2**63), 2**63 - 1, 2**64 - 1
_SPACE = re.compile(r"[ \t\n\r]*")
_BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_HEX_DIGITS = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)


class Claims(NamedTuple):
    """The claims of a payload; everything else in it is kept in `document`."""

    issuer: str
    subject: str
    issued_s: int
    expires_s: int | None
    hex_identity: str | None
    """64 digits, lower case."""
    document: dict[str, Any]
    text: str
    """The payload exactly as it was signed."""


class _Refusal(Exception):  # noqa: N818 - never leaves this module
    """A value refused by its member; the position is added where it is known."""


def decode_part(part: str) -> bytes:
    """Return the bytes of one base64url part without padding.

    Raises:
        AuthError: Names the first bad symbol and its offset in this part.
    """
    for offset, symbol in enumerate(part.encode()):
        if symbol not in _BASE64:
            raise AuthError(f"Invalid token: Base64 error: Invalid symbol {symbol}, offset {offset}.")
    if len(part) % 4 == 1:
        raise AuthError(f"Invalid token: Base64 error: Invalid input length: {len(part)}")
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def parse_header(data: bytes) -> tuple[str, str | None]:
    """Return algorithm and key id of a token's header.

    Raises:
        AuthError: It is no JSON object, names no known algorithm, or its key id is no string.
    """
    members, end = _parse_object(data, "Header", {"typ": _optional_string, "alg": _algorithm, "kid": _optional_string})
    if "alg" not in members:
        raise _json_error("missing field `alg`", data.decode(), end)
    return members["alg"], members.get("kid")


def parse_claims(data: bytes) -> Claims:
    """Return the claims of a token's payload.

    Raises:
        AuthError: It is no JSON object, or a claim is missing, of a wrong type or there twice.
    """
    members, end = _parse_object(data, "IncomingClaims", _CLAIMS)
    text = data.decode()
    for name in ("sub", "iss", "iat"):
        if name not in members:
            raise _json_error(f"missing field `{name}`", text, end)
    return Claims(
        members["iss"], members["sub"], members["iat"], members.get("exp"), members.get("hex_identity"), members, text
    )


def parse_legacy_claims(part: str) -> Claims | None:
    """Return the claims of a payload part of 0.11, or None where it is none: `hex_identity` and `iat` make one.

    Issuer and subject may be missing, and `exp` may be a null; other claims are kept and ignored.
    """
    try:
        text = decode_part(part).decode()
        document = json.loads(text)
    except (AuthError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    identity, issued, expires = document.get("hex_identity"), document.get("iat"), document.get("exp")
    is_hex = isinstance(identity, str) and _HEX_DIGITS.fullmatch(identity)
    if not is_hex or type(issued) is not int or not (expires is None or type(expires) is int):
        return None
    issuer, subject = (str(document.get(name, "")) for name in ("iss", "sub"))
    return Claims(issuer, subject, issued, expires, str(identity).lower(), document, text)


def quoted(text: str) -> str:
    """Write a string as the reference's debug form does."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}
    shown = (escapes.get(c, c if c.isprintable() else f"\\u{{{ord(c):x}}}") for c in text)
    return f'"{"".join(shown)}"'


def parse_identity(text: str) -> Identity:
    """Return the identity of 64 hex digits of either case.

    Raises:
        ValueError: With the reference's text.
    """
    if _HEX_DIGITS.fullmatch(text):
        return Identity.from_hex(text)
    if len(text) < 64 and re.fullmatch(r"([0-9a-fA-F]{2})*", text, re.ASCII):
        raise ValueError("too few elements for array")
    raise ValueError(f"invalid value: string {quoted(text)}, expected a byte array or hex string")


# ---------------------------------------------------------------------- members
def _string(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise _Refusal(f"invalid type: {_unexpected(value)}, expected a string")


def _optional_string(value: Any) -> str | None:
    return None if value is None else _string(value)


def _integer(value: Any) -> int:
    if type(value) is int and _I64_MIN <= value <= _I64_MAX:
        return value
    kind = "value" if type(value) is int and _I64_MAX < value <= _U64_MAX else "type"
    raise _Refusal(f"invalid {kind}: {_unexpected(value)}, expected i64")


def _optional_integer(value: Any) -> int | None:
    return None if value is None else _integer(value)


def _audience(value: Any) -> Any:
    if isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        return value
    raise _Refusal("data did not match any variant of untagged enum Audience")


def _identity(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise _Refusal(f"invalid type: {_unexpected(value)}, expected a byte array or hex string")
    try:
        return parse_identity(value).hex()
    except ValueError as error:
        raise _Refusal(str(error)) from error


def _algorithm(value: Any) -> str:
    text = _string(value)
    if text in _ALGORITHMS:
        return text
    known = ", ".join(f"`{name}`" for name in _ALGORITHMS)
    raise _Refusal(f"unknown variant `{text}`, expected one of {known}")


_CLAIMS: dict[str, Callable[[Any], Any]] = {
    "hex_identity": _identity,
    "sub": _string,
    "iss": _string,
    "aud": _audience,
    "iat": _integer,
    "exp": _optional_integer,
}


def _unexpected(value: Any) -> str:
    """Say what a value is, in the words of the reference's parser."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"boolean `{str(value).lower()}`"
    if isinstance(value, int) and -(2**63) <= value <= _U64_MAX:
        return f"integer `{value}`"
    if isinstance(value, int | float):
        return f"floating point `{float(value)!r}`"
    if isinstance(value, str):
        return f"string {quoted(value)}"
    return "sequence" if isinstance(value, list) else "map"


# ---------------------------------------------------------------------- JSON with positions
def _parse_object(data: bytes, what: str, known: dict[str, Callable[[Any], Any]]) -> tuple[dict[str, Any], int]:
    """Return the members of a JSON object, known ones checked as they come, and the position behind it."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise AuthError(f"Invalid token: invalid utf-8 sequence of 1 bytes from index {error.start}") from error
    at = _skip(text, 0)
    if at == len(text):
        raise _json_error("EOF while parsing a value", text, at)
    if text[at] != "{":
        value, _ = _parse_value(text, at)
        raise _json_error(f"invalid type: {_unexpected(value)}, expected struct {what}", text, 0)
    members: dict[str, Any] = {}
    at = _skip(text, at + 1)
    while text[at : at + 1] != "}":
        if members:
            at = _skip(text, _expect(text, at, ",", "`,` or `}`"))
        name, at = _parse_name(text, at)
        if name in members and name in known:
            raise _json_error(f"duplicate field `{name}`", text, at)
        at = _skip(text, _expect(text, _skip(text, at), ":", "`:`"))
        value, at = _parse_value(text, at)
        members[name] = _checked(known.get(name), value, text, at)
        at = _skip(text, at)
    at += 1
    if _skip(text, at) != len(text):
        raise _json_error("trailing characters", text, _skip(text, at) + 1)
    return members, at


def _checked(check: Callable[[Any], Any] | None, value: Any, text: str, end: int) -> Any:
    if check is None:
        return value
    try:
        return check(value)
    except _Refusal as refusal:
        raise _json_error(str(refusal), text, end) from refusal


def _parse_name(text: str, at: int) -> tuple[str, int]:
    if text[at : at + 1] != '"':
        raise _json_error("key must be a string" if at < len(text) else "EOF while parsing an object", text, at + 1)
    name, end = _parse_value(text, at)
    return str(name), end


def _parse_value(text: str, at: int) -> tuple[Any, int]:
    """Return the value at a position and the position behind it; strings are good Unicode, nesting is bounded."""
    try:
        value, end = _DECODER.raw_decode(text, at)
        text[at:end].encode()
        if "\\u" in text[at:end]:
            json.dumps(value, ensure_ascii=False).encode()  # lone surrogates
    except RecursionError as error:
        raise _json_error("recursion limit exceeded", text, at) from error
    except json.JSONDecodeError as error:
        what = "expected value" if error.pos < len(text) else "EOF while parsing a value"
        raise _json_error(what, text, min(error.pos + 1, len(text))) from error
    except ValueError as error:
        raise _json_error("invalid value", text, at + 1) from error
    return value, end


def _parse_integer(text: str) -> int | float:
    return -0.0 if text == "-0" else int(text) if len(text) < 400 else float(text)


def _refuse_constant(text: str) -> Any:
    raise ValueError(text)


_DECODER = json.JSONDecoder(parse_int=_parse_integer, parse_constant=_refuse_constant)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _expect(text: str, at: int, mark: str, expected: str) -> int:
    if text[at : at + 1] == mark:
        return at + 1
    raise _json_error(f"expected {expected}" if at < len(text) else "EOF while parsing an object", text, at + 1)


def _json_error(what: str, text: str, at: int) -> AuthError:
    """Return the refusal of a JSON text at a position, counted in bytes of its line."""
    before = text[:at]
    column = len(before[before.rfind("\n") + 1 :].encode("utf-8", "surrogatepass"))
    return AuthError(f"Invalid token: JSON error: {what} at line {before.count(chr(10)) + 1} column {column}")
