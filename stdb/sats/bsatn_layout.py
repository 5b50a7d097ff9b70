"""Layouts: what a type looks like on the wire, reduced to the few shapes that code is generated for.

Responsible for: turning a type, its typespace and a profile into a tree of layouts; sizes; which Refs are functions.
Not responsible for: the generated source (`bsatn_decoder`, `bsatn_encoder`), error texts (`bsatn_plain`).

A Ref becomes a `Call` when its type is recursive or large, else the layout of what it points at. `shape` says which
Python object stands for the value (`objects`); None means the plain value.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

from stdb.errors import SchemaError
from stdb.sats.objects import Converted, EnumShape, ListShape, ObjectShape, OptionShape, Shape, UnionShape
from stdb.sats.profiles import OLD_ADDRESS, OLD_IDENTITY, Profile
from stdb.sats.types import (
    BYTES,
    CONNECTION_ID,
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
from stdb.sats.typespace import TYPE_DEPTH_MAX, recursive_refs, resolve

__all__ = [
    "NO_FINITE_VALUE",
    "SCALAR_FORMATS",
    "Bytes",
    "Call",
    "Choice",
    "Fixed",
    "FixedKind",
    "Layout",
    "Layouts",
    "List",
    "Pairs",
    "Text",
    "Tuple",
    "fixed_size",
    "is_plain_enum",
    "min_size",
]

SCALAR_FORMATS = {
    ScalarKind.I8: ("b", 1),
    ScalarKind.U8: ("B", 1),
    ScalarKind.I16: ("h", 2),
    ScalarKind.U16: ("H", 2),
    ScalarKind.I32: ("i", 4),
    ScalarKind.U32: ("I", 4),
    ScalarKind.I64: ("q", 8),
    ScalarKind.U64: ("Q", 8),
    ScalarKind.F32: ("f", 4),
    ScalarKind.F64: ("d", 8),
}
_BIG = {
    ScalarKind.I128: (16, True),
    ScalarKind.U128: (16, False),
    ScalarKind.I256: (32, True),
    ScalarKind.U256: (32, False),
}
_INLINE_WEIGHT_MAX = 64
NO_FINITE_VALUE = 1 << 40
"""The least size of a type whose every value would contain another of its kind."""


class FixedKind:
    """How the bytes of a fixed-size field become its value."""

    NUMBER, FLOAT, BOOL, ENUM, SIGNED, UNSIGNED, RAW, PREFIXED, MICROS = range(9)


@dataclass(slots=True)
class Fixed:
    """A field of fixed size; `format` is its letter in `struct`."""

    kind: int
    format: str
    size: int
    variants: int = 0
    """ENUM: how many variants the sum has."""
    shape: Shape | None = None


@dataclass(slots=True)
class Text:
    """A String."""

    shape: Shape | None = None


@dataclass(slots=True)
class Bytes:
    """An Array of U8."""

    shape: Shape | None = None


@dataclass(slots=True)
class Tuple:
    """A product that is not special."""

    parts: "list[Layout]"
    shape: Shape | None = None


@dataclass(slots=True)
class Choice:
    """A sum with a payload. `tags[i]` is the value's tag for the wire tag i."""

    parts: "list[Layout]"
    tags: list[int]
    is_option: bool = False
    is_wrapped: bool = False
    """An option whose content is an option: `some` is the 1-tuple of its content."""
    shape: Shape | None = None


@dataclass(slots=True)
class List:
    """An array of anything but U8."""

    part: "Layout"
    shape: Shape | None = None


@dataclass(slots=True)
class Pairs:
    """A map."""

    key: "Layout"
    value: "Layout"
    key_type: AlgebraicType
    shape: Shape | None = None


@dataclass(slots=True)
class Call:
    """What the Ref at `index` points at, through a function of its own."""

    index: int
    is_recursive: bool
    shape: Shape | None = None


Layout: TypeAlias = Fixed | Text | Bytes | Tuple | Choice | List | Pairs | Call


def is_plain_enum(type_: Sum) -> bool:
    """Tell whether no variant carries anything."""
    return all(variant.type == Product(()) for variant in type_.variants)


