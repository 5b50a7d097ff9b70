"""Refusals: why a database or the host will not do what was asked, one class for each way a caller must react.

Responsible for: the leaves of `RequestError` that the actors raise to whoever awaits an answer.
Not responsible for: HTTP statuses and close codes (one table in `stdb.net`), answers to WebSocket requests (`sink`).

The texts are the ones clients see (spec 05 sections 1.1 to 1.3).
"""

from stdb.errors import RequestError

# ruff: noqa: N818 - named for what happened, as in `stdb.errors`

__all__ = [
    "BackupRefused",
    "BadArguments",
    "ConnectOutOfTime",
    "ConnectRefused",
    "DatabaseUnavailable",
    "EnvironmentRefused",
    "LifecycleCall",
    "NoFiles",
    "NoSuchDatabase",
    "NoSuchFunction",
    "NoSuchRoute",
    "NoSuchTable",
    "NotAuthorized",
    "PublishFailed",
    "RowRefused",
    "TooBusy",
    "Unconfirmed",
    "UpdateReducerFailed",
    "UpdateRejected",
]


class NoSuchDatabase(RequestError):
    """No database has that name or identity (404)."""


class NoSuchFunction(RequestError):
    """No reducer or procedure of that name that this caller may call (404)."""


class NoSuchRoute(RequestError):
    """The module has no handler for that method and path (404)."""

    def __init__(self) -> None:
        super().__init__("Database has not registered a handler for this route")


class NoSuchTable(RequestError):
    """The module has no table of that name (404)."""


class RowRefused(RequestError):
    """A row breaks a constraint; `place` says which of those that were given (400)."""

    def __init__(self, text: str, place: int) -> None:
        super().__init__(text)
        self.place = place


class TooBusy(RequestError):
    """As much is running as may; the text says of what (503)."""


class LifecycleCall(RequestError):
    """A lifecycle reducer was called by name (400)."""


class BadArguments(RequestError):
    """The arguments of a call do not decode (400)."""


class ConnectRefused(RequestError):
    """The module's `client_connected` refused the caller; carries its text (403)."""


class ConnectOutOfTime(ConnectRefused):
    """The module's `client_connected` ran out of time (503)."""

    def __init__(self) -> None:
        super().__init__("Insufficient energy balance to run `client_connected` reducer")


class NotAuthorized(RequestError):
    """The caller is not the owner, or may not publish code of this kind (403)."""


class PublishFailed(RequestError):
    """The program does not load, is invalid, or its `init` failed; nothing of it remains (500)."""

    lines: tuple[str, ...] = ()
    """What a new database's module log would have said, as whoever runs the server may read it."""


class UpdateReducerFailed(PublishFailed):
    """The `__update__` of a module of 0.11 failed, with its text; nothing changed."""


class UpdateRejected(RequestError):
    """The program would change the stored tables in a way that cannot be done; nothing changed (400)."""

    tables: tuple[tuple[str, str], ...] = ()
    """Which tables these are, each with what is wrong, as often as something is; of one that is gone with nothing."""


class EnvironmentRefused(UpdateRejected):
    """The program does not take the environment variables it would have; `missing` names those without a value."""

    def __init__(self, text: str, missing: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.missing = missing


class BackupRefused(RequestError):
    """A file is no backup that can be restored here; the text says why (400)."""


class NoFiles(RequestError):
    """This server keeps its databases in memory (400)."""


class Unconfirmed(RequestError):
    """A database was updated, but is not known to be stored so (503, or 504 where it only takes too long)."""

    def __init__(self, text: str, *, is_late: bool = False) -> None:
        super().__init__(f"Database update failed: {text}")
        self.is_late = is_late


class DatabaseUnavailable(RequestError):
    """The database is not running; the text says why and what revives it (503)."""
