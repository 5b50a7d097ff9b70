"""Queries: from a condition to the rows that meet it, by the best index there is.

Responsible for: keys of the author's values, choosing an index, testing rows, saying what was chosen.
Not responsible for: building conditions (`conditions`), row objects (`table`).

A condition is a conjunction of parts. Equalities, memberships, ranges and prefixes of text can be served by an index;
the parts that are left are tested on the rows found. A disjunction is served by indexes if each side is. Comparisons
other than == and != never hold for None, as in SQL.

Source: spec 08, "Access inside a reducer".
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

from stdb.datastore.index import Bound
from stdb.datastore.table import AnyIndex, Table
from stdb.errors import NoSuchIndex
from stdb.modules.python.conditions import (
    And,
    Between,
    Column,
    Comparison,
    Condition,
    Descending,
    IsIn,
    IsNone,
    Not,
    Or,
    StartsWith,
    Truth,
)
from stdb.modules.python.rows import RowShape
from stdb.sats import bsatn, keys
from stdb.sats.objects import ObjectShape
from stdb.sats.types import BOOL, STRING, AlgebraicType, Element, Product, Scalar, option_inner
from stdb.schema.model import IndexAlgorithm

__all__ = ["Access", "Plan", "ordering", "plan", "unique_plan"]

Key = Any
Test = Callable[[bytes], bool]
_ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NO_KEY = (1,)
"""The key of None in an optional column; greater than every other."""


class ColumnAccess:
    """One column of a table: from a row, or from an author's value, to its key."""

    __slots__ = ("_encode", "_key_of_bytes", "inner", "is_integer", "key_of_row", "name", "type")

    def __init__(self, row_type: Product, position: int, shape: Any, name: str) -> None:
        self.name = name
        self.type: AlgebraicType = row_type.elements[position].type
        self.inner = option_inner(self.type)
        """What an optional column holds; None when it is not optional."""
        self.is_integer = isinstance(self.type, Scalar) and self.type.kind.value[0] in "IU"
        alone = Product((Element(None, self.type),))
        self._encode = bsatn.object_codec(self.type, shape).encode
        self._key_of_bytes = keys.row_key(alone, (0,))
        self.key_of_row: Callable[[bytes], Key] = keys.row_key(row_type, (position,))

    def key(self, value: object) -> Key:
        """Return the key of an author's value.

        Raises:
            TypeError: The value is none of the column's type.
        """
        if self.is_integer:
            if isinstance(value, int):
                return value  # whatever its size: an integer that does not fit equals nothing
            raise TypeError(f"{self.name} is an integer, got {value!r}")
        try:
            return self._key_of_bytes(self._encode(value))
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise TypeError(f"{self.name} has no value {value!r}: {error}") from None

    def ordered_key(self, value: object) -> Key:
        """Return the key of a value that rows are compared with by order; None is no such value."""
        if value is None:
            raise TypeError(f"{self.name} is compared with None: use is_none() or not_(is_none())")
        return self.key(value)


class Access:
    """What queries of one table need to know of it."""

    __slots__ = ("columns", "points", "shape", "table")

    def __init__(self, table: Table, row: ObjectShape, shape: RowShape) -> None:
        self.table = table
        self.shape = shape
        self.columns = tuple(
            ColumnAccess(table.schema.row_type, i, row.shapes[i], f"{shape.name}.{column.name}")
            for i, column in enumerate(shape.columns)
        )
        single = [index for index in table.indexes if len(index.columns) == 1]
        self.points: dict[int, AnyIndex] = {
            index.columns[0]: index for index in sorted(single, key=lambda index: index.unique)
        }
        """By column: the best index of it alone."""

    def column(self, column: object) -> ColumnAccess:
        """Return the access to a column of a condition.

        Raises:
            TypeError: It is no column, or one of another row class.
        """
        if not isinstance(column, Column):
            raise TypeError(f"expected a column such as {self.shape.name}.{self.shape.columns[0].name}, got {column!r}")
        if column._shape is not self.shape:
            raise TypeError(
                f"{column!r} is no column of table {self.table.schema.name}, whose rows are {self.shape.name}"
            )
        return self.columns[column._position]


