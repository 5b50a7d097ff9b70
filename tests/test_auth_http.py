"""Credentials over HTTP: where they may stand, who they are, and that they are never lost on the way."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from stdb.net.routes_publish import PYTHON_MAGIC
from stdb.net.tokens import ServerKey, Tokens
from stdb.testing.modules import FunctionModule
from tests.http_harness import Door, bearer, open_door
from tests.test_auth_tokens import KEY

RECORDED = json.loads((Path(__file__).parent / "vectors/recorded_http/tokens.json").read_text())["tokens"]
FIRST, SECOND = (
    KEY.sign(f'{{"sub":"{subject}","iss":"localhost","aud":["spacetimedb"],"iat":1737665769,"exp":null}}')
    for subject in ("s1", "s2")
)
BASIC = "Basic dG9rZW46eA=="
S1 = "c20015aa87b5f8287369580598bb71b8ed355842522689cbbc2ae83ca24e2e78"

TRANSPORT: dict[str, tuple[dict[str, str], str]] = {
    "transport query good": ({}, f"?token={FIRST}"),
    "transport query bad": ({}, "?token=nonsense"),
    "transport query and header": (bearer(SECOND), f"?token={FIRST}"),
    "transport basic 0.11": ({"Authorization": BASIC}, ""),
    "transport query basic 0.11": ({}, "?token=dG9rZW46eA"),
    "transport no auth": ({}, ""),
    "transport no space": ({"Authorization": f"Bearer{FIRST}"}, ""),
    "transport token scheme": ({"Authorization": f"Token {FIRST}"}, ""),
    "transport bare": ({"Authorization": FIRST}, ""),
    "transport cookie": ({"Cookie": f"token={FIRST}"}, ""),
    "trailing space": ({"Authorization": f"Bearer {FIRST} "}, ""),
    "double space": ({"Authorization": f"Bearer  {FIRST}"}, ""),
}


def run(test: Callable[[Door], Awaitable[None]], key: ServerKey = KEY) -> None:
    async def main() -> None:
        with trio.fail_after(10):
            async with open_door({PYTHON_MAGIC: lambda: FunctionModule([], {})}, tokens=Tokens(key)) as door:
                await test(door)

    trio.run(main)


@pytest.mark.parametrize("name", list(TRANSPORT))
def test_credentials_are_looked_for_where_the_real_server_looks(name: str) -> None:
    [entry] = [entry for entry in RECORDED if entry["id"] == name]
    headers, query = TRANSPORT[name]

    async def test(door: Door) -> None:
        assert (await door.publish(door.tokens.mint(), "kitchen", PYTHON_MAGIC)).status == 200
        answer = await door.send("GET", f"/v1/database/kitchen/names{query}", headers)
        assert answer.status == entry["status"]
        if entry["status"] != 200:
            assert answer.text == entry["body"]
            assert "spacetime-identity" not in answer.headers
        elif entry.get("is_s1", entry["identity"] == S1):
            assert (answer.headers["spacetime-identity"], answer.headers["spacetime-identity-token"]) == (S1, FIRST)
        elif entry.get("is_s2"):
            assert answer.headers["spacetime-identity"] == entry["identity"]
        else:
            assert answer.headers["spacetime-identity"] not in (S1, entry["identity"])

    run(test)


def test_the_same_token_is_the_same_identity_at_every_database() -> None:
    async def test(door: Door) -> None:
        owner = door.tokens.mint()
        seen = set()
        for name in ("one", "two"):
            assert (await door.publish(owner, name, PYTHON_MAGIC)).status == 200
            answer = await door.send("GET", f"/v1/database/{name}/names", bearer(FIRST))
            seen.add((answer.headers["spacetime-identity"], answer.headers["spacetime-identity-token"]))
        assert seen == {(S1, FIRST)}

    run(test)


def test_another_instance_refuses_a_token_instead_of_making_its_bearer_anonymous() -> None:
    async def test(door: Door) -> None:
        for method, path in (
            ("GET", "/v1/database/x/names"),
            ("GET", "/v1/ping"),
            ("POST", "/v1/identity/websocket-token"),
            ("POST", "/v1/database/x/call/f"),
            ("POST", "/v1/database/x/sql"),
            ("GET", "/v1/database/x/subscribe"),
            ("DELETE", "/v1/database/x"),
        ):
            answer = await door.send(method, path, bearer(FIRST))
            assert (answer.status, answer.text) == (401, "Invalid token: InvalidSignature")
            assert "spacetime-identity" not in answer.headers

    run(test, ServerKey.generate())


def test_an_anonymous_owner_keeps_the_database_with_the_minted_token() -> None:
    async def test(door: Door) -> None:
        created = await door.send("PUT", "/v1/database/mine?host_type=Python", {}, PYTHON_MAGIC)
        token = created.headers["spacetime-identity-token"]
        assert (await door.send("DELETE", "/v1/database/mine")).status == 403
        assert (await door.send("DELETE", "/v1/database/mine", bearer(token))).status == 200

    run(test)


def test_every_answer_of_a_database_route_names_a_fresh_caller() -> None:
    async def test(door: Door) -> None:
        callers = {(await door.send("GET", "/v1/database/nosuch")).headers["spacetime-identity"] for _ in range(5)}
        assert len(callers) == 5

    run(test)
