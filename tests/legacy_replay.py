"""Sessions recorded from real servers of 0.8 to 0.11, held again with this server and compared message by message."""

import base64
import copy
import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import trio

from stdb.modules.protocol import Module
from stdb.net.routes_publish import PYTHON_MAGIC
from stdb.net.tokens import ServerKey
from stdb.schema.legacy import LegacyFace, legacy_face
from stdb.testing.storage import MemoryStorage
from tests.http_harness import KEY, Door, open_door
from tests.legacy_exchanges import recording
from tests.legacy_probe import ProbeModule, probe
from tests.legacy_sessions import ANY, Names, Rows, Told, numbered, told_binary, told_text
from tests.websocket_bytes import client_frame

__all__ = ["Difference", "Excepted", "Replay", "Socket", "replay", "steps_of"]

_ANSWER_SECONDS = 3.0
_OPCODES = {"text": 0x81, "binary": 0x82, "close": 0x88, "ping": 0x89, "pong": 0x8A, "continuation": 0x80, "3": 0x83}
_UPPER = "${ADDRESS:db in upper case}"
_PROBE = legacy_face(ProbeModule().definition)
_FOREIGN = ServerKey.generate()
"""The key of another server."""
_PROGRAMS = {"<10239 bytes>": "1", "<9480 bytes>": "1"}


class Excepted(NamedTuple):
    """Why this server does otherwise, in the words of the specification."""

    sentence: str
    is_told: bool = True
    """Something else is told; False: nothing is."""
    is_early: bool = False
    """The same is told, before the recorded server told it."""
    instead: Callable[[Any], Any] | None = None
    """Makes what this server tells of what was recorded; then that is what must be told."""


class Difference(NamedTuple):
    """Where a session went another way."""

    step: int
    texts: list[str]


def steps_of(name: str) -> tuple[str, list[dict[str, Any]]]:
    """Return the version of the server of a recording, and its steps."""
    document = recording(name)
    for place, step in enumerate(document["steps"]):
        if "body_as_step" in (reply := step.get("reply", {})):
            other = document["steps"][reply["body_as_step"]]["reply"]["body"]
            reply["body"] = re.sub(r"\$\{(\w+):(\d+)\}", rf"${{\1:\2_{place}}}", other)  # the ids are others
    return document["server"].split()[0], _held(document["steps"])


