"""The protocols this server speaks, in the order it prefers them.

Responsible for: the table of subprotocol names and opening a dialect by its name.
Not responsible for: choosing one in an upgrade (`stdb.net.handshake`), the dialects themselves (one a file).

Source: spec 02 section 3.1.
"""

from collections.abc import Callable

from stdb.net.outbox import Outbox
from stdb.net.protocols.dialect import ConnectionOptions, Dialect
from stdb.net.protocols.v1_bsatn import V1Bsatn
from stdb.net.protocols.v1_json import V1Json
from stdb.net.protocols.v2_bsatn import V2Bsatn
from stdb.net.protocols.v3_bsatn import V3Bsatn
from stdb.schema.model import ModuleDef

__all__ = ["SUBPROTOCOLS", "open_dialect"]

_DIALECTS: dict[str, type[Dialect]] = {dialect.NAME: dialect for dialect in (V3Bsatn, V2Bsatn, V1Bsatn, V1Json)}

SUBPROTOCOLS = tuple(_DIALECTS)
"""Names of the subprotocols; the first that a client offers is taken, whatever the client's order."""


def open_dialect(
    subprotocol: str, outbox: Outbox, options: ConnectionOptions, definition: Callable[[], ModuleDef]
) -> Dialect:
    """Return one client's dialect. `definition` tells what the module declares at the moment it is called."""
    return _DIALECTS[subprotocol](outbox, options, definition)
