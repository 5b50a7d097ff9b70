"""Predicates: a typed condition to a function from row bytes to bool, and to the values that prune.

Responsible for: compiling conditions over one table or over joined rows; finding the columns a condition fixes to
constants.
Not responsible for: choosing indexes (`plan`), which rows to ask about.

Compiled predicates are generated source over keys (ARCHITECTURE: equality and order of keys are those of values); only
names the generator made up stand in it. `evaluate` is their plain twin.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple, TypeAlias

from stdb.sats import keys
from stdb.sats.types import Product
from stdb.sql.binder import COMPARISONS, Comparison, Conjunction, Constant, Position, Typed

__all__ = [
    "JoinPredicate",
    "Predicate",
    "Restriction",
    "compile_joined",
    "compile_predicate",
    "evaluate",
    "relations_of",
    "restriction",
    "row_cost",
    "size_of",
    "terms_of",
]

Predicate: TypeAlias = Callable[[bytes], bool]
JoinPredicate: TypeAlias = Callable[[tuple[bytes, ...]], bool]
"""A condition over joined rows, given as a tuple."""

_KEYS_MAX = 2_048
"""Most combinations of constants that a condition is pruned by."""
_CHEAP_PARTS = 50
"""Parts of a condition that are looked at in the time that all else takes with a row."""
_PYTHON_OPERATOR = {"=": "==", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


# Compiling.


def compile_predicate(condition: Typed, row_type: Product) -> Predicate:
    """Return the condition as a function of a row's bytes. The condition is over one table."""
    match condition:
        case Comparison(Position(_, column), (("=", Constant(key)),)):
            return _equal_to(keys.row_key(row_type, (column,)), key)
    source = _Source()
    result = source.emit(condition)
    columns = tuple(sorted(column for _, column in source.columns))
    if not columns:
        return _always(evaluate(condition, {}))
    unpacked = ", ".join(f"c0_{column}" for column in columns)
    predicate: Predicate = source.make([f"{unpacked} = x0(row)"], result, [keys.row_key(row_type, columns)])
    return predicate


def compile_joined(condition: Typed, row_types: Sequence[Product], places: Sequence[int]) -> JoinPredicate:
    """Return a condition over several relations as a function of a tuple of rows.

    `row_types` are those of the relations, `places` says where in the tuple the row of each relation stands.
    """
    source = _Source(is_joined=True)
    result = source.emit(condition)
    by_relation: dict[int, list[int]] = {}
    for relation, column in sorted(source.columns):
        by_relation.setdefault(relation, []).append(column)
    unpacking: list[str] = []
    extracts: list[Callable[[bytes], Any]] = []
    for relation, columns in by_relation.items():
        unpacked = ", ".join(f"c{relation}_{column}" for column in columns)
        unpacking.append(f"{unpacked} = x{len(extracts)}(row[{places[relation]}])")
        extracts.append(keys.row_key(row_types[relation], tuple(columns)))
    predicate: JoinPredicate = source.make(unpacking, result, extracts)
    return predicate


def _equal_to(extract: Callable[[bytes], Any], key: Any) -> Predicate:
    return lambda row: extract(row) == key


def _always(answer: bool) -> Predicate:
    return lambda row: answer


class _Source:
    """Source of one predicate. Operands of comparisons that are conditions themselves become lines before it.

    Unless it `is_joined`, every column is one of the same row, whatever relation its position says.
    """

    def __init__(self, *, is_joined: bool = False) -> None:
        self.is_joined = is_joined
        self.columns: set[tuple[int, int]] = set()
        self.constants: list[Any] = []
        self.lines: list[str] = []

    def make(self, unpacking: list[str], result: str, extracts: list[Callable[[bytes], Any]]) -> Any:
        """Return the function of `row` whose columns `unpacking` reads and whose outcome is `result`."""
        body = "\n".join(f"        {line}" for line in (*unpacking, *self.lines, f"return {result}"))
        names = [f"x{place}" for place in range(len(extracts))] + [f"k{place}" for place in range(len(self.constants))]
        namespace: dict[str, Any] = {}
        exec(f"def make({', '.join(names)}):\n    def matches(row):\n{body}\n    return matches\n", namespace)
        return namespace["make"](*extracts, *self.constants)

    def emit(self, condition: Typed) -> str:
        match condition:
            case Constant(key):
                if isinstance(key, bool):
                    return str(key)
                self.constants.append(key)
                return f"k{len(self.constants) - 1}"
            case Position(relation, column):
                relation = relation if self.is_joined else 0
                self.columns.add((relation, column))
                return f"c{relation}_{column}"
            case Conjunction(is_and, terms):
                return "(" + (" and " if is_and else " or ").join(map(self.emit, terms)) + ")"
            case Comparison(first, rest):
                return self._chain(self._leaf(first), rest)
        raise AssertionError(condition)

    def _chain(self, left: str, rest: tuple[tuple[str, Typed], ...]) -> str:
        for operator, operand in rest[:-1]:
            left = self._line(f"{left} {_PYTHON_OPERATOR[operator]} {self._leaf(operand)}")
        operator, operand = rest[-1]
        return f"{left} {_PYTHON_OPERATOR[operator]} {self._leaf(operand)}"

    def _leaf(self, operand: Typed) -> str:
        shown = self.emit(operand)
        return shown if isinstance(operand, Constant | Position) else self._line(shown)

    def _line(self, expression: str) -> str:
        name = f"t{len(self.lines)}"
        self.lines.append(f"{name} = {expression}")
        return name


