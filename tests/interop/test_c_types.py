"""Columns of every type as a guest in C reads and writes them: rows, keys of points, bounds of ranges, sequences."""

from collections.abc import Sequence
from functools import cache
from math import inf, nan
from random import Random
from struct import pack
from typing import Any

import pytest

from stdb.modules.wasm.imports_10 import Errno
from stdb.sats import bsatn, types
from stdb.sats.types import (
    STRING,
    U8,
    U32,
    AlgebraicType,
    Array,
    Element,
    Product,
    Ref,
    Scalar,
    ScalarKind,
    Sum,
    Typespace,
    option,
    result,
)
from stdb.schema import raw
from stdb.schema.model import Access, CasePolicy, IndexAlgorithm
from tests.interop import c_guest as guests
from tests.interop.c_guest import DATA, LENGTH, OUT, ROW, USED, Guest, Script, play
from tests.interop.module_clang import build_c_module
from tests.wasm_guests import RUNTIMES

pytestmark = pytest.mark.slow

UNBOUNDED = b"\2"
POINT_DELETE = "datastore_delete_by_index_scan_point_bsatn"


def product(**columns: AlgebraicType) -> Product:
    """Return a type by its elements."""
    return Product(tuple(Element(name, type_) for name, type_ in columns.items()))


def little(size: int, *numbers: int) -> list[bytes]:
    """Return numbers as their bytes."""
    return [number.to_bytes(size, "little") for number in numbers]


SIGNED = {ScalarKind(f"I{size}"): size for size in (8, 16, 32, 64, 128, 256)}
UNSIGNED = {ScalarKind(f"U{size}"): size for size in (8, 16, 32, 64, 128, 256)}
NAMED = (
    product(x=Scalar(ScalarKind.I32), y=Scalar(ScalarKind.I32)),
    Sum(tuple(Element(name, types.UNIT) for name in ("red", "green", "blue"))),
    Sum((Element("circle", Scalar(ScalarKind.F32)), Element("at", Ref(0)), Element("nothing", types.UNIT))),
    product(name=STRING, at=Ref(0), tags=Array(STRING), color=Ref(1)),
)
"""The named types; their references are their positions."""
OWN_TYPES = Typespace(NAMED)
BIG = 2**200
COLUMNS: dict[str, tuple[AlgebraicType, Sequence[Any]]] = {
    "bool": (types.BOOL, [False, True]),
    **{
        kind.name.lower(): (Scalar(kind), [-(1 << size - 1), -1, 0, 1, (1 << size - 1) - 1])
        for kind, size in SIGNED.items()
    },
    **{kind.name.lower(): (Scalar(kind), [0, 1, 1 << size - 1, (1 << size) - 1]) for kind, size in UNSIGNED.items()},
    "f32": (Scalar(ScalarKind.F32), [-inf, -1.5, 0.0, 1.5, inf, nan]),
    "f64": (Scalar(ScalarKind.F64), [-inf, -1e300, 0.0, 1e-300, inf, nan]),
    "string": (STRING, ["", "a", "a\0", "b", "ä", "日本", "🚀"]),
    "bytes": (types.BYTES, [b"", b"\0", b"\0\0", b"\x7f", b"\xff"]),
    "identity": (types.IDENTITY, little(32, 0, 1, 256, BIG)),
    "connection": (types.CONNECTION_ID, little(16, 0, 1, 256, 2**127)),
    "timestamp": (types.TIMESTAMP, [-(2**63), -1, 0, 2**63 - 1]),
    "duration": (types.TIME_DURATION, [-(2**63), -1, 0, 2**63 - 1]),
    "uuid": (types.UUID, little(16, 0, 1, 256, 2**127)),
    "schedule": (types.SCHEDULE_AT, [(0, -5), (0, 5), (1, -5), (1, 5)]),
    "point": (Ref(0), [(-1, 5), (0, -7), (0, 7), (3, 0)]),
    "color": (Ref(1), [(0, ()), (1, ()), (2, ())]),
    "shape": (Ref(2), [(0, -1.5), (0, 2.5), (1, (0, 1)), (1, (0, 2)), (2, ())]),
    "nested": (Ref(3), [("a", (1, 2), [], (0, ())), ("a", (1, 2), ["x"], (0, ())), ("b", (0, 0), [], (2, ()))]),
    "unit": (types.UNIT, [()]),
    "maybe": (option(U32), [1, 2, None]),
    "maybe_text": (option(STRING), ["", "x", None]),
    "maybe_maybe": (option(option(U8)), [(1,), (2,), (None,), None]),
    "either": (result(U32, STRING), [(0, 1), (0, 2), (1, "a"), (1, "b")]),
    "numbers": (Array(Scalar(ScalarKind.I32)), [[], [-1], [1], [1, -5], [2]]),
    "texts": (Array(STRING), [[], [""], ["a", "b"], ["b"]]),
    "points": (Array(Ref(0)), [[], [(0, 1)], [(0, 1), (0, 0)], [(1, 0)]]),
    "blobs": (Array(types.BYTES), [[], [b""], [b"\1"], [b"\1", b""]]),
    "maybes": (Array(option(U8)), [[], [1], [None]]),
    "identities": (Array(types.IDENTITY), [[], little(32, 1), little(32, 1, 0), little(32, BIG)]),
}
"""A column of each type and values of it in ascending order (spec 01 section 9)."""
WIDTHS = {**SIGNED, **UNSIGNED}


