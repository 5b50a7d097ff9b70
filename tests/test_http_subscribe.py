"""The upgrade to a WebSocket: every check of spec 02 section 3.2, in its order."""

from collections.abc import Awaitable, Callable

import pytest
import trio

from stdb.net.routes_publish import PYTHON_MAGIC
from stdb.testing.modules import FunctionModule
from tests.http_harness import Answer, Door, bearer, open_door

UPGRADE = {
    "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "v2.bsatn.spacetimedb",
}  # fmt: skip


def run(test: Callable[[Door], Awaitable[None]]) -> None:
    async def main() -> None:
        with trio.fail_after(10):
            async with open_door({PYTHON_MAGIC: lambda: FunctionModule([], {})}) as door:
                await door.publish(door.tokens.mint(), "chat", PYTHON_MAGIC)
                await test(door)

    trio.run(main)


def test_the_checks_come_in_the_order_of_the_real_server() -> None:
    """Everything is wrong at first; one thing after another is put right."""

    async def test(door: Door) -> None:
        wrong: dict[str, str] = {"Authorization": "Bearer x"}
        method, name, query = "POST", "No_Such", "?light=1&connection_id=" + "0" * 32

        async def ask() -> tuple[int, str, str | None]:
            answer: Answer = await door.send(method, f"/v1/database/{name}/subscribe{query}", wrong)
            return answer.status, answer.text, answer.headers.get("allow")

        assert await ask() == (401, "Invalid token: InvalidToken", "GET,HEAD")
        wrong = bearer(door.tokens.mint())
        assert await ask() == (405, "", "GET,HEAD")
        method = "HEAD"
        answer = await door.send(method, f"/v1/database/{name}/subscribe{query}", wrong)
        assert answer.status == 400
        method = "GET"
        assert await ask() == (400, "Invalid URL: invalid characters in database name", None)
        name = "nosuch"
        assert await ask() == (
            400, "Failed to deserialize query string: provided string was not `true` or `false`", None,
        )  # fmt: skip
        query, method = query.replace("light=1", "light=true"), "HEAD"
        assert await ask() == (405, "", "GET,HEAD")
        method = "GET"
        assert await ask() == (426, "This service requires use of the websocket protocol", None)
        wrong |= {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "8"}
        assert await ask() == (400, "`Sec-WebSocket-Version` header did not include '13'", None)
        wrong |= {"Sec-WebSocket-Version": "13"}
        assert await ask() == (400, "`Sec-WebSocket-Key` header missing", None)
        wrong |= UPGRADE | {"Sec-WebSocket-Protocol": "v9.bsatn.spacetimedb"}
        text = "Invalid connection ID: the all-zeros ConnectionId is reserved."
        assert await ask() == (400, text, None)
        query = ""
        assert await ask() == (404, "`nosuch` not found", None)
        name = "chat"
        assert await ask() == (400, "no valid protocol selected", None)
        wrong |= UPGRADE
        assert (await ask())[0] == 101

    run(test)


def test_the_name_of_a_deleted_database_is_not_found() -> None:
    async def test(door: Door) -> None:
        owner = door.tokens.mint()
        await door.publish(owner, "gone", PYTHON_MAGIC)
        await door.send("DELETE", "/v1/database/gone", bearer(owner))
        answer = await door.send("GET", "/v1/database/gone/subscribe", UPGRADE)
        assert (answer.status, answer.text) == (404, "`gone` not found")

    run(test)


@pytest.mark.parametrize(
    "headers",
    [
        {"Connection": "keep-alive, UPGRADE", "Upgrade": "WebSocket"},
        {"Sec-WebSocket-Key": "abc"},
        {"Sec-WebSocket-Protocol": "v1.json.spacetimedb, v2.bsatn.spacetimedb"},
        {"Sec-WebSocket-Extensions": "permessage-deflate", "Origin": "https://elsewhere.example"},
    ],
)
def test_what_clients_send_beside_is_accepted(headers: dict[str, str]) -> None:
    async def test(door: Door) -> None:
        answer = await door.send("GET", "/v1/database/chat/subscribe", UPGRADE | headers)
        assert answer.status == 101
        assert answer.headers["sec-websocket-protocol"] == "v2.bsatn.spacetimedb"
        assert "sec-websocket-extensions" not in answer.headers
        assert answer.headers["spacetime-identity"].startswith("c200")
        assert answer.headers["access-control-allow-origin"] == "*"

    run(test)


def test_a_token_of_the_query_string_comes_back_in_the_head() -> None:
    async def test(door: Door) -> None:
        who = door.tokens.mint()
        answer = await door.send("GET", f"/v1/database/chat/subscribe?token={who.token}", UPGRADE)
        assert answer.status == 101
        assert answer.headers["spacetime-identity"] == who.hex
        assert answer.headers["spacetime-identity-token"] == who.token

    run(test)
