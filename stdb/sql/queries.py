"""Queries of PostgreSQL's grammar: SELECT with all its clauses, set operations, WITH.

Responsible for: reading any query that PostgreSQL's grammar knows, so that a refusal can print it.
Not responsible for: which clauses a surface allows (`shape`).

Source: spec 06 sections 2 (which words may be an alias) and 3.
"""

from stdb.sql.cursor import syntax_error, words
from stdb.sql.expressions import ExpressionParser
from stdb.sql.lexer import QUOTED, STRING, WORD
from stdb.sql.syntax import (
    Column,
    Expression,
    Ident,
    Join,
    JoinKind,
    NotPositional,
    Offset,
    Query,
    Relation,
    Select,
    SelectItem,
    TableCall,
    TableFactor,
    TableName,
    Wildcard,
)

__all__ = ["QueryParser"]

_NO_COLUMN_ALIAS = words(
    """WITH EXPLAIN ANALYZE SELECT WHERE GROUP SORT HAVING ORDER TOP LATERAL VIEW LIMIT OFFSET FETCH UNION EXCEPT
    INTERSECT CLUSTER DISTRIBUTE FROM INTO END"""
)
_NO_TABLE_ALIAS = words(
    """WITH EXPLAIN ANALYZE SELECT WHERE GROUP SORT HAVING ORDER PIVOT TOP LATERAL VIEW LIMIT OFFSET FETCH UNION
    EXCEPT INTERSECT ON JOIN INNER CROSS FULL LEFT RIGHT NATURAL USING CLUSTER DISTRIBUTE OUTER SET QUALIFY WINDOW
    END PARTITION"""
)
_LISTS_AFTER_GROUP_BY = (("CLUSTER", "BY"), ("DISTRIBUTE", "BY"), ("SORT", "BY"))


