"""Conversations of the real Python SDK 0.7.0, whose frames are sent to this server again.

The answers are those of the real 0.8.2, so are the keys of rows: people, tokens and times are the recorded ones.
Left out are numbers of tables, energy, and the members that this server's superset of the dialect adds.
"""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric import ec

from stdb.errors import ReducerError
from stdb.modules.protocol import Module
from stdb.net.routes_publish import PYTHON_MAGIC
from stdb.net.tokens import ServerKey, Tokens
from stdb.sats.types import BOOL, IDENTITY, STRING, U64, option
from stdb.schema.model import Lifecycle
from stdb.testing.modules import Context, FunctionModule, reducer, table
from tests.http_harness import Door, open_door
from tests.legacy_exchanges import recording
from tests.legacy_replay import Socket
from tests.websocket_bytes import client_frame

SESSIONS = {session["name"]: session["frames"] for session in recording("legacy_text_session")["sessions"]}
KEY = ServerKey(ec.derive_private_key(int.from_bytes(bytes(range(1, 33)), "big"), ec.SECP256R1()))
OWNER = "7".zfill(64)
OWNER_BYTES = bytes.fromhex(OWNER)[::-1]
PROGRAM = PYTHON_MAGIC + b"chat"
UNLIKE = {"table_id", "energy_quanta_used"}
NO_ADDRESS = "0" * 32


def chat(user: str, message: str) -> FunctionModule:
    """Return the module of the conversations, with these names of its tables."""

    def init(ctx: Context) -> None:
        ctx.insert(user, ctx.call.sender, "Ada", False)
        ctx.insert(message, ctx.call.sender, 1_699_999_999_000_000, "hello")

    def put_user(ctx: Context, name: str | None, online: bool) -> None:
        known = [row for row in ctx.rows(user) if row[0] == ctx.call.sender]
        for row in known:
            ctx.delete(user, *row)
        ctx.insert(user, ctx.call.sender, name or (known[0][1] if known else None), online)

    def send_message(ctx: Context, text: str) -> None:
        if not text:
            raise ReducerError("Messages must not be empty")
        ctx.insert(message, ctx.call.sender, whole_seconds(ctx.call.timestamp_us), text)

    def expire_old(ctx: Context) -> None:
        ctx.delete(message, *next(row for row in ctx.rows(message) if row[2] == "hello"))

    def come(ctx: Context) -> None:
        if ctx.call.sender != OWNER_BYTES:
            put_user(ctx, None, True)

    module = FunctionModule(
        [
            table(user, {"identity": IDENTITY, "name": option(STRING), "online": BOOL}, primary_key="identity"),
            table(message, {"sender": IDENTITY, "sent": U64, "text": STRING}),
        ],
        {
            "__init__": reducer(init, lifecycle=Lifecycle.INIT),
            "__identity_connected__": reducer(come, lifecycle=Lifecycle.ON_CONNECT),
            "send_message": reducer(send_message, {"text": STRING}),
            "set_name": reducer(lambda ctx, name: put_user(ctx, name, True), {"name": STRING}),
            "expire_old": reducer(expire_old),
        },
        version="chat",
    )
    module.definition = replace(module.definition, is_0_11=True)
    return module


def whole_seconds(timestamp_us: int) -> int:
    """Return a time as it was recorded: clients are paced here, which takes less than a millisecond."""
    return timestamp_us // 1_000_000 * 1_000_000


def told(text: str, names: dict[str, str]) -> Any:
    """Return a message with what is compared of it; `names` are replaced."""
    for name, instead in names.items():
        text = text.replace(name, instead)
    return comparable(json.loads(text))


def comparable(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: comparable(item) for key, item in value.items() if key not in UNLIKE}
        if "timestamp" in kept:
            kept["timestamp"] = whole_seconds(kept["timestamp"])
        if "args" in kept and "reducer" in kept:
            kept["args"] = json.loads(kept["args"])  # "we: L1 always re-encodes" (spec 03 section 3.3)
        return kept
    if isinstance(value, list):
        items = [comparable(item) for item in value]
        return sorted(items, key=json.dumps) if items and isinstance(items[0], dict) else items
    return value


