"""stdb: a relational database that is also the server; these are the names that a module's author imports.

Names are loaded when they are first used, so that `import stdb.sats` or `import stdb.client` loads no server.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stdb.errors import DelayTooLong, HttpError, NoSuchIndex, NoSuchRow, ReducerTimeout, StdbError, UniqueViolation
    from stdb.errors import ReducerError as SenderError
    from stdb.modules.python.columns import Index, Unique, auto_inc, column, index, primary_key, unique
    from stdb.modules.python.conditions import between, desc, is_in, is_none, not_, starts_with
    from stdb.modules.python.context import ReducerContext
    from stdb.modules.python.database import Database
    from stdb.modules.python.environment import Variables, environment_variable
    from stdb.modules.python.functions import client_connected, client_disconnected, init, reducer
    from stdb.modules.python.http import ClientResponse, Headers, Request, Response
    from stdb.modules.python.migrations import MigrationContext, OldRow, OldVariant, migrate
    from stdb.modules.python.procedures import ProcedureContext, procedure
    from stdb.modules.python.reader import Query, ReadTable
    from stdb.modules.python.routes import HttpContext, http_route
    from stdb.modules.python.rows import replace
    from stdb.modules.python.rules import client_visibility_filter
    from stdb.modules.python.scalars import (
        f32,
        f64,
        i8,
        i16,
        i32,
        i64,
        i128,
        i256,
        u8,
        u16,
        u32,
        u64,
        u128,
        u256,
    )
    from stdb.modules.python.table import Table
    from stdb.modules.python.tables import product, sum_type, table
    from stdb.modules.python.views import AnonymousViewContext, ViewContext, view
    from stdb.sats.special import Address, ConnectionId, Identity, ScheduleAt, TimeDuration, Timestamp

__all__ = [
    "Address",
    "AnonymousViewContext",
    "ClientResponse",
    "ConnectionId",
    "Database",
    "DelayTooLong",
    "Headers",
    "HttpContext",
    "HttpError",
    "Identity",
    "Index",
    "MigrationContext",
    "NoSuchIndex",
    "NoSuchRow",
    "OldRow",
    "OldVariant",
    "ProcedureContext",
    "Query",
    "ReadTable",
    "ReducerContext",
    "ReducerTimeout",
    "Request",
    "Response",
    "ScheduleAt",
    "SenderError",
    "StdbError",
    "Table",
    "TimeDuration",
    "Timestamp",
    "Unique",
    "UniqueViolation",
    "Variables",
    "ViewContext",
    "auto_inc",
    "between",
    "client_connected",
    "client_disconnected",
    "client_visibility_filter",
    "column",
    "desc",
    "environment_variable",
    "f32",
    "f64",
    "http_route",
    "i8",
    "i16",
    "i32",
    "i64",
    "i128",
    "i256",
    "index",
    "init",
    "is_in",
    "is_none",
    "migrate",
    "not_",
    "primary_key",
    "procedure",
    "product",
    "reducer",
    "replace",
    "starts_with",
    "sum_type",
    "table",
    "u8",
    "u16",
    "u32",
    "u64",
    "u128",
    "u256",
    "unique",
    "view",
]

_PYTHON = "stdb.modules.python."
_HOMES = {
    "stdb.errors": (
        *("DelayTooLong", "HttpError", "NoSuchIndex", "NoSuchRow", "ReducerTimeout", "StdbError", "UniqueViolation"),
    ),
    "stdb.sats.special": ("Address", "ConnectionId", "Identity", "ScheduleAt", "TimeDuration", "Timestamp"),
    _PYTHON + "columns": ("Index", "Unique", "auto_inc", "column", "index", "primary_key", "unique"),
    _PYTHON + "conditions": ("between", "desc", "is_in", "is_none", "not_", "starts_with"),
    _PYTHON + "context": ("ReducerContext",),
    _PYTHON + "database": ("Database",),
    _PYTHON + "environment": ("Variables", "environment_variable"),
    _PYTHON + "functions": ("client_connected", "client_disconnected", "init", "reducer"),
    _PYTHON + "http": ("ClientResponse", "Headers", "Request", "Response"),
    _PYTHON + "migrations": ("MigrationContext", "OldRow", "OldVariant", "migrate"),
    _PYTHON + "procedures": ("ProcedureContext", "procedure"),
    _PYTHON + "reader": ("Query", "ReadTable"),
    _PYTHON + "routes": ("HttpContext", "http_route"),
    _PYTHON + "rows": ("replace",),
    _PYTHON + "rules": ("client_visibility_filter",),
    _PYTHON + "scalars": (
        *(f"{kind}{size}" for kind in "iu" for size in (8, 16, 32, 64, 128, 256)),
        *("f32", "f64"),
    ),
    _PYTHON + "table": ("Table",),
    _PYTHON + "tables": ("product", "sum_type", "table"),
    _PYTHON + "views": ("AnonymousViewContext", "ViewContext", "view"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "SenderError":
        value: Any = import_module("stdb.errors").ReducerError
    elif name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'stdb' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
