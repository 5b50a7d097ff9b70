"""Procedures of a Python module: their transactions, what they wait for, how they end."""

import contextlib
import gc
import socket
import sys
import types

import pytest
import trio

from stdb.errors import DecodeError, ModuleFault, ReducerError, ReducerTimeout, SchemaError
from stdb.modules.protocol import HttpRequest, HttpResponse, ProcedureCall
from stdb.sats.types import BYTES, I64, STRING, U32, UNIT, Element, Product, option
from stdb.schema import documents, raw
from stdb.schema.model import Visibility
from stdb.schema.validation import validate
from tests.python_module_harness import ALICE, DATABASE, Host, Running, load, run_trio

SOURCE = """
import asyncio
import logging
from datetime import timedelta
from stdb import *

@table
class Seat:
    number: u32 = primary_key()
    owner: str

@product
class Booking:
    number: u32
    owner: str

def book(tx: ReducerContext, number: u32, owner: str = "nobody") -> Booking:
    print("booking", number)
    seat = tx.db[Seat].insert(Seat(number=number, owner=owner))
    assert tx.sender and tx.timestamp
    return Booking(number=seat.number, owner=seat.owner)

@procedure
async def reserve(ctx: ProcedureContext, number: u32, owner: str | None) -> Booking:
    print("before")
    booking = await ctx.transact(book, number, owner=owner or "nobody")
    print("after")
    return booking

@procedure(name="wait_long", private=True)
async def wait(ctx: ProcedureContext) -> None:
    await ctx.sleep(3600)
    await ctx.sleep(0.5)
    await ctx.sleep(TimeDuration(millis=250))
    await ctx.sleep(timedelta(minutes=1))
    await ctx.sleep(-1)

probing = []
kept = []

@procedure
async def probe(ctx: ProcedureContext) -> str:
    namespace = {}
    lines = probing[-1].splitlines()
    exec("async def run(ctx):\\n" + "\\n".join("    " + line for line in lines), globals(), namespace)
    return str(await namespace["run"](ctx))
"""


@pytest.fixture
def running() -> Running:
    return Running(SOURCE)


def probe(running: Running, source: str, host: Host | None = None, credentials: str | None = None) -> str:
    (namespace,) = (each for each in running.module._version.namespaces().values() if "probing" in each)
    namespace["probing"].append(source)
    return str(running.procedure("probe", host=host, credentials=credentials))


def test_procedures_are_defined_by_what_they_take_and_return() -> None:
    definition = load(SOURCE).definition
    reserve, wait, _ = definition.procedures
    assert reserve.params == Product((Element("number", U32), Element("owner", option(STRING))))
    names = {i: each.name for each in definition.types for i in [each.type_ref]}
    assert names[reserve.return_type.index] == "Booking"  # type: ignore[union-attr]  # a Ref, or this fails
    assert (wait.name, wait.visibility, wait.return_type) == ("wait_long", Visibility.PRIVATE, UNIT)
    assert reserve.visibility is Visibility.CLIENT_CALLABLE


@pytest.mark.parametrize("version", [9, 10])
def test_their_definition_goes_through_both_versions(version: int) -> None:
    definition = load(SOURCE).definition
    written = documents.to_raw_v9(definition) if version == 9 else documents.to_raw_v10(definition)
    again = {each.name: each for each in validate(raw.decode(raw.encode(written))).procedures}
    assert {name: (each.params, each.return_type) for name, each in again.items()} == {
        each.name: (each.params, each.return_type) for each in definition.procedures
    }
    if version == 10:
        assert list(again.values()) == list(definition.procedures)


def test_a_transaction_returns_what_its_function_returns_and_lasts(running: Running) -> None:
    assert running.procedure("reserve", 7, "ann") == (7, "ann")
    assert running.procedure("reserve", 8, None) == (8, "nobody")
    assert running.rows("seat") == [(7, "ann"), (8, "nobody")]


