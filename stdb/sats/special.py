"""Identity, Address, Timestamp, TimeDuration, ScheduleAt: the special types as module authors see them.

Responsible for: immutable, ordered, hashable objects, made cheaply from wire values; their texts; UUIDs 4 and 7.
Not responsible for: their place in rows (`bsatn`, `objects`); tokens (`stdb.net`).

Source: spec 08 "Value types", spec 01 sections 4 and 8. An Identity is written as hex with the most significant byte
first and travels with the least significant first. An Address is what 1.0 and later call a connection id.
"""

import datetime
import re
import uuid
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol, Self, overload

from stdb.sats.hashes import blake3_256

__all__ = [
    "MICROS_MAX",
    "MICROS_MIN",
    "Address",
    "ConnectionId",
    "Identity",
    "ScheduleAt",
    "TimeDuration",
    "Timestamp",
    "format_timestamp",
    "uuid_from_wire",
    "uuid_to_wire",
    "uuid_v4",
    "uuid_v7",
    "uuid_version",
]

MICROS_MIN, MICROS_MAX = -(1 << 63), (1 << 63) - 1
_SECOND = 1_000_000
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)
_RFC_3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))\Z", re.ASCII
)


def _checked(micros: int, what: str) -> int:
    if not MICROS_MIN <= micros <= MICROS_MAX:
        raise OverflowError(f"{what} of {micros} microseconds does not fit 64 bits")
    return micros


class _Immutable:
    """Base of the value types: nothing may be assigned after construction."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable; make a new one instead of setting {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable; {name} cannot be deleted")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


class Identity(_Immutable):
    """Who: a user or a database. Ordered as an integer, which is the order of the hex text."""

    __slots__ = ("wire",)
    wire: bytes
    """The 32 bytes as they travel, least significant first."""

    ZERO: ClassVar["Identity"]

    def __init__(self, wire: bytes) -> None:
        """Make an identity of its 32 wire bytes; for text use `from_hex`."""
        if len(wire) != 32:
            raise ValueError(f"an Identity has 32 bytes, not {len(wire)}")
        _set_identity(self, wire)

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """Read 64 hex digits of either case; a leading `0x` is allowed."""
        return cls(_wire_from_hex(text, 32, "an Identity"))

    @classmethod
    def derive(cls, issuer: str, subject: str) -> Self:
        """Return the identity of the holder of a token with these claims (spec 01 section 8.2)."""
        tail = blake3_256(f"{issuer}|{subject}".encode())[:26]
        checksum = blake3_256(b"\xc2\x00" + tail)[:4]
        return cls((b"\xc2\x00" + checksum + tail)[::-1])

    def hex(self) -> str:
        """Return 64 lower-case hex digits, most significant first."""
        return self.wire[::-1].hex()

    @property
    def short(self) -> str:
        """The first 16 digits of the hex form, for people."""
        return self.hex()[:16]

    def __int__(self) -> int:
        return int.from_bytes(self.wire, "little")

    def __str__(self) -> str:
        return self.hex()

    def __repr__(self) -> str:
        return f"Identity.from_hex('{self.hex()}')"

    def __hash__(self) -> int:
        return hash(self.wire)

    if not TYPE_CHECKING:  # checkers then report comparisons with other types (spec 08)

        def __eq__(self, other: object) -> bool:
            return self.wire == other.wire if isinstance(other, Identity) else NotImplemented

    def __lt__(self, other: "Identity") -> bool:
        return self.wire[::-1] < other.wire[::-1] if isinstance(other, Identity) else NotImplemented

    def __le__(self, other: "Identity") -> bool:
        return self.wire[::-1] <= other.wire[::-1] if isinstance(other, Identity) else NotImplemented

    def __gt__(self, other: "Identity") -> bool:
        return self.wire[::-1] > other.wire[::-1] if isinstance(other, Identity) else NotImplemented

    def __ge__(self, other: "Identity") -> bool:
        return self.wire[::-1] >= other.wire[::-1] if isinstance(other, Identity) else NotImplemented

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.wire,)


class Address(_Immutable):
    """Which connection: 16 bytes that tell one client's connections apart. `Address.NONE` is no connection."""

    __slots__ = ("wire",)
    wire: bytes
    """The 16 bytes as they travel, least significant first."""

    NONE: ClassVar["Address"]

    def __init__(self, wire: bytes) -> None:
        """Make an address of its 16 wire bytes; for text use `from_hex`."""
        if len(wire) != 16:
            raise ValueError(f"an Address has 16 bytes, not {len(wire)}")
        _set_address(self, wire)

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """Read 32 hex digits of either case; a leading `0x` is allowed."""
        return cls(_wire_from_hex(text, 16, "an Address"))

    def hex(self) -> str:
        """Return 32 lower-case hex digits, most significant first."""
        return self.wire[::-1].hex()

    def __int__(self) -> int:
        return int.from_bytes(self.wire, "little")

    def __str__(self) -> str:
        return self.hex()

    def __repr__(self) -> str:
        return f"Address.from_hex('{self.hex()}')"

    def __hash__(self) -> int:
        return hash(self.wire)

    if not TYPE_CHECKING:  # checkers then report comparisons with other types (spec 08)

        def __eq__(self, other: object) -> bool:
            return self.wire == other.wire if isinstance(other, Address) else NotImplemented

    def __lt__(self, other: "Address") -> bool:
        return self.wire[::-1] < other.wire[::-1] if isinstance(other, Address) else NotImplemented

    def __le__(self, other: "Address") -> bool:
        return self.wire[::-1] <= other.wire[::-1] if isinstance(other, Address) else NotImplemented

    def __gt__(self, other: "Address") -> bool:
        return self.wire[::-1] > other.wire[::-1] if isinstance(other, Address) else NotImplemented

    def __ge__(self, other: "Address") -> bool:
        return self.wire[::-1] >= other.wire[::-1] if isinstance(other, Address) else NotImplemented

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.wire,)


