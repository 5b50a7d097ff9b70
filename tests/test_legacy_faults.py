"""Clients of 0.7 to 0.11 that break the protocol, come twice, send too much, do not read or do not answer."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.errors import DecodeError
from stdb.net.frames import MESSAGE_BYTES_MAX
from stdb.net.tokens import Credentials
from stdb.schema.model import ModuleDef
from tests.http_harness import Door, bearer
from tests.legacy_clients import BINARY, DIALECTS, TEXT, LegacyClient, basic, opened
from tests.legacy_spoken import LegacySpoken
from tests.websocket_bytes import client_frame

pytestmark = pytest.mark.slow  # many connections

SOURCE = """
from stdb import Identity, ReducerContext, client_connected, client_disconnected, primary_key, reducer, table, u64

@table(name="Visit", public=True)
class Visit:
    n: u64 = primary_key(auto_inc=True)
    who: Identity
    what: str

@table(name="Note", public=True)
class Note:
    n: u64 = primary_key(auto_inc=True)
    text: str

@client_connected
def came(ctx: ReducerContext) -> None:
    ctx.db[Visit].insert(Visit(who=ctx.sender, what="came"))

@client_disconnected
def gone(ctx: ReducerContext) -> None:
    ctx.db[Visit].insert(Visit(who=ctx.sender, what="gone"))

@reducer
def say(ctx: ReducerContext, text: str) -> None:
    ctx.db[Note].insert(Note(text=text))

@reducer
def shout(ctx: ReducerContext, size: u64) -> None:
    ctx.db[Note].insert(Note(text="x" * size))
