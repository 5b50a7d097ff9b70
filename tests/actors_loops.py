"""Reducers that do not end; a Python module of their own, so that a deadline can tell its frames."""

from typing import Any

from stdb.errors import ReducerTimeout
from stdb.sats.types import I64, STRING, U64
from stdb.testing.modules import Context, FunctionModule, Reader, reducer, table, view

ROW = table("row", {"id": U64, "text": STRING}, primary_key="id", auto_inc=True)
TAG = table("tag", {"id": U64, "number": I64}, primary_key="id")


def spin(ctx: Context) -> None:
    ctx.insert("row", 0, "never")
    while True:
        pass


def write_forever(ctx: Context) -> None:
    while True:
        ctx.insert("row", 0, "x" * 50)


def churn(ctx: Context) -> None:
    number = 0
    while True:
        number += 1
        ctx.insert("tag", number % 50, number) if number % 3 else None
        for row in ctx.rows("tag"):
            ctx.delete("tag", *row)


def catch(ctx: Context) -> None:
    ctx.insert("row", 0, "never")
    try:
        while True:
            pass
    except ReducerTimeout:
        return


def from_library(ctx: Context) -> None:
    import re

    ctx.insert("row", 0, "never")
    while True:
        re.sub("a(b)?", lambda match: "c", "ab" * 10)


def add(ctx: Context) -> None:
    ctx.insert("row", 0, "stays")


def is_module_frame(frame: Any) -> bool:
    """Tell whether a frame runs code of this file."""
    return frame.f_globals.get("__name__") == __name__


def loops() -> FunctionModule:
    """Return a fresh module."""
    reducers = (spin, write_forever, churn, catch, from_library, add)
    return FunctionModule([ROW, TAG], {run.__name__: reducer(run) for run in reducers})


def patient(read: Reader) -> list[Any]:
    """Never end once there is a row."""
    while read.rows("row"):
        pass
    return []


def endless(_read: Reader) -> list[Any]:
    while True:
        pass


def looping_views() -> FunctionModule:
    """Return a fresh module whose views do not end."""
    views = {"patient": view(patient, "row"), "endless": view(endless, "row", anonymous=True)}
    return FunctionModule([ROW], {"add": reducer(add)}, views=views)
