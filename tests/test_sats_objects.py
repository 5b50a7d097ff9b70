"""Object codecs: rows as objects, special values, options, lists, enums and unions; errors with attribute paths."""

import datetime
import enum
import uuid
from dataclasses import dataclass
from typing import Any

import pytest

from stdb.errors import DecodeError, EncodeError, SchemaError
from stdb.sats import bsatn, objects, types
from stdb.sats.special import Address, Identity, ScheduleAt, TimeDuration, Timestamp
from stdb.sats.types import Array, Element, Product, Ref, Sum, Typespace, option


class Color(enum.Enum):
    RED = 1
    GREEN = 2


@dataclass
class Circle:
    radius: float


@dataclass
class Square:
    side: float
    tags: list[str]


@dataclass
class Nothing:
    pass


@dataclass
class Row:
    id: int
    owner: Identity
    address: Address | None
    sent: Timestamp
    span: TimeDuration
    due: ScheduleAt
    key: uuid.UUID
    color: Color
    shape: Any
    shapes: list[Any]
    inner: Circle | None
    nested: Any
    at: datetime.datetime


UNITS = Sum((Element("RED", types.UNIT), Element("GREEN", types.UNIT)))
CIRCLE = Product((Element("radius", types.F64),))
SQUARE = Product((Element("side", types.F64), Element("tags", Array(types.STRING))))
SHAPES = Sum((Element("Circle", CIRCLE), Element("Square", SQUARE), Element("Nothing", types.UNIT)))
ROW = Product(
    (
        Element("id", types.U64),
        Element("owner", types.IDENTITY),
        Element("address", option(types.CONNECTION_ID)),
        Element("sent", types.TIMESTAMP),
        Element("span", types.TIME_DURATION),
        Element("due", types.SCHEDULE_AT),
        Element("key", types.UUID),
        Element("color", UNITS),
        Element("shape", Ref(0)),
        Element("shapes", Array(Ref(0))),
        Element("inner", option(CIRCLE)),
        Element("nested", option(option(types.U8))),
        Element("at", types.TIMESTAMP),
    )
)
TYPESPACE = Typespace((SHAPES,))
CIRCLE_SHAPE = objects.ObjectShape(Circle, ("radius",), (None,))
UNION = objects.UnionShape(
    (Circle, Square, Nothing),
    (CIRCLE_SHAPE, objects.ObjectShape(Square, ("side", "tags"), (None, None)), objects.ObjectShape(Nothing, (), ())),
)
ROW_SHAPE = objects.ObjectShape(
    Row,
    tuple(element.name or "" for element in ROW.elements),
    (
        None,
        objects.IDENTITY_SHAPE,
        objects.OptionShape(objects.ADDRESS_SHAPE),
        objects.TIMESTAMP_SHAPE,
        objects.TIME_DURATION_SHAPE,
        objects.SCHEDULE_AT_SHAPE,
        objects.UUID_SHAPE,
        objects.EnumShape(tuple(Color)),
        UNION,
        objects.ListShape(UNION),
        objects.OptionShape(CIRCLE_SHAPE),
        None,
        objects.DATETIME_SHAPE,
    ),
)
CODEC = bsatn.object_codec(ROW, ROW_SHAPE, TYPESPACE)


def row(**changed: Any) -> Row:
    values: dict[str, Any] = {
        "id": 7,
        "owner": Identity(bytes(range(32))),
        "address": Address(bytes(range(16))),
        "sent": Timestamp(-5),
        "span": TimeDuration(micros=9),
        "due": ScheduleAt.every(TimeDuration(seconds=1)),
        "key": uuid.UUID(int=1 << 100),
        "color": Color.GREEN,
        "shape": Square(2.0, ["a", "b"]),
        "shapes": [Circle(1.0), Nothing(), Square(0.5, [])],
        "inner": None,
        "nested": (None,),
        "at": datetime.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=datetime.UTC),
    }
    return Row(**values | changed)


def test_objects_come_back_and_are_the_bytes_of_their_plain_values() -> None:
    for value in (row(), row(address=None, inner=Circle(-1.5), shape=Nothing(), shapes=[], nested=None)):
        data = CODEC.encode(value)
        assert CODEC.decode(b"__" + data + b"__", 2) == (value, 2 + len(data))
        assert CODEC.skip(data) == len(data)
        plain = bsatn.codec(ROW, TYPESPACE)
        assert plain.encode(plain.decode_exact(data)) == data


def test_a_decoded_object_has_objects_inside() -> None:
    back = CODEC.decode_exact(CODEC.encode(row()))
    assert isinstance(back, Row)
    assert (type(back.owner), type(back.due), type(back.shapes[2])) == (Identity, ScheduleAt, Square)
    assert back.color is Color.GREEN


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"id": -1}, "$.id: -1 is out of range for u64 (0 to 18446744073709551615)"),
        ({"owner": None}, "$.owner: expected an Identity, got None"),
        ({"owner": Address.NONE}, "$.owner: expected an Identity, got Address.from_hex('0000"),
        ({"sent": TimeDuration(micros=1)}, "$.sent: expected a Timestamp, got TimeDuration(micros=1)"),
        ({"color": 2}, "$.color: 2 is none of Color.RED, Color.GREEN"),
        ({"shape": 3}, "$.shape: expected Circle | Square | Nothing, got 3"),
        ({"shape": None}, "$.shape: expected Circle | Square | Nothing, got None"),
        ({"shape": Circle("x")}, "$.shape.radius: expected a number for f64, got 'x'"),  # type: ignore[arg-type]
        ({"shapes": [Circle(1), Square(1, [2])]}, "$.shapes[1].tags[0]: expected a str, got 2"),  # type: ignore[list-item]
        ({"inner": Square(1, [])}, "$.inner: 'Square' object has no attribute 'radius'"),
        (
            {"at": datetime.datetime(2026, 1, 1)},
            "$.at: datetime.datetime(2026, 1, 1, 0, 0): a datetime without a time zone is no moment",
        ),
    ],
)
def test_what_does_not_fit_is_named_by_attribute(changed: dict[str, Any], text: str) -> None:
    with pytest.raises(EncodeError) as caught:
        CODEC.encode(row(**changed))
    assert text in str(caught.value)


def test_malformed_bytes_are_explained_as_for_plain_values() -> None:
    data = CODEC.encode(row())
    for length in range(len(data)):
        with pytest.raises(DecodeError):
            CODEC.decode(data[:length])


def test_an_exception_of_a_factory_comes_out_as_it_is() -> None:
    def refuse(*values: Any) -> Any:
        raise ValueError("not today")

    codec = bsatn.object_codec(CIRCLE, objects.ObjectShape(refuse, ("radius",), (None,)))
    with pytest.raises(ValueError, match="not today"):
        codec.decode(bytes(8))


def test_an_enum_may_look_like_an_option() -> None:
    class Amount(enum.Enum):
        some = 1
        none = 2

    shape = objects.EnumShape(tuple(Amount))
    codec = bsatn.object_codec(option(types.UNIT), shape)
    assert [codec.decode_exact(codec.encode(member)) for member in Amount] == list(Amount)


def test_recursive_types_have_no_objects() -> None:
    typespace = Typespace((Product((Element("next", option(Ref(0))),)),))
    with pytest.raises(SchemaError, match="a recursive type has no object of its own"):
        bsatn.object_codec(Ref(0), objects.ObjectShape(Circle, ("next",), (None,)), typespace)
