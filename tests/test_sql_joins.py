"""Which joins may be subscribed to, what a join returns, what a transaction changes in it, how it is estimated."""

import pytest

from stdb.errors import QueryError
from stdb.sql import Caller, compile_one_off, compile_subscription
from tests.subscriptions_world import ALICE, World

CALLER = Caller(ALICE, is_owner=False)
NO_INDEX = "Subscriptions require indexes on join columns"
EVENTS = "Event tables cannot be used as the lookup table in subscription joins"
SELF = "SELECT p.* FROM item p JOIN item q ON p.kind = q.kind"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT p.* FROM item p JOIN item q ON p.id = q.id", None),
        ("SELECT p.* FROM item p JOIN item q ON q.id = p.kind", None),
        ("SELECT p.* FROM item p JOIN item q ON p.id = p.kind", NO_INDEX),
        (SELF, NO_INDEX),
        (f"{SELF} WHERE p.size > 1 AND q.owner = :sender", None),  # (owner, kind) with the owner fixed
        (f"{SELF} WHERE p.size > 1 AND :sender = q.owner", None),
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
def test_a_join_is_judged_by_its_indexes(text: str, message: str | None) -> None:
    datastore = World().datastore
    if message is None:
        assert len(compile_subscription(text, datastore, CALLER).tables) == 2
    else:
        with pytest.raises(QueryError) as refusal:
            compile_subscription(text, datastore, CALLER)
        assert str(refusal.value) == message
    assert len(compile_one_off(text, datastore, CALLER).tables) >= 2  # a one-off query needs no index
