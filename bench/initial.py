"""The first answer to a subscription to a large table: rows a second, and how long it makes others wait.

A client of the same database and one of another call a reducer every millisecond meanwhile. The ceiling,
`ceiling/broadcast.py`, puts as many rows together.
"""

import math
import selectors
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench import load
from bench.harness import Effort, Measure, Process, Report, Series, alternate, server_process, stdb_process
from bench.latency import percentile

ROWS, ROWS_QUICK = 1_000_000, 30_000
ROW_BYTES = 80
"""About what a row is."""
ROWS_PER_CALL = 10_000
EVERY_SECONDS = 0.001
BEFORE_SECONDS = 0.2
"""How long others call before the large question is asked, and after its answer came."""
DATABASE, OTHER = "grid", "other"
CONNECTION = "compression=None&confirmed=false"
FILL = struct.Struct("<II")
COUNT = struct.Struct("<Q")
HEAD_BYTES = 10
"""Of a frame of 64 KiB or more."""


@dataclass(frozen=True)
class Language:
    """How one side is asked: for all rows, to forget that it was, for something small."""

    ask: bytes
    forget: bytes
    small: Callable[[int], bytes]


OURS = Language(
    load.subscribe(1, 1, "SELECT * FROM item"),
    load.unsubscribe(2, 1),
    lambda i: load.call(i, "count", COUNT.pack(i)),
)


def bare(rows: int) -> Language:
    ask = load.client_frame(b"\4" + FILL.pack(rows, ROW_BYTES))
    return Language(ask, b"", lambda _i: load.client_frame(b"\3\0\0"))


def run(effort: Effort) -> list[Report]:
    rows = ROWS_QUICK if effort.is_quick else ROWS
    program = "bench/modules/grid.py"
    publish = ("--publish", f"{program}={DATABASE}", "--publish", f"{program}={OTHER}")
    with stdb_process(*publish) as server, server_process(["-m", "bench.ceiling.broadcast"]) as ceiling:
        fill(server, rows)
        sides = {"ours": Asker(server, OURS), "ceiling": Asker(ceiling, bare(rows))}
        assert all(side.ask() >= rows * ROW_BYTES for side in sides.values()), "not all rows came"
        series = alternate(effort.rounds, {name: side.rate(rows, effort.seconds) for name, side in sides.items()})
        rate = Report("subscriptions initial", "rows per server CPU second", series["ours"], series["ceiling"])
        return [*pauses(sides, effort), rate]


def fill(server: Process, rows: int) -> None:
    sock = load.connect(server.port, DATABASE, CONNECTION)
    for first in range(0, rows, ROWS_PER_CALL):
        sock.sendall(load.call(1, "fill", FILL.pack(first, min(ROWS_PER_CALL, rows - first))))
        assert load.read_message(sock)[14] == load.OK
    sock.close()


class Asker:
    """A client that asks for all rows."""

    def __init__(self, process: Process, language: Language) -> None:
        self.process = process
        self.language = language
        self.sock = load.connect(process.port, DATABASE, CONNECTION)
        self.buffer = bytearray(load.RECEIVE_BYTES)

    def ask(self) -> int:
        """Return how large the answer was; forget it."""
        self.sock.sendall(self.language.ask)
        answer = Answer()
        while not answer.receive(self.sock, self.buffer):
            pass
        self.forget()
        return answer.size

    def forget(self) -> None:
        if self.language.forget:
            self.sock.sendall(self.language.forget)
            load.read_message(self.sock)

    def rate(self, rows: int, seconds: float) -> Measure:
        def measure() -> tuple[float, float, float]:
            cpu, start, done = self.process.cpu_seconds(), time.perf_counter(), 0
            while time.perf_counter() - start < seconds:
                self.ask()
                done += rows
            return done, self.process.cpu_seconds() - cpu, time.perf_counter() - start

        return measure


