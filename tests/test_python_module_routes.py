"""HTTP routes of a Python module: what a handler is given, what it may answer, what is refused."""

import json

import pytest

from stdb.errors import ModuleFault, ReducerError, SchemaError
from stdb.modules.protocol import HttpRequest, HttpResponse
from stdb.schema import documents, raw
from stdb.schema.model import HttpRouteDef
from stdb.schema.validation import validate
from tests.python_module_harness import DATABASE, Host, Running, load

SOURCE = """
from stdb import *

@table
class Hit:
    id: u64 = primary_key(auto_inc=True)
    who: str

@http_route("GET", "/hello")
@http_route("POST", "/hello")
def hello(ctx: HttpContext, request: Request) -> Response:
    hit = ctx.db[Hit].insert(Hit(who=request.query.get("who", "nobody")))
    if request.text == "no":
        raise SenderError("I refuse")
    return Response(f"hello {hit.who}, you are {len(ctx.db.hit)}")

@http_route(None, "")
async def slow(ctx: HttpContext, request: Request) -> Response:
    def count(tx: ReducerContext, who: str) -> int:
        tx.db[Hit].insert(Hit(who=who))
        return len(tx.db[Hit])
    before = await ctx.transact(count, "one")
    await ctx.sleep(10)
    after = await ctx.transact(count, "two")
    return Response.json({"counts": [before, after], "method": request.method}, status=201, headers={"x-a": "1"})

@http_route("any", "/probe/x-1_~")
def probe(ctx: HttpContext, request: Request) -> Response:
    out = []
    exec(request.text, {**globals(), "ctx": ctx, "request": request, "out": out})
    return out[0] if out and isinstance(out[0], Response) else Response(str(out[0]) if out else "")

@http_route("PURGE", "/")
async def aprobe(ctx: HttpContext, request: Request) -> Response:
    out = []
    exec(request.text, {**globals(), "ctx": ctx, "request": request, "out": out})
    return Response(str(out[0]) if out else "")
"""
URL = "http://x/v1/database/d/route"


@pytest.fixture
def running() -> Running:
    return Running(SOURCE)


def probe(running: Running, source: str, *, waits: bool = False, query: str = "") -> HttpResponse:
    headers = (("X-One", b"1"), ("x-one", b"2"), ("Authorization", b"Bearer a"), ("odd", b"\xff"))
    method, path = ("PURGE", "/") if waits else ("POST", "/probe/x-1_~")
    return running.route(HttpRequest(method, f"{URL}{path}{query}", headers, source.encode()), path)


def test_routes_are_defined_in_the_order_of_their_decorators() -> None:
    definition = load(SOURCE).definition
    assert definition.http_handlers == ("hello", "slow", "probe", "aprobe")
    assert definition.http_routes == (
        HttpRouteDef("hello", "Post", "/hello"),
        HttpRouteDef("hello", "Get", "/hello"),
        HttpRouteDef("slow", None, ""),
        HttpRouteDef("probe", None, "/probe/x-1_~"),
        HttpRouteDef("aprobe", "PURGE", "/"),
    )


def test_their_definition_goes_through_version_10() -> None:
    definition = load(SOURCE).definition
    again = validate(raw.decode(raw.encode(documents.to_raw_v10(definition))))
    assert (again.http_handlers, again.http_routes) == (definition.http_handlers, definition.http_routes)
    again = validate(documents.from_json(documents.to_json(definition, version=10)))
    assert again.http_routes == definition.http_routes


def test_a_plain_handler_is_one_transaction(running: Running) -> None:
    answer = running.route(HttpRequest("GET", URL + "/hello?who=ann&who=bob"), "/hello")
    assert answer == HttpResponse(200, (("content-type", b"text/plain; charset=utf-8"),), b"hello ann, you are 1")
    assert running.rows("hit") == [(1, "ann")]
    with pytest.raises(ReducerError, match=r"^I refuse$"):
        running.route(HttpRequest("POST", URL + "/hello", body=b"no"), "/hello")
    assert running.rows("hit") == [(1, "ann")]


