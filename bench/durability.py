"""durability: replay, start, what keeping transactions costs keynote, how long rows that follow stop their database.

* replay: recovery from a log of small transactions, beside reading and checking the same records.
* start: recovery of a million rows from the rows beside the log, beside SQLite reading the same rows.
* keynote durable: `transfer` on the server, beside the same server with a log in memory that keeps nothing.
* pause: the longest time between two transactions of a busy loop over a million rows, while groups are written and
  windows merged, beside the same loop with a log in memory.
"""

import gc
import os
import random
import sqlite3
import struct
import tempfile
import time
from contextlib import closing
from pathlib import Path

from bench import keynote, load
from bench.harness import Effort, Report, Series, alternate, prepare_generator, stdb_process
from stdb.datastore.datastore import Datastore
from stdb.datastore.log import Log, MemoryLog
from stdb.datastore.records import Context, encode
from stdb.datastore.recovery import recover
from stdb.datastore.window import Window
from stdb.sats.types import I64, U32, Typespace
from stdb.schema.model import ColumnDef, IndexAlgorithm, IndexDef, ModuleDef, TableDef, UniqueDef
from stdb.storage import log_writer
from stdb.storage.log import SqliteLog
from stdb.storage.log_file import open_file
from stdb.storage.merging import Merger

ROWS = 1_000_000
TRANSACTIONS = 300_000
QUICK_SHARE = 50
"""A quick run has so many times fewer rows and transactions."""
ACCOUNTS = 10_000
_ROW = struct.Struct("<Iq")
_CONTEXT = Context("transfer", bytes(range(32)), bytes(16), 1_700_000_000_000_000, bytes(16))
_GROUP = 200
_TURN = 100

_TABLE = TableDef(
    "accounts", "accounts", 0, (ColumnDef("id", "id", U32), ColumnDef("balance", "balance", I64)), 0,
    (IndexDef("accounts_id_idx_btree", None, IndexAlgorithm.BTREE, (0,), "id"),),
    (UniqueDef("accounts_id_key", (0,)),),
)  # fmt: skip


