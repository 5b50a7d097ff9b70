"""Routes of modules behind the front door: what handlers are given, what leaves of what they answer, who ends them."""

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

from stdb.actors import procedures
from stdb.actors.deadline import open_deadline
from stdb.modules.protocol import HttpRequest, HttpResponse, Module, RouteCall
from stdb.modules.python.archive import pack
from stdb.net.http import HttpConnection
from stdb.net.routes_user import HEADER_BYTES_MAX, HEADERS_MAX, _response
from stdb.net.stream import memory_stream_pair
from stdb.server import load_program
from stdb.storage.settings import Own, Settings
from stdb.testing.modules import FunctionModule
from stdb.testing.storage import MemoryStorage
from tests.http_harness import Door, bearer, loopback, open_door, open_socket

SOURCE = """
import json
from stdb import *

@table(public=True)
class Hit:
    id: u64 = primary_key(auto_inc=True)
    who: str

def add(tx: ReducerContext, who: str) -> int:
    tx.db[Hit].insert(Hit(who=who))
    return len(tx.db[Hit])

def shown(request: Request) -> dict:
    return {
        "method": request.method, "url": request.url, "path": request.path, "query": request.query.pairs(),
        "headers": request.headers.pairs(), "text": request.text,
    }

@http_route("GET", "")
@http_route("GET", "/")
@http_route(None, "/see/it")
def see(ctx: HttpContext, request: Request) -> Response:
    return Response.json(shown(request))

@http_route("GET", "/hello")
@http_route("POST", "/hello")
def hello(ctx: HttpContext, request: Request) -> Response:
    who = request.query.get("who", "nobody")
    ctx.db[Hit].insert(Hit(who=who))
    if who == "unwanted":
        raise SenderError("go away, " + who)
    if who == "breaker":
        raise ValueError("a secret of the module's")
    return Response(f"hello {who}, you are {len(ctx.db[Hit])}", status=201, headers={"X-Made": "yes"})

@http_route("POST", "/slow")
async def slow(ctx: HttpContext, request: Request) -> Response:
    first = await ctx.transact(add, "before")
    await ctx.sleep(float(request.query.get("seconds", "0.01")))
    second = await ctx.transact(lambda tx: (add(tx, "after"), tx.sender.hex(), tx.address, tx.sender_auth))
    return Response.json([first, *second])

@http_route("POST", "/ended")
async def ended(ctx: HttpContext, request: Request) -> Response:
    try:
        await ctx.sleep(3600)
    finally:
        print("the handler was ended")
    return Response()

@http_route("GET", "/hang")
def hang(ctx: HttpContext, request: Request) -> Response:
    ctx.db[Hit].insert(Hit(who="hanging"))
    while True:
        pass

@http_route("GET", "/ahang")
async def ahang(ctx: HttpContext, request: Request) -> Response:
    while True:
        pass

@http_route(None, "/answer")
def answer(ctx: HttpContext, request: Request) -> Response:
    wanted = request.json()
    return Response(wanted.get("body", ""), status=wanted.get("status", 200), headers=wanted.get("headers", {}))

@http_route("POST", "/forge")
def forge(ctx: HttpContext, request: Request) -> Response:
    response = Response("x")
    for name, value in eval(request.text).items():
        setattr(response, name, value)
    return response
"""
CORS = {
    "vary": "origin, access-control-request-method, access-control-request-headers",
    "access-control-allow-origin": "*",
}
PROGRAM = pack({"shop.py": SOURCE.encode()})
SETTINGS = Settings(stdb=Own(route_bytes_max=1000))
URL = "/v1/database/shop/route"


def load() -> Module:
    return load_program(PROGRAM)


def run(test: Callable[[Door], Awaitable[None]], make: Callable[[], Module] = load, **options: Any) -> None:
    """Run a test with the module published as `shop`, in real time."""

    async def main() -> None:
        with trio.fail_after(15):
            async with open_door({PROGRAM: make}, **({"settings": SETTINGS} | options)) as door:
                owner = door.tokens.mint()
                assert (await door.publish(owner, "shop", PROGRAM)).status == 200
                await test(door)

    trio.run(main)


async def hits(door: Door) -> list[Any]:
    """Return who is in the table."""
    answer = await door.send("POST", "/v1/database/shop/sql", {}, "SELECT who FROM hit")
    return sorted(row[0] for row in answer.document[0]["rows"])


