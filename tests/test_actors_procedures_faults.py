"""Procedures of a Python module that misbehave, and everything that can happen while they run."""

from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from textwrap import dedent
from time import perf_counter
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from stdb.actors.deadline import Deadline, open_deadline
from stdb.actors.handle import DatabaseHandle
from stdb.actors.host import Host
from stdb.actors.requests import CallProcedure
from stdb.actors.sink import OutcomeKind
from stdb.modules.protocol import Module
from stdb.modules.python import loader
from stdb.sats import bsatn
from stdb.sats.types import STRING, U32
from stdb.testing.hosts import TestClient, identity, open_host
from stdb.testing.sinks import ProcedureFailed, ProcedureReturned
from stdb.testing.storage import MemoryStorage

SOURCE = """
import asyncio
import trio
from stdb import *

@table(public=True)
class Item:
    id: u32 = primary_key()
    text: str

kept = []
ended = []

def put(tx: ReducerContext, id: u32, text: str = "") -> None:
    tx.db[Item].insert(Item(id=id, text=text))

@reducer
def add(ctx: ReducerContext, id: u32) -> None:
    put(ctx, id)

@procedure
async def nap(ctx: ProcedureContext, id: u32) -> u32:
    await ctx.sleep(1000)
    await ctx.transact(put, id)
    return id

@procedure
async def stubborn(ctx: ProcedureContext, id: u32) -> u32:
    while True:
        try:
            await ctx.sleep(1000)
            await ctx.transact(put, id)
        except BaseException:
            pass

@procedure
async def busy(ctx: ProcedureContext, id: u32) -> u32:
    for n in range(1_000_000):
        await ctx.transact(put, id + n)
        await ctx.sleep(1)
    return id

@procedure
async def tidy(ctx: ProcedureContext, id: u32) -> u32:
    try:
        await ctx.sleep(1000)
    finally:
        try:
            await ctx.transact(put, id)
        finally:
            ended.append(id)
    return id

@procedure
async def probe(ctx: ProcedureContext, source: str) -> str:
    namespace = {}
    exec("async def run(ctx):\\n" + "\\n".join("    " + line for line in source.splitlines()), globals(), namespace)
    return str(await namespace["run"](ctx))
"""
PROGRAMS: dict[bytes, Callable[[], Module]] = {
    b"m": lambda: loader.load({"faults.py": dedent(SOURCE).encode()}),
    b"newer": lambda: loader.load({"faults.py": dedent(SOURCE).replace("return id\n", "return id + 1\n").encode()}),
}
OWNER = identity(9)
LIMIT_SECONDS = 0.1
FATAL = "The module instance encountered a fatal error: "
ELSEWHERE = "ctx belongs to a running procedure: it waits for nothing within a transaction, or once that has ended"
OUT_OF_TIME = "Procedure terminated due to insufficient budget"
_U32 = bsatn.codec(U32).encode
_STRING = bsatn.codec(STRING)


def run(test: Callable[[Host, DatabaseHandle], Awaitable[None]], limit_seconds: float = LIMIT_SECONDS) -> None:
    """Run a test within an open database and a real time limit; sleeping takes no time."""

    async def play(deadline: Deadline) -> None:
        async with open_host(PROGRAMS, deadline=deadline) as host:
            result = await host.publish(OWNER, b"m", name="m")
            handle = host.database(result.identity)
            await handle.ready()
            with trio.fail_after(1_000_000):
                await test(host, handle)

    with open_deadline(limit_seconds) as deadline:
        trio.run(play, deadline, clock=MockClock(autojump_threshold=0))


class Disk:
    """A disk that syncs every 10 ms while it works."""

    def __init__(self) -> None:
        self.storage = MemoryStorage(delayed=True)
        self.is_working = True

    async def run(self) -> None:
        while True:
            await trio.sleep(0.01)
            if self.is_working:
                self.storage.sync()


def run_on_a_slow_disk(
    test: Callable[[DatabaseHandle, Disk], Awaitable[None]],
    programs: Mapping[bytes, Callable[[], Module]] = PROGRAMS,
) -> None:
    async def play() -> None:
        disk = Disk()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(disk.run)
            async with open_host(programs, disk.storage) as host:
                result = await host.publish(OWNER, next(iter(programs)), name="m")
                with trio.fail_after(10_000):
                    await test(host.database(result.identity), disk)
            nursery.cancel_scope.cancel()
        disk.storage.close()

    trio.run(play, clock=MockClock(autojump_threshold=0))


