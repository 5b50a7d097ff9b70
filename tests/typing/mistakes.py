"""What type checkers refuse. A comment names the checkers that report the line; all other lines are right."""
# ruff: noqa: T201, B018

from stdb import (
    AnonymousViewContext,
    HttpContext,
    Identity,
    MigrationContext,
    OldRow,
    ProcedureContext,
    Query,
    ReducerContext,
    Request,
    Response,
    ScheduleAt,
    SenderError,
    ViewContext,
    http_route,
    index,
    init,
    migrate,
    primary_key,
    procedure,
    product,
    reducer,
    table,
    u32,
    u64,
    view,
)


@table(public=True)
class User:
    identity: Identity = primary_key()
    name: str | None = None
    online: bool = False


@table
class Message:
    id: u64 = primary_key(auto_inc=True)
    sender: Identity = index()
    text: str


@product
class Point:
    x: float
    y: float = "zero"  # mypy pyright


@reducer
def good(ctx: ReducerContext, name: str, count: u32) -> None:
    print(name, count)


@reducer
def mistakes(ctx: ReducerContext, who: Identity) -> None:
    user = ctx.db[User].get(who)
    user.name = "x"  # mypy pyright
    assert user is not None
    user.nmae = "x"  # mypy pyright
    user.name = 5  # mypy pyright
    User()  # mypy pyright
    User(who)  # mypy pyright
    User(identity=who, name=3)  # mypy pyright
    User(identity=who, age=3)  # mypy pyright
    Message(sender=who, text="", id=3)  # mypy pyright
    ctx.db[User].insert(Message(sender=who, text=""))  # mypy pyright
    ctx.db[Message].update(user)  # mypy pyright
    ctx.db[User].find(User.nmae == "x")  # mypy pyright
    ctx.db[User].find(User.name == 3)  # mypy pyright
    ctx.db[User].find(User.identity == who)
    ctx.db[User].find(User.identity == "abc")  # mypy pyright
    ctx.db[Message].filter(Message.id == "x")  # mypy pyright
    ctx.db[User].find("abc")  # mypy pyright
    ctx.db[User].filter(User.online, limit="3")  # mypy pyright
    ctx.db[User].nothing()
    ctx.db[Message].find(Message.id == 3).text  # mypy pyright
    for message in ctx.db[Message]:
        print(message.txt)  # mypy pyright
    good(ctx, 5, 3)  # mypy pyright
    good(ctx, "x")  # mypy pyright
    ctx.sendr  # mypy pyright
    ctx.db[User].get()  # mypy pyright
    raise SenderError(text="x")  # mypy pyright


@reducer  # mypy pyright
def wrong_context(ctx: ViewContext) -> None:
    print(ctx)


@reducer  # mypy pyright
def no_context(name: str) -> None:
    print(name)


@init  # mypy pyright
def with_argument(ctx: ReducerContext, name: str) -> None:
    print(ctx, name)


@view(public=True)  # mypy pyright
def reads_in_a_reducer(ctx: ReducerContext) -> list[User]:
    return list(ctx.db[User])


@view
def other_rows(ctx: AnonymousViewContext) -> list[User]:
    ctx.sender  # mypy pyright
    return list(ctx.db[Message])  # mypy pyright


@procedure  # mypy pyright
def waits_not(ctx: ProcedureContext) -> str:
    return ctx.sender.hex()


@procedure(private=True)  # mypy pyright
async def of_a_reducer(ctx: ReducerContext) -> str:
    return ctx.sender.hex()


@http_route("GET", "/text")  # mypy pyright
def text(ctx: HttpContext, request: Request) -> str:
    return request.text


@http_route("GET", "/later")
async def answers_later(ctx: HttpContext, request: Request) -> Response:
    return request.text  # mypy pyright


@reducer  # mypy pyright
def returns(ctx: ReducerContext) -> int:
    return 3


@table(publik=True)  # mypy pyright
class Odd:
    id: u32 = primary_key(kind="hash")  # mypy pyright


@table(scheduled=True)
class Tick:
    scheduled_at: ScheduleAt


@view
def views(ctx: ViewContext) -> Query[User]:
    ctx.db[User].insert(User(identity=ctx.sender))  # mypy pyright
    ctx.db[User].get(ctx.sender).name  # mypy pyright
    ctx.timestamp  # mypy pyright
    Tick(scheduled_at=5)  # mypy pyright
    Tick()  # mypy pyright
    return ctx.db[Message].query()  # mypy pyright


def book(tx: ReducerContext, name: str) -> u64:
    return len(name)


@procedure
async def procedures(ctx: ProcedureContext) -> str:
    ctx.db  # mypy pyright
    await ctx.transact(book)  # mypy pyright
    ctx.transact(book, "x")  # mypy pyright
    ctx.sleep(1)  # mypy pyright
    ctx.http.get("http://x/")  # mypy pyright
    ctx.transact(book, "x").real  # mypy pyright
    await ctx.transact(lambda tx: tx.db[User].get(tx.sender).name)  # mypy pyright
    await ctx.transact(lambda tx: tx.sendr)  # mypy pyright
    await ctx.transact(book, 5)  # mypy pyright
    await ctx.sleep("5")  # mypy pyright
    await ctx.http.get("x", timeout="5")  # mypy pyright
    return await ctx.transact(book, "x")  # mypy pyright


@http_route("GET", "/")
def route(ctx: HttpContext, request: Request) -> Response:
    ctx.sender  # mypy pyright
    return Response({"a": 1})  # mypy pyright


@migrate(User)  # mypy pyright
def migrates(old: OldRow, ctx: MigrationContext) -> Message | None:
    ctx.sender  # mypy pyright
    old.columns.name  # mypy pyright
    return None


@migrate("gone")  # mypy pyright
def migrates_gone(old: OldRow) -> None:
    print(old.anything)
