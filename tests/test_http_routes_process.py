"""Routes and procedures in a server of its own process: over sockets, through `kill -9`, by the command line."""

import json
import socket
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.cli_harness import own_place, run
from tests.interop.processes import WAIT_SECONDS, Server, start_server

pytestmark = pytest.mark.slow
SOURCE = """
from stdb import *

@table(public=True)
class Hit:
    id: u64 = primary_key(auto_inc=True)
    who: str

@http_route("POST", "/hit")
def hit(ctx: HttpContext, request: Request) -> Response:
    ctx.db[Hit].insert(Hit(who=request.text))
    return Response(str(len(ctx.db[Hit])))

@http_route("GET", "/nap")
async def nap(ctx: HttpContext, request: Request) -> Response:
    print("napping")
    try:
        await ctx.sleep(600)
    finally:
        print("woken")
    return Response()

@http_route("GET", "/hang")
def hang(ctx: HttpContext, request: Request) -> Response:
    while True:
        pass

@procedure
async def count(ctx: ProcedureContext, after: float) -> u64:
    await ctx.sleep(after)
    return await ctx.transact(lambda tx: len(tx.db[Hit]))
"""
URL = "/v1/database/hits/route"


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory, own_place(Path(directory) / "home"):
        (Path(directory) / "hits.py").write_text(SOURCE)
        yield Path(directory)


def serve(place: Path, *arguments: str) -> Server:
    return start_server("--data-dir", str(place / "data"), *arguments)


def ask(server: Server, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, str]:
    connection = HTTPConnection(server.address, timeout=20)
    connection.request(method, path, body, **options)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def logs(server: Server) -> str:
    ran = run("logs", "hits", "-s", server.http)
    assert ran.code == 0, ran.err
    return ran.out


def wait_for_log(server: Server, line: str) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while line not in logs(server):
        assert time.monotonic() < end, f"{line!r} is not in the log:\n{logs(server)}"


def test_routes_and_procedures_of_a_published_module(place: Path) -> None:
    server = serve(place, "--publish", f"{place / 'hits.py'}=hits")
    try:
        server.lines.until("published hits")
        assert ask(server, "POST", f"{URL}/hit", b"one") == (200, "1")
        chunks = iter([b"in ", b"chunks"])
        assert ask(server, "POST", f"{URL}/hit", chunks, encode_chunked=True) == (200, "2")
        assert ask(server, "GET", f"{URL}/hang") == (500, "The handler of this route took too long and was stopped.")
        ran = run("call", "hits", "count", "0.1", "-s", server.http)
        assert ran == (0, "2\n", "")

        with socket.create_connection(tuple(server.address.rsplit(":", 1))) as client:  # type: ignore[arg-type]
            client.sendall(f"GET {URL}/nap HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            wait_for_log(server, "napping")
            assert "woken" not in logs(server)
        wait_for_log(server, "woken")

        assert ask(server, "POST", f"{URL}/hit", b"last") == (200, "3")
    finally:
        server.kill()
    again = serve(place)
    try:
        assert ask(again, "POST", f"{URL}/hit", b"after the crash") == (200, "4")
        headers = {"Content-Type": "application/json"}
        assert ask(again, "POST", "/v1/database/hits/call/count", json.dumps([0]), headers=headers) == (200, "4")
    finally:
        assert again.stop() == 0
