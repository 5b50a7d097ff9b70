"""Row-level security: which rows of a table others than the owner see, put into their queries.

Responsible for: checking and storing the rules of a module; turning one query into the branches that its caller may
run.
Not responsible for: running branches (`query_plan`), counting and ordering over all of them (`analytic`), where rules
are kept (`stdb.datastore`).

A rule is a query of the subscription language; it protects the table that it returns. For everyone but the owner a
table with rules stands for the bag of what its rules return: a row that two rules return is there twice. A query
becomes one branch for each choice of a rule for each of its protected tables; its result is the bag union of the
branches. The same text given twice is one rule (it is the key of `st_row_level_security`).

Source: spec 06 section 6, spec 05 section 4 (texts of refused publishes), spec 04 section 13.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar, cast

from stdb.datastore.datastore import Datastore
from stdb.errors import QueryError, SchemaError
from stdb.schema.model import Access, ModuleDef, RowLevelSecurityDef
from stdb.sql.binder import (
    OWNER_ONLY,
    BoundRelation,
    BoundSelect,
    BoundStar,
    Caller,
    Comparison,
    Conjunction,
    Constant,
    Position,
    Typed,
)
from stdb.sql.predicate import size_of
from stdb.sql.row_query import bind_row_query

if TYPE_CHECKING:
    from stdb.datastore.table import Table

__all__ = ["BRANCHES_MAX", "DEPTH_MAX", "NODES_MAX", "TEXT_MAX", "check_rules", "expand", "replace_rules"]

BRANCHES_MAX = 1_000
"""Most branches of one query."""
NODES_MAX = 100_000
"""Most relations and parts of conditions in all branches of one query, or of all rules of a module, together."""
TEXT_MAX = 1_000_000
"""Most characters in all rules of a module together."""
DEPTH_MAX = 50
"""Most rules that stand within each other."""

_BROKEN = "The row-level security rules of this database cannot be applied; its owner has to publish them again"
_REPLACED = ("relations", "joins", "where", "is_parameterised")
_KEPT = tuple(each.name for each in fields(BoundSelect) if each.name not in _REPLACED)
"""What a branch has of its query: the projection, and all that is done with the rows."""

Value = TypeVar("Value")


# Queries.


def expand(bound: BoundSelect, datastore: Datastore, caller: Caller) -> list[BoundSelect]:
    """Return the branches that a query stands for; for the owner, and without rules, the query itself.

    Every branch has the query's projection and all that is done with its rows, for its own relations.
    `is_parameterised` is the same for all: whether any of them depends on who asks.

    Raises:
        QueryError: The query has too many branches. No text says what a rule says.
    """
    if caller.is_owner or not datastore.rules:
        return [bound]
    expansion = _Expansion(datastore, caller)
    try:
        choices = expansion.choices(bound, ())
    except QueryError as error:
        raise QueryError(_BROKEN) from error
    branches = expansion.combine(bound, choices)
    is_parameterised = any(branch.is_parameterised for branch in branches)
    return [
        branch if branch.is_parameterised is is_parameterised else replace(branch, is_parameterised=is_parameterised)
        for branch in branches
    ]


class _Expansion:
    """Reads the rules that one query needs, each table's once."""

    def __init__(self, datastore: Datastore, caller: Caller) -> None:
        self._datastore = datastore
        self._reader = Caller(caller.identity, is_owner=True)
        self._views: dict[int, tuple[BoundSelect, ...]] = {}
        self._nodes = 0

    def choices(self, bound: BoundSelect, within: tuple[int, ...]) -> list[tuple[BoundSelect, ...]]:
        """Return for each relation what may stand in its place; nothing where it stays.

        `within` are the tables whose rules this query is part of, the innermost last; a rule of that one sees it whole.
        """
        own = within[-1] if within else None
        tables = (relation.table.schema.id for relation in bound.relations)
        return [self._view(table_id, within) if table_id != own else () for table_id in tables]

    def _view(self, table_id: int, within: tuple[int, ...]) -> tuple[BoundSelect, ...]:
        """Return the queries whose bag union is what the caller sees of a table."""
        found = self._views.get(table_id)
        if found is None:
            texts = self._datastore.rules.get(table_id, ())
            found = tuple(branch for text in texts for branch in self.rule(table_id, text, within))
            self._views[table_id] = found
        return found

    def rule(self, table_id: int, text: str, within: tuple[int, ...]) -> list[BoundSelect]:
        """Return the branches of one rule of a table.

        Raises:
            QueryError: The rule needs itself, does not fit the tables, or has too many branches.
        """
        if table_id in within:
            raise QueryError(f"Discovered cyclic dependency when resolving RLS rules for table id `{table_id}`")
        if len(within) == DEPTH_MAX:
            raise QueryError(f"More than {DEPTH_MAX} row-level security rules need each other: shorten their chain")
        bound = bind_row_query(text, self._datastore, self._reader)
        if _protected(bound).schema.id != table_id:
            raise QueryError(f"The rule returns rows of another table than {table_id}")
        return self.combine(bound, self.choices(bound, (*within, table_id)))

    def combine(self, bound: BoundSelect, choices: Sequence[tuple[BoundSelect, ...]]) -> list[BoundSelect]:
        """Return a query once for each combination of what stands in the place of its relations.

        Raises:
            QueryError: It is too many times, or too large.
        """
        self._nodes += _checked_size(_nodes(bound), choices)
        if self._nodes > NODES_MAX:
            raise QueryError(f"The row-level security rules have more than {NODES_MAX} parts altogether: shorten them")
        if not any(choices):
            return [bound]
        return [_branch(bound, chosen) for chosen in product(*(each or (None,) for each in choices))]