"""
NOTES = "SELECT * FROM Note"
USE_OLD_TEXT = "wrong dialect, use <host>/legacy/0.8"
USE_OLD_BINARY = "wrong dialect, use <host>/legacy/0.8 or /legacy/0.10"
USE_NEW = "wrong dialect, use <host>/legacy/0.11"
ADDRESS = "A0112233445566778899AABBCCDDEEFF"


class World:
    """A front door with the module above, and its clients."""

    def __init__(self, door: Door, definition: ModuleDef, owner: Credentials, nursery: trio.Nursery) -> None:
        self.door, self.definition, self.owner, self.nursery = door, definition, owner, nursery

    async def client(self, dialect: str, **options: Any) -> LegacyClient:
        client = LegacyClient(self.door, dialect)
        assert await client.open(self.nursery, "probe", **options) == 101
        return client

    async def sql(self, text: str) -> list[list[Any]]:
        """Return the rows of a statement, as the owner."""
        answer = await self.door.send("POST", "/v1/database/probe/sql", bearer(self.owner), text)
        assert answer.status == 200, answer.text
        rows: list[list[Any]] = answer.document[0]["rows"]
        return rows

    async def visits(self) -> list[str]:
        """Return what connect and disconnect reducers noted, in order, but for those of HTTP."""
        await trio.testing.wait_all_tasks_blocked()
        owner = [f"0x{self.owner.identity[::-1].hex()}"]
        rows = await self.sql("SELECT * FROM Visit")
        return [what for _, who, what in sorted(rows) if who != owner]

    async def check_served(self) -> None:
        """A client that comes now is served."""
        client = await self.client("L3 BSATN")
        await client.subscribe(NOTES)
        await client.call("say", text_args("served"))
        await trio.sleep(1)
        assert "served" in str(client.rows(self.definition))
        client.client.stream.close_nowait()


def text_args(text: str) -> bytes:
    return len(text).to_bytes(4, "little") + text.encode()


def run(script: Callable[..., Awaitable[None]], *args: Any) -> None:
    """Run a script in a world of its own, in virtual time."""

    async def main() -> None:
        async with opened(SOURCE) as (door, definition, owner), trio.open_nursery() as nursery:
            await script(World(door, definition, owner, nursery), *args)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def wrong_paths() -> list[Any]:
    """Return a client, the path it comes to, and what it is told there; text finds its way at the root."""
    found = []
    for dialect, speech in DIALECTS.items():
        is_new = dialect.startswith("L3")
        reason = USE_NEW if is_new else USE_OLD_BINARY if speech.is_binary else USE_OLD_TEXT
        wrong = ["/legacy/0.8", "/legacy/0.10"] if is_new else ["/legacy/0.11"]
        if speech.is_binary and not is_new:
            wrong.append("")
        found += [pytest.param(dialect, prefix, reason, id=f"{dialect} at {prefix or 'the root'}") for prefix in wrong]
    return found


@pytest.mark.parametrize(("dialect", "prefix", "reason"), wrong_paths())
@pytest.mark.parametrize("what", ["subscribe", "call", "one-off"])
def test_a_client_on_the_path_of_another_generation_is_told_the_right_one(
    dialect: str, prefix: str, reason: str, what: str
) -> None:
    async def script(world: World) -> None:
        client = LegacyClient(world.door, dialect)
        client.is_foreign = True
        assert await client.open(world.nursery, "probe", prefix=prefix) == 101
        started = trio.current_time()
        speech = client.speech
        message = {
            "subscribe": speech.subscribe((NOTES,)),
            "call": speech.call("say", text_args("x"), '["x"]'),
            "one-off": speech.one_off(NOTES),
        }[what]
        await client.send(message)
        await client.ended.wait()
        assert client.close == (1011, reason)
        assert trio.current_time() - started <= 1
        assert await world.sql(NOTES) == []
        assert await world.visits() == ["came", "gone"]

    run(script)


def test_text_at_the_root_is_told_too_when_address_and_origin_spoke_for_the_other_generation() -> None:
    async def script(world: World) -> None:
        client = LegacyClient(world.door, "L3 JSON")
        client.is_foreign = True
        query = f"?client_address={ADDRESS}"
        await client.open(world.nursery, "probe", query=query, headers={"Origin": "http://x"}, prefix="")
        await client.subscribe(NOTES)
        await client.ended.wait()
        assert client.close == (1011, USE_NEW)

    run(script)


@pytest.mark.parametrize("protocol", ["v1.json.spacetimedb", "v1.bsatn.spacetimedb", "v2.bsatn.spacetimedb"])
@pytest.mark.parametrize("prefix", ["", "/legacy/0.8", "/legacy/0.10", "/legacy/0.11"])
def test_later_clients_get_no_connection_on_paths_of_that_time(prefix: str, protocol: str) -> None:
    async def script(world: World) -> None:
        client = LegacyClient(world.door, "L3 BSATN")
        assert await client.open(world.nursery, "probe", prefix=prefix, protocol=protocol) == 400

    run(script)


BROKEN_FRAMES = {
    "unmasked": client_frame(BINARY, b"\0", mask=None),
    "reserved bit": client_frame(0xC2, b"\0"),
    "reserved opcode": client_frame(0x83),
    "large ping": client_frame(0x89, bytes(126)),
    "ping in parts": client_frame(0x09, b"\0"),
    "a part of nothing": client_frame(0x80, b"\0"),
    "no UTF-8": client_frame(TEXT, b"\xff\xfe"),
    "close of one byte": client_frame(0x88, b"\3"),
}


@pytest.mark.parametrize("broken", BROKEN_FRAMES)
@pytest.mark.parametrize("dialect", [*DIALECTS, "undecided"])
def test_bytes_that_are_no_frames_cut_the_connection_without_a_close(dialect: str, broken: str) -> None:
    async def script(world: World) -> None:
        if dialect == "undecided":
            client = await world.client("L3 JSON", prefix="")
        else:
            client = await world.client(dialect)
        await client.client.send_all(BROKEN_FRAMES[broken])
        await client.ended.wait()
        assert client.close == (None, "")
        assert dialect == "undecided" or len(client.messages) == 1
        assert await world.visits() == ["came", "gone"]
        await world.check_served()

    run(script)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_came_before_the_damage_is_done_and_answered(dialect: str) -> None:
    async def script(world: World) -> None:
        client = await world.client(dialect)
        await client.call("say", text_args("before"), '["before"]')
        garbage: bytes | str = b"\x7f\x7f" if client.speech.is_binary else '{"what":1}'
        await client.send(garbage)
        await client.call("say", text_args("after"), '["after"]')
        await client.ended.wait()
        code, reason = client.close
        assert code == 1011
        assert reason
        assert len(client.messages) == 2
        assert [text for _, text in await world.sql(NOTES)] == ["before"]

    run(script)


@pytest.mark.parametrize("second", DIALECTS)
@pytest.mark.parametrize("first", ["L1 text", "L3 BSATN"])
def test_of_two_sockets_of_one_identity_and_address_the_older_is_cut_and_neither_goes_deaf(
    first: str, second: str
) -> None:
    async def script(world: World) -> None:
        who = world.door.tokens.mint()
        options: Any = {"query": f"?client_address={ADDRESS}", "headers": basic(who.token)}
        older = await world.client(first, **options)
        await older.subscribe(NOTES)
        await trio.sleep(1)
        newer = await world.client(second, **options)
        await newer.subscribe(NOTES)
        await older.ended.wait()
        await trio.sleep(5)
        assert not newer.is_over
        assert newer.address == ADDRESS.lower()
        assert await world.visits() == ["came", "gone", "came"]
        await newer.call("say", text_args("heard"), '["heard"]')
        await trio.sleep(5)
        assert "heard" in str(newer.rows(world.definition))
        assert older.rows(world.definition) == {}
        shown = f"0x{who.identity[::-1].hex()}"
        assert [row[0] for row in await world.sql("SELECT * FROM st_client")].count(shown) == 1
        newer.client.stream.close_nowait()
        await trio.sleep(1)
        assert await world.visits() == ["came", "gone", "came", "gone"]

    run(script)


def largest(speech: Any, size: int) -> bytes | str:
    """Return a call of an unknown reducer in so many bytes."""
    if not speech.is_binary:
        rest = len(speech.call("nothing", b"", '""'))
        return str(speech.call("nothing", b"", '"' + "x" * (size - rest) + '"'))
    rest = len(speech.call("nothing", bytes(size), "")) - size
    return bytes(speech.call("nothing", bytes(size - rest), ""))


@pytest.mark.parametrize("dialect", ["L1 text", "L2 protobuf", "L3 BSATN"])
def test_a_message_of_32_mib_is_taken_and_one_byte_more_cuts_the_connection(dialect: str) -> None:
    async def script(world: World) -> None:
        client = await world.client(dialect)
        message = largest(client.speech, MESSAGE_BYTES_MAX)
        assert len(message) == MESSAGE_BYTES_MAX
        await client.send(message)
        await trio.sleep(1)
        assert not client.is_over
        assert "no such reducer" in str(client.messages[1])[:100_000]
        with suppress(OSError):  # the first bytes of the frame say how large it is
            await client.send(largest(client.speech, MESSAGE_BYTES_MAX + 1))
        await client.ended.wait()
        assert client.close == (None, "")
        assert len(client.messages) == 2
        await world.check_served()

    run(script)


@pytest.mark.parametrize("dialect", ["L1 text", "L3 JSON"])
def test_a_client_that_does_not_read_is_cut_and_the_others_are_served(dialect: str) -> None:
    """What waits for it is more than 64 MiB in the end."""

    async def script(world: World) -> None:
        slow, quick = await world.client(dialect), await world.client("L3 BSATN")
        for client in (slow, quick):
            await client.subscribe(NOTES)
        await trio.sleep(1)
        slow.reads = trio.Event()
        for _ in range(20):
            await quick.call("shout", (4 << 20).to_bytes(8, "little"))
            await trio.sleep(2.5)
        assert len(quick.messages) == 22
        assert await world.visits() == ["came", "came", "gone"]
        slow.reads.set()
        await slow.ended.wait()
        assert slow.close == (None, "")
        assert len(slow.messages) < 20

    run(script)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_ping_comes_at_once_and_every_minute_and_who_does_not_answer_is_cut_at_the_next(dialect: str) -> None:
    async def script(world: World) -> None:
        started = trio.current_time()
        client, silent = await world.client(dialect), await world.client(dialect)
        silent.answers_pings = False
        await trio.sleep(30)
        await silent.subscribe(NOTES)  # is heard, and yet no Pong
        await silent.ended.wait()
        assert trio.current_time() - started == pytest.approx(60, abs=0.5)
        assert silent.close == (None, "")
        assert len(silent.pings) == 1
        await trio.sleep(150)
        assert [ping - started for ping in client.pings] == pytest.approx([0, 60, 120, 180], abs=0.5)
        await client.call("say", text_args("alive"), '["alive"]')
        await trio.sleep(1)
        assert len(client.messages) == 2

    run(script)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_address_is_taken_in_any_case_drawn_when_none_is_given_and_refused_when_it_is_none(dialect: str) -> None:
    async def script(world: World) -> None:
        for given_address in (ADDRESS, ADDRESS.lower()):
            client = await world.client(dialect, query=f"?client_address={given_address}")
            await trio.sleep(1)
            assert client.address == ADDRESS.lower()
        drawn = [await world.client(dialect) for _ in range(2)]
        await trio.sleep(1)
        assert drawn[0].address != drawn[1].address
        assert all(int(client.address, 16) for client in drawn)
        for wrong in ("0" * 32, "", "abc", f"0x{ADDRESS}", ADDRESS + "00", "g" * 32):
            refused = LegacyClient(world.door, dialect)
            assert await refused.open(world.nursery, "probe", query=f"?client_address={wrong}") == 400
        assert (await world.visits()).count("came") == 4

    run(script)


NAMES = {
    "L1 text": "0.8 v1.text",
    "L1 protobuf": "0.8 v1.bin",
    "L2 protobuf": "0.10 v1.bin",
    "L3 BSATN": "0.11 v1.bin",
    "L3 JSON": "0.11 v1.text",
}


@st.composite
def hostile(draw: st.DrawFn) -> tuple[str, bytes | str]:
    """Return a dialect and a message that is nearly one of its own, or nothing at all."""
    dialect = draw(st.sampled_from(sorted(DIALECTS)))
    speech = DIALECTS[draw(st.sampled_from([dialect, *sorted(DIALECTS)]))]
    text = draw(st.text(max_size=8))
    message = draw(
        st.one_of(
            st.just(speech.subscribe((text, NOTES))),
            st.just(speech.call(text, text.encode(), draw(st.sampled_from(['["x"]', "{}", "[", "1e999", "null"])))),
            st.just(speech.one_off(text)),
            st.binary(max_size=40),
            st.text(max_size=40),
            st.integers(1, 5_000).map(lambda depth: '{"call":{"fn":"x","args":' + "[" * depth),
            st.integers(1, 5_000).map(lambda depth: '{"Subscribe":' + '{"a":' * depth),
        )
    )
    place, length = draw(st.integers(0, 60)), draw(st.integers(0, 3))
    if isinstance(message, str):
        return dialect, message[:place] + draw(st.text(max_size=3)) + message[place + length :]
    return dialect, message[:place] + draw(st.binary(max_size=3)) + message[place + length :]


@given(hostile())
@settings(max_examples=250, deadline=None)
def test_hostile_messages_are_understood_or_refused_with_a_reason(case: tuple[str, bytes | str]) -> None:
    dialect, message = case
    requests: list[Any] = []
    refusal = ""
    try:
        LegacySpoken(NAMES[dialect]).sink.receive(message, requests)
    except DecodeError as error:
        refusal = str(error)
    assert len(requests) == (not refusal)