def _held(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return steps without handshakes in two halves, as they were written down of real clients."""
    replies = {step["ws"]: _lines(step) for step in steps if step.get("do") == "response"}
    held: list[dict[str, Any]] = []
    for step in steps:
        if step.get("do") == "request":
            asked, reply = _lines(step), replies[step["ws"]]
            path = step["lines"][0].split()[1].replace("DBNAME", "sUUU")
            path = path.replace("/${address:1}", "/${address:db}")
            opened = {"ws": step["ws"], "do": "open", "path": path, "status": 101, "headers": reply}
            opened["protocol"] = asked["sec-websocket-protocol"]
            if who := re.search(r"\$\{(?:base64 of )?token:(\w+)\}", asked.get("authorization", "")):
                token = reply["spacetime-identity-token"] if who[1] == "JWT" else f"${{token:{who[1]}}}"
                opened["auth"] = f"Basic token:{token}"
            if "origin" in asked:
                opened["other"] = {"headers": {"Origin": asked["origin"]}}
            held.insert(0, opened)
        elif step.get("do") != "response" and step.get("from") != "client":
            held.append(step)
    return held


def _lines(step: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers of a request or a response."""
    pairs = (line.partition(": ") for line in step["lines"][1:])
    return {name.lower(): value for name, _, value in pairs}


class Socket:
    """One recorded connection."""

    def __init__(self, client: Any, data: bytes, face: LegacyFace | None = None) -> None:
        self.client = client
        self.data = data
        self.face = face or _PROBE
        """Of the database that it is connected with."""
        self.is_over = False
        self.kept: list[tuple[int, bytes]] = []
        """Frames that came where none was recorded; the recorded server was slower."""
        self.identity = ""
        self.address = ""

    async def next(self, seconds: float) -> tuple[int, bytes] | None:
        """Return the next frame that is no ping; None when none comes in time, or no more at all."""
        while True:
            frame = self.kept.pop(0) if self.kept else self._first()
            if frame is not None:
                if frame[0] == 0x89:
                    continue
                return frame
            if self.is_over:
                return None
            chunk = b""
            with trio.move_on_after(seconds) as scope:
                chunk = await self.client.stream.receive_some()
            if scope.cancelled_caught:
                return None
            self.is_over = not chunk
            self.data += chunk

    def _first(self) -> tuple[int, bytes] | None:
        data = self.data
        if len(data) < 2:
            return None
        extra = {126: 2, 127: 8}.get(data[1], 0)
        start = 2 + extra
        size = int.from_bytes(data[2:start], "big") if extra else data[1]
        if len(data) < start + size:
            return None
        self.data = data[start + size :]
        return data[0], data[start : start + size]


class Replay:
    """One session."""

    def __init__(
        self,
        name: str,
        door: Door,
        exceptions: Mapping[int, Excepted],
        is_extra: Callable[[Told, "Socket"], bool],
        *,
        foreign: Collection[str] = (),
        expired: Collection[str] = (),
        variants: Mapping[str, Callable[[], ProbeModule]] | None = None,
        reads: bool = False,
        waits: Mapping[int, float] | None = None,
    ) -> None:
        self.version, self.steps = steps_of(name)
        self.foreign = foreign
        """Whose tokens another server signed."""
        self.expired = expired
        """Whose tokens are too old."""
        is_at_root = self.version.startswith("0.11") or "sdk" in name
        self.variants = variants or {}
        """Modules other than the usual one, by the body that publishes them."""
        self.reads = reads
        """Whether rows and log lines that HTTP tells are compared."""
        self.waits = waits or {}
        """Seconds that went by before a step."""
        self.prefix = "" if is_at_root else f"/legacy/{self.version.rpartition('.')[0]}"
        self.door = door
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock), "time goes by only while everything waits"
        self.clock = clock
        self.names = Names()
        self._faces: dict[str, LegacyFace] = {}
        self.exceptions = dict(exceptions)
        self.used: set[int] = set()
        self.drawn: dict[str, str] = {}
        self._suffix = "x1"
        self.names.known |= {"address:x": "0123456789abcdef" * 2, "address:y": "fedcba9876543210" * 2}
        self.differences: list[Difference] = []
        self._is_extra = is_extra
        self._sockets: dict[str, Socket] = {}
        self._learn_from_bytes()

    async def publish(self, name: str, called: Sequence[tuple[int, str, str]]) -> None:
        """Publish the module, as was done before the recording began.

        `called` are calls of its owner that were not written down: before which step, of what, with which arguments.
        """
        step = {"method": "POST", "path": f"/database/publish?name_or_address={name}", "body": "<10239 bytes>"}
        step["auth"] = "Basic token:${token:owner}"
        await self._exchange(-1, {"http": step, "reply": {"status": 200}})
        for place, reducer, args in reversed(called):
            step = step | {"path": f"/database/call/{name}/{reducer}", "body": args}
            self.steps.insert(place, {"http": step, "reply": {"status": 200}})

    async def run(self, start: int = 0) -> int | None:
        """Go through the steps; where the server was killed, return the place of the next one."""
        last = _last_steps(self.steps)
        is_killed = any(_is_kill(step) for step in self.steps[start:])
        for place, step in list(enumerate(self.steps))[start:]:
            await trio.sleep(self.waits.get(place, 0))
            if _is_kill(step):
                return place + 1
            if "http" in step:
                await self._exchange(place, step)
            elif "ws" in step:
                texts = await self._socket_step(step, place)
                if place in self.exceptions:
                    if texts:
                        self.used.add(place)
                elif texts:
                    self.differences.append(Difference(place, texts))
                if place in last and not is_killed:  # recorded clients left when they had no more to do
                    self._sockets[step["ws"]].client.stream.close_nowait()
                    await trio.testing.wait_all_tasks_blocked()
        for socket in self._sockets.values():
            socket.client.stream.close_nowait()
        return None

    # ------------------------------------------------------------------ who is who
    def _learn_from_bytes(self) -> None:
        """Find out who the placeholders of binary frames are, whose bytes are those of the recording.

        What clients choose or tokens say is the same here; what the recorded server drew is a placeholder again.
        """
        chosen = {name for step in self.steps for name in _mentioned(step.get("path", "") + step.get("auth", ""))}
        chosen |= {("identity", who) for kind, who in chosen if kind == "token"}
        for step in self.steps:
            if step.get("do") == "recv" and step.get("op") == "binary" and "hex" in step and "decoded" in step:
                told = self._told_binary(bytes.fromhex(step["hex"]), _PROBE)
                for (kind, who), value in _learned(step["decoded"], told):
                    if (kind, who) in chosen:
                        self.names.known.setdefault(f"{kind}:{who}", value)
                    else:
                        self.drawn[value] = f"${{{kind}:{who}}}"

    def credentials(self, who: str) -> tuple[str, str]:
        """Return identity and token of somebody, made when first asked for."""
        if f"token:{who}" not in self.names.known:
            identity = self.names.known.setdefault(f"identity:{who}", self.door.tokens.mint().hex)
            expires = 2 if who in self.expired else None
            payload = json.dumps({"hex_identity": identity, "iat": 1, "exp": expires}, separators=(",", ":"))
            self.names.known[f"token:{who}"] = (_FOREIGN if who in self.foreign else KEY).sign(payload)
        return self.names.known.get(f"identity:{who}", ""), self.names.known[f"token:{who}"]

    def _filled(self, text: str, token: str = "") -> str:
        text = text.replace("UUU in upper case", self._suffix.upper()).replace("UUU", self._suffix)
        text = text.replace("${base64 of token:JWT}", token)
        if _UPPER in text:
            text = text.replace(_UPPER, self.names.known["address:db"].upper())
        for kind, who in _mentioned(text):
            if kind == "token" or (kind == "identity" and f"identity:{who}" not in self.names.known):
                self.credentials(who)
            elif f"{kind}:{who}" not in self.names.known:
                number = len(self.names.known) + 1
                self.names.known[f"{kind}:{who}"] = f"{number:032x}"
        return self.names.filled(text)

    def _authorization(self, step: Mapping[str, Any]) -> dict[str, str]:
        headers = {}
        if auth := step.get("auth"):
            scheme, _, credentials = auth.partition(" ")
            headers["Authorization"] = f"{scheme} {base64.b64encode(self._filled(credentials).encode()).decode()}"
        return headers

    # ------------------------------------------------------------------ HTTP
    async def _exchange(self, place: int, step: dict[str, Any]) -> None:
        asked, reply = step["http"], step["reply"]
        body = asked.get("body") or ""
        if body in self.variants:
            data = _program(body)
        elif body.endswith(" bytes>"):
            data = PYTHON_MAGIC + _PROGRAMS.get(body, "2").encode()
        else:
            data = self._filled(body).encode()
        headers = {name: self._filled(value) for name, value in asked.get("headers", {}).items()}
        path = self.prefix + self._filled(asked["path"])
        if "/logs/" in path:  # read by a thread, for which a clock in a hurry would not wait
            self.clock.autojump_threshold = math.inf
        answer = await self.door.send(asked["method"], path, headers | self._authorization(asked), data)
        self.clock.autojump_threshold = 0
        if answer.status != reply["status"] and place in self.exceptions:
            self.used.add(place)
        elif answer.status != reply["status"]:
            self.differences.append(Difference(place, [f"{path}: {answer.status} {answer.text!r}, recorded {reply}"]))
        if "${" in (reply.get("body") or "") and "/logs/" not in path and answer.text.startswith("{"):
            self.names.differences(json.loads(numbered(reply["body"])), answer.document)  # to learn what it tells
        if "/publish" in path and answer.status == 200:
            told = answer.document["Success"]
            self.names.known["address:db"] = told["address"]
            if body in self.variants:
                self._faces[told["domain"]] = legacy_face(self.variants[body]().definition)
        elif self.reads and re.search("/(sql|logs)/", path) and answer.status == reply["status"] == 200:
            read = _rows_read if "/sql/" in path else _lines_read
            texts = self._against(place, read(reply["body"]), read(answer.text), "read")
            if place in self.exceptions and texts:
                self.used.add(place)
            elif texts:
                self.differences.append(Difference(place, texts))
        await trio.testing.wait_all_tasks_blocked()

    # ------------------------------------------------------------------ WebSockets
    async def _socket_step(self, step: dict[str, Any], place: int) -> list[str]:
        name = step["ws"]
        if step["do"] == "open":
            return await self._open(name, step)
        socket = self._sockets[name]
        if step.get("op") == "ping" and step["do"] == "recv":
            return []  # where they come among messages is of no account
        if step["do"] == "send":
            try:
                self._send(socket, step)
            except BrokenPipeError:
                return ["the connection is over"]
            return []
        excepted = self.exceptions.get(place)
        if excepted is not None and not excepted.is_told:
            return ["nothing is told"]
        if step["do"] == "none":
            frame = await self._next(socket, step["seconds"])
            if frame is None:
                return []
            if excepted is not None and excepted.is_early:
                socket.kept.append(frame)
            return [f"told {self._told(frame, socket)}, recorded: nothing"]
        frame = await self._next(socket, _ANSWER_SECONDS)
        if step["do"] == "eof":
            return [] if frame is None and socket.is_over else [f"told {frame}, recorded: the end"]
        if frame is None:
            return [f"told nothing (over: {socket.is_over}), recorded {step}"]
        if step["op"] == "close":
            return self._closed(step, frame, socket)
        if step["op"] == "pong":
            return [] if frame == (0x8A, bytes.fromhex(step["hex"])) else [f"told {frame}, recorded {step}"]
        return self._compared(place, step, frame, socket)

    async def _open(self, name: str, step: dict[str, Any]) -> list[str]:
        if name in self._sockets:
            self._sockets[name].client.stream.close_nowait()
            await trio.testing.wait_all_tasks_blocked()
        client = self.door.connect()
        other = step.get("other", {})
        headers = {"Connection": "Upgrade", "Upgrade": "websocket"} if other.get("upgrade", True) else {}
        if (version := other.get("version", "13")) is not None:
            headers["Sec-WebSocket-Version"] = version
        if other.get("key", True):
            headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
        if step.get("protocol") is not None:
            headers["Sec-WebSocket-Protocol"] = step["protocol"]
        headers |= self._authorization(step) | {
            key: self._filled(value) for key, value in other.get("headers", {}).items()
        }
        path = self.prefix + self._filled(step["path"], self._shown_token(step))
        answer = await client.request(other.get("method", "GET"), path, headers)
        face = self._faces.get(path.partition("?")[0].rpartition("/")[2], _PROBE)
        socket = self._sockets[name] = Socket(client, client.upgraded() if answer.status == 101 else b"", face)
        recorded = step.get("headers", {}) if answer.status == 101 else {}
        texts = [] if answer.status == step["status"] else [f"status {answer.status}: {answer.text!r}, recorded {step}"]
        texts += self.names.differences(step.get("body", "") if answer.status != 101 else "", answer.text, "body")
        for header in ("sec-websocket-protocol", "spacetime-identity", "spacetime-identity-token"):
            if header in recorded:
                texts += self.names.differences(recorded[header], answer.headers.get(header, ""), header)
        socket.identity = answer.headers.get("spacetime-identity", "")
        return texts

    def _shown_token(self, step: dict[str, Any]) -> str:
        """Return the token that a path shows, as it is shown there: the one that comes back."""
        if "${base64 of token:JWT}" not in step["path"]:
            return ""
        return base64.b64encode(self._filled(f"token:{step['headers']['spacetime-identity-token']}").encode()).decode()

    def _send(self, socket: Socket, step: dict[str, Any]) -> None:
        if step["op"] == "close":
            code = step.get("code")
            payload = b"" if code is None else code.to_bytes(2, "big") + step.get("reason", "").encode()
            payload = b"x" if step.get("note") == "close with 1 byte" else payload
        elif "text" in step:
            payload = self._filled(step["text"]).encode()
        else:
            payload = bytes.fromhex(step["hex"])
        opcode = _OPCODES[str(step["op"])]
        if step.get("note") == "fragment 1":
            opcode = 0x01
        mask = None if step.get("note") == "unmasked frame" else b"\1\2\3\4"
        socket.client.stream.send_nowait(client_frame(opcode, payload, mask))

    async def _next(self, socket: Socket, seconds: float) -> tuple[int, bytes] | None:
        """Return the next frame that is not told by this server alone."""
        while True:
            frame = await socket.next(seconds)
            if frame is None or frame[0] not in (0x81, 0x82) or not self._is_extra(self._told(frame, socket), socket):
                return frame

    def _told(self, frame: tuple[int, bytes], socket: Socket) -> Told:
        opcode, payload = frame
        if opcode == 0x81:
            return told_text(payload.decode(), socket.face)
        if opcode == 0x82:
            return self._told_binary(payload, socket.face)
        return Told("close", {"code": int.from_bytes(payload[:2], "big"), "reason": payload[2:].decode()}, {})

    def _told_binary(self, payload: bytes, face: LegacyFace) -> Told:
        return told_binary(payload, self.version.rpartition(".")[0], face)

    def _closed(self, step: dict[str, Any], frame: tuple[int, bytes], socket: Socket) -> list[str]:
        opcode, payload = frame
        if opcode != 0x88:
            return [f"told {self._told(frame, socket)}, recorded {step}"]
        code = int.from_bytes(payload[:2], "big") if payload else None
        reason = payload[2:].decode()
        is_same = (code, reason) == (step["code"], step["reason"].replace("unexepected", "unexpected"))
        return [] if is_same else [f"closed with {code} {reason!r}, recorded {step['code']} {step['reason']!r}"]

    def _compared(self, place: int, step: dict[str, Any], frame: tuple[int, bytes], socket: Socket) -> list[str]:
        actual = self._told(frame, socket)
        if "hex" in step:
            told = self._told_binary(bytes.fromhex(step["hex"]), socket.face)
            expected = Told(told.kind, _replaced(told.fields, self.drawn), _replaced(told.tables, self.drawn))
        elif "text" in step:
            expected = told_text(step["text"], socket.face)
        else:
            fields = next(iter(step["decoded"].values()))
            expected = Told("identity", {key: fields[key] for key in ("identity", "token", "address")}, {})
        if actual.kind == "identity":
            socket.identity, socket.address = actual.fields["identity"], actual.fields["address"]
            if "hex" in step:
                expected.fields["token"] = ANY
        _cut_reason(expected, actual)
        if "request_id" not in expected.fields:  # 0.8 tells none as text
            actual.fields.pop("request_id", None)
        return self._against(place, expected, actual, "message")

    def _against(self, place: int, expected: Any, actual: Any, where: str) -> list[str]:
        """Return what is another than recorded; where the exception says what is told instead, that must be told."""
        excepted = self.exceptions.get(place)
        if excepted is None or excepted.instead is None:
            return self.names.differences(expected, actual, where)
        ours = excepted.instead(expected)
        assert ours != expected, "this step needs no exception"
        if texts := self.names.differences(ours, actual, where):
            self.differences.append(Difference(place, texts))
        return ["told in our way"]