def evaluate(condition: Typed, row: Any) -> Any:
    """Return what a condition, or an operand of one, is for a row given as its keys by column. The plain twin."""
    match condition:
        case Constant(key):
            return key
        case Position(_, column):
            return row[column]
        case Conjunction(is_and, terms):
            outcomes = (evaluate(term, row) for term in terms)
            return all(outcomes) if is_and else any(outcomes)
        case Comparison(first, rest):
            value = evaluate(first, row)
            for operator, operand in rest:
                value = COMPARISONS[operator](value, evaluate(operand, row))
            return value
    raise AssertionError(condition)


# What a condition is made of.


def terms_of(condition: Typed | None) -> list[Typed]:
    """Return the terms that all must hold for a condition to hold; none for no condition."""
    match condition:
        case None:
            return []
        case Conjunction(True, terms):
            return [inner for term in terms for inner in terms_of(term)]
    return [condition]


def relations_of(operand: Typed) -> set[int]:
    """Return the relations whose columns an expression mentions."""
    match operand:
        case Position(relation):
            return {relation}
        case Comparison(first, rest):
            return relations_of(first).union(*(relations_of(each) for _, each in rest))
        case Conjunction(_, terms):
            return set().union(*map(relations_of, terms))
    return set()


def size_of(condition: Typed) -> int:
    """Return of how many parts an expression is made."""
    match condition:
        case Conjunction(_, terms):
            return 1 + sum(map(size_of, terms))
        case Comparison(first, rest):
            return 1 + size_of(first) + sum(size_of(operand) for _, operand in rest)
    return 1


def row_cost(*conditions: Typed | None) -> float:
    """Return how many times as much as all else with a row it costs to look at these conditions."""
    return sum(size_of(each) for each in conditions if each is not None) / _CHEAP_PARTS


# What a condition fixes.


class Restriction(NamedTuple):
    """Columns (ascending) of which every matching row has one of these combinations of keys.

    `is_exact`: and every row that has one matches.
    """

    columns: tuple[int, ...]
    combinations: frozenset[tuple[Any, ...]]
    is_exact: bool


def restriction(condition: Typed) -> Restriction | None:
    """Return the constants that a condition fixes columns to; None when it fixes none."""
    match condition:
        case Comparison(Position(_, column), (("=", Constant(key)),)):
            return Restriction((column,), frozenset(((key,),)), is_exact=True)
        case Comparison(Constant(key), (("=", Position(_, column)),)):
            return Restriction((column,), frozenset(((key,),)), is_exact=True)
        case Position(_, column):  # a boolean column standing alone
            return Restriction((column,), frozenset(((True,),)), is_exact=True)
        case Conjunction(True, terms):
            return _of_all(terms)
        case Conjunction(False, terms):
            return _of_any(terms)
    return None


def _of_all(terms: tuple[Typed, ...]) -> Restriction | None:
    found: Restriction | None = None
    is_exact = True
    for term in terms:
        part = restriction(term)
        if part is None or (found is not None and not _fits(found, part)):
            is_exact = False
            continue
        is_exact = is_exact and part.is_exact
        found = part if found is None else _combined(found, part)
    return None if found is None else found._replace(is_exact=is_exact)


def _fits(left: Restriction, right: Restriction) -> bool:
    is_disjoint = not set(left.columns) & set(right.columns)
    return is_disjoint and len(left.combinations) * len(right.combinations) <= _KEYS_MAX


def _combined(left: Restriction, right: Restriction) -> Restriction:
    columns = tuple(sorted(left.columns + right.columns))
    places = [(left.columns + right.columns).index(column) for column in columns]
    combinations = (first + second for first, second in product(left.combinations, right.combinations))
    return Restriction(columns, frozenset(tuple(each[place] for place in places) for each in combinations), True)


def _of_any(terms: tuple[Typed, ...]) -> Restriction | None:
    parts = []
    for term in terms:
        part = restriction(term)
        if part is None:
            return None
        parts.append(part)
    common = set(parts[0].columns).intersection(*(part.columns for part in parts[1:]))
    if not common:
        return None
    columns = tuple(sorted(common))
    combinations = frozenset(each for part in parts for each in _projected(part, columns))
    if len(combinations) > _KEYS_MAX:
        return None
    is_exact = all(part.is_exact and part.columns == columns for part in parts)
    return Restriction(columns, combinations, is_exact)


def _projected(part: Restriction, columns: tuple[int, ...]) -> list[tuple[Any, ...]]:
    places = [part.columns.index(column) for column in columns]
    return [tuple(combination[place] for place in places) for combination in part.combinations]