async def answer(client: TestClient, name: str, args: bytes = b"") -> Any:
    call = CallProcedure(5, name, args)
    client.submit(call)
    return await answer_to(client, call)


async def answer_to(client: TestClient, call: CallProcedure) -> Any:
    while True:
        for message in client.sink.received:
            if getattr(message, "request", None) is call:
                return message
        await client.sink.wait_count(len(client.sink.received) + 1)


async def probe(client: TestClient, source: str) -> str:
    """Run the body of a procedure; return what it returned or the text of its error."""
    message = await answer(client, "probe", _STRING.encode(dedent(source)))
    if isinstance(message, ProcedureReturned):
        return str(_STRING.decode_exact(message.returned))
    assert isinstance(message, ProcedureFailed), message
    return message.text


def stored(handle: DatabaseHandle) -> list[int]:
    return sorted(int.from_bytes(row[:4], "little") for row in handle._actor.datastore.table("item").rows())


def running(handle: DatabaseHandle) -> int:
    return len(handle._actor.procedures._scopes)


async def works(handle: DatabaseHandle, id_: int = 77_777_777) -> None:
    """Check that a database serves reducers and procedures."""
    client = TestClient(handle, 3)
    assert (await client.call("add", _U32(id_))).outcome.kind == OutcomeKind.COMMITTED
    assert await probe(client, "return 5") == "5"
    await client.leave()


# The end of their database or their caller


def break_down() -> None:
    raise ZeroDivisionError


async def start_hundred(handle: DatabaseHandle) -> list[TestClient]:
    """Have a hundred procedures of every kind run."""
    clients = [TestClient(handle, 1), TestClient(handle, 2)]
    for i in range(100):
        name = ("nap", "stubborn", "busy", "tidy")[i % 4]
        clients[i % 2].submit(CallProcedure(i, name, _U32(1_000_000 * (i + 1))))
    await trio.sleep(10.5)
    assert running(handle) == 100
    return clients


@pytest.mark.parametrize("end", ["bug", "delete", "reset", "shutdown"])
def test_a_hundred_procedures_end_with_their_database(end: str, caplog: pytest.LogCaptureFixture) -> None:
    async def test(host: Host, handle: DatabaseHandle) -> None:
        clients = await start_hundred(handle)
        actor, before = handle._actor, stored(handle)
        with trio.fail_after(60):
            match end:
                case "bug":
                    actor.post_nowait((None, break_down))
                    await trio.sleep(1)
                case "delete":
                    await host.delete(OWNER, handle.identity)
                case "reset":
                    await host.reset(OWNER, handle.identity)
                case "shutdown":
                    await host.shutdown()
        for client in clients:
            assert client.sink.closed is not None
            assert not client.messages(ProcedureReturned)
        assert not actor.procedures._scopes
        await trio.sleep(5000)
        of_the_first_life = [int.from_bytes(row[:4], "little") for row in actor.datastore.table("item").rows()]
        assert sorted(of_the_first_life) == before, "nothing was committed after the end"
        if end in ("bug", "reset"):
            handle = host.database(handle.identity)
            await handle.ready()
            assert stored(handle) == ([] if end == "reset" else before)
            await works(handle)

    run(test, limit_seconds=10)
    assert [record.levelname for record in caplog.records] == ["ERROR"] * (end == "bug")


def test_an_update_lets_procedures_end_as_they_began() -> None:
    async def test(host: Host, handle: DatabaseHandle) -> None:
        client = TestClient(handle, 1)
        calls = [CallProcedure(i, "nap", _U32(i)) for i in range(100)]
        client.submit(*calls)
        await trio.sleep(10.5)
        await host.publish(OWNER, b"newer", identity=handle.identity)
        late = CallProcedure(1000, "nap", _U32(1000))
        client.submit(late)
        for call in calls:
            message = await answer_to(client, call)
            assert message.returned == call.args, "the old program's result"
        assert (await answer_to(client, late)).returned == _U32(1001), "the new one's"
        assert stored(handle) == [*range(100), 1000]
        await works(handle)

    run(test, limit_seconds=10)


