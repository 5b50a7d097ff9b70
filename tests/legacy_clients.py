"""Clients of 0.7 to 0.11 on a front door in memory: what they say, the rows they hold, how their connection ends."""

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio
import trio.testing

from stdb.modules.python.archive import pack
from stdb.modules.python.loader import load_archive
from stdb.net.tokens import Credentials
from stdb.sats import bsatn
from stdb.sats import json as sats_json
from stdb.sats.profiles import V0_11
from stdb.schema.legacy import legacy_face
from stdb.schema.model import ModuleDef
from tests.http_harness import Client, Door, open_door
from tests.legacy_messages import (
    CLIENT_MESSAGE,
    SERVER_MESSAGE,
    array_form,
    bsatn_document,
    positional,
    protobuf_bytes,
    protobuf_document,
)
from tests.legacy_messages import unpacked as brotli_unpacked
from tests.websocket_bytes import client_frame

__all__ = ["DIALECTS", "LegacyClient", "basic", "opened"]

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A


class _Old:
    """What clients of 0.7 to 0.10 say, and the tables of what they are told."""

    def __init__(self, prefix: str, *, is_binary: bool, is_brotli: bool = False) -> None:
        self.prefix, self.is_binary, self.is_brotli = prefix, is_binary, is_brotli
        self.protocol = "v1.bin.spacetimedb" if is_binary else "v1.text.spacetimedb"
        self.keeps_stale = not is_binary
        """Rows of a replaced set of queries stay in the cache, as in the Python SDK."""

    def subscribe(self, queries: tuple[str, ...]) -> bytes | str:
        if self.is_binary:
            return protobuf_bytes({"subscribe": {"query_strings": list(queries)}})
        return json.dumps({"subscribe": {"query_strings": queries}})

    def call(self, reducer: str, args: bytes, text: str) -> bytes | str:
        if self.is_binary:
            return protobuf_bytes({"functionCall": {"reducer": reducer, "argBytes": args.hex()}})
        return f'{{"call": {{"fn": {json.dumps(reducer)}, "args": {text}}}}}'

    def one_off(self, query: str) -> bytes | str:
        if self.is_binary:
            return protobuf_bytes({"oneOffQuery": {"messageId": "00ff", "queryString": query}})
        return json.dumps({"one_off_query": {"message_id": "AP8=", "query_string": query}})

    def told(self, payload: bytes) -> dict[str, Any]:
        if not self.is_binary:
            document: dict[str, Any] = json.loads(payload)
            return document
        return protobuf_document(brotli_unpacked(payload) if self.is_brotli else payload)

    def tables(self, kind: str, content: dict[str, Any]) -> list[tuple[str, list[Any], list[Any]]]:
        """Return (table, deletes, inserts), each operation as key and row; deletes come first."""
        names: tuple[Any, ...] = ("tableUpdates", "tableName", "tableRowOperations", 1, 0)
        if not self.is_binary:
            names = ("table_updates", "table_name", "table_row_operations", "insert", "delete")
        updates, table, operations, insert, delete = names
        if kind in ("TransactionUpdate", "transactionUpdate"):
            content = content["subscription_update" if not self.is_binary else "subscriptionUpdate"]
        found = []
        for update in content.get(updates, []):
            kinds = [operation.get("op", 0) for operation in update.get(operations, [])]
            assert kinds == [delete] * kinds.count(delete) + [insert] * kinds.count(insert)
            rows = [(operation.get("row_pk", operation.get("row", "")), operation) for operation in update[operations]]
            split = kinds.count(delete)
            found.append((update[table], rows[:split], rows[split:]))
        return found

    def row(self, operation: Any, type_: Any) -> Any:
        row = operation.get("row", "")
        return positional(type_, bytes.fromhex(row)) if self.is_binary else row


