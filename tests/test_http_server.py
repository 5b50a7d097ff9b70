"""The front door beyond the recorded exchanges: connections, slow and broken clients, logs, metrics, grants, SQL."""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import h11
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.actors import pausing, statements
from stdb.actors.host import HostSettings
from stdb.actors.pausing import UnwantedError, while_wanted
from stdb.errors import ReducerTimeout
from stdb.net import routes_call
from stdb.net.http import HEAD_SECONDS_MAX, IDLE_SECONDS_MAX, PIECE_SECONDS_MAX
from stdb.net.routes_publish import PYTHON_MAGIC
from stdb.net.tokens import Tokens
from stdb.sats.types import STRING, U32
from stdb.schema.model import Lifecycle
from stdb.sql.work import Steps
from stdb.storage.settings import Own, Settings
from stdb.testing.modules import Context, FunctionModule, reducer, table
from tests.http_harness import KEY, VECTORS, Answer, Client, Door, bearer, loopback, open_door

PROGRAM = PYTHON_MAGIC + b"notes"


def add(ctx: Context, key: int, text: str) -> None:
    ctx.log.write("Info", f"adding {text}", target="notes", filename="notes.py", line=3, function="add")
    ctx.insert("note", key, text)


def notes() -> FunctionModule:
    return FunctionModule(
        [table("note", {"key": U32, "text": STRING}, primary_key="key")],
        {"add": reducer(add, {"key": U32, "text": STRING})},
    )


PROGRAMS = {PROGRAM: notes}
JSON = {"Content-Type": "application/json"}


def run(test: Callable[[Door], Awaitable[None]], **options: object) -> None:
    """Run a test with a front door of its own in real time."""

    async def main() -> None:
        with trio.fail_after(10):
            async with open_door(PROGRAMS, **options) as door:  # type: ignore[arg-type]
                await test(door)

    trio.run(main)


def run_in_virtual_time(test: Callable[[Door], Awaitable[None]]) -> None:
    """Run a test whose timeouts pass at once."""

    async def main() -> None:
        async with open_door() as door:
            await test(door)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


# ---------------------------------------------------------------------- connections
def test_a_connection_serves_one_request_after_another() -> None:
    async def test(door: Door) -> None:
        client = door.connect()
        for _ in range(3):
            assert (await client.request("GET", "/v1/ping", {})).status == 200
        assert (await client.request("POST", "/v1/identity", {}, b"x" * 300_000)).status == 200
        assert (await client.request("GET", "/v1/nope", {})).status == 404
        assert (await client.request("HEAD", "/v1/health", {})).body == b""
        assert (await client.request("GET", "/v1/health", {})).document["schedulable"] is True

    run(test)


