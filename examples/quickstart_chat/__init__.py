"""A chat room: who is there, what they are called, what they say.

Publish it with `python -m stdb publish -p examples/quickstart_chat quickstart-chat`.
A page for it is in `examples/web_chat`.
"""

from stdb import (
    Identity,
    ReducerContext,
    SenderError,
    Timestamp,
    client_connected,
    client_disconnected,
    index,
    primary_key,
    reducer,
    table,
    u64,
)


@table(public=True)
class User:
    identity: Identity = primary_key()
    name: str | None = None
    online: bool = False


@table(public=True)
class Message:
    id: u64 = primary_key(auto_inc=True)
    sender: Identity = index()
    sent: Timestamp
    text: str


@reducer
def set_name(ctx: ReducerContext, name: str) -> None:
    if not name.strip():
        raise SenderError("a name must not be empty")
    user = ctx.db[User].get(ctx.sender)
    if user is None:
        raise SenderError("connect before you choose a name")
    user.name = name
    ctx.db[User].update(user)


@reducer
def send_message(ctx: ReducerContext, text: str) -> None:
    if not text.strip():
        raise SenderError("a message must not be empty")
    ctx.db[Message].insert(Message(sender=ctx.sender, sent=ctx.timestamp, text=text))


@client_connected
def connected(ctx: ReducerContext) -> None:
    user = ctx.db[User].get(ctx.sender) or ctx.db[User].insert(User(identity=ctx.sender))
    user.online = True
    ctx.db[User].update(user)


@client_disconnected
def disconnected(ctx: ReducerContext) -> None:
    if user := ctx.db[User].get(ctx.sender):
        user.online = False
        ctx.db[User].update(user)
