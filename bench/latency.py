"""latency: 64 clients with one call in flight each, at 20 % of the rate they reach at most with the same mix of calls.

p50 and p99 in milliseconds from a call to its result, and from a commit (its result's arrival at the caller) to the
last of 100 subscribers; confirmed and not. A commit is taken as the moment its call was sent: an upper bound.
The ceiling is `ceiling/broadcast.py` at the same rate: no database, no log.
"""

import selectors
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench import load
from bench.harness import Effort, Process, Report, Series, prepare_generator, server_process, stdb_process

CLIENTS = 64
SUBSCRIBERS = 100
SHARE = 0.2
UNLIMITED = 1e9
DATABASE = "latency"
VALUE = struct.Struct("<Q")
SHARED_EVERY = 10
"""One call in so many changes the row that the subscribers watch."""


@dataclass(frozen=True)
class Language:
    """How one side is asked: for a change that nobody watches, for one that all do, and what an update says."""

    own: Callable[[int], bytes]
    shared: Callable[[int, int], bytes]
    value: Callable[[bytes], int]
    watch: Callable[[socket.socket], None]


def run(effort: Effort) -> list[Report]:
    seconds, rounds, _ = effort
    prepare_generator()
    reports = []
    with stdb_process("--publish", f"bench/modules/fanout.py={DATABASE}") as server:
        for confirmed in ("true", "false"):
            with server_process(["-m", "bench.ceiling.broadcast"]) as ceiling:
                reports.append(_measure(server, ceiling, confirmed, seconds, rounds))
    for report in reports:
        print(report.details())
    return reports


def percentile(values: list[float], share: float) -> float:
    """Return a percentile of unsorted values."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def _measure(server: Process, ceiling: Process, confirmed: str, seconds: float, rounds: int) -> Report:
    query = f"compression=None&confirmed={confirmed}"
    ours, bare = Paced(server, query, OURS), Paced(ceiling, query, BARE)
    ours.measure(seconds, UNLIMITED)
    rate = len(ours.results) / seconds * SHARE
    ours.forget()
    series = {"ours": Series(), "ceiling": Series()}
    for _ in range(rounds):
        for side, paced in (("ours", ours), ("ceiling", bare)):
            before, known = paced.process.cpu_seconds(), len(paced.results)
            paced.measure(seconds, rate)
            series[side].add(len(paced.results) - known, paced.process.cpu_seconds() - before, seconds)
    figures = {
        "confirmed": confirmed,
        "rate_per_second": round(rate),
        "call_to_result_ms": _figures(ours.results),
        "call_to_last_subscriber_ms": _figures(ours.arrivals),
        "ceiling_call_to_result_ms": _figures(bare.results),
        "ceiling_call_to_last_subscriber_ms": _figures(bare.arrivals),
    }
    p99 = percentile(ours.results, 0.99) * 1000, percentile(bare.results, 0.99) * 1000
    ours.close()
    bare.close()
    name, unit = f"latency confirmed={confirmed}", "calls per server CPU second"
    headline = (*p99, "ms p99 from call to result")
    return Report(name, unit, series["ours"], series["ceiling"], figures, headline)


def _figures(seconds: list[float]) -> dict[str, float]:
    return {"p50": round(percentile(seconds, 0.5) * 1000, 3), "p99": round(percentile(seconds, 0.99) * 1000, 3)}


def _our_value(payload: bytes) -> int:
    (row,) = load.inserted_rows(payload)
    value: int = VALUE.unpack_from(row, 4)[0]
    return value


def _bare_value(payload: bytes) -> int:
    value: int = VALUE.unpack(payload[-VALUE.size :])[0]
    return value


def _subscribe(sock: socket.socket) -> None:
    sock.sendall(load.subscribe(1, 1, "SELECT * FROM shared"))
    load.read_message(sock)


OURS = Language(
    lambda i: load.call(i, "set_owned", struct.pack("<IQ", i % 1000, i)),
    lambda i, value: load.call(i, "set_shared", VALUE.pack(value)),
    _our_value,
    _subscribe,
)
BARE = Language(
    lambda _i: load.client_frame(b"\3\0\0"),
    lambda _i, value: load.client_frame(b"\0" + VALUE.pack(value)),
    _bare_value,
    lambda sock: sock.sendall(load.client_frame(b"\2")),
)


class Paced:
    """Callers and subscribers of one server; calls go out at a steady rate."""

    def __init__(self, process: Process, query: str, language: Language) -> None:
        self.process = process
        self.language = language
        self.callers = [load.connect(process.port, DATABASE, query) for _ in range(CLIENTS)]
        self.watchers = [load.connect(process.port, DATABASE, query) for _ in range(SUBSCRIBERS)]
        self.results: list[float] = []
        self.arrivals: list[float] = []
        self.selector = selectors.DefaultSelector()
        for sock in self.watchers:
            language.watch(sock)
            self.selector.register(sock, selectors.EVENT_READ, "watcher")
        for sock in self.callers:
            self.selector.register(sock, selectors.EVENT_READ, "caller")
        self.sent: dict[socket.socket, float] = {}
        self.watched: dict[int, tuple[float, int]] = {}
        self.value = 0

    def forget(self) -> None:
        self.results.clear()
        self.arrivals.clear()

    def close(self) -> None:
        self.selector.close()
        for sock in (*self.callers, *self.watchers):
            sock.close()

    def measure(self, seconds: float, rate: float) -> None:
        """Call at `rate` a second for a time, then wait for what is missing."""
        start = time.perf_counter()
        free = list(self.callers)
        called = 0
        while True:
            now = time.perf_counter()
            due = start + called / rate
            if now - start >= seconds and not (self.sent or self.watched):
                return
            if now - start > seconds + 10:
                raise TimeoutError(f"{len(self.sent)} results and {len(self.watched)} updates are missing")
            if free and due <= now < start + seconds:
                self._call(free.pop(), called)
                called += 1
                wait = 0.0
            else:
                wait = 0.0002 if free else 0.05
            for key, _ in self.selector.select(wait):
                self._receive(key.fileobj, key.data, free)

    def _call(self, sock: socket.socket, i: int) -> None:
        now = time.perf_counter()
        if i % SHARED_EVERY:
            frame = self.language.own(i)
        else:
            self.value += 1
            frame = self.language.shared(i, self.value)
            self.watched[self.value] = (now, SUBSCRIBERS)
        self.sent[sock] = now
        sock.sendall(frame)

    def _receive(self, sock: object, kind: str, free: list[socket.socket]) -> None:
        assert isinstance(sock, socket.socket)
        data = sock.recv(load.RECEIVE_BYTES)
        if not data:
            raise ConnectionError(f"the server dropped a {kind}")
        now = time.perf_counter()
        for _, payload in load.frames(data):
            if kind == "caller":
                self.results.append(now - self.sent.pop(sock))
                free.append(sock)
            else:
                self._arrived(self.language.value(payload), now)

    def _arrived(self, value: int, now: float) -> None:
        sent, missing = self.watched[value]
        if missing == 1:
            self.arrivals.append(now - sent)
            del self.watched[value]
        else:
            self.watched[value] = (sent, missing - 1)
