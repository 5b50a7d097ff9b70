"""Joins that are subscribed to, in this process: what one changed row costs, over more rows and more subscriptions.

Responsible for: the curves of `registry.evaluate` over both, and the first rows of one chunk.
Not responsible for: sockets.
"""

import statistics
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.harness import Effort, Measure, Report, alternate, in_process
from bench.tables import CLIENT, FRESH, Tables, rows_seen
from stdb.datastore.delta import Delta
from stdb.sql import Caller
from stdb.subscriptions import Registry

ROWS = (12_000, 120_000, 1_200_000)
ROWS_QUICK = ROWS[:2]
SUBSCRIPTIONS = (1, 10, 100, 1_000)
PER_CHUNK = 1_200
PLAYER = struct.Struct("<IIffI")
CHUNK = struct.Struct("<II")
FOOTPRINT = struct.Struct("<III")
PLAYERS = "SELECT p.* FROM player p JOIN chunk c ON p.chunk = c.id WHERE c.id = {}"
FOOTPRINTS = "SELECT f.* FROM footprint f JOIN player p ON f.player = p.id WHERE p.chunk = {}"


@dataclass(frozen=True)
class Case:
    """A subscription about one chunk, and changes of one row each that concern chunk 0."""

    name: str
    query: str
    table: str
    row: Callable[[int], tuple[int, bytes]]
    """The key and the new row of the i-th change."""
    rows_seen: int
    """Inserted and deleted rows that each change means to a subscriber."""
    changes: int = 32


def player(i: int, chunk: int | None = None, x: float = 0.5) -> bytes:
    return PLAYER.pack(i, i // PER_CHUNK if chunk is None else chunk, x, 0.25, i * 7)


STAYING = Case("player", PLAYERS, "player", lambda i: (i, player(i, x=next(FRESH))), 2)
PARTNER = Case("chunk", PLAYERS, "chunk", lambda _i: (0, CHUNK.pack(0, next(FRESH))), 0, 1)
LOOKED_UP = Case("footprint", FOOTPRINTS, "footprint", lambda i: (i, FOOTPRINT.pack(i, next(FRESH), i)), 2)
ARRIVING = Case("player arriving", FOOTPRINTS, "player", lambda i: (PER_CHUNK + i, player(PER_CHUNK + i, chunk=0)), 1)


def run(effort: Effort) -> list[Report]:
    grids = {rows: grid(rows) for rows in (ROWS_QUICK if effort.is_quick else ROWS)}
    largest = grids[max(grids)]
    reports = [initial(largest, effort)]
    for case in (STAYING, PARTNER, LOOKED_UP, ARRIVING):
        by_rows = {rows: evaluations(tables, case, 1, effort) for rows, tables in grids.items()}
        reports.append(curve(f"subscriptions join changed {case.name}", "rows", by_rows, effort))
    for case in (STAYING, LOOKED_UP):
        by_count = {count: evaluations(largest, case, count, effort) for count in SUBSCRIPTIONS}
        reports.append(curve(f"subscriptions many joins changed {case.name}", "queries", by_count, effort))
    return reports


def grid(rows: int) -> Tables:
    """Return so many players with a footprint each, 1,200 in a chunk."""
    tables = Tables("bench/modules/grid.py")
    tables.fill("chunk", (CHUNK.pack(i, 0) for i in range(rows // PER_CHUNK)))
    tables.fill("player", map(player, range(rows)))
    tables.fill("footprint", (FOOTPRINT.pack(i, 0, i) for i in range(rows)))
    return tables


def evaluations(tables: Tables, case: Case, count: int, effort: Effort) -> Measure:
    """Return the measurement of changes beside so many subscriptions."""
    registry = subscribed(tables, case, count)
    deltas = changes(tables, case)
    for delta in deltas:
        assert rows_seen(registry.evaluate(delta)) == case.rows_seen, case
    return in_process(registry.evaluate, deltas, effort.seconds / 4)


def subscribed(tables: Tables, case: Case, count: int) -> Registry:
    """Return a registry with so many subscriptions, each to another chunk."""
    registry = tables.new_registry()
    for chunk in range(count):
        tables.subscribe(case.query.format(chunk))
    return registry


def changes(tables: Tables, case: Case) -> list[Delta]:
    """Return changes that were made. They are of different rows: each can be evaluated after all were made."""
    return [tables.update(case.table, *case.row(i)) for i in range(case.changes)]


def curve(name: str, of: str, sides: Mapping[int, Measure], effort: Effort) -> Report:
    """Return how the time of one evaluation grows from the smallest side to the largest: flat is ratio 1."""
    series = alternate(effort.rounds, {f"{size:,} {of}": measure for size, measure in sides.items()})
    micros = {size: 1e6 / statistics.median(each.per_cpu) for size, each in zip(sides, series.values(), strict=True)}
    smallest, largest = min(sides), max(sides)
    headline = (micros[largest], micros[smallest], f"µs at {largest:,} {of}")
    curve = {f"µs by {of}": {f"{size:,}": round(each, 2) for size, each in micros.items()}}
    sides_told = series[f"{largest:,} {of}"], series[f"{smallest:,} {of}"]
    return Report(name, "evaluations per CPU second", *sides_told, curve, headline, f"{smallest:,} {of}")


def initial(tables: Tables, effort: Effort) -> Report:
    """Return the first rows of one chunk's footprints beside the same two look-ups written by hand."""
    query = tables.new_registry().find(FOOTPRINTS.format(0), Caller(CLIENT, False))
    by_chunk, by_player = tables.table("player").index_on((1,)), tables.table("footprint").primary
    assert by_chunk is not None
    assert by_player is not None
    find, find_all, key_of = by_player.find, by_chunk.find_all, PLAYER.unpack_from

    def ours(_: object) -> list[bytes]:
        return query.plan.rows()

    def by_hand(_: object) -> list[bytes]:
        return [row for each in find_all(0) if (row := find(key_of(each)[0])) is not None]

    assert len(ours(0)) == PER_CHUNK
    assert sorted(ours(0)) == sorted(by_hand(0))
    sides = {"ours": ours, "ceiling": by_hand}
    measures = {name: in_process(each, (0,), effort.seconds / 4, PER_CHUNK) for name, each in sides.items()}
    series = alternate(effort.rounds, measures)
    return Report("subscriptions join initial", "rows per CPU second", series["ours"], series["ceiling"])
