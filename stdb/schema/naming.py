"""Canonical names: what tables, columns, functions, types and indexes are called by everybody but their author.

Responsible for: the case policy, explicit names, names that are derived from others.
Not responsible for: whether names are identifiers or taken (`validation`).

Source: spec 04 section 4.6, spec 01 sections 11.2 and 11.3.
"""

from collections.abc import Sequence

from stdb.sats.names import camel_case, pascal_case, snake_case
from stdb.sats.types import (
    CONNECTION_ID,
    IDENTITY,
    SCHEDULE_AT,
    TIME_DURATION,
    TIMESTAMP,
    UUID,
    AlgebraicType,
    Array,
    Element,
    Product,
    Sum,
    Typespace,
    is_option,
    is_result,
)
from stdb.schema.model import CasePolicy, IndexAlgorithm
from stdb.schema.raw import NameKind, RawExplicitName

__all__ = ["Namer", "constraint_name", "index_name", "is_special", "schedule_name", "sequence_name"]

_SPECIAL = frozenset({IDENTITY, CONNECTION_ID, TIMESTAMP, TIME_DURATION, UUID, SCHEDULE_AT})


def is_special(type_: AlgebraicType) -> bool:
    """Tell whether a product or sum has one of the special shapes, options and results included."""
    match type_:
        case Product((Element(),)) | Sum((_, _)):
            return is_option(type_) or is_result(type_) or type_ in _SPECIAL
    return False


class Namer:
    """Turns source names into canonical names."""

    def __init__(self, policy: CasePolicy, explicit: Sequence[RawExplicitName] = ()) -> None:
        self._snake = policy is CasePolicy.SNAKE_CASE
        self._explicit = {(entry.kind, entry.source_name): entry.canonical_name for entry in explicit}

    def explicit(self, kind: NameKind, source: str) -> str | None:
        """Return the canonical name that the definition gives, or None."""
        return self._explicit.get((kind, source))

    def named(self, kind: NameKind, source: str) -> str:
        """Return the canonical name of a table, function or namespace."""
        given = self._explicit.get((kind, source))
        return self.element(source) if given is None else given

    def element(self, source: str) -> str:
        """Return the canonical name of a column or of another element of a product."""
        return snake_case(source) if self._snake else source

    def variant(self, source: str) -> str:
        """Return the canonical name of a variant."""
        return camel_case(source) if self._snake else source

    def type_name(self, source: str) -> str:
        """Return the canonical name of a type or of a segment of its scope."""
        return pascal_case(source) if self._snake else source

    def typespace(self, typespace: Typespace) -> Typespace:
        """Return the typespace with canonical names; special types are left alone."""
        return Typespace(tuple(map(self._renamed, typespace.types))) if self._snake else typespace

    def _renamed(self, type_: AlgebraicType) -> AlgebraicType:
        if is_special(type_):
            return type_
        match type_:
            case Product(elements):
                return Product(tuple(Element(e.name and self.element(e.name), self._renamed(e.type)) for e in elements))
            case Sum(variants):
                return Sum(tuple(Element(e.name and self.variant(e.name), self._renamed(e.type)) for e in variants))
            case Array(element):
                return Array(self._renamed(element))
        return type_


def index_name(table: str, columns: Sequence[str], algorithm: IndexAlgorithm) -> str:
    """Return the derived name of an index."""
    return f"{table}_{'_'.join(columns)}_idx_{algorithm.suffix}"


def constraint_name(table: str, columns: Sequence[str]) -> str:
    """Return the derived name of a unique constraint."""
    return f"{table}_{'_'.join(columns)}_key"


def sequence_name(table: str, column: str) -> str:
    """Return the derived name of a sequence."""
    return f"{table}_{column}_seq"


def schedule_name(table: str) -> str:
    """Return the derived name of a schedule."""
    return f"{table}_sched"
