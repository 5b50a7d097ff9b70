"""The tree of errors: what went wrong, at whose door, in words that say where and what to do.

Responsible for: the exception classes that cross package borders.
Not responsible for: HTTP statuses and close codes (one table in `stdb.net`).
"""

# ruff: noqa: N818 - the names are what module authors see (spec 08), or say what happened

from collections.abc import Sequence

__all__ = [
    "AuthError",
    "DecodeError",
    "DelayTooLong",
    "EncodeError",
    "HttpError",
    "ModuleFault",
    "NoSuchIndex",
    "NoSuchRow",
    "ProtocolError",
    "QueryError",
    "ReducerError",
    "ReducerTimeout",
    "RequestError",
    "SchemaError",
    "StdbError",
    "StorageError",
    "UniqueViolation",
]


class StdbError(Exception):
    """Root of every error that stdb raises on purpose."""


class RequestError(StdbError):
    """A client asked for what it cannot have; answered to that client alone."""


class ProtocolError(RequestError):
    """Bytes or text that break a wire format; the connection that sent them is closed."""


class DecodeError(ProtocolError):
    """A value that does not decode at its type.

    `offset` is the byte position (BSATN) where decoding stopped; None for JSON, whose message names a path instead.
    """

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


class EncodeError(StdbError, ValueError):
    """A value that does not fit its type; the message names the element by a path like `$.hp` or `$[2]`."""


class AuthError(RequestError):
    """No, expired, foreign or garbled credentials."""


class QueryError(RequestError):
    """SQL that does not parse, type-check or may not be run by this caller."""


class ReducerError(RequestError):
    """The module refused the call; its transaction is rolled back. Module authors raise it as `SenderError`."""


class UniqueViolation(StdbError):
    """An insert or update would give two rows the same unique key.

    `table`, `constraint` and `columns` are names, `value` is the key as text in SATS notation.
    """

    def __init__(self, message: str, *, table: str, constraint: str, columns: tuple[str, ...], value: str) -> None:
        super().__init__(message)
        self.table = table
        self.constraint = constraint
        self.columns = columns
        self.value = value


class NoSuchRow(StdbError):
    """An update named a key that no row has."""


class DelayTooLong(StdbError):
    """A module wrote a row that is due too far ahead."""


class NoSuchIndex(StdbError):
    """A look-up needs an index that the table does not declare."""


class HttpError(StdbError):
    """An HTTP request of a procedure that got no response: refused, unreachable, too slow, too large or malformed."""


class ModuleFault(StdbError):
    """The module broke (an exception it did not mean to raise); the caller learns no more than that.

    The message is what the caller sees. What the database logs for the module's owner: `report`, a traceback of the
    module's own frames, and the `filename` and `line` it ends at; where the module's language has none, `__cause__`.
    `trace`, where the report tells it not: the functions that were running, innermost first.
    """

    def __init__(
        self,
        message: str,
        *,
        report: str | None = None,
        filename: str | None = None,
        line: int | None = None,
        trace: Sequence[str] | None = None,
    ) -> None:
        super().__init__(message)
        self.report = report
        self.filename = filename
        self.line = line
        self.trace = trace


class SchemaError(StdbError):
    """A module that cannot be published. `errors` holds every finding, each naming table and column."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


class StorageError(StdbError):
    """A log, snapshot or control file that is unreadable or unwritable; stops that database."""


class ReducerTimeout(BaseException):
    """A reducer outlived its time limit. Not a `StdbError`: a module must not catch it by accident."""
