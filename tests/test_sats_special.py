"""Identity, Address, Timestamp, TimeDuration, ScheduleAt and UUIDs as module authors use them."""

import copy
import datetime
import json
import pickle
import uuid
from pathlib import Path
from typing import Any

import pytest

from stdb.sats import special
from stdb.sats.special import Address, ConnectionId, Identity, ScheduleAt, TimeDuration, Timestamp

DISPLAY = json.loads((Path(__file__).parent / "vectors" / "values.json").read_text())["display"]
SIZES: dict[str, tuple[Any, int]] = {"Identity": (Identity, 32), "ConnectionId": (Address, 16)}
HEX = "c20035600353a2e93544d898c6ed0eac323e200c0468300f22958f8b472a265d"


def test_identities_and_addresses_are_shown_as_listed() -> None:
    entries = [entry for entry in DISPLAY if entry["kind"] in SIZES]
    assert len(entries) == 7
    for entry in entries:
        class_, _ = SIZES[entry["kind"]]
        value = class_(bytes.fromhex(entry["bsatn"]))
        assert str(value) == value.hex() == entry["display"]
        assert int(value) == int(entry["integer"])
        assert class_.from_hex(entry["display"]) == class_.from_hex("0x" + entry["display"].upper()) == value


def test_uuids_are_shown_as_listed() -> None:
    entries = [entry for entry in DISPLAY if entry["kind"] == "Uuid"]
    assert len(entries) == 3
    for entry in entries:
        value = special.uuid_from_wire(bytes.fromhex(entry["bsatn"]))
        assert (str(value), str(value.int)) == (entry["display"], entry["integer"])
        assert special.uuid_to_wire(value).hex() == entry["bsatn"]


def test_uuids_are_made_of_entropy_and_time_as_listed() -> None:
    zeros, ones, timed = [entry for entry in DISPLAY if entry["kind"].startswith("Uuid.")]
    assert str(special.uuid_v4(bytes(16))) == zeros["display"]
    assert str(special.uuid_v4(b"\xff" * 16)) == ones["display"]
    value, counter = special.uuid_v7(1740771337000123, 0x12345678, bytes.fromhex("ff010203"))
    assert (str(value), str(value.int), counter) == (timed["display"], timed["integer"], timed["counter_after"])
    assert special.uuid_v7(0, 0x7FFFFFFF, bytes(4))[1] == 0
    with pytest.raises(ValueError, match="after 1970"):
        special.uuid_v7(-1, 0, bytes(4))
    versions = [special.uuid_version(each) for each in (value, special.uuid_v4(bytes(16)), uuid.UUID(int=0))]
    assert versions == ["V7", "V4", "Nil"]
    assert special.uuid_version(uuid.UUID(int=(1 << 128) - 1)) == "Max"
    assert special.uuid_version(uuid.UUID(int=5)) is None


def test_spans_and_moments_are_shown_as_listed() -> None:
    spans = [entry for entry in DISPLAY if entry["kind"] == "TimeDuration"]
    moments = [entry for entry in DISPLAY if entry["kind"] == "Timestamp"]
    assert (len(spans), len(moments)) == (5, 4)
    assert len(spans) + len(moments) + 3 + 3 + 7 == len(DISPLAY)
    for entry in spans:
        assert str(TimeDuration(micros=int(entry["micros"]))) == entry["display"]
    for entry in moments:
        moment = Timestamp(int(entry["micros"]))
        assert Timestamp.from_rfc3339(str(moment)) == moment
        if moment.micros >= 0:  # the TypeScript SDK shows -1 as +1: spec 01 section 17.4
            assert Timestamp.from_rfc3339(entry["display_ts_sdk"]) == moment


@pytest.mark.parametrize(
    "text", ["", "c2", HEX[:-1], HEX + "0", "0X" + HEX, "x" * 64, " " * 64, HEX[:-2] + " a", "_" * 64]
)
def test_what_is_no_identity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="64 hex digits"):
        Identity.from_hex(text)


