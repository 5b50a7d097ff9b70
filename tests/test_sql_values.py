"""Order and equality of values are the same by scan, index, range, join, group and order, for every comparable type."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from stdb.sats import types as t
from stdb.sql import Caller, run_sql
from tests.subscriptions_world import OWNER, World

OWNING = Caller(OWNER, is_owner=True)


def _identity(first: int, last: int) -> bytes:
    """Return an identity by the first and the last byte of its hex, which are the last and the first that is stored."""
    return bytes([last, *[0] * 30, first])


INF, NAN = math.inf, math.nan
FLOATS = [
    (-INF, "-1e999"),
    (-1.5, "-1.5"),
    (-0.0, "0"),
    (0.0, "-0"),
    (1.0, "1"),
    (1.5, "1.5"),
    (INF, "1e999"),
    (NAN, None),
]
VALUES: dict[t.AlgebraicType, list[tuple[Any, str | None]]] = {
    t.F32: FLOATS,
    t.F64: [*FLOATS[:-2], (1.7976931348623157e308, "1.7976931348623157e308"), *FLOATS[-2:]],
    t.BOOL: [(False, "false"), (True, "TRUE")],
    t.I8: [(-128, "-128"), (-1, "-1"), (0, "0"), (127, "+127")],
    t.I256: [(-(1 << 255), f"-{1 << 255}"), (-1, "-10e-1"), (0, "-0.0"), ((1 << 255) - 1, str((1 << 255) - 1))],
    t.U256: [(0, "0"), (255, "255"), (256, "2.56e2"), ((1 << 256) - 1, f"'{(1 << 256) - 1}'")],
    t.STRING: [
        ("", "''"),
        ("Z", "'Z'"),
        ("a", "'a'"),
        ("a\0", "'a\0'"),
        ("aa", "'aa'"),
        ("it's", "'it''s'"),
        ("\uffff", "'\uffff'"),
        ("\U0001f600", "'\U0001f600'"),  # behind U+FFFF by code point, before it as UTF-16
    ],
    t.BYTES: [(b"", "0x"), (b"\0", "x'00'"), (b"\0\0", "'0000'"), (b"\x01", "01"), (b"\xff", "0xff")],
    t.IDENTITY: [
        (_identity(0, 0xFF), "0x" + "00" * 31 + "ff"),
        (_identity(1, 0), "'" + "01" + "00" * 31 + "'"),
        (_identity(0xFF, 0), "x'" + "FF" + "00" * 31 + "'"),
    ],
    t.CONNECTION_ID: [
        (bytes([0xFF, *[0] * 15]), "0x" + "00" * 15 + "ff"),
        (bytes([*[0] * 15, 0x01]), "'0x01" + "00" * 15 + "'"),
    ],
    t.UUID: [
        (bytes([0xFF, *[0] * 15]), "'00000000-0000-0000-0000-0000000000ff'"),
        (bytes([*[0] * 15, 0x01]), "0x01" + "00" * 15),
    ],
    t.TIMESTAMP: [
        (-1, "'1969-12-31T23:59:59.999999Z'"),
        (0, "'1970-01-01T00:00:00Z'"),
        (1, "'1970-01-01 02:00:00.000001+02:00'"),
    ],
}
"""Values of each type in ascending order, with a literal of each; None where it has none."""
TYPES = [pytest.param(type_, id=name) for name, type_ in zip(
    ("F32", "F64", "Bool", "I8", "I256", "U256", "String", "Bytes", "Identity", "ConnectionId", "Uuid", "Timestamp"),
    VALUES, strict=True,
)]  # fmt: skip
OPERATORS: dict[str, Callable[[int], bool]] = {
    "=": lambda order: order == 0,
    "<>": lambda order: order != 0,
    "<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
    ">": lambda order: order > 0,
    ">=": lambda order: order >= 0,
}


@cache
def world_of(type_: t.AlgebraicType) -> World:
    """Return a table without and one with an index on the values; their ids are the ranks and a serial number."""
    columns = {"id": t.U32, "v": type_}
    world = World({"bare": {"columns": columns}, "known": {"columns": columns, "indexes": ((1,), (1, 0))}})
    for name in ("bare", "known"):
        world.insert(name, *reversed(list(enumerate(value for value, _ in VALUES[type_]))))
    return world


def rank_of(type_: t.AlgebraicType, place: int) -> int:
    """Return the rank of a value among the different ones: the zeros of floats are one."""
    value = VALUES[type_][place][0]
    return place - 1 if isinstance(value, float) and value == 0 and math.copysign(1, value) > 0 else place


def ranks(type_: t.AlgebraicType) -> list[int]:
    return [rank_of(type_, place) for place in range(len(VALUES[type_]))]


def query(type_: t.AlgebraicType, text: str) -> list[tuple[Any, ...]]:
    return run_sql(text, world_of(type_).datastore, OWNING).rows


def _order(left: int, right: int) -> int:
    return (left > right) - (left < right)


@pytest.mark.parametrize("table", ["bare", "known"])
@pytest.mark.parametrize("type_", TYPES)
def test_literals_are_compared_as_values(type_: t.AlgebraicType, table: str) -> None:
    found_ranks = ranks(type_)
    for place, (_, literal) in enumerate(VALUES[type_]):
        for operator, holds in OPERATORS.items() if literal is not None else ():
            wanted = [each for each, rank in enumerate(found_ranks) if holds(_order(rank, found_ranks[place]))]
            for condition in (f"v {operator} {literal}", f"(v {operator} {literal}) = true"):
                found = query(type_, f"SELECT id FROM {table} WHERE {condition}")
                assert sorted(each for (each,) in found) == wanted, condition
            mirrored = operator.translate(str.maketrans("<>", "><")) if operator != "<>" else operator
            found = query(type_, f"SELECT id FROM {table} WHERE {literal} {mirrored} v")
            assert sorted(each for (each,) in found) == wanted, (literal, mirrored)


@pytest.mark.parametrize("type_", TYPES)
def test_columns_are_compared_as_values_whatever_finds_the_partners(type_: t.AlgebraicType) -> None:
    found_ranks = list(enumerate(ranks(type_)))
    for operator, holds in OPERATORS.items():
        wanted = [
            (left, right)
            for left, left_rank in found_ranks
            for right, right_rank in found_ranks
            if holds(_order(left_rank, right_rank))
        ]
        for joined in ("bare p JOIN bare q", "bare p JOIN known q", "known p JOIN bare q", "known p JOIN known q"):
            text = f"SELECT p.id AS a, q.id AS b FROM {joined} WHERE p.v {operator} q.v"
            assert sorted(query(type_, text)) == wanted, text
            if operator == "=":
                assert sorted(query(type_, f"SELECT p.id AS a, q.id AS b FROM {joined} ON p.v = q.v")) == wanted, joined


@pytest.mark.parametrize("type_", TYPES)
def test_rows_are_ordered_and_grouped_as_values(type_: t.AlgebraicType) -> None:
    found_ranks = ranks(type_)
    for table in ("bare", "known"):
        ascending = [each for (each,) in query(type_, f"SELECT id FROM {table} ORDER BY v, id")]
        assert ascending == list(range(len(found_ranks)))
        descending = [each for (each,) in query(type_, f"SELECT id FROM {table} ORDER BY v DESC, id DESC")]
        assert descending == ascending[::-1]
        groups = query(type_, f"SELECT MIN(id) AS first, COUNT(*) AS n FROM {table} GROUP BY v ORDER BY first")
        assert groups == [(rank, found_ranks.count(rank)) for rank in sorted(set(found_ranks))]
        distinct = query(type_, f"SELECT COUNT(DISTINCT v) AS n FROM {table}")
        assert distinct == [(len(set(found_ranks)),)]
        for pick, place in (("MIN", 0), ("MAX", -1)):
            ((best,),) = query(type_, f"SELECT {pick}(v) AS v FROM {table}")
            wanted = VALUES[type_][place][0]
            assert best == wanted or (math.isnan(best) and math.isnan(wanted))
