"""Shapes of raw definitions: each piece of a layout knows its bytes and its JSON, both ways.

Responsible for: the combinators that `raw_v9` and `raw_v10` spell their layouts with; bounds on what they read.
Not responsible for: which fields there are, what they mean.

Source: spec 04 section 4.1 (BSATN), spec 01 section 7 (JSON, the positional-free form of schema documents).
"""

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from stdb.errors import DecodeError
from stdb.sats import meta
from stdb.sats.profiles import MODERN, Profile
from stdb.sats.types import AlgebraicType, Element, Product

__all__ = [
    "BOOL",
    "BYTES",
    "I128",
    "PRODUCT",
    "STRING",
    "TYPE",
    "U8",
    "U16",
    "U32",
    "Case",
    "Constant",
    "ListOf",
    "Optional",
    "Reader",
    "Record",
    "Shape",
    "TagOnly",
    "Union",
    "member",
    "product_shape",
    "record",
    "type_shape",
]

T = TypeVar("T")


class Reader:
    """A position in the bytes of a definition."""

    __slots__ = ("buffer", "depth", "hash_is_text", "met_hash", "offset")

    def __init__(self, buffer: bytes, offset: int, *, hash_is_text: bool = False) -> None:
        self.buffer = buffer
        self.offset = offset
        self.depth = 0
        """How many submodules this one is inside of."""
        self.hash_is_text = hash_is_text
        """Signature hashes are read as text (2.12, 2.13) and not as 32 bytes (2.14)."""
        self.met_hash = False
        """A signature hash was asked for: the other reading may be the right one."""

    def take(self, size: int, what: str) -> bytes:
        """Return the next `size` bytes, which are of the type `what`, `[u8]` for text."""
        end = self.offset + size
        if end > len(self.buffer):
            left = len(self.buffer) - self.offset
            raise DecodeError(f"data too short for {what}: Expected {size}, given {left}", self.offset)
        taken = self.buffer[self.offset : end]
        self.offset = end
        return taken

    def count(self, what: str) -> int:
        """Return the next u32, a number of things that take at least a byte each."""
        at = self.offset
        count = int.from_bytes(self.take(4, "u32"), "little")
        left = len(self.buffer) - self.offset
        if count > left:
            raise DecodeError(f"{what} says {count}, but only {left} bytes are left", at)
        return count

    def run(self) -> bytes:
        """Return the next bytes, as many as the u32 before them says."""
        return self.take(int.from_bytes(self.take(4, "u32"), "little"), "[u8]")

    def tag(self, count: int, what: str) -> int:
        """Return the next byte, a variant tag below `count`."""
        at = self.offset
        tag = self.take(1, "u8")[0]
        if tag >= count:
            raise DecodeError(f"unknown tag {tag:#x} for sum type {what}; known are 0 to {count - 1}", at)
        return tag


class Shape(ABC, Generic[T]):
    """One piece of a layout. `path` names the place in a JSON document, like `$.tables[2].name`."""

    @abstractmethod
    def write(self, value: T, out: bytearray) -> None:
        """Append the BSATN of `value`."""

    @abstractmethod
    def read(self, reader: Reader) -> T:
        """Return the next value."""

    @abstractmethod
    def to_json(self, value: T) -> Any:
        """Return the document of `value`."""

    @abstractmethod
    def from_json(self, document: Any, path: str) -> T:
        """Return the value of a document; DecodeError names the path of what does not fit."""


def _misfit(document: Any, path: str, expected: str) -> DecodeError:
    return DecodeError(f"{path}: expected {expected}, found {type(document).__name__}")


class _Integer(Shape[int]):
    def __init__(self, size: int, *, signed: bool = False) -> None:
        self._size, self._signed = size, signed
        self._what = f"{'i' if signed else 'u'}{size * 8}"
        self._low = -(1 << (size * 8 - 1)) if signed else 0
        self._high = (1 << (size * 8 - signed)) - 1

    def write(self, value: int, out: bytearray) -> None:
        out += value.to_bytes(self._size, "little", signed=self._signed)

    def read(self, reader: Reader) -> int:
        return int.from_bytes(reader.take(self._size, self._what), "little", signed=self._signed)

    def to_json(self, value: int) -> Any:
        return value

    def from_json(self, document: Any, path: str) -> int:
        if type(document) is not int or not self._low <= document <= self._high:
            raise DecodeError(f"{path}: expected an integer of type {self._what}, found {document!r:.60}")
        return document


class _Bool(Shape[bool]):
    def write(self, value: bool, out: bytearray) -> None:
        out.append(value)

    def read(self, reader: Reader) -> bool:
        return reader.tag(2, "bool") == 1

    def to_json(self, value: bool) -> Any:
        return value

    def from_json(self, document: Any, path: str) -> bool:
        if type(document) is not bool:
            raise _misfit(document, path, "true or false")
        return document


