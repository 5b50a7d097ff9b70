"""latency: 64 clients with one call in flight each, at 20 % of the rate they reach at most with the same mix of calls.

p50 and p99 in milliseconds from a call to its result, and from a commit (its result's arrival at the caller) to the
last of 100 subscribers; confirmed and not. A commit is taken as the moment its call was sent: an upper bound.
"""

import selectors
import socket
import struct
import time

from bench import load
from bench.harness import Process, Report, Series, prepare_generator, stdb_process

CLIENTS = 64
SUBSCRIBERS = 100
SHARE = 0.2
UNLIMITED = 1e9
DATABASE = "latency"
VALUE = struct.Struct("<Q")


def run(seconds: float, rounds: int) -> list[Report]:
    prepare_generator()
    reports = []
    with stdb_process("--publish", f"bench/modules/fanout.py={DATABASE}") as server:
        for confirmed in ("true", "false"):
            reports.append(_measure(server, confirmed, seconds, rounds))
    for report in reports:
        print(report.details())
    return reports


def percentile(values: list[float], share: float) -> float:
    """Return a percentile of unsorted values."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def _measure(server: Process, confirmed: str, seconds: float, rounds: int) -> Report:
    query = f"compression=None&confirmed={confirmed}"
    callers = [load.connect(server.port, DATABASE, query) for _ in range(CLIENTS)]
    watchers = [load.connect(server.port, DATABASE, query) for _ in range(SUBSCRIBERS)]
    for sock in watchers:
        sock.sendall(load.subscribe(1, 1, "SELECT * FROM shared"))
        load.read_message(sock)
    run_ = Paced(callers, watchers)
    run_.measure(seconds, UNLIMITED)
    rate = len(run_.results) / seconds * SHARE
    run_.forget()
    cpu = server.cpu_seconds()
    for _ in range(rounds):
        run_.measure(seconds, rate)
    ours = Series()
    ours.add(len(run_.results), server.cpu_seconds() - cpu, seconds * rounds)
    for sock in (*callers, *watchers):
        sock.close()
    figures = {
        "confirmed": confirmed,
        "rate_per_second": round(rate),
        "call_to_result_ms": _figures(run_.results),
        "call_to_last_subscriber_ms": _figures(run_.arrivals),
    }
    headline = percentile(run_.results, 0.99) * 1000, "ms p99 from call to result"
    return Report(f"latency confirmed={confirmed}", "calls per server CPU second", ours, None, figures, headline)


def _figures(seconds: list[float]) -> dict[str, float]:
    return {"p50": round(percentile(seconds, 0.5) * 1000, 3), "p99": round(percentile(seconds, 0.99) * 1000, 3)}


class Paced:
    """Calls at a steady rate; one transaction in ten changes the row that the subscribers watch."""

    def __init__(self, callers: list[socket.socket], watchers: list[socket.socket]) -> None:
        self.callers = callers
        self.results: list[float] = []
        self.arrivals: list[float] = []
        self.selector = selectors.DefaultSelector()
        for sock in callers:
            self.selector.register(sock, selectors.EVENT_READ, "caller")
        for sock in watchers:
            self.selector.register(sock, selectors.EVENT_READ, "watcher")
        self.sent: dict[socket.socket, float] = {}
        self.watched: dict[int, tuple[float, int]] = {}
        self.value = 0

    def forget(self) -> None:
        self.results.clear()
        self.arrivals.clear()

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
        if i % 10:
            frame = load.call(i, "set_owned", struct.pack("<IQ", i % 1000, i))
        else:
            self.value += 1
            frame = load.call(i, "set_shared", VALUE.pack(self.value))
        now = time.perf_counter()
        self.sent[sock] = now
        if not i % 10:
            self.watched[self.value] = (now, SUBSCRIBERS)
        sock.sendall(frame)

    def _receive(self, sock: object, kind: str, free: list[socket.socket]) -> None:
        assert isinstance(sock, socket.socket)
        data = sock.recv(load.RECEIVE_BYTES)
        now = time.perf_counter()
        for _, payload in load.frames(data):
            if kind == "caller":
                self.results.append(now - self.sent.pop(sock))
                free.append(sock)
            else:
                self._arrived(payload, now)

    def _arrived(self, payload: bytes, now: float) -> None:
        (row,) = load.inserted_rows(payload)
        (value,) = VALUE.unpack_from(row, 4)
        sent, missing = self.watched[value]
        if missing == 1:
            self.arrivals.append(now - sent)
            del self.watched[value]
        else:
            self.watched[value] = (sent, missing - 1)