def test_identities_are_values() -> None:
    one, other = Identity.from_hex(HEX), Identity.from_hex("00" * 31 + "ff")
    assert other < one
    assert one >= one
    assert one > other
    assert other <= one
    assert sorted([one, other]) == [other, one]
    assert {one: 1}[Identity(one.wire)] == 1
    assert one != one.wire
    assert one != Address.NONE
    assert one.short == HEX[:16]
    assert eval(repr(one)) == one
    for again in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert again == one
    with pytest.raises(TypeError):
        assert one < one.wire  # type: ignore[operator]
    with pytest.raises(AttributeError, match="immutable"):
        one.wire = bytes(32)
    with pytest.raises(AttributeError, match="immutable"):
        del one.wire
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        Identity(bytes(31))


def test_addresses_are_values() -> None:
    one = Address.from_hex("ff0102030405060708090a0b0c0d0e0f")
    assert ConnectionId is Address
    assert one > Address.NONE
    assert one > Address.NONE
    assert one >= Address.NONE
    assert one >= Address.NONE
    assert eval(repr(one)) == one
    assert pickle.loads(pickle.dumps(one)) == one
    assert len({one, Address(one.wire)}) == 1
    with pytest.raises(ValueError, match="32 hex digits"):
        Address.from_hex(HEX)
    with pytest.raises(ValueError, match="16 bytes"):
        Address(bytes(32))


def test_moments_and_spans_compute() -> None:
    moment = Timestamp(1_000_000)
    second = datetime.timedelta(seconds=1)
    assert moment + TimeDuration(seconds=1) == moment + second == second + moment == Timestamp(2_000_000)
    assert moment - TimeDuration(millis=500) == Timestamp(500_000)
    assert moment - second == Timestamp.EPOCH
    assert moment - Timestamp(3) == TimeDuration(micros=999_997)
    assert TimeDuration(seconds=1.5, millis=2, micros=3) == TimeDuration(micros=1_502_003)
    assert TimeDuration(seconds=1) + second == second + TimeDuration(seconds=1) == TimeDuration(seconds=2)
    assert second - TimeDuration(micros=1) == TimeDuration(micros=999_999)
    assert -TimeDuration(micros=5) * 3 == TimeDuration(micros=-15)
    assert abs(TimeDuration(micros=-5)) == TimeDuration(micros=5)
    assert not TimeDuration()
    assert TimeDuration(seconds=1) == second
    assert hash(TimeDuration(micros=5)) == hash(TimeDuration(micros=5))
    assert TimeDuration(micros=1) < TimeDuration(micros=2) <= TimeDuration(micros=2) < second
    assert second > TimeDuration(micros=2)
    assert TimeDuration(seconds=2) >= second
    assert TimeDuration(seconds=1).to_timedelta() == second
    assert Timestamp(1) < Timestamp(2) <= Timestamp(2)
    assert Timestamp(2) > Timestamp(1)
    assert Timestamp(2) >= Timestamp(2)
    with pytest.raises(TypeError):
        moment + 1  # type: ignore[operator]
    with pytest.raises(TypeError):
        moment - 1.0  # type: ignore[operator]
    with pytest.raises(TypeError):
        TimeDuration(seconds=1) * 1.5  # type: ignore[operator]


def test_what_does_not_fit_64_bits_overflows() -> None:
    greatest, least = Timestamp(special.MICROS_MAX), Timestamp(special.MICROS_MIN)
    for compute in (
        lambda: greatest + TimeDuration(micros=1),
        lambda: least - TimeDuration(micros=1),
        lambda: greatest - least,
        lambda: -TimeDuration(micros=special.MICROS_MIN),
        lambda: TimeDuration(micros=special.MICROS_MAX) * 2,
        lambda: TimeDuration(micros=special.MICROS_MAX).to_timedelta() * 10_000,
        lambda: greatest.to_datetime(),
    ):
        with pytest.raises(OverflowError):
            compute()


