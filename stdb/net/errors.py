"""Errors at the edge: the one table from what went wrong to the status a client sees.

Responsible for: HTTP statuses and bodies of every error that a handler may meet.
Not responsible for: the texts (whoever raises them), WebSocket close codes of broken frames (`frames`, `connection`).

Source: spec 05 sections 1.1 and 1.3.
"""

import json
from typing import Any

from stdb.actors.refusals import (
    BadArguments,
    ConnectOutOfTime,
    ConnectRefused,
    DatabaseUnavailable,
    EnvironmentRefused,
    LifecycleCall,
    NoSuchDatabase,
    NoSuchFunction,
    NoSuchRoute,
    NoSuchTable,
    NotAuthorized,
    PublishFailed,
    TooBusy,
    Unconfirmed,
    UpdateRejected,
)
from stdb.errors import AuthError, QueryError, ReducerError, RequestError, SchemaError, StdbError, StorageError
from stdb.net.http import BodyTooLarge, Response
from stdb.net.tokens import MalformedTokenError
from stdb.storage.control import NotYourDatabaseError

__all__ = ["EMPTY", "JSON", "TEXT", "HttpError", "error_response", "json_response", "status_of", "text_response"]

TEXT = ("content-type", "text/plain; charset=utf-8")
JSON = ("content-type", "application/json")
EMPTY = Response(200)

_STATUSES: tuple[tuple[type[StdbError], int], ...] = (
    (BodyTooLarge, 413),
    (MalformedTokenError, 400),
    (AuthError, 401),
    (NotAuthorized, 403),
    (ConnectOutOfTime, 503),
    (ConnectRefused, 403),
    (NotYourDatabaseError, 403),
    (NoSuchDatabase, 404),
    (NoSuchFunction, 404),
    (NoSuchRoute, 404),
    (NoSuchTable, 404),
    (TooBusy, 503),
    (LifecycleCall, 400),
    (BadArguments, 400),
    (QueryError, 400),
    (UpdateRejected, 400),
    (PublishFailed, 500),
    (SchemaError, 500),
    (ReducerError, 530),
    (Unconfirmed, 503),
    (DatabaseUnavailable, 503),
    (StorageError, 503),
    (RequestError, 400),
)


class HttpError(RequestError):
    """A refusal that only HTTP knows: its status, and a text or a JSON document."""

    def __init__(
        self, status: int, text: str = "", *, document: Any = None, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(text)
        if document is not None:
            self.response = json_response(document, status, headers)
        else:
            self.response = text_response(text, status, headers) if text else Response(status, headers)


def text_response(text: str, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """Return an answer in plain text."""
    return Response(status, (TEXT, *headers), text.encode("utf-8", "replace"))


def json_response(document: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """Return an answer in JSON."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    return Response(status, (JSON, *headers), text.encode("utf-8", "replace"))


def status_of(error: StdbError) -> int | None:
    """Return the status an error becomes; None for one that no client should ever meet."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), None)


def error_response(error: StdbError) -> Response | None:
    """Return the answer an error becomes; None for one that no client should ever meet."""
    if isinstance(error, HttpError):
        return error.response
    if isinstance(error, EnvironmentRefused) and error.missing:
        document = {"EnvironmentError": {"MissingRequiredEnvironment": {"keys": list(error.missing)}}}
        return json_response(document, 400)
    status = 504 if isinstance(error, Unconfirmed) and error.is_late else status_of(error)
    return None if status is None else text_response(str(error), status)
