"""SQL in this process beside SQLite in memory on the same rows: for orientation, they are different kinds of thing."""

import sqlite3
import struct
from collections.abc import Iterator

from bench.harness import Effort, Report, alternate, in_process
from bench.tables import OWNER, Tables
from stdb.sql import Caller, run_sql

ROWS, ROWS_QUICK = 1_000_000, 20_000
"""Players; a tenth of them have a footprint."""
QUERIES = {
    "where": "SELECT * FROM player WHERE x < 8.0 AND y = 0.25",
    "group": "SELECT chunk, COUNT(*) AS n, SUM(tag) AS total FROM player GROUP BY chunk",
    "order limit": "SELECT * FROM player ORDER BY x DESC, id LIMIT 10",
    "hash join": "SELECT p.id, f.kind FROM footprint f JOIN player p ON f.tag = p.tag",
}
PLAYER = struct.Struct("<IIffI")
FOOTPRINT = struct.Struct("<III")
SCHEMA = """
CREATE TABLE player (id INTEGER PRIMARY KEY, chunk INTEGER, x REAL, y REAL, tag INTEGER);
CREATE INDEX player_chunk ON player (chunk);
CREATE TABLE footprint (player INTEGER PRIMARY KEY, kind INTEGER, tag INTEGER);
"""


def run(effort: Effort) -> list[Report]:
    rows = ROWS_QUICK if effort.is_quick else ROWS
    tables, peer = Tables("bench/modules/grid.py"), sqlite3.connect(":memory:")
    peer.executescript(SCHEMA)
    tables.fill("player", (PLAYER.pack(*row) for row in players(rows)))
    tables.fill("footprint", (FOOTPRINT.pack(*row) for row in footprints(rows)))
    peer.executemany("INSERT INTO player VALUES (?, ?, ?, ?, ?)", players(rows))
    peer.executemany("INSERT INTO footprint VALUES (?, ?, ?)", footprints(rows))
    reports = [_measure(tables, peer, name, query, rows, effort) for name, query in QUERIES.items()]
    peer.close()
    return reports


def players(rows: int) -> Iterator[tuple[int, int, float, float, int]]:
    return ((i, i // 1200, float(i % 1000), 0.25 * (i % 2), i * 7919 % (1 << 20)) for i in range(rows))


def footprints(rows: int) -> Iterator[tuple[int, int, int]]:
    return ((i, i % 5, i * 7919 % (1 << 20)) for i in range(0, rows, 10))


def _measure(tables: Tables, peer: sqlite3.Connection, name: str, query: str, rows: int, effort: Effort) -> Report:
    owner = Caller(OWNER, True)

    def ours(text: str) -> list[tuple[object, ...]]:
        return run_sql(text, tables.datastore, owner).rows

    def sqlite(text: str) -> list[tuple[object, ...]]:
        return peer.execute(text).fetchall()

    assert sorted(ours(query)) == sorted(sqlite(query)), query
    sides = {"ours": in_process(ours, (query,), effort.seconds / 4, rows)}
    sides["sqlite"] = in_process(sqlite, (query,), effort.seconds / 4, rows)
    series = alternate(effort.rounds, sides)
    unit = "rows of the table per CPU second"
    return Report(f"subscriptions sql {name}", unit, series["ours"], series["sqlite"], {"rows": rows}, against="sqlite")
