"""Environment: the values of a database's environment variables, as rows of `st_env`.

Responsible for: reading and writing those rows, and that the catalogue has the table once it is used.
Not responsible for: which values there may be (`stdb.schema.environment`).

Source: spec 09 sections 5.4 and 7.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from stdb.schema.system_tables import ENVIRONMENT_TABLE_ID

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore

__all__ = ["list_environment", "read_environment", "write_environment"]


def read_environment(datastore: "Datastore") -> dict[str, str]:
    """Return all values by their names."""
    table = datastore.tables[ENVIRONMENT_TABLE_ID]
    return dict(map(table.schema.codec.decode_exact, table.rows()))


def write_environment(datastore: "Datastore", values: Mapping[str, str]) -> None:
    """Make these the values, within the open transaction; rows that stay are not touched."""
    table, old = datastore.tables[ENVIRONMENT_TABLE_ID], read_environment(datastore)
    encode = table.schema.codec.encode
    for name, value in old.items():
        if values.get(name) != value:
            table.delete(encode((name, value)))
    for name, value in values.items():
        if old.get(name) != value:
            table.insert(encode((name, value)))
    if values:
        list_environment(datastore)


def list_environment(datastore: "Datastore") -> None:
    """Let the catalogue have the table from now on, within the open transaction."""
    if datastore.table("st_table").stored.get(ENVIRONMENT_TABLE_ID) is None:
        datastore.catalog.write(datastore.tables[ENVIRONMENT_TABLE_ID].schema, "system")