ConnectionId = Address


class TimeDuration(_Immutable):
    """A span of time in microseconds, negative ones included; within 64 bits."""

    __slots__ = ("micros",)
    micros: int

    def __init__(self, *, seconds: float = 0, millis: float = 0, micros: int = 0) -> None:
        """Add up the parts; a fraction of a microsecond is rounded to the nearest."""
        if seconds or millis:
            micros += round(seconds * _SECOND) + round(millis * 1000)
        _set_duration(self, _checked(micros, "a TimeDuration"))

    @classmethod
    def from_timedelta(cls, delta: datetime.timedelta) -> Self:
        """Return the same span as a TimeDuration."""
        return cls(micros=delta // _MICROSECOND)

    def to_timedelta(self) -> datetime.timedelta:
        """Return the same span as a timedelta; OverflowError where it holds no such span."""
        return datetime.timedelta(microseconds=self.micros)

    def __str__(self) -> str:
        whole, fraction = divmod(abs(self.micros), _SECOND)
        return f"{'-' if self.micros < 0 else '+'}{whole}.{fraction:06}"

    def __repr__(self) -> str:
        return f"TimeDuration(micros={self.micros})"

    def __hash__(self) -> int:
        return hash(self.micros)

    def __bool__(self) -> bool:
        return self.micros != 0

    def __neg__(self) -> "TimeDuration":
        return TimeDuration(micros=-self.micros)

    def __abs__(self) -> "TimeDuration":
        return TimeDuration(micros=abs(self.micros))

    def __add__(self, other: "TimeDuration | datetime.timedelta") -> "TimeDuration":
        micros = _span(other)
        return NotImplemented if micros is None else TimeDuration(micros=self.micros + micros)

    __radd__ = __add__

    def __sub__(self, other: "TimeDuration | datetime.timedelta") -> "TimeDuration":
        micros = _span(other)
        return NotImplemented if micros is None else TimeDuration(micros=self.micros - micros)

    def __rsub__(self, other: datetime.timedelta) -> "TimeDuration":
        micros = _span(other)
        return NotImplemented if micros is None else TimeDuration(micros=micros - self.micros)

    def __mul__(self, factor: int) -> "TimeDuration":
        return TimeDuration(micros=self.micros * factor) if isinstance(factor, int) else NotImplemented

    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        micros = _span(other)
        return NotImplemented if micros is None else self.micros == micros

    def __lt__(self, other: "TimeDuration | datetime.timedelta") -> bool:
        micros = _span(other)
        return NotImplemented if micros is None else self.micros < micros

    def __le__(self, other: "TimeDuration | datetime.timedelta") -> bool:
        micros = _span(other)
        return NotImplemented if micros is None else self.micros <= micros

    def __gt__(self, other: "TimeDuration | datetime.timedelta") -> bool:
        micros = _span(other)
        return NotImplemented if micros is None else self.micros > micros

    def __ge__(self, other: "TimeDuration | datetime.timedelta") -> bool:
        micros = _span(other)
        return NotImplemented if micros is None else self.micros >= micros

    def __reduce__(self) -> tuple[Any, ...]:
        return _duration_of, (self.micros,)


class Timestamp(_Immutable):
    """A moment: microseconds since 1970-01-01T00:00:00Z, within 64 bits."""

    __slots__ = ("micros",)
    micros: int

    EPOCH: ClassVar["Timestamp"]

    def __init__(self, micros: int) -> None:
        if not MICROS_MIN <= micros <= MICROS_MAX:
            raise OverflowError(f"a Timestamp of {micros} microseconds does not fit 64 bits")
        _set_timestamp(self, micros)

    @classmethod
    def from_datetime(cls, moment: datetime.datetime) -> Self:
        """Return the moment of an aware datetime; ValueError for a naive one."""
        if moment.utcoffset() is None:
            raise ValueError("a datetime without a time zone is no moment; give it one, e.g. tzinfo=datetime.UTC")
        return cls((moment - _EPOCH) // _MICROSECOND)

    @classmethod
    def from_rfc3339(cls, text: str) -> Self:
        """Read RFC 3339 text with a zone, such as `2025-02-10T15:45:30.25Z`; digits below microseconds are dropped."""
        return cls(_micros_from_rfc3339(text))

    def to_datetime(self) -> datetime.datetime:
        """Return the moment in UTC; OverflowError outside the years 1 to 9999."""
        return _EPOCH + datetime.timedelta(microseconds=self.micros)

    def __str__(self) -> str:
        return format_timestamp(self.micros)

    def __repr__(self) -> str:
        return f"Timestamp({self.micros})"

    def __hash__(self) -> int:
        return hash(self.micros)

    def __add__(self, span: "TimeDuration | datetime.timedelta") -> "Timestamp":
        micros = _span(span)
        return NotImplemented if micros is None else Timestamp(self.micros + micros)

    __radd__ = __add__

    @overload
    def __sub__(self, other: "Timestamp") -> TimeDuration: ...
    @overload
    def __sub__(self, other: "TimeDuration | datetime.timedelta") -> "Timestamp": ...
    def __sub__(self, other: "Timestamp | TimeDuration | datetime.timedelta") -> "TimeDuration | Timestamp":
        if isinstance(other, Timestamp):
            return TimeDuration(micros=self.micros - other.micros)
        micros = _span(other)
        return NotImplemented if micros is None else Timestamp(self.micros - micros)

    if not TYPE_CHECKING:  # checkers then report comparisons with other types (spec 08)

        def __eq__(self, other: object) -> bool:
            return self.micros == other.micros if isinstance(other, Timestamp) else NotImplemented

    def __lt__(self, other: "Timestamp") -> bool:
        return self.micros < other.micros if isinstance(other, Timestamp) else NotImplemented

    def __le__(self, other: "Timestamp") -> bool:
        return self.micros <= other.micros if isinstance(other, Timestamp) else NotImplemented

    def __gt__(self, other: "Timestamp") -> bool:
        return self.micros > other.micros if isinstance(other, Timestamp) else NotImplemented

    def __ge__(self, other: "Timestamp") -> bool:
        return self.micros >= other.micros if isinstance(other, Timestamp) else NotImplemented

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.micros,)


class _HasTimestamp(Protocol):
    """A context that knows what time it is."""

    @property
    def timestamp(self) -> Timestamp: ...


class ScheduleAt(_Immutable):
    """When a scheduled row is due: at a time (tag 1), or again and again after an interval (tag 0)."""

    __slots__ = ("micros", "tag")
    tag: int
    """0 interval, 1 time."""
    micros: int
    """The interval, or the time since 1970."""

    def __init__(self, tag: int, micros: int) -> None:
        """Make one of its wire values; authors use `at`, `every` and `after`."""
        if tag not in (0, 1):
            raise ValueError(f"ScheduleAt has the tags 0 (interval) and 1 (time), not {tag}")
        _set_schedule_tag(self, tag)
        _set_schedule_micros(self, _checked(micros, "a ScheduleAt"))

    @classmethod
    def at(cls, moment: Timestamp) -> Self:
        """Return once, at `moment`."""
        return cls(1, moment.micros)

    @classmethod
    def every(cls, interval: "TimeDuration | datetime.timedelta") -> Self:
        """Return again and again, `interval` apart."""
        micros = _span(interval)
        if micros is None:
            raise TypeError(f"an interval is a TimeDuration or timedelta, not {type(interval).__name__}")
        return cls(0, micros)

    @classmethod
    def after(cls, ctx: _HasTimestamp, delay: "TimeDuration | datetime.timedelta") -> Self:
        """Return once, `delay` after the time of this call."""
        return cls.at(ctx.timestamp + delay)

    @property
    def time(self) -> Timestamp | None:
        """The moment, or None for an interval."""
        return Timestamp(self.micros) if self.tag else None

    @property
    def interval(self) -> TimeDuration | None:
        """The interval, or None for a moment."""
        return None if self.tag else TimeDuration(micros=self.micros)

    def __repr__(self) -> str:
        if self.tag:
            return f"ScheduleAt.at({Timestamp(self.micros)!r})"
        return f"ScheduleAt.every({TimeDuration(micros=self.micros)!r})"

    def __hash__(self) -> int:
        return hash((self.tag, self.micros))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScheduleAt):
            return NotImplemented
        return self.tag == other.tag and self.micros == other.micros

    def __lt__(self, other: "ScheduleAt") -> bool:
        return (self.tag, self.micros) < (other.tag, other.micros) if isinstance(other, ScheduleAt) else NotImplemented

    def __le__(self, other: "ScheduleAt") -> bool:
        return (self.tag, self.micros) <= (other.tag, other.micros) if isinstance(other, ScheduleAt) else NotImplemented

    def __gt__(self, other: "ScheduleAt") -> bool:
        return (self.tag, self.micros) > (other.tag, other.micros) if isinstance(other, ScheduleAt) else NotImplemented

    def __ge__(self, other: "ScheduleAt") -> bool:
        return (self.tag, self.micros) >= (other.tag, other.micros) if isinstance(other, ScheduleAt) else NotImplemented

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.tag, self.micros)


