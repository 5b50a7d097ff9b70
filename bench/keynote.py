"""keynote: `transfer` between 100,000 accounts, 64 connections with 40 calls in flight each, confirmed.

The ceiling is the stripped prototype in `ceiling/transfer.py`, driven by the same generator.
"""

import bisect
import itertools
import random
import socket
import struct
from collections.abc import Callable

from bench import load
from bench.harness import Effort, Process, Report, alternate, prepare_generator, server_process, stdb_process

ACCOUNTS = 100_000
INITIAL_BALANCE = 1_000_000_000
CONNECTIONS = 64
IN_FLIGHT = 40
CALLS_PER_CONNECTION = 3_000
ARGUMENTS = struct.Struct("<IIq")
SEED = struct.Struct("<Iq")
DATABASE = "keynote"


def run(effort: Effort) -> list[Report]:
    seconds, rounds, _ = effort
    prepare_generator()
    ours = stdb_process("--publish", f"bench/modules/keynote.py={DATABASE}")
    with ours as server, server_process(["-m", "bench.ceiling.transfer"]) as ceiling:
        seed(server)
        reports = [_measure(server, ceiling, alpha, seconds, rounds) for alpha in (1.5, 0.0)]
        verify(server)
    for report in reports:
        print(report.details())
    return reports


def seed(server: Process) -> None:
    """Fill the accounts."""
    sock = load.connect(server.port, DATABASE)
    sock.settimeout(60)
    sock.sendall(load.call(1, "seed", SEED.pack(ACCOUNTS, INITIAL_BALANCE)))
    assert load.read_message(sock)[14] == load.OK
    sock.close()


def verify(server: Process) -> None:
    """Hold the sum of all balances to what was seeded, and at least one balance to have changed."""
    sock = load.connect(server.port, DATABASE)
    sock.settimeout(60)
    sock.sendall(load.one_off(1, "SELECT * FROM accounts"))
    message = load.read_message(sock)
    sock.close()
    rows = message[message.rindex(ARGUMENTS_END) + len(ARGUMENTS_END) :]
    balances = [balance for _, balance in struct.Struct("<Iq").iter_unpack(rows)]
    assert len(balances) == ACCOUNTS, len(balances)
    assert sum(balances) == ACCOUNTS * INITIAL_BALANCE, "money was made or lost"
    assert any(balance != INITIAL_BALANCE for balance in balances), "nothing was transferred"


# A FixedSize(12) hint and the size of the data stand before the rows.
ARGUMENTS_END = b"\0" + (12).to_bytes(2, "little") + (12 * ACCOUNTS).to_bytes(4, "little")


def pairs(alpha: float, generator: random.Random) -> Callable[[], tuple[int, int]]:
    """Return a source of two different accounts: uniform for alpha 0, else Zipf with account 0 the hottest."""
    if not alpha:
        return lambda: _two(lambda: generator.randrange(ACCOUNTS))
    weights = list(itertools.accumulate(1 / (i + 1) ** alpha for i in range(ACCOUNTS)))
    return lambda: _two(lambda: min(bisect.bisect_left(weights, generator.random() * weights[-1]), ACCOUNTS - 1))


def _two(draw: Callable[[], int]) -> tuple[int, int]:
    first = draw()
    second = next(filter(lambda account: account != first, iter(draw, None)))
    return first, second


def calls(alpha: float) -> list[list[bytes]]:
    """Return prebuilt calls for every connection; every call has its own pair."""
    draw = pairs(alpha, random.Random(0x12345678))
    return [
        [load.call(i, "transfer", ARGUMENTS.pack(*draw(), 1)) for i in range(CALLS_PER_CONNECTION)]
        for _ in range(CONNECTIONS)
    ]


def _measure(server: Process, ceiling: Process, alpha: float, seconds: float, rounds: int) -> Report:
    prepared = calls(alpha)
    sides, sockets = {}, []
    for name, process in (("ours", server), ("ceiling", ceiling)):
        connections = [load.connect(process.port, DATABASE) for _ in range(CONNECTIONS)]
        sockets += connections
        sides[name] = side(process, connections, prepared, seconds)
    series = alternate(rounds, sides)
    for sock in sockets:
        sock.close()
    name = "keynote" if not alpha else f"keynote alpha {alpha}"
    return Report(name, "transfers per server CPU second", series["ours"], series["ceiling"], {"alpha": alpha})


def side(
    process: Process, sockets: list[socket.socket], prepared: list[list[bytes]], seconds: float
) -> Callable[[], tuple[float, float, float]]:
    """Return the measurement of one server."""
    window = load.Window(sockets, prepared, IN_FLIGHT)

    def measure() -> tuple[float, float, float]:
        before = process.cpu_seconds()
        done, wall = window.run(seconds)
        assert window.failures == 0, f"{window.failures} transfers failed"
        return done, process.cpu_seconds() - before, wall

    return measure