def test_requests_sent_at_once_are_answered_in_order() -> None:
    async def test(door: Door) -> None:
        client = door.connect()
        await client.send_all(
            b"GET /v1/health HTTP/1.1\r\nHost: a\r\n\r\n" * 2 + b"GET /v1/nope HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        data = b""
        while data.count(b"HTTP/1.1 ") < 3 or not data.endswith(b"\r\n\r\n"):
            data += await client.stream.receive_some()
        assert re.findall(rb"HTTP/1.1 (\d+)", data) == [b"200", b"200", b"404"]

    run(test)


def test_the_client_is_told_to_continue_before_it_sends_a_body() -> None:
    async def test(door: Door) -> None:
        owner = await published(door)
        client = door.connect()
        head = f"POST /v1/database/notes/sql HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {owner}\r\n"
        await client.send_all(f"{head}Content-Length: 18\r\nExpect: 100-continue\r\n\r\n".encode())
        assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 100 ")
        await client.send_all(b"select * from note")
        assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 200 ")

    run(test)


def test_a_client_that_waits_to_send_a_body_nobody_wants_is_not_waited_for() -> None:
    async def test(door: Door) -> None:
        client = door.connect()
        await client.send_all(b"POST /v1/nope HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        with trio.fail_after(1):
            assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 404 ")
            assert await client.stream.receive_some() == b""

    run(test)


def test_a_close_asked_for_is_granted() -> None:
    async def test(door: Door) -> None:
        client = door.connect()
        answer = await client.request("GET", "/v1/ping", {"Connection": "close"})
        assert answer.headers["connection"] == "close"
        assert await client.stream.receive_some() == b""

    run(test)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET /v1/ping HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /v1/ping HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /v1/ping HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET /v1/ping HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: magic\r\n\r\n", 501),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /v1/ping HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 600_000, 431),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_is_refused_and_closed(data: bytes, status: int) -> None:
    async def test(door: Door) -> None:
        client = door.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client._send_quietly, data)
            answer = await client.receive()
            nursery.cancel_scope.cancel()
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        client.stream.close_nowait()

    run(test)


def test_a_chunked_body_that_breaks_is_refused() -> None:
    async def test(door: Door) -> None:
        await published(door)
        client = door.connect()
        head = b"POST /v1/database/notes/sql HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        await client.send_all(head + b"5\r\nselec\r\nnot a size\r\n")
        assert (await client.receive()).status == 400

    run(test)


@pytest.mark.parametrize(
    ("data", "seconds", "status"),
    [
        (b"", IDLE_SECONDS_MAX, None),
        (b"GET /v1/pi", HEAD_SECONDS_MAX, 408),
        (b"PUT /v1/database/x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", PIECE_SECONDS_MAX, 408),
    ],
)
def test_a_slow_client_is_not_waited_for_for_ever(data: bytes, seconds: float, status: int | None) -> None:
    async def test(door: Door) -> None:
        client = door.connect()
        await client.send_all(data)
        started = trio.current_time()
        received = await client.stream.receive_some()
        assert trio.current_time() - started == pytest.approx(seconds, abs=0.1)
        if status is None:
            assert received == b""
        else:
            assert received.startswith(f"HTTP/1.1 {status} ".encode())

    run_in_virtual_time(test)


def test_dripping_a_head_byte_by_byte_does_not_help() -> None:
    async def test(door: Door) -> None:
        client = door.connect()
        started = trio.current_time()

        async def drip() -> None:
            for byte in b"GET /v1/ping HTTP/1.1\r\nHost: " + b"a" * 100:
                await client.send_all(bytes([byte]))
                await trio.sleep(1)

        with pytest.raises(BrokenPipeError):
            await drip()
        assert trio.current_time() - started < HEAD_SECONDS_MAX + 5

    run_in_virtual_time(test)


def test_a_client_that_takes_no_answer_is_dropped() -> None:
    async def test(door: Door) -> None:
        client = door.connect()

        async def ask() -> None:  # never reading: the answers fill both buffers, then nothing moves
            while True:
                await client.send_all(b"GET /v1/health HTTP/1.1\r\nHost: a\r\n\r\n" * 100)

        with trio.fail_after(10 * PIECE_SECONDS_MAX), pytest.raises(BrokenPipeError):
            await ask()

    run_in_virtual_time(test)


PIECES = [
    b"GET ", b"POST ", b"/v1/ping", b"/v1/database/a/sql", b" HTTP/1.1\r\n", b"\r\n", b"Host: a\r\n", b":", b"\0",
    b"%ff", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"?token=x",
    b"Upgrade: websocket\r\n", b"Connection: upgrade\r\n", b"Authorization: Bearer a.b.c\r\n",
    b"GET /v1/ping HTTP/1.1\r\nHost: a\r\n\r\n",
]  # fmt: skip


@given(data=st.lists(st.one_of(st.binary(max_size=200), st.sampled_from(PIECES)), max_size=12))
@settings(max_examples=150, deadline=None)
def test_no_bytes_disturb_the_server_or_another_client(data: list[bytes]) -> None:
    async def test(door: Door) -> None:
        other, evil = door.connect(), door.connect()
        assert (await other.request("GET", "/v1/ping", {})).status == 200
        await evil._send_quietly(b"".join(data))
        await trio.testing.wait_all_tasks_blocked()
        evil.stream.close_nowait()
        await trio.testing.wait_all_tasks_blocked()
        assert (await other.request("GET", "/v1/ping", {})).status == 200

    run(test)


@given(path=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60), query=st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_every_path_has_an_answer_of_a_client_error_or_better(path: str, query: str) -> None:
    async def test(door: Door) -> None:
        for prefix in ("/", "/v1/database/", "/v1/identity/"):
            text = query.encode("utf-8", "surrogatepass").hex()
            answer = await door.send("GET", f"{prefix}{path}?version={text}")
            assert answer.status < 500, answer

    run(test)


@pytest.mark.parametrize("path", ["/v1/mcp", "/v1/database/notes/mcp", "/v1/database/nosuch/mcp"])
def test_mcp_is_found_and_refused(path: str) -> None:
    async def test(door: Door) -> None:
        client = door.connect()
        refused = await client.request("POST", path, JSON, b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}')
        assert refused.status == 501
        assert refused.body.startswith(b"MCP is not served here; use ")
        wrong = await client.request("GET", path, {})
        assert (wrong.status, wrong.headers["allow"], wrong.body) == (405, "POST", b"")

    run(test)


def test_a_mistake_of_ours_is_one_500_and_one_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def test(door: Door) -> None:
        door.door.host = None  # type: ignore[assignment]
        client = door.connect()
        answer = await client.request("GET", "/v1/metrics", {})
        assert answer.status == 500
        assert "Traceback" not in answer.text
        assert answer.headers["access-control-allow-origin"] == "*"
        assert (await client.request("GET", "/v1/ping", {})).status == 200
        assert len(caplog.records) == 1

    run(test)


def test_stopping_ends_idle_connections_and_waits_for_the_others() -> None:
    async def test(door: Door) -> None:
        owner = await published(door)
        idle, busy = door.connect(), door.connect()
        assert (await idle.request("GET", "/v1/ping", {})).status == 200
        head = f"POST /v1/database/notes/sql HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {owner}\r\n"
        await busy.send_all(f"{head}Content-Length: 18\r\n\r\n".encode())
        await trio.testing.wait_all_tasks_blocked()
        door.door.stop_accepting()
        assert await idle.stream.receive_some() == b""
        await busy.send_all(b"select * from note")
        assert (await busy.receive()).status == 200
        assert await busy.stream.receive_some() == b""

    run(test)


def test_stopping_ends_those_who_follow_a_log() -> None:
    async def test(door: Door) -> None:
        owner = await published(door)
        client = door.connect()
        path = "/v1/database/notes/logs?follow=true"
        await client.send_all(f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {owner}\r\n\r\n".encode())
        assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 200 ")
        door.door.stop_accepting()
        assert await client.stream.receive_some() == b""

    run(test)


# ---------------------------------------------------------------------- routes
async def published(door: Door) -> str:
    """Publish the module as `notes`; return its owner's token."""
    owner = door.tokens.mint()
    answer = await door.send("PUT", "/v1/database/notes", bearer(owner), PROGRAM)
    assert answer.status == 200, answer
    return owner.token


async def call(door: Door, token: str, *args: object) -> Answer:
    body = json.dumps(args).encode()
    return await door.send("POST", "/v1/database/notes/call/add", bearer(token) | JSON, body)


def test_sql_answers_rows_by_position_with_their_schema() -> None:
    async def test(door: Door) -> None:
        owner = await published(door)
        assert (await call(door, owner, 1, 'é"')).status == 200
        answer = await door.send("POST", "/v1/database/notes/sql", bearer(owner), "select * from note")
        [result] = answer.document
        assert answer.headers["content-type"] == "application/json"
        assert int(answer.headers["spacetime-execution-duration-micros"]) == result["total_duration_micros"]
        assert list(result) == ["schema", "rows", "total_duration_micros", "stats"]
        assert result["schema"]["elements"] == [
            {"name": {"some": "key"}, "algebraic_type": {"U32": []}},
            {"name": {"some": "text"}, "algebraic_type": {"String": []}},
        ]
        assert result["rows"] == [[1, 'é"']]
        assert result["stats"] == {"rows_inserted": 0, "rows_deleted": 0, "rows_updated": 0}
        count = await door.send("POST", "/v1/database/notes/sql", {}, "select count(*) as n from note")
        assert count.document[0]["rows"] == [[1]]
        assert (await door.send("POST", "/v1/database/notes/sql", {}, "select nonsense")).status == 400

    run(test)


def many_rows(count: int) -> str:
    values = ", ".join(f"({i}, 'row {i} é')" for i in range(count))
    return f"insert into note (key, text) values {values}"


def test_a_large_result_is_encoded_in_slices_and_others_are_answered_in_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routes_call, "SLICE_SECONDS", 0.0)
    pings: list[int] = []

    async def test(door: Door) -> None:
        owner = await published(door)
        sql = "/v1/database/notes/sql"
        assert (await door.send("POST", sql, bearer(owner), many_rows(1_000))).status == 200
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ping, door, pings)
            await trio.lowlevel.checkpoint()
            answer = await door.send("POST", sql, {}, "select * from note")
            during = len(pings)
            nursery.cancel_scope.cancel()
        assert answer.headers["transfer-encoding"] == "chunked"
        [result] = answer.document
        assert sorted(result["rows"]) == [[i, f"row {i} é"] for i in range(1_000)]
        assert list(result) == ["schema", "rows", "total_duration_micros", "stats"]
        assert during > 1

    run(test)


