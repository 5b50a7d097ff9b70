"""Mistakes that an author makes with functions: each is told with its line, what is wrong and what to write."""

import gc

import pytest

from stdb.errors import ModuleFault, SchemaError
from tests.python_module_harness import Host, Running, load

TOP = """from typing import Annotated, Any, TYPE_CHECKING
from stdb import *
@table(public=True)
class User:
    id: u64 = primary_key(auto_inc=True)
    name: str = ""
"""
"""Six lines."""


def findings(source: str) -> list[str]:
    with pytest.raises(SchemaError) as caught:
        load(f"{TOP}{source}\n")
    return caught.value.errors


# Names

LETTERS = "use letters, digits and underscores, a digit not first"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            "@reducer(name='my reducer')\ndef f(ctx: ReducerContext) -> None: ...",
            f"7: a reducer cannot be called 'my reducer': {LETTERS}, e.g. my_reducer",
        ),
        (
            "@procedure(name='a-b')\nasync def f(ctx: ProcedureContext) -> None: ...",
            f"7: a procedure cannot be called 'a-b': {LETTERS}, e.g. a_b",
        ),
        (
            "@view(name='9 lives')\ndef f(ctx: ViewContext) -> list[User]: ...",
            f"7: a view cannot be called '9 lives': {LETTERS}, e.g. _9_lives",
        ),
        ("@table(name='')\nclass T:\n    x: u32", f"7: a table cannot be called '': {LETTERS}, e.g. name"),
        ("other = table(User, name='x.y')", f"7: a table cannot be called 'x.y': {LETTERS}, e.g. x_y"),
        (
            "@reducer(name='')\ndef f(ctx: ReducerContext) -> None: ...",
            f"7: a reducer cannot be called '': {LETTERS}, e.g. name",
        ),
        (
            "@view(name=3)\ndef f(ctx: ViewContext) -> list[User]: ...",
            "7: a view cannot be called 3: a name is a text",
        ),
        ("reducer(lambda ctx: None)", "7: a reducer has a name: write it with def, not as a lambda"),
        (
            "http_route('GET', '/x')(lambda ctx, request: Response('x'))",
            "7: the handler of a route has a name: write it with def, not as a lambda",
        ),
        (
            "@view(name='st_table')\ndef f(ctx: ViewContext) -> list[User]: ...",
            "7: View name is reserved for system use: st_table",
        ),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_its_line(source: str, text: str) -> None:
    assert findings(source) == [f"chat.py:{text}"]


def test_what_an_author_reads_names_classes_as_they_are_written() -> None:
    (text,) = findings("@view\ndef f(ctx: ViewContext) -> list[User] | None: ...")
    assert text.startswith("chat.py:7: f() -> list[chat.User] | None is no result of a view: write list[Row], ")
    (text,) = findings("@view\nclass F: ...")
    assert text == "chat.py:7: a view is a plain function written with def, got <class 'chat.F'>"


# Contexts


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            "@reducer\ndef f(name: str) -> None: ...",
            "f(name) is where the context goes, not a str: write def f(ctx: ReducerContext, …)",
        ),
        (
            "@reducer\ndef f(amount: u32) -> None: ...",
            "f(amount) is where the context goes, not a u32: write def f(ctx: ReducerContext, …)",
        ),
        (
            "@reducer\ndef f(names: 'list[str]') -> None: ...",
            "f(names) is where the context goes, not a list[str]: write def f(ctx: ReducerContext, …)",
        ),
        (
            "@reducer\ndef f(ctx: ViewContext) -> None: ...",
            "f(ctx) is where the context goes, not a ViewContext: write def f(ctx: ReducerContext, …)",
        ),
        (
            "@init\ndef f(ctx: ProcedureContext) -> None: ...",
            "f(ctx) is where the context goes, not a ProcedureContext: write def f(ctx: ReducerContext, …)",
        ),
        (
            "@procedure\nasync def f(ctx: ReducerContext) -> None: ...",
            "f(ctx) is where the context goes, not a ReducerContext: write async def f(ctx: ProcedureContext, …)",
        ),
        (
            "@procedure\nasync def f(user: User | None) -> None: ...",
            "f(user) is where the context goes, not a chat.User | None: write async def f(ctx: ProcedureContext, …)",
        ),
        (
            "@http_route('GET', '/')\ndef f(ctx: ReducerContext, request: Request) -> Response: ...",
            "f(ctx) is where the context goes, not a ReducerContext: "
            "write def f(ctx: HttpContext, request: Request) -> Response",
        ),
        (
            "@http_route('GET', '/')\nasync def f(ctx: HttpContext, request: str) -> Response: ...",
            "f(request) is where the request goes, not a str: "
            "write async def f(ctx: HttpContext, request: Request) -> Response",
        ),
        (
            "@http_route('GET', '/')\ndef f(ctx: HttpContext, request: Request) -> str: ...",
            "f returns a Response, not a str: write def f(ctx: HttpContext, request: Request) -> Response",
        ),
        (
            "@http_route('GET', '/')\ndef f(ctx: HttpContext, *, request: Request) -> Response: ...",
            "f(request) is given by its place: write def f(ctx: HttpContext, request: Request) -> Response",
        ),
    ],
)
def test_a_parameter_in_the_place_of_another_is_refused_with_its_line(source: str, text: str) -> None:
    assert findings(source) == [f"chat.py:7: {text}"]


