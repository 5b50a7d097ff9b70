"""Every case of `vectors/sql_cases.json` for 2.8 over one table: accepted or refused, with the text, with the rows.

What is left out stands in LEFT_OUT by id with its reason, and is counted.
"""

import json
import re
from collections import Counter
from functools import cache
from typing import Any

import pytest

from stdb.datastore.datastore import Datastore
from stdb.errors import QueryError
from stdb.sql import Caller, compile_one_off, run_sql
from stdb.subscriptions.actor import SubscriptionActor
from stdb.subscriptions.registry import Registry
from tests.sql_schemas import IDENTITIES, OWNER, cases, datastore_of, plain, recorded_texts, sql_of, substitute

NOT_YET = re.compile(r"Unsupported: (joins|INSERT, UPDATE, DELETE and SET) are not supported yet by this server")
"""What this server answers where the reference accepts and the next issue will."""


def _in_range(case: dict[str, Any]) -> bool:
    """Tell whether a case holds for 2.8: `1.0+`, `2.8+`, but not `0.11-0.12`."""
    return case["versions"].endswith("+")


CASES = [case for case in cases()["cases"] if _in_range(case)]
OTHER_VERSIONS = [case["id"] for case in cases()["cases"] if not _in_range(case)]


def _wanted(case: dict[str, Any]) -> str:
    """Return what stdb must do: the mark `we` wins over what the reference does."""
    we = case.get("we", "")
    return we if we in ("accept", "reject") else case["result"]


@cache
def _database(schema: str, with_numbers: bool) -> Datastore:
    return datastore_of(schema, with_numbers=with_numbers)


def _run(case: dict[str, Any]) -> Any:
    """Run a case as its surface says; return the result of SQL, None elsewhere."""
    datastore = _database(case["schema"], case["id"].startswith("ran-lit"))
    identity = IDENTITIES[case["caller"]]
    text = sql_of(case)
    if case["surface"] == "sql":
        return run_sql(text, datastore, Caller(identity, identity == OWNER))
    if case["surface"] == "oneoff":
        return compile_one_off(text, datastore, Caller(identity, identity == OWNER)).rows()
    for subscribe in _ways(case):
        subscribe(SubscriptionActor(Registry(datastore, OWNER), identity), text)
    return None


def _ways(case: dict[str, Any]) -> list[Any]:
    single = lambda actor, text: actor.subscribe_single(1, text)  # noqa: E731
    multi = lambda actor, text: actor.subscribe_multi(1, [text])  # noqa: E731
    legacy = lambda actor, text: actor.replace_legacy([text])  # noqa: E731
    is_event = "ping_event" in sql_of(case)  # the legacy set takes event tables
    batch = [multi] if is_event else [multi, legacy]
    return {True: batch, False: [single], None: [*batch, single]}[case.get("batch")]