# ---------------------------------------------------------------------- the request
def test_a_handler_is_given_what_the_client_sent() -> None:
    async def test(door: Door) -> None:
        headers = {"Authorization": "Bearer garbage", "X-A": "1", "x-a": "2", "Accept": "*/*"}
        answer = await door.send("PATCH", f"{URL}/see/it?a=1&b=%20x&a=2", headers, "body text")
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.document == {
            "method": "PATCH",
            "url": f"http://test{URL}/see/it?a=1&b=%20x&a=2",
            "path": "/see/it",
            "query": [["a", "1"], ["b", " x"], ["a", "2"]],
            "headers": [
                ["host", "test"],
                ["authorization", "Bearer garbage"],
                ["x-a", "1"],
                ["x-a", "2"],
                ["accept", "*/*"],
                ["content-length", "9"],
            ],
            "text": "body text",
        }

    run(test)


def test_the_answer_has_the_headers_of_the_handler_and_those_of_cors_alone() -> None:
    async def test(door: Door) -> None:
        answer = await door.send("GET", f"{URL}/hello?who=ann", {"Origin": "http://other.example"})
        assert (answer.status, answer.text) == (201, "hello ann, you are 1")
        del answer.headers["date"]
        assert answer.headers == CORS | {
            "x-made": "yes",
            "content-type": "text/plain; charset=utf-8",
            "content-length": "20",
        }

    run(test)


@pytest.mark.parametrize(
    ("path", "status", "seen"),
    [
        ("", 200, ""),
        ("/", 200, "/"),
        ("/see/it", 200, "/see/it"),
        ("/see%2Fit", 200, "/see/it"),
        ("/s%65e/it", 200, "/see/it"),
        ("/see/it/", 404, None),
        ("/see//it", 404, None),
        ("//", 404, None),
        ("/see", 404, None),
        ("/SEE/IT", 404, None),
        ("/see/../see/it", 404, None),
        ("/%ff", 400, None),
    ],
)
def test_the_path_behind_route_is_decoded_and_matched_whole(path: str, status: int, seen: str | None) -> None:
    async def test(door: Door) -> None:
        answer = await door.send("GET", URL + path)
        assert answer.status == status
        if status == 404:
            assert answer.text == "Database has not registered a handler for this route"
        elif status == 400:
            assert answer.text == "Invalid URL: Invalid UTF-8 in `path`"
        else:
            assert (answer.document["path"], answer.document["url"]) == (seen, "http://test" + URL + path)
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "spacetime-identity" not in answer.headers

    run(test)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/hello", 404),
        ("HEAD", "/hello", 404),
        ("get", "/hello", 404),
        ("Get", "/hello", 404),
        ("OPTIONS", "/see/it", 200),
        ("OPTIONS", "/nosuch", 200),
        ("TRACE", "/see/it", 200),
        ("PURGE", "/see/it", 200),
    ],
)
def test_a_handler_of_one_method_has_no_other_and_options_never_arrives(method: str, path: str, status: int) -> None:
    async def test(door: Door) -> None:
        answer = await door.send(method, URL + path)
        assert answer.status == status
        if method == "OPTIONS":
            assert answer.body == b""
            assert answer.headers["access-control-allow-headers"] == "authorization,accept,content-type"
            assert "allow" not in answer.headers
        elif status == 200:
            assert answer.document["method"] == method

    run(test)