def _program(body: str) -> bytes:
    """Return a program that stands for the recorded one."""
    return PYTHON_MAGIC + body.encode()


def _last_steps(steps: list[dict[str, Any]]) -> set[int]:
    """Return where connections had no more to do; another one may have the same name later."""
    last: dict[str, int] = {}
    found = set()
    for place, step in enumerate(steps):
        if "ws" in step:
            if step["do"] == "open" and step["ws"] in last:
                found.add(last[step["ws"]])
            last[step["ws"]] = place
    return found | set(last.values())


def _is_kill(step: Mapping[str, Any]) -> bool:
    return "ws" not in step and step.get("note", "").startswith("SIGKILL")


def _rows_read(body: str) -> Any:
    """Return the rows of an answer to SQL, or its text."""
    try:
        return [Rows(each["rows"]) for each in json.loads(numbered(body), parse_float=str)]
    except ValueError:
        return body


def _lines_read(body: str) -> list[list[str]]:
    """Return level and text of log lines."""
    lines = [json.loads(numbered(line)) for line in body.splitlines()]
    return [[line["level"], line["message"]] for line in lines]


class _Disk(MemoryStorage):
    """A data directory that outlives a server that is killed."""

    def close(self) -> None:
        """Stay open: there may be another server."""

    def stop(self) -> None:
        """Store nothing from now on; the lines of modules go to logs that nobody reads again."""
        for log in self.logs.values():
            log.is_broken = True
        self._module_logs = copy.deepcopy(self._module_logs)

    def restart(self) -> None:
        """Let go of what a killed server held."""
        for log in self.logs.values():
            log.crash()
            log.is_broken = False

    def discard(self) -> None:
        """Close it."""
        super().close()