def test_lines_are_logged_as_those_of_the_function_that_ran(running: Running) -> None:
    running.procedure("reserve", 7, None)
    assert [(line["message"], line["function"]) for line in running.log[-3:]] == [
        ("before", "reserve"),
        ("booking 7", "book"),
        ("after", "reserve"),
    ]


def test_an_exception_rolls_back_and_comes_out_of_the_await(running: Running) -> None:
    running.procedure("reserve", 7, "ann")
    source = """
    def twice(tx):
        book(tx, 1)
        book(tx, 7)
    try:
        await ctx.transact(twice)
    except UniqueViolation as error:
        return f"{error.table}: {error.value}"
    """
    assert probe(running, source) == "seat: 7"
    assert running.rows("seat") == [(7, "ann")]


def test_several_transactions_are_each_their_own(running: Running) -> None:
    source = """
    await ctx.transact(book, 1)
    await ctx.sleep(1)
    await ctx.transact(book, 2)
    raise SenderError("now I refuse")
    """
    with pytest.raises(ReducerError, match=r"^now I refuse$"):
        probe(running, source)
    assert [row[0] for row in running.rows("seat")] == [1, 2]


def test_waits_are_in_seconds_whatever_they_were_given_in(running: Running) -> None:
    host = Host(running)
    assert running.procedure("wait_long", host=host) == ()
    assert host.slept == [3600.0, 0.5, 0.25, 60.0, -1.0]


@pytest.mark.parametrize(
    ("source", "answer"),
    [
        ("return ctx.sender", ALICE[::-1].hex()),
        ("return ctx.database_identity", DATABASE.hex()),
        ("return ctx.address is ctx.connection_id", "True"),
        ("return ctx.timestamp.micros", "1700000000000000"),
        ("return ctx.rng.random() == ctx.rng.random()", "False"),
        ("return ctx.rng.random()", None),
        ("return ctx.sender_auth", "{'sub': 'ann', 'aud': ['x']}"),
        ("return ctx.now().micros - ctx.timestamp.micros", "0"),
        ("return await ctx.transact(lambda tx: tx.sender_auth['sub'])", "alice"),
    ],
)
def test_a_procedure_knows_its_call(running: Running, source: str, answer: str | None) -> None:
    credentials = '{"sub": "ann", "aud": ["x"]}'
    found = probe(running, source, credentials=credentials)
    assert found == (answer or probe(running, source, credentials=credentials))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("ctx.db", "a procedure's context has no db: tables change in transactions alone; use await ctx.transact("),
        ("ctx.nothing", "a procedure's context has no attribute 'nothing'; it has transact, sleep, http, now, sender"),
        ("await ctx.transact(probe)", "transact() takes a plain function"),
        ("await ctx.transact(5)", "transact() takes a plain function"),
        ("await ctx.transact(book, 1, 2, 3)", "TypeError"),
        ("await ctx.sleep('1')", "sleep() takes seconds, a TimeDuration or a timedelta, got '1'"),
        ("await ctx.sleep(float('nan'))", "sleep() takes seconds"),
        ("await ctx.sleep(True)", "sleep() takes seconds"),
        ("await asyncio.sleep(1)", "a procedure waits by await ctx.transact(), ctx.sleep() and ctx.http alone"),
        ("await asyncio.sleep(0)", "a procedure waits by await ctx.transact(), ctx.sleep() and ctx.http alone"),
        (
            "loop = asyncio.new_event_loop()\nfuture = loop.create_future()\nloop.close()\nawait future",
            "asyncio has no",
        ),
        ("await ctx.http.get('http://nowhere/')", "HttpError: cannot reach http://nowhere/"),
        ("await ctx.http.post('http://x/', body=b'', json=1)", "a request has a body or json=…, not both"),
        ("await ctx.http.post('http://x/', body=5)", "the body of a request is bytes or str, got 5"),
        ("await ctx.http.get(5)", "a request has a method and a URL as text"),
        ("await ctx.http.request('GET /', 'http://x/')", "a request has a method and a URL as text"),
        ("await ctx.http.get('http://x/', timeout_s=0)", "timeout_s is a number of seconds above 0"),
        ("await ctx.http.get('http://x/', headers={'a b': 'c'})", "'a b' is no name of a header"),
        ("await ctx.http.get('http://x/', headers={'a': 'c\\r\\nd: e'})", "it is one line"),
        (
            "await ctx.transact(lambda tx: kept.append(tx))\nkept.pop().db[Seat].get(1)",
            "open during a reducer's call only",
        ),
    ],
)
def test_mistakes_in_a_procedure_are_told(running: Running, source: str, text: str) -> None:
    with pytest.raises(ModuleFault) as caught:
        probe(running, source)
    assert text in (caught.value.report or ""), caught.value.report
    assert caught.value.filename == "chat.py"
    assert str(caught.value) == "The instance encountered a fatal error."


