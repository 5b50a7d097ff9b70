"""The system tables: what a database says of itself in tables of its own.

Responsible for: ids, columns, keys of the `st_*` tables 1 to 21; fixed ids of their indexes, constraints and sequences.
Not responsible for: their rows (`datastore`), who may read them (`sql`).

Source: spec 04 section 12, and the rows of `st_column` of 2.8.3 (the payloads in INDEX_ALGORITHM are bare); spec 09
section 7. Identity, connection id and hash columns are bare U256 and U128. Objects that users make get ids from
USER_ID_FIRST on.
"""

from stdb.sats.types import (
    BOOL,
    BYTES,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    I128,
    STRING,
    U8,
    U16,
    U32,
    U64,
    U128,
    U256,
    AlgebraicType,
    Array,
    Element,
    Sum,
    option,
)
from stdb.schema.model import Access, ColumnDef, IndexAlgorithm, IndexDef, SequenceDef, TableDef, UniqueDef

__all__ = [
    "CONSTRAINT_DATA",
    "ENVIRONMENT_TABLE",
    "ENVIRONMENT_TABLE_ID",
    "INDEX_ALGORITHM",
    "SYSTEM_CONSTRAINT_IDS",
    "SYSTEM_INDEX_IDS",
    "SYSTEM_SEQUENCE_IDS",
    "SYSTEM_TABLES",
    "SYSTEM_TABLE_IDS",
    "USER_ID_FIRST",
    "VARIABLE_VALUE",
]

USER_ID_FIRST = 4096
"""The first id that an object made by a user gets; every id below is reserved."""

_START = USER_ID_FIRST + 1
"""What `st_sequence.start` says of the system's sequences (2.8.3)."""
_COLUMNS = Array(U16)
INDEX_ALGORITHM = Sum(
    (Element("Unused", U128), Element("BTree", _COLUMNS), Element("Direct", U16), Element("Hash", _COLUMNS))
)
"""The type of `st_index.index_algorithm`; its tags are not those of `IndexAlgorithm`."""
CONSTRAINT_DATA = Sum((Element("Unused", U128), Element("Unique", _COLUMNS)))
"""The type of `st_constraint.constraint_data`."""
VARIABLE_VALUE = Sum(
    (
        Element("Bool", BOOL),
        Element("I8", I8),
        Element("U8", U8),
        Element("I16", I16),
        Element("U16", U16),
        Element("I32", I32),
        Element("U32", U32),
        Element("I64", I64),
        Element("U64", U64),
        Element("I128", I128),
        Element("U128", U128),
        Element("F32", F32),
        Element("F64", F64),
        Element("String", STRING),
    )
)
"""The type of `st_var.value`."""


def _table(
    name: str,
    columns: dict[str, AlgebraicType],
    *,
    unique: tuple[str, ...] = (),
    indexes: tuple[str, ...] | None = None,
    sequence: str | None = None,
    primary_key: str | None = None,
    access: Access = Access.PUBLIC,
) -> TableDef:
    """Return a table; `unique` and `indexes` are lists of column names, `a,b` for several columns.

    Every unique constraint has an index; `indexes` names all of them in order where there are more.
    """
    names = tuple(columns)

    def positions(key: str) -> tuple[int, ...]:
        return tuple(names.index(column) for column in key.split(","))

    def named(key: str, suffix: str) -> str:
        return f"{name}_{key.replace(',', '_')}_{suffix}"

    def index(key: str) -> IndexDef:
        generated = named(key, "idx_btree")
        return IndexDef(generated, None, IndexAlgorithm.BTREE, positions(key), generated)

    return TableDef(
        name,
        name,
        type_ref=0,
        columns=tuple(ColumnDef(column, column, type_) for column, type_ in columns.items()),
        primary_key=None if primary_key is None else names.index(primary_key),
        indexes=tuple(index(key) for key in (unique if indexes is None else indexes)),
        uniques=tuple(UniqueDef(named(key, "key"), positions(key)) for key in unique),
        sequences=() if sequence is None else (SequenceDef(named(sequence, "seq"), names.index(sequence), _START),),
        access=access,
    )