def test_a_waiting_handler_makes_its_own_transactions(running: Running) -> None:
    host = Host(running)
    answer = running.route(HttpRequest("DELETE", URL), "", host=host)
    assert (answer.status, answer.headers) == (201, (("x-a", b"1"), ("content-type", b"application/json")))
    assert json.loads(answer.body) == {"counts": [1, 2], "method": "DELETE"}
    assert host.slept == [10.0]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("request.method", "POST"),
        ("request.path", "/probe/x-1_~"),
        ("request.url", URL + "/probe/x-1_~?a=1&b=&a=%C3%A9+x"),
        ("request.query['a']", "1"),
        ("request.query.get_all('a')", "['1', 'é x']"),
        ("request.query.get_all('c')", "[]"),
        ("dict(request.query)", "{'a': '1', 'b': ''}"),
        ("request.query.pairs()", "[('a', '1'), ('b', ''), ('a', 'é x')]"),
        ("('A' in request.query, len(request.query))", "(False, 2)"),
        ("request.headers['X-ONE']", "1"),
        ("request.headers.get_all('x-oNe')", "['1', '2']"),
        ("request.headers.get('none')", "None"),
        ("request.headers['odd']", "ÿ"),
        ("sorted(request.headers)", "['authorization', 'odd', 'x-one']"),
        ("type(request.body).__name__", "bytes"),
        ("ctx.database_identity.hex()", DATABASE.hex()),
        ("isinstance(ctx.timestamp, Timestamp)", "True"),
        ("0 <= ctx.rng.random() < 1", "True"),
        ("request", f"<Request POST {URL}/probe/x-1_~?a=1&b=&a=%C3%A9+x>"),
    ],
)
def test_a_request_says_what_was_asked(running: Running, source: str, expected: str) -> None:
    assert probe(running, f"out.append({source})", query="?a=1&b=&a=%C3%A9+x").body.decode() == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Response()", HttpResponse(200)),
        ("Response(b'x', status=599)", HttpResponse(599, (), b"x")),
        (
            "Response('x', headers={'Content-Type': 'text/html'})",
            HttpResponse(200, (("Content-Type", b"text/html"),), b"x"),
        ),
        (
            "Response(headers=[('Set-Cookie', 'a'), ('Set-Cookie', b'b')])",
            HttpResponse(200, (("Set-Cookie", b"a"), ("Set-Cookie", b"b"))),
        ),
        ("Response.json(None)", HttpResponse(200, (("content-type", b"application/json"),), b"null")),
        (
            "Response.json(['é'], headers={'content-type': 'a/b'})",
            HttpResponse(200, (("content-type", b"a/b"),), '["é"]'.encode()),
        ),
    ],
)
def test_a_response_is_sent_as_it_is(running: Running, source: str, expected: HttpResponse) -> None:
    assert probe(running, f"out.append({source})") == expected


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("Response(5)", "the body of a Response is bytes or str, got 5; Response.json(value) takes a value"),
        ("Response(status=199)", "a Response has a status from 200 to 599, got 199"),
        ("Response(status='200')", "a Response has a status from 200 to 599, got '200'"),
        ("Response(headers={'a:': 'b'})", "'a:' is no name of a header"),
        ("Response(headers={'a': 'b\\n'})", "the header a has no value 'b\\n': it is one line"),
        ("Response.json(object())", "not JSON serializable"),
        ("request.json()", "JSONDecodeError"),
        ("ctx.sender", "a route has no sender: nobody is authenticated; look at request.headers"),
        ("ctx.sender_auth", "a route has no sender_auth"),
        ("ctx.address", "a route has no address"),
        ("ctx.transact", "a plain route is one transaction and has no transact: make it async def to wait"),
        ("ctx.sleep", "a plain route is one transaction and has no sleep"),
        ("ctx.http", "a plain route is one transaction and has no http"),
        ("ctx.nothing", "has no attribute 'nothing'"),
    ],
)
def test_mistakes_in_a_handler_are_told(running: Running, source: str, text: str) -> None:
    with pytest.raises(ModuleFault) as caught:
        probe(running, source)
    assert text in (caught.value.report or "")
    assert caught.value.filename == "chat.py"


