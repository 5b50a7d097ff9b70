"""Reading values out of JSON documents: one closure a type.

Responsible for: what spec 01 sections 7.1 and 7.3 accept, and a path to what they do not.
Not responsible for: parsing text (`json`).

A reader raises Mismatch; every array, object and sum on the way out adds its step to the path.
"""

import re
from binascii import unhexlify
from collections.abc import Callable
from typing import Any, NoReturn

from stdb.sats.json_numbers import MINUS_ZERO, round_to_f32
from stdb.sats.keys import value_key
from stdb.sats.keys_order import ordered_pairs
from stdb.sats.profiles import OLD_ADDRESS, OLD_IDENTITY, Profile
from stdb.sats.types import (
    BYTES,
    CONNECTION_ID,
    I64,
    IDENTITY,
    SCHEDULE_AT,
    TIME_DURATION,
    TIMESTAMP,
    UUID,
    AlgebraicType,
    Array,
    Map,
    Product,
    Ref,
    Scalar,
    ScalarKind,
    Sum,
    Typespace,
    option_inner,
)
from stdb.sats.typespace import resolve

__all__ = ["Mismatch", "Reader", "reader"]

Reader = Callable[[Any], Any]
_WIDE_HEX = re.compile(r"([+-]?)0x([0-9a-fA-F]+)\Z")
_DECIMAL = re.compile(r"-?[0-9]{1,80}\Z")
_FLOAT = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?")
_TAG = re.compile(r"\+?0*([0-9]{1,3})\Z", re.ASCII)
_MICROS_MAX = (1 << 63) - 1