SYSTEM_TABLES: tuple[tuple[int, TableDef], ...] = (
    (
        1,
        _table(
            "st_table",
            {
                "table_id": U32,
                "table_name": STRING,
                "table_type": STRING,
                "table_access": STRING,
                "table_primary_key": option(_COLUMNS),
            },
            unique=("table_id", "table_name"),
            sequence="table_id",
            primary_key="table_id",
        ),
    ),
    (
        2,
        _table(
            "st_column",
            {"table_id": U32, "col_pos": U16, "col_name": STRING, "col_type": BYTES},
            unique=("table_id,col_pos",),
        ),
    ),
    (
        3,
        _table(
            "st_sequence",
            {
                "sequence_id": U32,
                "sequence_name": STRING,
                "table_id": U32,
                "col_pos": U16,
                "increment": I128,
                "start": I128,
                "min_value": I128,
                "max_value": I128,
                "allocated": I128,
            },
            unique=("sequence_id",),
            sequence="sequence_id",
            primary_key="sequence_id",
        ),
    ),
    (
        4,
        _table(
            "st_index",
            {"index_id": U32, "table_id": U32, "index_name": STRING, "index_algorithm": INDEX_ALGORITHM},
            unique=("index_id",),
            sequence="index_id",
            primary_key="index_id",
        ),
    ),
    (
        5,
        _table(
            "st_constraint",
            {"constraint_id": U32, "constraint_name": STRING, "table_id": U32, "constraint_data": CONSTRAINT_DATA},
            unique=("constraint_id",),
            sequence="constraint_id",
            primary_key="constraint_id",
        ),
    ),
    (
        6,
        _table(
            "st_module",
            {
                "database_identity": U256,
                "owner_identity": U256,
                "program_kind": U8,
                "program_hash": U256,
                "program_bytes": BYTES,
                "module_version": STRING,
            },
        ),
    ),
    (7, _table("st_client", {"identity": U256, "connection_id": U128}, unique=("identity,connection_id",))),
    (8, _table("st_var", {"name": STRING, "value": VARIABLE_VALUE}, unique=("name",), primary_key="name")),
    (
        9,
        _table(
            "st_scheduled",
            {"schedule_id": U32, "table_id": U32, "reducer_name": STRING, "schedule_name": STRING, "at_column": U16},
            unique=("schedule_id", "table_id"),
            sequence="schedule_id",
            primary_key="schedule_id",
        ),
    ),
    (
        10,
        _table(
            "st_row_level_security",
            {"table_id": U32, "sql": STRING},
            unique=("sql",),
            indexes=("table_id", "sql"),
            primary_key="sql",
        ),
    ),
    (
        11,
        _table(
            "st_connection_credentials",
            {"connection_id": U128, "jwt_payload": STRING},
            unique=("connection_id",),
            primary_key="connection_id",
            access=Access.PRIVATE,
        ),
    ),
    (
        12,
        _table(
            "st_view",
            {"view_id": U32, "view_name": STRING, "table_id": option(U32), "is_public": BOOL, "is_anonymous": BOOL},
            unique=("view_id", "view_name"),
            sequence="view_id",
            primary_key="view_id",
        ),
    ),
    (
        13,
        _table(
            "st_view_param",
            {"view_id": U32, "param_pos": U16, "param_name": STRING, "param_type": BYTES},
            unique=("view_id,param_pos",),
        ),
    ),
    (
        14,
        _table(
            "st_view_column",
            {"view_id": U32, "col_pos": U16, "col_name": STRING, "col_type": BYTES},
            unique=("view_id,col_pos",),
        ),
    ),
    (
        15,
        _table(
            "st_view_sub",
            {
                "view_id": U32,
                "arg_id": U64,
                "identity": U256,
                "num_subscribers": U64,
                "has_subscribers": BOOL,
                "last_called": I64,
            },
            indexes=("identity", "has_subscribers", "view_id,arg_id,identity"),
        ),
    ),
    (
        16,
        _table("st_view_arg", {"id": U64, "bytes": BYTES}, unique=("id", "bytes"), sequence="id", primary_key="id"),
    ),
    (17, _table("st_event_table", {"table_id": U32}, unique=("table_id",), primary_key="table_id")),
    (
        18,
        _table(
            "st_table_accessor",
            {"table_name": STRING, "accessor_name": STRING},
            unique=("table_name", "accessor_name"),
        ),
    ),
    (
        19,
        _table(
            "st_index_accessor",
            {"index_name": STRING, "accessor_name": STRING},
            unique=("index_name", "accessor_name"),
        ),
    ),
    (
        20,
        _table(
            "st_column_accessor",
            {"table_name": STRING, "col_name": STRING, "accessor_name": STRING},
            unique=("table_name,col_name", "table_name,accessor_name"),
        ),
    ),
)
"""Every system table of 2.8.3 with its id, in the order of the ids."""

ENVIRONMENT_TABLE_ID = 21
ENVIRONMENT_TABLE = _table(
    "st_env", {"key": STRING, "value": STRING}, unique=("key",), primary_key="key", access=Access.PRIVATE
)
"""The values of environment variables (2.11). Every database has it, the catalogue only of those that use it."""

SYSTEM_TABLE_IDS: dict[str, int] = {
    **{table.name: table_id for table_id, table in SYSTEM_TABLES},
    ENVIRONMENT_TABLE.name: ENVIRONMENT_TABLE_ID,
}
"""Ids of the system tables by name."""
SYSTEM_INDEX_IDS: dict[str, int] = {
    **{name: i for i, name in enumerate((index.name for _, table in SYSTEM_TABLES for index in table.indexes), 1)},
    "st_env_key_idx_btree": 30,
}
"""Ids of their indexes by name: in the order of the tables."""
SYSTEM_CONSTRAINT_IDS: dict[str, int] = {
    **{name: i for i, name in enumerate((unique.name for _, table in SYSTEM_TABLES for unique in table.uniques), 1)},
    "st_env_key_key": 26,
}
"""Ids of their unique constraints by name: in the order of the tables."""
SYSTEM_SEQUENCE_IDS: dict[str, int] = {
    "st_table_table_id_seq": 1,
    "st_index_index_id_seq": 2,
    "st_constraint_constraint_id_seq": 3,
    "st_scheduled_schedule_id_seq": 4,
    "st_sequence_sequence_id_seq": 5,
    "st_view_view_id_seq": 6,
    "st_view_arg_id_seq": 7,
}
"""Ids of their sequences by name; these do not follow the order of the tables."""
