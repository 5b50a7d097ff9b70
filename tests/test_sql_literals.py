import math
import time
from typing import Any

import pytest

from stdb.errors import QueryError
from stdb.sats import types as t
from stdb.sql.literals import INTEGERS, is_comparable, parse_literal

HASH = "00" * 31 + "ab"


@pytest.mark.parametrize(
    ("text", "type_", "value"),
    [
        ("1e3", t.U32, 1000),
        (".5e3", t.U32, 500),
        ("1.", t.U256, 1),
        ("1.0", t.U256, 1),
        ("10e-1", t.I256, 1),
        ("-0.0", t.U256, 0),
        ("0e999999999999", t.U8, 0),
        ("+5", t.I8, 5),
        ("-128", t.I8, -128),
        ("1e40", t.F32, math.inf),
        ("-1e999", t.F64, -math.inf),
        ("1e-999999999999999999", t.F64, 0.0),
        ("1e39", t.F64, 1e39),
        ("1.7976931348623157e308", t.F64, 1.7976931348623157e308),
        ("0.1", t.F32, 0.10000000149011612),
        ("1.00000005960464477540", t.F32, 1.0000001192092896),  # just above a tie that F64 would round to it
        ("5", t.STRING, "5"),
        ("1010", t.BYTES, b"\x10\x10"),
        ("0x", t.BYTES, b""),
        ("X'AB", t.BYTES, b"\xab"),
        (HASH, t.IDENTITY, bytes.fromhex(HASH)[::-1]),
        ("0x" + HASH, t.IDENTITY, bytes.fromhex(HASH)[::-1]),
        (HASH[32:], t.CONNECTION_ID, bytes.fromhex(HASH)[:15:-1]),
        ("urn:uuid:01020304-0506-0708-090a-0b0c0d0e0f10", t.UUID, bytes(range(16, 0, -1))),
        ("{01020304-0506-0708-090A-0b0c0d0e0f10}", t.UUID, bytes(range(16, 0, -1))),
        ("0102030405060708090a0b0c0d0e0f10", t.UUID, bytes(range(16, 0, -1))),
        ("1970-01-01T00:00:00Z", t.TIMESTAMP, 0),
        ("1969-12-31T23:59:59.9999999Z", t.TIMESTAMP, -1),
        ("1970-01-01 02:00:00.5+02:00", t.TIMESTAMP, 500_000),
        ("1970-01-01t00:00:60z", t.TIMESTAMP, 60_000_000),
        ("0000-03-01T00:00:00Z", t.TIMESTAMP, -62_162_035_200_000_000),
    ],
)
def test_a_text_is_this_value_of_its_type(text: str, type_: t.AlgebraicType, value: Any) -> None:
    found = parse_literal(text, type_)
    assert (type(found), found) == (type(value), value)


def test_minus_zero_keeps_its_sign_as_a_float() -> None:
    assert math.copysign(1, parse_literal("-0", t.F64)) == -1
    assert math.copysign(1, parse_literal("-0", t.F32)) == -1


@pytest.mark.parametrize(
    ("text", "type_"),
    [
        ("1e-1", t.U32),
        ("", t.U32),
        (".", t.U32),
        ("1e", t.U32),
        ("1_000", t.U32),
        (" 1", t.U32),
        ("١", t.U32),  # noqa: RUF001 - a digit, but not of ours
        ("-1", t.U8),
        ("256", t.U8),
        ("1" * 1001, t.U256),
        ("NaN", t.F64),
        ("inf", t.F32),
        ("x'ab", t.BYTES),
        ("abc", t.BYTES),
        ("0X" + HASH, t.IDENTITY),
        (HASH[2:], t.IDENTITY),
        ("5", t.CONNECTION_ID),
        ("{01020304-0506-0708-090a-0b0c0d0e0f10", t.UUID),
        ("0x0102030405060708090a0b0c0d0e0f10", t.UUID),
        ("2025-02-30T00:00:00Z", t.TIMESTAMP),
        ("2025-02-10T24:00:00Z", t.TIMESTAMP),
        ("2025-02-10T15:45:30+0000", t.TIMESTAMP),
        ("2025-02-10T15:45:30", t.TIMESTAMP),
        ("5", t.TIME_DURATION),
        ("true", t.BOOL),
        ("5", t.option(t.U32)),
    ],
)
def test_a_text_is_no_value_of_this_type(text: str, type_: t.AlgebraicType) -> None:
    with pytest.raises(QueryError) as refusal:
        parse_literal(text, type_)
    assert str(refusal.value).startswith(f"The literal expression `{text}` cannot be parsed as type `")


@pytest.mark.parametrize("type_", [*INTEGERS, t.F32, t.F64])
@pytest.mark.parametrize(
    "text",
    [
        "1e100000000",
        "1e999999999999",
        "-1e-999999999999",
        "1e" + "9" * 40_000,
        "1" * 49_000,
        "0." + "0" * 48_000 + "1",
        "1." + "1" * 48_000 + "e-400",
        "0" * 49_000,
    ],
    ids=lambda text: text[:12],
)
def test_a_number_of_any_exponent_is_answered_at_once(text: str, type_: t.AlgebraicType) -> None:
    start = time.process_time()
    try:
        parse_literal(text, type_)
    except QueryError as error:
        refusal = str(error)
        assert "cannot be parsed" in refusal
    assert time.process_time() - start < 0.01


def test_what_may_be_compared() -> None:
    comparable = [t.BOOL, t.U8, t.I256, t.F32, t.STRING, t.BYTES, t.IDENTITY, t.CONNECTION_ID, t.TIMESTAMP, t.UUID]
    assert all(map(is_comparable, comparable))
    others = [
        t.TIME_DURATION,
        t.SCHEDULE_AT,
        t.option(t.U8),
        t.UNIT,
        t.Array(t.U16),
        t.Product((t.Element("x", t.I32),)),
    ]
    assert not any(map(is_comparable, others))
