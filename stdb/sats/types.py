"""Algebraic types: the one in-memory model of every type that stdb stores or sends.

Responsible for: the shapes of types, their equality (structural, names included), the special shapes.
Not responsible for: values (`bsatn`, `json`), the wire form of types (`meta`), names (`names`).

Source: spec 01 sections 2 to 4. 0.11 and 0.12 use the same model with other codec profiles.
"""

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, TypeAlias

__all__ = [
    "BOOL",
    "BYTES",
    "CONNECTION_ID",
    "F32",
    "F64",
    "I8",
    "I16",
    "I32",
    "I64",
    "I128",
    "I256",
    "IDENTITY",
    "NEVER",
    "SCHEDULE_AT",
    "STRING",
    "TIMESTAMP",
    "TIME_DURATION",
    "U8",
    "U16",
    "U32",
    "U64",
    "U128",
    "U256",
    "UNIT",
    "UUID",
    "AlgebraicType",
    "Array",
    "Element",
    "Map",
    "Product",
    "Ref",
    "Scalar",
    "ScalarKind",
    "Sum",
    "Typespace",
    "is_option",
    "is_result",
    "option",
    "option_inner",
    "result",
]


class ScalarKind(Enum):
    """The scalar types; the value is the name that JSON documents use."""

    BOOL = "Bool"
    I8 = "I8"
    U8 = "U8"
    I16 = "I16"
    U16 = "U16"
    I32 = "I32"
    U32 = "U32"
    I64 = "I64"
    U64 = "U64"
    I128 = "I128"
    U128 = "U128"
    I256 = "I256"
    U256 = "U256"
    F32 = "F32"
    F64 = "F64"
    STRING = "String"


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar or String."""

    kind: ScalarKind


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a product or variant of a sum; `name` is None when unnamed."""

    name: str | None
    type: "AlgebraicType"


@dataclass(frozen=True, slots=True)
class Product:
    """Elements one after another; no elements is the unit type."""

    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class Sum:
    """One of its variants, told by its position; no variants is the never type."""

    variants: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class Array:
    """Any number of values of one type."""

    element: "AlgebraicType"


@dataclass(frozen=True, slots=True)
class Map:
    """Entries ordered by key; 0.11 and 0.12 only."""

    key: "AlgebraicType"
    value: "AlgebraicType"


@dataclass(frozen=True, slots=True)
class Ref:
    """The type at `index` of the module's typespace."""

    index: int


AlgebraicType: TypeAlias = Scalar | Product | Sum | Array | Map | Ref


@dataclass(frozen=True, slots=True)
class Typespace:
    """The types that Refs of one module point at."""

    types: tuple[AlgebraicType, ...] = ()
    EMPTY: ClassVar["Typespace"]


Typespace.EMPTY = Typespace()

BOOL = Scalar(ScalarKind.BOOL)
I8, U8 = Scalar(ScalarKind.I8), Scalar(ScalarKind.U8)
I16, U16 = Scalar(ScalarKind.I16), Scalar(ScalarKind.U16)
I32, U32 = Scalar(ScalarKind.I32), Scalar(ScalarKind.U32)
I64, U64 = Scalar(ScalarKind.I64), Scalar(ScalarKind.U64)
I128, U128 = Scalar(ScalarKind.I128), Scalar(ScalarKind.U128)
I256, U256 = Scalar(ScalarKind.I256), Scalar(ScalarKind.U256)
F32, F64 = Scalar(ScalarKind.F32), Scalar(ScalarKind.F64)
STRING = Scalar(ScalarKind.STRING)
BYTES = Array(U8)
UNIT = Product(())
NEVER = Sum(())

# The special shapes, recognised by structure alone (spec 01 section 4).
IDENTITY = Product((Element("__identity__", U256),))
CONNECTION_ID = Product((Element("__connection_id__", U128),))
TIMESTAMP = Product((Element("__timestamp_micros_since_unix_epoch__", I64),))
TIME_DURATION = Product((Element("__time_duration_micros__", I64),))
UUID = Product((Element("__uuid__", U128),))
SCHEDULE_AT = Sum((Element("Interval", TIME_DURATION), Element("Time", TIMESTAMP)))


def option(inner: AlgebraicType) -> Sum:
    """Return the type of an optional `inner`."""
    return Sum((Element("some", inner), Element("none", UNIT)))


def result(ok: AlgebraicType, err: AlgebraicType) -> Sum:
    """Return the type of an `ok` or an `err`."""
    return Sum((Element("ok", ok), Element("err", err)))


def is_option(type_: AlgebraicType) -> bool:
    """Tell whether `type_` has the shape of an option."""
    return option_inner(type_) is not None


def option_inner(type_: AlgebraicType) -> AlgebraicType | None:
    """Return what an option holds; None when `type_` is no option."""
    match type_:
        case Sum((Element("some", inner), Element("none", Product(())))):
            return inner
    return None


def is_result(type_: AlgebraicType) -> bool:
    """Tell whether `type_` has the shape of a result."""
    match type_:
        case Sum((Element("ok"), Element("err"))):
            return True
    return False