def _protected(rule: BoundSelect) -> "Table":
    return rule.relations[_returned(rule)].table


def _returned(rule: BoundSelect) -> int:
    assert isinstance(rule.projection, BoundStar)
    return rule.projection.relation


# Branches.


def _checked_size(own: int, choices: Iterable[Sequence[BoundSelect]]) -> int:
    """Return how many parts the branches of a query of `own` parts have; refuse too many of them, or of branches."""
    replaced = [each for each in choices if each]
    count = prod(map(len, replaced))
    if count > BRANCHES_MAX:
        raise QueryError(
            f"Row-level security makes this query {count} alternatives, at most {BRANCHES_MAX} are possible: "
            "ask for fewer tables at once"
        )
    parts = count * (own + sum(max(map(_nodes, each)) for each in replaced))
    if parts > NODES_MAX:
        raise QueryError(
            f"Row-level security makes this query {count} alternatives of {parts} parts, at most {NODES_MAX} are "
            "possible: ask for fewer tables at once, or with a shorter condition"
        )
    return parts


def _nodes(bound: BoundSelect) -> int:
    return len(bound.relations) + (0 if bound.where is None else size_of(bound.where))


def _branch(bound: BoundSelect, chosen: Sequence[BoundSelect | None]) -> BoundSelect:
    """Return the query with rules in the place of relations.

    A rule at the left keeps its joins. A rule further right is crossed with what stands left of it, and the ON of the
    relation that it replaces becomes a condition: no index finds its rows, so such a query is not subscribed to.
    """
    relations: list[BoundRelation] = []
    joins: list[tuple[Position, Position] | None] = []
    terms: list[Typed] = []
    places: list[int] = []
    aliases = _Aliases(bound)
    for place, (relation, rule) in enumerate(zip(bound.relations, chosen, strict=True)):
        start = len(relations)
        on = bound.joins[place - 1] if place else None
        places.append(start if rule is None else start + _returned(rule))
        if rule is None:
            relations.append(relation)
            joins += [_moved(on, places)] if place else []
            continue
        inner = range(start, start + len(rule.relations))
        relations += aliases.renamed(rule, relation.alias)
        joins += [None] if place else []
        joins += _moved(rule.joins, inner)
        terms += _terms(rule.where, inner)
        if on is not None:
            left, right = _moved(on, places)
            terms.append(Comparison(left, (("=", right),)))
    terms += _terms(bound.where, places)
    return BoundSelect(
        relations=tuple(relations),
        joins=tuple(joins),
        where=terms[0] if len(terms) == 1 else Conjunction(True, tuple(terms)) if terms else None,
        is_parameterised=bound.is_parameterised or any(rule is not None and rule.is_parameterised for rule in chosen),
        **{name: _moved(getattr(bound, name), places) for name in _KEPT},
    )


class _Aliases:
    """Gives the relations of rules aliases that nothing else in a branch has."""

    def __init__(self, bound: BoundSelect) -> None:
        self._taken = {relation.alias for relation in bound.relations}
        self._last = 0

    def renamed(self, rule: BoundSelect, alias: str) -> list[BoundRelation]:
        """Return a rule's relations: the one it returns under the alias that it replaces, the others with a number."""
        returned = _returned(rule)
        return [
            BoundRelation(alias if place == returned else self._numbered(relation.alias), relation.table)
            for place, relation in enumerate(rule.relations)
        ]

    def _numbered(self, alias: str) -> str:
        while True:
            self._last += 1
            name = f"{alias}_{self._last}"
            if name not in self._taken:
                self._taken.add(name)
                return name


