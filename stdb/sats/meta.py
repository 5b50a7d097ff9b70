"""Types as values: AlgebraicType in BSATN and in JSON, both ways, for every generation.

Responsible for: the meta encoding of types.
Not responsible for: whole module definitions (`stdb.schema`), the text of types (`satn`).

Source: spec 01 section 6. The element of products and sums is (name: Option<String>, algebraic_type).
"""

from functools import lru_cache
from typing import Any

from stdb.errors import DecodeError, SchemaError
from stdb.sats import json
from stdb.sats.profiles import MODERN, Profile
from stdb.sats.types import (
    STRING,
    U32,
    UNIT,
    AlgebraicType,
    Array,
    Element,
    Map,
    Product,
    Ref,
    Scalar,
    ScalarKind,
    Sum,
    Typespace,
    option,
)
from stdb.sats.typespace import TYPE_DEPTH_MAX

__all__ = ["decode_type", "encode_type", "type_from_json", "type_to_json"]

_SCALARS = [
    "Bool", "I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "I128", "U128", "I256", "U256", "F32", "F64",
]  # fmt: skip
_OLD_SCALARS = [name for name in _SCALARS if not name.endswith("256")]
_TAGS_MODERN = ["Ref", "Sum", "Product", "Array", "String", *_SCALARS]
_TAGS_0_12 = ["Ref", "Sum", "Product", "Array", "Map", "String", *_SCALARS]
_TAGS_STORED = [*_TAGS_MODERN, "Map"]
_TAGS_0_11 = ["Sum", "Product", "Builtin", "Ref"]
_TAGS_BUILTIN = [*_OLD_SCALARS, "String", "Array", "Map"]


def _outer(profile: Profile) -> list[str]:
    if profile.is_nested_meta:
        return _TAGS_0_11
    if profile.has_map:
        return _TAGS_0_12 if profile.is_legacy else _TAGS_STORED
    return _TAGS_MODERN


def _kind(type_: AlgebraicType) -> str:
    return type_.kind.value if isinstance(type_, Scalar) else type(type_).__name__


def encode_type(type_: AlgebraicType, profile: Profile = MODERN) -> bytes:
    """Return `type_` as BSATN.

    Raises:
        SchemaError: The generation has no such type, or it is nested more than TYPE_DEPTH_MAX deep.
    """
    out = bytearray()
    _write(type_, profile, out, 0)
    return bytes(out)


def _write(type_: AlgebraicType, profile: Profile, out: bytearray, depth: int) -> None:
    if depth > TYPE_DEPTH_MAX:
        raise SchemaError([f"a type is nested more than {TYPE_DEPTH_MAX} levels deep"])
    kind = _kind(type_)
    tags = _outer(profile)
    if profile.is_nested_meta and kind not in tags:
        out.append(tags.index("Builtin"))
        tags = _TAGS_BUILTIN
    if kind not in tags:
        raise SchemaError([f"version {profile.name} has no type {kind}"])
    out.append(tags.index(kind))
    match type_:
        case Ref(index):
            out += index.to_bytes(4, "little")
        case Product(elements) | Sum(elements):
            out += len(elements).to_bytes(4, "little")
            for element in elements:
                _write_name(element.name, out)
                _write(element.type, profile, out, depth + 1)
        case Array(element_type):
            _write(element_type, profile, out, depth + 1)
        case Map(key, value):
            _write(key, profile, out, depth + 1)
            _write(value, profile, out, depth + 1)


def _write_name(name: str | None, out: bytearray) -> None:
    if name is None:
        out.append(1)
        return
    data = name.encode()
    out.append(0)
    out += len(data).to_bytes(4, "little")
    out += data


def decode_type(buffer: bytes, offset: int = 0, profile: Profile = MODERN) -> tuple[AlgebraicType, int]:
    """Return the type that begins at `offset`, and where it ends.

    Raises:
        DecodeError: There is none, or it is nested more than TYPE_DEPTH_MAX deep; `offset` says where.
    """
    reader = _Reader(buffer, offset, profile)
    type_ = reader.type(0)
    return type_, reader.offset


class _Reader:
    def __init__(self, buffer: bytes, offset: int, profile: Profile) -> None:
        self.buffer = buffer
        self.offset = offset
        self.profile = profile

    def type(self, depth: int) -> AlgebraicType:
        if depth > TYPE_DEPTH_MAX:
            raise DecodeError(f"a type is nested more than {TYPE_DEPTH_MAX} levels deep", self.offset)
        kind = self._tag(_outer(self.profile), "AlgebraicType")
        if kind == "Builtin":
            kind = self._tag(_TAGS_BUILTIN, "BuiltinType")
        match kind:
            case "Ref":
                return Ref(self._count())
            case "Product":
                return Product(self._elements(depth))
            case "Sum":
                return Sum(self._elements(depth))
            case "Array":
                return Array(self.type(depth + 1))
            case "Map":
                return Map(self.type(depth + 1), self.type(depth + 1))
        return Scalar(ScalarKind(kind))

    def _take(self, size: int, what: str) -> bytes:
        left = max(len(self.buffer) - self.offset, 0)
        if size > left:
            raise DecodeError(f"data too short for {what}: Expected {size}, given {left}", self.offset)
        self.offset += size
        return self.buffer[self.offset - size : self.offset]

    def _count(self) -> int:
        return int.from_bytes(self._take(4, "u32"), "little")

    def _tag(self, tags: list[str], name: str) -> str:
        start = self.offset
        tag = self._take(1, "u8")[0]
        if tag >= len(tags):
            raise DecodeError(f"unknown tag {tag:#x} for sum type {name}", start)
        return tags[tag]

    def _elements(self, depth: int) -> tuple[Element, ...]:
        return tuple([Element(self._name(), self.type(depth + 1)) for _ in range(self._count())])

    def _name(self) -> str | None:
        if self._tag(["some", "none"], "<unknown>") == "none":
            return None
        data = self._take(self._count(), "[u8]")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise DecodeError("invalid utf8", self.offset - len(data)) from None