@pytest.mark.parametrize(
    ("source", "line", "text"),
    [
        ("class A:\n    @reducer\n    def r(self, ctx: ReducerContext) -> None: ...", 8, "r(ctx): a ReducerContext"),
        ("@procedure\nasync def r(ctx, tx: 'ReducerContext') -> None: ...", 7, "r(tx): a ReducerContext"),
        ("@view\ndef r(ctx: ViewContext, other: ViewContext) -> list[User]: ...", 7, "r(other): a ViewContext"),
    ],
)
def test_a_second_context_is_no_argument(source: str, line: int, text: str) -> None:
    written = "comes first and once, in a function outside of a class; arguments follow"
    assert findings(source) == [f"chat.py:{line}: {text} {written}"]


def test_contexts_may_be_written_in_every_way_that_says_no_other() -> None:
    load(
        f"""{TOP}
if TYPE_CHECKING:
    from elsewhere import Alias
Both = ReducerContext | ProcedureContext

class TypeAliasType:  # what `type Alias = …` makes from Python 3.12 on
    def __init__(self, value):
        self.__value__ = value

@reducer
def a(ctx) -> None: ...
@reducer
def b(ctx: "Alias") -> None: ...
@reducer
def c(ctx: "ReducerContext") -> None: ...
@reducer
def d(ctx: Any) -> None: ...
@reducer
def e(ctx: object) -> None: ...
@reducer
def f(ctx: Both) -> None: ...
@reducer
def j(ctx: Annotated[ReducerContext, "who calls"]) -> None: ...
@reducer
def k(ctx: TypeAliasType(Both)) -> None: ...
@procedure
async def g(ctx) -> None: ...
@http_route("GET", "/h")
def h(ctx, request): ...
@http_route("GET", "/i")
def i(ctx: "Alias", request: Any) -> "Alias": ...
"""
    )


# Schedules


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (
            "scheduled_id: str = primary_key()\n    scheduled_at: ScheduleAt",
            "9: T.scheduled_id: the key of a scheduled table is a u64: "
            "write scheduled_id: u64 = primary_key(auto_inc=True)",
        ),
        (
            "id: u32 = primary_key(auto_inc=True)",
            "9: T.id: the key of a scheduled table is a u64: write id: u64 = primary_key(auto_inc=True)",
        ),
        (
            "x: u32\n    scheduled_at: Timestamp",
            "10: T.scheduled_at: says when its row is due: write scheduled_at: ScheduleAt",
        ),
    ],
)
def test_a_scheduled_table_with_the_wrong_column_says_what_to_write(columns: str, text: str) -> None:
    source = f"@table(scheduled=True)\nclass T:\n    {columns}\n"
    source += "@reducer(scheduled=T)\ndef due(ctx: ReducerContext, timer: T) -> None: ..."
    assert findings(source) == [f"chat.py:{text}"]


# Defaults of parameters


def test_a_default_that_clients_never_get_is_warned_about_once() -> None:
    running = Running(
        f"""{TOP}
@reducer
def add(ctx: ReducerContext, name: str, count: u32 = 1) -> None: ...
@procedure
async def ask(ctx: ProcedureContext, name: str = "x") -> None: ...
@view
def below(ctx: ViewContext, id: u64 = 5) -> list[User]: return []
@reducer
def none(ctx: ReducerContext, name: str) -> None: ...
"""
    )
    text = "has a default, which only calls from Python get: clients send every argument"
    assert [(line["level"], line["line"], line["message"]) for line in running.log] == [
        ("Warn", 8, f"add(count) {text}"),
        ("Warn", 12, f"below(id) {text}"),
        ("Warn", 10, f"ask(name) {text}"),
    ]


# What was not awaited

ASK = TOP + (
    "def add(tx: ReducerContext, name: str) -> str:\n"
    "    return tx.db[User].insert(User(name=name)).name\n"
    "@procedure\n"
    "async def ask(ctx: ProcedureContext) -> str:\n"
)


