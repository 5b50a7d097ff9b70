"""What a client can ask of a database: frozen values, one per kind of message, free of wire formats.

Responsible for: the requests that dialects decode into and a DatabaseActor serves.
Not responsible for: the answers (`sink`), the bytes (`stdb.net.protocols`).

Source: spec 02 sections 6 and 8, spec 09 section 2.
"""

from enum import Enum
from typing import NamedTuple, Protocol, TypeAlias

from stdb.sats.types import Product, Typespace

__all__ = [
    "Arguments",
    "CallProcedure",
    "CallReducer",
    "OneOffQuery",
    "OneOffStatements",
    "Request",
    "Subscribe",
    "SubscribeBatch",
    "SubscriptionKind",
    "Unsubscribe",
]


class Arguments(Protocol):
    """Arguments in a form of their own, which becomes BSATN once it is known what the reducer takes."""

    @property
    def text(self) -> str | None:
        """The caller's own JSON text; None when it called in bytes."""

    def bsatn(self, params: Product, typespace: Typespace) -> bytes:
        """Return them as a module takes them. Raises DecodeError."""


class CallReducer(NamedTuple):
    """Run a reducer. `args` is BSATN (bytes), a JSON text (str) or of a form of its own."""

    request_id: int
    reducer: str
    args: bytes | str | Arguments
    notify_success: bool = True
    """False: flag NoSuccessNotify of v1."""


class CallProcedure(NamedTuple):
    """Run a procedure. `args` as in CallReducer."""

    request_id: int
    procedure: str
    args: bytes | str


class SubscriptionKind(Enum):
    """The four ways to hold queries; they share one number space of ids but LEGACY, which has none."""

    LEGACY = "legacy"  # v1 Subscribe: replaces the connection's one legacy set
    SINGLE = "single"  # v1 SubscribeSingle
    MULTI = "multi"  # v1 SubscribeMulti
    SET = "set"  # v2 and v3 query set


class Subscribe(NamedTuple):
    """Open (LEGACY: replace) a set of queries."""

    kind: SubscriptionKind
    request_id: int
    query_set_id: int
    """Chosen by the client; 0 for LEGACY."""
    queries: tuple[str, ...]


class SubscribeBatch(NamedTuple):
    """Open several query sets at one offset; each succeeds or fails alone (v2, v3)."""

    request_id: int
    sets: tuple[tuple[int, tuple[str, ...]], ...]


class Unsubscribe(NamedTuple):
    """Close a set of queries."""

    kind: SubscriptionKind
    request_id: int
    query_set_id: int
    send_dropped_rows: bool = True


class OneOffQuery(NamedTuple):
    """Evaluate one query now. `request_id` is an integer (v2, v3) or opaque bytes (v1: message_id)."""

    request_id: int | bytes
    query: str


class OneOffStatements(NamedTuple):
    """Evaluate any number of SELECTs of full SQL now (0.11 and older). `request_id` is opaque bytes."""

    request_id: bytes
    queries: str


Request: TypeAlias = (
    CallReducer | CallProcedure | Subscribe | SubscribeBatch | Unsubscribe | OneOffQuery | OneOffStatements
)
