"""Every case of `vectors/sql_cases.json` for 2.8: accepted or refused, with the text, with the rows.

What is left out stands in LEFT_OUT by id with its reason, and is counted.
"""

import json
from functools import cache
from typing import Any

import pytest

from stdb.datastore.datastore import Datastore
from stdb.errors import QueryError
from stdb.sats.types import Product
from stdb.sql import Caller, SelectStatement, SqlResult, compile_one_off, compile_sql, finish, run_sql, work_of
from stdb.subscriptions import Registry, SubscriptionActor
from tests.sql_schemas import IDENTITIES, OWNER, cases, datastore_of, plain, recorded_texts, sql_of, substitute

LEFT_OUT = {
    "superseded by ORDER BY of full SQL": "sql: 017",
}
LEFT_OUT_COUNTS = {"superseded by ORDER BY of full SQL": 1}

OTHER_VERSIONS = """sub-008 sub-018 sub-050 lit-022 lit-031 lit-048 join-018 sql-031 sql-055 sql-056 sql-057"""
"""Cases that hold only for versions before 2.8."""

SHORTENED = ("sub-046", "sub-047")
"""Cases whose recorded text was cut."""


def _left_out(text: str) -> list[str]:
    """Return the ids that a text of LEFT_OUT lists: a prefix with a colon, then numbers."""
    found, prefix = [], ""
    for word in text.split():
        if word.endswith(":"):
            prefix = word[:-1]
        else:
            found.append(f"{prefix}-{word}")
    return found


SKIPPED = {case_id: reason for reason, text in LEFT_OUT.items() for case_id in _left_out(text)}
CASES = {case["id"]: case for case in cases()["cases"] if case["versions"].endswith("+")}
COVERED = {case_id: case for case_id, case in CASES.items() if case_id not in SKIPPED}

RESULTS = cases()["result_cases"]


def _wanted(case: dict[str, Any]) -> str:
    """Return what stdb must do: the mark `we` wins over what the reference does; what it may accept, it accepts."""
    we = case.get("we", "")
    if we.startswith("may accept"):
        return "accept"
    return we if we in ("accept", "reject") else case["result"]


@cache
def _database(schema: str, with_numbers: bool) -> Datastore:
    return datastore_of(schema, with_numbers=with_numbers)


def _run(case: dict[str, Any]) -> SqlResult | None:
    """Run a case as its surface says; return the result of SQL, None elsewhere."""
    datastore = _database(case["schema"], case["id"].startswith(("ran-lit", "ran-join")))
    identity = IDENTITIES[case["caller"]]
    caller = Caller(identity, identity == OWNER)
    if case["surface"] == "sql":
        return _run_sql(sql_of(case), datastore, caller)
    if case["surface"] == "oneoff":
        compile_one_off(sql_of(case), datastore, caller).rows()
    else:
        _subscribe(case, "multi" if case.get("batch") in (True, None) else "single")
    return None


def _run_sql(text: str, datastore: Datastore, caller: Caller) -> SqlResult:
    """Run a statement; what it changes is undone, for other cases read the same rows."""
    statement = compile_sql(text, datastore, caller)
    if isinstance(statement, SelectStatement):
        return run_sql(text, datastore, caller)
    transaction = datastore.begin(0)
    try:
        return SqlResult(Product(()), [], finish(statement.steps(transaction, work_of(caller))))
    finally:
        transaction.rollback()


def _subscribe(case: dict[str, Any], way: str) -> None:
    datastore = _database(case["schema"], with_numbers=False)
    actor = SubscriptionActor(Registry(datastore, OWNER), IDENTITIES[case["caller"]])
    if way == "multi":
        finish(actor.subscribe_multi(1, [sql_of(case)]))
    else:
        finish(actor.subscribe_single(1, sql_of(case)))


def test_what_is_left_out_is_counted() -> None:
    assert {reason: len(_left_out(text)) for reason, text in LEFT_OUT.items()} == LEFT_OUT_COUNTS
    assert set(SKIPPED) <= set(CASES)
    assert [case["id"] for case in cases()["cases"] if case["id"] not in CASES] == OTHER_VERSIONS.split()
    assert (len(CASES), len(COVERED)) == (1603, 1602)
    assert sum(case_id.startswith("ran-") for case_id in CASES) == 1392
    assert len(RESULTS) == 39


@pytest.mark.parametrize("case_id", COVERED)
def test_a_case_is_answered_as_by_the_real_server(case_id: str) -> None:
    case = COVERED[case_id]
    if _wanted(case) == "accept":
        result = _run(case)
        if "rows_bag_json_text" in case:
            assert result is not None
            wanted = [plain(result.row_type, row) for row in json.loads(substitute(case["rows_bag_json_text"]))]
            assert sorted(map(repr, result.rows)) == sorted(map(repr, wanted))
        if "header" in case:
            assert result is not None
            assert [column.name for column in result.row_type.elements] == case["header"]
        return
    with pytest.raises(QueryError) as refusal:
        _run(case)
    text = substitute(case.get("error_contains", ""))
    if case_id.startswith("ran-"):
        if case["result"] == "reject":
            assert str(refusal.value) == text
    else:
        assert text in str(refusal.value)


@pytest.mark.parametrize("case_id", [each for each in recorded_texts() if each in COVERED and each not in SHORTENED])
def test_a_refused_subscription_gets_the_whole_text_of_the_real_server(case_id: str) -> None:
    case = COVERED[case_id]
    for way, text in recorded_texts()[case_id].items():
        if text == "accepted":
            _subscribe(case, way)
            continue
        with pytest.raises(QueryError) as refusal:
            _subscribe(case, way)
        assert str(refusal.value) == text


@pytest.mark.parametrize("case", RESULTS, ids=lambda case: case["id"])
def test_a_result_case_has_its_rows(case: dict[str, Any]) -> None:
    datastore = datastore_of(case["schema"])
    identity = bytes.fromhex(case["caller_identity"])[::-1] if "caller_identity" in case else OWNER
    result = run_sql(case["sql"], datastore, Caller(identity, identity == OWNER))
    if "row_count" in case:
        assert len(result.rows) == case["row_count"]
    if "rows_bag" in case:
        assert sorted(result.rows) == sorted(plain(result.row_type, row) for row in case["rows_bag"])
    assert "row_count" in case or "rows_bag" in case
