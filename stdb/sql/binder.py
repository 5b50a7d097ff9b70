"""Names and types: from an allowed statement to one whose tables, columns and constants are known.

Responsible for: resolving tables and columns for a caller, scope, the typing rules, the texts of their refusals.
Not responsible for: syntax (`shape`), how to find the rows (`plan`).

Source: spec 06 sections 2.1, 3 (rules 12 to 16) and 3.1. GROUP BY, aggregates, ORDER BY and OFFSET are ours, on the SQL
surface only. Types of aggregates over a column:
    COUNT U64 (of an option's values: those that are not none)
    SUM of I8 to I64: I128; of U8 to U64: U128; of I128, I256: I256; of U128, U256: U256; of F32, F64: F64
    AVG of numbers: F64
    MIN, MAX of what can be compared: the column's type
Without GROUP BY there is one group, which may be empty: MIN, MAX and AVG are options there, none when it is.
"""

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from stdb.errors import QueryError
from stdb.sats import keys, satn
from stdb.sats.profiles import OLD_IDENTITY
from stdb.sats.types import BOOL, BYTES, F32, F64, IDENTITY, U64, AlgebraicType, Scalar, ScalarKind, option
from stdb.schema.model import Access
from stdb.sql.language import PLAIN, Language
from stdb.sql.literals import (
    expect_bool,
    is_comparable,
    is_nameable,
    mismatch,
    parse_integer,
    parse_literal,
    parse_old_literal,
    type_of_literals,
)
from stdb.sql.shapes import (
    Aggregate,
    Aggregated,
    Chain,
    Columns,
    Count,
    Field,
    Logic,
    Operand,
    Order,
    Projection,
    SelectShape,
    Sender,
    ShapedTable,
    Star,
)
from stdb.sql.syntax import Literal, LiteralKind
from stdb.sql.view_calls import arguments_of, check_place, check_table_call

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore
    from stdb.datastore.table import Table
    from stdb.datastore.views import ViewShape

