"""A server killed while procedures run and timers come up: nothing confirmed is lost, nothing runs twice."""

import random
import time
from pathlib import Path

import pytest
import trio
from trio_websocket import ConnectionClosed, HandshakeError

from stdb.sats import bsatn
from stdb.sats.types import STRING
from tests.interop.processes import Server, start_server
from tests.test_server_kill import Speaker, connect, subscribe_url

pytestmark = pytest.mark.slow
PROCEDURE_RESULT = 7
SOURCE = """
from datetime import timedelta
from stdb import *

@table(public=True)
class Entry:
    id: u64 = primary_key(auto_inc=True)
    text: str

@table(scheduled=True)
class Job:
    scheduled_at: ScheduleAt
    text: str

def write(tx: ReducerContext, text: str) -> int:
    return tx.db[Entry].insert(Entry(text=text)).id

def schedule(tx: ReducerContext, text: str) -> None:
    tx.db[Job].insert(Job(text=text, scheduled_at=ScheduleAt.after(tx, timedelta(milliseconds=20))))

@procedure
async def store(ctx: ProcedureContext, text: str) -> str:
    await ctx.transact(write, "first " + text)
    await ctx.sleep(0.005)
    await ctx.transact(write, "second " + text)
    await ctx.transact(schedule, text)
    return text

@procedure(scheduled=Job)
async def work(ctx: ProcedureContext, timer: Job) -> None:
    await ctx.transact(write, "job " + timer.text)
"""
TEXT = bsatn.codec(STRING)


async def hammer(url: str, who: int, confirmed: set[str]) -> None:
    """Call procedures, ten in flight, until the server is gone."""
    waiting, number = 0, 0
    try:
        async with connect(url) as socket:
            speaker = Speaker(socket)
            while True:
                if waiting < 10:
                    text = f"{who}-{number}-{random.random()}"
                    await speaker.send((4, (number, 0, "store", TEXT.encode(text))))
                    waiting, number = waiting + 1, number + 1
                    continue
                tag, fields = await speaker.next()
                if tag == PROCEDURE_RESULT:
                    status, returned = fields[0]
                    assert status == 0, fields
                    confirmed.add(TEXT.decode_exact(returned))
                    waiting -= 1
    except* (ConnectionClosed, HandshakeError, OSError, trio.BrokenResourceError):
        pass  # the server was killed


async def texts(server: Server) -> list[str]:
    """Return the texts of all entries; a row is an id of 8 bytes and its text."""
    async with connect(subscribe_url(server, "procedures")) as socket:
        return [TEXT.decode_exact(row[8:]) for row in await Speaker(socket).rows("entry")]


def test_kill_9_loses_no_confirmed_result_of_a_procedure_and_runs_no_timer_twice(tmp_path: Path) -> None:
    source = tmp_path / "procedures.py"
    source.write_text(SOURCE)

    def start() -> Server:
        return start_server("--data-dir", f"{tmp_path}/server", "--publish", f"{source}=procedures")

    confirmed: set[str] = set()
    server = start()
    try:
        for round_ in range(3):

            async def until_killed(running: Server = server, number: int = round_) -> None:
                async with trio.open_nursery() as nursery:
                    for who in range(3):
                        url = subscribe_url(running, "procedures")
                        nursery.start_soon(hammer, url, 10 * number + who, confirmed)
                    await trio.sleep(1.0)
                    running.kill()

            before = len(confirmed)
            trio.run(until_killed)
            assert len(confirmed) > before, "the server answered nobody"
            server = start()
            time.sleep(0.3)  # rows that are due run without a request
            there = trio.run(texts, server)
            assert len(set(there)) == len(there), "nothing was done twice"
            for word in ("first", "second"):
                assert {f"{word} {text}" for text in confirmed} <= set(there)
            jobs = sum(text.startswith("job ") for text in there)
            assert jobs > 0
        assert server.stop() == 0
    finally:
        if server.process.poll() is None:
            server.kill()
    assert len(confirmed) > 30
