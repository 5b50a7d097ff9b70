"""What a join demands: the conditions on each relation alone, the equalities between them, and the rest.

Responsible for: taking ON and WHERE apart; what follows from an equality with a column that is fixed.
Not responsible for: finding rows (`join_route`), deltas (`join_plan`).
"""

from functools import cached_property
from typing import Any, TypeAlias

from stdb.sats.types import BOOL
from stdb.sql.binder import BoundSelect, Comparison, Conjunction, Constant, Position, Typed
from stdb.sql.plan import TablePlan
from stdb.sql.predicate import compile_joined, relations_of, row_cost, terms_of

__all__ = ["Equality", "JoinTerms", "conjunction", "equality_of"]

Equality: TypeAlias = tuple[Position, Position]
"""Columns of two relations that must be equal."""


class JoinTerms:
    """The terms of a SELECT over two or more relations. All of them must hold."""

    def __init__(self, select: BoundSelect) -> None:
        self.tables = tuple(relation.table for relation in select.relations)
        terms = [*_ons(select), *terms_of(select.where)]
        equalities = [equality for term in terms if (equality := equality_of(term)) is not None]
        local = _local_terms(terms, equalities, len(self.tables))
        self.inputs = tuple(
            TablePlan(table, conjunction(conditions)) for table, conditions in zip(self.tables, local, strict=True)
        )
        """Per relation: the access to its rows that meet the conditions on it alone."""
        self.links = [term for term in terms if len(relations_of(term)) > 1]
        """The terms that mention several relations."""
        self.never = any(not relations_of(term) and not _is_true(term) for term in terms)
        """A term without columns does not hold: there are no rows."""
        self._equalities = equalities

    def equalities_of(self, relation: int) -> list[Equality]:
        """Return the equalities of a relation with others, its own column first."""
        return self._equalities_by_relation.get(relation, [])

    @cached_property
    def _equalities_by_relation(self) -> dict[int, list[Equality]]:
        found: dict[int, list[Equality]] = {}
        for left, right in self._equalities:
            found.setdefault(left.relation, []).append((left, right))
            found.setdefault(right.relation, []).append((right, left))
        return found

    @cached_property
    def fixed(self) -> tuple[dict[int, Any], ...]:
        """Per relation: the columns that conditions fix to one constant, with its key."""
        return tuple(_fixed_columns(plan.condition) for plan in self.inputs)

    @cached_property
    def row_cost(self) -> float:
        """How many times as much as usual the conditions make of the cost of a joined row."""
        return row_cost(*(plan.condition for plan in self.inputs), *self.links)

    def links_of(self, relation: int) -> list[Typed]:
        """Return the terms that mention a relation and others."""
        return self._links_by_relation.get(relation, [])

    @cached_property
    def _links_by_relation(self) -> dict[int, list[Typed]]:
        found: dict[int, list[Typed]] = {}
        for term in self.links:
            for relation in relations_of(term):
                found.setdefault(relation, []).append(term)
        return found


def conjunction(terms: list[Typed]) -> Typed | None:
    """Return the condition that all of these terms hold; None for none."""
    if len(terms) < 2:
        return terms[0] if terms else None
    return Conjunction(True, tuple(terms))


def equality_of(term: Typed) -> Equality | None:
    """Return the columns of two relations that a term demands to be equal."""
    match term:
        case Comparison(Position() as left, (("=", Position() as right),)) if left.relation != right.relation:
            return left, right
    return None


def _ons(select: BoundSelect) -> list[Typed]:
    return [Comparison(on[0], (("=", on[1]),)) for on in select.joins if on is not None]


def _is_true(term: Typed) -> bool:
    """Tell whether a term without columns holds."""
    return bool(compile_joined(term, (), ())(()))


def _local_terms(terms: list[Typed], equalities: list[Equality], relations: int) -> list[list[Typed]]:
    """Return the conditions on each relation alone, with those that follow from equalities with fixed columns."""
    local: list[list[Typed]] = [[] for _ in range(relations)]
    for term in terms:
        mentioned = relations_of(term)
        if len(mentioned) == 1:
            local[mentioned.pop()].append(term)
    for term, place in _implied(local, equalities):
        local[place].append(term)
    return local


def _implied(local: list[list[Typed]], equalities: list[Equality]) -> list[tuple[Typed, int]]:
    """Return what follows: a column that must equal a fixed one is fixed, too."""
    known: dict[tuple[int, int], Any] = {}
    for place, terms in enumerate(local):
        for column, key in _fixed_columns(conjunction(terms)).items():
            known[place, column] = key
    sides: dict[tuple[int, int], list[Position]] = {}
    for left, right in equalities:
        sides.setdefault(left[:2], []).append(right)
        sides.setdefault(right[:2], []).append(left)
    implied: list[tuple[Typed, int]] = []
    pending = list(known)
    while pending:
        fixed = pending.pop()
        for other in sides.get(fixed, ()):
            if other[:2] not in known:
                known[other[:2]] = known[fixed]
                pending.append(other[:2])
                implied.append((Comparison(other, (("=", Constant(known[fixed], other.type)),)), other.relation))
    return implied


def _fixed_columns(condition: Typed | None) -> dict[int, Any]:
    """Return the columns that the terms of a condition over one relation fix to a constant."""
    fixed: dict[int, Any] = {}
    for term in terms_of(condition):
        match term:
            case Comparison(Position(_, column), (("=", Constant(key)),)) | Comparison(
                Constant(key), (("=", Position(_, column)),)
            ):
                fixed.setdefault(column, key)
            case Position(_, column, type_) if type_ == BOOL:
                fixed.setdefault(column, True)
    return fixed
