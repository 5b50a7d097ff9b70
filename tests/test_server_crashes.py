"""A server as a process, killed at random moments under load, again and again on one data directory (issue 6, part 9).

Afterwards: every acknowledged append is there once and in order, none is half there, the whole is strictly
serialisable; every client that came has left exactly once, before anybody of the next life came.

`STDB_CRASHES=200 pytest tests/test_server_crashes.py -k random_moments` kills it more often.
"""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import count
from math import inf
from pathlib import Path
from struct import Struct

import pytest
import trio

from tests.crash_clients import Session, lists_of, play, read_rows
from tests.crash_history import Append, Read, check_history, check_whole
from tests.crash_lists import SLOTS
from tests.interop.npm import ROOT
from tests.interop.processes import start_server

MODULE = Path(__file__).parent / "crash_lists.py"
CONNECTIONS = 64
KILLS = int(os.environ.get("STDB_CRASHES", "20"))
WATCHER = 1 << 101
"""Connection ids from here on belong to who asks between the lives."""
ELEMENT, VISIT, SLOT = Struct("<8xIIQ"), Struct("<Q16s?"), Struct("<IQ")
TAIL, BATON, OPERATION = Struct("<II"), Struct("<Q"), Struct("<Q4xII")


@pytest.fixture
def data() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as path:
        yield path