async def ping(door: Door, pings: list[int]) -> None:
    client = door.connect()
    while True:
        pings.append((await client.request("GET", "/v1/ping", {})).status)


def test_who_leaves_in_the_middle_of_a_large_result_ends_only_that_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(routes_call, "SLICE_SECONDS", 0.0)

    async def test(door: Door) -> None:
        owner = await published(door)
        sql = "/v1/database/notes/sql"
        assert (await door.send("POST", sql, bearer(owner), many_rows(1_200))).status == 200
        client = door.connect()
        head = f"POST {sql} HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\nselect * from note"
        await client.send_all(head.encode())
        assert await client.stream.receive_some()
        client.stream.close_nowait()
        assert len((await door.send("POST", sql, {}, "select * from note")).document[0]["rows"]) == 1_200

    run(test)
    assert caplog.text == ""


@pytest.mark.parametrize("who", ["the owner", "somebody"])
def test_a_long_read_is_given_up_when_the_client_leaves(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pausing, "SLICE_SECONDS", 0.0)
    given_up: list[BaseException] = []

    def watched(steps: Steps[Any], is_wanted: Callable[[], bool]) -> Steps[Any]:
        try:
            return (yield from while_wanted(steps, is_wanted))
        except BaseException as error:
            given_up.append(error)
            raise

    monkeypatch.setattr(statements, "while_wanted", watched)

    async def test(door: Door) -> None:
        owner = await published(door)
        sql = "/v1/database/notes/sql"
        assert (await door.send("POST", sql, bearer(owner), many_rows(900))).status == 200
        asked = b"select count(*) as n from note a join note b where a.key <> b.key"
        client = door.connect()
        head = f"POST {sql} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(asked)}\r\n"
        head += f"Authorization: Bearer {owner}\r\n" if who == "the owner" else ""
        await client.send_all(f"{head}\r\n".encode() + asked)
        await trio.sleep(0.02)
        client.stream.close_nowait()
        assert (await door.send("POST", sql, {}, "select count(*) as n from note")).document[0]["rows"] == [[900]]
        assert list(map(type, given_up)) == [UnwantedError]

    run(test)