@pytest.mark.parametrize(
    ("head", "url"),
    [
        ("GET /A HTTP/1.1\r\nHost: a.example:8080\r\n", "http://a.example:8080/A"),
        ("GET /A HTTP/1.1\r\nHost: [::1]:80\r\n", "http://[::1]:80/A"),
        ("GET /A HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https , http\r\n", "https://a/A"),
        ("GET /A HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: b.example, c\r\n", "http://b.example/A"),
        ("GET /A HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host:\r\n", "http://a/A"),
        ("GET http://proxied.example/A HTTP/1.1\r\nHost: a\r\n", "http://proxied.example/A"),
        ("GET /A HTTP/1.0\r\n", "http://localhost/A"),
        ("GET /A HTTP/1.1\r\nHost: a b\r\n", None),
        ("GET /A HTTP/1.1\r\nHost: a/../b\r\n", None),
        ("GET /A HTTP/1.1\r\nHost: [\r\n", None),
        ("GET /A HTTP/1.1\r\nHost: [::::]\r\n", None),
        ("GET /A HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: java script\r\n", None),
    ],
)
def test_the_url_is_the_one_that_the_client_asked_for(head: str, url: str | None) -> None:
    async def test(door: Door) -> None:
        client = door.connect()
        client._h11.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        client._h11.send(h11.EndOfMessage())
        await client.send_all((head.replace("/A", f"{URL}/see/it?q=%20") + "\r\n").encode())
        answer = await client.receive()
        if url is None:
            assert answer.status == 400
            assert answer.text.startswith("Invalid URL: ")
        else:
            assert answer.document["url"] == url.replace("/A", f"{URL}/see/it?q=%20")

    run(test)


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_has_a_limit_which_is_the_servers(is_chunked: bool) -> None:
    async def test(door: Door) -> None:
        async def send(path: str, size: int) -> Any:
            if not is_chunked:
                return await door.send("POST", URL + path, {}, b"x" * size)
            chunks = [b"x" * min(100, size - at) for at in range(0, size, 100)]
            body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
            return await door.send("POST", URL + path, {"Transfer-Encoding": "chunked"}, body)

        assert (await send("/see/it", 1000)).document["text"] == "x" * 1000
        answer = await send("/see/it", 1001)
        assert (answer.status, answer.text) == (413, "Failed to buffer the request body: length limit exceeded")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert (await send("/nosuch", 100_000)).status == 404

    run(test)


def test_a_body_of_more_than_other_routes_take_is_taken() -> None:
    async def test(door: Door) -> None:
        answer = await door.send("POST", f"{URL}/see/it", {}, b"x" * (3 * 1024 * 1024))
        assert len(answer.document["text"]) == 3 * 1024 * 1024

    run(test, settings=Settings())


def test_bodies_of_all_requests_together_have_a_limit_too() -> None:
    async def test(door: Door) -> None:
        waiting = [door.connect() for _ in range(8)]
        for client in waiting:
            head = f"POST {URL}/ended HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
            await client.send_all(head.encode() + b"x" * 990)
        await trio.testing.wait_all_tasks_blocked()
        assert (await door.send("POST", f"{URL}/see/it", {}, b"x" * 80)).status == 200
        answer = await door.send("POST", f"{URL}/see/it", {}, b"x" * 81)
        text = "the bodies of other requests take all the memory there is for them; try again later"
        assert (answer.status, answer.text) == (503, text)
        waiting[0].stream.close_nowait()
        await waiting[1].send_all(b"x" * 10)
        await trio.testing.wait_all_tasks_blocked()
        assert (await door.send("POST", f"{URL}/see/it", {}, b"x" * 1000)).status == 200
        for client in waiting:
            client.stream.close_nowait()
        await trio.testing.wait_all_tasks_blocked()
        assert door.door.body_bytes_left == 8000

    run(test)


def test_names_are_looked_up_as_on_every_route() -> None:
    async def test(door: Door) -> None:
        identity = (await door.send("GET", "/v1/database/shop/identity")).text
        assert (await door.send("GET", f"/v1/database/{identity}/route/see/it")).status == 200
        answer = await door.send("GET", "/v1/database/nosuch/route/see/it")
        assert (answer.status, answer.text) == (404, "`nosuch` not found")
        answer = await door.send("GET", f"/v1/database/c200{'1' * 60}/route")
        assert (answer.status, answer.text) == (404, "No such database.")
        assert (await door.send("GET", "/v1/database/BAD/route/see/it")).status == 400
        unknown = await door.send("GET", "/v1/database//route/see/it")
        assert (unknown.status, unknown.headers.get("vary")) == (404, None)

    run(test)


# ---------------------------------------------------------------------- what handlers do
def test_a_plain_handler_is_one_transaction_that_subscribers_see() -> None:
    async def test(door: Door) -> None:
        async with open_socket(door, "shop", door.tokens.mint()) as subscriber:
            await subscriber.send("Subscribe", query_strings=["SELECT * FROM hit"], request_id=1)
            await subscriber.receive("InitialSubscription")
            assert (await door.send("POST", f"{URL}/hello?who=bob")).status == 201
            _, update = await subscriber.receive("TransactionUpdate", "TransactionUpdateLight")
            assert "bob" in json.dumps(update)
        assert await hits(door) == ["bob"]

    run(test)


