"""SQL: the subscription language, one-off queries and full SQL over the tables of one database."""

from stdb.sql.binder import Caller
from stdb.sql.execute import (
    QUERY_ROWS_MAX,
    SqlPlan,
    SqlResult,
    SqlStats,
    compile_one_off,
    compile_sql,
    compile_subscription,
    is_subscribe_to_all,
    quote_name,
    readable_user_tables,
    row_limit,
    run_sql,
)
from stdb.sql.plan import Pruning, TablePlan

__all__ = [
    "QUERY_ROWS_MAX",
    "Caller",
    "Pruning",
    "SqlPlan",
    "SqlResult",
    "SqlStats",
    "TablePlan",
    "compile_one_off",
    "compile_sql",
    "compile_subscription",
    "is_subscribe_to_all",
    "quote_name",
    "readable_user_tables",
    "row_limit",
    "run_sql",
]
