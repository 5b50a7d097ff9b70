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


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"\0asm\1\0\0\0", "unable to determine ABI of module"),
        (b"print()", "neither a packed Python module nor WebAssembly"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(program: bytes, message: str) -> None:
    with pytest.raises((SchemaError, ModuleFault), match=message):
        assert load_aside(program) is None, "it is no WebAssembly"
        load_program(program)
