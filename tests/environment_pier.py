"""A module that reads environment variables wherever it can."""

from stdb import (
    AnonymousViewContext,
    HttpContext,
    ProcedureContext,
    ReducerContext,
    Request,
    Response,
    environment_variable,
    http_route,
    init,
    procedure,
    product,
    reducer,
    table,
    view,
)

FLAG = environment_variable("FLAG")
PILOT = environment_variable("PILOT", optional=True)
WEATHER = environment_variable("WEATHER", optional=True, choices=["calm", "half a gale"])


@table(public=True)
class Note:
    text: str


@product
class Shown:
    text: str


@init
def opened(ctx: ReducerContext) -> None:
    ctx.db[Note].insert(Note(text=f"opened under {ctx.env[FLAG]}"))


@reducer
def observe(ctx: ReducerContext, name: str) -> None:
    ctx.db[Note].insert(Note(text=repr(ctx.env.get(name))))


@reducer
def insist(ctx: ReducerContext, name: str) -> None:
    ctx.db[Note].insert(Note(text=ctx.env[name]))


@view(public=True)
def flag(ctx: AnonymousViewContext) -> list[Shown]:
    return [Shown(text=f"{ctx.env[FLAG]} with {ctx.env.get(PILOT)}")]


def _inside(ctx: ReducerContext) -> str | None:
    return ctx.env.get(PILOT)


@procedure
async def flag_now(ctx: ProcedureContext) -> str:
    outside = ctx.env[FLAG]
    return f"{outside} {await ctx.transact(_inside)} {ctx.env!r}"


@http_route("GET", "/flag")
def flag_route(ctx: HttpContext, request: Request) -> Response:
    return Response(ctx.env[FLAG])


@http_route("GET", "/waiting")
async def waiting_route(ctx: HttpContext, request: Request) -> Response:
    return Response(ctx.env[FLAG])
