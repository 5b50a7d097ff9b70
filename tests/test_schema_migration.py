"""Plans of migration against the real server's answers: `vectors/migration.json`, definitions as bytes."""

import json
from pathlib import Path
from typing import Any

import pytest

from stdb.schema import migration, raw, validation
from stdb.schema.migration import ChangeColumns, CreateIndex, CreateUnique, DropIndex, plan_tables

CASES = json.loads((Path(__file__).parent / "vectors" / "migration.json").read_text())["cases"]
OF_VIEWS_AND_RULES = ("view", "rls")


def _plan(case: dict[str, Any]) -> migration.TablePlan:
    old, new = (
        validation.validate(raw.decode(bytes.fromhex(case[key])))
        for key in ("old_definition_hex", "new_definition_hex")
    )
    return plan_tables(old, new)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_what_is_refused_is_what_the_real_server_refuses_in_its_words(case: dict[str, Any]) -> None:
    plan = _plan(case)
    answer = case["pre_publish"]
    refused = answer.get("ManualMigrate") if isinstance(answer, dict) else None
    if refused is None:
        assert plan.refusals == ()
    else:
        assert "Errors occurred:\n" + "".join(f"{each.text}\n\n" for each in plan.refusals) == refused["reason"]
        assert {each.table for each in plan.refusals} == {"t"}


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in CASES
        if isinstance(case["pre_publish"], dict)
        and "ManualMigrate" not in case["pre_publish"]
        and not any(word in case["case"] for word in OF_VIEWS_AND_RULES)
    ],
    ids=lambda case: case["case"],
)
def test_clients_have_to_come_again_where_the_real_server_says_so(case: dict[str, Any]) -> None:
    plan = _plan(case)
    assert plan.breaks_clients == case["pre_publish"]["break_clients"]
    says_nothing = case["pre_publish"]["plan"] == "Database Migration Plan"
    assert (plan.steps == ()) == says_nothing


def _steps(name: str) -> list[type]:
    (case,) = (case for case in CASES if case["case"] == name)
    return [type(step) for step in _plan(case).steps]


def test_an_index_of_another_kind_goes_before_it_comes_and_before_a_constraint_needs_it() -> None:
    assert _steps("index btree -> hash") == [DropIndex, CreateIndex]
    assert _steps("add unique + new index") == [CreateIndex, CreateUnique]


def test_a_variant_at_the_end_changes_columns_alone() -> None:
    assert _steps("enum: variant added at end") == [ChangeColumns]
