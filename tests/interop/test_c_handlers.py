"""Handlers of routes as a guest in C meets them, over HTTP: requests as sent, responses as given, and how they fail.

The body of a request is the script that its handler runs.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from stdb.actors.epochs import keep_ticking
from stdb.modules.protocol import HttpResponse
from stdb.modules.wasm.engine import engine
from stdb.modules.wasm.http import decode_request, encode_response
from stdb.modules.wasm.imports_10 import Errno
from stdb.modules.wasm.loader import load_wasm
from stdb.modules.wasm.runtime import Limits
from stdb.schema import raw
from stdb.testing.hosts import virtual_now_us
from tests.http_harness import Answer, Door, bearer, open_door
from tests.interop import c_guest as guests
from tests.interop.c_guest import DATA, LENGTH, OUT, RESULT, ROW, At, Script, Source
from tests.interop.module_clang import build_c_module
from tests.interop.test_c_modules import pk
from tests.wasm_guests import DEFINITION, RUNTIMES

pytestmark = pytest.mark.slow

FATAL = "The instance encountered a fatal error."
URL = "/v1/database/guest/route"
OK = HttpResponse(200, ())
Play = Callable[[Callable[[Door], Awaitable[None]]], None]


def program() -> bytes:
    """Return the guest with two handlers and four routes."""
    base = raw.decode(DEFINITION)
    assert isinstance(base, raw.RawModuleDefV10)
    handlers = tuple(raw.RawHttpHandler(name) for name in ("first", "second"))
    routes = (
        raw.RawHttpRoute("second", "Get", "/get"),
        raw.RawHttpRoute("first", None, "/run"),
        raw.RawHttpRoute("first", "Post", "/post"),
        raw.RawHttpRoute("first", "Head", "/head"),
    )
    return build_c_module("calls", raw.encode(replace(base, http_handlers=handlers, http_routes=routes)))


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Return the name of one of the runtimes."""
    name: str = request.param
    return name


def play(runtime: str, check: Callable[[Door], Awaitable[None]], limits: Limits) -> None:
    """Run a check against a front door behind which the guest is published."""
    built = program()

    def load() -> Any:
        return load_wasm(built, virtual_now_us, runtime=RUNTIMES[runtime](engine()), limits=limits)

    async def main() -> None:
        with trio.fail_after(10_000):
            async with open_door({built: load}) as door:
                answer = await door.send("PUT", "/v1/database/guest", bearer(door.tokens.mint()), built)
                assert answer.status == 200, answer.text
                await check(door)

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.fixture
def run(runtime: str) -> Play:
    """Return what runs a check."""
    return lambda check: play(runtime, check, Limits())


async def ask(door: Door, script: Script, method: str = "POST", path: str = "/run", **headers: str) -> Answer:
    """Have a handler run a script."""
    return await door.send(method, URL + path, headers, bytes(script))


async def sql(door: Door, text: str) -> Any:
    """Return the rows of a statement."""
    return (await door.send("POST", "/v1/database/guest/sql", {}, text)).document[0]["rows"]


def respond(script: Script, response: HttpResponse = OK) -> Script:
    """Answer with the head of a response; its body is what was said to the second sink."""
    head = encode_response(response)
    return script.put(ROW, head).say(ROW, len(head))


def with_request(script: Script) -> Script:
    """Answer with the request as it came."""
    script.call("bytes_source_remaining_length", Source(), At(OUT)).keep(LENGTH, guests.U32(OUT))
    script.call("bytes_source_read", Source(), At(DATA), At(LENGTH)).say(DATA, guests.U32(LENGTH), sink=1)
    return respond(script)


def test_a_handler_is_given_the_request_as_it_was_sent(run: Play) -> None:
    async def check(door: Door) -> None:
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"):
            answer = await ask(
                door, with_request(Script()), method, "/run?a=1&b=%20", Authorization="Bearer x", X_Odd="é"
            )
            assert answer.status == 200, answer.text
            request = decode_request(answer.body, b"")
            assert request.method == method
            assert request.url == f"http://test{URL}/run?a=1&b=%20"
            assert dict(request.headers)["authorization"] == b"Bearer x"
            assert dict(request.headers)["x_odd"] == "é".encode("latin-1")
            assert (request.version, request.timeout_us) == (2, None)

    run(check)


def test_the_response_is_sent_as_it_was_given(run: Play) -> None:
    async def check(door: Door) -> None:
        response = HttpResponse(418, (("x-made", b"yes"), ("set-cookie", b"a=1"), ("content-type", b"text/x")))
        answer = await ask(door, respond(Script().put(DATA, b"\0body\xff").say(DATA, 6, sink=1), response))
        assert (answer.status, answer.body) == (418, b"\0body\xff")
        assert (answer.headers["x-made"], answer.headers["content-type"]) == ("yes", "text/x")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "spacetime-identity" not in answer.headers
        for status in (204, 304, 999):
            assert (await ask(door, respond(Script(), HttpResponse(status, ())))).status == status

    run(check)


def test_large_bodies_go_both_ways(run: Play) -> None:
    async def check(door: Door) -> None:
        script = Script().put(DATA, b"x" * 200_000).say(DATA, 200_000, sink=1).say(DATA, 200_000, sink=1)
        answer = await ask(door, respond(script))
        assert answer.body == b"x" * 400_000

    run(check)


