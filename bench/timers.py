"""timers: 10,000 rows that are due once each, spread evenly, on a server that does nothing else.

How late a reducer begins, by the server's clock, p50, p99 and greatest; and how late a client that watches is told.
The other side is a bare loop in this process that sleeps from one time to the next.
"""

import socket
import struct
import time

import trio

from bench import load
from bench.harness import Effort, Process, Report, Series, prepare_generator, stdb_process
from bench.latency import percentile

MODULE = "bench/modules/timers.py"
DATABASE = "timers"
TIMERS, TIMERS_QUICK = 10_000, 500
LEAD_SECONDS, LEAD_SECONDS_QUICK = 1.0, 0.2
"""How long after the call that sets them the first one is due."""
ROW = struct.Struct("<Qqq")
ALARMS = struct.Struct("<IQQ")


def run(effort: Effort) -> list[Report]:
    prepare_generator()
    count, lead = (TIMERS_QUICK, LEAD_SECONDS_QUICK) if effort.is_quick else (TIMERS, LEAD_SECONDS)
    ours, bare, told = Series(), Series(), list[float]()
    late: list[float] = []
    late_bare: list[float] = []
    with stdb_process("--publish", f"{MODULE}={DATABASE}") as server:
        sock = load.connect(server.port, DATABASE)
        sock.sendall(load.subscribe(1, 1, "SELECT * FROM ring"))
        load.read_message(sock)
        for _ in range(effort.rounds):
            ours.add(count, *_ring(server, sock, count, lead, effort.seconds, late, told))
            start = time.process_time()
            late_bare += trio.run(_bare, count, effort.seconds)
            bare.add(count, time.process_time() - start, effort.seconds)
        sock.close()
    figures = {"late_ms": _figures(late), "told_ms": _figures(told), "bare_late_ms": _figures(late_bare)}
    p99 = percentile(late, 0.99) * 1000, percentile(late_bare, 0.99) * 1000
    report = Report(
        "timers", "timers per server CPU second", ours, bare, figures, (*p99, "ms p99 late"), against="bare loop"
    )
    print(report.details())
    return [report]


def _ring(
    server: Process, sock: socket.socket, count: int, lead: float, seconds: float, late: list[float], told: list[float]
) -> tuple[float, float]:
    """Set the alarms, wait for all of them; return the CPU seconds of the server and those on the wall."""
    sock.sendall(load.call(1, "set_alarms", ALARMS.pack(count, int(lead * 1e6), int(seconds / count * 1e6))))
    load.read_message(sock)
    cpu, start, rest, seen = server.cpu_seconds(), time.perf_counter(), b"", 0
    while seen < count:
        data = sock.recv(load.RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the server dropped its watcher")
        now, rest, end = time.time(), rest + data, 0
        for end, payload in load.frames(rest):  # noqa: B007 - the last one counts
            for rows in load.inserted_rows(payload):
                for _, due_us, begun_us in ROW.iter_unpack(rows):
                    late.append((begun_us - due_us) / 1e6)
                    told.append(now - due_us / 1e6)
                    seen += 1
        rest = rest[end:]
    assert seen == count, f"{seen} rows came of {count} alarms"
    return server.cpu_seconds() - cpu, time.perf_counter() - start


async def _bare(count: int, seconds: float) -> list[float]:
    """Return how late a loop is that does nothing but sleep."""
    start, late = trio.current_time(), []
    for i in range(count):
        due = start + seconds / count * (i + 1)
        await trio.sleep_until(due)
        late.append(trio.current_time() - due)
    return late


def _figures(seconds: list[float]) -> dict[str, float]:
    shares = {"p50": percentile(seconds, 0.5), "p99": percentile(seconds, 0.99), "max": max(seconds)}
    return {name: round(value * 1000, 3) for name, value in shares.items()}