def test_a_handler_that_refuses_is_530_with_its_text_and_leaves_no_trace() -> None:
    async def test(door: Door) -> None:
        answer = await door.send("POST", f"{URL}/hello?who=unwanted")
        assert (answer.status, answer.reason, answer.text) == (530, "<none>", "go away, unwanted")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert await hits(door) == []
        assert [(line["level"], line["message"]) for line in door.log("shop")][-1] == ("Error", "go away, unwanted")

    run(test)


def test_a_handler_that_breaks_is_500_without_a_back_trace_which_is_in_the_log() -> None:
    async def test(door: Door) -> None:
        answer = await door.send("POST", f"{URL}/hello?who=breaker")
        assert (answer.status, answer.text) == (500, "The instance encountered a fatal error.")
        assert await hits(door) == []
        line = door.log("shop")[-1]
        assert (line["level"], line["function"], line["filename"]) == ("Panic", "hello", "shop.py")
        assert "ValueError: a secret of the module's" in line["message"]
        assert (await door.send("POST", f"{URL}/hello?who=ann")).status == 201

    run(test)


def test_an_async_handler_waits_and_makes_transactions_of_nobody() -> None:
    async def test(door: Door) -> None:
        answer = await door.send("POST", f"{URL}/slow", bearer(door.tokens.mint()))
        assert answer.document == [1, 2, "0" * 64, None, {}]
        assert await hits(door) == ["after", "before"]

    run(test)


def test_requests_on_one_connection_are_answered_in_order() -> None:
    async def test(door: Door) -> None:
        client = door.connect()
        for who in ("a", "b"):
            answer = await client.request("POST", f"{URL}/hello?who={who}", {})
            assert answer.text.startswith(f"hello {who}")
        answer = await client.request("POST", f"{URL}/slow", {})
        assert answer.document[0] == 3

    run(test)


def test_a_handler_is_stopped_by_the_time_limit_and_others_go_on() -> None:
    async def test(door: Door) -> None:
        for path in ("/hang", "/ahang"):
            answer = await door.send("GET", URL + path)
            assert (answer.status, answer.text) == (500, "The handler of this route took too long and was stopped.")
            assert door.log("shop")[-1]["level"] == "Error"
            assert re.search("time limit|ran longer than", door.log("shop")[-1]["message"])
        assert await hits(door) == []
        assert (await door.send("POST", f"{URL}/hello?who=ann")).status == 201

    with open_deadline(0.1) as deadline:
        run(test, deadline=deadline)


def test_an_answer_waits_until_what_it_shows_is_durable() -> None:
    storage = MemoryStorage(delayed=True)

    async def main() -> None:
        async with open_door({PROGRAM: load}, storage=storage) as door:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(door.publish, door.tokens.mint(), "shop", PROGRAM)
                while storage.control.resolve("shop") is None:
                    await trio.testing.wait_all_tasks_blocked()
                    storage.sync()
            answers = []

            async def ask(path: str) -> None:
                answers.append(await door.send("POST", URL + path))

            for path in ("/hello?who=ann", "/slow?seconds=0"):
                answers.clear()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ask, path)
                    await trio.testing.wait_all_tasks_blocked()
                    assert answers == []
                    storage.sync()
                assert answers[0].status in (200, 201)

    trio.run(main)