def test_what_is_sent_before_the_answer_is_the_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pausing, "SLICE_SECONDS", 0.0)

    async def test(door: Door) -> None:
        owner = await published(door)
        sql = "/v1/database/notes/sql"
        assert (await door.send("POST", sql, bearer(owner), many_rows(300))).status == 200
        asked = b"select count(*) as n from note a join note b where a.key <> b.key"
        head = f"POST {sql} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(asked)}\r\n\r\n".encode()
        client = door.connect()
        await client.send_all(head + asked)
        await trio.sleep(0.002)
        await client.send_all(head)
        await trio.sleep(0.002)
        await client.send_all(asked)
        received = b""
        with trio.fail_after(30):
            while received.count(b"[[89700]]") < 2:
                received += await client.stream.receive_some()

    run(test)


def test_a_change_goes_on_when_the_client_leaves() -> None:
    async def test(door: Door) -> None:
        owner = await published(door)
        sql = "/v1/database/notes/sql"
        assert (await door.send("POST", sql, bearer(owner), many_rows(1_200))).status == 200
        asked = b"update note set text = 'x'"
        client = door.connect()
        head = (
            f"POST {sql} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(asked)}\r\nAuthorization: Bearer {owner}\r\n\r\n"
        )
        await client.send_all(head.encode() + asked)
        await trio.sleep(0.002)
        client.stream.close_nowait()
        count = "select count(*) as n from note where text = 'x'"
        assert (await door.send("POST", sql, {}, count)).document[0]["rows"] == [[1_200]]

    run(test)


