"""C# types for the fields of generated classes, and declarations for the types that have no name of their own.

Responsible for: the C# spelling of a type, what a field of it starts with, which types must be declared besides.
Not responsible for: classes and files (`csharp_legacy`).

Source: spec 03 section 14. Options are `T?`; C# has no `T??` and no anonymous sums, so those are declared under the
name of the field that holds them.
"""

from collections.abc import Mapping

from stdb.codegen.declarations import Taken, is_plain_enum
from stdb.sats.names import pascal_case
from stdb.sats.profiles import OLD_ADDRESS, OLD_IDENTITY, OLD_SCHEDULE_AT
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

__all__ = ["KEYWORDS", "CSharpTypes", "escaped"]

_WORDS = (
    "abstract as base bool break byte case catch char checked class const continue decimal default delegate do "
    "double else enum event explicit extern false finally fixed float for foreach goto if implicit in int "
    "interface internal is lock long namespace new null object operator out override params private protected "
    "public readonly ref return sbyte sealed short sizeof stackalloc static string struct switch this throw true "
    "try typeof uint ulong unchecked unsafe ushort using virtual void volatile while"
)
KEYWORDS = frozenset(_WORDS.split())
_SCALARS = {
    ScalarKind.BOOL: "bool",
    ScalarKind.I8: "sbyte",
    ScalarKind.U8: "byte",
    ScalarKind.I16: "short",
    ScalarKind.U16: "ushort",
    ScalarKind.I32: "int",
    ScalarKind.U32: "uint",
    ScalarKind.I64: "long",
    ScalarKind.U64: "ulong",
    ScalarKind.I128: "SpacetimeDB.I128",
    ScalarKind.U128: "SpacetimeDB.U128",
    ScalarKind.F32: "float",
    ScalarKind.F64: "double",
    ScalarKind.STRING: "string",
}
_UNIT = "SpacetimeDB.Unit"


def escaped(name: str) -> str:
    """Return a name as C# source spells it: words of the language get an `@`, which is not part of the name."""
    return f"@{name}" if name in KEYWORDS else name


class CSharpTypes:
    """The types of one typespace, whose named types have `classes`, in `namespace`; collects what must be declared."""

    def __init__(self, typespace: Typespace, namespace: str, classes: Mapping[int, str], taken: Taken) -> None:
        self._typespace = typespace
        self._namespace = namespace
        self._classes = classes
        self._taken = taken
        self._declared: dict[AlgebraicType, str] = {}
        self.undeclared: list[tuple[str, Product | Sum]] = []
        """Types that were met and have no declaration yet, with their names; whoever declares one takes it out."""

    def spelling(self, type_: AlgebraicType, place: str) -> str:
        """Return the C# type; `place` names it where it has no name of its own."""
        match type_:
            case Ref(index) if index in self._classes:
                return f"{self._namespace}.{escaped(self._classes[index])}"
            case Ref():
                return self.spelling(resolve(type_, self._typespace), place)
            case Scalar(kind):
                return _SCALARS[kind]
            case Array(element):
                return "byte[]" if type_ == BYTES else f"List<{self.spelling(element, place)}>"
            case Map(key, value):
                return f"Dictionary<{self.spelling(key, place + 'Key')}, {self.spelling(value, place)}>"
            case Product() if not type_.elements:
                return _UNIT
            case Product() if type_ in (OLD_IDENTITY, OLD_ADDRESS):
                return "SpacetimeDB.Identity" if type_ == OLD_IDENTITY else "SpacetimeDB.Address"
            case Sum() if (some := option_inner(type_)) is not None and not self._is_option(some):
                return f"{self.spelling(some, place)}?"
            case Product() | Sum():
                return f"{self._namespace}.{self._declare(type_, place)}"
        raise AssertionError(f"no C# for {type_}")

    def initial(self, type_: AlgebraicType) -> str:
        """Return what stands behind a field's name: a value that is not null, where C# has none by itself."""
        resolved = resolve(type_, self._typespace)
        match resolved:
            case Scalar(kind):
                return ' = ""' if kind is ScalarKind.STRING else ""
            case Array():
                return " = Array.Empty<byte>()" if resolved == BYTES else " = new()"
            case Sum() if is_plain_enum(resolved) or self._is_nullable(resolved):
                return ""
            case Sum():
                return " = null!"
            case Product() if not resolved.elements:
                return ""
        return " = new()"

    def can_be_looked_up(self, type_: AlgebraicType) -> bool:
        """Tell whether two values of the type are equal for `==` when they are the same."""
        resolved = resolve(type_, self._typespace)
        return isinstance(resolved, Scalar) or resolved in (OLD_IDENTITY, OLD_ADDRESS)

    def _declare(self, type_: Product | Sum, place: str) -> str:
        if type_ not in self._declared:
            wanted = "ScheduleAt" if type_ == OLD_SCHEDULE_AT else pascal_case(place)
            self._declared[type_] = self._taken.take(wanted)
            self.undeclared.append((self._declared[type_], type_))
        return self._declared[type_]

    def _is_nullable(self, type_: Sum) -> bool:
        some = option_inner(type_)
        return some is not None and not self._is_option(some)

    def _is_option(self, type_: AlgebraicType) -> bool:
        return option_inner(resolve(type_, self._typespace)) is not None