def test_a_waiting_handler_has_no_tables(running: Running) -> None:
    with pytest.raises(ModuleFault) as caught:
        probe(running, "ctx.db", waits=True)
    assert "the context of an async route has no db: tables change in transactions alone" in (caught.value.report or "")
    assert probe(running, "out.append(ctx.now() == ctx.timestamp)", waits=True).body == b"True"


def test_what_is_no_response_rolls_back_and_names_the_route() -> None:
    source = """
        from stdb import *

        @table
        class Hit:
            id: u64 = primary_key(auto_inc=True)

        @http_route("GET", "/a")
        def a(ctx: HttpContext, request: Request) -> Response:
            ctx.db[Hit].insert(Hit())
            return "text"
        """
    running = Running(source)
    with pytest.raises(ModuleFault) as caught:
        running.route(HttpRequest("GET", URL + "/a"), "/a")
    assert "the route a returns a Response, got 'text'" in (caught.value.report or "")
    assert (caught.value.filename, caught.value.line) == ("chat.py", 8)
    assert running.rows("hit") == []


def findings(source: str) -> list[str]:
    with pytest.raises(SchemaError) as caught:
        load("from stdb import *\n" + source)
    return caught.value.errors


HANDLER = "def f(ctx: HttpContext, request: Request) -> Response: ...\n"
WANTED = 'the path is "" or begins with /, and has lower-case letters, digits and -_~/ only'


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("@http_route('GET', 'hello')\n" + HANDLER, f"chat.py:2: http_route('GET', 'hello'): {WANTED}"),
        ("@http_route('GET', '/Hello')\n" + HANDLER, f"chat.py:2: http_route('GET', '/Hello'): {WANTED}"),
        ("@http_route('GET', '/{id}')\n" + HANDLER, f"chat.py:2: http_route('GET', '/{{id}}'): {WANTED}"),
        ("@http_route('GET', None)\n" + HANDLER, f"chat.py:2: http_route('GET', None): {WANTED}"),
        (
            "@http_route('', '/x')\n" + HANDLER,
            "chat.py:2: http_route('', '/x'): the method is a text such as \"GET\", or None for any",
        ),
        (
            "@http_route('GET', '/x')\ndef f(ctx: HttpContext) -> Response: ...\n",
            "chat.py:2: f takes 1 parameters: write def f(ctx: HttpContext, request: Request) -> Response",
        ),
        (
            "@http_route('GET', '/x')\ndef f(ctx: HttpContext, request: Request) -> Response: yield 1\n",
            "chat.py:2: f is a generator: the handler of a route returns a Response",
        ),
        (
            "f = http_route('GET', '/x')(len)\n",
            "chat.py:2: the handler of a route is a function, got <built-in function len>",
        ),
        (
            "@http_route('GET', '/x')\n" + HANDLER + "@http_route('get', '/x')\n" + HANDLER.replace("f(", "g("),
            "chat.py:4: the route GET '/x' is taken by f at chat.py:2: change one",
        ),
        (
            "@http_route('GET', '/x')\n" + HANDLER + "@http_route('any', '/x')\n" + HANDLER.replace("f(", "g("),
            "chat.py:4: the route of any method '/x' is taken by f at chat.py:2: change one",
        ),
        (
            "@http_route('GET', '/x')\n" + HANDLER + "@http_route('GET', '/y')\n" + HANDLER,
            "chat.py:4: two handlers of routes are called f; the other is at chat.py:2: rename one",
        ),
    ],
)
def test_a_route_that_cannot_be_is_refused_with_its_line(source: str, expected: str) -> None:
    assert findings(source) == [expected]


def test_a_handler_may_have_the_name_of_a_reducer() -> None:
    source = "from stdb import *\n@reducer\ndef f(ctx: ReducerContext) -> None: ...\n@http_route('GET', '')\n" + HANDLER
    assert load(source).definition.http_handlers == ("f",)