@dataclass(slots=True)
class Layouts:
    """Makes layouts of types in one typespace and profile.

    Raises (from `of`):
        SchemaError: A Ref leads nowhere, the type is too deep, or a sum has more than 256 variants.
    """

    typespace: Typespace
    profile: Profile
    recursive: frozenset[int] = frozenset()
    refs: dict[int, Layout] = field(default_factory=dict)
    """Layouts of what Refs point at; filled by `of` and `ref`."""
    weights: dict[int, int] = field(default_factory=dict)
    fixed_sizes: dict[int, int | None] = field(default_factory=dict)
    min_sizes: dict[int, int] = field(default_factory=dict)

    def of(self, type_: AlgebraicType, shape: Shape | None = None) -> Layout:
        """Return the layout of `type_`."""
        self.recursive = self.recursive | recursive_refs(self.typespace, type_)
        return self._layout(type_, shape, 0)

    def ref(self, index: int) -> Layout:
        """Return the layout of the type at `index`, as the body of its function."""
        if index not in self.refs:
            self.refs[index] = self._layout(resolve(self.typespace.types[index], self.typespace), None, 0)
        return self.refs[index]

    def _layout(self, type_: AlgebraicType, shape: Shape | None, depth: int) -> Layout:
        if depth > TYPE_DEPTH_MAX:
            raise SchemaError([f"a type is nested more than {TYPE_DEPTH_MAX} levels deep"])
        if isinstance(type_, Ref):
            target = resolve(type_, self.typespace)
            if shape is None and type_.index in self.recursive:
                return Call(type_.index, True)
            if type_.index in self.recursive:
                raise SchemaError([f"recursive type ref &{type_.index}: a recursive type has no object of its own"])
            if shape is None and self._weight(type_.index) > _INLINE_WEIGHT_MAX:
                return Call(type_.index, False)
            return self._layout(target, shape, depth)
        match type_:
            case Scalar(kind):
                return _scalar(kind, shape, self.profile)
            case Product():
                return _special(type_, shape, self.profile) or self._tuple(type_, shape, depth)
            case Sum():
                return self._sum(type_, shape, depth)
            case Array():
                if type_ == BYTES:
                    return Bytes(shape)
                inner = shape.inner if isinstance(shape, ListShape) else None
                return List(self._layout(type_.element, inner, depth + 1), shape)
            case Map(key, value):
                return Pairs(self._layout(key, None, depth + 1), self._layout(value, None, depth + 1), key, shape)

    def _tuple(self, type_: Product, shape: Shape | None, depth: int) -> Layout:
        shapes = shape.shapes if isinstance(shape, ObjectShape) else (None,) * len(type_.elements)
        parts = [
            self._layout(element.type, part, depth + 1) for element, part in zip(type_.elements, shapes, strict=True)
        ]
        return Tuple(parts, shape)

    def _sum(self, type_: Sum, shape: Shape | None, depth: int) -> Layout:
        if len(type_.variants) > 256:
            raise SchemaError([f"a sum has {len(type_.variants)} variants; a tag tells at most 256 apart"])
        inner = option_inner(type_)
        is_enum = isinstance(shape, EnumShape) or ((shape is None or isinstance(shape, Converted)) and inner is None)
        if is_plain_enum(type_) and is_enum:
            return Fixed(FixedKind.ENUM, "B", 1, len(type_.variants), shape)
        tags = list(range(len(type_.variants)))
        if isinstance(shape, UnionShape):
            shapes = shape.shapes
        elif isinstance(shape, OptionShape):
            shapes = (shape.inner, None)
        else:
            shapes = (None,) * len(tags)
        parts = [
            self._layout(variant.type, part, depth + 1) for variant, part in zip(type_.variants, shapes, strict=True)
        ]
        if type_ == SCHEDULE_AT and self.profile.schedule_is_swapped:
            return Choice(parts[::-1], tags[::-1], shape=shape)
        is_wrapped = inner is not None and option_inner(resolve(inner, self.typespace)) is not None
        return Choice(parts, tags, inner is not None, is_wrapped, shape)

    def _weight(self, index: int) -> int:
        """Count the parts of a type that is not recursive; large types are shared instead of repeated."""
        if index not in self.weights:
            self.weights[index] = self._type_weight(resolve(self.typespace.types[index], self.typespace))
        return self.weights[index]

    def _type_weight(self, type_: AlgebraicType) -> int:
        match type_:
            case Ref(index):
                if index in self.recursive:
                    return 1
                return min(self._weight(index), _INLINE_WEIGHT_MAX + 1)
            case Product(elements) | Sum(elements):
                return 1 + sum(self._type_weight(element.type) for element in elements)
            case Array(element_type):
                return 1 + self._type_weight(element_type)
            case Map(key, value):
                return 1 + self._type_weight(key) + self._type_weight(value)
        return 1


