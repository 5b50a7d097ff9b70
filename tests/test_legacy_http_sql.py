"""Statements of 0.11: any number in one transaction, told as one event, whatever is sent refused with a reason."""

import pytest
import trio

from stdb.actors.handle import DatabaseHandle
from stdb.errors import QueryError
from stdb.net.legacy_paths import PREFIXES
from stdb.net.routes_publish import PYTHON_MAGIC
from stdb.sql import OLD
from stdb.testing.hosts import TestClient, identity
from stdb.testing.sinks import Updated
from tests.actors_chat import chat
from tests.http_harness import Door, open_door
from tests.test_actors_database import OWNER, in_chat, text
from tests.test_actors_statements import next_offset


@in_chat
async def test_statements_of_one_body_are_one_transaction_and_one_event(handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    await ann.subscribe(7, "SELECT * FROM events")
    before = next_offset(handle)
    body = "INSERT INTO events VALUES ('a'); INSERT INTO events VALUES ('b'); SELECT * FROM events WHERE what = 'b'"
    (result,) = await handle.statements(OWNER, body, OLD)
    assert result.rows == [("b",)], "a SELECT sees what was written before it"
    assert next_offset(handle) == before + 1, "nobody connects for it"
    (update,) = ann.messages(Updated)
    assert isinstance(update, Updated)
    ((fragment,),) = [each.fragments for each in update.update.sets]
    assert sorted(fragment.inserts) == [text("a"), text("b")]
    assert (update.event.caller, update.event.caller_connection_id, update.event.reducer_name) == (OWNER, None, "")


@in_chat
async def test_statements_are_all_compiled_before_one_runs(handle: DatabaseHandle) -> None:
    before = next_offset(handle)
    with pytest.raises(QueryError, match="no such table: `nope`"):
        await handle.statements(OWNER, "INSERT INTO events VALUES ('a'); SELECT * FROM nope", OLD)
    assert next_offset(handle) == before


@in_chat
async def test_others_than_the_owner_change_nothing_and_see_no_settings(handle: DatabaseHandle) -> None:
    for body in ("SELECT * FROM events; DELETE FROM events", "SET row_limit = 5", "SHOW row_limit"):
        with pytest.raises(QueryError, match="not authorized"):
            await handle.statements(identity(9), body, OLD)


@in_chat
async def test_settings_are_replaced_and_shown_with_their_names(handle: DatabaseHandle) -> None:
    body = "SET row_limit = 5; SET row_limit = 6; SHOW row_limit; DELETE FROM st_var WHERE name = 'row_limit'"
    (result,) = await handle.statements(OWNER, body, OLD)
    assert result.rows == [("row_limit", (8, 6))]


@in_chat
async def test_values_go_to_the_columns_that_are_named(handle: DatabaseHandle) -> None:
    (result,) = await handle.statements(
        OWNER, "INSERT INTO secret (text, id) VALUES ('a', 1), ('b', 2); SELECT * FROM secret", OLD
    )
    assert sorted(result.rows) == [(1, "a"), (2, "b")]
    for body in ("INSERT INTO events (what, what) VALUES ('a', 'b')", "INSERT INTO events (nope) VALUES ('a')"):
        with pytest.raises(QueryError, match=r"Duplicate name|does not have a field"):
            await handle.statements(OWNER, body, OLD)


@in_chat
async def test_no_statement_has_no_result(handle: DatabaseHandle) -> None:
    for body in ("", " ", ";", " ;; "):
        assert await handle.statements(OWNER, body, OLD) == []


PROGRAM = PYTHON_MAGIC + b"chat"
HOSTILE = (
    ("GET", "/database/dns/%ff%fe", b"", ""),
    ("GET", "/database/info/%00", b"", ""),
    ("GET", "/database/logs/chat?num_lines=1&num_lines=2", b"", ""),
    ("GET", "/database/logs/chat?num_lines=99999999999999999999", b"", ""),
    ("GET", "/database/logs/chat?follow=%ff", b"", ""),
    ("GET", "/database/schema/chat?expand=perhaps", b"", ""),
    ("GET", "/database/set_name?domain=a&domain=b&address=zz", b"", ""),
    ("POST", "/database/publish?clear=maybe", b"x", ""),
    ("POST", "/database/publish?client_address=zz", b"x", ""),
    ("POST", "/database/publish?name_or_address=%2F", b"x", ""),
    ("POST", "/database/call/chat/say?client_address=00", b"[]", ""),
    ("POST", "/database/call/chat/nope", b"[" * 100_000, "application/x-www-form-urlencoded"),
    ("POST", "/database/call/chat/say", b"\xff", "image/png"),
    ("POST", "/database/sql/chat", b"\xff\xfe", ""),
    ("POST", "/database/sql/chat", b"(" * 100_000, "application/json"),
    ("POST", "/database/sql/chat", b"SELECT * FROM events WHERE " + b"what = 'a' OR " * 20_000 + b"what = 'b'", ""),
    ("POST", "/database/sql/chat", b"SELECT * FROM events" + b";SELECT" * 10_000, "text/html"),
    ("POST", "/database/sql/chat", b"SHOW " + b"x" * 100_000, ""),
    ("POST", "/database/sql/0xzz", b"SELECT 1", ""),
    ("POST", "/identity?email=%ff", b"", ""),
    ("GET", "/identity/%zz/databases", b"", ""),
    ("PUT", "/energy/00?amount=-1", b"", ""),
)


async def published(door: Door) -> dict[str, str]:
    """Publish the chat; return the headers of its owner."""
    minted = (await door.send("POST", "/identity")).document
    headers = {"Authorization": f"Bearer {minted['token']}"}
    answer = await door.send("POST", "/database/publish?name_or_address=chat", headers, PROGRAM)
    assert answer.status == 200, answer.text
    return headers


def test_whatever_is_sent_to_the_routes_of_0_11_is_refused_and_breaks_nothing() -> None:
    async def main() -> None:
        with trio.fail_after(60):
            async with open_door({PROGRAM: chat}) as door:
                owner = await published(door)
                found = []
                for method, path, body, content_type in HOSTILE:
                    headers = owner | ({"Content-Type": content_type} if content_type else {})
                    answer = await door.send(method, path, headers, body)
                    if not 400 <= answer.status < 500:
                        found.append((answer.status, method, path, body[:40], answer.text[:200]))
                assert not found
                assert (await door.send("POST", "/database/sql/chat", owner, "SELECT * FROM events")).status == 200

    trio.run(main)


def test_two_hundred_callers_at_once_are_all_answered() -> None:
    async def main() -> None:
        statuses: list[int] = []
        with trio.fail_after(60):
            async with open_door({PROGRAM: chat}) as door:
                owner = await published(door)

                async def ask(place: int) -> None:
                    prefix = PREFIXES[place % len(PREFIXES)]
                    body = f"INSERT INTO events VALUES ('{place}'); SELECT * FROM events WHERE what = '{place}'"
                    answer = await door.send("POST", f"{prefix}/database/sql/chat", owner, body)
                    statuses.append(answer.status)
                    assert answer.document[0]["rows"] == [[str(place)]]

                async with trio.open_nursery() as nursery:
                    for place in range(200):
                        nursery.start_soon(ask, place)
        assert statuses == [200] * 200

    trio.run(main)
