"""Names and types: from an allowed statement to one whose tables, columns and constants are known.

Responsible for: resolving tables and columns for a caller, scope, the typing rules, the texts of their refusals.
Not responsible for: syntax (`shape`), how to find the rows (`plan`).

Source: spec 06 sections 2.1, 3 (rules 12 to 16) and 3.1.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from stdb.errors import QueryError
from stdb.sats import keys, satn
from stdb.sats.types import BOOL, BYTES, IDENTITY, U64, AlgebraicType
from stdb.schema.model import Access
from stdb.sql.literals import is_comparable, parse_literal
from stdb.sql.shape import (
    Chain,
    Columns,
    Count,
    Field,
    Logic,
    Operand,
    SelectShape,
    Sender,
    ShapedTable,
    Star,
)
from stdb.sql.syntax import Literal, LiteralKind

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore
    from stdb.datastore.table import Table

__all__ = [
    "COMPARISONS",
    "BoundColumns",
    "BoundCount",
    "BoundSelect",
    "BoundStar",
    "Caller",
    "Comparison",
    "Conjunction",
    "Constant",
    "Position",
    "Scope",
    "Typed",
    "bind_select",
    "column_index",
    "expect_bool",
    "find_table",
    "mismatch",
]

OWNER_ONLY = ("st_module",)
"""Tables that say they are public and are the owner's alone: the program is its source (spec 06 section 4, we)."""

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
"""Comparison operators on keys."""


class Caller(NamedTuple):
    """Who asks: an identity (32 bytes, little-endian) and whether it owns the database."""

    identity: bytes
    is_owner: bool


class Constant(NamedTuple):
    """A constant, as its key."""

    key: Any
    type: AlgebraicType


class Position(NamedTuple):
    """A column of a relation, both by position."""

    relation: int
    column: int
    type: AlgebraicType


class Comparison(NamedTuple):
    """`first op operand op operand …`: from the second operator on, booleans are compared."""

    first: "Typed"
    rest: "tuple[tuple[str, Typed], ...]"


class Conjunction(NamedTuple):
    """A flat chain of AND, or (`is_and` False) of OR."""

    is_and: bool
    terms: "tuple[Typed, ...]"


Typed: TypeAlias = Constant | Position | Comparison | Conjunction


class BoundStar(NamedTuple):
    """All columns of one relation."""

    relation: int


class BoundColumns(NamedTuple):
    """Columns and the names they get."""

    columns: tuple[tuple[Position, str], ...]


class BoundCount(NamedTuple):
    """How many rows, under a name."""

    name: str


class BoundRelation(NamedTuple):
    """A table under its alias."""

    alias: str
    table: "Table"


@dataclass(frozen=True, slots=True)
class BoundSelect:
    """A SELECT with everything resolved. `joins` are the column pairs of the joins, None for a cross join."""

    relations: tuple[BoundRelation, ...]
    joins: tuple[tuple[Position, Position] | None, ...]
    where: Typed | None
    projection: BoundStar | BoundColumns | BoundCount
    limit: int | None
    is_parameterised: bool
    """It depends on who asks."""


def find_table(datastore: "Datastore", name: str, caller: Caller) -> "Table":
    """Return a table by its canonical or accessor name.

    Raises:
        QueryError: There is none, or it is private and the caller is not the owner.
    """
    table = datastore.find_table(name)
    if table is None:
        table = _by_accessor(datastore, name)
    if table is None or not (caller.is_owner or _is_readable_by_all(table)):
        raise QueryError(f"no such table: `{name}`. If the table exists, it may be marked private.")
    return table


def _is_readable_by_all(table: "Table") -> bool:
    return table.schema.definition.access is Access.PUBLIC and table.schema.name not in OWNER_ONLY


def _by_accessor(datastore: "Datastore", name: str) -> "Table | None":
    return next((table for table in datastore.tables.values() if table.schema.definition.accessor == name), None)


def bind_select(shape: SelectShape, datastore: "Datastore", caller: Caller) -> BoundSelect:
    """Resolve and type a SELECT.

    Raises:
        QueryError: A name that is not there, a type that does not fit.
    """
    scope = Scope(caller)
    scope.add(shape.table, datastore)
    joins = []
    for join in shape.joins:
        scope.add(join.table, datastore)
        joins.append(None if join.on is None else scope.equality(*join.on))
    where = None if shape.where is None else scope.typed(shape.where, BOOL)[0]
    projection = _projection(shape.projection, scope)
    limit = None if shape.limit is None else _limit(shape.limit)
    return BoundSelect(tuple(scope.relations), tuple(joins), where, projection, limit, scope.is_parameterised)


def _limit(text: str) -> int:
    value: int = parse_literal(text, U64)
    return value


def _projection(shape: Star | Columns | Count, scope: "Scope") -> BoundStar | BoundColumns | BoundCount:
    match shape:
        case Star(None):
            if len(scope.relations) > 1:
                raise QueryError("SELECT * is not supported for joins")
            return BoundStar(0)
        case Star(str(alias)):
            return BoundStar(scope.relation(alias))
        case Count(name):
            return BoundCount(name)
        case Columns(fields):
            return BoundColumns(tuple(_columns(fields, scope)))
    raise AssertionError(shape)