class _New:
    """What clients of 0.11 say, and the tables of what they are told."""

    prefix, is_brotli, keeps_stale = "/legacy/0.11", True, False

    def __init__(self, *, is_binary: bool) -> None:
        self.is_binary = is_binary
        self.protocol = "v1.bin.spacetimedb" if is_binary else "v1.text.spacetimedb"

    def _message(self, name: str, content: tuple[Any, ...]) -> bytes | str:
        number = [variant.name for variant in CLIENT_MESSAGE.variants].index(name)
        value = (number, content)
        if self.is_binary:
            return bsatn.codec(CLIENT_MESSAGE, profile=V0_11).encode(value)
        return sats_json.encode(CLIENT_MESSAGE, value, "compiled", profile=V0_11)

    def subscribe(self, queries: tuple[str, ...]) -> bytes | str:
        return self._message("Subscribe", (list(queries), 0))

    def call(self, reducer: str, args: bytes, text: str) -> bytes | str:
        return self._message("CallReducer", (reducer, (0, args) if self.is_binary else (1, text), 0))

    def one_off(self, query: str) -> bytes | str:
        return self._message("OneOffQuery", (b"\0\xff", query))

    def told(self, payload: bytes) -> dict[str, Any]:
        if not self.is_binary:
            document: dict[str, Any] = json.loads(payload)
            return document
        told: dict[str, Any] = bsatn_document(SERVER_MESSAGE, brotli_unpacked(payload))
        return told

    def tables(self, kind: str, content: dict[str, Any]) -> list[tuple[str, list[Any], list[Any]]]:
        """Return (table, deletes, inserts), each row as key and row."""
        if kind == "TransactionUpdate":
            update = content["status"].get("Committed", {"tables": []})
        else:
            update = content["database_update"]
        return [
            (table["table_name"], list(map(self._keyed, table["deletes"])), list(map(self._keyed, table["inserts"])))
            for table in update["tables"]
        ]

    def _keyed(self, value: dict[str, str]) -> tuple[str, Any]:
        if self.is_binary:
            return value["Binary"], value
        row = array_form(json.loads(value["Text"]))
        return json.dumps(row), row

    def row(self, operation: Any, type_: Any) -> Any:
        return positional(type_, bytes.fromhex(operation["Binary"])) if self.is_binary else operation


DIALECTS: dict[str, _Old | _New] = {
    "L1 text": _Old("/legacy/0.8", is_binary=False),
    "L1 protobuf": _Old("/legacy/0.8", is_binary=True),
    "L2 protobuf": _Old("/legacy/0.10", is_binary=True, is_brotli=True),
    "L3 BSATN": _New(is_binary=True),
    "L3 JSON": _New(is_binary=False),
}