def test_a_result_of_another_type_names_the_procedure() -> None:
    source = "from stdb import *\n@procedure\nasync def f(ctx: ProcedureContext) -> u8:\n    return 256\n"
    with pytest.raises(ModuleFault) as caught:
        Running(source).procedure("f")
    assert "procedure f returned 256, which does not fit its type" in (caught.value.report or "")
    assert (caught.value.filename, caught.value.line) == ("chat.py", 2)


def test_results_are_of_every_column_type() -> None:
    source = """
        import enum
        from stdb import *

        class Colour(enum.Enum):
            RED = 1
            GREEN = 2

        @procedure
        async def option(ctx: ProcedureContext, x: int | None) -> int | None:
            return x

        @procedure
        async def colours(ctx: ProcedureContext) -> list[Colour]:
            return [Colour.GREEN, Colour.RED]

        @procedure
        async def data(ctx: ProcedureContext) -> bytes:
            return b"x"
        """
    running = Running(source)
    assert [each.return_type for each in running.module.definition.procedures][::2] == [option(I64), BYTES]
    assert running.procedure("option", None) is None
    assert running.procedure("option", 5) == 5
    assert running.procedure("colours") == [(1, ()), (0, ())]
    assert running.procedure("data") == b"x"


def test_arguments_that_do_not_decode_run_nothing(running: Running) -> None:
    call = ProcedureCall(ALICE, None, 0, None, Host(running))
    with pytest.raises(DecodeError):
        run_trio(running.module.procedure(0)(call, b"\x01"))
    assert "before" not in running.log.messages


# HTTP


def test_requests_and_responses_pass_as_they_are(running: Running) -> None:
    response = HttpResponse(404, (("Content-Type", b"text/plain; charset=latin-1"), ("X", b"1"), ("x", b"2")), b"\xe9")
    host = Host(running, {"http://x/a?b": response})
    source = """
    found = await ctx.http.get("http://x/a?b", headers={"accept": "*/*"}, timeout_s=1.5)
    assert found.headers["x"] == "1" and found.headers.get_all("X") == ["1", "2"] and "CONTENT-type" in found.headers
    assert list(found.headers) == ["content-type", "x"] and len(found.headers) == 2
    assert found.url == "http://x/a?b" and found.body == bytes([0xe9])
    return f"{found.status} {found.text}"
    """
    assert probe(running, source, host) == "404 é"
    assert host.requests == [HttpRequest("GET", "http://x/a?b", (("accept", b"*/*"),), b"", timeout_us=1_500_000)]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("post(URL, body='é')", ("POST", (("content-type", b"text/plain; charset=utf-8"),), "é".encode())),
        (
            "post(URL, json={'a': [1, 'é']})",
            ("POST", (("content-type", b"application/json"),), '{"a": [1, "é"]}'.encode()),
        ),
        ("put(URL, body=b'x', headers=[('a', b'1'), ('a', '2')])", ("PUT", (("a", b"1"), ("a", b"2")), b"x")),
        ("put(URL, body='x', headers={'Content-Type': 'y'})", ("PUT", (("Content-Type", b"y"),), b"x")),
        ("delete(URL)", ("DELETE", (), b"")),
        ("request('patch', URL)", ("PATCH", (), b"")),
    ],
)
def test_every_method_sends_what_it_is_given(
    running: Running, call: str, expected: tuple[str, tuple[tuple[str, bytes], ...], bytes]
) -> None:
    host = Host(running, {"http://x/": HttpResponse(200, (), b'{"ok": true}')})
    assert (
        probe(running, f"return (await ctx.http.{call.replace('URL', repr('http://x/'))}).json()['ok']", host) == "True"
    )
    method, headers, body = expected
    assert host.requests == [HttpRequest(method, "http://x/", headers, body, timeout_us=30_000_000)]