class Plan(NamedTuple):
    """How a condition is answered."""

    fetch: Callable[[], Sequence[bytes]]
    """Returns candidates, in a container of their own."""
    test: Test | None
    """What candidates have to pass; None when all do."""
    explain: Callable[[], str]
    """Returns what was chosen."""
    is_scan: bool
    points: tuple[tuple[AnyIndex, tuple[Key, ...]], ...] = ()
    """The keys that alone are looked up, by index; none when more is read than single keys."""

    def rows(self) -> list[bytes]:
        """Return the rows that meet the condition."""
        found = self.fetch()
        return list(found) if self.test is None else [row for row in found if self.test(row)]


class _Part(NamedTuple):
    """One member of a conjunction, and what an index could do with it."""

    condition: Condition
    column: int = -1
    equals: tuple[Key, ...] | None = None
    """Keys that the column may have."""
    lower: Bound = None
    upper: Bound = None

    @property
    def is_range(self) -> bool:
        """Tell whether it bounds its column."""
        return self.lower is not None or self.upper is not None


def plan(access: Access, condition: Condition) -> Plan:
    """Return the best way to the rows that meet a condition.

    Raises:
        TypeError: A part is of another table, or compares with a value of another type.
    """
    if (point := _point(access, condition)) is not None:
        return point
    parts = [_part(access, each) for each in _conjunction(condition)]
    chosen = _choose(access.table.indexes, parts)
    test = _test(access, condition)  # all parts, so that a mistake in any of them is told
    if chosen is None:
        return _union(access, condition, parts) or _scan(access, condition, test)
    index, used = chosen
    rest = [part.condition for part in parts if part not in used]
    points = _points(index, used)
    return Plan(_fetch(index, used), _all(access, rest), lambda: _text(index, used, rest), False, points)


def unique_plan(access: Access, condition: Condition) -> Plan:
    """Return the way to the one row that meets a condition.

    Raises:
        NoSuchIndex: No unique index has all its columns fixed by the condition; says which columns need one.
        TypeError: As `plan`.
    """
    if (point := _point(access, condition, unique=True)) is not None:
        return point
    parts = [_part(access, each) for each in _conjunction(condition)]
    single = {part.column for part in parts if part.equals is not None and len(part.equals) == 1}
    if any(index.unique and set(index.columns) <= single for index in access.table.indexes):
        return plan(access, condition)
    names = [access.shape.columns[i].name for i in sorted(single)]
    if not names:
        wanted = "compare a unique column by == "
    elif len(names) == 1:
        wanted = f"declare `{names[0]}` unique() or primary_key() "
    else:
        wanted = f"declare @table(uniques=[Unique({', '.join(map(repr, names))})]) "
    raise NoSuchIndex(
        f"find({condition!r}) on table {access.table.schema.name} needs a unique index: {wanted}"
        "to find one row, or use filter() to find any number"
    )


def ordering(access: Access, order_by: object) -> list[tuple[Callable[[bytes], Key], bool]]:
    """Return what rows are ordered by: the key of each column and whether the greatest comes first; least first.

    Raises:
        TypeError: `order_by` is no column, `desc(column)` or list of these.
    """
    columns = list(order_by) if isinstance(order_by, list | tuple) else [order_by]
    found = []
    for each in columns:
        column = each.column if isinstance(each, Descending) else each
        found.append((access.column(column).key_of_row, isinstance(each, Descending)))
    return found


def _point(access: Access, condition: Condition, *, unique: bool = False) -> Plan | None:
    """Return the plan of the simplest and most frequent condition: one column with a (unique) index equals a value."""
    if not isinstance(condition, Comparison) or condition.operator != "==" or isinstance(condition.value, Column):
        return None
    of = access.column(condition.column)
    index = access.points.get(condition.column._position)
    if index is None or index.unique < unique:
        return None
    key, find_all = of.key(condition.value), index.find_all
    return Plan(lambda: find_all(key), None, lambda: f"index {index.name}: {condition!r}", False, ((index, (key,)),))


def _text(index: AnyIndex, used: list["_Part"], rest: list[Condition]) -> str:
    shown = " & ".join(repr(part.condition) for part in used)
    return f"index {index.name}: {shown}" + ("; then test " + " & ".join(map(repr, rest)) if rest else "")


# Parts of a conjunction


def _conjunction(condition: Condition) -> Iterator[Condition]:
    if isinstance(condition, And):
        yield from _conjunction(condition.left)
        yield from _conjunction(condition.right)
    else:
        yield condition


