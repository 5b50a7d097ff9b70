"""The command `subscribe`: print what queries hold and every change of it, one JSON object a line."""

import argparse
import json
import sys
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, open_websocket_url

from stdb.cli.api import Api
from stdb.cli.databases import fetch_schema
from stdb.cli.errors import CliError
from stdb.net.protocols.messages_v2 import CLIENT_MESSAGE, SERVER_MESSAGE
from stdb.sats import bsatn, meta
from stdb.sats import json as sats_json
from stdb.sats.types import Ref, Typespace

__all__ = ["subscribe"]

PROTOCOL = "v2.bsatn.spacetimedb"
MESSAGE_BYTES_MAX = 1 << 30
SUBSCRIBE = 0
SUBSCRIBE_APPLIED, SUBSCRIPTION_ERROR, TRANSACTION_UPDATE = 1, 3, 4
EVENT_TABLE = 1

Change: TypeAlias = dict[str, dict[str, list[Any]]]


def subscribe(api: Api, options: argparse.Namespace) -> None:
    """Subscribe to queries until enough updates came, time is up or the server goes."""
    identity = api.database(options.database)
    tables = Tables(fetch_schema(api, identity))
    query = "compression=None" + ("" if options.confirmed is None else f"&confirmed={options.confirmed}")
    url = api.websocket_url(f"/v1/database/{identity}/subscribe?{query}")
    trio.run(_run, url, None if options.anonymous else api.token(), tables, options)


class Tables:
    """The row types of a module, to turn row bytes into JSON."""

    def __init__(self, sections: list[dict[str, Any]]) -> None:
        by_name = {name: value for section in sections for name, value in section.items()}
        types = by_name.get("Typespace", {"types": []})["types"]
        self._typespace = Typespace(tuple(meta.type_from_json(each) for each in types))
        self._refs = {each["source_name"]: Ref(each["product_type_ref"]) for each in by_name.get("Tables", [])}

    def rows(self, table: str, row_list: Any) -> list[Any]:
        """Return the rows of a BsatnRowList (spec 02 section 5.2) as JSON documents, products as objects."""
        type_ = self._refs[table]
        codec = bsatn.codec(type_, self._typespace)
        data, rows, offset = row_list[1], [], 0
        while offset < len(data):
            value, offset = codec.decode(data, offset)
            rows.append(json.loads(sats_json.encode(type_, value, form="typed", typespace=self._typespace)))
        return rows


async def _run(url: str, token: str | None, tables: Tables, options: argparse.Namespace) -> None:
    counted = 0
    with trio.move_on_after(float("inf") if options.timeout is None else options.timeout) as scope:
        async for change in _connected(url, token, tables, options):
            print(json.dumps(change, ensure_ascii=False, separators=(",", ":")), flush=True)
            counted += 1
            if options.num_updates is not None and counted >= options.num_updates:
                return
    if scope.cancelled_caught:
        print(f"timed out after {options.timeout:g}s", file=sys.stderr)
        if options.num_updates is not None:
            wanted = f"{counted}/{options.num_updates} updates"
            raise CliError(f"subscription timed out after {options.timeout:g}s after receiving {wanted}")


async def _connected(url: str, token: str | None, tables: Tables, options: argparse.Namespace) -> AsyncIterator[Change]:
    headers = [(b"Authorization", f"Bearer {token}".encode())] if token else []
    try:
        async with open_websocket_url(
            url, subprotocols=[PROTOCOL], extra_headers=headers, max_message_size=MESSAGE_BYTES_MAX
        ) as socket:
            async for change in _changes(socket, tables, options):
                yield change
    except (HandshakeError, OSError) as error:
        raise CliError(f"cannot connect to {url}: {error}") from error
    except ConnectionClosed as error:
        reason = f"{error.reason.code} {error.reason.reason or ''}".strip() if error.reason else "without a reason"
        raise CliError(f"the server closed the connection: {reason}") from error


async def _changes(socket: WebSocketConnection, tables: Tables, options: argparse.Namespace) -> AsyncIterator[Change]:
    """Yield the initial rows (when asked for) and every change; CliError when a query is refused."""
    server = bsatn.codec(SERVER_MESSAGE)
    request = (SUBSCRIBE, (0, (0,), list(options.queries)))
    await socket.send_message(bsatn.codec(CLIENT_MESSAGE).encode(request))
    while True:
        payload = await socket.get_message()
        assert isinstance(payload, bytes)
        tag, message = server.decode_exact(payload[1:])
        if tag == SUBSCRIPTION_ERROR:
            raise CliError(f"encountered error in initial subscribe: {message[2]}")
        if tag == SUBSCRIBE_APPLIED and options.print_initial_update:
            yield _initial(message[2][0], tables)
        if tag == TRANSACTION_UPDATE:
            yield _update(message[0], tables)


def _initial(rows: list[Any], tables: Tables) -> Change:
    change: Change = {}
    for name, row_list in rows:
        _of(change, name)["inserts"] += tables.rows(name, row_list)
    return dict(sorted(change.items()))


def _update(query_sets: list[Any], tables: Tables) -> Change:
    change: Change = {}
    for _, table_updates in query_sets:
        for name, parts in table_updates:
            for tag, part in parts:
                _of(change, name)["inserts"] += tables.rows(name, part[0])
                if tag != EVENT_TABLE:
                    _of(change, name)["deletes"] += tables.rows(name, part[1])
    return dict(sorted(change.items()))


def _of(change: Change, table: str) -> dict[str, list[Any]]:
    return change.setdefault(table, {"deletes": [], "inserts": []})
