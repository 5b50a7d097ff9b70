"""A log that is followed while a reducer writes every kind of line, as recorded from 0.11.1."""

import base64
import json
import math

import h11
import trio
import trio.testing

from stdb.net.routes_publish import PYTHON_MAGIC
from tests.http_harness import Door, open_door
from tests.legacy_probe import probe
from tests.legacy_replay import steps_of
from tests.legacy_sessions import Names, numbered

PROGRAM = PYTHON_MAGIC + b"1"


async def followed(door: Door, owner: str, query: str) -> list[tuple[float, str]]:
    """Return what a follower hears within the recorded 2.7 seconds, of which one call is made after 0.7."""
    path, client, started = f"/database/logs/probe?{query}", door.connect(), trio.current_time()
    connection, is_heard = h11.Connection(h11.CLIENT), trio.Event()
    heard: list[tuple[float, str]] = []
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    clock.autojump_threshold = math.inf  # a thread reads the last lines
    connection.send(h11.Request(method="GET", target=path, headers=[("host", "a")]))
    connection.send(h11.EndOfMessage())

    async def listen() -> None:
        await client.send_all(f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {owner}\r\n\r\n".encode())
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await client.stream.receive_some())
            elif isinstance(event, h11.Response):
                assert event.status_code == 200
                assert dict(event.headers)[b"transfer-encoding"] == b"chunked"
            elif isinstance(event, h11.Data):
                at = round(trio.current_time() - started, 1)
                heard.extend((at, line) for line in bytes(event.data).decode().splitlines())
                is_heard.set()

    with trio.move_on_after(2.7):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await is_heard.wait()
            clock.autojump_threshold = 0
            await trio.sleep(0.7)
            clock.autojump_threshold = 0.2
            answer = await door.send("POST", "/database/call/probe/log_all", {"Authorization": owner}, b"[]")
            assert answer.status == 200, answer.text
    client.stream.close_nowait()
    return heard


def members(line: str) -> dict[str, object]:
    """Return a line without what is another one in this module: the number of its line, and functions in wasm."""
    record: dict[str, object] = json.loads(numbered(line))
    record.pop("line_number")
    record.pop("trace", None)
    return record


def test_a_follower_hears_the_last_line_and_every_new_one_when_it_is_written() -> None:
    _, steps = steps_of("extra_0.11.1")
    [recorded] = [step["chunks"] for step in steps if "num_lines=1&follow=true" in step.get("note", "")]
    expected = [(at, members(chunk)) for at, chunk in recorded if chunk != "timeout"]

    async def main() -> list[tuple[float, str]]:
        async with open_door({PROGRAM: probe()}) as door:
            owner = f"Basic {base64.b64encode(f'token:{door.tokens.mint().token}'.encode()).decode()}"
            headers = {"Authorization": owner}
            published = await door.send("POST", "/database/publish?name_or_address=probe", headers, PROGRAM)
            assert published.status == 200, published.text
            await door.send("POST", "/database/call/probe/nop", headers, b"[]")
            return await followed(door, owner, "num_lines=1&follow=true")

    told = [(at, members(line)) for at, line in trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))]
    assert [at for at, _ in told] == [at for at, _ in expected]
    assert Names().differences([line for _, line in expected], [line for _, line in told]) == []