def test_a_procedure_that_is_called_right_before_an_update_is_the_old_ones() -> None:
    async def test(host: Host, handle: DatabaseHandle) -> None:
        client = TestClient(handle, 1)
        await client.call("add", _U32(5))
        call = CallProcedure(1, "nap", _U32(7))
        actor, update = handle._actor, handle._actor.replacing.update

        def update_behind_a_call(*args: Any) -> Any:
            actor.procedures.call(client.attachment, call)  # its task begins after the update
            return update(*args)

        actor.replacing.update = update_behind_a_call  # type: ignore[method-assign,assignment]
        await host.publish(OWNER, b"newer", identity=handle.identity)
        assert (await answer_to(client, call)).returned == _U32(7)

    run(test)


@pytest.mark.parametrize("name", ["nap", "stubborn", "busy", "tidy"])
def test_a_procedure_ends_with_its_caller(name: str) -> None:
    async def test(_host: Host, handle: DatabaseHandle) -> None:
        client, other = TestClient(handle, 1), TestClient(handle, 2)
        client.submit(CallProcedure(1, name, _U32(1)))
        others = CallProcedure(2, "nap", _U32(500))
        other.submit(others)
        await trio.sleep(10.5)
        before = stored(handle)
        await client.leave()
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        assert running(handle) == 1, "that of the other client"
        assert (await answer_to(other, others)).returned == _U32(500)
        assert stored(handle) == [*before, 500], "what it asked for after the end was not run"

    run(test)


def test_a_transaction_whose_procedure_was_cancelled_before_its_turn_is_not_run() -> None:
    async def test(_host: Host, handle: DatabaseHandle) -> None:
        client = TestClient(handle, 1)
        client.submit(CallProcedure(1, "nap", _U32(1)))
        await trio.sleep(999.999)
        actor = handle._actor
        serve, asked = actor._serve, list[bool]()

        def leave_first() -> None:  # the transaction waits in the mailbox; the disconnect overtakes it
            if running(handle) and actor._mailbox and not asked:
                asked.append(True)
                actor._mailbox.appendleft((None, lambda: actor.connections.disconnect(client.attachment)))
            serve()

        actor._serve = leave_first  # type: ignore[method-assign]
        await trio.sleep(10.5)
        assert asked
        assert stored(handle) == []
        assert running(handle) == 0
        await works(handle)

    run(test)


def test_clean_up_is_given_its_waits() -> None:
    async def test(_host: Host, handle: DatabaseHandle) -> None:
        client = TestClient(handle, 1)
        source = """
        try:
            await ctx.sleep(1000)
        finally:
            try:
                await ctx.sleep(1)
            except trio.Cancelled:
                kept.append("cleaned up")
                raise
        """
        client.submit(CallProcedure(1, "probe", _STRING.encode(dedent(source))))
        await trio.sleep(1)
        await client.leave()
        assert await probe(TestClient(handle, 2), "return kept.pop()") == "cleaned up"

    run(test)