class LegacyClient:
    """One client; reads by itself, answers pings, and applies what it is told to its cache as the SDKs do.

    It must never be told to insert what it holds, to delete what it does not, or to change a row twice at once.
    """

    def __init__(self, door: Door, dialect: str) -> None:
        self._door, self.speech = door, DIALECTS[dialect]
        self.client: Client
        self._sending = trio.Lock()
        self.frames: list[tuple[int, bytes]] = []
        """What came that is no ping."""
        self.pings: list[float] = []
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.cache: dict[str, dict[str, Any]] = {}
        self.is_foreign = False
        """It is told in another dialect than its own, and understands nothing."""
        self.is_over = False
        self.answers_pings = True
        self.reads = trio.Event()
        self.reads.set()
        self.ended = trio.Event()

    async def open(
        self,
        nursery: trio.Nursery,
        name: str,
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        prefix: str | None = None,
        protocol: str | None = None,
    ) -> int:
        """Upgrade and read from then on; return the status of the answer."""
        self.client = self._door.connect()
        path = f"{self.speech.prefix if prefix is None else prefix}/database/subscribe/{name}{query}"
        asked = {**UPGRADE, "Sec-WebSocket-Protocol": protocol or self.speech.protocol, **(headers or {})}
        answer = await self.client.request("GET", path, asked)
        if answer.status == 101:
            nursery.start_soon(self._read, self.client.upgraded())
        return answer.status

    async def send(self, message: bytes | str) -> None:
        """Send a message in a frame of its kind."""
        data = message.encode() if isinstance(message, str) else message
        await self._send(client_frame(TEXT if isinstance(message, str) else BINARY, data, bytes(4)))

    async def _send(self, frame: bytes) -> None:
        async with self._sending:
            await self.client.send_all(frame)

    async def subscribe(self, *queries: str) -> None:
        await self.send(self.speech.subscribe(queries))

    async def call(self, reducer: str, args: bytes = b"", text: str = "[]") -> None:
        """Call a reducer; binary protocols carry `args`, others `text`."""
        await self.send(self.speech.call(reducer, args, text))

    def rows(self, definition: ModuleDef) -> dict[str, list[str]]:
        """Return what the cache holds, by table, in the form of SQL's answers to this generation."""
        face = legacy_face(definition)
        found = {}
        for table, held in self.cache.items():
            shown = face.table(table)
            assert shown is not None
            rows = [json.dumps(self.speech.row(row, shown.row_type)) for row in held.values()]
            if rows:
                found[table] = sorted(rows)
        return found

    @property
    def address(self) -> str:
        """The address that the first message gives the client."""
        kind, content = self.messages[0]
        assert kind in ("IdentityToken", "identityToken")
        address = content["address"]
        return str(address["__address_bytes"] if isinstance(address, dict) else address)

    @property
    def close(self) -> tuple[int | None, str]:
        """Code and reason of the Close that came last; None: the connection ended without."""
        code, payload = self.frames[-1] if self.frames else (0, b"")
        if code != CLOSE:
            return None, ""
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    async def _read(self, data: bytes) -> None:
        while True:
            data = await self._take_frames(data)
            await self.reads.wait()
            try:
                chunk = await self.client.stream.receive_some()
            except (OSError, trio.ClosedResourceError):
                chunk = b""
            if not chunk:
                break
            data += chunk
        self.is_over = True
        self.ended.set()

    async def _take_frames(self, data: bytes) -> bytes:
        while len(data) >= 2:
            extra = {126: 2, 127: 8}.get(data[1], 0)
            start = 2 + extra
            if len(data) < start:
                break
            end = start + (int.from_bytes(data[2:start], "big") if extra else data[1])
            if len(data) < end:
                break
            await self._take(data[0], data[start:end])
            data = data[end:]
        return data

    async def _take(self, code: int, payload: bytes) -> None:
        if code == PING:
            self.pings.append(trio.current_time())
            if self.answers_pings:
                with suppress(OSError):  # it may be over by now
                    await self._send(client_frame(PONG, payload))
            return
        self.frames.append((code, payload))
        if code in (TEXT, BINARY) and not self.is_foreign:
            assert code == (BINARY if self.speech.is_binary else TEXT)
            told = self.speech.told(payload)
            ((kind, content),) = told.items()
            self.messages.append((kind, content))
            self._apply(kind, content)

    def _apply(self, kind: str, content: dict[str, Any]) -> None:
        if kind in ("IdentityToken", "identityToken"):
            return
        is_initial = kind not in ("TransactionUpdate", "transactionUpdate")
        tables = self.speech.tables(kind, content)
        assert len({table for table, _, _ in tables}) == len(tables), "a table comes once"
        if is_initial and not self.speech.keeps_stale:
            self.cache.clear()
        for table, deletes, inserts in tables:
            held = self.cache.setdefault(table, {})
            assert deletes or inserts
            assert not (is_initial and deletes)
            for key, _ in deletes:
                assert key in held, f"{table}: a delete of what is not there"
                del held[key]
            for key, row in inserts:
                assert key not in held or (is_initial and self.speech.keeps_stale), f"{table}: an insert of what is"
                held[key] = row


def basic(token: str) -> dict[str, str]:
    """Return the header that shows a token as clients of that time do."""
    return {"Authorization": "Basic " + base64.b64encode(f"token:{token}".encode()).decode()}


@asynccontextmanager
async def opened(
    source: str, name: str = "probe", **options: Any
) -> AsyncIterator[tuple[Door, ModuleDef, Credentials]]:
    """Hold a front door with a module in Python published; yield it, the definition and the owner."""
    program = pack({f"{name}.py": source.encode()})
    async with open_door({program: lambda: load_archive(program)}, **options) as door:
        owner = door.tokens.mint()
        answer = await door.publish(owner, name, program)
        assert answer.status == 200, answer.text
        yield door, load_archive(program).definition, owner