def _part(access: Access, condition: Condition) -> _Part:
    """Return a member of a conjunction with what an index could do with it."""
    match condition:
        case Comparison(operator="!=") | Comparison(value=Column()):
            return _Part(condition)
        case Comparison(operator="==", column=column, value=value):
            return _Part(condition, column._position, (access.column(column).key(value),))
        case Comparison(operator=sign, column=column, value=value):
            of = access.column(column)
            end: Bound = (of.ordered_key(value), sign in ("<=", ">="))
            lower, upper = (None, end) if sign[0] == "<" else (end, None)
            return _Part(condition, column._position, None, *_without_none(of, lower, upper))
        case Truth(column=column):
            return _Part(condition, column._position, (_bool_column(access, column).key(True),))
        case IsNone(column=column):
            return _Part(condition, column._position, (_optional_column(access, column).key(None),))
        case IsIn(column=column, values=values):
            return _Part(condition, column._position, tuple(dict.fromkeys(map(access.column(column).key, values))))
        case Between(column=column, low=low, high=high):
            of = access.column(column)
            ends = (of.ordered_key(low), True), (of.ordered_key(high), True)
            return _Part(condition, column._position, None, *_without_none(of, *ends))
        case StartsWith(column=column, prefix=prefix):
            of = _text_column(access, column)
            following = _following(prefix)
            last: Bound = None if following is None else (of.key(following), False)
            return _Part(condition, column._position, None, *_without_none(of, (of.key(prefix), True), last))
    return _Part(condition)


def _without_none(of: ColumnAccess, lower: Bound, upper: Bound) -> tuple[Bound, Bound]:
    """Return a range that ends before None in an optional column."""
    return (lower, (_NO_KEY, False)) if upper is None and of.inner is not None else (lower, upper)


def _bool_column(access: Access, column: Column) -> ColumnAccess:
    of = access.column(column)
    if of.type != BOOL:
        raise TypeError(f"{column!r} is no condition: only Bool columns stand alone; compare it with a value")
    return of


def _optional_column(access: Access, column: Column) -> ColumnAccess:
    of = access.column(column)
    if of.inner is None:
        raise TypeError(f"is_none({column!r}): the column is never None")
    return of


def _text_column(access: Access, column: Column) -> ColumnAccess:
    of = access.column(column)
    if STRING not in (of.type, of.inner):
        raise TypeError(f"starts_with({column!r}, …): the column is no text")
    return of


def _following(prefix: str) -> str | None:
    """Return the least text greater than all that begin with `prefix`; None when there is none."""
    for i in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[i]) + 1
        if code <= 0x10FFFF:
            return prefix[:i] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)
    return None


# Choosing an index


def _choose(indexes: Sequence[AnyIndex], parts: list[_Part]) -> tuple[AnyIndex, list[_Part]] | None:
    """Return the index that narrows most and the parts it serves, in index order."""
    best: tuple[AnyIndex, list[_Part]] | None = None
    best_rank = (0, 0)
    for index in indexes:
        used = _served(index, parts)
        if used and (rank := _rank(index, used)) > best_rank:
            best, best_rank = (index, used), rank
    return best


def _rank(index: AnyIndex, used: list[_Part]) -> tuple[int, int]:
    """Return how well an index serves; greater is better."""
    points = sum(part.equals is not None for part in used)
    if points == len(index.columns):
        several = any(part.equals is not None and len(part.equals) > 1 for part in used)
        return (4 if index.unique else 3) - several, points
    return 1, 2 * points + (len(used) > points)


def _served(index: AnyIndex, parts: list[_Part]) -> list[_Part]:
    """Return the parts that an index can serve: equalities of its first columns, then one range (not with hash)."""
    used: list[_Part] = []
    for column in index.columns:
        equal = next((part for part in parts if part.column == column and part.equals is not None), None)
        if equal is not None:
            used.append(equal)
            continue
        if index.definition.algorithm is not IndexAlgorithm.HASH:
            used += [part for part in parts if part.column == column and part.is_range][:2]
        break
    if index.definition.algorithm is IndexAlgorithm.HASH and len(used) < len(index.columns):
        return []
    return used[:-1] if len(used) > 1 and used[-1].is_range and used[-2].is_range and _clash(*used[-2:]) else used


def _clash(one: _Part, other: _Part) -> bool:
    """Tell whether two ranges bound the same end, so that an index can serve one of them only."""
    return (one.lower is not None and other.lower is not None) or (one.upper is not None and other.upper is not None)


