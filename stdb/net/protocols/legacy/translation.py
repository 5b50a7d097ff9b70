"""Translation: rows and arguments of a module of today in the types of clients of 0.11 and older, and back.

Responsible for: BSATN to BSATN both ways (nothing is touched where no type differs), rows and arguments as JSON,
arguments from JSON.
Not responsible for: which types they have (`stdb.schema.legacy`), the codecs (`stdb.sats`, profile V0_11), messages.

Source: spec 03 sections 1, 3.4, 3.5 and 13. Everything is made once per type. A row passes through three hands at most:
its BSATN of today, the BSATN that those clients have of it, the JSON of that.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from stdb.errors import DecodeError
from stdb.sats import bsatn, json
from stdb.sats.caches import by_identity
from stdb.sats.profiles import MODERN, OLD_ADDRESS, OLD_IDENTITY, V0_11
from stdb.sats.types import (
    BOOL,
    BYTES,
    CONNECTION_ID,
    I256,
    IDENTITY,
    SCHEDULE_AT,
    TIME_DURATION,
    TIMESTAMP,
    U256,
    UUID,
    AlgebraicType,
    Array,
    Element,
    Map,
    Product,
    Ref,
    Sum,
    Typespace,
    option_inner,
)
from stdb.sats.typespace import children, reachable_refs, resolve
from stdb.schema.legacy import legacy_type

__all__ = ["ArgumentForms", "RowForms", "argument_forms", "identity_hex", "row_forms"]

_Bytes: TypeAlias = Callable[[bytes], bytes]
_Value: TypeAlias = Callable[[Any], Any]
_KNOWN = (IDENTITY, CONNECTION_ID, TIMESTAMP, TIME_DURATION, SCHEDULE_AT, UUID)
"""What the codecs of both generations write each in its own way."""
_COUNTED = Product((Element(None, BYTES),))
"""Laid out as the identities and addresses of 0.11 are; read without a look at what is inside."""


class RowForms(NamedTuple):
    """What a row of one table is for those clients."""

    to_old: _Bytes | None
    """BSATN of today to theirs; None where it is the same bytes."""
    positional: Callable[[bytes], str]
    """Their BSATN to JSON without names."""
    named: Callable[[bytes], str]
    """The same to JSON with the names of columns, as 0.11 writes rows that it reads from a table."""


class ArgumentForms(NamedTuple):
    """What the arguments of one reducer are for those clients."""

    to_old: _Bytes
    """BSATN of today to theirs."""
    from_old: _Bytes
    """Their BSATN to that of today. Raises DecodeError."""
    from_json: Callable[[str], bytes]
    """Their JSON, an array or an object by name, to BSATN of today. Raises DecodeError."""
    positional: Callable[[bytes], str]
    """BSATN of today to JSON without names."""


def identity_hex(identity: bytes) -> str:
    """Return an identity or address, little-endian as everywhere here, as those clients write it."""
    return identity[::-1].hex()


@by_identity
def row_forms(row_type: Product) -> RowForms:
    """Return the forms of the rows of a table; Refs are filled in."""
    old = legacy_type(row_type)
    to_old = _translator(row_type, Typespace.EMPTY, is_back=False) if old != row_type else None
    decode = bsatn.codec(old, Typespace.EMPTY, V0_11).decode_exact
    return RowForms(to_old, *(_writer(decode, old, Typespace.EMPTY, form) for form in ("positional", "row")))


@by_identity
def argument_forms(params: Product, typespace: Typespace) -> ArgumentForms:
    """Return the forms of the arguments of a reducer."""
    old, old_types = legacy_type(params), Typespace(tuple(map(legacy_type, typespace.types)))
    reached = [params, *(typespace.types[index] for index in reachable_refs(params, typespace))]
    differs = any(legacy_type(each) != each for each in reached)
    to_old = _translator(params, typespace, is_back=False) if differs else _same
    from_old = _translator(params, typespace, is_back=True) if differs or any(map(_has_bool, reached)) else _same
    codec = bsatn.codec(old, old_types, V0_11)
    write = _writer(lambda data: codec.decode(to_old(data))[0], old, old_types, "positional")
    read = json.decoder(old, typespace=old_types, profile=V0_11)
    return ArgumentForms(to_old, from_old, lambda text: from_old(codec.encode(read(json.parse(text)))), write)


def _writer(
    decode: Callable[[bytes], Any], old: AlgebraicType, typespace: Typespace, form: str
) -> Callable[[bytes], str]:
    write = json.encoder(old, form, typespace=typespace, profile=V0_11)
    return lambda data: write(decode(data))


def _translator(type_: AlgebraicType, typespace: Typespace, *, is_back: bool) -> _Bytes:
    """Return the function from BSATN of one generation to the other's; what follows the value stays behind it."""
    ours, theirs = _Rewriting(_COUNTED, None), _Rewriting(_COUNTED, BYTES)
    modern = bsatn.codec(ours.of(type_), ours.typespace(typespace), MODERN)
    old = bsatn.codec(theirs.of(type_), theirs.typespace(typespace), V0_11)
    mapped = _Mapping(typespace, is_back).of(type_)
    source, target = (old, modern) if is_back else (modern, old)
    decode, encode = source.decode, target.encode

    def translate(data: bytes) -> bytes:
        value, end = decode(data)
        translated: bytes = encode(value if mapped is None else mapped(value))
        return translated if end == len(data) else translated + data[end:]

    return translate