def test_a_request_without_response_can_be_caught(running: Running) -> None:
    source = "try:\n    await ctx.http.get('http://x/')\nexcept HttpError as error:\n    return error"
    assert probe(running, source) == "cannot reach http://x/"


def test_a_socket_of_the_server_is_no_blocking_call_of_the_module(running: Running) -> None:
    def open_socket() -> None:
        socket.socket().close()

    class Opening(Host):
        async def http(self, request: HttpRequest) -> HttpResponse:
            types.FunctionType(open_socket.__code__, {"__name__": request.url, "socket": socket})()
            return HttpResponse(200)

    source = "await ctx.http.get('{}')"
    probe(running, source.format("stdb.net.http_client"), Opening(running))
    assert not any("socket" in message for message in running.log.messages)
    probe(running, source.format("somebody.else"), Opening(running))
    assert "a socket waits in the server's only thread" in running.log.messages[-1]


# How they end


def test_the_time_limit_ends_a_procedure_between_two_waits(running: Running) -> None:
    host = Host(running)
    host.expiring_step = 2
    with pytest.raises(ReducerTimeout, match=r"between two waits"):
        probe(running, "await ctx.transact(book, 1)\nawait ctx.transact(book, 2)", host)
    assert [row[0] for row in running.rows("seat")] == [1]


def test_the_time_limit_ends_a_procedure_that_returns_too_late(running: Running) -> None:
    host = Host(running)
    host.expiring_step = 1
    with pytest.raises(ReducerTimeout):
        probe(running, "return 1", host)


def test_a_procedure_past_its_time_cleans_up_and_may_not_go_on(running: Running) -> None:
    host = Host(running)
    host.expiring_step = 1
    source = """
    try:
        await ctx.sleep(5)
    finally:
        try:
            await ctx.sleep(6)
        finally:
            print("cleaned up")
    """
    with pytest.raises(ReducerTimeout):
        probe(running, source, host)
    assert "cleaned up" in running.log.messages


def test_a_cancelled_procedure_is_cancelled_and_nothing_else(running: Running) -> None:
    source = """
    try:
        await ctx.sleep(5)
    except BaseException as error:
        print(type(error).__name__)
        raise
    finally:
        print("cleaned up")
    """
    (namespace,) = (each for each in running.module._version.namespaces().values() if "probing" in each)
    namespace["probing"].append(source)

    async def cancel() -> str:
        call = ProcedureCall(ALICE, None, 0, None, Host(running))
        with trio.move_on_after(1) as scope:
            await running.module.procedure(2)(call, b"")
        return "cancelled" if scope.cancelled_caught else "ended"

    assert run_trio(cancel()) == "cancelled"
    assert running.log.messages[-2:] == ["Cancelled", "cleaned up"]


