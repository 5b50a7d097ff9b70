"""Procedures run beside the turns of their database and answer their caller alone, once."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from stdb.actors.handle import DatabaseHandle
from stdb.actors.host import Host, PublishResult
from stdb.actors.procedures import DURABLE_SECONDS_MAX, NOT_KNOWN_DURABLE
from stdb.actors.requests import CallProcedure
from stdb.actors.sink import Client
from stdb.errors import ReducerError
from stdb.modules.protocol import ProcedureCall, ReducerCall
from stdb.sats import bsatn
from stdb.sats.types import U32
from stdb.testing.hosts import TestClient, identity, open_host
from stdb.testing.modules import FunctionModule, procedure, reducer, table
from stdb.testing.sinks import ProcedureFailed, ProcedureReturned, Updated
from stdb.testing.storage import MemoryStorage

_U32 = bsatn.codec(U32)


def make_module() -> FunctionModule:
    """Return a module that adds, sleeps, fails and writes."""

    async def add(_call: ProcedureCall, a: int, b: int) -> int:
        return a + b

    async def nap(call: ProcedureCall, n: int) -> tuple[()]:
        await call.host.sleep(1000.0)
        await call.host.transact(lambda tx: write(tx, n))
        return ()

    async def store(call: ProcedureCall, n: int) -> int:
        await call.host.transact(lambda tx: write(tx, n))
        return n

    async def break_inside(call: ProcedureCall) -> int:
        def run(tx: ReducerCall) -> None:
            write(tx, 1)
            raise ValueError("no such luck")

        with pytest.raises(ValueError, match="luck"):
            await call.host.transact(run)
        return 7

    async def fail(_call: ProcedureCall) -> tuple[()]:
        raise ValueError("the reason")

    def write(tx: ReducerCall, n: int) -> None:
        tx.transaction.insert(module._datastore.table("item"), _U32.encode(n))  # type: ignore[union-attr]

    module = FunctionModule(
        [table("item", {"n": U32}, primary_key="n")],
        {"nothing": reducer(lambda ctx: None)},
        procedures={
            "add": procedure(add, {"a": U32, "b": U32}, U32),
            "nap": procedure(nap, {"n": U32}),
            "store": procedure(store, {"n": U32}, U32),
            "break_inside": procedure(break_inside, {}, U32),
            "fail": procedure(fail),
            "hidden": procedure(fail, private=True),
        },
    )
    return module


@asynccontextmanager
async def open_database() -> AsyncIterator[DatabaseHandle]:
    async with open_host({b"m": make_module}) as host:
        result = await host.publish(identity(9), b"m", name="m")
        handle = host.database(result.identity)
        await handle.ready()
        yield handle


async def answer(client: TestClient, name: str, args: bytes | str = b"", request_id: int = 5) -> Any:
    """Call a procedure and return its answer."""
    call = CallProcedure(request_id, name, args)
    client.submit(call)
    while True:
        for message in client.sink.received:
            if getattr(message, "request", None) is call:
                return message
        await client.sink.wait_count(len(client.sink.received) + 1)


def run(test: Any) -> None:
    """Run a test within an open database, under virtual time."""

    async def main() -> None:
        with trio.fail_after(100_000):
            async with open_database() as handle:
                await test(handle)

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_a_procedure_returns_its_result_to_its_caller() -> None:
    async def check(handle: DatabaseHandle) -> None:
        client = TestClient(handle)
        for args in (_U32.encode(1) + _U32.encode(2), "[1, 2]"):
            message = await answer(client, "add", args)
            assert isinstance(message, ProcedureReturned), message
            assert message.returned == _U32.encode(3)

    run(check)


def test_the_update_of_a_transaction_precedes_the_result() -> None:
    async def check(handle: DatabaseHandle) -> None:
        client = TestClient(handle)
        await client.subscribe(1, "SELECT * FROM item")
        await answer(client, "store", _U32.encode(4))
        kinds = [type(each) for each in client.sink.received]
        assert kinds.index(Updated) < kinds.index(ProcedureReturned)
        event = next(each.event for each in client.sink.received if isinstance(each, Updated))
        assert (event.caller, event.reducer_name, event.reducer_id) == (handle.identity, "", 0)

    run(check)


def test_what_a_transaction_raises_rolls_back_and_is_raised_at_the_await() -> None:
    async def check(handle: DatabaseHandle) -> None:
        client = TestClient(handle)
        message = await answer(client, "break_inside")
        assert isinstance(message, ProcedureReturned), message
        await client.subscribe(2, "SELECT * FROM item")
        assert not client.sink.rows()

    run(check)


@pytest.mark.parametrize(
    ("name", "args", "text"),
    [
        ("unknown", b"", "No such procedure"),
        ("hidden", b"", "No such procedure"),
        ("fail", b"", "The module instance encountered a fatal error: the reason"),
    ],
)
def test_a_procedure_that_fails_is_told_without_a_back_trace(name: str, args: bytes, text: str) -> None:
    async def check(handle: DatabaseHandle) -> None:
        message = await answer(TestClient(handle), name, args)
        assert isinstance(message, ProcedureFailed), message
        assert message.text == text

    run(check)


def test_a_procedure_whose_caller_left_is_cancelled() -> None:
    async def check(handle: DatabaseHandle) -> None:
        client, other = TestClient(handle), TestClient(handle, 2)
        client.submit(CallProcedure(1, "nap", _U32.encode(1)))
        await trio.sleep(1)
        await client.leave()
        await trio.sleep(2000)
        await other.subscribe(1, "SELECT * FROM item")
        assert not other.sink.rows()

    run(check)


class _Careless(FunctionModule):
    """A module whose procedures keep to no contract."""

    def procedure(self, procedure_id: int) -> Callable[[ProcedureCall, bytes], Awaitable[bytes]]:
        async def raise_anything(_call: ProcedureCall, _args: bytes) -> bytes:
            raise KeyError("out of the blue")

        async def return_anything(_call: ProcedureCall, _args: bytes) -> bytes:
            return b"\1"

        async def return_more(_call: ProcedureCall, _args: bytes) -> bytes:
            return _U32.encode(5) + b"more"

        return [raise_anything, return_anything, return_more][procedure_id]


def test_a_procedure_that_keeps_to_no_contract_is_answered_and_its_database_goes_on() -> None:
    async def unused() -> int:
        return 0

    def make() -> FunctionModule:
        names = ("raising", "garbled", "longer")
        return _Careless(
            [table("item", {"n": U32})],
            {"nothing": reducer(lambda ctx: None)},
            procedures={name: procedure(unused, {}, U32) for name in names},
        )

    async def main() -> None:
        async with open_host({b"careless": make}) as host:
            where = (await host.publish(identity(9), b"careless", name="careless")).identity
            client = TestClient(host.database(where), 1)
            answers = [
                await answer(client, name, "[]" if as_json else b"")
                for name in ("raising", "garbled", "longer")
                for as_json in (False, True)
            ]
            kinds = [type(answer) for answer in answers]
            assert kinds == [ProcedureFailed] * 4 + [ProcedureReturned] * 2
            assert "out of the blue" in answers[0].text
            assert answers[2].text.startswith("The module instance encountered a fatal error: ")
            assert answers[4].returned == _U32.encode(5)
            await client.call("nothing")
            log = b"".join(host.database(where).log.tail(None)).decode()
            assert "out of the blue" in log
            assert "does not decode" in log

    trio.run(main)


# What a procedure does behind a transaction that its caller wants to be sure of


def made_to_tell(told: list[str]) -> FunctionModule:
    """Return a module whose procedure tells how far it got."""

    async def store(call: ProcedureCall) -> tuple[()]:
        try:
            await call.host.transact(lambda tx: tx.transaction.insert(module._datastore.table("item"), _U32.encode(1)))  # type: ignore[union-attr]
            await call.host.transact(lambda tx: told.append("read"))
        except ReducerError as error:
            told.append(str(error))
            raise
        told.append("ended")
        return ()

    module = FunctionModule([table("item", {"n": U32})], {}, procedures={"store": procedure(store)})
    return module


@pytest.mark.parametrize("confirmed", [True, False])
def test_a_confirmed_procedure_goes_on_once_its_transaction_is_durable(confirmed: bool) -> None:
    async def main() -> None:
        told: list[str] = []
        storage = MemoryStorage(delayed=True)
        async with open_host({b"m": lambda: made_to_tell(told)}, storage) as host, trio.open_nursery() as nursery:
            handle = await published(host, storage, nursery)
            asked = Client(identity(1), bytes(16), "")
            nursery.start_soon(lambda: handle.call(asked, "store", "[]", confirmed=confirmed))
            await trio.testing.wait_all_tasks_blocked()
            assert told == ([] if confirmed else ["read", "ended"])
            storage.sync()
            await trio.testing.wait_all_tasks_blocked()
            assert told == ["read", "ended"]
            storage.sync()

    trio.run(main)


def test_a_transaction_that_is_not_known_to_be_stored_in_time_ends_its_procedure() -> None:
    async def main() -> None:
        told: list[str] = []
        storage = MemoryStorage(delayed=True)
        async with open_host({b"m": lambda: made_to_tell(told)}, storage) as host, trio.open_nursery() as nursery:
            handle = await published(host, storage, nursery)
            asked = Client(identity(1), bytes(16), "")
            nursery.start_soon(lambda: handle.call(asked, "store", "[]"))
            await trio.sleep(DURABLE_SECONDS_MAX - 0.1)
            assert told == []
            await trio.sleep(0.2)
            assert told == [NOT_KNOWN_DURABLE]
            storage.sync()
            await trio.testing.wait_all_tasks_blocked()
            storage.sync()

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def published(host: Host, storage: MemoryStorage, nursery: trio.Nursery) -> DatabaseHandle:
    """Publish over a disk that writes when it is told to."""
    done: list[PublishResult] = []

    async def publish() -> None:
        done.append(await host.publish(identity(9), b"m", name="m"))

    nursery.start_soon(publish)
    while not done:
        await trio.testing.wait_all_tasks_blocked()
        storage.sync()
    return host.database(done[0].identity)
