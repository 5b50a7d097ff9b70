"""The command `subscribe`: print what queries hold and every change of it, one JSON object a line."""

import argparse
import math
import sys
from typing import Any, TypeAlias

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    open_websocket_url,
)

from stdb.cli.api import Api
from stdb.cli.databases import definition_of, fetch_schema
from stdb.cli.errors import CliError
from stdb.net.protocols.messages_v2 import CLIENT_MESSAGE, SERVER_MESSAGE
from stdb.sats import bsatn
from stdb.sats import json as sats_json
from stdb.schema.model import ModuleDef

__all__ = ["Tables", "change_line", "subscribe"]

PROTOCOL = "v2.bsatn.spacetimedb"
MESSAGE_BYTES_MAX = 1 << 30
SUBSCRIBE = 0
SUBSCRIBE_APPLIED, SUBSCRIPTION_ERROR, TRANSACTION_UPDATE = 1, 3, 4
EVENT_TABLE = 1

Change: TypeAlias = dict[str, tuple[list[str], list[str]]]
"""Per table: deleted and inserted rows, each row as JSON text."""


def subscribe(api: Api, options: argparse.Namespace) -> None:
    """Subscribe to queries until enough updates came, time is up or the server goes."""
    identity = api.database(options.database)
    tables = Tables(definition_of(fetch_schema(api, identity)))
    query = "compression=None" + ("" if options.confirmed is None else f"&confirmed={options.confirmed}")
    url = api.websocket_url(f"/v1/database/{identity}/subscribe?{query}")
    printer = _Printer(tables, options)
    timed_out = trio.run(_watch, url, None if options.anonymous else api.token(), printer, options)
    if timed_out:
        _end_of_time(printer, options)


def _end_of_time(printer: "_Printer", options: argparse.Namespace) -> None:
    """Say that time is up: an error only when updates were asked for and are missing."""
    waited = f"timed out after {options.timeout:g}s"
    print(waited, file=sys.stderr)
    if options.num_updates is not None:
        raise CliError(f"subscription {waited} after receiving {printer.printed}/{options.num_updates} updates")


class Tables:
    """The row types of a module, to turn row bytes into JSON."""

    def __init__(self, definition: ModuleDef) -> None:
        self._definition = definition

    def rows(self, table: str, row_list: Any) -> list[str]:
        """Return the rows of a BsatnRowList (spec 02 section 5.2) as JSON texts, products as objects."""
        declared = self._definition.table(table)
        if declared is None:
            raise CliError(f"the server sent rows of `{table}`, a table that its definition did not have at the start")
        type_ = declared.row_type
        codec = bsatn.codec(type_)
        data, rows, offset = row_list[1], [], 0
        while offset < len(data):
            value, offset = codec.decode(data, offset)
            rows.append(sats_json.encode(type_, value, form="typed"))
        return rows


def change_line(change: Change) -> str:
    """Return a change as one line of JSON, tables by name."""
    parts = (
        f'"{name}":{{"deletes":[{",".join(deletes)}],"inserts":[{",".join(inserts)}]}}'
        for name, (deletes, inserts) in sorted(change.items())
    )
    return "{" + ",".join(parts) + "}"


class _Printer:
    """Prints what comes of one subscription, and knows when it is enough."""

    def __init__(self, tables: Tables, options: argparse.Namespace) -> None:
        self._tables = tables
        self._prints_initial = options.print_initial_update
        self._wanted = math.inf if options.num_updates is None else options.num_updates
        self.printed = 0
        """Updates printed so far; the initial rows are none."""

    def take(self, tag: int, message: Any) -> bool:
        """Print a server message that is of interest; tell whether it was the last one wanted."""
        if tag == SUBSCRIPTION_ERROR:
            raise CliError(f"encountered error in initial subscribe: {message[2]}")
        if tag == SUBSCRIBE_APPLIED and self._prints_initial:
            print(change_line(self._initial(message[2][0])), flush=True)
        if tag == TRANSACTION_UPDATE:
            print(change_line(self._update(message[0])), flush=True)
            self.printed += 1
        return self.printed >= self._wanted

    def _initial(self, rows: list[Any]) -> Change:
        change: Change = {}
        for name, row_list in rows:
            _of(change, name)[1].extend(self._tables.rows(name, row_list))
        return change

    def _update(self, query_sets: list[Any]) -> Change:
        change: Change = {}
        for name, parts in (update for _, updates in query_sets for update in updates):
            for tag, part in parts:
                deletes, inserts = _of(change, name)
                inserts += self._tables.rows(name, part[0])
                if tag != EVENT_TABLE:
                    deletes += self._tables.rows(name, part[1])
        return change


def _of(change: Change, table: str) -> tuple[list[str], list[str]]:
    return change.setdefault(table, ([], []))


async def _watch(url: str, token: str | None, printer: _Printer, options: argparse.Namespace) -> bool:
    """Print until enough came; tell whether time was up before."""
    headers = [(b"Authorization", f"Bearer {token}".encode())] if token else []
    with trio.move_on_after(math.inf if options.timeout is None else options.timeout) as scope:
        try:
            async with open_websocket_url(
                url, subprotocols=[PROTOCOL], extra_headers=headers, max_message_size=MESSAGE_BYTES_MAX
            ) as socket:
                await _print_all(socket, printer, options.queries)
        except ConnectionRejected as error:
            body = (error.body or b"").decode("utf-8", "replace")
            raise CliError(body or "the server refused the connection", f"HTTP status {error.status_code}") from error
        except (HandshakeError, OSError) as error:
            raise CliError(f"cannot connect to {url}", str(error) or type(error).__name__) from error
        except ConnectionClosed as error:
            reason = f"{error.reason.code} {error.reason.reason or ''}".strip() if error.reason else "no reason given"
            raise CliError(f"the server closed the connection: {reason}") from error
    return scope.cancelled_caught


async def _print_all(socket: WebSocketConnection, printer: _Printer, queries: list[str]) -> None:
    server = bsatn.codec(SERVER_MESSAGE)
    await socket.send_message(bsatn.codec(CLIENT_MESSAGE).encode((SUBSCRIBE, (0, (0,), queries))))
    while True:
        payload = await socket.get_message()
        assert isinstance(payload, bytes), "a binary protocol was agreed on"
        tag, message = server.decode_exact(payload[1:])  # before it stands the compression: none
        if printer.take(tag, message):
            return
