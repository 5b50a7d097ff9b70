"""Running SQL: text to a plan that a subscription keeps, or to rows.

Responsible for: the three entry points (subscription, one-off query, full SQL), result columns, COUNT, LIMIT, the bound
on work.
Not responsible for: HTTP bodies (`stdb.net`), keeping plans (`stdb.subscriptions`).

Source: spec 06 sections 1, 3 (rules 16 to 22), 4 and 7; DESIGN decision 14.
"""

import re
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from stdb.errors import QueryError
from stdb.sats import bsatn, keys
from stdb.sats.types import U64, Element, Product
from stdb.schema.model import Access
from stdb.sql.binder import (
    BoundColumns,
    BoundCount,
    BoundSelect,
    BoundStar,
    Caller,
    bind_select,
)
from stdb.sql.changes import ROW_LIMIT_VARIANT, SqlStats, bind_change, check_variable
from stdb.sql.joins import check_joins
from stdb.sql.lexer import is_plain_name
from stdb.sql.parser import parse
from stdb.sql.plan import TablePlan
from stdb.sql.shape import (
    Chain,
    Columns,
    Field,
    SelectShape,
    ShapedTable,
    ShowShape,
    sql_shape,
    subscription_shape,
)
from stdb.sql.syntax import Literal, LiteralKind

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore
    from stdb.datastore.table import Table

__all__ = [
    "QUERY_ROWS_MAX",
    "SqlPlan",
    "SqlResult",
    "SqlStats",
    "compile_one_off",
    "compile_sql",
    "compile_subscription",
    "is_subscribe_to_all",
    "quote_name",
    "readable_user_tables",
    "row_limit",
    "run_sql",
]

QUERY_ROWS_MAX = 10_000_000
"""Default bound on rows visited and produced by one query; a tenth of it for others than the owner."""

_NO_JOINS = "Unsupported: joins are not supported yet by this server"
_NO_CHANGES = "Unsupported: INSERT, UPDATE, DELETE and SET are not supported yet by this server; call a reducer instead"
_ALL_TABLES = re.compile(r"\s*select\s+\*\s+from\s+\*\s*", re.IGNORECASE)


class SqlResult(NamedTuple):
    """The answer to one statement: columns (names and types) and rows as plain values."""

    row_type: Product
    rows: list[tuple[Any, ...]]
    stats: SqlStats = SqlStats()


# Subscriptions and one-off queries.


def compile_subscription(text: str, datastore: "Datastore", caller: Caller) -> TablePlan:
    """Return the plan of a query of the subscription language.

    Raises:
        QueryError: It is none, or not one that may be subscribed to.
    """
    return _compile(text, datastore, caller, is_subscription=True)


def compile_one_off(text: str, datastore: "Datastore", caller: Caller) -> TablePlan:
    """Return the plan of a one-off query: the same language, but joins need no index.

    Raises:
        QueryError: It is none.
    """
    return _compile(text, datastore, caller, is_subscription=False)


def _compile(text: str, datastore: "Datastore", caller: Caller, *, is_subscription: bool) -> TablePlan:
    bound = bind_select(_query_shape(text), datastore, caller)
    if not isinstance(bound.projection, BoundStar):
        raise QueryError(
            "Column projections are not supported in subscriptions; Subscriptions must return a table type"
        )
    if len(bound.relations) > 1:
        if is_subscription:
            check_joins(bound)
        raise QueryError(_NO_JOINS)
    return _table_plan(bound)


@lru_cache(maxsize=1024)
def _query_shape(text: str) -> SelectShape:
    """Return the shape of a query; kept, because many clients send the same text."""
    return subscription_shape(parse(text))


def _table_plan(bound: BoundSelect) -> TablePlan:
    return TablePlan(bound.relations[0].table, bound.where, is_parameterised=bound.is_parameterised)


def is_subscribe_to_all(text: str) -> bool:
    """Tell whether a text is `SELECT * FROM *`, in any letters and with any white space."""
    return _ALL_TABLES.fullmatch(text) is not None