def _scalar(kind: ScalarKind, shape: Shape | None, profile: Profile) -> Layout:
    if kind is ScalarKind.STRING:
        return Text(shape)
    if kind is ScalarKind.BOOL:
        return Fixed(FixedKind.BOOL, "?" if profile.is_legacy else "B", 1, shape=shape)
    if kind in _BIG:
        size, is_signed = _BIG[kind]
        return Fixed(FixedKind.SIGNED if is_signed else FixedKind.UNSIGNED, f"{size}s", size, shape=shape)
    letter, size = SCALAR_FORMATS[kind]
    is_float = kind in (ScalarKind.F32, ScalarKind.F64)
    return Fixed(FixedKind.FLOAT if is_float else FixedKind.NUMBER, letter, size, shape=shape)


def _special(type_: Product, shape: Shape | None, profile: Profile) -> Layout | None:
    if type_ in (TIMESTAMP, TIME_DURATION):
        return Fixed(FixedKind.MICROS if profile.is_legacy else FixedKind.NUMBER, "q", 8, shape=shape)
    if type_ == UUID:
        return Fixed(FixedKind.RAW, "16s", 16, shape=shape)
    kind = FixedKind.PREFIXED if profile.is_legacy else FixedKind.RAW
    if type_ == IDENTITY or (profile.is_legacy and type_ == OLD_IDENTITY):
        return Fixed(kind, "32s", 36 if profile.is_legacy else 32, shape=shape)
    if type_ == CONNECTION_ID or (profile.is_legacy and type_ == OLD_ADDRESS):
        return Fixed(kind, "16s", 20 if profile.is_legacy else 16, shape=shape)
    return None


def fixed_size(layout: Layout, layouts: Layouts) -> int | None:
    """Return how many bytes every value has, or None where that depends on the value."""
    match layout:
        case Fixed():
            return layout.size
        case Tuple():
            sizes = [fixed_size(part, layouts) for part in layout.parts]
            return None if None in sizes else sum(size for size in sizes if size is not None)
        case Choice():
            sizes = [fixed_size(part, layouts) for part in layout.parts]
            return None if len(set(sizes)) != 1 or sizes[0] is None else 1 + sizes[0]
        case Call(index, is_recursive):
            if index not in layouts.fixed_sizes:
                layouts.fixed_sizes[index] = None if is_recursive else fixed_size(layouts.ref(index), layouts)
            return layouts.fixed_sizes[index]
    return None


def min_size(layout: Layout, layouts: Layouts) -> int:
    """Return how many bytes the smallest value has; a type without finite values counts as NO_FINITE_VALUE."""
    missing = _calls(layout) - layouts.min_sizes.keys()
    if missing:
        _fill_min_sizes(missing, layouts)
    return _min_size(layout, layouts.min_sizes)


def _fill_min_sizes(wanted: set[int], layouts: Layouts) -> None:
    """Find the least sizes of all Refs in reach: begin with no finite value, improve until nothing changes."""
    reached: set[int] = set()
    while wanted:
        index = wanted.pop()
        reached.add(index)
        wanted |= _calls(layouts.ref(index)) - reached
    sizes = layouts.min_sizes
    sizes.update((index, NO_FINITE_VALUE) for index in reached)
    changed = True
    while changed:
        changed = False
        for index in reached:
            size = _min_size(layouts.ref(index), sizes)
            changed |= size != sizes[index]
            sizes[index] = size


def _min_size(layout: Layout, sizes: dict[int, int]) -> int:
    match layout:
        case Fixed():
            return layout.size
        case Tuple():
            return min(sum(_min_size(part, sizes) for part in layout.parts), NO_FINITE_VALUE)
        case Choice():
            return min(1 + min(_min_size(part, sizes) for part in layout.parts), NO_FINITE_VALUE)
        case Call(index):
            return sizes[index]
    return 4


def _calls(layout: Layout) -> set[int]:
    match layout:
        case Call(index):
            return {index}
        case Tuple(parts) | Choice(parts):
            return {index for part in parts for index in _calls(part)}
        case List(part):
            return _calls(part)
        case Pairs(key, value):
            return _calls(key) | _calls(value)
    return set()