# ---------------------------------------------------------------------- who ends them
def test_a_handler_ends_when_its_client_leaves() -> None:
    async def test(door: Door) -> None:
        client = door.connect()
        await client.send_all(f"POST {URL}/ended HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode())
        await trio.testing.wait_all_tasks_blocked()
        client.stream.close_nowait()
        await trio.testing.wait_all_tasks_blocked()
        assert [line["message"] for line in door.log("shop")][-1] == "the handler was ended"
        assert (await door.send("POST", f"{URL}/hello?who=ann")).status == 201

    run(test)


@pytest.mark.parametrize(
    ("how", "reason", "afterwards"),
    [("delete", "module exited", 404), ("reset", "module exited", 201), ("disk", "database stopped", 503)],
)
def test_handlers_end_with_their_database_and_their_clients_are_told(how: str, reason: str, afterwards: int) -> None:
    storage = MemoryStorage()

    async def main() -> None:
        with trio.fail_after(10):
            await check()

    async def check() -> None:
        async with open_door({PROGRAM: load}, storage=storage) as door:
            owner = door.tokens.mint()
            await door.publish(owner, "shop", PROGRAM)
            answers = []

            async def ask() -> None:
                answers.append(await door.send("POST", f"{URL}/ended"))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked()
                if how == "delete":
                    assert (await door.send("DELETE", "/v1/database/shop", bearer(owner))).status == 200
                elif how == "reset":
                    assert (await door.send("PUT", "/v1/database/shop/reset", bearer(owner))).status == 200
                else:
                    next(iter(storage.logs.values())).is_broken = True
                    assert (await door.send("POST", f"{URL}/hello?who=ann")).status == 503
            assert (answers[0].status, answers[0].text) == (503, f"the database is not running: {reason}")
            assert (await door.send("POST", f"{URL}/hello?who=ann")).status == afterwards

    trio.run(main)


def test_a_database_that_goes_while_the_body_comes_is_not_found() -> None:
    async def test(door: Door) -> None:
        owner = door.tokens.mint()
        assert (await door.publish(owner, "other", PROGRAM)).status == 200
        client = door.connect()
        client._h11.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
        client._h11.send(h11.EndOfMessage())
        target = URL.replace("shop", "other") + "/hello"
        await client.send_all(f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx".encode())
        await trio.testing.wait_all_tasks_blocked()
        assert (await door.send("DELETE", "/v1/database/other", bearer(owner))).status == 200
        await client.send_all(b"y")
        assert (await client.receive()).status == 404

    run(test)


def test_an_update_leaves_running_handlers_their_version_and_gives_new_requests_the_new_one() -> None:
    changed = pack({"shop.py": SOURCE.replace('"/slow")', '"/slower")').encode()})

    async def main() -> None:
        async with open_door({PROGRAM: load, changed: lambda: load_program(changed)}) as door:
            owner = door.tokens.mint()
            await door.publish(owner, "shop", PROGRAM)
            answers = []

            async def ask() -> None:
                answers.append(await door.send("POST", f"{URL}/slow?seconds=60"))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert (await door.publish(owner, "shop", changed)).status == 200
                assert (await door.send("POST", f"{URL}/slow")).status == 404
                assert (await door.send("POST", f"{URL}/slower")).status == 200
            assert answers[0].document[:2] == [1, 4]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.05))


def test_more_handlers_than_may_run_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procedures.Procedures.__init__, "__defaults__", (2,))

    async def test(door: Door) -> None:
        waiting = [door.connect() for _ in range(2)]
        for client in waiting:
            await client.send_all(f"POST {URL}/ended HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode())
        await trio.testing.wait_all_tasks_blocked()
        answer = await door.send("POST", f"{URL}/hello?who=ann")
        text = "more than 2 procedures of this database are running; try again later"
        assert (answer.status, answer.text) == (503, text)
        waiting[0].stream.close_nowait()
        await trio.testing.wait_all_tasks_blocked()
        assert (await door.send("POST", f"{URL}/hello?who=ann")).status == 201

    run(test)


# ---------------------------------------------------------------------- the answer
@pytest.mark.parametrize(
    ("wanted", "status", "headers", "body"),
    [
        ({"status": 204, "body": "dropped"}, 204, {}, b""),
        ({"status": 304, "body": "dropped", "headers": {"ETag": "1"}}, 304, {"etag": "1"}, b""),
        ({"status": 404, "body": "mine"}, 404, {"content-length": "4"}, b"mine"),
        ({"status": 599}, 599, {"content-length": "0"}, b""),
        ({"headers": {"Content-Length": "3"}, "body": "abc"}, 200, {"content-length": "3"}, b"abc"),
        ({"headers": {"Date": "today"}}, 200, {"date": "today"}, b""),
        ({"headers": {"Vary": "cookie"}}, 200, {"vary": "cookie, " + CORS["vary"]}, b""),
        ({"headers": {"Access-Control-Allow-Origin": "http://a"}}, 200, CORS, b""),
        ({"headers": [["Set-Cookie", "a=1"], ["Set-Cookie", "b=2"]]}, 200, {"set-cookie": "a=1, b=2"}, b""),
        ({"headers": {"X-A": "  padded\t"}}, 200, {"x-a": "padded"}, b""),
        ({"headers": {"X-A": ""}}, 200, {"x-a": ""}, b""),
        ({"headers": {"X-A": "é"}}, 200, {"x-a": "Ã©"}, b""),
    ],
)
def test_what_a_handler_answers_is_sent_as_it_is(
    wanted: dict[str, Any], status: int, headers: dict[str, str], body: bytes
) -> None:
    async def test(door: Door) -> None:
        client = door.connect()
        answer = await client.request("POST", f"{URL}/answer", {}, json.dumps(wanted).encode())
        assert (answer.status, answer.body) == (status, body)
        assert headers.items() <= answer.headers.items()
        assert (await client.request("GET", f"{URL}/", {})).status == 200

    run(test)


def test_head_has_the_headers_and_no_body() -> None:
    async def test(door: Door) -> None:
        client = door.connect()
        wanted = json.dumps({"body": "never sent"}).encode()
        answer = await client.request("HEAD", f"{URL}/answer", {"Content-Length": str(len(wanted))}, wanted)
        assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "10")
        wanted = json.dumps({"headers": {"Content-Length": "5000000000"}}).encode()
        answer = await client.request("HEAD", f"{URL}/answer", {"Content-Length": str(len(wanted))}, wanted)
        assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "5000000000")
        assert (await client.request("GET", f"{URL}/", {})).status == 200

    run(test)


