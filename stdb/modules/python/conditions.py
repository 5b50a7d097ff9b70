"""Conditions: what `User.name == "x"` builds, a tree that a query is planned from.

Responsible for: column expressions, the nodes of a condition, the functions `between`, `not_`, `is_in`, `is_none`,
`starts_with`, `desc`.
Not responsible for: planning and running a query (`query`).

To a type checker a column is its value and a condition is a bool; at run time neither has a truth value, so that `and`,
`or`, `not` and chained comparisons cannot silently drop half of a condition.

Source: spec 08, "Access inside a reducer".
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

if TYPE_CHECKING:
    from stdb.modules.python.rows import RowShape

__all__ = [
    "And",
    "Between",
    "Column",
    "Comparison",
    "Condition",
    "Descending",
    "IsIn",
    "IsNone",
    "Not",
    "Or",
    "StartsWith",
    "Truth",
    "as_condition",
    "between",
    "desc",
    "is_in",
    "is_none",
    "not_",
    "starts_with",
]

T = TypeVar("T")


class _Expression:
    """What columns and conditions have in common: `&`, `|` and no truth value."""

    __slots__ = ()

    def __bool__(self) -> NoReturn:
        """Refuse: `and`, `or`, `not`, `if` and chained comparisons would lose half of the condition."""
        raise TypeError("use & | not_(): a condition has no truth value for and, or, not, if or chained comparisons")

    def __and__(self, other: object) -> "And":
        """Return the condition that both hold."""
        return And(as_condition(self), as_condition(other))

    def __rand__(self, other: object) -> "And":
        """Refuse a plain bool on the left."""
        return And(as_condition(other), as_condition(self))

    def __or__(self, other: object) -> "Or":
        """Return the condition that at least one holds."""
        return Or(as_condition(self), as_condition(other))

    def __ror__(self, other: object) -> "Or":
        """Refuse a plain bool on the left."""
        return Or(as_condition(other), as_condition(self))

    def __invert__(self) -> NoReturn:
        """Refuse: for type checkers a condition is a bool, and `~bool` is an int."""
        raise TypeError("use not_(condition): ~ is for integers")


class Column(_Expression):
    """One column of a row class, as an expression: what `User.name` is."""

    __slots__ = ("_name", "_position", "_shape")

    def __init__(self, shape: "RowShape", position: int, name: str) -> None:
        self._shape = shape
        self._position = position
        self._name = name

    def __eq__(self, other: object) -> "Comparison":  # type: ignore[override]  # a condition, not a truth value
        """Return the condition that the column has this value."""
        return Comparison("==", self, other)

    def __ne__(self, other: object) -> "Comparison":  # type: ignore[override]  # as above
        """Return the condition that the column has another value."""
        return Comparison("!=", self, other)

    def __lt__(self, other: object) -> "Comparison":
        """Return the condition that the column is less."""
        return Comparison("<", self, other)

    def __le__(self, other: object) -> "Comparison":
        """Return the condition that the column is less or equal."""
        return Comparison("<=", self, other)

    def __gt__(self, other: object) -> "Comparison":
        """Return the condition that the column is greater."""
        return Comparison(">", self, other)

    def __ge__(self, other: object) -> "Comparison":
        """Return the condition that the column is greater or equal."""
        return Comparison(">=", self, other)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        """Return the expression as the author wrote it."""
        return f"{self._shape.name}.{self._name}"

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse to look inside a column."""
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"{self!r} is a column, not a value: conditions compare whole columns; read .{name} of a row"
        )


class Condition(_Expression):
    """A condition on the rows of one row class."""

    __slots__ = ()


class Comparison(Condition):
    """A column compared with a value or with another column of the same row."""

    __slots__ = ("column", "operator", "value")

    def __init__(self, operator: str, column: Column, value: object) -> None:
        self.operator = operator
        self.column = column
        self.value = value

    def __repr__(self) -> str:
        """Return the condition as the author wrote it."""
        return f"{self.column!r} {self.operator} {self.value!r}"


class Truth(Condition):
    """A Bool column that is true."""

    __slots__ = ("column",)

    def __init__(self, column: Column) -> None:
        self.column = column

    def __repr__(self) -> str:
        """Return the condition as the author wrote it."""
        return repr(self.column)


