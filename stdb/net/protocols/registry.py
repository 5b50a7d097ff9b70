"""The protocols this server speaks, in the order it prefers them.

Responsible for: the table of subprotocol names and opening a dialect by its name.
Not responsible for: choosing one in an upgrade (`stdb.net.handshake`, for 0.11 and older `legacy.choice`), the dialects
themselves (one a file).

Source: spec 02 section 3.1, spec 03 section 0.
"""

from collections.abc import Callable

from stdb.net.outbox import Outbox
from stdb.net.paced_outbox import PacedOutbox
from stdb.net.protocols.dialect import ConnectionOptions, Dialect
from stdb.net.protocols.legacy.bsatn import Bin011
from stdb.net.protocols.legacy.json import Text011
from stdb.net.protocols.legacy.protobuf import Bin010, Bin08
from stdb.net.protocols.legacy.text import Text08
from stdb.net.protocols.v1_bsatn import V1Bsatn
from stdb.net.protocols.v1_json import V1Json
from stdb.net.protocols.v2_bsatn import V2Bsatn
from stdb.net.protocols.v3_bsatn import V3Bsatn
from stdb.net.stream import FrameStream
from stdb.schema.model import ModuleDef

__all__ = ["SUBPROTOCOLS", "open_dialect", "open_outbox"]

_MODERN: tuple[type[Dialect], ...] = (V3Bsatn, V2Bsatn, V1Bsatn, V1Json)
_LEGACY: tuple[type[Dialect], ...] = (Bin011, Text011, Text08, Bin010, Bin08)
"""Two names of subprotocols stand for all of them (`legacy.choice`)."""
_DIALECTS = {dialect.NAME: dialect for dialect in (*_MODERN, *_LEGACY)}

SUBPROTOCOLS = tuple(dialect.NAME for dialect in _MODERN)
"""Names of the subprotocols; the first that a client offers is taken, whatever the client's order."""


def open_outbox(dialect: str, stream: FrameStream) -> Outbox:
    """Return the queue of one client that speaks `dialect`."""
    return PacedOutbox(stream) if _DIALECTS[dialect].MANNERS.is_paced else Outbox(stream)


def open_dialect(
    subprotocol: str, outbox: Outbox, options: ConnectionOptions, definition: Callable[[], ModuleDef]
) -> Dialect:
    """Return one client's dialect. `definition` tells what the module declares at the moment it is called."""
    return _DIALECTS[subprotocol](outbox, options, definition)
