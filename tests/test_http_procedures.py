"""Procedures over HTTP: connecting around them, their results as JSON, how they end."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from stdb.actors import procedures
from stdb.actors.deadline import open_deadline
from stdb.modules.protocol import Module
from stdb.modules.python.archive import pack
from stdb.net.tokens import Credentials
from stdb.server import load_program
from stdb.testing.storage import MemoryStorage
from tests.http_harness import Answer, Door, bearer, open_door, open_socket

SOURCE = """
import datetime
from stdb import *

@table(public=True)
class Note:
    text: str

@table
class Visit:
    text: str

def note(tx: ReducerContext, text: str) -> int:
    tx.db[Note].insert(Note(text=text))
    return len(tx.db[Note])

@client_connected
def arrive(ctx: ReducerContext) -> None:
    if ctx.sender_auth.get("banned"):
        raise SenderError("you are banned")
    ctx.db[Visit].insert(Visit(text=f"came {ctx.address}"))

@client_disconnected
def leave(ctx: ReducerContext) -> None:
    ctx.db[Visit].insert(Visit(text=f"left {ctx.address}"))

@procedure
async def add(ctx: ProcedureContext, a: u32, b: u32) -> u32:
    return a + b

@procedure
async def store(ctx: ProcedureContext, text: str) -> list[str]:
    await ctx.transact(note, text)
    return [str(ctx.address), str(await ctx.transact(lambda tx: tx.address))]

@procedure
async def nap(ctx: ProcedureContext, seconds: float) -> None:
    await ctx.transact(note, "before")
    try:
        await ctx.sleep(seconds)
    finally:
        print("woken")
    await ctx.transact(note, "after")

@procedure
async def refuse(ctx: ProcedureContext) -> None:
    raise SenderError("not today")

@procedure
async def fault(ctx: ProcedureContext) -> None:
    raise ValueError("a secret")

@procedure
async def spin(ctx: ProcedureContext) -> None:
    while True:
        pass

@procedure
async def when(ctx: ProcedureContext, at: datetime.datetime) -> str:
    return at.isoformat()

@procedure(private=True)
async def mine(ctx: ProcedureContext) -> str:
    return "yours"

@reducer
def say(ctx: ReducerContext, text: str) -> None:
    note(ctx, text)

@procedure
async def claims(ctx: ProcedureContext) -> list[str]:
    inside = await ctx.transact(lambda tx: tx.sender_auth)
    return [repr(sorted(ctx.sender_auth.items())), str(inside == ctx.sender_auth), str(ctx.sender)]

@reducer
def keep_claims(ctx: ReducerContext) -> None:
    note(ctx, f"{ctx.sender_auth['sub']} {ctx.sender_auth['role']['of']} {ctx.sender_auth['iss']}")

@view(public=True)
def who(ctx: ViewContext) -> list[Note]:
    return [Note(text=str(hasattr(ctx, "sender_auth")))]
