"""Expressions of generated Python: how a value of a type is read from the SDK's JSON, and how it is written.

Responsible for: one expression a type for decoding, encoding and annotations.
Not responsible for: classes and files (`python_legacy`).

Source: spec 03 section 12.2, and 3.4 for the JSON itself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stdb.codegen.declarations import is_plain_enum
from stdb.sats.profiles import OLD_ADDRESS, OLD_IDENTITY
from stdb.sats.types import (
    BYTES,
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

__all__ = ["Expressions", "PythonClass"]

_FLOATS = (ScalarKind.F32, ScalarKind.F64)
_SCALARS = {ScalarKind.BOOL: "bool", ScalarKind.STRING: "str", ScalarKind.F32: "float", ScalarKind.F64: "float"}


@dataclass(frozen=True, slots=True)
class PythonClass:
    """A generated class and the module of the package it stands in."""

    module: str
    name: str


class Expressions:
    """Expressions for the types of one typespace, whose named types are `classes`; notes which modules they need."""

    def __init__(self, typespace: Typespace, classes: Mapping[int, PythonClass]) -> None:
        self._typespace = typespace
        self._classes = classes
        self.modules: set[str] = set()
        """Modules of the package that the expressions so far refer to, as `_m_<module>`."""

    def decode(self, type_: AlgebraicType, data: str, depth: int = 0) -> str:
        """Return an expression for the value that the JSON in `data` (an expression) stands for."""
        inner = f"data_{depth}"
        match type_:
            case Ref(index) if index in self._classes:
                return self._decode_class(index, data)
            case Ref():
                return self.decode(resolve(type_, self._typespace), data, depth)
            case Scalar(kind):
                return f"_values.decode_float({data})" if kind in _FLOATS else f"{_SCALARS.get(kind, 'int')}({data})"
            case Product() if type_ == OLD_IDENTITY:
                return f"_sdk.Identity.from_string({data}[0])"
            case Product() if type_ == OLD_ADDRESS:
                return f"_sdk.Address.from_string({data}[0])"
            case Array() if type_ == BYTES:
                return f"bytes.fromhex({data})"
            case Array(element):
                return f"[{self.decode(element, inner, depth + 1)} for {inner} in {data}]"
            case Map(key, value):
                return self._decode_map(key, value, data, depth)
            case Product(elements):
                return _tuple(self.decode(e.type, f"{data}[{i}]", depth + 1) for i, e in enumerate(elements))
            case Sum(variants):
                some = option_inner(type_)
                if some is not None:
                    held = self._wrapped(some, self.decode(some, f"{data}['0']", depth + 1))
                    return f"({held} if '0' in {data} else None)"
                readers = _tuple(f"lambda {inner}: {self.decode(v.type, inner, depth + 1)}" for v in variants)
                return f"_values.decode_sum({data}, {readers})"
        raise AssertionError(f"no Python for {type_}")

    def encode(self, type_: AlgebraicType, value: str, depth: int = 0) -> str:
        """Return an expression for the JSON of the Python value in `value` (an expression)."""
        inner = f"value_{depth}"
        match type_:
            case Ref(index) if index in self._classes:
                return f"{value}.encode()" if not self._is_enum(index) else f"{{str({value}.value - 1): []}}"
            case Ref():
                return self.encode(resolve(type_, self._typespace), value, depth)
            case Scalar(kind):
                return f"_values.encode_float({value})" if kind in _FLOATS else value
            case Product() if type_ == OLD_IDENTITY:
                return f"[str({value})]"
            case Product() if type_ == OLD_ADDRESS:
                return f"_values.encode_address({value})"
            case Array() if type_ == BYTES:
                return f"{value}.hex()"
            case Array(element):
                return f"[{self.encode(element, inner, depth + 1)} for {inner} in {value}]"
            case Map(key, item):
                return self._encode_map(key, item, value, depth)
            case Product(elements):
                parts = (self.encode(e.type, f"{value}[{i}]", depth + 1) for i, e in enumerate(elements))
                return f"[{', '.join(parts)}]"
            case Sum(variants):
                some = option_inner(type_)
                if some is not None:
                    held = f"{value}[0]" if self._is_option(some) else value
                    return f"({{'0': {self.encode(some, held, depth + 1)}}} if {value} is not None else {{'1': []}})"
                writers = _tuple(f"lambda {inner}: {self.encode(v.type, inner, depth + 1)}" for v in variants)
                return f"_values.encode_sum({value}, {writers})"
        raise AssertionError(f"no Python for {type_}")

    def annotation(self, type_: AlgebraicType) -> str:
        """Return the annotation of a value, for people and their tools."""
        match type_:
            case Ref(index) if index in self._classes:
                return self._class(index)
            case Ref():
                return self.annotation(resolve(type_, self._typespace))
            case Scalar(kind):
                return _SCALARS.get(kind, "int")
            case Product() if type_ == OLD_IDENTITY:
                return "_sdk.Identity"
            case Product() if type_ == OLD_ADDRESS:
                return "_sdk.Address | None"
            case Array(element):
                return "bytes" if type_ == BYTES else f"list[{self.annotation(element)}]"
            case Map(key, value):
                held = f"{self.annotation(key)}, {self.annotation(value)}"
                return f"dict[{held}]" if self._is_key(key) else f"list[tuple[{held}]]"
            case Product(elements):
                return f"tuple[{', '.join(self.annotation(e.type) for e in elements) or '()'}]"
            case Sum():
                some = option_inner(type_)
                if some is None:
                    return "tuple[int, object]"
                return f"{self._wrapped(some, self.annotation(some), 'tuple[{}]')} | None"
        raise AssertionError(f"no Python for {type_}")

    def _class(self, index: int) -> str:
        class_ = self._classes[index]
        self.modules.add(class_.module)
        return f"_m_{class_.module}.{class_.name}"

    def _decode_class(self, index: int, data: str) -> str:
        name = self._class(index)
        if self._is_enum(index):
            return f"{name}(int(next(iter({data}))) + 1)"
        return f"{name}({data})" if isinstance(self._resolved(Ref(index)), Product) else f"{name}.decode({data})"

    def _decode_map(self, key: AlgebraicType, value: AlgebraicType, data: str, depth: int) -> str:
        read = self.decode(value, f"item_{depth}", depth + 1)
        if not self._is_key(key):
            pair = f"({self.decode(key, f'key_{depth}', depth + 1)}, {read})"
            return f"[{pair} for key_{depth}, item_{depth} in {data}]"
        is_bool = self._resolved(key) == Scalar(ScalarKind.BOOL)
        name = f"key_{depth} == 'true'" if is_bool else self.decode(key, f"key_{depth}", depth + 1)
        return f"{{{name}: {read} for key_{depth}, item_{depth} in {data}.items()}}"

    def _encode_map(self, key: AlgebraicType, value: AlgebraicType, map_: str, depth: int) -> str:
        written = self.encode(value, f"item_{depth}", depth + 1)
        if not self._is_key(key):
            pair = f"[{self.encode(key, f'key_{depth}', depth + 1)}, {written}]"
            return f"[{pair} for key_{depth}, item_{depth} in {map_}]"
        name = self.encode(key, f"key_{depth}", depth + 1)
        return f"{{{name}: {written} for key_{depth}, item_{depth} in {map_}.items()}}"

    def _is_key(self, type_: AlgebraicType) -> bool:
        """Tell whether maps with such keys are JSON objects."""
        return isinstance(self._resolved(type_), Scalar)

    def _is_enum(self, index: int) -> bool:
        return is_plain_enum(self._resolved(Ref(index)))

    def _is_option(self, type_: AlgebraicType) -> bool:
        return option_inner(self._resolved(type_)) is not None

    def _wrapped(self, type_: AlgebraicType, inner: str, form: str = "({},)") -> str:
        """Return `inner` in a 1-tuple where it may be None by itself: an option of an option."""
        return form.format(inner) if self._is_option(type_) else inner

    def _resolved(self, type_: AlgebraicType) -> AlgebraicType:
        return resolve(type_, self._typespace)


def _tuple(parts: Iterable[str]) -> str:
    text = ", ".join(parts)
    return f"({text},)" if text else "()"
