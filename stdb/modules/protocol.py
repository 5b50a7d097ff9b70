"""What the database needs of a module, whatever language it was written in.

Responsible for: the Protocol `Module` and the frozen values handed to it.
Not responsible for: loading (`python`, `wasm`), transactions (`datastore`), who may call (`actors`).
"""

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from stdb.datastore.datastore import Datastore
    from stdb.datastore.transaction import Transaction
    from stdb.schema.model import ModuleDef

__all__ = ["LogLevel", "LogSink", "Module", "ReducerCall"]


class ReducerCall(NamedTuple):
    """The circumstances of one call."""

    sender: bytes
    """Identity of the caller: 32 bytes, little-endian as on the wire."""
    connection_id: bytes | None
    """16 bytes, little-endian; None for the scheduler, `init` and other calls without a connection."""
    timestamp_us: int
    """Microseconds since 1970."""
    transaction: "Transaction"
    """The open transaction; the module only reads and writes through it."""
    credentials: str | None = None
    """JSON payload of the caller's token, exactly as presented."""


class LogLevel:
    """Levels of a module's log lines, as their wire names (spec 05 section 5.5)."""

    ERROR, WARN, INFO, DEBUG, TRACE, PANIC = "Error", "Warn", "Info", "Debug", "Trace", "Panic"


class LogSink(Protocol):
    """Takes the lines a module logs; the shell stores and streams them."""

    def write(
        self,
        level: str,
        message: str,
        *,
        target: str | None = None,
        filename: str | None = None,
        line: int | None = None,
        function: str | None = None,
    ) -> None:
        """Append one line."""


class Module(Protocol):
    """A loaded program. One instance belongs to one database and is called from one thread."""

    definition: "ModuleDef"
    program_hash: bytes
    """Keccak-256 of the program, 32 bytes in digest order."""

    def attach(self, datastore: "Datastore", database_identity: bytes, log: LogSink) -> None:
        """Bind to the tables of a database; called once before the first call and again after a schema change."""

    def reducer(self, reducer_id: int) -> "Callable[[ReducerCall, bytes], None]":
        """Return the entry of a reducer: called with the circumstances and the BSATN of the arguments.

        The entry returns None on success. It raises:
            DecodeError: The arguments do not decode (nothing was run).
            ReducerError: The module refused; its text goes to the caller.
            ReducerTimeout: The time limit passed.
            ModuleFault: Any other failure; its `__cause__` is the module's exception.
        """
