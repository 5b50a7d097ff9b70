"""world: 200 players move 10 times a second on a grid; each watches the nine chunks around it.

As a player crosses into another chunk it subscribes to the new ones around it and leaves the old ones.

The ceiling, `ceiling/broadcast.py`, is told who sees a move: no tables, no queries, no log.
Figure: p99 in milliseconds from a move to its arrival at everyone who sees that chunk. A dropped client is a failure.
"""

import random
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bench import load
from bench.harness import Effort, Process, Report, Series, prepare_generator, server_process, stdb_process
from bench.latency import percentile

PLAYERS = 200
WARM_UP_SECONDS = 1.0
"""Everybody's first subscriptions; not counted."""
MOVES_PER_SECOND = 10
SIDE = 16
CHUNK_SIZE = 10.0
SPEED = 2.0
DATABASE = "world"
ROW = struct.Struct("<IIffQ")


@dataclass
class Player:
    """One client and its figure on the grid."""

    id: int
    sock: socket.socket
    x: float
    y: float
    dx: float
    dy: float
    step: int = 0
    chunks: set[int] = field(default_factory=set)
    rest: bytes = b""
    requests: int = 0

    def chunk(self) -> int:
        return int(self.y // CHUNK_SIZE) * SIDE + int(self.x // CHUNK_SIZE)

    def around(self) -> set[int]:
        column, row = int(self.x // CHUNK_SIZE), int(self.y // CHUNK_SIZE)
        return {
            r * SIDE + c
            for r in range(max(row - 1, 0), min(row + 2, SIDE))
            for c in range(max(column - 1, 0), min(column + 2, SIDE))
        }

    def walk(self) -> None:
        limit = SIDE * CHUNK_SIZE
        if not 0 <= self.x + self.dx < limit:
            self.dx = -self.dx
        if not 0 <= self.y + self.dy < limit:
            self.dy = -self.dy
        self.x += self.dx
        self.y += self.dy
        self.step += 1

    def frames(self) -> bytes:
        """Return what one tick sends: changed subscriptions, then the move."""
        self.walk()
        wanted = self.around()
        out = []
        for chunk in wanted - self.chunks:
            out.append(load.subscribe(self._request(), chunk, f"SELECT * FROM player WHERE chunk = {chunk}"))
        for chunk in self.chunks - wanted:
            out.append(load.unsubscribe(self._request(), chunk))
        self.chunks = wanted
        out.append(load.call(self._request(), "move", self.row()))
        return b"".join(out)

    def bare_frames(self, players: "Sequence[Player]") -> bytes:
        """Return the same for a server that knows nothing: who sees the move is part of the message."""
        self.walk()
        self.chunks = self.around()
        chunk = self.chunk()
        seeing = [player.id for player in players if chunk in player.chunks]
        return load.client_frame(struct.pack(f"<BH{len(seeing)}I", 3, len(seeing), *seeing) + self.row())

    def row(self) -> bytes:
        return ROW.pack(self.id, self.chunk(), self.x, self.y, self.step)

    def _request(self) -> int:
        self.requests += 1
        return self.requests


def run(effort: Effort) -> list[Report]:
    seconds, rounds, _ = effort
    prepare_generator()
    ours, bare = Series(), Series()
    with stdb_process("--publish", f"bench/modules/world.py={DATABASE}") as server:
        latencies = _play(server, seconds * rounds, ours, lambda player, _players: player.frames(), load.inserted_rows)
    with server_process(["-m", "bench.ceiling.broadcast"]) as ceiling:
        bare_latencies = _play(ceiling, seconds * rounds, bare, Player.bare_frames, _bare_rows)
    figures = {
        "p50_ms": round(percentile(latencies, 0.5) * 1000, 2),
        "p99_ms": round(percentile(latencies, 0.99) * 1000, 2),
        "seen": len(latencies),
        "dropped clients": 0,
    }
    p99 = percentile(latencies, 0.99) * 1000, percentile(bare_latencies, 0.99) * 1000
    headline = (*p99, "ms p99 from a move to everyone who sees it")
    report = Report("world", "moves per server CPU second", ours, bare, figures, headline)
    print(report.details())
    return [report]


def _bare_rows(payload: bytes) -> list[bytes]:
    return [payload[-ROW.size :]] if payload[1] == 0 else []


def _play(
    server: Process,
    seconds: float,
    series: Series,
    frames: Callable[[Player, Sequence[Player]], bytes],
    rows: Callable[[bytes], Iterable[bytes]],
) -> list[float]:
    """Let everybody walk; return the age of every move that somebody saw. A dropped client raises."""
    generator = random.Random(7)
    players = [_player(server, i, generator) for i in range(PLAYERS)]
    selector = selectors.DefaultSelector()
    for player in players:
        player.sock.setblocking(False)
        selector.register(player.sock, selectors.EVENT_READ, player)
    sent: dict[tuple[int, int], float] = {}
    latencies: list[float] = []
    cpu, start = server.cpu_seconds(), time.perf_counter()
    ticks, is_warm = 0, False
    total = int(seconds * MOVES_PER_SECOND) * PLAYERS
    end = start + seconds + 2
    while (now := time.perf_counter()) < end:
        while ticks < total and start + ticks / (PLAYERS * MOVES_PER_SECOND) <= now:
            player = players[ticks % PLAYERS]
            data = frames(player, players)
            sent[player.id, player.step] = time.perf_counter()
            player.sock.send(data)
            ticks += 1
        if ticks and not is_warm and now > start + min(WARM_UP_SECONDS, seconds / 2):
            is_warm = True
            latencies.clear()
        for key, _ in selector.select(0.001):
            latencies += _receive(key.data, sent, rows)
    series.add(ticks, server.cpu_seconds() - cpu, seconds)
    selector.close()
    for player in players:
        player.sock.close()
    return latencies


def _player(server: Process, i: int, generator: random.Random) -> Player:
    limit = SIDE * CHUNK_SIZE
    sock = load.connect(server.port, DATABASE, "compression=None")
    x, y = generator.random() * limit, generator.random() * limit
    dx, dy = generator.uniform(-SPEED, SPEED), generator.uniform(-SPEED, SPEED)
    return Player(i, sock, x, y, dx, dy)


def _receive(
    player: Player, sent: dict[tuple[int, int], float], rows: Callable[[bytes], Iterable[bytes]]
) -> list[float]:
    """Return the age of every move in what came; a closed connection raises."""
    data = player.sock.recv(load.RECEIVE_BYTES)
    if not data:
        raise ConnectionError(f"the server dropped client {player.id}")
    now = time.perf_counter()
    data = player.rest + data
    used = 0
    ages = []
    for used, payload in load.frames(data):  # noqa: B007 - the last offset is what is used
        for run_ in rows(payload):
            ages += [now - sent[id_, step] for id_, _, _, _, step in ROW.iter_unpack(run_)]
    player.rest = data[used:]
    return ages
