"""What all routes of 0.11 share: where they stand, names and addresses in their paths, what errors become.

Responsible for: the prefixes, `:name_or_address`, addresses and mail as parameters, 0.11's statuses and texts.
Not responsible for: credentials (`legacy_auth`), what the routes do (`routes_legacy_*`).

Source: spec 03 sections 0.3 and 8. The routes stand at the root and, unchanged, below a prefix for each generation.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from stdb.actors.refusals import (
    BadArguments,
    LifecycleCall,
    NoSuchDatabase,
    NoSuchFunction,
    PublishFailed,
    UpdateReducerFailed,
)
from stdb.errors import RequestError, StdbError
from stdb.net.claims import quoted
from stdb.net.errors import HttpError, error_response, text_response
from stdb.net.http import Response
from stdb.net.legacy_auth import legacy_token
from stdb.net.protocols.legacy import choice
from stdb.net.protocols.legacy.texts import of_failed_reducer
from stdb.net.query import Query, QueryStringError
from stdb.net.routing import Call, Conventions, Resource
from stdb.net.tokens import Tokens
from stdb.sats.names import is_domain
from stdb.storage.control import Database

__all__ = [
    "BAD_DOMAIN",
    "LEGACY",
    "PREFIXES",
    "address_hex",
    "address_parameter",
    "below_prefixes",
    "domain_or_address",
    "email_parameter",
    "find",
    "parse_address",
    "path_address",
    "required",
]

PREFIXES = ("", *choice.PREFIXES)
BAD_DOMAIN = "Unable to parse domain name"
_ADDRESS = re.compile(r"[0-9a-fA-F]{32}", re.ASCII)
_PAIRS = re.compile(r"(?:[0-9a-fA-F]{2}){0,15}", re.ASCII)
_BAD_ARGUMENTS = re.compile(
    r"(invalid arguments for reducer .*?: (.*?)): invalid arguments for function .*?: \2: (.*)", re.S
)
_PARSE_ERROR = re.compile(
    r"failed to parse WebAssembly module: (.*?)(?: - expected=.*)? \(at offset 0x([0-9a-f]+)\)(?:;.*)?", re.S
)


def error_of_0_11(error: StdbError) -> Response | None:
    """Return the answer an error becomes on the routes of 0.11."""
    if isinstance(error, NoSuchDatabase):
        return text_response("No such database.", 404)
    if isinstance(error, NoSuchFunction | LifecycleCall):
        return text_response("no such reducer", 404)
    if isinstance(error, BadArguments) and (match := _BAD_ARGUMENTS.fullmatch(str(error))):
        return text_response(f"{match[1]}: {match[3]}", 400)
    if isinstance(error, PublishFailed) and (match := _PARSE_ERROR.fullmatch(str(error))):
        where = f"Invalid input WebAssembly code at offset {int(match[2], 16)}"
        return text_response(f"failed to parse WebAssembly module: {where}: {match[1]}", 500)
    if isinstance(error, PublishFailed):
        text = of_failed_reducer(str(error))
        return text_response(text, 530 if isinstance(error, UpdateReducerFailed) else 500)
    return error_response(error)


LEGACY = Conventions(legacy_token, Tokens.validate_legacy, error_of_0_11)


def below_prefixes(resources: Iterable[Resource]) -> Iterator[Resource]:
    """Yield each resource of 0.11 at every place where it stands."""
    for resource in resources:
        for prefix in PREFIXES:
            yield replace(resource, path=prefix + resource.path, conventions=LEGACY)


def address_hex(address: bytes) -> str:
    """Write an address (16 bytes as stored) as people know it."""
    return address[::-1].hex()


def parse_address(text: str) -> bytes:
    """Return an address as it is stored: 16 bytes, last digits first.

    Raises:
        ValueError: With the text of 0.11.
    """
    if _ADDRESS.fullmatch(text):
        return bytes.fromhex(text)[::-1]
    if _PAIRS.fullmatch(text):
        raise ValueError("too few elements for array")
    raise ValueError(f"invalid value: string {quoted(text)}, expected a byte array or hex string")


def address_parameter(query: Query, name: str) -> bytes | None:
    """Return an address of the query, or None. Raises QueryStringError."""
    text = query.text(name)
    try:
        return None if text is None else parse_address(text)
    except ValueError as error:
        raise QueryStringError(str(error)) from error


def required(query: Query, name: str) -> str:
    """Return a parameter that must be there. Raises QueryStringError."""
    text = query.text(name)
    if text is None:
        raise QueryStringError(f"missing field `{name}`")
    return text


def email_parameter(query: Query) -> str:
    """Return the mail address of the query. Raises QueryStringError."""
    text = required(query, "email")
    local, at, domain = text.rpartition("@")
    problem = None if at else "Missing separator character '@'."
    problem = problem or (None if local else "Local part is empty.") or (None if domain else "Domain part is empty.")
    if problem is not None:
        raise QueryStringError(f"invalid value: string {quoted(text)}, expected {problem}")
    return text


def domain_or_address(text: str) -> str | bytes:
    """Return the name of a database, or its address as stored.

    Raises:
        HttpError: 400, it is neither.
    """
    digits = text.removeprefix("0x")
    if _ADDRESS.fullmatch(digits):
        return parse_address(digits)
    if not is_domain(text):
        raise HttpError(400, BAD_DOMAIN)
    return text


def find(call: Call) -> Database:
    """Return the living database that the path names.

    Raises:
        HttpError: 400, the path holds no name, or nothing has that name.
        NoSuchDatabase: No database has that address.
    """
    named, control = domain_or_address(call.parameter("name_or_address")), call.door.host.control
    identity = control.resolve_address(named) if isinstance(named, bytes) else control.resolve(named)
    found = None if identity is None else control.database(identity)
    if found is not None:
        call.connection.about = found.identity
        return found
    if isinstance(named, str):
        raise HttpError(400)
    raise NoSuchDatabase("No such database.")


def path_address(call: Call) -> bytes:
    """Return the address that the path names in 32 digits. Raises RequestError."""
    try:
        return parse_address(call.parameter("address"))
    except ValueError as error:
        raise RequestError(f"Invalid URL: {error}") from error