def _terms(where: Typed | None, places: Sequence[int]) -> list[Typed]:
    """Return the conditions that all have to hold, for relations that moved."""
    if where is None:
        return []
    moved = _moved(where, places)
    return list(moved.terms) if isinstance(moved, Conjunction) and moved.is_and else [moved]


def _moved(value: Value, places: Sequence[int]) -> Value:
    """Return any part of a bound query for relations that moved: relation `i` is now `places[i]`."""
    return cast(Value, _move(value, places))


def _move(value: Any, places: Sequence[int]) -> Any:
    match value:
        case Position(relation):
            return value._replace(relation=places[relation])
        case BoundStar(relation):
            return value._replace(relation=places[relation])
        case Constant():
            return value
        case tuple():
            inner = [_move(each, places) for each in value]
            return type(value)(*inner) if hasattr(value, "_fields") else tuple(inner)
    if is_dataclass(value) and type(value).__module__.startswith("stdb.sql."):
        parts = {each.name: _move(getattr(value, each.name), places) for each in fields(value)}
        return replace(cast(Any, value), **parts)
    return value


# Publishing.


def replace_rules(datastore: Datastore, rules: Iterable[RowLevelSecurityDef]) -> None:
    """Make these the rules of a database, in the place of all there are, within the open transaction.

    Call it behind every change of tables, also when the rules stay: they have to fit the tables as they are then. Rules
    that stay are no change to the log.

    Raises:
        SchemaError: A rule is no rule; holds every finding. The transaction has to be rolled back.
    """
    findings = _replace(datastore, rules)
    if findings:
        raise SchemaError(list(findings.values()))


def check_rules(definition: ModuleDef) -> dict[str, str]:
    """Return what is wrong with the rules of a module, as a publish answers it, by the text of the rule."""
    datastore = Datastore()
    datastore.begin(0)
    datastore.create_tables(ModuleDef(definition.typespace, definition.tables))
    return _replace(datastore, definition.row_level_security)


def _replace(datastore: Datastore, rules: Iterable[RowLevelSecurityDef]) -> dict[str, str]:
    """Replace the rules by those that are none to object to so far; return what is wrong, in the order of the rules."""
    texts = list(dict.fromkeys(rule.sql for rule in rules))
    if (length := sum(map(len, texts))) > TEXT_MAX:
        raise SchemaError([f"the rules of row-level security have {length} characters, at most {TEXT_MAX} together"])
    tables: dict[str, int] = {}
    findings: dict[str, str] = {}
    for text in texts:
        try:
            tables[text] = _table_to_protect(text, datastore).schema.id
        except QueryError as error:
            findings[text] = str(error)
    datastore.catalog.replace_rules([(table_id, text) for text, table_id in tables.items()])
    findings |= _unresolved(datastore, tables)
    return {text: _refusal(text, findings[text]) for text in texts if text in findings}


def _refusal(text: str, finding: str) -> str:
    shown = text.encode(errors="replace").decode()  # a text may hold what no answer can
    return f"failed to create row-level security: `{shown}`: {finding}"


_NOBODY = Caller(bytes(32), is_owner=True)


def _table_to_protect(text: str, datastore: Datastore) -> "Table":
    if not text.isprintable() and any("\ud800" <= character <= "\udfff" for character in text):
        raise QueryError("The text holds a lone surrogate, which UTF-8 cannot write")
    table = _protected(bind_row_query(text, datastore, _NOBODY))
    name = table.schema.name
    if table.schema.definition.access is Access.PRIVATE or name in OWNER_ONLY:
        raise QueryError(
            f"Cannot define RLS rule on private table: {name}. "
            "Please make table public if you wish to restrict access using RLS."
        )
    return table


def _unresolved(datastore: Datastore, tables: dict[str, int]) -> dict[str, str]:
    """Return what is wrong with rules once all are known: they need themselves, or become too large."""
    expansion = _Expansion(datastore, _NOBODY)
    branches: dict[int, list[BoundSelect]] = {}
    findings: dict[str, str] = {}
    for text, table_id in tables.items():
        try:
            branches.setdefault(table_id, []).extend(expansion.rule(table_id, text, ()))
        except QueryError as error:
            findings[text] = str(error)
    last = {table_id: text for text, table_id in tables.items()}
    for table_id, found in branches.items():
        try:
            _checked_size(1, [found])
        except QueryError as error:
            findings.setdefault(last[table_id], str(error))
    return findings