def test_routes_choose_by_method_and_path(run: Play) -> None:
    async def check(door: Door) -> None:
        script = respond(Script())
        for method, path, status in (
            ("GET", "/get", 200),
            ("POST", "/get", 404),
            ("POST", "/post", 200),
            ("PUT", "/post", 404),
            ("HEAD", "/head", 200),
            ("HEAD", "/get", 404),
            ("GET", "/run/", 404),
            ("GET", "", 404),
        ):
            assert (await ask(door, script, method, path)).status == status, (method, path)
        missing = await ask(door, script, "GET", "/nowhere")
        assert missing.text == "Database has not registered a handler for this route"

    run(check)


FAILURES: dict[str, tuple[Script, str]] = {
    "trap": (Script().trap(), "unreachable"),
    "host trap": (Script().call("identity", 0), "null pointer"),
    "code": (respond(Script()).end(1), "returned the code 1"),
    "nothing": (Script(), "does not decode"),
    "half a head": (Script().put(ROW, encode_response(OK)).say(ROW, 4), "does not decode"),
    "more than a head": (respond(respond(Script())), "does not decode"),
    "status 0": (respond(Script(), HttpResponse(0, ())), "is no status"),
    "status 65535": (respond(Script(), HttpResponse(65_535, ())), "is no status"),
    "wild header": (Script().text(b"\xff\xff\xff\xff" + bytes(20)), "does not decode"),
}
UNSENDABLE = "The handler of this route answered what cannot be sent; the module's log says why."


@pytest.mark.parametrize("name", FAILURES)
def test_a_handler_that_fails_is_answered_500_and_told_in_the_log(run: Play, name: str) -> None:
    async def check(door: Door) -> None:
        script, told = FAILURES[name]
        for _ in range(2):
            answer = await ask(door, script)
            assert (answer.status, answer.text) == (500, FATAL)
            assert told in door.log("guest")[-1]["message"]
        assert (await ask(door, respond(Script()))).status == 200

    run(check)


@pytest.mark.parametrize(
    "response",
    [
        HttpResponse(100, ()),
        HttpResponse(200, (("bad name", b"x"),)),
        HttpResponse(200, (("x", b"a\r\nb: c"),)),
        HttpResponse(200, (("transfer-encoding", b"chunked"),)),
        HttpResponse(200, tuple((f"x-{number}", b"x") for number in range(300))),
    ],
)
def test_a_response_that_is_no_http_is_not_sent(run: Play, response: HttpResponse) -> None:
    async def check(door: Door) -> None:
        answer = await ask(door, respond(Script(), response))
        assert (answer.status, answer.text) == (500, UNSENDABLE)
        assert "first" in door.log("guest")[-1]["message"]

    run(check)


def test_a_handler_without_a_transaction_reaches_no_table(run: Play) -> None:
    async def check(door: Door) -> None:
        script = Script().table("pk").keep(DATA, RESULT).call("identity", At(DATA + 4)).circumstances(DATA + 36)
        answer = await ask(door, respond(script.say(DATA, 84, sink=1)))
        assert answer.body[:4] == Errno.NOT_IN_TRANSACTION.to_bytes(4, "little")
        assert answer.body[4:36] != bytes(32)
        assert answer.body[36:] == bytes(48), "nobody is authenticated"

    run(check)


def test_a_handler_commits_aborts_and_leaves_transactions_open() -> None:
    async def check(door: Door) -> None:
        begun = Script().call("procedure_start_mut_tx", At(OUT)).insert("pk", pk(1, "a")).unless(0)
        aborted = begun.call("procedure_abort_mut_tx").unless(0)
        assert (await ask(door, respond(aborted))).status == 200
        assert await sql(door, "SELECT * FROM pk") == []
        left = Script().call("procedure_start_mut_tx", At(OUT)).insert("pk", pk(2, "b"))
        assert (await ask(door, respond(left))).status == 200
        assert await sql(door, "SELECT * FROM pk") == []
        assert "aborting dangling anonymous transaction" in door.log("guest")[-1]["message"]
        trapped = Script().call("procedure_start_mut_tx", At(OUT)).insert("pk", pk(3, "c")).trap()
        assert (await ask(door, trapped)).status == 500
        done = Script().call("procedure_start_mut_tx", At(OUT)).insert("pk", pk(4, "d"))
        done.call("procedure_commit_mut_tx").unless(0).call("procedure_sleep_until", 0)
        assert (await ask(door, respond(done))).status == 200
        assert await sql(door, "SELECT * FROM pk") == [[4, "d"]]

    play("raw", check, Limits())


def test_the_public_runtime_refuses_what_waits_and_says_so() -> None:
    async def check(door: Door) -> None:
        answer = await ask(door, respond(Script().call("procedure_start_mut_tx", At(OUT))))
        assert (answer.status, answer.text) == (500, FATAL)
        assert "waits, which this runtime cannot" in door.log("guest")[-1]["message"]

    play("public", check, Limits())


def test_a_handler_that_does_not_end_is_stopped_and_others_are_served(runtime: str) -> None:
    keep_ticking()

    async def check(door: Door) -> None:
        answer = await ask(door, Script().loop())
        assert (answer.status, answer.text) == (500, "The handler of this route took too long and was stopped.")
        assert (await ask(door, respond(Script()))).status == 200

    play(runtime, check, Limits(call_ticks_max=6))
