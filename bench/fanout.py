"""fanout: one writer and 1,000 subscribers, of the same query or each of `WHERE owner = X`.

The ceiling of the first is bare sends of a prebuilt frame, of the second one bare send and a reply. The writer has one
call in flight in the first case, so that nothing is coalesced: every transaction is one send to every client.
"""

import selectors
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from bench import load
from bench.harness import Effort, Process, Report, alternate, prepare_generator, server_process, stdb_process

SUBSCRIBERS = 1_000
PROGRAM = "bench/modules/fanout.py"
DATABASE = "fanout"
PUBLISH = ("--publish", f"{PROGRAM}={DATABASE}")
U32 = struct.Struct("<I")
SHARED = struct.Struct("<Q")
OWNED = struct.Struct("<IQ")


def run(effort: Effort) -> list[Report]:
    prepare_generator()
    with stdb_process(*PUBLISH) as server:
        reports = [measure(server, case, effort) for case in (OWN_ROWS, SAME_QUERY)]
    reports.append(measure_0_11(effort))
    for report in reports:
        print(report.details())
    return reports


def _own_query(i: int) -> str:
    return f"SELECT * FROM owned WHERE owner = {i}"


def _shared(i: int) -> bytes:
    return load.call(i, "set_shared", SHARED.pack(i))


def _owned(i: int) -> bytes:
    return load.call(i, "set_owned", OWNED.pack(i % SUBSCRIBERS, i))


@dataclass(frozen=True)
class Case:
    """What is measured: the subscribers' queries, the writer's calls, the same of the ceiling."""

    name: str
    unit: str
    everybody: bool
    in_flight: int
    query: Callable[[int], str]
    call: Callable[[int], bytes]
    bare: Callable[[int], bytes]


SAME_QUERY = Case(
    "fanout same query", "client messages", True, 1, lambda _i: "SELECT * FROM shared", _shared, lambda _i: bytes(9)
)
OWN_ROWS = Case(
    "fanout own rows",
    "transactions",
    False,
    64,
    _own_query,
    _owned,
    lambda i: b"\1" + U32.pack(i % SUBSCRIBERS) + bytes(8),
)


def measure(server: Process, case: Case, effort: Effort) -> Report:
    """Return what a server does beside bare sends."""
    with server_process(["-m", "bench.ceiling.broadcast"]) as ceiling:
        bare = Side(ceiling, case, effort, lambda i: load.client_frame(case.bare(i)))
        return compare(case, effort, Side(server, case, effort, case.call, case.query), bare)


def measure_0_11(effort: Effort) -> Report:
    """Return what a server does for clients of 0.11, all of whose messages are Brotli, beside another of 1.x."""
    case = replace(SAME_QUERY, name="fanout 0.11")
    with stdb_process(*PUBLISH) as old, stdb_process(*PUBLISH) as new:
        ours = Side0_11(old, case, effort, case.call, case.query)
        return compare(case, effort, ours, Side1(new, case, effort, case.call, case.query), "clients of 1x")


def compare(case: Case, effort: Effort, ours: "Side", other: "Side", against: str = "ceiling") -> Report:
    """Return what two servers do in turn; closes their connections."""
    series = alternate(effort.rounds, {"ours": ours.measure, against: other.measure})
    ours.close()
    other.close()
    unit = f"{case.unit} per server CPU second"
    return Report(case.name, unit, series["ours"], series[against], against=against)


class Side:
    """One server with its writer and its subscribers; a measurement sends calls and drains everything."""

    def __init__(
        self,
        process: Process,
        case: Case,
        effort: Effort,
        call: Callable[[int], bytes],
        query: Callable[[int], str] | None = None,
    ) -> None:
        self.process = process
        self.seconds = effort.seconds
        self.case = case
        self.call = call
        self.sent = 0
        self.writer = load.connect(process.port, DATABASE, "compression=None&confirmed=false")
        self.readers = [self._subscriber(i, query) for i in range(SUBSCRIBERS)]
        self.selector = selectors.DefaultSelector()
        for sock in (self.writer, *self.readers):
            sock.setblocking(False)
            self.selector.register(sock, selectors.EVENT_READ)
        self.rests: dict[socket.socket, bytes] = {}

    def _subscriber(self, i: int, query: Callable[[int], str] | None) -> socket.socket:
        sock = load.connect(self.process.port, DATABASE, "compression=None&confirmed=false")
        if query is None:
            sock.sendall(load.client_frame(b"\2"))
        else:
            sock.sendall(load.subscribe(1, 1, query(i)))
            load.read_message(sock)
        return sock

    def measure(self) -> tuple[float, float, float]:
        before, start = self.process.cpu_seconds(), time.perf_counter()
        calls = received = replied = 0
        fan = SUBSCRIBERS if self.case.everybody else 1
        while True:
            running = time.perf_counter() - start < self.seconds
            while running and calls - replied < self.case.in_flight:
                self.writer.send(self.call(self.sent))
                self.sent += 1
                calls += 1
            if not running and replied == calls and received >= calls * fan:
                break
            for key, _ in self.selector.select(1.0):
                count = self._count(key.fileobj)
                if key.fileobj is self.writer:
                    replied += count
                else:
                    received += count
        assert received == calls * fan, f"{received} messages for {calls} transactions"
        return received, self.process.cpu_seconds() - before, time.perf_counter() - start

    def _count(self, sock: object) -> int:
        assert isinstance(sock, socket.socket)
        data = sock.recv(load.RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the server closed a connection")
        data = self.rests.get(sock, b"") + data
        count = used = 0
        for used, _ in load.frames(data):  # noqa: B007 - the last offset is what is used
            count += 1
        self.rests[sock] = data[used:]
        return count

    def close(self) -> None:
        self.selector.close()
        for sock in (self.writer, *self.readers):
            sock.close()


class Side0_11(Side):  # noqa: N801  # the version's name
    """Subscribers of 0.11."""

    PATH, PROTOCOL = f"/database/subscribe/{DATABASE}", "v1.bin.spacetimedb"

    def _subscriber(self, i: int, query: Callable[[int], str] | None) -> socket.socket:
        assert query is not None
        sock = load.connect_at(self.process.port, self.PATH, self.PROTOCOL)
        sock.sendall(load.client_frame(b"\1" + U32.pack(1) + load.text(query(i)) + U32.pack(1)))
        load.read_message(sock)
        return sock


class Side1(Side0_11):
    """Subscribers of 1.x, whose Subscribe has the same layout."""

    PATH = f"/v1/database/{DATABASE}/subscribe?compression=None&confirmed=false"
    PROTOCOL = "v1.bsatn.spacetimedb"