@pytest.mark.parametrize(
    ("forged", "why"),
    [
        ({"headers": (("Connection", b"close"),)}, "its header Connection is about the connection"),
        ({"headers": (("transfer-encoding", b"chunked"),)}, "its header transfer-encoding is about the connection"),
        ({"headers": (("Upgrade", b"websocket"),)}, "its header Upgrade is about the connection"),
        ({"headers": (("content-length", b"5"),)}, "content-length is b'5', its body has 1 bytes"),
        ({"headers": (("content-length", b"-1"),)}, "content-length is b'-1'"),
        ({"headers": (("content-length", b"1"), ("Content-Length", b"1"))}, "the header content-length twice"),
        ({"headers": (("x", b"a\r\nset-cookie: b"),)}, "its header x is b'a\\r\\nset-cookie: b', not one line"),
        ({"headers": (("x\r\ny", b"a"),)}, "is one called 'x\\r\\ny', which is no name"),
        ({"headers": (("", b"a"),)}, "is one called '', which is no name"),
        ({"headers": (("x", b"\x00"),)}, "not one line of bytes"),
        ({"headers": (("x", b"\x7f"),)}, "not one line of bytes"),
        ({"headers": (("x", "text"),)}, "its header x is 'text', not one line of bytes"),
        ({"headers": ((1, b"a"),)}, "is one called 1, which is no name"),
        ({"headers": (("x",),)}, "is a tuple, not a pair"),
        ({"headers": {"x": b"y"}}, "its headers are a dict, not pairs"),
        ({"headers": None}, "its headers are None, not pairs"),
        ({"headers": (("x", b""),) * (HEADERS_MAX + 1)}, f"it has {HEADERS_MAX + 1} headers, more than {HEADERS_MAX}"),
        ({"headers": (("x", b"y" * HEADER_BYTES_MAX),)}, f"bytes, more than {HEADER_BYTES_MAX}"),
        ({"status": 101}, "its status is 101, not a number from 200 to 999"),
        ({"status": 1000}, "its status is 1000"),
        ({"status": "200"}, "its status is '200'"),
        ({"status": True}, "its status is True"),
        ({"status": None}, "its status is None"),
        ({"body": "text"}, "its body is 'text', not bytes"),
        ({"body": None}, "its body is None, not bytes"),
        ({"body": 10**400}, "its body is "),
    ],
)
def test_what_would_break_the_connection_is_500_and_told_to_the_owner(forged: dict[str, Any], why: str) -> None:
    async def test(door: Door) -> None:
        client = door.connect()
        answer = await client.request("POST", f"{URL}/forge", {}, repr(forged).encode())
        text = "The handler of this route answered what cannot be sent; the module's log says why."
        assert (answer.status, answer.text) == (500, text)
        line = door.log("shop")[-1]
        assert (line["level"], line["function"]) == ("Error", "forge")
        assert line["message"].startswith("the answer of the handler forge to POST /forge was not sent: ")
        assert why in line["message"]
        assert (await client.request("GET", f"{URL}/", {})).status == 200

    run(test, settings=Settings())