def row_of(type_: AlgebraicType) -> Product:
    """Return the type of a row: a key and a number."""
    return product(k=type_, n=U32)


def codec(type_: AlgebraicType) -> bsatn.Codec:
    """Return the codec of a type over the named types."""
    return bsatn.codec(type_, OWN_TYPES)


def keyed(name: str, position: int) -> raw.RawTableV10:
    """Return a table with two indexes over its first column."""
    algorithms = (IndexAlgorithm.BTREE, "btree"), (IndexAlgorithm.HASH, "hash")
    indexes = tuple(raw.RawIndex(f"{name}_k_idx_{text}", f"k_{text}", kind, (0,)) for kind, text in algorithms)
    return raw.RawTableV10(name, position, indexes=indexes, access=Access.PUBLIC)


def counted(name: str, position: int, sequence: raw.RawSequence) -> raw.RawTableV10:
    """Return a table whose first column is generated."""
    return raw.RawTableV10(
        name,
        position,
        primary_key=(0,),
        indexes=(raw.RawIndex(f"{name}_k_idx_btree", "k", IndexAlgorithm.BTREE, (0,)),),
        constraints=(raw.RawConstraint(None, (0,)),),
        sequences=(sequence,),
        access=Access.PUBLIC,
    )


@cache
def program() -> bytes:
    """Return a module with a table for each type, two for each width of integers, and one that has all of them."""
    rows: list[AlgebraicType] = [*NAMED]
    tables: list[raw.RawTableV10] = []
    for name, (type_, _) in COLUMNS.items():
        tables.append(keyed(name, len(rows)))
        rows.append(row_of(type_))
    for kind, size in WIDTHS.items():
        highest = (1 << size - kind.name.startswith("I")) - 1
        top = min(highest, (1 << 127) - 1)
        tables.append(counted(f"up_{kind.name.lower()}", len(rows), raw.RawSequence(None, 0, top - 1, 1, top)))
        if size <= 64:
            tables.append(counted(f"over_{kind.name.lower()}", len(rows), raw.RawSequence(None, 0, highest - 1)))
        rows.append(row_of(Scalar(kind)))
    tables.append(raw.RawTableV10("every", len(rows), access=Access.PUBLIC))
    rows.append(product(**{name: type_ for name, (type_, _) in COLUMNS.items()}))
    outp = product(n=Scalar(ScalarKind.U64), tag=STRING, last=U32, cnt=Scalar(ScalarKind.U64), data=types.BYTES)
    tables.append(counted("outp", len(rows), raw.RawSequence(None, 0)))
    rows.append(outp)
    definition = raw.RawModuleDefV10(
        typespace=Typespace(tuple(rows)),
        types=tuple(raw.RawTypeDef(raw.RawTypeName(f"T{position}"), position) for position in range(len(rows))),
        tables=tuple(tables),
        reducers=(raw.RawReducerV10("run", product(script=types.BYTES)),),
        case_policy=CasePolicy.NONE,
    )
    return build_c_module("calls", raw.encode(definition))


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Return the name of one of the runtimes."""
    name: str = request.param
    return name


def found(script: Script, tag: str) -> Script:
    """Report what a scan found."""
    return script.unless(0).drain(guests.U32(OUT), DATA).report(tag, DATA + 4, guests.U32(DATA))


@pytest.mark.parametrize("name", COLUMNS)
def test_rows_keys_and_bounds_of_every_type(runtime: str, name: str) -> None:
    type_, values = COLUMNS[name]
    rows = [codec(row_of(type_)).encode((value, number)) for number, value in enumerate(values)]
    keys = [codec(type_).encode(value) for value in values]
    btree, hashed = f"{name}_k_idx_btree", f"{name}_k_idx_hash"

    async def check(guest: Guest) -> None:
        script = Script()
        for row in Random(1).sample(rows, len(rows)):
            script.insert(name, row).unless(0)
            script.insert(name, row).unless(0)  # the same row once more is none more
        script.scan(name).report("all", DATA, guests.U32(USED)).rows(name).report("count")
        for key in keys:
            found(script.point(btree, key), "point")
            found(script.point(hashed, key), "point")
        all_, count, *points = await guest.ask(script)
        assert all_.data[:4] == pack("<I", len(rows))
        assert len(all_.data) == 4 + sum(map(len, rows))
        assert count.counter == len(rows)
        assert [each.data for each in points] == [row for row in rows for _ in range(2)]
        stored = await guest.sql(f"SELECT * FROM {name}")
        assert sorted(codec(row_of(type_)).encode(row) for row in stored) == sorted(rows)

        script = Script()
        for at, key in enumerate(keys):
            found(script.range(btree, b"", 0, b"\0" + key, UNBOUNDED), f">={at}")
            found(script.range(btree, b"", 0, UNBOUNDED, b"\1" + key), f"<{at}")
            found(script.range(btree, b"", 0, b"\0" + key, b"\0" + key), f"={at}")
        wanted = [part for at in range(len(rows)) for part in (rows[at:], rows[:at], rows[at : at + 1])]
        assert [each.data for each in await guest.ask(script)] == [b"".join(part) for part in wanted]

        script = Script()
        for bad in (rows[0][:-1], b""):
            script.insert(name, bad).report("row")
        if keys[0]:
            for bad in (keys[-1][:-1], keys[-1] + b"!"):
                script.point(btree, bad).report("point")
                script.range(btree, b"", 0, b"\0" + bad, UNBOUNDED).report("bound")
        assert {each.code for each in await guest.ask(script)} == {Errno.BSATN_DECODE_ERROR}

        script = Script()
        for key in keys:
            script.point(btree, key, POINT_DELETE).count(guests.U32(OUT)).report("deleted")
        assert [each.counter for each in await guest.ask(script.rows(name).report("left"))] == [1] * len(keys) + [0]

    play(program(), runtime, check)


def test_a_row_of_all_types_at_once(runtime: str) -> None:
    whole = product(**{name: type_ for name, (type_, _) in COLUMNS.items()})
    rows = [codec(whole).encode(tuple(values[at] for _, values in COLUMNS.values())) for at in (0, -1)]

    async def check(guest: Guest) -> None:
        script = Script()
        for row in rows:
            script.insert("every", row).unless(0)
        (all_,) = await guest.ask(script.scan("every").report("all", DATA, guests.U32(USED)))
        assert all_.data[4:] in (rows[0] + rows[1], rows[1] + rows[0])
        cuts = Script()
        for end in range(0, len(rows[0]), 7):
            cuts.insert("every", rows[1][:end]).report("cut")
        assert {each.code for each in await guest.ask(cuts)} == {Errno.BSATN_DECODE_ERROR}
        assert len(await guest.sql("SELECT * FROM every")) == 2

    play(program(), runtime, check)


@pytest.mark.parametrize("kind", WIDTHS, ids=lambda kind: kind.name)
def test_sequences_of_every_width_are_written_back_and_go_round(runtime: str, kind: ScalarKind) -> None:
    size, is_signed = WIDTHS[kind], kind.name.startswith("I")
    highest = (1 << size - is_signed) - 1
    top = min(highest, (1 << 127) - 1)
    wanted = {f"up_{kind.name.lower()}": [top - 1, top, 1]}
    if size <= 64:
        wanted[f"over_{kind.name.lower()}"] = [highest - 1, highest, -(1 << size - 1) if is_signed else 0]

    async def check(guest: Guest) -> None:
        for name, numbers in wanted.items():
            script = Script()
            for n in range(3):
                script.insert(name, bytes(size // 8) + pack("<I", n)).unless(0)
                script.report("generated", ROW, guests.U32(LENGTH))
            got = [int.from_bytes(each.data, "little", signed=is_signed) for each in await guest.ask(script)]
            assert got == numbers
            given = Script().insert(name, (7).to_bytes(size // 8, "little") + pack("<I", 9)).report("given", LENGTH, 4)
            (report,) = await guest.ask(given)
            assert (report.code, report.data) == (0, bytes(4)), "nothing is generated where a value is given"
            assert sorted(row[0] for row in await guest.sql(f"SELECT * FROM {name}")) == sorted([*numbers, 7])

    play(program(), runtime, check)