class QueryParser(ExpressionParser):
    """Parses queries."""

    def query(self) -> Query:
        """Parse one query; counts one level of nesting."""
        with self.deeper():
            with_ = self._with() if self.take_keyword("WITH") else ""
            body = self._body()
            order_by = self.order_list() if self.take_keyword("ORDER", "BY") else ()
            limit, offset = self._limits()
            return Query(body, with_, order_by, limit, offset, self._tail_of_query())

    def _with(self) -> str:
        recursive = "RECURSIVE " if self.take_keyword("RECURSIVE") else ""
        return f"WITH {recursive}{', '.join(self.commas(self._common_table))}"

    def _common_table(self) -> str:
        name = str(self.identifier())
        if self.is_symbol("("):
            name += f" {self.parenthesised()}"
        self.expect_keyword("AS")
        materialized = "".join(f"{word} " for word in ("NOT", "MATERIALIZED") if self.take_keyword(word))
        self.expect_symbol("(")
        inner = self.query()
        self.expect_symbol(")")
        return f"{name} AS {materialized}({inner})"

    def _limits(self) -> tuple[Expression | None, Offset | None]:
        limit: Expression | None = None
        offset: Offset | None = None
        for _ in range(2):
            if limit is None and self.take_keyword("LIMIT"):
                limit = None if self.take_keyword("ALL") else self.expression()
            if offset is None and self.take_keyword("OFFSET"):
                offset = Offset(self.expression(), self.take_any_keyword("ROW", "ROWS"))
        return limit, offset

    def _tail_of_query(self) -> str:
        tail: list[str] = []
        if self.take_keyword("FETCH"):
            tail.append(self._fetch())
        while self.take_keyword("FOR"):
            tail.append(self._lock())
        return " ".join(tail)

    def _fetch(self) -> str:
        if not self.take_any_keyword("FIRST", "NEXT"):
            raise syntax_error("one of FIRST or NEXT", self.peek())
        quantity = ""
        if not self.is_any_keyword("ROW", "ROWS"):
            quantity = f" {self.expression()}"
            quantity += " PERCENT" if self.take_keyword("PERCENT") else ""
        if not self.take_any_keyword("ROW", "ROWS"):
            raise syntax_error("one of ROW or ROWS", self.peek())
        if self.take_keyword("ONLY"):
            return f"FETCH FIRST{quantity} ROWS ONLY"
        self.expect_keyword("WITH", "TIES")
        return f"FETCH FIRST{quantity} ROWS WITH TIES"

    def _lock(self) -> str:
        kind = self.take_any_keyword("UPDATE", "SHARE")
        if not kind:
            raise syntax_error("one of UPDATE or SHARE", self.peek())
        of = f" OF {self.table_name()}" if self.take_keyword("OF") else ""
        if self.take_keyword("NOWAIT"):
            return f"FOR {kind}{of} NOWAIT"
        return f"FOR {kind}{of} SKIP LOCKED" if self.take_keyword("SKIP", "LOCKED") else f"FOR {kind}{of}"

    # Bodies and set operations.

    def _body(self) -> Select | str:
        body = self._single_body()
        while operator := self.take_any_keyword("UNION", "EXCEPT", "INTERSECT"):
            quantifier = self.take_any_keyword("ALL", "DISTINCT")
            operator = f"{operator} {quantifier}".rstrip()
            body = f"{body} {operator} {self._single_body()}"
        return body

    def _single_body(self) -> Select | str:
        if self.take_keyword("SELECT"):
            return self._select()
        if self.take_keyword("VALUES"):
            return f"VALUES {', '.join(self.commas(self._row))}"
        if self.take_symbol("("):
            inner = self.query()
            self.expect_symbol(")")
            return f"({inner})"
        raise syntax_error("SELECT, VALUES, or a subquery in the query body", self.peek())

    def _row(self) -> str:
        return f"({', '.join(map(str, self.row_values()))})"

    def row_values(self) -> tuple[Expression, ...]:
        """Take one row of VALUES."""
        self.take_keyword("ROW")
        self.expect_symbol("(")
        values = [] if self.is_symbol(")") else self.commas(self.expression)
        self.expect_symbol(")")
        return tuple(values)

    # SELECT.

    def _select(self) -> Select:
        head = self._head()
        items = self.select_items()
        into = self._into() if self.take_keyword("INTO") else ""
        relations = tuple(self.commas(self.relation)) if self.take_keyword("FROM") else ()
        lateral_views = self._lateral_views()
        where = self.expression() if self.take_keyword("WHERE") else None
        group_by, all_groups = self._group_by()
        return Select(tuple(items), relations, where, head, into, lateral_views, group_by, self._tail(all_groups))

    def _group_by(self) -> tuple[tuple[Expression, ...], list[str]]:
        """Take GROUP BY: its expressions, or the clause printed when it is GROUP BY ALL."""
        if not self.take_keyword("GROUP", "BY"):
            return (), []
        if self.take_keyword("ALL"):
            return (), ["GROUP BY ALL"]
        return tuple(self.commas(self.expression)), []

    def _head(self) -> str:
        parts = []
        if not self.take_keyword("ALL") and self.take_keyword("DISTINCT"):
            on = f" ON {self.parenthesised()}" if self.take_keyword("ON") else ""
            parts.append(f"DISTINCT{on}")
        if self.take_keyword("TOP"):
            parts.append(self._top())
        return " ".join(parts)

    def _top(self) -> str:
        shown = self.parenthesised() if self.is_symbol("(") else f"({self._value()})"
        percent = " PERCENT" if self.take_keyword("PERCENT") else ""
        ties = " WITH TIES" if self.take_keyword("WITH", "TIES") else ""
        return f"TOP {shown}{percent}{ties}"

    def _into(self) -> str:
        kind = "".join(f"{word} " for word in ("TEMPORARY", "UNLOGGED", "TABLE") if self.take_keyword(word))
        return f"INTO {kind}{self.table_name()}"

    def _lateral_views(self) -> str:
        views = []
        while self.take_keyword("LATERAL", "VIEW"):
            outer = " OUTER" if self.take_keyword("OUTER") else ""
            view = f"LATERAL VIEW{outer} {self.expression()} {self.table_name()}"
            if self.take_keyword("AS"):
                view += f" AS {', '.join(map(str, self.commas(self.identifier)))}"
            views.append(view)
        return " ".join(views)

    def _tail(self, parts: list[str]) -> str:
        for clause in _LISTS_AFTER_GROUP_BY:
            if self.take_keyword(*clause):
                parts.append(f"{' '.join(clause)} {', '.join(map(str, self.commas(self.expression)))}")
        if self.take_keyword("HAVING"):
            parts.append(f"HAVING {self.expression()}")
        if self.take_keyword("WINDOW"):
            parts.append(f"WINDOW {', '.join(self.commas(self._window))}")
        if self.take_keyword("QUALIFY"):
            parts.append(f"QUALIFY {self.expression()}")
        return " ".join(parts)

    def _window(self) -> str:
        name = self.identifier()
        self.expect_keyword("AS")
        return f"{name} AS {self.parenthesised()}"

    def select_items(self) -> list[SelectItem]:
        """Take a SELECT list."""
        return self.commas(self._select_item)

    def _select_item(self) -> SelectItem:
        if self.take_symbol("*"):
            return SelectItem(Wildcard(None))
        value = self.expression()
        if isinstance(value, Column) and self.is_symbol(".") and self.is_symbol("*", 1):
            self.at += 2
            return SelectItem(Wildcard(TableName(value.parts)))
        return SelectItem(value, self._alias(_NO_COLUMN_ALIAS))

    def _alias(self, reserved: frozenset[str]) -> Ident | None:
        if self.take_keyword("AS"):
            return self.identifier()
        token = self.peek()
        if token.kind in (QUOTED, STRING) or (token.kind == WORD and token.keyword not in reserved):
            return self.identifier()
        return None

    # FROM.

    def relation(self) -> Relation:
        """Take one relation with its joins."""
        table = self._table()
        joins: list[Join] = []
        while (join := self._join()) is not None:
            joins.append(join)
        return Relation(table, tuple(joins))

    def _table(self) -> TableFactor:
        if self.is_keyword("LATERAL") and (self.is_symbol("(", 1) or self.is_symbol("(", 2)):
            self.at += 1
            if self.is_symbol("("):
                return self._other_table(f"LATERAL {self._subquery()}")
            return self._other_table(f"LATERAL {self.table_name()}{self.parenthesised()}")
        if self.is_symbol("("):
            return self._parenthesised_table()
        if self.is_keyword("UNNEST") and self.is_symbol("(", 1):
            self.at += 1
            return self._other_table(f"UNNEST{self.parenthesised()}")
        if self.is_keyword("VALUES") and self.is_symbol("(", 1):
            return self._other_table(str(self._single_body()))
        name = self.table_name()
        return self._called_table(name) if self.is_symbol("(") else self._named_table(name)

    def _called_table(self, name: TableName) -> TableFactor:
        start = self.at
        args = self.attempt(self._call_arguments)
        self.at = start
        call = f"{name}{self.parenthesised()}"
        factor = self._other_table(call)
        is_plain = factor.shown == (call if factor.alias is None else f"{call} AS {factor.alias}")
        return factor._replace(call=TableCall(name, args)) if is_plain and args is not None else factor

    def _call_arguments(self) -> tuple[Expression | NotPositional, ...]:
        self.expect_symbol("(")
        args = () if self.is_symbol(")") else tuple(self.commas(self._call_argument))
        self.expect_symbol(")")
        return args

    def _call_argument(self) -> Expression | NotPositional:
        if self.take_symbol("*"):
            return NotPositional("*")
        value = self.expression()
        return NotPositional(f"{value} => {self.expression()}") if self.take_symbol("=>") else value

    def _named_table(self, name: TableName) -> TableFactor:
        alias = self._alias(_NO_TABLE_ALIAS)
        shown = str(name) if alias is None else f"{name} AS {alias}"
        columns = ""
        if alias is not None and self.is_symbol("("):
            columns = f" {self.parenthesised()}"
        hints = ""
        if self.is_keyword("WITH") and self.is_symbol("(", 1):
            self.at += 1
            hints = f" WITH {self.parenthesised()}"
        return TableFactor(None if columns or hints else name, alias, shown + columns + hints)

    def _other_table(self, shown: str) -> TableFactor:
        alias = self._alias(_NO_TABLE_ALIAS)
        if alias is not None:
            shown += f" AS {alias}"
            if self.is_symbol("("):
                shown += f" {self.parenthesised()}"
        return TableFactor(None, alias, shown)

    def _subquery(self) -> str:
        self.expect_symbol("(")
        inner = self.query()
        self.expect_symbol(")")
        return f"({inner})"

    def _parenthesised_table(self) -> TableFactor:
        subquery = self.attempt(self._subquery)
        if subquery is not None:
            return self._other_table(subquery)
        self.expect_symbol("(")
        with self.deeper():
            inner = self.relation()
        self.expect_symbol(")")
        return self._other_table(f"({inner})")

    def _join(self) -> Join | None:
        if self.take_keyword("CROSS", "JOIN"):
            table = self._table()
            return Join(JoinKind.CROSS, table, None, f"CROSS JOIN {table}")
        natural = "NATURAL " if self.take_keyword("NATURAL") else ""
        kind = self._join_kind(is_needed=bool(natural))
        if kind is None:
            return None
        table = self._table()
        shown = f"{natural}{kind} {table}"
        if natural:
            return Join(JoinKind.OTHER, table, None, shown)
        allowed = JoinKind.INNER if kind == "JOIN" else JoinKind.OTHER
        if self.take_keyword("ON"):
            on = self.expression()
            return Join(allowed, table, on, f"{shown} ON {on}")
        if self.take_keyword("USING"):
            return Join(JoinKind.OTHER, table, None, f"{shown} USING{self.parenthesised()}")
        return Join(allowed, table, None, shown)

    def _join_kind(self, *, is_needed: bool) -> str | None:
        """Take the words of a join; return them printed, None when no join follows."""
        if self.take_keyword("JOIN") or self.take_keyword("INNER", "JOIN"):
            return "JOIN"
        side = self.take_any_keyword("LEFT", "RIGHT", "FULL")
        if side:
            kind = self.take_any_keyword("OUTER", "SEMI", "ANTI")
            self.expect_keyword("JOIN")
            return f"{side} {kind} JOIN" if kind in ("SEMI", "ANTI") else f"{side} JOIN"
        if is_needed or self.is_keyword("INNER"):
            raise syntax_error("a join type after NATURAL" if is_needed else "JOIN", self.peek())
        if self.is_keyword("OUTER"):
            raise syntax_error("LEFT, RIGHT, or FULL", self.peek())
        return None
