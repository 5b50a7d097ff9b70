"""The recorded module `kitchen` as a stand-in: its definition, and those of its reducers that recorded answers need."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from stdb.datastore.datastore import Datastore
from stdb.modules.protocol import LogSink, ReducerCall
from stdb.schema.model import ModuleDef, TableDef
from tests.http_harness import recorded_definition
from tests.sql_schemas import cases, insert, substitute

__all__ = ["HOOKS", "definition"]


def definition() -> ModuleDef:
    """Return the definition of the recorded module.

    The recorded document has canonical names only; those of the source are in the vectors.
    """
    recorded = recorded_definition("kitchen")
    written = {table["name"]: table for table in cases()["schemas"]["kitchen"]["tables"]}
    tables = tuple(_as_written(table, written[table.name]) for table in recorded.tables)
    return replace(recorded, tables=tables)


def _as_written(table: TableDef, written: dict[str, Any]) -> TableDef:
    names = written.get("column_names_in_the_source", {})
    columns = tuple(replace(column, accessor=names.get(column.name, column.name)) for column in table.columns)
    return replace(table, accessor=written.get("name_in_the_source", table.name), columns=columns)


def fill(call: ReducerCall, datastore: Datastore, _log: LogSink) -> None:
    """Insert the rows that the recorded module has after `init`."""
    identities = {"owner": call.sender}
    for table in cases()["schemas"]["kitchen"]["tables"]:
        rows = json.loads(substitute(table.get("rows_after_init_json_text", "[]"), identities))
        insert(datastore, table["name"], rows, generated=table["auto_inc"])


def note(what: str, call: ReducerCall, datastore: Datastore, _log: LogSink) -> None:
    """Insert a row into `conn_log`, as the recorded module's hooks do."""
    table = datastore.table("conn_log")
    table.insert(table.schema.codec.encode((0, what, call.sender, call.connection_id)))


HOOKS: dict[str, Callable[..., None]] = {
    "init": fill,
    "on_connect": partial(note, "connect"),
    "on_disconnect": partial(note, "disconnect"),
}
"""What its lifecycle reducers do."""
