"""Writing values as JSON text: generated source, one function a type and form.

Responsible for: the forms of spec 01 section 7.2, as one `%` template for everything that is always there.
Not responsible for: values that do not fit the type (`json` finds out).

Names of elements and variants are in the templates, which the generated source holds as constants; never in the source.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from json.encoder import encode_basestring
from typing import Any

from stdb.errors import EncodeError
from stdb.sats.json_numbers import f32_text, f64_text
from stdb.sats.profiles import OLD_ADDRESS, OLD_IDENTITY, Profile
from stdb.sats.types import (
    BYTES,
    CONNECTION_ID,
    IDENTITY,
    SCHEDULE_AT,
    TIME_DURATION,
    TIMESTAMP,
    UNIT,
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

__all__ = ["FORMS", "Writer"]

FORMS = ("typed", "row", "positional", "compiled")
_TEXTS = {ScalarKind.STRING: "quote", ScalarKind.F32: "f32", ScalarKind.F64: "f64"}
_HEX = (ScalarKind.I256, ScalarKind.U256)


def _fail(value: Any) -> str:
    raise ValueError(value)


@dataclass(slots=True)
class Writer:
    """Collects functions until `compile`."""

    typespace: Typespace
    profile: Profile
    form: str
    constants: dict[str, Any] = field(default_factory=dict)
    functions: list[str] = field(default_factory=list)
    refs: dict[tuple[int, str], str] = field(default_factory=dict)
    names: int = 0

    def compile(self, type_: AlgebraicType) -> Callable[[Any], str]:
        """Return the function from a value of `type_` to its text."""
        if self.form not in FORMS:
            raise EncodeError(f"no JSON form {self.form!r}; there are {', '.join(FORMS)}")
        write = self._function(type_, self.form)
        namespace: dict[str, Any] = {
            **self.constants,
            "quote": encode_basestring,
            "f32": f32_text,
            "f64": f64_text,
            "integer": int.from_bytes,
            "bools": {False: "false", True: "true"},
            "fail": _fail,
        }
        exec(compile("\n".join(self.functions), "<json>", "exec"), namespace)
        function: Callable[[Any], str] = namespace[write]
        return function

    def _name(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names}_"

    def _constant(self, value: object) -> str:
        name = self._name("c")
        self.constants[name] = value
        return name

    def _function(self, type_: AlgebraicType, form: str, name: str | None = None) -> str:
        """Add the function that writes `type_`; return its name."""
        name = name or self._name("f")
        self.functions.append(f"def {name}(v):\n    return {self._whole(type_, 'v', form)}")
        return name

    def _whole(self, type_: AlgebraicType, value: str, form: str) -> str:
        """Return the expression for the text of `value`."""
        return self._filled(*self._parts(type_, value, form))

    def _filled(self, template: str, arguments: list[str]) -> str:
        if not arguments:
            return self._constant(template % ())
        if template == "%s":
            return arguments[0]
        return f"{self._constant(template)} % ({', '.join(arguments)},)"

    def _parts(self, type_: AlgebraicType, value: str, form: str) -> tuple[str, list[str]]:
        """Return a `%` template and the expressions that fill it."""
        match type_:
            case Scalar(kind):
                return self._scalar(kind, value)
            case Ref(index):
                return "%s", [f"{self._ref(index, form)}({value})"]
            case Product():
                return self._special(type_, value, form) or self._product(type_, value, form)
            case Array(element):
                return self._array(type_, element, value, form)
            case Map(key, item):
                return self._map(key, item, value, form)
            case Sum():
                return self._sum(type_, value, form)

    def _scalar(self, kind: ScalarKind, value: str) -> tuple[str, list[str]]:
        if kind is ScalarKind.BOOL:
            return "%s", [f"bools[{value}]"]
        if kind in _TEXTS:
            return "%s", [f"{_TEXTS[kind]}({value})"]
        return ('"%s"', [f"hex({value})"]) if kind in _HEX else ("%d", [value])

    def _ref(self, index: int, form: str) -> str:
        if (index, form) not in self.refs:
            self.refs[index, form] = name = self._name("f")
            self._function(resolve(Ref(index), self.typespace), form, name)
        return self.refs[index, form]

    def _special(self, type_: Product, value: str, form: str) -> tuple[str, list[str]] | None:
        """Write what is not a tuple in memory: as a product of one element, its name that of the generation."""
        if self.profile.is_legacy:
            if type_ in (TIMESTAMP, TIME_DURATION):
                return "%d", [f"max({value}, 0)"]
            if type_ in (IDENTITY, OLD_IDENTITY):
                return self._fields(["__identity_bytes"], ['"%s"'], form), [f"{value}[::-1].hex()"]
            if type_ in (CONNECTION_ID, OLD_ADDRESS):
                return self._fields(["__address_bytes"], ['"%s"'], form), [f"{value}[::-1].hex()"]
        if type_ in (TIMESTAMP, TIME_DURATION):
            return self._fields([type_.elements[0].name], ["%d"], form), [value]
        if type_ == IDENTITY:
            return self._fields(["__identity__"], ['"%s"'], form), [f"hex(integer({value}, 'little'))"]
        if type_ in (CONNECTION_ID, UUID):
            return self._fields([type_.elements[0].name], ["%d"], form), [f"integer({value}, 'little')"]
        return None

    def _product(self, type_: Product, value: str, form: str) -> tuple[str, list[str]]:
        templates, arguments = [], []
        for i, element in enumerate(type_.elements):
            template, filling = self._parts(element.type, f"{value}[{i}]", form)
            templates.append(template)
            arguments += filling
        return self._fields([element.name for element in type_.elements], templates, form), arguments

    def _fields(self, names: list[str | None], templates: list[str], form: str) -> str:
        if form == "positional" or (form == "compiled" and not names):
            return f"[{','.join(templates)}]"
        for place, name in enumerate(names):
            if name is None:
                raise EncodeError(f"element {place} has no name; the form {form!r} needs one")
        keys = [_literal(encode_basestring(name)) for name in names if name is not None]
        return "{" + ",".join(f"{key}:{template}" for key, template in zip(keys, templates, strict=True)) + "}"

    def _array(self, type_: AlgebraicType, element: AlgebraicType, value: str, form: str) -> tuple[str, list[str]]:
        if type_ == BYTES:
            return '"%s"', [f"{value}.hex()"]
        inner = "positional" if form == "row" else form
        item = self._name("v")
        return "[%s]", [f"','.join([{self._whole(element, item, inner)} for {item} in {value}])"]

    def _map(self, key: AlgebraicType, item: AlgebraicType, value: str, form: str) -> tuple[str, list[str]]:
        """Write a map: an object where its keys are scalars, pairs otherwise (spec 03 section 1)."""
        one, other = self._name("v"), self._name("v")
        match key:
            case Scalar(kind):
                template, arguments = self._scalar(kind, one)
                if kind is not ScalarKind.STRING and kind not in _HEX:
                    template = f'"{template}"'
                between, around = ":", "{%s}"
            case _:
                template, arguments = self._parts(key, one, form)
                between, around = ",", "[%s]"
        template_of_item, arguments_of_item = self._parts(item, other, form)
        pair = f"{template}{between}{template_of_item}"
        entry = self._filled(pair if around == "{%s}" else f"[{pair}]", arguments + arguments_of_item)
        return around, [f"','.join([{entry} for {one}, {other} in {value}])"]

    def _sum(self, type_: Sum, value: str, form: str) -> tuple[str, list[str]]:
        inner = option_inner(type_)
        if inner is not None:
            is_wrapped = option_inner(resolve(inner, self.typespace)) is not None
            some = self._variant(type_, 0, f"{value}[0]" if is_wrapped else value, form)
            none = self._variant(type_, 1, "()", form)
            return "%s", [f"({none} if {value} is None else {some})"]
        if all(variant.type == UNIT for variant in type_.variants):
            texts = {(tag, ()): self._constant_text(type_, tag, form) for tag in range(len(type_.variants))}
            return "%s", [f"{self._constant(texts)}[{value}]"]
        name = self._name("f")
        lines = [f"def {name}(v):", "    t, p = v"]
        for tag in range(len(type_.variants)):
            lines.append(f"    if t == {tag}: return {self._variant(type_, tag, 'p', form)}")
        self.functions.append("\n".join([*lines, "    return fail(v)"]))
        return "%s", [f"{name}({value})"]

    def _variant(self, type_: Sum, tag: int, payload: str, form: str) -> str:
        template, arguments = self._parts(type_.variants[tag].type, payload, form)
        return self._filled(self._tagged(type_, tag, template, form), arguments)

    def _constant_text(self, type_: Sum, tag: int, form: str) -> str:
        template, _ = self._parts(UNIT, "()", form)
        return self._tagged(type_, tag, template, form) % ()

    def _tagged(self, type_: Sum, tag: int, template: str, form: str) -> str:
        name = type_.variants[tag].name
        if form in ("typed", "compiled") and name is not None:
            return "{" + f"{_literal(encode_basestring(name))}:{template}" + "}"
        number = 1 - tag if type_ == SCHEDULE_AT and self.profile.schedule_is_swapped else tag
        return "{" + f'"{number}":{template}' + "}" if self.profile.sum_is_object else f"[{number},{template}]"


def _literal(text: str) -> str:
    return text.replace("%", "%%")
