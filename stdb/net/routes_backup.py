"""Routes for whole databases as files: backup and restore.

Responsible for: the file on its way out and in.
Not responsible for: what a backup is (`stdb.storage.backup`), making a database of one (`stdb.actors.archive`).

A backup is sent from a copy beside the databases, which needs room for it; the copy has no name any more while it is
sent, so nothing is left behind whatever happens.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO

import trio

from stdb.actors.refusals import NotAuthorized
from stdb.errors import StorageError
from stdb.net.auth import Access
from stdb.net.claims import parse_identity
from stdb.net.http import Response
from stdb.net.query import QueryStringError
from stdb.net.routes_history import adopted_response, name_refusal
from stdb.net.routing import Call, Lookup, Resource
from stdb.storage.backup import remove_file
from stdb.storage.control import NameInUseError, NameNotYoursError

__all__ = ["RESOURCES"]

PIECE_BYTES = 256 * 1024


async def backup(call: Call) -> Response:
    """Answer with a copy of the database's file as of now; `stdb-offset` is that of its newest transaction."""
    database = call.database()
    call.door.host.check_owner(call.caller.identity, database.identity, "back up database")
    async with call.door.host.archive.backup(database.identity) as copy:
        file = open(copy.path, "rb")  # noqa: SIM115, ASYNC230 - the answer closes it
        size = copy.path.stat().st_size
    headers = (
        ("content-type", "application/vnd.sqlite3"),
        ("content-length", str(size)),
        ("stdb-offset", str(copy.offset)),
    )
    if call.request.method == "HEAD":
        file.close()
        return Response(200, headers)
    return Response(200, headers, _pieces(file))


async def _pieces(file: BinaryIO) -> AsyncGenerator[bytes, None]:
    with file:
        while piece := await trio.to_thread.run_sync(file.read, PIECE_BYTES):
            yield piece


async def restore(call: Call) -> Response:
    """Make the backup in the body a database; the operator may."""
    host = call.door.host
    if call.door.operator is not None and call.caller.identity != call.door.operator:
        raise NotAuthorized(
            f"{call.caller.hex} may not restore databases, whose programs run inside the server: its operator may"
        )
    name = call.query.text("name")
    if name is None and "name_or_identity" in call.parameters:
        named = call.name_or_identity()
        name = named if isinstance(named, str) else None
    owner = _owner(call)
    path = host.archive.new_part(bytes(32))
    try:
        await _receive(call, path)
        return adopted_response(await host.archive.restore(path, name, owner))
    except (NameInUseError, NameNotYoursError) as error:
        raise name_refusal(error) from error
    finally:
        remove_file(path)


async def _receive(call: Call, path: Path) -> None:
    """Write the body into a file."""
    try:
        with open(path, "wb") as file:  # noqa: ASYNC230 - written piece by piece in threads
            async with aclosing(call.connection.body_pieces()) as pieces:
                async for piece in pieces:
                    await trio.to_thread.run_sync(file.write, piece)
    except OSError as error:
        raise StorageError(f"the backup cannot be kept while it is checked: {error.strerror}") from error


def _owner(call: Call) -> bytes | None:
    text = call.query.text("owner")
    try:
        return None if text is None else parse_identity(text).wire
    except ValueError as error:
        raise QueryStringError(f"`owner` is no identity: {error}") from error


_PATH = "/stdb/v1/database/{name_or_identity}"

RESOURCES = (
    Resource(f"{_PATH}/backup", {"GET": backup}, Access.REQUIRED, Lookup.BEFORE_METHOD),
    Resource(f"{_PATH}/restore", {"POST": restore}, Access.REQUIRED),
    Resource("/stdb/v1/restore", {"POST": restore}, Access.REQUIRED),
)