def test_changes_by_sql_say_what_they_changed_and_are_the_owners() -> None:
    async def test(door: Door) -> None:
        owner = await published(door)
        sql = "/v1/database/notes/sql"
        answer = await door.send("POST", sql, bearer(owner), "insert into note (key, text) values (1, 'a'), (2, 'b')")
        [result] = answer.document
        assert (result["schema"], result["rows"]) == ({"elements": []}, [])
        assert result["stats"] == {"rows_inserted": 2, "rows_deleted": 0, "rows_updated": 0}
        refused = await door.send("POST", sql, {}, "delete from note")
        assert refused.status == 400
        assert refused.text.endswith(" is not authorized to run SQL DML statements")
        twice = await door.send("POST", sql + "?confirmed=false", bearer(owner), many_rows(2))
        assert twice.status == 400
        assert twice.text.startswith("IndexError: Unique constraint violation")
        answer = await door.send("POST", sql, {}, "select key from note")
        assert sorted(answer.document[0]["rows"]) == [[1], [2]]

    run(test)


def test_strict_servers_let_only_owners_run_sql() -> None:
    async def test(door: Door) -> None:
        owner = await published(door)
        refused = await door.send("POST", "/v1/database/notes/sql", {}, "select * from note")
        assert refused.status == 403
        assert "only its owner may" in refused.text
        assert (await door.send("POST", "/v1/database/notes/sql", bearer(owner), "select * from note")).status == 200

    run(test, host_settings=HostSettings(sql="owner"))


def late(ctx: Context) -> None:
    raise ReducerTimeout("the time limit of this call has passed")


def test_a_reducer_that_runs_out_of_time_is_402_and_a_client_connected_that_does_is_503() -> None:
    program = PYTHON_MAGIC + b"late"
    for lifecycle, status, text in (
        (None, 402, "Module energy budget exhausted."),
        (Lifecycle.ON_CONNECT, 503, "Insufficient energy balance to run `client_connected` reducer"),
    ):

        def make(lifecycle: Lifecycle | None = lifecycle) -> FunctionModule:
            entries = {"late": reducer(late), "on_connect": reducer(late, lifecycle=lifecycle)}
            return FunctionModule([], entries if lifecycle else {"late": reducer(late)})

        async def main(make: Callable[[], FunctionModule] = make) -> Answer:
            async with open_door({program: make}) as door:
                owner = door.tokens.mint()
                assert (await door.publish(owner, "late", program)).status == 200
                return await door.send("POST", "/v1/database/late/call/late", bearer(owner) | JSON, "[]")

        answer = trio.run(main)
        assert (answer.status, answer.text) == (status, text)
        if lifecycle is None:
            assert answer.headers["spacetime-energy-used"].isdecimal()
            assert answer.headers["spacetime-execution-duration-micros"].isdecimal()


def test_unconfirmed_calls_are_answered_too() -> None:
    async def test(door: Door) -> None:
        owner = await published(door)
        path = "/v1/database/notes/call/add?confirmed="
        assert (await door.send("POST", path + "false", bearer(owner) | JSON, b'[1,"a"]')).status == 200
        assert (await door.send("POST", path + "no", bearer(owner) | JSON, b'[2,"a"]')).status == 400

    run(test)