def ask(body: str, host: Host | None = None) -> Running:
    running = Running(f"{ASK}    {body}\n")
    running.procedure("ask", host=host)
    gc.collect()
    return running


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        ("ctx.transact(add, 'x')", "ctx.transact(…)"),
        ("ctx.sleep(1)", "ctx.sleep(…)"),
        ("ctx.http.get('http://x/')", "ctx.http.get(…)"),
        ("ctx.http.post('http://x/', body='y')", "ctx.http.post(…)"),
        ("ctx.http.put('http://x/')", "ctx.http.put(…)"),
        ("ctx.http.delete('http://x/')", "ctx.http.delete(…)"),
        ("ctx.http.request('PATCH', 'http://x/')", "ctx.http.request(…)"),
    ],
)
def test_a_missing_await_is_told_with_its_line(call: str, shown: str) -> None:
    running = ask(f"{call}\n    return 'done'")
    (line,) = running.log
    assert (line["level"], line["filename"], line["line"], line["function"]) == ("Warn", "chat.py", 11, "ask")
    assert line["message"] == f"{shown} without await does nothing: write await {shown}"
    assert running.rows("user") == []


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            "return ctx.transact(add, 'x')",
            "procedure ask returned <ctx.transact(…) without await>, which does not fit its type",
        ),
        (
            "return ctx.transact(add, 'x').upper()",
            "ctx.transact(…) has no 'upper' before it is awaited: write (await ctx.transact(…)).upper",
        ),
        (
            "return 'a' if ctx.http.get('http://x/') else 'b'",
            "ctx.http.get(…) is neither true nor false before it is awaited: write await ctx.http.get(…)",
        ),
        (
            "wait = ctx.sleep(0)\n    await wait\n    await wait",
            "ctx.sleep(…) has been awaited already: call it again",
        ),
        (
            "return await ctx.transact(lambda tx: ctx.sleep(1))",
            "transact(): <lambda> returned <ctx.sleep(…) without await>, which never ran: "
            "there is no waiting inside a transaction",
        ),
        (
            "async def later(tx): ...\n    return await ctx.transact(lambda tx: later(tx))",
            "which never ran: there is no waiting inside a transaction",
        ),
        (
            "def several(tx):\n        yield tx.db[User].insert(User(name='x')).name\n"
            "    return await ctx.transact(several)",
            "which never ran: there is no waiting inside a transaction",
        ),
    ],
)
def test_what_was_not_awaited_is_no_value(body: str, text: str) -> None:
    running = Running(f"{ASK}    {body}\n")
    with pytest.raises(ModuleFault) as caught:
        running.procedure("ask")
    assert caught.value.report is not None
    assert text in caught.value.report
    assert (caught.value.filename, caught.value.line is None) == ("chat.py", False)
    assert running.rows("user") == []


def test_what_is_awaited_later_is_not_warned_about() -> None:
    running = ask("wait = ctx.transact(add, 'x')\n    await ctx.sleep(1)\n    return await wait")
    assert running.log == []
    assert [row[1] for row in running.rows("user")] == ["x"]


@pytest.mark.parametrize("name", ["transact", "sleep", "http", "now"])
def test_a_reducer_that_would_wait_is_told_what_does(name: str) -> None:
    running = Running(f"{TOP}@reducer\ndef f(ctx: ReducerContext) -> None:\n    ctx.{name}\n")
    with pytest.raises(ModuleFault) as caught:
        running.call("f")
    assert caught.value.report is not None
    assert f"a reducer's context has no {name}: it runs without waiting; use a @procedure" in caught.value.report
    assert (caught.value.filename, caught.value.line) == ("chat.py", 9)


@pytest.mark.parametrize(
    "result",
    ["ctx.db[User].filter(User.id > 0)", "(row for row in ctx.db[User])", "tuple(ctx.db[User])", "ctx.db[User]"],
)
def test_rows_that_are_no_list_yet_are_told_how_to_become_one(result: str) -> None:
    running = Running(f"{TOP}@view\ndef f(ctx: ViewContext) -> list[User]:\n    return {result}\n")
    with pytest.raises(ModuleFault) as caught:
        running.view("f")
    assert caught.value.report is not None
    assert "view f returns list[User], got " in caught.value.report
    assert caught.value.report.endswith(": write list(…) around it")


def test_a_result_of_a_procedure_that_has_none_is_told_so() -> None:
    running = Running(f"{TOP}@procedure\nasync def f(ctx: ProcedureContext) -> None:\n    return 5\n")
    with pytest.raises(ModuleFault) as caught:
        running.procedure("f")
    assert caught.value.report == "ValueError: procedure f returned 5, but it is annotated -> None"