def readable_user_tables(datastore: "Datastore", caller: Caller) -> "list[Table]":
    """Return the tables of `SELECT * FROM *`, by name: no event tables, private ones for the owner alone."""
    tables = (table for table in datastore.tables.values() if not table.schema.is_system)
    readable = [
        table
        for table in tables
        if not table.schema.definition.is_event and (caller.is_owner or table.schema.definition.access is Access.PUBLIC)
    ]
    return sorted(readable, key=lambda table: table.schema.name)


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


class SqlPlan(NamedTuple):
    """A SELECT over one table, ready to run."""

    plan: TablePlan
    projection: BoundStar | BoundColumns | BoundCount
    limit: int | None

    @property
    def row_type(self) -> Product:
        """The columns of the result."""
        columns = self.plan.table.schema.row_type.elements
        match self.projection:
            case BoundCount(name):
                return Product((Element(name, U64),))
            case BoundColumns(listed):
                return Product(tuple(Element(name, position.type) for position, name in listed))
        return Product(columns)

    def estimate(self) -> int:
        """Return how many rows are thought to be scanned."""
        return self.plan.estimate(None if isinstance(self.projection, BoundCount) else self.limit)

    def run(self, rows_max: int) -> SqlResult:
        """Return the result.

        Raises:
            QueryError: More than `rows_max` rows were visited and produced.
        """
        if isinstance(self.projection, BoundCount):
            return SqlResult(self.row_type, [] if self.limit == 0 else [(self.plan.count(rows_max),)])
        found = self.plan.scan(rows_max)
        wanted = found if self.limit is None else islice(found, min(self.limit, len(self.plan.table)))
        return SqlResult(self.row_type, list(map(self._reader(), wanted)))

    def _reader(self) -> Any:
        """Return the function from a row's bytes to the values of its result row."""
        row_type = self.plan.table.schema.row_type
        if isinstance(self.projection, BoundStar):
            return bsatn.codec(row_type).decode_exact
        assert isinstance(self.projection, BoundColumns)
        columns = [keys.row_column(row_type, position.column) for position, _ in self.projection.columns]
        return lambda row: tuple([column(row) for column in columns])


def compile_sql(text: str, datastore: "Datastore", caller: Caller) -> SqlPlan:
    """Return the plan of one statement of full SQL.

    Raises:
        QueryError: It is none, not for this caller, or one that this server does not run yet.
    """
    shape = sql_shape(parse(text))
    if isinstance(shape, ShowShape):
        check_variable(shape.name)
        shape = _show(shape)
    if not isinstance(shape, SelectShape):
        bind_change(shape, datastore, caller)
        raise QueryError(_NO_CHANGES)
    bound = bind_select(shape, datastore, caller)
    if len(bound.relations) > 1:
        raise QueryError(_NO_JOINS)
    return SqlPlan(_table_plan(bound), bound.projection, bound.limit)


def _show(shape: ShowShape) -> SelectShape:
    """Return SHOW as the SELECT that it stands for."""
    name = Literal(LiteralKind.STRING, shape.name, f"'{shape.name}'")
    condition = Chain(Field("st_var", "name"), (("=", name),))
    columns = Columns(((Field("st_var", "value"), "value"),))
    return SelectShape(columns, ShapedTable("st_var", "st_var"), (), condition)


def run_sql(text: str, datastore: "Datastore", caller: Caller, *, rows_max: int = QUERY_ROWS_MAX) -> SqlResult:
    """Return the answer to one SQL statement. `rows_max` is the owner's bound; others have a tenth of it.

    Raises:
        QueryError: It does not compile, is above the row limit, or visits too many rows.
    """
    plan = compile_sql(text, datastore, caller)
    limit = None if caller.is_owner else row_limit(datastore)
    if limit is not None and (estimate := plan.estimate()) > limit:
        raise QueryError(f"Estimated cardinality ({estimate} rows) exceeds limit ({limit} rows)")
    return plan.run(rows_max if caller.is_owner else rows_max // 10)