# Mistakes


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("await asyncio.sleep(1)", FATAL),
        ("await asyncio.sleep(0)", FATAL),
        ("loop = asyncio.new_event_loop()\nloop.close()\nawait asyncio.Future(loop=loop)", FATAL),
        ("class Odd:\n    def __await__(self):\n        yield 42\nawait Odd()", FATAL),
        ("class Odd:\n    def __await__(self):\n        return (yield from [1, 2, 3])\nawait Odd()", FATAL),
        ("await 5", FATAL + "object int can't be used in 'await' expression"),
        ("raise SystemExit(3)", FATAL + "3"),
        ("raise KeyboardInterrupt", FATAL),
        ("raise GeneratorExit", FATAL),
        ("raise BaseExceptionGroup('several', [SystemExit(1), ValueError(2)])", FATAL + "several (2 sub-exceptions)"),
        ("raise StopIteration(4)", FATAL + "coroutine raised StopIteration"),
        ("raise SenderError('not \\ud800 you')", FATAL + "not ? you"),
        ("raise ValueError('\\udcff')", FATAL + "?"),
        ("class E(Exception):\n    def __str__(self):\n        raise SystemExit\nraise E", FATAL + "(its text cannot"),
        ("class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E", FATAL + "(its text cannot"),
        ("class E(Exception):\n    def __str__(self):\n        return 5\nraise E", FATAL + "(its text cannot be had"),
        ("await ctx.transact(lambda tx: (_ for _ in ()).throw(SystemExit(7)))", FATAL + "7"),
        ("def f(): f()\nf()", FATAL + "maximum recursion depth exceeded"),
        ("while True: pass", OUT_OF_TIME),
        ("try:\n    while True: pass\nexcept BaseException:\n    return 'caught'", OUT_OF_TIME),
        ("try:\n    while True: pass\nexcept BaseException:\n    await ctx.sleep(1)\nreturn 'caught'", OUT_OF_TIME),
        ("try:\n    while True: pass\nfinally:\n    await ctx.transact(put, 1)", OUT_OF_TIME),
        ("def f(tx):\n    put(tx, 1)\n    while True: pass\nawait ctx.transact(f)", OUT_OF_TIME),
        (
            "def f(tx):\n    put(tx, 1)\n    try:\n        while True: pass\n    except BaseException: pass\n"
            "await ctx.transact(f)",
            OUT_OF_TIME,
        ),
        ("def f(tx):\n    put(tx, 1)\n    ctx.transact(put, 2).send(None)\nawait ctx.transact(f)", FATAL + ELSEWHERE),
        ("def f(tx):\n    put(tx, 1)\n    ctx.sleep(2).send(None)\nawait ctx.transact(f)", FATAL + ELSEWHERE),
        ("def f(tx):\n    ctx.http.get('http://x/').send(None)\nawait ctx.transact(f)", FATAL + ELSEWHERE),
        ("async def f(tx):\n    await ctx.transact(put, 2)\nawait ctx.transact(f)", FATAL + "transact() takes a plain"),
    ],
)
def test_a_mistake_ends_its_procedure_alone(source: str, said: str) -> None:
    async def test(_host: Host, handle: DatabaseHandle) -> None:
        client = TestClient(handle, 1)
        bystander = CallProcedure(2, "nap", _U32(500))
        TestClient(handle, 2).submit(bystander)
        text = await probe(client, source)
        assert text.startswith(said), text
        assert "Traceback" not in text
        assert "faults.py" not in text
        actor = handle._actor
        await works(handle)
        assert handle._actor is actor, "the database did not even restart"
        assert running(handle) == 1
        assert 1 not in stored(handle)
        actor.datastore.verify()

    run(test)


def test_a_wait_that_begins_when_the_time_is_over_wakes_nobody() -> None:
    """The time limit may pass within code of the server, where nothing is raised: then the wait has begun."""

    async def test(_host: Host, handle: DatabaseHandle) -> None:
        client, actor = TestClient(handle, 1), handle._actor
        wait = actor.answers.wait_steps

        async def wait_late(work: Any) -> Any:
            until = perf_counter() + 2 * LIMIT_SECONDS
            while perf_counter() < until:
                pass
            return await wait(work)

        actor.answers.wait_steps = wait_late  # type: ignore[method-assign]
        for _ in range(3):
            assert await probe(client, "await ctx.transact(put, 1)") == OUT_OF_TIME
        actor.answers.wait_steps = wait  # type: ignore[method-assign]
        await works(handle)
        assert (handle._actor, stored(handle)) == (actor, [77_777_777])

    run(test)


def test_a_request_that_begins_when_the_time_is_over_ends_its_procedure_alone() -> None:
    async def test(_host: Host, handle: DatabaseHandle) -> None:
        client, actor = TestClient(handle, 1), handle._actor
        outgoing = actor.procedures.outgoing
        send, sent = outgoing.send, list[str]()

        class Silent:
            async def send(self, request: Any) -> Any:
                sent.append(request.url)
                await trio.sleep_forever()

        async def send_late(request: Any) -> Any:
            until = perf_counter() + 2 * LIMIT_SECONDS
            while perf_counter() < until:
                pass
            return await send(request)

        outgoing._sender, outgoing.send = Silent(), send_late  # type: ignore[method-assign]
        for _ in range(3):
            assert await probe(client, "await ctx.http.get('http://x/')") == OUT_OF_TIME
        await trio.sleep(1)
        assert sent == []
        await works(handle)
        assert (handle._actor, running(handle)) == (actor, 0)

    run(test)


def test_a_transaction_inside_a_transaction_is_not_run() -> None:
    """`await` is a syntax error in a plain function, so what is left is a coroutine that nobody awaits."""

    async def test(_host: Host, handle: DatabaseHandle) -> None:
        client = TestClient(handle, 1)
        source = "def f(tx):\n    put(tx, 1)\n    ctx.transact(put, 2).close()\nawait ctx.transact(f)\nreturn 'went on'"
        assert await probe(client, source) == "went on"
        assert stored(handle) == [1]

    run(test)


