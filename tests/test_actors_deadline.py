"""The time limit of reducers: in real time, since the signal comes in real time."""

import signal
import subprocess
import sys
import threading
import time

import pytest
import trio

from stdb.actors.deadline import NoDeadline, SignalDeadline, open_deadline
from stdb.actors.sink import OutcomeKind
from stdb.errors import SchemaError
from stdb.modules.python.loader import load
from stdb.testing.hosts import TestClient, identity, open_host
from stdb.testing.sinks import Updated
from tests.actors_loops import is_module_frame, loops


@pytest.mark.parametrize("reducer", ["spin", "write_forever", "churn", "from_library", "catch"])
def test_a_reducer_without_end_is_stopped_rolled_back_and_reported(reducer: str) -> None:
    async def main() -> None:
        with open_deadline(0.1, is_module_frame) as deadline:
            async with open_host({b"loops": loops}, deadline=deadline) as host:
                where = (await host.publish(identity(9), b"loops")).identity
                handle = host.database(where)
                ann, bob = TestClient(handle, 1), TestClient(handle, 2)
                await bob.subscribe(1, "SELECT * FROM row", "SELECT * FROM tag")
                await ann.call("add")
                started = time.monotonic()
                result = await ann.call(reducer)
                assert time.monotonic() - started < 2.5  # a second, and what a busy machine adds
                assert (result.outcome.kind, result.outcome.text) == (
                    OutcomeKind.OUT_OF_TIME,
                    "reducer ran out of energy",
                )
                actor = handle._actor
                actor.datastore.verify()
                assert len(actor.datastore.table("row")) == 1
                assert (await ann.call("add")).outcome.kind == OutcomeKind.COMMITTED
                await bob.wait_for(Updated, 2)
                assert len(bob.sink.rows()) == 2
                log = b"".join(handle.log.tail(None))
                assert b"ran longer than 0.1 s and was stopped" in log or b"time limit of this transaction" in log

    trio.run(main)


def test_init_without_end_fails_the_publish() -> None:
    async def main() -> None:
        from stdb.actors.refusals import PublishFailed
        from stdb.schema.model import Lifecycle
        from stdb.testing.modules import FunctionModule, reducer
        from tests.actors_loops import ROW, spin

        def make() -> FunctionModule:
            return FunctionModule([ROW], {"init": reducer(spin, lifecycle=Lifecycle.INIT)})

        with open_deadline(0.05, is_module_frame) as deadline:
            async with open_host({b"loops": make}, deadline=deadline) as host:
                with pytest.raises(PublishFailed):
                    await host.publish(identity(9), b"loops", name="x")
                assert host.databases() == []

    trio.run(main)


def test_the_limit_counts_from_the_start_of_each_reducer_not_of_the_turn() -> None:
    with open_deadline(0.05) as deadline:
        assert isinstance(deadline, SignalDeadline)
        deadline.arm()
        for _ in range(6):  # together longer than the limit, each shorter
            deadline.started = time.perf_counter()
            deadline.transaction = transaction = _Transaction()
            stop = time.perf_counter() + 0.02
            while time.perf_counter() < stop:
                pass
            deadline.transaction = None
            assert not transaction.expired
        deadline.disarm()


def test_nothing_is_raised_between_reducers_nor_inside_stdb() -> None:
    with open_deadline(0.01) as deadline:
        deadline.arm()
        time.sleep(0.03)
        deadline.started = time.perf_counter()
        deadline.transaction = transaction = _Transaction()
        time.sleep(0.05)  # no frame of a module here: it only expires
        deadline.transaction = None
        assert transaction.expired
        deadline.disarm()
        time.sleep(0.03)


def test_an_import_without_end_is_a_mistake_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stdb.actors.deadline.LOAD_SECONDS_MAX", 0.05)
    files = {"chat.py": b"import json\nwhile True:\n    json.dumps([1])\n"}
    with open_deadline(1.0) as deadline:
        with pytest.raises(SchemaError) as caught, deadline.loading():
            load(files)
        assert deadline.transaction is None
    (error,) = caught.value.errors
    text = "the import ran longer than 0.05 s and was stopped (while the module was imported)"
    assert error in (f"chat.py:2: {text}", f"chat.py:3: {text}")


def test_another_thread_gets_no_deadline_and_the_handler_is_put_back() -> None:
    found: list[object] = []

    def elsewhere() -> None:
        with open_deadline(1.0) as deadline:
            found.append(deadline)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert isinstance(found[0], NoDeadline)
    before = signal.getsignal(signal.SIGALRM)
    with open_deadline(1.0):
        assert signal.getsignal(signal.SIGALRM) != before
    assert signal.getsignal(signal.SIGALRM) == before


class _Transaction:
    expired = False


STANDSTILL = """
import time, trio
from stdb.actors.deadline import LoopWatch

async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(LoopWatch(0.6).run)
        await trio.sleep(1)  # a loop that runs is left alone
        LoopWatch.expect(8)
        time.sleep(1.2)  # longer than usual, not than was said
        await trio.sleep(0.2)
        print("running", flush=True)
        time.sleep(30)

trio.run(main)
"""


def test_a_loop_that_stands_still_ends_the_process_and_says_where() -> None:
    started = time.monotonic()
    result = subprocess.run([sys.executable, "-c", STANDSTILL], capture_output=True, text=True, timeout=25)
    assert time.monotonic() - started < 20
    assert result.returncode == 1
    assert result.stdout == "running\n"
    assert 'File "<string>", line 13 in main' in result.stderr