def common(expected: Any, actual: Any) -> Any:
    """Return a value without members that are not in the expected one."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return {key: common(expected.get(key), item) for key, item in actual.items() if key in expected}
    if isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        return [common(*pair) for pair in zip(expected, actual, strict=True)]
    return actual


async def converse(door: Door, frames: list[dict[str, Any]]) -> int:
    """Send what the client sent and compare the answers; return how many there were."""
    names: dict[str, str] = {}
    token = KEY.sign(json.dumps({"hex_identity": OWNER, "iat": 1, "exp": None}, separators=(",", ":")))
    owner = {"Authorization": f"Basic {base64.b64encode(f'token:{token}'.encode()).decode()}"}
    published = await door.send("POST", "/database/publish?name_or_address=chat", owner, PROGRAM)
    assert published.status == 200, published.text
    start, *headers = frames[0]["lines"]
    client = door.connect()
    sent = dict(line.split(": ", 1) for line in headers if not line.startswith("Host"))  # it is sent anyway
    answer = await client.request("GET", start.split()[1], sent)
    assert answer.status == 101, answer.text
    recorded = dict(line.split(": ", 1) for line in frames[1]["lines"][1:])
    assert answer.headers["sec-websocket-accept"] == recorded["sec-websocket-accept"]
    assert answer.headers["sec-websocket-protocol"] == recorded["sec-websocket-protocol"]
    who = answer.headers["spacetime-identity"], answer.headers["spacetime-identity-token"]
    recorded_who = recorded["spacetime-identity"], recorded["spacetime-identity-token"]
    if "Authorization" in sent:
        assert who == recorded_who
    else:  # a new one of each
        names = dict(zip(recorded_who, who, strict=True))
    socket = Socket(client, client.upgraded())
    compared = 0
    for place, frame in enumerate(frames[2:], 2):
        if frame["kind"] == "close":
            break
        if frame["dir"] == "client->server":
            client.stream.send_nowait(client_frame(0x81, frame["text"].encode()))
            continue
        if "expire_old" in frame["text"]:
            await trio.sleep(1)
            assert (await door.send("POST", "/database/call/chat/expire_old", owner, b"[]")).status == 200
        received = await socket.next(3)
        assert received is not None, place
        assert received[0] == 0x81, place
        expected, actual = told(frame["text"], names), told(received[1].decode(), {})
        if "expire_old" in frame["text"]:
            # recorded as the owner's schedule told it; here the owner calls, at an address of its own
            assert expected["TransactionUpdate"]["event"].pop("caller_address") == NO_ADDRESS
        if names:
            without_keys(expected, actual)
        assert common(expected, actual) == expected, place
        compared += 1
    client.stream.send_nowait(client_frame(0x88, (1000).to_bytes(2, "big")))
    assert await socket.next(1) == (0x88, (1000).to_bytes(2, "big"))
    assert await socket.next(1) is None
    assert socket.is_over
    return compared


def without_keys(*messages: Any) -> None:
    """Remove keys of rows, which are those of another identity."""
    for message in messages:
        if isinstance(message, dict):
            message.pop("row_pk", None)
            without_keys(*message.values())
        elif isinstance(message, list):
            without_keys(*message)
            message.sort(key=json.dumps)


@pytest.mark.parametrize(("name", "count"), [("async-client", 6), ("sync-client", 3), ("snake-case-tables", 6)])
def test_the_frames_of_the_python_sdk_are_answered_as_0_8_2_did(name: str, count: int) -> None:
    tables = ("user", "chat_message") if name == "snake-case-tables" else ("User", "Message")

    def load() -> Module:
        return chat(*tables)

    async def main() -> int:
        async with open_door({PROGRAM: load}, tokens=Tokens(KEY)) as door:
            return await converse(door, SESSIONS[name])

    assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0)) == count
