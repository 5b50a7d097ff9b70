"""sleepers: what a reducer call takes while 1,000 procedures of its database sleep, and while none does.

One client, one call in flight, unconfirmed; p50 and p99 in milliseconds from a call to its result. Both sides are one
server in one run, by turns. The line compares the p99s; for p50 see `p50_ratio`.
"""

import socket
import struct
import time

from bench import load
from bench.harness import Effort, Process, Report, Series, prepare_generator, stdb_process
from bench.latency import percentile

MODULE = "bench/modules/sleepers.py"
DATABASE = "sleepers"
SLEEPERS = 1_000
NAP_SECONDS = 3600
QUERY = "compression=None&confirmed=false"
VALUE = struct.Struct("<Q")
NAP = struct.Struct("<I")


def run(effort: Effort) -> list[Report]:
    prepare_generator()
    series = {"ours": Series(), "bare": Series()}
    taken: dict[str, list[float]] = {"ours": [], "bare": []}
    with stdb_process("--publish", f"{MODULE}={DATABASE}") as server:
        caller = load.connect(server.port, DATABASE, QUERY)
        _call_for(caller, 0.2)
        for _ in range(effort.rounds):
            sleepers = _start_sleepers(server.port)
            _measure(server, caller, effort.seconds, series["ours"], taken["ours"])
            sleepers.close()
            _call_for(caller, 0.1)  # meanwhile they end
            _measure(server, caller, effort.seconds, series["bare"], taken["bare"])
        caller.close()
    p50, p99 = ({side: percentile(times, share) for side, times in taken.items()} for share in (0.5, 0.99))
    figures = {
        "sleepers": SLEEPERS,
        "call_to_result_ms": _figures(taken["ours"]),
        "call_to_result_without_ms": _figures(taken["bare"]),
        "p50_ratio": round(p50["ours"] / p50["bare"], 3),
        "p99_ratio": round(p99["ours"] / p99["bare"], 3),
    }
    headline = (p99["ours"] * 1000, p99["bare"] * 1000, "ms p99 from call to result")
    unit = "calls per server CPU second"
    report = Report("sleepers", unit, series["ours"], series["bare"], figures, headline, against="none asleep")
    print(report.details())
    return [report]


def _start_sleepers(port: int) -> socket.socket:
    """Have all of them sleep; they end when the socket is closed."""
    sock = load.connect(port, DATABASE, QUERY)
    sock.sendall(b"".join(load.call_procedure(i, "sleep", NAP.pack(NAP_SECONDS)) for i in range(SLEEPERS)))
    sock.sendall(load.call(SLEEPERS, "set_counter", VALUE.pack(0)))
    load.read_message(sock)  # its result: every procedure before it was started
    return sock


def _measure(server: Process, sock: socket.socket, seconds: float, series: Series, taken: list[float]) -> None:
    cpu, start = server.cpu_seconds(), time.perf_counter()
    times = _call_for(sock, seconds)
    series.add(len(times), server.cpu_seconds() - cpu, time.perf_counter() - start)
    taken += times


def _call_for(sock: socket.socket, seconds: float) -> list[float]:
    """Call one after another for a time; return how long each took."""
    taken: list[float] = []
    stop_at = time.perf_counter() + seconds
    while (start := time.perf_counter()) < stop_at:
        sock.sendall(load.call(len(taken), "set_counter", VALUE.pack(len(taken))))
        load.read_message(sock)
        taken.append(time.perf_counter() - start)
    return taken


def _figures(seconds: list[float]) -> dict[str, float]:
    return {"p50": round(percentile(seconds, 0.5) * 1000, 3), "p99": round(percentile(seconds, 0.99) * 1000, 3)}
