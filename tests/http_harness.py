"""A front door inside a test: requests over streams in memory, modules that stand where the recorded ones stood."""

import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import h11
import trio
import trio.testing

from stdb.actors.deadline import Deadline
from stdb.actors.host import Host, HostSettings
from stdb.actors.outgoing import HttpSender
from stdb.datastore.datastore import Datastore
from stdb.errors import ModuleFault, ReducerError
from stdb.modules.protocol import (
    HttpRequest,
    HttpResponse,
    LogSink,
    Module,
    ProcedureCall,
    ReducerCall,
    RouteCall,
    ViewCall,
)
from stdb.net.front_door import FrontDoor
from stdb.net.stream import FrameStream, memory_stream_pair
from stdb.net.tokens import Credentials, ServerKey, Tokens
from stdb.sats import bsatn
from stdb.schema import documents
from stdb.schema.model import ModuleDef
from stdb.schema.validation import validate
from stdb.storage.settings import Settings
from stdb.testing.hosts import open_host
from stdb.testing.storage import MemoryStorage
from tests.websocket_bytes import client_frame

KEY = ServerKey.generate()
VECTORS = Path(__file__).parent / "vectors"


class Answer(NamedTuple):
    """One answer; header names in lower case, equal ones joined."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def document(self) -> Any:
        return json.loads(self.body)


class Client:
    """A client on one connection."""

    def __init__(self, stream: FrameStream) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.CLIENT)

    async def send_all(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.stream.send_nowait(rest) :]
            except BlockingIOError:
                await self.stream.wait_writable()

    async def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        """Send a request as it is given and return the answer."""
        lines = [f"{method} {path} HTTP/1.1", "Host: test"]
        names = {name.lower() for name in headers}
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if not names & {"content-length", "transfer-encoding"} and (body or method in ("POST", "PUT", "PATCH")):
            lines.append(f"Content-Length: {len(body)}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        proposal = [("host", "x"), ("connection", "upgrade"), ("upgrade", "websocket")][
            : 3 if "upgrade" in names else 1
        ]
        self._h11.send(h11.Request(method=method, target="/", headers=proposal))
        self._h11.send(h11.EndOfMessage())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_quietly, head + body)
            answer = await self.receive()
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        return answer

    def upgraded(self) -> bytes:
        """Return what came behind an answer that changed the protocol."""
        return bytes(self._h11.trailing_data[0])

    async def receive(self) -> Answer:
        """Return the next answer of this connection."""
        head: h11.Response | h11.InformationalResponse | None = None
        body = b""
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                data = await self.stream.receive_some()
                self._h11.receive_data(data)
            elif isinstance(event, h11.Response) or (
                isinstance(event, h11.InformationalResponse) and event.status_code == 101
            ):
                head = event
                if event.status_code == 101:
                    return _answer(head, b"")
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                assert head is not None, "the connection ended without an answer"
                return _answer(head, body)

    async def _send_quietly(self, data: bytes) -> None:
        try:
            await self.send_all(data)
        except OSError:
            return  # the server may answer before it has read everything


def _answer(head: h11.Response | h11.InformationalResponse, body: bytes) -> Answer:
    headers: dict[str, str] = {}
    for name, value in head.headers:
        key, text = name.decode(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return Answer(head.status_code, head.reason.decode(), headers, body)


class Door:
    """A front door under test."""

    def __init__(self, door: FrontDoor, nursery: trio.Nursery) -> None:
        self.door = door
        self._nursery = nursery

    @property
    def tokens(self) -> Tokens:
        return self.door.tokens

    def connect(self) -> Client:
        """Return a client on a new connection."""
        near, far = memory_stream_pair()
        self._nursery.start_soon(self.door.serve_connection, far)
        return Client(near)

    async def send(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | str = b""
    ) -> Answer:
        """Send one request on a connection of its own."""
        client = self.connect()
        try:
            return await client.request(method, path, headers or {}, body if isinstance(body, bytes) else body.encode())
        finally:
            client.stream.close_nowait()

    def log(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of a database's module log."""
        identity = self.door.host.control.resolve(name)
        assert identity is not None
        return [json.loads(line) for line in b"".join(self.door.host.database(identity).log.tail(None)).splitlines()]

    async def publish(self, who: Credentials, name: str, program: bytes, query: str = "") -> Answer:
        """Publish a stand-in program."""
        return await self.send("PUT", f"/v1/database/{name}?host_type=Python{query}", bearer(who), program)

    async def publish_and_sync(self, storage: MemoryStorage, name: str, program: bytes) -> None:
        """Publish a program where nothing is durable before `storage.sync`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.publish, self.tokens.mint(), name, program)
            while storage.control.resolve(name) is None:
                await trio.testing.wait_all_tasks_blocked()
                storage.sync()


def bearer(who: Credentials | str) -> dict[str, str]:
    """Return the header that shows a token."""
    return {"Authorization": f"Bearer {who if isinstance(who, str) else who.token}"}


@asynccontextmanager
async def open_door(
    programs: Mapping[bytes, Callable[[], Module]] | None = None,
    *,
    settings: Settings | None = None,
    host_settings: HostSettings | None = None,
    operator: bytes | None = None,
    tokens: Tokens | None = None,
    storage: MemoryStorage | None = None,
    deadline: Deadline | None = None,
    http: HttpSender | None = None,
) -> AsyncIterator[Door]:
    """Hold a front door over databases in memory; `storage` is closed with it, `http` answers what procedures ask."""
    storage = storage or MemoryStorage()
    try:
        opening = open_host(programs or {}, storage, host_settings, deadline=deadline, http=http)
        async with opening as host, trio.open_nursery() as nursery:
            door = FrontDoor(host, tokens or Tokens(KEY), settings, operator=operator)
            yield Door(door, nursery)
            nursery.cancel_scope.cancel()
    finally:
        storage.close()


@lru_cache
def recorded_definition(name: str) -> ModuleDef:
    """Return the definition of a recorded module."""
    text = (VECTORS / f"schema/documents/{name}_v10.json").read_text()
    return validate(documents.from_json(json.loads(text)))


class StandIn:
    """A module with a recorded definition; a reducer takes its arguments and does what `behaviours` says."""

    def __init__(
        self,
        definition: ModuleDef,
        program: bytes,
        behaviours: Mapping[str, Callable[..., None]] | None = None,
        views: Mapping[str, Callable[[ViewCall, Datastore], list[bytes]]] | None = None,
        procedures: Mapping[str, Callable[..., Awaitable[Any]]] | None = None,
        routes: Mapping[str, Callable[[RouteCall, HttpRequest], Awaitable[HttpResponse]]] | None = None,
    ) -> None:
        self.definition = definition
        self.program_hash = sha256(program).digest()
        self._behaviours = behaviours or {}
        self._views = views or {}
        self._procedures = procedures or {}
        self._routes = routes or {}
        self._datastore: Datastore | None = None

    def attach(self, datastore: Datastore, database_identity: bytes, log: LogSink) -> None:
        self._datastore, self._log = datastore, log

    def reducer(self, reducer_id: int) -> Callable[[ReducerCall, bytes], None]:
        declared = self.definition.reducers[reducer_id]
        codec = bsatn.codec(declared.params, self.definition.typespace)
        behaviour = self._behaviours.get(declared.name)
        datastore, log = self._datastore, self._log

        def run(call: ReducerCall, args: bytes) -> None:
            values = codec.decode_exact(args)
            if behaviour is None:
                return
            try:
                behaviour(call, datastore, log, *values)
            except ReducerError:
                raise
            except Exception as error:
                raise ModuleFault("The instance encountered a fatal error.") from error

        return run

    def view(self, position: int) -> Callable[[ViewCall], list[bytes]]:
        datastore = self._datastore
        assert datastore is not None
        run = self._views[self.definition.views[position].name]
        return lambda call: run(call, datastore)

    def procedure(self, procedure_id: int) -> Callable[[ProcedureCall, bytes], Awaitable[bytes]]:
        declared, typespace = self.definition.procedures[procedure_id], self.definition.typespace
        behaviour, datastore = self._procedures[declared.name], self._datastore

        async def run(call: ProcedureCall, args: bytes) -> bytes:
            values = bsatn.codec(declared.params, typespace).decode_exact(args)
            try:
                result = await behaviour(call, datastore, *values)
            except Exception as error:
                raise ModuleFault("The instance encountered a fatal error.") from error
            return bsatn.codec(declared.return_type, typespace).encode(result)

        return run

    def route(self, position: int) -> Callable[[RouteCall, HttpRequest], Awaitable[HttpResponse]]:
        return self._routes[self.definition.http_routes[position].handler]


# What recordings say, compared.

DETAIL_PREFIXES = tuple(
    re.compile(prefix)
    for prefix in (
        r"invalid arguments for (?:reducer|procedure) [^:]*: ",
        r"Invalid token: (?:JSON|Base64) error: ",
        r"failed to parse WebAssembly module: ",
        r"Failed to deserialize query string: ",
        r"Failed to parse the request body as JSON: ",
        r"Failed to deserialize the JSON body into the target type: ",
    )
)
PLACEHOLDERS = {
    "fresh identity": "[0-9a-f]{64}", "fresh jwt": r"[\w-]+\.[\w-]+\.[\w-]+", "jwt": r"[\w-]+\.[\w-]+\.[\w-]+",
    "micros": r"\d+", "int": r"-?\d+", "ts": r"\d+", "u128": r"\d+", "hex": "<hex>",
}  # fmt: skip
_PLACEHOLDER = re.compile("<(" + "|".join(map(re.escape, PLACEHOLDERS)) + ")>")

_NUMBER = "\x01{}"
_UNORDERED = {
    "rows", "identities", "names", "tables", "Tables", "Types", "Reducers", "Procedures", "Views", "HttpHandlers",
    "HttpRoutes", "Schedules", "LifeCycleReducers", "RowLevelSecurity", "entries", "indexes", "constraints",
    "sequences",
}  # fmt: skip


def expand(parts: list[list[Any]]) -> str:
    return "".join(text * times for text, times in parts)


def same_text(expected: str, actual: str) -> bool:
    """Tell whether a text is the expected one; what is a parser's own detail counts by its beginning."""
    for prefix in DETAIL_PREFIXES:
        if match := prefix.match(expected):
            return actual.startswith(match[0])
    pattern, last = "", 0
    for match in _PLACEHOLDER.finditer(expected):
        pattern += re.escape(expected[last : match.start()]) + PLACEHOLDERS[match[1]]
        last = match.end()
    return re.fullmatch(pattern + re.escape(expected[last:]), actual, flags=re.S) is not None


