"""The upgrade of an HTTP request to a WebSocket: pure functions over its headers and its query string.

Responsible for: the accept key, the choice of the protocol, the query parameters and their refusals.
Not responsible for: HTTP, credentials, the order of the checks (the front door), frames (`frames`).

Source: spec 02 sections 1.1 to 3.2, spec 05 section 1.3.20, spec 09 section 2.2.
"""

import base64
import hashlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from stdb.actors.sink import Client
from stdb.errors import RequestError
from stdb.net.protocols.dialect import ConnectionOptions
from stdb.net.protocols.registry import SUBPROTOCOLS
from stdb.net.protocols.wire import Compression

__all__ = [
    "NO_PROTOCOL",
    "ZERO_CONNECTION_ID",
    "ConnectionOptions",
    "Handshake",
    "accept_key",
    "check_connection_id",
    "choose_subprotocol",
    "parse_options",
]

NO_PROTOCOL = "no valid protocol selected"
ZERO_CONNECTION_ID = "Invalid connection ID: the all-zeros ConnectionId is reserved."

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_PREFIX = "Failed to deserialize query string: "
_HEX = frozenset("0123456789abcdefABCDEF")
_SHOWN_MAX = 100


class Handshake(NamedTuple):
    """What the front door knows of a client when the WebSocket begins."""

    subprotocol: str | None
    """The chosen one, as `choose_subprotocol` returned it; for 0.11 and older the name of the dialect, or None where
    the first message decides."""
    client: Client
    token: str
    """The token the first message hands (back) to the client."""
    options: ConnectionOptions


def accept_key(key: bytes) -> bytes:
    """Return Sec-WebSocket-Accept for a Sec-WebSocket-Key, which is not validated (as the reference)."""
    return base64.b64encode(hashlib.sha1(key.strip() + _GUID).digest())


def choose_subprotocol(offered: Iterable[str]) -> str | None:
    """Return the first of v3, v2, v1.bsatn, v1.json that is among `offered`; None when there is none.

    `offered` are the values of all Sec-WebSocket-Protocol headers, each perhaps a comma list. Names match exactly.
    """
    names = {name.strip() for value in offered for name in value.split(",")}
    return next((name for name in SUBPROTOCOLS if name in names), None)


def parse_options(parameters: Iterable[tuple[str, str]]) -> ConnectionOptions:
    """Return the options of a query string, given as decoded pairs in order; unknown names are ignored.

    An all-zero connection id passes here: it is refused later (`check_connection_id`).

    Raises:
        RequestError: A value does not parse or a name comes twice; the text is the body of the 400.
    """
    values: dict[str, Any] = {}
    for name, text in parameters:
        parse = _PARSERS.get(name)
        if parse is None:
            continue
        if name in values:
            raise RequestError(f"{_PREFIX}duplicate field `{name}`")
        values[name] = parse(text)
    return ConnectionOptions(**values)


def check_connection_id(options: ConnectionOptions) -> None:
    """Refuse the reserved connection id.

    Raises:
        RequestError: It is all zeros; the text is the body of the 400.
    """
    if options.connection_id is not None and not any(options.connection_id):
        raise RequestError(ZERO_CONNECTION_ID)


def _id_bytes(text: str) -> bytes:
    """Return 32 hex digits (big-endian) as 16 bytes, little-endian."""
    if not text:
        raise RequestError(f"{_PREFIX}too few elements for array")
    if len(text) != 32 or not _HEX.issuperset(text):
        escaped = text[:_SHOWN_MAX].replace("\\", "\\\\").replace('"', '\\"')
        raise RequestError(f'{_PREFIX}invalid value: string "{escaped}", expected a byte array or hex string')
    return bytes.fromhex(text)[::-1]


def _session_id(text: str) -> bytes | None:
    """Return the bytes of a session's id; one of another form is ignored, as by servers that know of none."""
    return bytes.fromhex(text)[::-1] if len(text) == 32 and _HEX.issuperset(text) else None


def _compression(text: str) -> Compression:
    try:
        return Compression(text)
    except ValueError:
        raise RequestError(
            f"{_PREFIX}unknown variant `{text[:_SHOWN_MAX]}`, expected one of `None`, `Brotli`, `Gzip`"
        ) from None


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise RequestError(f"{_PREFIX}provided string was not `true` or `false`")
    return text == "true"


_PARSERS: dict[str, Callable[[str], Any]] = {
    "connection_id": _id_bytes,
    "compression": _compression,
    "light": _flag,
    "confirmed": _flag,
    "session_id": _session_id,
}
