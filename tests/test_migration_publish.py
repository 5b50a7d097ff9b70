"""The recorded cases of migration through the front door: plan, status and body, what becomes of rows and clients."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stdb.actors.updates import migration_token
from stdb.modules.protocol import Module
from stdb.net.routes_publish import PYTHON_MAGIC
from stdb.net.tokens import Credentials
from stdb.schema import raw
from stdb.schema.model import ModuleDef
from stdb.schema.validation import validate
from stdb.testing.storage import MemoryStorage
from tests.http_harness import Door, StandIn, bearer, open_door
from tests.test_actors_database import run

CASES = json.loads((Path(__file__).parent / "vectors" / "migration.json").read_text())["cases"]
OLD, NEW = (PYTHON_MAGIC + which for which in (b"old", b"new"))
BREAKING = " | BreakClients: "
OURS = {
    "view public -> private": "Database Migration Plan\n\n\n▸ Changed access for view v (public → private)",
}
"""Plans where the real server had none, by its own mistake."""


def definition(case: dict[str, Any], which: str) -> ModuleDef:
    return validate(raw.decode(bytes.fromhex(case[f"{which}_definition_hex"])))


def programs(case: dict[str, Any]) -> dict[bytes, Callable[[], Module]]:
    found: dict[bytes, Callable[[], Module]] = {}
    for program, which in ((OLD, "old"), (NEW, "new")):
        defined = definition(case, which)
        views = {view.name: lambda _call, _datastore: [] for view in defined.views}
        found[program] = partial(StandIn, defined, program, {}, views)
    return found


async def sql(door: Door, owner: Credentials, text: str) -> Any:
    answer = await door.send("POST", "/v1/database/case/sql", bearer(owner), text)
    assert answer.status == 200, answer
    return answer.document[0]["rows"]


async def all_rows(door: Door, owner: Credentials, defined: ModuleDef) -> dict[str, list[Any]]:
    tables = [table.name for table in defined.tables if not table.is_event]
    return {name: sorted(await sql(door, owner, f"SELECT * FROM {name}")) for name in tables}


def told(status: int, text: str) -> str:
    return f"{status} ok" if status == 200 else f"{status} {text}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_an_update_does_as_recorded(case: dict[str, Any]) -> None:
    old, new = definition(case, "old"), definition(case, "new")

    async def main() -> None:
        storage = MemoryStorage()
        async with open_door(programs(case), storage=storage) as door:
            owner = door.tokens.mint()
            assert (await door.publish(owner, "case", OLD)).status == 200
            for statement in case["sql_before"] or ():
                await sql(door, owner, statement)
            before = await all_rows(door, owner, old)
            plan = await door.send("POST", "/v1/database/case/pre_publish?style=NoColor", bearer(owner), NEW)
            check_plan(case, plan.status, plan.document)
            answer = await door.publish(owner, "case", NEW)
            assert told(answer.status, answer.text) == f"{case['status']} {case['body']}"
            if answer.status != 200:
                assert await all_rows(door, owner, old) == before, "nothing changed"
            if case["break_clients_publish"]:
                query = f"&policy=BreakClients&token={plan.document['AutoMigrate']['token']}"
                answer = await door.publish(owner, "case", NEW, query)
                assert BREAKING + told(answer.status, answer.text) == case["break_clients_publish"]
            if answer.status == 200:
                assert await all_rows(door, owner, new) == expected_rows(old, new, before)
            database = door.door.host.databases()[0]
            database._actor.datastore.verify()
            check_stored(database._actor.datastore, new if answer.status == 200 else old)

    run(main)


def check_plan(case: dict[str, Any], status: int, document: Any) -> None:
    assert status == 200
    recorded = case["pre_publish"]
    if case["case"] in OURS:
        recorded = {"break_clients": False, "major": False, "plan": OURS[case["case"]]}
    if "ManualMigrate" in recorded:
        assert document == recorded
        return
    assert document["AutoMigrate"]["migrate_plan"].replace("━", "").strip() == recorded["plan"]
    assert document["AutoMigrate"]["break_clients"] == recorded["break_clients"]
    assert document["AutoMigrate"]["major_version_upgrade"] == recorded["major"]


def expected_rows(old: ModuleDef, new: ModuleDef, before: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the rows with what columns were added; of a default the only one in the cases is 7."""
    found = {}
    for table in new.tables:
        if table.is_event:
            continue
        was = old.table(table.name)
        added = [7] * (len(table.columns) - len(was.columns)) if was else []
        found[table.name] = [[*row, *added] for row in before.get(table.name, [])]
    return found


def check_stored(datastore: Any, defined: ModuleDef) -> None:
    """Check that the stored tables are those of a definition, apart from what the catalogue does not hold."""
    stored = [table.schema.definition for table in datastore.tables.values() if not table.schema.is_system]
    assert {each.name: _essence(each) for each in stored} == {each.name: _essence(each) for each in defined.tables}


def _essence(table: Any) -> dict[str, Any]:
    return {
        "columns": [(column.name, column.accessor, column.type) for column in table.columns],
        "indexes": {(each.name, each.algorithm, each.columns, each.source_name or each.name) for each in table.indexes},
        "uniques": {(each.name, frozenset(each.columns)) for each in table.uniques},
        "sequences": {(each.name, each.column, each.increment) for each in table.sequences},
        "schedule": table.schedule and (table.schedule.function, table.schedule.at_column),
        "rest": (table.accessor, table.primary_key, table.access, table.is_event),
    }


def test_the_token_of_a_migration_is_the_recorded_hash() -> None:
    digest = migration_token(bytes(31) + b"\xc2", b"\x11" * 32, b"\x22" * 32)
    assert digest.hex() == "976c5fb35a723a88f9381dfde313121f3c148d4156469b9e57831174a2ceaca8"
    assert f"0x{int.from_bytes(digest, 'little'):x}" == (
        "0xa8accea2741183579e9b4656418d143c1f1213e3fd1d38f9883a725ab35f6c97"
    )