def canonical_json(text: str) -> str | None:
    """Return a JSON text with members, and lists without an order, sorted; None for any other text."""
    try:
        document = json.loads(text, parse_int=_NUMBER.format, parse_float=_NUMBER.format)
    except ValueError:
        return None

    def walk(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {name: walk(item, name) for name, item in value.items()}
        if isinstance(value, list):
            items = [walk(item, "") for item in value]
            return sorted(items, key=lambda item: json.dumps(item, sort_keys=True)) if key in _UNORDERED else items
        return value

    return json.dumps(walk(document, ""), sort_keys=True, ensure_ascii=False)


def loopback() -> tuple[trio.SocketListener, int]:
    """Return a listener on a free port of this machine, and the port."""
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock._sock.bind(("127.0.0.1", 0))  # type: ignore[attr-defined]  # binding to an address needs no waiting
    sock.listen()
    return trio.SocketListener(sock), sock.getsockname()[1]


class JsonSocket:
    """A client of the dialect v1.json on a connection of its own."""

    def __init__(self, client: Client, left: bytes) -> None:
        self._send_all = client.send_all
        self._stream = client.stream
        self._received = left

    async def send(self, kind: str, **fields: Any) -> None:
        """Send one message."""
        await self._send_all(client_frame(0x81, json.dumps({kind: fields}).encode()))

    async def receive(self, *kinds: str) -> tuple[str, Any]:
        """Return the next message of one of these kinds; others are passed over."""
        while True:
            head, payload = await self._frame()
            if head == 0x81:
                ((kind, fields),) = json.loads(payload).items()
                if kind in kinds:
                    return kind, fields

    async def _frame(self) -> tuple[int, bytes]:
        while (found := first_frame(self._received)) is None:
            chunk = await self._stream.receive_some()
            assert chunk, "the connection ended"
            self._received += chunk
        head, payload, end = found
        self._received = self._received[end:]
        return head, payload

    def close_nowait(self) -> None:
        self._stream.close_nowait()


def first_frame(data: bytes) -> tuple[int, bytes, int] | None:
    """Return the first frame of what a server sent, its payload and where it ends; None when it is not whole."""
    if len(data) < 2:
        return None
    extra = {126: 2, 127: 8}.get(data[1], 0)
    start = 2 + extra
    size = int.from_bytes(data[2:start], "big") if extra else data[1]
    whole = len(data) >= start + size
    return (data[0], data[start : start + size], start + size) if whole else None


@asynccontextmanager
async def open_socket(door: Door, name: str, who: Credentials) -> AsyncIterator[JsonSocket]:
    """Hold a connection that speaks v1.json, uncompressed."""
    client = door.connect()
    headers = bearer(who) | {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol": "v1.json.spacetimedb",
    }
    answer = await client.request("GET", f"/v1/database/{name}/subscribe?compression=None", headers)
    assert answer.status == 101, answer
    connected = JsonSocket(client, client.upgraded())
    try:
        yield connected
    finally:
        connected.close_nowait()


__all__ = [
    "Answer", "Client", "Door", "Host", "JsonSocket", "StandIn", "bearer", "canonical_json", "expand", "loopback",
    "open_door", "open_socket", "recorded_definition", "same_text",
]  # fmt: skip
