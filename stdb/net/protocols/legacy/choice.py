"""The choice among the protocols of 0.11 and older: two names, three generations behind them.

Responsible for: which dialect a handshake gets, and what it takes to know.
Not responsible for: the handshake itself (`stdb.net.handshake`), waiting for the first message (`stdb.net.connection`).

Source: spec 03 section 0.3. The server speaks first, so it mostly has to know before it has heard anything.
"""

from collections.abc import Iterable

from stdb.net.protocols.legacy.bsatn import Bin011
from stdb.net.protocols.legacy.json import Text011
from stdb.net.protocols.legacy.protobuf import Bin010, Bin08
from stdb.net.protocols.legacy.reading import first_key
from stdb.net.protocols.legacy.requests import OLD_KEYS
from stdb.net.protocols.legacy.text import Text08

__all__ = ["BIN", "FIRST_MESSAGE_SECONDS_MAX", "PREFIXES", "TEXT", "choose", "choose_by_message", "choose_subprotocol"]

BIN, TEXT = "v1.bin.spacetimedb", "v1.text.spacetimedb"
FIRST_MESSAGE_SECONDS_MAX = 0.25
"""How long a client may be silent before the server takes it for one of 0.11."""


_BY_PREFIX = {
    "/legacy/0.8": {BIN: Bin08.NAME, TEXT: Text08.NAME},
    "/legacy/0.10": {BIN: Bin010.NAME, TEXT: Text08.NAME},
    "/legacy/0.11": {BIN: Bin011.NAME, TEXT: Text011.NAME},
}
PREFIXES = tuple(_BY_PREFIX)
"""Paths under which all of a generation is found; at the root, "", a server has to guess."""


def choose_subprotocol(offered: Iterable[str]) -> str | None:
    """Return the name that is echoed: `v1.bin` wherever it stands, else `v1.text`; None when neither is offered.

    `offered` are the values of all Sec-WebSocket-Protocol headers, each perhaps a comma list. Names match exactly.
    """
    names = {name.strip() for value in offered for name in value.split(",")}
    return next((name for name in (BIN, TEXT) if name in names), None)


def choose(prefix: str, subprotocol: str, *, has_address: bool, has_origin: bool) -> str | None:
    """Return the name of the dialect for a handshake; None: only the first message can tell.

    `prefix` is one of PREFIXES or ""; `subprotocol` is what `choose_subprotocol` returned; `has_address` tells whether
    there is a `client_address`. Clients of 0.8 in Python send both it and an Origin; nobody else who speaks text does.
    """
    if prefix:
        return _BY_PREFIX[prefix][subprotocol]
    if subprotocol == BIN:
        return Bin011.NAME
    return Text08.NAME if has_address and has_origin else None


def choose_by_message(first: bytes | str | None) -> str:
    """Return the name of the dialect that the first message is in; None: there was none in time."""
    is_old = isinstance(first, str) and first_key(first) in OLD_KEYS
    return Text08.NAME if is_old else Text011.NAME