def test_moments_know_datetimes() -> None:
    berlin = datetime.timezone(datetime.timedelta(hours=2))
    moment = Timestamp.from_datetime(datetime.datetime(2025, 2, 10, 17, 45, 30, 250, tzinfo=berlin))
    assert moment.to_datetime() == datetime.datetime(2025, 2, 10, 15, 45, 30, 250, tzinfo=datetime.UTC)
    with pytest.raises(ValueError, match="time zone"):
        Timestamp.from_datetime(datetime.datetime(2025, 1, 1))


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "1970-01-01T00:00:00+00:00"),
        (-1, "1969-12-31T23:59:59.999999+00:00"),
        (1_500_000, "1970-01-01T00:00:01.500+00:00"),
        (1740771337000123, "2025-02-28T19:35:37.000123+00:00"),
        (951_782_400_000_000, "2000-02-29T00:00:00+00:00"),
        (-62_167_219_200_000_000, "0000-01-01T00:00:00+00:00"),
        (-62_167_219_200_000_001, "-0001-12-31T23:59:59.999999+00:00"),
        (253_402_300_800_000_000, "+10000-01-01T00:00:00+00:00"),
        (special.MICROS_MAX, "+294247-01-10T04:00:54.775807+00:00"),
        (special.MICROS_MIN, "-290308-12-21T19:59:05.224192+00:00"),
    ],
)
def test_moments_are_written_in_utc(micros: int, text: str) -> None:
    assert str(Timestamp(micros)) == text


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00z", 0),
        ("1970-01-01 02:00:00+02:00", 0),
        ("1969-12-31T22:30:00-01:30", 0),
        ("1970-01-01T00:00:00.1234567Z", 123_456),
        ("1970-01-01T00:00:60Z", 60_000_000),
    ],
)
def test_rfc_3339_is_read(text: str, micros: int) -> None:
    assert Timestamp.from_rfc3339(text).micros == micros


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1970-01-01",
        "1970-01-01T00:00:00",
        "1970-01-01T00:00:00+0000",
        "1970-01-01T00:00:00 Z",
        "1970-13-01T00:00:00Z",
        "1970-01-01T00:00:00.Z",
        "12345-01-01T00:00:00Z",
        "1970-01-01T00:00:00+24:00",
        "1970-02-30T00:00:00Z",
    ],
)
def test_other_texts_are_no_moments(text: str) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|month|day|zone"):
        Timestamp.from_rfc3339(text)


def test_schedules_are_at_every_and_after() -> None:
    class Context:
        timestamp = Timestamp(1000)

    at, every = ScheduleAt.at(Timestamp(5)), ScheduleAt.every(datetime.timedelta(seconds=1))
    assert (at.tag, at.micros, at.time, at.interval) == (1, 5, Timestamp(5), None)
    assert (every.tag, every.micros, every.time, every.interval) == (0, 1_000_000, None, TimeDuration(seconds=1))
    assert ScheduleAt.after(Context(), datetime.timedelta(microseconds=7)) == ScheduleAt.at(Timestamp(1007))
    assert every < at
    assert at > every
    assert every <= every
    assert at >= at
    assert len({at, ScheduleAt.at(Timestamp(5))}) == 1
    assert at != (1, 5)
    assert eval(repr(at)) == at
    assert eval(repr(every)) == every
    assert pickle.loads(pickle.dumps((at, TimeDuration(micros=3), Timestamp(4)))) == (
        at,
        TimeDuration(micros=3),
        Timestamp(4),
    )
    with pytest.raises(TypeError, match="an interval is a TimeDuration or timedelta, not int"):
        ScheduleAt.every(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tags 0"):
        ScheduleAt(2, 0)


def test_identity_of_a_token_is_the_one_of_the_reference() -> None:
    assert Identity.derive("localhost", "alice").hex() == HEX
    assert Identity.derive("a|b", "c") == Identity.derive("a", "b|c")
    assert Identity.derive("example.com", "123").hex() == (
        "c200ef884364c1a99be0298dc68f2004e6b97c09d1b1658b7db22f51fb662059"
    )