def test_a_context_is_of_no_use_when_its_procedure_has_ended() -> None:
    async def test(_host: Host, handle: DatabaseHandle) -> None:
        client = TestClient(handle, 1)
        assert await probe(client, "kept.append(ctx)\nreturn 1") == "1"
        assert await probe(client, "await kept.pop().transact(put, 1)") == FATAL + ELSEWHERE
        assert stored(handle) == []

    run(test)


def test_a_cancellation_that_was_kept_cancels_nobody_else() -> None:
    async def test(_host: Host, handle: DatabaseHandle) -> None:
        client, other = TestClient(handle, 1), TestClient(handle, 2)
        source = "try:\n    await ctx.sleep(9)\nexcept BaseException as error:\n    kept.append(error)\n    raise"
        client.submit(CallProcedure(1, "probe", _STRING.encode(source)))
        await trio.sleep(1)
        await client.leave()
        actor = handle._actor
        assert (await probe(other, "raise kept[0]")).startswith(FATAL)
        source = "def f(tx):\n    put(tx, 1)\n    raise kept[0]\nawait ctx.transact(f)"
        assert (await probe(other, source)).startswith(FATAL)
        assert handle._actor is actor
        assert stored(handle) == []
        await works(handle)

    run(test)


def test_a_text_of_any_length_is_told() -> None:
    async def test(_host: Host, handle: DatabaseHandle) -> None:
        text = await probe(TestClient(handle, 1), "raise SenderError('x' * 5_000_000)")
        assert text == FATAL + "x" * 5_000_000
        await works(handle)

    run(test)


def test_no_more_procedures_run_at_once_than_may() -> None:
    async def test(_host: Host, handle: DatabaseHandle) -> None:
        handle._actor.procedures._concurrent_max = 3
        client, other = TestClient(handle, 1), TestClient(handle, 2)
        client.submit(*[CallProcedure(i, "nap", _U32(i)) for i in range(3)])
        refused = await answer(other, "nap", _U32(9))
        assert isinstance(refused, ProcedureFailed)
        assert refused.text == "more than 3 procedures of this database are running; try again later"
        assert (await other.call("add", _U32(100))).outcome.kind == OutcomeKind.COMMITTED
        await client.leave()
        await trio.sleep(1)
        assert (await answer(other, "nap", _U32(9))).returned == _U32(9)
        assert stored(handle) == [9, 100]

    run(test)


def test_a_thousand_sleeping_procedures_cost_reducers_nothing() -> None:
    async def test(_host: Host, handle: DatabaseHandle) -> None:
        client, other = TestClient(handle, 1), TestClient(handle, 2)
        numbers = count(1000)

        async def seconds_of_calls() -> float:
            taken = []
            for _ in range(300):
                start = perf_counter()
                await other.call("add", _U32(next(numbers)))
                taken.append(perf_counter() - start)
                other.sink.received.clear()
            return sorted(taken)[150]

        await seconds_of_calls()
        without = await seconds_of_calls()
        client.submit(*[CallProcedure(i, "nap", _U32(i)) for i in range(1000)])
        await trio.sleep(1)
        assert running(handle) == 1000
        assert trio.lowlevel.current_statistics().tasks_runnable == 0, "sleeping they are not even looked at"
        assert await seconds_of_calls() < 3 * without, "measured: 1.0 times as long"
        await trio.sleep(1000)
        assert len(client.messages(ProcedureReturned)) == 1000

    run(test, limit_seconds=10)


# What a confirmed caller is told


def test_a_confirmed_caller_sees_no_result_before_it_is_durable() -> None:
    async def test(handle: DatabaseHandle, disk: Disk) -> None:
        client, hasty = TestClient(handle, 1, confirmed=True), TestClient(handle, 2)
        await client.sink.wait_count(1)
        disk.is_working = False
        call = CallProcedure(5, "probe", _STRING.encode("await ctx.transact(put, 1)\nreturn 'done'"))
        client.submit(call)
        await trio.sleep(1)
        assert stored(handle) == [1]
        assert client.messages(ProcedureReturned) == []
        assert await probe(hasty, "return 1") == "1", "who did not ask to wait does not"
        disk.is_working = True
        message = await answer_to(client, call)
        place = client.sink.received.index(message)
        assert client.sink.needs[place] == handle._actor.datastore.next_offset
        assert client.sink.durable_at[place] >= client.sink.needs[place]

    run_on_a_slow_disk(test)
