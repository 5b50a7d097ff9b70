"""The chat as the Rust programs know it, its `user` and `message` being views, with procedures beside the reducers."""

from stdb import (
    AnonymousViewContext,
    Identity,
    ProcedureContext,
    Query,
    ReducerContext,
    SenderError,
    Timestamp,
    ViewContext,
    client_connected,
    client_disconnected,
    index,
    primary_key,
    procedure,
    product,
    reducer,
    table,
    u32,
    u64,
    view,
)


@table
class Person:
    identity: Identity = primary_key()
    name: str | None = None
    online: bool = False


@table
class Post:
    id: u64 = primary_key(auto_inc=True)
    sender: Identity = index()
    sent: Timestamp
    text: str


@product
class User:
    identity: Identity
    name: str | None
    online: bool


@product
class Posted:
    id: u64
    words: list[str]
    left: u32 | None


@view(public=True, primary_key="identity")
def user(ctx: AnonymousViewContext) -> list[User]:
    return [User(identity=each.identity, name=each.name, online=each.online) for each in ctx.db[Person]]


@view(public=True)
def message(ctx: ViewContext) -> Query[Post]:
    return ctx.db[Post].query(Post.sender == ctx.sender)


@client_connected
def connected(ctx: ReducerContext) -> None:
    ctx.db[Person].insert_or_update(Person(identity=ctx.sender, online=True))


@client_disconnected
def disconnected(ctx: ReducerContext) -> None:
    if person := ctx.db[Person].get(ctx.sender):
        person.online = False
        ctx.db[Person].update(person)


@reducer
def set_name(ctx: ReducerContext, name: str) -> None:
    ctx.db[Person].update(Person(identity=ctx.sender, name=name, online=True))


@reducer
def send_message(ctx: ReducerContext, text: str) -> None:
    _post(ctx, ctx.sender, text)


def _post(tx: ReducerContext, sender: Identity, text: str) -> Post:
    if not text:
        raise SenderError("a message must not be empty")
    return tx.db[Post].insert(Post(sender=sender, sent=tx.timestamp, text=text))


@procedure
async def post_later(ctx: ProcedureContext, text: str) -> Posted:
    await ctx.sleep(0.01)
    post = await ctx.transact(_post, ctx.sender, text)
    return Posted(id=post.id, words=text.split(), left=None)
