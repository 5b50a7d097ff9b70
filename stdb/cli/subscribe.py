"""The command `subscribe`: print what queries hold and every change of it, one JSON object a line."""

import argparse
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, open_websocket_url

from stdb.cli.api import Api
from stdb.cli.databases import fetch_schema
from stdb.cli.errors import CliError
from stdb.sats import bsatn, meta
from stdb.sats import json as sats_json
from stdb.sats.types import Ref, Typespace

__all__ = ["subscribe"]

MESSAGE_BYTES_MAX = 1 << 30


class Tables:
    """The row types of a module, to turn row bytes into JSON."""

    def __init__(self, sections: list[dict[str, Any]]) -> None:
        by_name = {name: value for section in sections for name, value in section.items()}
        types = by_name.get("Typespace", {"types": []})["types"]
        self._typespace = Typespace(tuple(meta.type_from_json(each) for each in types))
        self._refs = {each["source_name"]: Ref(each["product_type_ref"]) for each in by_name.get("Tables", [])}

    def rows(self, table: str, rows: list[bytes]) -> list[Any]:
        """Return rows as JSON documents, products as objects."""
        type_ = self._refs[table]
        codec = bsatn.codec(type_, self._typespace)
        texts = (
            sats_json.encode(type_, codec.decode_exact(row), form="typed", typespace=self._typespace) for row in rows
        )
        return [json.loads(text) for text in texts]


def subscribe(api: Api, options: argparse.Namespace) -> None:
    """Subscribe to queries until enough updates came, time is up or the server goes."""
    identity = api.database(options.database)
    tables = Tables(fetch_schema(api, identity))
    query = "compression=None" + ("" if options.confirmed is None else f"&confirmed={options.confirmed}")
    url = api.websocket_url(f"/v1/database/{identity}/subscribe?{query}")
    token = None if options.anonymous else api.token()
    trio.run(_run, url, token, tables, options)


async def _run(url: str, token: str | None, tables: Tables, options: argparse.Namespace) -> None:
    headers = [("Authorization", f"Bearer {token}")] if token else []
    counted = 0
    with trio.move_on_after(options.timeout if options.timeout is not None else float("inf")) as scope:
        try:
            async with open_websocket_url(
                url, subprotocols=["v2.bsatn.spacetimedb"], extra_headers=headers, max_message_size=MESSAGE_BYTES_MAX
            ) as socket:
                async for update in _updates(socket, tables, options):
                    print(json.dumps(update, ensure_ascii=False, separators=(",", ":")), flush=True)
                    counted += 1
                    if options.num_updates is not None and counted >= options.num_updates:
                        return
        except (HandshakeError, OSError) as error:
            raise CliError(f"cannot connect to {url}: {error}") from error
        except ConnectionClosed as error:
            reason = error.reason
            text = f"{reason.code} {reason.reason or ''}".strip() if reason else "without a reason"
            raise CliError(f"the server closed the connection: {text}") from error
    if scope.cancelled_caught:
        print(f"timed out after {options.timeout:g}s", file=sys.stderr)
        if options.num_updates is not None:
            wanted = f"{counted}/{options.num_updates} updates"
            raise CliError(f"subscription timed out after {options.timeout:g}s after receiving {wanted}")