class _String(Shape[str]):
    def write(self, value: str, out: bytearray) -> None:
        data = value.encode()
        out += struct.pack("<I", len(data)) + data

    def read(self, reader: Reader) -> str:
        at = reader.offset
        data = reader.run()
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise DecodeError(f"string is not UTF-8: {error.reason}", at + 4 + error.start) from None

    def to_json(self, value: str) -> Any:
        return value

    def from_json(self, document: Any, path: str) -> str:
        if type(document) is not str:
            raise _misfit(document, path, "a string")
        return document


class _Bytes(Shape[bytes]):
    def write(self, value: bytes, out: bytearray) -> None:
        out += struct.pack("<I", len(value)) + value

    def read(self, reader: Reader) -> bytes:
        return reader.run()

    def to_json(self, value: bytes) -> Any:
        return value.hex()

    def from_json(self, document: Any, path: str) -> bytes:
        if type(document) is not str:
            raise _misfit(document, path, "bytes as hex text")
        try:
            return bytes.fromhex(document)
        except ValueError:
            raise DecodeError(f"{path}: expected bytes as hex text, found {document!r:.60}") from None


class _Type(Shape[AlgebraicType]):
    def __init__(self, profile: Profile) -> None:
        self._profile = profile

    def write(self, value: AlgebraicType, out: bytearray) -> None:
        out += meta.encode_type(value, self._profile)

    def read(self, reader: Reader) -> AlgebraicType:
        value, reader.offset = meta.decode_type(reader.buffer, reader.offset, self._profile)
        return value

    def to_json(self, value: AlgebraicType) -> Any:
        return meta.type_to_json(value, self._profile)

    def from_json(self, document: Any, path: str) -> AlgebraicType:
        try:
            return meta.type_from_json(document, self._profile)
        except DecodeError as error:
            raise DecodeError(f"{path}: {error}") from error


class ListOf(Shape[tuple[T, ...]]):
    """Any number of items, each at least a byte long."""

    def __init__(self, item: Shape[T], what: str) -> None:
        self._item, self._what = item, what

    def write(self, value: tuple[T, ...], out: bytearray) -> None:
        """Append count and items."""
        out += struct.pack("<I", len(value))
        for item in value:
            self._item.write(item, out)

    def read(self, reader: Reader) -> tuple[T, ...]:
        """Return the items."""
        return tuple([self._item.read(reader) for _ in range(reader.count(f"number of {self._what}"))])

    def to_json(self, value: tuple[T, ...]) -> Any:
        """Return a list."""
        return [self._item.to_json(item) for item in value]

    def from_json(self, document: Any, path: str) -> tuple[T, ...]:
        """Return the items of a list."""
        if type(document) is not list:
            raise _misfit(document, path, f"a list of {self._what}")
        return tuple([self._item.from_json(item, f"{path}[{i}]") for i, item in enumerate(document)])


class Optional(Shape[T | None]):
    """A value or nothing: tag 0 is a value."""

    def __init__(self, inner: Shape[T]) -> None:
        self._inner = inner

    def write(self, value: T | None, out: bytearray) -> None:
        """Append tag and value."""
        if value is None:
            out.append(1)
        else:
            out.append(0)
            self._inner.write(value, out)

    def read(self, reader: Reader) -> T | None:
        """Return the value or None."""
        return None if reader.tag(2, "option") else self._inner.read(reader)

    def to_json(self, value: T | None) -> Any:
        """Return `{"some": …}` or `{"none": []}`."""
        return {"none": []} if value is None else {"some": self._inner.to_json(value)}

    def from_json(self, document: Any, path: str) -> T | None:
        """Return the value or None."""
        match document:
            case {"some": inner} if len(document) == 1:
                return self._inner.from_json(inner, f"{path}.some")
            case {"none": []} if len(document) == 1:
                return None
        raise _misfit(document, path, 'an option, {"some": …} or {"none": []}')


class Record(Shape[T]):
    """Named fields one after another, made into a `T` and taken apart by two functions."""

    def __init__(
        self, fields: Sequence[tuple[str, Shape[Any]]], join: Callable[..., T], split: Callable[[T], Sequence[Any]]
    ) -> None:
        self._fields = tuple(fields)
        self._join, self._split = join, split

    def write(self, value: T, out: bytearray) -> None:
        """Append the fields in order."""
        for (_, shape), part in zip(self._fields, self._split(value), strict=True):
            shape.write(part, out)

    def read(self, reader: Reader) -> T:
        """Return the value of the next fields."""
        return self._join(*[shape.read(reader) for _, shape in self._fields])

    def to_json(self, value: T) -> Any:
        """Return an object with a member a field."""
        parts = zip(self._fields, self._split(value), strict=True)
        return {name: shape.to_json(part) for (name, shape), part in parts}

    def from_json(self, document: Any, path: str) -> T:
        """Return the value of an object that has exactly the fields."""
        if type(document) is not dict:
            raise _misfit(document, path, "an object")
        names = {name for name, _ in self._fields}
        if document.keys() != names:
            odd = sorted(names ^ document.keys())
            raise DecodeError(f"{path}: missing or unknown members {', '.join(map(repr, odd))}")
        return self._join(*[shape.from_json(document[name], f"{path}.{name}") for name, shape in self._fields])


