"""Which programs a server takes."""

import pytest

from stdb.errors import ModuleFault, SchemaError
from stdb.modules.python.archive import pack
from stdb.server import load_aside, load_program

ROUTED = b"""
from stdb import HttpContext, Request, Response, http_route

@http_route("GET", "/hello")
def hello(ctx: HttpContext, request: Request) -> Response:
    return Response("hello")
"""
PLAIN = b"""
from stdb import ReducerContext, reducer

@reducer
def hello(ctx: ReducerContext) -> None:
    pass
"""


def test_a_packed_python_module_is_loaded() -> None:
    assert load_program(pack({"routed.py": ROUTED})).definition.http_handlers == ("hello",)
    assert load_program(pack({"plain.py": PLAIN})).definition.reducer_id("hello") == 0


def test_webassembly_that_cannot_be_run_is_refused_by_name() -> None:
    with pytest.raises(ModuleFault, match="unable to determine ABI of module"):
        load_aside(b"\0asm\1\0\0\0")


def test_what_is_neither_is_refused_by_name() -> None:
    assert load_aside(b"print()") is None
    with pytest.raises(SchemaError, match="neither a packed Python module nor WebAssembly"):
        load_program(b"print()")
