"""Allowed statements: the few forms that syntax trees are turned into, as plain values.

Responsible for: what an allowed statement consists of.
Not responsible for: what is allowed (`shape`), names and types (`binder`).

Source: spec 06 sections 3 and 4.
"""

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from stdb.sql.syntax import Expression, Literal, NotPositional

__all__ = [
    "Aggregate",
    "Aggregated",
    "Assign",
    "Chain",
    "Columns",
    "Count",
    "DeleteShape",
    "Field",
    "InsertShape",
    "Logic",
    "Operand",
    "Order",
    "Projection",
    "SelectShape",
    "Sender",
    "SetShape",
    "Shape",
    "ShapedJoin",
    "ShapedTable",
    "ShowShape",
    "Star",
    "UpdateShape",
]


class Field(NamedTuple):
    """A column by the alias of its table; the alias is empty until a bare name is qualified."""

    alias: str
    column: str


class Sender(NamedTuple):
    """`:sender`."""


class Chain(NamedTuple):
    """`first op operand op operand …`: comparisons, left-associative."""

    first: "Operand"
    rest: "tuple[tuple[str, Operand], ...]"


class Logic(NamedTuple):
    """A flat chain of AND, or of OR."""

    is_and: bool
    terms: "tuple[Operand, ...]"


Operand: TypeAlias = Literal | Field | Sender | Chain | Logic


class ShapedTable(NamedTuple):
    """A table by its catalogue name and the alias it has in the statement.

    `args` are those of a call, None where it is none; `shown` prints a call.
    """

    name: str
    alias: str
    args: tuple[Expression | NotPositional, ...] | None = None
    shown: str = ""


class ShapedJoin(NamedTuple):
    """An inner or cross join; `on` are the two columns that must be equal."""

    table: ShapedTable
    on: tuple[Field, Field] | None


class Star(NamedTuple):
    """`*` (alias None) or `alias.*`."""

    alias: str | None


class Columns(NamedTuple):
    """A list of columns with the names they get."""

    fields: tuple[tuple[Field, str], ...]


class Count(NamedTuple):
    """`count(*)` with its name."""

    name: str


class Aggregate(NamedTuple):
    """A call of one of AGGREGATES over a column; `field` is None for `count(*)`, `shown` prints it."""

    function: str
    field: Field | None
    is_distinct: bool
    shown: str


class Aggregated(NamedTuple):
    """A list of columns and aggregates with the names they get: one row a group."""

    items: tuple[tuple[Field | Aggregate, str], ...]


Projection: TypeAlias = Star | Columns | Count | Aggregated


class Order(NamedTuple):
    """An item of ORDER BY: a column (its alias empty: perhaps a name of the result), or the digits of a position."""

    by: Field | str
    is_descending: bool


@dataclass(frozen=True, slots=True)
class SelectShape:
    """An allowed SELECT."""

    projection: Projection
    table: ShapedTable
    joins: tuple[ShapedJoin, ...]
    where: Operand | None
    limit: str | None = None
    group_by: tuple[Field, ...] = ()
    order_by: tuple[Order, ...] = ()
    offset: str | None = None


class InsertShape(NamedTuple):
    """An allowed INSERT."""

    table: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Literal, ...], ...]


class Assign(NamedTuple):
    """`column = literal`."""

    column: str
    value: Literal


class UpdateShape(NamedTuple):
    """An allowed UPDATE."""

    table: ShapedTable
    assignments: tuple[Assign, ...]
    where: Operand | None


class DeleteShape(NamedTuple):
    """An allowed DELETE."""

    table: ShapedTable
    where: Operand | None


class SetShape(NamedTuple):
    """SET name = literal."""

    name: str
    value: Literal


class ShowShape(NamedTuple):
    """SHOW name."""

    name: str


Shape: TypeAlias = SelectShape | InsertShape | UpdateShape | DeleteShape | SetShape | ShowShape