# Slots are filled through their descriptors: `__setattr__` refuses everybody.
_set_identity = Identity.__dict__["wire"].__set__
_set_address = Address.__dict__["wire"].__set__
_set_duration = TimeDuration.__dict__["micros"].__set__
_set_timestamp = Timestamp.__dict__["micros"].__set__
_set_schedule_tag = ScheduleAt.__dict__["tag"].__set__
_set_schedule_micros = ScheduleAt.__dict__["micros"].__set__
Identity.ZERO = Identity(bytes(32))
Address.NONE = Address(bytes(16))
Timestamp.EPOCH = Timestamp(0)


def format_timestamp(micros: int) -> str:
    """Return RFC 3339 in UTC with 0, 3 or 6 digits of fraction, whatever the year."""
    seconds, fraction = divmod(micros, _SECOND)
    days, second = divmod(seconds, 86_400)
    year, month, day = _civil(days)
    date = f"{year:04}" if 0 <= year <= 9999 else f"{year:+05}"
    text = f"{date}-{month:02}-{day:02}T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    if fraction:
        text += f".{fraction // 1000:03}" if fraction % 1000 == 0 else f".{fraction:06}"
    return text + "+00:00"


def _civil(days: int) -> tuple[int, int, int]:
    """Return year, month and day, `days` after 1970-01-01; `datetime` ends with the year 9999."""
    eras, day_of_era = divmod(days + 719_468, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    return year_of_era + eras * 400 + (month <= 2), month, day


def _micros_from_rfc3339(text: str) -> int:
    found = _RFC_3339.match(text)
    if found is None:
        raise ValueError(f"{text!r} is not an RFC 3339 timestamp such as 2025-02-10T15:45:30Z")
    year, month, day, hour, minute, second, fraction, sign, offset_hour, offset_minute = found.groups()
    leap = second == "60"
    moment = datetime.datetime(int(year), int(month), int(day), int(hour), int(minute), 59 if leap else int(second))
    micros = (moment.replace(tzinfo=datetime.UTC) - _EPOCH) // _MICROSECOND
    micros += _SECOND * leap + int((fraction or "0")[:6].ljust(6, "0"))
    if sign:
        hours, minutes = int(offset_hour), int(offset_minute)
        if hours > 23 or minutes > 59:
            raise ValueError(f"{text!r} has a zone of more than a day")
        micros -= (hours * 60 + minutes) * 60 * _SECOND * (-1 if sign == "-" else 1)
    return micros


def _span(value: object) -> int | None:
    if isinstance(value, TimeDuration):
        return value.micros
    return value // _MICROSECOND if isinstance(value, datetime.timedelta) else None


def _duration_of(micros: int) -> TimeDuration:
    return TimeDuration(micros=micros)


def _wire_from_hex(text: str, size: int, what: str) -> bytes:
    digits = text.removeprefix("0x")
    if len(digits) != 2 * size or not digits.isascii() or not digits.isalnum():
        raise ValueError(f"{what} is {2 * size} hex digits, not {text!r}")
    try:
        return bytes.fromhex(digits)[::-1]
    except ValueError:
        raise ValueError(f"{what} is {2 * size} hex digits, not {text!r}") from None


def uuid_to_wire(value: uuid.UUID) -> bytes:
    """Return the 16 bytes of a UUID as they travel, least significant first."""
    return value.bytes[::-1]


def uuid_from_wire(wire: bytes) -> uuid.UUID:
    """Return the UUID of 16 wire bytes."""
    return uuid.UUID(bytes=wire[::-1])


def uuid_v4(entropy: bytes) -> uuid.UUID:
    """Return the version 4 UUID made of 16 random bytes."""
    return uuid.UUID(bytes=entropy, version=4)


def uuid_v7(timestamp_us: int, counter: int, entropy: bytes) -> tuple[uuid.UUID, int]:
    """Return the version 7 UUID of a moment, and the counter for the next one.

    `counter` has 31 bits and belongs to the module instance; `entropy` is 4 random bytes (spec 01 section 4).
    """
    if timestamp_us < 0:
        raise ValueError(f"a version 7 UUID needs a time after 1970, not {timestamp_us} microseconds")
    millis = timestamp_us // 1000
    tail = bytes([entropy[0] & 0x7F]) + entropy[1:4]
    middle = bytes([0x70, counter >> 23 & 0xFF, 0x80, counter >> 15 & 0xFF, counter >> 7 & 0xFF, (counter & 0x7F) << 1])
    value = uuid.UUID(bytes=(millis & (1 << 48) - 1).to_bytes(6, "big") + middle + tail)
    return value, (counter + 1) & 0x7FFF_FFFF


def uuid_version(value: uuid.UUID) -> str | None:
    """Return `Nil`, `V4`, `V7` or `Max`; None for any other UUID."""
    if value.int in (0, (1 << 128) - 1):
        return "Max" if value.int else "Nil"
    return {4: "V4", 7: "V7"}.get(value.bytes[6] >> 4)
