"""A server killed with clients of 0.7 and 0.11 connected: each leaves once, and comes back with its token."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.processes import Server, start_server
from tests.interop.python_sdk import PythonDriver, bindings

pytestmark = pytest.mark.slow

MODULE = """
from stdb import Identity, ReducerContext, client_connected, client_disconnected, primary_key, reducer, table, u64

@table(name="Visit", public=True)
class Visit:
    n: u64 = primary_key(auto_inc=True)
    who: Identity
    what: str

@client_connected
def came(ctx: ReducerContext) -> None:
    ctx.db[Visit].insert(Visit(who=ctx.sender, what="came"))

@client_disconnected
def gone(ctx: ReducerContext) -> None:
    ctx.db[Visit].insert(Visit(who=ctx.sender, what="gone"))

@reducer
def wave(ctx: ReducerContext) -> None:
    ctx.db[Visit].insert(Visit(who=ctx.sender, what="waved"))
"""
VISITS = "SELECT * FROM Visit"


@pytest.fixture
def started() -> Iterator[list[PythonDriver]]:
    """The clients of a test, closed in the end."""
    drivers: list[PythonDriver] = []
    yield drivers
    for driver in drivers:
        driver.close()


def whats(server: Server, identity: str) -> list[str]:
    """Return what the module noted about someone, in order, as the operator reads it on disk."""
    rows = server.sql("visits", VISITS)
    return [row["what"] for row in sorted(rows, key=lambda row: row["n"]) if identity in str(row["who"])]


def test_the_python_sdk_leaves_once_and_comes_back_with_its_token(tmp_path: Path, started: list[PythonDriver]) -> None:
    source, data = tmp_path / "visits.py", tmp_path / "data"
    source.write_text(MODULE)
    server = start_server("--data-dir", str(data), "--publish", f"{source}=visits")
    try:
        server.operator = (data / "operator.token").read_text().strip()
        package = bindings(server, "visits", tmp_path / "generated" / "visits_bindings")

        def connect(kind: str) -> tuple[PythonDriver, str]:
            home = tmp_path / kind
            home.mkdir(exist_ok=True)
            started.append(PythonDriver(kind, package, home))
            started[-1].do("connect", host=server.address, database="visits", queries=[VISITS])
            identity = started[-1].wait("identity")["identity"]
            started[-1].wait("applied")
            return started[-1], identity

        identities = {}
        for kind in ("sync", "async"):
            client, identities[kind] = connect(kind)
            client.do("call", name="wave", args=[])
            assert client.wait("reducer")["status"] == "committed"
        for identity in identities.values():
            assert whats(server, identity) == ["came", "waved"]  # answered once it is on disk
        server.kill()

        server = start_server("--data-dir", str(data))
        server.operator = (data / "operator.token").read_text().strip()
        for kind, identity in identities.items():
            assert whats(server, identity) == ["came", "waved", "gone"]
            client, again = connect(kind)
            assert again == identity
            client.do("call", name="wave", args=[])
            assert client.wait("reducer")["status"] == "committed"
            assert whats(server, identity) == ["came", "waved", "gone", "came", "waved"]
        assert server.stop() == 0
    finally:
        server.kill()
