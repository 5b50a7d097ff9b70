"""Shapes: which Python objects stand for the values of a type, so that codecs build and read them directly.

Responsible for: describing the objects; `object_codec` (in `bsatn`) generates the code.
Not responsible for: defining classes (`stdb.modules.python`), the plain values (`bsatn.codec`).

A shape is given beside a type and follows its structure:

    Converted(decode, encode)          any type: plain value to object and back, by two callables
    ObjectShape(factory, attributes,   a product: decoding calls `factory` with the values by position, encoding reads
                shapes)                the attributes of that name; `shapes[i]` is the shape of element i or None
    OptionShape(inner)                 an option: None or an object of `inner`
    ListShape(inner)                   an array: a list of objects of `inner`
    EnumShape(members)                 a sum of unit variants: members[tag]
    UnionShape(classes, shapes)        a sum of products: an object of classes[tag], whose shape is shapes[tag]
    None                               the plain value

The shapes of the special types are here: IDENTITY_SHAPE and so on.
"""

import datetime
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeAlias

from stdb.sats.special import (
    Address,
    Identity,
    ScheduleAt,
    TimeDuration,
    Timestamp,
    uuid_from_wire,
    uuid_to_wire,
)

__all__ = [
    "ADDRESS_SHAPE",
    "DATETIME_SHAPE",
    "IDENTITY_SHAPE",
    "SCHEDULE_AT_SHAPE",
    "TIMEDELTA_SHAPE",
    "TIMESTAMP_SHAPE",
    "TIME_DURATION_SHAPE",
    "UUID_SHAPE",
    "Converted",
    "EnumShape",
    "ListShape",
    "ObjectShape",
    "OptionShape",
    "Shape",
    "UnionShape",
]


@dataclass(frozen=True, slots=True)
class Converted:
    """An object made from the plain value by `decode` and turned back by `encode`.

    `encode` raises TypeError, ValueError or AttributeError for what it cannot turn back.
    """

    decode: Callable[[Any], Any]
    encode: Callable[[Any], Any]
    expected: str = ""
    """What the object is, for the message of a TypeError or AttributeError: "an Identity"."""


@dataclass(frozen=True, slots=True)
class ObjectShape:
    """An object with one attribute an element. `factory` takes the values by position, in the order of elements."""

    factory: Callable[..., Any]
    attributes: tuple[str, ...]
    shapes: "tuple[Shape | None, ...]"


@dataclass(frozen=True, slots=True)
class OptionShape:
    """None, or an object of `inner`."""

    inner: "Shape | None"


@dataclass(frozen=True, slots=True)
class ListShape:
    """A list of objects of `inner`."""

    inner: "Shape | None"


@dataclass(frozen=True, slots=True)
class EnumShape:
    """One of `members`, by tag."""

    members: tuple[Hashable, ...]


@dataclass(frozen=True, slots=True)
class UnionShape:
    """An object of one of `classes`, by tag."""

    classes: tuple[type, ...]
    shapes: "tuple[Shape | None, ...]"


Shape: TypeAlias = Converted | ObjectShape | OptionShape | ListShape | EnumShape | UnionShape


def _time_duration(micros: int) -> TimeDuration:
    return TimeDuration(micros=micros)


def _schedule_at(value: tuple[int, int]) -> ScheduleAt:
    return ScheduleAt(*value)


def _schedule_at_wire(value: ScheduleAt) -> tuple[int, int]:
    return value.tag, value.micros


def _datetime(micros: int) -> datetime.datetime:
    return Timestamp(micros).to_datetime()


def _datetime_micros(value: datetime.datetime) -> int:
    return Timestamp.from_datetime(value).micros


def _timedelta(micros: int) -> datetime.timedelta:
    return datetime.timedelta(microseconds=micros)


def _timedelta_micros(value: datetime.timedelta) -> int:
    return TimeDuration.from_timedelta(value).micros


# A slot's descriptor reads the attribute and refuses objects of other classes.
IDENTITY_SHAPE = Converted(Identity, Identity.__dict__["wire"].__get__, "an Identity")
ADDRESS_SHAPE = Converted(Address, Address.__dict__["wire"].__get__, "an Address")
TIMESTAMP_SHAPE = Converted(Timestamp, Timestamp.__dict__["micros"].__get__, "a Timestamp")
TIME_DURATION_SHAPE = Converted(_time_duration, TimeDuration.__dict__["micros"].__get__, "a TimeDuration")
SCHEDULE_AT_SHAPE = Converted(_schedule_at, _schedule_at_wire, "a ScheduleAt")
UUID_SHAPE = Converted(uuid_from_wire, uuid_to_wire, "a uuid.UUID")
DATETIME_SHAPE = Converted(_datetime, _datetime_micros, "a datetime")
TIMEDELTA_SHAPE = Converted(_timedelta, _timedelta_micros, "a timedelta")