class Mismatch(Exception):  # noqa: N818 - never leaves this package
    """A document that stands for no value of the type; `steps` lead to it, the innermost first."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        self.steps: list[str] = []


def reader(type_: AlgebraicType, typespace: Typespace, profile: Profile) -> Reader:
    """Return the function from a document to a plain value of `type_`."""
    return _Readers(typespace, profile).of(type_)


def _refuse(document: Any, expected: str) -> NoReturn:
    raise Mismatch(f"{_described(document)}, expected {expected}")


def _described(document: Any) -> str:
    match document:
        case None:
            return "null"
        case bool():
            return f"boolean `{str(document).lower()}`"
        case int():
            return f"integer `{document}`"
        case float():
            return f"floating point `{float(document)!r}`"
        case str():
            return f'string "{document:.60}"'
        case list() | tuple():
            return "sequence"
    return "map"


class _Readers:
    """Makes readers of the types of one typespace; recursive types find their own."""

    def __init__(self, typespace: Typespace, profile: Profile) -> None:
        self.typespace = typespace
        self.profile = profile
        self.refs: dict[int, list[Reader]] = {}

    def of(self, type_: AlgebraicType) -> Reader:
        match type_:
            case Ref():
                return self._ref(type_)
            case Scalar(kind):
                return _scalar(kind)
            case Product():
                return self._special(type_) or self._product(type_)
            case Sum():
                return self._option(type_) if option_inner(type_) is not None else self._sum(type_)
            case Array(element):
                return _read_bytes if type_ == BYTES else _array(self.of(element))
            case Map(key, value):
                return self._map(key, value)

    def _ref(self, type_: Ref) -> Reader:
        if type_.index in self.refs:
            cell = self.refs[type_.index]
            return cell[0] if cell else lambda document: cell[0](document)
        self.refs[type_.index] = cell = []
        cell.append(self.of(resolve(type_, self.typespace)))
        return cell[0]

    def _special(self, type_: Product) -> Reader | None:
        if self.profile.is_legacy:
            if type_ in (IDENTITY, OLD_IDENTITY):
                return _old_bytes("__identity_bytes", 32)
            if type_ in (CONNECTION_ID, OLD_ADDRESS):
                return _old_bytes("__address_bytes", 16)
            if type_ in (TIMESTAMP, TIME_DURATION):
                return _integer("u64", 0, _MICROS_MAX)
        elif type_ in (TIMESTAMP, TIME_DURATION):
            return _single(type_.elements[0].name or "", self.of(I64))
        if type_ in (IDENTITY, CONNECTION_ID, UUID):
            size = 32 if type_ == IDENTITY else 16
            whole = _single(type_.elements[0].name or "", self.of(type_.elements[0].type))
            return lambda document: whole(document).to_bytes(size, "little")
        return None

    def _product(self, type_: Product) -> Reader:
        parts = [self.of(element.type) for element in type_.elements]
        names = [element.name for element in type_.elements]
        return _product(names, parts)

    def _sum(self, type_: Sum) -> Reader:
        is_swapped = type_ == SCHEDULE_AT and self.profile.schedule_is_swapped
        parts = [self.of(variant.type) for variant in type_.variants]
        names = [variant.name for variant in type_.variants]
        numbers = list(range(len(parts)))
        which = _variant_of(names, numbers[::-1] if is_swapped else numbers, not self.profile.sum_is_object)

        def read(document: Any) -> tuple[int, Any]:
            tag, payload = which(document)
            try:
                return tag, parts[tag](payload)
            except Mismatch as error:
                error.steps.append(f".{names[tag] or tag}")
                raise

        return read

    def _option(self, type_: Sum) -> Reader:
        whole = self._sum(type_)
        takes_empty = self.profile.sum_is_object
        inner = option_inner(type_)
        assert inner is not None
        is_wrapped = option_inner(resolve(inner, self.typespace)) is not None

        def read(document: Any) -> Any:
            if document is None or (takes_empty and document == {}):
                return None
            tag, payload = whole(document)
            if tag:
                return None
            return (payload,) if is_wrapped else payload

        return read

    def _map(self, key: AlgebraicType, value: AlgebraicType) -> Reader:
        """Read an object, whose names are keys, or an array of pairs, which says keys of any type."""
        key_of, value_of, order = _map_key(key), self.of(value), value_key(key, self.typespace)
        pair_of = _array(_pair(self.of(key), value_of))

        def read(document: Any) -> list[tuple[Any, Any]]:
            if type(document) is list:
                return ordered_pairs(pair_of(document), order)
            if type(document) is not dict:
                _refuse(document, "a map")
            pairs = []
            for name, item in document.items():
                try:
                    pairs.append((key_of(name), value_of(item)))
                except Mismatch as error:
                    error.steps.append(f".{name}")
                    raise
            return ordered_pairs(pairs, order)

        return read


def _scalar(kind: ScalarKind) -> Reader:
    match kind:
        case ScalarKind.BOOL:
            return _read_bool
        case ScalarKind.STRING:
            return _read_string
        case ScalarKind.F32:
            return _read_f32
        case ScalarKind.F64:
            return _read_f64
    bits = int(kind.value[1:])
    is_signed = kind.value.startswith("I")
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if is_signed else (0, (1 << bits) - 1)
    make = {128: _wide_integer, 256: _hex_integer}.get(bits, _integer)
    return make(kind.value.lower(), low, high)


def _read_bool(document: Any) -> bool:
    if type(document) is not bool:
        _refuse(document, "a boolean")
    return document


def _read_string(document: Any) -> str:
    if type(document) is not str:
        _refuse(document, "a string")
    return document


def _read_f64(document: Any) -> float:
    if type(document) is float:
        return document
    if type(document) is int or document is MINUS_ZERO:
        return float(document)
    _refuse(document, "f64")


def _read_f32(document: Any) -> float:
    if type(document) is float or type(document) is int or document is MINUS_ZERO:
        return round_to_f32(float(document))
    _refuse(document, "f32")


def _read_bytes(document: Any) -> bytes:
    try:
        if type(document) is str:
            return unhexlify(document)
        if type(document) is list and all(type(item) is int for item in document):
            return bytes(document)
    except ValueError:
        pass
    if type(document) is list:
        for i, item in enumerate(document):
            if type(item) is not int or not 0 <= item <= 255:
                mismatch = Mismatch(f"{_described(item)}, expected u8")
                mismatch.steps.append(f"[{i}]")
                raise mismatch
    _refuse(document, "a byte array or hex string")


def _integer(name: str, low: int, high: int) -> Reader:
    def read(document: Any) -> int:
        if type(document) is not int or not low <= document <= high:
            _refuse(document, name)
        return document

    return read


def _wide_integer(name: str, low: int, high: int) -> Reader:
    narrow = _integer(name, low, high)
    return lambda document: 0 if document is MINUS_ZERO else narrow(document)


def _hex_integer(name: str, low: int, high: int) -> Reader:
    def read(document: Any) -> int:
        if type(document) is not str:
            _refuse(document, "a formatted 256-bit integer")
        found = _WIDE_HEX.match(document)
        if found is None or (found[1] == "-" and low == 0):
            _refuse(document, f"{name} as hex digits after 0x")
        number = int(found[2], 16)
        number = -number if found[1] == "-" else number
        if not low <= number <= high:
            _refuse(document, name)
        return number

    return read


def _array(each: Reader) -> Reader:
    def read(document: Any) -> list[Any]:
        if type(document) is not list:
            _refuse(document, "a vec")
        values: list[Any] = []
        try:
            for item in document:
                values.append(each(item))
        except Mismatch as error:
            error.steps.append(f"[{len(values)}]")
            raise
        return values

    return read


def _product(names: list[str | None], parts: list[Reader]) -> Reader:
    pairs = list(zip(names, parts, strict=True))

    def read(document: Any) -> tuple[Any, ...]:
        values: list[Any] = []
        if type(document) is dict:
            _check_fields(document, names)
            documents = [document[name] for name in names]
        elif type(document) is list:
            if len(document) != len(parts):
                raise Mismatch(f"invalid length {len(document)}, expected {len(parts)} elements")
            documents = document
        else:
            _refuse(document, f"a {len(parts)}-element tuple")
        try:
            for (_, part), item in zip(pairs, documents, strict=True):
                values.append(part(item))
        except Mismatch as error:
            place = len(values)
            error.steps.append(f".{names[place]}" if type(document) is dict else f"[{place}]")
            raise
        return tuple(values)

    return read


def _check_fields(document: dict[str, Any], names: list[str | None]) -> None:
    if len(document) == len(names) and all(name in document for name in names):
        return
    for name in document:
        if name not in names:
            known = ", ".join(f"`{known}`" for known in names if known is not None)
            raise Mismatch(f"unknown field `{name:.60}`, expected {known or 'none'}")
    for place, wanted in enumerate(names):
        if wanted is None:
            raise Mismatch(f"element {place} has no name: only an array can give it")
        if wanted not in document:
            raise Mismatch(f"missing field `{wanted}`")


def _single(name: str, part: Reader) -> Reader:
    """Read a product of one element without the tuple."""
    whole = _product([name], [part])
    return lambda document: whole(document)[0]


def _old_bytes(name: str, size: int) -> Reader:
    """Read an Identity or Address of 0.11; a bare string is taken too (spec 03 section 5)."""
    whole = _single(name, _read_bytes)

    def read(document: Any) -> bytes:
        data: bytes = _read_bytes(document) if type(document) is str else whole(document)
        if len(data) != size:
            raise Mismatch(f"{len(data)} bytes, expected {size}")
        return data[::-1]

    return read


def _variant_of(names: list[str | None], numbers: list[int], takes_pairs: bool) -> Callable[[Any], tuple[int, Any]]:
    """Return the function from a document to (tag, payload); `numbers` maps a written tag to the tag."""
    by_name = {name: tag for tag, name in reversed(list(enumerate(names)))}
    known = ", ".join(f"`{name}`" for name in names if name is not None)

    def by_key(key: str) -> int:
        found = _TAG.match(key)
        if found and int(found[1]) <= 255:
            return by_number(int(found[1]))
        if key not in by_name:
            raise Mismatch(f"unknown variant `{key:.60}`, expected {known or 'a tag'}")
        return by_name[key]

    def by_number(number: int) -> int:
        if number >= len(numbers):
            raise Mismatch(f"unknown tag {number:#x} for sum type <unknown>")
        return numbers[number]

    def read(document: Any) -> tuple[int, Any]:
        if type(document) is dict:
            if len(document) != 1:
                raise Mismatch("expected map representing sum type to have exactly one field")
            ((key, payload),) = document.items()
            return by_key(key), payload
        if type(document) is not list or not takes_pairs:
            _refuse(document, "sum type")
        if len(document) != 2:
            raise Mismatch("expected seq representing sum type to have exactly two fields")
        key, payload = document
        if type(key) is str:
            return by_key(key), payload
        if type(key) is not int or not 0 <= key <= 255:
            _refuse(key, "a tag or the name of a variant")
        return by_number(key), payload

    return read


def _pair(key_of: Reader, value_of: Reader) -> Reader:
    def read(document: Any) -> tuple[Any, Any]:
        if type(document) is not list or len(document) != 2:
            _refuse(document, "a pair of key and value")
        return key_of(document[0]), value_of(document[1])

    return read


def _number(text: str) -> Any:
    """Return the number that a name spells; what spells none as it is."""
    return float(text) if _FLOAT.fullmatch(text) else text


def _map_key(type_: AlgebraicType) -> Reader:
    if type_ == Scalar(ScalarKind.STRING):
        return _read_string
    if not isinstance(type_, Scalar):
        return lambda document: _refuse(document, "a map as an array of pairs")
    whole = _scalar(type_.kind)
    if type_.kind is ScalarKind.BOOL:
        return lambda document: whole({"true": True, "false": False}.get(document, document))
    if type_.kind in (ScalarKind.F32, ScalarKind.F64):
        return lambda document: whole(_number(document))
    if type_.kind in (ScalarKind.I256, ScalarKind.U256):
        return whole

    def read(document: str) -> int:
        if not _DECIMAL.match(document):
            _refuse(document, type_.kind.value.lower())
        number: int = whole(int(document))
        return number

    return read