def test_the_last_lines_of_the_log_are_answered_and_new_ones_followed() -> None:
    async def test(door: Door) -> None:
        owner = await published(door)
        for number in range(3):
            await call(door, owner, number, str(number))
        answer = await door.send("GET", "/v1/database/notes/logs?num_lines=2", bearer(owner))
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert answer.headers["transfer-encoding"] == "chunked"
        assert [json.loads(line)["message"] for line in answer.body.splitlines()] == ["adding 1", "adding 2"]
        follower = door.connect()
        received: list[str] = []

        async def follow(path: str) -> None:
            await follower.send_all(f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {owner}\r\n\r\n".encode())
            connection = h11.Connection(h11.CLIENT)
            connection.send(h11.Request(method="GET", target=path, headers=[("host", "a")]))
            connection.send(h11.EndOfMessage())
            while len(received) < 3:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await follower.stream.receive_some())
                elif isinstance(event, h11.Data):
                    received.extend(json.loads(line)["message"] for line in bytes(event.data).splitlines())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, "/v1/database/notes/logs?follow=true&num_lines=1")
            await trio.testing.wait_all_tasks_blocked(0.01)
            await call(door, owner, 7, "7")
            await call(door, owner, 8, "8")
        assert received == ["adding 2", "adding 7", "adding 8"]
        log = door.door.host.databases()[0].log
        assert len(log._followers) == 1
        follower.stream.close_nowait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert log._followers == set()

    run(test)


def test_metrics_have_names_that_the_ecosystem_knows() -> None:
    async def test(door: Door) -> None:
        await published(door)
        await door.send("GET", "/v1/database/notes/names")
        answer = await door.send("GET", "/v1/metrics")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        identity = (await door.send("GET", "/v1/database/notes/identity")).text
        assert f'spacetime_worker_connected_clients{{database_identity="{identity}"}} 0\n' in answer.text
        assert f'spacetime_module_instances{{database_identity="{identity}"}} 1\n' in answer.text
        assert f'spacetime_http_response_size_bytes_total{{db="{identity}"}} ' in answer.text
        known = json.loads((VECTORS / "recorded_http/metrics_names.json").read_text())["metrics"]
        types = dict(line.split()[2:] for line in answer.text.splitlines() if line.startswith("# TYPE"))
        assert types == {name: known[name]["type"] for name in types}

    run(test)


def test_only_the_operator_grants_and_only_the_granted_publish_python() -> None:
    tokens = Tokens(KEY)
    operator, friend = tokens.mint(), tokens.mint()

    async def test(door: Door) -> None:
        refused = await door.send("PUT", "/v1/database/notes", bearer(friend), PROGRAM)
        assert refused.status == 403
        assert f"python -m stdb grant {friend.hex} publish-python" in refused.text
        assert (await door.send("GET", "/v1/database/notes")).status == 404
        path = f"/stdb/v1/grants/{friend.hex}"
        assert (await door.send("PUT", path)).status == 401
        assert (await door.send("PUT", path, bearer(friend))).status == 403
        assert (await door.send("GET", "/stdb/v1/grants", bearer(friend))).status == 403
        assert (await door.send("PUT", path + "?permission=nonsense", bearer(operator))).status == 400
        given = await door.send("PUT", path + "?permission=publish-python", bearer(operator))
        assert given.document == {"identity": friend.hex, "permissions": ["publish-python"]}
        assert (await door.send("GET", path, bearer(friend))).document == given.document
        listed = await door.send("GET", "/stdb/v1/grants", bearer(operator))
        assert listed.document == {"grants": [{"identity": friend.hex, "permission": "publish-python"}]}
        assert (await door.send("PUT", "/v1/database/notes", bearer(friend), PROGRAM)).status == 200
        assert (await door.send("DELETE", path, bearer(operator))).document["permissions"] == []
        assert (await door.send("PUT", "/v1/database/notes", bearer(friend), PROGRAM)).status == 403

    run(test, operator=operator.identity, host_settings=HostSettings(operator=operator.identity), tokens=tokens)


def test_programs_have_a_limit_of_their_own() -> None:
    async def test(door: Door) -> None:
        owner = door.tokens.mint()
        for method, path in (("PUT", "/v1/database/big"), ("POST", "/v1/database")):
            answer = await door.send(method, path, bearer(owner), PYTHON_MAGIC + b"x" * 3_000_000)
            assert answer.status == 413
            assert answer.text == "Failed to buffer the request body: length limit exceeded"
        assert (await door.send("GET", "/v1/database/big")).status == 404

    run(test, settings=Settings(stdb=Own(publish_bytes_max=2_500_000)))