class Lives:
    """One data directory, the server on it, and what the clients of all its lives know."""

    def __init__(self, data: str, seed: int) -> None:
        self.chosen = random.Random(seed)
        self._arguments = ("--data-dir", data)
        self._directory = Path(data)
        self.server = start_server(*self._arguments, "--publish", f"{MODULE}=lists", program="tests.crash_server")
        self.token = (Path(data) / "operator.token").read_text().strip()
        self.sessions: list[Session] = []
        self._lives = 0
        self.left = Counter[str]()
        """What killed servers left: rows behind the log's end, a window half applied, a log that begins later."""
        self._watchers = count(WATCHER, 8)

    def note_what_is_left(self) -> None:
        """Look into a copy of the file that a killed server left."""
        with tempfile.TemporaryDirectory() as copies:
            for path in self._directory.glob("databases/*.sqlite*"):
                if not path.name.endswith("-shm"):
                    shutil.copy(path, Path(copies) / path.name)
            (path,) = Path(copies).glob("*.sqlite")
            with closing(sqlite3.connect(path)) as connection:
                metadata = dict(connection.execute("SELECT name, value FROM metadata"))
                (end,) = connection.execute("SELECT max(first_offset + count) FROM log").fetchone()
        self.left["behind"] += metadata["rows_offset"] < end
        self.left["merged"] += metadata["rows_offset"] > 0
        self.left["mixed"] += "merging_to" in metadata
        self.left["short"] += metadata["log_first"] > 0

    def start(self) -> None:
        """Start the server again; its database launches in the background."""
        self.server = start_server(*self._arguments, program="tests.crash_server")

    def live(self) -> list[Session]:
        """Let clients append until the server is killed; return what they know."""
        life, self._lives = self._lives, self._lives + 1
        sessions = [Session(life, who, confirmed=who % 4 != 3) for who in range(CONNECTIONS)]
        trio.run(self._until_killed, sessions, self.chosen.uniform(0.05, 0.8))
        self.sessions += sessions
        return sessions

    async def _until_killed(self, sessions: Sequence[Session], seconds: float) -> None:
        async with trio.open_nursery() as nursery:
            for session in sessions:
                chosen = random.Random(self.chosen.random())
                nursery.start_soon(play, self.server.address, "lists", session, chosen, session.who % 3 + 1)
            with trio.fail_after(20):
                await sessions[0].connected.wait()
            await trio.sleep(seconds)
            self.server.kill()
            nursery.cancel_scope.deadline = trio.current_time() + 5

    def start_and_kill_at_once(self) -> None:
        """Kill a server while it starts, or while it recovers and disconnects those of the last life."""
        self.start()
        time.sleep(self.chosen.uniform(0, 0.1))
        self.server.kill()
        command = [sys.executable, "-m", "tests.crash_server", "serve", "-l", "127.0.0.1:0", *self._arguments]
        starting = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        time.sleep(self.chosen.uniform(0, 1))
        starting.kill()
        starting.wait()

    def rows(self, table: str, where: str = "") -> list[bytes]:
        """Return rows of a table."""
        query = f"SELECT * FROM {table}{where and f' WHERE {where}'}"
        return trio.run(read_rows, self.server.address, "lists", query, next(self._watchers))

    def check_nobody_is_connected(self) -> None:
        """Whoever comes first finds nobody else in `st_client`."""
        assert len(self.server.sql("lists", "SELECT * FROM st_client", self.token)) == 1

    def lists(self, life: int) -> dict[int, list[int]]:
        """Return the lists of one life, gapless."""
        lists: dict[int, list[int]] = {}
        for name in lists_of(life):
            elements = sorted(map(ELEMENT.unpack, self.rows("element", f"list = {name}")))
            assert [position for _, position, _ in elements] == list(range(len(elements)))
            lists[name] = [value for _, _, value in elements]
        return lists

    def check_life(self, sessions: Sequence[Session]) -> set[int]:
        """Check what the clients of the last life know; return the values that are there."""
        lists = self.lists(sessions[0].life)
        check_history([(session.confirmed, session.sent) for session in sessions], lists)
        appends = {append.value: append for session in sessions for append in session.appends}
        present = check_whole(appends.values(), lists)
        operations = map(OPERATION.unpack, self.rows("operation", f"life = {sessions[0].life}"))
        assert {value: (first, second) for value, first, second in operations} == {
            value: appends[value].lists for value in present
        }
        tails = {name: length for name, length in map(TAIL.unpack, self.rows("tail")) if name in lists}
        assert tails == {name: len(values) for name, values in lists.items() if values}
        if present:
            self._check_overwritten(lists, appends)
        return present

    def _check_overwritten(self, lists: dict[int, list[int]], appends: dict[int, Append]) -> None:
        """Rows that every append overwrites say what the last one wrote."""
        batons = [value for (value,) in map(BATON.unpack, self.rows("baton"))]
        assert len(batons) == 1
        assert all(lists[name][-1] == batons[0] for name in appends[batons[0]].lists), "the baton is not the last one's"
        for slot, value in map(SLOT.unpack, self.rows("slot")):
            if value in appends:
                assert value % SLOTS == slot
                for name in appends[value].lists:
                    after = lists[name][lists[name].index(value) + 1 :]
                    assert all(later % SLOTS != slot for later in after), "a slot fell back"

    def check_visits(self) -> None:
        """Who came has left once, before anybody of the next life came; who was answered has come."""
        connected: set[int] = set()
        came: Counter[int] = Counter()
        life = -1
        for _, wire, arrived in sorted(map(VISIT.unpack, self.rows("visit"))):
            number = int.from_bytes(wire, "little")
            its_life = (number >> 32) & 0xFFFF if number >> 100 == 1 else -1  # else it is one that asks between lives
            if not arrived:
                connected.remove(number)
                continue
            came[number] += 1
            if its_life != life:
                left = [other for other in connected if other >> 100 == 1]
                assert not left, f"{len(left)} of the last life are not gone when the next one comes"
                life = its_life
            if number % 8 != 7:
                connected.add(number)
        assert all(number >> 100 != 1 for number in connected)
        assert max(came.values()) == 1
        for session in self.sessions:
            if session.confirmed and any(what.answered < inf for what in session.sent):
                assert came[session.number] == 1


