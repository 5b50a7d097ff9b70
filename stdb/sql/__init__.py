"""SQL: the subscription language, one-off queries and full SQL over the tables of one database."""

from stdb.sql.binder import Caller
from stdb.sql.changes import ChangeStatement, SqlStats
from stdb.sql.execute import (
    QUERY_ROWS_MAX,
    READ_ONLY,
    check_row_limit,
    compile_one_off,
    compile_reading,
    compile_sql,
    compile_statements,
    compile_subscription,
    is_subscribe_to_all,
    quote_name,
    readable_names,
    row_limit,
    run_sql,
    work_of,
)
from stdb.sql.join_plan import JoinPlan
from stdb.sql.language import OLD, PLAIN, Language
from stdb.sql.plan import Edge, Pruning, TablePlan, Trigger
from stdb.sql.query_plan import Branch, QueryPlan
from stdb.sql.row_shape import Picked, RowShape
from stdb.sql.statement import SelectStatement, SqlResult
from stdb.sql.work import Steps, Work, finish

__all__ = [
    "OLD",
    "PLAIN",
    "QUERY_ROWS_MAX",
    "READ_ONLY",
    "Branch",
    "Caller",
    "ChangeStatement",
    "Edge",
    "JoinPlan",
    "Language",
    "Picked",
    "Pruning",
    "QueryPlan",
    "RowShape",
    "SelectStatement",
    "SqlResult",
    "SqlStats",
    "Steps",
    "TablePlan",
    "Trigger",
    "Work",
    "check_row_limit",
    "compile_one_off",
    "compile_reading",
    "compile_sql",
    "compile_statements",
    "compile_subscription",
    "finish",
    "is_subscribe_to_all",
    "quote_name",
    "readable_names",
    "row_limit",
    "run_sql",
    "work_of",
]