class Between(Condition):
    """A column within bounds, both included."""

    __slots__ = ("column", "high", "low")

    def __init__(self, column: Column, low: object, high: object) -> None:
        self.column = column
        self.low = low
        self.high = high

    def __repr__(self) -> str:
        """Return the condition as the author wrote it."""
        return f"between({self.column!r}, {self.low!r}, {self.high!r})"


class IsIn(Condition):
    """A column that has one of some values."""

    __slots__ = ("column", "values")

    def __init__(self, column: Column, values: tuple[object, ...]) -> None:
        self.column = column
        self.values = values

    def __repr__(self) -> str:
        """Return the condition as the author wrote it."""
        return f"is_in({self.column!r}, {list(self.values)!r})"


class IsNone(Condition):
    """An optional column without a value."""

    __slots__ = ("column",)

    def __init__(self, column: Column) -> None:
        self.column = column

    def __repr__(self) -> str:
        """Return the condition as the author wrote it."""
        return f"is_none({self.column!r})"


class StartsWith(Condition):
    """A String column that begins with some text."""

    __slots__ = ("column", "prefix")

    def __init__(self, column: Column, prefix: str) -> None:
        self.column = column
        self.prefix = prefix

    def __repr__(self) -> str:
        """Return the condition as the author wrote it."""
        return f"starts_with({self.column!r}, {self.prefix!r})"


class And(Condition):
    """Both hold."""

    __slots__ = ("left", "right")

    def __init__(self, left: Condition, right: Condition) -> None:
        self.left = left
        self.right = right

    def __repr__(self) -> str:
        """Return the condition as the author wrote it."""
        return f"({self.left!r}) & ({self.right!r})"


class Or(Condition):
    """At least one holds."""

    __slots__ = ("left", "right")

    def __init__(self, left: Condition, right: Condition) -> None:
        self.left = left
        self.right = right

    def __repr__(self) -> str:
        """Return the condition as the author wrote it."""
        return f"({self.left!r}) | ({self.right!r})"


class Not(Condition):
    """It does not hold."""

    __slots__ = ("condition",)

    def __init__(self, condition: Condition) -> None:
        self.condition = condition

    def __repr__(self) -> str:
        """Return the condition as the author wrote it."""
        return f"not_({self.condition!r})"


class Descending:
    """A column to order by, greatest first."""

    __slots__ = ("column",)

    def __init__(self, column: Column) -> None:
        self.column = column


def as_condition(value: object) -> Condition:
    """Return a condition as it is, and a column as the condition that it is true.

    Raises:
        TypeError: Anything else, a plain bool above all.
    """
    if isinstance(value, Condition):
        return value
    if isinstance(value, Column):
        return Truth(value)
    raise TypeError(
        f"expected a condition such as User.name == 'x', got {value!r}: "
        "compare attributes of the row class, not of a row, and join conditions with & | not_()"
    )


def _as_column(value: object, function: str) -> Column:
    if isinstance(value, Column):
        return value
    raise TypeError(f"{function} takes a column such as User.name first, got {value!r}")


def between(column: T, low: T, high: T) -> bool:
    """Return the condition that a column lies between two values, both included."""
    return cast(bool, Between(_as_column(column, "between()"), low, high))


def is_in(column: T, values: Iterable[T]) -> bool:
    """Return the condition that a column has one of these values."""
    return cast(bool, IsIn(_as_column(column, "is_in()"), tuple(values)))


def is_none(column: object) -> bool:
    """Return the condition that an optional column has no value."""
    return cast(bool, IsNone(_as_column(column, "is_none()")))


def starts_with(column: str | None, prefix: str) -> bool:
    """Return the condition that a text column begins with `prefix`."""
    if not isinstance(prefix, str):
        raise TypeError(f"starts_with() takes a str as prefix, got {prefix!r}")
    return cast(bool, StartsWith(_as_column(column, "starts_with()"), prefix))


def not_(condition: bool) -> bool:
    """Return the condition that `condition` does not hold."""
    return cast(bool, Not(as_condition(condition)))


def desc(column: Any) -> Any:
    """Return a column to order by, greatest first."""
    return Descending(_as_column(column, "desc()"))
