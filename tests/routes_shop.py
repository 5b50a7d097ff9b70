"""A module `shop` with routes, published behind a front door."""

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from stdb.modules.protocol import Module
from stdb.modules.python.archive import pack
from stdb.server import load_program
from stdb.storage.settings import Own, Settings
from tests.http_harness import Door, open_door

__all__ = ["CORS", "PROGRAM", "SOURCE", "URL", "hits", "load", "run"]

SOURCE = """
import json
from stdb import *

@table(public=True)
class Hit:
    id: u64 = primary_key(auto_inc=True)
    who: str

def add(tx: ReducerContext, who: str) -> int:
    tx.db[Hit].insert(Hit(who=who))
    return len(tx.db[Hit])

def shown(request: Request) -> dict:
    return {
        "method": request.method, "url": request.url, "path": request.path, "query": request.query.pairs(),
        "headers": request.headers.pairs(), "text": request.text,
    }

@http_route("GET", "")
@http_route("GET", "/")
@http_route(None, "/see/it")
def see(ctx: HttpContext, request: Request) -> Response:
    return Response.json(shown(request))

@http_route("GET", "/hello")
@http_route("POST", "/hello")
def hello(ctx: HttpContext, request: Request) -> Response:
    who = request.query.get("who", "nobody")
    ctx.db[Hit].insert(Hit(who=who))
    if who == "unwanted":
        raise SenderError("go away, " + who)
    if who == "breaker":
        raise ValueError("a secret of the module's")
    return Response(f"hello {who}, you are {len(ctx.db[Hit])}", status=201, headers={"X-Made": "yes"})

@http_route("POST", "/slow")
async def slow(ctx: HttpContext, request: Request) -> Response:
    first = await ctx.transact(add, "before")
    await ctx.sleep(float(request.query.get("seconds", "0.01")))
    second = await ctx.transact(lambda tx: (add(tx, "after"), tx.sender.hex(), tx.address, tx.sender_auth))
    return Response.json([first, *second])

@http_route("POST", "/ended")
async def ended(ctx: HttpContext, request: Request) -> Response:
    try:
        await ctx.sleep(3600)
    finally:
        print("the handler was ended")
    return Response()

@http_route("GET", "/hang")
def hang(ctx: HttpContext, request: Request) -> Response:
    ctx.db[Hit].insert(Hit(who="hanging"))
    while True:
        pass

@http_route("GET", "/ahang")
async def ahang(ctx: HttpContext, request: Request) -> Response:
    while True:
        pass

@http_route(None, "/answer")
def answer(ctx: HttpContext, request: Request) -> Response:
    wanted = request.json()
    return Response(wanted.get("body", ""), status=wanted.get("status", 200), headers=wanted.get("headers", {}))

@http_route("POST", "/forge")
def forge(ctx: HttpContext, request: Request) -> Response:
    response = Response("x")
    for name, value in eval(request.text).items():
        setattr(response, name, value)
    return response
"""
CORS = {
    "vary": "origin, access-control-request-method, access-control-request-headers",
    "access-control-allow-origin": "*",
}
PROGRAM = pack({"shop.py": SOURCE.encode()})
SETTINGS = Settings(stdb=Own(route_bytes_max=1000))
URL = "/v1/database/shop/route"


def load() -> Module:
    return load_program(PROGRAM)


def run(test: Callable[[Door], Awaitable[None]], make: Callable[[], Module] = load, **options: Any) -> None:
    """Run a test with the module published as `shop`, in real time."""

    async def main() -> None:
        with trio.fail_after(15):
            async with open_door({PROGRAM: make}, **({"settings": SETTINGS} | options)) as door:
                owner = door.tokens.mint()
                assert (await door.publish(owner, "shop", PROGRAM)).status == 200
                await test(door)

    trio.run(main)


async def hits(door: Door) -> list[Any]:
    """Return who is in the table."""
    answer = await door.send("POST", "/v1/database/shop/sql", {}, "SELECT who FROM hit")
    return sorted(row[0] for row in answer.document[0]["rows"])