def _fetch(index: AnyIndex, used: list[_Part]) -> Callable[[], Sequence[bytes]]:
    choices = [part.equals for part in used if part.equals is not None]
    lower = next((part.lower for part in used if part.lower is not None), None)
    upper = next((part.upper for part in used if part.upper is not None), None)
    scan, find_all = index.scan, index.find_all
    if len(choices) == len(index.columns) == 1:
        (only,) = choices
        if len(only) == 1:
            return lambda: find_all(only[0])
        return lambda: [row for key in only for row in find_all(key)]
    prefixes: list[tuple[Key, ...]] = [()]
    for choice in choices:
        prefixes = [(*prefix, key) for prefix in prefixes for key in choice]
    return lambda: [row for prefix in prefixes for row in scan(prefix, lower, upper)]


def _points(index: AnyIndex, used: list[_Part]) -> tuple[tuple[AnyIndex, tuple[Key, ...]], ...]:
    """Return the keys that `_fetch` looks up; none when it goes through a range."""
    choices = [part.equals for part in used if part.equals is not None]
    if len(choices) < len(index.columns):
        return ()
    return ((index, choices[0] if len(choices) == 1 else tuple(product(*choices))),)


def _union(access: Access, condition: Condition, parts: list[_Part]) -> Plan | None:
    """Return the plan of a disjunction all of whose sides have an index."""
    if len(parts) != 1 or not isinstance(condition, Or):
        return None
    sides = plan(access, condition.left), plan(access, condition.right)
    if any(side.is_scan for side in sides):
        return None
    return Plan(
        lambda: list(dict.fromkeys(row for side in sides for row in side.rows())),
        None,
        lambda: " or ".join(f"({side.explain()})" for side in sides),
        False,
        (*sides[0].points, *sides[1].points) if all(side.points for side in sides) else (),
    )


def _scan(access: Access, condition: Condition, test: Test) -> Plan:
    table = access.table
    text = f"scan of all rows of {table.schema.name}: no index serves "
    return Plan(lambda: list(table.rows()), test, lambda: text + repr(condition), True)


# Testing rows


def _all(access: Access, conditions: list[Condition]) -> Test | None:
    tests = [_test(access, each) for each in conditions]
    if len(tests) < 2:
        return tests[0] if tests else None
    return lambda row: all(test(row) for test in tests)


def _test(access: Access, condition: Condition) -> Test:
    """Return the function that tells whether a row meets a condition."""
    match condition:
        case And(left=left, right=right):
            first, second = _test(access, left), _test(access, right)
            return lambda row: first(row) and second(row)
        case Or(left=left, right=right):
            first, second = _test(access, left), _test(access, right)
            return lambda row: first(row) or second(row)
        case Not(condition=inner):
            test = _test(access, inner)
            return lambda row: not test(row)
        case Comparison(column=column, operator=sign, value=Column() as other):
            return _column_test(access.column(column), sign, access.column(other))
        case Comparison(column=column, operator="!=", value=value):
            key_of, unwanted = access.column(column).key_of_row, access.column(column).key(value)
            return lambda row: bool(key_of(row) != unwanted)
    return _part_test(access, _part(access, condition))


def _part_test(access: Access, part: _Part) -> Test:
    key_of, lower, upper = access.columns[part.column].key_of_row, part.lower, part.upper
    if part.equals is not None:
        wanted = part.equals
        if len(wanted) == 1:
            return lambda row: bool(key_of(row) == wanted[0])
        several = frozenset(wanted)
        return lambda row: key_of(row) in several

    def test(row: bytes) -> bool:
        key = key_of(row)
        if lower is not None and not (lower[0] < key or (lower[1] and lower[0] == key)):
            return False
        return upper is None or bool(key < upper[0] or (upper[1] and key == upper[0]))

    return test


def _column_test(one: ColumnAccess, sign: str, other: ColumnAccess) -> Test:
    if (one.inner or one.type) != (other.inner or other.type):
        raise TypeError(f"{one.name} {sign} {other.name}: the columns have different types")
    left, right = _optional_key(one), _optional_key(other)
    if sign in ("==", "!="):
        return lambda row: (left(row) == right(row)) is (sign == "==")
    compare = _ORDERINGS[sign]

    def test(row: bytes) -> bool:
        one_key, other_key = left(row), right(row)
        return one_key != _NO_KEY and other_key != _NO_KEY and compare(one_key, other_key)

    return test


def _optional_key(of: ColumnAccess) -> Callable[[bytes], Key]:
    """Return the key of a column as if it were optional, so that T and T | None compare."""
    key_of = of.key_of_row
    return key_of if of.inner is not None else lambda row: (0, key_of(row))
