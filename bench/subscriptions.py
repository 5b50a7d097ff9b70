"""subscriptions: what held queries cost: fan-out, pruning against the naive mode, joins, large first answers, SQL.

The figures are ratios within one run: to bare sends, to the naive mode, to the smaller table, to SQLite.
"""

import struct
from dataclasses import replace
from functools import partial

from bench import fanout, initial, joins, naive, sql
from bench.harness import Effort, Report, alternate, in_process, prepare_generator, stdb_process
from bench.tables import FRESH, Tables, rows_seen
from stdb.datastore.delta import Delta

CASES = ((fanout.OWN_ROWS, "own rows"), (fanout.SAME_QUERY, "same query"))
OWNED_ROW = struct.Struct("<IIQ")


def run(effort: Effort) -> list[Report]:
    prepare_generator()
    reports: list[Report] = []
    for part in (sql.run, joins.run, initial.run, own_rows_in_process, clients):
        found = part(effort)
        for report in found:
            print(report.details(), flush=True)
        reports += found
    return reports


def own_rows_in_process(effort: Effort) -> list[Report]:
    """Return `registry.evaluate` beside the naive mode: everybody watches rows of their own, one row changes."""
    tables = own_rows(fanout.SUBSCRIBERS)
    deltas = owner_changes(tables)
    ours, theirs = tables.registry.evaluate, partial(naive.evaluate, tables.registry)
    assert all(rows_seen(ours(delta)) == rows_seen(theirs(delta)) == 2 for delta in deltas)
    seconds = effort.seconds / 4
    sides = {"ours": in_process(ours, deltas, seconds), "naive": in_process(theirs, deltas, seconds)}
    series = alternate(effort.rounds, sides)
    name, unit = "subscriptions own rows in process", "transactions per CPU second"
    return [Report(name, unit, series["ours"], series["naive"], against="naive")]


def own_rows(clients: int) -> Tables:
    """Return tables in which everybody has a row and watches it."""
    tables = Tables(fanout.PROGRAM)
    tables.fill("owned", (OWNED_ROW.pack(i, i, 0) for i in range(clients)))
    for i in range(clients):
        tables.subscribe(fanout.OWN_ROWS.query(i))
    return tables


def owner_changes(tables: Tables) -> list[Delta]:
    """Return transactions that change the row of one owner each."""
    return [tables.update("owned", i, OWNED_ROW.pack(i, i, next(FRESH))) for i in range(10)]


def clients(effort: Effort) -> list[Report]:
    """Return the same over sockets, and one query of all clients beside bare sends."""
    own, same = (replace(case, name=f"subscriptions {name}") for case, name in CASES)
    with stdb_process(*fanout.PUBLISH) as server, stdb_process(*fanout.PUBLISH, program="bench.naive") as twin:
        ours, theirs = (fanout.Side(each, own, effort, own.call, own.query) for each in (server, twin))
        return [fanout.compare(own, effort, ours, theirs, "naive"), fanout.measure(server, same, effort)]