class Answer:
    """A large message: its frame tells its size, its bytes are only counted."""

    def __init__(self) -> None:
        self._head = b""
        self._received = 0

    @property
    def size(self) -> int:
        assert self._head[:2] == b"\x82\x7f", self._head
        return int.from_bytes(self._head[2:], "big")

    def receive(self, sock: socket.socket, buffer: bytearray) -> bool:
        """Take what came; tell whether that was the last of it."""
        count = sock.recv_into(buffer)
        if not count:
            raise ConnectionError("the server closed the connection")
        self._head += buffer[: min(count, HEAD_BYTES - len(self._head))]
        self._received += count
        return len(self._head) == HEAD_BYTES and self._received == HEAD_BYTES + self.size


class Caller:
    """A client with one call in flight, at most one a millisecond."""

    def __init__(self, process: Process, language: Language, database: str) -> None:
        self.language = language
        self.sock = load.connect(process.port, database, CONNECTION)
        self.calls = 0
        self.trips: list[float] = []
        """Seconds of each round trip."""
        self._sent: float | None = None
        self._next = 0.0

    def call(self) -> None:
        """Call when it is time to."""
        now = time.perf_counter()
        if self._sent is None and now >= self._next:
            self._sent, self._next = now, now + EVERY_SECONDS
            self.calls += 1
            self.sock.sendall(self.language.small(self.calls))

    def receive(self) -> None:
        load.read_message(self.sock)
        assert self._sent is not None
        self.trips.append(time.perf_counter() - self._sent)
        self._sent = None


def pauses(sides: dict[str, Asker], effort: Effort) -> list[Report]:
    """Return the longest round trip of each of two other clients over all rounds."""
    places = {"same": DATABASE, "other": OTHER}
    series = {side: Series() for side in sides}
    trips: dict[tuple[str, str], list[float]] = {}
    answers: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(effort.rounds):
        for side, asker in sides.items():
            callers = {place: Caller(asker.process, asker.language, database) for place, database in places.items()}
            cpu, start = asker.process.cpu_seconds(), time.perf_counter()
            answers[side].append(_watch(asker, list(callers.values())))
            done = sum(len(caller.trips) for caller in callers.values())
            series[side].add(done, asker.process.cpu_seconds() - cpu, time.perf_counter() - start)
            for place, caller in callers.items():
                trips.setdefault((side, place), []).extend(caller.trips)
                caller.sock.close()
    return [_pause(place, series, trips, answers) for place in places]


def _watch(asker: Asker, callers: list[Caller]) -> float:
    """Let others call before, while and after all rows are asked for; return the seconds of that answer."""
    with selectors.DefaultSelector() as selector:
        for caller in callers:
            selector.register(caller.sock, selectors.EVENT_READ, caller)
        selector.register(asker.sock, selectors.EVENT_READ)
        answer, asked, end = Answer(), time.perf_counter() + BEFORE_SECONDS, math.inf
        is_asked = False
        while (now := time.perf_counter()) < end:
            if not is_asked and now >= asked:
                asker.sock.sendall(asker.language.ask)
                is_asked, asked = True, now
            for caller in callers:
                caller.call()
            for key, _ in selector.select(EVERY_SECONDS / 4):
                if key.data is not None:
                    key.data.receive()
                elif answer.receive(asker.sock, asker.buffer):
                    took = time.perf_counter() - asked
                    end = asked + took + BEFORE_SECONDS
        asker.forget()
    return took


def _pause(
    place: str, series: dict[str, Series], trips: dict[tuple[str, str], list[float]], answers: dict[str, list[float]]
) -> Report:
    figures: dict[str, object] = {}
    for side in series:
        millis = [each * 1000 for each in trips[side, place]]
        figures[f"{side}_ms"] = {
            "p50": round(percentile(millis, 0.5), 3),
            "p99": round(percentile(millis, 0.99), 3),
            "longest": round(max(millis), 2),
            "answers": [round(each * 1000) for each in answers[side]],
        }
    ours, ceiling = (max(trips[side, place]) * 1000 for side in ("ours", "ceiling"))
    name, unit = f"subscriptions pause {place} database", "round trips per server CPU second"
    headline = ours, ceiling, "ms longest round trip"
    return Report(name, unit, series["ours"], series["ceiling"], figures, headline)