def test_a_reset_without_a_body_starts_the_initial_program_again() -> None:
    async def test(door: Door) -> None:
        owner = await published(door)
        await call(door, owner, 1, "a")
        before = (await door.send("GET", "/v1/database/notes")).document
        answer = await door.send("PUT", "/v1/database/notes/reset", bearer(owner))
        assert answer.document["Success"]["op"] == "updated"
        assert (await door.send("GET", "/v1/database/notes")).document == before
        rows = await door.send("POST", "/v1/database/notes/sql", {}, "select * from note")
        assert rows.document[0]["rows"] == []

    run(test)


def test_owners_and_the_operator_restart_databases() -> None:
    tokens = Tokens(KEY)
    operator = tokens.mint()

    async def test(door: Door) -> None:
        owner = tokens.mint()
        door.door.host.control.grant(owner.identity, "publish-python")
        assert (await door.send("PUT", "/v1/database/notes", bearer(owner), PROGRAM)).status == 200
        path = "/stdb/v1/database/notes/restart"
        assert (await door.send("POST", path)).status == 403
        assert (await door.send("POST", path, bearer(owner))).status == 200
        assert (await door.send("POST", path, bearer(operator))).status == 200
        assert (await door.send("POST", path.replace("notes", "nosuch"), bearer(operator))).status == 404

    run(test, host_settings=HostSettings(operator=operator.identity), tokens=tokens)


def test_a_websocket_gets_its_first_message_behind_the_101() -> None:
    async def test(door: Door) -> None:
        token = await published(door)
        client = door.connect()
        head = {
            "Connection": "keep-alive, Upgrade", "Upgrade": "WebSocket", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "v1.json.spacetimedb",
        }  # fmt: skip
        path = "/v1/database/notes/subscribe?compression=None&connection_id=000102030405060708090a0b0c0d0e0f"
        answer = await client.request("GET", path, head | bearer(token))
        assert answer.status == 101
        assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        frame, _ = client._h11.trailing_data
        while token.encode() not in frame:
            frame += await client.stream.receive_some()
        message = json.loads(frame[frame.index(b"{") : frame.rindex(b"}") + 1])
        assert message["IdentityToken"]["token"] == token
        assert door.door.host.databases()[0].client_count == 1
        client.stream.close_nowait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert door.door.host.databases()[0].client_count == 0
        numbers = (await door.send("GET", "/v1/metrics")).text
        for name in ("spacetime_worker_ws_clients_spawned", "spacetime_worker_ws_clients_closed_connection"):
            assert re.search(rf'^{name}{{database_identity="c200[0-9a-f]{{60}}"}} 1$', numbers, re.M)

    run(test)


def test_a_url_of_a_proxy_and_odd_targets_are_understood() -> None:
    async def test(door: Door) -> None:
        assert (await door.send("GET", "http://somewhere:80/v1/ping?a=b")).status == 200
        assert (await door.send("GET", "http://somewhere")).status == 404
        assert (await door.send("OPTIONS", "*")).status == 404
        assert (await door.send("GET", "//v1/ping")).status == 404

    run(test)


def test_the_client_leaving_in_the_middle_of_a_body_ends_only_that_connection() -> None:
    async def test(door: Door) -> None:
        client: Client = door.connect()
        await client.send_all(b"PUT /v1/database/x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        await trio.testing.wait_all_tasks_blocked()
        client.stream.close_nowait()
        assert (await door.send("GET", "/v1/ping")).status == 200

    run(test)


def test_a_real_port_serves_until_it_is_told_to_stop() -> None:
    async def test(door: Door) -> None:
        listener, port = loopback()
        request = b"GET /v1/ping HTTP/1.1\r\nHost: a\r\n\r\n"
        async with trio.open_nursery() as nursery:
            await nursery.start(door.door.serve, [listener])
            clients = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(20)]
            await clients[0].send_all(b"\0" * 100 + b"\r\n\r\n")
            assert (await clients[0].receive_some()).startswith(b"HTTP/1.1 400 ")
            await clients[1].aclose()
            for client in clients[2:]:
                await client.send_all(request)
                assert (await client.receive_some()).startswith(b"HTTP/1.1 200 ")
            door.door.stop_accepting()
            for client in clients[2:]:
                assert await client.receive_some() == b""
                await client.aclose()
            await clients[0].aclose()
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", port)

    run(test)
