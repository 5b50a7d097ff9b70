"""Routes of modules behind the front door: what handlers are given, what they do, who ends them."""

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import h11
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.actors import procedures
from stdb.actors.deadline import open_deadline
from stdb.errors import RequestError
from stdb.modules.protocol import HttpRequest, HttpResponse, RouteCall
from stdb.modules.python.archive import pack
from stdb.net.http import Headers
from stdb.net.http import Request as HeadOfRequest
from stdb.net.routes_user import _url
from stdb.server import load_program
from stdb.storage.settings import Settings
from stdb.testing.modules import FunctionModule
from stdb.testing.storage import MemoryStorage
from tests.http_harness import Door, bearer, loopback, open_door, open_socket
from tests.routes_shop import CORS, PROGRAM, SOURCE, URL, hits, load, run


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


HOSTS = st.text(st.characters(max_codepoint=255), max_size=12) | st.text("[]:.@/%?#ab1-_", max_size=12)


@settings(max_examples=500, deadline=None)
@given(host=HOSTS, forwarded=HOSTS | st.none(), scheme=HOSTS | st.none(), origin=st.sampled_from(["", "http://a@b"]))
def test_whatever_headers_say_about_the_host_the_url_is_one_or_the_request_is_refused(
    host: str, forwarded: str | None, scheme: str | None, origin: str
) -> None:
    lines = [(b"host", host), (b"x-forwarded-host", forwarded), (b"x-forwarded-proto", scheme)]
    headers = Headers(tuple((name, text.encode("latin-1")) for name, text in lines if text is not None))
    try:
        url = _url(HeadOfRequest("GET", "/a//b", "c=d", headers, origin))
    except RequestError:
        return
    parts = urlsplit(url)
    assert (parts.path, parts.query, parts.fragment, parts.username) == ("/a//b", "c=d", "", None)
    assert parts.scheme
    assert parts.netloc


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


def test_a_body_that_says_it_is_too_long_is_not_asked_for() -> None:
    async def test(door: Door) -> None:
        client = door.connect()
        head = f"POST {URL}/see/it HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: "
        await client.send_all(f"{head}1001\r\n\r\n".encode())
        assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 413 ")
        client = door.connect()
        await client.send_all(f"{head}1000\r\n\r\n".encode())
        assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 100 ")

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
        for path, what in (("/hang", "the transaction"), ("/ahang", "the handler of the route")):
            answer = await door.send("GET", URL + path)
            assert (answer.status, answer.text) == (500, "The handler of this route took too long and was stopped.")
            assert door.log("shop")[-1]["level"] == "Error"
            assert re.search(f"time limit|{what} ran longer than", door.log("shop")[-1]["message"])
        assert await hits(door) == []
        assert (await door.send("POST", f"{URL}/hello?who=ann")).status == 201

    with open_deadline(0.1) as deadline:
        run(test, deadline=deadline)


def test_an_answer_waits_until_what_it_shows_is_durable() -> None:
    storage = MemoryStorage(delayed=True)

    async def main() -> None:
        async with open_door({PROGRAM: load}, storage=storage) as door:
            await door.publish_and_sync(storage, "shop", PROGRAM)
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
