"""Running SQL: text to a plan that a subscription keeps, or to rows.

Responsible for: the three entry points (subscription, one-off query, full SQL), SHOW, the row limit, the bound on work.
Not responsible for: HTTP bodies (`stdb.net`), keeping plans (`stdb.subscriptions`), rows of results (`statement`).

Source: spec 06 sections 1, 3 (rules 16 to 22), 4 and 7; DESIGN decision 14.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stdb.errors import QueryError
from stdb.schema.model import Access
from stdb.sql.binder import Caller, bind_select, is_readable_by_all
from stdb.sql.changes import ROW_LIMIT_VARIANT, ChangeStatement, bind_change, check_may_change, check_variable
from stdb.sql.joins import check_joins
from stdb.sql.lexer import is_plain_name
from stdb.sql.parser import parse, parse_all
from stdb.sql.query_plan import QueryPlan
from stdb.sql.row_query import bind_picking_query
from stdb.sql.rules import expand
from stdb.sql.shape import sql_shape
from stdb.sql.shapes import Chain, Columns, Field, SelectShape, ShapedTable, ShowShape
from stdb.sql.statement import SelectStatement, SqlResult
from stdb.sql.syntax import Delete, Insert, Literal, LiteralKind, SetVariable, Statement, Update
from stdb.sql.work import Work, finish

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore
    from stdb.datastore.table import Table

__all__ = [
    "QUERY_ROWS_MAX",
    "READ_ONLY",
    "check_row_limit",
    "compile_one_off",
    "compile_reading",
    "compile_sql",
    "compile_statements",
    "compile_subscription",
    "is_subscribe_to_all",
    "quote_name",
    "readable_names",
    "row_limit",
    "run_sql",
    "work_of",
]

QUERY_ROWS_MAX = 10_000_000
"""Default bound on rows visited and produced by one query; a tenth of it for others than the owner."""

READ_ONLY = "One-off queries are not allowed to modify the database"

_ALL_TABLES = re.compile(r"\s*select\s+\*\s+from\s+\*\s*", re.IGNORECASE)


def work_of(caller: Caller, rows_max: int = QUERY_ROWS_MAX) -> Work:
    """Return the bound on what a statement of this caller may cost: a tenth for others than the owner."""
    return Work(rows_max if caller.is_owner else rows_max // 10)


# Subscriptions and one-off queries.


def compile_subscription(text: str, datastore: "Datastore", caller: Caller) -> QueryPlan:
    """Return the plan of a query of the subscription language.

    Raises:
        QueryError: It is none, or not one that may be subscribed to.
    """
    return _compile(text, datastore, caller, is_subscription=True)


def compile_one_off(text: str, datastore: "Datastore", caller: Caller) -> QueryPlan:
    """Return the plan of a one-off query: the same language, but joins need no index.

    Raises:
        QueryError: It is none.
    """
    return _compile(text, datastore, caller, is_subscription=False)


def _compile(text: str, datastore: "Datastore", caller: Caller, *, is_subscription: bool) -> QueryPlan:
    bound, columns = bind_picking_query(text, datastore, caller)
    branches = expand(bound, datastore, caller)
    if is_subscription:
        for branch in branches:
            check_joins(branch)
    return QueryPlan(branches, is_parameterised=branches[0].is_parameterised, columns=columns)


def is_subscribe_to_all(text: str) -> bool:
    """Tell whether a text is `SELECT * FROM *`, in any letters and with any white space."""
    return _ALL_TABLES.fullmatch(text) is not None


def readable_names(datastore: "Datastore", caller: Caller) -> list[str]:
    """Return the tables and views of `SELECT * FROM *`, in order: private ones for the owner alone.

    Event tables are none of them (spec 02 section 6.3), nor are views that take arguments (we, spec 09 section 9).
    """
    tables = (table.schema.definition for table in datastore.tables.values() if not table.schema.is_system)
    names = [
        table.name for table in tables if not table.is_event and (caller.is_owner or table.access is Access.PUBLIC)
    ]
    views = () if datastore.views is None or caller.language.hides_tables else datastore.views.shapes()
    names += [view.name for view in views if not view.params.elements and (caller.is_owner or view.is_public)]
    return sorted(names)


def quote_name(name: str) -> str:
    """Return a name as SQL text, quoted where it must be."""
    return name if is_plain_name(name) else '"' + name.replace('"', '""') + '"'


def row_limit(datastore: "Datastore") -> int | None:
    """Return the system variable `row_limit`; None when it is not set."""
    table = datastore.table("st_var")
    for row in table.rows():
        name, (variant, value) = table.schema.codec.decode_exact(row)
        if name == "row_limit" and variant == ROW_LIMIT_VARIANT:
            limit: int = value
            return limit
    return None


# Full SQL.


def compile_sql(text: str, datastore: "Datastore", caller: Caller) -> SelectStatement | ChangeStatement:
    """Return one statement of full SQL, ready to run: a change runs in an open transaction.

    Raises:
        QueryError: It is none, or not for this caller.
    """
    return _compiled(parse(text), datastore, caller)


def compile_reading(text: str, datastore: "Datastore", caller: Caller) -> list[SelectStatement]:
    """Return any number of statements of full SQL that read.

    Raises:
        QueryError: One is none, or not for this caller, or changes something.
    """
    statements = parse_all(text)
    if any(isinstance(statement, Insert | Update | Delete | SetVariable) for statement in statements):
        raise QueryError(READ_ONLY)
    compiled = (_compiled(statement, datastore, caller) for statement in statements)
    return [statement for statement in compiled if isinstance(statement, SelectStatement)]


def compile_statements(text: str, datastore: "Datastore", caller: Caller) -> list[SelectStatement | ChangeStatement]:
    """Return any number of statements of full SQL, all of them good; none is run yet.

    Raises:
        QueryError: One is none, or not for this caller.
    """
    return [_compiled(statement, datastore, caller) for statement in parse_all(text)]


def _compiled(statement: Statement, datastore: "Datastore", caller: Caller) -> SelectStatement | ChangeStatement:
    shape = sql_shape(statement, caller.language)
    if isinstance(shape, ShowShape):
        check_variable(shape.name, caller)
        shape = _show(shape, caller)
    if not isinstance(shape, SelectShape):
        return bind_change(shape, datastore, caller)
    bound = bind_select(shape, datastore, caller)
    return SelectStatement(bound, expand(bound, datastore, caller))


def _show(shape: ShowShape, caller: Caller) -> SelectShape:
    """Return SHOW as the SELECT that it stands for."""
    columns = Columns(((Field("st_var", "value"), "value"),))
    if caller.language.keeps_settings:
        check_may_change(caller)
        columns = Columns(((Field("st_var", "name"), "name"), *columns.fields))
    name = Literal(LiteralKind.STRING, shape.name, f"'{shape.name}'")
    condition = Chain(Field("st_var", "name"), (("=", name),))
    return SelectShape(columns, ShapedTable("st_var", "st_var"), (), condition)


def check_row_limit(
    plans: "Sequence[QueryPlan | SelectStatement]", datastore: "Datastore", caller: Caller, suffix: str = ""
) -> None:
    """Check the rows that queries are thought to scan against `row_limit`; the owner has none. `suffix` ends the text.

    The text has no estimate where that would tell how many rows there are of a table whose rows the caller may not see.

    Raises:
        QueryError: They are more.
    """
    limit = None if caller.is_owner else row_limit(datastore)
    if limit is None:
        return
    estimate = sum(plan.estimate() for plan in plans)
    if estimate > limit:
        is_told = all(_shows_all_rows(table, datastore) for plan in plans for table in plan.tables)
        shown = f" ({estimate} rows)" if is_told else ""
        raise QueryError(f"Estimated cardinality{shown} exceeds limit ({limit} rows){suffix}")


def _shows_all_rows(table: "Table", datastore: "Datastore") -> bool:
    return is_readable_by_all(table) and table.schema.id not in datastore.rules


def run_sql(text: str, datastore: "Datastore", caller: Caller, *, rows_max: int = QUERY_ROWS_MAX) -> SqlResult:
    """Return the answer to one statement that reads, without a pause. `rows_max` is the owner's bound.

    Raises:
        QueryError: It does not compile, changes rows, is above the row limit, or costs too much.
    """
    statement = compile_sql(text, datastore, caller)
    if isinstance(statement, ChangeStatement):
        raise QueryError("The statement changes rows: it must be run in a transaction")
    check_row_limit([statement], datastore, caller)
    return finish(statement.steps(work_of(caller, rows_max)))