def record(cls: Callable[..., T], /, **fields: tuple[str, Shape[Any]]) -> Record[T]:
    """Return the shape of a dataclass: each keyword is an attribute, with its name in JSON and its shape."""

    def join(*parts: Any) -> T:
        return cls(**dict(zip(fields, parts, strict=True)))

    return Record(tuple(fields.values()), join, lambda value: [getattr(value, attribute) for attribute in fields])


class Case(Generic[T]):
    """One variant of a `Union`: its name in JSON, the class of its values, their shape."""

    __slots__ = ("cls", "name", "shape")

    def __init__(self, name: str, cls: type, shape: Shape[T]) -> None:
        self.name, self.cls, self.shape = name, cls, shape


class Union(Shape[T]):
    """One of several variants, told by the class of the value."""

    def __init__(self, what: str, cases: Sequence[Case[Any]]) -> None:
        self._what, self._cases = what, tuple(cases)

    def _tag(self, value: T) -> int:
        return next(tag for tag, case in enumerate(self._cases) if isinstance(value, case.cls))

    def write(self, value: T, out: bytearray) -> None:
        """Append tag and payload."""
        tag = self._tag(value)
        out.append(tag)
        self._cases[tag].shape.write(value, out)

    def read(self, reader: Reader) -> T:
        """Return the payload."""
        value: T = self._cases[reader.tag(len(self._cases), self._what)].shape.read(reader)
        return value

    def to_json(self, value: T) -> Any:
        """Return an object with the variant's name as its only member."""
        case = self._cases[self._tag(value)]
        return {case.name: case.shape.to_json(value)}

    def from_json(self, document: Any, path: str) -> T:
        """Return the payload of the variant named."""
        name, payload = member(document, path, [case.name for case in self._cases])
        value: T = next(case for case in self._cases if case.name == name).shape.from_json(payload, f"{path}.{name}")
        return value


def member(document: Any, path: str, names: Sequence[str]) -> tuple[str, Any]:
    """Return name and payload of an object that has one member, one of `names`."""
    if type(document) is dict and len(document) == 1:
        name, payload = next(iter(document.items()))
        if name in names:
            return name, payload
        raise DecodeError(f"{path}: unknown variant `{name}`, expected one of {', '.join(names)}")
    raise _misfit(document, path, f"an object with one member, one of {', '.join(names)}")


class TagOnly(Shape[T]):
    """Variants without payload: `choices` are (name in JSON, value) in the order of their tags."""

    def __init__(self, what: str, choices: Sequence[tuple[str, T]]) -> None:
        self._what, self._choices = what, tuple(choices)

    def _tag(self, value: T) -> int:
        return next(tag for tag, (_, choice) in enumerate(self._choices) if choice == value)

    def write(self, value: T, out: bytearray) -> None:
        """Append the tag."""
        out.append(self._tag(value))

    def read(self, reader: Reader) -> T:
        """Return the choice."""
        return self._choices[reader.tag(len(self._choices), self._what)][1]

    def to_json(self, value: T) -> Any:
        """Return `{"Name": []}`."""
        return {self._choices[self._tag(value)][0]: []}

    def from_json(self, document: Any, path: str) -> T:
        """Return the choice of that name."""
        name, payload = member(document, path, [name for name, _ in self._choices])
        if payload not in ([], {}):
            raise _misfit(payload, f"{path}.{name}", "an empty list")
        return dict(self._choices)[name]


class Constant(Shape[T]):
    """A payload of no bytes that stands for one value."""

    def __init__(self, value: T) -> None:
        self._value = value

    def write(self, value: T, out: bytearray) -> None:
        """Append nothing."""

    def read(self, reader: Reader) -> T:
        """Return the value."""
        return self._value

    def to_json(self, value: T) -> Any:
        """Return an empty list."""
        return []

    def from_json(self, document: Any, path: str) -> T:
        """Return the value for an empty list."""
        if document != []:
            raise _misfit(document, path, "an empty list")
        return self._value


U8 = _Integer(1)
U16 = _Integer(2)
U32 = _Integer(4)
I128 = _Integer(16, signed=True)
BOOL = _Bool()
STRING = _String()
BYTES = _Bytes()
TYPE = _Type(MODERN)


def type_shape(profile: Profile) -> Shape[AlgebraicType]:
    """Return the shape of a type as another generation writes it."""
    return _Type(profile)


def product_shape(type_: Shape[AlgebraicType]) -> Shape[Product]:
    """Return the shape of a product without its tag, `type_` being that of its elements."""
    element = record(Element, name=("name", Optional(STRING)), type=("algebraic_type", type_))
    return Record([("elements", ListOf(element, "elements"))], Product, lambda product: (product.elements,))


PRODUCT = product_shape(TYPE)
