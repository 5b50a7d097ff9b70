"""The system tables are those of the real server, to the id and the type."""

import json
from pathlib import Path

from stdb.sats import meta
from stdb.schema.model import Access, IndexAlgorithm
from stdb.schema.system_tables import (
    ENVIRONMENT_TABLE,
    ENVIRONMENT_TABLE_ID,
    SYSTEM_CONSTRAINT_IDS,
    SYSTEM_INDEX_IDS,
    SYSTEM_SEQUENCE_IDS,
    SYSTEM_TABLE_IDS,
    SYSTEM_TABLES,
)

RECORDED = json.loads((Path(__file__).parent / "vectors/schema/system_tables.json").read_text())


def test_tables_have_the_recorded_ids_names_access_and_primary_keys() -> None:
    ours = [
        [
            table_id,
            table.name,
            "system",
            "public" if table.access is Access.PUBLIC else "private",
            [1, []] if table.primary_key is None else [0, [table.primary_key]],
        ]
        for table_id, table in SYSTEM_TABLES
    ]
    assert ours == RECORDED["st_table"]


def test_columns_have_the_recorded_names_and_types() -> None:
    ours = [
        [table_id, position, column.name, meta.encode_type(column.type).hex()]
        for table_id, table in SYSTEM_TABLES
        for position, column in enumerate(table.columns)
    ]
    assert ours == RECORDED["st_column"]


def test_indexes_have_the_recorded_ids_names_and_columns() -> None:
    ours = [
        [SYSTEM_INDEX_IDS[index.name], table_id, index.name, [1, list(index.columns)]]
        for table_id, table in SYSTEM_TABLES
        for index in table.indexes
    ]
    assert sorted(ours) == RECORDED["st_index"]
    assert all(index.algorithm is IndexAlgorithm.BTREE for _, table in SYSTEM_TABLES for index in table.indexes)


def test_constraints_have_the_recorded_ids_names_and_columns() -> None:
    ours = [
        [SYSTEM_CONSTRAINT_IDS[unique.name], unique.name, table_id, [1, list(unique.columns)]]
        for table_id, table in SYSTEM_TABLES
        for unique in table.uniques
    ]
    assert sorted(ours) == RECORDED["st_constraint"]


def test_sequences_have_the_recorded_ids_names_and_starts() -> None:
    ours = [
        [SYSTEM_SEQUENCE_IDS[sequence.name], sequence.name, table_id, sequence.column, 1, sequence.start]
        for table_id, table in SYSTEM_TABLES
        for sequence in table.sequences
    ]
    assert sorted(ours) == [row[:6] for row in RECORDED["st_sequence"]]


def test_ids_are_found_by_name() -> None:
    assert SYSTEM_TABLE_IDS["st_client"] == 7
    assert len(SYSTEM_TABLE_IDS) == 21


def test_the_table_of_the_environment_is_that_of_later_versions() -> None:
    assert SYSTEM_TABLE_IDS["st_env"] == ENVIRONMENT_TABLE_ID == 21
    assert [SYSTEM_INDEX_IDS[index.name] for index in ENVIRONMENT_TABLE.indexes] == [30]
    assert [SYSTEM_CONSTRAINT_IDS[unique.name] for unique in ENVIRONMENT_TABLE.uniques] == [26]
    assert ENVIRONMENT_TABLE.access is Access.PRIVATE