def run(effort: Effort) -> list[Report]:
    seconds, rounds, is_quick = effort
    share = QUICK_SHARE if is_quick else 1
    cores = os.sched_getaffinity(0)
    reports = [_commits(seconds, rounds)]
    os.sched_setaffinity(0, cores)  # the rest is all in this process
    with tempfile.TemporaryDirectory() as directory:
        reports.insert(0, _replay(Path(directory) / "replay.sqlite", TRANSACTIONS // share, rounds))
        reports.insert(1, _start(Path(directory) / "start.sqlite", ROWS // share, rounds))
        reports.append(_pause(Path(directory) / "pause.sqlite", ROWS // share, seconds))
    for report in reports:
        print(report.details())
    return reports


class World:
    """A table of accounts that transfers change; its records go to a log in groups."""

    def __init__(self, log: Log, accounts: int) -> None:
        self.log = log
        self.datastore = datastore = Datastore()
        transaction = datastore.begin(0)
        datastore.create_tables(ModuleDef(Typespace.EMPTY, (_TABLE,)))
        self.table = datastore.table("accounts")
        for account in range(accounts):
            self.table.insert(_ROW.pack(account, 0))
        delta = transaction.commit()
        assert delta is not None
        log.append_nowait([encode(delta, _CONTEXT)], [delta])
        self._accounts = accounts
        self._generator = random.Random(7)
        self._number = 0

    def transfer(self, count: int) -> None:
        """Run transfers and append them as one group."""
        pack, update, begin = _ROW.pack, self.table.update_key, self.datastore.begin
        records, deltas = [], []
        for _ in range(count):
            self._number += 1
            transaction = begin(0)
            first = self._generator.randrange(self._accounts)
            second = (first + 1) % self._accounts
            update(first, pack(first, self._number))
            update(second, pack(second, -self._number))
            delta = transaction.commit()
            assert delta is not None
            records.append(encode(delta, _CONTEXT))
            deltas.append(delta)
        self.log.append_nowait(records, deltas)


def _replay(path: Path, transactions: int, rounds: int) -> Report:
    idle, close = log_writer.IDLE_SECONDS, log_writer.CLOSE_SECONDS
    log_writer.IDLE_SECONDS, log_writer.CLOSE_SECONDS = 3600.0, 0.0  # the rows stay behind
    try:
        log = SqliteLog(path)
        world = World(log, ACCOUNTS)
        while world.datastore.next_offset < transactions:
            world.transfer(_GROUP)
        log.close()
        expected = set(world.table.rows())

        def replay() -> tuple[float, float, float]:
            log, cpu, wall = SqliteLog(path), time.process_time(), time.perf_counter()
            datastore = recover(log)
            figures = transactions, time.process_time() - cpu, time.perf_counter() - wall
            log.close()
            assert set(datastore.table("accounts").rows()) == expected
            return figures

        def read() -> tuple[float, float, float]:
            log, cpu, wall = SqliteLog(path), time.process_time(), time.perf_counter()
            count = sum(1 for _ in log.records())
            figures = count, time.process_time() - cpu, time.perf_counter() - wall
            log.close()
            return figures

        series = alternate(rounds, {"ours": replay, "reading": read})
    finally:
        log_writer.IDLE_SECONDS, log_writer.CLOSE_SECONDS = idle, close
    return Report(
        "durability replay", "transactions per CPU second", series["ours"], series["reading"], against="reading"
    )


def _start(path: Path, rows: int, rounds: int) -> Report:
    log = SqliteLog(path)
    World(log, rows)
    _merge_all(log)
    log.close()

    def start() -> tuple[float, float, float]:
        log, cpu, wall = SqliteLog(path), time.process_time(), time.perf_counter()
        datastore = recover(log)
        figures = rows, time.process_time() - cpu, time.perf_counter() - wall
        log.close()
        assert len(datastore.table("accounts")) == rows
        del datastore
        gc.collect()
        return figures

    def read() -> tuple[float, float, float]:
        with closing(sqlite3.connect(path)) as connection:
            cpu, wall = time.process_time(), time.perf_counter()
            found = connection.execute("SELECT key, row FROM rows").fetchall()
            figures = rows, time.process_time() - cpu, time.perf_counter() - wall
        assert len(found) >= rows
        return figures

    series = alternate(rounds, {"ours": start, "SQLite": read})
    return Report("durability start", "rows per CPU second", series["ours"], series["SQLite"], against="SQLite")


def _commits(seconds: float, rounds: int) -> Report:
    prepare_generator()
    publish = ("--publish", f"bench/modules/keynote.py={keynote.DATABASE}")
    with stdb_process(*publish) as durable, stdb_process(*publish, program="bench.in_memory") as memory:
        prepared, sides, sockets = keynote.calls(1.5), {}, []
        for name, process in (("ours", durable), ("memory", memory)):
            keynote.seed(process)
            connections = [load.connect(process.port, keynote.DATABASE) for _ in range(keynote.CONNECTIONS)]
            sockets += connections
            sides[name] = keynote.side(process, connections, prepared, seconds)
        series = alternate(rounds, sides)
        for sock in sockets:
            sock.close()
        keynote.verify(durable)
    extra = {"merging a window of every account": f"{_merging_us_per_row(keynote.ACCOUNTS):.2f} us of CPU a row"}
    return Report(
        "durability commits",
        "transfers per server CPU second",
        series["ours"],
        series["memory"],
        extra,
        against="memory",
    )


def _merging_us_per_row(rows: int) -> float:
    """Return the CPU time of merging one row of a window that holds every row of a table, in microseconds."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "merging.sqlite"
        log = SqliteLog(path)
        world = World(log, rows)
        _merge_all(log)
        log.close()
        connection = open_file(path)
        window, merger = Window(), Merger(connection)
        part = window.part(world.table)
        keys = list(world.table.stored)
        random.Random(3).shuffle(keys)
        part.update((key, _ROW.pack(key, 1)) for key in keys)
        started = time.process_time()
        merger.begin(window, merger.offset + 1)
        while merger.is_busy:
            connection.execute("BEGIN IMMEDIATE")
            merger.step()
            connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        taken = time.process_time() - started
        connection.close()
    return taken / rows * 1_000_000


def _pause(path: Path, rows: int, seconds: float) -> Report:
    """Return the longest turn; merging is on all the time. Time in which this process, all its threads, ran counts."""
    transactions, log_writer.WINDOW_TRANSACTIONS = log_writer.WINDOW_TRANSACTIONS, 10_000
    try:
        log = SqliteLog(path)
        ours, merged = _turns(log, rows, seconds)
        log.close()
    finally:
        log_writer.WINDOW_TRANSACTIONS = transactions
    memory, _ = _turns(MemoryLog(), rows, seconds)
    extra = {
        "turns of": f"{_TURN} transfers, between every two a pause as on a server",
        "ours ms": _figures(_ran(ours)),
        "memory ms": _figures(_ran(memory)),
        "ours on the wall ms": _figures([wall for wall, _ in ours]),
        "memory on the wall ms": _figures([wall for wall, _ in memory]),
        "transactions merged meanwhile": merged,
    }
    longest = max(_ran(ours)) * 1000, max(_ran(memory)) * 1000
    return Report("durability pause", "ms", Series(), Series(), extra, (*longest, "ms"), "memory")


def _turns(log: Log, rows: int, seconds: float) -> tuple[list[tuple[float, float]], int]:
    world = World(log, rows)
    if isinstance(log, SqliteLog):
        _merge_all(log)
    merged = log.rows_offset if isinstance(log, SqliteLog) else 0
    gc.collect()
    gc.freeze()
    taken = []
    stop_at = time.perf_counter() + seconds
    while (started := time.perf_counter()) < stop_at:
        ran = time.process_time()
        world.transfer(_TURN)
        taken.append((time.perf_counter() - started, time.process_time() - ran))
        time.sleep(0)  # as an event loop that looks for what has come in
    gc.unfreeze()
    merged = log.rows_offset - merged if isinstance(log, SqliteLog) else 0
    return taken, merged


def _ran(taken: list[tuple[float, float]]) -> list[float]:
    """Return how long each turn took while this process ran: other processes make it no longer."""
    return [min(wall, cpu) for wall, cpu in taken]


def _figures(taken: list[float]) -> str:
    ordered = sorted(taken)
    shares = ((0.5, "median"), (0.99, "99 %"), (0.999, "99.9 %"), (1.0, "longest"))
    picked = ((name, ordered[min(int(share * len(ordered)), len(ordered) - 1)]) for share, name in shares)
    return ", ".join(f"{name} {value * 1000:.2f}" for name, value in picked)


def _merge_all(log: SqliteLog) -> None:
    while log.backlog or log.rows_offset < log.durable:
        time.sleep(0.05)