def type_to_json(type_: AlgebraicType, profile: Profile = MODERN) -> Any:
    """Return `type_` as a JSON document, as schema routes show it.

    Raises:
        SchemaError: The generation has no such type, or it is nested more than TYPE_DEPTH_MAX deep.
    """
    return _document(type_, profile, 0)


def _document(type_: AlgebraicType, profile: Profile, depth: int) -> Any:
    if depth > TYPE_DEPTH_MAX:
        raise SchemaError([f"a type is nested more than {TYPE_DEPTH_MAX} levels deep"])
    kind = _kind(type_)
    if kind not in _outer(profile) and (not profile.is_nested_meta or kind not in _TAGS_BUILTIN):
        raise SchemaError([f"version {profile.name} has no type {kind}"])
    content: Any = []
    match type_:
        case Ref(index):
            content = index
        case Product(elements):
            content = {"elements": [_element(element, profile, depth) for element in elements]}
        case Sum(variants):
            content = {"variants": [_element(variant, profile, depth) for variant in variants]}
        case Array(element_type):
            content = _document(element_type, profile, depth + 1)
        case Map(key, value):
            content = {"key_ty": _document(key, profile, depth + 1), "ty": _document(value, profile, depth + 1)}
    document = {kind: content}
    return {"Builtin": document} if profile.is_nested_meta and kind not in _TAGS_0_11 else document


def _element(element: Element, profile: Profile, depth: int) -> dict[str, Any]:
    name: Any = {"none": []} if element.name is None else {"some": element.name}
    return {"name": name, "algebraic_type": _document(element.type, profile, depth + 1)}


def type_from_json(document: Any, profile: Profile = MODERN) -> AlgebraicType:
    """Return the type of a JSON document, in any of the forms of spec 01 section 7.3.

    Raises:
        DecodeError: It is none, or the document is nested more than `json.NESTING_MAX` deep; a path says where.
    """
    if _is_too_deep(document):
        raise DecodeError(f"$: the document is nested more than {json.NESTING_MAX} levels deep")
    typespace = _meta_typespace(profile)
    return _from_value(json.decode(Ref(0), document, typespace=typespace, profile=profile), profile)


def _is_too_deep(document: Any) -> bool:
    """Tell whether the document is nested deeper than any that `json.parse` returns."""
    level = [document]
    for _ in range(json.NESTING_MAX + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


@lru_cache(maxsize=8)
def _meta_typespace(profile: Profile) -> Typespace:
    """Return the type of types: 0 AlgebraicType, 1 elements, 2 BuiltinType."""
    self_ = Ref(0)
    element = Product((Element("name", option(STRING)), Element("algebraic_type", self_)))
    contents: dict[str, AlgebraicType] = {
        "Ref": U32,
        "Sum": Product((Element("variants", Ref(1)),)),
        "Product": Product((Element("elements", Ref(1)),)),
        "Builtin": Ref(2),
        "Array": self_,
        "Map": Product((Element("key_ty", self_), Element("ty", self_))),
    }
    outer = Sum(tuple(Element(name, contents.get(name, UNIT)) for name in _outer(profile)))
    builtin = Sum(tuple(Element(name, contents.get(name, UNIT)) for name in _TAGS_BUILTIN))
    return Typespace((outer, Array(element), builtin))


def _from_value(value: tuple[int, Any], profile: Profile) -> AlgebraicType:
    tag, content = value
    kind = _outer(profile)[tag]
    if kind == "Builtin":
        tag, content = content
        kind = _TAGS_BUILTIN[tag]
    match kind:
        case "Ref":
            return Ref(content)
        case "Product":
            return Product(_from_elements(content[0], profile))
        case "Sum":
            return Sum(_from_elements(content[0], profile))
        case "Array":
            return Array(_from_value(content, profile))
        case "Map":
            return Map(_from_value(content[0], profile), _from_value(content[1], profile))
    return Scalar(ScalarKind(kind))


def _from_elements(values: list[tuple[str | None, Any]], profile: Profile) -> tuple[Element, ...]:
    return tuple([Element(name, _from_value(value, profile)) for name, value in values])