def _same(data: bytes) -> bytes:
    return data


def _has_bool(type_: AlgebraicType) -> bool:
    return type_ == BOOL or any(map(_has_bool, children(type_)))


class _Rewriting:
    """Types in which the codecs of both generations have the same values in memory but for 256-bit integers."""

    def __init__(self, counted: Product, wide: AlgebraicType | None) -> None:
        self._counted = counted
        self._wide = wide

    def typespace(self, typespace: Typespace) -> Typespace:
        return Typespace(tuple(map(self.of, typespace.types)))

    def of(self, type_: AlgebraicType) -> AlgebraicType:
        if type_ in (OLD_IDENTITY, OLD_ADDRESS):
            return self._counted
        if type_ in (U256, I256):
            return self._wide or type_
        if type_ in _KNOWN:
            return type_
        match type_:
            case Product(elements):
                return Product(tuple(Element(each.name, self.of(each.type)) for each in elements))
            case Sum(variants):
                return Sum(tuple(Element(each.name, self.of(each.type)) for each in variants))
            case Array(element):
                return Array(self.of(element))
            case Map(key, value):
                return Map(self.of(key), self.of(value))
        return type_


class _Mapping:
    """Functions from values of one generation to the other's; None for a type whose values are the same."""

    def __init__(self, typespace: Typespace, is_back: bool) -> None:
        self._typespace = typespace
        self._is_back = is_back
        self._refs: dict[int, _Value] = {}

    def of(self, type_: AlgebraicType) -> _Value | None:
        if not self._has_wide(type_, set()):
            return None
        match type_:
            case Ref(index):
                return self._ref(index)
            case Product(elements):
                return partial(_map_tuple, [self.of(each.type) for each in elements])
            case Sum(variants):
                return self._sum(type_, [self.of(each.type) for each in variants])
            case Array(element):
                return partial(_map_list, self.of(element))
            case Map(key, value):
                return partial(_map_list, partial(_map_tuple, [self.of(key), self.of(value)]))
        signed = type_ == I256
        return partial(_wide_from_bytes, signed) if self._is_back else partial(_wide_to_bytes, signed)

    def _ref(self, index: int) -> _Value:
        if index not in self._refs:
            cell: list[_Value | None] = []
            self._refs[index] = lambda value: _apply(cell[0], value)
            cell.append(self.of(resolve(Ref(index), self._typespace)))
        return self._refs[index]

    def _sum(self, type_: Sum, parts: list[_Value | None]) -> _Value:
        inner = option_inner(type_)
        if inner is None:
            return lambda value: (value[0], _apply(parts[value[0]], value[1]))
        if option_inner(resolve(inner, self._typespace)) is not None:
            return lambda value: None if value is None else (_apply(parts[0], value[0]),)
        return lambda value: None if value is None else _apply(parts[0], value)

    def _has_wide(self, type_: AlgebraicType, seen: set[int]) -> bool:
        if isinstance(type_, Ref):
            if type_.index in seen:
                return False
            seen.add(type_.index)
            return self._has_wide(self._typespace.types[type_.index], seen)
        if type_ in (U256, I256):
            return True
        if type_ in _KNOWN:
            return False
        return any(self._has_wide(each, seen) for each in children(type_))


def _apply(part: _Value | None, value: Any) -> Any:
    return value if part is None else part(value)


def _map_tuple(parts: list[_Value | None], value: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(each if part is None else part(each) for part, each in zip(parts, value, strict=True))


def _map_list(part: _Value | None, value: list[Any]) -> list[Any]:
    return [_apply(part, each) for each in value]


def _wide_to_bytes(is_signed: bool, value: int) -> bytes:
    return value.to_bytes(32, "little", signed=is_signed)


def _wide_from_bytes(is_signed: bool, value: bytes) -> int:
    if len(value) != 32:
        raise DecodeError(f"expected an array of 32 bytes, given {len(value)}")
    return int.from_bytes(value, "little", signed=is_signed)