def _columns(fields: tuple[tuple[Field, str], ...], scope: "Scope") -> list[tuple[Position, str]]:
    names: set[str] = set()
    columns = []
    for column, name in fields:
        if name in names:
            raise QueryError(f"Duplicate name `{name}`")
        names.add(name)
        columns.append((scope.position(column), name))
    return columns


@dataclass(slots=True)
class Scope:
    """The relations seen so far; types expressions over them."""

    caller: Caller
    relations: list[BoundRelation] = field(default_factory=list)
    is_parameterised: bool = False

    def add(self, shaped: ShapedTable, datastore: "Datastore") -> None:
        """Bring a table into scope."""
        table = find_table(datastore, shaped.name, self.caller)
        if any(relation.alias == shaped.alias for relation in self.relations):
            raise QueryError(f"Duplicate name `{shaped.alias}`")
        self.relations.append(BoundRelation(shaped.alias, table))

    def relation(self, alias: str) -> int:
        """Return the place of an alias."""
        for place, relation in enumerate(self.relations):
            if relation.alias == alias:
                return place
        raise QueryError(f"`{alias}` is not in scope")

    def position(self, column: Field) -> Position:
        """Return the place of a column: by accessor name first, then by canonical name."""
        place = self.relation(column.alias)
        found = column_index(self.relations[place].table, column.column)
        if found is None:
            raise QueryError(f"`{column.column}` is not in scope")
        return Position(place, found, self.relations[place].table.schema.definition.columns[found].type)

    def equality(self, left: Field, right: Field) -> tuple[Position, Position]:
        """Type the ON clause of a join."""
        typed = self._comparison("=", left, right)
        (_, other), first = typed.rest[0], typed.first
        assert isinstance(first, Position)
        assert isinstance(other, Position)
        return first, other

    def typed(self, operand: Operand, expected: AlgebraicType | None) -> tuple[Typed, AlgebraicType]:
        """Return an expression with its type.

        Raises:
            QueryError: It has none, or another than expected.
        """
        match operand:
            case Literal():
                return self._literal(operand, expected)
            case Sender():
                return self._sender(expected)
            case Field():
                position = self.position(operand)
                if expected is not None and position.type != expected:
                    raise mismatch(position.type, expected)
                return position, position.type
            case Logic(is_and, terms):
                expect_bool(expected)
                return Conjunction(is_and, tuple(self.typed(term, BOOL)[0] for term in terms)), BOOL
            case Chain(first, rest):
                expect_bool(expected)
                return self._chain(first, rest), BOOL
        raise AssertionError(operand)

    def _literal(self, literal: Literal, expected: AlgebraicType | None) -> tuple[Typed, AlgebraicType]:
        if literal.kind is LiteralKind.BOOL:
            expect_bool(expected)
            return Constant(literal.text == "true", BOOL), BOOL
        if expected is None:
            raise QueryError("Cannot resolve type for literal expression")
        value = parse_literal(literal.text, expected)
        return Constant(keys.value_key(expected)(value), expected), expected

    def _sender(self, expected: AlgebraicType | None) -> tuple[Typed, AlgebraicType]:
        self.is_parameterised = True
        identity = self.caller.identity
        if expected is None or expected == IDENTITY:
            return Constant(keys.value_key(IDENTITY)(identity), IDENTITY), IDENTITY
        if expected == BYTES:
            return Constant(identity[::-1], BYTES), BYTES
        raise mismatch(IDENTITY, expected)

    def _chain(self, first: Operand, rest: tuple[tuple[str, Operand], ...]) -> Comparison:
        compared = self._comparison(rest[0][0], first, rest[0][1])
        further = tuple((each, self.typed(operand, BOOL)[0]) for each, operand in rest[1:])
        return Comparison(compared.first, compared.rest + further)

    def _comparison(self, comparison: str, left: Operand, right: Operand) -> Comparison:
        if isinstance(left, Literal | Sender):
            typed_right, type_ = self.typed(right, None)
            typed_left, _ = self.typed(left, type_)
        else:
            typed_left, type_ = self.typed(left, None)
            typed_right, _ = self.typed(right, type_)
        if not is_comparable(type_):
            raise QueryError(f"Invalid binary operator `{comparison}` for type `{satn.format_type(type_)}`")
        return Comparison(typed_left, ((comparison, typed_right),))


def column_index(table: "Table", name: str) -> int | None:
    """Return the place of a column by its accessor or canonical name; None when there is none."""
    columns = table.schema.definition.columns
    by_accessor = next((place for place, column in enumerate(columns) if column.accessor == name), None)
    if by_accessor is not None:
        return by_accessor
    return next((place for place, column in enumerate(columns) if column.name == name), None)


def mismatch(expected: AlgebraicType, inferred: AlgebraicType) -> QueryError:
    """Return the refusal of a type that does not fit."""
    return QueryError(
        f"Unexpected type: (expected) {satn.format_type(expected)} != {satn.format_type(inferred)} (inferred)"
    )


def expect_bool(expected: AlgebraicType | None) -> None:
    """Refuse a boolean where another type is expected."""
    if expected is not None and expected != BOOL:
        raise mismatch(BOOL, expected)