def test_a_procedure_that_is_closed_closes(running: Running) -> None:
    (namespace,) = (each for each in running.module._version.namespaces().values() if "probing" in each)
    namespace["probing"].append("try:\n    await ctx.sleep(5)\nfinally:\n    print('closed')")
    call = ProcedureCall(ALICE, None, 0, None, Host(running))
    waiting = running.module.procedure(2)(call, b"").__await__()

    async def begin() -> None:
        with contextlib.suppress(RuntimeError):  # the clock runs while the wait is begun by hand
            next(waiting)
        waiting.close()

    run_trio(begin())
    assert running.log.messages[-1] == "closed"


def test_an_await_of_trio_works(running: Running) -> None:
    assert probe(running, "import trio\nawait trio.sleep(3)\nreturn trio.current_time() > 0") == "True"


def test_two_procedures_wait_beside_each_other(running: Running) -> None:
    async def both() -> list[str]:
        ended: list[str] = []

        async def one(name: str, seconds: int) -> None:
            (namespace,) = (each for each in running.module._version.namespaces().values() if "probing" in each)
            namespace["probing"].append(f"await ctx.sleep({seconds})\nprint('{name}')")
            await running.module.procedure(2)(ProcedureCall(ALICE, None, 0, None, Host(running)), b"")
            ended.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, "slow", 5)
            await trio.sleep(1)
            nursery.start_soon(one, "fast", 1)
        return ended

    assert run_trio(both()) == ["fast", "slow"]
    assert running.log.messages[-2:] == ["fast", "slow"]


def test_a_version_stays_loaded_until_its_last_procedure_has_ended() -> None:
    files = {
        "game/__init__.py": "from stdb import *\n@procedure\nasync def f(ctx: ProcedureContext) -> int:\n"
        "    await ctx.sleep(5)\n    from . import late\n    return late.VALUE\n",
        "game/late.py": "VALUE = 7\n",
    }
    running = Running(files)
    package = running.module._version.package
    call = ProcedureCall(ALICE, None, 0, None, Host(running))

    async def replace_meanwhile() -> bytes:
        waiting = running.module.procedure(0)(call, b"")
        running.module = load(SOURCE)
        gc.collect()
        return await waiting

    assert run_trio(replace_meanwhile()) == (7).to_bytes(8, "little")
    gc.collect()
    assert not [name for name in sys.modules if name.startswith(package)]


# What is refused


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            "def f(ctx: ProcedureContext) -> None: ...",
            "f is no `async def`: a procedure is, as it waits; or make it a @reducer",
        ),
        ("async def f(ctx: ProcedureContext) -> None: yield 1", "f is no `async def`"),
        (
            "async def f(ctx: ProcedureContext): ...",
            "f: say what it returns to its caller, as a column's type, or -> None",
        ),
        ("async def f(ctx: ProcedureContext) -> tuple[int, int]: ...", "f() ->: tuple is no column type"),
        ("async def f(ctx: ProcedureContext) -> 'Nothing': ...", "f() ->: the annotation 'Nothing' cannot be resolved"),
        ("async def f() -> None: ...", "f takes no context: write async def f(ctx: ProcedureContext, …)"),
        ("async def f(ctx: ProcedureContext, x) -> None: ...", "f(x): has no type: annotate it as a column"),
        (
            "async def f(ctx: ProcedureContext, **x: int) -> None: ...",
            "f(x): arguments of procedures have fixed places",
        ),
    ],
)
def test_a_procedure_that_cannot_be_is_refused_with_its_line(source: str, text: str) -> None:
    with pytest.raises(SchemaError) as caught:
        load(f"from stdb import *\n@procedure\n{source}\n")
    assert len(caught.value.errors) == 1, caught.value.errors
    assert caught.value.errors[0].startswith("chat.py:2: ")
    assert text in caught.value.errors[0]


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(SchemaError) as caught:
        load("from stdb import *\nf = procedure(len)\n")
    assert caught.value.errors == [
        "chat.py:2: a procedure is a function written with async def, got <built-in function len>"
    ]
