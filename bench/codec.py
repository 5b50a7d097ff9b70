"""codec: rows a second through the generated BSATN codec; the ceiling is hand-written code for the same row type."""

import random
from collections.abc import Callable

from bench.ceiling import row_codec
from bench.harness import Effort, Report, alternate, in_process
from stdb.sats.bsatn import codec
from stdb.sats.types import F32, IDENTITY, STRING, TIMESTAMP, U32, U64, Element, Product, option

ROW = Product(
    (
        Element("id", U64),
        Element("owner", IDENTITY),
        Element("name", STRING),
        Element("x", F32),
        Element("y", F32),
        Element("z", F32),
        Element("hp", U32),
        Element("target", option(U32)),
        Element("sent", TIMESTAMP),
    )
)
ROWS = 2_000


def run(effort: Effort) -> list[Report]:
    seconds, rounds, _ = effort
    generator = random.Random(1)
    values = [_row(generator, i) for i in range(ROWS)]
    ours = codec(ROW)
    encoded = [ours.encode(value) for value in values]
    assert encoded == [row_codec.encode(value) for value in values]
    assert [ours.decode(row, 0) for row in encoded] == [row_codec.decode(row, 0) for row in encoded]
    reports = []
    for name, mine, other, inputs in (
        ("codec encode", ours.encode, row_codec.encode, values),
        ("codec decode", _decoder(ours.decode), _decoder(row_codec.decode), encoded),
    ):
        sides = {"ours": in_process(mine, inputs, seconds / 4), "ceiling": in_process(other, inputs, seconds / 4)}
        series = alternate(rounds, sides)
        reports.append(Report(name, "rows per CPU second", series["ours"], series["ceiling"]))
    for report in reports:
        print(report.details())
    return reports


def _row(generator: random.Random, i: int) -> tuple[object, ...]:
    target = generator.randrange(1 << 32) if i % 2 else None
    floats = [generator.randrange(1 << 20) / 16 for _ in range(3)]
    name = "player" + "x" * generator.randrange(12)
    return (i, generator.randbytes(32), name, *floats, generator.randrange(100), target, generator.randrange(1 << 50))


def _decoder(decode: Callable[[bytes, int], object]) -> Callable[[bytes], object]:
    return lambda row: decode(row, 0)