def test_a_tunnel_is_not_opened() -> None:
    async def test(door: Door) -> None:
        client = door.connect()
        body = json.dumps({"status": 200}).encode()
        answer = await client.request("CONNECT", f"{URL}/answer", {"Content-Length": str(len(body))}, body)
        assert answer.status == 500
        assert "would open a tunnel" in door.log("shop")[-1]["message"]
        body = json.dumps({"status": 405, "body": "no"}).encode()
        answer = await door.send("CONNECT", f"{URL}/answer", {"Content-Length": str(len(body))}, body)
        assert (answer.status, answer.text) == (405, "no")

    run(test)


VALUES = st.one_of(st.binary(max_size=6), st.text(max_size=4), st.none(), st.integers())
NAMES = st.one_of(
    st.sampled_from(["content-length", "date", "x", "Connection", "set-cookie"]), st.text(max_size=4), VALUES
)


@settings(max_examples=400, deadline=None)
@given(
    status=st.one_of(st.integers(190, 1010), st.none(), st.booleans()),
    headers=st.one_of(st.lists(st.tuples(NAMES, VALUES), max_size=4), VALUES),
    body=st.one_of(st.binary(max_size=20), VALUES),
    method=st.sampled_from(["GET", "HEAD", "CONNECT", "BREW"]),
)
def test_whatever_is_not_refused_goes_over_the_wire_whole(status: Any, headers: Any, body: Any, method: str) -> None:
    try:
        response = _response(HttpResponse(status, headers, body), method)
    except ValueError:
        return

    async def main() -> None:
        near, far = memory_stream_pair()
        connection, client = HttpConnection(far), h11.Connection(h11.CLIENT)
        request = h11.Request(method=method, target="/", headers=[("host", "a")])
        data = (client.send(request) or b"") + (client.send(h11.EndOfMessage()) or b"")
        near.send_nowait(data)
        assert await connection.next_request() is not None
        await connection.send(response, is_head=method == "HEAD")
        assert await connection.finish()
        client.receive_data(await near.receive_some())
        head = client.next_event()
        assert isinstance(head, h11.Response)
        received = b""
        while isinstance(event := client.next_event(), h11.Data):
            received += event.data
        assert isinstance(event, h11.EndOfMessage)
        assert head.status_code == status
        assert received == (b"" if method == "HEAD" or status in (204, 304) else body)
        sent = [(name.encode(), value) for name, value in response.headers]
        assert [each for each in head.headers if each in sent] == sent

    trio.run(main)


# ---------------------------------------------------------------------- modules of other languages, sockets
def test_a_handler_that_keeps_to_no_contract_is_answered_and_its_database_goes_on() -> None:
    async def nothing(_call: RouteCall, _request: HttpRequest) -> Any:
        return None

    async def exits(_call: RouteCall, _request: HttpRequest) -> HttpResponse:
        raise SystemExit(3)

    async def works(_call: RouteCall, request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, (), request.method.encode())

    def make() -> FunctionModule:
        return FunctionModule([], {}, routes={("Get", "/n"): nothing, (None, "/e"): exits, ("BREW", "/w"): works})

    async def test(door: Door) -> None:
        assert (await door.send("GET", f"{URL}/n")).status == 500
        assert (await door.send("GET", f"{URL}/e")).status == 500
        answer = await door.send("BREW", f"{URL}/w")
        assert (answer.status, answer.text) == (200, "BREW")

    run(test, make)


def test_over_sockets_a_client_that_resets_its_connection_ends_its_handler_alone() -> None:
    async def test(door: Door) -> None:
        listener, port = loopback()
        async with trio.open_nursery() as nursery:
            await nursery.start(door.door.serve, [listener])
            head = f"POST {URL}/ended HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode()
            streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(3)]
            for stream in streams:
                await stream.send_all(head)
            await until(lambda: len(running(door)) == 3)
            await streams[0].aclose()
            await until(lambda: len(running(door)) == 2)
            await streams[1].send_all(b"GET / HTTP/1.1\r\n")  # the next request, begun early, is no reason to end
            await trio.sleep(0.05)
            assert len(running(door)) == 2
            for stream in streams[1:]:
                await stream.aclose()
            await until(lambda: not running(door))
            nursery.cancel_scope.cancel()

    run(test)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what happens between sockets sets no event
        await trio.sleep(0.01)


def running(door: Door) -> Any:
    """Return what runs in the database."""
    identity = door.door.host.control.resolve("shop")
    assert identity is not None
    return door.door.host.database(identity)._actor.procedures._scopes
