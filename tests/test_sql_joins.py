"""Which joins may be subscribed to; those that may are refused for now with a text of our own."""

import pytest

from stdb.errors import QueryError
from stdb.sql import Caller, compile_one_off, compile_subscription
from tests.subscriptions_world import ALICE, World

CALLER = Caller(ALICE, is_owner=False)
NOT_YET = "Unsupported: joins are not supported yet by this server"
NO_INDEX = "Subscriptions require indexes on join columns"
EVENTS = "Event tables cannot be used as the lookup table in subscription joins"
SELF = "SELECT p.* FROM item p JOIN item q ON p.kind = q.kind"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT p.* FROM item p JOIN item q ON p.id = q.id", NOT_YET),
        ("SELECT p.* FROM item p JOIN item q ON q.id = p.kind", NOT_YET),
        ("SELECT p.* FROM item p JOIN item q ON p.id = p.kind", NO_INDEX),
        (SELF, NO_INDEX),
        (f"{SELF} WHERE p.size > 1 AND q.owner = :sender", NOT_YET),  # (owner, kind) with the owner fixed
        (f"{SELF} WHERE p.size > 1 AND :sender = q.owner", NOT_YET),
        (f"{SELF} WHERE p.size > 1 AND q.owner > :sender", NO_INDEX),
        (f"{SELF} WHERE q.owner = :sender", NO_INDEX),  # the filtered side drives
        (f"{SELF} WHERE p.owner = :sender", NO_INDEX),
        (f"{SELF} WHERE p.size > 1 OR q.owner = :sender", NO_INDEX),
        ("SELECT p.* FROM item p JOIN item q", NO_INDEX),
        ("SELECT p.* FROM item p CROSS JOIN item q WHERE p.id = q.id", NO_INDEX),
        ("SELECT bag.* FROM bag JOIN ping ON bag.a = ping.a", EVENTS),
        ("SELECT bag.* FROM bag JOIN ping ON bag.a = ping.a WHERE ping.b = 1", NO_INDEX),
        (
            "SELECT p.* FROM item p JOIN item q ON p.id = q.id JOIN item r ON q.id = r.id",
            "Invalid number of tables in subscription: 3",
        ),
    ],
)
def test_a_join_is_judged_by_its_indexes(text: str, message: str) -> None:
    datastore = World().datastore
    with pytest.raises(QueryError) as refusal:
        compile_subscription(text, datastore, CALLER)
    assert str(refusal.value) == message
    with pytest.raises(QueryError) as refusal:  # a one-off query needs no index
        compile_one_off(text, datastore, CALLER)
    assert str(refusal.value) == NOT_YET
