"""Requests of procedures: their time limits, how many at once, who ends them, who answers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from stdb.actors.handle import DatabaseHandle
from stdb.actors.host import Host
from stdb.actors.outgoing import REQUESTS_MAX, SECONDS, SECONDS_MAX, HttpSender, Outgoing
from stdb.actors.requests import CallProcedure
from stdb.errors import HttpError
from stdb.modules.protocol import HttpRequest, HttpResponse, Module, ProcedureCall
from stdb.modules.python.loader import load
from stdb.net.http_client import HttpClient
from stdb.sats import bsatn
from stdb.sats.types import STRING
from stdb.storage.settings import ModuleHttp
from stdb.testing.hosts import TestClient, identity, open_host
from stdb.testing.http import FakeHttp
from stdb.testing.modules import FunctionModule, procedure
from stdb.testing.sinks import ProcedureFailed, ProcedureReturned

URL = "http://x.example/"
_STRING = bsatn.codec(STRING)

SOURCE = b"""
from stdb import HttpError, ProcedureContext, procedure

@procedure
async def ask(ctx: ProcedureContext, url: str) -> str:
    try:
        answer = await ctx.http.post(url, json={"a": 1}, headers={"x-own": "1"}, timeout_s=5)
    except HttpError as error:
        return f"error: {error}"
    return f"{answer.status} {answer.headers['x-own']} {answer.text}"
