"""A module with views of every kind, for the tests of views; it counts how often each of them runs."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from stdb.errors import ReducerError
from stdb.modules.protocol import ViewSql
from stdb.sats.types import F64, I64, IDENTITY, STRING, U32, AlgebraicType, option
from stdb.testing.modules import Context, FunctionModule, Reader, reducer, table, view

__all__ = ["OWNER", "RUNS", "shop"]

OWNER = (99).to_bytes(32, "little")
RUNS: Counter[str] = Counter()
"""How often each view of the shops of this test has run."""

TABLES = [
    table("item", {"id": U32, "owner": IDENTITY, "kind": U32}, primary_key="id"),
    table("mark", {"owner": IDENTITY, "number": U32}, primary_key="owner"),
    table("trouble", {"what": STRING}),
    table("ping", {"id": U32, "owner": IDENTITY, "kind": U32}, event=True),
]


def mine(read: Reader) -> list[Any]:
    return [row for row in read.rows("item") if row[1] == read.sender]


def my_mark(read: Reader) -> list[Any]:
    assert read.sender is not None
    row = read.find("mark", read.sender[::-1])
    return [] if row is None else [row]


def everything(read: Reader) -> list[Any]:
    assert read.sender is None
    return [*read.rows("item"), *read.rows("item")]


def of_kind(read: Reader, kind: int) -> list[Any]:
    return [row for row in read.rows("item") if row[2] == kind]


def picky(read: Reader) -> list[Any]:
    rows = read.rows("item")
    for (what,) in read.rows("trouble"):
        if what == "refuse":
            raise ReducerError("not today")
        raise ValueError(what)
    return rows


def same_key(read: Reader) -> list[Any]:
    return [(1, OWNER, kind) for _, _, kind in read.rows("item")]


def by_query(read: Reader) -> ViewSql:
    texts = [what for (what,) in read.rows("trouble")]
    return ViewSql(texts[0] if texts else "SELECT * FROM item WHERE kind = 1")


def events(read: Reader) -> list[Any]:
    return read.rows("ping")


def other(read: Reader) -> list[Any]:
    return [row for row in read.rows("item") if row[2] == 2]


PARAMS: dict[str, AlgebraicType] = {"kind": U32}
VIEWS = {
    "mine": view(mine, "item", primary_key="id"),
    "my_mark": view(my_mark, "mark"),
    "everything": view(everything, "item", anonymous=True, primary_key="id"),
    "of_kind": view(of_kind, "item", PARAMS, anonymous=True),
    "picky": view(picky, "item", anonymous=True),
    "same_key": view(same_key, "item", anonymous=True, primary_key="id"),
    "one": view(lambda read: read.rows("item"), "item", anonymous=True, optional=True),
    "by_query": view(by_query, "item", anonymous=True),
    "by_query_as_one": view(by_query, "item", anonymous=True, optional=True),
    "events": view(events, "ping", anonymous=True),
    "hidden": view(everything, "item", anonymous=True, public=False),
    "typed": view(
        lambda read, *values: [(0, OWNER, 0)], "item", {"s": STRING, "i": I64, "f": F64, "o": IDENTITY}, anonymous=True
    ),
    "nested": view(lambda read, value: [], "item", {"p": option(U32)}, anonymous=True),
}


def _counted(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
    def counted(read: Reader, *values: Any) -> Any:
        RUNS[name] += 1
        return run(read, *values)

    return counted


def add(ctx: Context, number: int, kind: int) -> None:
    ctx.insert("item", number, ctx.call.sender, kind)


def drop(ctx: Context, number: int) -> None:
    for row in ctx.rows("item"):
        if row[0] == number:
            ctx.delete("item", *row)


def set_mark(ctx: Context, number: int) -> None:
    for row in ctx.rows("mark"):
        if row[0] == ctx.call.sender:
            ctx.delete("mark", *row)
    ctx.insert("mark", ctx.call.sender, number)


def make_trouble(ctx: Context, what: str) -> None:
    ctx.insert("trouble", what)


def calm(ctx: Context) -> None:
    for row in ctx.rows("trouble"):
        ctx.delete("trouble", *row)


def ping(ctx: Context) -> None:
    ctx.insert("ping", 1, ctx.call.sender, 1)
    ctx.insert("item", 50, ctx.call.sender, 1)


def shop(version: str = "1", **changes: Any) -> FunctionModule:
    """Return the module; `changes` are views in the place of its own, None for one that is gone."""
    chosen = {name: each for name, each in (VIEWS | changes).items() if each is not None}
    views = {
        name: view(
            _counted(name, each.run),
            each.of,
            {element.name: element.type for element in each.params.elements},
            public=each.options["is_public"],
            anonymous=each.options["is_anonymous"],
            primary_key=each.options["primary_key"],
            optional=each.optional,
        )
        for name, each in chosen.items()
    }
    reducers = {
        "add": reducer(add, {"number": U32, "kind": U32}),
        "drop": reducer(drop, {"number": U32}),
        "set_mark": reducer(set_mark, {"number": U32}),
        "make_trouble": reducer(make_trouble, {"what": STRING}),
        "calm": reducer(calm),
        "ping": reducer(ping),
    }
    return FunctionModule(TABLES, reducers, version=version, views=views)
