"""Column markers: what an author writes after `=` in a table's class.

Responsible for: the markers, `Index` and `Unique`, and their types, which make type checkers check the constructors.
Not responsible for: row classes (`rows`), what markers become (`definition`).

Source: spec 08, "Tables".
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, overload

from stdb.schema.model import IndexAlgorithm

__all__ = [
    "NO_DEFAULT",
    "Index",
    "IndexKind",
    "Marker",
    "Unique",
    "auto_inc",
    "column",
    "index",
    "primary_key",
    "unique",
]

T = TypeVar("T")
IndexKind: TypeAlias = Literal["btree", "hash", "direct"]
ALGORITHMS = {algorithm.suffix: algorithm for algorithm in IndexAlgorithm}


class _NoDefault:
    """The type of NO_DEFAULT."""

    def __repr__(self) -> str:
        """Return the name."""
        return "NO_DEFAULT"


NO_DEFAULT = _NoDefault()
"""Stands for a default that was not given (None is a default)."""


@dataclass(frozen=True)
class Marker:
    """What the markers say of one column."""

    primary_key: bool = False
    unique: bool = False
    auto_inc: bool = False
    index: IndexAlgorithm | None = None
    default: Any = NO_DEFAULT


def _algorithm(kind: str) -> IndexAlgorithm:
    if kind not in ALGORITHMS:
        raise ValueError(f'index kind {kind!r} is unknown; use "btree", "hash" or "direct"')
    return ALGORITHMS[kind]


class Index:
    """An index over several columns, for `@table(indexes=[…])`; `name` is its spelling in `ctx.db.table.name`."""

    def __init__(self, name: str, *columns: str, kind: IndexKind = "btree") -> None:
        self.name = name
        self.columns = columns
        self.algorithm = _algorithm(kind)

    def __repr__(self) -> str:
        """Return the call that makes it."""
        return f"Index({', '.join(map(repr, (self.name, *self.columns)))})"


class Unique:
    """Columns that are unique together, for `@table(uniques=[…])`."""

    def __init__(self, *columns: str) -> None:
        self.columns = columns

    def __repr__(self) -> str:
        """Return the call that makes it."""
        return f"Unique({', '.join(map(repr, self.columns))})"


@overload
def primary_key(*, auto_inc: Literal[True], init: Literal[False] = False) -> Any: ...
@overload
def primary_key(*, auto_inc: Literal[False] = False, init: Literal[True] = True) -> Any: ...
@overload
def primary_key(*, default: T, auto_inc: Literal[False] = False, init: Literal[True] = True) -> T: ...
def primary_key(*, auto_inc: bool = False, default: Any = NO_DEFAULT, init: bool = True) -> Any:
    """Mark the column that identifies a row; with `auto_inc` the database counts it up (`init`: for type checkers)."""
    return Marker(primary_key=True, unique=True, auto_inc=auto_inc, default=default)


@overload
def unique(*, auto_inc: Literal[True], init: Literal[False] = False) -> Any: ...
@overload
def unique(*, auto_inc: Literal[False] = False, init: Literal[True] = True) -> Any: ...
@overload
def unique(*, default: T, auto_inc: Literal[False] = False, init: Literal[True] = True) -> T: ...
def unique(*, auto_inc: bool = False, default: Any = NO_DEFAULT, init: bool = True) -> Any:
    """Mark a column in which no value occurs twice."""
    return Marker(unique=True, auto_inc=auto_inc, default=default)


@overload
def index(*, kind: IndexKind = "btree") -> Any: ...
@overload
def index(*, default: T, kind: IndexKind = "btree") -> T: ...
def index(*, kind: IndexKind = "btree", default: Any = NO_DEFAULT) -> Any:
    """Mark a column by which rows are looked up: btree also by range, hash and direct by value alone."""
    return Marker(index=_algorithm(kind), default=default)


def auto_inc(*, init: Literal[False] = False) -> Any:
    """Mark an integer column that the database counts up (`init` is for type checkers)."""
    return Marker(auto_inc=True)


def column(*, default: T) -> T:
    """Return a plain column's default; the same as writing `= default`."""
    return Marker(default=default)  # type: ignore[return-value]  # a field specifier: the row class takes it away
