"""Syntax trees of SQL statements, each able to print itself the way the reference prints it in refusals.

Responsible for: the shapes that `parser` builds and `shape` judges; their printed form.
Not responsible for: which of them a surface allows (`shape`), names and types (`binder`).

Chains of operators of one precedence are flat (`Infix`), so a chain of 1,600 ORs costs no recursion anywhere.
What no surface ever allows inside an expression is kept as its printed text only (`Other`).
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, TypeAlias

__all__ = [
    "Assignment",
    "Call",
    "Column",
    "Delete",
    "Expression",
    "Function",
    "Ident",
    "Infix",
    "Insert",
    "Join",
    "JoinKind",
    "Literal",
    "LiteralKind",
    "Nested",
    "NotPositional",
    "Offset",
    "OrderItem",
    "Other",
    "OtherStatement",
    "Postfix",
    "Prefix",
    "Query",
    "Relation",
    "Select",
    "SelectItem",
    "SetVariable",
    "ShowVariable",
    "Statement",
    "TableCall",
    "TableFactor",
    "TableName",
    "Update",
    "Wildcard",
]


class Ident(NamedTuple):
    """A name and the quote it was written in (empty, `"` or `'`)."""

    value: str
    quote: str = ""

    def __str__(self) -> str:
        if not self.quote:
            return self.value
        return f"{self.quote}{self.value.replace(self.quote, self.quote * 2)}{self.quote}"


class LiteralKind(Enum):
    """Kinds of literal; OTHER reads well and is refused (NULL, `E'…'`, placeholders but `:sender`)."""

    BOOL, NUMBER, STRING, HEX, OTHER = range(5)


class Literal(NamedTuple):
    """A literal: its text without quotes or prefix, and how it prints."""

    kind: LiteralKind
    text: str
    shown: str

    def __str__(self) -> str:
        return self.shown


class Column(NamedTuple):
    """A column reference: one name, or several joined by dots."""

    parts: tuple[Ident, ...]

    def __str__(self) -> str:
        return ".".join(map(str, self.parts))


class Prefix(NamedTuple):
    """An operator before its operand; `operator` is as printed (`-`, `NOT `)."""

    operator: str
    operand: "Expression"

    def __str__(self) -> str:
        return _shown(self)


class Postfix(NamedTuple):
    """An operator after its operand."""

    operand: "Expression"
    operator: str

    def __str__(self) -> str:
        return _shown(self)


class Infix(NamedTuple):
    """`first op operand op operand …`, left-associative, all operators of one precedence."""

    first: "Expression"
    rest: "tuple[tuple[str, Expression], ...]"

    def __str__(self) -> str:
        return _shown(self)


class Nested(NamedTuple):
    """An expression in parentheses."""

    inner: "Expression"

    def __str__(self) -> str:
        return _shown(self)


class Call(NamedTuple):
    """What a plain call of one column says: the function in small letters, the column (None: `*`), DISTINCT."""

    function: str
    column: Column | None
    is_distinct: bool


class Function(NamedTuple):
    """A call of any function. `has_filter`: with FILTER; `call`: it is a name, `*` or one column, and nothing more."""

    shown: str
    has_filter: bool = False
    call: Call | None = None

    @property
    def is_count_star(self) -> bool:
        """Tell whether it is `count(*)` and nothing more."""
        return self.call == _COUNT_STAR

    def __str__(self) -> str:
        return self.shown


_COUNT_STAR = Call("count", None, is_distinct=False)


class Other(NamedTuple):
    """Any expression that no surface allows, as printed."""

    shown: str

    def __str__(self) -> str:
        return self.shown


def _shown(expression: "Expression") -> str:
    """Print an expression, however deep, without recursion."""
    parts: list[str] = []
    rest: list[Expression | str] = [expression]
    while rest:
        match rest.pop():
            case Nested(inner):
                rest += (")", inner, "(")
            case Prefix(operator, operand):
                rest += (operand, operator)
            case Postfix(operand, operator):
                rest += (operator, operand)
            case Infix(first, chain):
                for operator, operand in reversed(chain):
                    rest += (operand, f" {operator} ")
                rest.append(first)
            case shown:
                parts.append(str(shown))
    return "".join(parts)


Expression: TypeAlias = Literal | Column | Prefix | Postfix | Infix | Nested | Function | Other


class TableName(NamedTuple):
    """A possibly dotted table name."""

    parts: tuple[Ident, ...]

    @property
    def value(self) -> str:
        """Return the catalogue name: the parts joined by dots."""
        return ".".join(part.value for part in self.parts)

    def __str__(self) -> str:
        return ".".join(map(str, self.parts))


class NotPositional(NamedTuple):
    """An argument with a name, or `*`, as printed."""

    shown: str

    def __str__(self) -> str:
        return self.shown


class TableCall(NamedTuple):
    """A call in FROM: `name(argument, …)`."""

    name: TableName
    args: tuple[Expression | NotPositional, ...]


class TableFactor(NamedTuple):
    """What stands in FROM. `name` is None for anything but a plain table; `shown` always prints it.

    `call` is what it calls, if that is all that it is beside its alias.
    """

    name: TableName | None
    alias: Ident | None
    shown: str
    call: TableCall | None = None

    def __str__(self) -> str:
        return self.shown


class JoinKind(Enum):
    """Joins that are allowed, and all others."""

    INNER, CROSS, OTHER = range(3)


class Join(NamedTuple):
    """One join. `on` is its condition, if it has one."""

    kind: JoinKind
    table: TableFactor
    on: Expression | None
    shown: str

    def __str__(self) -> str:
        return self.shown


class Relation(NamedTuple):
    """One comma-separated part of FROM."""

    table: TableFactor
    joins: tuple[Join, ...]

    def __str__(self) -> str:
        return "".join([str(self.table), *(f" {join}" for join in self.joins)])


class Wildcard(NamedTuple):
    """`*`, or `name.*`."""

    table: TableName | None

    def __str__(self) -> str:
        return "*" if self.table is None else f"{self.table}.*"


class SelectItem(NamedTuple):
    """One item of a SELECT list."""

    expression: Expression | Wildcard
    alias: Ident | None = None

    def __str__(self) -> str:
        return str(self.expression) if self.alias is None else f"{self.expression} AS {self.alias}"


@dataclass(frozen=True, slots=True)
class Select:
    """A SELECT without what follows it in a query. `head` is DISTINCT, TOP; `tail` all that follows GROUP BY."""

    items: tuple[SelectItem, ...]
    relations: tuple[Relation, ...]
    where: Expression | None
    head: str = ""
    into: str = ""
    lateral_views: str = ""
    group_by: tuple[Expression, ...] = ()
    tail: str = ""

    @property
    def is_analytic(self) -> bool:
        """Tell whether it has no clause that every surface refuses."""
        return not (self.head or self.into or self.lateral_views or self.tail)

    @property
    def is_plain(self) -> bool:
        """Tell whether it has no clause that subscriptions refuse."""
        return self.is_analytic and not self.group_by

    def __str__(self) -> str:
        parts = ["SELECT", self.head, ", ".join(map(str, self.items)), self.into]
        if self.relations:
            parts.append("FROM " + ", ".join(map(str, self.relations)))
        parts.append(self.lateral_views)
        if self.where is not None:
            parts.append(f"WHERE {self.where}")
        if self.group_by:
            parts.append("GROUP BY " + ", ".join(map(str, self.group_by)))
        return " ".join(part for part in [*parts, self.tail] if part)


class OrderItem(NamedTuple):
    """One item of ORDER BY. `direction` is ASC, DESC or empty; `nulls` FIRST, LAST or empty."""

    expression: Expression
    direction: str = ""
    nulls: str = ""

    def __str__(self) -> str:
        nulls = f"NULLS {self.nulls}" if self.nulls else ""
        return " ".join(part for part in (str(self.expression), self.direction, nulls) if part)


class Offset(NamedTuple):
    """OFFSET; `unit` is ROW, ROWS or empty."""

    rows: Expression
    unit: str = ""

    def __str__(self) -> str:
        return f"OFFSET {self.rows} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Query:
    """A query. `body` is a Select, or the printed text of a set operation, VALUES or a query in parentheses."""

    body: Select | str
    with_: str = ""
    order_by: tuple[OrderItem, ...] = ()
    limit: Expression | None = None
    offset: Offset | None = None
    tail: str = ""
    """FETCH and locks."""

    @property
    def is_plain(self) -> bool:
        """Tell whether nothing goes before or follows its body."""
        return not (self.with_ or self.order_by or self.tail) and self.limit is None and self.offset is None

    def __str__(self) -> str:
        order_by = f"ORDER BY {', '.join(map(str, self.order_by))}" if self.order_by else ""
        limit = "" if self.limit is None else f"LIMIT {self.limit}"
        offset = "" if self.offset is None else str(self.offset)
        parts = (self.with_, str(self.body), order_by, limit, offset, self.tail)
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Insert:
    """INSERT. `rows` is None when the source is not VALUES; `source` prints it. `is_plain`: nothing refused around."""

    table: TableName
    columns: tuple[Ident, ...]
    source: str
    rows: tuple[tuple[Expression, ...], ...] | None
    shown: str
    is_plain: bool

    def __str__(self) -> str:
        return self.shown


class Assignment(NamedTuple):
    """`column = value` of an UPDATE; `column` as written, dots included."""

    column: str
    value: Expression


@dataclass(frozen=True, slots=True)
class Update:
    """UPDATE."""

    table: Relation
    assignments: tuple[Assignment, ...]
    where: Expression | None
    tail: str = ""
    """RETURNING."""
    from_: str = ""

    @property
    def is_plain(self) -> bool:
        """Tell whether it is one table without an alias, and no FROM or RETURNING."""
        factor = self.table.table
        is_table = factor.name is not None and factor.alias is None and not self.table.joins
        return is_table and not self.tail and not self.from_

    def __str__(self) -> str:
        sets = ", ".join(f"{column} = {value}" for column, value in self.assignments)
        where = "" if self.where is None else f"WHERE {self.where}"
        parts = (f"UPDATE {self.table}", f"SET {sets}" if sets else "", self.from_, where, self.tail)
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Delete:
    """DELETE. `extra` is USING and the like, printed."""

    relations: tuple[Relation, ...]
    where: Expression | None
    using: str = ""
    tail: str = ""

    def __str__(self) -> str:
        where = "" if self.where is None else f"WHERE {self.where}"
        tables = ", ".join(map(str, self.relations))
        return " ".join(part for part in (f"DELETE FROM {tables}", self.using, where, self.tail) if part)


@dataclass(frozen=True, slots=True)
class SetVariable:
    """SET name = value, value …; `scope` is LOCAL or empty."""

    name: str
    values: tuple[Expression, ...]
    scope: str = ""

    def __str__(self) -> str:
        return f"SET {self.scope}{self.name} = {', '.join(map(str, self.values))}"


@dataclass(frozen=True, slots=True)
class ShowVariable:
    """SHOW name."""

    name: str
    words: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return f"SHOW {' '.join(self.words)}"


class OtherStatement(NamedTuple):
    """A statement that no surface allows, as printed."""

    shown: str

    def __str__(self) -> str:
        return self.shown


Statement: TypeAlias = Query | Insert | Update | Delete | SetVariable | ShowVariable | OtherStatement