"""


def run(test: Callable[[], Awaitable[None]]) -> None:
    trio.run(test, clock=MockClock(autojump_threshold=0))


@asynccontextmanager
async def open_database(make: Callable[[], Module], http: HttpSender | None) -> AsyncIterator[DatabaseHandle]:
    async with open_host({b"m": make}, http=http) as host:
        yield await publish(host)


async def publish(host: Host) -> DatabaseHandle:
    result = await host.publish(identity(9), b"m", name="m")
    handle = host.database(result.identity)
    await handle.ready()
    return handle


def asking(url: str = URL, timeout_us: int | None = None) -> FunctionModule:
    async def ask(call: ProcedureCall) -> str:
        return (await call.host.http(HttpRequest("GET", url, timeout_us=timeout_us))).body.decode()

    return FunctionModule([], {}, procedures={"ask": procedure(ask, {}, STRING)})


async def answer(client: TestClient, args: bytes | str = b"") -> str:
    """Call `ask` and return its result, or why there is none."""
    call = CallProcedure(7, "ask", args)
    client.submit(call)
    while True:
        for message in client.sink.received:
            if isinstance(message, ProcedureReturned | ProcedureFailed) and message.request is call:
                return text_of(message)
        await client.sink.wait_count(len(client.sink.received) + 1)


def text_of(message: Any) -> str:
    if isinstance(message, ProcedureFailed):
        return message.text
    return str(_STRING.decode_exact(message.returned))


def test_a_fake_answers_the_module_of_an_author() -> None:
    async def test() -> None:
        answers = {
            URL: HttpResponse(201, (("X-Own", b"yes"),), "grüß".encode()),
            "http://down.example/": HttpError("no route"),
        }
        http = FakeHttp(answers, delay_s=1.0)
        async with open_database(lambda: load({"m.py": SOURCE}), http) as handle:
            client = TestClient(handle)
            assert await answer(client, f'["{URL}"]') == "201 yes grüß"
            [request] = http.requests
            assert (request.method, request.body, request.timeout_us) == ("POST", b'{"a": 1}', 5_000_000)
            assert dict(request.headers) == {"x-own": b"1", "content-type": b"application/json"}
        async with open_database(lambda: load({"m.py": SOURCE}), http) as handle:
            assert await answer(TestClient(handle), '["http://down.example/"]') == "error: no route"

    run(test)


def test_without_a_sender_nothing_is_sent() -> None:
    async def test() -> None:
        async with open_database(lambda: asking("http://me:secret@x/"), None) as handle:
            text = await answer(TestClient(handle))
            assert "this server sends no HTTP requests: GET http://x/ was not sent" in text

    run(test)


@pytest.mark.parametrize(
    ("timeout_us", "seconds"), [(None, SECONDS), (1_500_000, 1.5), (2**62, SECONDS_MAX), (0, 0), (-5, 0)]
)
def test_a_request_ends_after_its_time(timeout_us: int | None, seconds: float) -> None:
    async def test() -> None:
        http = FakeHttp({URL: HttpResponse(200)}, delay_s=1000.0)
        outgoing = Outgoing(http)
        started = trio.current_time()
        async with outgoing.open():
            with pytest.raises(HttpError) as failed:
                await outgoing.send(HttpRequest("GET", "http://me:secret@x.example/", timeout_us=timeout_us))
        assert str(failed.value) == (
            "error sending request for url (http://x.example/): operation timed out: "
            f"no whole response within {seconds:g} s"
        )
        assert trio.current_time() - started == pytest.approx(seconds)
        assert http.under_way == 0

    run(test)


def test_requests_of_one_database_take_turns_within_their_time() -> None:
    async def test() -> None:
        http = FakeHttp({URL: HttpResponse(200)}, delay_s=10.0)
        outgoing = Outgoing(http)
        statuses: list[object] = []

        async def ask(timeout_us: int) -> None:
            try:
                statuses.append((await outgoing.send(HttpRequest("GET", URL, timeout_us=timeout_us))).status)
            except HttpError as error:
                statuses.append(str(error))

        async with outgoing.open(), trio.open_nursery() as nursery:
            for _ in range(2 * REQUESTS_MAX):
                nursery.start_soon(ask, 21_000_000)
            await trio.sleep(5)
            assert http.under_way == REQUESTS_MAX
            nursery.start_soon(ask, 1_000_000)
        assert statuses.count(200) == 2 * REQUESTS_MAX
        assert len(http.requests) == 2 * REQUESTS_MAX
        [late] = [text for text in statuses if text != 200]
        assert "operation timed out" in str(late)

    run(test)


def test_whoever_leaves_ends_the_requests_of_its_procedures() -> None:
    async def test() -> None:
        http = FakeHttp({URL: HttpResponse(200)}, delay_s=20.0)
        async with open_database(asking, http) as handle:
            client, other = TestClient(handle), TestClient(handle, 2)
            client.submit(CallProcedure(1, "ask", b""))
            other.submit(CallProcedure(1, "ask", b""))
            await trio.sleep(1)
            assert http.under_way == 2
            await client.leave()
            await trio.sleep(1)
            assert http.under_way == 1
        assert http.under_way == 0

    run(test)


def test_a_transaction_cannot_wait_for_another_server() -> None:
    """Not even a module that drives the coroutine itself gets anywhere (spec 04 section 3.7, error 17)."""

    async def test() -> None:
        async def ask(call: ProcedureCall) -> str:
            def inside(_tx: object) -> None:
                call.host.http(HttpRequest("GET", URL)).send(None)  # type: ignore[attr-defined]

            try:
                await call.host.transact(inside)
            except HttpError as error:
                return f"{error}; then {(await call.host.http(HttpRequest('GET', URL))).status}"
            return "it was sent"

        http = FakeHttp({URL: HttpResponse(204)})
        module = FunctionModule([], {}, procedures={"ask": procedure(ask, {}, STRING)})
        async with open_database(lambda: module, http) as handle:
            text = await answer(TestClient(handle))
            assert text == "no request is sent while a transaction is open: GET was not sent; then 204"
            assert len(http.requests) == 1

    run(test)


def test_a_sender_that_breaks_ends_its_own_procedure_alone() -> None:
    async def test() -> None:
        def broken(_request: HttpRequest) -> HttpResponse:
            raise ZeroDivisionError("a bug")

        http = FakeHttp({URL: broken})
        async with open_database(asking, http) as handle:
            client = TestClient(handle)
            assert "fatal error" in await answer(client)
            http.answers[URL] = HttpResponse(200, (), b"again")
            assert await answer(TestClient(handle, 2)) == "again"

    run(test)


def test_a_procedure_asks_a_real_server_and_is_refused_inner_addresses() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nx-own: 2\r\ncontent-length: 5\r\n\r\nhello")

    async def ask(networks: tuple[str, ...], port: int) -> str:
        http = HttpClient(ModuleHttp(allowed_networks=networks))
        async with open_database(lambda: load({"m.py": SOURCE}), http) as handle:
            return await answer(TestClient(handle), f'["http://127.0.0.1:{port}/"]')

    async def test() -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
            port = listeners[0].socket.getsockname()[1]
            with trio.fail_after(10):
                assert await ask(("127.0.0.0/8",), port) == "200 2 hello"
                refused = "error: refusing to connect to private or special-purpose addresses"
                assert await ask((), port) == refused
            nursery.cancel_scope.cancel()

    trio.run(test)