def kill_and_check(data: str, kills: int) -> None:
    lives = Lives(data, seed=kills)
    try:
        known: dict[int, int] = {}
        acknowledged = 0
        for kill in range(kills):
            sessions = lives.live()
            lives.note_what_is_left()
            if kill % 5 == 4:
                lives.start_and_kill_at_once()
            lives.start()
            lives.check_nobody_is_connected()
            known[kill] = len(lives.check_life(sessions))
            acknowledged += sum(what.answered < inf for each in sessions for what in each.appends)
        lives.check_visits()
        for life, count_ in known.items():
            assert sum(map(len, lives.lists(life).values())) == 2 * count_, "an older life's appends changed"
        assert acknowledged > 50 * kills
        assert lives.left["merged"] > kills // 2
        assert lives.left["behind"] > 0
        assert lives.left["short"] > kills // 2
        assert kills < 20 or lives.left["mixed"] > 0, "no kill met a window that was half applied"
        assert lives.server.stop() == 0
    finally:
        if lives.server.process.poll() is None:
            lives.server.kill()


@pytest.mark.slow
def test_a_server_killed_at_random_moments_loses_and_mixes_nothing(data: str) -> None:
    kill_and_check(data, KILLS)


@pytest.mark.slow
@pytest.mark.long
def test_neither_does_one_that_is_killed_a_hundred_times(data: str) -> None:
    kill_and_check(data, 100)


# The judge


def history() -> tuple[list[tuple[bool, list[Append | Read]]], dict[int, list[int]]]:
    """Return what two clients saw: 1 and 2 of one, 3 and 4 of another one, each of which appended to two lists."""
    one: list[Append | Read] = [Append(1, (0, 1), 0, 1), Append(2, (0, 1), 2, 3), Read(0, 3.1, 3.9, (1, 2))]
    other: list[Append | Read] = [Append(3, (1, 2), 4, 5), Append(4, (1, 2), 6), Append(5, (1, 2), 6)]
    return [(True, [*one]), (True, [*other])], {0: [1, 2], 1: [1, 2, 3, 4], 2: [3, 4]}


def test_the_judge_accepts_what_may_be() -> None:
    clients, lists = history()
    check_history(clients, lists)
    check_history(clients, {0: [1, 2], 1: [1, 2, 3], 2: [3]})  # 4 was acknowledged to nobody


@pytest.mark.parametrize(
    ("lists", "told"),
    [
        ({0: [1, 2], 1: [1, 2, 3], 2: [3, 4]}, "0x4 is in the lists"),  # half present
        ({0: [1, 2, 2], 1: [1, 2, 3], 2: [3]}, "0x2 is in the lists"),  # twice
        ({0: [1, 2], 1: [1, 2, 9], 2: [3]}, "is in the lists"),  # from nowhere
        ({0: [1, 2], 1: [1, 2], 2: []}, "1 acknowledged appends of 3 are lost"),
        ({0: [1, 2], 1: [1, 2, 3, 5], 2: [3, 5]}, "a later one of its client is there"),
        ({0: [1, 2], 1: [2, 1, 3], 2: [3]}, "no serial order"),  # two lists tell different orders
        ({0: [1, 2], 1: [3, 1, 2], 2: [3]}, "no serial order"),  # sent after 2 was answered
        ({0: [2, 1], 1: [2, 1, 3], 2: [3]}, "which it never was"),
    ],
)
def test_the_judge_finds_what_may_not_be(lists: dict[int, list[int]], told: str) -> None:
    clients, _ = history()
    with pytest.raises(AssertionError, match=told):
        check_history(clients, lists)


def test_the_judge_finds_a_read_of_the_past_and_a_lost_answer_before_a_confirmed_one() -> None:
    clients, lists = history()
    stale = Read(0, 3.1, 3.9, (1,))
    with pytest.raises(AssertionError, match="no serial order"):
        check_history([*clients, (True, [stale])], lists)
    told_at_once = Append(6, (0, 1), 0, 0.5)
    with pytest.raises(AssertionError, match="1 acknowledged appends of 4 are lost"):
        check_history([*clients, (False, [told_at_once])], lists)
    check_history([*clients, (False, [Append(6, (0, 1), 4, 4.5)])], lists)