_ARGUMENTS = re.compile(r"(invalid arguments for reducer \w+: )(?:([.\[\]\w]*): ([.\[\]\w]*): )?.*", re.DOTALL)


def _cut_reason(expected: Told, actual: Told) -> None:
    """Leave the reason of bad arguments out (spec 03 section 3.5, "we": the reason may differ)."""
    for told in (expected, actual):
        if match := _ARGUMENTS.fullmatch(told.fields.get("message", "")):
            told.fields["message"] = match.groups()


def _replaced(value: Any, words: Mapping[str, str]) -> Any:
    """Return a value with other words for some of its texts."""
    if isinstance(value, dict):
        return {key: _replaced(item, words) for key, item in value.items()}
    if isinstance(value, list):
        return type(value)(_replaced(item, words) for item in value)
    return words.get(value, value) if isinstance(value, str) else value


def _mentioned(text: str) -> list[tuple[str, str]]:
    return re.findall(r"\$\{(identity|address|token|hash):(\w+)\}", text)


def _learned(decoded: Any, told: Told) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield what the placeholders of a recorded reading stand for in the bytes."""
    content = next(iter(decoded.values()))
    content = content.get("event", content)
    named = {"caller": ("callerIdentity", "caller_identity"), "identity": ("identity",)}
    named["address"] = ("callerAddress", "caller_address", "address")
    for field, keys in named.items():
        for key in keys:
            value = content.get(key)
            if isinstance(value, str) and field in told.fields and (found := _mentioned(value)):
                yield found[0], told.fields[field]


async def replay(
    name: str,
    exceptions: Mapping[int, Excepted] | None = None,
    is_extra: Callable[[Told, Any], bool] = lambda told, socket: False,
    *,
    kinds: Any = None,
    published: str | None = None,
    called: Sequence[tuple[int, str, str]] = (),
    swapped: Collection[int] = (),
    owner: str = "",
    foreign: Collection[str] = (),
    expired: Collection[str] = (),
    variants: Mapping[str, Callable[[], ProbeModule]] | None = None,
    reads: bool = False,
    waits: Mapping[int, float] | None = None,
    start: int = 0,
) -> Replay:
    """Hold a recorded session; return how it went.

    `swapped`: places of steps that were written down after the one that they led to; `owner`: who published.
    """
    programs: dict[bytes, Callable[[], Module]] = {
        PYTHON_MAGIC + version.encode(): probe(version, kinds) for version in ("1", "2")
    }
    programs |= {_program(body): make for body, make in (variants or {}).items()}
    how: dict[str, Any] = {"foreign": foreign, "expired": expired, "variants": variants, "reads": reads, "waits": waits}
    disk = _Disk()
    async with open_door(programs, storage=disk) as door:
        session = Replay(name, door, exceptions or {}, is_extra, **how)
        if owner:
            session.drawn[owner] = "${identity:owner}"
        for place in swapped:
            session.steps[place : place + 2] = session.steps[place : place + 2][::-1]
        if published is not None:
            await session.publish(published, called)
        killed = await session.run(start)
        if killed is not None:
            disk.stop()
    while killed is not None:
        disk.restart()
        async with open_door(programs, storage=disk) as session.door:
            killed = await session.run(killed)
    disk.discard()
    return session
