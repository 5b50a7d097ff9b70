"""What type checkers refuse. A comment names the checkers that report the line; all other lines are right."""
# ruff: noqa: T201, B018

from stdb import Identity, ReducerContext, SenderError, index, primary_key, product, reducer, table, u32, u64


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
def returns(ctx: ReducerContext) -> int:
    return 3


@table(publik=True)  # mypy pyright
class Odd:
    id: u32 = primary_key(kind="hash")  # mypy pyright