__all__ = [
    "COMPARISONS",
    "BoundAggregate",
    "BoundAggregated",
    "BoundColumns",
    "BoundCount",
    "BoundOrder",
    "BoundRelation",
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
    "find_table",
    "find_view",
    "is_readable_by_all",
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
    """Who asks: an identity (32 bytes, little-endian), whether it owns the database, and in which language."""

    identity: bytes
    is_owner: bool
    language: Language = PLAIN


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


class BoundAggregate(NamedTuple):
    """One of `shape.AGGREGATES` over a column (None: over rows), and the type of its result."""

    function: str
    column: Position | None
    is_distinct: bool
    type: AlgebraicType


class BoundAggregated(NamedTuple):
    """One row a group: grouped columns and aggregates, and the names they get."""

    items: tuple[tuple[Position | BoundAggregate, str], ...]


class BoundOrder(NamedTuple):
    """What rows are ordered by: a column, or (of groups) an item of the result by its place, from 0."""

    by: Position | int
    is_descending: bool


class BoundRelation(NamedTuple):
    """A table under its alias."""

    alias: str
    table: "Table"


BoundProjection: TypeAlias = BoundStar | BoundColumns | BoundCount | BoundAggregated


@dataclass(frozen=True, slots=True)
class BoundSelect:
    """A SELECT with everything resolved. `joins` are the column pairs of the joins, None for a cross join."""

    relations: tuple[BoundRelation, ...]
    joins: tuple[tuple[Position, Position] | None, ...]
    where: Typed | None
    projection: BoundProjection
    limit: int | None
    is_parameterised: bool
    """It depends on who asks."""
    grouping: tuple[Position, ...] = ()
    """The columns of GROUP BY; without any, BoundAggregated has one group of all rows."""
    ordering: tuple[BoundOrder, ...] = ()
    offset: int = 0


def find_table(datastore: "Datastore", name: str, caller: Caller) -> "Table":
    """Return a table, not a view, by its canonical or accessor name.

    Raises:
        QueryError: There is none, or it is private and the caller is not the owner.
    """
    table = datastore.find_table(name)
    if table is None:
        table = _by_accessor(datastore, name)
    is_hidden = table is not None and table.is_event and caller.language.hides_tables
    if table is None or is_hidden or not (caller.is_owner or is_readable_by_all(table)):
        raise QueryError(f"no such table: `{name}`. If the table exists, it may be marked private.")
    return table


def find_view(datastore: "Datastore", name: str, caller: Caller) -> "ViewShape | None":
    """Return a view that the caller may see by its canonical or accessor name; None when there is none."""
    if datastore.views is None or caller.language.hides_tables or datastore.find_table(name) is not None:
        return None
    view = datastore.views.find(name)
    return view if view is not None and (view.is_public or caller.is_owner) else None


def is_readable_by_all(table: "Table") -> bool:
    """Tell whether others than the owner may name a table; rules may still hide rows of it."""
    return table.schema.definition.access is Access.PUBLIC and table.schema.name not in OWNER_ONLY


def _by_accessor(datastore: "Datastore", name: str) -> "Table | None":
    return next((table for table in datastore.tables.values() if table.schema.definition.accessor == name), None)


def bind_select(shape: SelectShape, datastore: "Datastore", caller: Caller) -> BoundSelect:
    """Resolve and type a SELECT.

    Raises:
        QueryError: A name that is not there, a type that does not fit.
    """
    scope = Scope(caller, shape)
    scope.add(shape.table, datastore)
    joins = []
    for join in shape.joins:
        scope.add(join.table, datastore)
        joins.append(None if join.on is None else scope.equality(*join.on))
    where = None if shape.where is None else scope.typed(shape.where, BOOL)[0]
    grouping = _once(map(scope.position, shape.group_by))
    projection = _projection(shape.projection, grouping, scope)
    return BoundSelect(
        relations=tuple(scope.relations),
        joins=tuple(joins),
        where=where,
        projection=projection,
        limit=None if shape.limit is None else _row_count(shape.limit),
        is_parameterised=scope.is_parameterised,
        grouping=grouping,
        ordering=_ordering(shape.order_by, projection, grouping, scope),
        offset=0 if shape.offset is None else _row_count(shape.offset),
    )


def _row_count(text: str) -> int:
    value: int = parse_literal(text, U64)
    return value


def _projection(shape: Projection, grouping: tuple[Position, ...], scope: "Scope") -> BoundProjection:
    match shape:
        case Star(None):
            if len(scope.relations) > 1:
                return scope.all_columns()
            return BoundStar(0)
        case Star(str(alias)):
            return BoundStar(scope.relation(alias))
        case Count(name):
            return BoundCount(name)
        case Columns(fields):
            if not scope.caller.language.repeats_columns:
                _check_names(name for _, name in fields)
            return BoundColumns(tuple((scope.position(column), name) for column, name in fields))
        case Aggregated(items):
            _check_names(name for _, name in items)
            return BoundAggregated(tuple((_grouped(item, grouping, scope), name) for item, name in items))
    raise AssertionError(shape)


def _check_names(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise QueryError(f"Duplicate name `{name}`")
        seen.add(name)


# Groups and order: ours, on the SQL surface.


def _grouped(item: Field | Aggregate, grouping: tuple[Position, ...], scope: "Scope") -> Position | BoundAggregate:
    if isinstance(item, Aggregate):
        return _aggregate(item, scope, is_grouped=bool(grouping))
    return _grouped_column(item, grouping, scope)


def _grouped_column(column: Field, grouping: tuple[Position, ...], scope: "Scope") -> Position:
    position = scope.position(column)
    if position not in grouping:
        raise QueryError(f"`{column.column}` is not grouped; name it in GROUP BY or in an aggregate")
    return position


def _aggregate(call: Aggregate, scope: "Scope", *, is_grouped: bool) -> BoundAggregate:
    column = None if call.field is None else scope.position(call.field)
    if column is None or call.function == "count":
        if call.is_distinct and not is_grouped:
            _check_distinct(call, column, scope)
        return BoundAggregate("count", column, call.is_distinct, U64)
    result = _result_type(call.function, column.type)
    if result is None:
        shown = satn.format_type(column.type)
        raise QueryError(f"Invalid aggregate `{call.function.upper()}` for type `{shown}`")
    # Without GROUP BY there may be no row to take a value from; a sum is 0 then.
    is_optional = not is_grouped and call.function != "sum"
    return BoundAggregate(call.function, column, is_distinct=False, type=option(result) if is_optional else result)


def _check_distinct(call: Aggregate, column: Position | None, scope: "Scope") -> None:
    """Refuse, as the reference does (case `sql-010`), to compare the values of a unique column: all are distinct."""
    if column is None or len(scope.relations) > 1:
        return
    if any(index.unique and index.columns == (column.column,) for index in scope.relations[0].table.indexes):
        raise QueryError(f"Unsupported aggregate function: {call.shown}; the column is unique, use count(*)")


def _result_type(function: str, type_: AlgebraicType) -> AlgebraicType | None:
    """Return the type of SUM, AVG, MIN or MAX over values of a type; None when there is none."""
    if function in ("min", "max"):
        return type_ if is_comparable(type_) else None
    if not isinstance(type_, Scalar) or type_.kind in (ScalarKind.BOOL, ScalarKind.STRING):
        return None
    if function == "avg" or type_ in (F32, F64):
        return F64
    sign, bits = type_.kind.value[0], int(type_.kind.value[1:])
    return Scalar(ScalarKind(f"{sign}{128 if bits <= 64 else 256}"))


def _ordering(
    orders: tuple[Order, ...], projection: BoundProjection, grouping: tuple[Position, ...], scope: "Scope"
) -> tuple[BoundOrder, ...]:
    """Resolve ORDER BY; nothing is left of it where the result is one row, nor of what was ordered by before."""
    places = _listed(projection, scope)
    listed = {name: target for target, name in places}
    is_plain = isinstance(projection, BoundStar | BoundColumns)
    found: dict[tuple[int, int] | int, BoundOrder] = {}
    for by, is_descending in orders:
        if isinstance(by, str):
            target = places[_ordinal(by, len(places))][0]
        elif not by.alias and by.column in listed:
            target = listed[by.column]
        else:
            column = by if by.alias else scope.qualified(by)
            target = scope.position(column) if is_plain else _grouped_column(column, grouping, scope)
        found.setdefault(target if isinstance(target, int) else target[:2], BoundOrder(target, is_descending))
    return tuple(found.values()) if is_plain or grouping else ()


def _listed(projection: BoundProjection, scope: "Scope") -> list[tuple[Position | int, str]]:
    """Return what the columns of a result are ordered by, with their names."""
    match projection:
        case BoundColumns(columns):
            return list(columns)
        case BoundCount(name):
            return [(0, name)]
        case BoundAggregated(items):
            return [(place, name) for place, (_, name) in enumerate(items)]
        case BoundStar(relation):
            definition = scope.relations[relation].table.schema.definition
            return [(Position(relation, place, each.type), each.name) for place, each in enumerate(definition.columns)]


def _once(columns: Iterable[Position]) -> tuple[Position, ...]:
    return tuple({(column.relation, column.column): column for column in columns}.values())


def _ordinal(digits: str, count: int) -> int:
    """Return the place, from 0, that the digits of a position mean."""
    place = parse_integer(digits, 1, count)
    if place is None:
        raise QueryError(f"ORDER BY position {digits[:20]} is not in the select list; it has {count} columns")
    return place - 1


@dataclass(slots=True)
class Scope:
    """The relations seen so far; types expressions over them."""

    caller: Caller
    select: SelectShape | None = None
    """The query that it is of, if it is one."""
    relations: list[BoundRelation] = field(default_factory=list)
    is_parameterised: bool = False
    _places: dict[str, int] = field(default_factory=dict)
    """Where the relation of an alias stands."""

    def add(self, shaped: ShapedTable, datastore: "Datastore") -> None:
        """Bring a table, or the rows of a view, into scope."""
        table = self._table(shaped, datastore)
        if shaped.alias in self._places:
            raise QueryError(f"Duplicate name `{shaped.alias}`")
        self._places[shaped.alias] = len(self.relations)
        self.relations.append(BoundRelation(shaped.alias, table))

    def _table(self, shaped: ShapedTable, datastore: "Datastore") -> "Table":
        view = find_view(datastore, shaped.name, self.caller)
        if view is None:
            table = _found_table(shaped, datastore, self.caller)
            check_table_call(shaped)
            return table
        assert self.select is not None, "changes of views are refused before"
        assert datastore.views is not None, "one of them was found"
        check_place(shaped, self.select)
        args = arguments_of(shaped, view)
        self.is_parameterised |= not view.is_anonymous
        return datastore.views.instance(view, self.caller.identity, args)

    def relation(self, alias: str) -> int:
        """Return the place of an alias."""
        place = self._places.get(alias)
        if place is None:
            raise QueryError(f"`{alias}` is not in scope")
        return place

    def all_columns(self) -> BoundColumns:
        """Return `*` over a join, for who may ask for it."""
        if not self.caller.language.infers_tables:
            raise QueryError("SELECT * is not supported for joins")
        places = enumerate(relation.table.schema.definition.columns for relation in self.relations)
        return BoundColumns(
            tuple(
                (Position(place, at, column.type), column.name)
                for place, columns in places
                for at, column in enumerate(columns)
            )
        )

    def qualified(self, column: Field) -> Field:
        """Return a bare column with its alias, which is clear with one relation only, or where only one has it."""
        if len(self.relations) == 1:
            return Field(self.relations[0].alias, column.column)
        if not self.caller.language.infers_tables:
            raise QueryError("Names must be qualified when using joins")
        found = [each.alias for each in self.relations if column_index(each.table, column.column) is not None]
        if len(found) > 1:
            shown = ", ".join(f'"{alias}.{column.column}"' for alias in found)
            raise QueryError(f"Ambiguous field: `{column.column}`. Also found in [{shown}]")
        return Field(found[0] if found else "", column.column)

    def position(self, column: Field) -> Position:
        """Return the place of a column: by accessor name first, then by canonical name."""
        if not column.alias:
            column = self.qualified(column)
            if not column.alias:
                raise QueryError(f"`{column.column}` is not in scope")
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
        if self.caller.language.names_variants and (old := parse_old_literal(literal, expected)) is not None:
            return Constant(old.key, expected), expected
        value = parse_literal(literal.text, expected)
        return Constant(keys.value_key(expected)(value), expected), expected

    def _sender(self, expected: AlgebraicType | None) -> tuple[Typed, AlgebraicType]:
        self.is_parameterised = True
        identity = self.caller.identity
        if expected is None or expected == IDENTITY:
            return Constant(keys.value_key(IDENTITY)(identity), IDENTITY), IDENTITY
        if expected == BYTES:
            return Constant(identity[::-1], BYTES), BYTES
        if expected == OLD_IDENTITY:
            return Constant((identity[::-1],), expected), expected
        raise mismatch(IDENTITY, expected)

    def _chain(self, first: Operand, rest: tuple[tuple[str, Operand], ...]) -> Comparison:
        compared = self._comparison(rest[0][0], first, rest[0][1])
        further = tuple((each, self.typed(operand, BOOL)[0]) for each, operand in rest[1:])
        return Comparison(compared.first, compared.rest + further)

    def _comparison(self, comparison: str, left: Operand, right: Operand) -> Comparison:
        language = self.caller.language
        if language.compares_literals and isinstance(left, Literal) and isinstance(right, Literal):
            type_ = type_of_literals(left, right)
            typed_left, typed_right = self.typed(left, type_)[0], self.typed(right, type_)[0]
        elif isinstance(left, Literal | Sender):
            typed_right, type_ = self.typed(right, None)
            typed_left, _ = self.typed(left, type_)
        else:
            typed_left, type_ = self.typed(left, None)
            typed_right, _ = self.typed(right, type_)
        if not is_comparable(type_) and not (language.names_variants and is_nameable(type_)):
            raise QueryError(f"Invalid binary operator `{comparison}` for type `{satn.format_type(type_)}`")
        return Comparison(typed_left, ((comparison, typed_right),))


def column_index(table: "Table", name: str) -> int | None:
    """Return the place of a column by its accessor or canonical name; None when there is none."""
    columns = table.schema.definition.columns
    by_accessor = next((place for place, column in enumerate(columns) if column.accessor == name), None)
    if by_accessor is not None:
        return by_accessor
    return next((place for place, column in enumerate(columns) if column.name == name), None)


def _found_table(shaped: ShapedTable, datastore: "Datastore", caller: Caller) -> "Table":
    try:
        return find_table(datastore, shaped.name, caller)
    except QueryError:
        if shaped.args is None:
            raise
        raise QueryError(f"Unsupported FROM expression: {shaped.shown}") from None
