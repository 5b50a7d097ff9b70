"""Findings: everything that is wrong with a definition, collected before anything is said.

Responsible for: gathering, ordering and bounding the errors of one validation; words that several rules use.
Not responsible for: the rules.

Source: spec 04 section 4.5; texts as 2.8.3 writes them where it has the rule.
"""

import unicodedata
from enum import IntEnum

from stdb.errors import SchemaError
from stdb.sats import names, satn
from stdb.sats.types import AlgebraicType, Array, Element, Product, Ref, Scalar, Sum

__all__ = ["FINDINGS_MAX", "TEXT_MAX", "Findings", "Group", "debug_type", "identifier_text", "shown"]

FINDINGS_MAX = 500
"""More are counted, not told."""
TEXT_MAX = 4000
"""Characters of one text."""


class Group(IntEnum):
    """What a finding is about, in the order of telling."""

    NAME = 0
    IDENTIFIER = 1
    TABLE = 2
    FUNCTION = 3
    TYPE = 4


class Findings:
    """The errors of one definition. `names_are_free`: anything may be a name, as in 0.11."""

    def __init__(self, *, names_are_free: bool = False) -> None:
        self._names_are_free = names_are_free
        self._found: set[tuple[Group, str]] = set()
        self._more = 0

    def add(self, group: Group, text: str) -> None:
        """Note an error; the same one twice is told once, a very long one is cut."""
        text = _cut(text)
        if len(self._found) < FINDINGS_MAX:
            self._found.add((group, text))
        elif (group, text) not in self._found:
            self._more += 1

    def add_identifier(self, name: str) -> bool:
        """Note what is wrong with a name, if anything; return whether it may be used."""
        text = None if self._names_are_free else identifier_text(name)
        if text is not None:
            self.add(Group.IDENTIFIER, f"module contains invalid identifier: {text}")
        return text is None

    def texts(self) -> list[str]:
        """Return all errors, sorted."""
        texts = [text for _, text in sorted(self._found)]
        return [*texts, f"… and {self._more} more errors"] if self._more else texts

    def raise_any(self) -> None:
        """Raise what was found as one SchemaError."""
        if self._found:
            raise SchemaError(self.texts())


_ANNEX_31 = "(according to Unicode Standard Annex 31, https://www.unicode.org/reports/tr31/)"
_ANNEX_15 = "according to Unicode Standard Annex 15 (http://www.unicode.org/reports/tr15/)"
_UNUSABLE = "and cannot be used for entities in a module."


def identifier_text(name: str) -> str | None:
    """Return why `name` is no identifier in the reference's words, or None when it is one."""
    if names.is_identifier(name):
        return None
    if not name:
        return "Empty identifiers are forbidden."
    if not unicodedata.is_normalized("NFC", name):
        return f"Identifier `{name}` is not in normalization form C {_ANNEX_15} {_UNUSABLE}"
    if not name[0].isidentifier():
        start = f"starting character '{name[0]}' is neither an underscore ('_') nor a Unicode XID_start character"
        return f"Identifier `{name}`'s {start} {_ANNEX_31} {_UNUSABLE}"
    odd = next(character for character in name[1:] if not f"_{character}".isidentifier())
    part = f"contains a character '{odd}' that is not an XID_continue character"
    return f"Identifier `{name}` {part} {_ANNEX_31} {_UNUSABLE}"


def shown(type_: AlgebraicType) -> str:
    """Return a type as texts show it: `(x: U32)`, `Array<&0>`; cut when very long."""
    return _cut(satn.format_type(type_))


def debug_type(type_: AlgebraicType) -> str:
    """Return a type in the reference's debug notation, which one text uses; cut when very long."""
    return _cut(_debug(type_))


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}…"


def _debug(type_: AlgebraicType) -> str:
    match type_:
        case Scalar(kind):
            return kind.value
        case Ref(index):
            return f"Ref(AlgebraicTypeRef({index}))"
        case Array(element):
            return f"Array({_debug(element)})"
        case Product(elements):
            return f"Product(ProductType {{{_debug_elements(elements)}}})"
        case Sum(variants):
            return f"Sum(SumType {{{_debug_elements(variants)}}})"
    return shown(type_)


def _debug_elements(elements: tuple[Element, ...]) -> str:
    named = ((f'"{e.name}"' if e.name is not None else str(i), e.type) for i, e in enumerate(elements))
    return ", ".join(f"{name}: {_debug(type_)}" for name, type_ in named)
