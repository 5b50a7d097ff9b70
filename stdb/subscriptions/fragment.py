"""Fragments: the rows one query contributes to one message, shared by every client that sees them.

Responsible for: the values `Fragment`, `SetUpdate` and `ClientUpdate` and their caches of encodings.
Not responsible for: computing them (`registry`), the wire forms (`stdb.net.protocols`).

A cache maps a key chosen by the dialect, e.g. `"v2 brotli"`, to bytes; the same object is handed to every
client that sees the same rows, so each form is encoded once (DESIGN decision 7).
"""

from typing import Any

__all__ = ["ClientUpdate", "Fragment", "SetUpdate", "TransactionEvent"]


class Fragment:
    """Rows of one table: of a delta (inserts and deletes), of an initial answer (inserts) or of a drop (deletes)."""

    __slots__ = ("cache", "columns", "deletes", "inserts", "is_event", "table_id", "table_name")

    def __init__(
        self,
        table_id: int,
        table_name: str,
        columns: Any,
        inserts: list[bytes],
        deletes: list[bytes],
        is_event: bool = False,
    ) -> None:
        self.table_id = table_id
        self.table_name = table_name
        self.columns = columns
        """The `stdb.datastore.table.TableSchema` whose codec reads the rows."""
        self.inserts = inserts
        self.deletes = deletes
        self.is_event = is_event
        """Rows of an event table, or rows that were joined with one: told once, kept by nobody, never deleted."""
        self.cache: dict[Any, bytes] = {}


class SetUpdate:
    """What one query set sees of a transaction; fragments by table name. `query_set_id` is None for v1."""

    __slots__ = ("fragments", "query_set_id")

    def __init__(self, query_set_id: int | None, fragments: tuple[Fragment, ...]) -> None:
        self.query_set_id = query_set_id
        self.fragments = fragments


class ClientUpdate:
    """What one client sees of one transaction: its sets in ascending id. Clients that see the same share the object."""

    __slots__ = ("cache", "sets")

    def __init__(self, sets: tuple[SetUpdate, ...]) -> None:
        self.sets = sets
        self.cache: dict[Any, Any] = {}


class TransactionEvent:
    """Where a transaction came from, for the messages that tell it. One object per transaction."""

    __slots__ = (
        "args",
        "args_json",
        "caller",
        "caller_connection_id",
        "duration_us",
        "energy",
        "needs",
        "reducer_id",
        "reducer_name",
        "request_id",
        "timestamp_us",
    )

    def __init__(
        self,
        caller: bytes,
        caller_connection_id: bytes | None,
        timestamp_us: int,
        reducer_name: str = "",
        reducer_id: int = 0xFFFFFFFF,
        args: bytes = b"",
        args_json: str | None = None,
        request_id: int = 0,
        needs: int = 0,
        energy: int = 0,
        duration_us: int = 0,
    ) -> None:
        self.caller = caller
        self.caller_connection_id = caller_connection_id
        self.timestamp_us = timestamp_us
        self.reducer_name = reducer_name
        self.reducer_id = reducer_id
        self.args = args
        """BSATN of the arguments, as received or as encoded from JSON."""
        self.args_json = args_json
        """The caller's own JSON text, when it called in JSON."""
        self.request_id = request_id
        self.needs = needs
        """How many transactions must be durable before a confirmed client may see this one: its offset + 1."""
        self.energy = energy
        self.duration_us = duration_us