"""
PROGRAM = pack({"notes.py": SOURCE.encode()})
JSON = {"Content-Type": "application/json"}
FATAL = "The module instance encountered a fatal error: "


def load() -> Module:
    return load_program(PROGRAM)


class Notes:
    """A front door whose owner published the module."""

    def __init__(self, door: Door, owner: Credentials) -> None:
        self.door = door
        self.owner = owner

    async def call(self, name: str, *args: Any, token: str | None = None, body: str | None = None) -> Answer:
        """Call a function, anonymously unless with a token."""
        headers = JSON | (bearer(token) if token else {})
        text = json.dumps(args) if body is None else body
        return await self.door.send("POST", f"/v1/database/notes/call/{name}", headers, text)

    async def rows(self, table: str) -> list[str]:
        """Return the rows of a table of texts."""
        answer = await self.door.send("POST", "/v1/database/notes/sql", bearer(self.owner), f"SELECT * FROM {table}")
        return [row[0] for row in answer.document[0]["rows"]]


def assert_all_left(visits: list[str]) -> None:
    """Check that everybody who came has left, but the last one: who asks for these rows."""
    came, left = [[visit[5:] for visit in visits if visit[:4] == how] for how in ("came", "left")]
    assert len(came) > 1
    assert sorted(came[:-1]) == sorted(left)


def run(test: Callable[[Notes], Awaitable[None]], *, is_virtual: bool = False, **options: Any) -> None:
    """Run a test with the module published as `notes`, in real time or virtual time."""

    async def main() -> None:
        with trio.fail_after(10_000 if is_virtual else 15):
            async with open_door({PROGRAM: load}, **options) as door:
                owner = door.tokens.mint()
                assert (await door.publish(owner, "notes", PROGRAM)).status == 200
                await test(Notes(door, owner))

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0) if is_virtual else None)


# ---------------------------------------------------------------------- results
def test_a_result_is_json_with_the_duration_and_without_energy() -> None:
    async def test(notes: Notes) -> None:
        answer = await notes.call("add", 1, 2)
        assert (answer.status, answer.text, answer.headers["content-type"]) == (200, "3", "application/json")
        assert int(answer.headers["spacetime-execution-duration-micros"]) >= 0
        assert "spacetime-energy-used" not in answer.headers
        assert len(answer.headers["spacetime-identity"]) == 64
        assert (await notes.call("add", body='{"b": 5, "a": 2}')).text == "7"
        assert (await notes.call("nap", 0)).text == "[]"

    run(test)


@pytest.mark.parametrize(
    ("name", "body", "status", "text"),
    [
        ("add", "[1]", 400, "invalid arguments for procedure add: .: invalid arguments for function add: .: "),
        ("add", "[1, 2, 3]", 400, "invalid arguments for procedure add: .: invalid arguments for function add: .: "),
        ("add", '["x", 2]', 400, "invalid arguments for procedure add: [0]: invalid arguments for function add: [0]: "),
        ("add", '{"a": 1}', 400, "invalid arguments for procedure add: .: "),
        ("add", '{"a": 1, "a": 1, "b": 2}', 400, "invalid arguments for procedure add: .: "),
        ("add", '{"a": 1, "b": 2, "c": 3}', 400, "invalid arguments for procedure add: .: "),
        ("add", "[4294967296, 1]", 400, "invalid arguments for procedure add: [0]: "),
        ("add", "", 400, "invalid arguments for procedure add: .: "),
        ("add", "x", 400, "invalid arguments for procedure add: .: "),
        ("add", "[" * 100_000, 400, "invalid arguments for procedure add: .: "),
        ("add", "[4294967295, 1]", 500, FATAL + "procedure add returned 4294967296, which does not fit its type: "),
        ("when", f"[[{2**62}]]", 400, "invalid arguments for procedure when: "),
        ("nosuch", "[]", 404, "No such procedure"),
        ("who", "[]", 404, "No such procedure"),
        ("mine", "[]", 404, "No such procedure"),
        ("refuse", "[]", 500, FATAL + "not today"),
        ("fault", "[]", 500, FATAL + "a secret"),
    ],
)
def test_a_call_that_fails_says_why_without_a_back_trace(name: str, body: str, status: int, text: str) -> None:
    async def test(notes: Notes) -> None:
        answer = await notes.call(name, body=body)
        assert (answer.status, answer.headers["content-type"]) == (status, "text/plain; charset=utf-8")
        assert answer.text.startswith(text)
        assert "Traceback" not in answer.text
        assert "spacetime-execution-duration-micros" not in answer.headers
        assert (await notes.call("add", 1, 2)).text == "3"
        assert_all_left(await notes.rows("visit"))

    run(test)


def test_the_owner_calls_what_is_private() -> None:
    async def test(notes: Notes) -> None:
        assert (await notes.call("mine", token=notes.owner.token)).text == '"yours"'

    run(test)


def test_a_procedure_that_does_not_end_is_402_and_others_go_on() -> None:
    async def test(notes: Notes) -> None:
        answer = await notes.call("spin")
        assert (answer.status, answer.text) == (402, "Procedure terminated due to insufficient budget")
        assert (await notes.call("add", 1, 2)).text == "3"

    with open_deadline(0.1) as deadline:
        run(test, deadline=deadline)


# ---------------------------------------------------------------------- connect, run, disconnect
def test_the_caller_is_connected_from_before_the_procedure_until_after_it() -> None:
    async def test(notes: Notes) -> None:
        async with open_socket(notes.door, "notes", notes.owner) as subscriber:
            await subscriber.send("Subscribe", query_strings=["SELECT * FROM note"], request_id=1)
            await subscriber.receive("InitialSubscription")
            during, inside = (await notes.call("store", "hello")).document
            _, update = await subscriber.receive("TransactionUpdate", "TransactionUpdateLight")
            assert "hello" in json.dumps(update)
        assert during == inside
        assert [row for row in await notes.rows("visit") if during in row] == [f"came {during}", f"left {during}"]
        connected = await notes.door.send(
            "POST", "/v1/database/notes/sql", bearer(notes.owner), "SELECT COUNT(*) AS n FROM st_client"
        )
        assert connected.document[0]["rows"] == [[1]]  # the one that asks

    run(test)


def test_a_refused_caller_is_403_and_nothing_runs() -> None:
    async def test(notes: Notes) -> None:
        banned = notes.door.tokens.key.sign(
            json.dumps({"iss": "localhost", "sub": "eve", "iat": 1, "banned": True}, separators=(",", ":"))
        )
        for name in ("store", "nosuch", "nap"):
            answer = await notes.call(name, "x", token=banned)
            assert (answer.status, answer.text) == (403, "you are banned")
        assert await notes.rows("note") == []
        assert_all_left(visits := await notes.rows("visit"))
        assert len(visits) == 3  # of those who ask for rows alone

    run(test)


def test_others_are_served_while_a_procedure_waits() -> None:
    async def test(notes: Notes) -> None:
        answers = []

        async def nap() -> None:
            answers.append(await notes.call("nap", 3600))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(nap)
            await trio.testing.wait_all_tasks_blocked(0)
            for i in range(10):
                assert (await notes.call("say", f"meanwhile {i}")).status == 200
            assert answers == []
        assert answers[0].status == 200
        assert int(answers[0].headers["spacetime-execution-duration-micros"]) >= 0
        assert await notes.rows("note") == ["before", *(f"meanwhile {i}" for i in range(10)), "after"]

    run(test, is_virtual=True)


def test_a_procedure_is_cancelled_when_its_caller_leaves_and_disconnect_still_runs() -> None:
    async def test(notes: Notes) -> None:
        client = notes.door.connect()
        head = "POST /v1/database/notes/call/nap HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        await client.send_all(f"{head}Content-Length: 6\r\n\r\n[3600]".encode())
        await trio.testing.wait_all_tasks_blocked()
        assert [row[:4] for row in await notes.rows("visit")] == ["came", "came"]  # it, and who asks for the rows
        client.stream.close_nowait()
        await trio.testing.wait_all_tasks_blocked()
        assert notes.door.log("notes")[-1]["message"] == "woken"
        assert_all_left(await notes.rows("visit"))
        assert await notes.rows("note") == ["before"]

    run(test)


def test_a_reducer_runs_though_its_caller_has_left() -> None:
    async def test(notes: Notes) -> None:
        client = notes.door.connect()
        head = "POST /v1/database/notes/call/say HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        await client.send_all(f'{head}Content-Length: 5\r\n\r\n["x"]'.encode())
        client.stream.close_nowait()
        await trio.testing.wait_all_tasks_blocked()
        assert await notes.rows("note") == ["x"]

    run(test)


@pytest.mark.parametrize("how", ["delete", "stop"])
def test_callers_are_told_when_the_database_goes(how: str) -> None:
    async def main() -> None:
        answers: list[Answer] = []
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery, open_door({PROGRAM: load}) as door:
                owner = door.tokens.mint()
                await door.publish(owner, "notes", PROGRAM)
                notes = Notes(door, owner)

                async def nap() -> None:
                    answers.append(await notes.call("nap", 3600))

                nursery.start_soon(nap)
                await trio.testing.wait_all_tasks_blocked()
                if how == "delete":
                    assert (await door.send("DELETE", "/v1/database/notes", bearer(owner))).status == 200
                else:
                    identity = door.door.host.control.resolve("notes")
                    assert identity is not None
                    await door.door.host._living[identity].supervisor.shutdown()
                await trio.testing.wait_all_tasks_blocked()
                assert (answers[0].status, answers[0].text) == (503, "the database is not running: module exited")

    trio.run(main)


def test_who_was_connected_when_the_database_broke_is_disconnected_after_its_restart() -> None:
    def fail() -> None:
        raise RuntimeError("a bug of the database's")

    async def test(notes: Notes) -> None:
        answers = []

        async def nap() -> None:
            answers.append(await notes.call("nap", 3600))

        identity = notes.door.door.host.control.resolve("notes")
        assert identity is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nap)
            await trio.testing.wait_all_tasks_blocked(0)
            notes.door.door.host.database(identity)._actor.post_nowait((None, fail))
        assert (answers[0].status, answers[0].text) == (503, "the database is not running: database restarting")
        await trio.sleep(1)
        assert_all_left(visits := await notes.rows("visit"))
        assert len(visits) == 3

    run(test, is_virtual=True)


def test_an_answer_waits_for_the_disk_unless_told_not_to() -> None:
    storage = MemoryStorage(delayed=True)

    async def main() -> None:
        async with open_door({PROGRAM: load}, storage=storage) as door:
            await door.publish_and_sync(storage, "notes", PROGRAM)
            answers = []

            async def ask(query: str) -> None:
                path = f"/v1/database/notes/call/store{query}"
                answers.append(await door.send("POST", path, JSON, '["x"]'))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, "?confirmed=false")
            assert answers.pop().status == 200
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, "")
                await trio.testing.wait_all_tasks_blocked()
                assert answers == []
                storage.sync()
            assert answers.pop().status == 200

    trio.run(main)


def test_more_procedures_than_may_run_are_turned_away_and_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procedures.Procedures.__init__, "__defaults__", (1,))

    async def test(notes: Notes) -> None:
        client = notes.door.connect()
        head = "POST /v1/database/notes/call/nap HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        await client.send_all(f"{head}Content-Length: 6\r\n\r\n[3600]".encode())
        await trio.testing.wait_all_tasks_blocked()
        answer = await notes.call("add", 1, 2)
        assert (answer.status, answer.text[:40]) == (503, "more than 1 procedures of this database ")
        visits = await notes.rows("visit")
        assert [row[:4] for row in visits[:3]] == ["came", "came", "left"]
        assert visits[1][5:] == visits[2][5:]

    run(test)


# ---------------------------------------------------------------------- who asks
def test_the_claims_of_the_callers_token_are_in_reducers_and_procedures_but_not_in_views() -> None:
    async def test(notes: Notes) -> None:
        claims = {"iss": "localhost", "sub": "ann", "aud": ["a"], "iat": 5, "role": {"of": "queen"}}
        token = notes.door.tokens.key.sign(json.dumps(claims, separators=(",", ":")))
        caller = (await notes.door.send("GET", "/v1/database/notes/names", bearer(token))).headers["spacetime-identity"]
        assert (await notes.call("claims", token=token)).document == [repr(sorted(claims.items())), "True", caller]
        assert (await notes.call("keep_claims", token=token)).status == 200
        assert await notes.rows("note") == ["ann queen localhost"]
        async with open_socket(notes.door, "notes", await notes.door.tokens.validate(token)) as connected:
            await connected.send("CallReducer", reducer="keep_claims", args="[]", request_id=1, flags=0)
            assert "Committed" in (await connected.receive("TransactionUpdate"))[1]["status"]
            await connected.send("CallProcedure", procedure="claims", args="[]", request_id=2, flags=0)
            returned = (await connected.receive("ProcedureResult"))[1]["status"]["Returned"]
            assert json.loads(returned) == [repr(sorted(claims.items())), "True", caller]
        minted = (await notes.call("claims")).document
        assert "'iss', 'localhost'" in minted[0]
        assert await notes.rows("who") == ["False"]

    run(test)
